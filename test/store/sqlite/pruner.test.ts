import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { ENDED_RUNS, Pruner } from '../../../src/store/sqlite/pruner.ts';
import { RowReader } from '../../../src/store/sqlite/row-reader.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import type { PruneSlice } from '../../../src/store/store.ts';
import { actor, batch, checkpoint, taskRow } from '../rows.ts';
import { temporaryStore } from './temporary.ts';

const TASKS = 3_000;
const RUN = 'wide';

/** A run with many tasks, of which a cut was taken, and then ended. */
async function wideRun(): Promise<Database.Database> {
  const path = temporaryStore();
  const store = await openSqliteStore({ path, durability: 'normal' });
  const addresses = Array.from({ length: TASKS }, (_, i) => `task/${RUN}/t${i}`);
  const cut = { id: 'c', run: RUN, at: 0, kind: 'manual', label: null, detailsJson: null } as const;
  await store.commit(
    batch({
      actors: addresses.map((address) => actor({ address, seq: 0 })),
      checkpoints: addresses.map((address) => checkpoint({ address, seq: 0 })),
      cuts: [{ ...cut, address: `run/${RUN}`, prefix: `task/${RUN}/`, keep: null }],
      projections: [
        {
          table: 'runs',
          row: {
            ...{ run: RUN, title: '', state: 'done', total: TASKS, detailsJson: '{}' },
            ...{ createdAt: 0, updatedAt: 1, endedAt: 1 },
          },
        },
      ],
    }),
  );
  await store.close();
  return new Database(path);
}

/** Each look at it costs a millisecond: that is a slow disk, seen from a slice. */
function slowClock(): () => number {
  let now = 0;
  return () => ++now;
}

test('a slice ends when its time is up, however many rows there are and however slow they are', async () => {
  const db = await wideRun();
  const count = (table: string): number =>
    db.prepare<[], number>(`SELECT count(*) FROM ${table}`).pluck().get() ?? 0;
  const rows = () => count('checkpoints') + count('actors') + count('cut_members');
  const slow = new Pruner(db, slowClock());
  // In a transaction of the caller, as ever.
  const prune = db.transaction((slice: PruneSlice) => slow.prune(slice));
  expect(count('cut_members')).toBe(TASKS);

  const looked = prune({ what: 'checkpoints', keepPerActor: 1, from: 0 });
  expect(looked.kept).toBeLessThan(1_000);
  expect(looked.next).not.toBeNull();

  let slices = 0;
  for (let before = rows(); ; slices++) {
    const { next } = prune({ what: 'runs', endedBefore: 10, busy: [], from: 0 });
    const now = rows();
    expect(before - now, `rows removed in slice ${slices}`).toBeLessThan(1_000);
    if (next === null) break;
    before = now;
  }
  expect(slices).toBeGreaterThan(3);
  expect(['runs', 'cuts', 'cut_members', 'checkpoints', 'actors'].map(count)).toEqual([
    0, 0, 0, 0, 0,
  ]);
  db.close();
});

test('whatever is left of a run between two slices can be read', async () => {
  const path = temporaryStore();
  const store = await openSqliteStore({ path, durability: 'normal' });
  const turns = { [`run/${RUN}`]: 3, [`task/${RUN}/a`]: 300, [`task/${RUN}/b`]: 1 };
  const row = { run: RUN, title: '', state: 'done', total: 1, detailsJson: '{}' };
  await store.commit(
    batch({
      actors: Object.entries(turns).map(([address, n]) => actor({ address, seq: n - 1 })),
      checkpoints: Object.entries(turns).flatMap(([address, n]) =>
        Array.from({ length: n }, (_, seq) => checkpoint({ address, seq })),
      ),
      projections: [
        { table: 'runs', row: { ...row, createdAt: 0, updatedAt: 1, endedAt: 1 } },
        { table: 'tasks', row: taskRow({ run: RUN, task: 'a', state: 'done' }) },
      ],
    }),
  );
  await store.close();
  const db = new Database(path);
  const reader = new RowReader(db);
  let now = 0;
  const oneStepEach = new Pruner(db, () => (now += 1_000));
  const left: number[] = [];
  for (let next: number | null = 0; next !== null; ) {
    ({ next } = oneStepEach.prune({ what: 'runs', endedBefore: 10, busy: [], from: 0 }));
    left.push(reader.loadActors(Object.keys(turns)).length);
  }
  expect(new Set(left)).toEqual(new Set([3, 2, 1, 0]));
  expect(db.prepare('SELECT count(*) FROM checkpoints').pluck().get()).toBe(0);
  db.close();
});

test('the next run that is old enough is found without a look at the others', async () => {
  const path = temporaryStore();
  await (await openSqliteStore({ path })).close();
  const db = new Database(path);
  const plan = db
    .prepare<[object], { readonly detail: string }>(
      `EXPLAIN QUERY PLAN ${ENDED_RUNS} ORDER BY ended_at, run LIMIT 1`,
    )
    .all({ endedBefore: 10, busy: '[]' })
    .map(({ detail }) => detail);
  expect(plan[0]).toBe('SEARCH r USING COVERING INDEX runs_ended (ended_at<?)');
  expect(plan.filter((detail) => detail.includes('B-TREE'))).toEqual([]);
  db.close();
});
