import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { copyFile, rm, stat, utimes } from 'node:fs/promises';
import path from 'node:path';
import { removeCutOffWrites, writeDurably } from './durable-file.ts';
import { entryAt } from './entry-at.ts';
import { GitError, splitNul } from './git.ts';
import type { Repository } from './repository.ts';
import { REPOSITORY_MODE } from './special-entries.ts';

/** A working tree of the user's that has the target branch checked out. */
export interface Checkout {
  readonly directory: string;
  /** Its own git directory (index, HEAD), not the shared one. */
  readonly gitDir: string;
}

/** Every working tree on the target branch, also one whose rebase of the target is in progress. */
export async function listTargetCheckouts(repository: Repository): Promise<Checkout[]> {
  const only = onlyCheckout(repository);
  if (only !== undefined) return [only];
  const output = await repository.text(['worktree', 'list', '--porcelain', '-z']);
  const checkouts = new Map<string, Checkout>();
  for (const entry of output.split('\0\0')) {
    const lines = entry.split('\0');
    const directory = lines[0]?.replace(/^worktree /, '') ?? '';
    const onTarget = lines.includes(`branch ${repository.targetRef}`);
    if (!onTarget && !lines.includes('detached')) continue;
    // Of a submodule git lists the git directory; the opened working tree is the right one then.
    const top = directory === repository.commonDir ? repository.root : directory;
    if (!existsSync(top)) continue; // removed by hand, not pruned yet
    // The main working tree holds the shared directory itself; a linked one has a directory of its own.
    const gitDir =
      path.join(top, '.git') === repository.commonDir
        ? repository.commonDir
        : await repository.git.text(['rev-parse', '--absolute-git-dir'], {
            cwd: top,
            userConfiguration: true,
          });
    if (onTarget || rebasedBranch(gitDir) === repository.targetRef) {
      checkouts.set(top, { directory: top, gitDir });
    }
  }
  return [...checkouts.values()];
}

/**
 * The usual case, which three files tell: one working tree on the target, the repository in it, and no linked one.
 * @returns undefined when git must be asked
 */
function onlyCheckout({ root, commonDir, targetRef }: Repository): Checkout | undefined {
  const head = path.join(commonDir, 'HEAD');
  const usual =
    path.join(root, '.git') === commonDir &&
    // A link in its place is git's to understand.
    lstatSync(commonDir, { throwIfNoEntry: false })?.isDirectory() === true &&
    lstatSync(head, { throwIfNoEntry: false })?.isFile() === true &&
    !existsSync(path.join(commonDir, 'worktrees'));
  if (!usual || readFileSync(head, 'utf8') !== `ref: ${targetRef}\n`) return undefined;
  return { directory: root, gitDir: commonDir };
}

/** What a user has begun in a working tree and not ended: `merge`, `rebase`, `cherry-pick`, `revert`. */
export function operationInProgress(gitDir: string): string | undefined {
  const marks = [
    ['rebase-merge', 'rebase'],
    ['rebase-apply', 'rebase'],
    ['MERGE_HEAD', 'merge'],
    ['CHERRY_PICK_HEAD', 'cherry-pick'],
    ['REVERT_HEAD', 'revert'],
  ] as const;
  return marks.find(([file]) => existsSync(path.join(gitDir, file)))?.[1];
}

/**
 * Why a checkout cannot go from one commit to another without touching what is the user's.
 * @returns undefined when it is clean; else a sentence that names the place and says what to do
 */
