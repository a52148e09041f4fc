import { describe, expect, test } from 'vitest';
import { setup } from 'xstate';
import { durableActions } from '../../src/protocol/commands.ts';
import {
  CancelledError,
  ConflictError,
  NotFoundError,
  StoppedError,
  TimeoutError,
  TroupeError,
  ValidationError,
} from '../../src/protocol/errors.ts';
import { type Message, replyTo } from '../../src/protocol/message.ts';
import { counterMachine, oracleMachine, puppetMachine } from './machines.ts';
import { TestStore, World } from './world.ts';

/** Passes on, and says so, without a change of its own. */
const relayMachine = setup({ actions: { ...durableActions } }).createMachine({
  id: 'relay',
  on: {
    pass: {
      actions: [
        {
          type: 'reply',
          params: ({ event }) => ({ to: replyTo(event['meta']), type: 'pass', reply: 'passed' }),
        },
        { type: 'send', params: ({ event }) => ({ to: event['to'], message: { type: 'inc' } }) },
      ],
    },
  },
});

const MACHINES = {
  counter: counterMachine,
  puppet: puppetMachine,
  oracle: oracleMachine,
  relay: relayMachine,
};

const newWorld = async (options: ConstructorParameters<typeof World>[1] = {}): Promise<World> => {
  const world = new World(MACHINES, options);
  await world.open();
  await world.create(['counter/a', 'counter'], ['oracle/o', 'oracle'], ['puppet/p', 'puppet']);
  await world.create(['relay/r', 'relay']);
  return world;
};

const question = { type: 'question' };
const answer = (reply: string, nth = 0) => ({ type: 'answer', nth, reply });

