import { randomUUID } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { copyFile, lstat, mkdir, open, readdir, rename, unlink } from 'node:fs/promises';
import path from 'node:path';
import { type CheckoutPlace, fillWorkTree } from './borrowed-checkout.ts';
import type { CleanupQueue } from './cleanup-queue.ts';
import { removeTree } from './remove-tree.ts';
import type { Repository } from './repository.ts';

/** What a file was when git had just written it; by its path in the work tree. */
type Written = ReadonlyMap<string, string>;

/** A place that was filled: `work/` the files, and beside it the index as git left it. */
interface Filled {
  readonly commit: string;
  readonly files: Written;
}

interface Spare extends Filled {
  readonly directory: string;
}

/** With fewer files it takes longer to compare than to write them anew. */
const WORTH_KEEPING = 1000;
/** Each is a whole checkout on the disk. */
const MOST = 4;

/**
 * Checkouts that nobody needs any more, kept to become the next ones. A fresh checkout of 5 000 files is as many files
 * created, and as many removed after it; of a used one nearly all are still what they should be.
 *
 * What is made of one is what a fresh checkout would be, file by file: whatever git does not track is removed, and every
 * file whose inode, size, permissions, number of names or times (to the nanosecond) are not those that it had when git
 * wrote it is written anew. The time of change (ctime) cannot be set by a program. Git's own comparison would not do:
 * it knows times by the second, and of permissions only one bit. What cannot be compared is not used: submodules,
 * other `.gitattributes` than those the files were written by, pipes and sockets, directories with other permissions.
 * Crash: `Workspaces.reap` removes them all; none is used by another process than the one that kept it.
 */
export class SpareCheckouts {
  readonly #repository: Repository;
  readonly #root: string;
  readonly #cleanup: CleanupQueue;
  /** By the directory of the place, while it is in use. */
  readonly #filled = new Map<string, Filled>();
  /** The youngest last. */
  #spares: Spare[] = [];

  /** @param root where they lie; on the disk of the places they come from */
  constructor(options: {
    readonly repository: Repository;
    readonly root: string;
    readonly cleanup: CleanupQueue;
  }) {
    this.#repository = options.repository;
    this.#root = options.root;
    this.#cleanup = options.cleanup;
  }

