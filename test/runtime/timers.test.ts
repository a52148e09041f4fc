import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { assign, cancel, raise, setup } from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { DurableHost } from '../../src/runtime/durable-host.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { puppetMachine } from './machines.ts';
import { World } from './world.ts';

const clockMachine = setup({}).createMachine({
  id: 'clock',
  context: () => ({ rang: [] }),
  on: {
    set: {
      actions: raise(({ event }) => ({ type: 'ring', what: event['what'] }), {
        delay: ({ event }) => event['ms'],
        id: 'alarm',
      }),
    },
    add: {
      actions: raise(({ event }) => ({ type: 'ring', what: event['what'] }), {
        delay: ({ event }) => event['ms'],
      }),
    },
    cancel: { actions: cancel('alarm') },
    ring: {
      actions: assign({
        rang: ({ context, event }) => [...context['rang'], [event['what'], event['meta'].at]],
      }),
    },
  },
});

const newWorld = async (): Promise<World> => {
  const world = new World({ clock: clockMachine, puppet: puppetMachine });
  await world.open();
  await world.create(['clock/a', 'clock'], ['clock/b', 'clock'], ['puppet/p', 'puppet']);
  return world;
};
const rang = (world: World, address = 'clock/a') => world.context(address)['rang'];
const rows = (world: World) =>
  [...world.data.timers.values()].reduce((sum, timers) => sum + timers.size, 0);

describe('a timer', () => {
  test('is due at its time, and a chain of them starts each from the one before', async () => {
    const world = await newWorld();
    const start = world.clock.now();
    await world.send('clock/a', { type: 'set', what: 'x', ms: 10 });
    await world.advance(10);
    await world.send('clock/a', { type: 'set', what: 'y', ms: 10 });
    await world.advance(100);
    expect(rang(world)).toEqual([
      ['x', start + 10],
      ['y', start + 20],
    ]);
  });

  test('keeps its due time over a crash', async () => {
    const world = await newWorld();
    const start = world.clock.now();
    await world.send('clock/a', { type: 'set', what: 'x', ms: 100 });
    await world.advance(60);
    await world.reopen();
    await world.advance(30);
    await world.reopen();
    expect(rang(world)).toEqual([]);
    await world.advance(10);
    expect(rang(world)).toEqual([['x', start + 100]]);
    expect(rows(world)).toBe(0);
  });

  test('that fell due while nobody was there is due at once, the older ones first', async () => {
    const world = await newWorld();
    await world.send('clock/a', { type: 'add', what: 'second', ms: 200 });
    await world.send('clock/a', { type: 'add', what: 'first', ms: 100 });
    await world.send('clock/a', { type: 'add', what: 'not yet', ms: 5000 });
    world.crash();
    world.clock.jump(world.clock.now() + 1000);
    const now = world.clock.now();
    await world.open();
    await world.advance(1);
    expect(rang(world)).toEqual([
      ['first', now + 1],
      ['second', now + 1],
    ]);
  });

  test('may be months away', async () => {
    const world = await newWorld();
    const ms = 2 ** 31 + 1;
    await world.send('clock/a', { type: 'set', what: 'far', ms });
    await world.advance(ms - 1);
    expect(rang(world)).toEqual([]);
    await world.advance(1);
    expect(rang(world)).toHaveLength(1);
  });

  test('is a minute late at most after the machine was asleep', async () => {
    const world = await newWorld();
    await world.send('clock/a', { type: 'set', what: 'x', ms: 3_600_000 });
    await world.advance(1_000);
    world.clock.sleep(2 * 3_600_000);
    await world.advance(59_000);
    expect(rang(world)).toHaveLength(1);
  });

  test.each([1.5, 1e20])('may have any delay: %d ms', async (ms) => {
    const store = await openSqliteStore({ path: ':memory:' });
    const logger = pino({ level: 'silent' });
    const host = new DurableHost({ store, clock: systemClock, logger, newId: () => 'id' });
    host.register('clock', clockMachine);
    host.register('puppet', puppetMachine);
    await host.open();
    await host.spawn([
      { address: 'clock/a', machine: 'clock' },
      { address: 'puppet/p', machine: 'puppet' },
    ]);
    const message = { type: 'ignore' };
    await Promise.all([
      host.send('clock/a', { type: 'set', what: 'x', ms }),
      host.send('puppet/p', { type: 'ask', to: 'clock/a', message, timeoutMs: ms }),
      host.send('puppet/p', { type: 'send', to: 'clock/a', message, options: { delayMs: ms } }),
    ]);
    await host.flush();
    const { timers } = await store.loadPending();
    for (const { dueAt } of timers) {
      expect(dueAt).toSatisfy(Number.isSafeInteger);
      expect(new Date(dueAt).getTime()).toBe(dueAt);
    }
    await host.stop();
  });

  test('with a fraction of a millisecond is not early', async () => {
    const world = await newWorld();
    const start = world.clock.now();
    await world.send('clock/a', { type: 'set', what: 'x', ms: 10.25 });
    await world.advance(10);
    expect(rang(world)).toEqual([]);
    await world.advance(1);
    expect(rang(world)).toEqual([['x', start + 11]]);
  });

  test('that is cancelled is never due, and leaves no row', async () => {
    const world = await newWorld();
    await world.send('clock/a', { type: 'set', what: 'x', ms: 10 });
    expect(rows(world)).toBe(1);
    await world.send('clock/a', { type: 'cancel' });
    expect(rows(world)).toBe(0);
    expect(world.host.load.timers).toBe(0);
    await world.advance(100);
    await world.reopen();
    await world.advance(100);
    expect(rang(world)).toEqual([]);
  });

  test('that is due but not handled when it is cancelled or set again does not count', async () => {
    const world = await newWorld();
    await world.send('clock/a', { type: 'set', what: 'old', ms: 10 });
    await world.send('clock/b', { type: 'set', what: 'old', ms: 10 });
    // It fires, and before anybody has a turn, two messages of its own class come first.
    const firing = world.clock.now() + 10;
    void world.host.send('clock/a', { type: 'cancel' }, { priority: 5 });
    void world.host.send('clock/b', { type: 'set', what: 'new', ms: 50 }, { priority: 5 });
    world.clock.step(firing);
    await world.settle();
    expect([rang(world), rang(world, 'clock/b')]).toEqual([[], []]);
    await world.advance(50);
    expect(rang(world, 'clock/b')).toEqual([['new', firing + 50]]);
  });

  test('of an actor that has ended is gone', async () => {
    const world = await newWorld();
    await world.send('puppet/p', {
      type: 'send',
      to: 'clock/a',
      message: { type: 'set', what: 'x', ms: 1 },
      options: { delayMs: 500 },
    });
    expect(rows(world)).toBe(1);
    await world.send('puppet/p', { type: 'end' });
    expect(rows(world)).toBe(0);
    await world.advance(1000);
    expect(rang(world)).toEqual([]);
  });

  test('wakes an actor that has left memory', async () => {
    const world = await newWorld();
    await world.send('clock/a', { type: 'set', what: 'x', ms: 600_000 });
    await world.advance(300_000);
    expect(world.host.load.actors).toBe(0);
    expect(world.host.load.timers).toBe(1);
    await world.advance(300_000);
    expect(rang(world)).toHaveLength(1);
  });

  test('of an actor whose machine is not registered waits for it', async () => {
    const world = await newWorld();
    await world.send('clock/a', { type: 'set', what: 'x', ms: 10 });
    const host = await world.reopen({ machines: { puppet: puppetMachine } });
    await world.advance(1000);
    host.register('clock', clockMachine);
    await world.settle();
    expect(rang(world)).toEqual([['x', world.clock.now()]]);
  });
});

