import { describe, expect, test } from 'vitest';
import type { RunSpec, TaskInput } from '../../src/troupe.ts';
import { accepts, DISKS, memoryDisk } from './open-troupe.ts';

const task = (id: string, more: Partial<TaskInput> = {}): TaskInput => ({
  ...{ id, agent: 'ada', gatekeeper: 'g' },
  ...more,
});
const plan = (count: number, more: Partial<RunSpec> = {}): RunSpec => ({
  id: 'r',
  tasks: Array.from({ length: count }, (_, i) => task(`t${i}`)),
  staging: true,
  ...more,
});

async function open(disk = memoryDisk()) {
  const troupe = await disk.open();
  const done: string[] = [];
  troupe.agent('ada', ({ task: { id } }) => {
    done.push(id);
    return null;
  });
  troupe.gatekeeper('g', accepts);
  return { troupe, done };
}

describe.each(DISKS)('a large plan on $disk', ({ make }) => {
  test('takes part in slices: the most urgent first, then as many as are let in', async () => {
    const disk = make();
    const { troupe, done } = await open(disk);
    const tasks = plan(121).tasks.map((one, index) =>
      index === 100 ? { ...one, priority: 'high' as const, dependsOn: ['t120'] } : one,
    );
    const run = await troupe.start(plan(0, { tasks }));
    const first = await run.result();
    expect(first).toMatchObject({ state: 'blocked', counts: { done: 30, waiting: 91 } });
    const numbered = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => `t${from + i}`);
    expect(new Set(done)).toEqual(new Set(['t100', 't120', ...numbered(0, 28)]));
    expect(await run.enqueue(2)).toEqual(['t28', 't29']);
    expect(await run.result()).toMatchObject({ state: 'blocked', counts: { done: 32 } });
    // At once: each has tasks of its own.
    expect(await Promise.all([run.enqueue(3), run.enqueue(0), run.enqueue(1)])).toEqual([
      ['t30', 't31', 't32'],
      [],
      ['t33'],
    ]);
    await run.result();
    await troupe.stop();
    // What was let in, and what was not, is stored.
    const again = (await open(disk)).troupe;
    expect((await again.run('r').tasks()).filter(({ state }) => state === 'done')).toHaveLength(36);
    expect(await again.run('r').enqueue(1_000)).toHaveLength(85);
    expect(await again.run('r').result()).toMatchObject({ state: 'done' });
    expect(await again.run('r').enqueue(1)).toEqual([]);
  });
});

test('a plan that is not above the limit, or does not ask for it, takes part whole', async () => {
  const { troupe } = await open();
  const small = await troupe.start(
    plan(3, { id: 'a', staging: { stageAbove: 3, enableFirst: 1 } }),
  );
  expect(await small.result()).toMatchObject({ state: 'done' });
  const { staging: _none, ...whole } = plan(121, { id: 'b' });
  expect(await (await troupe.start(whole)).result()).toMatchObject({ state: 'done' });
});

test('a task that is staged by itself takes no place, and can be let in', async () => {
  const { troupe } = await open();
  const tasks = [
    task('off', { staged: true, priority: 'critical' }),
    ...plan(3).tasks,
    task('held', { dependsOn: ['off'] }),
  ];
  const run = await troupe.start({
    id: 'r',
    tasks,
    staging: { stageAbove: 1, enableFirst: 1 },
  });
  await run.result();
  expect((await run.tasks()).map(({ id, state }) => `${id} ${state}`)).toEqual([
    ...['off staged', 't0 done', 't1 staged', 't2 staged', 'held staged'],
  ]);
  expect(await run.enqueue(1)).toEqual(['off']);
  await run.result();
  expect((await run.task('off').status()).state).toBe('done');
});

test('one that is let in and waits for another is not waited for', async () => {
  const { troupe } = await open();
  const limits = { attempts: 1 };
  troupe.gatekeeper('no', () => ({ accepted: false, reason: 'No.', evidence: ['seen'] }));
  const run = await troupe.start({
    id: 'r',
    tasks: [
      task('bad', { gatekeeper: 'no', limits, priority: 'high' }),
      task('after', { dependsOn: ['bad'] }),
    ],
    staging: { stageAbove: 1, enableFirst: 1 },
  });
  await run.result();
  expect(await run.enqueue(1)).toEqual(['after']);
  expect((await run.task('after').status()).state).toBe('waiting');
});

test.each([
  { count: -1, says: 'to be a whole number of 0 or more, got -1' },
  { count: 1.5, says: 'got 1.5' },
])('refuses to let $count in', async ({ count, says }) => {
  const { troupe } = await open();
  const run = await troupe.start(plan(1));
  await expect(run.enqueue(count)).rejects.toThrow(says);
  await expect(troupe.run('nobody').enqueue(1)).rejects.toMatchObject({ code: 'not_found' });
});

test('refuses nonsense before anything of the run is made', async () => {
  const { troupe } = await open();
  await expect(troupe.start(plan(2, { staging: { enableFirst: 0 } }))).rejects.toMatchObject({
    code: 'validation',
    message: expect.stringContaining('staging of run "r"'),
  });
  expect(await troupe.runs()).toEqual([]);
});