  /**
   * Fills a place with the files of a commit.
   * @param place its work tree is `work` in a directory that can be kept
   * @param make makes the git directory; `place.workTree` is there by then, empty or with the files of a spare
   * @throws {GitError} the disk is full, …
   */
  async fill(place: CheckoutPlace, make: () => void, signal?: AbortSignal): Promise<void> {
    const spare = await this.#take(place.commit);
    if (spare !== undefined) {
      if (await this.#refill(spare, place, make, signal)) return;
      signal?.throwIfAborted();
      await Promise.all([place.workTree, place.gitDir].map(removeTree));
    }
    await mkdir(place.workTree, { recursive: true });
    make();
    await fillWorkTree(this.#repository, place, signal);
    await this.#noteFilled(place);
  }

  /**
   * Takes a place that is no longer needed.
   * @param directory what the work tree was filled in
   * @returns false when it is not worth it, or there are enough: then it is to be removed
   */
  async keep(directory: string): Promise<boolean> {
    const filled = this.#filled.get(directory);
    this.#filled.delete(directory);
    if (filled === undefined || this.#spares.length >= MOST) return false;
    const kept = path.join(this.#root, randomUUID());
    try {
      await mkdir(this.#root, { recursive: true });
      await rename(directory, kept);
    } catch {
      return false; // on another disk, no space, in use: whoever asked removes it, and says so if that fails
    }
    this.#spares.push({ ...filled, directory: kept });
    return true;
  }

  /** Tells that a place lies somewhere else now. */
  moved(from: string, to: string): void {
    const filled = this.#filled.get(from);
    if (filled === undefined) return;
    this.#filled.delete(from);
    this.#filled.set(to, filled);
  }

  /** Removes all that are kept. */
  async clear(): Promise<void> {
    const spares = this.#spares;
    this.#spares = [];
    for (const { directory } of spares) await this.#cleanup.removeOrQueue(directory);
  }

  /** The youngest whose files were written by the same rules. */
  async #take(commit: string): Promise<Spare | undefined> {
    if (this.#spares.length === 0) return undefined;
    const wanted = await this.#repository.specialEntries(commit);
    if (wanted.repositories.length > 0) return undefined;
    for (const spare of this.#spares.toReversed()) {
      const had = await this.#repository.specialEntries(spare.commit);
      const alike =
        had.repositories.length === 0 &&
        JSON.stringify(had.attributes) === JSON.stringify(wanted.attributes);
      // Somebody else may have taken it meanwhile.
      if (!alike || !this.#spares.includes(spare)) continue;
      this.#spares = this.#spares.filter((other) => other !== spare);
      return spare;
    }
    return undefined;
  }

  /** @returns false when it is better made anew, for whatever reason: making it anew then says what is wrong */
  async #refill(
    spare: Spare,
    place: CheckoutPlace,
    make: () => void,
    signal?: AbortSignal,
  ): Promise<boolean> {
    try {
      const { workTree, gitDir } = place;
      await mkdir(path.dirname(workTree), { recursive: true });
      await rename(path.join(spare.directory, 'work'), workTree);
      await removeTree(path.join(workTree, '.git'));
      make();
      await copyFile(path.join(spare.directory, INDEX), path.join(gitDir, 'index'));
      // Before the files are compared: below a link in a directory's place lies what is not ours.
      await this.#repository.git.run(['clean', '-ffdxq'], {
        cwd: workTree,
        gitDir,
        workTree,
        ...(signal === undefined ? {} : { signal }),
      });
      const now = await lookAt(workTree);
      if (now === undefined) return false;
      for (const [name, was] of now) {
        if (spare.files.get(name) !== was) await unlink(path.join(workTree, name));
      }
      await fillWorkTree(this.#repository, place, signal);
      await this.#noteFilled(place);
      return true;
    } catch {
      return false;
    } finally {
      await this.#cleanup.removeOrQueue(spare.directory);
    }
  }

  async #noteFilled({ workTree, gitDir, commit }: CheckoutPlace): Promise<void> {
    const index = path.join(gitDir, 'index');
    const directory = path.dirname(workTree);
    // On Windows the time of change is something else.
    if ((await entriesIn(index)) < WORTH_KEEPING || process.platform === 'win32') return;
    const files = await lookAt(workTree);
    if (files === undefined) return;
    await copyFile(index, path.join(directory, INDEX));
    this.#filled.set(directory, { commit, files });
  }
}

/** Whoever works in the place has no reason to look for it, and what is in it is compared anyway. */
const INDEX = 'index';

/** How many files an index names; 0 when there is none. Source: gitformat-index(5). */
async function entriesIn(index: string): Promise<number> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(index);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(12), 0, 12, 0);
    return bytesRead === 12 ? buffer.readUInt32BE(8) : 0;
  } finally {
    await file.close();
  }
}

/**
 * All files and links of a work tree.
 * @returns undefined when there is something that git does not look at: pipes, directories that are not as we make them, a
 *   `.git` below the top
 */
async function lookAt(workTree: string): Promise<Written | undefined> {
  const { mode } = await lstat(path.dirname(workTree));
  const files = new Map<string, string>();
  const directories = [''];
  for (let below = directories.pop(); below !== undefined; below = directories.pop()) {
    const directory = path.join(workTree, below);
    if ((await lstat(directory)).mode !== mode) return undefined;
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      const name = path.join(below, entry.name);
      if (name === '.git') continue;
      // Beside tracked files git takes none for a repository, and would leave its directories.
      if (entry.name === '.git') return undefined;
      if (entry.isDirectory()) directories.push(name);
      else if (entry.isFile() || entry.isSymbolicLink()) {
        // A promise for each takes four times as long.
        const stat = lstatSync(path.join(workTree, name), { bigint: true });
        const { ino, size, nlink, mtimeNs, ctimeNs } = stat;
        files.set(name, `${ino} ${size} ${stat.mode} ${nlink} ${mtimeNs} ${ctimeNs}`);
      } else return undefined;
    }
  }
  return files;
}
