import { pino } from 'pino';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Engine } from '../../src/actors/engine.ts';
import { taskAddress } from '../../src/protocol/address.ts';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe, type Troupe } from '../../src/troupe.ts';
import {
  accepts,
  advance,
  DISKS,
  Gate,
  memoryDisk,
  reaches,
  SimulatedClock,
} from './open-troupe.ts';

/** Works when told to: each attempt waits at a gate of its own. */
class Workshop {
  readonly begun: string[] = [];
  readonly #gates = new Map<string, Gate[]>();

  /** The n-th time that an attempt is begun, from 0. */
  gate(name: string, time = 0): Gate {
    const gates = this.#gates.get(name) ?? [];
    this.#gates.set(name, gates);
    for (let i = gates.length; i <= time; i++) gates.push(new Gate());
    return gates[time] as Gate;
  }

  readonly engine: Engine = async ({ task, signal }) => {
    const name = `${task.id}@${task.attempt}`;
    const time = this.begun.filter((entry) => entry === name).length;
    this.begun.push(name);
    await this.gate(name, time).wait(signal);
    return { task: task.id, time };
  };
}

const spec = (id: string) => ({
  id,
  tasks: [
    { id: 'a', agent: 'ada', gatekeeper: 'g' },
    { id: 'b', agent: 'ada', gatekeeper: 'g', dependsOn: ['a'] },
    { id: 'c', agent: 'bob', gatekeeper: 'g' },
  ],
  limits: { backoff: { initialMs: 10 } },
});

function staff(troupe: Troupe, workshop: Workshop): void {
  troupe.agent('ada', workshop.engine);
  troupe.agent('bob', workshop.engine);
  troupe.gatekeeper('g', accepts);
}

const states = async (troupe: Troupe, run: string) =>
  Object.fromEntries((await troupe.run(run).tasks()).map(({ id, state }) => [id, state]));

