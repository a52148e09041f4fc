import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import type { Batch, Store } from '../src/store/store.ts';
import { notebook, notebookAddress } from './notebook.ts';
import { makeHost, openNotebooks, storedTurns } from './place.ts';
import { type Bench, Samples } from './report.ts';

/**
 * After a crash: 10 000 actors, each with a message that waits in the SQLite file, until every message is handled
 * and stored.
 *
 * How: a file is prepared once (the actors by a host, the messages as a crash between two commits leaves them) and
 * copied for each run. `open` is opening the store: the writer's thread, SQLite, migrations, the lock. `read what
 * waits` is the host's `open`: all messages, timers and effects. Then the actors are read in groups while those that
 * are there already take their turns; `load` is the time in which actors were being read, `handle` the rest until
 * the last turn is committed. Durability `full`.
 *
 * Cheating would be: counting a message as handled before its turn is committed, a clean shutdown before, or actors
 * that are in memory already. The file is in the system's page cache, as after a restart of the process; after a
 * restart of the machine its first reading comes on top.
 */
export const recovery: Bench = {
  title: 'Recovery',
  async run({ quick, runs, directory }) {
    const samples = new Samples();
    const count = quick ? 200 : 10_000;
    const prepared = join(directory, 'prepared.db');
    await prepare(prepared, count);
    for (let run = 0; run < runs; run++) {
      const path = join(directory, `run-${run}.db`);
      await copyFile(prepared, path);
      for (const [name, milliseconds] of await recover(path, count)) {
        samples.add(name, milliseconds);
      }
      await rm(path);
    }
    const parts = [
      'open the store',
      'read what waits',
      'load the actors',
      'handle',
      'all',
      'CPU of all threads',
    ];
    return [
      {
        columns: ['actors, each with a message', ...parts.map((part) => `${part}, ms`)],
        rows: [[String(count), ...parts.map((part) => samples.of(part))]],
      },
    ];
  },
};

const NOTHING: Batch = {
  actors: [],
  checkpoints: [],
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
};

async function prepare(path: string, count: number): Promise<void> {
  const store = await openSqliteStore({ path, durability: 'normal' });
  const host = await openNotebooks(store, count);
  await store.commit({
    ...NOTHING,
    messages: Array.from({ length: count }, (_, name) => ({
      id: `app/client#${name}`,
      from: 'app/client',
      to: notebookAddress(name),
      priority: 2 as const,
      sentAt: Date.now(),
      messageJson: JSON.stringify({ type: 'note.add' }),
      correlation: null,
      attempt: null,
      reply: false,
    })),
  });
  await host.stop();
}

async function recover(
  path: string,
  count: number,
): Promise<readonly (readonly [string, number])[]> {
  const cpuBefore = process.cpuUsage();
  const begin = performance.now();
  const store = await openSqliteStore({ path, durability: 'full' });
  const opened = performance.now();
  const loading = timeLoading(store);
  const host = makeHost(store);
  host.register('notebook', notebook);
  const handled = new Promise<void>((resolve) => {
    let turns = 0;
    host.events.on('turn', () => {
      if (++turns === count) resolve();
    });
  });
  await host.open();
  const read = performance.now();
  await handled;
  const end = performance.now();
  const cpu = process.cpuUsage(cpuBefore);
  const stored = await storedTurns(store);
  await host.stop();
  if (stored !== count) throw new Error(`Expected ${count} stored turns, got ${stored}.`);
  return [
    ['open the store', opened - begin],
    ['read what waits', read - opened],
    ['load the actors', loading.ms],
    ['handle', end - read - loading.ms],
    ['all', end - begin],
    ['CPU of all threads', (cpu.user + cpu.system) / 1000],
  ];
}

/** How long the store was being asked for actors; questions that overlap count once. */
function timeLoading(store: Store): { readonly ms: number } {
  const time = { ms: 0 };
  let asked = 0;
  let since = 0;
  const load = store.loadActors.bind(store);
  store.loadActors = async (addresses) => {
    if (asked++ === 0) since = performance.now();
    try {
      return await load(addresses);
    } finally {
      if (--asked === 0) time.ms += performance.now() - since;
    }
  };
  return time;
}
