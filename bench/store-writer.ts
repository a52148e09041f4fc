/**
 * Should SQLite run on the main thread or on one of its own? Both ways of driving the same connection, with
 * the same turns. Run: node bench/store-writer.ts [seconds per figure, default 2] [directory, default /tmp]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as nextTurnOfLoop } from 'node:timers/promises';
import { flattenBatch } from '../src/store/sqlite/batch-rows.ts';
import { readMigrations } from '../src/store/sqlite/migrations.ts';
import { openDatabase } from '../src/store/sqlite/open-database.ts';
import { SqliteConnection } from '../src/store/sqlite/sqlite-connection.ts';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import type { Batch } from '../src/store/store.ts';

type Durability = 'full' | 'normal';
interface Driver {
  commit(batch: Batch): Promise<void>;
  close(): Promise<void>;
}

async function openOnMainThread(path: string, durability: Durability): Promise<Driver> {
  const { db } = await openDatabase({
    path,
    durability,
    migrations: readMigrations(),
    mayReadBytes: true,
    closedCleanly: true,
    busyLimitMs: 1000,
    onWarning: console.warn,
  });
  const connection = new SqliteConnection(db, path);
  return {
    commit(batch) {
      connection.begin();
      connection.apply(flattenBatch(batch), () => undefined);
      connection.commit();
      return Promise.resolve();
    },
    close: () => Promise.resolve(connection.close()),
  };
}

const drivers = {
  'main thread': openOnMainThread,
  worker: (path: string, durability: Durability): Promise<Driver> =>
    openSqliteStore({ path, durability }),
};

const ACTORS = 500;
const snapshotJson = JSON.stringify({ value: 'working', context: { notes: 'x'.repeat(450) } });
const messageJson = JSON.stringify({ type: 'task.progress', note: 'y'.repeat(150) });
let turns = 0;

/** Each turn: an actor, its checkpoint, and a message that is either sent or taken. */
function batchOf(size: number): Batch {
  const batch = {
    actors: [] as Batch['actors'][number][],
    checkpoints: [] as Batch['checkpoints'][number][],
    consumed: [] as string[],
    messages: [] as Batch['messages'][number][],
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
  for (let i = 0; i < size; i++) {
    const seq = turns++;
    const address = `agent/number-${seq % ACTORS}`;
    batch.actors.push({
      address,
      machine: 'agent',
      version: 1,
      status: 'active',
      seq,
      parent: null,
      reason: null,
      updatedAt: seq,
    });
    batch.checkpoints.push({
      address,
      seq,
      at: seq,
      kind: 'auto',
      label: null,
      version: 1,
      eventJson: messageJson,
      snapshotJson,
      pendingJson: null,
      detailsJson: null,
    });
    if (seq % 2 === 1) batch.consumed.push(`message-${seq - 1}`);
    else {
      batch.messages.push({
        id: `message-${seq}`,
        from: address,
        to: `agent/number-${(seq + 1) % ACTORS}`,
        priority: 2,
        sentAt: seq,
        messageJson,
        correlation: null,
        attempt: null,
        reply: false,
      });
    }
  }
  return batch;
}

const percentile = (sorted: readonly number[], p: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0;

/** @param inFlight commits that wait at the same time */
async function measure(driver: Driver, size: number, inFlight: number, seconds: number) {
  const roundTrips: number[] = [];
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const begin = performance.now();
  const end = begin + seconds * 1000;
  const client = async (): Promise<void> => {
    while (performance.now() < end) {
      const batch = batchOf(size);
      const sent = performance.now();
      await driver.commit(batch);
      roundTrips.push(performance.now() - sent);
      // Timers, sockets and the monitor get their turn, as in a program.
      await nextTurnOfLoop();
    }
  };
  await Promise.all(Array.from({ length: inFlight }, client));
  const elapsedS = (performance.now() - begin) / 1000;
  delay.disable();
  roundTrips.sort((a, b) => a - b);
  return {
    commitsPerS: roundTrips.length / elapsedS,
    turnsPerS: (roundTrips.length * size) / elapsedS,
    p50Ms: percentile(roundTrips, 0.5),
    p99Ms: percentile(roundTrips, 0.99),
    loopP99Ms: delay.percentile(99) / 1e6,
    loopMaxMs: delay.max / 1e6,
  };
}

const seconds = Number(process.argv[2] ?? 2);
const root = mkdtempSync(join(process.argv[3] ?? tmpdir(), 'troupe-bench-'));
console.log(
  '| durability | turns per commit | in flight | driver | commits/s | turns/s | round trip p50 / p99 ms | loop delay p99 / max ms |\n|---|---|---|---|---|---|---|---|',
);
try {
  for (const durability of ['full', 'normal'] as const) {
    for (const [size, inFlight] of [
      [1, 1],
      [1, 16],
      [32, 1],
      [32, 4],
      [256, 1],
      [256, 4],
    ] as const) {
      for (const [name, open] of Object.entries(drivers)) {
        const driver = await open(
          join(root, `${durability}-${size}-${inFlight}-${name}.db`),
          durability,
        );
        await measure(driver, size, inFlight, seconds / 4);
        const m = await measure(driver, size, inFlight, seconds);
        await driver.close();
        console.log(
          `| ${durability} | ${size} | ${inFlight} | ${name} | ${m.commitsPerS.toFixed(0)} | ${m.turnsPerS.toFixed(0)} | ${m.p50Ms.toFixed(2)} / ${m.p99Ms.toFixed(2)} | ${m.loopP99Ms.toFixed(1)} / ${m.loopMaxMs.toFixed(0)} |`,
        );
      }
    }
  }
} finally {
  rmSync(root, { recursive: true, force: true });
}
