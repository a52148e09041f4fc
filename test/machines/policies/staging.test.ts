import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import {
  nextStaged,
  parseStaging,
  type StageableTask,
  stagePlan,
} from '../../../src/machines/policies/staging.ts';

const task = (id: string, priority = 2, dependsOn: readonly string[] = []): StageableTask => ({
  id,
  priority,
  dependsOn,
});
const plain = (count: number) => Array.from({ length: count }, (_, i) => task(`t${i}`));

describe('a plan', () => {
  test.each([
    { tasks: 0, enabled: 0, staged: 0 },
    { tasks: 1, enabled: 1, staged: 0 },
    { tasks: 120, enabled: 120, staged: 0 },
    { tasks: 121, enabled: 30, staged: 91 },
    { tasks: 500, enabled: 30, staged: 470 },
  ])('of $tasks tasks has $enabled enabled and $staged staged', ({ tasks, enabled, staged }) => {
    const plan = stagePlan(plain(tasks));
    expect([plan.enabled.length, plan.staged.length]).toEqual([enabled, staged]);
  });

  test('enables by priority, then in the order given', () => {
    const tasks = [task('low', 1), task('b', 3), task('a', 3), task('critical', 5)];
    const limits = { stageAbove: 3, enableFirst: 2 };
    expect(stagePlan(tasks, limits)).toEqual({ enabled: ['critical', 'b'], staged: ['a', 'low'] });
  });

  test('of equal priority, enables what most tasks wait for first', () => {
    const tasks = [
      { ...task('a'), unblocks: 1 },
      { ...task('b'), unblocks: 3 },
      { ...task('c', 3), unblocks: 0 },
      task('d'),
      { ...task('e'), unblocks: 3 },
    ];
    const { enabled, staged } = stagePlan(tasks, { stageAbove: 1, enableFirst: 3 });
    expect([enabled, staged]).toEqual([
      ['c', 'b', 'e'],
      ['a', 'd'],
    ]);
  });

  test.each([
    { input: undefined, limits: undefined },
    { input: false, limits: undefined },
    { input: true, limits: { stageAbove: 120, enableFirst: 30 } },
    { input: { enableFirst: 5 }, limits: { stageAbove: 120, enableFirst: 5 } },
  ])('is staged as $input says', ({ input, limits }) => {
    expect(parseStaging(input, 'it')).toEqual(limits);
  });

  test.each([
    { input: 3, says: 'it: expected an object with settings, got 3' },
    { input: { first: 3 }, says: 'it: there is no setting "first"' },
    { input: { enableFirst: 0 }, says: 'enableFirst' },
  ])('refuses $input', ({ input, says }) => {
    expect(() => parseStaging(input as never, 'it')).toThrow(says);
  });

  test('enables what an urgent task waits for before it', () => {
    const tasks = [
      task('x', 4),
      task('deep', 1),
      task('mid', 1, ['deep']),
      task('urgent', 5, ['mid']),
    ];
    const limits = { stageAbove: 3, enableFirst: 3 };
    expect(stagePlan(tasks, limits)).toEqual({ enabled: ['deep', 'mid', 'urgent'], staged: ['x'] });
  });
});

describe('the next ones', () => {
  const tasks = [task('a', 1, ['gone']), task('b', 4), task('c', 4, ['a'])];
  test.each([
    [0, []],
    [1, ['b']],
    [2, ['b', 'a']],
    [99, ['b', 'a', 'c']],
  ])('%i of three', (count, ids) => {
    expect(nextStaged(tasks, count)).toEqual(ids);
  });

  test.each([-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('%d of them is refused', (count) => {
    expect(() => nextStaged(tasks, count)).toThrow(
      `Expected the number of staged tasks to enable to be a whole number of 0 or more, got ${count}.`,
    );
  });
});

describe('the laws', () => {
  const size = 12;
  const anyPlan = fc
    .array(
      fc.record({
        priority: fc.integer({ min: 1, max: 5 }),
        dependsOn: fc.uniqueArray(fc.nat(size - 1), { maxLength: 3 }),
      }),
      { maxLength: size },
    )
    .map((all) =>
      all.map(({ priority, dependsOn }, i) =>
        task(
          `t${i}`,
          priority,
          dependsOn.map((k) => `t${k}`),
        ),
      ),
    );
  const soundPlan = anyPlan.map((tasks) =>
    tasks.map((one, i) => ({
      ...one,
      dependsOn: (one.dependsOn ?? []).filter((id) => Number(id.slice(1)) < i),
    })),
  );

  test.prop([anyPlan, fc.nat(size)])(
    'every task is enabled or staged, once, cycles or not',
    (tasks, enableFirst) => {
      const { enabled, staged } = stagePlan(tasks, { stageAbove: 0, enableFirst });
      expect([...enabled, ...staged].sort()).toEqual(tasks.map(({ id }) => id).sort());
      expect(enabled.length).toBe(Math.min(enableFirst, tasks.length));
    },
  );

  test.prop([soundPlan, fc.nat(size)])(
    'an enabled task waits for enabled tasks only',
    (tasks, enableFirst) => {
      const { enabled } = stagePlan(tasks, { stageAbove: 0, enableFirst });
      for (const { id, dependsOn } of tasks) {
        if (enabled.includes(id))
          expect(enabled).toEqual(expect.arrayContaining([...(dependsOn ?? [])]));
      }
    },
  );

  test.prop([soundPlan, fc.nat(size)])(
    'a staged task is no more urgent than an enabled one that nothing urgent needs',
    (tasks, enableFirst) => {
      const { enabled, staged } = stagePlan(tasks, { stageAbove: 0, enableFirst });
      const priority = (id: string): number => {
        const own = tasks.find((one) => one.id === id)?.priority ?? 0;
        return Math.max(
          own,
          ...tasks
            .filter(({ dependsOn }) => dependsOn?.includes(id))
            .map((one) => priority(one.id)),
        );
      };
      const least = Math.min(...enabled.map(priority));
      const most = Math.max(...staged.map(priority));
      if (enabled.length > 0 && staged.length > 0) expect(most).toBeLessThanOrEqual(least);
    },
  );
});

test('100 000 tasks in one chain, the most urgent at its end', () => {
  const tasks = Array.from({ length: 100_000 }, (_, i) =>
    task(`t${i}`, i === 99_999 ? 5 : 1, i === 0 ? [] : [`t${i - 1}`]),
  );
  expect(stagePlan(tasks).enabled.slice(0, 3)).toEqual(['t0', 't1', 't2']);
});
