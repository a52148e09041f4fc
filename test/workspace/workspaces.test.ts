import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { Collected } from '../../src/workspace/collect.ts';
import type { Workspace } from '../../src/workspace/workspace.ts';
import {
  commit,
  git,
  openProject,
  type Project,
  reopenProject,
  submit,
  temporaryDirectory,
  write,
} from './git-fixture.ts';

const NAME = { run: 'run', task: 'task' };
const prepare = ({ workspaces }: Project, attempt = 1) => workspaces.prepare({ ...NAME, attempt });
const collect = ({ workspaces }: Project, workspace: Workspace) =>
  workspaces.collect({ workspace, message: 'Do it', trailers: { 'Troupe-Attempt': '1' } });

function submitted(collected: Collected): Extract<Collected, { kind: 'submitted' }> {
  if (collected.kind !== 'submitted') throw new Error(JSON.stringify(collected));
  return collected;
}

test('a fresh place has main’s files on the task’s branch, and no way back', async () => {
  const project = await openProject({ 'a.txt': 'a\n', 'dir/run.sh': 'x\n' });
  const head = commit(project.directory, { 'a.txt': 'b\n' });
  const workspace = await prepare(project);
  const { directory } = workspace;
  expect(workspace).toMatchObject({ ...NAME, attempt: 1, branch: 'troupe/run/task', base: head });
  expect(readFileSync(path.join(directory, 'a.txt'), 'utf8')).toBe('b\n');
  expect(git(directory, 'status', '--porcelain', '--branch')).toBe('## troupe/run/task');
  expect(git(directory, 'log', '--format=%s', 'HEAD')).toBe('change\nfirst');
  expect(git(directory, 'remote')).toBe('');
  expect(git(directory, 'diff', '--stat', 'main')).toBe('');
  // The user's git does not see the places.
  expect(git(project.directory, 'status', '--porcelain')).toBe('');
});

test('places share no hooks, configuration, exclude file or refs with the user’s repository', async () => {
  const project = await openProject();
  const { directory } = await prepare(project);
  const gitDir = path.join(directory, '.git');
  for (const name of ['hooks', 'info/exclude', 'logs', 'commondir']) {
    expect(existsSync(path.join(gitDir, name))).toBe(false);
  }
  const refsBefore = git(project.directory, 'for-each-ref');
  git(directory, 'config', 'alias.x', 'y');
  git(directory, 'tag', 'main');
  git(directory, 'branch', '-f', 'main', 'HEAD');
  git(directory, 'commit', '-q', '--allow-empty', '-m', 'x');
  git(directory, 'update-ref', 'refs/heads/main', 'HEAD');
  expect(git(project.directory, 'for-each-ref')).toBe(refsBefore);
});

test('line endings and identity are as in the user’s repository', async () => {
  const project = await openProject();
  git(project.directory, 'config', 'core.autocrlf', 'input');
  git(project.directory, 'config', 'user.name', 'Ada "the" \\ First');
  git(project.directory, 'config', 'user.email', 'ada@example.org');
  const reopened = await reopenProject(project.directory);
  const workspace = await prepare(reopened);
  expect(git(workspace.directory, 'config', 'user.name')).toBe('Ada "the" \\ First');
  write(workspace.directory, { 'crlf.txt': 'a\r\nb\r\n' });
  const { commit: made } = submitted(await collect(reopened, workspace));
  expect(git(project.directory, 'cat-file', '-s', `${made}:crlf.txt`)).toBe('4');
});

test('a shallow repository lends its commits too', async () => {
  const source = (await openProject()).directory;
  commit(source, { 'a.txt': 'a\n' });
  const shallow = path.join(temporaryDirectory(), 'shallow');
  git(source, 'clone', '-q', '--depth=1', `file://${source}`, shallow);
  const project = await reopenProject(shallow);
  const workspace = await prepare(project);
  expect(git(workspace.directory, 'log', '--format=%s')).toBe('change');
  write(workspace.directory, { 'b.txt': 'b\n' });
  submitted(await collect(project, workspace));
  expect(git(shallow, 'fsck', '--no-dangling')).toBe('');
});

