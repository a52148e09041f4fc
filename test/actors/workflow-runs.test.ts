import { describe, expect, test } from 'vitest';
import type { Troupe } from '../../src/troupe.ts';
import {
  accepts,
  advance,
  Gate,
  memoryDisk,
  reaches,
  SimulatedClock,
  sqliteDisk,
} from './open-troupe.ts';

const HOUR = 3_600_000;

/** A troupe on a simulated clock, whose agent does as `work` says. */
async function opened(work: (id: string, signal: AbortSignal) => unknown, disk = memoryDisk()) {
  const clock = new SimulatedClock();
  const troupe = await disk.open({ clock, retention: false, heartbeatMs: 0 });
  register(troupe, work);
  return { clock, troupe, disk };
}

function register(troupe: Troupe, work: (id: string, signal: AbortSignal) => unknown): void {
  troupe.agent(
    'writer',
    async ({ task, signal }) => {
      await work(task.id, signal);
      return task.id;
    },
    { concurrency: 8, timeoutMs: 1_000 * HOUR },
  );
  troupe.gatekeeper('editor', accepts, { concurrency: 8 });
}

const until = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
const base = { id: 'w', agent: 'writer', gatekeeper: 'editor' } as const;

describe('phases', () => {
  test.each([
    ['memory', memoryDisk],
    ['sqlite', sqliteDisk],
  ])('one after the other, on %s: states, counts and times of each', async (_name, make) => {
    const began: string[] = [];
    const gate = new Gate();
    const disk = make();
    const troupe = await disk.open();
    register(troupe, async (id, signal) => {
      began.push(id);
      if (id === 'b') await gate.wait(signal);
    });
    const run = await troupe.startWorkflow({
      ...base,
      phases: [
        { id: 'first', tasks: [{ id: 'a' }, { id: 'b' }] },
        { id: 'second', title: 'The end', tasks: [{ id: 'c' }] },
      ],
    });
    await gate.reached;
    expect((await run.phases()).map(({ id, state }) => [id, state])).toEqual([
      ['first', 'running'],
      ['second', 'waiting'],
    ]);
    gate.pass();
    const { state, phases } = await run.result();
    expect(state).toBe('done');
    expect(began.at(-1)).toBe('c');
    expect(phases).toMatchObject([
      { id: 'first', state: 'done', total: 2, counts: { done: 2 }, failed: [] },
      { id: 'second', title: 'The end', state: 'done', counts: { done: 1 } },
    ]);
    const [first, second] = phases;
    expect(second?.openedAt).toBeGreaterThanOrEqual(first?.endedAt ?? Number.POSITIVE_INFINITY);
  });

  test('a blocked task stops what depends on it; others of its phase go on', async () => {
    const { troupe } = await opened((id) => {
      if (id === 'a') throw new Error('No idea.');
    });
    const run = await troupe.startWorkflow({
      ...base,
      limits: { attempts: 1, sameError: 1 },
      concurrency: 1,
      phases: [
        { id: 'first', tasks: [{ id: 'a' }, { id: 'b' }, { id: 'c' }] },
        { id: 'second', tasks: [{ id: 'd' }] },
      ],
    });
    const { state, tasks, phases } = await run.result();
    expect(state).toBe('blocked');
    expect(tasks.map(({ id, state: one }) => [id, one])).toEqual([
      ['a', 'blocked'],
      ['b', 'done'],
      ['c', 'done'],
      ['d', 'waiting'],
    ]);
    expect(phases.map((phase) => phase.state)).toEqual(['blocked', 'waiting']);
    expect(phases[0]?.failed).toEqual(['a']);
  });

  test('with onFailure: hold the others are not started until the failed one goes on', async () => {
    let mended = false;
    const { troupe } = await opened((id) => {
      if (id === 'a' && !mended) throw new Error('No idea.');
    });
    const run = await troupe.startWorkflow({
      ...base,
      limits: { attempts: 1, sameError: 1 },
      concurrency: 1,
      order: 'parallel',
      phases: [
        { id: 'first', onFailure: 'hold', tasks: [{ id: 'a' }, { id: 'b' }, { id: 'c' }] },
        // Another phase has nothing to do with it.
        { id: 'other', tasks: [{ id: 'x' }, { id: 'y' }] },
      ],
    });
    const { state, tasks, phases, reason } = await run.result();
    expect(state).toBe('blocked');
    expect(tasks.map((task) => task.state)).toEqual(['blocked', 'ready', 'ready', 'done', 'done']);
    expect(phases[0]).toMatchObject({ state: 'blocked', held: true, failed: ['a'] });
    expect(reason).toContain('Phase "first" is held because of a.');
    mended = true;
    await run.task('a').decide('retry');
    const after = await run.result();
    expect(after.state).toBe('done');
    expect(after.phases[0]).toMatchObject({ state: 'done', held: false, failed: [] });
  });

  test('one that has ended is open again, and its time passes, when a task of it is rolled back', async () => {
    const gate = new Gate();
    const again = new Gate();
    let times = 0;
    const { clock, troupe } = await opened(async (id, signal) => {
      if (id === 'b') return await gate.wait(signal);
      if (id === 'a' && ++times > 1) return await again.wait(signal);
    });
    const run = await troupe.startWorkflow({
      ...base,
      order: 'parallel',
      phases: [
        { id: 'first', budgetMs: 2 * HOUR, tasks: [{ id: 'a' }] },
        { id: 'second', tasks: [{ id: 'b' }] },
      ],
    });
    await gate.reached;
    await reaches(troupe, 'task/w/a', 'done');
    const first = async () => (await run.phases())[0];
    expect(await first()).toMatchObject({ state: 'done', dueAt: null });
    await advance(clock, HOUR);
    await run.task('a').rollback(0);
    await again.reached;
    expect(await first()).toMatchObject({
      ...{ state: 'running', endedAt: null },
      dueAt: clock.now() + 2 * HOUR,
    });
    again.pass();
    gate.pass();
    expect(await run.result()).toMatchObject({ state: 'done' });
    expect(await first()).toMatchObject({ state: 'done', endedAt: expect.any(Number) });
  });

  test('starting it again is harmless, with another budget it is refused', async () => {
    const { troupe } = await opened(() => undefined);
    const spec = { ...base, phases: [{ id: 'first', budgetMs: HOUR, tasks: [{ id: 'a' }] }] };
    await (await troupe.startWorkflow(spec)).result();
    await expect(troupe.startWorkflow(spec)).resolves.toMatchObject({ id: 'w' });
    await expect(
      troupe.startWorkflow({ ...spec, phases: [{ ...spec.phases[0], budgetMs: 7 } as never] }),
    ).rejects.toThrow('exists already');
  });
});

