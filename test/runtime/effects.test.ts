import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { TroupeError } from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { effect } from '../../src/runtime/effect.ts';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { puppetMachine, workerMachine } from './machines.ts';
import { Outside, TestStore, World } from './world.ts';

async function newWorld(
  options: ConstructorParameters<typeof World>[1] & Parameters<Outside['effect']>[1] = {},
) {
  const outside = new Outside();
  const { deaf = false, restart, ...rest } = options;
  const worker = workerMachine(outside, { deaf, ...(restart === undefined ? {} : { restart }) });
  const world = new World({ worker, puppet: puppetMachine }, rest);
  await world.open();
  await world.create(['worker/a', 'worker', 'paint'], ['worker/b', 'worker', 'build']);
  return { world, outside };
}

/** By any name: which of them need an input is not at issue here. */
const withEffects = (actors: Readonly<Record<string, ReturnType<Outside['effect']>>>) =>
  setup({ actors });

const effectRows = (world: World) =>
  [...world.data.effects.values()].flatMap((effects) => [...effects.values()]);
const log = (world: World, address = 'worker/a') => world.context(address)['log'];

describe('an effect', () => {
  test('starts after the turn that invokes it is stored, with its input and a key of its own', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/b', { type: 'start' });
    const [a, b] = outside.starts('work');
    expect(a?.context).toMatchObject({ input: 'paint', address: 'worker/a', attempt: 1 });
    expect(b?.context).toMatchObject({ input: 'build', address: 'worker/b', attempt: 1 });
    expect(a?.context.key).not.toBe(b?.context.key);
    expect(world.facts('effectStarted')).toEqual([
      { address: 'worker/a', id: 'w', src: 'work', attempt: 1 },
      { address: 'worker/b', id: 'w', src: 'work', attempt: 1 },
    ]);
    a?.finish('red');
    await world.settle();
    expect(log(world)).toEqual(['red']);
    expect(effectRows(world)).toHaveLength(1);
    expect(world.facts('effectEnded')).toEqual([
      { address: 'worker/a', id: 'w', src: 'work', attempt: 1, failure: null },
    ]);
  });

  test('runs again after a crash, with the same key and the next attempt', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    await world.reopen();
    await world.reopen();
    const starts = outside.starts('work');
    expect(starts.map(({ context }) => context.attempt)).toEqual([1, 2, 3]);
    expect(new Set(starts.map(({ context }) => context.key)).size).toBe(1);
    starts[2]?.finish('red');
    // What a dead process still does changes nothing.
    starts[0]?.finish('blue');
    await world.settle();
    expect(log(world)).toEqual(['red']);
    await world.reopen();
    expect(log(world)).toEqual(['red']);
    expect(outside.started).toHaveLength(3);
  });

  test('was running at too many crashes in a row: it fails instead of starting again', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    for (let crash = 0; crash < 4; crash++) await world.reopen();
    expect(outside.starts('work').map(({ context }) => context.attempt)).toEqual([1, 2, 3, 4]);
    expect(log(world)).toEqual(['internal']);
    expect(effectRows(world)).toEqual([]);
    // It may be tried anew.
    await world.send('worker/a', { type: 'start' });
    expect(outside.last('work').context.attempt).toBe(1);
  });

  test('a bound of 0 restarts nothing', async () => {
    const { world, outside } = await newWorld({ maxEffectRestarts: 0 });
    await world.send('worker/a', { type: 'start' });
    await world.reopen();
    expect(outside.started).toHaveLength(1);
    expect(log(world)).toEqual(['internal']);
  });

  test('whose policy of restarts throws fails, and the host goes on', async () => {
    const outside = new Outside();
    const restart = {
      interruptions: () => {
        throw new Error('no policy');
      },
    };
    const machine = setup({ actors: { work: outside.effect('work', { restart }) } }).createMachine({
      context: () => ({ error: null }),
      initial: 'working',
      states: {
        working: {
          invoke: {
            src: 'work',
            id: 'w',
            input: null,
            onError: { target: 'over', actions: assign({ error: ({ event }) => event.error }) },
          },
        },
        over: {},
      },
    });
    const world = new World({ worker: machine });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.reopen();
    expect(world.facts('failed')).toEqual([]);
    expect(world.state('worker/a')).toMatchObject({
      value: 'over',
      context: { error: { message: 'no policy' } },
    });
  });

  test('a bound of its own holds instead of the host’s, and its failure says how often it was', async () => {
    const restart = { interruptions: (input: JsonValue) => (input === 'paint' ? 6 : 1) };
    const { world, outside } = await newWorld({ restart });
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/b', { type: 'start' });
    for (let crash = 0; crash < 6; crash++) await world.reopen();
    const starts = (address: string) =>
      outside.started.filter(({ context }) => context.address === address).length;
    expect([starts('worker/a'), starts('worker/b')]).toEqual([6, 1]);
    expect([log(world), log(world, 'worker/b')]).toEqual([['internal'], ['internal']]);
    const last = world.data.checkpoints.get('worker/a')?.at(-1);
    expect(JSON.parse(String(last?.eventJson))).toMatchObject({
      type: 'xstate.error.actor.w',
      error: { context: { interruptions: 6 } },
    });
  });

  test('a clean stop is no crash', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    for (let i = 0; i < 10; i++) {
      await world.stop();
      await world.open();
    }
    expect(outside.starts('work').map(({ context }) => context.attempt)).toEqual(
      Array.from({ length: 11 }, () => 1),
    );
    expect(
      outside
        .starts('work')
        .slice(0, 10)
        .every(({ aborted }) => aborted),
    ).toBe(true);
    await world.reopen();
    expect(outside.last('work').context.attempt).toBe(2);
    await world.stop();
    await world.open();
    expect(outside.last('work').context.attempt).toBe(2);
  });

  test('that only waited for a place at a crash was not running', async () => {
    const { world, outside } = await newWorld({
      effects: { concurrency: 1 },
      maxEffectRestarts: 3,
    });
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/b', { type: 'start' });
    for (let crash = 0; crash < 3; crash++) await world.reopen();
    expect(outside.started.map(({ context }) => context.address)).toEqual(
      Array.from({ length: 4 }, () => 'worker/a'),
    );
    outside.last('work').finish('done');
    await world.settle();
    expect(outside.last('work').context).toMatchObject({ address: 'worker/b', attempt: 1 });
    await world.reopen();
    expect(outside.last('work').context).toMatchObject({ address: 'worker/b', attempt: 2 });
  });

  test('is aborted when its state is left; its result is dropped, before and after a crash', async () => {
    const { world, outside } = await newWorld({ deaf: true });
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/a', { type: 'leave' });
    expect(outside.last('work').aborted).toBe(true);
    expect(String(outside.last('work').context.signal.reason)).toBe(
      'CancelledError: The state that started the effect was left.',
    );
    outside.last('work').finish('late');
    await world.settle();
    expect(log(world)).toEqual([]);
    await world.reopen();
    expect(log(world)).toEqual([]);
    expect(outside.started).toHaveLength(1);
  });

  test('its result is dropped if the state was left while it waited for its turn', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    void world.host.send('worker/a', { type: 'leave' }, { priority: 5 });
    // The message waits already; the result comes behind it in the same class.
    outside.last('work').finish('late');
    await world.settle();
    expect(log(world)).toEqual([]);
    expect(world.state('worker/a').value).toBe('idle');
  });

  test('its result is dropped if it ends while the turn that left its state is being stored', async () => {
    let store: TestStore | undefined;
    const { world, outside } = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    await world.send('worker/a', { type: 'start' });
    store?.hold();
    void world.host.send('worker/a', { type: 'leave' });
    await world.settle();
    // It is not aborted yet: that follows from the commit.
    expect(outside.last('work').aborted).toBe(false);
    outside.last('work').finish('late');
    await world.settle();
    store?.release();
    await world.settle();
    expect(log(world)).toEqual([]);
    await world.stop();
  });

  test('re-entered: the old one is aborted, the new one has another key, and only its result counts', async () => {
    const { world, outside } = await newWorld({ deaf: true });
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/a', { type: 'again' });
    const [old, young] = outside.starts('work');
    expect(old?.aborted).toBe(true);
    expect(young?.aborted).toBe(false);
    expect(old?.context.key).not.toBe(young?.context.key);
    old?.finish('old');
    await world.settle();
    expect(log(world)).toEqual([]);
    young?.finish('young');
    await world.settle();
    expect(log(world)).toEqual(['young']);
  });

  test('is aborted, and forgotten, when its actor ends', async () => {
    const outside = new Outside();
    const machine = withEffects({ work: outside.effect('work') }).createMachine({
      initial: 'a',
      invoke: { src: 'work', id: 'w' },
      states: { a: { on: { end: 'b' } }, b: { type: 'final' } },
    });
    const world = new World({ mortal: machine });
    await world.open();
    await world.create(['mortal/1', 'mortal']);
    await world.send('mortal/1', { type: 'end' });
    expect(outside.last('work').aborted).toBe(true);
    expect(effectRows(world)).toEqual([]);
  });

  test.each([
    { what: 'an Error', thrown: new Error('no paint'), code: 'unhandled' },
    { what: 'a TroupeError', thrown: new TroupeError('quota', 'too dear'), code: 'quota' },
    { what: 'a text', thrown: 'no paint', code: 'unhandled' },
    { what: 'nothing', thrown: undefined, code: 'unhandled' },
    {
      what: 'an error whose facts are not JSON',
      thrown: new TroupeError('upstream', 'x', { context: { when: new Date(0) as never } }),
      code: 'upstream',
    },
  ])('that throws $what ends in an error event', async ({ thrown, code }) => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    outside.last('work').fail(thrown);
    await world.settle();
    expect(log(world)).toEqual([code]);
    expect(world.data.deadLetters).toEqual([]);
  });

  test.each([
    {
      what: 'throws at once',
      work: effect<JsonValue>(() => {
        throw new Error('at once');
      }),
      got: 'at once',
    },
    {
      what: 'returns what is not JSON',
      work: effect(() => Promise.resolve(new Map() as unknown as JsonValue)),
      got: 'The effect "work" must return plain JSON, but output is a Map.',
    },
    {
      what: 'returns nothing',
      work: effect(() => Promise.resolve(undefined as unknown as JsonValue)),
      got: null,
    },
  ])('that $what', async ({ work, got }) => {
    const machine = withEffects({ work }).createMachine({
      context: () => ({ got: 'nothing yet' }),
      invoke: {
        src: 'work',
        id: 'w',
        onDone: { actions: assign({ got: ({ event }) => event.output }) },
        onError: {
          actions: assign({ got: ({ event }) => (event.error as { message: string }).message }),
        },
      },
    });
    const world = new World({ odd: machine });
    await world.open();
    await world.create(['odd/1', 'odd']);
    expect(world.context('odd/1')['got']).toBe(got);
  });

  test('that shows no sign of life is aborted; progress and steps are signs', async () => {
    const { world, outside } = await newWorld({ effects: { heartbeatMs: 1000 } });
    await world.send('worker/a', { type: 'start' });
    await world.advance(900);
    outside.last('work').context.progress({ done: 5 });
    await world.advance(900);
    await world.wait(outside.last('work').context.step('one', () => 1));
    await world.advance(900);
    expect(outside.last('work').aborted).toBe(false);
    await world.advance(100);
    expect(outside.last('work').aborted).toBe(true);
    expect(log(world)).toEqual(['timeout']);
    expect(world.facts('progress')).toEqual([
      { address: 'worker/a', src: 'work', value: { done: 5 } },
    ]);
  });

  test('that does not heed its signal is left behind after 5 s', async () => {
    const { world, outside } = await newWorld({ deaf: true, effects: { heartbeatMs: 1000 } });
    await world.send('worker/a', { type: 'start' });
    await world.advance(1000);
    expect(outside.last('work').aborted).toBe(true);
    await world.advance(4999);
    expect(log(world)).toEqual([]);
    await world.advance(1);
    expect(log(world)).toEqual(['timeout']);
    outside.last('work').finish('at last');
    await world.settle();
    expect(log(world)).toEqual(['timeout']);
  });

  test('that ends its silence itself is told once, and then has a minute, or its limit again', async () => {
    const { world, outside } = await newWorld({ effects: { heartbeatMs: 1000 } });
    await world.send('worker/a', { type: 'start' });
    const told: string[] = [];
    outside.last('work').context.onSilence((reason) => told.push(reason.message));
    await world.advance(1000);
    expect(told).toEqual([expect.stringContaining('showed no sign of life for 1000 ms')]);
    await world.advance(59_000);
    // A sign of life begins the minute anew.
    outside.last('work').context.progress('saving');
    await world.advance(59_999);
    expect(outside.last('work').aborted).toBe(false);
    await world.advance(1);
    expect(outside.last('work').aborted).toBe(true);
    expect(told).toHaveLength(1);
    expect(log(world)).toEqual(['timeout']);
  });

  test('no heartbeat, no limit', async () => {
    const { world, outside } = await newWorld({ effects: { heartbeatMs: 0 } });
    await world.send('worker/a', { type: 'start' });
    await world.advance(100_000_000);
    expect(outside.last('work').aborted).toBe(false);
  });
});

