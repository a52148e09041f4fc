import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { parseRetention } from '../../src/actors/retention.ts';
import { DurableHost } from '../../src/runtime/durable-host.ts';
import type { Retention } from '../../src/runtime/housekeeping.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import type { Pruned, PruneSlice, Store } from '../../src/store/store.ts';
import { endedRun } from '../store/pruning-contract.ts';
import { batch, deadLetter } from '../store/rows.ts';
import { counterMachine } from './machines.ts';
import { SimulatedClock } from './simulated-clock.ts';

const DAY = 86_400_000;
const NOW = 1_000 * DAY;

/** Counts what is asked of it, and can fail or hold what is pruned. */
class WatchedStore extends MemoryStore {
  readonly slices: PruneSlice[] = [];
  fails = false;
  override prune(slice: PruneSlice): Promise<Pruned> {
    this.slices.push(slice);
    return this.fails ? Promise.reject(new Error('the disk is full')) : super.prune(slice);
  }
  rounds(): number {
    return this.slices.filter(({ what, from }) => what === 'space' && from === 0).length;
  }
}

interface World {
  readonly store: WatchedStore;
  readonly clock: SimulatedClock;
  readonly host: DurableHost;
  readonly warnings: string[];
  /** Lets everything happen that is due within so long. */
  pass(ms: number): Promise<void>;
  turns(count: number): Promise<void>;
}

async function open(retention: Retention | undefined, store = new WatchedStore()): Promise<World> {
  const clock = new SimulatedClock(NOW);
  const warnings: string[] = [];
  const host = new DurableHost({
    store: store as Store,
    clock,
    logger: pino(
      { level: 'warn' },
      { write: (line: string) => warnings.push((JSON.parse(line) as { msg: string }).msg) },
    ),
    newId: () => crypto.randomUUID(),
    retention,
  });
  host.register('counter', counterMachine);
  onTestFinished(() => host.stop());
  await host.open();
  await host.spawn([{ address: 'counter/ada', machine: 'counter' }]);
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  return {
    store,
    clock,
    host,
    warnings,
    async pass(ms) {
      const until = clock.now() + ms;
      do await settled();
      while (clock.step(until));
      clock.jump(until);
    },
    async turns(count) {
      for (let i = 0; i < count; i += 500) {
        const some = Array.from({ length: Math.min(500, count - i) });
        await Promise.all(some.map(() => host.request('counter/ada', { type: 'incAndCount' })));
      }
    },
  };
}

test('one round after opening, one after so many turns, and none in between', async () => {
  const world = await open(parseRetention({ checkpointsPerActor: 10 }));
  await world.pass(DAY);
  expect(world.store.rounds()).toBe(1);
  expect(world.store.slices.map(({ what }) => what)).toEqual([
    'runs',
    'deadLetters',
    'audit',
    'streams',
    'idempotency',
    'checkpoints',
    'space',
  ]);
  await world.turns(4_000);
  await world.pass(DAY);
  expect(world.store.rounds()).toBe(1);
  await world.turns(200);
  await world.pass(DAY);
  expect(world.store.rounds()).toBe(2);
  const checkpoints = await world.store.listCheckpoints('counter/ada');
  expect(checkpoints.map(({ seq }) => seq)).toEqual(
    Array.from({ length: 10 }, (_, i) => 4_200 - 9 + i),
  );
});

test('without a limit nothing is removed', async () => {
  const world = await open(parseRetention(false));
  await world.turns(4_500);
  await world.pass(DAY);
  expect(world.store.slices).toEqual([]);
  expect(await world.store.listCheckpoints('counter/ada')).toHaveLength(4_501);
});

test('what is due by time goes at the next round, and what is in use stays', async () => {
  const store = new WatchedStore();
  await store.commit(endedRun('old', 2, NOW - 31 * DAY));
  await store.commit(endedRun('young', 2, NOW - 29 * DAY));
  await store.commit(endedRun('used', 2, NOW - 31 * DAY));
  await store.commit(
    batch({
      deadLetters: [
        deadLetter({ id: 'old', at: NOW - 15 * DAY }),
        deadLetter({ id: 'young', at: NOW - 13 * DAY }),
      ],
    }),
  );
  const world = await open(parseRetention(), store);
  // It is read for this, and stays in memory for a while.
  await world.host.send('task/used/t0', { type: 'task.enable' });
  await world.host.flush();
  expect(world.host.load.actors).toBe(2);
  await world.pass(1_000);
  expect((await store.listRuns()).map(({ run }) => run).sort()).toEqual(['used', 'young']);
  expect((await store.listDeadLetters()).map(({ id }) => id)).toContain('young');
  expect((await store.listDeadLetters()).map(({ id }) => id)).not.toContain('old');
  // It has left memory by now.
  await world.pass(10 * 60_000);
  const report = await world.host.prune(parseRetention() as Retention);
  expect(report.removed).toMatchObject({ runs: 1, tasks: 2, actors: 3 });
  expect((await store.listRuns()).map(({ run }) => run)).toEqual(['young']);
});

test('by hand it is done at once, and a round that is under way gives way', async () => {
  const world = await open(parseRetention());
  await world.turns(300);
  const by = (checkpointsPerActor: number): Retention =>
    parseRetention({ checkpointsPerActor }) as Retention;
  // The round after opening waits for its first slice, which no time will ever let it do.
  const [first, second] = await Promise.all([world.host.prune(by(50)), world.host.prune(by(5))]);
  expect(first.removed).toEqual({ checkpoints: 251 });
  expect(second.removed).toEqual({ checkpoints: 45 });
  expect(await world.store.listCheckpoints('counter/ada')).toHaveLength(5);
  expect(world.store.slices.filter(({ what }) => what === 'space')).toMatchObject([
    { mayStay: 0 },
    { mayStay: 0 },
  ]);
});

test('a store that cannot remove is no reason to stop: it is said, and tried again', async () => {
  const world = await open(parseRetention({ checkpointsPerActor: 1 }));
  world.store.fails = true;
  await world.pass(1_000);
  expect(world.warnings).toEqual(['old history could not be removed; it is tried again later']);
  await expect(world.host.prune(parseRetention() as Retention)).rejects.toThrow('the disk is full');
  world.store.fails = false;
  await world.turns(4_200);
  await world.pass(1_000);
  expect(await world.store.listCheckpoints('counter/ada')).toHaveLength(1);
});

test('a host that stops begins no other slice', async () => {
  const world = await open(parseRetention());
  await world.host.stop();
  await world.pass(DAY);
  expect(world.store.slices).toEqual([]);
  await expect(world.host.prune(parseRetention() as Retention)).rejects.toThrow(/stopped/);
});

test.each<{ options: object; says: string }>([
  {
    options: { checkpointsPerActor: 0 },
    says: 'retention: expected checkpointsPerActor to be a positive integer, got 0',
  },
  {
    options: { checkpoints: 5 },
    says: 'retention: there is no setting "checkpoints". Did you mean',
  },
  {
    options: { finishedRunsDays: '30' },
    says: 'retention: expected finishedRunsDays to be a number from 0 to 36500, got the text "30"',
  },
  { options: { deadLetterDays: -1 }, says: 'expected deadLetterDays to be a number from 0 to' },
  { options: { deadLetters: 1.5 }, says: 'expected deadLetters to be a positive integer, got 1.5' },
  { options: [], says: 'retention: expected an object with settings, got an array' },
])('$options is refused', ({ options, says }) => {
  expect(() => parseRetention(options)).toThrow(says);
});
