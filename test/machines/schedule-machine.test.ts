import { expect, test } from 'vitest';
import {
  type ScheduleContext,
  type ScheduleInput,
  scheduleMachine,
} from '../../src/machines/schedule-machine.ts';
import { Driven, START } from './driven.ts';

const HOUR = 3_600_000;
const machine = new Driven(scheduleMachine, 'schedule/nightly');
const input: ScheduleInput = {
  ...{ id: 'nightly', createdAt: START, hash: 'a' },
  definition: {
    timing: { everyMs: HOUR, anchorMs: START },
    action: { start: { template: 'report' } },
    ...{ missed: 'one', missedAtMost: 1, lateAfterMs: HOUR, overlap: 'skip', queueAtMost: 1 },
  },
};
const contextOf = ({ snapshot }: { snapshot: { context: unknown } }): ScheduleContext =>
  snapshot.context as ScheduleContext;

test('a run that has ended is not started again, though its start has not said yet that it is done', () => {
  const begun = machine.begin(input);
  const [timer] = begun.pending.timers.values();
  const due = machine.take(begun, { type: timer?.event.type ?? 'none' }, { at: START + HOUR });
  const [run] = contextOf(due).running.map(({ key }) => key);
  expect([...due.pending.effects]).toEqual([`start:${run}`]);
  // What is not stopped begins again after a crash; it would not find the run if that has been pruned by then.
  const ended = machine.take(due, { type: 'schedule.runEnded', run, state: 'done' });
  expect([...ended.pending.effects]).toEqual([]);
  expect(contextOf(ended).running).toEqual([]);
});

test('a run that is told twice to go on is running once', () => {
  const reopened = { type: 'schedule.runReopened', run: 'nightly-1' };
  const once = machine.take(machine.begin(input), reopened);
  expect(contextOf(machine.take(once, reopened)).running).toEqual([
    { key: 'nightly-1', dueAt: START },
  ]);
});
