import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { GateArtifact } from '../../src/workspace/gate-artifact.ts';
import { type VerifyAndMergeOptions, verifyAndMerge } from '../../src/workspace/merge.ts';
import { type Files, git, openProject, type Project, sha256, write } from './git-fixture.ts';

const TESTS = `import test from 'node:test';
import assert from 'node:assert';
test('one', () => assert.equal(1, 1));
test('two', () => assert.equal(2, 2));
`;
const NODE_TEST = {
  name: 'test',
  command: [process.execPath, '--test', '--test-isolation=none', '--test-reporter=tap'],
};
const ROWS = Array.from({ length: 8 }, (_, n) => [`data/${n}.csv`, `id\n${n}\n`] as const);
const FILES: Files = {
  'readme.md': 'hello\n',
  'a.test.mjs': TESTS,
  'b.test.mjs': TESTS,
  'check.sh': 'exec true\n',
  'ci/secret.txt': 'x\n',
  ...Object.fromEntries(ROWS),
};

/** What an agent has committed, whatever it is; `null` deletes. */
async function submitted(project: Project, changes: Readonly<Record<string, string | null>>) {
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  for (const [name, text] of Object.entries(changes)) {
    if (text === null) rmSync(path.join(workspace.directory, name));
    else write(workspace.directory, { [name]: text });
  }
  git(workspace.directory, 'add', '-A');
  git(workspace.directory, 'commit', '-q', '-m', 'work');
  const commit = git(workspace.directory, 'rev-parse', 'HEAD');
  git(
    project.directory,
    'fetch',
    '-q',
    workspace.directory,
    `+${commit}:refs/heads/troupe/run/task`,
  );
  return { run: 'run', task: 'task', attempt: 1, title: 'x', commit, base: workspace.base };
}

function artifacts({ directory }: Project): GateArtifact[] {
  const place = path.join(directory, '.troupe/tasks/run/task/gatekeeper');
  return readdirSync(place)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => JSON.parse(readFileSync(path.join(place, name), 'utf8')) as GateArtifact);
}

interface Case {
  readonly what: string;
  readonly changes: Readonly<Record<string, string | null>>;
  readonly verdict: 'rejected' | 'approval_required';
  readonly says: string;
  readonly options?: Partial<VerifyAndMergeOptions>;
}

// All of them are green.
test.each<Case>([
  {
    what: 'a deleted test',
    changes: { 'b.test.mjs': null },
    verdict: 'approval_required',
    says: 'The test "b.test.mjs" is deleted.',
  },
  {
    what: 'a test without its assertion',
    changes: { 'a.test.mjs': TESTS.replace('assert.equal(2, 2)', '{}') },
    verdict: 'approval_required',
    says: '"a.test.mjs" has 1 assertion less than before.',
  },
  {
    what: 'a test script that became exit 0',
    changes: { 'check.sh': 'exit 0\n' },
    verdict: 'approval_required',
    says: '"check.sh" is run by the verification, and was modified.',
  },
  {
    what: 'a protected file',
    changes: { 'ci/secret.txt': 'y\n' },
    verdict: 'rejected',
    says: '"ci/secret.txt" is protected (ci/**) and was modified.',
    options: { policy: { protectedPaths: ['ci/**'] } },
  },
  {
    what: 'marks of a conflict',
    changes: { 'readme.md': '<<<<<<< a\nx\n=======\ny\n>>>>>>> b\n' },
    verdict: 'rejected',
    says: '"readme.md" holds the marks of an unresolved conflict',
  },
  {
    what: 'NUL bytes',
    changes: { 'data/1.csv': 'id\n1\u00002\n' },
    verdict: 'rejected',
    says: '"data/1.csv" was text and holds NUL bytes now.',
  },
  {
    what: 'NUL bytes far behind, where git takes the file for text',
    changes: { 'data/1.csv': `${'id\n'.repeat(5000)}\u0000\n` },
    verdict: 'rejected',
    says: '"data/1.csv" was text and holds NUL bytes now.',
  },
  {
    what: 'an emptied file',
    changes: { 'data/1.csv': '' },
    verdict: 'approval_required',
    says: '"data/1.csv" was emptied (it had 5 bytes).',
  },
  {
    what: 'most of the files gone',
    changes: Object.fromEntries(ROWS.map(([name]) => [name, null])),
    verdict: 'approval_required',
    says: '8 of 13 files are deleted',
  },
])('$what is not merged although it is green', async ({ changes, verdict, says, options }) => {
  const project = await openProject(FILES);
  const before = git(project.directory, 'rev-parse', 'main');
  const submission = await submitted(project, changes);
  const answer = await verifyAndMerge({
    submission,
    verify: [{ name: 'test', command: 'sh check.sh' }],
    workspaces: project.workspaces,
    fingerprint: sha256,
    ...options,
  });
  expect(answer).toMatchObject({ verdict, stage: 'policy' });
  expect(JSON.stringify(answer)).toContain(JSON.stringify(says).slice(1, -1));
  expect(git(project.directory, 'rev-parse', 'main')).toBe(before);
  expect(artifacts(project)).toMatchObject([{ verdict, stage: 'policy' }]);
  expect(answer.evidence.details).toMatchObject({ stage: 'policy' });
});

