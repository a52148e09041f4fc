import { copyFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { ALL_FAULTS, firstOf } from '../../extent.ts';
import { endedRun, pruneAll } from '../pruning-contract.ts';
import { actor, batch, checkpoint, effect, message, timer } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryStore } from './temporary.ts';

const ACTORS = 200;
const TURNS = 60;
const CUT = { run: 'live', address: 'run/live', prefix: 'task/live/', keep: null } as const;

async function filled(): Promise<string> {
  const path = temporaryStore();
  const store = await openSqliteStore({ path, durability: 'normal' });
  const addresses = Array.from({ length: ACTORS }, (_, i) => `task/live/${i}`);
  for (let seq = 0; seq < TURNS; seq++) {
    await store.commit(
      batch({
        actors: addresses.map((address) => actor({ address, seq })),
        checkpoints: addresses.map((address, i) =>
          checkpoint({ address, seq, label: seq === i % TURNS ? 'kept' : null }),
        ),
        cuts:
          seq === 7
            ? [{ ...CUT, id: 'c', at: 0, kind: 'manual', label: null, detailsJson: null }]
            : [],
      }),
    );
  }
  await store.commit(endedRun('old', 1_500, 1));
  await store.commit(
    batch({
      messages: addresses.map((to, i) => message({ id: `m${i}`, to })),
      timers: addresses.map((address) => timer({ address })),
      effects: addresses.map((address) => effect({ address })),
    }),
  );
  await store.close();
  return path;
}

test('SIGKILL in the midst of pruning loses nothing that stays, and it goes on', async () => {
  const full = await filled();
  const before = await openSqliteStore({ path: full });
  const pending = await before.loadPending();
  const live = Array.from({ length: ACTORS }, (_, i) => `task/live/${i}`);
  const byAddress = (rows: readonly { readonly address: string }[]): unknown =>
    [...rows].sort((a, b) => (a.address < b.address ? -1 : 1));
  const actors = byAddress(await before.loadActors(live));
  await before.close();
  let killed = 0;
  let midway = 0;
  for (const slices of firstOf(4, [0, 3, 7, 11, 1, 2, 4, 5, 6, 8, 9, 10])) {
    const path = temporaryStore();
    copyFileSync(full, path);
    const child = startChild('prune', path, String(slices));
    if ((await child.ended) === 'SIGKILL') killed++;
    const db = new Database(path);
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    expect(db.pragma('foreign_key_check')).toEqual([]);
    const runGone = db.prepare("SELECT 1 FROM runs WHERE run = 'old'").get() === undefined;
    const tasks = db.prepare("SELECT count(*) FROM tasks WHERE run = 'old'").pluck().get();
    db.close();
    if (runGone && Number(tasks) > 0) midway++;
    if (!runGone) expect(tasks).toBe(1_500);

    const store = await openSqliteStore({ path });
    expect(await store.loadPending()).toEqual(pending);
    expect(byAddress(await store.loadActors(live))).toEqual(actors);
    await pruneAll(store, { what: 'runs', endedBefore: 10, busy: [] });
    await pruneAll(store, { what: 'checkpoints', keepPerActor: 5 });
    for (const i of [0, 3, 59, 60, 199]) {
      const seqs = (await store.listCheckpoints(`task/live/${i}`)).map(({ seq }) => seq);
      const newest = [55, 56, 57, 58, 59];
      expect(seqs).toEqual([...new Set([7, i % TURNS, ...newest])].sort((a, b) => a - b));
    }
    expect(await store.listTasks('old')).toEqual([]);
    expect((await store.listActors()).length).toBe(ACTORS);
    await store.close();
  }
  expect(killed).toBeGreaterThan(ALL_FAULTS ? 3 : 2);
  expect(midway).toBeGreaterThan(0);
}, 120_000);
