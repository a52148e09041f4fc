import { randomBytes } from 'node:crypto';
import { existsSync, lstatSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { applyPatch } from '../../src/workspace/patch.ts';
import { extractPatch } from '../../src/workspace/patch-text.ts';
import { commit, git, openProject, write } from './git-fixture.ts';

const CONTENT = 'one\ntwo\nthree\nfour\nfive\nsix\n';

async function place() {
  const project = await openProject({ 'a.txt': CONTENT, '.gitignore': '*.log\n' });
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  const apply = (patch: string) => applyPatch({ repository: project.repository, workspace, patch });
  const read = (name: string) => readFileSync(path.join(workspace.directory, name), 'utf8');
  return { project, workspace, apply, read };
}

const HUNK = '@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n';
const DIFF = `--- a/a.txt\n+++ b/a.txt\n${HUNK}`;

test.each([
  { name: 'plain', patch: DIFF },
  { name: 'from git', patch: `diff --git a/a.txt b/a.txt\nindex 1111111..2222222 100644\n${DIFF}` },
  { name: 'bare names', patch: `--- a.txt\n+++ a.txt\n${HUNK}` },
  {
    name: 'names with times',
    patch: `--- a/a.txt\t2026-01-01 00:00:00\n+++ b/a.txt\t2026-01-01\n${HUNK}`,
  },
  {
    name: 'in a fence, with prose',
    patch: `Sure! Here is it:\n\n\`\`\`diff\n${DIFF}\`\`\`\n\nLet me know.\n- and a list\n`,
  },
  { name: 'prose right after it', patch: `${DIFF}This makes it louder.\n` },
  { name: 'a mail', patch: `From: x\nSubject: y\n---\n a.txt | 2 +-\n\n${DIFF}-- \n2.39.5\n` },
  { name: 'wrong counts', patch: DIFF.replace('-1,3 +1,3', '-1,9 +1,7') },
  { name: 'counts too small', patch: DIFF.replace('-1,3 +1,3', '-1,1 +1,1') },
  { name: 'no newline at the end', patch: DIFF.trimEnd() },
  { name: 'line endings of Windows', patch: DIFF.replaceAll('\n', '\r\n') },
  { name: 'moved by other lines', patch: DIFF.replace('-1,3 +1,3', '-9,3 +9,3') },
  { name: 'in a fence of tildes', patch: `~~~diff\n${DIFF}~~~\n` },
  {
    name: 'in a fence of a list',
    patch: `1. Do it:\n\n${DIFF.replace(/^/, '```diff\n').replaceAll(/^(?=.)/gm, '   ')}   \`\`\`\n2. Go on.\n`,
  },
  { name: 'quoted', patch: `Ada wrote:\n${DIFF.trimEnd().replaceAll(/^/gm, '> ')}\n\nYes.\n` },
  {
    name: 'from svn',
    patch: `Index: a.txt\n${'='.repeat(67)}\n--- a.txt\t(revision 1)\n+++ a.txt\t(working copy)\n${HUNK}`,
  },
  { name: 'names of diff.mnemonicPrefix', patch: `--- i/a.txt\n+++ w/a.txt\n${HUNK}` },
  { name: 'names from the directory', patch: `--- ./a.txt\n+++ ./a.txt\n${HUNK}` },
])('applies a patch: $name', async ({ patch }) => {
  const { apply, read } = await place();
  expect(await apply(patch)).toMatchObject({ kind: 'applied', files: ['a.txt'] });
  expect(read('a.txt')).toBe(CONTENT.replace('two', 'TWO'));
});

test('bare names in a directory of one letter are not cut', async () => {
  const project = await openProject({ 'i/a.txt': CONTENT });
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  const patch = `--- i/a.txt\n+++ i/a.txt\n${HUNK}`;
  const outcome = await applyPatch({ repository: project.repository, workspace, patch });
  expect(outcome).toMatchObject({ kind: 'applied', files: ['i/a.txt'] });
});

test('a patch of a file in another encoding is applied byte by byte', async () => {
  const { project, workspace } = await place();
  const latin = Buffer.from('Größe\nStraße\n', 'latin1');
  const patch = Buffer.concat([
    Buffer.from('--- /dev/null\n+++ b/größe.txt\n@@ -0,0 +1,2 @@\n'),
    Buffer.from('+Größe\n+Straße\n', 'latin1'),
  ]);
  const outcome = await applyPatch({ repository: project.repository, workspace, patch });
  expect(outcome).toMatchObject({ kind: 'applied', files: ['größe.txt'] });
  expect(readFileSync(path.join(workspace.directory, 'größe.txt'))).toEqual(latin);
});

test('a patch may put directories in the place of a file', async () => {
  const project = await openProject({ lib: 'x\n' });
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  const patch = [
    'diff --git a/lib b/lib',
    'deleted file mode 100644',
    '--- a/lib',
    '+++ /dev/null',
    '@@ -1 +0,0 @@',
    '-x',
    'diff --git a/lib/deep/a.txt b/lib/deep/a.txt',
    'new file mode 100644',
    '--- /dev/null',
    '+++ b/lib/deep/a.txt',
    '@@ -0,0 +1 @@',
    '+y',
  ].join('\n');
  const { repository } = project;
  expect(await applyPatch({ repository, workspace, patch })).toMatchObject({
    kind: 'applied',
    files: ['lib', 'lib/deep/a.txt'],
  });
  expect(readFileSync(path.join(workspace.directory, 'lib/deep/a.txt'), 'utf8')).toBe('y\n');
});

test('what a patch has made is collected without a look at the files, the same as with one', async () => {
  const { repository, workspaces } = await openProject({ 'a.txt': CONTENT, 'b.txt': 'b\n' });
  const collect = async (task: string, looked: boolean) => {
    const workspace = await workspaces.prepare({ run: 'run', task, attempt: 1 });
    const patch = `${DIFF}--- /dev/null\n+++ b/dir/new.txt\n@@ -0,0 +1 @@\n+new\n`;
    const applied = await applyPatch({ repository, workspace, patch, untouched: !looked });
    const tree = applied.kind === 'applied' && !looked ? { tree: applied.tree } : {};
    const collected = await workspaces.collect({ workspace, message: 'It', ...tree });
    const files = git(workspace.directory, 'status', '--porcelain');
    return { ...collected, status: files };
  };
  const [short, long] = [await collect('short', false), await collect('long', true)];
  expect(short).toMatchObject({ kind: 'submitted', files: ['a.txt', 'dir/new.txt'] });
  const { commit: _short, ...outcome } = short as typeof short & { readonly commit: string };
  expect(long).toMatchObject(outcome);
});

test('a submission that is too large to be held in memory is taken over as well', async () => {
  const { repository, workspaces } = await openProject();
  const workspace = await workspaces.prepare({ run: 'run', task: 'task', attempt: 1 });
  writeFileSync(path.join(workspace.directory, 'large.bin'), randomBytes(17 * 1024 * 1024));
  const collected = await workspaces.collect({ workspace, message: 'It' });
  if (collected.kind !== 'submitted')
    throw new Error(`expected a submission, got ${collected.kind}`);
  const there = (ref: string) => repository.resolve(ref);
  expect(await there('refs/heads/troupe/run/task')).toBe(collected.commit);
  expect(await there('refs/troupe/attempts/run/task/1')).toBe(collected.commit);
});

test('several files, new, deleted, renamed, ignored and executable ones, from two fences', async () => {
  const { project, workspace, apply, read } = await place();
  const outcome = await apply(`First:
\`\`\`diff
--- /dev/null
+++ b/dir/new.txt
@@ -0,0 +1,2 @@
+hello
+world
diff --git a/run.sh b/run.sh
new file mode 100755
--- /dev/null
+++ b/run.sh
@@ -0,0 +1 @@
+#!/bin/sh
\`\`\`
Then:
\`\`\`
--- /dev/null
+++ b/kept.log
@@ -0,0 +1 @@
+although it is ignored
diff --git a/a.txt b/b.txt
similarity index 100%
rename from a.txt
rename to b.txt
\`\`\`
`);
  expect(outcome).toMatchObject({
    kind: 'applied',
    files: ['a.txt', 'b.txt', 'dir/new.txt', 'kept.log', 'run.sh'],
  });
  expect(read('dir/new.txt')).toBe('hello\nworld\n');
  expect(existsSync(path.join(workspace.directory, 'a.txt'))).toBe(false);
  const collected = await project.workspaces.collect({ workspace, message: 'x' });
  expect(collected).toMatchObject({
    files: ['a.txt', 'b.txt', 'dir/new.txt', 'kept.log', 'run.sh'],
  });
});

test('a patch against an older state is merged when that is clean, and refused when not', async () => {
  const { project, workspace, apply, read } = await place();
  const blob = git(project.directory, 'rev-parse', 'main:a.txt');
  const patch = `diff --git a/a.txt b/a.txt\nindex ${blob}..1111111111111111111111111111111111111111 100644\n${DIFF}`;
  commit(workspace.directory, { 'a.txt': `zero\n${CONTENT.replace('three', '3')}` });
  const older = await apply(patch);
  expect(older.kind).toBe('refused');
  write(workspace.directory, { 'a.txt': CONTENT.replace('six', '6') });
  expect((await apply(patch)).kind).toBe('applied');
  expect(read('a.txt')).toBe(CONTENT.replace('two', 'TWO').replace('six', '6'));
  // Refused patches leave no trace.
  expect(await apply(patch)).toMatchObject({ kind: 'refused' });
  expect(read('a.txt')).not.toContain('<<<<');
});

const newFile = (name: string, mode = '100644', text = 'x') =>
  `diff --git a/${name} b/${name}\nnew file mode ${mode}\n--- /dev/null\n+++ b/${name}\n@@ -0,0 +1 @@\n+${text}\n\\ No newline at end of file\n`;

test.each([
  { name: 'a path outside', patch: newFile('../evil'), says: 'invalid path' },
  {
    name: 'an absolute path',
    patch: '--- /dev/null\n+++ /tmp/evil\n@@ -0,0 +1 @@\n+x\n',
    says: 'invalid path',
  },
  { name: 'the git directory', patch: newFile('.git/hooks/pre-commit'), says: 'invalid path' },
  { name: 'the git directory in capitals', patch: newFile('.GIT/config'), says: 'invalid path' },
  { name: 'its short name', patch: newFile('git~1/config'), says: 'invalid path' },
  {
    name: 'a symlink to an absolute target',
    patch: newFile('link', '120000', '/etc/passwd'),
    says: 'outside the project',
  },
  {
    name: 'a symlink to outside',
    patch: newFile('dir/link', '120000', '../../x'),
    says: 'outside the project',
  },
  {
    name: 'a symlink into .git',
    patch: newFile('link', '120000', '.git/config'),
    says: 'outside the project',
  },
  {
    name: 'another repository',
    patch: `diff --git a/sub b/sub\nnew file mode 160000\nindex 0000000..1111111\n--- /dev/null\n+++ b/sub\n@@ -0,0 +1 @@\n+Subproject commit ${'1'.repeat(40)}\n`,
    says: 'git repository of its own',
  },
  {
    name: 'a file beyond a symlink',
    patch: newFile('outside/evil'),
    says: 'beyond a symbolic link',
  },
  {
    name: 'a file beyond an ignored symlink',
    patch: newFile('ignored.log/evil'),
    says: 'lies beyond the symlink',
  },
  {
    name: 'a file beyond a symlink of its own',
    patch: `${newFile('dir', '120000', 'elsewhere')}${newFile('dir/evil')}`,
    says: 'beyond a symbolic link',
  },
  {
    name: 'the git directory of a subdirectory',
    patch: newFile('sub/.git/x'),
    says: 'invalid path',
  },
  { name: 'a way back up', patch: newFile('sub/../../evil'), says: 'invalid path' },
  {
    name: 'a quoted way up',
    patch: newFile('x').replaceAll(/([ab])\/x/g, '"$1/\\056\\056/evil"'),
    says: 'invalid path',
  },
  {
    name: 'to copy what lies outside',
    patch:
      'diff --git a/../secret b/copy\nsimilarity index 100%\ncopy from ../secret\ncopy to copy\n',
    says: 'does not exist in index',
  },
  {
    name: 'to delete what lies outside',
    patch: '--- a/../secret\n+++ /dev/null\n@@ -1 +0,0 @@\n-s\n',
    says: 'does not exist in index',
  },
  { name: 'lines that are not there', patch: DIFF.replace('two', 'TOO'), says: 'does not apply' },
  {
    name: 'half of it fitting',
    patch: `${newFile('good')}${DIFF.replace('two', 'TOO')}`,
    says: 'does not apply',
  },
  { name: 'a huge file', patch: newFile('big', '100644', 'x'.repeat(11_000_000)), says: 'at most' },
])('refuses $name and changes nothing', async ({ patch, says }) => {
  const { workspace, apply } = await place();
  for (const link of ['outside', 'ignored.log'])
    symlinkSync('..', path.join(workspace.directory, link));
  const before = git(workspace.directory, 'status', '--porcelain');
  const outcome = await apply(patch);
  expect(outcome.kind).toBe('refused');
  expect(JSON.stringify(outcome)).toContain(says);
  expect(git(workspace.directory, 'status', '--porcelain')).toBe(before);
  expect(existsSync(path.join(workspace.directory, '..', 'evil'))).toBe(false);
  expect(lstatSync(path.join(workspace.directory, 'ignored.log')).isSymbolicLink()).toBe(true);
});

test.each([
  { text: '', got: 'an empty text' },
  { text: 'APPROVED. All done!', got: 'a text without any diff' },
  {
    text: '*** Begin Patch\n*** Update File: a.txt\n@@\n-two\n+TWO\n*** End Patch',
    got: 'an apply_patch block',
  },
  {
    text: 'a.txt\n<<<<<<< SEARCH\ntwo\n=======\nTWO\n>>>>>>> REPLACE\n',
    got: 'search/replace blocks',
  },
  {
    text: '*** a.txt 2026\n--- b.txt 2026\n***************\n*** 1 ****\n! two\n',
    got: 'a context diff',
  },
  { text: '2c2\n< two\n---\n> TWO\n', got: 'a normal diff' },
  { text: '--- a/a.txt\n+++ b/a.txt\n@@\n-two\n+TWO\n', got: 'hunks have no line numbers' },
  { text: '--- a/a.txt\r\n+++ b/a.txt\r\n@@\r\n-two\r\n', got: 'hunks have no line numbers' },
  { text: '--- a/a.txt\n+++ b/a.txt\n-two\n+TWO\n', got: 'no hunk after them' },
  { text: `\`\`\`diff\n${HUNK}\`\`\`\n`, got: 'no names of files before them' },
  {
    text: 'diff --cc a.txt\n--- a/a.txt\n+++ b/a.txt\n@@@ -1,1 -1,1 +1,1 @@@\n- two\n -too\n++TWO\n',
    got: 'the combined diff of a merge',
  },
  { text: '<<<<<<< HEAD\ntwo\n=======\nTWO\n>>>>>>> mine\n', got: 'conflict markers' },
  { text: '2c\nTWO\n.\n', got: 'an ed script' },
  { text: 'one [-two-]{+TWO+} three', got: 'a word diff' },
  { text: 'a.txt:\n```js\nconst two = 2;\n```\n', got: 'code in a fence' },
  { text: '{"patch": "x"}', got: 'JSON' },
  { text: '```json\n[ "x" ]\n```', got: 'JSON' },
])('names what came instead of a diff: $got', ({ text, got }) => {
  const extracted = extractPatch(text);
  expect(extracted.kind).toBe('refused');
  expect(extracted).toMatchObject({ reason: expect.stringContaining(got) });
});

test('a diff of a diff keeps its lines', () => {
  const inner = '--- a/x.diff\n+++ b/x.diff\n@@ -1,2 +1,3 @@\n --- a/y\n+++ added\n -- \n';
  expect(extractPatch(inner)).toEqual({ kind: 'diff', text: inner, strip: 1 });
});