export async function findObstacle(
  repository: Repository,
  checkout: Checkout,
  from: string,
  to: string,
): Promise<string | undefined> {
  const { directory, gitDir } = checkout;
  const where = `The working tree ${directory}, which has ${repository.target} checked out,`;
  const operation = operationInProgress(gitDir);
  if (operation !== undefined) {
    return `${where} is in the middle of a ${operation}. Finish it or call it off (git ${operation} --abort).`;
  }
  const { stdout } = await repository.runInCheckout(checkout, [
    'status',
    '--porcelain=v1',
    '-z',
    '--no-renames',
    '--untracked-files=no',
    // We change no submodule, and git would run in them with their configuration.
    '--ignore-submodules=all',
  ]);
  const changed = splitNul(stdout.toString('utf8')).map((line) => line.slice(3));
  if (changed.length > 0) {
    return `${where} has uncommitted changes (${someOf(changed)}). Commit or stash them.`;
  }
  const changes = await listChanges(repository, from, to);
  const deleted = new Set(changes.flatMap(({ path: name, inTo }) => (inTo ? [] : [name])));
  const inTheWay: string[] = [];
  for (const change of changes) {
    // Git would remove the directory with all that is in it, tracked there or not.
    if (change.replacesRepository && holdsFiles(path.join(directory, change.path)))
      inTheWay.push(change.path);
    if (change.inFrom) continue;
    const blocking = await untrackedAt(repository, checkout, change.path, deleted);
    if (blocking !== undefined) inTheWay.push(blocking);
  }
  if (inTheWay.length > 0) {
    return `${where} has untracked files where merged ones belong (${someOf(inTheWay)}). Move them away.`;
  }
  return undefined;
}

/** Updates index and files of a clean checkout. Git refuses, changing nothing, if it is not clean any more. */
export async function followCheckout(
  repository: Repository,
  checkout: Checkout,
  from: string,
  to: string,
): Promise<void> {
  const follow = ['read-tree', '-m', '-u', from, to];
  try {
    await repository.runInCheckout(checkout, follow);
  } catch (error) {
    if (!(error instanceof GitError)) throw error;
    // Its index may know the files by another inode or time than they have: the tree was copied, or a file touched.
    await repository.runInCheckout(checkout, ['update-index', '-q', '--refresh'], {
      allowExitCodes: [0, 1],
    });
    // A writer that had to stop has made it dirty itself: what stopped it is what a person has to know.
    await repository.runInCheckout(checkout, follow).catch(() => Promise.reject(error));
  }
}

const moveFile = ({ commonDir }: Repository) => path.join(commonDir, 'troupe', 'move');

/**
 * Says on disk that the target is about to move, so that a checkout which has not followed when we are killed is told from
 * one in which the user has put back what was there before.
 */
export async function noteMove(repository: Repository, from: string, to: string): Promise<void> {
  await writeDurably(moveFile(repository), `${from} ${to}\n`);
}

/** All checkouts have followed, or the target was not moved. */
export async function forgetMove(repository: Repository): Promise<void> {
  await rm(moveFile(repository), { force: true });
}

/** Where the target came from when it moved to `to`, if checkouts may not have followed. */
function originOf(repository: Repository, to: string): string | undefined {
  if (!existsSync(moveFile(repository))) return undefined;
  const [from = '', noted] = readFileSync(moveFile(repository), 'utf8').trimEnd().split(' ');
  return noted === to ? from : undefined;
}

/** A commit to which the target was moved and from which it was moved back, when a checkout could not follow. */
export const undoneRef = (commit: string) => `refs/troupe/undone/${commit}`;

/**
 * Completes checkouts whose branch was moved while their files were not, or not all of them (`noteMove`): the index
 * holds exactly the tree of the commit the branch came from, and every file that the move changes is as it was before,
 * as it is to be, or as a writer leaves it that is stopped at it. Takes out of them what a move that was called off
 * (`undoneRef`) has left. Anything else is the user's and stays. For use inside `repository.exclusive`.
 * @returns the directories that were brought up to date
 * @throws {GitError} the disk is full, …; what is left is found again
 * Crash: files first, index last, refs after it; so it can be done again.
 */
