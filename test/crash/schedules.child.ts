// One life of a runtime with two schedules, at one moment of a clock that stands still: everything that is due by then is
// dealt with, or the process is killed on the way. Orders: see `ScheduleOrders`. Says `done` and what there is, as JSON.
import { pino } from 'pino';
import { assign, setup } from 'xstate';
import type { Clock } from '../../src/runtime/clock.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { createTroupe } from '../../src/troupe.ts';

export interface ScheduleOrders {
  readonly store: string;
  /** What time it is. */
  readonly now: number;
  /** For `FaultPoints`. */
  readonly faults?: string;
}

const orders = JSON.parse(process.argv[2] ?? '{}') as ScheduleOrders;
const clock: Clock = { now: () => orders.now, setTimer: systemClock.setTimer };
const faults = orders.faults === undefined ? undefined : new FaultPoints(orders.faults);

const diary = setup({
  types: {} as { context: { notes: string[] }; events: { type: 'diary.note'; text: string } },
}).createMachine({
  id: 'diary',
  context: { notes: [] },
  on: {
    'diary.note': {
      actions: assign({ notes: ({ context, event }) => [...context.notes, event.text] }),
    },
  },
});

const troupe = await createTroupe({
  store: orders.store,
  durability: 'normal',
  retention: false,
  clock,
  logger: pino({ level: 'fatal' }, pino.destination(2)),
  ...(faults === undefined ? {} : { faultPoint: faults.hit }),
});
troupe.register(diary);
troupe.agent('worker', () => null, { concurrency: 4 });
troupe.gatekeeper('nod', () => ({ accepted: true, evidence: ['seen'] }), { concurrency: 4 });
troupe.template('work', {
  workflow: {
    ...{ agent: 'worker', gatekeeper: 'nod', limits: { interruptions: 1_000 } },
    phases: [{ id: 'work', tasks: [{ id: 'work' }] }],
  },
});
await troupe.spawn(diary, { id: 'diary/a' });
const every = { everyMs: 1_000, missed: 'all', missedAtMost: 1_000 } as const;
const message = { type: 'diary.note', text: '{{dueAt}}' };
await troupe.schedule('beat', every, { send: { to: 'diary/a', message } });
await troupe.schedule('work', { ...every, overlap: 'allow' }, { start: { template: 'work' } });

const isQuiet = async (): Promise<boolean> => {
  const schedules = await troupe.schedules.list();
  const runs = await troupe.runs();
  return (
    schedules.every(({ nextAt, running }) => (nextAt ?? 0) > orders.now && running.length === 0) &&
    runs.every(({ state }) => state === 'done')
  );
};
await new Promise<void>((resolve, reject) => {
  const look = (): void => {
    isQuiet().then((quiet) => quiet && resolve(), reject);
  };
  troupe.on('turn', look);
  look();
});
// What is sent may still be on its way.
await troupe.stop({ drain: true });
const after = await createTroupe({ store: orders.store, clock, retention: false });
after.register(diary);
await after.host.flush();
const known = await after.host.inspect('diary/a');
const { notes } = (known as NonNullable<typeof known>).snapshot.context as { notes: string[] };
const runs = (await after.runs()).map(({ id }) => id);
process.stdout.write(`done ${JSON.stringify({ notes, runs })}\n`);
await after.stop();