describe('time budgets', () => {
  const phases = [
    { id: 'first', budgetMs: 2 * HOUR, tasks: [{ id: 'a' }, { id: 'b', dependsOn: ['a'] }] },
    { id: 'second', tasks: [{ id: 'c' }] },
  ];

  test('used up: its open tasks are escalated with the reason, and a person may let them go on', async () => {
    let slow = true;
    let aborted = 0;
    const { troupe, clock } = await opened(async (_id, signal) => {
      if (!slow) return;
      await until(signal).finally(() => aborted++);
    });
    const run = await troupe.startWorkflow({ ...base, phases });
    await reaches(troupe, 'task/w/a', 'working');
    await advance(clock, 2 * HOUR - 1);
    expect((await run.tasks())[0]?.state).toBe('working');
    await advance(clock, 1);
    const { state, tasks, phases: stand, reason } = await run.result();
    expect(state).toBe('blocked');
    expect(aborted).toBe(1);
    expect(tasks.map((task) => task.state)).toEqual(['escalated', 'escalated', 'waiting']);
    expect(tasks[0]?.reason).toBe('The time budget of phase "first" (2 h) is used up.');
    expect(reason).toContain('The time budget of phase "first" (2 h) is used up.');
    expect(stand[0]).toMatchObject({ state: 'blocked', failed: ['a', 'b'], dueAt: null });
    expect(stand[0]?.usedUpAt).toBe((stand[0]?.openedAt ?? 0) + 2 * HOUR);
    slow = false;
    await run.task('a').decide('retry');
    await run.task('b').decide('retry');
    const after = await run.result();
    expect(after.state).toBe('done');
    // That it took too long is not forgotten.
    expect(after.phases[0]).toMatchObject({ state: 'done', usedUpAt: stand[0]?.usedUpAt });
  });

  test('with cancel they are cancelled, and what depends on them is blocked, not started', async () => {
    const { troupe, clock } = await opened((_id, signal) => until(signal));
    const run = await troupe.startWorkflow({ ...base, onBudget: 'cancel', phases });
    await reaches(troupe, 'task/w/a', 'working');
    await advance(clock, 2 * HOUR);
    const { state, tasks, phases: stand } = await run.result();
    expect(state).toBe('blocked');
    expect(tasks.map((task) => task.state)).toEqual(['cancelled', 'cancelled', 'blocked']);
    expect(tasks[0]?.reason).toContain('The time budget of phase "first" (2 h) is used up.');
    expect(stand[0]?.state).toBe('cancelled');
  });

  test.each(['escalate', 'cancel'] as const)('of the whole workflow: %s', async (onBudget) => {
    const { troupe, clock } = await opened((_id, signal) => until(signal));
    const run = await troupe.startWorkflow({
      ...base,
      budgetMs: HOUR,
      onBudget,
      phases: [
        { id: 'first', tasks: [{ id: 'a' }] },
        { id: 'second', tasks: [{ id: 'c' }] },
      ],
    });
    await reaches(troupe, 'task/w/a', 'working');
    await advance(clock, HOUR);
    const { state, tasks, reason } = await run.result();
    expect(state).toBe(onBudget === 'cancel' ? 'cancelled' : 'blocked');
    const states = onBudget === 'cancel' ? 'cancelled' : 'escalated';
    expect(tasks.map((task) => task.state)).toEqual([states, states]);
    expect(reason).toContain('The time budget of the workflow (1 h) is used up.');
  });

  test('it passes while nobody is there: used up on the next day, when the store is opened', async () => {
    const { troupe, clock, disk } = await opened((_id, signal) => until(signal));
    await troupe.startWorkflow({ ...base, phases });
    await reaches(troupe, 'task/w/a', 'working');
    await troupe.stop();
    clock.jump(clock.now() + 24 * HOUR);
    const again = await disk.open({ clock, heartbeatMs: 0 });
    register(again, (_id, signal) => until(signal));
    await advance(clock, 1);
    const { tasks } = await again.run('w').result();
    expect(tasks.map((task) => task.state)).toEqual(['escalated', 'escalated', 'waiting']);
  });

  test('it stands still while the run is paused', async () => {
    const { troupe, clock } = await opened((_id, signal) => until(signal));
    const run = await troupe.startWorkflow({ ...base, phases });
    await reaches(troupe, 'task/w/a', 'working');
    await advance(clock, HOUR);
    await run.pause();
    await reaches(troupe, 'run/w', 'paused');
    await advance(clock, 48 * HOUR);
    expect((await run.phases())[0]).toMatchObject({
      state: 'running',
      dueAt: null,
      usedUpAt: null,
    });
    await run.resume();
    await reaches(troupe, 'run/w', 'running');
    await advance(clock, HOUR - 1);
    expect((await run.tasks())[0]?.state).toBe('working');
    await advance(clock, 1);
    expect((await run.tasks())[0]?.state).toBe('escalated');
  });

  test('a phase that ends in time is left alone, and so is the next one', async () => {
    const { troupe, clock } = await opened(async (id, signal) => {
      if (id === 'c') await until(signal);
    });
    const run = await troupe.startWorkflow({ ...base, phases });
    await reaches(troupe, 'task/w/c', 'working');
    await advance(clock, 10 * HOUR);
    expect((await run.phases()).map(({ state, usedUpAt }) => [state, usedUpAt])).toEqual([
      ['done', null],
      ['running', null],
    ]);
  });

  test('what waits for verification is verified again when somebody lets it go on', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock, retention: false, heartbeatMs: 0 });
    let worked = 0;
    troupe.agent('writer', () => ++worked);
    const gate = new Gate();
    let hurried = false;
    troupe.gatekeeper('editor', async ({ signal }) => {
      if (!hurried) await gate.wait(signal);
      return accepts();
    });
    const run = await troupe.startWorkflow({
      ...base,
      budgetMs: HOUR,
      phases: [{ id: 'first', tasks: [{ id: 'a' }] }],
    });
    await gate.reached;
    await advance(clock, HOUR);
    expect((await run.result()).tasks[0]?.state).toBe('escalated');
    hurried = true;
    await run.task('a').decide('retry');
    expect((await run.result()).state).toBe('done');
    expect(worked).toBe(1);
  });
});

describe('going back', () => {
  test('a fork has the phases of its own, and the template makes each run anew', async () => {
    const { troupe } = await opened(() => undefined);
    const call = {
      template: 'bugFix',
      gatekeeper: 'editor',
      params: { title: 'Crash', agent: 'writer' },
    };
    const run = await troupe.startWorkflow({ ...call, id: 'one' });
    const other = await troupe.startWorkflow({ ...call, id: 'two' });
    expect((await run.result()).phases.map(({ state }) => state)).toEqual(['done', 'done', 'done']);
    expect((await other.result()).state).toBe('done');
    const fork = await run.fork('start', { id: 'three' });
    expect((await fork.result()).phases.map(({ id, state }) => [id, state])).toEqual([
      ['reproduce', 'done'],
      ['fix', 'done'],
      ['review', 'done'],
    ]);
  });
});
