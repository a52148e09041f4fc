import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  CancelledError,
  ConfigurationError,
  MailboxFullError,
  StoppedError,
  TimeoutError,
} from '../../src/protocol/errors.ts';
import type { Envelope, Message } from '../../src/protocol/message.ts';
import type { Overflow } from '../../src/runtime/mailbox-policy.ts';
import { counterMachine, oracleMachine, puppetMachine } from './machines.ts';
import { TestStore, World } from './world.ts';

const note = (what: string | number): Message => ({ type: 'note', what });
const seen = (world: World) => world.context('counter/c')['seen'];

async function newWorld(overflow: Overflow, mailboxLimit: number): Promise<World> {
  const world = new World({
    counter: { machine: counterMachine, overflow, mailboxLimit },
    oracle: { machine: oracleMachine, overflow, mailboxLimit },
    puppet: puppetMachine,
  });
  await world.open();
  await world.create(
    ['counter/c', 'counter'],
    ['oracle/o', 'oracle'],
    ['puppet/p', 'puppet'],
    ['puppet/q', 'puppet'],
  );
  return world;
}

/** Sends without letting the receiver take its turn; how each ended is looked at later. */
const sendAll = (world: World, whats: readonly (string | number)[], options = {}) =>
  whats.map((what) => {
    const sent = world.host.send('counter/c', note(what), options);
    sent.catch(() => undefined);
    return sent;
  });

describe('a full mailbox that refuses', () => {
  test('takes what it has room for, and counts the rest', async () => {
    const world = await newWorld('refuse', 2);
    const sent = sendAll(world, [1, 2, 3, 4]);
    const ends = await world.wait(Promise.allSettled(sent));
    expect(ends.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'rejected',
      'rejected',
    ]);
    await expect(sent[3]).rejects.toThrow(MailboxFullError);
    expect(seen(world)).toEqual([1, 2]);
    expect(world.host.counts).toMatchObject({ refused: 2, waited: 0 });
    expect(world.facts('mailboxFull')).toHaveLength(2);
  });
});

