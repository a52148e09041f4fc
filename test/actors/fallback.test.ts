import { describe, expect, test } from 'vitest';
import { performOrder } from '../../src/operator/orders.ts';
import {
  BreakerOpenError,
  CancelledError,
  ConfigurationError,
  NotFoundError,
  TroupeError,
} from '../../src/protocol/errors.ts';
import type { Troupe } from '../../src/troupe.ts';
import { SimulatedClock } from '../runtime/simulated-clock.ts';
import { memoryDisk, reaches } from './open-troupe.ts';

const accepts = () => ({ accepted: true, evidence: ['read it'] }) as const;
const task = (id: string, agent = 'first') => ({ id, agent, gatekeeper: 'editor', input: null });
const away = (): never => {
  throw new TroupeError('unavailable', 'The model is away.');
};
const FAST = { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 };
const attemptsOf = async (troupe: Troupe, id: string) =>
  (await troupe.run('r').task(id).attempts()).map(({ outcome, detailsJson }) => ({
    outcome,
    by: (JSON.parse(detailsJson) as { by?: unknown }).by,
  }));

describe('an agent that cannot be asked', () => {
  test('without a fallback: its task is retried, then escalated, and never done', async () => {
    const troupe = await memoryDisk().open();
    const states = new Set<unknown>();
    troupe.on('turn', ({ address, state }) => {
      if (address === 'task/r/a')
        states.add(typeof state === 'object' ? Object.keys(state ?? {})[0] : state);
    });
    troupe.agent('first', away, { breaker: { failures: 1, openMs: 3_600_000 } });
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({
      id: 'r',
      limits: { infrastructureAttempts: 3, infrastructureBackoff: FAST },
      tasks: [task('a')],
    });
    const { state, tasks } = await run.result();
    expect([state, tasks[0]?.state, tasks[0]?.cause]).toEqual([
      'blocked',
      'escalated',
      'infrastructure',
    ]);
    expect(states.has('retrying')).toBe(true);
    expect(states.has('done') || states.has('verifying')).toBe(false);
    expect(await troupe.breaker('agent/first').status()).toMatchObject({
      state: 'open',
      opened: 1,
      settings: { failures: 1, openMs: 3_600_000, successes: 3 },
    });
  });

  test('with a fallback: that one does it, the attempt says so, and the next task asks the first again', async () => {
    const troupe = await memoryDisk().open();
    let broken = true;
    const did: string[] = [];
    troupe.agent(
      'first',
      ({ task: { id } }) => {
        if (broken) away();
        did.push(`first ${id}`);
        return null;
      },
      { breaker: { failures: 1, openMs: 3_600_000 }, fallback: 'second' },
    );
    troupe.agent('second', away, {
      breaker: { failures: 1, openMs: 3_600_000 },
      fallback: 'third',
    });
    troupe.agent('third', ({ task: { id } }) => {
      did.push(`third ${id}`);
      return null;
    });
    troupe.gatekeeper('editor', accepts);
    const run = await troupe.start({
      id: 'r',
      limits: { infrastructureAttempts: 20, infrastructureBackoff: FAST },
      tasks: [task('a'), { ...task('b'), dependsOn: ['a'] }],
    });
    const { state, tasks } = await run.result();
    expect([state, did]).toEqual(['done', ['third a', 'third b']]);
    expect(tasks.map(({ agent }) => agent)).toEqual(['third', 'third']);
    const attempts = await attemptsOf(troupe, 'b');
    expect(attempts).toEqual([
      {
        outcome: 'accepted',
        by: {
          agent: 'third',
          insteadOf: [
            {
              agent: 'first',
              reason:
                'The agent "first" is not asked at present: its circuit breaker is open (The model is away.).',
            },
            {
              agent: 'second',
              reason:
                'The agent "second" is not asked at present: its circuit breaker is open (The model is away.).',
            },
          ],
        },
      },
    ]);
    // Reset, it is asked again.
    broken = false;
    const order = { order: 'resetBreaker', key: 'agent/first' } as const;
    expect(await performOrder(order, { troupe, agents: [] })).toMatchObject({
      breaker: { key: 'agent/first', state: 'closed' },
    });
    await (await troupe.start({ id: 's', tasks: [task('c')] })).result();
    expect(did.at(-1)).toBe('first c');
    await expect(
      performOrder({ order: 'resetBreaker', key: 'agent/fist' }, { troupe, agents: [] }),
    ).rejects.toThrow('agent/first');
  });

  test('bad work leads to none of the chain, whoever has done it', async () => {
    const troupe = await memoryDisk().open();
    const did: string[] = [];
    const breaker = { failures: 1, openMs: 3_600_000 };
    // Away at first: what is rejected is the work of its fallback.
    troupe.agent('first', away, { breaker, fallback: 'second' });
    troupe.agent(
      'second',
      ({ task: { attempt } }) => {
        did.push(`second ${attempt}`);
        if (did.length === 2) throw new Error('I cannot do it.');
        return did.length;
      },
      { breaker, fallback: 'third' },
    );
    troupe.agent('third', () => {
      did.push('third');
      return null;
    });
    troupe.gatekeeper('editor', ({ submission: { result } }) =>
      result === 3
        ? { accepted: true, evidence: ['read it'] }
        : { accepted: false, reason: 'Not good enough.' },
    );
    const run = await troupe.start({
      id: 'r',
      limits: { infrastructureAttempts: 20, infrastructureBackoff: FAST, backoff: FAST },
      tasks: [task('a')],
    });
    const { state, tasks } = await run.result();
    expect([state, tasks[0]?.agent]).toEqual(['done', 'second']);
    expect(did.map((each) => each.split(' ')[0])).toEqual(['second', 'second', 'second']);
    const attempts = await attemptsOf(troupe, 'a');
    const [rejected, failed, accepted] = attempts.slice(-3);
    expect([rejected?.outcome, failed?.outcome, accepted?.outcome]).toEqual([
      'rejected',
      'failed',
      'accepted',
    ]);
    for (const { by } of [rejected, failed, accepted].filter((each) => each !== undefined)) {
      expect(by).toMatchObject({ agent: 'second', insteadOf: [{ agent: 'first' }] });
    }
  });

  test('a full mailbox leads to the fallback too; the 1 001st is told that it is full', async () => {
    const troupe = await memoryDisk().open();
    const release = Promise.withResolvers<void>();
    const did: string[] = [];
    troupe.agent(
      'first',
      async ({ task: { id } }) => {
        await release.promise;
        did.push(`first ${id}`);
        return null;
      },
      { mailboxLimit: 1, fallback: 'second', breaker: { failures: 1000 } },
    );
    troupe.agent('second', ({ task: { id } }) => {
      did.push(`second ${id}`);
      return null;
    });
    troupe.gatekeeper('editor', accepts, { concurrency: 9 });
    // Two runs of their own have a place each at the agent, which does one thing at a time.
    for (const id of ['r1', 'r2', 'r3']) await troupe.start({ id, tasks: [task('a')] });
    expect((await troupe.run('r3').result()).state).toBe('done');
    expect(did).toEqual(['second a']);
    release.resolve();
    await Promise.all(['r1', 'r2'].map((id) => troupe.run(id).result()));
    expect(did).toEqual(['second a', 'first a', 'first a']);
    const [attempt] = await troupe.run('r3').task('a').attempts();
    expect(attempt?.detailsJson).toContain('has 1 tasks waiting already');
  });

  test('whose tasks may wait has as many waiting as there are', async () => {
    const troupe = await memoryDisk().open();
    const release = Promise.withResolvers<void>();
    troupe.agent('first', () => release.promise.then(() => null), {
      mailboxLimit: 1,
      overflow: 'wait',
    });
    troupe.gatekeeper('editor', accepts);
    const ids = ['r1', 'r2', 'r3', 'r4'];
    for (const id of ids) await troupe.start({ id, tasks: [task('a')] });
    await reaches(troupe, 'task/r4/a', 'working');
    release.resolve();
    for (const id of ids) {
      expect((await troupe.run(id).result()).state).toBe('done');
      expect(await troupe.run(id).task('a').attempts()).toHaveLength(1);
    }
  });

  test('an agent whose task is asked for by nobody any more stops working on it', async () => {
    const troupe = await memoryDisk().open();
    const began = Promise.withResolvers<AbortSignal>();
    troupe.agent('first', async ({ signal }) => {
      began.resolve(signal);
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason as Error)),
      );
      return null;
    });
    await reaches(troupe, 'agent/first', 'idle');
    const controller = new AbortController();
    const asked = troupe.request(
      'agent/first',
      {
        type: 'agent.work',
        ...{ task: 'task/x/a', run: 'x', id: 'a', title: 'a', attempt: 1, input: null },
        ...{ feedback: [], guidance: [], answers: {}, workspace: null, interruptions: 3 },
      },
      { signal: controller.signal },
    );
    const signal = await began.promise;
    const aborted = new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve());
    });
    controller.abort();
    await expect(asked).rejects.toThrow(CancelledError);
    await aborted;
    await reaches(troupe, 'agent/first', 'idle');
  });
});