describe.each(DISKS)('a run, on a $disk disk', ({ make }) => {
  test('is rolled back to a cut, does its work again and ends with every count right', async () => {
    const troupe = await make().open();
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start(spec('r'));
    await workshop.gate('a@1').reached;
    await workshop.gate('c@1').reached;
    const cut = await run.checkpoint({ label: 'two at work', progress: 10 });
    expect(cut).toMatchObject({ kind: 'manual', label: 'two at work', progress: 10, tasks: 3 });
    for (const name of ['a@1', 'b@1', 'c@1']) workshop.gate(name).pass();
    expect(await run.result()).toMatchObject({ state: 'done' });

    const moves = await run.rollback('two at work', { dryRun: true });
    expect(moves).toEqual([
      { task: 'a', from: 'done', to: 'working', redoes: 1, merged: null },
      { task: 'b', from: 'done', to: 'waiting', redoes: null, merged: null },
      { task: 'c', from: 'done', to: 'working', redoes: 1, merged: null },
    ]);
    expect(await states(troupe, 'r')).toEqual({ a: 'done', b: 'done', c: 'done' });

    expect(await run.rollback('two at work')).toEqual(moves);
    expect((await run.status()).state).toBe('running');
    expect(await run.task('b').attempts()).toEqual([]);
    workshop.gate('a@1', 1).pass();
    workshop.gate('c@1', 1).pass();
    workshop.gate('b@1', 1).pass();
    const { state, counts, tasks } = await run.result();
    expect(state).toBe('done');
    expect(counts).toMatchObject({ done: 3, active: 0, verifying: 0, ready: 0, waiting: 0 });
    expect(tasks.map(({ attempts }) => attempts)).toEqual([1, 1, 1]);
    expect(workshop.begun.toSorted()).toEqual(['a@1', 'a@1', 'b@1', 'b@1', 'c@1', 'c@1']);

    const kinds = (await run.cuts()).map(({ kind, label }) => label ?? kind);
    expect(kinds).toEqual([
      'start',
      'two at work',
      'done',
      'before rollback to two at work',
      'done',
    ]);
    const [moved] = await run.rollback('before rollback to two at work');
    expect(moved).toMatchObject({ from: 'done', to: 'done' });
    expect((await run.result()).state).toBe('done');
  });

  test('goes back while its agents work: their work is called off and its answer not heard', async () => {
    const troupe = await make().open();
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start(spec('r'));
    await workshop.gate('a@1').reached;
    await workshop.gate('c@1').reached;
    await run.rollback('start');
    await workshop.gate('a@1', 1).reached;
    await workshop.gate('c@1', 1).reached;
    workshop.gate('a@1').pass();
    workshop.gate('c@1').pass();
    for (const name of ['a@1', 'c@1']) workshop.gate(name, 1).pass();
    workshop.gate('b@1').pass();
    const { state } = await run.result();
    expect(state).toBe('done');
    const results = await Promise.all(
      ['a', 'c'].map((id) => troupe.host.inspect(taskAddress('r', id))),
    );
    expect(results.map((found) => found?.snapshot.context['result'])).toEqual([
      { task: 'a', time: 1 },
      { task: 'c', time: 1 },
    ]);
  });

  test('is rolled back by the next process, and by one that was killed in between', async () => {
    const disk = make();
    const first = await disk.open();
    const workshop = new Workshop();
    staff(first, workshop);
    const run = await first.start(spec('r'));
    await workshop.gate('a@1').reached;
    await first.run('r').checkpoint({ label: 'here' });
    for (const name of ['a@1', 'b@1', 'c@1']) workshop.gate(name).pass();
    await run.result();
    await first.stop();
    const second = await disk.open();
    await second.run('r').rollback('here');
    await second.stop();
    const third = await disk.open();
    staff(third, workshop);
    for (const name of ['a@1', 'b@1', 'c@1']) {
      workshop.gate(name, 1).pass();
      workshop.gate(name, 2).pass();
    }
    const { state, counts } = await third.run('r').result();
    expect([state, counts.done]).toEqual(['done', 3]);
  });

  test('is forked: both go on, each by itself', async () => {
    const troupe = await make().open();
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start(spec('r'));
    await workshop.gate('a@1').reached;
    workshop.gate('c@1').pass();
    await reaches(troupe, 'task/r/c', 'done');
    const cut = await run.checkpoint({});
    const fork = await run.fork(cut.id, { id: 'other' });
    expect(await states(troupe, 'other')).toMatchObject({ b: 'waiting', c: 'done' });
    expect(await fork.status()).toMatchObject({ forkedFrom: { run: 'r', cut: cut.id } });
    workshop.gate('a@1').pass();
    workshop.gate('a@1', 1).pass();
    workshop.gate('b@1').pass();
    workshop.gate('b@1', 1).pass();
    for (const id of ['r', 'other']) {
      const { state, counts, tasks } = await troupe.run(id).result();
      expect([id, state, counts.done]).toEqual([id, 'done', 3]);
      expect(tasks.map(({ run: of, attempts }) => [of, attempts])).toEqual([
        [id, 1],
        [id, 1],
        [id, 1],
      ]);
    }
    // It is the run that it would be if it had been started: starting it again is harmless.
    await troupe.start(spec('other'));
    await expect(run.fork(cut.id, { id: 'other' })).rejects.toMatchObject({ code: 'conflict' });
    await expect(troupe.run('none').fork('start', { id: 'x' })).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  test('finds in a fork what its tasks had kept at the cut, and not what was kept since', async () => {
    const troupe = await make().open();
    const workshop = new Workshop();
    troupe.agent('ada', async (context) => {
      const { id, run } = context.task;
      await context.artifact(id, `${id} of ${run}`);
      await workshop.engine(context);
      return await context.artifacts();
    });
    troupe.gatekeeper('g', accepts);
    const tasks = [
      { id: 'a', agent: 'ada', gatekeeper: 'g' },
      { id: 'b', agent: 'ada', gatekeeper: 'g', dependsOn: ['a'] },
    ];
    const run = await troupe.start({ id: 'r', tasks });
    workshop.gate('a@1').pass();
    await workshop.gate('b@1').reached;
    const cut = await run.checkpoint({});
    await run.fork(cut.id, { id: 'f' });
    workshop.gate('b@1').pass();
    workshop.gate('b@1', 1).pass();
    expect(await troupe.run('f').result()).toMatchObject({ state: 'done' });
    const known = await troupe.host.inspect('task/f/b');
    expect(known?.snapshot.context).toMatchObject({ result: { a: 'a of r', b: 'b of f' } });
  });

  test('says which cuts there are, and how two of them differ', async () => {
    const troupe = await make().open();
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start(spec('r'));
    await workshop.gate('a@1').reached;
    workshop.gate('c@1').pass();
    await reaches(troupe, 'task/r/c', 'done');
    await run.checkpoint({ label: 'half' });
    await expect(run.rollback('nowhere')).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringMatching(
        /^Run "r" has no cut "nowhere"\. Its cuts, newest first: [0-9a-f]{16} \(half\), [0-9a-f]{16} \(start\)\.$/,
      ),
    });
    const diff = await run.diff('start', 'half');
    expect(diff.tasks.map(({ task, diff: d }) => [task, d.fromState, d.toState])).toEqual([
      ['a', 'ready', 'working'],
      ['c', 'ready', 'done'],
    ]);
    expect(diff.self?.context.some(({ path }) => path === 'counts.done')).toBe(true);
    const state = diff.tasks[1]?.diff.context.find(({ path }) => path === 'attempt');
    expect(state).toEqual({ path: 'attempt', kind: 'changed', from: 0, to: 1 });
  });
});

