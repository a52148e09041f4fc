import { describe, expect, test } from 'vitest';
import {
  type ClaimOutput,
  type RunContext,
  type RunInput,
  runMachine,
} from '../../src/machines/run-machine.ts';
import type { TaskPhase } from '../../src/protocol/catalogue.ts';
import {
  Driven,
  type Fact,
  inWords,
  type Moment,
  messagesIn,
  START,
  type Step,
  stateOf,
} from './driven.ts';

const run = new Driven(runMachine, 'run/r');

const input = (counts: RunInput['counts'], over: Partial<RunInput> = {}): RunInput => ({
  run: 'r',
  title: 'Report',
  createdAt: 0,
  specHash: 'h',
  counts,
  slots: { writer: 2 },
  concurrency: 4,
  workflow: null,
  ...over,
});

const changed = (
  task: string,
  from: TaskPhase,
  to: TaskPhase,
  more: { telling?: number; heard?: number; agent?: string; claim?: number | null } = {},
): Fact => ({ type: 'run.taskChanged', task, from, to, telling: 0, heard: 0, ...more });
const claims = (...tasks: string[]): Fact =>
  claimsFor(...tasks.map((task) => ({ task, agent: 'writer' })));
const claimsFor = (...output: ClaimOutput): Fact => ({ type: 'xstate.done.actor.claim', output });
const claimFails: Fact = {
  type: 'xstate.error.actor.claim',
  error: { code: 'unavailable', message: 'The store is away.', retryable: true },
};
const storeIsBack: Fact = { type: 'xstate.after.storeRetry.run.running.holding' };
const refuses = (task: string): Fact => ({
  type: 'task.claim:err',
  failure: { code: 'conflict', message: 'The task is paused.', retryable: false },
  request: task,
});
const pause: Fact = { type: 'run.pause', by: 'ada' };
const resume: Fact = { type: 'run.resume', by: 'ada' };
const cancel: Fact = { type: 'run.cancel', by: 'ada', reason: 'Not needed.' };
const listed = (tasks: readonly string[], upTo: number | null): Fact => ({
  type: 'xstate.done.actor.listOpen',
  output: { tasks, upTo },
});
const listFails: Fact = { type: 'xstate.error.actor.listOpen', error: claimFails['error'] };

/** What one task tells while it is done without a hitch. */
const does = (task: string, more = {}): readonly Fact[] => [
  changed(task, 'ready', 'active', { agent: 'writer' }),
  changed(task, 'active', 'verifying'),
  changed(task, 'verifying', 'done', more),
];

function live(given: RunInput, facts: readonly Fact[]): Step {
  let step = run.begin(given);
  for (const fact of facts) step = take(step, fact);
  return step;
}

function take(moment: Moment, { request, ...fact }: Fact & { request?: unknown }): Step {
  return run.take(
    moment,
    fact,
    request === undefined ? {} : { request: `claim:${String(request)}` },
  );
}

const contextOf = ({ snapshot }: Moment): RunContext => snapshot.context as unknown as RunContext;
/** Tasks in flight, and whose place each holds. */
const places = (step: Step) =>
  Object.fromEntries(
    Object.entries(contextOf(step).claimed).map(([task, { agent }]) => [task, agent]),
  );
const claimAsked = (step: Step) =>
  step.actions.find((action) => action.kind === 'startEffect' && action.src === 'claim');

