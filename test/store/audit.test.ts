import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { PackedStore } from '../../src/store/payload/packed-store.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import type { AuditQuery, AuditRow, Store } from '../../src/store/store.ts';
import { endedRun, pruneAll } from './pruning-contract.ts';
import { actor, batch, checkpoint } from './rows.ts';
import { temporaryStore } from './sqlite/temporary.ts';

const order = (parts: Partial<AuditRow> = {}): AuditRow => ({
  at: 1_000,
  kind: 'order',
  id: 'app/client!x.1',
  address: 'task/r1/a',
  type: 'task.cancel',
  by: 'ada',
  detailsJson: '{"payload":{}}',
  ...parts,
});

const STORES: readonly { readonly name: string; readonly open: () => Promise<Store> }[] = [
  { name: 'memory', open: () => Promise.resolve(new MemoryStore()) },
  { name: 'sqlite', open: () => openSqliteStore({ path: ':memory:' }) },
  {
    name: 'packed sqlite',
    open: async () => new PackedStore(await openSqliteStore({ path: ':memory:' })),
  },
];

/** Slice after slice, as a reader does. */
async function all<R>(
  list: (query: AuditQuery) => Promise<{ rows: readonly R[]; upTo: number; isLast: boolean }>,
  query: Partial<AuditQuery> = {},
): Promise<readonly R[]> {
  const found: R[] = [];
  for (let after = 0; ; ) {
    const slice = await list({ limit: 3, ...query, after });
    found.push(...slice.rows);
    if (slice.isLast) return found;
    expect(slice.upTo).toBeGreaterThan(after);
    after = slice.upTo;
  }
}