describe('at most so many effects run at once', () => {
  test('the rest start in order as places become free', async () => {
    const { world, outside } = await newWorld({ effects: { concurrency: 2 } });
    const addresses = Array.from({ length: 6 }, (_, i) => `worker/${i}` as const);
    await world.create(
      ...addresses.map((address) => [address, 'worker'] as [typeof address, string]),
    );
    for (const address of addresses) await world.send(address, { type: 'start' });
    const started = () => outside.started.map(({ context }) => context.address);
    expect(started()).toEqual(['worker/0', 'worker/1']);
    expect(world.host.load.effects).toBe(6);
    outside.started[1]?.finish(1);
    await world.settle();
    expect(started()).toEqual(['worker/0', 'worker/1', 'worker/2']);
    // One that leaves while it waits never starts.
    await world.send('worker/3', { type: 'leave' });
    outside.started[0]?.fail(new Error('x'));
    outside.started[2]?.finish(1);
    await world.settle();
    expect(started()).toEqual([...addresses.slice(0, 3), 'worker/4', 'worker/5']);
    expect(world.facts('effectStarted')).toHaveLength(5);
  });

  test('one that is aborted gives its place back when it has ended', async () => {
    const { world, outside } = await newWorld({ deaf: true, effects: { concurrency: 1 } });
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/b', { type: 'start' });
    await world.send('worker/a', { type: 'leave' });
    expect(outside.started).toHaveLength(1);
    outside.started[0]?.finish('late');
    await world.settle();
    expect(outside.last('work').context.address).toBe('worker/b');
  });

  test('one whose start was stored and whose state is left in the same moment gives its place back', async () => {
    const { world, outside } = await newWorld({ effects: { concurrency: 1 } });
    void world.host.send('worker/a', { type: 'start' });
    void world.host.send('worker/a', { type: 'leave' });
    await world.settle();
    expect(outside.started).toHaveLength(0);
    await world.send('worker/b', { type: 'start' });
    expect(outside.started).toHaveLength(1);
  });
});

