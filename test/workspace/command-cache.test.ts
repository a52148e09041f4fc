import {
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
import { createTroupe } from '../../src/index.ts';
import type { Verdict } from '../../src/protocol/verdict.ts';
import { type VerifyAndMergeOptions, verifyAndMerge } from '../../src/workspace/merge.ts';
import { checkVerifyCommands, type VerifyCommand } from '../../src/workspace/verification.ts';
import {
  commit,
  type Files,
  git,
  makeRepository,
  openProject,
  type Project,
  reopenProject,
  sha256,
  submit,
  temporaryDirectory,
} from './git-fixture.ts';

const BEGIN: Files = { lock: 'one\n', '.gitignore': 'deps/\n', 'readme.md': 'x\n' };

/** An install that says each time that it ran, and a test that needs what it makes. */
function commands(counter: string, test = 'cmp lock deps/sub/made'): readonly VerifyCommand[] {
  const install = `mkdir -p deps/sub && cp lock deps/sub/made && ln -s sub/made deps/link && echo ran >> '${counter}'`;
  const cache = { key: ['lock', 'not-there'], paths: ['deps'] };
  return [
    { name: 'setup', command: install, cache },
    { name: 'test', command: `${test} && test -L deps/link` },
  ];
}

const runs = (counter: string): number =>
  existsSync(counter) ? readFileSync(counter, 'utf8').split('\n').length - 1 : 0;

async function gate(
  project: Project,
  verify: readonly VerifyCommand[],
  task: string,
  files: Files,
  options: Partial<VerifyAndMergeOptions> = {},
): Promise<Verdict> {
  const submission = await submit(project, files, { task });
  const { workspaces } = project;
  return verifyAndMerge({ submission, verify, workspaces, fingerprint: sha256, ...options });
}

const setupOf = (verdict: Verdict) => verdict.evidence.commands[0];

const entriesOf = ({ directory }: Project): string[] =>
  readdirSync(path.join(directory, '.troupe/cache')).filter((name) => !name.startsWith('.'));

test('what a merged change installed is there for the next ones, as long as the lock file is the same', async () => {
  const project = await openProject(BEGIN);
  const counter = path.join(temporaryDirectory(), 'runs');
  const verify = commands(counter);
  expect(setupOf(await gate(project, verify, 'a', { a: 'a' }))).not.toHaveProperty('cached');
  expect(runs(counter)).toBe(1);

  const second = await gate(project, verify, 'b', { b: 'b' });
  expect(second.verdict).toBe('accepted');
  expect(setupOf(second)).toMatchObject({
    name: 'setup',
    exitCode: 0,
    cached: entriesOf(project)[0],
    excerpt: 'Not run: deps as it was made for the same lock, not-there.',
  });
  expect(runs(counter)).toBe(1);

  // Another lock file, one that is new, another command, another environment: each is something else.
  expect((await gate(project, verify, 'c', { lock: 'two\n' })).verdict).toBe('accepted');
  expect((await gate(project, verify, 'd', { 'not-there': 'now' })).verdict).toBe('accepted');
  expect(runs(counter)).toBe(3);
  const env = { PATH: process.env['PATH'] ?? '', MORE: '1' };
  expect((await gate(project, verify, 'e', { e: 'e' }, { env })).verdict).toBe('accepted');
  expect(runs(counter)).toBe(4);
  expect(entriesOf(project)).toHaveLength(4);
  await project.repository.close();
});

test('what a change installed that is not merged is not kept', async () => {
  const project = await openProject(BEGIN);
  const counter = path.join(temporaryDirectory(), 'runs');
  const refused = commands(counter, 'test ! -e bad');
  expect((await gate(project, refused, 'a', { bad: 'x' })).verdict).toBe('rejected');
  const needsApproval = {
    protectedPaths: ['guarded'],
    rules: { 'protected-paths': 'approve' },
  } as const;
  const asked = await gate(
    project,
    commands(counter),
    'b',
    { guarded: 'x' },
    { policy: needsApproval },
  );
  expect(asked.verdict).toBe('approval_required');
  expect(entriesOf(project)).toEqual([]);
  expect(existsSync(path.join(project.directory, '.troupe/cache/.new'))).toBe(true);
  expect(readdirSync(path.join(project.directory, '.troupe/cache/.new'))).toEqual([]);
  await project.repository.close();
});

test('a change does not pay for what an earlier process kept and does not work any more', async () => {
  const first = await openProject(BEGIN);
  const { directory } = first;
  const counter = path.join(temporaryDirectory(), 'runs');
  const verify = commands(counter);
  await gate(first, verify, 'a', { a: 'a' });
  await first.repository.close();
  const [entry = ''] = entriesOf(first);
  writeFileSync(path.join(directory, '.troupe/cache', entry, '0/sub/made'), 'damaged\n');

  const project = await reopenProject(directory);
  expect((await gate(project, verify, 'b', { b: 'b' })).verdict).toBe('accepted');
  expect(runs(counter)).toBe(2);
  // What was made then is good for the next ones, and what is red with it is red.
  const third = await gate(project, verify, 'c', { c: 'c' });
  expect([third.verdict, runs(counter)]).toEqual(['accepted', 2]);
  const red = await gate(project, commands(counter, 'test ! -e bad'), 'd', { bad: 'x' });
  expect(red.verdict).toBe('rejected');
  expect(runs(counter)).toBe(2);
  await project.repository.close();
});

test('what a change puts where the command would write is never written through', async () => {
  const project = await openProject(BEGIN);
  const counter = path.join(temporaryDirectory(), 'runs');
  const nested: readonly VerifyCommand[] = [
    {
      name: 'setup',
      command: `mkdir -p sub/deps && echo ran >> '${counter}'`,
      cache: { key: ['lock'], paths: ['sub/deps'] },
    },
    { name: 'test', command: 'test -d sub/deps' },
  ];
  expect((await gate(project, nested, 'a', { a: 'a' })).verdict).toBe('accepted');
  const workspace = await project.workspaces.prepare({ run: 'run', task: 'b', attempt: 1 });
  mkdirSync(path.join(workspace.directory, 'real'));
  writeFileSync(path.join(workspace.directory, 'real/file'), 'x');
  symlinkSync('real', path.join(workspace.directory, 'sub'));
  const collected = await project.workspaces.collect({ workspace, message: 'x' });
  if (collected.kind !== 'submitted') throw new Error(collected.kind);
  const submission = { run: 'run', task: 'b', attempt: 1, title: 'x', ...collected };
  const { workspaces } = project;
  await verifyAndMerge({ submission, verify: nested, workspaces, fingerprint: sha256 });
  expect(runs(counter)).toBe(2);
  await project.repository.close();
});

test('agents find it in their places, if git ignores it there', async () => {
  const directory = makeRepository(BEGIN);
  const counter = path.join(temporaryDirectory(), 'runs');
  const troupe = await createTroupe({
    store: path.join(temporaryDirectory(), 'state.db'),
    project: { directory, verify: commands(counter) },
  });
  try {
    const seen = 'ls deps/sub > found.txt 2>&1 || true';
    troupe.commandAgent('command', {
      projectDirectory: directory,
      run: ['/bin/sh', '-c', seen, 'sh'],
    });
    const run = await troupe.start({
      id: 'run',
      tasks: [
        { id: 'first', agent: 'command', title: 'First' },
        { id: 'second', agent: 'command', title: 'Second', dependsOn: ['first'] },
      ],
    });
    expect(await run.result()).toMatchObject({ state: 'done' });
  } finally {
    await troupe.stop();
  }
  expect(git(directory, 'show', 'main:found.txt')).toBe('made');
  expect(runs(counter)).toBe(1);
});

test('what a crash has left half-made goes, and settings that lead outside are refused', async () => {
  const project = await openProject(BEGIN);
  const left = path.join(project.directory, '.troupe/cache/.new/half');
  mkdirSync(left, { recursive: true });
  await project.workspaces.reap([]);
  expect(existsSync(left)).toBe(false);
  rmSync(path.join(project.directory, '.troupe'), { recursive: true });
  commit(project.directory, {});
  for (const paths of [['../x'], ['/etc'], ['.git/hooks'], ['a//b'], ['a/'], [''], []]) {
    const cache = { key: ['lock'], paths };
    expect(() =>
      checkVerifyCommands([
        { name: 'setup', command: 'true', cache },
        { name: 'test', command: 'true' },
      ]),
    ).toThrow(/Expected cache.paths of setup to (be paths below the project|name at least one)/);
  }
  const cache = { key: ['lock'], paths: ['deps'] };
  expect(() => checkVerifyCommands([{ name: 'test', command: 'true', cache }])).toThrow(
    'expected that test is run, got a cache',
  );
  await project.repository.close();
});
