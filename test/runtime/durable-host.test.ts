import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { assign, createMachine, emit, log, setup } from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import {
  ConfigurationError,
  ConflictError,
  StoppedError,
  TroupeError,
} from '../../src/protocol/errors.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { DurableHost, type HostOptions } from '../../src/runtime/durable-host.ts';
import { effect } from '../../src/runtime/effect.ts';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { counterMachine, oracleMachine, puppetMachine, workerMachine } from './machines.ts';
import { Outside, TestStore, World } from './world.ts';

/** A world whose hosts have a store that does as told. */
async function newWorld(options: ConstructorParameters<typeof World>[1] = {}) {
  const outside = new Outside();
  const stores: TestStore[] = [];
  const world = new World(
    {
      counter: counterMachine,
      puppet: puppetMachine,
      oracle: oracleMachine,
      worker: workerMachine(outside),
    },
    {
      wrap: (memory) => {
        const store = new TestStore(memory);
        stores.push(store);
        return store;
      },
      ...options,
    },
  );
  await world.open();
  await world.create(['counter/a', 'counter'], ['worker/a', 'worker'], ['oracle/o', 'oracle']);
  return {
    world,
    outside,
    get store(): TestStore {
      return stores.at(-1) as TestStore;
    },
  };
}

/** How a promise stands, without waiting for it. */
async function standing(promise: Promise<unknown>): Promise<'pending' | 'fulfilled' | 'rejected'> {
  const pending = Symbol('pending');
  try {
    return (await Promise.race([promise, pending])) === pending ? 'pending' : 'fulfilled';
  } catch {
    return 'rejected';
  }
}

