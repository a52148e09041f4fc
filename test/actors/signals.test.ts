import { describe, expect, test } from 'vitest';
import type { Signal } from '../../src/actors/signals.ts';
import { accepts, advance, DISKS, Gate, memoryDisk, SimulatedClock } from './open-troupe.ts';

const TASK = 'task/r/t' as const;
const spec = { id: 'r', tasks: [{ id: 't', agent: 'w', gatekeeper: 'nod' }] };

describe.each(DISKS)('signals on $disk', ({ make }) => {
  test('come in their order, whether anybody waits or not, and a restart is given the same again', async () => {
    const disk = make();
    const first = await disk.open();
    const seen: unknown[][] = [];
    const two = new Gate();
    first.gatekeeper('nod', accepts);
    first.agent('w', async ({ nextSignal, signal }) => {
      const got = [(await nextSignal('steer'))?.value, (await nextSignal('steer'))?.value];
      seen.push(got);
      await two.wait(signal);
      return null;
    });
    const run = await first.start(spec);
    const result = run.result().catch(() => undefined);
    await first.signal(TASK, 'steer', 'left');
    await first.signal(TASK, 'other', 'not for it');
    await first.signal(TASK, 'steer', { to: 'right' });
    await first.signal(TASK, 'steer', 'on');
    await two.reached;
    await first.stop();
    await result;
    const second = await disk.open();
    second.gatekeeper('nod', accepts);
    second.agent('w', async ({ signals }) => {
      const got: unknown[] = [];
      for await (const { value } of signals('steer')) {
        got.push(value);
        if (value === 'stop') break;
      }
      seen.push(got);
      return null;
    });
    await second.signal(TASK, 'steer', 'stop');
    expect((await second.run('r').result()).state).toBe('done');
    expect(seen).toEqual([
      ['left', { to: 'right' }],
      ['left', { to: 'right' }, 'on', 'stop'],
    ]);
  });
});

test('the next attempt goes on after what the one before was given', async () => {
  const troupe = await memoryDisk().open();
  const got: unknown[] = [];
  troupe.gatekeeper('nod', ({ submission }) =>
    submission.attempt === 1 ? { accepted: false, reason: 'once more' } : accepts(),
  );
  troupe.agent('w', async ({ nextSignal, task }) => {
    got.push([task.attempt, (await nextSignal('steer'))?.value]);
    return task.attempt;
  });
  const run = await troupe.start({ ...spec, limits: { backoff: { initialMs: 1, maxMs: 1 } } });
  await troupe.signal(TASK, 'steer', 1);
  await troupe.signal(TASK, 'steer', 2);
  await run.result();
  expect(got).toEqual([
    [1, 1],
    [2, 2],
  ]);
});

test('a wait has an end when one is named, at its time and not later for a restart; it needs no signs of life', async () => {
  const clock = new SimulatedClock();
  const disk = memoryDisk();
  const got: (Signal | null)[] = [];
  const begun = new Gate();
  const open = async () => {
    const troupe = await disk.open({ clock, heartbeatMs: 1_000 });
    troupe.gatekeeper('nod', accepts);
    troupe.agent('w', async ({ nextSignal }) => {
      const waits = nextSignal('steer', { timeoutMs: 60_000 });
      begun.wait().catch(() => undefined);
      got.push(await waits);
      return null;
    });
    return troupe;
  };
  const first = await open();
  const result = (await first.start(spec)).result().catch(() => undefined);
  await begun.reached;
  await advance(clock, 40_000);
  expect(got).toEqual([]);
  await first.stop();
  await result;
  const second = await open();
  const done = second.run('r').result();
  await advance(clock, 19_000);
  expect(got).toEqual([]);
  await advance(clock, 2_000);
  expect(got).toEqual([null]);
  expect((await done).state).toBe('done');
});

test('what cannot be is refused in words', async () => {
  const troupe = await memoryDisk().open();
  troupe.gatekeeper('nod', accepts);
  const gate = new Gate();
  troupe.agent('w', async ({ nextSignal, signal }) => {
    expect(() => nextSignal('a b')).toThrow('the name of a signal');
    expect(() => nextSignal('a', { timeoutMs: -1 })).toThrow('got -1');
    await gate.wait(signal);
    return null;
  });
  const run = await troupe.start(spec);
  await gate.reached;
  await expect(troupe.signal('task/r/none', 'steer')).rejects.toMatchObject({ code: 'not_found' });
  await expect(troupe.signal('agent/w' as never, 'steer')).rejects.toThrow('the address of a task');
  await expect(troupe.signal(TASK, 'a b')).rejects.toThrow('the name of a signal');
  await expect(troupe.signal(TASK, 'steer', Number.NaN)).rejects.toThrow('value is NaN');
  const idempotencyKey = 'once';
  await Promise.all([1, 2].map(() => troupe.signal(TASK, 'steer', 'left', { idempotencyKey })));
  await troupe.signal(TASK, 'steer', 'left', { idempotencyKey });
  await expect(troupe.signal(TASK, 'steer', 'right', { idempotencyKey })).rejects.toMatchObject({
    code: 'idempotency_conflict',
  });
  const [stream] = await troupe.store.listStreams({ address: TASK, name: 'signal:steer' });
  expect(stream?.next).toBe(1);
  gate.pass();
  await run.result();
  await expect(troupe.signal(TASK, 'steer')).rejects.toThrow('has ended: nobody would hear');
});

test('progress is kept with its time, clamped, and seen while the task runs', async () => {
  const clock = new SimulatedClock();
  const troupe = await memoryDisk().open({ clock });
  troupe.gatekeeper('nod', accepts);
  const half = new Gate();
  troupe.agent('w', async ({ progress, signal }) => {
    expect(() => progress({ when: new Date() } as never)).toThrow('progress.detail.when is a Date');
    for (const said of [-5, -5, 'reads', { percent: 40, step: 'compiles', file: 'a.c' }])
      progress(said);
    await half.wait(signal);
    progress(1e9);
    return null;
  });
  const run = await troupe.start(spec);
  await half.reached;
  // Nobody waits for progress to be stored but whoever reads it.
  for await (const { offset } of troupe.readStream(TASK, { name: 'progress' })) {
    if (offset === 2) break;
  }
  const at = clock.now();
  expect((await run.task('t').status()).progress).toEqual({
    percent: 40,
    step: 'compiles',
    detail: { file: 'a.c' },
    at,
  });
  half.pass();
  const { tasks } = await run.result();
  expect(tasks[0]?.progress).toMatchObject({ percent: 100, step: null });
  const said = [];
  for await (const { value } of troupe.readStream(TASK, { name: 'progress' })) said.push(value);
  expect(said).toEqual([
    { percent: 0, step: null, detail: null },
    { percent: null, step: 'reads', detail: null },
    { percent: 40, step: 'compiles', detail: { file: 'a.c' } },
    { percent: 100, step: null, detail: null },
  ]);
});
