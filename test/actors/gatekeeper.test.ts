import { describe, expect, test } from 'vitest';
import {
  genericVerifier,
  type Submission,
  type VerifyContext,
} from '../../src/actors/gatekeeper.ts';
import { ConfigurationError } from '../../src/protocol/errors.ts';
import type { Verdict } from '../../src/protocol/verdict.ts';

const submission: Submission = {
  task: 'task/r/a',
  run: 'r',
  id: 'a',
  title: 'Write it',
  attempt: 1,
  input: null,
  result: { text: 'A draft.' },
  workspace: null,
  approved: false,
};

const judge = (answer: unknown, over: Partial<Submission> = {}): Promise<Verdict> =>
  genericVerifier(
    'editor',
    () => answer as never,
    (text) => `print of ${text}`,
  )({ submission: { ...submission, ...over } } as VerifyContext);

describe('what a gatekeeper of the app answers becomes a verdict', () => {
  const check = (excerpt: string, name = 'check') => ({
    name,
    command: 'check',
    exitCode: 0,
    signal: null,
    durationMs: 0,
    excerpt,
  });

  test.each<{ title: string; answer: unknown; over?: Partial<Submission>; verdict: unknown }>([
    {
      title: 'accepted',
      answer: { accepted: true, evidence: ['read by ada', { name: 'words', count: 100 }] },
      verdict: {
        verdict: 'accepted',
        evidence: {
          commands: [check('read by ada'), check('{"name":"words","count":100}', 'words')],
        },
      },
    },
    {
      title: 'rejected: the feedback is the reason, the change has a fingerprint',
      answer: { accepted: false, reason: 'Too long.' },
      verdict: {
        verdict: 'rejected',
        stage: 'verify',
        reason: 'Too long.',
        feedback: ['Too long.'],
        changeFingerprint: 'print of {"text":"A draft."}',
        evidence: { commands: [] },
      },
    },
    {
      title: 'rejected, item by item, with evidence',
      answer: {
        accepted: false,
        reason: 'No.',
        feedback: ['Shorten it.', 'Mend it.'],
        evidence: ['120 words'],
      },
      verdict: expect.objectContaining({
        verdict: 'rejected',
        feedback: ['Shorten it.', 'Mend it.'],
        evidence: { commands: [check('120 words')] },
      }),
    },
    {
      title: 'in need of approval',
      answer: { needsApproval: ['It deletes data.'] },
      verdict: {
        verdict: 'approval_required',
        reasons: ['It deletes data.'],
        evidence: { commands: [] },
      },
    },
    {
      title: 'approved: the approval is its evidence',
      answer: { needsApproval: ['It deletes data.'] },
      over: { approved: true },
      verdict: {
        verdict: 'accepted',
        evidence: {
          commands: [check('{"name":"approval","approved":["It deletes data."]}', 'approval')],
        },
      },
    },
  ])('$title', async ({ answer, over, verdict }) => {
    expect(await judge(answer, over)).toEqual(verdict);
  });

  test('evidence is kept short', async () => {
    const verdict = await judge({ accepted: true, evidence: ['x'.repeat(5_000)] });
    expect(verdict.evidence.commands[0]?.excerpt).toHaveLength(4_000);
  });
});

describe('what is no judgement accepts nothing', () => {
  test.each<{ answer: unknown; says: string }>([
    { answer: undefined, says: 'got nothing' },
    { answer: null, says: 'got null' },
    { answer: true, says: 'got true' },
    { answer: 'accepted', says: 'got "accepted"' },
    { answer: { accepted: true }, says: 'got {"accepted":true}' },
    { answer: { accepted: 'yes', evidence: ['x'] }, says: 'got {"accepted":"yes"' },
    {
      answer: { accepted: true, evidence: 'read it' },
      says: 'got {"accepted":true,"evidence":"read it"}',
    },
    { answer: { accepted: true, evidence: [''] }, says: 'got {"accepted":true,"evidence":[""]}' },
    { answer: { accepted: true, evidence: [{ count: 1 }] }, says: 'got {"accepted":true' },
    { answer: { accepted: false }, says: 'got {"accepted":false}' },
    { answer: { accepted: false, reason: '' }, says: 'got {"accepted":false,"reason":""}' },
    {
      answer: { accepted: false, reason: 'No.', feedback: 'Mend it.' },
      says: 'got {"accepted":false',
    },
    { answer: { needsApproval: [] }, says: 'got {"needsApproval":[]}' },
    { answer: { needsApproval: 'Risky.' }, says: 'got {"needsApproval":"Risky."}' },
    {
      answer: { accepted: true, evidence: ['x'], needsApproval: ['y'] },
      says: 'got {"accepted":true',
    },
    {
      answer: { accepted: true, evidence: [{ name: 'x', when: new Date(0) }] },
      says: 'got it.evidence[0].when is a Date.',
    },
  ])('$answer', async ({ answer, says }) => {
    await expect(judge(answer)).rejects.toThrow(ConfigurationError);
    await expect(judge(answer)).rejects.toThrow(
      'Expected the gatekeeper "editor" to answer { accepted: true, evidence: ["…"] }',
    );
    await expect(judge(answer)).rejects.toThrow(says);
  });

  test('acceptance without evidence', async () => {
    await expect(judge({ accepted: true, evidence: [] })).rejects.toThrow(
      'The gatekeeper "editor" accepted task "a" without evidence. Name at least one check that was made: { accepted: true, evidence: ["read by ada"] }.',
    );
  });
});
