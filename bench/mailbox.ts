import { setImmediate as nextTurnOfLoop } from 'node:timers/promises';
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
 * nothing else goes on; then while the thousandth is flooded: thousands of messages wait for it whenever a request is
 * made, and still some when it was answered, or the bench fails. `critical`: to one actor that has nothing else to do;
 * then of the highest class while as many of the lowest wait in front of it as its mailbox takes, handed in anew for each;
 * and, for comparison, of the lowest class behind those. The flood is handed in, and whoever did so has gone on, before
 * the clock runs: what it costs to send it is not in the figures.
 *
 * Cheating would be: a flood that is over when the clock starts, and a busy actor that is skipped instead of having its
 * turns. The turns of the flood that a request waits for are in its time. The flood changes no state: this is not about
 * the store.
 */
export const mailbox: Bench = {
  title: 'Mailboxes under load',
  async run({ quick, runs }) {
    const samples = new Samples();
    const actors = quick ? 20 : 1_000;
    const backlog = quick ? 1_000 : 9_999;
    for (let run = 0; run <= runs; run++) {
      // The first round only warms up.
      const note = run === 0 ? () => undefined : samples.add.bind(samples);
      const host = await openNotebooks(new MemoryStore(), actors);
      for (const [name, flood] of [
        ['alone', 0],
        ['flooded', backlog],
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
  const names = Array.from({ length: actors - 1 }, (_, name) => notebookAddress(name));
  const times = new Float64Array(names.length);
  for (const [i, name] of names.entries()) {
    if (flood > 0 && waiting(host) < flood / 2) await sendLow(host, busy, flood - waiting(host));
    const before = performance.now();
    await host.request(name, PEEK, TRANSIENT);
    times[i] = performance.now() - before;
    if (flood > 0) expectWaiting(host);
  }
  while (waiting(host) > 0) await nextTurnOfLoop();
  return times.sort();
}

async function timeBehind(
  host: DurableHost,
  repeat: number,
  backlog: number,
  priority: (typeof PRIORITIES)['critical'] | (typeof PRIORITIES)['low'],
): Promise<Float64Array> {
  const address = notebookAddress(0);
  const times = new Float64Array(repeat);
  for (let i = 0; i < repeat; i++) {
    await sendLow(host, address, backlog);
    if (backlog > 0) expectWaiting(host);
    const before = performance.now();
    await host.request(address, PEEK, { ...TRANSIENT, priority, timeoutMs: 60_000 });
    times[i] = performance.now() - before;
    if (backlog > 0 && priority === PRIORITIES.critical) expectWaiting(host);
    // The rest is over before the next.
    while (waiting(host) > 0) await nextTurnOfLoop();
  }
  return times.sort();
}

/** Messages in mailboxes. */
function waiting({ counts }: DurableHost): number {
  return counts.sent - counts.delivered;
}

function expectWaiting(host: DurableHost): void {
  if (waiting(host) === 0) throw new Error('Expected the flood to go on, but nothing waits.');
}

/** Hands them in. @returns when whoever did so goes on; most of them wait then */
function sendLow(host: DurableHost, to: Address, count: number): Promise<unknown> {
  const options = { ...TRANSIENT, priority: PRIORITIES.low };
  return Promise.all(Array.from({ length: count }, () => host.send(to, PEEK, options)));
}
