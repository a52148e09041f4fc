import { lstat, realpath } from 'node:fs/promises';
import path from 'node:path';
import { BRANCH_PREFIX } from './branch-name.ts';
import type { CleanupQueue } from './cleanup-queue.ts';
import { directoriesIn, entriesIn, ignoreMissing, removeIfEmpty } from './real-directories.ts';

/*
 * What runs leave behind beside the store: files of their tasks, below `.troupe/tasks/<run>/<task>`, and refs. Here `run`
 * is the directory's name, which is the slug of the run's id.
 *
 * An agent that is not contained can write there. So nothing is removed that does not look like ours, links are not
 * followed, and each file is looked at again right before it goes.
 */

/** How much of what files are for, of the runs that have ended, is kept. */
export interface KeptFiles {
  readonly ms: number;
  readonly files: number;
  readonly bytes: number;
}

/** `artifacts`: what a gatekeeper has written about an attempt. `logs`: output of commands and agents, and task files. */
export type FileKind = 'artifacts' | 'logs';

export type FileRetention = Readonly<Record<FileKind, KeptFiles>>;

export interface Leftover {
  readonly kind: FileKind;
  /** Absolute. */
  readonly file: string;
  readonly bytes: number;
  readonly mtimeMs: number;
}

/** The directory of the files of all runs. */
const tasksDirectory = (stateDirectory: string): string => path.join(stateDirectory, 'tasks');

/**
 * The files that are too many, too old or too much.
 * @param live slugs of the runs that have not ended: theirs are kept, and not counted
 */
export async function findLeftoverFiles(
  stateDirectory: string,
  live: ReadonlySet<string>,
  retention: FileRetention,
  now: number,
): Promise<readonly Leftover[]> {
  const found: Leftover[] = [];
  const root = tasksDirectory(stateDirectory);
  for (const run of await directoriesIn(root)) {
    if (live.has(run)) continue;
    for (const task of await directoriesIn(path.join(root, run))) {
      const directory = path.join(root, run, task);
      await collect(directory, AGENTS, found);
      if ((await directoriesIn(directory)).includes('gatekeeper')) {
        await collect(path.join(directory, 'gatekeeper'), GATEKEEPERS, found);
      }
    }
  }
  return (['artifacts', 'logs'] as const).flatMap((kind) =>
    surplus(
      found.filter((file) => file.kind === kind),
      retention[kind],
      now,
    ),
  );
}

/** The newest stay, until there are too many, or they are too much; none that is too old does. */
function surplus(files: readonly Leftover[], keep: KeptFiles, now: number): readonly Leftover[] {
  let bytes = 0;
  return files
    .toSorted((a, b) => b.mtimeMs - a.mtimeMs || (a.file < b.file ? -1 : 1))
    .filter((file, newer) => {
      bytes += file.bytes;
      return now - file.mtimeMs > keep.ms || newer >= keep.files || bytes > keep.bytes;
    });
}

/**
 * Removes files, or has them removed later, and then the directories that are empty.
 * @returns how many of each kind are gone
 */
export async function removeLeftoverFiles(
  stateDirectory: string,
  files: readonly Leftover[],
  cleanup: Pick<CleanupQueue, 'removeOrQueue'>,
): Promise<Readonly<Record<FileKind, number>>> {
  const removed = { artifacts: 0, logs: 0 };
  const directories = new Set<string>();
  for (const { kind, file } of files) {
    const directory = path.dirname(file);
    // Between looking and removing somebody may have put a link in its way.
    if (!(await isReally(stateDirectory, directory))) continue;
    if (await cleanup.removeOrQueue(file)) removed[kind]++;
    directories.add(directory);
  }
  const root = tasksDirectory(stateDirectory);
  for (const directory of directories) {
    for (let at = directory; at !== root; at = path.dirname(at)) {
      if (!(await isReally(stateDirectory, at)) || !(await removeIfEmpty(at))) break;
    }
  }
  return removed;
}

/** The slugs of the runs that still have files. */
export const runsWithFiles = async (stateDirectory: string): Promise<ReadonlySet<string>> =>
  new Set(await directoriesIn(tasksDirectory(stateDirectory)));

// ── refs ───────────────────────────────────────────────────────────────────────────────────────────────

export interface LeftoverRef {
  readonly ref: string;
  /** What it points at: it is removed only if that is still so. */
  readonly object: string;
}

const NAMESPACES = [
  `refs/heads/${BRANCH_PREFIX}/`,
  ...(['attempts', 'salvage', 'backup', 'restore'] as const).map((of) => `refs/troupe/${of}/`),
];

/** The arguments of the `git` that lists what `findLeftoverRefs` reads. */
export const LIST_REFS: readonly string[] = [
  'for-each-ref',
  '--format=%(objectname) %(committerdate:unix) %(refname) %(worktreepath)',
  ...NAMESPACES,
];

/**
 * The refs of runs that are over and forgotten: the store does not know the run, none of its files is left, and its
 * newest commit is old. A branch that somebody has checked out stays.
 * @param listed what `git` says to `LIST_REFS`
 * @param known slugs of runs that are in the store or have files
 */
export function findLeftoverRefs(
  listed: string,
  known: ReadonlySet<string>,
  before: number,
): readonly LeftoverRef[] {
  const byRun = new Map<string, { newest: number; refs: LeftoverRef[] }>();
  for (const line of listed.split('\n')) {
    const [object = '', date = '', ref = '', checkedOut = ''] = line.split(' ');
    const namespace = NAMESPACES.find((prefix) => ref.startsWith(prefix));
    if (namespace === undefined) continue;
    const run = ref.slice(namespace.length).split('/')[0] as string;
    if (known.has(run)) continue;
    const of = byRun.get(run) ?? { newest: 0, refs: [] };
    byRun.set(run, of);
    // What has no date is no commit, and not ours: it keeps its run.
    of.newest = Math.max(of.newest, date === '' ? Number.POSITIVE_INFINITY : Number(date) * 1000);
    if (checkedOut === '') of.refs.push({ ref, object });
  }
  return [...byRun.values()].flatMap(({ newest, refs }) => (newest < before ? refs : []));
}

// ── looking ────────────────────────────────────────────────────────────────────────────────────────────

interface Rule {
  readonly pattern: RegExp;
  readonly kind: FileKind;
}

const AGENTS: readonly Rule[] = [
  { pattern: /^agent-\d+(?:-fix\d+)?\.log$/, kind: 'logs' },
  { pattern: /^task-\d+(?:-fix\d+)?\.json$/, kind: 'logs' },
];
const GATEKEEPERS: readonly Rule[] = [
  { pattern: /^\d{4}-.*\.json$/, kind: 'artifacts' },
  { pattern: /^\d{4}-.*\.log$/, kind: 'logs' },
];

async function collect(directory: string, rules: readonly Rule[], into: Leftover[]): Promise<void> {
  for (const entry of await entriesIn(directory)) {
    const rule = rules.find(({ pattern }) => pattern.test(entry.name));
    if (rule === undefined || !entry.isFile()) continue;
    const file = path.join(directory, entry.name);
    const found = await lstat(file).catch(ignoreMissing);
    if (found?.isFile() !== true) continue;
    into.push({ kind: rule.kind, file, bytes: found.size, mtimeMs: found.mtimeMs });
  }
}

/** Whether the path leads where it says, below the state directory, without a link on its way. */
async function isReally(stateDirectory: string, directory: string): Promise<boolean> {
  const [root, real] = await Promise.all([
    realpath(stateDirectory),
    realpath(directory).catch(ignoreMissing),
  ]);
  return real === path.join(root, path.relative(stateDirectory, directory));
}
