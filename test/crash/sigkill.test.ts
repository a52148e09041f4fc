import path from 'node:path';
import { expect, test } from 'vitest';
import { ALL_FAULTS } from '../extent.ts';
import { readHistory } from './history.ts';
import { checkInvariants } from './invariants.ts';
import { Life, randomFrom, scratch } from './life.ts';
import { planOf, type WorkerOrders } from './workload.ts';

/*
 * A workload of runs of 400 tasks is killed again and again with SIGKILL and then run to its end. Two witnesses:
 * the store, and the history that agents and gatekeepers have written themselves.
 */

const TASKS = 400;
/** Of the 205 kills of `npm run faults` the gate has a quarter: each point once, and as many at random. */
const KILLS_FROM_OUTSIDE = ALL_FAULTS ? 100 : 25;
const KILLS_AT_POINTS = ALL_FAULTS ? 105 : 26;

/** Every point of host and store that a life without a project passes. */
const POINTS = [
  'host.before-commit',
  'host.after-commit',
  'host.after-effects',
  'bus.deliver',
  'effect.before-start',
  'effect.after-end',
  'step.before-save',
  'store.before-begin',
  'store.mid-transaction',
  'store.before-commit',
  'store.after-commit',
] as const;

/** Of all lives of one workload. */
interface Workload {
  readonly orders: WorkerOrders;
  kills: number;
}

function newWorkload(durability: 'full' | 'normal'): Workload {
  const directory = scratch();
  const orders = {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.jsonl'),
    durability,
    tasks: TASKS,
    workMs: 4,
  };
  return { orders, kills: 0 };
}

/** The last life: it is left alone until nothing is left to do. Then everything is looked at. */
async function runToTheEnd({ orders, kills }: Workload): Promise<void> {
  await new Life('worker', { ...orders }).finished();
  const history = readHistory(orders.history);
  const checked = await checkInvariants({
    storePath: orders.store,
    history: orders.history,
    expect: { fired: kills, failures },
  });
  expect(checked.turns).toBeGreaterThan(TASKS * 6);
  // Each life that came so far says so: these are the kills that hit an open store.
  expect(history.filter(({ op }) => op === 'opened').length).toBeGreaterThan(kills / 2);
}

/** What the agents and gatekeepers were told to refuse; a crash must add nothing to it. */
function failures(task: string): number {
  const plan = planOf(Number(task.split('/t')[1]), {});
  return plan.failures + plan.rejections;
}

/** What is stored at the moment of a kill must be consistent too, before anybody has mended anything. */
async function checkMidway({ orders, kills }: Workload): Promise<void> {
  await checkInvariants({
    storePath: orders.store,
    history: orders.history,
    expect: { fired: kills, atRest: false },
  });
}

test.concurrent('killed at random times from outside, nothing is lost and nothing happens twice', async () => {
  const workload = newWorkload('normal');
  const random = randomFrom(20_261_120);
  while (workload.kills < KILLS_FROM_OUTSIDE) {
    const life = new Life('worker', { ...workload.orders, endless: true });
    await life.line('open');
    // From here on it works; how far it comes is left to chance.
    await new Promise((resolve) => setTimeout(resolve, 20 + random(131)));
    life.kill();
    expect(await life.death(), life.stderr).toBe('SIGKILL');
    workload.kills++;
    if (workload.kills % 20 === 0) await checkMidway(workload);
  }
  await runToTheEnd(workload);
}, 600_000);

test.concurrent('killed at every crash point, nothing is lost and nothing happens twice', async () => {
  const workload = newWorkload('full');
  const random = randomFrom(7);
  const firstHits = POINTS.map((point) => `${point}:kill:1`);
  const lockPoints = ['lock.created:kill:1', 'lock.stolen:kill:1'];
  for (let n = 0; workload.kills < KILLS_AT_POINTS; n++) {
    const point = POINTS[n % POINTS.length] as string;
    const faults =
      [...lockPoints, ...firstHits][n] ??
      `${point}:kill:${2 + random(point === 'bus.deliver' ? 150 : 30)}`;
    const life = new Life('worker', { ...workload.orders, endless: true, faults });
    expect(await life.death(), `${faults}: ${life.stderr}`).toBe('SIGKILL');
    workload.kills++;
    if (workload.kills % 20 === 0) await checkMidway(workload);
  }
  await runToTheEnd(workload);
}, 600_000);
