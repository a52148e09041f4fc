import { describe, expect, test } from 'vitest';
import type { Escalation } from '../../src/index.ts';
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
  decided: [],
};

type Answer = Escalation['decided'][number];

const decide = (rules: readonly PolicyRule[], escalation = CASE, ...decided: readonly Answer[]) =>
  policyOf(rules)({ ...escalation, decided });

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
  const given = (times: number): Answer => ({ decision: 'retry', guidance: 'again', times });

  test('so that retrying ends', async () => {
    expect(await decide([retry], CASE, given(1))).toBeUndefined();
  });

  test('or as often as it says', async () => {
    const thrice = { ...retry, times: 3 };
    expect(await decide([thrice], CASE, given(2))).toEqual({ decide: 'retry', guidance: 'again' });
    expect(await decide([thrice], CASE, given(3))).toBeUndefined();
  });

  test('and then the next one is asked', async () => {
    const rules: readonly PolicyRule[] = [retry, { when: {}, decide: 'cancel' }];
    expect(await decide(rules, CASE, given(1))).toEqual({ decide: 'cancel' });
  });

  test('a rule that says the same has its own turn', async () => {
    expect(await decide([retry, retry], CASE, given(1))).toMatchObject({ decide: 'retry' });
    expect(await decide([retry, retry], CASE, given(2))).toBeUndefined();
  });

  test.each([
    { what: 'with another guidance', answer: { ...given(1), guidance: 'differently' } },
    { what: 'without guidance', answer: { ...given(1), guidance: null } },
    { what: 'that was another', answer: { ...given(1), decision: 'block' as const } },
  ])('an answer $what does not count', async ({ answer }) => {
    expect(await decide([retry], CASE, answer)).toMatchObject({ decide: 'retry' });
  });
});
