import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fc, test as property } from '@fast-check/vitest';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { verifyAndMerge } from '../../src/workspace/merge.ts';
import {
  afterReview,
  checkReviewOptions,
  countVotes,
  type Reviewer,
  type ReviewOptions,
  ReviewPanel,
  type ReviewVote,
} from '../../src/workspace/review.ts';
import {
  git,
  openProject,
  type Project,
  sha256,
  submit,
  temporaryDirectory,
} from './git-fixture.ts';

const VERIFY = [{ name: 'test', command: 'test -f readme.md' }];

const panel = ({ workspaces }: Project, options: ReviewOptions) =>
  new ReviewPanel(options, {
    workspaces,
    env: { PATH: process.env['PATH'] ?? '' },
    redact: (text) => text.replaceAll('s3cret', '***'),
    now: () => 0,
  });

async function merged(project: Project, review: ReviewPanel, task = 'task') {
  const submission = await submit(project, { [`${task}.txt`]: 'added\n' }, { task });
  const { workspaces } = project;
  return await verifyAndMerge({
    submission,
    verify: VERIFY,
    workspaces,
    fingerprint: sha256,
    review,
  });
}

const votes = (...all: readonly ReviewVote['vote'][]) => all.map((vote) => ({ vote }));

describe('what votes come to', () => {
  test.each([
    {
      vote: votes('approve', 'approve', 'reject'),
      majority: 'approved',
      any: 'approved',
      all: 'rejected',
    },
    { vote: votes('approve', 'reject'), majority: 'rejected', any: 'approved', all: 'rejected' },
    { vote: votes('reject'), majority: 'rejected', any: 'rejected', all: 'rejected' },
    {
      vote: votes('approve', 'failed', 'skipped'),
      majority: 'approved',
      any: 'approved',
      all: 'approved',
    },
    { vote: votes('failed', 'skipped'), majority: 'undecided', any: 'undecided', all: 'undecided' },
    { vote: votes(), majority: 'undecided', any: 'undecided', all: 'undecided' },
  ] as const)('$vote', ({ vote, ...expected }) => {
    const [majority, any, all] = (['majority', 'any', 'all'] as const).map((by) =>
      countVotes(by, vote),
    );
    expect({ majority, any, all }).toEqual(expected);
  });

  property.prop([
    fc.array(fc.constantFrom('failed' as const, 'skipped' as const)),
    fc.constantFrom('majority' as const, 'any' as const, 'all' as const),
  ])(
    'nobody who answers is never an approval, and who does not answer changes nothing',
    (silent, by) => {
      expect(countVotes(by, votes(...silent))).toBe('undecided');
      for (const vote of ['approve', 'reject'] as const) {
        expect(countVotes(by, votes(vote, ...silent))).toBe(countVotes(by, votes(vote)));
      }
    },
  );
});

test('a reviewer that fails three times in a row is left alone for a while, then asked once', () => {
  const options = { failures: 3, pauseMs: 100 };
  let state = { failures: 0, openUntil: 0 };
  for (const openUntil of [0, 0, 110]) {
    state = afterReview(state, true, 10, options);
    expect(state.openUntil).toBe(openUntil);
  }
  expect(afterReview(state, true, 200, options)).toEqual({ failures: 4, openUntil: 300 });
  expect(afterReview(state, false, 200, options)).toEqual({ failures: 0, openUntil: 0 });
});

test.each<[what: string, options: unknown, says: string]>([
  ['nobody to ask', { reviewers: [] }, 'expected at least one reviewer, got []'],
  [
    'another mode',
    { mode: 'on', reviewers: [] },
    'expected mode to be one of off, advisory, gate, got "on"',
  ],
  [
    'two of one name',
    {
      reviewers: [
        { name: 'a', command: 'x' },
        { name: 'a', command: 'y' },
      ],
    },
    'a unique name for each reviewer, got "a"',
  ],
  [
    'no command',
    { reviewers: [{ name: 'a', command: ' ' }] },
    'a command or a function for the reviewer a',
  ],
  [
    'no time',
    { reviewers: [{ name: 'a', command: 'x', timeoutMs: 0 }] },
    'timeoutMs of a to be a positive integer, got 0',
  ],
])('options with %s are refused', (_what, options, says) => {
  expect(() => checkReviewOptions(options as ReviewOptions)).toThrow(says);
});