describe('opening', () => {
  test('before it, and after it a second time, calls are refused with what to do', async () => {
    const world = new World({ counter: counterMachine });
    const host = world.build();
    await expect(host.send('counter/a', { type: 'inc' })).rejects.toThrow('call open() first');
    await expect(host.request('counter/a', { type: 'inc' })).rejects.toThrow(ConflictError);
    await expect(host.spawn([])).rejects.toThrow('call open() first');
    await expect(host.inspect('counter/a')).rejects.toThrow('call open() first');
    await expect(host.flush()).rejects.toThrow('call open() first');
    const both = Promise.allSettled([host.open(), host.open()]);
    expect((await both).map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    await expect(host.open()).rejects.toThrow('This host has been opened already.');
  });

  test('says what it has found', async () => {
    const { world } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    await world.stop();
    const host = await world.open({ machines: {} });
    await world.wait(host.send('counter/a', { type: 'inc' }));
    await world.reopen();
    expect(world.facts('recovered').at(-1)).toEqual({
      messages: 1,
      timers: 0,
      effects: 1,
      actors: 2,
    });
  });

  test('may be tried again when the store could not be read', async () => {
    const world = new World(
      { counter: counterMachine },
      { wrap: (memory) => new TestStore(memory) },
    );
    let store: TestStore | undefined;
    const host = world.build({
      wrap: (memory) => {
        store = new TestStore(memory);
        store.refuseReads = new Error('not now');
        return store;
      },
    });
    await expect(host.open()).rejects.toThrow('not now');
    if (store !== undefined) store.refuseReads = undefined;
    await host.open();
    await world.create(['counter/a', 'counter']);
  });

  test('a host that is stopped while it opens stays stopped', async () => {
    const world = new World({ counter: counterMachine });
    const host = world.build();
    const opened = host.open();
    opened.catch(() => undefined);
    await world.wait(host.stop());
    await expect(opened).rejects.toThrow(StoppedError);
    await expect(host.send('counter/a', { type: 'inc' })).rejects.toThrow(StoppedError);
  });

  test.each([
    { options: { mailboxLimit: 0 }, says: 'option mailboxLimit to be an integer from 1, got 0' },
    { options: { maxEffectRestarts: -1 }, says: 'maxEffectRestarts' },
    { options: { passivateAfterMs: Number.NaN }, says: 'passivateAfterMs' },
    { options: { effects: { concurrency: 0 } }, says: 'effects.concurrency' },
    { options: { effects: { heartbeatMs: -5 } }, says: 'effects.heartbeatMs' },
  ])('$says', ({ options, says }) => {
    const world = new World({});
    expect(() => world.build(options)).toThrow(says);
    expect(() => world.build(options)).toThrow(ConfigurationError);
  });
});

describe('commits', () => {
  test('send, spawn, flush and answers wait for the store', async () => {
    const { world, store } = await newWorld();
    store.hold();
    const sent = world.host.send('counter/a', { type: 'inc' });
    const spawned = world.host.spawn([{ address: 'counter/b', machine: 'counter' }]);
    const asked = world.ask('counter/a', { type: 'incAndCount' });
    const read = world.ask('counter/a', { type: 'count' });
    const flushed = world.host.flush();
    await world.settle();
    const all = [sent, spawned, asked, read, flushed];
    for (const promise of all) expect(await standing(promise)).toBe('pending');
    expect(world.facts('turn').filter(({ seq }) => seq > 0)).toEqual([]);
    store.release();
    await world.settle();
    expect(await Promise.all(all)).toEqual([undefined, ['counter/b'], 2, 2, undefined]);
  });

  test('turns gather while others are being stored, and follow in order', async () => {
    const { world, store } = await newWorld();
    store.hold();
    const before = store.batches.length;
    const answers: unknown[] = [];
    for (let i = 0; i < 50; i++) {
      void world.host.request('counter/a', { type: 'incAndCount' }).then((n) => answers.push(n));
      await world.settle();
    }
    // Two are with the store; everything since is in the third.
    expect(store.batches.length - before).toBe(2);
    expect(answers).toEqual([]);
    store.release();
    await world.settle();
    expect(store.batches.length - before).toBe(3);
    expect(store.batches.at(-1)?.checkpoints).toHaveLength(48);
    expect(store.batches.at(-1)?.actors).toHaveLength(1);
    expect(answers).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
  });

  test('a message sent and handled within one commit is never a row', async () => {
    const { world, store } = await newWorld();
    await world.create(['puppet/p', 'puppet']);
    const before = store.batches.length;
    for (let i = 0; i < 20; i++) {
      void world.host.send('puppet/p', { type: 'send', to: 'counter/a', message: { type: 'inc' } });
    }
    await world.settle();
    const batches = store.batches.slice(before);
    expect(batches.flatMap(({ messages }) => messages)).toEqual([]);
    expect(batches.flatMap(({ consumed }) => consumed)).toEqual([]);
    expect(world.context('counter/a')['n']).toBe(20);
  });

  test('one that is delayed is not overtaken', async () => {
    const faults = new FaultPoints('trace');
    let delayed: (() => void) | undefined;
    let commits = 0;
    const { world, store } = await newWorld({
      faultPoint: (name) => {
        const hit = faults.hit(name);
        // The second commit after the actors were made.
        if (name !== 'host.before-commit' || ++commits !== 3) return hit;
        return new Promise<void>((resolve) => {
          delayed = resolve;
        });
      },
    });
    await world.send('counter/a', { type: 'inc' });
    const before = store.batches.length;
    const first = world.host.send('counter/a', { type: 'inc' });
    await world.settle();
    const second = world.ask('counter/a', { type: 'incAndCount' });
    await world.settle();
    expect(store.batches.length).toBe(before);
    expect(await standing(first)).toBe('pending');
    delayed?.();
    await world.wait(first);
    expect(await second).toBe(3);
    expect(
      store.batches.slice(before).map(({ checkpoints }) => checkpoints.map(({ seq }) => seq)),
    ).toEqual([[2], [3]]);
    expect(faults.trace().get('host.after-commit')).toBe(faults.trace().get('host.before-commit'));
  });

  test.each(['host.before-commit', 'host.after-commit'])(
    'a fault at %s is a failed commit',
    async (point) => {
      const { world } = await newWorld();
      const faults = new FaultPoints(`${point}:throw`);
      await world.reopen({ faultPoint: faults.hit });
      const sent = world.host.send('counter/a', { type: 'inc' });
      sent.catch(() => undefined);
      await world.settle();
      await expect(sent).rejects.toThrow('injected fault');
      await world.reopen();
      expect(world.context('counter/a')['n']).toBe(point === 'host.after-commit' ? 1 : 0);
    },
  );
});

describe('a commit that fails', () => {
  test('stops the host, and every promise is rejected with the reason; opened again it goes on from what is stored', async () => {
    const { world, store, outside } = await newWorld();
    await world.send('counter/a', { type: 'inc' });
    await world.send('worker/a', { type: 'start' });
    const waiting = world.ask('oracle/o', { type: 'question' }, { timeoutMs: 1e9 });
    await world.settle();
    // Two are on their way when the store fails, more is gathered.
    store.hold();
    const stuck = [world.host.send('counter/a', { type: 'inc' })];
    await world.settle();
    store.refuse = () => new Error('the disk is full');
    stuck.push(world.host.send('counter/a', { type: 'inc' }));
    stuck.push(world.host.flush());
    stuck.push(world.ask('counter/a', { type: 'incAndCount' }) as Promise<never>);
    for (const promise of stuck) promise.catch(() => undefined);
    await world.settle();
    const says =
      'The runtime has stopped, because it could not go on with the store "test" (the disk is full). Open it again to go on from what is stored.';
    for (const promise of [waiting, ...stuck]) {
      await expect(promise).rejects.toThrow(says);
      await expect(promise).rejects.toThrow(TroupeError);
    }
    expect(world.facts('failed').map(({ message }) => message)).toEqual([says]);
    expect(outside.last('work').aborted).toBe(true);
    expect(world.host.load.requests).toBe(0);

    // Everything after that is refused at once, for the same reason.
    await expect(world.host.send('counter/a', { type: 'inc' })).rejects.toThrow(says);
    await expect(world.host.request('counter/a', { type: 'count' })).rejects.toThrow(says);
    await expect(world.host.spawn([])).rejects.toThrow(says);
    await expect(world.host.inspect('counter/a')).rejects.toThrow(says);
    await expect(world.host.flush()).rejects.toThrow(says);
    store.release();
    await world.advance(100_000);
    await world.stop();

    await world.reopen();
    // The one that was with the store when the other failed is there; nobody could tell.
    expect(world.context('counter/a')['n']).toBe(2);
    expect(await world.request('counter/a', { type: 'incAndCount' })).toBe(3);
    outside.last('work').finish('done');
    await world.settle();
    expect(world.context('worker/a')['log']).toEqual(['done']);
  });

  test('also when nobody waits for it', async () => {
    const { world, store } = await newWorld();
    store.refuse = () => new Error('gone');
    // A timer, not a caller, makes this turn.
    await world.send('worker/a', { type: 'start' }).catch(() => undefined);
    expect(world.facts('failed')).toHaveLength(1);
    await expect(world.host.flush()).rejects.toThrow('gone');
    await world.stop();
  });

  test('a store that cannot be read stops the host as well, and what is being written is not waited for for ever', async () => {
    const { world, store } = await newWorld();
    store.hold();
    const sent = world.host.send('counter/new', { type: 'inc' });
    const flushed = world.host.flush();
    for (const promise of [sent, flushed]) promise.catch(() => undefined);
    store.refuseReads = new Error('unreadable');
    await world.settle();
    await expect(sent).rejects.toThrow('unreadable');
    await expect(flushed).rejects.toThrow('unreadable');
    await world.stop();
    store.release();
  });
});

describe('stopping', () => {
  test('is idempotent, and refuses what comes after it', async () => {
    const { world } = await newWorld();
    const { host } = world;
    const first = host.stop();
    expect(host.stop({ drain: true })).toBe(first);
    await world.wait(first);
    await expect(host.send('counter/a', { type: 'inc' })).rejects.toThrow(StoppedError);
    await expect(host.request('counter/a', { type: 'count' })).rejects.toThrow(StoppedError);
    await expect(host.spawn([])).rejects.toThrow(StoppedError);
    await expect(host.inspect('counter/a')).rejects.toThrow(StoppedError);
    await expect(host.flush()).rejects.toThrow(StoppedError);
    await expect(host.open()).rejects.toThrow(StoppedError);
    // No timer of it is left, whatever it was for.
    expect(world.clock.pending).toBe(0);
  });

  test('without being opened', async () => {
    const world = new World({});
    const host = world.build();
    await host.stop();
    await expect(host.open()).rejects.toThrow(StoppedError);
  });

  test('settles everything: what was staged is stored, what waits for an answer is told', async () => {
    const { world, store } = await newWorld();
    store.hold();
    const sent = world.host.send('counter/a', { type: 'inc' });
    const asked = world.ask('oracle/o', { type: 'question' });
    await world.settle();
    const gathered = world.host.send('counter/a', { type: 'inc' });
    const stopped = world.host.stop();
    await world.settle();
    expect(await standing(stopped)).toBe('pending');
    await expect(world.host.send('counter/a', { type: 'inc' })).rejects.toThrow(
      'The runtime is stopping.',
    );
    store.release();
    await world.wait(stopped);
    await sent;
    await gathered;
    await expect(asked).rejects.toThrow(StoppedError);
    await world.open();
    expect(world.context('counter/a')['n']).toBe(2);
  });

  test('aborts what runs; the next runtime runs it again', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    await world.stop();
    expect(outside.last('work').aborted).toBe(true);
    expect(world.state('worker/a').value).toBe('working');
    await world.open();
    expect(outside.started).toHaveLength(2);
    outside.last('work').finish('done');
    await world.settle();
    expect(world.context('worker/a')['log']).toEqual(['done']);
  });

  test('waits 5 s for an effect that does not heed its signal, and then leaves it behind', async () => {
    const outside = new Outside();
    const world = new World({ worker: workerMachine(outside, { deaf: true }) });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.send('worker/a', { type: 'start' });
    const stopped = world.host.stop();
    await world.advance(4999);
    expect(await standing(stopped)).toBe('pending');
    await world.advance(1);
    await stopped;
    outside.last('work').finish('late');
    await world.settle();
    expect(world.state('worker/a').value).toBe('working');
  });

  test('an effect that had ended is not run again', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    outside.last('work').finish('done');
    // It has ended, and its actor has not had a turn yet, when the host is told to stop.
    await new Promise<void>((resolve) => setImmediate(resolve));
    expect(world.facts('effectEnded')).toHaveLength(1);
    await world.stop();
    await world.open();
    expect(world.context('worker/a')['log']).toEqual(['done']);
    expect(outside.started).toHaveLength(1);
  });

  test('drain: what runs may finish, and what it leads to is handled; nothing new starts', async () => {
    const { world, outside } = await newWorld();
    const chain = setup({
      actors: { work: outside.effect('chain') } as Record<string, ReturnType<Outside['effect']>>,
      actions: { ...durableActions },
    }).createMachine({
      id: 'chain',
      initial: 'one',
      states: {
        one: {
          invoke: {
            src: 'work',
            id: 'one',
            onDone: {
              target: 'two',
              actions: {
                type: 'send',
                params: { to: anyAddress('counter/a'), message: { type: 'inc' } },
              },
            },
          },
        },
        two: { after: { 10: 'three' }, invoke: { src: 'work', id: 'two' } },
        three: {},
      },
    });
    world.host.register('chain', chain);
    await world.create(['chain/c', 'chain']);
    const stopped = world.host.stop({ drain: true, graceMs: 1000 });
    await world.advance(500);
    expect(await standing(stopped)).toBe('pending');
    expect(outside.last('chain').aborted).toBe(false);
    outside.last('chain').finish('one');
    await world.wait(stopped);
    expect(world.state('chain/c').value).toBe('two');
    expect(world.context('counter/a')['n']).toBe(1);
    // The second effect has not started, nor has time passed for the timer.
    expect(outside.starts('chain')).toHaveLength(1);
    await world.advance(100);
    expect(world.state('chain/c').value).toBe('two');
    await world.open();
    world.host.register('chain', chain);
    await world.advance(1);
    expect(world.state('chain/c').value).toBe('three');
    expect(outside.starts('chain')).toHaveLength(2);
  });

  test('drain: answers that come in time are given', async () => {
    const { world, outside } = await newWorld();
    const answering = setup({
      actors: { work: outside.effect('answer') } as Record<string, ReturnType<Outside['effect']>>,
      actions: { ...durableActions },
    }).createMachine({
      context: () => ({ to: null }),
      on: {
        ask: {
          actions: assign({
            to: ({ event }) => ({
              address: event['meta'].from,
              correlation: event['meta'].correlation,
              attempt: 1,
            }),
          }),
        },
      },
      invoke: {
        src: 'work',
        id: 'w',
        onDone: {
          actions: {
            type: 'reply',
            params: ({ context, event }) => ({
              to: context['to'],
              type: 'ask',
              reply: event.output as string,
            }),
          },
        },
      },
    });
    world.host.register('answering', answering);
    await world.create(['answering/1', 'answering']);
    const asked = world.ask('answering/1', { type: 'ask' });
    await world.settle();
    const stopped = world.host.stop({ drain: true });
    await world.settle();
    outside.last('answer').finish('here you are');
    await world.wait(stopped);
    expect(await asked).toBe('here you are');
  });

  test('drain: after the grace time it is an abort', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    const stopped = world.host.stop({ drain: true, graceMs: 1000 });
    await world.advance(999);
    expect(outside.last('work').aborted).toBe(false);
    await world.advance(1);
    expect(outside.last('work').aborted).toBe(true);
    await stopped;
    expect(world.clock.pending).toBe(0);
  });

  test('drain, and then without: the grace is over at once, and both have the same end', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    const draining = world.host.stop({ drain: true, graceMs: 3_600_000 });
    await world.settle();
    expect(outside.last('work').aborted).toBe(false);
    const hurried = world.host.stop({ drain: false });
    await world.settle();
    expect(outside.last('work').aborted).toBe(true);
    await Promise.all([draining, hurried]);
    // Nor is the timer of the grace left.
    expect(world.clock.pending).toBe(0);
    await world.open();
    outside.last('work').finish('done');
    await world.settle();
    expect(outside.started).toHaveLength(2);
    expect(world.context('worker/a')['log']).toEqual(['done']);
  });

  test('drain, and then drain again: the grace stays what it was', async () => {
    const { world, outside } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    const stopped = world.host.stop({ drain: true, graceMs: 1000 });
    await world.advance(999);
    void world.host.stop({ drain: true, graceMs: 0 });
    await world.settle();
    expect(outside.last('work').aborted).toBe(false);
    await world.advance(1);
    await stopped;
    expect(outside.last('work').aborted).toBe(true);
  });

  test('drain, and then without, when an effect does not heed its signal: 5 s from then', async () => {
    const outside = new Outside();
    const world = new World({ worker: workerMachine(outside, { deaf: true }) });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.send('worker/a', { type: 'start' });
    const draining = world.host.stop({ drain: true });
    await world.advance(10_000);
    const hurried = world.host.stop();
    await world.advance(4999);
    expect(await standing(hurried)).toBe('pending');
    await world.advance(1);
    await Promise.all([draining, hurried]);
  });

  test.each([false, true])(
    'two actors that never stop talking do not keep it from stopping (drain: %s)',
    async (drain) => {
      const talker = setup({ actions: { ...durableActions } }).createMachine({
        id: 'talker',
        context: () => ({ n: 0 }),
        on: {
          ball: {
            actions: [
              assign({ n: ({ context }) => context['n'] + 1 }),
              {
                type: 'send',
                params: ({ event }) => ({
                  to: anyAddress(event['meta'].from === 'talker/1' ? 'talker/2' : 'talker/1'),
                  message: { type: 'ball' },
                }),
              },
            ],
          },
        },
      });
      // Real time: a clock that stands still would make them talk for ever.
      const host = new DurableHost({
        store: new MemoryStore(),
        clock: systemClock,
        logger: pino({ level: 'silent' }),
        newId: () => 'r',
      });
      host.register('talker', talker);
      await host.open();
      await host.spawn([
        { address: 'talker/1', machine: 'talker' },
        { address: 'talker/2', machine: 'talker' },
      ]);
      await host.send('talker/1', { type: 'ball' });
      await host.stop({ drain, graceMs: 30 });
    },
  );

  test('while actors are being read', async () => {
    const { world } = await newWorld();
    const host = await world.reopen();
    const sent = host.send('counter/a', { type: 'inc' });
    sent.catch(() => undefined);
    await world.wait(host.stop());
    expect(await standing(sent)).toBe('fulfilled');
    await world.open();
    expect(world.context('counter/a')['n']).toBe(1);
  });

  test('a host that has failed', async () => {
    const { world, store } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    store.refuse = () => new Error('gone');
    await world.send('counter/a', { type: 'inc' }).catch(() => undefined);
    await world.stop();
    await expect(world.host.flush()).rejects.toThrow('gone');
    expect(world.clock.pending).toBe(0);
  });

  test.each([false, true])(
    'a store that fails while the stop waits for an effect (drain: %s)',
    async (drain) => {
      const outside = new Outside();
      let store: TestStore | undefined;
      const world = new World(
        { worker: workerMachine(outside, { deaf: true }), counter: counterMachine },
        {
          wrap: (memory) => {
            store = new TestStore(memory);
            return store;
          },
        },
      );
      await world.open();
      await world.create(['worker/a', 'worker'], ['counter/a', 'counter']);
      await world.send('worker/a', { type: 'start' });
      if (store !== undefined) store.refuse = () => new Error('gone');
      const sent = world.host.send('counter/a', { type: 'inc' });
      sent.catch(() => undefined);
      const stopped = world.host.stop({ drain, graceMs: 1000 });
      await world.settle();
      expect(world.facts('failed')).toHaveLength(1);
      await world.advance(10_000);
      await world.wait(stopped);
      await expect(sent).rejects.toThrow('gone');
    },
  );

  test('a store that fails during the stop', async () => {
    const { world, store } = await newWorld();
    await world.send('worker/a', { type: 'start' });
    store.refuse = () => new Error('gone');
    await world.stop();
    expect(world.facts('failed')).toHaveLength(1);
    await expect(world.host.flush()).rejects.toThrow('gone');
  });
});