describe('steps', () => {
  /** Three steps and a wait between them, in the test's hands. */
  function stepping() {
    const ran: string[] = [];
    const gates: (() => void)[] = [];
    const machine = withEffects({
      work: effect<JsonValue>(async ({ step, stepsOf }) => {
        const one = await step('one', () => {
          ran.push('one');
          return 1;
        });
        const two = await step('one', async () => {
          ran.push('one#2');
          return Promise.resolve(one + 1);
        });
        const shared = await stepsOf('elsewhere')('one', () => {
          ran.push('elsewhere');
          return null;
        });
        await new Promise<void>((resolve) => gates.push(resolve));
        const three = await step('three', () => {
          ran.push('three');
          return two + 1;
        });
        return { three, shared };
      }),
    }).createMachine({
      initial: 'working',
      context: () => ({ output: null }),
      states: {
        working: {
          invoke: {
            src: 'work',
            id: 'w',
            onDone: { target: 'done', actions: assign({ output: ({ event }) => event.output }) },
          },
          on: { leave: 'done' },
        },
        done: { on: { again: 'working' } },
      },
    });
    return { machine, ran, gates };
  }
  const steps = (world: World) =>
    [...world.data.steps].flatMap(([scope, kept]) =>
      Array.from(kept.keys(), (key) => `${scope.slice(0, 9)} ${key}`),
    );

  test('run once each, also after a crash between them', async () => {
    const { machine, ran, gates } = stepping();
    const world = new World({ worker: machine });
    await world.open();
    await world.create(['worker/a', 'worker']);
    expect(ran).toEqual(['one', 'one#2', 'elsewhere']);
    await world.reopen();
    await world.reopen();
    expect(ran).toEqual(['one', 'one#2', 'elsewhere']);
    expect(steps(world)).toEqual(['worker/a! one', 'worker/a! one#2', 'elsewhere one']);
    gates.at(-1)?.();
    await world.settle();
    expect(ran).toEqual(['one', 'one#2', 'elsewhere', 'three']);
    expect(world.context('worker/a')['output']).toEqual({ three: 3, shared: null });
    // The effect's own steps are forgotten with it; those of another scope are somebody else's.
    expect(steps(world)).toEqual(['elsewhere one']);
    await world.send('worker/a', { type: 'again' });
    expect(ran).toEqual(['one', 'one#2', 'elsewhere', 'three', 'one', 'one#2']);
  });

  test('a step that ran and was not stored when the process died runs again', async () => {
    const { machine, ran } = stepping();
    const faults = new FaultPoints('step.before-save:hang:2');
    const world = new World({ worker: machine }, { faultPoint: faults.hit });
    await world.open();
    await world.create(['worker/a', 'worker']);
    expect(ran).toEqual(['one', 'one#2']);
    expect(faults.fired).toBe(1);
    await world.reopen();
    expect(ran).toEqual(['one', 'one#2', 'one#2', 'elsewhere']);
  });

  test('a step is over when its result is stored, and not before', async () => {
    const { machine, ran } = stepping();
    let store: TestStore | undefined;
    const world = new World(
      { worker: machine },
      {
        wrap: (memory) => {
          store = new TestStore(memory);
          return store;
        },
      },
    );
    await world.open();
    store?.hold();
    const created = world.host.spawn([{ address: 'worker/a', machine: 'worker' }]);
    await world.settle();
    // The birth is stored; what comes after it is held.
    store?.release();
    store?.hold();
    await world.wait(created);
    expect(ran).toEqual(['one']);
    store?.release();
    await world.settle();
    expect(ran).toEqual(['one', 'one#2', 'elsewhere']);
  });

  test('a step that ends while the runtime stops is kept', async () => {
    const ran: string[] = [];
    let finishStep: () => void = () => undefined;
    const machine = withEffects({
      work: effect<JsonValue>(async ({ step }) => {
        await step('paid for', async () => {
          ran.push('step');
          await new Promise<void>((resolve) => {
            finishStep = resolve;
          });
          return null;
        });
        ran.push('after it');
        return null;
      }),
    }).createMachine({ invoke: { src: 'work', id: 'w' } });
    const world = new World({ worker: machine });
    await world.open();
    await world.create(['worker/a', 'worker']);
    const stopped = world.host.stop();
    await world.advance(1000);
    finishStep();
    await world.wait(stopped);
    // The effect was called off; what it had done is done.
    expect(ran).toEqual(['step']);
    await world.open();
    expect(ran).toEqual(['step', 'after it']);
  });

  test('a step that ends after its state was left is not kept', async () => {
    let finishStep: () => void = () => undefined;
    const machine = withEffects({
      work: effect<JsonValue>(async ({ stepsOf }) => {
        await stepsOf('elsewhere')('late', async () => {
          await new Promise<void>((resolve) => {
            finishStep = resolve;
          });
          return null;
        });
        return null;
      }),
    }).createMachine({
      initial: 'working',
      states: {
        working: { invoke: { src: 'work', id: 'w', onDone: 'idle' }, on: { leave: 'idle' } },
        idle: {},
      },
    });
    const world = new World({ worker: machine });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.send('worker/a', { type: 'leave' });
    finishStep();
    await world.settle();
    expect(steps(world)).toEqual([]);
  });

  test('a step of an effect that was left behind when the runtime stopped is refused, and nobody waits for it', async () => {
    const refused: unknown[] = [];
    let finishStep: () => void = () => undefined;
    const machine = withEffects({
      work: effect<JsonValue>(async ({ step }) => {
        try {
          await step('deaf', async () => {
            await new Promise<void>((resolve) => {
              finishStep = resolve;
            });
            return null;
          });
        } catch (error) {
          refused.push(error);
        }
        return null;
      }),
    }).createMachine({ invoke: { src: 'work', id: 'w' } });
    const world = new World({ worker: machine });
    await world.open();
    await world.create(['worker/a', 'worker']);
    const stopped = world.host.stop();
    await world.advance(5000);
    await stopped;
    finishStep();
    await world.settle();
    expect(refused.map(String)).toEqual([
      'ConflictError: The effect "work" of worker/a is no longer wanted.',
    ]);
    expect(steps(world)).toEqual([]);
  });

  test('nothing is kept of an effect whose state was left', async () => {
    const { machine, ran, gates } = stepping();
    const world = new World({ worker: machine });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.send('worker/a', { type: 'leave' });
    gates.at(-1)?.();
    await world.settle();
    expect(ran).not.toContain('three');
    expect(steps(world)).toEqual(['elsewhere one']);
  });

  test('a result that is not JSON fails the effect, not the host', async () => {
    let reason: unknown;
    const machine = withEffects({
      work: effect<JsonValue>(async ({ step }) => {
        await step('odd', () => new Date(0) as never);
        return null;
      }),
    }).createMachine({
      invoke: {
        src: 'work',
        id: 'w',
        onError: {
          actions: ({ event }) => {
            reason = (event.error as { message: string }).message;
          },
        },
      },
    });
    const world = new World({ worker: machine });
    await world.open();
    await world.create(['worker/a', 'worker']);
    expect(reason).toBe('The result of a step must be plain JSON, but step "odd" is a Date.');
  });
});