test('uncommitted, staged, committed, deleted and executable: all of it is collected', async () => {
  const project = await openProject({
    'gone.txt': 'x\n',
    'changed.txt': 'x\n',
    '.gitignore': 'out/\n*.log\n',
  });
  const workspace = await prepare(project);
  const { directory } = workspace;
  commit(directory, { 'committed.txt': 'c\n' }, 'agent commits');
  write(directory, {
    'changed.txt': 'y\n',
    'staged.txt': 's\n',
    'dir/-rf $(x)\n.txt': 'odd\n',
    'out/ignored': 'i\n',
  });
  git(directory, 'add', 'staged.txt');
  write(directory, { 'forced.log': 'kept\n', 'plain.log': 'not kept\n', 'run.sh': '#!/bin/sh\n' });
  git(directory, 'add', '-f', 'forced.log');
  chmodSync(path.join(directory, 'run.sh'), 0o755);
  rmSync(path.join(directory, 'gone.txt'));
  const result = submitted(await collect(project, workspace));
  expect(result.files).toEqual([
    'changed.txt',
    'committed.txt',
    'dir/-rf $(x)\n.txt',
    'forced.log',
    'gone.txt',
    'run.sh',
    'staged.txt',
  ]);
  const user = project.directory;
  expect(git(user, 'rev-parse', 'refs/heads/troupe/run/task')).toBe(result.commit);
  expect(git(user, 'rev-parse', 'refs/troupe/attempts/run/task/1')).toBe(result.commit);
  expect(git(user, 'for-each-ref', 'refs/troupe/import')).toBe('');
  expect(git(user, 'rev-parse', `${result.commit}^{tree}`)).toBe(result.tree);
  expect(git(user, 'ls-tree', result.commit, 'run.sh')).toMatch(/^100755/);
  expect(git(user, 'log', '--format=%s', `${result.base}..${result.commit}`)).toBe(
    'Do it\nagent commits',
  );
  expect(git(user, 'log', '-1', '--format=%(trailers)', result.commit)).toBe('Troupe-Attempt: 1');
  expect(git(user, 'fsck', '--full', '--no-dangling')).toBe('');
});

test('objects are the user’s own after the import: the place can go', async () => {
  const project = await openProject();
  const submission = await submit(project, { 'a.txt': 'a\n' });
  await project.workspaces.release(NAME);
  expect(git(project.directory, 'show', `${submission.commit}:a.txt`)).toBe('a');
  expect(git(project.directory, 'fsck', '--full', '--no-dangling')).toBe('');
});

test('a branch that somebody looks at in a working tree of its own still gets the submission', async () => {
  const project = await openProject();
  await submit(project, { 'a.txt': 'first\n' });
  const place = path.join(temporaryDirectory(), 'look');
  git(project.directory, 'worktree', 'add', '-q', place, 'troupe/run/task');
  const { commit: second } = await submit(project, { 'a.txt': 'second\n' }, { attempt: 2 });
  for (const ref of ['refs/heads/troupe/run/task', 'refs/troupe/attempts/run/task/2']) {
    expect(git(project.directory, 'rev-parse', ref)).toBe(second);
  }
});

test('a pipe in the place of the agent’s HEAD or branch does not hold us up', async () => {
  const project = await openProject();
  for (const [attempt, name] of ['HEAD', 'refs/heads/troupe/run/task'].entries()) {
    const workspace = await prepare(project, attempt + 1);
    write(workspace.directory, { 'a.txt': `${attempt}\n` });
    const file = path.join(workspace.directory, '.git', name);
    rmSync(file);
    execFileSync('mkfifo', [file]);
    const collected = submitted(await collect(project, workspace));
    expect(git(project.directory, 'rev-parse', `${collected.commit}^`)).toBe(workspace.base);
  }
}, 60_000);