export async function finishCheckouts(repository: Repository): Promise<string[]> {
  const to = await repository.targetHead();
  const finished = new Set<string>();
  const undone = await commitsBelow(repository, undoneRef(''));
  const origin = originOf(repository, to);
  let all = true;
  let followed = true;
  for (const checkout of await listTargetCheckouts(repository)) {
    if (operationInProgress(checkout.gitDir) !== undefined) {
      all = false;
      continue;
    }
    const isThere = await indexHolds(repository, checkout, to);
    const isBehind =
      !isThere && origin !== undefined && (await indexHolds(repository, checkout, origin));
    for (const from of isThere ? undone : isBehind ? [origin] : []) {
      if (await complete(repository, checkout, from, to)) finished.add(checkout.directory);
    }
    if (isBehind && !finished.has(checkout.directory)) followed = false;
  }
  if (all && followed) await forgetMove(repository);
  await removeCutOffWrites(path.dirname(moveFile(repository)), { recursive: false });
  // What is there now, and not as we have left it, the user has made of it.
  for (const commit of all ? undone : []) {
    await repository.run(['update-ref', '-d', '--end-of-options', undoneRef(commit)]);
  }
  return [...finished];
}

async function commitsBelow(repository: Repository, refs: string): Promise<string[]> {
  const names = await repository.text(['for-each-ref', '--format=%(objectname)', refs]);
  return names.split('\n').filter((commit) => commit !== '');
}

async function indexHolds(
  repository: Repository,
  checkout: Checkout,
  commit: string,
): Promise<boolean> {
  const { exitCode } = await repository.runInCheckout(
    checkout,
    ['diff-index', '--cached', '--quiet', '--ignore-submodules=none', '--end-of-options', commit],
    { allowExitCodes: [0, 1] },
  );
  return exitCode === 0;
}

async function complete(
  repository: Repository,
  checkout: Checkout,
  from: string,
  to: string,
): Promise<boolean> {
  const changes = await listChanges(repository, from, to);
  const names = new Set(changes.map((change) => change.path));
  const differsFrom = await differencesTo(repository, checkout, from, names);
  const differsTo = await differencesTo(repository, checkout, to, names);
  const before = changes.filter(({ inFrom }) => inFrom).map((change) => change.path);
  const after = changes.filter(({ inTo }) => inTo).map((change) => change.path);
  const directoriesBefore = directoriesOf(before);
  const directoriesAfter = directoriesOf(after);
  const exists = ({ path: name, inFrom, inTo }: PathChange): boolean => {
    const entry = entryAt(path.join(checkout.directory, name));
    if (entry?.isDirectory() !== true) return entry !== undefined;
    // A directory that was there, or is to be: what is in it is looked at by itself.
    return !((!inFrom && directoriesBefore.has(name)) || (!inTo && directoriesAfter.has(name)));
  };
  const known = new Set(before);
  for (const change of changes) {
    const { path: name, inFrom, inTo, replacesRepository } = change;
    if (replacesRepository && holdsFiles(path.join(checkout.directory, name))) return false;
    // Where a file is to be, the directory goes with all that is in it.
    if (inTo && directoriesBefore.has(name) && holdsOthers(checkout.directory, name, known))
      return false;
    const asBefore = inFrom ? !differsFrom.has(name) : !exists(change);
    const asWanted = inTo ? !differsTo.has(name) : !exists(change);
    if (asBefore || asWanted) continue;
    // Of a move that was called off the writer wrote `from`, of any other `to`.
    const written = [...(inFrom ? [from] : []), ...(inTo ? [to] : [])];
    if (!(await isCutOff(repository, checkout, name, written))) return false;
  }
  for (const change of changes) {
    if (!change.inTo && exists(change)) removeFile(checkout.directory, change.path);
  }
  await withIndexOf(repository, checkout, to, names, async (indexFile, leftOut) => {
    await repository.runInCheckout(checkout, ['checkout-index', '-f', '-z', '--stdin'], {
      indexFile,
      stdin: after.flatMap((name) => (leftOut.has(name) ? [] : [`${name}\0`])).join(''),
    });
  });
  await repository.runInCheckout(checkout, ['read-tree', '-i', '-m', from, to]);
  // Exit code 1: some file is modified. That is the user's, in a place the move does not touch.
  await repository.runInCheckout(checkout, ['update-index', '-q', '--refresh'], {
    allowExitCodes: [0, 1],
  });
  return true;
}

