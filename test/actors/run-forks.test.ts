import { expect, test } from 'vitest';
import { forked, movedAddress } from '../../src/actors/run-forks.ts';
import { runMachine } from '../../src/machines/run-machine.ts';
import { taskMachine } from '../../src/machines/task-machine.ts';
import { deepHash } from '../../src/protocol/hash.ts';
import { MachineDriver } from '../../src/runtime/xstate-driver.ts';
import type { StoredCut } from '../../src/store/store.ts';
import { spec } from '../machines/task-facts.ts';
import { attemptRow, checkpoint, cut, effect, message, timer } from '../store/rows.ts';

const task = spec({ run: 'r', id: 't', input: { note: 'task/r/t is what run/r calls r#1' } });
const driverOf = (machine: unknown) => new MachineDriver(machine as never, { freeze: false });

/** The checkpoint of an actor in its first state, with a context that is a little different. */
function first(address: string, machine: unknown, input: unknown, over: object) {
  const driver = driverOf(machine);
  const { context, ...rest } = driver.persist(driver.initial(address, input as never).snapshot);
  const snapshotJson = JSON.stringify({ ...rest, context: { ...context, ...over } });
  return [address, checkpoint({ address, seq: 4, snapshotJson })] as const;
}

const deadline = (to: string, correlation: string) =>
  JSON.stringify({ do: 'deadline', request: 'x', to, correlation, attempt: 1, timeoutMs: 50 });

const stored: StoredCut = {
  cut: cut({ id: 'c1', run: 'r', at: 1_000 }),
  members: [],
  messages: [
    message({
      from: 'task/r/t',
      to: 'run/r',
      messageJson: '{"type":"run.taskChanged","task":"t"}',
    }),
    message({
      ...{ id: 'm2', from: 'run/r', to: 'task/r/t', messageJson: '{"type":"task.claim"}' },
      ...{ correlation: 'run/r!#7.0!claim:t', attempt: 1 },
    }),
    message({ id: 'm3', from: 'app/client', to: 'run/r', messageJson: '{"type":"run.pause"}' }),
    message({ id: 'm4', from: 'agent/a', to: 'task/r/t', reply: true }),
  ],
  timers: [
    timer({
      address: 'run/r',
      id: 'request:claim:t',
      dueAt: 1_050,
      actionJson: deadline('task/r/t', 'run/r!#7.0!claim:t'),
    }),
    timer({
      address: 'task/r/t',
      id: 'request:work',
      actionJson: deadline('agent/writer', 'task/r/t!#1.0!work'),
    }),
    timer({
      address: 'task/r/t',
      id: 'raise:backoff',
      dueAt: 1_100,
      actionJson: '{"do":"event","event":{"type":"b"}}',
    }),
  ],
  effects: [
    effect({ address: 'run/r', id: 'claim', src: 'claim', inputJson: '{"run":"r","claim":3}' }),
  ],
  claims: [{ run: 'r', task: 't', token: 'r#2/writer', open: true }],
  attempts: [attemptRow({ run: 'r', task: 't' })],
};

test('a fork says everywhere that it is the new run, and nowhere else', () => {
  const asking = { run: 'r', claim: 3, slots: {}, total: 1 };
  const counts = { ready: 1 };
  const input = {
    run: 'r',
    title: 'R',
    createdAt: 5,
    specHash: 'h',
    counts,
    slots: {},
    concurrency: 1,
    workflow: null,
    startedBy: 'schedule/s',
  };
  const members = new Map([
    first('run/r', runMachine, input, { asking, claimed: { t: 'writer' } }),
    first('task/r/t', taskMachine, task, { workspace: { run: 'r' }, attempt: 1, result: 'of r' }),
  ]);
  const journey = forked({ stored, members }, 'f', (a) => movedAddress(a, 'r', 'f'), 1_500);

  const forks = new Map(journey.forks?.map((fork) => [fork.address, fork]));
  expect([...forks.keys()]).toEqual(['run/f', 'task/f/t']);
  const context = (address: string) =>
    (JSON.parse(forks.get(address as never)?.snapshotJson ?? '') as { context: object }).context;
  const moved = { ...task, run: 'f' };
  expect(context('run/f')).toMatchObject({
    run: 'f',
    createdAt: 1_500,
    specHash: deepHash([moved] as never),
    asking: { ...asking, run: 'f' },
    claimed: { t: 'writer' },
    forkedFrom: { run: 'r', cut: 'c1' },
  });
  // The schedule waits for the end of the other one.
  expect(context('run/f')).not.toHaveProperty('startedBy');
  // What the user has written is his, whatever it looks like.
  expect(context('task/f/t')).toMatchObject({
    spec: moved,
    workspace: null,
    attempt: 1,
    result: 'of r',
  });

  expect(forks.get('run/f')?.pending).toEqual({
    // Requests within the run have the time that was left; those to others are void.
    timers: [
      {
        ...{ id: 'request:claim:t', dueAt: 1_550 },
        action: JSON.parse(deadline('task/f/t', 'run/f!#7.0!claim:t')) as never,
      },
    ],
    effects: [{ id: 'claim', src: 'claim', input: { run: 'f', claim: 3 } }],
  });
  expect(forks.get('task/f/t')?.pending.timers).toEqual([
    { id: 'raise:backoff', dueAt: 1_100, action: { do: 'event', event: { type: 'b' } } },
  ]);
  // What was ordered from outside, and what others have answered, was of the other run.
  expect(journey.messages).toEqual([
    { from: 'task/f/t', to: 'run/f', message: { type: 'run.taskChanged', task: 't' }, priority: 2 },
    {
      ...{ from: 'run/f', to: 'task/f/t', message: { type: 'task.claim' }, priority: 2 },
      ...{ correlation: 'run/f!#7.0!claim:t', attempt: 1 },
    },
  ]);
  expect(journey.claims).toEqual([{ run: 'f', task: 't', token: 'f#2/writer', open: true }]);
  expect(journey.rows).toEqual([{ table: 'attempts', row: attemptRow({ run: 'f', task: 't' }) }]);
  expect(journey.restorations ?? []).toEqual([]);
});
