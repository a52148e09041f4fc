import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { ALL_FAULTS } from '../extent.ts';
import { Life, randomFrom, scratch } from './life.ts';
import type { StepOrders } from './steps.child.ts';

/*
 * Steps that run side by side, and rows of the app in step.tx, in a process that is killed with SIGKILL again and
 * again. Two witnesses: the history that the agents have written themselves, and the rows.
 */

const TASKS = 30;
const PARALLEL = 6;
/** `npm run faults` takes more time for it. */
const KILLS_AROUND_COMMITS = ALL_FAULTS ? 40 : 8;
const KILLS_AT_RANDOM = ALL_FAULTS ? 20 : 4;

const POINTS = [
  'store.before-begin',
  'store.mid-transaction',
  'store.before-commit',
  'store.after-commit',
  'step.before-save',
  'host.before-commit',
  'host.after-commit',
  'effect.after-end',
] as const;

function newOrders(): StepOrders {
  const directory = scratch();
  return {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.txt'),
    tasks: TASKS,
    parallel: PARALLEL,
  };
}

/** What is stored now: rows and steps of step.tx are there both or neither, and none is there twice. */
function checkStore({ store }: StepOrders): number {
  const db = new Database(store, { readonly: true });
  try {
    const hasTable = db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'app_done'").get();
    if (hasTable === undefined) return 0;
    const rows = db
      .prepare("SELECT 'task/' || run || '/' || task || '@' || attempt FROM app_done ORDER BY 1")
      .pluck()
      .all() as string[];
    const steps = db
      .prepare("SELECT scope FROM steps WHERE kind = 'tx' ORDER BY 1")
      .pluck()
      .all() as string[];
    expect(new Set(rows).size).toBe(rows.length);
    expect(rows).toEqual(steps);
    return rows.length;
  } finally {
    db.close();
  }
}

/** A step that had returned has not run again; one that had not ran at most once in each life. */
function checkHistory({ history }: StepOrders, lives: number): number {
  const kept = new Set<string>();
  const runs = new Map<string, number>();
  let repeated = 0;
  for (const line of readFileSync(history, 'utf8').trim().split('\n')) {
    const [what, ...name] = line.split(' ');
    const step = name.join(' ');
    if (what === 'kept') {
      kept.add(step);
      continue;
    }
    expect(kept.has(step), `${step} ran again after it was kept`).toBe(false);
    const count = (runs.get(step) ?? 0) + 1;
    runs.set(step, count);
    expect(count).toBeLessThanOrEqual(lives);
    if (count === 2) repeated++;
  }
  return repeated;
}

async function runToTheEnd(orders: StepOrders, kills: number): Promise<void> {
  const life = new Life('steps', { ...orders });
  const runs = Number((await life.line('done ')).slice('done '.length));
  await life.finished();
  // Each task was done in its first attempt: a crash costs none.
  expect(checkStore(orders)).toBe(TASKS * runs);
  const repeated = checkHistory(orders, kills + 1);
  // Of all that were done, only what was between its end and its commit when the process died.
  expect(repeated).toBeLessThanOrEqual(kills * 4 * PARALLEL);
}

test.concurrent('killed around every commit: both or neither, and each row once', async () => {
  const orders = newOrders();
  const random = randomFrom(41);
  for (let kill = 0; kill < KILLS_AROUND_COMMITS; kill++) {
    const faults = `${POINTS[kill % POINTS.length]}:kill:${1 + random(25)}`;
    const life = new Life('steps', { ...orders, endless: true, faults });
    expect(await life.death(), `${faults}: ${life.stderr}`).toBe('SIGKILL');
    if (existsSync(orders.store)) checkStore(orders);
  }
  await runToTheEnd(orders, KILLS_AROUND_COMMITS);
}, 300_000);

test.concurrent('killed at random times while steps run side by side, only the unfinished run again', async () => {
  const orders = newOrders();
  const random = randomFrom(42);
  for (let kill = 0; kill < KILLS_AT_RANDOM; kill++) {
    const life = new Life('steps', { ...orders, endless: true });
    await life.line('open');
    await new Promise((resolve) => setTimeout(resolve, 5 + random(40)));
    life.kill();
    expect(await life.death(), life.stderr).toBe('SIGKILL');
    checkStore(orders);
  }
  await runToTheEnd(orders, KILLS_AT_RANDOM);
}, 300_000);