describe('the way through', () => {
  test.each<{
    title: string;
    given: RunInput;
    facts: readonly Fact[];
    state: string;
    wishes: string[];
  }>([
    {
      title: 'ready tasks are claimed at once',
      given: input({ ready: 2 }),
      facts: [],
      state: 'running.claiming',
      wishes: ['starts claim'],
    },
    {
      title: 'what was claimed is told to the tasks',
      given: input({ ready: 2 }),
      facts: [claims('a', 'b')],
      state: 'running.waiting',
      wishes: ['stops claim', 'asks task/r/a: task.claim', 'asks task/r/b: task.claim'],
    },
    {
      title: 'tasks that wait and tasks that work: nothing to do',
      given: input({ ready: 1, waiting: 1 }),
      facts: [claims('a'), changed('a', 'ready', 'active')],
      state: 'running.idle',
      wishes: [],
    },
    {
      title: 'all done',
      given: input({ ready: 1 }),
      facts: [claims('a'), ...does('a')],
      state: 'done',
      wishes: [],
    },
    {
      title: 'done while a claim is under way: the claim decides',
      given: input({ ready: 1 }),
      facts: [...does('a'), claims()],
      state: 'done',
      wishes: ['stops claim'],
    },
    {
      title: 'something became ready while it claimed: it looks once more',
      given: input({ ready: 1, waiting: 1 }),
      facts: [changed('b', 'waiting', 'ready'), claims('a')],
      state: 'running.claiming',
      wishes: ['stops claim', 'asks task/r/a: task.claim', 'starts claim'],
    },
    {
      title: 'only staged tasks: it says so',
      given: input({ waiting: 3 }),
      facts: [],
      state: 'blocked',
      wishes: [],
    },
    {
      title: 'the store is away',
      given: input({ ready: 1 }),
      facts: [claimFails],
      state: 'running.holding',
      wishes: ['stops claim', 'waits 1000 ms'],
    },
    {
      title: 'the store is back',
      given: input({ ready: 1 }),
      facts: [claimFails, storeIsBack],
      state: 'running.claiming',
      wishes: ['waits no longer', 'starts claim'],
    },
  ])('$title: $state', ({ given, facts, state, wishes }) => {
    const step = live(given, facts);
    expect(stateOf(step)).toBe(state);
    expect(inWords(step.actions)).toEqual(wishes);
  });
});

test('a run that has ended knows when', () => {
  expect(contextOf(live(input({ ready: 1 }), [claims('a'), ...does('a')])).endedAt).toBe(START);
});