describe('what goes with a rollback', () => {
  const staged = { id: 'a', agent: 'ada', gatekeeper: 'g', staged: true };

  test('work is called off, and claims are forgotten: the task stands where it stood', async () => {
    const data = new MemoryData();
    const troupe = await createTroupe({
      store: new MemoryStore(data),
      logger: pino({ level: 'silent' }),
    });
    onTestFinished(() => troupe.stop());
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start({ id: 'r', tasks: [staged] });
    await run.task('a').enable();
    await workshop.gate('a@1').reached;
    expect(data.tasks.get('r')?.byId.get('a')?.token).toMatch(/^r#\d+\/ada$/);
    const idle = reaches(troupe, 'agent/ada', 'idle');
    await run.rollback('start');
    // Nobody asks it anew: it is the rollback that has called it off.
    await idle;
    expect(await states(troupe, 'r')).toEqual({ a: 'staged' });
    expect(data.tasks.get('r')?.byId.get('a')).toMatchObject({ token: null, claimed: false });
    expect([...(data.tasks.get('r')?.byToken.values() ?? [])].flatMap((ids) => [...ids])).toEqual(
      [],
    );
  });

  test('steps of an attempt that begins again are done again; those of ended attempts are kept', async () => {
    const troupe = await memoryDisk().open();
    const done: string[] = [];
    const workshop = new Workshop();
    troupe.agent('ada', async (context) => {
      const { task, step } = context;
      await step('look', () => done.push(`${task.id}@${task.attempt}`));
      if (task.attempt === 1) throw new Error('It does not work.');
      return await workshop.engine(context);
    });
    troupe.gatekeeper('g', accepts);
    const run = await troupe.start({
      id: 'r',
      limits: { backoff: { initialMs: 1 } },
      tasks: [{ id: 'a', agent: 'ada', gatekeeper: 'g' }],
    });
    await workshop.gate('a@2').reached;
    await run.checkpoint({ label: 'second' });
    await run.rollback('second');
    workshop.gate('a@2', 1).pass();
    await run.result();
    expect(done).toEqual(['a@1', 'a@2', 'a@2']);
    expect(await troupe.store.loadSteps('task/r/a@1')).toHaveLength(1);
  });

  test('what an attempt that begins again has kept and streamed is what it says now', async () => {
    const troupe = await memoryDisk().open();
    const workshop = new Workshop();
    let life = 0;
    troupe.agent('ada', async (context) => {
      life++;
      await context.artifact('draft', `of life ${life}`);
      await context.write(`life ${life}`);
      await workshop.engine(context);
      return await context.artifacts();
    });
    troupe.gatekeeper('g', accepts);
    const run = await troupe.start({
      id: 'r',
      tasks: [{ id: 'a', agent: 'ada', gatekeeper: 'g' }],
    });
    await workshop.gate('a@1').reached;
    await run.rollback('start');
    workshop.gate('a@1', 1).pass();
    expect(await run.result()).toMatchObject({ state: 'done' });
    const known = await troupe.host.inspect('task/r/a');
    expect(known?.snapshot.context).toMatchObject({ result: { draft: 'of life 2' } });
    const said: unknown[] = [];
    for await (const { value } of troupe.readStream('task/r/a')) said.push(value);
    expect(said).toContain('life 2');
  });

  test('attempts are listed as they were, back and forth', async () => {
    const troupe = await memoryDisk().open();
    const workshop = new Workshop();
    let fails = true;
    const engine: Engine = async (context) => {
      if (context.task.attempt === 1 && fails) throw new Error('It does not work.');
      return await workshop.engine(context);
    };
    troupe.agent('ada', engine, { concurrency: 2 });
    troupe.gatekeeper('g', accepts);
    const run = await troupe.start({
      id: 'r',
      limits: { backoff: { initialMs: 1 } },
      tasks: [{ id: 'a', agent: 'ada', gatekeeper: 'g' }],
    });
    const outcomesOf = async (of: string) =>
      (await troupe.store.listAttempts(of, 'a')).map(({ outcome }) => outcome);
    const outcomes = () => outcomesOf('r');
    await workshop.gate('a@2').reached;
    const { id: second } = await run.checkpoint({ label: 'second' });
    const { seq } = (await troupe.history.checkpoints('task/r/a')).at(-1) ?? { seq: -1 };
    fails = false;
    await run.rollback('start');
    await workshop.gate('a@1').reached;
    expect(await outcomes()).toEqual(['running']);
    // Forward again, the first has failed again; for the whole run, for a copy of it, and for the task alone.
    await run.rollback(second);
    expect(await outcomes()).toEqual(['failed', 'running']);
    await run.fork(second, { id: 'f' });
    expect(await outcomesOf('f')).toEqual(['failed', 'running']);
    await run.rollback('start');
    await workshop.gate('a@1', 1).reached;
    await run.task('a').rollback(seq);
    expect(await outcomes()).toEqual(['failed', 'running']);
  });
});

describe('a task', () => {
  test('is rolled back by itself while its run goes on', async () => {
    const troupe = await memoryDisk().open();
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start(spec('r'));
    await workshop.gate('c@1').reached;
    const working = (await troupe.history.checkpoints('task/r/c')).find(
      (c) => c.state === 'working',
    );
    const move = await run.task('c').rollback(0);
    expect(move).toMatchObject({ task: 'c', from: 'working', to: 'ready' });
    await workshop.gate('c@1', 1).reached;
    await run.task('c').rollback(working?.id ?? '');
    await workshop.gate('c@1', 2).reached;
    workshop.gate('c@1', 2).pass();
    await reaches(troupe, 'task/r/c', 'done');
    // Done, and nobody depends on it: it may go back as well.
    await run.task('c').rollback('#0');
    workshop.gate('c@1', 3).pass();
    workshop.gate('a@1').pass();
    workshop.gate('b@1').pass();
    const { state, counts } = await run.result();
    expect([state, counts.done]).toEqual(['done', 3]);
    expect(await run.task('c').attempts()).toHaveLength(1);
  });

  test('is not, when others have gone on because of it, or the run has ended', async () => {
    const troupe = await memoryDisk().open();
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start(spec('r'));
    workshop.gate('a@1').pass();
    await workshop.gate('b@1').reached;
    await expect(run.task('a').rollback(0)).rejects.toMatchObject({
      code: 'conflict',
      message:
        'Task "a" cannot be rolled back by itself: it is done, and "b" depends on it. Roll the whole run back instead: troupe rollback r.',
    });
    workshop.gate('b@1').pass();
    workshop.gate('c@1').pass();
    await run.result();
    await expect(run.task('c').rollback(0)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('its run "r" is done'),
    });
  });

  test('learns of dependencies that ended after the moment it goes back to', async () => {
    const troupe = await memoryDisk().open();
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start(spec('r'));
    workshop.gate('a@1').pass();
    await workshop.gate('b@1').reached;
    await run.task('b').rollback(0);
    await workshop.gate('b@1', 1).reached;
    workshop.gate('b@1', 1).pass();
    workshop.gate('c@1').pass();
    const { state, counts } = await run.result();
    expect([state, counts.done]).toEqual(['done', 3]);
  });

  test.each(['agent/ada', 'run/r', 'task/r/a', 'gatekeeper/g'] as const)(
    'but %s is not rolled back like any actor',
    async (address) => {
      const troupe = await memoryDisk().open();
      await expect(troupe.rollback(address, 0)).rejects.toMatchObject({ code: 'validation' });
      await expect(troupe.fork(address, 0, { as: 'x/y' })).rejects.toMatchObject({
        code: 'validation',
      });
    },
  );
});

