import { describe, expect, test } from 'vitest';
import { type AgentContext, agentMachine } from '../../src/machines/agent-machine.ts';
import { breakerMachine } from '../../src/machines/breaker-machine.ts';
import type { ReplyParams } from '../../src/protocol/commands.ts';
import type { ErrorCode, Failure } from '../../src/protocol/errors.ts';
import {
  Driven,
  type Fact,
  inWords,
  type Moment,
  messagesIn,
  type Step,
  stateOf,
  withContext,
} from './driven.ts';

const agent = new Driven(agentMachine, 'agent/writer');

const work = (id: string, attempt = 1): Fact => ({
  type: 'agent.work',
  task: `task/r/${id}`,
  run: 'r',
  id,
  title: id,
  attempt,
  input: null,
  feedback: [],
  guidance: [],
  answers: {},
  workspace: null,
});
const recall = (id: string, attempt = 1): Fact => ({
  type: 'agent.cancel',
  task: `task/r/${id}`,
  attempt,
});
const done = (job: number): Fact => ({
  type: `xstate.done.actor.job-${job}`,
  actorId: `job-${job}`,
  output: { outcome: 'submitted', result: job },
});
const fails = (job: number, code: ErrorCode): Fact => ({
  type: `xstate.error.actor.job-${job}`,
  actorId: `job-${job}`,
  error: { code, message: `It was ${code}.`, retryable: false },
});
const configure = (concurrency: number): Fact => ({ type: 'agent.configure', concurrency });
const breaker = (state: AgentContext['breaker']): Fact => ({ type: 'agent.breaker', state });

/** Asked by the task it is about. */
function take(moment: Moment, fact: Fact): Step {
  const from = fact.type === 'agent.work' ? { from: fact['task'] as never, correlation: 'c' } : {};
  return agent.take(moment, fact, from);
}

function live(concurrency: number, facts: readonly Fact[]): Step {
  let step = agent.begin({ name: 'writer', concurrency });
  for (const fact of facts) step = take(step, fact);
  return step;
}

const contextOf = ({ snapshot }: Moment) => snapshot.context as unknown as AgentContext;
const running = (moment: Moment) => contextOf(moment).pool.running.map((job) => job.task);
const queued = (moment: Moment) => contextOf(moment).pool.queue.map((job) => job.task);
const replies = ({ actions }: Step) =>
  actions.flatMap((action) =>
    action.kind === 'command' && action.command === 'reply' ? [action.params as ReplyParams] : [],
  );
const failureOf = (step: Step): Failure | undefined => {
  const [reply] = replies(step);
  return reply !== undefined && 'failure' in reply ? reply.failure : undefined;
};

describe('a task that asks anew', () => {
  test('has one job: the one before is given up, and whoever waits for it is told', () => {
    const step = live(2, [work('a'), work('a', 2)]);
    expect(running(step)).toEqual(['task/r/a']);
    expect(contextOf(step).pool.running[0]).toMatchObject({ id: 'job-2', attempt: 2 });
    expect(step.actions).toContainEqual({ kind: 'stopEffect', id: 'job-1' });
    expect(failureOf(step)).toMatchObject({ code: 'conflict', context: { agent: 'writer' } });
    // One that waits in the queue, too.
    const waits = live(1, [work('b'), work('a'), work('a')]);
    expect([running(waits), queued(waits)]).toEqual([['task/r/b'], ['task/r/a']]);
  });

  test('and calls the job before off by its correlation, however late that comes', () => {
    const first = agent.take(live(1, []), work('a'), { from: 'task/r/a', correlation: 'old' });
    const second = agent.take(first, work('a'), { from: 'task/r/a', correlation: 'new' });
    const late = take(second, { ...recall('a'), correlation: 'old' });
    expect(running(late)).toEqual(['task/r/a']);
    expect(running(take(second, { ...recall('a'), correlation: 'new' }))).toEqual([]);
    expect(running(take(second, recall('a')))).toEqual([]);
  });
});

