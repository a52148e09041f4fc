import type { DurableHost } from '../src/runtime/durable-host.ts';
import { ASK, notebookAddress } from './notebook.ts';
import { openNotebooks, openStore, STORES, storedTurns } from './place.ts';
import { type Bench, percentile, Samples, timeEach } from './report.ts';

const ACTORS = 64;
const CLIENTS = 64;

/**
 * A durable request and its answer: how long the asker waits.
 *
 * How: `host.request` to an actor that changes its state and answers. The answer leaves the host only when the turn
 * that gave it is committed, so each request waits for a flush (`full`: of the disk). First one after the other by one
 * client; then 64 clients, each with one request on its way, to 64 actors. In the end the store must hold one turn
 * for every answer.
 *
 * Cheating would be: a request that changes nothing (there would be nothing to store, and nothing is then waited
 * for), answering before the commit, or giving the mean where most requests are fast and some are not.
 */
export const request: Bench = {
  title: 'Durable request and response',
  async run({ quick, runs, directory }) {
    const samples = new Samples();
    const sequential = quick ? 50 : 2000;
    const concurrent = quick ? 200 : 20_000;
    for (let run = 0; run < runs; run++) {
      for (const kind of STORES) {
        const store = await openStore(kind, directory);
        const host = await openNotebooks(store, ACTORS);
        const ask = (i: number) => host.request(notebookAddress(i % ACTORS), ASK);
        await timeEach(sequential / 5, ask); // warm

        const alone = await timeEach(sequential, ask);
        samples.add(`${kind} p50`, percentile(alone, 0.5));
        samples.add(`${kind} p99`, percentile(alone, 0.99));

        const begin = performance.now();
        const together = await askTogether(host, concurrent);
        samples.add(`${kind} per s`, concurrent / ((performance.now() - begin) / 1000));
        samples.add(`${kind} p50 of 64`, percentile(together, 0.5));
        samples.add(`${kind} p99 of 64`, percentile(together, 0.99));

        const expected = sequential / 5 + sequential + concurrent;
        const stored = await storedTurns(store);
        await host.stop();
        if (stored !== expected) {
          throw new Error(
            `Expected ${expected} turns in the store, one per answer, got ${stored}.`,
          );
        }
      }
    }
    return [
      {
        columns: [
          'store',
          'one client, p50 ms',
          'one client, p99 ms',
          '64 clients, requests/s',
          '64 clients, p50 ms',
          '64 clients, p99 ms',
        ],
        rows: STORES.map((kind) => [
          kind,
          ...['p50', 'p99', 'per s', 'p50 of 64', 'p99 of 64'].map((what) =>
            samples.of(`${kind} ${what}`),
          ),
        ]),
      },
    ];
  },
};

async function askTogether(host: DurableHost, count: number): Promise<Float64Array> {
  const times = new Float64Array(count);
  let next = 0;
  const client = async (name: number): Promise<void> => {
    for (let i = next++; i < count; i = next++) {
      const before = performance.now();
      await host.request(notebookAddress(name), ASK);
      times[i] = performance.now() - before;
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, (_, name) => client(name)));
  return times.sort();
}
