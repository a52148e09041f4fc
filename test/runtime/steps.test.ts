import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { TroupeError } from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { effect } from '../../src/runtime/effect.ts';
import type { EffectContext } from '../../src/runtime/effect-runner.ts';
import type { StepOptions, StepRun } from '../../src/runtime/step.ts';
import { World } from './world.ts';

type Program = (context: EffectContext, now: () => number) => Promise<JsonValue>;

/** A machine whose effect runs the program of the moment; it can be changed between two lives, as code is. */
async function open(first: Program) {
  const code = { program: first };
  const machine = setup({
    actors: {
      work: effect<JsonValue>((context) => code.program(context, () => world.clock.now())),
    },
  }).createMachine({
    initial: 'working',
    context: () => ({ output: null, failure: null }),
    states: {
      working: {
        invoke: {
          src: 'work',
          id: 'w',
          input: null,
          onDone: { target: 'done', actions: assign({ output: ({ event }) => event.output }) },
          onError: { target: 'done', actions: assign({ failure: ({ event }) => event.error }) },
        },
        on: { leave: 'done' },
      },
      done: {},
    },
  });
  const world: World = new World({ worker: machine });
  await world.open();
  await world.create(['worker/a', 'worker']);
  const ended = () => {
    const { output, failure } = world.context('worker/a');
    return { output, failure: failure as { code: string; message: string } | null };
  };
  return { world, code, ended };
}

const never = new Promise<never>(() => undefined);
const keys = (world: World) => [...world.data.steps.values()].flatMap((kept) => [...kept.keys()]);

describe('retry', () => {
  const busy = () => new TroupeError('unavailable', 'busy');

  test('a retryable failure is tried again after growing waits; the last one is thrown', async () => {
    const at: number[] = [];
    const runs: StepRun[] = [];
    const { world, ended } = await open(async ({ step }, now) => {
      const retry = { attempts: 4, initialMs: 100, factor: 3, maxMs: 500, jitter: 0 };
      return await step('call', { retry }, (run) => {
        at.push(now());
        runs.push(run);
        throw new TroupeError('unavailable', `busy ${run.attempt}`);
      });
    });
    await world.advance(10_000);
    expect(at.map((time) => time - (at[0] as number))).toEqual([0, 100, 400, 900]);
    expect(runs.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4]);
    expect(new Set(runs.map(({ key }) => key))).toEqual(new Set(['worker/a!worker/a#0.0/call']));
    expect(ended().failure).toMatchObject({ code: 'unavailable', message: 'busy 4' });
    expect(keys(world)).toEqual([]);
  });

  test.each<{ what: string; retry: StepOptions['retry']; error: unknown; tries: number }>([
    { what: 'no policy', retry: undefined, error: busy(), tries: 1 },
    { what: 'one try', retry: { attempts: 1 }, error: busy(), tries: 1 },
    { what: 'what is not retryable', retry: { attempts: 3 }, error: new Error('no'), tries: 1 },
    {
      what: 'a network fault',
      retry: { attempts: 3 },
      error: Object.assign(new Error('x'), { code: 'ECONNRESET' }),
      tries: 3,
    },
    {
      what: 'what `while` wants',
      retry: { attempts: 3, while: (error) => (error as Error).message === 'no' },
      error: new Error('no'),
      tries: 3,
    },
    {
      what: 'what `while` does not want',
      retry: { attempts: 3, while: () => false },
      error: busy(),
      tries: 1,
    },
    {
      what: 'a wait that is asked for and longer than any',
      retry: { attempts: 3, maxMs: 1_000 },
      error: new TroupeError('rate_limited', 'x', { retryAfterMs: 1_001 }),
      tries: 1,
    },
  ])('$what: $tries tries', async ({ retry, error, tries }) => {
    let count = 0;
    const options = retry === undefined ? {} : { retry };
    const { world, ended } = await open(
      async ({ step }) =>
        await step('call', options, () => {
          count++;
          throw error;
        }),
    );
    await world.advance(1_000_000);
    expect(count).toBe(tries);
    expect(ended().failure?.message).toBe((error as Error).message);
  });

  test('a failure that says when to come again is waited for', async () => {
    const at: number[] = [];
    const { world, ended } = await open(
      async ({ step }, now) =>
        await step('call', { retry: { attempts: 2, initialMs: 1, jitter: 0 } }, () => {
          at.push(now());
          if (at.length === 2) return 'fine';
          throw new TroupeError('rate_limited', 'later', { retryAfterMs: 7_000 });
        }),
    );
    await world.advance(6_999);
    expect(at).toHaveLength(1);
    await world.advance(1);
    expect(ended().output).toBe('fine');
  });

  test('a wait ends when the state is left, and nothing is tried any more', async () => {
    let tries = 0;
    const { world } = await open(
      async ({ step }) =>
        await step('call', { retry: { attempts: 5, initialMs: 1_000 } }, () => {
          tries++;
          throw busy();
        }),
    );
    await world.send('worker/a', { type: 'leave' });
    expect(world.host.load.effects).toBe(0);
    await world.advance(100_000);
    expect(tries).toBe(1);
  });

  test('a try that was called off is not the first of more', async () => {
    let tries = 0;
    const { world } = await open(
      async ({ step }) =>
        await step('call', { retry: { attempts: 5, initialMs: 1 } }, ({ signal }) => {
          tries++;
          return new Promise((_, reject) => signal.addEventListener('abort', () => reject(busy())));
        }),
    );
    await world.send('worker/a', { type: 'leave' });
    expect(world.host.load.effects).toBe(0);
    await world.advance(1_000);
    expect(tries).toBe(1);
  });

  test('tries are counted anew after a crash', async () => {
    const attempts: number[] = [];
    const { world } = await open(
      async ({ step }) =>
        await step('call', { retry: { attempts: 3, initialMs: 1_000, jitter: 0 } }, (run) => {
          attempts.push(run.attempt);
          throw busy();
        }),
    );
    await world.advance(1_000);
    await world.reopen();
    await world.advance(10_000);
    expect(attempts).toEqual([1, 2, 1, 2, 3]);
  });

  test('the chance in a wait is the same in a replay', async () => {
    const waits = async () => {
      const at: number[] = [];
      const { world } = await open(
        async ({ step }, now) =>
          await step('call', { retry: { attempts: 4, jitter: 1 } }, () => {
            at.push(now());
            throw busy();
          }),
      );
      await world.advance(100_000);
      return at.map((time) => time - (at[0] as number));
    };
    const [once, again] = [await waits(), await waits()];
    expect(once).toHaveLength(4);
    expect(again).toEqual(once);
    expect(once[1]).toBeLessThan(1_000);
  });
});