describe('cuts that are taken by themselves', () => {
  test('every ten minutes in which something happens, the newest twenty kept', async () => {
    const clock = new SimulatedClock();
    const troupe = await memoryDisk().open({ clock, heartbeatMs: 0 });
    const workshop = new Workshop();
    staff(troupe, workshop);
    const run = await troupe.start({
      ...spec('r'),
      tasks: [{ id: 'a', agent: 'ada', gatekeeper: 'g', staged: true }],
    });
    const timed = async () => (await run.cuts()).filter(({ kind }) => kind === 'timed').length;
    await advance(clock, 599_000);
    expect(await timed()).toBe(0);
    await advance(clock, 2_000);
    expect(await timed()).toBe(1);
    // Nothing happens, nothing is kept.
    await advance(clock, 6_000_000);
    expect(await timed()).toBe(1);
    for (let i = 0; i < 25; i++) {
      const order = i % 2 === 0 ? run.task('a').pause() : run.task('a').resume();
      await advance(clock, 0);
      await order;
      await advance(clock, 601_000);
    }
    expect(await timed()).toBe(20);
  });

  test('when the run stands still, with that as its label', async () => {
    const troupe = await memoryDisk().open();
    troupe.agent('ada', ({ ask }) => ask({ id: 'q', text: 'Which?' }));
    troupe.gatekeeper('g', accepts);
    const run = await troupe.start({
      id: 'r',
      tasks: [{ id: 'a', agent: 'ada', gatekeeper: 'g' }],
    });
    expect((await run.result()).state).toBe('blocked');
    expect((await run.cuts()).map(({ kind, label }) => [kind, label])).toEqual([
      ['start', null],
      ['milestone', 'blocked'],
    ]);
    await run.task('a').answer('q', 'this');
    expect((await run.result()).state).toBe('done');
    // Back to the question: answered otherwise, the attempt begins anew.
    await run.rollback('blocked');
    expect((await run.result()).state).toBe('blocked');
    await run.task('a').answer('q', 'that');
    const { state, counts, tasks } = await run.result();
    expect([state, counts.done, tasks[0]?.attempts]).toEqual(['done', 1, 1]);
  });
});