describe('suspects: effects that the process has died with more than once', () => {
  const restart = { interruptions: () => 3 };
  const running = (outside: Outside, life: number) =>
    outside.started.slice(life).map(({ context }) => [context.address, context.attempt]);

  /** Two effects that were under way at two crashes in a row. */
  async function twoSuspects() {
    const { world, outside } = await newWorld({ restart });
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/b', { type: 'start' });
    await world.reopen();
    expect(running(outside, 2)).toEqual([
      ['worker/a', 2],
      ['worker/b', 2],
    ]);
    await world.reopen();
    return { world, outside };
  }

  test('are started one at a time, the next when the one before has ended', async () => {
    const { world, outside } = await twoSuspects();
    expect(running(outside, 4)).toEqual([['worker/a', 3]]);
    outside.last('work').finish('red');
    await world.settle();
    expect(running(outside, 5)).toEqual([['worker/b', 3]]);
    outside.last('work').finish('blue');
    await world.settle();
    expect([log(world), log(world, 'worker/b')]).toEqual([['red'], ['blue']]);
  });

  test('so that another crash counts only against the one that ran', async () => {
    const { world, outside } = await twoSuspects();
    await world.reopen();
    expect(log(world)).toEqual(['internal']);
    expect(running(outside, 5)).toEqual([['worker/b', 3]]);
    outside.last('work').finish('blue');
    await world.settle();
    expect(log(world, 'worker/b')).toEqual(['blue']);
  });

  test('a clean stop does not clear them', async () => {
    const { world, outside } = await twoSuspects();
    await world.stop();
    await world.open();
    expect(running(outside, 5)).toEqual([['worker/a', 3]]);
  });

  test('the next is started when the state of the one before is left, or when it is itself left', async () => {
    const { world, outside } = await twoSuspects();
    await world.send('worker/a', { type: 'leave' });
    expect(running(outside, 5)).toEqual([['worker/b', 3]]);
    const again = await twoSuspects();
    await again.world.send('worker/b', { type: 'leave' });
    again.outside.last('work').finish('red');
    await again.world.settle();
    expect(running(again.outside, 5)).toEqual([]);
  });

  test('what is new does not wait for them, nor do they for it', async () => {
    const { world, outside } = await twoSuspects();
    await world.create(['worker/c', 'worker', 'sing']);
    await world.send('worker/c', { type: 'start' });
    expect(running(outside, 5)).toEqual([['worker/c', 1]]);
    outside.starts('work')[4]?.finish('red');
    await world.settle();
    expect(running(outside, 6)).toEqual([['worker/b', 3]]);
  });

  test('one that lives on for ten minutes does not keep the next one waiting', async () => {
    const { world, outside } = await newWorld({ restart, effects: { heartbeatMs: 0 } });
    await world.send('worker/a', { type: 'start' });
    await world.send('worker/b', { type: 'start' });
    await world.reopen();
    await world.reopen();
    await world.advance(599_999);
    expect(running(outside, 4)).toEqual([['worker/a', 3]]);
    await world.advance(1);
    expect(running(outside, 5)).toEqual([['worker/b', 3]]);
  });
});