describe('timeoutMs', () => {
  test('ends the try by its signal, and the failure can be tried again', async () => {
    const aborted: string[] = [];
    const { world, ended } = await open(
      async ({ step, signal }) =>
        await step(
          'slow',
          { timeoutMs: 500, retry: { attempts: 2, initialMs: 10, jitter: 0 } },
          (run) =>
            run.attempt === 2
              ? `aborted: ${signal.aborted}`
              : new Promise((_, reject) => {
                  run.signal.addEventListener('abort', () => {
                    aborted.push(String(run.signal.reason));
                    reject(run.signal.reason as Error);
                  });
                }),
        ),
    );
    await world.advance(499);
    expect(aborted).toEqual([]);
    await world.advance(11);
    expect(aborted).toEqual([
      'TimeoutError: The step "slow" of worker/a!worker/a#0.0 was not done after 500 ms.',
    ]);
    expect(ended().output).toBe('aborted: false');
  });

  test('a try that does not heed its signal is left behind after 5 s, and its result is dropped', async () => {
    let finish: (value: string) => void = () => undefined;
    const { world, ended } = await open(
      async ({ step }) =>
        await step(
          'deaf',
          { timeoutMs: 500 },
          () =>
            new Promise<string>((resolve) => {
              finish = resolve;
            }),
        ),
    );
    await world.advance(5_499);
    expect(ended().failure).toBe(null);
    await world.advance(1);
    expect(ended().failure).toMatchObject({ code: 'timeout', retryable: true });
    finish('late');
    await world.settle();
    expect(keys(world)).toEqual([]);
    expect(ended().output).toBe(null);
  });

  test('its signal is aborted with the effect, too', async () => {
    const reasons: string[] = [];
    const { world } = await open(
      async ({ step }) =>
        await step(
          'long',
          { timeoutMs: 1_000 },
          ({ signal }) =>
            new Promise((_, reject) => {
              signal.addEventListener('abort', () => {
                reasons.push(String(signal.reason));
                reject(signal.reason as Error);
              });
            }),
        ),
    );
    const timers = world.clock.pending;
    await world.send('worker/a', { type: 'leave' });
    expect(reasons).toEqual(['CancelledError: The state that started the effect was left.']);
    // The step's limit and the effect's heartbeat.
    expect(world.clock.pending).toBe(timers - 2);
  });
});

