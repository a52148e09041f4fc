import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import type { FaultPoint } from '../../src/protocol/fault-point.ts';
import { type Message, replyTo } from '../../src/protocol/message.ts';
import { DeliveryFault } from '../../src/runtime/fault-points.ts';
import { ALL_FAULTS } from '../extent.ts';
import { counterMachine, puppetMachine, workerMachine } from '../runtime/machines.ts';
import { Outside, World } from '../runtime/world.ts';

/** The long forms of what is short here: `npm run faults`. */
const note = (what: unknown) => ({ type: 'note', what }) as Message;

describe('D01 a handler that fails', () => {
  const circle: Record<string, unknown> = {};
  circle['self'] = circle;
  let threw = 0;
  const brokenMachine = setup({
    actions: {
      ...durableActions,
      rejects: () => {
        threw++;
        return Promise.reject(new Error('rejected')) as never;
      },
      throwsLater: () => {
        threw++;
        throw new Error('a local action');
      },
    },
    guards: {
      never: () => {
        threw++;
        throw circle;
      },
    },
  }).createMachine({
    id: 'broken',
    context: () => ({ n: 0 }),
    on: {
      inc: { actions: assign({ n: ({ context }) => context['n'] + 1 }) },
      throws: {
        actions: assign(() => {
          threw++;
          throw new Error('thrown');
        }),
      },
      text: {
        actions: assign(() => {
          threw++;
          throw 'only a text';
        }),
      },
      nothing: {
        actions: assign(() => {
          threw++;
          throw undefined;
        }),
      },
      guard: { guard: 'never', actions: assign({ n: -1 }) },
      // A context that could not be stored.
      promise: {
        actions: assign({
          n: () => {
            threw++;
            return Promise.resolve(1) as never;
          },
        }),
      },
      rejects: { actions: ['rejects'] },
      local: { actions: ['throwsLater'] },
    },
  });

  test.each([
    { how: 'throws', deadLetters: 1 },
    { how: 'text', deadLetters: 1 },
    { how: 'nothing', deadLetters: 1 },
    { how: 'guard', deadLetters: 1 },
    { how: 'promise', deadLetters: 1 },
    // Observers and local actions come after the commit: the turn has happened.
    { how: 'rejects', deadLetters: 0 },
    { how: 'local', deadLetters: 0 },
  ])(
    '($how) keeps nobody from going on: 1 000 more messages pass',
    async ({ how, deadLetters }) => {
      threw = 0;
      const world = new World({ broken: brokenMachine, counter: counterMachine });
      await world.open();
      world.host.events.on('turn', () => Promise.reject(new Error('a listener')) as never);
      await world.create(['broken/b', 'broken'], ['counter/c', 'counter']);
      await world.send('broken/b', { type: how });
      expect(threw).toBe(1);
      expect(world.data.deadLetters).toHaveLength(deadLetters);
      const sent = Array.from({ length: 500 }, () => [
        world.host.send('broken/b', { type: 'inc' }),
        world.host.send('counter/c', { type: 'inc' }),
      ]);
      await world.wait(Promise.all(sent.flat()));
      expect(world.context('broken/b')['n']).toBe(500);
      expect(world.context('counter/c')['n']).toBe(500);
    },
  );

  test.each([
    { how: 'rejects', end: 'unhandled' },
    { how: 'rejects with a text', end: 'unhandled' },
    { how: 'never settles, nor heeds its signal', end: 'timeout' },
  ])('an effect that $how: its actor is told, and goes on', async ({ how, end }) => {
    const outside = new Outside();
    const never = how.startsWith('never');
    const world = new World(
      { worker: workerMachine(outside, { deaf: never }), counter: counterMachine },
      { effects: { heartbeatMs: 1000 } },
    );
    await world.open();
    await world.create(['worker/w', 'worker'], ['counter/c', 'counter']);
    await world.send('worker/w', { type: 'start' });
    if (never) await world.advance(10_000);
    else outside.last('work').fail(how.endsWith('text') ? 'a text' : new Error('no'));
    const sent = Array.from({ length: 1000 }, () => world.host.send('counter/c', { type: 'inc' }));
    await world.wait(Promise.all(sent));
    expect(world.context('worker/w')['log']).toEqual([end]);
    expect(world.context('counter/c')['n']).toBe(1000);
    await world.send('worker/w', { type: 'start' });
    expect(outside.starts('work')).toHaveLength(2);
  });
});

