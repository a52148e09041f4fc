import { describe, expect, test } from 'vitest';
import { SimulatedClock } from '../runtime/simulated-clock.ts';
import { accepts, Gate, memoryDisk, sqliteDisk } from './open-troupe.ts';

const task = (id: string, agent: string) => ({ id, agent, gatekeeper: 'editor' });
const fast = { infrastructureBackoff: { initialMs: 1, maxMs: 1, jitter: 0 } };

describe('an agent with a start', () => {
  test('that hangs or fails keeps nobody else from their tasks; it is named, and tried again', async () => {
    const troupe = await memoryDisk().open();
    const begun: string[] = [];
    troupe.gatekeeper('editor', accepts);
    troupe.agent('stuck', () => null, {
      start: (signal) => new Promise((_, reject) => signal.addEventListener('abort', reject)),
      startTimeoutMs: 5,
    });
    let tries = 0;
    troupe.agent('late', () => null, {
      start: () => {
        if (++tries === 1) throw new Error('no port');
        begun.push('late');
      },
    });
    troupe.agent('writer', () => null);
    const run = await troupe.start({
      id: 'r',
      limits: { ...fast, infrastructureAttempts: 2 },
      tasks: [task('a', 'writer'), task('b', 'late'), task('c', 'stuck')],
    });
    const { tasks } = await run.result();
    expect(tasks.map(({ state }) => state)).toEqual(['done', 'done', 'escalated']);
    expect(tasks[2]?.reason).toContain('The agent "stuck" did not start within 5 ms.');
    expect(begun).toEqual(['late']);
  });

  test('that takes too long is not begun a second time beside itself', async () => {
    const troupe = await memoryDisk().open();
    troupe.gatekeeper('editor', accepts);
    const first = new Gate();
    let at = 0;
    let most = 0;
    let begun = 0;
    troupe.agent('slow', () => null, {
      // It does not listen to its signal.
      start: async () => {
        most = Math.max(most, ++at);
        if (++begun === 1) await first.wait();
        at--;
      },
      startTimeoutMs: 5,
    });
    const limits = { ...fast, infrastructureAttempts: 2 };
    const run = await troupe.start({ id: 'r', limits, tasks: [task('a', 'slow')] });
    const { tasks } = await run.result();
    expect(tasks[0]?.reason).toContain('its last start took too long, and has not ended yet');
    first.pass();
    await run.task('a').decide('retry');
    expect((await run.result()).state).toBe('done');
    expect({ most, begun }).toEqual({ most: 1, begun: 2 });
  });

  test('is stopped after its last task; one that fails or hangs keeps nobody else from it', async () => {
    const troupe = await memoryDisk().open();
    const log: string[] = [];
    const gate = new Gate();
    troupe.gatekeeper('editor', accepts);
    const stop = (name: string) => () => {
      log.push(`stop ${name}`);
      if (name === 'b') throw new Error('cannot');
      return name === 'c' ? new Promise<void>(() => undefined) : undefined;
    };
    for (const name of ['a', 'b', 'c']) {
      const start = (): void => void log.push(`start ${name}`);
      const life = { start, stop: stop(name), stopTimeoutMs: 5 };
      troupe.agent(
        name,
        async ({ signal }) => {
          await gate.wait(signal);
          log.push(`${name} works`);
          return null;
        },
        life,
      );
    }
    // It has never started: there is nothing to stop.
    troupe.agent('d', () => null, {
      start: () => Promise.reject(new Error('no')),
      stop: stop('d'),
    });
    await troupe.start({ id: 'r', tasks: [task('a', 'a')] });
    await gate.reached;
    const stopping = troupe.stop({ drain: true });
    gate.pass();
    await Promise.all([stopping, troupe.stop({ drain: true })]);
    expect(log).toEqual([
      ...['start a', 'start b', 'start c', 'a works', 'stop a', 'stop b', 'stop c'],
    ]);
  });
});

// Real files, on a machine that may be busy.
test('what an agent has done survives restarts, and its time is its own', async () => {
  const disk = sqliteDisk();
  const clock = new SimulatedClock();
  const first = await disk.open();
  first.gatekeeper('editor', accepts);
  let tries = 0;
  first.agent('writer', () => {
    if (++tries === 2) throw new Error('out of ink');
    return null;
  });
  first.agent('idle', () => null);
  const limits = { backoff: { initialMs: 1, maxMs: 1, jitter: 0 }, ...fast };
  const run = await first.start({
    id: 'r',
    limits,
    tasks: [task('a', 'writer'), task('b', 'writer')],
  });
  expect((await run.result()).state).toBe('done');
  const before = await first.agents();
  expect(before.map(({ name }) => name)).toEqual(['idle', 'writer']);
  expect(before[1]).toMatchObject({
    state: 'idle',
    processed: 3,
    failed: 1,
    successRate: 2 / 3,
    queued: 0,
    lastError: 'out of ink',
  });
  expect(before[0]).toMatchObject({ processed: 0, successRate: null, busyMs: 0 });
  await first.stop();
  const second = await disk.open({ clock });
  expect(await second.agents()).toEqual(before);
}, 60_000);

test('busy is the time with something in hand, the present one included', async () => {
  const clock = new SimulatedClock();
  const troupe = await memoryDisk().open({ clock });
  const gate = new Gate();
  troupe.gatekeeper('editor', accepts);
  troupe.agent('writer', ({ signal }) => gate.wait(signal).then(() => null));
  const run = await troupe.start({ id: 'r', tasks: [task('a', 'writer'), task('b', 'writer')] });
  await gate.reached;
  clock.jump(clock.now() + 700);
  expect(await troupe.agents()).toMatchObject([{ state: 'working', working: 1, busyMs: 700 }]);
  gate.pass();
  await run.result();
  clock.jump(clock.now() + 9_000);
  expect(await troupe.agents()).toMatchObject([{ state: 'idle', processed: 2, busyMs: 700 }]);
});
