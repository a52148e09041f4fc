import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Batch, PruneSlice, Store } from '../../src/store/store.ts';
import type { StoreAdapter } from './contract.ts';
import {
  actor,
  attemptRow,
  batch,
  checkpoint,
  cut,
  deadLetter,
  effect,
  idempotency,
  message,
  runRow,
  step,
  streamChunk,
  streamRow,
  taskRow,
  timer,
  turn,
} from './rows.ts';

const DAY = 86_400_000;
const NOW = 100 * DAY;

/** A slice, without where it begins. */
type Slice<S extends PruneSlice = PruneSlice> = S extends PruneSlice ? Omit<S, 'from'> : never;

/** Slice after slice until there is no more to do. @returns the rows removed, and in how many slices */
export async function pruneAll(
  store: Store,
  slice: Slice,
): Promise<{ readonly removed: Readonly<Record<string, number>>; readonly slices: number }> {
  const removed: Record<string, number> = {};
  let slices = 0;
  for (let from: number | null = 0; from !== null; slices++) {
    const pruned = await store.prune({ ...slice, from } as PruneSlice);
    for (const [what, rows] of Object.entries(pruned.removed)) {
      removed[what] = (removed[what] ?? 0) + rows;
    }
    from = pruned.next;
  }
  return { removed, slices };
}

/** A run as it is stored when it has ended, with leftovers of each kind. */
export function endedRun(run: string, tasks: number, endedAt: number): Batch {
  const ids = Array.from({ length: tasks }, (_, i) => `t${i}`);
  const addresses = [`run/${run}`, ...ids.map((id) => `task/${run}/${id}`)];
  return batch({
    actors: addresses.map((address) => actor({ address, seq: 1, status: 'done' })),
    checkpoints: addresses.flatMap((address) => [
      checkpoint({ address, seq: 0, kind: 'milestone', label: 'kept' }),
      checkpoint({ address, seq: 1 }),
    ]),
    steps: addresses.map((address) => step({ scope: `${address}!e.1` })),
    streams: addresses.map((address) => streamRow({ address, next: 1 })),
    streamChunks: addresses.map((address) => streamChunk({ address })),
    cuts: [cut({ id: `cut-${run}`, run, address: `run/${run}`, prefix: `task/${run}/` })],
    projections: [
      {
        table: 'runs',
        row: runRow({ run, state: 'done', total: tasks, endedAt }),
      },
      ...ids.flatMap((task) => [
        { table: 'tasks' as const, row: taskRow({ run, task, state: 'done' }) },
        { table: 'attempts' as const, row: attemptRow({ run, task }) },
      ]),
    ],
  });
}