describe('observers', () => {
  test('are told of every turn that changed something, after it is stored', async () => {
    const { world } = await newWorld();
    world.told.length = 0;
    world.host.events.on('turn', ({ address, context }) => {
      expect(world.context(address)).toEqual(context);
    });
    await world.send('counter/a', { type: 'inc' });
    await world.send('counter/a', { type: 'ignore' });
    expect(world.facts('turn')).toEqual([
      {
        address: 'counter/a',
        machine: 'counter',
        seq: 1,
        at: world.clock.now(),
        event: { type: 'inc', from: 'app/client' },
        state: {},
        context: { n: 1, seen: [], name: null },
        status: 'active',
      },
    ]);
  });

  test('one that throws harms nobody: not the host, not the others', async () => {
    const { world } = await newWorld();
    const heard: string[] = [];
    world.host.events.on('turn', () => {
      throw new Error('a bad listener');
    });
    world.host.events.on('turn', () => heard.push('on'));
    const off = (): void => {
      heard.push('off');
    };
    world.host.events.on('turn', off);
    world.host.events.off('turn', off);
    await world.send('counter/a', { type: 'inc' });
    await world.send('counter/a', { type: 'inc' });
    expect(heard).toEqual(['on', 'on']);
    expect(world.context('counter/a')['n']).toBe(2);
  });

  test('one that calls the host back is served', async () => {
    const { world } = await newWorld();
    world.host.events.on('turn', ({ address, seq }) => {
      if (address === 'counter/a' && seq < 5) void world.host.send('counter/a', { type: 'inc' });
    });
    await world.send('counter/a', { type: 'inc' });
    expect(world.context('counter/a')['n']).toBe(5);
  });

  test('one that stops the host from within', async () => {
    const { world } = await newWorld();
    let stopped: Promise<void> | undefined;
    world.host.events.on('turn', () => {
      stopped ??= world.host.stop();
    });
    await world.send('counter/a', { type: 'inc' });
    await stopped;
    await expect(world.host.flush()).rejects.toThrow(StoppedError);
  });

  test('emitted events, logs and local actions follow the commit, in their order', async () => {
    const did: string[] = [];
    const logged: unknown[] = [];
    const { world, store } = await newWorld({
      logger: pino({ level: 'info' }, { write: (line: string) => logged.push(JSON.parse(line)) }),
    });
    const machine = createMachine({
      id: 'm',
      on: {
        go: {
          actions: [
            () => did.push('local'),
            emit({ type: 'emitted' }),
            log('words', 'label'),
            () => {
              throw new Error('a bad action');
            },
            () => did.push('after'),
          ],
        },
      },
    });
    world.host.register('m', machine);
    world.host.events.on('emitted', () => did.push('emitted'));
    await world.create(['m/1', 'm']);
    store.hold();
    const earlier = world.host.send('counter/a', { type: 'inc' });
    await world.settle();
    void world.host.send('m/1', { type: 'go' }, { delivery: 'transient' });
    await world.settle();
    // The turn itself has changed nothing; what it does may rest on what is not stored yet.
    expect(did).toEqual([]);
    store.release();
    await world.wait(earlier);
    expect(did).toEqual(['local', 'emitted', 'after']);
    expect(logged).toContainEqual(
      expect.objectContaining({ actor: 'm/1', label: 'label', value: 'words' }),
    );
    expect(logged).toContainEqual(
      expect.objectContaining({ actor: 'm/1', msg: 'a local action threw' }),
    );
    expect(world.data.deadLetters).toEqual([]);
  });
});

