import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { processStartTime } from '../../src/runtime/process-identity.ts';
import { Git } from '../../src/workspace/git.ts';
import { ObjectReader, type ObjectReaderOptions } from '../../src/workspace/object-reader.ts';
import { ProcessRegistry, runningJobs } from '../../src/workspace/process-registry.ts';
import { program, programEnvironment } from '../program.ts';
import { commit, git, makeRepository, temporaryDirectory } from './git-fixture.ts';

afterEach(() => {
  vi.unstubAllEnvs();
});

const MAIN = 'refs/heads/main^{commit}';

interface Place {
  readonly directory: string;
  readonly registry: string;
  readonly reader: ObjectReader;
  /** The processes that answer now. */
  readonly pids: () => readonly number[];
}

function open(
  options: Partial<Pick<ObjectReaderOptions, 'idleMs' | 'timeoutMs'>> = {},
  directory = makeRepository({ 'readme.md': 'hello\n' }),
): Place {
  const registry = temporaryDirectory();
  const gitDir = path.join(directory, '.git');
  const reader = new ObjectReader({
    git: new Git({ processes: new ProcessRegistry(registry) }),
    place: { cwd: gitDir, gitDir },
    ...options,
  });
  onTestFinished(() => reader.close());
  const pids = () => runningJobs(registry).flatMap(({ process: p }) => (p ? [p.pid] : []));
  return { directory, registry, reader, pids };
}

/** The only process that answers. */
function requirePid({ pids }: Place): number {
  const [pid, ...more] = pids();
  if (pid === undefined || more.length > 0) throw new Error(`expected one process, got ${pids()}`);
  return pid;
}

/** Puts a program of that text in the place of git. */
function replaceGit(script: string): void {
  const bin = temporaryDirectory();
  writeFileSync(path.join(bin, 'git'), `#!/bin/sh\n${script}\n`);
  chmodSync(path.join(bin, 'git'), 0o755);
  vi.stubEnv('PATH', `${bin}:${process.env['PATH']}`);
}

test('it knows refs, objects and what a tag stands for, and what is not there', async () => {
  const { reader, directory } = open();
  const head = git(directory, 'rev-parse', 'main');
  git(directory, 'tag', '-a', 'v1', '-m', 'first');
  expect(await reader.info(MAIN)).toMatchObject({ name: head, type: 'commit' });
  expect(await reader.info('refs/tags/v1^{commit}')).toMatchObject({ name: head });
  expect(await reader.info('refs/tags/v1')).toMatchObject({ type: 'tag' });
  expect(await reader.info(`${head}^{tree}`)).toMatchObject({ type: 'tree' });
  expect((await reader.content('refs/heads/main:readme.md'))?.toString()).toBe('hello\n');
  for (const name of [
    '',
    'refs/heads/none',
    'x y',
    '-h',
    `${'0'.repeat(40)}^{commit}`,
    '^{commit}',
  ]) {
    expect(await reader.info(name)).toBeUndefined();
    expect(await reader.content(name)).toBeUndefined();
  }
  // Two questions in one line would shift all answers after it.
  expect(await reader.info(`${head}\ninfo ${head}`)).toBeUndefined();
  expect(await reader.info(MAIN)).toMatchObject({ name: head });
});

test('a replaced object does not count', async () => {
  const { reader, directory } = open();
  const first = git(directory, 'rev-parse', 'main');
  const second = commit(directory, { 'readme.md': 'other\n' });
  git(directory, 'replace', second, first);
  expect((await reader.content(`${second}:readme.md`))?.toString()).toBe('other\n');
});