describe('work', () => {
  test('is done at once, as much as there are places, the rest in its order', () => {
    const step = live(2, [work('a'), work('b'), work('c'), work('d')]);
    expect([stateOf(step), running(step), queued(step)]).toEqual([
      'working',
      ['task/r/a', 'task/r/b'],
      ['task/r/c', 'task/r/d'],
    ]);
    const next = take(step, done(1));
    expect(running(next)).toEqual(['task/r/b', 'task/r/c']);
    expect(inWords(next.actions)).toEqual([
      'stops job-1',
      'answers',
      'tells breaker/agent/writer: breaker.record',
      'starts engine',
    ]);
  });

  test('is handed to the engine as it was asked, without the envelope', () => {
    const [start] = live(1, [work('a')]).actions;
    const { type: _type, ...asked } = work('a');
    expect(start).toMatchObject({ kind: 'startEffect', id: 'job-1', src: 'engine' });
    expect(start?.kind === 'startEffect' && start.input).toEqual(asked);
  });

  test('each answer goes to whoever asked', () => {
    const step = live(2, [work('a'), work('b'), done(2)]);
    expect(replies(step)).toEqual([
      {
        to: { address: 'task/r/b', correlation: 'c', attempt: 1 },
        type: 'agent.work',
        reply: { outcome: 'submitted', result: 2 },
      },
    ]);
    expect(contextOf(step)).toMatchObject({ processed: 1, failed: 0 });
  });

  test('a failure names the agent, and is remembered', () => {
    const step = live(1, [work('a'), fails(1, 'not_found')]);
    expect(failureOf(step)).toMatchObject({ code: 'not_found', context: { agent: 'writer' } });
    expect(contextOf(step)).toMatchObject({
      processed: 1,
      failed: 1,
      lastError: 'It was not_found.',
    });
    expect(stateOf(step)).toBe('idle');
  });

  test.each([
    {
      title: 'running',
      facts: [work('a'), work('b'), recall('a')],
      runs: ['task/r/b'],
      wishes: ['stops job-1', 'starts engine'],
    },
    { title: 'queued', facts: [work('a'), work('b'), recall('b')], runs: ['task/r/a'], wishes: [] },
    {
      title: 'of another attempt',
      facts: [work('a', 2), recall('a', 1)],
      runs: ['task/r/a'],
      wishes: [],
    },
    { title: 'unknown', facts: [work('a'), recall('z')], runs: ['task/r/a'], wishes: [] },
  ])('called back, $title', ({ facts, runs, wishes }) => {
    const step = live(1, facts);
    expect(running(step)).toEqual(runs);
    expect(inWords(step.actions)).toEqual(wishes);
  });

  test('more places begin more work, fewer end none', () => {
    const step = live(1, [work('a'), work('b'), work('c'), configure(3)]);
    expect(running(step)).toHaveLength(3);
    const fewer = [configure(1), done(1)].reduce<Step>(take, step);
    expect(running(fewer)).toHaveLength(2);
    expect(running(take(fewer, work('d')))).toHaveLength(2);
  });

  test('a full queue refuses, and is a failure', () => {
    const first = live(1, [work('a')]);
    expect(contextOf(first).pool.limit).toBe(1000);
    const small = withContext(first, { pool: { ...contextOf(first).pool, limit: 2 } });
    const step = ['b', 'c', 'late'].reduce<Step>((m, id) => take(m, work(id)), small as Step);
    expect(failureOf(step)).toMatchObject({
      code: 'unavailable',
      retryable: true,
      message: 'The agent "writer" has 2 tasks waiting already.',
    });
    expect(messagesIn(step.actions)).toEqual([
      { to: 'breaker/agent/writer', message: { type: 'breaker.record', outcome: 'failure' } },
    ]);
    expect(queued(step)).toHaveLength(2);
  });

  test('a full queue that refuses a task which asks anew gives the place of its job before back', () => {
    const first = live(1, [work('a')]);
    const small = withContext(first, { pool: { ...contextOf(first).pool, limit: 1 } });
    const step = [work('b'), work('a', 2)].reduce<Step>(take, small as Step);
    expect(step.actions).toContainEqual({ kind: 'stopEffect', id: 'job-1' });
    expect([running(step), queued(step)]).toEqual([['task/r/b'], []]);
  });

  test.each<[ErrorCode, string | undefined]>([
    ['unavailable', 'failure'],
    ['rate_limited', 'failure'],
    ['network', 'failure'],
    ['configuration', 'failure'],
    ['unhandled', 'success'],
    ['validation', 'success'],
    ['policy', 'success'],
    ['timeout', undefined],
  ])('a failure with %s: the breaker hears of a %s', (code, outcome) => {
    const [record] = messagesIn(live(1, [work('a'), fails(1, code)]).actions);
    expect(record?.message['outcome']).toBe(outcome);
  });

  test('a process that has died says nothing about the agent: its breaker hears of nothing', () => {
    const failed = fails(1, 'internal');
    const error = { ...(failed['error'] as object), context: { interruptions: 3 } };
    const step = live(1, [work('a'), { ...failed, error }]);
    expect(messagesIn(step.actions)).toEqual([]);
    expect(failureOf(step)?.context).toEqual({ interruptions: 3, agent: 'writer' });
  });
});