test('timers of one moment are due in the order they were set', async () => {
  const world = await newWorld();
  for (let what = 0; what < 50; what++) {
    await world.send('clock/a', { type: 'add', what, ms: 100 });
  }
  await world.advance(100);
  expect((rang(world) as unknown as [number, number][]).map(([what]) => what)).toEqual(
    Array.from({ length: 50 }, (_, i) => i),
  );
});

test('a timer set and cancelled within one commit is never written', async () => {
  const world = await newWorld();
  void world.host.send('clock/a', { type: 'set', what: 'x', ms: 100 });
  void world.host.send('clock/a', { type: 'cancel' });
  void world.host.send('clock/a', { type: 'set', what: 'y', ms: 100 });
  void world.host.send('clock/a', { type: 'set', what: 'z', ms: 200 });
  await world.settle();
  expect([...(world.data.timers.get('clock/a')?.values() ?? [])]).toMatchObject([
    { id: 'raise:alarm', dueAt: world.clock.now() + 200 },
  ]);
  await world.reopen();
  await world.advance(500);
  expect(rang(world)).toMatchObject([['z', expect.any(Number)]]);
});

test('what a machine calls a timer and what it calls a request do not meet', async () => {
  const machine = setup({
    actions: { ...durableActions },
  }).createMachine({
    context: () => ({ got: [] }),
    entry: [
      raise({ type: 'tick' }, { delay: 50, id: 'request:x' }),
      {
        type: 'request',
        params: {
          to: anyAddress('puppet/nobody'),
          message: { type: 'x' },
          timeoutMs: 100,
          id: 'x',
        },
      },
    ],
    on: {
      '*': { actions: assign({ got: ({ context, event }) => [...context['got'], event.type] }) },
    },
  });
  const world = new World({ odd: machine });
  await world.open();
  await world.create(['odd/1', 'odd']);
  await world.advance(200);
  expect(world.context('odd/1')['got']).toEqual(['x:err', 'tick']);
});

test('a clock that is put back delays what is due, and loses nothing', async () => {
  const world = await newWorld();
  await world.send('clock/a', { type: 'set', what: 'x', ms: 1000 });
  world.clock.jump(world.clock.now() - 3_600_000);
  await world.advance(1000);
  expect(rang(world)).toEqual([]);
  await world.advance(3_600_000);
  expect(rang(world)).toHaveLength(1);
});