/** What every adapter of `Store` must do when history is removed. */
export function describePruning(name: string, adapter: StoreAdapter): void {
  describe(`${name} removes history`, () => {
    let store: Store;
    beforeEach(async () => {
      store = await adapter.open();
    });
    afterEach(() => store.close());

    const seqs = async (address: string): Promise<readonly number[]> =>
      (await store.listCheckpoints(address)).map(({ seq }) => seq);
    const runs = async (): Promise<readonly string[]> =>
      (await store.listRuns()).map(({ run }) => run);
    const pruneRuns = (endedBefore: number, busy: readonly string[] = []) =>
      pruneAll(store, { what: 'runs', endedBefore, busy });

    test('of an actor the newest checkpoints stay, and all that is not of the daily kind', async () => {
      const address = 'inbox/ada';
      const special: Readonly<Record<number, Parameters<typeof checkpoint>[0]>> = {
        1: { kind: 'milestone' },
        2: { kind: 'manual' },
        3: { kind: 'rollback' },
        4: { label: 'before lunch' },
        5: { kind: 'error' },
        6: { kind: 'error', label: 'look at this' },
      };
      const all = Array.from({ length: 30 }, (_, seq) =>
        checkpoint({ address, seq, ...special[seq] }),
      );
      await store.commit(batch({ actors: [actor({ address, seq: 29 })], checkpoints: all }));
      const before = await store.loadActors([address]);
      const { removed } = await pruneAll(store, { what: 'checkpoints', keepPerActor: 10 });
      expect(removed).toEqual({ checkpoints: 15 });
      expect(await seqs(address)).toEqual([1, 2, 3, 4, 6, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]);
      expect(await store.loadActors([address])).toEqual(before);
      expect((await store.listCheckpoints(address, { last: 3 })).map(({ seq }) => seq)).toEqual([
        29, 28, 27,
      ]);
      // And it goes on.
      await store.commit(batch(turn(address, 30)));
      expect((await pruneAll(store, { what: 'checkpoints', keepPerActor: 1 })).removed).toEqual({
        checkpoints: 10,
      });
      expect(await seqs(address)).toEqual([1, 2, 3, 4, 6, 30]);
    });

    test('a stream goes when it is closed or its actor has ended; those of runs go with their run', async () => {
      const streams = [
        { address: 'inbox/open', status: 'active' as const },
        { address: 'inbox/closed', status: 'active' as const, closedAt: NOW - 9 * DAY },
        { address: 'inbox/young', status: 'active' as const, closedAt: NOW, updatedAt: NOW },
        { address: 'inbox/ended', status: 'done' as const },
        { address: 'inbox/parked', status: 'quarantined' as const },
        { address: 'inbox/gone' },
        { address: 'task/r1/t1', status: 'done' as const, closedAt: NOW - 9 * DAY },
      ];
      await store.commit(
        batch({
          actors: streams.flatMap(({ address, status }) =>
            status === undefined ? [] : [actor({ address, status })],
          ),
          checkpoints: streams.map(({ address }) => checkpoint({ address })),
          streams: streams.map(({ address, closedAt = null, updatedAt = NOW - 9 * DAY }) =>
            streamRow({ address, closedAt, updatedAt, next: 2 }),
          ),
          streamChunks: streams.flatMap(({ address }) => [
            streamChunk({ address }),
            streamChunk({ address, offset: 1, seq: 2 }),
          ]),
        }),
      );
      const { removed } = await pruneAll(store, { what: 'streams', before: NOW - DAY });
      expect(removed).toEqual({ streams: 3, streamChunks: 6 });
      const left = [
        ...(await store.listStreams({ prefix: 'inbox/' })),
        ...(await store.listStreams({ prefix: 'task/r1/' })),
      ].map(({ address }) => address);
      expect(left).toEqual(['inbox/open', 'inbox/parked', 'inbox/young', 'task/r1/t1']);
    });

    test('what a cut names stays for as long as the cut does', async () => {
      const [address, prefix] = ['run/r1', 'task/r1/'];
      for (let seq = 0; seq < 8; seq++) {
        await store.commit(batch(turn(address, seq)));
        await store.commit(batch(turn('task/r1/a', seq)));
        if (seq === 2 || seq === 4) {
          const timed = { run: 'r1', kind: 'timed', keep: 1, address, prefix } as const;
          await store.commit(batch({ cuts: [cut({ ...timed, id: `c${seq}` })] }));
        }
      }
      await pruneAll(store, { what: 'checkpoints', keepPerActor: 1 });
      // The cut at 2 was forgotten when that at 4 was taken.
      expect(await seqs(address)).toEqual([4, 7]);
      expect(await seqs('task/r1/a')).toEqual([4, 7]);
      expect((await store.loadCut('c4'))?.members).toHaveLength(2);
    });

    test('many checkpoints go in slices, and turns go on in between', async () => {
      const addresses = Array.from({ length: 2_500 }, (_, i) => `inbox/${i}`);
      const turns = (seq: number): Batch =>
        batch({
          actors: addresses.map((address) => actor({ address, seq })),
          checkpoints: addresses.map((address) => checkpoint({ address, seq })),
        });
      for (let seq = 0; seq < 6; seq++) await store.commit(turns(seq));
      let kept = 0;
      let slices = 0;
      for (let from: number | null = 0; from !== null; slices++) {
        const pruned = await store.prune({ what: 'checkpoints', keepPerActor: 2, from });
        kept += pruned.kept;
        if (slices === 0) await store.commit(turns(6));
        from = pruned.next;
      }
      expect(slices).toBeGreaterThan(1);
      await pruneAll(store, { what: 'checkpoints', keepPerActor: 2 });
      for (const address of ['inbox/0', 'inbox/1', 'inbox/1249', 'inbox/2499']) {
        expect(await seqs(address)).toEqual([5, 6]);
      }
      expect(kept).toBeGreaterThanOrEqual(2 * 2_500);
    });

    test('a run that ended long ago goes with all that belongs to it', async () => {
      const others = ['r', 'r10', 'r1-b', 'r1.c', 'R1'];
      const addressesOf = (run: string): readonly string[] => [`run/${run}`, `task/${run}/t0`];
      await store.commit(endedRun('r1', 3, NOW - 40 * DAY));
      for (const run of others) await store.commit(endedRun(run, 1, NOW - 20 * DAY));
      const untouched = async () => [
        await store.listRuns(),
        await Promise.all(others.map((run) => store.listTasks(run))),
        await Promise.all(others.map((run) => store.listAttempts(run, 't0'))),
        await Promise.all(others.map((run) => store.loadCut(`cut-${run}`))),
        (await store.loadActors(others.flatMap(addressesOf))).length,
        await Promise.all(
          others.flatMap(addressesOf).map((address) => store.listCheckpoints(address)),
        ),
        await Promise.all(
          others.flatMap(addressesOf).map((address) => store.loadSteps(`${address}!e.1`)),
        ),
      ];
      const [, ...before] = await untouched();
      const { removed } = await pruneRuns(NOW - 30 * DAY);
      expect(removed).toEqual({
        runs: 1,
        tasks: 3,
        attempts: 3,
        actors: 4,
        checkpoints: 8,
        steps: 4,
        streams: 4,
        streamChunks: 4,
        cuts: 1,
      });
      const [left, ...after] = await untouched();
      expect(left).toHaveLength(others.length);
      expect(after).toEqual(before);
      expect(await store.listTasks('r1')).toEqual([]);
      expect(await store.countTasks('r1')).toEqual({});
      expect(await store.listAttempts('r1', 't0')).toEqual([]);
      expect(await store.listCuts('r1')).toEqual([]);
      expect(await store.loadActors(['run/r1', 'task/r1/t0'])).toEqual([]);
      expect(await store.listCheckpoints('task/r1/t0')).toEqual([]);
      expect(await store.loadSteps('task/r1/t0!e.1')).toEqual([]);
      // Its name is free again.
      await store.commit(endedRun('r1', 1, NOW));
      expect(await store.listTasks('r1')).toHaveLength(1);
    });

    test.each<{ what: string; parts: Partial<Batch> }>([
      { what: 'a message to a task', parts: { messages: [message({ to: 'task/r1/t0' })] } },
      { what: 'a message to the run', parts: { messages: [message({ to: 'run/r1' })] } },
      { what: 'a timer', parts: { timers: [timer({ address: 'task/r1/t0' })] } },
      { what: "the run's timer", parts: { timers: [timer({ address: 'run/r1' })] } },
      { what: 'an effect', parts: { effects: [effect({ address: 'task/r1/t0' })] } },
      { what: "the run's effect", parts: { effects: [effect({ address: 'run/r1' })] } },
      {
        what: 'no end',
        parts: { projections: [{ table: 'runs', row: runRow({ run: 'r1', endedAt: null }) }] },
      },
      {
        what: 'an end that is not so long ago',
        parts: { projections: [{ table: 'runs', row: runRow({ run: 'r1', endedAt: NOW }) }] },
      },
    ])('a run with $what stays', async ({ parts }) => {
      await store.commit(endedRun('r1', 2, NOW - 40 * DAY));
      await store.commit(batch(parts));
      expect((await pruneRuns(NOW - 30 * DAY)).removed).toEqual({});
      expect(await runs()).toEqual(['r1']);
      expect(await store.listTasks('r1')).toHaveLength(2);
    });

    test('a run that is in use stays, also when it becomes so in the middle', async () => {
      await store.commit(endedRun('big', 2_500, NOW - 40 * DAY));
      expect((await pruneRuns(NOW - 30 * DAY, ['big'])).removed).toEqual({});
      const slice = { what: 'runs', endedBefore: NOW - 30 * DAY } as const;
      const first = await store.prune({ ...slice, busy: [], from: 0 });
      expect(first.next).not.toBe(null);
      // The run is gone; the rest goes when it is no longer in use.
      expect(await runs()).toEqual([]);
      const rest = (await store.listTasks('big')).length;
      expect(rest).toBeGreaterThan(0);
      expect(rest).toBeLessThanOrEqual(2_500);
      expect((await pruneRuns(NOW - 30 * DAY, ['big'])).removed).toEqual({});
      expect(await store.loadActors(['run/big'])).toHaveLength(1);
      if (adapter.survivesReopen !== false) {
        await store.close();
        store = await adapter.survivesReopen(store);
      }
      expect((await pruneRuns(NOW - 30 * DAY)).removed).toMatchObject({ tasks: rest });
      expect(await store.listActors()).toEqual([]);
    });

    test('dead letters go by age and by number', async () => {
      const letters = Array.from({ length: 700 }, (_, i) =>
        deadLetter({ id: `m${i}`, at: NOW - (700 - i) }),
      );
      await store.commit(batch({ deadLetters: letters }));
      const ids = async () => (await store.listDeadLetters()).map(({ id }) => id);
      const prune = (before: number, keep: number) =>
        pruneAll(store, { what: 'deadLetters', before, keep });
      expect((await prune(0, 700)).removed).toEqual({});
      expect((await prune(0, 690)).removed).toEqual({ deadLetters: 10 });
      expect((await prune(NOW - 3, 5)).removed).toEqual({ deadLetters: 687 });
      expect(await ids()).toEqual(['m697', 'm698', 'm699']);
    });

    test('keys go when they have expired', async () => {
      const keys = Array.from({ length: 600 }, (_, i) =>
        idempotency({ key: `k${i}`, expiresAt: NOW + i }),
      );
      await store.commit(batch({ idempotency: keys }));
      const expiredAt = NOW + 520;
      expect((await pruneAll(store, { what: 'idempotency', expiredAt })).removed).toEqual({
        idempotency: 521,
      });
      expect(await store.loadIdempotency('k520')).toBeUndefined();
      expect(await store.loadIdempotency('k521')).toEqual(keys[521]);
    });

    test('nothing to remove, in an empty store', async () => {
      const slices: readonly Slice[] = [
        { what: 'checkpoints', keepPerActor: 1 },
        { what: 'runs', endedBefore: NOW, busy: [] },
        { what: 'deadLetters', before: NOW, keep: 1 },
        { what: 'idempotency', expiredAt: NOW },
      ];
      for (const slice of slices) {
        expect(await pruneAll(store, slice)).toEqual({ removed: {}, slices: 1 });
      }
    });

    test('a closed store removes nothing', async () => {
      await store.close();
      await expect(pruneAll(store, { what: 'idempotency', expiredAt: 0 })).rejects.toThrow(
        /closed/,
      );
    });
  });
}