describe('under its breaker', () => {
  test('open: nobody waits in the queue, what runs goes on', () => {
    const step = live(1, [work('a'), work('b'), work('c'), breaker('open')]);
    expect([running(step), queued(step)]).toEqual([['task/r/a'], []]);
    expect(replies(step).map(({ to }) => to?.address)).toEqual(['task/r/b', 'task/r/c']);
    expect(failureOf(step)).toMatchObject({ code: 'unavailable', retryable: true });
  });

  test('open: whoever comes is turned away, and told why', () => {
    const step = live(1, [work('a'), fails(1, 'unavailable'), breaker('open'), work('b')]);
    expect(failureOf(step)?.message).toBe(
      'The agent "writer" is not asked at present: its circuit breaker is open (It was unavailable.).',
    );
    expect(stateOf(step)).toBe('idle');
  });

  test('half open: one at a time', () => {
    const step = live(3, [breaker('halfOpen'), work('a'), work('b')]);
    expect([running(step), queued(step)]).toEqual([['task/r/a'], ['task/r/b']]);
    expect(running(take(step, done(1)))).toEqual(['task/r/b']);
  });

  test('half open: a probe that is called back makes way for the next', () => {
    expect(running(live(3, [breaker('halfOpen'), work('a'), work('b'), recall('a')]))).toEqual([
      'task/r/b',
    ]);
  });

  test('closed again: all places', () => {
    const step = live(3, [breaker('halfOpen'), work('a'), work('b'), work('c'), breaker('closed')]);
    expect(running(step)).toHaveLength(3);
  });
});

