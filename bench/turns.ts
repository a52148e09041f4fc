import { notebookAddress } from './notebook.ts';
import {
  keepOutstanding,
  openNotebooks,
  openStore,
  STORES,
  type StoreKind,
  storedTurns,
} from './place.ts';
import { type Bench, type BenchOptions, Samples, type Table } from './report.ts';

const ACTORS = 500;
const OUTSTANDING = [1, 32, 256] as const;

/**
 * Durable turns per second: a message from outside, its turn, and a checkpoint of about 500 bytes, all stored.
 *
 * How: so many clients each send a message, wait until the turn that it led to is committed, and send the next one.
 * Then the store is asked how many turns it holds, and that number is divided by the time: turns that were not stored
 * do not count. Each figure has a new database file.
 *
 * Beside it, in the same run: the same rows handed to the same store as ready-made batches of 256, two on their way
 * at once. That is what the disk and SQLite allow; the share of it that is reached is the runtime's doing. And the CPU
 * time of a turn, which says who is the bottleneck: the main thread, or the others (the store's writer, and V8's own).
 *
 * Cheating would be: one checkpoint for several turns, messages that are not waited for, a tmpfs, `normal` called
 * durable, or a state so small that it costs nothing to store.
 */
export const turns: Bench = {
  title: 'Durable turns per second',
  async run(options: BenchOptions): Promise<readonly Table[]> {
    const samples = new Samples();
    const milliseconds = options.quick ? 40 : 1200;
    for (let run = 0; run < options.runs; run++) {
      for (const kind of STORES) {
        for (const outstanding of OUTSTANDING) {
          const sent = await sendFor(milliseconds, kind, outstanding, options.directory);
          samples.add(`${kind} ${outstanding}`, sent.perSecond);
          samples.add(`${kind} ${outstanding} main`, sent.mainCpu);
          samples.add(`${kind} ${outstanding} others`, sent.otherCpu);
        }
        samples.add(`${kind} alone`, await storeAlone(milliseconds, kind, options.directory));
      }
    }
    return [
      {
        columns: [
          'store',
          ...OUTSTANDING.map((n) => `${n} outstanding, turns/s`),
          'the store alone, turns/s',
          '256 outstanding : store alone',
          'at 256, CPU of the main thread, µs per turn',
          'of the other threads, µs per turn',
        ],
        rows: STORES.map((kind) => [
          kind,
          ...OUTSTANDING.map((n) => samples.of(`${kind} ${n}`)),
          samples.of(`${kind} alone`),
          samples.ratio(`${kind} 256`, `${kind} alone`),
          samples.of(`${kind} 256 main`),
          samples.of(`${kind} 256 others`),
        ]),
      },
    ];
  },
};

async function sendFor(
  milliseconds: number,
  kind: StoreKind,
  outstanding: number,
  directory: string,
): Promise<{ readonly perSecond: number; readonly mainCpu: number; readonly otherCpu: number }> {
  const store = await openStore(kind, directory);
  const host = await openNotebooks(store, ACTORS);
  const clients = (until: number): Promise<void> =>
    keepOutstanding(host, outstanding, ACTORS, () => performance.now() < until);
  await clients(performance.now() + milliseconds / 4);
  const before = await storedTurns(store);
  const mainBefore = process.threadCpuUsage();
  const allBefore = process.cpuUsage();
  const begin = performance.now();
  await clients(begin + milliseconds);
  const seconds = (performance.now() - begin) / 1000;
  const main = process.threadCpuUsage(mainBefore);
  const all = process.cpuUsage(allBefore);
  const taken = (await storedTurns(store)) - before;
  await host.stop();
  const mainUs = main.user + main.system;
  return {
    perSecond: taken / seconds,
    mainCpu: mainUs / taken,
    otherCpu: (all.user + all.system - mainUs) / taken,
  };
}

async function storeAlone(
  milliseconds: number,
  kind: StoreKind,
  directory: string,
): Promise<number> {
  const store = await openStore(kind, directory);
  const snapshotJson = JSON.stringify({
    status: 'active',
    value: 'open',
    context: { name: 100, count: 100, text: '.'.repeat(420) },
  });
  const eventJson = JSON.stringify({
    type: 'note.add',
    meta: {
      id: 'app/client#f2b5c9d8-2f3c-4b43-8d36-6f9f65d3f3f7',
      from: 'app/client',
      at: Date.now(),
    },
  });
  let turn = 0;
  const commit = async (): Promise<void> => {
    const addresses = Array.from({ length: 256 }, (_, i) => notebookAddress((turn + i) % ACTORS));
    const seqs = addresses.map((_, i) => Math.floor((turn + i) / ACTORS));
    turn += addresses.length;
    await store.commit({
      actors: addresses.map((address, i) => ({
        address,
        machine: 'notebook',
        version: 1,
        status: 'active',
        seq: seqs[i] as number,
        parent: null,
        reason: null,
        updatedAt: turn,
      })),
      checkpoints: addresses.map((address, i) => ({
        address,
        seq: seqs[i] as number,
        at: turn,
        kind: 'auto',
        label: null,
        version: 1,
        eventJson,
        snapshotJson,
        pendingJson: null,
        detailsJson: null,
      })),
      consumed: [],
      messages: [],
      clearedTimers: [],
      timers: [],
      clearedEffects: [],
      effects: [],
      steps: [],
      clearedSteps: [],
      clearedIdempotency: [],
      idempotency: [],
      deadLetters: [],
      projections: [],
      removedAttempts: [],
      claims: [],
      cuts: [],
    });
  };
  for (let i = 0; i < 4; i++) await commit();
  const before = turn;
  const begin = performance.now();
  const writer = async (): Promise<void> => {
    while (performance.now() < begin + milliseconds) await commit();
  };
  await Promise.all([writer(), writer()]);
  const seconds = (performance.now() - begin) / 1000;
  await store.close();
  return (turn - before) / seconds;
}