describe('keys', () => {
  test('tell steps of one name apart, whatever their order after a crash', async () => {
    const ran: string[] = [];
    const mail = ({ step }: EffectContext, order: readonly string[], stop: boolean) =>
      Promise.all(
        order.map(
          async (user) =>
            await step('mail', { key: user }, async () => {
              if (stop && user === 'bob') return await never;
              ran.push(user);
              return `to ${user}`;
            }),
        ),
      );
    const { world, code, ended } = await open((c) => mail(c, ['ada', 'bob', 'eve'], true));
    expect(ran).toEqual(['ada', 'eve']);
    expect(keys(world)).toEqual(['mail[ada]', 'mail[eve]']);
    code.program = (c) => mail(c, ['eve', 'bob', 'ada'], false);
    await world.reopen();
    expect(ran).toEqual(['ada', 'eve', 'bob']);
    expect(ended().output).toEqual(['to eve', 'to bob', 'to ada']);
    expect(world.facts('stepsUnused')).toEqual([]);
  });

  test('one key is one step: who asks again, at once or later, gets its result', async () => {
    let ran = 0;
    const { ended } = await open(async ({ step }) => {
      const ask = () => step('count', { key: 7 }, () => ++ran);
      return [
        ...(await Promise.all([ask(), ask()])),
        await ask(),
        await step('count', () => ++ran),
      ];
    });
    expect(ended().output).toEqual([1, 1, 1, 2]);
  });

  test('one that failed under its key may be tried again by the code', async () => {
    let tries = 0;
    const { ended } = await open(async ({ step }) => {
      const ask = () =>
        step('call', { key: 'a' }, () => {
          if (++tries === 1) throw new Error('no');
          return tries;
        });
      const failed = await ask().catch((error: unknown) => String(error));
      return [failed, await ask()];
    });
    expect(ended().output).toEqual(['Error: no', 2]);
  });

  test('one that fails while the effect still waits for another is a failure of the effect, and no end of the process', async () => {
    const gate = Promise.withResolvers<null>();
    const unhandled: unknown[] = [];
    const note = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', note);
    const { world, ended } = await open(async ({ step }) => {
      const failing = step('fails', () => {
        throw new TroupeError('validation', 'no');
      });
      await step('waits', () => gate.promise);
      return await failing;
    });
    await world.settle();
    // Node tells of those that nobody handles when the event loop goes round.
    await new Promise((resolve) => setImmediate(resolve));
    gate.resolve(null);
    await world.settle();
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
    expect(ended().failure).toMatchObject({ code: 'validation', message: 'no' });
  });

  test('two of one name at the same time without keys are refused, in a replay too', async () => {
    const program: Program = async ({ step }) => {
      await step('first', () => 1);
      const [one, two] = await Promise.allSettled([
        step('mail', () => 'one'),
        step('mail', () => 'two'),
      ]);
      if (two?.status === 'rejected') throw two.reason;
      return [one?.status ?? null];
    };
    const message =
      'Two steps "mail" of worker/a!worker/a#0.0 run at the same time, and which is the first depends on chance. Tell them apart by keys: step("mail", { key: user.id }, …).';
    const { world, code, ended } = await open(async (context, now) => {
      await program(context, now).catch((error: unknown) =>
        expect(String(error)).toContain(message),
      );
      return await never;
    });
    expect(keys(world)).toEqual(['first', 'mail']);
    code.program = program;
    await world.reopen();
    expect(ended().failure).toMatchObject({ code: 'validation', message });
  });

  test('one after the other they are numbered; different names may run at once', async () => {
    const { world, ended } = await open(async ({ step, stepsOf }) => {
      const rounds: JsonValue[] = [];
      for (let round = 0; round < 2; round++) {
        rounds.push(
          await Promise.all([
            step('draft', () => `draft ${round}`),
            step('review', () => `review ${round}`),
            stepsOf('elsewhere')('draft', () => `other ${round}`),
          ]),
        );
      }
      await stepsOf('elsewhere')('end', () => null);
      return rounds;
    });
    expect(ended().output).toEqual([
      ['draft 0', 'review 0', 'other 0'],
      ['draft 1', 'review 1', 'other 1'],
    ]);
    expect(keys(world)).toEqual(['draft', 'draft#2', 'end']);
  });
});

