// One life of a runtime whose task has done its steps and is cancelled: it takes them back, and dies where it is told to.
// Orders: see `CompensationOrders`. Says `done` with the task's status when it is cancelled.
import { appendFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pino } from 'pino';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { createTroupe } from '../../src/troupe.ts';

export interface CompensationOrders {
  readonly store: string;
  /** One line for each call of a compensation: `began n`, then `ended n`. */
  readonly history: string;
  /** A file for each step that was taken back, named by the key it was given. */
  readonly takenBack: string;
  readonly steps: number;
  /** Taking this step back fails. */
  readonly failing: number;
  /** Dies by SIGKILL in the middle of taking this step back. */
  readonly dieIn?: number;
  /** For `FaultPoints`, armed when the task is being cancelled. */
  readonly faults?: string;
}

const orders = JSON.parse(process.argv[2] ?? '{}') as CompensationOrders;
const note = (line: string): void => appendFileSync(orders.history, `${line}\n`);
const faults = orders.faults === undefined ? undefined : new FaultPoints(orders.faults);
let isArmed = false;

const troupe = await createTroupe({
  store: orders.store,
  durability: 'normal',
  logger: pino({ level: 'fatal' }, pino.destination(2)),
  faultPoint: (name) => (isArmed ? faults?.hit(name) : undefined),
});

troupe.agent(
  'worker',
  async ({ step, signal }) => {
    for (let n = 1; n <= orders.steps; n++) await step('part', { key: n }, () => n);
    process.stdout.write('working\n');
    await new Promise<void>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  },
  {
    compensate: {
      part: ({ result, key }) => {
        isArmed = true;
        note(`began ${String(result)}`);
        if (result === orders.failing) throw new Error('It cannot be taken back.');
        // Once for a key, however often it is called: as a service that de-duplicates.
        const file = path.join(orders.takenBack, encodeURIComponent(key));
        try {
          writeFileSync(file, String(result), { flag: 'wx' });
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        }
        if (result === orders.dieIn) process.kill(process.pid, 'SIGKILL');
        note(`ended ${String(result)}`);
      },
    },
  },
);
troupe.gatekeeper('nod', () => ({ accepted: true, evidence: ['seen'] }));

const isNew = (await troupe.runs()).length === 0;
const run = await troupe.start({
  id: 'r',
  tasks: [{ id: 't', agent: 'worker', gatekeeper: 'nod' }],
});
if (isNew) {
  await new Promise<void>((resolve) => {
    const off = troupe.on('effectStarted', ({ src }) => {
      if (src !== 'engine') return;
      off();
      resolve();
    });
  });
  while ((await troupe.store.loadSteps('task/r/t@1')).length < orders.steps) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  await run.cancel('Not needed.');
}
const { tasks } = await run.result();
process.stdout.write(`done ${JSON.stringify(tasks[0])}\n`);
await troupe.stop();