test('a file where a directory leads to the agent’s branch does not hold us up', async () => {
  const project = await openProject();
  const workspace = await prepare(project);
  write(workspace.directory, { 'a.txt': 'a\n' });
  rmSync(path.join(workspace.directory, '.git/refs/heads/troupe'), { recursive: true });
  write(workspace.directory, { '.git/refs/heads/troupe': 'x\n' });
  expect(submitted(await collect(project, workspace)).files).toEqual(['a.txt']);
});

test('no change is no submission, whatever was done and undone', async () => {
  const project = await openProject();
  const workspace = await prepare(project);
  expect(await collect(project, workspace)).toEqual({ kind: 'empty' });
  commit(workspace.directory, { 'a.txt': 'a\n' });
  rmSync(path.join(workspace.directory, 'a.txt'));
  expect(await collect(project, workspace)).toEqual({ kind: 'empty' });
  expect(await project.repository.resolve('refs/heads/troupe/run/task')).toBeUndefined();
});

test('collecting twice gives the same commit; a later attempt keeps the earlier one', async () => {
  const project = await openProject();
  const workspace = await prepare(project);
  write(workspace.directory, { 'a.txt': 'a\n' });
  const first = submitted(await collect(project, workspace));
  expect(await collect(project, workspace)).toEqual(first);
  const second = await submit(project, { 'a.txt': 'b\n' }, { attempt: 2 });
  const ref = (name: string) => git(project.directory, 'rev-parse', name);
  expect(ref('refs/troupe/attempts/run/task/1')).toBe(first.commit);
  expect(ref('refs/troupe/attempts/run/task/2')).toBe(second.commit);
  expect(ref('refs/heads/troupe/run/task')).toBe(second.commit);
});

test('the next attempt can go on with a submission', async () => {
  const project = await openProject();
  const first = await submit(project, { 'a.txt': 'a\n' });
  commit(project.directory, { 'b.txt': 'b\n' });
  const workspace = await project.workspaces.prepare({
    ...NAME,
    attempt: 2,
    continueFrom: first.commit,
  });
  expect(workspace.base).toBe(first.base);
  expect(readFileSync(path.join(workspace.directory, 'a.txt'), 'utf8')).toBe('a\n');
  write(workspace.directory, { 'c.txt': 'c\n' });
  expect(submitted(await collect(project, workspace)).files).toEqual(['a.txt', 'c.txt']);
});

test('the same change has the same fingerprint wherever main stands; another has another', async () => {
  const lines = Array.from({ length: 40 }, (_, n) => `line ${n}`);
  const project = await openProject({ 'a.txt': `${lines.join('\n')}\n` });
  const change = async (task: string, text: string) => {
    const workspace = await project.workspaces.prepare({ run: 'run', task, attempt: 1 });
    const file = path.join(workspace.directory, 'a.txt');
    writeFileSync(file, readFileSync(file, 'utf8').replace('line 30\n', text));
    return submitted(await collect(project, workspace)).changeFingerprint;
  };
  const one = await change('one', 'changed\n');
  commit(project.directory, { 'a.txt': `new first line\n${lines.join('\n')}\n`, other: 'x\n' });
  expect(await change('two', 'changed\n')).toBe(one);
  expect(await change('three', 'changed \n')).not.toBe(one);
});

test.each([
  { name: 'with a commit', make: (inner: string) => commit(inner, { x: 'x\n' }) },
  { name: 'without a commit', make: (inner: string) => write(inner, { x: 'x\n' }) },
])(
  'a nested repository $name is refused by name, again and again, until it goes',
  async ({ make }) => {
    const project = await openProject();
    const workspace = await prepare(project);
    const inner = path.join(workspace.directory, 'dir', 'inner');
    mkdirSync(inner, { recursive: true });
    git(inner, 'init', '-q');
    make(inner);
    for (let time = 0; time < 2; time++) {
      expect(await collect(project, workspace)).toMatchObject({
        kind: 'refused',
        files: ['dir/inner'],
        reason: expect.stringContaining('Remove its .git directory'),
      });
    }
    rmSync(path.join(inner, '.git'), { recursive: true });
    expect(submitted(await collect(project, workspace)).files).toEqual(['dir/inner/x']);
  },
);