describe('changed code', () => {
  const crashed = async (first: Program, second: Program) => {
    const { world, code, ended } = await open(async (context, now) => {
      await first(context, now);
      return await never;
    });
    code.program = second;
    await world.reopen();
    return { world, ended };
  };

  test('a kept step with another input is refused, with both hashes', async () => {
    const ask =
      (input: JsonValue): Program =>
      async ({ step }) =>
        await step('charge', { input }, () => 'charged');
    const { ended } = await crashed(ask({ euros: 5, to: 'ada' }), ask({ to: 'ada', euros: 6 }));
    expect(ended().failure).toMatchObject({
      code: 'conflict',
      retryable: false,
      context: {
        scope: 'worker/a!worker/a#0.0',
        key: 'charge',
        expected: expect.stringMatching(/^for the input [0-9a-f]{64}$/),
        found: expect.stringMatching(/^for the input [0-9a-f]{64}$/),
      },
    });
    expect(ended().failure?.message).toContain('give the new step another name or key');
  });

  test.each<{ what: string; before: StepOptions; after: StepOptions }>([
    {
      what: 'the same in another order',
      before: { input: { a: 1, b: [2] } },
      after: { input: { b: [2], a: 1 } },
    },
    { what: 'none before', before: {}, after: { input: 5 } },
    { what: 'none any more', before: { input: 5 }, after: {} },
    { what: 'other options', before: { input: 5 }, after: { input: 5, timeoutMs: 9 } },
  ])('no alarm for an input that is $what', async ({ before, after }) => {
    const { ended } = await crashed(
      async ({ step }) => await step('charge', before, () => 1),
      async ({ step }) => await step('charge', after, () => 2),
    );
    expect(ended()).toEqual({ output: 1, failure: null });
  });

  test('the same key with two inputs is refused while the first still runs, and later', async () => {
    const { ended } = await open(async ({ step }) => {
      const asked = await Promise.allSettled([
        step('mail', { key: 'ada', input: 1 }, () => 1),
        step('mail', { key: 'ada', input: 2 }, () => 2),
      ]);
      const later = await step('mail', { key: 'ada', input: 3 }, () => 3).catch(String);
      return [...asked.map(({ status }) => status), String(later).slice(0, 17)];
    });
    expect(ended().output).toEqual(['fulfilled', 'rejected', 'StepMismatchError']);
  });

  test('a step that was a transaction is refused as a plain one', async () => {
    const { world, ended } = await open(async ({ step }) => await step('pay', () => 1));
    await world.send('worker/a', { type: 'leave' });
    expect(ended().output).toBe(1);
    const scope = 'worker/b!worker/b#0.0';
    const row = {
      scope,
      key: 'pay',
      at: 1,
      kind: 'tx',
      inputHash: null,
      outcomeJson: '1',
    } as const;
    world.data.steps.set(scope, new Map([['pay', row]]));
    await world.create(['worker/b', 'worker']);
    expect(world.context('worker/b')['failure']).toMatchObject({
      code: 'conflict',
      context: { expected: 'as a step', found: 'as a step with a transaction' },
    });
  });

  test('kept steps that nobody asks for are told when the effect has ended well', async () => {
    const { world, ended } = await crashed(
      async ({ step }) => {
        await step('one', () => 1);
        await step('two', () => 2);
        await step('one', () => 3);
        return null;
      },
      async ({ step }) => await step('two', () => 22),
    );
    expect(ended().output).toBe(2);
    expect(world.facts('stepsUnused')).toEqual([
      { address: 'worker/a', src: 'work', scope: 'worker/a!worker/a#0.0', keys: ['one', 'one#2'] },
    ]);
  });

  test('also if the new code has no steps at all, but not if it fails or was not started again', async () => {
    const one: Program = async ({ step }) => await step('one', () => 1);
    const none = await crashed(one, async () => null);
    expect(none.world.facts('stepsUnused')).toMatchObject([{ keys: ['one'] }]);
    const failing = await crashed(one, async () => {
      throw new Error('before it could ask');
    });
    expect(failing.ended().failure?.message).toBe('before it could ask');
    expect(failing.world.facts('stepsUnused')).toEqual([]);
    const { world } = await open(one);
    expect(world.facts('stepsUnused')).toEqual([]);
  });
});