test('a reviewer sees the diff and the files of target and change; its findings are the feedback', async () => {
  const project = await openProject();
  const command = `grep -q '^+added' && grep -q '^+added' "$TROUPE_DIFF_FILE" && test -f task.txt && echo looking >&2 && echo '{"findings":[{"file":"task.txt","line":1,"message":"Say s3cret why."},"Shorter."]}' && exit 1`;
  const verdict = await merged(project, panel(project, { reviewers: [{ name: 'ada', command }] }));
  expect(verdict).toMatchObject({
    verdict: 'rejected',
    stage: 'review',
    reason: 'The review did not approve (ada).',
    feedback: ['The review did not approve (ada).\nada: task.txt:1: Say *** why.\nada: Shorter.'],
    evidence: { details: { reviews: [{ reviewer: 'ada', vote: 'reject' }] } },
  });
  expect(git(project.directory, 'log', '--format=%s', 'main')).toBe('first');
});

test('nobody who could answer is no approval; who fails is left alone; advice holds nothing back', async () => {
  const project = await openProject();
  const broken: Reviewer[] = [
    { name: 'crashes', command: 'echo boom; exit 2' },
    { name: 'missing', command: ['no-such-reviewer'] },
    { name: 'late', command: 'exec sleep 94021', timeoutMs: 50 },
    { name: 'odd', review: () => ({}) as never },
    { name: 'silent', review: () => new Promise(() => undefined), timeoutMs: 10 },
  ];
  const gate = panel(project, { reviewers: broken, failures: 1, pauseMs: 100 });
  const verdict = await merged(project, gate);
  expect(verdict).toMatchObject({
    verdict: 'infrastructure',
    reason: expect.stringContaining(
      'No reviewer could answer, which is no approval. crashes: It failed (exit code 2): boom missing: It failed (ENOENT):',
    ),
  });
  expect(verdict).toMatchObject({
    reason: expect.stringMatching(
      /late: It did not end within 50 ms\. odd: Expected .* silent: It did not answer within 10 ms\.$/,
    ),
  });
  expect((await merged(project, gate)).evidence.details).toMatchObject({
    reviews: broken.map(({ name }) => ({
      reviewer: name,
      vote: 'skipped',
      reason: 'It has failed 1 times in a row, and is not asked until 1970-01-01T00:00:00.100Z.',
    })),
  });
  expect(git(project.directory, 'log', '--format=%s', 'main')).toBe('first');
  const advice: Reviewer[] = [{ name: 'no', review: () => ({ approve: false }) }];
  const advised = await merged(project, panel(project, { mode: 'advisory', reviewers: advice }));
  expect(advised).toMatchObject({
    verdict: 'accepted',
    evidence: { details: { reviews: [{ reviewer: 'no', vote: 'reject' }] } },
  });
});

test('those who answer decide; the same change is not reviewed twice', async () => {
  const project = await openProject();
  let asked = 0;
  const reviewers: Reviewer[] = [
    {
      name: 'bob',
      review: ({ diff, files, task }) => {
        asked++;
        return { approve: diff.includes('+added') && files.includes(`${task}.txt`) };
      },
    },
    {
      name: 'breaks',
      review: () => {
        throw new Error('s3cret');
      },
    },
  ];
  const review = panel(project, { decide: 'all', reviewers });
  const submission = await submit(project, { 'task.txt': 'added\n' });
  const options = { submission, workspaces: project.workspaces, fingerprint: sha256, review };
  const lost = () => Promise.reject(new Error('somebody else has taken over'));
  await expect(verifyAndMerge({ ...options, verify: VERIFY, mayMove: lost })).rejects.toThrow(
    'taken over',
  );
  const verdict = await verifyAndMerge({ ...options, verify: VERIFY });
  expect(verdict).toMatchObject({
    verdict: 'accepted',
    evidence: {
      details: { reviews: [{ vote: 'approve' }, { vote: 'failed', reason: '***' }] },
    },
  });
  expect(asked).toBe(1);
});

test.each([
  { mode: 'gate', verdict: { verdict: 'rejected', stage: 'review' } },
  { mode: 'advisory', verdict: { verdict: 'accepted' } },
] as const)(
  'a change too large to be shown ($mode) is $verdict.verdict, and no fault of the machine',
  async ({ mode, verdict }) => {
    const project = await openProject();
    const reviewers = [{ name: 'a', review: () => ({ approve: true }) }];
    const review = panel(project, { mode, reviewers });
    const real = execFileSync('/bin/sh', ['-c', 'command -v git'], { encoding: 'utf8' }).trim();
    const bin = temporaryDirectory();
    // To make such a change takes longer than to print it.
    const lines = [
      '#!/bin/sh',
      'for word; do [ "$word" = -M ] && exec head -c 70000000 /dev/zero; done',
      `exec ${real} "$@"`,
    ];
    writeFileSync(path.join(bin, 'git'), `${lines.join('\n')}\n`, { mode: 0o755 });
    vi.stubEnv('PATH', `${bin}:${process.env['PATH']}`);
    onTestFinished(() => void vi.unstubAllEnvs());
    expect(await merged(project, review)).toMatchObject(verdict);
  },
);