test('fewer tests than the target ran are seen in the reports, wherever they went', async () => {
  const project = await openProject({ 'a.test.mjs': TESTS, 'list.json': '["one","two"]' });
  const by = `import test from 'node:test';
import { readFileSync } from 'node:fs';
for (const name of JSON.parse(readFileSync('list.json'))) test(name, () => {});
`;
  const options = { verify: [NODE_TEST], workspaces: project.workspaces, fingerprint: sha256 };
  const first = await submitted(project, { 'b.test.mjs': by });
  const accepted = await verifyAndMerge({ submission: first, ...options });
  expect(accepted).toMatchObject({ verdict: 'accepted', evidence: { commands: [{ tests: 4 }] } });
  const second = await submitted(project, { 'list.json': '["one"]' });
  expect(await verifyAndMerge({ submission: second, ...options })).toMatchObject({
    verdict: 'approval_required',
    reasons: ['test ran 3 tests; on the target it ran 4.'],
  });
});

test('also when each task has acceptance commands of its own', async () => {
  const project = await openProject({ 'report.txt': '# pass 4\n' });
  const { workspaces } = project;
  const verify = (accept: string) => [
    { name: 'test', command: 'cat report.txt' },
    { name: `accept: ${accept}`, command: 'true' },
  ];
  const first = await submitted(project, { 'a.txt': 'a\n' });
  const options = { workspaces, fingerprint: sha256 };
  const accepted = await verifyAndMerge({ submission: first, verify: verify('a'), ...options });
  expect(accepted.verdict).toBe('accepted');
  const second = await submitted(project, { 'report.txt': '# pass 3\n' });
  expect(
    await verifyAndMerge({ submission: second, verify: verify('b'), ...options }),
  ).toMatchObject({
    verdict: 'approval_required',
    reasons: ['test ran 3 tests; on the target it ran 4.'],
  });
});

test('marks of a conflict are seen whatever the user’s git takes for a pattern', async () => {
  const project = await openProject({ 'readme.md': 'x\n' });
  git(project.directory, 'config', 'grep.patternType', 'fixed');
  const marks = '<<<<<<< a\nx\n=======\ny\n>>>>>>> b\n';
  const submission = await submitted(project, { 'readme.md': marks });
  const verify = [{ name: 'test', command: 'true' }];
  const { workspaces } = project;
  const verdict = await verifyAndMerge({ submission, verify, workspaces, fingerprint: sha256 });
  expect(verdict).toMatchObject({ verdict: 'rejected', stage: 'policy' });
});

test('a runner that finds no tests proves nothing, unless the project says why there are none', async () => {
  const project = await openProject({ 'readme.md': 'x\n' });
  const submission = await submitted(project, { 'readme.md': 'y\n' });
  const run = (noTests?: string) =>
    verifyAndMerge({
      submission,
      verify: [NODE_TEST],
      workspaces: project.workspaces,
      fingerprint: sha256,
      ...(noTests === undefined ? {} : { noTests }),
    });
  expect(await run()).toMatchObject({
    verdict: 'rejected',
    stage: 'verify',
    reason: expect.stringContaining('ran no tests (exit code 0), and so proves nothing'),
  });
  expect(await run('It is prose.')).toMatchObject({
    verdict: 'accepted',
    evidence: { commands: [{ tests: 0 }] },
  });
});
