import { test as propertyTest } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LockConflictError, StoppedError } from '../../src/protocol/errors.ts';
import { type Lease, Leases } from '../../src/runtime/leases.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { SimulatedClock } from './simulated-clock.ts';

function leases(store = new MemoryStore()) {
  const clock = new SimulatedClock();
  return { store, clock, leases: new Leases(store, clock) };
}

describe('a lease', () => {
  test('is held by one at a time; the other is told by whom and until when', async () => {
    const { leases: all, clock } = leases();
    const lease = await all.acquire('deploy', { holder: 'ada', ttlMs: 5_000 });
    expect(lease).toMatchObject({ name: 'deploy', holder: 'ada', token: 1 });
    const until = new Date(clock.now() + 5_000).toISOString();
    await expect(all.acquire('deploy', { holder: 'bob' })).rejects.toThrow(
      `The lease "deploy" is held by "ada" until ${until} unless it is extended. Wait for it (waitMs), or try again later.`,
    );
    await lease.release();
    await lease.release();
    expect((await all.acquire('deploy', { holder: 'bob' })).token).toBe(2);
  });

  test('is over at its time, for its holder and for its fence, also when the timer is late', async () => {
    const { leases: all, clock } = leases();
    const lease = await all.acquire('deploy', { ttlMs: 5_000 });
    advance(clock, 4_999);
    all.assertHeld(lease);
    expect(lease.signal.aborted).toBe(false);
    leap(clock, 1);
    expect(() => all.assertHeld(lease)).toThrow(/"deploy" with token 1 is over: nobody holds it/);
    expect(lease.signal.aborted).toBe(true);
    await expect(lease.extend()).rejects.toThrow(LockConflictError);
    const next = await all.acquire('deploy', { holder: 'bob' });
    expect(() => all.assertHeld(lease)).toThrow(/"bob" holds it \(token 2\)/);
    all.assertHeld(next);
  });

  test('is held longer when it is extended', async () => {
    const { leases: all, clock } = leases();
    const lease = await all.acquire('deploy', { ttlMs: 5_000 });
    advance(clock, 4_000);
    await lease.extend();
    advance(clock, 4_999);
    all.assertHeld(lease);
    advance(clock, 1);
    expect(lease.signal.aborted).toBe(true);
  });

  test('goes to the next one when the first who waits is called off at that very moment', async () => {
    const { leases: all } = leases();
    const held = await all.acquire('deploy', { holder: 'ada', ttlMs: 5_000 });
    const controller = new AbortController();
    // Called off by the end of the lease itself, just before it is passed on.
    held.signal.addEventListener('abort', () => controller.abort());
    const first = all.acquire('deploy', { waitMs: 60_000, signal: controller.signal });
    const called = expect(first).rejects.toThrow('was called off');
    const second = all.acquire('deploy', { holder: 'cleo', waitMs: 60_000 });
    await new Promise((resolve) => setImmediate(resolve));
    await held.release();
    await called;
    // Nobody moves the clock: it must not need the time at which the old lease would have expired.
    expect(await second).toMatchObject({ holder: 'cleo', token: 2 });
  });

  test('goes to those who wait in their order, as soon as it is free', async () => {
    const { leases: all, clock } = leases();
    const first = await all.acquire('deploy', { ttlMs: 5_000 });
    const had: string[] = [];
    const wait = (holder: string): Promise<Lease> =>
      all.acquire('deploy', { holder, waitMs: 60_000, ttlMs: 5_000 }).then((lease) => {
        had.push(holder);
        return lease;
      });
    const second = wait('second');
    const third = wait('third');
    await settle();
    await first.release();
    const lease = await second;
    expect(had).toEqual(['second']);
    await settle();
    // The second never lets go: its time ends.
    advance(clock, 5_000);
    expect(await third).toMatchObject({ holder: 'third', token: 3 });
    expect(lease.signal.aborted).toBe(true);
  });

  test('is not waited for longer than was said, nor after the signal', async () => {
    const { leases: all, clock } = leases();
    await all.acquire('deploy');
    const inTime = all.acquire('deploy', { holder: 'bob', waitMs: 1_000 });
    const controller = new AbortController();
    const aborted = all.acquire('deploy', { waitMs: 30_000, signal: controller.signal });
    await settle();
    advance(clock, 1_000);
    await expect(inTime).rejects.toThrow(/is held by "app"/);
    controller.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('Waiting for the lease "deploy" was called off.');
  });

  test('is renewed while the work lasts, and let go of when it ends or throws', async () => {
    const { leases: all, clock } = leases();
    const done = Promise.withResolvers<string>();
    let lease: Lease | undefined;
    const result = all.withLease('deploy', async (held) => {
      lease = held;
      return await done.promise;
    });
    await settle();
    for (let i = 0; i < 20; i++) {
      advance(clock, 19_999);
      await settle();
      advance(clock, 1);
      await settle();
      all.assertHeld(lease as Lease);
    }
    done.resolve('deployed');
    expect(await result).toBe('deployed');
    expect(await all.list()).toEqual([]);
    const failing = all.withLease('deploy', () => Promise.reject(new Error('no')));
    await expect(failing).rejects.toThrow('no');
    expect(await all.list()).toEqual([]);
    expect((await all.acquire('deploy')).token).toBe(3);
  });

  test('that was lost in the middle of the work makes the work fail', async () => {
    const { leases: all, clock } = leases();
    const done = Promise.withResolvers<void>();
    let lease: Lease | undefined;
    const result = all.withLease('deploy', async (held) => {
      lease = held;
      await done.promise;
    });
    await settle();
    // The process stood still for longer than the lease lives.
    leap(clock, 60_001);
    done.resolve();
    await expect(result).rejects.toThrow(/is over/);
    expect(lease?.signal.aborted).toBe(true);
  });

  test('ends with the runtime, and so does the wait for one', async () => {
    const { leases: all, store } = leases();
    const lease = await all.acquire('deploy');
    const waiting = all.acquire('deploy', { waitMs: 30_000 });
    const refused = expect(waiting).rejects.toThrow(StoppedError);
    await settle();
    all.close(new StoppedError());
    await refused;
    expect(lease.signal.aborted).toBe(true);
    await expect(all.acquire('other')).rejects.toThrow(StoppedError);
    // The next owner need not wait for it to expire.
    const next = leases(new MemoryStore(store.data));
    expect((await next.leases.acquire('deploy')).token).toBe(2);
  });

  test.each([
    { what: 'an empty name', act: (all: Leases) => all.acquire(''), says: /name of a lease/ },
    {
      what: 'half a character',
      act: (all: Leases) => all.acquire('\ud800'),
      says: /name of a lease to be a text of 1 to 500 characters/,
    },
    {
      what: 'no time',
      act: (all: Leases) => all.acquire('a', { ttlMs: 0 }),
      says: /Expected ttlMs of a lease .* from 1, got 0/,
    },
    {
      what: 'a wait that is no number',
      act: (all: Leases) => all.acquire('a', { waitMs: Number.NaN }),
      says: /waitMs .* got NaN/,
    },
  ])('$what is refused', async ({ act, says }) => {
    await expect(act(leases().leases)).rejects.toThrow(says);
  });

  propertyTest.prop([
    fc.array(
      fc.oneof(
        fc.record({ do: fc.constant('acquire' as const), who: fc.nat(2), ttlMs: fc.nat(50) }),
        fc.record({ do: fc.constant('release' as const), who: fc.nat(2) }),
        fc.record({ do: fc.constant('extend' as const), who: fc.nat(2), ttlMs: fc.nat(50) }),
        fc.record({ do: fc.constant('pass' as const), ms: fc.nat(60), late: fc.boolean() }),
        fc.record({ do: fc.constant('restart' as const) }),
      ),
      { maxLength: 40 },
    ),
  ])('at every moment at most one fence is let through, and tokens only grow', async (steps) => {
    let { store, clock, leases: all } = leases();
    const held: (Lease | undefined)[] = [];
    let newest = 0;
    for (const step of steps) {
      switch (step.do) {
        case 'acquire': {
          const ttlMs = step.ttlMs + 1;
          const lease = await all.acquire('x', { ttlMs }).catch(() => undefined);
          if (lease === undefined) break;
          expect(lease.token).toBeGreaterThan(newest);
          newest = lease.token;
          held[step.who] = lease;
          break;
        }
        case 'release':
          // The process that has it may be dead: then its store says so.
          await held[step.who]?.release().catch(() => undefined);
          break;
        case 'extend':
          await held[step.who]?.extend(step.ttlMs + 1).catch(() => undefined);
          break;
        case 'pass':
          if (step.late) leap(clock, step.ms);
          else advance(clock, step.ms);
          break;
        case 'restart':
          store = new MemoryStore(store.data);
          all = new Leases(store, clock);
          break;
      }
      const through = new Set(
        held.filter((lease) => lease !== undefined && passes(all, lease)).map((l) => l?.token),
      );
      expect(through.size).toBeLessThanOrEqual(1);
      const stored = await all.list();
      expect([...through]).toEqual(stored.map(({ token }) => token));
    }
  });
});

function passes(all: Leases, lease: Lease): boolean {
  try {
    all.assertHeld(lease);
    return true;
  } catch {
    return false;
  }
}

/** Time passes, and each timer fires at its time. */
function advance(clock: SimulatedClock, ms: number): void {
  const until = clock.now() + ms;
  while (clock.step(until));
  clock.jump(until);
}

/** Time passes, and no timer has fired yet: the process stood still. */
function leap(clock: SimulatedClock, ms: number): void {
  clock.jump(clock.now() + ms);
}

/** Lets what was promised happen; the memory store answers at once. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}
