import { readFileSync } from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { Life, randomFrom, scratch } from './life.ts';
import type { StreamOrders } from './streams.child.ts';

/*
 * A stream whose writer, with its reader, is killed with SIGKILL again and again in the middle. Two witnesses: what the
 * readers of all lives were given, one after the other, and what is stored.
 */

const CHUNKS = 90;
const KILLS = 6;

const POINTS = [
  'store.mid-transaction',
  'store.before-commit',
  'store.after-commit',
  'host.before-commit',
  'host.after-commit',
] as const;

/** What is stored: without a gap, each once, by one writer who always wrote the same. */
function checkStore(store: string): number {
  const db = new Database(store, { readonly: true });
  try {
    const rows = db
      .prepare(
        `SELECT "offset", writer, epoch, seq, value FROM troupe_streams
        WHERE address = 'task/r/t' AND stream = 'output' ORDER BY "offset"`,
      )
      .all();
    expect(rows).toEqual(
      rows.map((_, n) => ({
        ...{ offset: n, writer: 'task/r/t@1', epoch: 1, seq: n + 1 },
        value: `{"n":${n}}`,
      })),
    );
    return rows.length;
  } finally {
    db.close();
  }
}

test('a writer that is killed in mid-stream: readers before and after see every chunk once, in order', async () => {
  const directory = scratch();
  const orders: StreamOrders = {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.txt'),
    chunks: CHUNKS,
  };
  const random = randomFrom(7);
  let inTheMiddle = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const faults = `${POINTS[kill % POINTS.length]}:kill:${2 + random(8)}`;
    const life = new Life('streams', { ...orders, faults });
    expect(await life.death(), `${faults}: ${life.stderr}`).toBe('SIGKILL');
    const stored = checkStore(orders.store);
    if (stored > 0 && stored < CHUNKS) inTheMiddle++;
  }
  expect(inTheMiddle).toBeGreaterThan(1);
  const last = new Life('streams', { ...orders });
  await last.line('done');
  await last.finished();
  expect(checkStore(orders.store)).toBe(CHUNKS);
  const given = readFileSync(orders.history, 'utf8').trim().split('\n');
  expect(given).toEqual(Array.from({ length: CHUNKS }, (_, n) => `${n} {"n":${n}}`));
}, 300_000);