test('a ref that moves is read anew: loose, packed, deleted, made again, after a repack', async () => {
  const place = open();
  const { reader, directory } = place;
  const seen = async () => (await reader.info(MAIN))?.name;
  const first = git(directory, 'rev-parse', 'main');
  expect(await seen()).toBe(first);
  const pid = requirePid(place);
  const second = commit(directory, { 'a.txt': 'a\n' });
  expect(await seen()).toBe(second);
  git(directory, 'pack-refs', '--all');
  expect(await seen()).toBe(second);
  git(directory, 'update-ref', 'refs/heads/main', first);
  expect(await seen()).toBe(first);
  git(directory, 'pack-refs', '--all');
  const third = git(directory, 'commit-tree', `${second}^{tree}`, '-p', first, '-m', 'third');
  git(directory, 'update-ref', 'refs/heads/main', third);
  git(directory, 'repack', '-a', '-d', '-q');
  git(directory, 'prune-packed');
  expect(await seen()).toBe(third);
  git(directory, 'update-ref', '-d', 'refs/heads/main');
  expect(await seen()).toBeUndefined();
  git(directory, 'update-ref', 'refs/heads/main', first);
  expect(await seen()).toBe(first);
  expect(requirePid(place)).toBe(pid);
});

test('many questions at once, with large and with odd contents, are each given their own answer', async () => {
  const contents = ['', '\n', 'x\n', '\0\n\0', 'y'.repeat(300_000), `${'0'.repeat(40)} blob 3\n`];
  const files = Object.fromEntries(contents.map((text, index) => [`${index}.txt`, text]));
  const place = open({}, makeRepository(files));
  const answers = await Promise.all(
    Array.from({ length: 60 }, async (_, n) => {
      const name = `refs/heads/main:${n % 7}.txt`;
      return n % 2 === 0
        ? (await place.reader.content(name))?.toString()
        : (await place.reader.info(name))?.bytes;
    }),
  );
  expect(answers).toEqual(
    Array.from({ length: 60 }, (_, n) => (n % 2 === 0 ? contents[n % 7] : contents[n % 7]?.length)),
  );
  requirePid(place);
});

test('an object that is larger than allowed is refused, and the next question is answered', async () => {
  const { reader } = open();
  await expect(reader.content('refs/heads/main:readme.md', 5)).rejects.toMatchObject({
    kind: 'too_much_output',
  });
  expect((await reader.content('refs/heads/main:readme.md', 6))?.toString()).toBe('hello\n');
});

test('a process that was killed is replaced', async () => {
  const place = open();
  const answer = await place.reader.info(MAIN);
  const pid = requirePid(place);
  process.kill(pid, 'SIGKILL');
  await vi.waitFor(() => expect(place.pids()).toEqual([]));
  expect(await place.reader.info(MAIN)).toEqual(answer);
  expect(requirePid(place)).not.toBe(pid);
});

test('a question that was under way when it was killed is asked again', async () => {
  const place = open();
  const answer = await place.reader.info(MAIN);
  const pid = requirePid(place);
  process.kill(pid, 'SIGSTOP');
  const asked = [place.reader.info(MAIN), place.reader.info(MAIN)];
  process.kill(pid, 'SIGKILL');
  expect(await Promise.all(asked)).toEqual([answer, answer]);
  expect(requirePid(place)).not.toBe(pid);
});

test('a process that hangs is killed and replaced', async () => {
  const place = open({ timeoutMs: 500 });
  const answer = await place.reader.info(MAIN);
  const pid = requirePid(place);
  process.kill(pid, 'SIGSTOP');
  expect(await place.reader.info(MAIN)).toEqual(answer);
  expect(processStartTime(pid)).toBeUndefined();
  expect(requirePid(place)).not.toBe(pid);
});

