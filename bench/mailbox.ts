import type { Address } from '../src/protocol/address.ts';
import { PRIORITIES } from '../src/protocol/priority.ts';
import type { DurableHost } from '../src/runtime/durable-host.ts';
import { MemoryStore } from '../src/store/memory/memory-store.ts';
import { notebookAddress, PEEK } from './notebook.ts';
import { openNotebooks } from './place.ts';
import { type Bench, percentile, Samples } from './report.ts';

const TRANSIENT = { delivery: 'transient' } as const;

/**
 * What one busy actor costs the others, and what a class of priority is worth.
 *
 * How: requests that are not stored, one after the other, each timed by itself. `others`: to 999 actors in turn while
 * nothing else goes on; then while the thousandth is flooded, so that it has some fifty messages waiting whenever a
 * request is made (they are handed in before the clock runs). `critical`: to one actor that has nothing else to do; then
 * of the highest class while as many of the lowest wait in front of it as its mailbox takes, handed in anew for each; and, for
 * comparison, of the lowest class behind those.
 *
 * Cheating would be: a flood that is over when the clock starts, and a busy actor that is skipped instead of having its
 * turns. The turns of the flood that a request waits for are in its time, and so is the batch they are in: an answer
 * leaves when the batch is done (256 turns or 2 ms, at most). The flood changes no state: this is not about the store.
 */
export const mailbox: Bench = {
  title: 'Mailboxes under load',
  async run({ quick, runs }) {
    const samples = new Samples();
    const actors = quick ? 20 : 1_000;
    const backlog = quick ? 100 : 9_999;
    for (let run = 0; run <= runs; run++) {
      // The first round only warms up.
      const note = run === 0 ? () => undefined : samples.add.bind(samples);
      const host = await openNotebooks(new MemoryStore(), actors);
      for (const [name, flood] of [
        ['alone', 0],
        ['flooded', 50],
      ] as const) {
        const times = await timeOthers(host, actors, flood);
        note(`${name} p50`, percentile(times, 0.5) * 1000);
        note(`${name} p99`, percentile(times, 0.99) * 1000);
      }
      const repeat = quick ? 2 : 5;
      for (const [name, waiting, priority] of [
        ['idle', 0, PRIORITIES.critical],
        ['critical', backlog, PRIORITIES.critical],
        ['low', backlog, PRIORITIES.low],
      ] as const) {
        const times = await timeBehind(host, repeat, waiting, priority);
        note(name, percentile(times, 0.5) * 1000);
      }
      await host.stop();
    }
    return [
      {
        columns: ['request to 999 actors', 'p50 µs', 'p99 µs', 'p50 : alone'],
        rows: [
          ['nothing else goes on', samples.of('alone p50'), samples.of('alone p99'), '1'],
          [
            'while the thousandth is flooded',
            samples.of('flooded p50'),
            samples.of('flooded p99'),
            samples.ratio('flooded p50', 'alone p50'),
          ],
        ],
      },
      {
        columns: ['request to one actor', 'p50 µs', ': nothing waits'],
        rows: [
          ['nothing waits', samples.of('idle'), '1'],
          [
            `critical, ${backlog} low ones wait`,
            samples.of('critical'),
            samples.ratio('critical', 'idle'),
          ],
          [`low, behind ${backlog} low ones`, samples.of('low'), samples.ratio('low', 'idle')],
        ],
      },
    ];
  },
};

async function timeOthers(host: DurableHost, actors: number, flood: number): Promise<Float64Array> {
  const busy = notebookAddress(actors - 1);
  const times = new Float64Array(actors - 1);
  for (let name = 0; name < times.length; name++) {
    const handedIn = sendLow(host, busy, flood);
    const before = performance.now();
    await host.request(notebookAddress(name), PEEK, TRANSIENT);
    times[name] = performance.now() - before;
    await handedIn;
  }
  return times.sort();
}

async function timeBehind(
  host: DurableHost,
  repeat: number,
  waiting: number,
  priority: (typeof PRIORITIES)['critical'] | (typeof PRIORITIES)['low'],
): Promise<Float64Array> {
  const address = notebookAddress(0);
  const times = new Float64Array(repeat);
  for (let i = 0; i < repeat; i++) {
    const handedIn = sendLow(host, address, waiting);
    const before = performance.now();
    await host.request(address, PEEK, { ...TRANSIENT, priority, timeoutMs: 60_000 });
    times[i] = performance.now() - before;
    await handedIn;
    // The rest is over before the next.
    await host.request(address, PEEK, { ...TRANSIENT, priority: 1, timeoutMs: 60_000 });
  }
  return times.sort();
}

/** Hands them in, all before anybody has a turn. */
function sendLow(host: DurableHost, to: Address, count: number): Promise<unknown> {
  const options = { ...TRANSIENT, priority: PRIORITIES.low };
  return Promise.all(Array.from({ length: count }, () => host.send(to, PEEK, options)));
}
