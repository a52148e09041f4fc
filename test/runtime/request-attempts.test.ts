import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { durableActions } from '../../src/protocol/commands.ts';
import { TroupeError, ValidationError } from '../../src/protocol/errors.ts';
import type { Message } from '../../src/protocol/message.ts';
import { replyTo } from '../../src/protocol/message.ts';
import type { MachineOptions } from '../../src/runtime/durable-host.ts';
import { counterMachine, oracleMachine, puppetMachine } from './machines.ts';
import { World } from './world.ts';

/** Answers the n-th attempt, the ones before with a failure that may be tried again; remembers all it hears. */
const flakyMachine = setup({ actions: { ...durableActions } }).createMachine({
  id: 'flaky',
  context: () => ({ log: [] }),
  on: {
    try: {
      actions: [
        assign({
          log: ({ context, event }) => [
            ...context['log'],
            `${event['meta'].correlation} ${event['meta'].attempt}`,
          ],
        }),
        {
          type: 'reply',
          params: ({ event }) => ({
            to: replyTo(event['meta']),
            type: 'try',
            ...(event['meta'].attempt < event['succeedsAt']
              ? { failure: { code: 'unavailable', message: 'not yet', retryable: true } }
              : { reply: event['meta'].attempt }),
          }),
        },
      ],
    },
  },
});

/** Hears what it is asked and what is called off, and answers when told to. */
const listenerMachine = setup({ actions: { ...durableActions } }).createMachine({
  id: 'listener',
  context: () => ({ log: [], asked: [] }),
  on: {
    question: {
      actions: assign({
        log: ({ context, event }) => [...context['log'], `asked ${event['meta'].attempt}`],
        asked: ({ context, event }) => [...context['asked'], replyTo(event['meta'])],
      }),
    },
    'request.cancelled': {
      actions: assign({
        log: ({ context, event }) => [
          ...context['log'],
          `off ${event['request']} ${event['attempt']} ${
            context['asked'].some(
              (one: { correlation: string; attempt: number }) =>
                one.correlation === event['correlation'] && one.attempt === event['attempt'],
            )
              ? 'known'
              : 'unknown'
          } from ${event['meta'].from}`,
        ],
      }),
    },
    answer: {
      actions: {
        type: 'reply',
        params: ({ context, event }) => ({
          to: context['asked'][event['nth']],
          type: 'question',
          reply: event['reply'],
        }),
      },
    },
  },
});

const question: Message = { type: 'question' };
const RETRY = { attempts: 3, initialMs: 100, jitter: 0 } as const;
const log = (world: World, address = 'listener/l') => world.context(address)['log'];
const NOTHING = { requests: 0, keys: 0, timers: 0, effects: 0 };

async function newWorld(options: MachineOptions = {}): Promise<World> {
  const world = new World({
    flaky: { machine: flakyMachine, ...options },
    listener: { machine: listenerMachine, ...options },
    oracle: oracleMachine,
    puppet: puppetMachine,
    counter: counterMachine,
  });
  await world.open();
  await world.create(
    ['flaky/f', 'flaky'],
    ['listener/l', 'listener'],
    ['oracle/o', 'oracle'],
    ['puppet/p', 'puppet'],
    ['counter/c', 'counter'],
  );
  return world;
}