test('conflict markers and unmerged paths are refused; a text about them is not', async () => {
  const markers = '<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n';
  const project = await openProject({ 'docs.md': markers, 'a.txt': 'a\n' });
  const workspace = await prepare(project);
  write(workspace.directory, {
    'docs.md': `About conflicts:\n${markers}`,
    'title.md': 'Title\n=======\n',
  });
  expect((await collect(project, workspace)).kind).toBe('submitted');
  write(workspace.directory, { 'a.txt': markers });
  expect(await collect(project, workspace)).toMatchObject({ kind: 'refused', files: ['a.txt'] });

  const other = await project.workspaces.prepare({ run: 'run', task: 'other', attempt: 1 });
  git(other.directory, 'checkout', '-q', '-b', 'side');
  commit(other.directory, { 'a.txt': 'side\n' });
  git(other.directory, 'checkout', '-q', 'troupe/run/other');
  commit(other.directory, { 'a.txt': 'main\n' });
  expect(() => git(other.directory, 'merge', 'side')).toThrow();
  write(other.directory, { 'a.txt': 'looks fine, was never resolved\n' });
  expect(await collect(project, other)).toMatchObject({ kind: 'refused', files: ['a.txt'] });
});

/** Whatever of it runs leaves a file. */
function plant(directory: string, canary: string): void {
  const command = `sh -c "touch '${canary}'; cat"`;
  const gitDir = path.join(directory, '.git');
  mkdirSync(path.join(gitDir, 'hooks'), { recursive: true });
  for (const hook of [
    'pre-commit',
    'post-commit',
    'post-checkout',
    'post-merge',
    'post-index-change',
    'reference-transaction',
    'pre-push',
    'update',
    'pre-receive',
    'post-update',
    'fsmonitor-watchman',
  ]) {
    writeFileSync(path.join(gitDir, 'hooks', hook), `#!/bin/sh\ntouch '${canary}'\n`, {
      mode: 0o755,
    });
  }
  const settings = {
    'core.fsmonitor': command,
    'core.sshCommand': command,
    'core.pager': command,
    'core.editor': command,
    'core.alternateRefsCommand': command,
    'diff.external': command,
    'diff.evil.textconv': command,
    'diff.evil.command': command,
    'merge.evil.driver': command,
    'filter.evil.clean': command,
    'filter.evil.smudge': command,
    'filter.evil.process': command,
    'filter.evil.required': 'true',
    'uploadpack.packObjectsHook': command,
    'gpg.program': command,
    'commit.gpgSign': 'true',
    'credential.helper': `!${command}`,
    'remote.origin.url': `ext::${command}`,
    'remote.origin.promisor': 'true',
    'extensions.partialClone': 'origin',
  };
  const text = Object.entries(settings).map(([key, value]) => {
    const [section = '', ...rest] = key.split('.');
    const name = rest.pop();
    const header = rest.length === 0 ? `[${section}]` : `[${section} "${rest.join('.')}"]`;
    return `${header}\n\t${name} = ${JSON.stringify(value)}\n`;
  });
  writeFileSync(
    path.join(gitDir, 'config'),
    `[core]\n\trepositoryformatversion = 1\n${text.join('')}`,
  );
}

const EVIL_ATTRIBUTES = '* filter=evil diff=evil merge=evil\n';