test('inspect shows what is stored', async () => {
  const { world } = await newWorld();
  await world.send('counter/a', { type: 'inc' });
  expect(await world.host.inspect('counter/a')).toEqual({
    record: {
      address: 'counter/a',
      machine: 'counter',
      version: 1,
      status: 'active',
      seq: 1,
      parent: null,
      reason: null,
      updatedAt: world.clock.now(),
    },
    snapshot: { status: 'active', value: {}, context: { n: 1, seen: [], name: null } },
  });
  expect(await world.host.inspect('counter/nobody')).toBeUndefined();
});

describe('a delivery that goes wrong changes nothing twice and loses nothing', () => {
  test.each([
    { name: 'a message', nth: 1 },
    { name: 'a timer or the end of an effect', nth: 3 },
  ])('$name delivered twice', async ({ nth }) => {
    const { world } = await newWorld();
    const faults = new FaultPoints(`bus.deliver:duplicate:${nth}`);
    const outside = new Outside();
    await world.reopen({
      faultPoint: faults.hit,
      machines: { worker: workerMachine(outside), counter: counterMachine },
    });
    await world.send('counter/a', { type: 'inc' });
    await world.send('worker/a', { type: 'start' });
    outside.last('work').finish('done');
    await world.settle();
    expect(faults.fired).toBe(1);
    expect(world.context('counter/a')['n']).toBe(1);
    expect(world.context('worker/a')['log']).toEqual(['done']);
    expect(world.data.messages.size).toBe(0);
  });

  test('one that fails from outside is the caller’s error, and nothing is stored', async () => {
    const { world } = await newWorld();
    const faults = new FaultPoints('bus.deliver:throw');
    await world.reopen({ faultPoint: faults.hit });
    await expect(world.send('counter/a', { type: 'inc' })).rejects.toThrow('injected fault');
    await world.send('counter/a', { type: 'inc' });
    expect([faults.fired, world.context('counter/a')['n'], world.data.messages.size]).toEqual([
      1, 1, 0,
    ]);
  });

  test.each([
    { what: 'a timer', nth: 2 },
    { what: 'the end of an effect', nth: 3 },
  ])('one of $what that fails stops the host, which loses nothing', async ({ nth }) => {
    const outside = new Outside();
    const machine = setup({
      actors: { work: outside.effect('work') } as Record<string, ReturnType<Outside['effect']>>,
    }).createMachine({
      initial: 'waiting',
      states: {
        waiting: { on: { go: 'soon' } },
        soon: { after: { 10: 'working' } },
        working: { invoke: { src: 'work', id: 'w', onDone: 'done' } },
        done: {},
      },
    });
    const world = new World({ m: machine });
    await world.open();
    await world.create(['m/1', 'm']);
    const faults = new FaultPoints(`bus.deliver:throw:${nth}`);
    await world.reopen({ faultPoint: faults.hit });
    await world.send('m/1', { type: 'go' });
    await world.advance(10);
    outside.started[0]?.finish(null);
    await world.settle();
    expect(faults.fired).toBe(1);
    expect(world.facts('failed')).toHaveLength(1);
    await world.reopen();
    await world.advance(1);
    outside.last('work').finish(null);
    await world.settle();
    expect(world.state('m/1').value).toBe('done');
  });

  test('a transient message delivered twice', async () => {
    const { world } = await newWorld();
    const faults = new FaultPoints('bus.deliver:duplicate');
    await world.reopen({ faultPoint: faults.hit });
    await world.send('counter/a', { type: 'inc' }, { delivery: 'transient' });
    expect([faults.fired, world.context('counter/a')['n']]).toEqual([1, 1]);
    expect(world.facts('dropped')).toMatchObject([{ reason: 'duplicate' }]);
  });

  test('a message not delivered is handled after the next start', async () => {
    const { world } = await newWorld();
    const faults = new FaultPoints('bus.deliver:drop');
    await world.reopen({ faultPoint: faults.hit });
    await world.send('counter/a', { type: 'inc' });
    expect([faults.fired, world.context('counter/a')['n']]).toEqual([1, 0]);
    await world.reopen();
    expect(world.context('counter/a')['n']).toBe(1);
  });
});

