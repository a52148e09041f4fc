import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { LockConflictError } from '../../src/protocol/errors.ts';
import type { Verdict } from '../../src/protocol/verdict.ts';
import type { GateArtifact } from '../../src/workspace/gate-artifact.ts';
import {
  type Submission,
  type VerifyAndMergeOptions,
  verifyAndMerge,
} from '../../src/workspace/merge.ts';
import { checkVerifyCommands, type VerifyCommand } from '../../src/workspace/verification.ts';
import { program, programEnvironment } from '../program.ts';
import {
  commit,
  type Files,
  git,
  makeRepository,
  openProject,
  PIPELINE_CHANGE,
  type Project,
  reopenProject,
  sha256,
  submit,
  temporaryDirectory,
  write,
} from './git-fixture.ts';

const GREEN: readonly VerifyCommand[] = [{ name: 'test', command: 'test -f readme.md' }];

function gate(
  project: Project,
  submission: Submission,
  options: Partial<VerifyAndMergeOptions> = {},
): Promise<Verdict> {
  const { workspaces } = project;
  return verifyAndMerge({ submission, verify: GREEN, workspaces, fingerprint: sha256, ...options });
}

function artifactsOf({ directory }: Project, task = 'task', run = 'run'): GateArtifact[] {
  const place = path.join(directory, '.troupe/tasks', run, task, 'gatekeeper');
  return readdirSync(place)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => JSON.parse(readFileSync(path.join(place, name), 'utf8')) as GateArtifact);
}

const mainLog = (directory: string) => git(directory, 'log', '--format=%s', 'refs/heads/main');

/** The user's repository is whole, its working tree is what main says, and nothing of ours lies about or runs. */
async function expectClean(project: Project): Promise<void> {
  const { directory } = project;
  await project.repository.close();
  project.processes.close();
  expect(git(directory, 'status', '--porcelain')).toBe('');
  expect(git(directory, 'fsck', '--full', '--no-dangling')).toBe('');
  expect(
    readdirSync(path.join(directory, '.troupe/verify')).filter((n) => n !== '.gitignore'),
  ).toEqual([]);
  expect(readdirSync(path.join(directory, '.troupe/processes'))).toEqual(['.gitignore']);
}

test('a green change is merged: main, checkout and artifact say so', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'new.txt': 'new\n', 'readme.md': 'changed\n' });
  const verdict = await gate(project, submission);
  expect(verdict).toMatchObject({
    verdict: 'accepted',
    evidence: { commands: [{ name: 'test', exitCode: 0, signal: null }] },
  });
  const { directory } = project;
  const head = git(directory, 'rev-parse', 'refs/heads/main');
  expect(verdict.evidence).toMatchObject({
    commit: head,
    tree: git(directory, 'rev-parse', 'refs/heads/main^{tree}'),
  });
  expect(git(directory, 'rev-parse', `${head}^`)).toBe(submission.base);
  expect(git(directory, 'log', '-1', '--format=%B', head)).toBe(
    `Do task\n\nTroupe-Task: run/task\nTroupe-Submission: ${submission.commit}\nTroupe-Attempt: 1`,
  );
  expect(readFileSync(path.join(directory, 'new.txt'), 'utf8')).toBe('new\n');
  const [artifact] = artifactsOf(project);
  expect(artifact).toMatchObject({
    verdict: 'accepted',
    mergeCommit: head,
    files: ['new.txt', 'readme.md'],
    submission: submission.commit,
  });
  expect(existsSync(path.join(directory, verdict.evidence.artifact ?? 'none'))).toBe(true);
  await expectClean(project);
});

test('main does not move when somebody else has taken over meanwhile, and does when they have not', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'new.txt': 'new\n' });
  const before = git(project.directory, 'rev-parse', 'refs/heads/main');
  const lost = new LockConflictError('Another process owns the store.', { retryable: false });
  await expect(gate(project, submission, { mayMove: () => Promise.reject(lost) })).rejects.toBe(
    lost,
  );
  expect(git(project.directory, 'rev-parse', 'refs/heads/main')).toBe(before);
  let asked = 0;
  const mayMove = async (): Promise<void> => {
    asked++;
    expect(git(project.directory, 'rev-parse', 'refs/heads/main')).toBe(before);
  };
  expect((await gate(project, submission, { mayMove })).verdict).toBe('accepted');
  expect(asked).toBe(1);
  await expectClean(project);
});

test('verification sees exactly the merged tree, and what it does to files is not merged', async () => {
  const project = await openProject({ 'readme.md': 'hello\n', '.gitignore': 'built\n' });
  write(project.directory, { 'built/x': 'user\n' });
  const submission = await submit(project, { 'a.txt': 'a\n' });
  commit(project.directory, { 'b.txt': 'from main\n' });
  const verdict = await gate(project, submission, {
    verify: [
      {
        name: 'test',
        command:
          'cat a.txt b.txt && test ! -e built && git status --porcelain && echo x > a.txt && mkdir built && touch built/y junk && rm b.txt',
      },
    ],
  });
  expect(verdict.evidence.commands[0]?.excerpt).toBe('a\nfrom main');
  expect(verdict.verdict).toBe('accepted');
  expect(git(project.directory, 'show', 'main:a.txt')).toBe('a');
  expect(git(project.directory, 'ls-tree', '--name-only', 'main').split('\n')).toEqual([
    '.gitignore',
    'a.txt',
    'b.txt',
    'readme.md',
  ]);
  await expectClean(project);
});

