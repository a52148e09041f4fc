import { existsSync } from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { Life, randomFrom, scratch } from './life.ts';
import type { SupervisionOrders } from './supervision.child.ts';

/*
 * Trees whose children are all restarted, in a process that is killed with SIGKILL in the middle of that. The witness
 * are the checkpoints with which lives begin: of each life of each child there is one.
 */

const KILLS = 6;
const POINTS = ['host.before-commit', 'store.mid-transaction', 'host.after-commit'] as const;

/** @returns how many lives have begun of each child: its lives, in order, each once */
function livesIn(store: string): ReadonlyMap<string, readonly number[]> {
  const db = new Database(store, { readonly: true });
  try {
    const rows = db
      .prepare(
        "SELECT address, details_json AS details FROM checkpoints WHERE address GLOB 'part/*' AND details_json IS NOT NULL ORDER BY address, seq",
      )
      .all() as { readonly address: string; readonly details: string }[];
    const lives = new Map<string, number[]>();
    for (const { address, details } of rows) {
      const { life } = JSON.parse(details) as { readonly life?: number };
      if (life !== undefined) lives.set(address, [...(lives.get(address) ?? []), life]);
    }
    return lives;
  } finally {
    db.close();
  }
}

test('killed in the middle of a restart of all: exactly one new life of each, none twice', async () => {
  const orders: SupervisionOrders = { store: path.join(scratch(), 'state.db') };
  const random = randomFrom(7);
  let between = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const faults = `${POINTS[kill % POINTS.length]}:kill:${3 + random(14)}`;
    const life = new Life('supervision', { ...orders, endless: true, faults });
    expect(await life.death(), `${faults}: ${life.stderr}`).toBe('SIGKILL');
    if (!existsSync(orders.store)) continue;
    const lives = livesIn(orders.store);
    for (const [address, begun] of lives) {
      expect(begun, address).toEqual(begun.length === 1 ? [1] : [1, 2]);
    }
    // The last tree stood in the middle of it.
    const db = new Database(orders.store, { readonly: true });
    const { stopped } = db
      .prepare(
        "SELECT count(*) AS stopped FROM actors WHERE address GLOB 'part/*' AND status <> 'active'",
      )
      .get() as { readonly stopped: number };
    db.close();
    if (stopped > 0) between++;
  }
  const life = new Life('supervision', { ...orders });
  const trees = Number((await life.line('done ')).slice('done '.length));
  await life.finished();
  const lives = livesIn(orders.store);
  expect(lives.size).toBe(trees * 3);
  for (const [address, begun] of lives) expect(begun, address).toEqual([1, 2]);
  // A test that has never hit the middle has proved nothing.
  expect(between).toBeGreaterThanOrEqual(1);
}, 120_000);