describe('with the real clock and the real event loop', () => {
  const realHost = async (options: Partial<HostOptions> = {}): Promise<DurableHost> => {
    let ids = 0;
    const host = new DurableHost({
      store: new MemoryStore(),
      clock: systemClock,
      logger: pino({ level: 'silent' }),
      newId: () => `id${ids++}`,
      ...options,
    });
    host.register('counter', counterMachine);
    host.register(
      'sleeper',
      setup({
        actors: { nap: effect<null, undefined>(() => Promise.resolve(null)) },
      }).createMachine({
        context: () => ({ naps: 0 }),
        initial: 'awake',
        states: {
          awake: { after: { 1: 'asleep' } },
          asleep: {
            invoke: {
              src: 'nap',
              id: 'nap',
              onDone: {
                target: 'awake',
                actions: assign({ naps: ({ context }) => context['naps'] + 1 }),
              },
            },
          },
        },
      }),
    );
    await host.open();
    return host;
  };

  test('timers, effects and requests work, and nothing keeps the process alive afterwards', async () => {
    const host = await realHost();
    const napped = new Promise<void>((resolve) => {
      host.events.on('turn', ({ context }) => {
        if (context['naps'] === 3) resolve();
      });
    });
    await host.spawn([
      { address: 'sleeper/1', machine: 'sleeper' },
      { address: 'counter/a', machine: 'counter' },
    ]);
    expect(await host.request('counter/a', { type: 'incAndCount' })).toBe(1);
    await napped;
    await host.stop();
  });

  test('a chain of requests that never leaves the microtask queue does not keep timers waiting', async () => {
    const host = await realHost();
    await host.spawn([{ address: 'counter/a', machine: 'counter' }]);
    let fired = false;
    const timer = setTimeout(() => {
      fired = true;
    }, 1);
    let roundsOfTheLoop = 0;
    let immediate = setImmediate(function next() {
      roundsOfTheLoop++;
      immediate = setImmediate(next);
    });
    const until = performance.now() + 10_000;
    let requests = 0;
    while ((!fired || requests < 1000) && performance.now() < until) {
      await host.request('counter/a', { type: 'count' }, { delivery: 'transient' });
      requests++;
    }
    clearTimeout(timer);
    clearImmediate(immediate);
    expect(fired).toBe(true);
    // Most requests stay within a round of the event loop: it is the chain that has to leave it, not each of them.
    expect(roundsOfTheLoop).toBeGreaterThan(0);
    expect(roundsOfTheLoop).toBeLessThan(requests / 2);
    await host.stop();
  });
});