test('a step has the type of its result', async () => {
  const { ended } = await open(async ({ step }) => {
    const one: number = await step('a', () => 1);
    const two: string = await step(
      'b',
      { key: 1 },
      async ({ attempt, key }) => `${attempt} ${key.length > 0}`,
    );
    // @ts-expect-error: not JSON
    await step('c', () => new Date(0)).catch(() => undefined);
    // @ts-expect-error: not asynchronous
    await step.tx('d', async () => 1).catch(() => undefined);
    // @ts-expect-error: transactions are not tried again
    await step.tx('e', { retry: { attempts: 2 } }, () => 1).catch(() => undefined);
    return [one, two];
  });
  expect(ended().output).toEqual([1, '1 true']);
});

describe('bad input', () => {
  test.each<{ what: string; name: unknown; options?: unknown; says: string }>([
    { what: 'no name', name: '', says: "Expected a step's name to be a text of 1 to 240" },
    { what: 'a number for a name', name: 7, says: 'got 7' },
    { what: 'a name like a numbered one', name: 'mail#2', says: 'not ending in "#" and a number' },
    { what: 'a name like a keyed one', name: 'mail[2]', says: 'without "["' },
    { what: 'half a character', name: 'a\ud800', says: "Expected a step's name" },
    { what: 'an unknown option', name: 'a', options: { retries: 3 }, says: 'retries' },
    { what: 'no tries', name: 'a', options: { retry: { attempts: 0 } }, says: 'retry.attempts' },
    { what: 'a retry without tries', name: 'a', options: { retry: {} }, says: 'retry.attempts' },
    {
      what: 'a shrinking wait',
      name: 'a',
      options: { retry: { attempts: 2, factor: 0.5 } },
      says: 'retry.factor',
    },
    { what: 'a time of nothing', name: 'a', options: { timeoutMs: 0 }, says: 'timeoutMs' },
    { what: 'half a character in a key', name: 'a', options: { key: 'x\ud800' }, says: 'key' },
    { what: 'an empty key', name: 'a', options: { key: '' }, says: 'key' },
    {
      what: 'an input that is not JSON',
      name: 'a',
      options: { input: new Date(0) },
      says: 'input',
    },
  ])('$what is refused in one sentence', async ({ name, options, says }) => {
    const { ended } = await open(
      async ({ step }) => await step(name as string, (options ?? {}) as StepOptions, () => 1),
    );
    expect(ended().failure?.code).toBe('validation');
    expect(ended().failure?.message).toContain(says);
  });

  test('a scope with half a character is refused before it could reach the store', async () => {
    const { ended } = await open(async ({ stepsOf }) => await stepsOf('x\ud800')('a', () => 1));
    expect(ended().failure).toMatchObject({ code: 'validation' });
  });

  test('a transaction needs SQLite, and says so', async () => {
    const { ended } = await open(
      async ({ step }) =>
        await step.tx('order', (tx) => {
          tx.run('INSERT INTO app_orders VALUES (?)', 1);
          return 1;
        }),
    );
    expect(ended().failure).toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('need SQLite'),
    });
  });

  test.each<{ what: string; fn: unknown; says: string }>([
    { what: 'a promise', fn: async () => 1, says: 'got a promise' },
    { what: 'no text', fn: (tx: { run(sql: unknown): void }) => tx.run(7), says: 'got number' },
    {
      what: 'a Date',
      fn: (tx: { run(sql: string, ...values: unknown[]): void }) =>
        tx.run('INSERT', 1, new Date(0)),
      says: 'Expected value 2 of tx.run of step "order" to be a text, a finite number or null, got a Date',
    },
    {
      what: 'a boolean',
      fn: (tx: { run(sql: string, ...values: unknown[]): void }) => tx.run('INSERT', true),
      says: 'got boolean',
    },
  ])('a transaction of $what is refused', async ({ fn, says }) => {
    const { ended } = await open(async ({ step }) => await step.tx('order', fn as never));
    expect(ended().failure?.code).toBe('validation');
    expect(ended().failure?.message).toContain(says);
  });
});