test.each([
  {
    name: 'a failing command',
    verify: [{ name: 'test', command: 'echo broken >&2; exit 2' }],
    expected: {
      verdict: 'rejected',
      stage: 'verify',
      reason: 'test (echo broken >&2; exit 2) failed with exit code 2.',
    },
  },
  {
    name: 'a failing setup',
    verify: [{ name: 'setup', command: 'exit 1' }, ...GREEN],
    expected: { verdict: 'rejected', stage: 'setup' },
  },
  {
    name: 'a command that kills itself',
    verify: [{ name: 'test', command: 'kill -KILL $$' }],
    expected: {
      verdict: 'rejected',
      stage: 'verify',
      reason: 'test (kill -KILL $$) was ended by SIGKILL.',
    },
  },
  {
    name: 'a command that does not end',
    verify: [{ name: 'test', command: 'sleep 94001', timeoutMs: 200 }],
    expected: { verdict: 'rejected', stage: 'verify_timeout' },
  },
  {
    name: 'a missing tool in a shell command',
    verify: [{ name: 'test', command: 'no-such-tool --run' }],
    expected: { verdict: 'infrastructure' },
  },
  {
    name: 'a missing program',
    verify: [{ name: 'test', command: ['no-such-tool'] }],
    expected: { verdict: 'infrastructure' },
  },
  {
    name: 'no commands at all',
    verify: [],
    expected: {
      verdict: 'infrastructure',
      reason: expect.stringContaining('at least one command'),
    },
  },
  {
    name: 'a test that may fail',
    verify: [{ name: 'test', command: 'false', allowFail: true }],
    expected: { verdict: 'infrastructure', reason: expect.stringContaining('test must pass') },
  },
  {
    name: 'nothing that must pass',
    verify: [
      { name: 'setup', command: 'true' },
      { name: 'lint', command: 'true', allowFail: true },
    ],
    expected: { verdict: 'infrastructure' },
  },
])('$name is not accepted', async ({ verify, expected }) => {
  const project = await openProject();
  const before = git(project.directory, 'rev-parse', 'main');
  const verdict = await gate(project, await submit(project, { 'a.txt': 'a\n' }), { verify });
  expect(verdict).toMatchObject(expected);
  expect(git(project.directory, 'rev-parse', 'main')).toBe(before);
  expect(artifactsOf(project)).toMatchObject([
    { verdict: expected.verdict, reason: expect.any(String) },
  ]);
  expect(git(project.directory, 'status', '--porcelain')).toBe('');
});

test('the first failure that counts ends the verification; one that may fail is noted', async () => {
  const project = await openProject();
  const verdict = await gate(project, await submit(project, { 'a.txt': 'a\n' }), {
    verify: [
      { name: 'lint', command: 'exit 3', allowFail: true },
      { name: 'test', command: 'exit 4' },
      { name: 'build', command: 'true' },
    ],
  });
  expect(verdict.evidence.commands).toMatchObject([
    { name: 'lint', exitCode: 3, allowedToFail: true },
    { name: 'test', exitCode: 4 },
  ]);
});

test.each([
  { exits: 97, verdict: 'infrastructure' },
  { exits: 96, verdict: 'rejected' },
])('exit code $exits is $verdict where 97 stands for the machine', async ({ exits, verdict }) => {
  const project = await openProject();
  const answer = await gate(project, await submit(project, { 'a.txt': 'a\n' }), {
    verify: [
      {
        name: 'test',
        command: `echo no packages; exit ${exits}`,
        infrastructureExitCodes: [97],
      },
    ],
  });
  expect(answer).toMatchObject({ verdict, reason: expect.stringContaining(`exit code ${exits}`) });
  expect(answer.evidence.commands).toMatchObject([{ exitCode: exits, excerpt: 'no packages' }]);
});

test('the name of a command may be as long as a sentence', async () => {
  const project = await openProject();
  const name = 'accept: it says what it does, and does what it says, '.repeat(8);
  const verify = [{ name, command: 'true' }];
  const verdict = await gate(project, await submit(project, { 'a.txt': 'a\n' }), { verify });
  expect(verdict).toMatchObject({ verdict: 'accepted', evidence: { commands: [{ name }] } });
});

test('an exit code that no command can have is refused as one of the machine', () => {
  const verify = [{ name: 'test', command: 'true', infrastructureExitCodes: [0] }];
  expect(() => checkVerifyCommands(verify)).toThrow(
    'expected exit codes from 1 to 255 as infrastructureExitCodes of test, got 0',
  );
});

test('a failure has a fingerprint of its output, and the change one of its diff', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  const texts: string[] = [];
  const verdict = await gate(project, submission, {
    verify: [{ name: 'test', command: 'echo AssertionError; exit 1' }],
    fingerprint: (text) => {
      texts.push(text);
      return 'fp';
    },
  });
  expect(verdict).toMatchObject({ errorFingerprint: 'fp', changeFingerprint: /^[0-9a-f]{64}$/ });
  expect(texts[0]).toContain('AssertionError');
});