test('what an agent plants in its git directory runs in none of our commands', async () => {
  const project = await openProject({ 'a.txt': 'a\n' });
  const workspace = await prepare(project);
  const canary = path.join(temporaryDirectory(), 'canary');
  commit(workspace.directory, { 'b.txt': 'b\n' });
  plant(workspace.directory, canary);
  write(workspace.directory, {
    '.gitattributes': EVIL_ATTRIBUTES,
    'a.txt': 'changed\n',
    'c.txt': 'c\n',
  });

  const result = submitted(await collect(project, workspace));
  expect(result.files).toEqual(['.gitattributes', 'a.txt', 'b.txt', 'c.txt']);
  await project.workspaces.prepare({ ...NAME, attempt: 2, continueFrom: result.commit });
  await project.workspaces.release(NAME);
  expect(existsSync(canary)).toBe(false);
});

test('the plants do run in an ordinary git', async () => {
  const project = await openProject({ 'a.txt': 'a\n' });
  const workspace = await prepare(project);
  const canary = path.join(temporaryDirectory(), 'canary');
  plant(workspace.directory, canary);
  write(workspace.directory, { '.gitattributes': EVIL_ATTRIBUTES, 'a.txt': 'changed\n' });
  expect(() => git(workspace.directory, 'add', '-A')).toThrow();
  expect(existsSync(canary)).toBe(true);
});

test('what is planted in a submodule or a nested repository does not run either', async () => {
  const project = await openProject({ 'a.txt': 'a\n' });
  const library = path.join(temporaryDirectory(), 'library');
  mkdirSync(library);
  git(library, 'init', '-q', '-b', 'main');
  const pinned = commit(library, { 'lib.txt': 'x\n' });
  git(project.directory, 'update-index', '--add', '--cacheinfo', `160000,${pinned},lib`);
  git(project.directory, 'commit', '-qm', 'with submodule');
  const workspace = await prepare(project);
  const canary = path.join(temporaryDirectory(), 'canary');
  const populated = path.join(workspace.directory, 'lib');
  git(library, 'clone', '-q', library, populated);
  const nested = path.join(workspace.directory, 'nested');
  git(library, 'clone', '-q', library, nested);
  for (const inner of [populated, nested]) {
    plant(inner, canary);
    // Of the same length: git has to look into it, and so to filter it.
    write(inner, { '.gitattributes': EVIL_ATTRIBUTES, 'lib.txt': 'y\n' });
  }
  write(workspace.directory, { 'a.txt': 'changed\n' });
  for (let time = 0; time < 2; time++) {
    expect(await collect(project, workspace)).toMatchObject({ kind: 'refused', files: ['nested'] });
  }
  rmSync(nested, { recursive: true });
  expect(submitted(await collect(project, workspace)).files).toEqual(['a.txt']);
  expect(existsSync(canary)).toBe(false);
});

test.each([
  { name: 'removed', spoil: (gitDir: string) => rmSync(gitDir, { recursive: true }) },
  {
    name: 'a file that leads elsewhere',
    spoil: (gitDir: string) => {
      rmSync(gitDir, { recursive: true });
      writeFileSync(gitDir, 'gitdir: /somewhere/else\n');
    },
  },
  {
    name: 'a link to another repository',
    spoil: (gitDir: string, other: string) => {
      rmSync(gitDir, { recursive: true });
      symlinkSync(path.join(other, '.git'), gitDir);
    },
  },
  {
    name: 'without a usable HEAD',
    spoil: (gitDir: string) => writeFileSync(path.join(gitDir, 'HEAD'), 'x'),
  },
  {
    name: 'with a broken index',
    spoil: (gitDir: string) => writeFileSync(path.join(gitDir, 'index'), 'x'),
  },
  {
    name: 'with a broken configuration',
    spoil: (gitDir: string) => writeFileSync(path.join(gitDir, 'config'), '[['),
  },
])('an agent’s git directory $name: the files still count', async ({ spoil }) => {
  const project = await openProject();
  const workspace = await prepare(project);
  write(workspace.directory, { 'a.txt': 'a\n' });
  spoil(path.join(workspace.directory, '.git'), project.directory);
  expect(submitted(await collect(project, workspace)).files).toEqual(['a.txt']);
  expect(git(project.directory, 'status', '--porcelain')).toBe('');
});

