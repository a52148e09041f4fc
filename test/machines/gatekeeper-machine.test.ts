import { describe, expect, test } from 'vitest';
import {
  type GatekeeperContext,
  gatekeeperMachine,
} from '../../src/machines/gatekeeper-machine.ts';
import type { ReplyParams } from '../../src/protocol/commands.ts';
import {
  Driven,
  type Fact,
  inWords,
  type Moment,
  type Step,
  stateOf,
  withContext,
} from './driven.ts';

const gatekeeper = new Driven(gatekeeperMachine, 'gatekeeper/editor');

const verify = (id: string, attempt = 1): Fact => ({
  type: 'gatekeeper.verify',
  task: `task/r/${id}`,
  run: 'r',
  id,
  title: id,
  attempt,
  input: null,
  result: 'a draft',
  workspace: null,
  approved: false,
});
const recall = (id: string, attempt = 1): Fact => ({
  type: 'gatekeeper.cancel',
  task: `task/r/${id}`,
  attempt,
});
const verdict = { verdict: 'accepted', evidence: { commands: [] } };
const judged = (job: number): Fact => ({
  type: `xstate.done.actor.job-${job}`,
  actorId: `job-${job}`,
  output: verdict,
});
const crashes = (job: number): Fact => ({
  type: `xstate.error.actor.job-${job}`,
  actorId: `job-${job}`,
  error: { code: 'unhandled', message: 'It crashed.', retryable: false, retryAfterMs: 7 },
});

const take = (moment: Moment, fact: Fact): Step =>
  gatekeeper.take(
    moment,
    fact,
    fact.type === 'gatekeeper.verify' ? { from: fact['task'] as never, correlation: 'c' } : {},
  );

function live(concurrency: number, facts: readonly Fact[]): Step {
  let step = gatekeeper.begin({ name: 'editor', concurrency });
  for (const fact of facts) step = take(step, fact);
  return step;
}
const contextOf = ({ snapshot }: Moment) => snapshot.context as unknown as GatekeeperContext;
const running = (moment: Moment) => contextOf(moment).pool.running.map((job) => job.task);
const replyOf = ({ actions }: Step): ReplyParams | undefined => {
  for (const action of actions) {
    if (action.kind === 'command' && action.command === 'reply')
      return action.params as ReplyParams;
  }
  return undefined;
};

describe('a task that submits anew', () => {
  test('has one job: the one before is given up, and whoever waits for it is told', () => {
    const step = live(1, [verify('a'), verify('a')]);
    expect(contextOf(step).pool.running.map(({ id }) => id)).toEqual(['job-2']);
    expect(replyOf(step)).toMatchObject({ failure: { code: 'conflict' } });
  });

  test('and is refused, for too many wait: the place of its job before is given back all the same', () => {
    const first = live(1, [verify('a')]);
    const small = withContext(first, { pool: { ...contextOf(first).pool, limit: 1 } });
    const step = [verify('b'), verify('a', 2)].reduce<Step>(take, small as Step);
    expect(step.actions).toContainEqual({ kind: 'stopEffect', id: 'job-1' });
    expect(running(step)).toEqual(['task/r/b']);
  });

  test('and calls the job before off by its correlation, however late that comes', () => {
    const asked = (from: Moment, correlation: string) =>
      gatekeeper.take(from, verify('a'), { from: 'task/r/a', correlation });
    const second = asked(asked(live(1, []), 'old'), 'new');
    const call = (correlation: string): Fact => ({ ...recall('a'), correlation });
    expect(running(take(second, call('old')))).toEqual(['task/r/a']);
    expect(running(take(second, call('new')))).toEqual([]);
  });
});

describe('a gatekeeper', () => {
  test('verifies one after the other', () => {
    const step = live(1, [verify('a'), verify('b')]);
    expect([stateOf(step), running(step)]).toEqual(['verifying', ['task/r/a']]);
    const next = take(step, judged(1));
    expect(inWords(next.actions)).toEqual(['stops job-1', 'answers', 'starts verify']);
    expect(replyOf(next)).toEqual({
      to: { address: 'task/r/a', correlation: 'c', attempt: 1 },
      type: 'gatekeeper.verify',
      reply: verdict,
    });
    const last = take(next, judged(2));
    expect([stateOf(last), contextOf(last).verified]).toEqual(['idle', 2]);
  });

  test('one that could not finish has accepted nothing, and blames nobody who worked', () => {
    const reply = replyOf(live(1, [verify('a'), crashes(1)]));
    expect(reply).toMatchObject({
      failure: { code: 'internal', message: 'It crashed.', retryAfterMs: 7 },
    });
  });

  test.each([
    {
      title: 'under way',
      facts: [verify('a'), verify('b'), recall('a')],
      runs: ['task/r/b'],
      wishes: ['stops job-1', 'starts verify'],
    },
    {
      title: 'waiting',
      facts: [verify('a'), verify('b'), recall('b')],
      runs: ['task/r/a'],
      wishes: [],
    },
    {
      title: 'of another attempt',
      facts: [verify('a', 2), recall('a', 1)],
      runs: ['task/r/a'],
      wishes: [],
    },
  ])('a submission is called back, $title', ({ facts, runs, wishes }) => {
    const step = live(1, facts);
    expect(running(step)).toEqual(runs);
    expect(inWords(step.actions)).toEqual(wishes);
  });

  test('a verdict about what was called back goes to nobody', () => {
    expect(live(1, [verify('a'), recall('a'), judged(1)]).actions).toEqual([]);
  });

  test('more places begin more', () => {
    const step = live(1, [
      verify('a'),
      verify('b'),
      { type: 'gatekeeper.configure', concurrency: 2 },
    ]);
    expect(running(step)).toHaveLength(2);
  });

  test('a full queue refuses', () => {
    const first = live(1, [verify('a')]);
    const small = withContext(first, { pool: { ...contextOf(first).pool, limit: 1 } });
    const step = ['b', 'late'].reduce<Step>((m, id) => take(m, verify(id)), small as Step);
    expect(replyOf(step)).toMatchObject({
      failure: {
        code: 'unavailable',
        retryable: true,
        message: 'The gatekeeper "editor" has 1 submissions waiting already.',
      },
    });
  });
});
