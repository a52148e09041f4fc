import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import {
  checkDependencies,
  type TaskWithDependencies,
} from '../../../src/machines/policies/dependency-graph.ts';
import { ValidationError } from '../../../src/protocol/errors.ts';
import { cpuTimeMs } from '../../cpu-time.ts';

const task = (id: string, ...dependsOn: string[]): TaskWithDependencies => ({ id, dependsOn });
const names = (count: number) => Array.from({ length: count }, (_, i) => `t${i}`);

function refusal(tasks: readonly TaskWithDependencies[]): ValidationError | undefined {
  try {
    checkDependencies(tasks);
    return undefined;
  } catch (error) {
    if (error instanceof ValidationError) return error;
    throw error;
  }
}

describe('a sound plan', () => {
  test('tells who waits for whom', () => {
    const { dependants, unblocks } = checkDependencies([
      task('draft'),
      task('print', 'draft', 'edit'),
      task('edit', 'draft'),
    ]);
    expect(Object.fromEntries(dependants)).toEqual({
      draft: ['print', 'edit'],
      print: [],
      edit: ['print'],
    });
    expect(Object.fromEntries(unblocks)).toEqual({ draft: 2, print: 0, edit: 1 });
  });

  test.each([
    [[]],
    [[task('a')]],
    [[task('b', 'a'), task('a')]],
    [[task('__proto__'), task('constructor', '__proto__')]],
    [[...names(20).map((id) => task(id)), task('all', ...names(20))]],
  ])('case %# is accepted', (tasks) => {
    expect(refusal(tasks)).toBeUndefined();
  });
});

describe('refused', () => {
  test.each([
    [
      'on itself',
      [task('a', 'a')],
      'Task "a" depends on itself, so it could never start. Remove that dependency.',
    ],
    [
      'on nothing',
      [task('build'), task('test', 'biuld')],
      'Task "test" depends on "biuld", which is not a task of this run. Did you mean "build"?',
    ],
    [
      'on nothing near',
      [task('build'), task('test', 'zebra')],
      'Task "test" depends on "zebra", which is not a task of this run.',
    ],
    [
      'on a property of every object',
      [task('a', 'constructor')],
      'Task "a" depends on "constructor", which is not a task of this run.',
    ],
    [
      'twice',
      [task('a'), task('b', 'a', 'a')],
      'Task "b" names the dependency "a" twice. Remove one of the two.',
    ],
    [
      'on 21 tasks',
      [...names(21).map((id) => task(id)), task('all', ...names(21))],
      'Task "all" has 21 dependencies; at most 20 are allowed. Put a task between them that waits for a part of them.',
    ],
    [
      'two tasks with one id',
      [task('a'), task('b'), task('a')],
      'Two tasks have the id "a". Ids must be unique within a run: rename one of them.',
    ],
    [
      'a circle of two',
      [task('a', 'b'), task('b', 'a')],
      'The tasks wait for each other in a circle: a → b → a. Remove one of these dependencies.',
    ],
    [
      'a circle of three behind others',
      [task('end', 'z'), task('x', 'z', 'free'), task('free'), task('y', 'x'), task('z', 'y')],
      'The tasks wait for each other in a circle: x → z → y → x. Remove one of these dependencies.',
    ],
  ])('a dependency %s', (_, tasks, message) => {
    expect(refusal(tasks)?.message).toBe(message);
  });

  test('facts come with the error', () => {
    expect(refusal([task('a', 'b'), task('b', 'a')])?.context).toEqual({
      cycle: ['a', 'b'],
      length: 2,
    });
    expect(refusal([task('a', 'x')])?.context).toEqual({ task: 'a', dependency: 'x' });
  });

  test('a long circle is named by its beginning', () => {
    const ids = names(500);
    const ring = ids.map((id, i) => task(id, ids[(i + 1) % 500] ?? ''));
    expect(refusal(ring)?.message).toContain(
      't0 → t1 → t2 → t3 → t4 → t5 → t6 → t7 → t8 → t9 → t10 → t11 → (488 more) → t0.',
    );
  });
});

describe('the laws', () => {
  /** Small plans of every shape: edges between any two, cycles included, no other fault. */
  const plan = fc
    .integer({ min: 1, max: 7 })
    .chain((size) =>
      fc
        .array(fc.tuple(fc.nat(size - 1), fc.nat(size - 1)), { maxLength: 12 })
        .map((edges) =>
          names(size).map((id, i) =>
            task(
              id,
              ...new Set(edges.flatMap(([from, to]) => (from === i && to !== i ? [`t${to}`] : []))),
            ),
          ),
        ),
    );

  /** Can `id` be reached from one of its own dependencies? By trying every path. */
  function reachesItself(tasks: readonly TaskWithDependencies[], id: string): boolean {
    const seen = new Set<string>();
    const visit = (at: string): boolean =>
      (tasks.find((one) => one.id === at)?.dependsOn ?? []).some((next) => {
        if (next === id) return true;
        if (seen.has(next)) return false;
        seen.add(next);
        return visit(next);
      });
    return visit(id);
  }

  test.prop([plan], { numRuns: 500 })(
    'a plan is refused exactly when a task waits for itself',
    (tasks) => {
      expect(refusal(tasks) !== undefined).toBe(tasks.some(({ id }) => reachesItself(tasks, id)));
    },
  );

  test.prop([plan], { numRuns: 500 })('the circle that is named is one', (tasks) => {
    const error = refusal(tasks);
    fc.pre(error !== undefined);
    const cycle = error?.context['cycle'] as readonly string[];
    expect(new Set(cycle).size).toBe(cycle.length);
    cycle.forEach((id, i) => {
      const next = cycle[(i + 1) % cycle.length];
      expect(tasks.find((one) => one.id === id)?.dependsOn).toContain(next);
    });
    expect(error?.message).toContain(`: ${[...cycle, cycle[0]].join(' → ')}.`);
  });

  test.prop([plan])('the dependants are the dependencies read backwards', (tasks) => {
    fc.pre(refusal(tasks) === undefined);
    const { dependants, unblocks } = checkDependencies(tasks);
    for (const { id } of tasks) {
      const expected = tasks.filter(({ dependsOn }) => dependsOn.includes(id)).map((one) => one.id);
      expect(dependants.get(id)).toEqual(expected);
      expect(unblocks.get(id)).toBe(expected.length);
    }
  });
});

describe('100 000 tasks', () => {
  const ids = names(100_000);
  const chain = ids.map((id, i) => (i === 0 ? task(id) : task(id, ids[i - 1] ?? '')));
  const broad = ids.map((id, i) =>
    task(id, ...(i < 20 ? [] : Array.from({ length: 20 }, (_, k) => ids[i - 20 + k] ?? ''))),
  );
  /** Far above what linear time needs, far below what anything else would. */
  const limitMs = 5_000;
  test.each([
    ['a chain', chain, undefined],
    ['a chain given backwards', chain.toReversed(), undefined],
    ['20 dependencies each', broad, undefined],
    [
      'a ring',
      [task('t0', 't99999'), ...chain.slice(1)],
      /circle: t0 → t99999 → t99998 .*\(99988 more\)/,
    ],
    ['a missing one at the end', [...chain, task('last', 't100001')], /Did you mean "t/],
  ])('%s', (_, tasks, message) => {
    const start = cpuTimeMs();
    const error = refusal(tasks);
    expect(cpuTimeMs() - start).toBeLessThan(limitMs);
    if (message === undefined) expect(error).toBeUndefined();
    else expect(error?.message).toMatch(message);
  });
});