describe('places', () => {
  const asked = (step: Step) => {
    const action = claimAsked(step);
    return action?.kind === 'startEffect' ? action.input : undefined;
  };

  test('a claim asks for as many as have room', () => {
    expect(asked(live(input({ ready: 9 }), []))).toEqual({
      run: 'r',
      claim: 0,
      slots: { writer: 2 },
      total: 4,
    });
    const one = live(input({ ready: 9 }, { slots: { writer: 2, poet: 3 }, concurrency: 4 }), [
      claims('a', 'b'),
      changed('a', 'ready', 'active'),
    ]);
    expect(asked(one)).toEqual({ run: 'r', claim: 1, slots: { poet: 3 }, total: 2 });
  });

  test('no agent has more than its places, and the run no more than its own', () => {
    const full = live(input({ ready: 9 }), [claims('a', 'b'), changed('a', 'ready', 'active')]);
    expect(claimAsked(full)).toBeUndefined();
    const few = live(input({ ready: 9 }, { slots: { writer: 5 }, concurrency: 1 }), [
      claims('a'),
      changed('a', 'ready', 'active'),
    ]);
    expect(claimAsked(few)).toBeUndefined();
    // While it is verified, the agent's place is free, the run's is not.
    expect(claimAsked(take(few, changed('a', 'active', 'verifying')))).toBeUndefined();
    const agent = take(full, changed('a', 'active', 'verifying'));
    expect(asked(agent)).toMatchObject({ slots: { writer: 1 }, total: 2 });
  });

  test.each<TaskPhase>(['delayed', 'person', 'stuck', 'done', 'cancelled'])(
    'a task that is %s gives its place back',
    (to) => {
      const step = live(input({ ready: 9 }), [
        claims('a', 'b'),
        changed('a', 'ready', 'active'),
        changed('a', 'active', to),
      ]);
      expect(places(step)).toEqual({ b: 'writer' });
      expect(asked(step)).toMatchObject({ slots: { writer: 1 }, total: 3 });
    },
  );

  test.each([
    { title: 'while it waits', facts: [claims('a', 'b'), refuses('a')] },
    {
      title: 'while it claims',
      facts: [
        claims('a', 'b'),
        changed('c', 'waiting', 'waiting'),
        changed('b', 'ready', 'stuck'),
        refuses('a'),
        claims(),
      ],
    },
  ])('a refused claim gives the place back, and others get it: $title', ({ facts }) => {
    const step = live(input({ ready: 9, waiting: 1 }), facts);
    expect(Object.keys(places(step))).not.toContain('a');
    expect(stateOf(step)).toBe('running.claiming');
  });

  test.each<{ from: string; facts: readonly Fact[] }>([
    { from: 'paused', facts: [pause] },
    { from: 'cancelling.listing', facts: [cancel] },
    {
      from: 'running.holding',
      facts: [changed('x', 'waiting', 'waiting'), changed('b', 'ready', 'stuck'), claimFails],
    },
  ])('also in $from', ({ from, facts }) => {
    const step = live(input({ ready: 9, waiting: 1 }), [claims('a', 'b'), ...facts]);
    expect(stateOf(step)).toBe(from);
    expect(Object.keys(places(take(step, refuses('a'))))).not.toContain('a');
  });

  test('a task that goes on after an answer has a place without a claim', () => {
    const step = live(input({ ready: 9 }, { concurrency: 2 }), [
      claims('a', 'b'),
      changed('a', 'ready', 'active', { agent: 'writer' }),
      changed('a', 'active', 'person'),
      claims('c'),
      changed('a', 'person', 'active', { agent: 'writer' }),
    ]);
    expect(places(step)).toEqual({ a: 'writer', b: 'writer', c: 'writer' });
    expect(claimAsked(step)).toBeUndefined();
    const verified = take(step, changed('a', 'active', 'verifying'));
    expect(places(verified)).toEqual({ a: null, b: 'writer', c: 'writer' });
  });

  test('one that was rejected, and is mended, takes a place of whoever mends it', () => {
    const step = live(input({ ready: 1 }, { slots: { writer: 1, mender: 1 } }), [
      claims('a'),
      changed('a', 'ready', 'active', { agent: 'writer' }),
      changed('a', 'active', 'verifying'),
      changed('a', 'verifying', 'active', { agent: 'mender' }),
    ]);
    expect(places(step)).toEqual({ a: 'mender' });
    const verified = take(step, changed('a', 'active', 'verifying'));
    expect(places(verified)).toEqual({ a: null });
  });

  test('what it tells of its life before a claim changes nothing of the place that the claim gave it', () => {
    const before = { claim: 0 };
    const step = live(input({ ready: 2 }, { concurrency: 1 }), [
      claims('a'),
      changed('a', 'ready', 'active', { agent: 'writer', ...before }),
      changed('a', 'active', 'delayed', before),
      // It is ready again in the store, and has not said so yet.
      claims('a'),
      changed('a', 'delayed', 'ready', before),
      changed('a', 'ready', 'stuck', before),
      changed('a', 'stuck', 'ready', before),
    ]);
    expect(places(step)).toEqual({ a: 'writer' });
    expect(claimAsked(step)).toBeUndefined();
    // Nor does what it told before it was ever claimed.
    expect(places(take(step, changed('a', 'ready', 'person', { claim: null })))).toEqual({
      a: 'writer',
    });
    expect(places(take(step, changed('a', 'ready', 'person', { claim: 1 })))).toEqual({});
    expect(places(take(step, changed('a', 'ready', 'person')))).toEqual({});
  });

  test('one that was claimed in the moment in which it was cancelled leaves none behind', () => {
    const step = live(input({ ready: 1 }), [changed('a', 'ready', 'cancelled'), claims('a')]);
    expect([step.snapshot.value, places(step)]).toEqual(['done', {}]);
  });

  test('one that is taken back has none', () => {
    const step = live(input({ waiting: 1, ready: 1 }), [
      claims(),
      changed('a', 'waiting', 'active'),
    ]);
    expect(places(step)).toStrictEqual({});
  });

  test('an agent that a task was reassigned to gets a place', () => {
    const step = live(input({ ready: 1 }, { slots: { writer: 1 } }), [
      claims('a'),
      changed('a', 'ready', 'active', { agent: 'writer' }),
      changed('a', 'active', 'person'),
      changed('a', 'person', 'ready', { agent: 'poet' }),
    ]);
    expect(asked(step)).toMatchObject({ slots: { writer: 1, poet: 1 } });
    const busy = [claimsFor({ task: 'a', agent: 'poet' })].reduce<Step>(take, step);
    expect(messagesIn(busy.actions)[0]?.to).toBe('task/r/a');
  });

  test('names like those of JavaScript are names', () => {
    const given = input({ ready: 2 }, { slots: { constructor: 1 }, concurrency: 2 });
    const step = live(given, [
      claimsFor({ task: 'toString', agent: 'constructor' }),
      changed('toString', 'ready', 'active', { agent: 'constructor' }),
    ]);
    expect(places(step)).toEqual({ toString: 'constructor' });
    expect(claimAsked(step)).toBeUndefined();
    expect(asked(take(step, changed('toString', 'active', 'verifying')))).toMatchObject({
      slots: { constructor: 1 },
    });
    expect(places(take(step, changed('valueOf', 'ready', 'verifying')))).toEqual({
      toString: 'constructor',
      valueOf: null,
    });
  });
});