describe('what cannot be is refused when it is said', () => {
  test('fallbacks in a circle, or to nobody', async () => {
    const troupe = await memoryDisk().open();
    expect(() => troupe.agent('self', away, { fallback: 'self' })).toThrow('self → self');
    troupe.agent('a', away, { fallback: 'b' });
    troupe.agent('b', away, { fallback: 'c' });
    expect(() => troupe.agent('c', away, { fallback: 'a' })).toThrow('c → a → b → c');
    expect(() => troupe.agent('c', away, { fallback: 'a' })).toThrow(ConfigurationError);
    troupe.gatekeeper('editor', accepts);
    await expect(troupe.start({ id: 'r', tasks: [task('x', 'a')] })).rejects.toThrow(
      'The fallback of agent "b" is "c", and no agent of that name is registered. Registered: a, b.',
    );
    expect(await troupe.runs()).toEqual([]);
    // Nothing of the refused one is left: it can be registered now.
    troupe.agent('c', () => null);
    expect((await (await troupe.start({ id: 'r', tasks: [task('x', 'c')] })).result()).state).toBe(
      'done',
    );
  });

  test.each([
    { options: { overflow: 'dropOldest' as never }, says: 'none is dropped' },
    { options: { overflow: 'spill' as never }, says: 'one of refuse, dropOldest, wait' },
    { options: { mailboxLimit: 0 }, says: 'to be a positive integer, got 0' },
    { options: { breaker: { failures: 0 } }, says: 'failures' },
    { options: { breaker: { opens: 1 } as never }, says: 'opens' },
    { options: { fallback: 7 as never }, says: 'to be the name of an agent, got number' },
  ])('$says', async ({ options, says }) => {
    const troupe = await memoryDisk().open();
    expect(() => troupe.agent('a', away, options)).toThrow(says);
    expect(() => troupe.agent('a', away, options)).toThrow(ConfigurationError);
    troupe.agent('a', away);
  });
});

