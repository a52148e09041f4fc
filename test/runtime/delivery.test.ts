import { describe, expect, test } from 'vitest';
import {
  type AnyEventObject,
  assign,
  emit,
  fromPromise,
  raise,
  sendTo,
  setup,
  spawnChild,
} from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import { MailboxFullError, ValidationError } from '../../src/protocol/errors.ts';
import { replyTo } from '../../src/protocol/message.ts';
import type { Priority } from '../../src/protocol/priority.ts';
import { counterMachine, puppetMachine } from './machines.ts';
import { TestStore, World } from './world.ts';

const newWorld = async (options: ConstructorParameters<typeof World>[1] = {}): Promise<World> => {
  const world = new World({ counter: counterMachine, puppet: puppetMachine }, options);
  await world.open();
  await world.create(['counter/a', 'counter'], ['puppet/p', 'puppet'], ['puppet/q', 'puppet']);
  return world;
};

const notes = (world: World) => world.context('counter/a')['seen'];

describe('order', () => {
  test('messages of one sender and class are handled in the order they were sent', async () => {
    const world = await newWorld();
    const sent = Array.from({ length: 600 }, (_, i) => i);
    // More than one commit holds.
    for (const what of sent) void world.host.send('counter/a', { type: 'note', what });
    await world.settle();
    expect(notes(world)).toEqual(sent);
  });

  test('higher classes go first', async () => {
    const world = await newWorld();
    for (const [what, priority] of [
      ['low', 1],
      ['normal', 2],
      ['critical', 5],
      ['high', 3],
      ['urgent', 4],
      ['normal too', undefined],
    ] as const) {
      void world.host.send(
        'counter/a',
        { type: 'note', what },
        priority === undefined ? {} : { priority },
      );
    }
    await world.settle();
    expect(notes(world)).toEqual(['critical', 'urgent', 'high', 'normal', 'normal too', 'low']);
  });

  test('a machine’s priorities count as well', async () => {
    const world = await newWorld();
    const send = (priority: Priority) => ({
      type: 'send',
      to: 'counter/a',
      message: { type: 'note', what: priority },
      options: { priority },
    });
    // Both puppets have their turn before the counter has its first.
    void world.host.send('puppet/p', send(1));
    void world.host.send('puppet/q', send(3));
    await world.settle();
    expect(notes(world)).toEqual([3, 1]);
  });

  test('waiting messages keep their order over a crash', async () => {
    const world = await newWorld();
    // The store has them, and nobody has handled them.
    await world.stop();
    // Stored, and not handled: the counter's machine is not known here.
    const host = await world.open({ machines: { puppet: puppetMachine } });
    for (let what = 0; what < 20; what++) {
      await world.wait(
        host.send('counter/a', { type: 'note', what }, { priority: what % 2 === 0 ? 2 : 3 }),
      );
    }
    expect(world.data.messages.size).toBe(20);
    await world.reopen();
    expect(notes(world)).toEqual([
      ...[1, 3, 5, 7, 9, 11, 13, 15, 17, 19],
      ...[0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
    ]);
    expect(world.data.messages.size).toBe(0);
  });

  test('a busy actor delays nobody: everybody takes one turn after the other', async () => {
    const world = await newWorld();
    const order: string[] = [];
    world.host.events.on('turn', ({ address }) => order.push(address));
    for (let i = 0; i < 50; i++) void world.host.send('counter/a', { type: 'inc' });
    void world.host.send('puppet/p', { type: 'hello' });
    await world.settle();
    expect(order.indexOf('puppet/p')).toBe(1);
    expect(order).toHaveLength(51);
  });
});

describe('a message is handled exactly once', () => {
  test('one that was stored and not handled, after a crash', async () => {
    const world = await newWorld();
    await world.stop();
    const host = await world.open({ machines: {} });
    await world.wait(host.send('counter/a', { type: 'inc' }));
    await world.reopen();
    await world.reopen();
    expect(world.context('counter/a')['n']).toBe(1);
  });

  test('the same key again has no effect, while the first waits and when it was handled', async () => {
    const world = await newWorld();
    void world.host.send('counter/a', { type: 'inc' }, { idempotencyKey: 'mine' });
    void world.host.send('counter/a', { type: 'inc' }, { idempotencyKey: 'mine' });
    await world.settle();
    expect(world.context('counter/a')['n']).toBe(1);
    expect(world.facts('dropped')).toEqual([
      { address: 'counter/a', type: 'inc', reason: 'duplicate' },
    ]);
    await world.send('counter/a', { type: 'inc' }, { idempotencyKey: 'mine' });
    expect(world.context('counter/a')['n']).toBe(1);
  });

  test('the same key again after a crash, while the first still waits', async () => {
    const world = await newWorld();
    await world.stop();
    const host = await world.open({ machines: {} });
    await world.wait(host.send('counter/a', { type: 'inc' }, { idempotencyKey: 'mine' }));
    const again = await world.reopen({ machines: {} });
    await world.wait(again.send('counter/a', { type: 'inc' }, { idempotencyKey: 'mine' }));
    again.register('counter', counterMachine);
    await world.settle();
    expect(world.context('counter/a')['n']).toBe(1);
    await world.reopen();
    expect(world.context('counter/a')['n']).toBe(1);
  });
});

describe('mailboxes are bounded', () => {
  test('the 1 001st message is refused with the address and the limit, and counted', async () => {
    const world = new World({ counter: { machine: counterMachine, mailboxLimit: 1000 } });
    await world.open();
    await world.create(['counter/a', 'counter'], ['counter/b', 'counter']);
    const sent = Array.from({ length: 1000 }, () => world.host.send('counter/a', { type: 'inc' }));
    const refused = world.host.send('counter/a', { type: 'inc' });
    await expect(refused).rejects.toThrow(MailboxFullError);
    await expect(refused).rejects.toMatchObject({
      code: 'unavailable',
      retryable: true,
      context: { address: 'counter/a', limit: 1000 },
    });
    await expect(world.host.request('counter/a', { type: 'count' })).rejects.toThrow(
      MailboxFullError,
    );
    expect(world.host.load.requests).toBe(0);
    expect(world.facts('mailboxFull')).toEqual([
      { address: 'counter/a', limit: 1000 },
      { address: 'counter/a', limit: 1000 },
    ]);
    // A full mailbox is its owner's affair.
    await world.send('counter/b', { type: 'inc' });
    await Promise.all(sent);
    await world.send('counter/a', { type: 'inc' });
    expect(world.context('counter/a')['n']).toBe(1001);
    expect(world.context('counter/b')['n']).toBe(1);
  });

  test('the bound holds while the actor is being read, and while it waits for its machine', async () => {
    const world = new World({ counter: { machine: counterMachine, mailboxLimit: 3 } });
    await world.open();
    await world.create(['counter/a', 'counter']);
    await world.reopen();
    const loading = Array.from({ length: 4 }, () => world.host.send('counter/a', { type: 'inc' }));
    expect(
      (await Promise.allSettled([...loading, world.settle()])).map(({ status }) => status),
    ).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
    expect(world.context('counter/a')['n']).toBe(3);
    await world.reopen({ machines: {}, mailboxLimit: 2 });
    const parked = Array.from({ length: 3 }, () => world.host.send('counter/a', { type: 'inc' }));
    expect(
      (await Promise.allSettled([...parked, world.settle()])).map(({ status }) => status),
    ).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
  });

  test('what a machine sends into a full mailbox becomes a dead letter, a request gets its error', async () => {
    const world = new World({
      puppet: puppetMachine,
      counter: { machine: counterMachine, mailboxLimit: 2 },
    });
    // The counter is never read: nobody knows its machine.
    await world.open();
    await world.create(['puppet/p', 'puppet'], ['counter/a', 'counter']);
    await world.reopen({ machines: { puppet: puppetMachine }, mailboxLimit: 2 });
    const message = { type: 'inc' };
    for (let i = 0; i < 3; i++)
      await world.send('puppet/p', { type: 'send', to: 'counter/a', message });
    await world.send('puppet/p', { type: 'ask', to: 'counter/a', message });
    expect(world.data.deadLetters).toMatchObject([
      { address: 'counter/a', reason: 'The mailbox of counter/a is full (2 messages wait there).' },
    ]);
    expect(world.facts('deadLettered')).toHaveLength(1);
    expect(world.context('puppet/p')['got']).toMatchObject([
      { type: 'inc:err', failure: { code: 'unavailable', retryable: true } },
    ]);
    expect(world.facts('mailboxFull')).toHaveLength(2);
  });
});

describe('what cannot be handled', () => {
  test('a message to nobody is a dead letter', async () => {
    const world = await newWorld();
    await world.send('counter/nobody', { type: 'inc' });
    expect(world.data.deadLetters).toMatchObject([
      { address: 'counter/nobody', reason: 'There is no actor at counter/nobody.' },
    ]);
    expect(JSON.parse(world.data.deadLetters[0]?.messageJson ?? '')).toEqual({ type: 'inc' });
    expect(world.data.messages.size).toBe(0);
    expect(world.host.load.actors).toBe(3);
  });

  test('a message to an actor that has ended is dropped aloud', async () => {
    const world = await newWorld();
    await world.send('puppet/p', { type: 'end' });
    await world.send('puppet/p', { type: 'hello' });
    await world.reopen();
    await world.send('puppet/p', { type: 'hello' });
    expect(world.facts('dropped')).toEqual([
      { address: 'puppet/p', type: 'hello', reason: 'ended' },
      { address: 'puppet/p', type: 'hello', reason: 'ended' },
    ]);
    expect(world.data.messages.size).toBe(0);
  });

  test('a turn that throws leaves a dead letter and the actor as it was; the next message is handled', async () => {
    const world = await newWorld();
    await world.send('counter/a', { type: 'inc' });
    const before = world.stored('counter/a');
    await world.send('counter/a', { type: 'throw' });
    expect(world.stored('counter/a')).toBe(before);
    expect(world.data.deadLetters).toMatchObject([
      { address: 'counter/a', reason: 'told to throw' },
    ]);
    expect(world.facts('deadLettered')).toEqual([
      { address: 'counter/a', type: 'throw', reason: 'told to throw' },
    ]);
    for (let i = 0; i < 1000; i++) void world.host.send('counter/a', { type: 'inc' });
    await world.settle();
    expect(world.context('counter/a')['n']).toBe(1001);
  });

  test('the parent of an actor whose turn throws is told', async () => {
    const world = await newWorld();
    await world.send('puppet/p', {
      type: 'spawn',
      address: 'counter/child',
      machine: 'counter',
      first: { type: 'throw' },
    });
    expect(world.context('puppet/p')['got']).toMatchObject([
      {
        type: 'child.faulted',
        address: 'counter/child',
        failure: { code: 'unhandled', message: 'told to throw' },
      },
    ]);
  });

  test('a message to whoever is outside is dropped aloud', async () => {
    const world = await newWorld();
    await world.send('puppet/p', { type: 'send', to: 'app/client', message: { type: 'hi' } });
    expect(world.facts('dropped')).toEqual([
      { address: 'app/client', type: 'hi', reason: 'nobody' },
    ]);
  });
});

describe('what comes from outside is checked at the edge', () => {
  test.each([
    { args: ['Counter', { type: 'inc' }], says: 'Expected an address such as "agent/writer"' },
    { args: ['counter/a', { type: '' }], says: 'Expected the message\'s "type"' },
    { args: ['counter/a', { type: 'xstate.done.actor.w', output: 1 }], says: 'is reserved' },
    { args: ['counter/a', { type: 'xstate.troupe.spawn' }], says: 'is reserved' },
    { args: ['counter/a', { type: '*' }], says: 'is reserved' },
    { args: ['counter/a', { type: 'inc', meta: {} }], says: 'The field "meta"' },
    {
      args: ['counter/a', { type: 'question:ok', reply: 1 }],
      says: 'types that end with ":ok" or ":err" are answers',
    },
    { args: ['counter/a', { type: 'question:err' }], says: 'are answers' },
    { args: ['counter/a', { type: 'inc', when: new Date(0) }], says: 'inc.when is a Date' },
    {
      args: ['counter/a', { type: 'inc' }, { priority: 6 }],
      says: 'Expected a priority: low (1), normal (2), high (3), urgent (4), critical (5); got 6.',
    },
    {
      args: ['counter/a', { type: 'inc' }, { idempotencyKey: '' }],
      says: 'Expected the idempotency key to be a text of 1 to 500 characters',
    },
    {
      args: ['task/r/t', { type: 'task.explode' }],
      says: 'An actor of kind "task" does not accept "task.explode"',
    },
    {
      args: ['task/r/t', { type: 'task.pause' }],
      says: 'The message "task.pause" is malformed at "by"',
    },
  ])('$says', async ({ args, says }) => {
    const world = await newWorld();
    const [to, message, options] = args as unknown as Parameters<World['send']>;
    await expect(world.host.send(to, message, options)).rejects.toThrow(says);
    await expect(world.host.send(to, message, options)).rejects.toThrow(ValidationError);
    await expect(world.host.request(to, message, options)).rejects.toThrow(ValidationError);
    await world.settle();
    expect(world.data.messages.size).toBe(0);
    expect(world.host.load.requests).toBe(0);
  });

  test('the prototype of objects cannot be reached', async () => {
    const world = await newWorld();
    const evil = JSON.parse('{"type":"note","what":{"__proto__":{"admin":true}}}');
    await expect(world.host.send('counter/a', evil)).rejects.toThrow(
      'note.what.__proto__ is the key',
    );
    expect(({} as { admin?: boolean }).admin).toBeUndefined();
  });
});

describe('what a machine sends is checked before anything of its turn is stored', () => {
  test.each([
    { options: { priority: 9 }, says: 'Expected a priority' },
    {
      options: { delayMs: -1 },
      says: 'A delay of puppet/p must be a number of milliseconds from 0, got -1.',
    },
    { message: { type: 'xstate.stop' }, says: 'is reserved' },
    { message: { type: 'question:ok' }, says: 'are answers' },
    { to: 'nowhere', says: 'Expected an address' },
  ])('$says', async ({ options = {}, message = { type: 'inc' }, to = 'counter/a', says }) => {
    const world = await newWorld();
    await world.send('puppet/p', { type: 'send', to, message, options });
    expect(world.data.deadLetters[0]?.reason).toContain(says);
    expect(world.data.deadLetters).toHaveLength(1);
    expect(world.data.messages.size + world.data.timers.size).toBe(0);
  });

  test('the id of an effect or of a delayed event with half of a character', async () => {
    const id = 'cut \ud83d';
    const machine = setup({ actors: { work: fromPromise(async () => null) } }).createMachine({
      on: {
        work: { actions: spawnChild('work', { id }) },
        later: { actions: raise({ type: 'x' }, { id, delay: 5 }) },
      },
    });
    const world = new World({ odd: machine });
    await world.open();
    await world.create(['odd/1', 'odd']);
    for (const type of ['work', 'later']) await world.send('odd/1', { type });
    expect(world.data.deadLetters.map(({ reason }) => reason.split(' contains')[0])).toEqual([
      'The id of an effect of odd/1',
      'The id of a delayed event of odd/1',
    ]);
    expect(world.data.effects.size + world.data.timers.size).toBe(0);
  });

  test('an order whose type has half of a character is in the audit stream without it', async () => {
    const world = new World({ counter: { machine: counterMachine, audited: true } });
    await world.open();
    await world.create(['counter/a', 'counter']);
    await world.send('counter/a', { type: 'cut \ud83d' });
    expect(world.data.audit.map(({ type }) => type)).toEqual(['cut \ufffd']);
  });

  test('a delayed event, a self-sent one or an emitted one that is not JSON', async () => {
    const odd: AnyEventObject = { type: 'x', when: new Date(0) };
    const machine = setup({}).createMachine({
      on: {
        raise: { actions: raise(odd, { delay: 5 }) },
        self: { actions: sendTo(({ self }) => self, odd) },
        emit: { actions: emit(odd) },
      },
    });
    const world = new World({ odd: machine });
    await world.open();
    await world.create(['odd/1', 'odd']);
    for (const type of ['raise', 'self', 'emit']) await world.send('odd/1', { type });
    expect(world.data.deadLetters.map(({ reason }) => reason)).toEqual([
      'What odd/1 sends must be plain JSON, but x.when is a Date.',
      'Expected the message to be plain JSON, but x.when is a Date.',
      'What odd/1 sends must be plain JSON, but x.when is a Date.',
    ]);
    expect(world.facts('emitted')).toEqual([]);
  });
});

describe('transient messages', () => {
  test('are handled, and are never rows', async () => {
    const world = await newWorld({ wrap: (store) => new TestStore(store) });
    await world.send('counter/a', { type: 'inc' }, { delivery: 'transient' });
    expect(world.context('counter/a')['n']).toBe(1);
    // Waiting for an actor that is not known yet.
    await world.reopen({ machines: {} });
    await world.send('counter/a', { type: 'inc' }, { delivery: 'transient' });
    await world.wait(world.host.flush());
    expect(world.data.messages.size).toBe(0);
    await world.reopen();
    expect(world.context('counter/a')['n']).toBe(1);
  });

  test('a request with a transient message gets its answer, and nothing is written', async () => {
    let store: TestStore | undefined;
    const world = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    const before = store?.batches.length;
    expect(await world.request('counter/a', { type: 'count' }, { delivery: 'transient' })).toBe(0);
    expect(await world.request('counter/a', { type: 'count' })).toBe(0);
    expect(store?.batches.length).toBe(before);
  });
});

describe('nothing is shared between the app and the actors', () => {
  test('a message changed after it was sent', async () => {
    const world = await newWorld();
    const what = { deep: { list: [1] } };
    const sent = world.host.send('counter/a', { type: 'note', what });
    what.deep.list.push(2);
    await world.wait(sent);
    expect(notes(world)).toEqual([{ deep: { list: [1] } }]);
    // The actor's context is frozen in development; the app's object is the app's.
    what.deep.list.push(3);
    expect(what.deep.list).toEqual([1, 2, 3]);
  });

  test('an input changed after the spawn, and an answer changed by whoever got it', async () => {
    const machine = setup({ actions: { ...durableActions } }).createMachine({
      context: ({ input }) => ({ data: input }),
      on: {
        show: {
          actions: {
            type: 'reply',
            params: ({ context, event }) => ({
              to: replyTo(event['meta']),
              type: 'show',
              reply: context['data'],
            }),
          },
        },
        touch: {
          actions: assign({ data: ({ context }) => ({ ...context['data'], touched: true }) }),
        },
      },
    });
    const world = new World({ holder: machine }, { freeze: false });
    await world.open();
    const input = { list: [1] };
    const spawned = world.host.spawn([{ address: 'holder/1', machine: 'holder', input }]);
    await world.wait(spawned);
    input.list.push(2);
    const answer = (await world.request('holder/1', { type: 'show' })) as { list: number[] };
    expect(answer).toEqual({ list: [1] });
    answer.list.push(3);
    await world.send('holder/1', { type: 'touch' });
    expect(world.context('holder/1')['data']).toEqual({ list: [1], touched: true });
  });
});

test.each([1, 2, 3, 4, 5] as Priority[])('priority %i is accepted', async (priority) => {
  const world = await newWorld();
  await world.send('counter/a', { type: 'inc' }, { priority });
  expect(world.context('counter/a')['n']).toBe(1);
});

test('actors that only pass messages on do not make ids longer and longer', async () => {
  const machine = setup({ actions: { ...durableActions } }).createMachine({
    on: {
      ball: {
        actions: {
          type: 'send',
          params: ({ event }) => ({
            to: anyAddress(event['meta'].from === 'pong/1' ? 'pong/2' : 'pong/1'),
            message: { type: 'ball', n: event['n'] - 1 },
          }),
        },
        guard: ({ event }) => event['n'] > 0,
      },
    },
  });
  const ids: string[] = [];
  const world = new World(
    { pong: machine },
    {
      wrap: (memory) => {
        const store = new TestStore(memory);
        const commit = store.commit.bind(store);
        store.commit = (batch) => {
          for (const { id } of batch.messages) ids.push(id);
          return commit(batch);
        };
        return store;
      },
    },
  );
  await world.open();
  await world.create(['pong/1', 'pong'], ['pong/2', 'pong']);
  await world.send('pong/2', { type: 'ball', n: 2000 });
  expect(ids.length).toBeGreaterThan(2);
  expect(Math.max(...ids.map((id) => id.length))).toBeLessThan(40);
});
