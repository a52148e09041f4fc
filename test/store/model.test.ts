import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import type { AuditSlice, Batch, Claim, CutRequest, Store } from '../../src/store/store.ts';
import {
  actor,
  attemptRow,
  batch,
  checkpoint,
  cut,
  deadLetter,
  effect,
  message,
  runRow,
  step,
  taskRow,
  timer,
} from './rows.ts';

// Few names, so that rows meet: the same actor again, a message twice, a task that comes back.
const address = fc.constantFrom('task/a', 'task/b', 'agent/a', 'inbox/é');
const id = fc.constantFrom('1', '2', '3', 'ü', '');
const json = fc.oneof(fc.constantFrom('{}', '{"a":1}'), fc.string({ unit: 'grapheme' }));
const at = fc.nat({ max: 9 });
const few = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(of, { maxLength: 3 });
const nullable = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(of);
const priority = fc.constantFrom(1, 2, 3, 4, 5);
const generation = fc.constantFrom('g1', 'g2');
const place = fc.record({ address, id });

const actors = few(
  fc.record({
    address,
    seq: fc.nat({ max: 4 }),
    status: fc.constantFrom('active', 'done', 'error', 'quarantined'),
    reason: nullable(json),
  }),
).map((rows) => rows.map((row) => actor(row)));

const checkpoints = few(
  fc.record({
    address,
    seq: fc.nat({ max: 30 }),
    at,
    snapshotJson: json,
    eventJson: nullable(json),
  }),
).map((rows) => rows.map((row) => checkpoint(row)));

const messages = few(
  fc.record({ id, priority, messageJson: json, reply: fc.boolean(), attempt: nullable(at) }),
).map((rows) => rows.map((row) => message(row)));

const runs = fc.record({ run: fc.constantFrom('r1', 'r2'), createdAt: at, endedAt: nullable(at) });
const tasks = fc.record({
  run: fc.constantFrom('r1', 'r2'),
  task: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
  state: fc.constantFrom('ready', 'ready', 'ready', 'working', 'done'),
  agent: fc.constantFrom('writer', 'tester'),
  priority,
  unblocks: fc.nat({ max: 2 }),
  position: fc.nat({ max: 3 }),
  reason: nullable(json),
});
const attempts = fc.record({ attempt: fc.integer({ min: 1, max: 3 }), outcome: json });
const projections = fc.array(
  fc.oneof(
    runs.map((row) => ({ table: 'runs' as const, row: runRow(row) })),
    tasks.map((row) => ({ table: 'tasks' as const, row: taskRow(row) })),
    attempts.map((row) => ({ table: 'attempts' as const, row: attemptRow(row) })),
  ),
  { maxLength: 6 },
);

const anyBatch: fc.Arbitrary<Batch> = fc
  .record({
    actors,
    checkpoints,
    consumed: few(id),
    messages,
    clearedTimers: few(place),
    timers: few(fc.record({ address, id, generation, dueAt: at })).map((r) => r.map(timer)),
    clearedEffects: few(place),
    effects: few(fc.record({ address, id, generation, inputJson: json })).map((r) => r.map(effect)),
    steps: few(fc.record({ scope: id, key: id, outcomeJson: json })).map((r) => r.map(step)),
    clearedSteps: few(id),
    deadLetters: few(fc.record({ id, at, reason: json })).map((r) => r.map(deadLetter)),
    audit: few(fc.record({ at, id: json, address, detailsJson: json })).map((rows) =>
      rows.map((row) => ({ kind: 'order' as const, type: 't', by: 'ada', ...row })),
    ),
    projections,
    removedAttempts: few(
      fc.record({
        run: fc.constant('r1'),
        task: fc.constant('t1'),
        above: fc.nat({ max: 3 }),
      }),
    ),
    claims: few(
      fc.record({
        run: fc.constantFrom('r1', 'r2'),
        task: fc.constantFrom('a', 'b', 'c'),
        token: nullable(fc.constantFrom('k1', 'k2')),
        open: fc.boolean(),
      }),
    ),
  })
  .map(batch);

/** Cuts have ids of their own; most calls take none. */
const cutting = fc.option(
  fc.record({
    run: fc.constantFrom('r1', 'r2'),
    kind: fc.constantFrom('timed' as const, 'manual' as const),
    keep: fc.constantFrom(null, 1, 2),
    label: nullable(json),
  }),
  { freq: 3 },
);