test('git in a place whose .git is gone does not find the user’s repository', async () => {
  const project = await openProject();
  const workspace = await prepare(project);
  rmSync(path.join(workspace.directory, '.git'), { recursive: true });
  const { execFileSync } = await import('node:child_process');
  expect(() =>
    execFileSync('git', ['rev-parse', '--git-dir'], {
      cwd: workspace.directory,
      env: { PATH: process.env['PATH'], ...workspace.env },
      stdio: 'pipe',
    }),
  ).toThrow('not a git repository');
});

test('history that does not build on the base counts by its files only', async () => {
  const project = await openProject();
  const workspace = await prepare(project);
  git(workspace.directory, 'checkout', '-q', '--orphan', 'fresh');
  commit(workspace.directory, { 'a.txt': 'a\n' }, 'orphan');
  const result = submitted(await collect(project, workspace));
  expect(git(project.directory, 'rev-parse', `${result.commit}^`)).toBe(workspace.base);
});

test('a malformed commit of the agent is left out; malformed content is refused', async () => {
  const project = await openProject();
  const workspace = await prepare(project);
  const { directory } = workspace;
  write(directory, { 'a.txt': 'a\n' });
  git(directory, 'add', '-A');
  const tree = git(directory, 'write-tree');
  write(directory, {
    '.git/commit': `tree ${tree}\nparent ${workspace.base}\nauthor nobody 0 +0000\ncommitter nobody 0 +0000\n\nx\n`,
  });
  const bad = git(directory, 'hash-object', '-t', 'commit', '--literally', '-w', '.git/commit');
  write(directory, { '.git/refs/heads/troupe/run/task': `${bad}\n` });
  const result = submitted(await collect(project, workspace));
  expect(git(project.directory, 'rev-parse', `${result.commit}^`)).toBe(workspace.base);
  expect(git(project.directory, 'fsck', '--full', '--no-dangling')).toBe('');

  const modules = '[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch\n';
  write(directory, { '.gitmodules': modules });
  expect(await collect(project, workspace)).toMatchObject({
    kind: 'refused',
    reason: expect.stringContaining('gitmodulesUrl'),
  });
});

test('a dead attempt is salvaged, commits and uncommitted work, and replaced', async () => {
  const project = await openProject();
  const first = await prepare(project);
  commit(first.directory, { 'committed.txt': 'c\n' }, 'agent');
  write(first.directory, { 'uncommitted.txt': 'u\n' });

  const restarted = await reopenProject(project.directory);
  expect(await restarted.workspaces.find(NAME)).toEqual(first);
  const second = await prepare(restarted, 2);
  expect(second.directory).toBe(first.directory);
  expect(readdirSync(second.directory).sort()).toEqual(['.git', 'readme.md']);
  const salvage = 'refs/troupe/salvage/run/task/1';
  expect(git(project.directory, 'show', `${salvage}:uncommitted.txt`)).toBe('u');
  expect(git(project.directory, 'log', '--format=%s', `${first.base}..${salvage}`)).toBe(
    'Salvaged work of run/task\nagent',
  );
});