describe('an order for which there is no room', () => {
  const newAudited = async (overflow: Overflow): Promise<World> => {
    const world = new World({
      counter: { machine: counterMachine, overflow, mailboxLimit: 1, audited: true },
    });
    await world.open();
    await world.create(['counter/c', 'counter']);
    return world;
  };
  const audited = (world: World) =>
    world.data.audit.map(({ kind, id, detailsJson }) => {
      const { payload } = JSON.parse(detailsJson);
      return [kind, id, payload.what ?? payload.failure?.code];
    });

  test('is in the audit stream, with its refusal', async () => {
    const world = await newAudited('refuse');
    await world.wait(Promise.allSettled(sendAll(world, [1])));
    await world.wait(Promise.allSettled(sendAll(world, [2, 3])));
    const asked = [
      world.ask('counter/c', note(4)),
      world.ask('counter/c', note(5), { delivery: 'transient' }),
    ];
    await world.settle();
    await expect(asked[1]).rejects.toThrow(MailboxFullError);
    const [first, second, refused, answer, ...rest] = audited(world);
    expect([first?.[2], second?.[2]]).toEqual([1, 2]);
    expect(refused).toEqual(['order', expect.stringMatching(/^app\/client#/), 3]);
    expect(answer).toEqual(['answer', refused?.[1], 'unavailable']);
    expect(rest.map(([kind, , what]) => [kind, what])).toEqual([
      ['order', 4],
      ['order', 5],
      ['answer', 'unavailable'],
    ]);
    expect(rest[2]?.[1]).toBe(rest[1]?.[1]);
    expect(seen(world)).toEqual([1, 2, 4]);
  });

  test('is so, too, when it has waited for room in vain', async () => {
    const world = await newAudited('wait');
    // Time passes, and nobody takes a turn meanwhile.
    const sent = sendAll(world, [1, 2], { timeoutMs: 5 });
    world.clock.step(world.clock.now() + 5);
    await expect(sent[1]).rejects.toThrow(TimeoutError);
    await world.settle();
    expect(audited(world).map(([kind, , what]) => [kind, what])).toEqual([
      ['order', 1],
      ['order', 2],
      ['answer', 'timeout'],
    ]);
  });
});

describe('a full mailbox that drops the oldest', () => {
  test.each(['durable', 'transient'] as const)(
    'keeps the newest, tells of each that went, and counts them (%s)',
    async (delivery) => {
      const world = await newWorld('dropOldest', 3);
      const before = world.host.counts;
      await world.wait(Promise.all(sendAll(world, [1, 2, 3, 4, 5, 6, 7, 8], { delivery })));
      expect(seen(world)).toEqual([6, 7, 8]);
      expect(world.facts('dropped')).toEqual(
        Array(5).fill({ address: 'counter/c', type: 'note', reason: 'overflow' }),
      );
      const { counts } = world.host;
      expect(counts.dropped.overflow).toBe(5);
      expect(counts.sent - before.sent).toBe(8);
      expect(counts.delivered - before.delivered).toBe(3);
      expect(world.data.messages.size).toBe(0);
      await world.reopen();
      expect(seen(world)).toEqual([6, 7, 8]);
    },
  );

  test('what was stored goes in the commit that stores what has its place', async () => {
    let store: TestStore | undefined;
    const world = await newWorld('dropOldest', 2);
    // Stored, and not handled: nobody knows the machine.
    await world.reopen({ machines: {} });
    await world.wait(Promise.all(sendAll(world, ['old', 'older', 'newest'])));
    const [oldest] = [...world.data.messages.keys()];
    world.crash();
    const host = world.build({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    await host.open();
    const sent = host.send('counter/c', note('new'));
    await world.wait(sent);
    expect(world.facts('dropped')).toEqual([
      { address: 'counter/c', type: 'note', reason: 'overflow' },
    ]);
    const batch = store?.batches.find(({ consumed }) => consumed.includes(oldest as string));
    const arrived = batch?.messages.some(({ messageJson }) => messageJson.includes('"new"'));
    const handled = batch?.checkpoints.some(({ eventJson }) => eventJson?.includes('"new"'));
    expect(arrived === true || handled === true).toBe(true);
    expect(seen(world)).toEqual(['older', 'newest', 'new']);
  });

  test('never a request, never what is of a higher class: then the new one is refused', async () => {
    const world = await newWorld('dropOldest', 2);
    const asked = [1, 2].map(() => world.ask('oracle/o', { type: 'question' }));
    await expect(world.host.send('oracle/o', { type: 'answer', nth: 0 })).rejects.toThrow(
      MailboxFullError,
    );
    await world.settle();
    await world.send('oracle/o', { type: 'answer', nth: 0, reply: 'a' });
    await world.send('oracle/o', { type: 'answer', nth: 1, reply: 'b' });
    expect(await Promise.all(asked)).toEqual(['a', 'b']);
    const high = sendAll(world, ['high', 'higher'], { priority: 3 });
    await expect(world.host.send('counter/c', note('normal'))).rejects.toThrow(MailboxFullError);
    await world.wait(Promise.all([...high, ...sendAll(world, ['urgent'], { priority: 4 })]));
    expect(seen(world)).toEqual(['urgent', 'higher']);
    expect(world.host.counts).toMatchObject({ refused: 2, dropped: { overflow: 1 } });
  });
});

describe('a full mailbox for which senders wait', () => {
  test('takes all, in their order, each when there is room', async () => {
    const world = await newWorld('wait', 2);
    const done: number[] = [];
    const sent = sendAll(world, [1, 2, 3, 4, 5, 6]).map((one, i) => one.then(() => done.push(i)));
    expect(world.host.counts).toMatchObject({ waited: 4, refused: 0 });
    await world.wait(Promise.all(sent));
    expect(seen(world)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(done).toEqual([0, 1, 2, 3, 4, 5]);
    expect(world.host.load.requests).toBe(0);
  });

  test('not for longer than they want, nor when they are called off, nor when the host stops', async () => {
    const world = await newWorld('wait', 1);
    const timersBefore = world.clock.pending;
    const controller = new AbortController();
    const [first] = sendAll(world, ['first']);
    const [late] = sendAll(world, ['late'], { timeoutMs: 50 });
    const [off] = sendAll(world, ['off'], { signal: controller.signal });
    const [key] = sendAll(world, ['key'], { idempotencyKey: 'k', timeoutMs: 1000 });
    const asked = world.ask('counter/c', { type: 'count' }, { timeoutMs: 60 });
    controller.abort();
    await expect(off).rejects.toThrow(CancelledError);
    // Time passes; the receiver has no turn.
    while (world.clock.step(world.clock.now() + 60));
    await expect(late).rejects.toThrow(TimeoutError);
    await expect(late).rejects.toThrow(
      'There was no room in the mailbox of counter/c within 50 ms (1 messages wait there).',
    );
    await expect(asked).rejects.toThrow(TimeoutError);
    await world.wait(Promise.all([first, key]));
    expect(seen(world)).toEqual(['first', 'key']);
    expect(world.host.load).toMatchObject({ requests: 0, keys: 0 });
    expect(world.clock.pending).toBeLessThanOrEqual(timersBefore + 1);
    // Those who have gone are in nobody's way.
    void sendAll(world, ['a']);
    const [left] = sendAll(world, ['b']);
    const stopped = world.host.stop();
    await expect(left).rejects.toThrow(StoppedError);
    await world.wait(stopped);
  });

  test('one that gives its place back lets the next one in', async () => {
    const world = await newWorld('wait', 1);
    void sendAll(world, ['first']);
    // Its key is known to stand for something else: it is found out when it has its place.
    await world.wait(world.host.send('puppet/p', { type: 'x' }, { idempotencyKey: 'taken' }));
    const [first] = sendAll(world, ['filler']);
    const [conflict] = sendAll(world, ['conflict'], { idempotencyKey: 'taken' });
    const [next] = sendAll(world, ['next']);
    await world.wait(Promise.allSettled([first, conflict, next]));
    await expect(conflict).rejects.toThrow('was used for something else');
    await expect(next).resolves.toBeUndefined();
    expect(seen(world)).toEqual(['first', 'filler', 'next']);
  });

  test('the request that waits for room is answered, also by an actor that ends meanwhile', async () => {
    const world = await newWorld('wait', 1);
    const filler = world.host.send('oracle/o', { type: 'hm' });
    const ended = [1, 2].map(() => world.ask('oracle/o', { type: 'question' }));
    const end = world.host.send('oracle/o', { type: 'end' }, { priority: 5 });
    await world.wait(Promise.allSettled([filler, end, ...ended]));
    for (const one of ended) await expect(one).rejects.toThrow('oracle/o has ended.');
    // To nobody.
    const nobody = [1, 2, 3].map(() => world.ask('oracle/nobody', { type: 'question' }));
    await world.wait(Promise.allSettled(nobody));
    for (const one of nobody) await expect(one).rejects.toThrow('There is no actor');
    expect(world.host.load.requests).toBe(0);
  });

  test('whoever is called off when it has its place, and has not taken it, sends nothing', async () => {
    const world = await newWorld('wait', 1);
    const off = new AbortController();
    const { signal } = off;
    const [first] = sendAll(world, ['first']);
    const [keyed] = sendAll(world, ['keyed'], { idempotencyKey: 'k', signal });
    const asked = world.ask('counter/c', { type: 'incAndCount' }, { idempotencyKey: 'l', signal });
    world.host.events.on('turn', () => off.abort());
    await world.wait(Promise.allSettled([first, keyed, asked]));
    await expect(keyed).rejects.toThrow(CancelledError);
    await expect(asked).rejects.toThrow(CancelledError);
    expect(world.context('counter/c')).toMatchObject({ n: 0, seen: ['first'] });
  });

  test('whoever waits has room when what is in the mailbox is given up', async () => {
    const world = await newWorld('wait', 1);
    const [first, second] = sendAll(world, ['first', 'second']);
    const ofActor = { type: 'send', to: 'counter/c', message: note('third') } as const;
    const third = world.host.send('puppet/p', ofActor);
    const isGivenUp = ({ message }: Envelope) => message['what'] === 'first';
    const travelled = world.host.timeTravel.travel([], () => ({ isGivenUp }));
    await world.wait(Promise.all([first, second, third, travelled]));
    expect(seen(world)).toEqual(['second', 'third']);
  });

  // Whatever actors and the app send, whenever the process dies: each message once, in its sender's order.
  const order = fc.record({
    by: fc.constantFrom('puppet/p' as const, 'puppet/q' as const, 'app' as const),
    next: fc.constantFrom('go on', 'go on', 'a turn', 'a crash'),
  });
  property.prop([fc.array(order, { maxLength: 25 }), fc.integer({ min: 1, max: 3 })], {
    numRuns: 40,
  })('loses nothing of what actors send, and keeps nobody from going on', async (orders, limit) => {
    const world = await newWorld('wait', limit);
    const stored: string[] = [];
    let n = 0;
    for (const { by, next } of orders) {
      const what = `${by} ${n++}`;
      const [to, message] =
        by === 'app'
          ? (['counter/c', note(what)] as const)
          : ([by, { type: 'send', to: 'counter/c', message: note(what) } as Message] as const);
      world.host.send(to, message).then(
        () => stored.push(what),
        () => undefined,
      );
      if (next === 'a turn') await world.run(1);
      if (next === 'a crash') {
        await world.run(1);
        await world.reopen();
      }
    }
    await world.settle();
    const got = seen(world) as string[];
    expect(new Set(got).size).toBe(got.length);
    expect(stored.filter((what) => !got.includes(what))).toEqual([]);
    for (const sender of ['puppet/p', 'puppet/q', 'app']) {
      const numbers = got
        .filter((what) => what.startsWith(`${sender} `))
        .map((what) => Number(what.split(' ')[1]));
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
    }
    expect(world.data.messages.size).toBe(0);
    expect(world.data.deadLetters).toEqual([]);
  });
});

test('one that is flooded delays no other: every ready actor has a turn before it has its next', async () => {
  const world = await newWorld('refuse', 10_000);
  await world.create(['counter/d', 'counter']);
  const order: string[] = [];
  world.host.events.on('turn', ({ address }) => order.push(address));
  void sendAll(
    world,
    Array.from({ length: 500 }, (_, i) => i),
  );
  const other = world.host.send('counter/d', note('the other'));
  await world.wait(other);
  expect(order.indexOf('counter/d')).toBeLessThanOrEqual(1);
  expect(order.filter((address) => address === 'counter/c')).toHaveLength(500);
});

test.each([
  {
    options: { overflow: 'drop' as never },
    says: 'Expected the overflow of machine "counter" to be one of refuse, dropOldest, wait, got "drop".',
  },
  { options: { mailboxLimit: 0 }, says: 'to be a positive integer, got 0' },
  { options: { mailboxLimit: 1.5 }, says: 'to be a positive integer, got 1.5' },
  { options: { validate: 'yes' as never }, says: 'to be a function, got string' },
])('$says', async ({ options, says }) => {
  const host = new World({}).build();
  expect(() => host.register('counter', counterMachine, options)).toThrow(says);
  expect(() => host.register('counter', counterMachine, options)).toThrow(ConfigurationError);
  expect(host.isRegistered('counter')).toBe(false);
});