describe('a request from outside', () => {
  test('is answered', async () => {
    const world = await newWorld();
    await world.send('counter/a', { type: 'inc' });
    expect(await world.request('counter/a', { type: 'count' })).toBe(1);
    expect(await world.request('counter/a', { type: 'incAndCount' })).toBe(2);
    expect(world.host.load.requests).toBe(0);
  });

  test('is answered when what the answer rests on is stored, and not before', async () => {
    const world = await newWorld();
    const answered = world.ask('counter/a', { type: 'incAndCount' }).then((n) => {
      expect(world.context('counter/a')['n']).toBe(n);
    });
    await world.wait(answered);
  });

  describe('that is not stored', () => {
    const transient = { delivery: 'transient' } as const;
    const heldUp = async (): Promise<{ readonly world: World; readonly store: TestStore }> => {
      let store: TestStore | undefined;
      const world = await newWorld({
        wrap: (memory) => {
          store = new TestStore(memory);
          return store;
        },
      });
      await world.create(['counter/b', 'counter']);
      const opened = store as TestStore | undefined;
      if (opened === undefined) throw new Error('No store was opened.');
      return { world, store: opened };
    };

    test('is answered whatever others have to store', async () => {
      const { world, store } = await heldUp();
      store.hold();
      void world.host.send('counter/a', { type: 'inc' }, transient);
      await world.settle();
      expect(store.waiting).toBe(1);
      expect(await world.request('counter/b', { type: 'count' }, transient)).toBe(0);
      expect(store.waiting).toBe(1);
      expect(world.host.counts.answered).toBe(1);
      store.release();
      await world.settle();
    });

    test.each([
      { what: 'its own state', ask: 'count', before: 'inc' },
      { what: 'a change that it makes itself', ask: 'incAndCount', before: 'ignore' },
    ])('waits for $what to be stored', async ({ ask, before }) => {
      const { world, store } = await heldUp();
      store.hold();
      void world.host.send('counter/a', { type: before }, transient);
      await world.settle();
      const answers: unknown[] = [];
      void world.ask('counter/a', { type: ask }, transient).then((n) => answers.push(n));
      await world.settle();
      expect(answers).toEqual([]);
      store.release();
      await world.settle();
      expect(answers).toEqual([1]);
    });

    test('does not overtake an earlier answer of the same actor', async () => {
      const { world, store } = await heldUp();
      store.hold();
      void world.host.send('counter/b', { type: 'inc' }, transient);
      await world.settle();
      const answers: string[] = [];
      void world.ask('counter/a', { type: 'count' }).then(() => answers.push('stored'));
      await world.settle();
      void world.ask('counter/a', { type: 'count' }, transient).then(() => answers.push('not'));
      await world.settle();
      expect(answers).toEqual([]);
      store.release();
      await world.settle();
      expect(answers).toEqual(['stored', 'not']);
    });

    test('waits if the same turn sends something as well', async () => {
      const { world, store } = await heldUp();
      store.hold();
      const answers: unknown[] = [];
      void world.ask('relay/r', { type: 'pass', to: 'counter/b' }, transient).then((reply) => {
        answers.push(reply);
      });
      await world.settle();
      expect(answers).toEqual([]);
      store.release();
      await world.settle();
      expect(answers).toEqual(['passed']);
    });

    test('is answered after a few turns of whoever is flooded', async () => {
      const world = await newWorld();
      for (let i = 0; i < 5_000; i++)
        void world.host.send('counter/a', { type: 'count' }, transient);
      const asked = world.ask('oracle/o', { type: 'nothing' }, transient);
      const seen: number[] = [];
      void world.ask('counter/a', { type: 'count' }, { ...transient, priority: 5 }).then(() => {
        seen.push(world.host.counts.delivered);
      });
      await world.settle();
      expect(seen).toHaveLength(1);
      expect(seen[0]).toBeLessThan(32);
      expect(world.host.counts.delivered).toBe(5_002);
      await world.advance(30_000);
      await expect(asked).rejects.toThrow(TimeoutError);
    });
  });

  test('gets each answer to its own question', async () => {
    const world = await newWorld();
    const first = world.ask('oracle/o', question);
    const second = world.ask('oracle/o', question);
    await world.settle();
    await world.send('oracle/o', answer('to the second', 1));
    await world.send('oracle/o', answer('to the first', 0));
    expect(await Promise.all([first, second])).toEqual(['to the first', 'to the second']);
  });

  test('times out, to the millisecond, with the address and the time', async () => {
    const world = await newWorld();
    const asked = world.ask('oracle/o', question, { timeoutMs: 250 });
    const settled: unknown[] = [];
    asked.catch((error: unknown) => settled.push(error));
    await world.advance(249);
    expect(settled).toEqual([]);
    await world.advance(1);
    await expect(asked).rejects.toThrow(TimeoutError);
    await expect(asked).rejects.toMatchObject({
      message: 'No answer from oracle/o to "question" within 250 ms.',
      code: 'timeout',
      context: { address: 'oracle/o', timeoutMs: 250 },
    });
    expect(world.host.load.requests).toBe(0);
  });

  test('waits 30 s, if nobody says how long', async () => {
    const world = await newWorld();
    let ended = false;
    world.ask('oracle/o', question).catch(() => {
      ended = true;
    });
    await world.advance(29_999);
    expect(ended).toBe(false);
    await world.advance(1);
    expect(ended).toBe(true);
  });

  test('an answer that comes too late is dropped and counted; a second one too', async () => {
    const world = await newWorld();
    const late = world.ask('oracle/o', question, { timeoutMs: 10 });
    await world.advance(10);
    const other = world.ask('oracle/o', question);
    await world.settle();
    await world.send('oracle/o', answer('too late', 0));
    await world.send('oracle/o', answer('in time', 1));
    await world.send('oracle/o', answer('again', 1));
    await expect(late).rejects.toThrow(TimeoutError);
    expect(await other).toBe('in time');
    expect(world.facts('dropped')).toEqual([
      { address: 'app/client', type: 'question:ok', reason: 'late' },
      { address: 'app/client', type: 'question:ok', reason: 'duplicate' },
    ]);
  });

  test('gets the failure that the receiver answers', async () => {
    const world = await newWorld();
    const asked = world.ask('oracle/o', question);
    await world.settle();
    await world.send('oracle/o', {
      type: 'answer',
      nth: 0,
      failure: { code: 'quota', message: 'too much', retryable: false, context: { cap: 5 } },
    });
    await expect(asked).rejects.toMatchObject({
      code: 'quota',
      message: 'too much',
      context: { cap: 5 },
    });
    await expect(asked).rejects.toThrow(TroupeError);
  });

  test('fails when there is no receiver, when it has ended, and when it throws', async () => {
    const world = await newWorld();
    await expect(world.request('oracle/nobody', question)).rejects.toThrow(NotFoundError);
    await expect(world.request('counter/a', { type: 'throw' })).rejects.toMatchObject({
      code: 'unhandled',
      message: 'told to throw',
    });
    const waiting = world.ask('oracle/o', question, { priority: 1 });
    await world.send('oracle/o', { type: 'end' }, { priority: 5 });
    await expect(waiting).rejects.toThrow('oracle/o has ended.');
    await expect(waiting).rejects.toThrow(ConflictError);
    await expect(world.request('oracle/o', question)).rejects.toThrow(ConflictError);
    await world.reopen();
    await expect(world.request('oracle/o', question)).rejects.toThrow(ConflictError);
    expect(world.data.deadLetters).toHaveLength(1);
  });

  test('can be called off, before it is sent too', async () => {
    const world = await newWorld();
    const controller = new AbortController();
    const asked = world.ask('oracle/o', question, { signal: controller.signal });
    await world.settle();
    controller.abort();
    await expect(asked).rejects.toThrow(CancelledError);
    await expect(asked).rejects.toThrow('The request "question" to oracle/o was called off.');
    expect(world.host.load.requests).toBe(0);
    const before = world.context('oracle/o')['questions'];
    await expect(
      world.request('oracle/o', question, { signal: controller.signal }),
    ).rejects.toThrow(CancelledError);
    expect(world.context('oracle/o')['questions']).toEqual(before);
    const reason = new TroupeError('policy', 'not today');
    await expect(
      world.request('oracle/o', question, { signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
  });

  test('one under the key of another gets its answer, while that waits and afterwards', async () => {
    const world = await newWorld();
    const first = world.ask('counter/a', { type: 'incAndCount' }, { idempotencyKey: 'mine' });
    const second = world.ask('counter/a', { type: 'incAndCount' }, { idempotencyKey: 'mine' });
    expect(await world.wait(Promise.all([first, second]))).toEqual([1, 1]);
    expect(
      await world.request('counter/a', { type: 'incAndCount' }, { idempotencyKey: 'mine' }),
    ).toBe(1);
  });

  test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])(
    'a timeout of %s is refused',
    async (timeoutMs) => {
      const world = await newWorld();
      await expect(world.request('oracle/o', question, { timeoutMs })).rejects.toThrow(
        ValidationError,
      );
    },
  );

  test.each(['durable', 'transient'] as const)(
    '10 000 outstanding (%s) leave nothing behind, however they end',
    async (delivery) => {
      const world = await newWorld({ mailboxLimit: 100_000 });
      const timersBefore = world.clock.pending;
      const ends: Record<string, number> = {};
      const all: Promise<void>[] = [];
      for (let i = 0; i < 10_000; i++) {
        // The oracle does not know the word, so it never answers.
        const message = { type: i % 200 === 0 ? 'count' : 'ponder' };
        const to = i % 200 === 0 ? 'counter/a' : 'oracle/o';
        const asked = world.ask(to, message, { timeoutMs: 1000 + (i % 7), delivery });
        const ended = asked.then(
          () => 'answered',
          (error: TroupeError) => error.code,
        );
        all.push(
          ended.then((end) => {
            ends[end] = (ends[end] ?? 0) + 1;
          }),
        );
      }
      expect(world.host.load.requests).toBe(10_000);
      // One timer for all of them.
      expect(world.clock.pending).toBe(timersBefore + 1);
      await world.advance(2000);
      await Promise.all(all);
      expect(ends).toEqual({ answered: 50, timeout: 9950 });
      expect(world.host.load).toMatchObject({ requests: 0, timers: 0 });
      expect(world.data.messages.size).toBe(0);
    },
  );

  test('ends when the host stops', async () => {
    const world = await newWorld();
    const asked = world.ask('oracle/o', question, { timeoutMs: 1_000_000 });
    await world.settle();
    await world.stop();
    await expect(asked).rejects.toThrow(StoppedError);
    await expect(world.ask('oracle/o', question)).rejects.toThrow(StoppedError);
  });
});

describe('a request from a machine', () => {
  const ask = (options: Record<string, unknown> = {}) =>
    ({ type: 'ask', to: 'oracle/o', message: question, timeoutMs: 100, ...options }) as Message;
  const got = (world: World) => world.context('puppet/p')['got'];
  const requestsGot = (world: World) =>
    (world.context('puppet/p')['metas'] as unknown as { request?: string }[]).map(
      ({ request }) => request,
    );

  test('is answered by an event that names the request', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask({ options: { id: 'mine' } }));
    await world.send('oracle/o', answer('yes'));
    expect(got(world)).toEqual([{ type: 'question:ok', reply: 'yes' }]);
    expect(requestsGot(world)).toEqual(['mine']);
    expect(world.data.timers.get('puppet/p')?.size ?? 0).toBe(0);
    await world.advance(1000);
    expect(got(world)).toHaveLength(1);
  });

  test('times out, also after a crash, counted from when it was asked', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask());
    await world.advance(60);
    await world.reopen();
    await world.advance(39);
    expect(got(world)).toEqual([]);
    await world.advance(1);
    expect(got(world)).toEqual([
      {
        type: 'question:err',
        failure: {
          code: 'timeout',
          message: 'No answer from oracle/o to "question" within 100 ms.',
          retryable: true,
          context: { address: 'oracle/o', attempt: 1 },
        },
      },
    ]);
    expect(requestsGot(world)).toEqual(['question']);
  });

  test('a late answer, a second one and one to an earlier attempt change nothing', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask());
    await world.advance(100);
    await world.send('oracle/o', answer('late', 0));
    await world.send('puppet/p', ask({ options: { attempt: 2 } }));
    await world.send('oracle/o', answer('to the first attempt', 0));
    await world.send('oracle/o', answer('to the second attempt', 1));
    await world.send('oracle/o', answer('once more', 1));
    expect(got(world)).toMatchObject([
      { type: 'question:err' },
      { type: 'question:ok', reply: 'to the second attempt' },
    ]);
    expect(world.facts('dropped').map(({ reason }) => reason)).toEqual([
      'late',
      'late',
      'duplicate',
    ]);
  });

  test('an answer with the wrong attempt is dropped', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask());
    await world.send('oracle/o', { ...answer('forged'), forged: { attempt: 2 } });
    await world.send('oracle/o', {
      ...answer('forged'),
      forged: { correlation: 'puppet/p!x!question' },
    });
    await world.send('oracle/o', { ...answer('forged'), forged: { correlation: 'puppet/p' } });
    await world.send('oracle/o', {
      ...answer('forged'),
      forged: { correlation: 'oracle/o!#1.0!question' },
    });
    expect(got(world)).toEqual([]);
    await world.send('oracle/o', answer('true'));
    expect(got(world)).toEqual([{ type: 'question:ok', reply: 'true' }]);
  });

  test('the answer to an earlier request of the same id and attempt is not taken for the answer to a later one', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask());
    await world.send('puppet/p', { type: 'forget', id: 'question' });
    await world.send('puppet/p', ask());
    await world.send('oracle/o', answer('to the first', 0));
    expect(got(world)).toEqual([]);
    await world.send('oracle/o', answer('to the second', 1));
    expect(got(world)).toEqual([{ type: 'question:ok', reply: 'to the second' }]);
  });

  test('a second request of an id replaces the first', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask());
    await world.advance(50);
    await world.send('puppet/p', ask());
    await world.advance(99);
    expect(got(world)).toEqual([]);
    await world.advance(1);
    expect(got(world)).toMatchObject([{ type: 'question:err', failure: { code: 'timeout' } }]);
  });

  test('that is called off gets neither an answer nor a timeout', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask());
    await world.send('puppet/p', { type: 'forget', id: 'question' });
    await world.send('oracle/o', answer('yes'));
    await world.advance(500);
    expect(got(world)).toEqual([]);
    expect(world.facts('dropped')).toHaveLength(1);
  });

  test('that is sent later is waited for from then on', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask({ options: { delayMs: 500 } }));
    await world.reopen();
    await world.advance(499);
    expect(world.context('oracle/o')['questions']).toEqual([]);
    await world.advance(1);
    expect(world.context('oracle/o')['questions']).toHaveLength(1);
    await world.advance(99);
    expect(got(world)).toEqual([]);
    await world.advance(1);
    expect(got(world)).toMatchObject([{ type: 'question:err' }]);
  });

  test.each([
    { receiver: 'missing', to: 'oracle/nobody', message: question, code: 'not_found' },
    { receiver: 'that throws', to: 'counter/a', message: { type: 'throw' }, code: 'unhandled' },
    { receiver: 'that has ended', to: 'puppet/ended', message: question, code: 'conflict' },
  ])('to a receiver $receiver ends in an error', async ({ to, message, code }) => {
    const world = await newWorld();
    await world.create(['puppet/ended', 'puppet']);
    await world.send('puppet/ended', { type: 'end' });
    await world.send('puppet/p', { type: 'ask', to, message, timeoutMs: 100 });
    expect(got(world)).toMatchObject([{ type: `${message.type}:err`, failure: { code } }]);
    await world.advance(200);
    expect(got(world)).toHaveLength(1);
  });

  test('an answer may come when the asker has ended', async () => {
    const world = await newWorld();
    await world.send('puppet/p', ask());
    await world.send('puppet/p', { type: 'end' });
    await world.send('oracle/o', answer('yes'));
    expect(world.facts('dropped')).toEqual([
      { address: 'puppet/p', type: 'question:ok', reason: 'ended' },
    ]);
    expect(world.data.timers.get('puppet/p')?.size ?? 0).toBe(0);
    expect(world.data.messages.size).toBe(0);
  });

  test('an answer is never refused for lack of room', async () => {
    const world = new World({ ...MACHINES, puppet: { machine: puppetMachine, mailboxLimit: 1 } });
    await world.open();
    await world.create(['oracle/o', 'oracle'], ['puppet/p', 'puppet']);
    await world.send('puppet/p', ask());
    await world.reopen({ machines: { oracle: oracleMachine }, mailboxLimit: 1 });
    await world.send('puppet/p', { type: 'hello' });
    await world.send('oracle/o', answer('yes'));
    await world.reopen();
    // Answers are of a higher class than what nobody has given one.
    expect(got(world)).toMatchObject([{ type: 'question:ok' }, { type: 'hello' }]);
  });

  test.each([
    { bad: { timeoutMs: 0 }, says: 'needs timeoutMs, a number of milliseconds above 0, got 0' },
    {
      bad: { timeoutMs: 'soon' },
      says: 'needs timeoutMs, a number of milliseconds above 0, got soon',
    },
    { bad: { options: { attempt: 0 } }, says: 'must be an integer from 1, got 0' },
    // The store would refuse it, and the host would end.
    {
      bad: { options: { id: 'cut \ud83d' } },
      says: 'The id of a request of puppet/p contains half',
    },
  ])('$says', async ({ bad, says }) => {
    const world = await newWorld();
    await world.send('puppet/p', { ...ask(), ...bad });
    expect(world.data.deadLetters[0]?.reason).toContain(says);
    expect(world.context('oracle/o')['questions']).toEqual([]);
  });

  test('an address with an exclamation mark is an address like any other', async () => {
    const world = await newWorld();
    await world.create(['puppet/who!', 'puppet'], ['puppet/who!me!', 'puppet']);
    await world.send('puppet/who!me!', ask({ options: { id: 'a!b' } }));
    await world.send('oracle/o', answer('yes'));
    expect(world.context('puppet/who!me!')['got']).toEqual([{ type: 'question:ok', reply: 'yes' }]);
    expect(world.context('puppet/who!me!')['metas']).toMatchObject([{ request: 'a!b' }]);
  });
});