/** All directories that lead to these files. */
function directoriesOf(names: readonly string[]): ReadonlySet<string> {
  const directories = new Set<string>();
  for (const name of names) {
    for (let above = path.dirname(name); above !== '.'; above = path.dirname(above)) {
      if (directories.has(above)) break;
      directories.add(above);
    }
  }
  return directories;
}

/** Whether anything but these files lies in a directory, if it is one. */
function holdsOthers(top: string, directory: string, names: ReadonlySet<string>): boolean {
  if (entryAt(path.join(top, directory))?.isDirectory() !== true) return false;
  return readdirSync(path.join(top, directory), { withFileTypes: true }).some((entry) => {
    const name = `${directory}/${entry.name}`;
    return entry.isDirectory() ? holdsOthers(top, name, names) : !names.has(name);
  });
}

/** Whether a file is as git leaves it when it is stopped, or has no more space, between removing the old one and writing the last byte. */
async function isCutOff(
  repository: Repository,
  checkout: Checkout,
  name: string,
  commits: readonly string[],
): Promise<boolean> {
  const file = path.join(checkout.directory, name);
  const entry = entryAt(file);
  if (entry === undefined) {
    // What a user has put where a directory leads there is no work of git's.
    let above = path.dirname(file);
    while (entryAt(above) === undefined) above = path.dirname(above);
    return lstatSync(above).isDirectory();
  }
  if (!entry.isFile()) return false;
  const content = readFileSync(file);
  for (const commit of commits) {
    const { stdout } = await repository.runInCheckout(checkout, [
      'cat-file',
      '--filters',
      '--end-of-options',
      `${commit}:${name}`,
    ]);
    if (content.length < stdout.length && content.equals(stdout.subarray(0, content.length))) {
      return true;
    }
  }
  return false;
}

/**
 * Paths whose working file is not what `commit` says.
 * @param names those that matter
 */
async function differencesTo(
  repository: Repository,
  checkout: Checkout,
  commit: string,
  names: ReadonlySet<string>,
): Promise<ReadonlySet<string>> {
  return await withIndexOf(repository, checkout, commit, names, async (indexFile) => {
    // Really: also what the user has told git to take for unchanged.
    await repository.runInCheckout(checkout, ['update-index', '-q', '--really-refresh'], {
      indexFile,
      allowExitCodes: [0, 1],
    });
    const { stdout } = await repository.runInCheckout(
      checkout,
      ['diff-files', '--name-only', '-z', '--ignore-submodules=all'],
      { indexFile },
    );
    return new Set(splitNul(stdout.toString('utf8')));
  });
}

/**
 * Gives a temporary index that holds the tree of `commit`, as warm as the checkout's own.
 * @param names those that matter
 * @param work gets those of them, too, that the user's git leaves out of the working tree (`skip-worktree`, as of a sparse
 *   checkout) and that are not there. Of what is there in spite of it, the mark is taken off: git would look at no edit
 */
async function withIndexOf<T>(
  repository: Repository,
  checkout: Checkout,
  commit: string,
  names: ReadonlySet<string>,
  work: (indexFile: string, leftOut: ReadonlySet<string>) => Promise<T>,
): Promise<T> {
  const indexFile = path.join(checkout.gitDir, 'troupe-index');
  await copyIndex(path.join(checkout.gitDir, 'index'), indexFile);
  try {
    // `-i`: that a file is another is to be found out, and no reason to stop.
    await repository.runInCheckout(checkout, ['read-tree', '--reset', '-i', commit], { indexFile });
    const { stdout } = await repository.runInCheckout(checkout, ['ls-files', '-t', '-z'], {
      indexFile,
    });
    const marked = splitNul(stdout.toString('utf8')).flatMap((line) =>
      line.startsWith('S ') && names.has(line.slice(2)) ? [line.slice(2)] : [],
    );
    const isThere = (name: string) => entryAt(path.join(checkout.directory, name)) !== undefined;
    const there = marked.filter(isThere);
    if (there.length > 0) {
      const unmark = ['update-index', '--no-skip-worktree', '-z', '--stdin'];
      const stdin = there.map((name) => `${name}\0`).join('');
      await repository.runInCheckout(checkout, unmark, { indexFile, stdin });
    }
    return await work(indexFile, new Set(marked).difference(new Set(there)));
  } finally {
    await rm(indexFile, { force: true });
    await rm(`${indexFile}.lock`, { force: true });
  }
}