test('start-up removes what is over, keeps what lives, and salvages once', async () => {
  const project = await openProject();
  const place = (task: string) => project.workspaces.prepare({ run: 'run', task, attempt: 1 });
  const [alive, untouched, worked] = [
    await place('alive'),
    await place('untouched'),
    await place('worked'),
  ];
  write(worked.directory, { 'w.txt': 'w\n' });
  await submit(project, { 'd.txt': 'd\n' }, { task: 'done' });
  write(project.directory, {
    '.troupe/workspaces/.new/half/work/x': 'x',
    '.troupe/workspaces/.trash/old/x': 'x',
    '.troupe/verify/0a1b2c3d/work/x': 'x',
  });
  const { workspaces } = await reopenProject(project.directory);
  expect(await workspaces.reap([{ run: 'run', task: 'alive' }])).toEqual({
    removed: ['run/done', 'run/untouched', 'run/worked'],
    // What was submitted is kept already.
    salvaged: ['refs/troupe/salvage/run/worked/1'],
    kept: [],
    left: [],
  });
  expect(existsSync(alive.directory)).toBe(true);
  expect(existsSync(untouched.directory)).toBe(false);
  const state = path.join(project.directory, '.troupe');
  for (const directory of ['workspaces/.new', 'workspaces/.trash', 'verify']) {
    expect(
      readdirSync(path.join(state, directory)).filter((name) => name !== '.gitignore'),
    ).toEqual([]);
  }
  expect(await workspaces.reap([{ run: 'run', task: 'alive' }])).toMatchObject({ removed: [] });
});

test('start-up follows no link and removes nothing that is not ours, and no empty directory of a run stays', async () => {
  const project = await openProject();
  await project.workspaces.prepare({ run: 'over', task: 'task', attempt: 1 });
  const victim = temporaryDirectory();
  write(victim, { file: 'mine', 'directory/file': 'mine' });
  const root = path.join(project.directory, '.troupe', 'workspaces');
  write(root, { 'notes.txt': 'x' });
  mkdirSync(path.join(root, 'run'));
  rmSync(path.join(root, '.trash'), { recursive: true, force: true });
  for (const name of ['link', '.trash', '.spare', '../verify', 'run/task']) {
    symlinkSync(victim, path.join(root, name));
  }
  const { workspaces } = await reopenProject(project.directory);
  expect(await workspaces.reap([])).toMatchObject({
    removed: ['over/task'],
    kept: [expect.stringContaining('run-task')],
    left: [],
  });
  expect(readdirSync(victim, { recursive: true }).toSorted()).toEqual([
    'directory',
    path.join('directory', 'file'),
    'file',
  ]);
  const names = readdirSync(root).filter((name) => !name.startsWith('.'));
  expect(names.toSorted()).toEqual(['link', 'notes.txt']);
});

test('work that no ref can hold is put aside, not deleted', async () => {
  const project = await openProject();
  const workspace = await prepare(project);
  const inner = path.join(workspace.directory, 'inner');
  mkdirSync(inner);
  git(inner, 'init', '-q');
  commit(inner, { precious: 'x\n' });
  const damaged = await project.workspaces.prepare({ run: 'run', task: 'damaged', attempt: 1 });
  writeFileSync(path.join(damaged.directory, '../workspace.json'), '');
  const { kept, left } = await project.workspaces.reap([]);
  expect(left).toEqual([]);
  expect(kept).toHaveLength(2);
  const found = kept.flatMap((place) => readdirSync(path.join(place, 'work')));
  expect(found).toContain('inner');
  expect(git(project.directory, 'status', '--porcelain')).toBe('');
});

test('release deletes the place, and the branch if asked', async () => {
  const project = await openProject();
  await submit(project, { 'a.txt': 'a\n' });
  expect(await project.workspaces.release({ ...NAME, deleteBranch: true })).toEqual({
    deleted: true,
  });
  expect(await project.workspaces.find(NAME)).toBeUndefined();
  expect(await project.repository.resolve('refs/heads/troupe/run/task')).toBeUndefined();
  expect(await project.repository.resolve('refs/troupe/attempts/run/task/1')).toBeDefined();
  expect(await project.workspaces.release({ ...NAME, deleteBranch: true })).toEqual({
    deleted: true,
  });
});

test('a place that cannot be made leaves nothing', async () => {
  const controller = new AbortController();
  const project = await openProject(undefined, {
    faultPoint: (name) => {
      if (name === 'workspace.before-clone') controller.abort(new Error('stop'));
    },
  });
  await expect(
    project.workspaces.prepare({ ...NAME, attempt: 1, signal: controller.signal }),
  ).rejects.toThrow('stop');
  expect(readdirSync(path.join(project.workspaces.root, '.new'))).toEqual([]);
  expect(await project.workspaces.find(NAME)).toBeUndefined();
});

