import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { checkInvariants } from '../crash/invariants.ts';
import { Life, scratch } from '../crash/life.ts';
import { paths } from '../crash/project.ts';
import { ProjectUnderTest } from '../crash/project-fixture.ts';
import type { WorkerOrders } from '../crash/workload.ts';
import { ALL_FAULTS, firstOf } from '../extent.ts';
import { injecting, injectingAndWatching, needStrace } from './toolbox.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: ALL_FAULTS ? 7_200_000 : 240_000 });

/* B01, B04, B05, B10: the disk says no, for once or for good, or takes its time. */

function worker(orders: Partial<WorkerOrders> = {}): WorkerOrders {
  const directory = scratch();
  return {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.jsonl'),
    tasks: 6,
    durability: 'full',
    ...orders,
  };
}

const databaseFiles = ({ store }: WorkerOrders): readonly string[] => [store, `${store}-wal`];

/** A plain life to the end; then everything must be as if nothing had ever happened. */
async function goesOn(orders: WorkerOrders, fired: number): Promise<void> {
  await new Life('worker', { ...orders }).finished();
  await checkInvariants({ storePath: orders.store, history: orders.history, expect: { fired } });
}

/** @returns false: the life came to its end, because it has no n-th call */
async function failsAt(n: number, call: string, error: string, says: RegExp): Promise<boolean> {
  const orders = worker();
  const inject = `${call}:error=${error}:when=${n}+`;
  const life = new Life('worker', { ...orders }, {}, injecting(inject, ...databaseFiles(orders)));
  const death = await life.death();
  if (death === 0) return false;
  expect(life.stderr, `${inject} ended with ${death}`).toMatch(says);
  await goesOn(orders, 1);
  return true;
}

/** Fails the first call, then one after `stride` more …, until a life has fewer calls. */
async function loop(
  stride: (n: number) => number,
  ...fault: readonly [call: string, error: string, says: RegExp]
): Promise<number> {
  let fired = 0;
  for (let n = 1; await failsAt(n, ...fault); n += stride(n)) fired++;
  return fired;
}

/** All of them behind `npm run faults`; otherwise ever farther apart, a handful in all. */
const stride = (n: number): number => (ALL_FAULTS ? 1 : n * 6);

describe('B01: from the n-th write on the disk is full', () => {
  test('the store says so, and the next life goes on', async ({ skip }) => {
    needStrace(skip);
    const fired = await loop(stride, 'pwrite64', 'ENOSPC', /SQLITE_FULL|ENOSPC/);
    expect(fired).toBeGreaterThanOrEqual(ALL_FAULTS ? 50 : 3);
  });
});

describe('B04: from the n-th flush on the disk fails', () => {
  test('nobody knows what was stored, and the next life goes on from what was', async ({
    skip,
  }) => {
    needStrace(skip);
    const fired = await loop(stride, 'fsync,fdatasync', 'EIO', /SQLITE_IOERR|EIO/);
    expect(fired).toBeGreaterThanOrEqual(ALL_FAULTS ? 20 : 2);
  });

  test('after it not one byte is written to the database', async ({ skip }) => {
    needStrace(skip);
    const orders = worker();
    const log = `${orders.history}.calls`;
    const watched = ['fsync', 'fdatasync', 'pwrite64', 'ftruncate'];
    const under = injectingAndWatching(
      'fsync,fdatasync:error=EIO:when=12+',
      log,
      watched,
      ...databaseFiles(orders),
    );
    expect(await new Life('worker', { ...orders }, {}, under).death()).toBe(1);
    const calls = readFileSync(log, 'utf8').split('\n');
    const failed = calls.findIndex((line) => line.includes('EIO') && line.includes('INJECTED'));
    expect(failed).toBeGreaterThan(12);
    expect(calls.slice(failed + 1).filter((line) => /pwrite64|ftruncate/.test(line))).toEqual([]);
    await goesOn(orders, 1);
  });
});

test('B05: the disk becomes read-only in the middle of a run', async ({ skip }) => {
  needStrace(skip);
  expect(await failsAt(20, 'pwrite64', 'EROFS', /SQLITE_(IOERR|READONLY)/)).toBe(true);
});

describe('a commit that fails in a whole project', () => {
  // Wherever strace is not to be had: the same, said by the fault points of the product.
  test.each(
    firstOf(1, [
      'store.mid-transaction:throw:9',
      'store.before-begin:throw:6',
      'store.before-commit:throw:14',
    ]),
  )('%s: it stops, and the next one ends as if undisturbed', async (faults) => {
    using project = new ProjectUnderTest('good', 'chain-1', 'chain-2', 'flawed');
    const life = project.begin({ faults });
    expect(await life.death()).toBe(1);
    expect(life.stderr).toContain('injected fault');
    project.kills++;
    await project.checkMidway();
    await project.finish();
  });

  test('B01: the disk is full for good', async ({ skip }) => {
    needStrace(skip);
    using project = new ProjectUnderTest('good', 'chain-1', 'chain-2', 'flawed');
    const { store } = paths(project.home);
    const under = injecting('pwrite64:error=ENOSPC:when=120+', store, `${store}-wal`);
    const life = project.begin({}, under);
    expect(await life.death()).toBe(1);
    expect(life.stderr).toContain('the disk is full (SQLITE_FULL');
    project.kills++;
    await project.checkMidway();
    await project.finish();
  });
});

describe('B10: the event loop does not wait for a disk', () => {
  const measured = async (life: Life): Promise<{ p99: number; max: number }> => {
    const line = await life.line('delay ');
    await life.finished();
    return JSON.parse(line.slice('delay '.length)) as { p99: number; max: number };
  };

  test('that takes 20 ms for each flush', async ({ skip }) => {
    needStrace(skip);
    const orders = worker({ tasks: 12, measureDelay: true });
    const inject = 'fsync,fdatasync:delay_exit=20000';
    const log = `${orders.history}.calls`;
    const under = injectingAndWatching(
      inject,
      log,
      ['fsync', 'fdatasync'],
      ...databaseFiles(orders),
    );
    const { p99 } = await measured(new Life('worker', { ...orders }, {}, under));
    const slow = readFileSync(log, 'utf8')
      .split('\n')
      .filter((line) => line.includes('DELAYED'));
    // More flushes than would fit into one wait, fewer than there are turns: turns share them.
    expect(slow.length).toBeGreaterThan(10);
    expect(p99).toBeLessThan(200);
    await checkInvariants({
      storePath: orders.store,
      history: orders.history,
      expect: { fired: slow.length },
    });
  });

  test('that stands still for a second in the middle of a commit', async () => {
    const orders = worker({ measureDelay: true, faults: 'store.before-commit:delay:5:1000' });
    const { p99, max } = await measured(new Life('worker', { ...orders }));
    expect(p99).toBeLessThan(200);
    expect(max).toBeLessThan(900);
    await checkInvariants({
      storePath: orders.store,
      history: orders.history,
      expect: { fired: 1 },
    });
  });
});