describe('a claim that is interrupted', () => {
  const asked = (step: Step) => {
    const action = claimAsked(step);
    return action?.kind === 'startEffect' ? action.input : undefined;
  };
  const first = { run: 'r', claim: 0, slots: { writer: 2 }, total: 4 };

  test.each([
    { by: 'a pause', facts: [pause, resume] },
    {
      by: 'a pause, while other things change',
      facts: [pause, changed('z', 'person', 'active', { agent: 'writer' }), resume],
    },
    { by: 'the store', facts: [claimFails, storeIsBack] },
  ])('by $by: the same claim is made again, for the store may have made it', ({ facts }) => {
    expect(asked(live(input({ ready: 3, person: 1 }), facts))).toEqual(first);
  });

  test('the next one is another, and comes at once: there may be more room by now', () => {
    const step = live(input({ ready: 3 }), [pause, resume, claims('a')]);
    expect(asked(step)).toEqual({ run: 'r', claim: 1, slots: { writer: 1 }, total: 3 });
  });
});

describe('pausing', () => {
  test.each<{ title: string; facts: readonly Fact[]; state: string }>([
    {
      title: 'nothing new is started',
      facts: [claims('a'), pause, changed('b', 'waiting', 'ready')],
      state: 'paused',
    },
    {
      title: 'what runs goes on to its end',
      facts: [claims('a'), pause, ...does('a')],
      state: 'paused',
    },
    { title: 'resumed', facts: [claims('a'), pause, resume], state: 'running.claiming' },
    { title: 'paused twice', facts: [pause, pause], state: 'paused' },
    { title: 'cancelled', facts: [pause, cancel], state: 'cancelling.listing' },
    {
      title: 'all its tasks have ended',
      facts: [
        claims('a'),
        pause,
        ...does('a'),
        changed('b', 'waiting', 'cancelled'),
        changed('c', 'ready', 'cancelled'),
      ],
      state: 'done',
    },
  ])('$title: $state', ({ facts, state }) => {
    expect(stateOf(live(input({ ready: 2, waiting: 1 }), facts))).toBe(state);
  });

  test('it says who did it, until it is resumed', () => {
    const step = live(input({ ready: 1 }), [pause]);
    expect(contextOf(step).reason).toBe('Paused by ada.');
    expect(contextOf(take(step, resume)).reason).toBeNull();
  });

  test('also a run that stands still can be paused; resumed, it stands still', () => {
    const step = live(input({ waiting: 1 }), [pause]);
    expect([stateOf(step), contextOf(step).reason]).toEqual(['paused', 'Paused by ada.']);
    expect(stateOf(take(step, resume))).toBe('blocked');
  });
});

