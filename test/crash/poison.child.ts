// One life of a runtime with three tasks, all under way at once; one of them kills the process each time it runs.
// Orders: see `PoisonOrders`. At its end it says of each task how it stands.
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { createTroupe } from '../../src/troupe.ts';
import { note, readHistory } from './history.ts';

/** Where the poisoned task kills the process. */
export interface PoisonOrders {
  readonly store: string;
  readonly history: string;
  readonly where: 'work.begun' | 'verify.begun';
}

const orders = JSON.parse(process.argv[2] ?? '{}') as PoisonOrders;
const IDS = ['first', 'poison', 'last'];

let underWay = 0;
const { promise: allUnderWay, resolve: meet } = Promise.withResolvers<void>();

/**
 * The first two lives are the worst case: the process dies when all three are under way and none has ended. After that
 * whoever runs, runs through; the poisoned one dies of it, and so would who runs beside it.
 */
async function passes(op: PoisonOrders['where'], task: string, attempt: number): Promise<void> {
  note(orders.history, { op, task, attempt });
  if (op !== orders.where) return;
  const times = readHistory(orders.history).filter(
    (fact) => fact.op === op && fact.task === task,
  ).length;
  if (++underWay === IDS.length) meet();
  if (task === 'r/poison') {
    if (times <= 2) await allUnderWay;
    process.kill(process.pid, 'SIGKILL');
  }
  if (times <= 2) await new Promise<never>(() => setInterval(() => undefined, 2 ** 30));
  await delay(100);
}

const troupe = await createTroupe({
  store: orders.store,
  // The invariants replay the whole journal.
  retention: false,
  durability: 'normal',
  logger: pino({ level: 'fatal' }, pino.destination(2)),
});
troupe.agent(
  'writer',
  async ({ task }) => {
    await passes('work.begun', `${task.run}/${task.id}`, task.attempt);
    return null;
  },
  { concurrency: IDS.length },
);
troupe.gatekeeper(
  'editor',
  async ({ submission }) => {
    await passes('verify.begun', `${submission.run}/${submission.id}`, submission.attempt);
    return { accepted: true, evidence: ['read'] };
  },
  { concurrency: IDS.length },
);
note(orders.history, { op: 'opened', pid: process.pid });
const run = await troupe.start({
  id: 'r',
  tasks: IDS.map((id) => ({ id, agent: 'writer', gatekeeper: 'editor' })),
});
const { tasks } = await run.result();
const told = tasks.map(({ id, state, attempts, reason }) => ({ id, state, attempts, reason }));
process.stdout.write(`tasks ${JSON.stringify(told)}\n`);
await troupe.stop();