describe('a breaker of the app', () => {
  const SETTINGS = { failures: 2, openMs: 1_000, successes: 2 };
  const fails = () => Promise.reject(new Error('no'));

  test('opens, lets one call at a time try, and closes; it survives a restart', async () => {
    const clock = new SimulatedClock();
    const disk = memoryDisk();
    let troupe = await disk.open({ clock });
    let breaker = troupe.breaker('model/large', SETTINGS);
    expect(await breaker.run(() => 1)).toBe(1);
    for (let i = 0; i < 2; i++) await expect(breaker.run(fails)).rejects.toThrow('no');
    expect(await breaker.status()).toMatchObject({ state: 'open', opened: 1, settings: SETTINGS });
    const refused = breaker.run(() => 1);
    await expect(refused).rejects.toThrow(BreakerOpenError);
    await expect(refused).rejects.toMatchObject({ code: 'unavailable', retryAfterMs: 1_000 });
    await troupe.stop();
    troupe = await disk.open({ clock });
    breaker = troupe.breaker('model/large');
    expect((await breaker.status()).state).toBe('open');
    clock.jump(clock.now() + 1_000);
    while (clock.step(clock.now()));
    await reaches(troupe, 'breaker/model/large', 'halfOpen');
    const probe = Promise.withResolvers<number>();
    const first = breaker.run(() => probe.promise);
    const second = breaker.run(() => 2);
    await expect(second).rejects.toThrow('half open, and another call tries');
    probe.resolve(1);
    expect(await first).toBe(1);
    expect(await breaker.run(() => 2)).toBe(2);
    expect(await breaker.status()).toMatchObject({ state: 'closed', openUntil: null });
    expect((await troupe.breakers()).map(({ key }) => key)).toEqual(['model/large']);
  });

  test('is reset; a call that is called off, or whose error is no failure, does not open it', async () => {
    const troupe = await memoryDisk().open();
    const breaker = troupe.breaker('model/small', { failures: 1 });
    const off = new CancelledError('off');
    await expect(breaker.run(() => Promise.reject(off))).rejects.toBe(off);
    await expect(breaker.run(fails, () => false)).rejects.toThrow('no');
    expect((await breaker.status()).state).toBe('closed');
    await expect(breaker.run(fails)).rejects.toThrow('no');
    expect((await breaker.status()).state).toBe('open');
    expect(await breaker.reset('ada')).toMatchObject({ state: 'closed', failures: 0 });
    expect(await breaker.run(() => 1)).toBe(1);
  });

  test('that cannot be is refused', async () => {
    const troupe = await memoryDisk().open();
    expect(() => troupe.breaker('a key')).toThrow('Expected an address');
    expect(() => troupe.breaker('x', { openMs: 0 })).toThrow('openMs');
    expect(() => troupe.breaker('agent/writer', { openMs: 1 })).toThrow('give its settings with');
    await expect(troupe.breaker('agent/nobody').status()).rejects.toThrow(NotFoundError);
    await expect(troupe.breaker('agent/nobody').reset()).rejects.toThrow(NotFoundError);
  });
});
