import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Flow } from '../../src/actors/flow.ts';
import type { Address } from '../../src/protocol/address.ts';
import { accepts, memoryDisk } from './open-troupe.ts';

const TASK: Address = 'task/r/a';

function flowOf(directions: readonly ('in' | 'out')[]): Flow {
  const flow = new Flow(7);
  flow.setTract('writer', 'external');
  for (const direction of directions) {
    // Known from a turn of its own, which nobody of another tract has led to.
    flow.taskHeard({ address: TASK, from: 'run/r' }, 'writer');
    if (direction === 'in') flow.judgeHeard({ address: 'gatekeeper/editor', from: TASK });
    else flow.taskHeard({ address: TASK, from: 'gatekeeper/editor' }, 'writer');
  }
  return flow;
}

const times = <T>(count: number, value: (n: number) => T): T[] =>
  Array.from({ length: count }, (_, n) => value(n));

describe('the flow between tracts', () => {
  test.each([
    { what: 'nothing yet', said: [], balance: null, dialogue: null },
    { what: 'one way', said: times(3, () => 'in' as const), balance: 0, dialogue: null },
    {
      what: 'too few',
      said: times(99, (n) => (n % 2 ? 'in' : 'out')),
      balance: 49 / 50,
      dialogue: null,
    },
    {
      what: 'turn by turn',
      said: times(100, (n) => (n % 2 ? 'in' : 'out')),
      balance: 1,
      dialogue: 1,
    },
    { what: 'a monologue', said: times(100, () => 'out' as const), balance: 0, dialogue: 0 },
    {
      what: 'a monologue after much talk: only the last 100 count',
      said: [
        ...times(60, (n) => (n % 2 ? ('in' as const) : ('out' as const))),
        ...times(100, () => 'in' as const),
      ],
      balance: 30 / 130,
      dialogue: 0,
    },
    {
      what: 'first one, then the other',
      said: [...times(50, () => 'in' as const), ...times(50, () => 'out' as const)],
      balance: 1,
      dialogue: 1 / 99,
    },
  ])('$what', ({ said, balance, dialogue }) => {
    expect(flowOf(said).metrics()).toMatchObject({ since: 7, balance, dialogue });
  });

  test('is what one would count by hand', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('in' as const, 'out' as const), { maxLength: 400 }),
        (said) => {
          const { toExternal, toInternal, balance, dialogue } = flowOf(said).metrics();
          const out = said.filter((direction) => direction === 'out').length;
          expect([toExternal, toInternal]).toEqual([out, said.length - out]);
          if (said.length > 0) {
            expect(balance).toBe(
              Math.min(out, said.length - out) / Math.max(out, said.length - out),
            );
          }
          const last = said.slice(-100);
          const changes = last.filter((direction, n) => n > 0 && direction !== last[n - 1]).length;
          expect(dialogue).toBe(said.length < 100 ? null : changes / 99);
        },
      ),
      { numRuns: 100 },
    );
  });

  test('within a tract, and with those that have none, nothing is counted', () => {
    const flow = new Flow(0);
    flow.setTract('planner', 'internal');
    flow.taskHeard({ address: TASK, from: 'gatekeeper/editor' }, 'planner');
    flow.judgeHeard({ address: 'gatekeeper/editor', from: TASK });
    flow.taskHeard({ address: TASK, from: 'run/r' }, 'planner');
    flow.taskHeard({ address: TASK, from: 'gatekeeper/editor' }, 'nobody knows');
    expect(flow.metrics()).toMatchObject({ toExternal: 0, toInternal: 0, balance: null });
  });
});

test('a run with a planner and a writer: plan, draft, verdicts', async () => {
  const troupe = await memoryDisk().open();
  troupe.agent('planner', () => 'a plan', { tract: 'internal' });
  troupe.agent('writer', () => 'a draft');
  let seen = 0;
  troupe.gatekeeper('editor', ({ submission }) => {
    if (submission.id === 'draft' && seen++ === 0) return { accepted: false, reason: 'Too dry.' };
    return accepts();
  });
  expect(troupe.flow()).toMatchObject({
    toExternal: 0,
    toInternal: 0,
    balance: null,
    dialogue: null,
  });
  const run = await troupe.start({
    id: 'r',
    limits: { backoff: { initialMs: 1, maxMs: 1 } },
    tasks: [
      { id: 'plan', agent: 'planner', gatekeeper: 'editor' },
      { id: 'draft', agent: 'writer', gatekeeper: 'editor', dependsOn: ['plan'] },
    ],
  });
  expect((await run.result()).state).toBe('done');
  // To the writer's task: that the plan is there, "too dry", accepted. From it: what it handed in, twice.
  expect(troupe.flow()).toEqual({
    since: expect.any(Number),
    agents: { planner: 'internal', writer: 'external' },
    toExternal: 3,
    toInternal: 2,
    balance: 2 / 3,
    dialogue: null,
  });
});

test('another tract is refused', async () => {
  const troupe = await memoryDisk().open();
  expect(() => troupe.agent('writer', () => null, { tract: 'outer' as never })).toThrow(
    'Expected the tract of agent "writer" to be one of internal, external, got "outer".',
  );
});