test('secrets are taken out of evidence and artifact', async () => {
  const project = await openProject();
  const verdict = await gate(project, await submit(project, { 'a.txt': 'a\n' }), {
    verify: [{ name: 'test', command: 'echo sk-123; exit 1' }],
    redact: (text) => text.replaceAll('sk-123', '***'),
  });
  expect(JSON.stringify([verdict, artifactsOf(project)])).not.toContain('sk-123');
});

test('a conflict is a verdict with the names of the files, and main stays', async () => {
  const project = await openProject({ 'readme.md': 'hello\n', 'a.txt': 'one\n' });
  const submission = await submit(project, { 'a.txt': 'agent\n', 'b.txt': 'b\n' });
  const head = commit(project.directory, { 'a.txt': 'user\n' });
  const verdict = await gate(project, submission);
  expect(verdict).toMatchObject({
    verdict: 'rejected',
    stage: 'merge',
    reason: 'The change conflicts with main in a.txt.',
    errorFingerprint: expect.any(String),
    changeFingerprint: expect.any(String),
  });
  expect(git(project.directory, 'rev-parse', 'main')).toBe(head);
});

test('a change that main has already is empty', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'same\n' });
  commit(project.directory, { 'a.txt': 'same\n' });
  expect(await gate(project, submission)).toMatchObject({ verdict: 'rejected', stage: 'apply' });
});

test('green apart, red together: the second is refused on the merged tree', async () => {
  const project = await openProject({
    '.gitattributes': '*.list merge=union\n',
    'readme.md': 'x\n',
    'all.list': 'start\n',
  });
  const verify = [{ name: 'test', command: 'test "$(wc -l < all.list)" -le 2' }];
  const first = await submit(project, { 'all.list': 'start\none\n' }, { task: 'one' });
  const second = await submit(project, { 'all.list': 'start\ntwo\n' }, { task: 'two' });
  expect((await gate(project, first, { verify })).verdict).toBe('accepted');
  expect(await gate(project, second, { verify })).toMatchObject({
    verdict: 'rejected',
    stage: 'verify',
  });
});

test("of the trees that have passed 200 are remembered, by the project's own commands as well as with a task's", async () => {
  const project = await openProject();
  const verify = [
    { name: 'test', command: 'true' },
    { name: 'accept: a', command: 'true' },
  ];
  const submitted = async (name: string) => {
    const submission = await submit(project, { [name]: 'a\n' }, { task: name });
    expect((await gate(project, submission, { verify })).verdict).toBe('accepted');
    await project.workspaces.settled();
  };
  await submitted('one');
  const root = path.join(project.directory, '.troupe/verified-trees');
  const configurations = readdirSync(root).filter((name) => name !== '.gitignore');
  expect(configurations).toHaveLength(2);
  for (const name of configurations) {
    for (let n = 0; n < 220; n++) writeFileSync(path.join(root, name, `${n}.json`), '{}');
  }
  await submitted('two');
  expect(configurations.map((name) => readdirSync(path.join(root, name)).length)).toEqual([
    200, 200,
  ]);
});

test('main that moves during the verification is verified again, on its new state', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  let moves = 0;
  const verdict = await gate(project, submission, {
    verify: [{ name: 'test', command: 'ls' }],
    onProgress: ({ phase }) => {
      if (phase === 'running' && moves++ === 0)
        commit(project.directory, { 'moved.txt': 'x\n' }, 'moved');
    },
  });
  expect(verdict.verdict).toBe('accepted');
  expect(verdict.evidence.commands[0]?.excerpt).toBe('a.txt\nmoved.txt\nreadme.md');
  expect(artifactsOf(project).map((artifact) => artifact.verdict)).toEqual([
    'superseded',
    'accepted',
  ]);
  expect(mainLog(project.directory)).toBe('Do task\nmoved\nfirst');
  await expectClean(project);
});

test('a submission that cannot be found is named as gone, one that could not be judged is not', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  const gone = await gate(project, { ...submission, commit: 'f'.repeat(40) });
  expect(gone).toMatchObject({ verdict: 'infrastructure', submissionGone: true });
  const verify = [{ name: 'test', command: 'no-such-tool' }];
  const unjudged = await gate(project, submission, { verify });
  expect(unjudged).toMatchObject({ verdict: 'infrastructure' });
  expect(unjudged).not.toHaveProperty('submissionGone');
});

test('main that moves in every round is left to a later try', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  let moves = 0;
  const verdict = await gate(project, submission, {
    onProgress: ({ phase }) => {
      if (phase === 'running') commit(project.directory, { 'moved.txt': `${moves++}\n` }, 'moved');
    },
  });
  expect(verdict).toMatchObject({
    verdict: 'infrastructure',
    reason: 'main moved during each of 5 rounds of verification.',
  });
  expect(moves).toBe(5);
});