const anyClaim: fc.Arbitrary<Claim> = fc.record({
  run: fc.constantFrom('r1', 'r2'),
  agent: fc.constantFrom('writer', 'tester'),
  limit: fc.nat({ max: 3 }),
  token: fc.constantFrom('k1', 'k2', 'k3', 'k4'),
});

type Cutting = Pick<CutRequest, 'run' | 'kind' | 'keep' | 'label'> | null;
type Call = { readonly commit: Batch; readonly cut: Cutting } | { readonly claim: Claim };
const anyCalls: fc.Arbitrary<readonly Call[]> = fc.array(
  fc.oneof(
    {
      weight: 2,
      arbitrary: fc.tuple(anyBatch, cutting).map(([commit, one]) => ({ commit, cut: one })),
    },
    { weight: 1, arbitrary: anyClaim.map((claim) => ({ claim })) },
  ),
  { minLength: 10, maxLength: 40, size: 'max' },
);

/** What the call did, as its caller can tell: the answer, or the code of the error. */
async function outcome(store: Store, call: Call, nth: number): Promise<unknown> {
  try {
    if ('claim' in call) return await store.claimTasks(call.claim);
    const cuts =
      call.cut === null
        ? []
        : [cut({ id: `c${nth}`, address: 'agent/a', prefix: 'task/', ...call.cut })];
    await store.commit({ ...call.commit, cuts });
    return 'stored';
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

const byPlace = (a: { address: string; id: string }, b: { address: string; id: string }): number =>
  a.address < b.address || (a.address === b.address && a.id < b.id) ? -1 : 1;

/** Each store numbers as it likes; the order is the same. */
const withoutPositions = ({ rows }: AuditSlice<{ readonly position: number }>): unknown =>
  rows.map(({ position: _position, ...row }) => row);

/** Everything a store can tell. What may come in any order is sorted. */
async function everything(store: Store): Promise<unknown> {
  const { messages, timers, effects } = await store.loadPending();
  const addresses = ['task/a', 'task/b', 'agent/a', 'inbox/é'];
  return {
    messages,
    timers: timers.toSorted(byPlace),
    effects: effects.toSorted(byPlace),
    actors: await store.listActors(),
    loaded: await Promise.all(
      addresses.map((one) => store.loadActors([one]).catch((error: Error) => error.name)),
    ),
    checkpoints: await Promise.all(addresses.map((one) => store.listCheckpoints(one))),
    lastCheckpoints: await Promise.all(
      addresses.map((one) => store.listCheckpoints(one, { fromSeq: 2, last: 2 })),
    ),
    steps: await Promise.all(['1', '2', '3', 'ü', ''].map((scope) => store.loadSteps(scope))),
    deadLetters: await store.listDeadLetters(),
    turns: withoutPositions(await store.listTurns({ after: 0, limit: 1_000 })),
    audit: withoutPositions(await store.listAudit({ after: 0, limit: 1_000 })),
    runs: await store.listRuns(),
    tasks: await Promise.all(['r1', 'r2'].map((run) => store.listTasks(run))),
    someTasks: await store.listTasks('r1', { states: ['ready'], afterPosition: 0, limit: 2 }),
    attempts: await store.listAttempts('r1', 't1'),
    cuts: await Promise.all(['r1', 'r2'].map((run) => store.listCuts(run))),
    cutRows: await Promise.all(Array.from({ length: 40 }, (_, nth) => store.loadCut(`c${nth}`))),
    counts: await Promise.all(['r1', 'r2'].map((run) => store.countTasks(run))),
  };
}

test('MemoryStore and SqliteStore answer alike, whatever is written', async () => {
  await fc.assert(
    fc.asyncProperty(anyCalls, async (calls) => {
      const memory = new MemoryStore();
      const sqlite = await openSqliteStore({ path: ':memory:' });
      try {
        for (const [nth, call] of calls.entries()) {
          expect(await outcome(sqlite, call, nth)).toEqual(await outcome(memory, call, nth));
        }
        expect(await everything(sqlite)).toEqual(await everything(memory));
      } finally {
        await sqlite.close();
      }
    }),
    // A thread is started for each; long runs of calls make up for few of them.
    { numRuns: 40 },
  );
}, 60_000);
