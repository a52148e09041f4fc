// One life of a runtime whose agent writes to a stream and whose reader reads along, until it is killed or to the end.
// Orders: see `StreamOrders`. Says `done` when nothing is left to do.
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { pino } from 'pino';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { createTroupe } from '../../src/troupe.ts';

export interface StreamOrders {
  readonly store: string;
  /** One line for each chunk that the reader was given: its offset and its value. It goes on after the last one. */
  readonly history: string;
  readonly chunks: number;
  /** For `FaultPoints`. */
  readonly faults?: string;
}

const orders = JSON.parse(process.argv[2] ?? '{}') as StreamOrders;
const faults = orders.faults === undefined ? undefined : new FaultPoints(orders.faults);

const troupe = await createTroupe({
  store: orders.store,
  durability: 'normal',
  logger: pino({ level: 'fatal' }, pino.destination(2)),
  ...(faults === undefined ? {} : { faultPoint: faults.hit }),
});

troupe.agent('writer', async ({ write, progress, stream }) => {
  for (let n = 0; n < orders.chunks; n++) {
    progress({ percent: Math.floor((n / orders.chunks) * 10) * 10 });
    // Some are waited for, some not.
    const written = write({ n });
    if (n % 3 === 0) await written;
  }
  await stream().close();
  return null;
});
troupe.gatekeeper('nod', () => ({ accepted: true, evidence: ['seen'] }));

const run = await troupe.start({
  id: 'r',
  limits: { interruptions: 1_000, infrastructureAttempts: 1_000 },
  tasks: [{ id: 't', agent: 'writer', gatekeeper: 'nod' }],
});
process.stdout.write('open\n');

const lines = existsSync(orders.history)
  ? readFileSync(orders.history, 'utf8').trim().split('\n')
  : [];
const from = lines.filter((line) => line !== '').length;
for await (const { offset, value } of troupe.readStream('task/r/t', { from })) {
  appendFileSync(orders.history, `${offset} ${JSON.stringify(value)}\n`);
}
const { state } = await run.result();
if (state !== 'done') throw new Error(`The run ended ${state}.`);
process.stdout.write('done\n');
await troupe.stop();