test.each([
  {
    name: 'a changed file',
    files: { 'readme.md': 'mine\n' },
    says: 'uncommitted changes ("readme.md")',
  },
  {
    name: 'an untracked file in the way',
    files: { 'a.txt': 'mine\n' },
    says: 'untracked files where merged ones belong ("a.txt")',
  },
  { name: 'an ignored file in the way', files: { 'secret.env': 'mine\n' }, says: '("secret.env")' },
  { name: 'a file where a directory belongs', files: { dir: 'mine\n' }, says: '("dir")' },
  {
    name: 'a directory where a file belongs',
    files: { 'file/mine': 'mine\n' },
    says: '("file/mine")',
  },
])(
  '$name in the checkout of main: nothing moves, and the verdict says what to do',
  async ({ files, says }) => {
    const project = await openProject({ 'readme.md': 'hello\n', '.gitignore': '*.env\n' });
    const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
    write(workspace.directory, {
      'a.txt': 'a\n',
      'dir/x': 'x\n',
      file: 'f\n',
      'secret.env': 'theirs\n',
    });
    git(workspace.directory, 'add', '-f', 'secret.env');
    git(workspace.directory, 'commit', '-qm', 'agent');
    const collected = await project.workspaces.collect({ workspace, message: 'x' });
    if (collected.kind !== 'submitted') throw new Error(collected.kind);
    const submission = { run: 'run', task: 'task', attempt: 1, title: 'x', ...collected };
    const { directory } = project;
    write(directory, files);
    const before = git(directory, 'rev-parse', 'main');
    const verdict = await gate(project, submission);
    expect(verdict).toMatchObject({
      verdict: 'infrastructure',
      reason: expect.stringContaining(says),
    });
    expect(verdict).toMatchObject({ reason: expect.stringContaining(directory) });
    expect(git(directory, 'rev-parse', 'main')).toBe(before);
    for (const [name, text] of Object.entries(files)) {
      expect(readFileSync(path.join(directory, name), 'utf8')).toBe(text);
    }
    expect(artifactsOf(project)).toMatchObject([{ verdict: 'infrastructure' }]);

    // Cleaned up by the user, it goes through, and what is proved is not proved again.
    rmSync(path.join(directory, Object.keys(files)[0]?.split('/')[0] ?? ''), { recursive: true });
    git(directory, 'checkout', '-q', '--', '.');
    const again = await gate(project, submission, {
      onProgress: ({ phase }) => expect(phase).not.toBe('running'),
    });
    expect(again).toMatchObject({
      verdict: 'accepted',
      evidence: {
        commands: [{ name: 'test' }],
        details: { verifiedBefore: verdict.evidence.artifact },
      },
    });
    await expectClean(project);
  },
);

/** A project with a submodule `sub`, in which the user works. */
async function openWithSubmodule(): Promise<Project> {
  const directory = makeRepository({ 'readme.md': 'hello\n' });
  const library = makeRepository({ 'a.txt': 'a\n' });
  git(directory, '-c', 'protocol.file.allow=always', 'submodule', '-q', 'add', library, 'sub');
  git(directory, 'commit', '-qm', 'with submodule');
  write(directory, { 'sub/a.txt': 'edited\n', 'sub/mine.txt': 'mine\n' });
  return await reopenProject(directory);
}

async function submitWithout(project: Project, files: Files): Promise<Submission> {
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  rmSync(path.join(workspace.directory, 'sub'), { recursive: true });
  write(workspace.directory, files);
  const collected = await project.workspaces.collect({ workspace, message: 'x' });
  if (collected.kind !== 'submitted') throw new Error(collected.kind);
  return { run: 'run', task: 'task', attempt: 1, title: 'x', ...collected };
}

test('a file in place of a submodule: what the user has in it stays, and the verdict says what to do', async () => {
  const project = await openWithSubmodule();
  const { directory } = project;
  const submission = await submitWithout(project, { sub: 'a file\n' });
  expect(await gate(project, submission)).toMatchObject({
    verdict: 'infrastructure',
    reason: expect.stringContaining('("sub")'),
  });
  expect(readFileSync(path.join(directory, 'sub/mine.txt'), 'utf8')).toBe('mine\n');
  git(directory, 'submodule', '--quiet', 'deinit', '-f', 'sub');
  expect((await gate(project, submission)).verdict).toBe('accepted');
  expect(readFileSync(path.join(directory, 'sub'), 'utf8')).toBe('a file\n');
});

test('a crash in the middle of removing a submodule is completed, and its files stay', async () => {
  const project = await openWithSubmodule();
  const { directory } = project;
  const submission = await submitWithout(project, { '.gitmodules': '' });
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  const policy = { rules: { 'repository-settings': 'off', 'emptied-files': 'off' } } as const;
  await expect(gate(project, submission, { faultPoint, policy })).rejects.toThrow(Crash);
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([directory]);
  expect(git(directory, 'status', '--porcelain')).toBe('?? sub/');
  expect(readFileSync(path.join(directory, 'sub/mine.txt'), 'utf8')).toBe('mine\n');
});

test('work that the user has in other places is no obstacle', async () => {
  const project = await openProject();
  write(project.directory, { 'notes.txt': 'untracked, elsewhere\n' });
  const verdict = await gate(project, await submit(project, { 'a.txt': 'a\n' }));
  expect(verdict.verdict).toBe('accepted');
  expect(readFileSync(path.join(project.directory, 'notes.txt'), 'utf8')).toContain('untracked');
});

test('a merge in progress on main is an obstacle, also with clean files', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  write(path.join(project.directory, '.git'), { MERGE_HEAD: `${submission.base}\n` });
  expect(await gate(project, submission)).toMatchObject({
    verdict: 'infrastructure',
    reason: expect.stringContaining('in the middle of a merge'),
  });
});

