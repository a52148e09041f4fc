import { describe, expect, test } from 'vitest';
import type { Escalation, Store } from '../../src/index.ts';
import { type PolicyRule, policyOf } from '../../src/operator/policy.ts';

const CASE: Escalation = {
  task: 'task/main/truncate',
  run: 'main',
  id: 'truncate',
  title: 'Cut text',
  agent: 'newcomer',
  state: 'escalated',
  reason: 'All 3 attempts are used up.',
  feedback: [],
  attempts: 3,
};

interface Answer {
  readonly decision: string;
  readonly by?: string;
  readonly guidance?: string;
}

/** A task's turns, the answers it got among others. */
function memory(...answers: readonly Answer[]): Pick<Store, 'listCheckpoints'> {
  const events = [
    null,
    { type: 'task.claim' },
    ...answers.map((reply) => ({ type: 'overseer.escalate:ok', reply })),
  ];
  return {
    listCheckpoints: async (address) =>
      address === CASE.task
        ? events.map((event, seq) => ({
            ...{ address, seq, at: 0, kind: 'auto' as const, label: null, snapshotJson: '{}' },
            eventJson: event === null ? null : JSON.stringify(event),
          }))
        : [],
  };
}

const decide = (rules: readonly PolicyRule[], escalation = CASE, ...answers: readonly Answer[]) =>
  policyOf(rules, memory(...answers))(escalation);

describe('the first rule whose conditions all hold decides', () => {
  const rules: readonly PolicyRule[] = [
    { when: { task: 'deploy' }, decide: 'cancel' },
    { when: { task: 'truncate', agent: 'scribe' }, decide: 'block' },
    { when: { state: 'awaitingApproval', agent: 'newcomer' }, decide: 'approve' },
    { when: { agent: 'newcomer' }, decide: 'retry', guidance: 'read src/expect.js' },
  ];

  test.each([
    { changes: {}, decided: { decide: 'retry', guidance: 'read src/expect.js' } },
    { changes: { state: 'awaitingApproval' as const }, decided: { decide: 'approve' } },
    { changes: { agent: 'scribe' }, decided: { decide: 'block' } },
    { changes: { id: 'deploy' }, decided: { decide: 'cancel' } },
    { changes: { agent: 'patcher' }, decided: undefined },
  ])('with $changes: $decided', async ({ changes, decided }) => {
    expect(await decide(rules, { ...CASE, ...changes })).toEqual(decided);
  });

  test('without conditions a rule is for all', async () => {
    expect(await decide([{ when: {}, decide: 'block' }])).toEqual({ decide: 'block' });
  });
});

describe('a rule answers a task once', () => {
  const retry: PolicyRule = { when: {}, decide: 'retry', guidance: 'again' };
  const given: Answer = { decision: 'retry', by: 'policy', guidance: 'again' };

  test('so that retrying ends, whatever restarts in between', async () => {
    expect(await decide([retry], CASE, given)).toBeUndefined();
  });

  test('or as often as it says', async () => {
    const thrice = { ...retry, times: 3 };
    expect(await decide([thrice], CASE, given, given)).toEqual({
      decide: 'retry',
      guidance: 'again',
    });
    expect(await decide([thrice], CASE, given, given, given)).toBeUndefined();
  });

  test('and then the next one is asked', async () => {
    const rules: readonly PolicyRule[] = [retry, { when: {}, decide: 'cancel' }];
    expect(await decide(rules, CASE, given)).toEqual({ decide: 'cancel' });
  });

  test('a rule that says the same has its own turn', async () => {
    expect(await decide([retry, retry], CASE, given)).toMatchObject({ decide: 'retry' });
    expect(await decide([retry, retry], CASE, given, given)).toBeUndefined();
  });

  test.each([
    { what: 'a person', answer: { ...given, by: 'ada' } },
    { what: 'another rule', answer: { ...given, guidance: 'differently' } },
    { what: 'nobody', answer: { decision: 'none' } },
  ])('the answer of $what does not count', async ({ answer }) => {
    expect(await decide([retry], CASE, answer)).toMatchObject({ decide: 'retry' });
  });

  test('another task has answers of its own', async () => {
    const other = { ...CASE, id: 'other', task: 'task/main/other' };
    expect(await decide([retry], other, given)).toMatchObject({ decide: 'retry' });
  });
});
