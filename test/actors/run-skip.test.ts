import { describe, expect, test } from 'vitest';
import type { Engine } from '../../src/actors/engine.ts';
import { taskMigrations } from '../../src/actors/task-migrations.ts';
import { ConflictError, NotFoundError } from '../../src/protocol/errors.ts';
import type { Troupe } from '../../src/troupe.ts';
import { accepts, DISKS, reaches } from './open-troupe.ts';

/** `broken` cannot do it; `slow` is at it until it is told to stop. */
const work: Engine = async ({ task, signal }) => {
  if (task.id === 'broken') throw new Error('It does not compile.');
  if (task.id === 'slow') {
    await new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  }
  return { task: task.id };
};

function staff(troupe: Troupe): void {
  troupe.agent('ada', work, { concurrency: 4 });
  troupe.gatekeeper('g', accepts);
}

const named = (id: string, ...dependsOn: string[]) => ({
  id,
  agent: 'ada',
  gatekeeper: 'g',
  dependsOn,
  limits: { sameError: 1 },
});

const chain = (id: string, ...more: ReturnType<typeof named>[]) => ({
  id,
  tasks: [
    named('first'),
    named('broken', 'first'),
    named('between', 'broken'),
    named('last', 'between'),
    ...more,
  ],
});

const standing = async (troupe: Troupe, run: string) =>
  Object.fromEntries((await troupe.run(run).tasks()).map(({ id, state }) => [id, state]));

describe.each(DISKS)('skipping to a task, on a $disk disk', ({ make }) => {
  test('cancels what is open behind it, and the result says what was left out', async () => {
    const troupe = await make().open();
    staff(troupe);
    const run = await troupe.start(chain('r'));
    expect(await run.result()).toMatchObject({ state: 'blocked' });

    const plan = await run.skipTo('last', { dryRun: true });
    expect(plan).toEqual({
      task: 'last',
      state: 'waiting',
      skips: [
        { task: 'broken', state: 'blocked' },
        { task: 'between', state: 'waiting' },
      ],
      strands: [],
    });
    expect(await standing(troupe, 'r')).toMatchObject({ broken: 'blocked', last: 'waiting' });

    expect(await run.skipTo('last', { by: 'ada' })).toEqual(plan);
    const { state, tasks } = await run.result();
    expect(state).toBe('done');
    expect(
      tasks.map(({ id, state: is, reason, without, skippedFor }) => [
        ...[id, is, reason, without.join(), skippedFor],
      ]),
    ).toEqual([
      ['first', 'done', null, '', null],
      ['broken', 'cancelled', 'Skipped by ada: "last" goes on without it.', '', 'last'],
      ['between', 'cancelled', 'Skipped by ada: "last" goes on without it.', '', 'last'],
      ['last', 'done', null, 'between', null],
    ]);
  });

  test('ends work that is under way', async () => {
    const troupe = await make().open();
    staff(troupe);
    const run = await troupe.start({ id: 'r', tasks: [named('slow'), named('last', 'slow')] });
    await reaches(troupe, 'task/r/slow', 'working');
    expect(await run.skipTo('last')).toMatchObject({ skips: [{ task: 'slow', state: 'working' }] });
    expect(await run.result()).toMatchObject({ state: 'done' });
    expect(await standing(troupe, 'r')).toEqual({ slow: 'cancelled', last: 'done' });
  });

  test('leaves others blocked only if that is what is wanted', async () => {
    const troupe = await make().open();
    staff(troupe);
    const run = await troupe.start(chain('r', named('other', 'broken'), named('behind', 'other')));
    await run.result();
    const refused = run.skipTo('last');
    await expect(refused).rejects.toThrow(ConflictError);
    await expect(refused).rejects.toThrow(
      'Skipping to "last" would leave other tasks blocked: "other" (depends on broken).',
    );
    expect(await standing(troupe, 'r')).toMatchObject({ broken: 'blocked', last: 'waiting' });

    expect(await run.skipTo('last', { strand: true })).toMatchObject({
      strands: [{ task: 'other', without: ['broken'] }],
    });
    expect(await run.result()).toMatchObject({ state: 'blocked' });
    expect(await standing(troupe, 'r')).toMatchObject({
      ...{ broken: 'cancelled', last: 'done', other: 'blocked', behind: 'waiting' },
    });
    await run.task('other').unblock();
    expect(await run.result()).toMatchObject({ state: 'done' });
    const other = await run.task('other').status();
    expect(other).toMatchObject({ state: 'done', without: ['broken'] });
  });

  test('refuses what has ended, and what there is not', async () => {
    const troupe = await make().open();
    staff(troupe);
    const run = await troupe.start(chain('r'));
    await run.result();
    await expect(run.skipTo('lats')).rejects.toThrow(NotFoundError);
    await expect(run.skipTo('lats')).rejects.toThrow('Did you mean "last"?');
    for (const dryRun of [true, false]) {
      const done = run.skipTo('first', { dryRun });
      await expect(done).rejects.toThrow(ConflictError);
      await expect(done).rejects.toThrow('Task "first" is done: it cannot be skipped to.');
    }
    await run.task('broken').cancel('no');
    await reaches(troupe, 'task/r/broken', 'cancelled');
    await expect(run.skipTo('broken')).rejects.toThrow('Task "broken" is cancelled');
    await run.cancel('no');
    await run.result();
    const ended = run.skipTo('last');
    await expect(ended).rejects.toThrow(ConflictError);
    await expect(ended).rejects.toThrow('Run "r" is cancelled');
    await expect(troupe.run('q').skipTo('last')).rejects.toThrow('There is no run "q".');
  });

  test('does nothing to a task that waits for nothing, and no harm when done again', async () => {
    const disk = make();
    const troupe = await disk.open();
    staff(troupe);
    const run = await troupe.start({
      id: 'r',
      tasks: [
        named('broken'),
        named('last', 'broken'),
        { ...named('later', 'last'), staged: true },
      ],
    });
    await run.result();
    expect(await run.skipTo('broken')).toMatchObject({ state: 'blocked', skips: [] });
    await run.skipTo('last');
    await reaches(troupe, 'task/r/last', 'done');
    // Staged, it need not be enabled any more; a paused run stays paused.
    await run.pause();
    await reaches(troupe, 'run/r', 'paused');
    expect(await run.skipTo('later')).toMatchObject({ state: 'ready', skips: [] });
    expect(await run.skipTo('later')).toMatchObject({ state: 'ready', skips: [] });
    expect(await run.status()).toMatchObject({ state: 'paused' });
    await run.resume();
    expect(await run.result()).toMatchObject({ state: 'done' });
  });

  test('is taken back by a rollback of the run', async () => {
    const troupe = await make().open();
    staff(troupe);
    const run = await troupe.start(chain('r'));
    await run.result();
    await run.checkpoint({ label: 'stuck' });
    await run.skipTo('last');
    expect(await run.result()).toMatchObject({ state: 'done' });
    await run.rollback('stuck');
    expect(await run.result()).toMatchObject({ state: 'blocked' });
    expect(await standing(troupe, 'r')).toMatchObject({ broken: 'blocked', last: 'waiting' });
    expect(await run.task('broken').status()).toMatchObject({ skippedFor: null });
  });
});

test('tasks of version 2 were never skipped', () => {
  const stored = { status: 'active', value: 'waiting', context: { spec: {}, lost: ['a'] } };
  const migrated = taskMigrations.apply(stored as never, 2, (value) => value as never);
  expect(taskMigrations.version).toBe(4);
  expect(migrated).toMatchObject({
    ...stored,
    context: { spec: {}, lost: ['a'], without: [], skippedFor: null },
  });
});