test('main that is checked out nowhere, or in a linked worktree, is moved as well', async () => {
  const project = await openProject();
  const { directory } = project;
  git(directory, 'checkout', '-q', '-b', 'elsewhere');
  expect(
    (await gate(project, await submit(project, { 'a.txt': 'a\n' }, { task: 'one' }))).verdict,
  ).toBe('accepted');
  const linked = path.join(directory, '..', 'linked');
  git(directory, 'worktree', 'add', '-q', linked, 'main');
  expect(
    (await gate(project, await submit(project, { 'b.txt': 'b\n' }, { task: 'two' }))).verdict,
  ).toBe('accepted');
  expect(readFileSync(path.join(linked, 'b.txt'), 'utf8')).toBe('b\n');
  expect(git(linked, 'status', '--porcelain')).toBe('');
  expect(existsSync(path.join(directory, 'a.txt'))).toBe(false);
});

test('a change to a protected path, a symlink to outside and a huge file are refused by policy', async () => {
  const project = await openProject({ 'readme.md': 'x\n', 'ci/test.sh': 'true\n' });
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  write(workspace.directory, { 'ci/test.sh': 'exit 0\n', big: 'x'.repeat(2000) });
  const { symlinkSync } = await import('node:fs');
  symlinkSync('/etc/passwd', path.join(workspace.directory, 'absolute'));
  symlinkSync('../outside', path.join(workspace.directory, 'relative'));
  symlinkSync('ci/test.sh', path.join(workspace.directory, 'inside'));
  const collected = await project.workspaces.collect({ workspace, message: 'x' });
  if (collected.kind !== 'submitted') throw new Error(collected.kind);
  const verdict = await gate(
    project,
    { run: 'run', task: 'task', attempt: 1, title: 'x', ...collected },
    { policy: { protectedPaths: ['ci/**'], maxFileBytes: 1000 } },
  );
  expect(verdict).toMatchObject({ verdict: 'rejected', stage: 'policy' });
  expect(verdict).toMatchObject({
    feedback: [
      '"absolute" is a symlink to "/etc/passwd", outside the project.',
      '"big" has 2000 bytes; at most 1000 are allowed.',
      '"ci/test.sh" is protected (ci/**) and was modified.',
      '"relative" is a symlink to "../outside", outside the project.',
    ],
  });
});

test('a risky change waits for a person, and the approval holds for that commit only', async () => {
  const project = await openProject({ 'package.json': '{"scripts":{"test":"true"}}\n' });
  const verify = [{ name: 'test', command: 'test -f package.json' }];
  const change = { 'package.json': '{"scripts":{"test":"exit 0"}}\n' };
  const submission = await submit(project, change);
  const ask = (approvedCommit: string | undefined, more: Partial<VerifyAndMergeOptions> = {}) =>
    gate(project, submission, {
      verify,
      ...(approvedCommit === undefined ? {} : { approvedCommit }),
      ...more,
    });
  const asked = {
    verdict: 'approval_required',
    stage: 'policy',
    reasons: ['"package.json" changes or removes the scripts "test".'],
    evidence: { commands: [{ name: 'test', exitCode: 0 }], details: { stage: 'policy' } },
  };
  // Nobody has been asked yet, so nobody can have approved.
  expect(await ask(submission.commit)).toMatchObject(asked);
  expect(await ask('other')).toMatchObject(asked);
  expect(artifactsOf(project)[0]).toMatchObject({
    verdict: 'approval_required',
    stage: 'policy',
    flags: [{ rule: 'verification', action: 'approve', path: 'package.json' }],
  });
  // What is found only now has been seen by nobody.
  const stricter: Partial<VerifyAndMergeOptions> = {
    policy: { protectedPaths: ['*.json'], rules: { 'protected-paths': 'approve' } },
  };
  expect(await ask(submission.commit, stricter)).toMatchObject({ verdict: 'approval_required' });
  expect(mainLog(project.directory)).toBe('first');
  const accepted = await ask(submission.commit, {
    onProgress: ({ phase }) => expect(phase).not.toBe('running'),
  });
  expect(accepted).toMatchObject({
    verdict: 'accepted',
    evidence: { details: { approved: true } },
  });
  expect(git(project.directory, 'rev-parse', 'main^{tree}')).toBe(
    git(project.directory, 'rev-parse', `${submission.commit}^{tree}`),
  );
});

test('a title cannot forge trailers', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  const title = 'Nice\n\nTroupe-Task: run/other\nTroupe-Submission: x';
  expect((await gate(project, { ...submission, title })).verdict).toBe('accepted');
  expect(
    git(project.directory, 'log', '-1', '--format=%(trailers:key=Troupe-Task,valueonly)', 'main'),
  ).toBe('run/task');
});

test('an abort ends the command, leaves an artifact and moves nothing', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  const controller = new AbortController();
  const running = gate(project, submission, {
    verify: [{ name: 'test', command: 'sleep 94002' }],
    signal: controller.signal,
    onProgress: ({ phase }) => {
      if (phase === 'running') controller.abort();
    },
  });
  await expect(running).rejects.toThrow('called off');
  expect(artifactsOf(project)).toMatchObject([{ verdict: 'cancelled' }]);
  expect(mainLog(project.directory)).toBe('first');
  await expectClean(project);
});

