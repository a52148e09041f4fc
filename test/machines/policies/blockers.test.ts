import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import {
  type BlockersSummary,
  staggerMs,
  summariseBlockers,
  type TaskStanding,
} from '../../../src/machines/policies/blockers.ts';
import { unitHash } from '../../../src/protocol/hash.ts';

const task = (
  id: string,
  state: string,
  dependsOn: readonly string[] = [],
  rest: Partial<TaskStanding> = {},
): TaskStanding => ({ id, state, dependsOn, ...rest });

const idsByKind = ({ groups }: BlockersSummary) =>
  Object.fromEntries(groups.map(({ kind, tasks }) => [kind, tasks.map(({ id }) => id)]));

describe('what stands still', () => {
  test.each([
    { what: 'nothing', tasks: [], is: {} },
    {
      what: 'done, running, cancelled, ready',
      tasks: [task('a', 'done'), task('b', 'working'), task('c', 'cancelled'), task('d', 'ready')],
      is: {},
    },
    {
      what: 'one that waits for one under way',
      tasks: [task('a', 'working'), task('b', 'waiting', ['a'])],
      is: {},
    },
    {
      what: 'one stopped by infrastructure',
      tasks: [task('a', 'blocked', [], { cause: 'infrastructure' })],
      is: { transient: ['a'] },
    },
    {
      what: 'one stopped by its work',
      tasks: [task('a', 'blocked', [], { cause: 'work' })],
      is: { unknown: ['a'] },
    },
    { what: 'one stopped without a word', tasks: [task('a', 'escalated')], is: { unknown: ['a'] } },
    {
      what: 'a chain behind one that is blocked',
      tasks: [task('c', 'waiting', ['b']), task('b', 'waiting', ['a']), task('a', 'blocked')],
      is: { unknown: ['a'], dependency: ['c', 'b'] },
    },
    {
      what: 'one behind a cancelled task',
      tasks: [task('a', 'cancelled'), task('b', 'waiting', ['a'])],
      is: { dependency: ['b'] },
    },
    {
      what: 'one behind a task that is not there',
      tasks: [task('b', 'waiting', ['gone'])],
      is: { dependency: ['b'] },
    },
    {
      what: 'a circle and one behind it',
      tasks: [
        task('a', 'waiting', ['b']),
        task('b', 'waiting', ['a']),
        task('c', 'waiting', ['b']),
      ],
      is: { cycle: ['a', 'b'], dependency: ['c'] },
    },
    {
      what: 'a circle in front of which one waits',
      tasks: [task('z', 'working'), task('a', 'waiting', ['b', 'z']), task('b', 'waiting', ['a'])],
      is: { cycle: ['a', 'b'] },
    },
  ])('$what', ({ tasks, is }) => {
    const summary = summariseBlockers(tasks);
    expect(idsByKind(summary)).toEqual(is);
    expect(summary.total).toBe(Object.values(is).flat().length);
    for (const { count, tasks: listed } of summary.groups) expect(count).toBe(listed.length);
  });

  test('reasons and recommendations are words to act on', () => {
    const summary = summariseBlockers([
      task('net', 'escalated', [], { cause: 'infrastructure', reason: 'The disk is full.' }),
      task('hard', 'blocked', [], {
        cause: 'work',
        reason: 'The same error came 3 times in a row.',
      }),
      task('mute', 'blocked'),
      task('d1', 'waiting', ['hard']),
      task('d2', 'waiting', ['d1']),
      task('d3', 'waiting', ['net']),
    ]);
    expect(summary).toEqual({
      total: 6,
      groups: [
        {
          kind: 'transient',
          count: 1,
          tasks: [{ id: 'net', reason: 'The disk is full.' }],
          recommendation:
            'Mend the infrastructure named in the reason, then unblock the tasks with transient causes: net.',
        },
        {
          kind: 'unknown',
          count: 2,
          tasks: [
            { id: 'hard', reason: 'The same error came 3 times in a row.' },
            { id: 'mute', reason: 'It is blocked; no reason was given.' },
          ],
          recommendation:
            'Read the reason of hard and mute; give guidance, change the task or cancel it, then unblock it.',
        },
        {
          kind: 'dependency',
          count: 3,
          tasks: [
            { id: 'd1', reason: 'Waits for hard (blocked).' },
            { id: 'd2', reason: 'Waits for hard (blocked).' },
            { id: 'd3', reason: 'Waits for net (escalated).' },
          ],
          recommendation: 'Settle hard (blocked) first: 2 tasks wait for it.',
        },
      ],
      recommendation:
        'Mend the infrastructure named in the reason, then unblock the tasks with transient causes: net.',
    });
    expect(summariseBlockers([]).recommendation).toBe('Nothing stands still.');
  });

  test('a circle comes first, and many names are counted', () => {
    const ring = ['a', 'b', 'c', 'd', 'e'].map((id, i, all) =>
      task(id, 'waiting', [all[(i + 1) % 5] ?? '']),
    );
    const summary = summariseBlockers([
      ...ring,
      task('x', 'blocked', [], { cause: 'infrastructure' }),
    ]);
    expect(summary.recommendation).toBe(
      'Remove a dependency between a, b, c and 2 more, or cancel one of them: they wait for each other and will never start.',
    );
  });

  test('a task behind a circle is not counted with what holds up the circle', () => {
    const summary = summariseBlockers([
      task('x', 'blocked'),
      task('a', 'waiting', ['b', 'x']),
      task('b', 'waiting', ['a']),
      task('c', 'waiting', ['b']),
    ]);
    expect(summary.groups.at(-1)?.recommendation).toBe(
      'Settle b (which waits for itself) first: 1 task waits for it.',
    );
  });

  const size = 8;
  const standing = fc
    .array(
      fc.record({
        state: fc.constantFrom(
          'waiting',
          'waiting',
          'waiting',
          'done',
          'working',
          'blocked',
          'escalated',
          'cancelled',
        ),
        dependsOn: fc.uniqueArray(fc.nat(size - 1), { maxLength: 3 }),
      }),
      { minLength: size, maxLength: size },
    )
    .map((all) =>
      all.map(({ state, dependsOn }, i) =>
        task(
          `t${i}`,
          state,
          dependsOn.map((k) => `t${k}`),
        ),
      ),
    );

  test.prop([standing])(
    'a waiting task is listed exactly when it can never start by itself',
    (tasks) => {
      // What will be done if all that is under way goes well.
      const settled = new Set(
        tasks.filter(({ state }) => state === 'done' || state === 'working').map(({ id }) => id),
      );
      for (let before = -1; before !== settled.size; ) {
        before = settled.size;
        for (const { id, state, dependsOn } of tasks) {
          if (state === 'waiting' && dependsOn.every((needed) => settled.has(needed)))
            settled.add(id);
        }
      }
      const { dependency = [], cycle = [] } = idsByKind(summariseBlockers(tasks));
      const expected = tasks
        .filter(({ id, state }) => state === 'waiting' && !settled.has(id))
        .map(({ id }) => id);
      expect([...dependency, ...cycle].sort()).toEqual(expected.sort());
    },
  );

  test('50 000 tasks in a chain behind a blocked one', () => {
    const tasks = Array.from({ length: 50_000 }, (_, i) =>
      i === 0 ? task('t0', 'blocked') : task(`t${i}`, 'waiting', [`t${i - 1}`]),
    );
    expect(summariseBlockers(tasks.toReversed()).groups.map(({ count }) => count)).toEqual([
      1, 49_999,
    ]);
  });
});