describe('a request that may be asked again', () => {
  test.each(['durable', 'transient'] as const)(
    'is, under its correlation and with the next number, until it is answered (%s)',
    async (delivery) => {
      const world = await newWorld();
      const asked = world.ask(
        'flaky/f',
        { type: 'try', succeedsAt: 3 },
        { retry: RETRY, delivery },
      );
      await world.settle();
      expect(log(world, 'flaky/f')).toHaveLength(1);
      await world.advance(99);
      expect(log(world, 'flaky/f')).toHaveLength(1);
      await world.advance(201);
      expect(await world.wait(asked)).toBe(3);
      const heard = log(world, 'flaky/f') as string[];
      const correlation = heard[0]?.split(' ')[0] as string;
      expect(heard).toEqual([1, 2, 3].map((attempt) => `${correlation} ${attempt}`));
      expect(world.host.counts).toMatchObject({ retried: 2, answered: 3 });
      expect(world.host.load).toMatchObject(NOTHING);
      expect([world.data.messages.size, world.data.idempotency.size]).toEqual([0, 0]);
    },
  );

  test('gives up after the last attempt, at once if trying again is of no use, and keeps no key', async () => {
    const world = await newWorld();
    const often = world.ask('flaky/f', { type: 'try', succeedsAt: 9 }, { retry: RETRY });
    const once = world.ask('counter/c', { type: 'throw' }, { retry: RETRY });
    await world.advance(10_000);
    await expect(often).rejects.toThrow('not yet');
    await expect(once).rejects.toThrow('told to throw');
    expect(world.host.counts.retried).toBe(2);
    expect(world.host.load).toMatchObject(NOTHING);
    expect(world.data.idempotency.size).toBe(0);
  });

  test('an answer to an attempt that was given up is dropped, and counted', async () => {
    const world = await newWorld();
    const asked = world.ask('listener/l', question, {
      retry: RETRY,
      timeoutMs: 50,
      delivery: 'transient',
    });
    await world.advance(150);
    expect(log(world)).toEqual(['asked 1', 'off question 1 known from app/client', 'asked 2']);
    await world.send('listener/l', { type: 'answer', nth: 0, reply: 'to the first' });
    expect(world.host.counts.dropped).toMatchObject({ late: 1, duplicate: 0 });
    await world.send('listener/l', { type: 'answer', nth: 1, reply: 'to the second' });
    expect(await world.wait(asked)).toBe('to the second');
    await world.send('listener/l', { type: 'answer', nth: 1, reply: 'once more' });
    expect(world.host.counts.dropped).toMatchObject({ late: 1, duplicate: 1 });
    expect(world.host.load).toMatchObject(NOTHING);
  });

  test('one that is stored is not with its receiver twice: later attempts wait for the same answer', async () => {
    const world = await newWorld();
    const asked = world.ask('listener/l', question, { retry: RETRY, timeoutMs: 50 });
    await world.advance(160);
    expect(log(world)).toEqual(['asked 1']);
    await world.send('listener/l', { type: 'answer', nth: 0, reply: 'yes' });
    expect(await world.wait(asked)).toBe('yes');
    // Nobody has answered any attempt: only then is it called off.
    const lost = world.ask('listener/l', question, { retry: RETRY, timeoutMs: 50 });
    await world.advance(1000);
    await expect(lost).rejects.toThrow('within 50 ms');
    expect(log(world)).toEqual(['asked 1', 'asked 1', 'off question 1 known from app/client']);
    expect(world.host.load).toMatchObject(NOTHING);
    expect(world.data.idempotency.size).toBe(0);
    await world.send('listener/l', { type: 'answer', nth: 1, reply: 'too late' });
    expect(world.host.counts.dropped).toMatchObject({ late: 1, duplicate: 0 });
  });

  test('under a key of the app as well, and the answer is kept under it', async () => {
    const world = await newWorld();
    const options = { retry: RETRY, idempotencyKey: 'mine' } as const;
    const asked = world.ask('flaky/f', { type: 'try', succeedsAt: 2 }, options);
    await world.advance(200);
    expect(await world.wait(asked)).toBe(2);
    expect(await world.request('flaky/f', { type: 'try', succeedsAt: 2 }, options)).toBe(2);
    expect(log(world, 'flaky/f')).toHaveLength(2);
  });

  test('waits for room in a mailbox', async () => {
    const world = await newWorld({ mailboxLimit: 1 });
    const filler = world.host.send('flaky/f', { type: 'hm' });
    const asked = world.ask('flaky/f', { type: 'try', succeedsAt: 1 }, { retry: RETRY });
    await world.wait(filler);
    await world.advance(100);
    // Refused once; what its receiver then gets is the second attempt.
    expect(await world.wait(asked)).toBe(2);
    expect(world.host.counts).toMatchObject({ refused: 1, retried: 1 });
  });

  test('can be called off while it waits, and ends when the host stops', async () => {
    const world = await newWorld();
    const controller = new AbortController();
    const { signal } = controller;
    const again = { type: 'try', succeedsAt: 9 };
    const off = world.ask('flaky/f', again, { retry: RETRY, signal });
    const stopped = world.ask('flaky/f', again, { retry: RETRY });
    await world.settle();
    expect(world.host.load.requests).toBe(2);
    controller.abort();
    await expect(off).rejects.toThrow('was called off');
    await world.stop();
    await expect(stopped).rejects.toThrow('The runtime has stopped.');
    expect(world.host.load.requests).toBe(0);
  });

  test.each([
    { retry: { attempts: 0 }, says: 'attempts' },
    { retry: { attempts: 2, initialMs: -1 }, says: 'initialMs' },
    { retry: { attempts: 2, tries: 3 }, says: 'tries' },
  ])('$retry is refused', async ({ retry, says }) => {
    const world = await newWorld();
    const asked = world.request('flaky/f', { type: 'try' }, { retry: retry as never });
    await expect(asked).rejects.toThrow(ValidationError);
    await expect(asked).rejects.toThrow(says);
    expect(log(world, 'flaky/f')).toEqual([]);
  });
});