test.each([
  {
    does: 'always dies',
    script: 'echo broken >&2; exit 3',
    timeoutMs: 30_000,
    kind: 'failed',
    says: /exit code 3.*broken/s,
  },
  {
    does: 'is dead before it is heard',
    script: '(sleep 0.05; echo broken >&2) & exit 3',
    timeoutMs: 30_000,
    kind: 'failed',
    says: /exit code 3.*broken/s,
  },
  {
    does: 'is always killed',
    script: 'kill -9 $$',
    timeoutMs: 30_000,
    kind: 'disk',
    says: /SIGKILL/,
  },
  {
    does: 'always hangs',
    script: 'sleep 96001',
    timeoutMs: 300,
    kind: 'timeout',
    says: /within 300 ms/,
  },
])(
  'a git that $does: an error of its kind, and nothing is left',
  async ({ script, timeoutMs, kind, says }) => {
    const place = open({ timeoutMs });
    replaceGit(script);
    await expect(place.reader.info(MAIN)).rejects.toMatchObject({
      kind,
      message: expect.stringMatching(says),
    });
    await vi.waitFor(() => expect(place.pids()).toEqual([]));
    vi.unstubAllEnvs();
    expect(await place.reader.info(MAIN)).toMatchObject({ type: 'commit' });
  },
);

test('without git it says so', async () => {
  const place = open();
  vi.stubEnv('PATH', temporaryDirectory());
  await expect(place.reader.info(MAIN)).rejects.toMatchObject({ kind: 'missing' });
  expect(runningJobs(place.registry)).toEqual([]);
});

test('a repository that was moved away has nothing, and has it again when it is back', async () => {
  const { reader, directory } = open();
  const answer = await reader.info(MAIN);
  renameSync(directory, `${directory}-moved`);
  expect(await reader.info(MAIN)).toBeUndefined();
  await reader.close();
  const late = open({}, directory);
  await expect(late.reader.info(MAIN)).rejects.toMatchObject({ kind: 'failed' });
  mkdirSync(path.dirname(directory), { recursive: true });
  renameSync(`${directory}-moved`, directory);
  expect(await late.reader.info(MAIN)).toEqual(answer);
});

test('when nothing is asked the process ends, and the next question starts another', async () => {
  const place = open({ idleMs: 20 });
  const answer = await place.reader.info(MAIN);
  await vi.waitFor(() => expect(place.pids()).toEqual([]));
  expect(await place.reader.info(MAIN)).toEqual(answer);
});

test('close: what was asked is answered, the process is gone, nothing is asked after it', async () => {
  const place = open();
  await place.reader.info(MAIN);
  const pid = requirePid(place);
  const asked = place.reader.info(MAIN);
  await place.reader.close();
  expect(await asked).toMatchObject({ type: 'commit' });
  expect(processStartTime(pid)).toBeUndefined();
  expect(runningJobs(place.registry)).toEqual([]);
  await expect(place.reader.info(MAIN)).rejects.toMatchObject({ name: 'StoppedError' });
  await place.reader.close();
});

test('close ends a process that does not listen', async () => {
  const place = open();
  await place.reader.info(MAIN);
  const pid = requirePid(place);
  process.kill(pid, 'SIGSTOP');
  await place.reader.close();
  expect(processStartTime(pid)).toBeUndefined();
  expect(runningJobs(place.registry)).toEqual([]);
});

const owner = program('workspace/object-reader');

test('it does not keep its owner alive', async () => {
  const directory = makeRepository();
  const child = spawn(process.execPath, [owner, directory, temporaryDirectory()], {
    env: programEnvironment(),
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  expect(await once(child, 'exit')).toEqual([0, null]);
});

test('when its owner is killed it ends by itself; it counts as no command that left locks', async () => {
  const directory = makeRepository();
  const registry = temporaryDirectory();
  const child = spawn(process.execPath, [owner, directory, registry, 'stay'], {
    env: programEnvironment(),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  await once(child.stdout, 'data');
  const [job] = runningJobs(registry);
  const pid = job?.process?.pid ?? 0;
  expect(processStartTime(pid)).toBeDefined();
  expect(job?.command).not.toMatch(/^git /);
  child.kill('SIGKILL');
  await once(child, 'exit');
  await vi.waitFor(() => expect(processStartTime(pid)).toBeUndefined());
  expect(await new ProcessRegistry(registry).killLeftovers()).toMatchObject([{ killed: [] }]);
});
