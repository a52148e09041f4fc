// One life of a runtime with function agents on an SQLite file. It works off runs of tasks until it is killed,
// or to the end of its last run. Orders: see `WorkerOrders`. Says `open`, then `idle` when it has nothing to do.
import { randomUUID } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { createTroupe } from '../../src/troupe.ts';
import { note } from './history.ts';
import { type TaskPlan, type WorkerOrders, workload } from './workload.ts';

const orders = JSON.parse(process.argv[2] ?? '{}') as WorkerOrders;
const say = (line: string) => process.stdout.write(`${line}\n`);
const faults = orders.faults === undefined ? undefined : new FaultPoints(orders.faults);

const troupe = await createTroupe({
  store: orders.store,
  // The invariants replay the whole journal.
  retention: false,
  durability: orders.durability ?? 'normal',
  logger: pino({ level: 'fatal' }, pino.destination(2)),
  ...(faults === undefined ? {} : { faultPoint: faults.hit }),
});

troupe.on('turn', ({ address, machine, state }) => {
  if (machine !== 'task') return;
  const task = address.slice('task/'.length);
  if (state === 'done') note(orders.history, { op: 'told.done', task });
  // Told after the commit, so this state is what the next life finds.
  if (orders.dieWhen?.task === task && orders.dieWhen.state === state) {
    process.kill(process.pid, 'SIGKILL');
  }
});
troupe.on('deadLettered', ({ address, type, reason }) =>
  say(`dead letter ${address} ${type}: ${reason}`),
);

troupe.agent(
  'writer',
  async ({ task, step }) => {
    const name = `${task.run}/${task.id}`;
    const { attempt } = task;
    const plan = task.input as unknown as TaskPlan;
    note(orders.history, { op: 'work.begun', task: name, attempt });
    if (plan.poisonous === true) process.kill(process.pid, 'SIGKILL');
    const results: string[] = [];
    for (const key of ['draft', 'polish']) {
      const value = await step(key, async () => {
        note(orders.history, { op: 'step.begun', task: name, attempt, key });
        // Work takes a while: the time in which it can be interrupted.
        if (plan.workMs > 0) await delay(plan.workMs);
        return `${key} ${randomUUID()}`;
      });
      note(orders.history, { op: 'step.kept', task: name, attempt, key, value });
      results.push(value);
      // Told by the feedback, not by the attempt's number: an attempt that a crash has cost is not one of these.
      if (key === 'draft' && task.feedback.length < plan.failures) {
        throw new Error(`The draft of ${task.id} went wrong.`);
      }
    }
    return { results, told: task.feedback.length };
  },
  { concurrency: orders.concurrency ?? 8 },
);

troupe.gatekeeper(
  'editor',
  async ({ submission, step }) => {
    const task = `${submission.run}/${submission.id}`;
    const { attempt } = submission;
    note(orders.history, { op: 'verify.begun', task, attempt });
    const plan = submission.input as unknown as TaskPlan;
    const { results, told } = submission.result as { results: string[]; told: number };
    const read = await step('read', () => {
      note(orders.history, { op: 'step.begun', task, attempt, key: 'read' });
      return `read ${randomUUID()}`;
    });
    note(orders.history, { op: 'step.kept', task, attempt, key: 'read', value: read });
    if (results.length !== 2) return { accepted: false, reason: 'Something is missing.' };
    return told < plan.failures + plan.rejections
      ? { accepted: false, reason: `Version ${told} of ${submission.id} is not good enough.` }
      : { accepted: true, evidence: [read] };
  },
  { concurrency: orders.concurrency ?? 8 },
);

note(orders.history, { op: 'opened', pid: process.pid });
say('open');

const loop = monitorEventLoopDelay({ resolution: 5 });
if (orders.measureDelay === true) loop.enable();
let number = Math.max(1, (await troupe.runs()).length);
for (;;) {
  const run = await troupe.start({ id: `r${number}`, ...workload(number, orders) });
  const { state } = await run.result();
  say(`run ${run.id} ${state}`);
  if (orders.endless !== true) break;
  number++;
}
if (orders.measureDelay === true) {
  loop.disable();
  say(`delay ${JSON.stringify({ p99: loop.percentile(99) / 1e6, max: loop.max / 1e6 })}`);
}
say('idle');
if (faults !== undefined) say(`trace ${JSON.stringify([...faults.trace()])}`);
if (orders.linger === true) await new Promise(() => setInterval(() => undefined, 2 ** 30));
await troupe.stop();
say('stopped');