describe.each(STORES)('$name', ({ open }) => {
  test('lists turns of all actors in the order of their commits, each field as it went in', async () => {
    const store = await open();
    for (const [n, address] of ['b/1', 'a/1', 'b/1', 'c/1', 'a/1', 'b/1', 'a/1'].entries()) {
      await store.commit(
        batch({
          actors: [actor({ address, seq: n })],
          checkpoints: [
            checkpoint({
              address,
              seq: n,
              at: 1_000 + n,
              kind: n === 3 ? 'rollback' : 'auto',
              label: n === 2 ? 'here' : null,
              eventJson: n === 0 ? null : `{"type":"e${n}"}`,
              detailsJson: n === 3 ? '{"restores":1}' : null,
              snapshotJson: '{"large":true}',
            }),
          ],
        }),
      );
    }
    const turns = await all((query) => store.listTurns(query));
    expect(turns.map(({ seq }) => seq)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(turns[3]).toEqual({
      position: turns[3]?.position,
      address: 'c/1',
      seq: 3,
      at: 1_003,
      kind: 'rollback',
      label: null,
      eventJson: '{"type":"e3"}',
      detailsJson: '{"restores":1}',
    });
    const seqsOf = async (query: Partial<AuditQuery>): Promise<readonly number[]> =>
      (await all((slice) => store.listTurns(slice), query)).map(({ seq }) => seq);
    expect(await seqsOf({ from: 1_002, to: 1_005 })).toEqual([2, 3, 4]);
    expect(await seqsOf({ address: 'b/1' })).toEqual([0, 2, 5]);
    expect(await seqsOf({ address: 'a/1', from: 1_003 })).toEqual([4, 6]);
    expect(await seqsOf({ address: 'nobody/1' })).toEqual([]);
    await store.close();
  });

  test('keeps orders as they came, long ones too, and forgets them by age and by number', async () => {
    const store = await open();
    const long = JSON.stringify({ payload: 'x'.repeat(70_000) });
    for (let n = 0; n < 12; n++) {
      const kind = n % 2 === 0 ? 'order' : 'answer';
      await store.commit(
        batch({ audit: [order({ at: n, id: `m${n}`, kind, detailsJson: n === 5 ? long : '{}' })] }),
      );
    }
    const listed = await all((query) => store.listAudit(query));
    const { position, ...sixth } = listed[5] ?? { position: 0 };
    expect(sixth).toEqual(order({ at: 5, id: 'm5', kind: 'answer', detailsJson: long }));
    expect(position).toBeGreaterThan(listed[4]?.position ?? Number.POSITIVE_INFINITY);
    const ids = async (query: Partial<AuditQuery> = {}): Promise<readonly string[]> =>
      (await all((slice) => store.listAudit(slice), query)).map(({ id }) => id);
    expect(await ids({ from: 3, to: 5 })).toEqual(['m3', 'm4']);
    expect(await ids({ address: 'task/r1/b' })).toEqual([]);
    expect((await pruneAll(store, { what: 'audit', before: 0, keep: 8 })).removed).toEqual({
      audit: 4,
    });
    expect(await ids()).toEqual(['m4', 'm5', 'm6', 'm7', 'm8', 'm9', 'm10', 'm11']);
    expect((await pruneAll(store, { what: 'audit', before: 10, keep: 8 })).removed).toEqual({
      audit: 6,
    });
    expect(await ids()).toEqual(['m10', 'm11']);
    expect((await pruneAll(store, { what: 'audit', before: 10, keep: 8 })).removed).toEqual({});
    await store.close();
  });

  test('says so when the newest turns are gone and their positions may be given again', async () => {
    const store = await open();
    await store.commit(
      batch({ actors: [actor({ seq: 0 })], checkpoints: [checkpoint({ seq: 0, at: 1 })] }),
    );
    await store.commit(endedRun('r1', 3, 5));
    const end = (await store.listTurns({ after: 0, limit: 100 })).upTo;
    await pruneAll(store, { what: 'runs', endedBefore: 10, busy: [] });
    await pruneAll(store, { what: 'space', mayStay: 0, mayStayBytes: 0 });
    await store.commit(
      batch({ actors: [actor({ seq: 1 })], checkpoints: [checkpoint({ seq: 1, at: 9 })] }),
    );
    const next = await store.listTurns({ after: end, limit: 100 });
    // Either there it is, or the reader is told to begin anew.
    if (next.rows.length === 0) expect(next.upTo).toBeLessThan(end);
    else expect(next.rows).toMatchObject([{ seq: 1, at: 9 }]);
    expect((await all((query) => store.listTurns(query))).map(({ at }) => at)).toEqual([1, 9]);
    await store.close();
  });
});

test('both stores list the same, whatever was committed and pruned', async () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ turn: fc.nat(3), at: fc.nat(40) }) },
    { weight: 1, arbitrary: fc.record({ keep: fc.integer({ min: 1, max: 4 }) }) },
  );
  const sqlite = await openSqliteStore({ path: ':memory:' });
  const memory = new MemoryStore();
  let history = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), fc.nat(40), async (steps, from) => {
      // Each on actors of its own, in the same two stores.
      const mine = `inbox/${history++}-`;
      const seqs = [0, 0, 0, 0];
      for (const now of steps) {
        for (const store of [sqlite, memory]) {
          if ('keep' in now) {
            await pruneAll(store, { what: 'checkpoints', keepPerActor: now.keep });
            await pruneAll(store, { what: 'space', mayStay: 1, mayStayBytes: 0 });
            continue;
          }
          const address = `${mine}${now.turn}`;
          const seq = seqs[now.turn] ?? 0;
          await store.commit(
            batch({
              actors: [actor({ address, seq })],
              checkpoints: [checkpoint({ address, seq, at: now.at, eventJson: `{"at":${seq}}` })],
            }),
          );
        }
        if ('turn' in now) seqs[now.turn] = (seqs[now.turn] ?? 0) + 1;
      }
      for (const query of [{}, { from }, { to: from + 1 }, { address: `${mine}2` }]) {
        const [a, b] = await Promise.all(
          [sqlite, memory].map(async (store) => {
            const turns = await all((slice) => store.listTurns(slice), { ...query, limit: 100 });
            return turns
              .filter(({ address }) => address.startsWith(mine))
              .map(({ position: _position, ...turn }) => turn);
          }),
        );
        expect(a).toEqual(b);
      }
    }),
    { numRuns: 25 },
  );
  await sqlite.close();
});

test('orders survive: they are in the file', async () => {
  const path = temporaryStore();
  const store = await openSqliteStore({ path });
  await store.commit(batch({ audit: [order()] }));
  await store.close();
  const again = await openSqliteStore({ path });
  expect((await again.listAudit({ after: 0, limit: 9 })).rows).toMatchObject([order()]);
  await again.close();
});