const POINTS = [
  'workspace.before-clone',
  'workspace.after-clone',
  'workspace.before-commit',
  'workspace.after-commit',
  'workspace.after-import',
  'gate.merged-in-memory',
  'gate.verified-before-artifact',
  'gate.artifact-before-ref',
  'gate.ref-before-checkout',
  'gate.after-checkout',
];

/** Stands for a crash: what the process would have done afterwards is not done. */
class Crash extends Error {}

test.each(POINTS)('SIGKILL at %s, then a restart: merged exactly once', async (point) => {
  const { directory, repository, processes } = await openProject();
  await repository.close();
  processes.close();
  const child = spawn(
    process.execPath,
    [program('workspace/pipeline'), directory, `${point}:kill`],
    {
      env: programEnvironment(),
      stdio: 'ignore',
    },
  );
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);

  const restarted = await reopenProject(directory);
  await restarted.processes.killLeftovers();
  await restarted.repository.finishCheckouts();
  expect(git(directory, 'status', '--porcelain')).toBe('');
  await restarted.workspaces.reap([{ run: 'run', task: 'task' }]);
  // The submission that was on its way, if it got that far, is asked about again.
  const submitted = await restarted.repository.resolve('refs/heads/troupe/run/task');
  const verdict = await gate(
    restarted,
    submitted === undefined
      ? await submit(restarted, PIPELINE_CHANGE)
      : {
          run: 'run',
          task: 'task',
          attempt: 1,
          title: 'Do task',
          commit: submitted,
          base: git(directory, 'rev-parse', `${submitted}^`),
        },
  );
  expect(verdict.verdict).toBe('accepted');
  expect(mainLog(directory)).toBe('Do task\nfirst');
  const accepted = artifactsOf(restarted).filter((artifact) => artifact.verdict === 'accepted');
  expect(accepted.at(-1)?.tree).toBe(git(directory, 'rev-parse', 'main^{tree}'));
  expect(readFileSync(path.join(directory, 'a.txt'), 'utf8')).toBe('a\n');
  await restarted.workspaces.reap([]);
  await expectClean(restarted);
});

test('a merge whose artifact is lost is proved again before it counts', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  await gate(project, submission);
  rmSync(path.join(project.directory, '.troupe/tasks'), { recursive: true });
  rmSync(path.join(project.directory, '.troupe/verified-trees'), { recursive: true });
  expect(
    (await gate(project, submission, { verify: [{ name: 'test', command: 'false' }] })).verdict,
  ).toBe('rejected');
  const verdict = await gate(project, submission);
  expect(verdict).toMatchObject({
    verdict: 'accepted',
    evidence: { commands: [{ name: 'test' }] },
  });
  expect(mainLog(project.directory)).toBe('Do task\nfirst');
});

test('a crash in the middle of the update of the files is completed, and the user’s edits stay', async () => {
  const before = {
    'readme.md': 'old\n',
    'gone.txt': 'old\n',
    'same.txt': 'same\n',
    'mine.txt': 'x\n',
  };
  const project = await openProject(before);
  const { directory } = project;
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  write(workspace.directory, { 'readme.md': 'new\n', 'dir/added.txt': 'new\n' });
  rmSync(path.join(workspace.directory, 'gone.txt'));
  const collected = await project.workspaces.collect({ workspace, message: 'x' });
  if (collected.kind !== 'submitted') throw new Error(collected.kind);
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  const submission = { run: 'run', task: 'task', attempt: 1, title: 'x', ...collected };
  await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
  // One file is written already, the others not; the index is as it was.
  write(directory, { 'dir/added.txt': 'new\n', 'mine.txt': 'edited by the user\n' });
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([directory]);
  expect(git(directory, 'status', '--porcelain')).toBe('M mine.txt');
  expect(existsSync(path.join(directory, 'gone.txt'))).toBe(false);
  expect(readFileSync(path.join(directory, 'readme.md'), 'utf8')).toBe('new\n');
  expect(await restarted.repository.finishCheckouts()).toEqual([]);
});

/** Of a change that is merged while files cannot get larger than 8 kB: the small ones are written, and half of the large one. */
const LARGE = { 'large.txt': 'large\n'.repeat(10_000) };
const TO_BE_CHANGED = {
  'readme.md': 'x\n',
  'a.txt': 'old\n',
  'gone.txt': 'gone\n',
  'large.txt': 'old\n',
};

/** Until the test is over, a git that meets the limit when it runs one of these subcommands in the user's checkout. */
function limitFiles({ directory }: Project, subcommands: readonly string[]): void {
  const bin = temporaryDirectory();
  const real = execFileSync('/bin/sh', ['-c', 'command -v git'], { encoding: 'utf8' }).trim();
  // A signal that is ignored stays so for the program: it is told of the limit instead of being killed.
  const lines = [
    '#!/bin/bash',
    `if [ "$GIT_WORK_TREE" = '${directory}' ]; then`,
    `  for word; do case "$word" in ${subcommands.join('|')}) trap '' XFSZ; ulimit -f 8 ;; esac; done`,
    'fi',
    `exec ${real} "$@"`,
  ];
  writeFileSync(path.join(bin, 'git'), `${lines.join('\n')}\n`, { mode: 0o755 });
  vi.stubEnv('PATH', `${bin}:${process.env['PATH']}`);
  onTestFinished(() => void vi.unstubAllEnvs());
}