test.each([
  {
    what: 'a pipe in a file’s place',
    name: 'readme.md',
    make: (file: string) => {
      rmSync(file);
      execFileSync('mkfifo', [file]);
    },
  },
  {
    what: 'a name that means .git on Windows',
    name: 'git~1',
    make: (file: string) => writeFileSync(file, 'x\n'),
  },
])('$what is refused by name, and no fault of the machine', async ({ name, make }) => {
  const project = await openProject();
  const workspace = await prepare(project);
  make(path.join(workspace.directory, name));
  expect(await collect(project, workspace)).toMatchObject({
    kind: 'refused',
    reason: expect.stringContaining(`Git cannot keep "${name}"`),
    files: [name],
  });
});

test('a name that is not UTF-8 is refused: nobody could say what is in its way in a checkout', async () => {
  const project = await openProject({ 'readme.md': 'hello\n' });
  write(project.directory, { '.git/info/exclude': '*.log\n' });
  const inside = (directory: string) => Buffer.from(path.join(directory, 'caf\xe9.log'), 'latin1');
  writeFileSync(inside(project.directory), 'mine\n');
  const workspace = await prepare(project);
  writeFileSync(inside(workspace.directory), 'theirs\n');
  expect(await collect(project, workspace)).toEqual({
    kind: 'refused',
    reason: 'The name of "caf\ufffd.log" is not UTF-8: give it another one.',
    files: ['caf\ufffd.log'],
  });
});

test('many tasks at once do not get in each other’s way', async () => {
  const project = await openProject();
  const tasks = Array.from({ length: 6 }, (_, n) => `task-${n}`);
  const all = await Promise.all(
    tasks.map((task) => submit(project, { [task]: `${task}\n` }, { task })),
  );
  expect(new Set(all.map((submission) => submission.commit)).size).toBe(6);
  expect(git(project.directory, 'for-each-ref', 'refs/heads/troupe').split('\n')).toHaveLength(6);
  await Promise.all(
    tasks.map((task) => project.workspaces.release({ run: 'run', task, deleteBranch: true })),
  );
  expect(git(project.directory, 'for-each-ref', 'refs/heads/troupe')).toBe('');
  expect(git(project.directory, 'fsck', '--full', '--no-dangling')).toBe('');
});

test('an attempt that was called off and is still at its place does not meet the next one there', async () => {
  const project = await openProject();
  const { workspaces } = project;
  for (let attempt = 1; attempt <= 5; attempt++) {
    const old = await prepare(project, attempt);
    write(old.directory, { 'a.txt': `${attempt}\n` });
    const calledOff = new AbortController();
    const first = workspaces.prepare({ ...NAME, attempt, signal: calledOff.signal });
    const gone = workspaces.release({ ...NAME, signal: calledOff.signal });
    const next = workspaces.prepare({ ...NAME, attempt: attempt + 1 });
    calledOff.abort(new Error('called off'));
    await expect(first).rejects.toThrow('called off');
    await expect(gone).rejects.toThrow('called off');
    const { directory } = await next;
    // It is there, and as fresh as it was made.
    expect(git(directory, 'status', '--porcelain')).toBe('');
    expect(existsSync(path.join(directory, 'a.txt'))).toBe(false);
    expect(await workspaces.find(NAME)).toMatchObject({ attempt: attempt + 1 });
  }
  expect(readdirSync(path.join(workspaces.root, '.new'))).toEqual([]);
});

test('two that make the same place at once do so one after the other', async () => {
  const project = await openProject();
  await prepare(project);
  const both = [prepare(project, 2), prepare(project, 3), project.workspaces.release(NAME)];
  await Promise.all(both);
  expect(await project.workspaces.find(NAME)).toBeUndefined();
});