describe('unblocking many at once', () => {
  const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

  test.each([
    [0, 0],
    [5, 0],
    [6, 15_000],
    [7, 30_000],
    [105, 1_500_000],
  ])('task %i starts after %i ms, jitter aside', (index, ms) => {
    expect(staggerMs(index, 0.5)).toBe(ms);
  });

  test.prop([fc.integer({ min: 0, max: 5 }), unit])('the first six start now', (index, u) => {
    expect(staggerMs(index, u)).toBe(0);
  });

  test.prop([fc.integer({ min: 6, max: 100_000 }), unit])(
    'the others start within 20 %% of a gap of their time',
    (index, u) => {
      const wait = staggerMs(index, u);
      expect(Number.isSafeInteger(wait)).toBe(true);
      expect(Math.abs(wait - (index - 5) * 15_000)).toBeLessThanOrEqual(3_000);
    },
  );

  test('also far behind', () => {
    // Found at random: one millisecond too many.
    expect(staggerMs(8_198, 0)).toBe((8_198 - 5) * 15_000 - 3_000);
  });

  test.prop([fc.integer({ min: 5, max: 100_000 }), unit, unit])(
    'each starts 9 to 21 s after the one before',
    (index, u, v) => {
      const gap = staggerMs(index + 1, v) - staggerMs(index, u);
      expect(gap).toBeGreaterThanOrEqual(9_000);
      expect(gap).toBeLessThanOrEqual(21_000);
    },
  );

  test('no wait is longer than a timer keeps', () => {
    expect(staggerMs(1e9, 0.9)).toBe(2 ** 31 - 1);
    expect(staggerMs(20, unitHash('a'))).not.toBe(staggerMs(20, unitHash('b')));
  });
});