describe('standing still', () => {
  const still = [claims('a'), changed('a', 'ready', 'active'), changed('a', 'active', 'stuck')];

  test('it says what it waits for', () => {
    const step = live(input({ ready: 1, waiting: 2, person: 1 }), still);
    expect(stateOf(step)).toBe('blocked');
    expect(contextOf(step).reason).toBe(
      'Nothing moves by itself: 1 blocked, 1 waiting for a person, 2 waiting for these or staged.',
    );
  });

  test('and it says so anew when that changes', () => {
    const step = live(input({ ready: 1, person: 1 }), [...still, changed('b', 'person', 'stuck')]);
    expect(contextOf(step).reason).toBe('Nothing moves by itself: 2 blocked.');
  });

  test.each<[TaskPhase, string]>([
    ['ready', 'running.claiming'],
    ['delayed', 'running.idle'],
    ['active', 'running.idle'],
    ['verifying', 'running.idle'],
    ['person', 'blocked'],
  ])('blocked, and a task becomes %s: %s', (to, state) => {
    const step = live(input({ ready: 1, waiting: 2 }), [...still, changed('a', 'stuck', to)]);
    expect(stateOf(step)).toBe(state);
  });

  test('a blocked run whose last task ends has ended', () => {
    expect(stateOf(live(input({ ready: 1 }), [...still, changed('a', 'stuck', 'cancelled')]))).toBe(
      'done',
    );
  });

  test('it does not stand still while dependants have not heard of an end', () => {
    const told = [claims('a'), ...does('a', { telling: 2 })];
    const step = live(input({ ready: 1, waiting: 2 }), told);
    expect(stateOf(step)).toBe('running.idle');
    const one = take(step, changed('b', 'waiting', 'waiting', { heard: 1 }));
    expect(stateOf(one)).toBe('running.idle');
    expect(stateOf(take(one, changed('c', 'waiting', 'waiting', { heard: 1 })))).toBe('blocked');
    // Also one that was cancelled before it heard.
    expect(stateOf(take(one, changed('c', 'cancelled', 'cancelled', { heard: 1 })))).toBe(
      'blocked',
    );
  });

  test('the word of hearing may come before the word of telling', () => {
    const step = live(input({ ready: 1, waiting: 1 }), [
      claims('a'),
      changed('a', 'ready', 'active'),
      changed('b', 'waiting', 'waiting', { heard: 1 }),
      changed('a', 'active', 'verifying'),
      changed('a', 'verifying', 'done', { telling: 1 }),
    ]);
    expect(stateOf(step)).toBe('blocked');
  });
});

describe('cancelling', () => {
  test('tasks are called off some at a time, in their order', () => {
    const first = live(input({ ready: 3 }), [claims('a'), cancel]);
    expect(stateOf(first)).toBe('cancelling.listing');
    expect(first.actions.find((action) => action.kind === 'startEffect')).toMatchObject({
      src: 'listOpen',
      input: { run: 'r', afterPosition: -1 },
    });
    const second = take(first, listed(['a', 'b'], 1));
    expect(inWords(second.actions)).toEqual([
      'stops listOpen',
      'tells task/r/a: task.cancel',
      'tells task/r/b: task.cancel',
      'starts listOpen',
    ]);
    expect(second.actions.find((action) => action.kind === 'startEffect')).toMatchObject({
      input: { afterPosition: 1 },
    });
    const third = take(second, listed(['c'], null));
    expect(inWords(third.actions)).toEqual(['stops listOpen', 'tells task/r/c: task.cancel']);
    expect(messagesIn(third.actions)[0]?.message).toMatchObject({
      reason: 'Not needed.',
      by: 'run',
    });
    expect(stateOf(third)).toBe('cancelling.awaiting');
    const ended = [
      changed('a', 'active', 'cancelled'),
      changed('b', 'ready', 'cancelled'),
      changed('c', 'ready', 'done'),
    ].reduce<Step>(take, third);
    expect(stateOf(ended)).toBe('cancelled');
    expect(contextOf(ended).reason).toBe('Not needed.');
    expect(contextOf(ended).endedAt).toBe(START);
  });

  test('a store that is away holds it up, no more', () => {
    const step = live(input({ ready: 1 }), [cancel, listFails]);
    expect(stateOf(step)).toBe('cancelling.holding');
    expect(stateOf(take(step, { type: 'xstate.after.storeRetry.run.cancelling.holding' }))).toBe(
      'cancelling.listing',
    );
  });

  test.each<{ from: string; facts: readonly Fact[] }>([
    { from: 'running.claiming', facts: [] },
    { from: 'running.waiting', facts: [claims('a')] },
    { from: 'running.holding', facts: [claimFails] },
    {
      from: 'blocked',
      facts: [
        claims('a'),
        changed('a', 'ready', 'stuck'),
        changed('b', 'ready', 'person'),
        claims(),
      ],
    },
    { from: 'paused', facts: [pause] },
  ])('from $from', ({ from, facts }) => {
    const before = live(input({ ready: 2 }), facts);
    expect(stateOf(before)).toBe(from);
    const step = take(before, cancel);
    expect([stateOf(step), contextOf(step).reason]).toEqual(['cancelling.listing', 'Not needed.']);
    expect([...step.pending.effects]).toEqual(['listOpen']);
    expect(step.pending.timers.size).toBe(0);
  });

  test('nothing else is heeded then', () => {
    const step = live(input({ ready: 2 }), [cancel]);
    for (const fact of [pause, resume, cancel]) expect(take(step, fact).actions).toEqual([]);
  });
});