describe('D02 a storm', () => {
  const LIMIT = 1000;
  test.each([
    { overflow: 'refuse', delivery: 'transient' },
    { overflow: 'refuse', delivery: 'durable' },
    { overflow: 'dropOldest', delivery: 'transient' },
    { overflow: 'dropOldest', delivery: 'durable' },
  ] as const)(
    'of $delivery messages to a receiver that is slower: $overflow keeps it in bounds, and counts',
    { timeout: ALL_FAULTS ? 600_000 : 30_000 },
    async ({ overflow, delivery }) => {
      const total = ALL_FAULTS ? (delivery === 'durable' ? 100_000 : 1_000_000) : 6_000;
      const world = new World({
        counter: { machine: counterMachine, overflow, mailboxLimit: LIMIT },
      });
      await world.open();
      await world.create(['counter/c', 'counter']);
      const before = world.host.counts;
      const heapBefore = process.memoryUsage().heapUsed;
      let taken = 0;
      let refused = 0;
      const count = { delivery };
      // Two thousand come where 256 are handled.
      for (let sent = 0; sent < total; sent += 2000) {
        const ends: Promise<void>[] = [];
        for (let i = 0; i < 2000; i++) {
          ends.push(
            world.host.send('counter/c', { type: 'ignore' }, count).then(
              () => {
                taken++;
              },
              () => {
                refused++;
              },
            ),
          );
        }
        await world.run(1);
        expect(world.data.messages.size).toBeLessThanOrEqual(LIMIT);
        if (delivery === 'transient') await Promise.all(ends);
      }
      await world.settle();
      const { counts } = world.host;
      const dropped = counts.dropped.overflow;
      // The storm was one, and nothing has got lost without being counted.
      expect(overflow === 'refuse' ? refused : dropped).toBeGreaterThan(total / 2);
      expect(refused).toBe(counts.refused);
      expect(taken + refused).toBe(total);
      expect(counts.delivered - before.delivered).toBe(total - refused - dropped);
      expect(world.data.messages.size).toBe(0);
      // Far less than the storm would fill.
      if (ALL_FAULTS) expect(process.memoryUsage().heapUsed - heapBefore).toBeLessThan(300e6);
    },
  );
});

describe('D03 actors that send to each other', () => {
  const relay = setup({ actions: { ...durableActions } }).createMachine({
    id: 'relay',
    context: ({ input }) => ({ other: input }),
    on: {
      ping: {
        actions: {
          type: 'send',
          params: ({ context, event }) => ({
            to: anyAddress(context['other']),
            message: { type: 'ping', n: event['n'] + 1 },
          }),
        },
      },
    },
  });

  async function newWorld(chainLimit?: number): Promise<World> {
    const world = new World(
      { relay, puppet: puppetMachine, counter: counterMachine },
      chainLimit === undefined ? {} : { chainLimit },
    );
    await world.open();
    await world.create(
      ['relay/a', 'relay', 'relay/b'],
      ['relay/b', 'relay', 'relay/a'],
      ['counter/c', 'counter'],
      ['puppet/p', 'puppet'],
    );
    return world;
  }

  test('without end are told of, keep nobody from his turn, and are ended where a limit says so', async () => {
    const world = await newWorld(12_000);
    const first = world.host.send('relay/a', { type: 'ping', n: 0 });
    first.catch(() => undefined);
    const order: number[] = [];
    world.host.events.on('looped', ({ messages }) => order.push(messages));
    // In the middle of it.
    await world.run(3);
    const other = world.host.send('counter/c', { type: 'inc' });
    await world.run(2);
    await other;
    expect(world.context('counter/c')['n']).toBe(1);
    await world.settle();
    expect(order).toEqual([10_000, 12_001]);
    expect(world.facts('looped')).toEqual([
      { address: 'relay/b', from: 'relay/a', type: 'ping', messages: 10_000, ended: false },
      { address: 'relay/a', from: 'relay/b', type: 'ping', messages: 12_001, ended: true },
    ]);
    expect(world.data.deadLetters).toMatchObject([
      { address: 'relay/a', reason: expect.stringContaining('A chain of 12000 messages') },
    ]);
    expect(world.data.messages.size).toBe(0);
    // What comes from outside begins a chain of its own.
    await world.wait(world.host.send('counter/c', { type: 'inc' }));
    expect(world.context('counter/c')['n']).toBe(2);
    await expect(world.send('relay/a', { type: 'ping', n: 0 })).resolves.toBeUndefined();
    expect(world.data.deadLetters).toHaveLength(2);
  });

  test.each([20, 21])(
    'a question that is ended with its chain still ends (%d)',
    async (chainLimit) => {
      const asks = {
        type: 'request' as const,
        params: { to: anyAddress('answerer/a'), message: { type: 'q' }, timeoutMs: 1_000 },
      };
      const asker = setup({ actions: { ...durableActions } }).createMachine({
        context: () => ({ failed: null }),
        on: {
          go: { actions: asks },
          'q:ok': { actions: asks },
          'q:err': { actions: assign({ failed: ({ event }) => event['failure'].code }) },
        },
      });
      const answerer = setup({ actions: { ...durableActions } }).createMachine({
        on: {
          q: {
            actions: {
              type: 'reply',
              params: ({ event }) => ({ to: replyTo(event['meta']), type: 'q', reply: null }),
            },
          },
        },
      });
      const world = new World({ asker, answerer }, { chainLimit });
      await world.open();
      await world.create(['asker/a', 'asker'], ['answerer/a', 'answerer']);
      await world.send('asker/a', { type: 'go' });
      expect(world.facts('looped').length).toBeGreaterThan(0);
      await world.advance(1_000);
      expect(world.context('asker/a')['failed']).toBe('timeout');
      expect(world.host.load.timers).toBe(0);
    },
  );

  test('what is sent in a turn comes in its order, behind what the same sender has sent before', async () => {
    const world = await newWorld();
    const says = (what: string) =>
      ({ type: 'send', to: 'counter/c', message: note(what) }) as Message;
    // Each of these turns sends; all of them are in the mailbox before the first is taken.
    const sent = ['a', 'b', 'c', 'd'].map((what) => world.host.send('puppet/p', says(what)));
    const own = ['1', '2'].map((what) => world.host.send('counter/c', note(what)));
    await world.wait(Promise.all([...sent, ...own]));
    const seen = world.context('counter/c')['seen'] as string[];
    expect(seen.filter((what) => /[a-d]/.test(what))).toEqual(['a', 'b', 'c', 'd']);
    expect(seen.filter((what) => /\d/.test(what))).toEqual(['1', '2']);
  });

  test.each([0, 1.5, -1])('a chainLimit of %s is refused', (chainLimit) => {
    expect(() => new World({}, { chainLimit }).build()).toThrow('option chainLimit');
  });
});

