import { describe, expect, onTestFinished, test } from 'vitest';
import { createTroupe, type Engine, MemoryStore, type Troupe } from '../../src/index.ts';
import { RunObserver } from '../../src/operator/run-observer.ts';
import type { RunEvent } from '../../src/operator/run-view.ts';

interface World {
  readonly troupe: Troupe;
  readonly store: MemoryStore;
  readonly observer: RunObserver;
  readonly events: RunEvent[];
}

async function world(engine: Engine = () => 'text'): Promise<World> {
  const store = new MemoryStore();
  const troupe = await createTroupe({ store });
  troupe.agent('writer', engine, { concurrency: 2 });
  troupe.gatekeeper('gate', async ({ submission, progress }) => {
    progress({ phase: 'running', command: 'test' });
    return submission.input === 'wrong'
      ? { accepted: false, reason: 'It is wrong.' }
      : { accepted: true, evidence: ['read it'] };
  });
  const observer = await RunObserver.start(troupe, store);
  onTestFinished(async () => {
    await troupe.stop();
    observer.close();
  });
  const events: RunEvent[] = [];
  observer.onEvent((event) => events.push(event));
  return { troupe, store, observer, events };
}

const task = (id: string, more: object = {}) => ({
  ...{ id, agent: 'writer', gatekeeper: 'gate' },
  ...more,
});
const FAST = { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 };

test('every state that a task comes to is told, in its order, and is in the view', async () => {
  const { troupe, observer, events } = await world();
  await troupe.start({ id: 'main', tasks: [task('one')] });
  await observer.untilSettled(['main']);
  const states = events.flatMap((event) => (event.type === 'task' ? [event.task.state] : []));
  expect(states).toEqual(['ready', 'preparing', 'working', 'verifying', 'done']);
  expect(observer.view.task('main', 'one')).toMatchObject({ state: 'done', attempts: 1 });
  expect(observer.view.run('main')).toMatchObject({ state: 'done', total: 1 });
});

test('what the view says of a run is what the store says of it', async () => {
  const { troupe, store, observer } = await world();
  await troupe.start({
    id: 'main',
    limits: { attempts: 1, backoff: FAST },
    tasks: [task('one'), task('two', { input: 'wrong' }), task('three', { dependsOn: ['two'] })],
  });
  await observer.untilSettled(['main']);
  // Since when it is so, only who looked on knows; the store has the last change of whatever kind.
  const seenBy = ({ view }: RunObserver) => ({
    run: view.run('main'),
    tasks: view.tasks('main').map(({ since: _since, ...rest }) => rest),
  });
  const told = seenBy(observer);
  const other = await RunObserver.start(troupe, store);
  const read = seenBy(other);
  other.close();
  expect(told).toEqual(read);
});

test('what a gatekeeper does with a task, or that it is queued, is told', async () => {
  const { troupe, observer, events } = await world();
  await troupe.start({ id: 'main', tasks: [task('one'), task('two')] });
  await observer.untilSettled(['main']);
  const doing = events.flatMap((event) => (event.type === 'doing' ? [event] : []));
  expect(doing.map(({ what }) => what)).toContain('test');
  // It was the one that was verified alone at that moment.
  for (const { task: id } of doing) expect(['one', 'two']).toContain(id);
});

describe('a run has come to rest', () => {
  test('when the policy has had its say, not before', async () => {
    const { troupe, observer } = await world();
    let asked = 0;
    troupe.overseer(async ({ run, id }) => {
      // The run is not settled while this is being thought about.
      expect(observer.isSettled(run)).toBe(false);
      asked += 1;
      return asked === 1 ? { decide: 'retry', guidance: `again, ${id}` } : undefined;
    });
    await troupe.start({
      id: 'main',
      limits: { attempts: 1, backoff: FAST },
      tasks: [task('one', { input: 'wrong' })],
    });
    await observer.untilSettled(['main']);
    expect(asked).toBe(2);
    expect(observer.view.task('main', 'one')).toMatchObject({ state: 'escalated', attempts: 2 });
  });

  test('when it is paused and nothing runs any more', async () => {
    let go: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const { troupe, store, observer, events } = await world(async () => {
      await gate;
      return 'text';
    });
    const run = await troupe.start({
      id: 'main',
      tasks: [task('one'), task('two', { dependsOn: ['one'] })],
    });
    const working = new Promise<void>((resolve) => {
      observer.onEvent((event) => {
        if (event.type === 'task' && event.task.state === 'working') resolve();
      });
    });
    await working;
    await run.pause('ada');
    expect(observer.isSettled('main')).toBe(false);
    go();
    await observer.untilSettled(['main']);
    expect(observer.view.run('main')).toMatchObject({ state: 'paused' });
    expect(observer.view.tasks('main').map(({ state }) => state)).toEqual(['done', 'ready']);
    expect(events).toContainEqual(expect.objectContaining({ type: 'run' }));

    // Nor has it as long as the second has not been told that the first is done.
    const listTasks: MemoryStore['listTasks'] = async (name) =>
      (await store.listTasks(name)).map((row) =>
        row.task === 'two' ? { ...row, state: 'waiting' } : row,
      );
    const before = await RunObserver.start(troupe, {
      listRuns: () => store.listRuns(),
      listStreams: (filter) => store.listStreams(filter),
      listTasks,
    });
    expect(before.isSettled('main')).toBe(false);
    before.close();
  });

  test('not while a task is ahead of its run, as after a restart', async () => {
    const { troupe, observer } = await world();
    await troupe.start({
      id: 'main',
      limits: { attempts: 1, backoff: FAST },
      tasks: [task('one', { input: 'wrong' })],
    });
    await observer.untilSettled(['main']);
    const one = observer.view.task('main', 'one');
    if (one === undefined) throw new Error('There is no task one.');
    observer.view.setTask({ ...one, state: 'ready' });
    expect(observer.isSettled('main')).toBe(false);
    observer.view.setTask(one);
    expect(observer.isSettled('main')).toBe(true);
  });

  test('never, when it does not exist', async () => {
    const { observer } = await world();
    expect(observer.isSettled('nobody')).toBe(false);
  });
});
