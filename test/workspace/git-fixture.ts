import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import type { FaultPoint } from '../../src/protocol/fault-point.ts';
import type { Submission } from '../../src/workspace/merge.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';
import { Repository } from '../../src/workspace/repository.ts';
import { Workspaces } from '../../src/workspace/workspaces.ts';

/** A directory that is removed when the test ends. Its path is real: no symlink on the way. */
export function temporaryDirectory(): string {
  const directory = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'troupe test-')));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export function processRegistry(): ProcessRegistry {
  return new ProcessRegistry(path.join(temporaryDirectory(), 'processes'));
}

/** What the tests' own git reads: nothing of the machine's configuration. */
const GIT_ENVIRONMENT = {
  PATH: process.env['PATH'],
  HOME: '/nonexistent',
  LC_ALL: 'C',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_AUTHOR_NAME: 'Test',
  GIT_AUTHOR_EMAIL: 'test@example.org',
  GIT_COMMITTER_NAME: 'Test',
  GIT_COMMITTER_EMAIL: 'test@example.org',
};

/** Runs git as a user would, and returns what it printed. */
export function git(directory: string, ...args: string[]): string {
  return run(directory, 'git', args);
}

function run(directory: string, program: string, args: readonly string[]): string {
  return execFileSync(program, args, {
    cwd: directory,
    env: GIT_ENVIRONMENT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

export type Files = Readonly<Record<string, string>>;

export function write(directory: string, files: Files): void {
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(directory, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}

/** One shell: a fork of a shell is cheap, one of a test's process is not. */
const COMMIT = 'git add -A && git commit -q --allow-empty -m "$1" && git rev-parse HEAD';

export function commit(directory: string, files: Files, message = 'change'): string {
  write(directory, files);
  return run(directory, 'sh', ['-c', COMMIT, 'sh', message]);
}

/** A repository with one commit on `main`, which is checked out. */
export function makeRepository(files: Files = { 'readme.md': 'hello\n' }): string {
  const directory = path.join(temporaryDirectory(), 'project');
  mkdirSync(directory);
  write(directory, files);
  run(directory, 'sh', ['-c', `git init -q -b main && ${COMMIT}`, 'sh', 'first']);
  return directory;
}

/** A repository, opened, with workspaces at their usual place. */
export async function openProject(
  files?: Files,
  options: { readonly faultPoint?: FaultPoint } = {},
): Promise<Project> {
  return await reopenProject(makeRepository(files), options);
}

export interface Project {
  readonly directory: string;
  readonly processes: ProcessRegistry;
  readonly repository: Repository;
  readonly workspaces: Workspaces;
}

/** What a new process sees of a project that another one has left. */
export async function reopenProject(
  directory: string,
  options: { readonly faultPoint?: FaultPoint } = {},
): Promise<Project> {
  const processes = new ProcessRegistry(path.join(directory, '.troupe', 'processes'));
  const repository = await Repository.open({ directory, processes });
  onTestFinished(() => repository.close());
  const root = path.join(directory, '.troupe', 'workspaces');
  return {
    directory,
    processes,
    repository,
    workspaces: new Workspaces({ repository, root, ...options }),
  };
}

/** What an agent would have done: a workspace with these files in it, submitted. */
export async function submit(
  { workspaces }: Project,
  files: Files,
  { task = 'task', run = 'run', attempt = 1 } = {},
): Promise<Submission> {
  const workspace = await workspaces.prepare({ run, task, attempt });
  write(workspace.directory, files);
  const collected = await workspaces.collect({ workspace, message: `Do ${task}` });
  if (collected.kind !== 'submitted')
    throw new Error(`expected a submission, got ${collected.kind}`);
  const { commit: submitted, base } = collected;
  return { run, task, attempt, title: `Do ${task}`, commit: submitted, base };
}

export const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** What the pipeline that a test kills wants to merge. */
export const PIPELINE_CHANGE: Files = { 'a.txt': 'a\n', 'readme.md': 'changed\n' };