describe('the receiver of a request hears that nobody waits any more', () => {
  const ask = (options: Record<string, unknown> = {}) =>
    ({ type: 'ask', to: 'listener/l', message: question, timeoutMs: 100, options }) as Message;

  test.each(['durable', 'transient'] as const)(
    'when the signal of the app is aborted, and when its time is up (%s)',
    async (delivery) => {
      const world = await newWorld();
      const controller = new AbortController();
      const { signal } = controller;
      const off = world.ask('listener/l', question, { signal, delivery, priority: 4 });
      // Both in one go: it must not overtake what it calls off.
      controller.abort();
      await expect(off).rejects.toThrow('was called off');
      await world.settle();
      const late = world.ask('listener/l', question, { timeoutMs: 10, delivery });
      await world.advance(10);
      await expect(late).rejects.toThrow('within 10 ms');
      const told = ['asked 1', 'off question 1 known from app/client'];
      expect(log(world)).toEqual([...told, ...told]);
      expect(world.host.counts.cancelled).toBe(2);
      // Answered: nobody is told.
      const answered = world.ask('listener/l', question, { timeoutMs: 10, delivery });
      await world.settle();
      await world.send('listener/l', { type: 'answer', nth: 2, reply: 1 });
      await world.wait(answered);
      await world.advance(100);
      expect(log(world)).toHaveLength(5);
    },
  );

  test.each([
    { how: 'the deadline of an actor passes', by: async (world: World) => world.advance(100) },
    {
      how: 'it calls its request off',
      by: (world: World) => world.send('puppet/p', { type: 'forget', id: 'question' }),
    },
    { how: 'it ends', by: (world: World) => world.send('puppet/p', { type: 'end' }) },
    {
      how: 'it asks anew under the same id',
      by: (world: World) => world.send('puppet/p', { ...ask(), to: 'oracle/o' }),
    },
  ])('when $how', async ({ by }) => {
    const world = await newWorld();
    await world.send('puppet/p', ask({ attempt: 7, priority: 1 }));
    await world.reopen();
    await by(world);
    await world.reopen();
    expect(log(world)).toEqual(['asked 7', 'off question 7 known from puppet/p']);
    expect(world.data.messages.size).toBe(0);
  });

  test('one that was to be sent later, and is called off, is not sent', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask({ delayMs: 50 }));
    await world.send('puppet/p', { type: 'forget', id: 'question' });
    await world.advance(500);
    expect(log(world)).toEqual([]);
    expect(world.host.load.timers).toBe(0);
  });

  test('but not if its machine has no word for it, nor if the request has a key of the app', async () => {
    const world = await newWorld();
    const asked = world.ask('oracle/o', question, { timeoutMs: 10 });
    const keyed = world.ask('listener/l', question, { timeoutMs: 10, idempotencyKey: 'k' });
    await world.advance(10);
    await expect(asked).rejects.toThrow('within 10 ms');
    await expect(keyed).rejects.toThrow('within 10 ms');
    expect(log(world)).toEqual(['asked 1']);
    expect(world.host.counts.cancelled).toBe(0);
    // Whoever asks again joins: it is worked on.
    const again = world.ask('listener/l', question, { idempotencyKey: 'k' });
    await world.settle();
    await world.send('listener/l', { type: 'answer', nth: 0, reply: 'kept' });
    expect(await world.wait(again)).toBe('kept');
  });

  test('and nobody else can say so', async () => {
    const world = await newWorld();
    const forged = { type: 'request.cancelled', request: 'question', correlation: 'x', attempt: 1 };
    await expect(world.host.send('listener/l', forged)).rejects.toThrow('is reserved');
    await world.send('puppet/p', { type: 'send', to: 'listener/l', message: forged });
    expect(world.data.deadLetters[0]?.reason).toContain('is reserved');
    expect(log(world)).toEqual([]);
  });
});

test('an answer that came in time is not overtaken by its deadline, whatever waits in front of it', async () => {
  const world = await newWorld();
  const ask = { type: 'ask', to: 'oracle/o', message: question, timeoutMs: 100 };
  await world.send('puppet/p', ask);
  // It cannot take its turns at present, and its deadline is in another line than what the oracle says.
  await world.reopen({ machines: { oracle: oracleMachine } });
  const forged = { attempt: 2 };
  await world.send('oracle/o', { type: 'answer', nth: 0, reply: 'forged', forged });
  await world.send('oracle/o', { type: 'answer', nth: 0, reply: 'true' });
  await world.advance(200);
  world.host.register('puppet', puppetMachine);
  await world.settle();
  expect(world.context('puppet/p')['got']).toEqual([{ type: 'question:ok', reply: 'true' }]);
  expect(world.host.load.timers).toBe(0);
  expect(world.data.timers.get('puppet/p')?.size ?? 0).toBe(0);
});

