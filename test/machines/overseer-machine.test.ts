import { describe, expect, test } from 'vitest';
import { type OverseerContext, overseerMachine } from '../../src/machines/overseer-machine.ts';
import type { ReplyParams } from '../../src/protocol/commands.ts';
import { Driven, type Fact, type Moment, type Step, stateOf, withContext } from './driven.ts';

const overseer = new Driven(overseerMachine, 'overseer/main');

const escalate = (id: string): Fact => ({
  type: 'overseer.escalate',
  task: `task/r/${id}`,
  run: 'r',
  id,
  title: id,
  agent: 'writer',
  state: 'escalated',
  reason: 'All attempts are used up.',
  feedback: [],
  attempts: 3,
});
const decides = (job: number, output: unknown): Fact => ({
  type: `xstate.done.actor.job-${job}`,
  actorId: `job-${job}`,
  output,
});

function live(facts: readonly Fact[]): Step {
  let step = overseer.begin({ name: 'main' });
  for (const fact of facts) {
    step = overseer.take(
      step,
      fact,
      fact.type === 'overseer.escalate' ? { from: fact['task'] as never } : {},
    );
  }
  return step;
}
const pool = ({ snapshot }: Moment) => (snapshot.context as unknown as OverseerContext).pool;
const replyOf = ({ actions }: Step): ReplyParams | undefined => {
  for (const action of actions) {
    if (action.kind === 'command' && action.command === 'reply')
      return action.params as ReplyParams;
  }
  return undefined;
};

describe('an overseer', () => {
  test('asks its policy, and hands the answer on', () => {
    const asked = live([escalate('a')]);
    expect(asked.actions).toEqual([
      expect.objectContaining({
        kind: 'startEffect',
        src: 'decide',
        input: expect.objectContaining({ id: 'a', reason: 'All attempts are used up.' }),
      }),
    ]);
    const answer = { decision: 'retry', by: 'policy' };
    expect(replyOf(live([escalate('a'), decides(1, answer)]))).toEqual({
      to: { address: 'task/r/a', correlation: 'app!1', attempt: 1 },
      type: 'overseer.escalate',
      reply: answer,
    });
  });

  test('a policy that says nothing decides nothing', () => {
    expect(replyOf(live([escalate('a'), decides(1, undefined)]))).toMatchObject({
      reply: { decision: 'none' },
    });
  });

  test('a policy that fails is a failure, which the task hears', () => {
    const error = { code: 'unhandled', message: 'No rule.', retryable: false };
    const failed: Fact = { type: 'xstate.error.actor.job-1', actorId: 'job-1', error };
    expect(replyOf(live([escalate('a'), failed]))).toMatchObject({ failure: error });
  });

  test('eight cases at once, the rest in their order', () => {
    const step = live(Array.from({ length: 10 }, (_, i) => escalate(`t${i}`)));
    expect([pool(step).running.length, pool(step).queue.length]).toEqual([8, 2]);
    const next = overseer.take(step, decides(3, { decision: 'none' }));
    expect(pool(next).running.at(-1)?.task).toBe('task/r/t8');
    expect(stateOf(next)).toBe('watching');
  });

  test('with no room for the policy a person decides', () => {
    const first = live(Array.from({ length: 8 }, (_, i) => escalate(`t${i}`)));
    const small = withContext(first, { pool: { ...pool(first), limit: 0 } });
    const step = overseer.take(small, escalate('late'));
    expect(replyOf(step)).toMatchObject({ reply: { decision: 'none' } });
  });
});
