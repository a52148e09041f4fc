import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import type { Address } from '../../src/protocol/address.ts';
import { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe } from '../../src/troupe.ts';
import { ALL_FAULTS } from '../extent.ts';
import { counterMachine } from '../runtime/machines.ts';
import { SimulatedClock } from '../runtime/simulated-clock.ts';
import { usedHeap } from '../used-heap.ts';

/*
 * D09: a day of work, compressed by the clock. Runs are started, done and forgotten; actors of the app count and fall
 * asleep; orders, keys and dead letters come and go by the rules of retention. Afterwards there is no more in memory than
 * after the first part of it, and the store has what the rules say, no more.
 */

const EVENTS = ALL_FAULTS ? 1_000_000 : 30_000;
const POINTS = 10;
const DAY_MS = 86_400_000;
/** Until then caches fill, code is compiled, and the first history is younger than anything that is removed. */
const WARM_POINTS = 4;

/** Least squares: by how much `values` grow from one point to the next. */
function slope(values: readonly number[]): number {
  const mean = (numbers: readonly number[]): number =>
    numbers.reduce((sum, n) => sum + n, 0) / numbers.length;
  const x = mean(values.map((_, n) => n));
  const y = mean(values);
  const above = values.reduce((sum, value, n) => sum + (n - x) * (value - y), 0);
  return above / values.reduce((sum, _, n) => sum + (n - x) ** 2, 0);
}

test(`D09: ${EVENTS} events in a day of the clock leave nothing behind but what the rules keep`, {
  timeout: ALL_FAULTS ? 1_800_000 : 180_000,
}, async () => {
  const heap = usedHeap();
  const clock = new SimulatedClock(1_000 * DAY_MS);
  const data = new MemoryData();
  const retention = {
    checkpointsPerActor: 5,
    finishedRunsDays: ALL_FAULTS ? 0.01 : 0.05,
    deadLetterDays: 0.05,
    deadLetters: 20,
    auditDays: 0.05,
    auditEntries: 50,
  };
  const troupe = await createTroupe({
    store: new MemoryStore(data),
    clock,
    logger: pino({ level: 'silent' }),
    retention,
    idempotencyTtlMs: 3_600_000,
    heartbeatMs: 0,
  });
  onTestFinished(() => troupe.stop());
  troupe.agent('writer', async ({ task, step }) => await step('write', () => `${task.id} done`), {
    concurrency: 4,
  });
  troupe.gatekeeper('editor', () => ({ accepted: true, evidence: ['read it'] }), {
    concurrency: 4,
  });
  troupe.register(counterMachine);
  await troupe.spawn(counterMachine, { id: 'counter/poison' });

  let events = 0;
  troupe.on('turn', () => {
    events++;
  });
  const perPoint = EVENTS / POINTS;
  const heaps: number[] = [];
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const pass = async (ms: number): Promise<void> => {
    const until = clock.now() + ms;
    while (clock.step(until)) await settled();
    clock.jump(until);
    await settled();
  };
  for (let round = 0; heaps.length < POINTS; round++) {
    const before = events;
    const run = await troupe.start({
      id: `run-${round}`,
      tasks: Array.from({ length: 8 }, (_, n) => ({
        id: `t${n}`,
        agent: 'writer',
        gatekeeper: 'editor',
        dependsOn: n < 4 ? [] : [`t${n - 4}`],
        staged: n === 7,
      })),
    });
    await run.task('t7').cancel('Not needed.', 'ada');
    expect((await run.result()).state).toBe('done');
    const counter: Address = `counter/number-${round % 300}`;
    await troupe.spawn(counterMachine, { id: counter });
    for (let n = 0; n < 10; n++) {
      await troupe.send(counter, { type: 'inc' } as never, {
        idempotencyKey: `${round}/${n}`,
      });
    }
    await troupe.send('counter/poison', { type: 'throw' } as never);
    await troupe.host.flush();
    await pass(((events - before) / EVENTS) * DAY_MS);
    if (events >= (heaps.length + 1) * perPoint) {
      await troupe.prune();
      heaps.push(heap());
    }
  }

  // The rules. What is younger stays, so something must be there.
  const keys = [...data.idempotency.values()];
  expect(keys.length).toBeGreaterThan(0);
  expect(keys.every(({ expiresAt }) => expiresAt > clock.now())).toBe(true);
  expect(data.deadLetters.length).toBeGreaterThan(0);
  expect(data.deadLetters.length).toBeLessThanOrEqual(retention.deadLetters);
  expect(data.audit.length).toBeGreaterThan(0);
  expect(data.audit.length).toBeLessThanOrEqual(retention.auditEntries);
  const youngest = clock.now() - retention.finishedRunsDays * DAY_MS;
  const runs = [...data.runs.values()];
  expect(runs.length).toBeGreaterThan(0);
  expect(runs.filter(({ endedAt }) => endedAt !== null && endedAt < youngest)).toEqual([]);
  for (const [address, list] of data.checkpoints) {
    const daily = list.filter(({ kind, label }) => kind === 'auto' && label === null);
    expect(daily.length, address).toBeLessThanOrEqual(retention.checkpointsPerActor + 1);
    if (!address.startsWith('task/') && !address.startsWith('run/')) continue;
    expect(data.runs.has(address.split('/')[1] ?? ''), address).toBe(true);
  }
  // The heap: kept, a turn takes about 1 kB, so everything kept would be ten times as much as is allowed here.
  const growth = slope(heaps.slice(WARM_POINTS)) / perPoint;
  const inWords = heaps.map((bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`).join(', ');
  expect(growth, `bytes of heap per event; at the points: ${inWords}`).toBeLessThan(
    ALL_FAULTS ? 10 : 100,
  );
});
