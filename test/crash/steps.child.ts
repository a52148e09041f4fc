// One life of a runtime whose agent does steps side by side and then writes rows of its own in step.tx, until it is
// killed or to the end of its last run. Orders: see `StepOrders`. Says `done`, and how many runs there were, when nothing is left to do.
import { appendFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { createTroupe } from '../../src/troupe.ts';

export interface StepOrders {
  readonly store: string;
  /** One line for each call of a step's function that came to its end, and one for each step that had its result. */
  readonly history: string;
  readonly tasks: number;
  readonly parallel: number;
  /** When a run has ended, start the next one. */
  readonly endless?: boolean;
  /** For `FaultPoints`. */
  readonly faults?: string;
}

const orders = JSON.parse(process.argv[2] ?? '{}') as StepOrders;
const note = (line: string): void => appendFileSync(orders.history, `${line}\n`);
const faults = orders.faults === undefined ? undefined : new FaultPoints(orders.faults);

const troupe = await createTroupe({
  store: orders.store,
  // The invariants replay the whole journal.
  retention: false,
  durability: 'normal',
  logger: pino({ level: 'fatal' }, pino.destination(2)),
  // Nothing forbids a second row for a task: that there is one is for the runtime to see to.
  appSchema: [
    'CREATE TABLE app_done (run TEXT NOT NULL, task TEXT NOT NULL, attempt INTEGER NOT NULL, parts INTEGER NOT NULL)',
  ],
  ...(faults === undefined ? {} : { faultPoint: faults.hit }),
});

troupe.agent(
  'worker',
  async ({ task, step }) => {
    const name = `${task.run}/${task.id}@${task.attempt}`;
    const parts = await Promise.all(
      Array.from({ length: orders.parallel }, async (_, n) => {
        const part = await step('part', { key: n, input: [task.id, n] }, async () => {
          await delay(1 + ((n * 7) % 5));
          note(`ran ${name} ${n}`);
          return n;
        });
        note(`kept ${name} ${n}`);
        return part;
      }),
    );
    return await step.tx('note', (tx) => {
      tx.run(
        'INSERT INTO app_done VALUES (?, ?, ?, ?)',
        task.run,
        task.id,
        task.attempt,
        parts.length,
      );
      return parts.length;
    });
  },
  { concurrency: 4 },
);
troupe.gatekeeper('nod', () => ({ accepted: true, evidence: ['seen'] }), { concurrency: 4 });

const backoff = { initialMs: 2, maxMs: 20 };
process.stdout.write('open\n');
for (let number = Math.max(1, (await troupe.runs()).length); ; number++) {
  const run = await troupe.start({
    id: `r${number}`,
    limits: {
      backoff,
      infrastructureBackoff: backoff,
      infrastructureAttempts: 1_000,
      interruptions: 1_000,
    },
    tasks: Array.from({ length: orders.tasks }, (_, n) => ({
      id: `t${n}`,
      agent: 'worker',
      gatekeeper: 'nod',
    })),
  });
  const { state } = await run.result();
  if (state !== 'done') throw new Error(`The run ended ${state}.`);
  if (orders.endless === true) continue;
  process.stdout.write(`done ${number}\n`);
  break;
}
await troupe.stop();