async function submitLarge(project: Project): Promise<Submission> {
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  write(workspace.directory, { ...LARGE, 'a.txt': 'new\n', 'dir/added.txt': 'new\n' });
  rmSync(path.join(workspace.directory, 'gone.txt'));
  const collected = await project.workspaces.collect({ workspace, message: 'x' });
  if (collected.kind !== 'submitted') throw new Error(collected.kind);
  return { run: 'run', task: 'task', attempt: 1, title: 'x', ...collected };
}

test('no space in the middle of the update of the files: the checkout is as it was, and the next try merges', async () => {
  const project = await openProject(TO_BE_CHANGED);
  const { directory } = project;
  const submission = await submitLarge(project);
  limitFiles(project, ['read-tree']);
  const verdict = await gate(project, submission);
  expect(verdict).toMatchObject({
    verdict: 'infrastructure',
    reason: expect.stringMatching(/could not follow main: .*large\.txt/s),
  });
  expect(mainLog(directory)).toBe('first');
  expect(git(directory, 'status', '--porcelain')).toBe('');
  expect(readFileSync(path.join(directory, 'large.txt'), 'utf8')).toBe('old\n');
  expect(existsSync(path.join(directory, 'dir'))).toBe(false);
  vi.unstubAllEnvs();
  expect((await gate(project, submission)).verdict).toBe('accepted');
  expect(git(directory, 'status', '--porcelain')).toBe('');
  expect(git(directory, 'for-each-ref', 'refs/troupe/undone')).toBe('');
});

test.each([
  ['the next round', false],
  ['a restart', true],
])('no space to take it back either: %s does', async (_, restart) => {
  const project = await openProject(TO_BE_CHANGED);
  const { directory } = project;
  // The old files are too large for the limit as well.
  write(directory, { 'a.txt': 'old\n'.repeat(10_000), 'mine.txt': 'mine\n' });
  git(directory, 'add', '.');
  git(directory, 'commit', '-q', '-m', 'second');
  const submission = await submitLarge(project);
  limitFiles(project, ['read-tree', 'checkout-index']);
  expect(await gate(project, submission)).toMatchObject({
    verdict: 'infrastructure',
    reason: expect.stringMatching(/could not follow main.*taken out later/s),
  });
  expect(mainLog(directory)).toBe('second\nfirst');
  expect(git(directory, 'status', '--porcelain')).not.toBe('');
  vi.unstubAllEnvs();
  if (restart) {
    write(directory, { 'mine.txt': 'edited by the user\n' });
    const restarted = await reopenProject(directory);
    expect(await restarted.repository.finishCheckouts()).toEqual([directory]);
    expect(git(directory, 'status', '--porcelain')).toBe('M mine.txt');
  } else {
    expect((await gate(project, submission)).verdict).toBe('accepted');
    expect(git(directory, 'status', '--porcelain')).toBe('');
    expect(readFileSync(path.join(directory, 'a.txt'), 'utf8')).toBe('new\n');
  }
  expect(git(directory, 'for-each-ref', 'refs/troupe/undone')).toBe('');
});

test.each([
  ['before its first byte', ''],
  ['in the middle', 'large\nlarge\nlar'],
  ['before it was made again', undefined],
])('killed while a file is written, %s: completed', async (_, content) => {
  const project = await openProject(TO_BE_CHANGED);
  const { directory } = project;
  const submission = await submitLarge(project);
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
  if (content === undefined) rmSync(path.join(directory, 'large.txt'));
  else write(directory, { 'large.txt': content });
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([directory]);
  expect(git(directory, 'status', '--porcelain')).toBe('');
  expect(readFileSync(path.join(directory, 'large.txt'), 'utf8')).toBe(LARGE['large.txt']);
});

test('what the user has put back as it was before a merge stays so', async () => {
  const project = await openProject({ 'readme.md': 'old\n', 'other.md': 'x\n' });
  const { directory } = project;
  const verdict = await gate(project, await submit(project, { 'readme.md': 'new\n' }));
  expect(verdict.verdict).toBe('accepted');
  git(directory, 'checkout', '-q', 'HEAD~1', '--', 'readme.md');
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([]);
  expect(git(directory, 'status', '--porcelain')).toBe('M  readme.md');
  expect(readdirSync(path.join(directory, '.git/troupe'))).toEqual([]);
});

test('an unfinished update is left alone when the user has edited what it would write', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'readme.md': 'new\n' });
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
  write(project.directory, { 'readme.md': 'edited by the user\n' });
  const restarted = await reopenProject(project.directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([]);
  expect(readFileSync(path.join(project.directory, 'readme.md'), 'utf8')).toBe(
    'edited by the user\n',
  );
});

test('so is one with a file of the user’s where a directory was', async () => {
  const project = await openProject({ 'readme.md': 'x\n', 'dir/sub/a.txt': 'old\n' });
  const { directory } = project;
  const submission = await submit(project, { 'dir/sub/a.txt': 'new\n' });
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
  rmSync(path.join(directory, 'dir'), { recursive: true });
  write(directory, { dir: 'mine\n' });
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([]);
  expect(readFileSync(path.join(directory, 'dir'), 'utf8')).toBe('mine\n');
});

