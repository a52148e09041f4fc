import { test as propertyTest } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ConflictError,
  IdempotencyConflictError,
  MailboxFullError,
  NotFoundError,
  StoppedError,
  TimeoutError,
  ValidationError,
} from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { counterMachine, oracleMachine } from './machines.ts';
import { TestStore, World } from './world.ts';

const MACHINES = { counter: counterMachine, oracle: oracleMachine };
const HOURS = 3_600_000;

const newWorld = async (options: ConstructorParameters<typeof World>[1] = {}): Promise<World> => {
  const world = new World(MACHINES, options);
  await world.open();
  await world.create(['counter/a', 'counter'], ['counter/b', 'counter'], ['oracle/o', 'oracle']);
  return world;
};

const n = (world: World, address = 'counter/a') => world.context(address)['n'];
const inc = { type: 'inc' };
const ask = { type: 'incAndCount' };
const question = { type: 'question' };
const answer = (reply: JsonValue, nth = 0) => ({ type: 'answer', nth, reply });
const key = (idempotencyKey: string) => ({ idempotencyKey });
const rows = (world: World) => [...world.data.idempotency.values()];
const questions = (world: World) => world.context('oracle/o')['questions'] as unknown[];

describe('send under a key', () => {
  test('counts once: at the same time, when it was handled, and after a crash', async () => {
    const world = await newWorld();
    await Promise.all(Array.from({ length: 5 }, () => world.send('counter/a', inc, key('k'))));
    await world.send('counter/a', inc, key('k'));
    await world.reopen();
    await world.send('counter/a', inc, key('k'));
    expect(n(world)).toBe(1);
    expect(world.facts('dropped')).toHaveLength(6);
    await world.send('counter/a', inc, key('other'));
    expect(n(world)).toBe(2);
    expect(world.host.load.keys).toBe(0);
    expect(rows(world)).toMatchObject([{ key: 'k', correlation: null, outcomeJson: null }, {}]);
  });

  test('is stored with the message, in one commit', async () => {
    let store: TestStore | undefined;
    const world = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    const before = store?.batches.length;
    await world.send('counter/a', inc, key('k'));
    const batches = store?.batches.slice(before) ?? [];
    expect(batches.map(({ idempotency }) => idempotency.map(({ key }) => key))).toEqual([['k']]);
    expect(batches[0]?.actors).toHaveLength(1);
  });

  test('resolves, for whoever repeats it, when the first is stored', async () => {
    let store: TestStore | undefined;
    const world = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    store?.hold();
    const settled: string[] = [];
    void world.host.send('counter/a', inc, key('k')).then(() => settled.push('first'));
    void world.host.send('counter/a', inc, key('k')).then(() => settled.push('second'));
    await world.settle();
    expect(settled).toEqual([]);
    store?.release();
    await world.settle();
    expect(settled).toEqual(['first', 'second']);
  });

  test('keeps its place among what is sent to the same receiver', async () => {
    const world = await newWorld();
    const note = (what: string) => ({ type: 'note', what });
    const sent = [
      world.host.send('counter/a', note('1'), key('1')),
      world.host.send('counter/a', note('2')),
      world.host.send('counter/a', note('3'), key('3')),
      world.host.send('counter/a', note('1'), key('1')),
      world.host.send('counter/a', note('4'), { delivery: 'transient' }),
      world.host.send('counter/a', note('5')),
    ];
    await world.wait(Promise.all(sent));
    await world.settle();
    expect(world.context('counter/a')['seen']).toEqual(['1', '2', '3', '4', '5']);
  });

  describe('when the store is slow to say what it knows of a key', () => {
    const note = (what: string) => ({ type: 'note', what });
    async function slow() {
      const looks = new Map<string, PromiseWithResolvers<undefined>>();
      const world = await newWorld({
        wrap: (memory) => {
          const store = new TestStore(memory);
          store.loadIdempotency = (name) => {
            const look = Promise.withResolvers<undefined>();
            looks.set(name, look);
            return look.promise;
          };
          return store;
        },
      });
      const send = (what: string, options = {}) =>
        world.host.send('counter/a', note(what), options).catch((error: unknown) => String(error));
      const seen = () => world.context('counter/a')['seen'];
      return { world, looks, send, seen };
    }

    test('what is sent after it to the same receiver waits, and nothing else does', async () => {
      const { world, looks, send, seen } = await slow();
      const sent = [send('1', key('1')), send('2'), send('3', key('3')), send('4')];
      await world.send('counter/b', note('elsewhere'));
      looks.get('3')?.resolve(undefined);
      await world.settle();
      expect(seen()).toEqual([]);
      looks.get('1')?.resolve(undefined);
      await world.wait(Promise.all(sent));
      expect(seen()).toEqual(['1', '2', '3', '4']);
    });

    test('also what comes when the first of them is through', async () => {
      const { world, looks, send, seen } = await slow();
      const sent = [send('1', key('1')), send('2', key('2'))];
      looks.get('1')?.resolve(undefined);
      await world.settle();
      sent.push(send('3'));
      await world.settle();
      expect(seen()).toEqual(['1']);
      looks.get('2')?.resolve(undefined);
      await world.wait(Promise.all(sent));
      expect(seen()).toEqual(['1', '2', '3']);
    });

    test('what is called off meanwhile is not sent', async () => {
      const { world, looks, send, seen } = await slow();
      const off = new AbortController();
      const { signal } = off;
      const sent = [
        send('1', { ...key('1'), signal }),
        send('2', { signal }),
        world.ask('counter/a', ask, { ...key('3'), signal }).catch(String),
      ];
      off.abort();
      for (const name of ['1', '3']) looks.get(name)?.resolve(undefined);
      const ends = await world.wait(Promise.all(sent));
      for (const end of ends) expect(end).toContain('to counter/a was called off');
      expect([seen(), n(world)]).toEqual([[], 0]);
    });

    test('a look that fails is told to whoever asked for it, and to nobody else', async () => {
      const { world, looks, send, seen } = await slow();
      const sent = [send('1', key('1')), send('2')];
      looks.get('1')?.reject(new Error('no disk'));
      expect(await world.wait(Promise.all(sent))).toEqual(['Error: no disk', undefined]);
      expect(seen()).toEqual(['2']);
    });
  });

  test.each([
    { said: 'while the first is being stored', at: 'storing' },
    { said: 'before the first is handed in', at: 'looking' },
  ])('counts once when it is said again $said, behind one that takes long', async ({ at }) => {
    let store: TestStore | undefined;
    const looks: (() => void)[] = [];
    const world = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        store.loadIdempotency = async (name) => {
          const found = await memory.loadIdempotency(name);
          if (name === 'slow') await new Promise<void>((resolve) => looks.push(resolve));
          return found;
        };
        return store;
      },
    });
    store?.hold();
    const sent = [world.host.send('counter/a', inc, key('k'))];
    if (at === 'storing') await world.settle();
    sent.push(world.host.send('counter/a', inc, key('slow')));
    sent.push(world.host.send('counter/a', inc, key('k')));
    await world.settle();
    store?.release();
    await world.settle();
    for (const answer of looks) answer();
    await world.wait(Promise.all(sent));
    expect(n(world)).toBe(2);
    expect(world.facts('dropped')).toMatchObject([{ reason: 'duplicate' }]);
  });

  test('something else under the key is refused, with both hashes', async () => {
    const world = await newWorld();
    await world.send('counter/a', { type: 'note', what: { a: 1, b: 2 } }, key('k'));
    // The same, said in another order.
    await world.send('counter/a', { what: { b: 2, a: 1 }, type: 'note' }, key('k'));
    const others = [
      world.host.send('counter/a', { type: 'note', what: { a: 1, b: 3 } }, key('k')),
      world.host.send('counter/b', { type: 'note', what: { a: 1, b: 2 } }, key('k')),
      world.host.request('counter/a', { type: 'note', what: { a: 1, b: 2 } }, key('k')),
    ];
    const found = rows(world)[0]?.inputHash as string;
    for (const { reason: error } of (await world.wait(
      Promise.allSettled(others),
    )) as PromiseRejectedResult[]) {
      expect(error).toBeInstanceOf(IdempotencyConflictError);
      expect(error).toBeInstanceOf(ConflictError);
      expect(error).toMatchObject({
        code: 'idempotency_conflict',
        exitCode: 24,
        context: { key: 'k', found, expected: expect.stringMatching(/^[0-9a-f]{64}$/) },
      });
      expect(String(error)).toContain(found);
    }
    expect(world.context('counter/a')['seen']).toHaveLength(1);
  });

  test('what was refused for lack of room may be sent again', async () => {
    const world = new World({ counter: { machine: counterMachine, mailboxLimit: 1 } });
    await world.open();
    await world.create(['counter/a', 'counter']);
    const sent = ['x', 'y'].map((k) => world.host.send('counter/a', inc, key(k)));
    const [, full] = await world.wait(Promise.allSettled(sent));
    expect((full as PromiseRejectedResult).reason).toBeInstanceOf(MailboxFullError);
    await world.send('counter/a', inc, key('y'));
    expect(n(world)).toBe(2);
  });

  test('a key is free again when its time is up', async () => {
    const world = await newWorld();
    await world.send('counter/a', inc, key('k'));
    await world.advance(24 * HOURS - 1);
    await world.send('counter/a', inc, key('k'));
    expect(n(world)).toBe(1);
    await world.advance(1);
    await world.send('counter/a', inc, key('k'));
    expect(n(world)).toBe(2);
    await world.send('counter/b', inc, key('k')).catch((error: unknown) => {
      expect(error).toBeInstanceOf(IdempotencyConflictError);
    });
    expect(n(world, 'counter/b')).toBe(0);
  });

  test.each<{ what: string; options: object }>([
    { what: 'an empty key', options: { idempotencyKey: '' } },
    { what: 'a number', options: { idempotencyKey: 7 } },
    { what: 'a long key', options: { idempotencyKey: 'x'.repeat(501) } },
    { what: 'half a character', options: { idempotencyKey: '\ud800' } },
    { what: 'a message that is not stored', options: { ...key('k'), delivery: 'transient' } },
  ])('$what is refused', async ({ options }) => {
    const world = await newWorld();
    await expect(world.host.send('counter/a', inc, options)).rejects.toThrow(ValidationError);
    await expect(world.host.request('counter/a', ask, options)).rejects.toThrow(ValidationError);
    expect(rows(world)).toEqual([]);
  });
});