/**
 * Copies an index with the time at which git wrote it. Most gits compare a file's times by the second; what was written in
 * the same second as the index they read again, and they know it by the time of the index file. A copy that looks younger
 * would hide what a user changed in that second.
 * Source: git's Documentation/technical/racy-git.txt
 */
async function copyIndex(from: string, to: string): Promise<void> {
  const { atime, mtime } = await stat(from);
  await copyFile(from, to);
  await utimes(to, atime, mtime);
}

interface PathChange {
  readonly path: string;
  readonly inFrom: boolean;
  readonly inTo: boolean;
  /** A file or link comes where a submodule was. */
  readonly replacesRepository: boolean;
}

async function listChanges(
  repository: Repository,
  from: string,
  to: string,
): Promise<PathChange[]> {
  const files = await repository.changedFiles(
    await repository.treeOf(from),
    await repository.treeOf(to),
  );
  return files.map(({ path: name, status, mode, previousMode }) => ({
    path: name,
    inFrom: status !== 'added',
    inTo: status !== 'deleted',
    replacesRepository:
      status !== 'deleted' && previousMode === REPOSITORY_MODE && mode !== REPOSITORY_MODE,
  }));
}

/** Whether there is a directory with anything in it, not seen through a link. */
function holdsFiles(directory: string): boolean {
  return entryAt(directory)?.isDirectory() === true && readdirSync(directory).length > 0;
}

/** What untracked thing lies where a new file belongs, on the way to it or below it. Ignored files count. */
async function untrackedAt(
  repository: Repository,
  checkout: Checkout,
  name: string,
  deleted: ReadonlySet<string>,
): Promise<string | undefined> {
  const parts = name.split('/');
  for (let length = 1; length <= parts.length; length++) {
    const prefix = parts.slice(0, length).join('/');
    const entry = entryAt(path.join(checkout.directory, prefix));
    if (entry === undefined) return undefined;
    // A file that the move deletes makes way for a directory or file of the same name.
    if (!entry.isDirectory()) return deleted.has(prefix) ? undefined : prefix;
  }
  // A directory where a file is to be: it goes if all that is in it is tracked (and so deleted by the move).
  const { stdout } = await repository.runInCheckout(checkout, [
    '--literal-pathspecs',
    'ls-files',
    '--others',
    '-z',
    '--',
    `${name}/`,
  ]);
  return splitNul(stdout.toString('utf8'))[0];
}

function removeFile(top: string, name: string): void {
  const file = path.join(top, name);
  // A submodule: git leaves its files to the user, and so do we.
  if (holdsFiles(file)) return;
  if (lstatSync(file).isDirectory()) rmdirSync(file);
  else unlinkSync(file);
  for (let parent = path.dirname(name); parent !== '.'; parent = path.dirname(parent)) {
    try {
      rmdirSync(path.join(top, parent));
    } catch {
      return; // not empty: other files live there
    }
  }
}

function rebasedBranch(gitDir: string): string | undefined {
  for (const state of ['rebase-merge', 'rebase-apply']) {
    const file = path.join(gitDir, state, 'head-name');
    if (statSync(file, { throwIfNoEntry: false })?.isFile())
      return readFileSync(file, 'utf8').trim();
  }
  return undefined;
}

function someOf(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => JSON.stringify(name));
  return names.length > 5 ? `${shown.join(', ')} and ${names.length - 5} more` : shown.join(', ');
}
