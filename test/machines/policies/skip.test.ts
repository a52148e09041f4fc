import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planSkip } from '../../../src/machines/policies/skip.ts';
import { NotFoundError } from '../../../src/protocol/errors.ts';

const task = (id: string, state: string, ...dependsOn: string[]) => ({ id, state, dependsOn });

describe('planSkip', () => {
  test('skips what is open behind the task, and names who else needs it', () => {
    const tasks = [
      task('a', 'done'),
      task('b', 'blocked', 'a'),
      task('c', 'waiting', 'b'),
      task('d', 'waiting', 'b', 'a'),
      task('e', 'waiting', 'd', 'c'),
      task('f', 'cancelled', 'b'),
    ];
    expect(planSkip('r', tasks, 'c')).toEqual({
      task: 'c',
      state: 'waiting',
      skips: [{ task: 'b', state: 'blocked' }],
      strands: [{ task: 'd', state: 'waiting', without: ['b'] }],
    });
    expect(planSkip('r', tasks, 'e')).toMatchObject({
      skips: [{ task: 'b' }, { task: 'c' }, { task: 'd' }],
      strands: [],
    });
    expect(planSkip('r', tasks, 'b')).toMatchObject({ skips: [], strands: [] });
  });

  test('looks behind what was cancelled, and not behind what is done', () => {
    const tasks = [
      task('a', 'staged'),
      task('b', 'cancelled', 'a'),
      task('c', 'escalated'),
      task('d', 'done', 'c'),
      task('e', 'blocked', 'b', 'd'),
    ];
    expect(planSkip('r', tasks, 'e')).toMatchObject({ skips: [{ task: 'a', state: 'staged' }] });
  });

  test('refuses a task that there is not, and says which was probably meant', () => {
    const plan = () =>
      planSkip('r', [task('release', 'waiting'), task('build', 'ready')], 'relaese');
    expect(plan).toThrow(NotFoundError);
    expect(plan).toThrow(
      'There is no task "relaese" in run "r". Did you mean "release"? Its tasks are release, build.',
    );
  });

  test('whatever the graph: nothing ended is skipped, what is skipped is behind it, whoever needs it is named', () => {
    const states = fc.constantFrom(
      'done',
      'cancelled',
      'cancelling',
      'waiting',
      'working',
      'blocked',
    );
    const graphs = fc
      .array(fc.record({ state: states, earlier: fc.array(fc.nat(9), { maxLength: 4 }) }), {
        minLength: 1,
        maxLength: 10,
      })
      .map((nodes) =>
        nodes.map(({ state, earlier }, at) => {
          const dependsOn = [...new Set(earlier.filter((n) => n < at))].map((n) => `t${n}`);
          return task(`t${at}`, state, ...dependsOn);
        }),
      );
    fc.assert(
      fc.property(graphs, fc.nat(9), (tasks, pick) => {
        const target = tasks[pick % tasks.length] as (typeof tasks)[number];
        const { skips, strands } = planSkip('r', tasks, target.id);
        const byId = new Map(tasks.map((one) => [one.id, one]));
        // The slow way: all paths that do not lead through what is done.
        const behind = (id: string): string[] =>
          (byId.get(id)?.dependsOn ?? [])
            .filter((next) => byId.get(next)?.state !== 'done')
            .flatMap((next) => [next, ...behind(next)]);
        const open = (id: string) =>
          !['done', 'cancelled', 'cancelling'].includes(byId.get(id)?.state ?? '');
        const wanted = new Set(behind(target.id).filter(open));
        expect(skips.map((skip) => skip.task)).toEqual(
          tasks.map(({ id }) => id).filter((id) => wanted.has(id)),
        );
        const others = tasks.filter(({ id }) => id !== target.id && !wanted.has(id) && open(id));
        const needing = others.filter(({ dependsOn }) => dependsOn.some((id) => wanted.has(id)));
        expect(strands.map((one) => one.task)).toEqual(needing.map(({ id }) => id));
      }),
    );
  });
});
