import { existsSync, readdirSync, statSync } from 'node:fs';
import { mkdtemp, readdir, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { TroupeError } from '../protocol/errors.ts';
import { type TaskName, taskPath } from './branch-name.ts';
import { readCleanupQueue } from './cleanup-queue.ts';
import { ProcessRegistry } from './process-registry.ts';
import { Repository } from './repository.ts';

/** One look at a project: whether all is well there, and what there is to say. */
export interface ProjectCheck {
  readonly name: 'git' | 'disk' | 'leftovers';
  readonly ok: boolean;
  /** In words, the most important first; of a check that is not ok, what to do. */
  readonly says: readonly string[];
}

export interface CheckProjectOptions {
  readonly directory: string;
  /** Default `main`. */
  readonly target?: string;
  /** Tasks that have not ended: their workspaces are in use, or will be. */
  readonly live?: readonly TaskName[];
  /** Milliseconds since 1970. Default: now. */
  readonly now?: number;
}

/** With less than this left on a disk the next verification is likely to fill it. */
const LITTLE_SPACE_BYTES = 256 * 1024 * 1024;
/** Git holds a lock for a moment; one that is older was left by a git that was killed. */
const OLD_LOCK_MS = 600_000;
/** So often something could not be removed: by then it is tried every ten minutes only. */
const STUBBORN_FAILURES = 7;
const MAX_NAMED = 5;

/**
 * Looks at what a project needs besides its store: git and the repository, space on its disks, and what has been left
 * behind. Changes nothing, also while a troupe works there.
 */
export async function checkProject(options: CheckProjectOptions): Promise<readonly ProjectCheck[]> {
  return [await checkGit(options), await checkDisks(options), await checkLeftovers(options)];
}

async function checkGit({
  directory,
  target = 'main',
  now = Date.now(),
}: CheckProjectOptions): Promise<ProjectCheck> {
  // A registry makes a directory; a project that was never worked on is to stay as it is.
  const scratch = await mkdtemp(path.join(tmpdir(), 'troupe-check-'));
  const processes = new ProcessRegistry(path.join(scratch, 'processes'));
  try {
    const repository = await Repository.open({ directory, target, processes });
    try {
      const version = await repository.text(['version']);
      const { name, email } = repository.git.identity;
      const says = [
        `${version}; what is merged into ${target} is committed as ${name} <${email}>.`,
      ];
      const locks = locksIn(repository.commonDir).filter(
        (lock) => now - (statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? now) > OLD_LOCK_MS,
      );
      if (locks.length === 0) return { name: 'git', ok: true, says };
      return {
        name: 'git',
        ok: false,
        says: [
          `${named(locks)} ${locks.length === 1 ? 'is' : 'are'} older than ten minutes: a git that was killed has left such a lock, and every other one waits for it in vain. If none runs here, remove it.`,
          ...says,
        ],
      };
    } finally {
      await repository.close();
    }
  } catch (error) {
    // What is wrong with the repository is what was asked; anything else is a mistake of ours.
    if (!(error instanceof TroupeError)) throw error;
    return { name: 'git', ok: false, says: [error.message] };
  } finally {
    processes.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

function locksIn(commonDir: string): readonly string[] {
  const refs = path.join(commonDir, 'refs');
  return [
    ...['index.lock', 'HEAD.lock', 'packed-refs.lock', 'shallow.lock', 'config.lock']
      .map((name) => path.join(commonDir, name))
      .filter((file) => existsSync(file)),
    ...(existsSync(refs) ? readdirSync(refs, { recursive: true, encoding: 'utf8' }) : [])
      .filter((name) => name.endsWith('.lock'))
      .map((name) => path.join(refs, name)),
  ];
}

async function checkDisks({ directory }: CheckProjectOptions): Promise<ProjectCheck> {
  const state = path.join(directory, '.troupe');
  const full: string[] = [];
  const says: string[] = [];
  for (const place of [existsSync(state) ? state : directory, tmpdir()]) {
    const disk = await statfs(place);
    const free = disk.bavail * disk.bsize;
    // Some file systems have no fixed number of inodes and report 0 of 0.
    const noInodes = disk.files > 0 && disk.ffree === 0;
    const left = `${Math.floor(free / 1_000_000)} MB are free at ${place}`;
    if (free >= LITTLE_SPACE_BYTES && !noInodes) says.push(`${left}.`);
    else full.push(`${left}${noInodes ? ', but no inodes' : ''}: make room there.`);
  }
  return { name: 'disk', ok: full.length === 0, says: [...full, ...says] };
}

/** What the next start removes by itself is told, and is no fault. */
async function checkLeftovers({
  directory,
  live = [],
}: CheckProjectOptions): Promise<ProjectCheck> {
  const state = path.join(directory, '.troupe');
  const root = path.join(state, 'workspaces');
  const faults: string[] = [];
  const says: string[] = [];
  const queue = await readCleanupQueue(path.join(root, '.cleanup-queue.json'));
  if (queue === undefined) {
    says.push('The cleanup queue cannot be read: it is begun anew by the next run.');
  } else if (queue.length > 0) {
    const stubborn = queue.filter(({ failures }) => failures >= STUBBORN_FAILURES);
    for (const { path: file, failures, lastError } of stubborn.slice(0, MAX_NAMED)) {
      faults.push(
        `${path.join(state, file)} could not be removed ${failures} times: ${lastError}. Remove it yourself.`,
      );
    }
    const others = queue.length - stubborn.length;
    if (others > 0) says.push(`${others} could not be removed yet, and will be tried again.`);
  }
  const kept = await directoriesIn(path.join(state, 'kept'));
  if (kept.length > 0) {
    says.push(
      `What could not be kept as a ref lies in ${path.join(state, 'kept')} (${named(kept)}): remove it when it is not needed.`,
    );
  }
  const living = new Set(live.map(taskPath));
  const dead: string[] = [];
  for (const run of await directoriesIn(root)) {
    for (const task of await directoriesIn(path.join(root, run))) {
      if (!living.has(`${run}/${task}`)) dead.push(`${run}/${task}`);
    }
  }
  if (dead.length > 0) {
    says.push(`Workspaces of tasks that are over: ${named(dead)}. The next run removes them.`);
  }
  if (faults.length + says.length === 0) says.push('Nothing is left behind.');
  return { name: 'leftovers', ok: faults.length === 0, says: [...faults, ...says] };
}

/** But for ours: no slug begins with a dot. */
async function directoriesIn(directory: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
      .map(({ name }) => name)
      .toSorted();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

const named = (names: readonly string[]): string =>
  `${names.slice(0, MAX_NAMED).join(', ')}${names.length > MAX_NAMED ? ` and ${names.length - MAX_NAMED} more` : ''}`;