describe('a machine that validates', () => {
  const validate: NonNullable<MachineOptions['validate']> = (
    message,
    { state, context, from, isRequest },
  ) => {
    if (message['by'] === 'text')
      return `not now: ${JSON.stringify([state, context['n'], isRequest])}`;
    if (message['by'] === 'class') throw new TroupeError('quota', `enough of ${from}`);
    if (message['by'] === 'mistake') throw new TypeError('oops');
    if (message['by'] === 'promise') return Promise.reject(new Error('later')) as never;
    return undefined;
  };
  async function guarded(): Promise<World> {
    const world = new World({
      counter: { machine: counterMachine, validate },
      puppet: puppetMachine,
    });
    await world.open();
    await world.create(['counter/c', 'counter'], ['puppet/p', 'puppet']);
    return world;
  }
  const ask = (by?: string) => ({ type: 'incAndCount', ...(by === undefined ? {} : { by }) });

  test.each([
    { by: 'text', code: 'validation', says: 'not now: [{},1,true]' },
    { by: 'class', code: 'quota', says: 'enough of app/client' },
    { by: 'mistake', code: 'validation', says: 'oops' },
    { by: 'promise', code: 'configuration', says: 'it has to be synchronous' },
  ])('refuses a request by $by: typed, and nothing is recorded', async ({ by, code, says }) => {
    const world = await guarded();
    await world.request('counter/c', ask());
    const turns = world.facts('turn').length;
    const [before, checkpoints] = [
      world.data.actors.get('counter/c')?.seq,
      world.data.checkpoints.get('counter/c')?.length,
    ];
    const refused = world.request('counter/c', ask(by));
    await expect(refused).rejects.toThrow(says);
    await expect(refused).rejects.toMatchObject({ code });
    expect(world.context('counter/c')['n']).toBe(1);
    expect(world.data.actors.get('counter/c')?.seq).toBe(before);
    expect(world.data.checkpoints.get('counter/c')).toHaveLength(checkpoints as number);
    expect(world.facts('turn')).toHaveLength(turns);
    expect([world.data.messages.size, world.data.deadLetters.length]).toEqual([0, 0]);
    expect(world.host.counts.invalid).toBe(1);
    // And it goes on.
    expect(await world.request('counter/c', ask())).toBe(2);
  });

  test('answers an actor that asks, and drops what nobody waits for', async () => {
    const world = await guarded();
    await world.send('puppet/p', { type: 'ask', to: 'counter/c', message: ask('text') });
    expect(world.context('puppet/p')['got']).toMatchObject([
      { type: 'incAndCount:err', failure: { code: 'validation', message: 'not now: [{},0,true]' } },
    ]);
    await world.send('counter/c', { type: 'inc', by: 'text' });
    expect(world.facts('dropped')).toEqual([
      { address: 'counter/c', type: 'inc', reason: 'invalid' },
    ]);
    expect(world.host.counts).toMatchObject({ invalid: 2, dropped: { invalid: 1 } });
    await world.reopen();
    expect(world.context('counter/c')['n']).toBe(0);
  });
});

test('1 000 requests of 50 actors, unanswered, leave nothing behind', async () => {
  const world = await newWorld();
  const askers = Array.from({ length: 50 }, (_, i) => `puppet/p${i}` as const);
  await world.create(...askers.map((asker) => [asker, 'puppet'] as [typeof asker, 'puppet']));
  const message = { type: 'hm' };
  const asked = askers.flatMap((asker) =>
    Array.from({ length: 20 }, (_, i) =>
      world.host.send(asker, { type: 'ask', to: 'oracle/o', message, options: { id: `q${i}` } }),
    ),
  );
  await world.wait(Promise.all(asked));
  expect(world.host.load.timers).toBe(1000);
  // Half of them end by themselves, half in time.
  const ends = askers.slice(0, 25).map((asker) => world.host.send(asker, { type: 'end' }));
  await world.wait(Promise.all(ends));
  expect(world.host.load.timers).toBe(500);
  await world.advance(1000);
  expect(world.context('puppet/p49')['got']).toHaveLength(20);
  expect(world.host.load).toMatchObject(NOTHING);
  expect([world.data.messages.size, world.data.timers.get('puppet/p49')?.size ?? 0]).toEqual([
    0, 0,
  ]);
});