describe('request under a key', () => {
  test('is asked once, and everybody gets the answer, later and after a crash, too', async () => {
    const world = await newWorld();
    const first = await world.wait(
      Promise.all([1, 2, 3].map(() => world.host.request('counter/a', ask, key('k')))),
    );
    expect(first).toEqual([1, 1, 1]);
    await world.send('counter/a', inc);
    expect(await world.request('counter/a', ask, key('k'))).toBe(1);
    await world.reopen();
    expect(await world.request('counter/a', ask, key('k'))).toBe(1);
    expect(n(world)).toBe(2);
    expect(world.host.load.requests).toBe(0);
  });

  test('the answer is kept in the commit of the turn that gave it', async () => {
    let store: TestStore | undefined;
    const world = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    void world.ask('oracle/o', question, key('k'));
    await world.settle();
    const before = store?.batches.length;
    await world.send('oracle/o', answer('42'));
    const batches = store?.batches.slice(before) ?? [];
    expect(batches.flatMap(({ idempotency }) => idempotency)).toEqual([
      expect.objectContaining({ correlation: null, outcomeJson: '{"ok":true,"output":"42"}' }),
    ]);
  });

  test('its asker has died: the answer is kept, for whoever asks again before or after it', async () => {
    const world = await newWorld();
    void world.ask('oracle/o', question, key('k'));
    await world.settle();
    await world.reopen();
    const joined = world.ask('oracle/o', question, key('k'));
    await world.send('oracle/o', answer('42'));
    expect(await world.wait(joined)).toBe('42');
    await world.reopen();
    expect(await world.request('oracle/o', question, key('k'))).toBe('42');
    expect(questions(world)).toHaveLength(1);
    expect(world.facts('dropped')).toEqual([]);
  });

  test('answered while nobody waits: kept, and not told as late', async () => {
    const world = await newWorld();
    void world.ask('oracle/o', question, key('k'));
    await world.settle();
    await world.reopen();
    await world.send('oracle/o', answer('42'));
    expect(world.facts('dropped')).toEqual([]);
    // A second answer changes nothing.
    await world.send('oracle/o', answer('43'));
    expect(world.facts('dropped')).toMatchObject([{ reason: 'late' }]);
    expect(await world.request('oracle/o', question, key('k'))).toBe('42');
  });

  test('one that has timed out may be waited for again; it is not asked again', async () => {
    const world = await newWorld();
    const first = world.ask('oracle/o', question, { ...key('k'), timeoutMs: 100 });
    await world.advance(100);
    await expect(first).rejects.toThrow(TimeoutError);
    const second = world.ask('oracle/o', question, { ...key('k'), timeoutMs: 100 });
    await world.advance(99);
    await world.send('oracle/o', answer('42'));
    expect(await second).toBe('42');
    expect(questions(world)).toHaveLength(1);
    expect(world.host.load.requests).toBe(0);
  });

  test('each asker has its own limit and its own signal', async () => {
    const world = await newWorld();
    const controller = new AbortController();
    const asked = [
      world.ask('oracle/o', question, { ...key('k'), timeoutMs: 100 }),
      world.ask('oracle/o', question, { ...key('k'), timeoutMs: 300 }),
      world.ask('oracle/o', question, { ...key('k'), signal: controller.signal }),
    ];
    await world.advance(200);
    controller.abort();
    await world.send('oracle/o', answer('42'));
    const settled = await world.wait(Promise.allSettled(asked));
    expect(settled.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'rejected']);
    expect(questions(world)).toHaveLength(1);
  });

  test('a final failure is kept; one that may be tried again is not', async () => {
    const world = await newWorld();
    const failure = (code: string, retryable: boolean) => ({ code, message: code, retryable });
    const settle = async (nth: number, given: object) => {
      const asked = world.ask('oracle/o', question, key('k'));
      await world.settle();
      await world.send('oracle/o', { type: 'answer', nth, ...given });
      return await asked.then(
        (reply) => reply,
        (error: unknown) => (error as { code: string }).code,
      );
    };
    expect(await settle(0, { failure: failure('unavailable', true) })).toBe('unavailable');
    expect(rows(world)).toEqual([]);
    expect(await settle(1, { failure: failure('policy', false) })).toBe('policy');
    expect(questions(world)).toHaveLength(2);
    await expect(world.request('oracle/o', question, key('k'))).rejects.toMatchObject({
      code: 'policy',
      retryable: false,
    });
    await world.reopen();
    await expect(world.request('oracle/o', question, key('k'))).rejects.toMatchObject({
      code: 'policy',
    });
    expect(questions(world)).toHaveLength(2);
  });

  test('what was refused before anybody handled it is not kept', async () => {
    const world = await newWorld();
    await expect(world.request('counter/new', ask, key('k'))).rejects.toThrow(NotFoundError);
    await expect(world.request('oracle/o', { type: 'throwAtQuestion' }, key('t'))).rejects.toThrow(
      'the oracle is broken',
    );
    expect(rows(world)).toEqual([]);
    await world.create(['counter/new', 'counter']);
    expect(await world.request('counter/new', ask, key('k'))).toBe(1);
  });

  test('an answer to a use of the key that has expired is nobody else’s', async () => {
    const world = await newWorld({});
    void world.ask('oracle/o', question, { ...key('k'), timeoutMs: 2_000_000_000 });
    await world.settle();
    await world.advance(24 * HOURS);
    const second = world.ask('oracle/o', question, key('k'));
    await world.settle();
    expect(questions(world)).toHaveLength(2);
    await world.send('oracle/o', answer('to the second', 1));
    await world.send('oracle/o', answer('to the first', 0));
    expect(await second).toBe('to the second');
    expect(await world.request('oracle/o', question, key('k'))).toBe('to the second');
    await world.reopen();
    expect(await world.request('oracle/o', question, key('k'))).toBe('to the second');
  });

  test('a key that is used anew while its last answer is still being stored', async () => {
    let store: TestStore | undefined;
    const world = await newWorld({
      idempotencyTtlMs: 10,
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    void world.ask('oracle/o', question, key('k'));
    await world.settle();
    store?.hold();
    void world.host.send('oracle/o', answer('first', 0));
    await world.advance(10);
    const second = world.ask('oracle/o', question, key('k'));
    await world.settle();
    store?.release();
    await world.settle();
    const third = world.ask('oracle/o', question, key('k'));
    await world.settle();
    expect(questions(world)).toHaveLength(2);
    await world.send('oracle/o', answer('second', 1));
    expect(await world.wait(Promise.all([second, third]))).toEqual(['second', 'second']);
    expect(world.host.load).toMatchObject({ keys: 0, requests: 0 });
  });

  test('a clock that goes back makes a key that waits no stranger', async () => {
    const world = await newWorld();
    void world.ask('oracle/o', question, key('k'));
    await world.settle();
    const then = world.clock.now();
    world.crash();
    world.clock.jump(then + 24 * HOURS);
    await world.open();
    world.clock.jump(then);
    const second = world.ask('oracle/o', question, key('k'));
    await world.settle();
    expect(questions(world)).toHaveLength(1);
    await world.send('oracle/o', answer('42'));
    expect(await second).toBe('42');
  });

  test('a key that expired while nobody was there is free', async () => {
    const world = await newWorld({});
    void world.ask('oracle/o', question, key('k'));
    await world.settle();
    world.crash();
    world.clock.jump(world.clock.now() + 24 * HOURS);
    await world.open();
    const second = world.ask('oracle/o', question, key('k'));
    await world.settle();
    expect(questions(world)).toHaveLength(2);
    await world.send('oracle/o', answer('to the first', 0));
    expect(world.facts('dropped')).toMatchObject([{ reason: 'late' }]);
    await world.send('oracle/o', answer('to the second', 1));
    expect(await second).toBe('to the second');
  });

  test('keys of questions that are never answered leave memory when their time is up', async () => {
    const world = await newWorld({ idempotencyTtlMs: 10_000 });
    for (const name of ['1', '2', '3']) {
      const asked = world.ask('oracle/o', question, { ...key(name), timeoutMs: 10 });
      await world.advance(10);
      await expect(asked).rejects.toThrow(TimeoutError);
    }
    const waits = world.ask('oracle/o', question, { ...key('waits'), timeoutMs: 60_000 });
    await world.settle();
    expect(world.host.load.keys).toBe(4);
    await world.advance(20_000);
    await world.request('counter/a', ask, key('another'));
    expect(world.host.load.keys).toBe(1);
    await world.send('oracle/o', answer('at last', 3));
    expect(await world.wait(waits)).toBe('at last');
    expect(world.host.load.keys).toBe(0);
  });

  test('ends with the runtime, whatever it waits for', async () => {
    let store: TestStore | undefined;
    const world = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    void world.ask('oracle/o', question, key('old'));
    await world.settle();
    const asked = [
      world.ask('oracle/o', question, key('old')),
      world.ask('oracle/o', question, key('new')),
      world.ask('oracle/o', question),
    ];
    const stopped = world.host.stop();
    await world.wait(stopped);
    for (const { reason } of (await Promise.allSettled(asked)) as PromiseRejectedResult[]) {
      expect(reason).toBeInstanceOf(StoppedError);
    }
    expect(store?.waiting).toBe(0);
  });
});

/*
 * Anything under a few keys, in a process that dies at any point: the model is that each key is handled at most once,
 * and that all its askers who get an answer get the same one.
 */
const operation = fc.record({
  what: fc.constantFrom('send', 'request', 'crash', 'pause'),
  key: fc.constantFrom('a', 'b', 'c'),
  to: fc.constantFrom('counter/a', 'counter/b'),
});

propertyTest.prop([
  fc.array(operation, { minLength: 1, maxLength: 20 }),
  fc.array(fc.integer({ min: 1, max: 25 }), { maxLength: 4 }),
])(
  'whatever is repeated and whenever it dies, each key counts once',
  async (operations, deaths) => {
    const world = new World(MACHINES);
    const answers = new Map<string, Set<JsonValue>>();
    const owner = new Map<string, string>();
    const acknowledged = new Set<string>();
    let life = 0;
    const open = async (): Promise<void> => {
      const death = deaths[life++];
      const faults = new FaultPoints(
        death === undefined ? 'trace' : `host.before-commit:hang:${death}`,
      );
      await world.reopen({ faultPoint: faults.hit });
      world.host
        .spawn([
          { address: 'counter/a', machine: 'counter' },
          { address: 'counter/b', machine: 'counter' },
        ])
        .catch(() => undefined);
      await world.settle();
    };
    await open();
    for (const { what, key: name, to } of operations) {
      const use = `${what} ${to}`;
      if (what === 'crash') {
        await open();
      } else if (what === 'pause') {
        await world.settle();
      } else if (what === 'send') {
        world.host.send(to as 'counter/a', { type: 'note', what: name }, key(name)).then(
          () => {
            owner.set(name, use);
            acknowledged.add(`${name} ${to}`);
          },
          () => undefined,
        );
      } else {
        world.host.request(to as 'counter/a', ask, key(name)).then(
          (reply) => {
            owner.set(name, use);
            const seen = answers.get(`${name} ${to}`) ?? new Set();
            answers.set(`${name} ${to}`, seen.add(reply));
          },
          () => undefined,
        );
      }
    }
    await world.settle();
    deaths.length = 0;
    await open();
    const counts = { notes: [] as string[], asked: 0 };
    for (const address of ['counter/a', 'counter/b']) {
      counts.notes.push(...(world.context(address)['seen'] as string[]));
      counts.asked += world.context(address)['n'] as number;
    }
    // A key is of one operation: sent once or asked once, never both, never to two.
    expect(new Set(counts.notes).size).toBe(counts.notes.length);
    expect(counts.notes.length + counts.asked).toBe(rows(world).length);
    for (const [use, seen] of answers) expect([use, seen.size]).toEqual([use, 1]);
    for (const use of acknowledged) expect(counts.notes).toContain(use.split(' ')[0]);
  },
);
