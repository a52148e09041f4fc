import { existsSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { Git, GitError } from '../../src/workspace/git.ts';
import {
  commit,
  git,
  makeRepository,
  processRegistry,
  temporaryDirectory,
  write,
} from './git-fixture.ts';

const ours = () => new Git({ processes: processRegistry() });

test('output, exit codes that are answers, and errors that say what git said', async () => {
  const cwd = makeRepository();
  expect(await ours().text(['rev-parse', '--abbrev-ref', 'HEAD'], { cwd })).toBe('main');
  expect((await ours().run(['diff', '--quiet'], { cwd, allowExitCodes: [0, 1] })).exitCode).toBe(0);
  const error: unknown = await ours()
    .run(['rev-parse', '--verify', 'no-such-ref'], { cwd })
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(GitError);
  expect(error).toMatchObject({ kind: 'failed', infrastructure: false, exitCodeOfGit: 128 });
  expect((error as GitError).message).toBe(
    `git rev-parse in ${cwd}: exit code 128. fatal: Needed a single revision`,
  );
});

test('the signature of a commit is not looked at, whatever the repository says', async () => {
  const cwd = makeRepository({ 'a.txt': 'one\n' });
  const canary = path.join(temporaryDirectory(), 'canary');
  const program = path.join(temporaryDirectory(), 'gpg');
  writeFileSync(program, `#!/bin/sh\ntouch '${canary}'\n`, { mode: 0o755 });
  const signature = '-----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----';
  const signed = git(cwd, 'cat-file', 'commit', 'HEAD').replace(
    '\n\n',
    `\ngpgsig ${signature}\n\n`,
  );
  write(cwd, { signed: `${signed}\n` });
  const name = git(cwd, 'hash-object', '-t', 'commit', '-w', 'signed');
  git(cwd, 'config', 'gpg.program', program);
  git(cwd, 'config', 'log.showSignature', 'true');
  expect(await ours().text(['log', '-1', '--format=%H', name], { cwd })).toBe(name);
  expect(existsSync(canary)).toBe(false);
  // What was planted would have worked.
  git(cwd, 'log', '-1', name);
  expect(existsSync(canary)).toBe(true);
});

test('neither hooks nor fsmonitor, external diff or text conversion of the repository run', async () => {
  const cwd = makeRepository({ 'a.txt': 'one\n', '.gitattributes': '*.txt diff=evil\n' });
  const canary = path.join(temporaryDirectory(), 'canary');
  const plant = `touch '${canary}'`;
  for (const hook of ['pre-commit', 'post-commit', 'reference-transaction', 'post-index-change']) {
    writeFileSync(path.join(cwd, '.git/hooks', hook), `#!/bin/sh\n${plant}\n`, { mode: 0o755 });
  }
  for (const key of [
    'core.fsmonitor',
    'diff.external',
    'diff.evil.command',
    'diff.evil.textconv',
    'core.pager',
    'core.editor',
    'core.sshCommand',
  ]) {
    git(cwd, 'config', key, plant);
  }
  git(cwd, 'config', 'core.hooksPath', '.git/hooks');
  write(cwd, { 'a.txt': 'two\n' });
  expect(existsSync(canary)).toBe(false);
  const mine = ours();
  await mine.run(['status'], { cwd });
  await mine.run(['diff'], { cwd });
  await mine.run(['log', '-p', '-1'], { cwd });
  await mine.run(['add', '-A'], { cwd });
  await mine.run(['commit', '-m', 'x'], { cwd });
  await mine.run(['update-ref', 'refs/heads/other', 'HEAD'], { cwd });
  expect(existsSync(canary)).toBe(false);
  // The plants do work: an ordinary git falls for them.
  git(cwd, 'diff', 'HEAD^');
  expect(existsSync(canary)).toBe(true);
});

test('replaced objects show what is really there, and a tag does not hide a branch', async () => {
  const cwd = makeRepository();
  const real = git(cwd, 'rev-parse', 'HEAD');
  const fake = commit(cwd, {}, 'fake');
  git(cwd, 'replace', real, fake);
  git(cwd, 'tag', 'main', fake);
  expect(git(cwd, 'log', '-1', '--format=%s', real)).toBe('fake');
  expect(await ours().text(['log', '-1', '--format=%s', real], { cwd })).toBe('first');
});

test('protocols other than files are refused', async () => {
  const cwd = makeRepository();
  const canary = path.join(cwd, 'canary');
  for (const url of [
    `ext::sh -c "touch ${canary}"`,
    'https://localhost:1/x',
    'ssh://localhost/x',
  ]) {
    await expect(ours().run(['fetch', '--end-of-options', url], { cwd })).rejects.toThrow(
      'not allowed',
    );
  }
  expect(existsSync(canary)).toBe(false);
});

test('works without any identity configured', async () => {
  const cwd = makeRepository();
  await ours().run(['commit', '--allow-empty', '-m', 'x'], { cwd });
  expect(git(cwd, 'log', '-1', '--format=%an <%ae> %cn')).toBe('Troupe <troupe@localhost> Troupe');
});

test('a lock that goes away is waited for; one that stays is named, and is nobody’s fault', async () => {
  const cwd = makeRepository();
  const lock = path.join(cwd, '.git/index.lock');
  writeFileSync(lock, '');
  write(cwd, { 'a.txt': 'a\n' });
  const waiting = ours().run(['add', '-A'], { cwd });
  setTimeout(() => rmSync(lock), 120);
  await waiting;

  writeFileSync(lock, '');
  const error: unknown = await ours()
    .run(['add', '-A'], { cwd })
    .catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({
    kind: 'locked',
    infrastructure: true,
    lockFile: lock,
    code: 'lock_conflict',
  });
  expect((error as GitError).message).toContain(`${lock} is held`);
});

test('a time limit, too much output and an abort end git', async () => {
  const cwd = makeRepository({ big: 'x'.repeat(100_000) });
  git(cwd, 'config', 'alias.wait', '!sleep 93001');
  await expect(ours().run(['wait'], { cwd, timeoutMs: 100 })).rejects.toMatchObject({
    kind: 'timeout',
  });
  await expect(
    ours().run(['show', 'HEAD:big'], { cwd, maxStdoutBytes: 1000 }),
  ).rejects.toMatchObject({ kind: 'too_much_output' });
  const controller = new AbortController();
  const waiting = ours().run(['wait'], { cwd, signal: controller.signal });
  controller.abort(new Error('enough'));
  await expect(waiting).rejects.toThrow('enough');
});

test('no git, and a directory that is not there', async () => {
  vi.stubEnv('PATH', '/nonexistent');
  try {
    await expect(ours().run(['version'], { cwd: '/' })).rejects.toMatchObject({
      kind: 'missing',
      code: 'configuration',
    });
  } finally {
    vi.unstubAllEnvs();
  }
  await expect(ours().run(['version'], { cwd: '/no/such' })).rejects.toMatchObject({
    kind: 'failed',
  });
});

test('a full disk is the machine’s trouble', async () => {
  const cwd = makeRepository();
  // A git that says what the real one says; the disk here is not ours to fill.
  const bin = temporaryDirectory();
  writeFileSync(
    path.join(bin, 'git'),
    '#!/bin/sh\necho "fatal: write error: No space left on device" >&2\nexit 128\n',
    { mode: 0o755 },
  );
  vi.stubEnv('PATH', `${bin}:${process.env['PATH']}`);
  try {
    await expect(ours().run(['add', '-A'], { cwd })).rejects.toMatchObject({
      kind: 'disk',
      infrastructure: true,
      code: 'unavailable',
    });
  } finally {
    vi.unstubAllEnvs();
  }
});
