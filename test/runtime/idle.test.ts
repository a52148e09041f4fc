import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { assign, setup } from 'xstate';
import { parseRetention } from '../../src/actors/retention.ts';
import { DurableHost } from '../../src/runtime/durable-host.ts';
import { EMPTY_BATCH } from '../../src/store/empty-batch.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import type { Store } from '../../src/store/store.ts';
import { SimulatedClock } from './simulated-clock.ts';

const DAY = 86_400_000;

/** Wakes up after a month, and counts. */
const sleeper = setup({
  types: { context: {} as { readonly woken: number } },
  actions: { count: assign(({ context }) => ({ woken: context.woken + 1 })) },
  delays: { month: 30 * DAY },
}).createMachine({
  id: 'sleeper',
  context: { woken: 0 },
  initial: 'asleep',
  states: { asleep: { after: { month: { target: 'asleep', reenter: true, actions: 'count' } } } },
});

test('nothing is due: no statement is executed, and the writer is not even asked', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-idle-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const statements: string[] = [];
  const store = await openSqliteStore({
    path: join(directory, 'state.db'),
    onStatement: (sql) => statements.push(sql),
  });
  const calls: string[] = [];
  const watched = new Proxy<Store>(store, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        calls.push(String(key));
        return value.apply(target, args);
      };
    },
  });
  const clock = new SimulatedClock(1_000 * DAY);
  const open = (): DurableHost =>
    new DurableHost({
      store: watched,
      clock,
      logger: pino({ level: 'silent' }),
      newId: () => crypto.randomUUID(),
      retention: parseRetention(),
    });
  const host = open();
  onTestFinished(() => host.stop());
  host.register('sleeper', sleeper);
  await host.open();
  const addresses = Array.from({ length: 20 }, (_, i) => `sleeper/${i}` as const);
  await host.spawn(addresses.map((address) => ({ address, machine: 'sleeper' })));
  // One waits for a machine that nobody knows: it is parked.
  await store.commit({
    ...EMPTY_BATCH,
    actors: [
      {
        address: 'stranger/x',
        machine: 'stranger',
        version: 1,
        status: 'active',
        seq: 0,
        parent: null,
        reason: null,
        updatedAt: 0,
      },
    ],
    checkpoints: [
      {
        address: 'stranger/x',
        seq: 0,
        at: 0,
        kind: 'auto',
        label: null,
        version: 1,
        eventJson: null,
        snapshotJson: '{}',
        pendingJson: null,
        detailsJson: null,
      },
    ],
  });
  await host.send('stranger/x', { type: 'stranger.greet' });
  /** Lets what is due happen; each call to the store is answered before more time passes. */
  const pass = async (ms: number): Promise<void> => {
    const until = clock.now() + ms;
    do {
      await new Promise((resolve) => setImmediate(resolve));
      await store.assertOwner();
    } while (clock.step(until));
    clock.jump(until);
  };
  // Everybody leaves memory, and the round after opening is over.
  await pass(60 * 60_000);
  expect(host.load.actors).toBe(1);
  expect(calls).toContain('prune');
  await store.assertOwner();
  await store.listRuns();
  calls.length = 0;
  statements.length = 0;

  let timers = 0;
  const until = clock.now() + 28 * DAY;
  for (; clock.step(until); timers++) await new Promise((resolve) => setImmediate(resolve));
  clock.jump(until);
  expect(calls).toEqual([]);
  expect(statements).toEqual([]);
  expect(timers).toBeLessThan(5);
  // And when something is due it is done.
  await pass(3 * DAY);
  expect(calls).toContain('commit');
  expect(statements.length).toBeGreaterThan(20);
  expect((await store.listActors({ kind: 'sleeper' })).map(({ seq }) => seq)).toEqual(
    addresses.map(() => 1),
  );
});