describe('D04 what arrives twice, late, or in another order', () => {
  const fate = fc.constantFrom('once', 'once', 'twice', 'late', 'never');
  property.prop(
    [fc.array(fate, { minLength: 20, maxLength: 120 }), fc.array(fc.nat(2), { maxLength: 30 })],
    { numRuns: ALL_FAULTS ? 1000 : 30 },
  )(
    'changes its receiver once, and what never came comes after a restart',
    async (fates, order) => {
      let fired = 0;
      let at = 0;
      let held: (() => void)[] = [];
      const faultPoint: FaultPoint = (name) => {
        if (name !== 'bus.deliver') return undefined;
        const next = fates[at++ % fates.length];
        if (next !== 'once') fired++;
        if (next === 'twice') throw new DeliveryFault('duplicate');
        if (next === 'never') throw new DeliveryFault('drop');
        if (next === 'late') return new Promise<void>((resolve) => held.push(resolve));
        return undefined;
      };
      const world = new World({ counter: counterMachine, puppet: puppetMachine });
      await world.open();
      await world.create(['counter/c', 'counter'], ['puppet/p', 'puppet'], ['puppet/q', 'puppet']);
      await world.reopen({ faultPoint });
      const wanted: string[] = [];
      const sends = order.map((by, i) => {
        wanted.push(`${by} ${i}`);
        const message = note(`${by} ${i}`);
        return by === 0
          ? world.host.send('counter/c', message)
          : world.host.send(by === 1 ? 'puppet/p' : 'puppet/q', {
              type: 'send',
              to: 'counter/c',
              message,
            } as Message);
      });
      await world.wait(Promise.all(sends));
      // The last first: as wrong an order as can be.
      for (; held.length > 0; ) {
        const [...late] = held.toReversed();
        held = [];
        for (const release of late) {
          release();
          await world.settle();
        }
      }
      // A dropped one may be dropped again by the next; in the end nobody drops.
      await world.reopen({ faultPoint: () => undefined });
      const seen = world.context('counter/c')['seen'] as string[];
      expect(seen.toSorted()).toEqual(wanted.toSorted());
      expect([world.data.messages.size, world.data.deadLetters.length]).toEqual([0, 0]);
      // Some message has met a fault, if there were enough of them.
      if (order.length >= fates.length && fates.some((one) => one !== 'once')) {
        expect(fired).toBeGreaterThan(0);
      }
      expect(at).toBeGreaterThanOrEqual(order.length);
    },
  );
});