test('so is one whose edit is as long as the file and of the second in which git wrote its index', async () => {
  const project = await openProject({ 'readme.md': 'old\n' });
  const { directory } = project;
  const submission = await submit(project, { 'readme.md': 'new\n' });
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
  const readme = path.join(directory, 'readme.md');
  const second = () => Math.floor(lstatSync(readme).ctimeMs / 1000);
  let added: number;
  do {
    write(directory, { 'readme.md': 'old\n' });
    added = second();
    git(directory, 'add', 'readme.md');
    write(directory, { 'readme.md': 'our\n' });
  } while (second() !== added);
  // A copy of the index that is made now does not look as old as what it is about.
  await vi.waitUntil(() => Date.now() >= (added + 1) * 1000);
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([]);
  expect(readFileSync(readme, 'utf8')).toBe('our\n');
});

const AS_DIRECTORY: Files = { 'readme.md': 'x\n', 'a/b.txt': 'b\n', 'a/c/d.txt': 'd\n' };
const AS_FILE: Files = { 'readme.md': 'x\n', a: 'file\n' };

/** A merge that replaces `a`, killed before the files were updated. */
async function crashedSwap(before: Files, after: Files): Promise<string> {
  const project = await openProject(before);
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  rmSync(path.join(workspace.directory, 'a'), { recursive: true });
  write(workspace.directory, after);
  const collected = await project.workspaces.collect({ workspace, message: 'x' });
  if (collected.kind !== 'submitted') throw new Error(collected.kind);
  const submission = { run: 'run', task: 'task', attempt: 1, title: 'x', ...collected };
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
  return project.directory;
}

test.each([
  {
    from: 'directory',
    to: 'file',
    before: AS_DIRECTORY,
    after: AS_FILE,
    what: 'nothing is written',
    removed: [],
  },
  {
    from: 'directory',
    to: 'file',
    before: AS_DIRECTORY,
    after: AS_FILE,
    what: 'half is removed',
    removed: ['a/c'],
  },
  {
    from: 'file',
    to: 'directory',
    before: AS_FILE,
    after: AS_DIRECTORY,
    what: 'nothing is written',
    removed: [],
  },
  {
    from: 'file',
    to: 'directory',
    before: AS_FILE,
    after: AS_DIRECTORY,
    what: 'half is written',
    removed: ['a'],
    written: 'a/b.txt',
  },
])(
  'killed where a $from becomes a $to, and $what: completed',
  async ({ before, after, removed, written }) => {
    const directory = await crashedSwap(before, after);
    for (const name of removed) rmSync(path.join(directory, name), { recursive: true });
    if (written !== undefined) write(directory, { [written]: after[written] ?? '' });
    const restarted = await reopenProject(directory);
    expect(await restarted.repository.finishCheckouts()).toEqual([directory]);
    expect(git(directory, 'status', '--porcelain')).toBe('');
  },
);

test('killed where a directory becomes a file, and the user has put something into it: left alone', async () => {
  const directory = await crashedSwap(AS_DIRECTORY, AS_FILE);
  write(directory, { 'a/c/mine.txt': 'mine\n' });
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([]);
  expect(readFileSync(path.join(directory, 'a/c/mine.txt'), 'utf8')).toBe('mine\n');
});

test.each(['--assume-unchanged', '--skip-worktree'])(
  'an edit that the user hides from git (%s) stays, and the project can be opened again',
  async (flag) => {
    const project = await openProject({ 'readme.md': 'x\n', 'local.cfg': 'default\n' });
    const { directory } = project;
    git(directory, 'update-index', flag, 'local.cfg');
    write(directory, { 'local.cfg': 'mine, and longer than theirs\n' });
    const submission = await submit(project, { 'readme.md': 'new\n', 'local.cfg': 'theirs\n' });
    const verdict = await gate(project, submission);
    expect(verdict).toMatchObject({
      verdict: 'infrastructure',
      reason: expect.stringMatching(/could not follow main: .*'local\.cfg'/s),
    });
    expect(verdict).toMatchObject({ reason: expect.not.stringContaining('taken out later') });
    expect(mainLog(directory)).toBe('first');
    expect(git(directory, 'for-each-ref', 'refs/troupe/undone')).toBe('');
    const faultPoint = (name: string) => {
      if (name === 'gate.ref-before-checkout') throw new Crash();
    };
    await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
    const restarted = await reopenProject(directory);
    expect(await restarted.repository.finishCheckouts()).toEqual([]);
    expect(readFileSync(path.join(directory, 'local.cfg'), 'utf8')).toContain('mine');
  },
);

test('an update that was cut off in a sparse checkout is completed', async () => {
  const directory = makeRepository({ 'readme.md': 'x\n', 'in/a.txt': 'a\n', 'out/b.txt': 'b\n' });
  git(directory, 'sparse-checkout', 'set', 'in');
  const project = await reopenProject(directory);
  const submission = await submit(project, { 'in/a.txt': 'new\n', 'out/b.txt': 'new\n' });
  const faultPoint = (name: string) => {
    if (name === 'gate.ref-before-checkout') throw new Crash();
  };
  await expect(gate(project, submission, { faultPoint })).rejects.toThrow(Crash);
  const restarted = await reopenProject(directory);
  expect(await restarted.repository.finishCheckouts()).toEqual([directory]);
  expect(git(directory, 'status', '--porcelain')).toBe('');
  expect(existsSync(path.join(directory, 'out'))).toBe(false);
});