describe('the breaker', () => {
  const machine = new Driven(breakerMachine, 'breaker/agent/writer');
  const record = (outcome: 'success' | 'failure'): Fact => ({ type: 'breaker.record', outcome });
  const ok = record('success');
  const bad = record('failure');
  const reset: Fact = { type: 'breaker.reset', by: 'ada' };
  const cooled: Fact = { type: 'xstate.after.cooling.breaker.open' };
  const times = (n: number, fact: Fact): Fact[] => Array.from({ length: n }, () => fact);
  const lived = (facts: readonly Fact[], input = {}): Step => {
    let step = machine.begin({ agent: 'writer', ...input });
    for (const fact of facts) step = machine.take(step, fact);
    return step;
  };
  const opened = times(10, bad);

  test.each<{ title: string; facts: readonly Fact[]; state: string; wishes: string[] }>([
    { title: 'nine failures', facts: times(9, bad), state: 'closed', wishes: [] },
    {
      title: 'ten failures',
      facts: opened,
      state: 'open',
      wishes: ['tells agent/writer: agent.breaker', 'waits 5000 ms'],
    },
    {
      title: 'ten, with a success between',
      facts: [...times(9, bad), ok, bad],
      state: 'closed',
      wishes: [],
    },
    {
      title: 'what ends while it is open proves nothing',
      facts: [...opened, ok, ok, ok, bad],
      state: 'open',
      wishes: [],
    },
    {
      title: 'cooled down',
      facts: [...opened, cooled],
      state: 'halfOpen',
      wishes: ['waits no longer', 'tells agent/writer: agent.breaker'],
    },
    { title: 'two probes', facts: [...opened, cooled, ok, ok], state: 'halfOpen', wishes: [] },
    {
      title: 'three probes',
      facts: [...opened, cooled, ok, ok, ok],
      state: 'closed',
      wishes: ['tells agent/writer: agent.breaker'],
    },
    {
      title: 'a probe fails',
      facts: [...opened, cooled, ok, ok, bad],
      state: 'open',
      wishes: ['tells agent/writer: agent.breaker', 'waits 5000 ms'],
    },
    {
      title: 'closed, it counts from nothing',
      facts: [...opened, cooled, ok, ok, ok, ...times(9, bad)],
      state: 'closed',
      wishes: [],
    },
    {
      title: 'reset by hand while open',
      facts: [...opened, reset],
      state: 'closed',
      wishes: ['waits no longer', 'tells agent/writer: agent.breaker'],
    },
    {
      title: 'reset by hand while closed',
      facts: [...times(9, bad), reset, ...times(9, bad)],
      state: 'closed',
      wishes: [],
    },
  ])('$title: $state', ({ facts, state, wishes }) => {
    const step = lived(facts);
    expect(stateOf(step)).toBe(state);
    expect(inWords(step.actions)).toEqual(wishes);
  });

  test('has the limits it was given', () => {
    const step = lived([bad, bad], { failures: 2, openMs: 100, successes: 1 });
    expect([...step.pending.timers.values()].map(({ delayMs }) => delayMs)).toEqual([100]);
    expect(stateOf([cooled, ok].reduce<Step>((m, f) => machine.take(m, f), step))).toBe('closed');
  });

  test('and its agent, from the first failure to the last probe', () => {
    let writer: Step = agent.begin({ name: 'writer', concurrency: 2 });
    let guard: Step = machine.begin({ agent: 'writer' });
    let job = 0;
    const turnedAway: string[] = [];
    const toAgent = (fact: Fact): void => {
      const step = take(writer, fact);
      writer = step;
      for (const reply of replies(step)) {
        if ('failure' in reply && reply.failure.message.includes('breaker is open')) {
          turnedAway.push(reply.to?.address ?? '');
        }
      }
      for (const { message } of messagesIn(step.actions)) toBreaker(message as Fact);
    };
    const toBreaker = (fact: Fact): void => {
      guard = machine.take(guard, fact);
      for (const { message } of messagesIn(guard.actions)) toAgent(message as Fact);
    };
    for (let i = 0; i < 10; i++) {
      toAgent(work(`t${i}`));
      toAgent(fails(++job, 'network'));
    }
    expect([stateOf(guard), contextOf(writer).breaker]).toEqual(['open', 'open']);
    toAgent(work('early'));
    expect(turnedAway).toEqual(['task/r/early']);

    toBreaker(cooled);
    toAgent(work('probe'));
    toAgent(work('second'));
    expect(running(writer)).toEqual(['task/r/probe']);
    toAgent(fails(job + 2, 'network'));
    expect(stateOf(guard)).toBe('open');
    // The one that had waited behind the failed probe is turned away as well.
    expect([running(writer), queued(writer)]).toEqual([[], []]);
    expect(turnedAway).toEqual(['task/r/early', 'task/r/second']);

    toBreaker(cooled);
    job = contextOf(writer).pool.next;
    for (let i = 0; i < 4; i++) toAgent(work(`p${i}`));
    toAgent(done(job));
    // Work that is done badly proves as well that the agent can be asked.
    toAgent(fails(job + 1, 'unhandled'));
    expect([stateOf(guard), running(writer)]).toEqual(['halfOpen', ['task/r/p2']]);
    toAgent(done(job + 2));
    expect([stateOf(guard), contextOf(writer).breaker]).toEqual(['closed', 'closed']);
    toAgent(work('more'));
    expect(running(writer)).toEqual(['task/r/p3', 'task/r/more']);
  });
});
