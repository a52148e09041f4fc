import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import {
  ceilingEnvironment,
  makeGitDirectory,
  makeGitDirectoryBeside,
} from './borrowed-checkout.ts';
import { branchOf, type TaskName, taskPath } from './branch-name.ts';
import { CleanupQueue } from './cleanup-queue.ts';
import { type Collected, type CollectOptions, collectWork, salvageWork } from './collect.ts';
import { CommandCache } from './command-cache.ts';
import { removeCutOffWrites } from './durable-file.ts';
import { GitError } from './git.ts';
import { ensureIgnoredDirectory } from './ignored-directory.ts';
import { Mutex } from './mutex.ts';
import { PortPool } from './ports.ts';
import { directoriesIn, entriesIn, removeIfEmpty } from './real-directories.ts';
import { removeTreeBeside } from './remove-tree.ts';
import type { Repository } from './repository.ts';
import { SpareCheckouts } from './spare-checkouts.ts';
import type { Workspace } from './workspace.ts';

export interface WorkspacesOptions {
  readonly repository: Repository;
  /** `<project>/.troupe/workspaces`; `verify` and `kept` are made beside it. */
  readonly root: string;
  readonly faultPoint?: FaultPoint;
  /** Names of variables that each place gets a free port in. Default none. */
  readonly ports?: readonly string[];
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly now?: () => number;
}

export interface PrepareOptions extends TaskName {
  /** From 1. */
  readonly attempt: number;
  /** A submission to go on with, instead of the target as it stands. */
  readonly continueFrom?: string;
  readonly signal?: AbortSignal;
}

/** What `reap` did. */
export interface Reaped {
  /** Workspaces that are gone, as `<run>/<task>` (slugs). */
  readonly removed: readonly string[];
  /** Refs under which unsubmitted work is kept. */
  readonly salvaged: readonly string[];
  /** Directories whose work no ref can hold; they were moved here and never get deleted. */
  readonly kept: readonly string[];
  /** What could not be dealt with now, and why. */
  readonly left: readonly { readonly directory: string; readonly reason: string }[];
}

/**
 * The places where agents work: one per task, each a checkout of its own that borrows the objects of the user's
 * repository. Below the root, for each task: `work/` the agent's directory, `git/` our git directory for it,
 * `workspace.json` what it is.
 *
 * A place is built under `.new/` and renamed, and renamed to `.trash/` before it is deleted; so what has its final
 * name is complete.
 * Crash: `reap` and the next `prepare` deal with what is left; work that nobody has submitted is kept as a ref.
 */
export class Workspaces {
  readonly repository: Repository;
  readonly root: string;
  /** `<project>/.troupe`. */
  readonly stateDirectory: string;
  readonly cleanup: CleanupQueue;
  readonly spares: SpareCheckouts;
  readonly cache: CommandCache;
  readonly ports: PortPool;
  readonly #faultPoint: FaultPoint;
  readonly #removals = new Set<Promise<unknown>>();
  #pruning: Promise<unknown> = Promise.resolve();
  /** By place: an attempt that was called off may still be at it when the next one begins. */
  readonly #placesInUse = new Map<string, Mutex>();

  constructor(options: WorkspacesOptions) {
    this.repository = options.repository;
    this.root = path.resolve(options.root);
    this.stateDirectory = path.dirname(this.root);
    this.#faultPoint = options.faultPoint ?? noFaults;
    this.cleanup = new CleanupQueue({
      file: path.join(this.root, '.cleanup-queue.json'),
      root: this.stateDirectory,
      faultPoint: this.#faultPoint,
      remove: (target) => removeTreeBeside(this.repository.git.processes.launcher, target),
      ...(options.now === undefined ? {} : { now: options.now }),
    });
    this.spares = new SpareCheckouts({
      repository: this.repository,
      root: path.join(this.root, '.spare'),
      cleanup: this.cleanup,
    });
    this.ports = new PortPool(options.ports ?? []);
    this.cache = new CommandCache({
      varying: this.ports.names,
      root: path.join(this.stateDirectory, 'cache'),
      processes: this.repository.processes,
      cleanup: this.cleanup,
    });
  }

  /**
   * Makes a fresh place for an attempt. What an earlier attempt left there is salvaged and replaced.
   * @throws {GitError} the disk is full, git is missing, …
   * @throws the signal's reason: it was called off before the place had its name
   */
  async prepare(options: PrepareOptions): Promise<Workspace> {
    return await this.#alone(this.#placeOf(options), () => this.#prepare(options));
  }

  async #prepare(options: PrepareOptions): Promise<Workspace> {
    const { run, task, attempt, signal } = options;
    signal?.throwIfAborted();
    await ensureIgnoredDirectory(this.root);
    const existing = this.#placeOf(options);
    if (existsSync(existing)) await this.#retire(options);
    const head = await this.repository.targetHead();
    const commit = options.continueFrom ?? head;
    const base =
      commit === head
        ? head
        : await this.repository.text(['merge-base', '--end-of-options', head, commit]);
    await this.#faultPoint('workspace.before-clone');
    const fresh = path.join(this.root, '.new', randomUUID());
    const workspace = {
      ...this.#describe({ run, task }, { attempt, base }),
      ...(options.continueFrom === undefined ? {} : { from: commit }),
    };
    const place = { gitDir: path.join(fresh, 'git'), workTree: path.join(fresh, 'work'), commit };
    try {
      const { repository } = this;
      const { branch } = workspace;
      const objects = [path.join(workspace.directory, '.git', 'objects')];
      const { gitDir } = place;
      const checkout = { repository, branch, commit, base, objects };
      await this.spares.fill(place, () => makeGitDirectory({ ...checkout, gitDir }), signal);
      const own = path.join(place.workTree, '.git');
      await makeGitDirectoryBeside(gitDir, { ...checkout, gitDir: own });
      await writeFile(
        path.join(fresh, RECORD),
        JSON.stringify({ run, task, attempt, base } satisfies WorkspaceRecord),
      );
      await mkdir(path.dirname(existing), { recursive: true });
      signal?.throwIfAborted();
      await rename(fresh, existing);
      this.spares.moved(fresh, existing);
    } catch (error) {
      await this.cleanup.removeOrQueue(fresh);
      throw error;
    }
    await this.#faultPoint('workspace.after-clone');
    const ports = await this.ports.take(existing);
    return { ...workspace, env: { ...workspace.env, ...ports } };
  }

  /** The place of a task as the last `prepare` made it: after a crash its work can still be collected. */
  async find(name: TaskName): Promise<Workspace | undefined> {
    const record = await readRecord(path.join(this.#placeOf(name), RECORD));
    return record === undefined ? undefined : this.#describe(record, record);
  }

  /** Submits what is in a workspace; see `collectWork`. */
  async collect(options: Omit<CollectOptions, 'faultPoint'>): Promise<Collected> {
    return await collectWork(this.repository, { ...options, faultPoint: this.#faultPoint });
  }

  /** Keeps what an attempt has left, committed or not; see `salvageWork`. */
  async salvage(workspace: Workspace): Promise<string | undefined> {
    return await salvageWork(this.repository, workspace);
  }

  /** Removes a task's place, and its branch if asked. What cannot be deleted now is queued. */
  async release(
    options: TaskName & { readonly deleteBranch?: boolean; readonly signal?: AbortSignal },
  ): Promise<{ readonly deleted: boolean }> {
    const place = this.#placeOf(options);
    const deleted = await this.#alone(place, async () => {
      options.signal?.throwIfAborted();
      this.ports.release(place);
      return !existsSync(place) || (await this.#discard(place));
    });
    if (options.deleteBranch === true) {
      const ref = `refs/heads/${branchOf(options)}`;
      await this.repository.exclusive(() =>
        this.repository.run(['update-ref', '-d', '--end-of-options', ref]),
      );
    }
    return { deleted };
  }

  /**
   * Lets a removal go on beside other work; `settled` waits for it. Nobody's result depends on it: what it cannot
   * remove is queued, or found by the next one; what it cannot even queue (a full disk) the next `reap` finds.
   */
  removeMeanwhile(removal: Promise<unknown>): void {
    const settled = removal
      .catch(() => undefined)
      .finally(() => {
        this.#removals.delete(settled);
      });
    this.#removals.add(settled);
  }

  /** One at a time, waited for by `close`. */
  pruneInTurn<T>(prune: (cleanup: CleanupQueue) => Promise<T>): Promise<T> {
    const result = this.#pruning.then(() => prune(this.cleanup));
    this.#pruning = result.catch(() => undefined);
    return result;
  }

  /** Removes a place where a commit was verified, or keeps it for the next one. */
  async discard(place: string): Promise<void> {
    if (!(await this.spares.keep(place))) await this.cleanup.removeOrQueue(place);
  }

  /** Waits until the removals that are under way have ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#removals);
  }

  /** For when all work is over: nothing of ours that is not needed stays. */
  async close(): Promise<void> {
    await this.settled();
    await this.#pruning;
    await this.spares.clear();
  }

  /**
   * Removes what a crash or an ended task has left: half-made places, places of tasks that are not in `live`,
   * old verification directories, files that were not written to their end, and what the queue holds. Links are not followed, and
   * what lies where a run's directory would is left alone. Call it at start-up, before anything runs.
   */
  async reap(live: readonly TaskName[]): Promise<Reaped> {
    await ensureIgnoredDirectory(this.root);
    const removed: string[] = [];
    const salvaged: string[] = [];
    const kept: string[] = [];
    const left: { directory: string; reason: string }[] = [];
    const scratch = [
      path.join(this.root, '.new'),
      path.join(this.root, '.trash'),
      path.join(this.root, '.spare'),
      path.join(this.stateDirectory, 'verify'),
    ];
    for (const directory of scratch) {
      for (const { name } of await entriesIn(directory)) {
        if (name !== '.gitignore') await this.cleanup.removeOrQueue(path.join(directory, name));
      }
    }
    await this.cache.reap();
    await removeCutOffWrites(path.join(this.stateDirectory, 'tasks'), { recursive: true });
    await removeCutOffWrites(path.join(this.stateDirectory, 'verified-trees'), { recursive: true });
    // Not below it: there lie the agents' own files.
    await removeCutOffWrites(this.root, { recursive: false });
    const living = new Set(live.map(taskPath));
    const runs = (await directoriesIn(this.root)).filter((name) => !name.startsWith('.')); // ours: no slug begins with a dot
    for (const run of runs) {
      for (const entry of await entriesIn(path.join(this.root, run))) {
        const name = `${run}/${entry.name}`;
        if (living.has(name)) continue;
        const directory = path.join(this.root, run, entry.name);
        try {
          const outcome = entry.isDirectory()
            ? await this.#retirePlace(directory)
            : { kept: await this.#keep(directory) };
          if (outcome.salvaged !== undefined) salvaged.push(outcome.salvaged);
          if (outcome.kept === undefined) removed.push(name);
          else kept.push(outcome.kept);
        } catch (error) {
          left.push({ directory, reason: error instanceof Error ? error.message : String(error) });
        }
      }
      await removeIfEmpty(path.join(this.root, run));
    }
    await this.cleanup.drain();
    return { removed, salvaged, kept, left };
  }

  /** What is done to one place is done one after the other. */
  async #alone<T>(place: string, work: () => Promise<T>): Promise<T> {
    const mutex = this.#placesInUse.get(place) ?? new Mutex();
    this.#placesInUse.set(place, mutex);
    try {
      return await mutex.run(work);
    } finally {
      if (mutex.isFree) this.#placesInUse.delete(place);
    }
  }

  async #retire(name: TaskName): Promise<void> {
    await this.#retirePlace(this.#placeOf(name));
  }

  /** Takes a place out of the way without losing work. */
  async #retirePlace(
    place: string,
  ): Promise<{ readonly salvaged?: string; readonly kept?: string }> {
    const record = await readRecord(path.join(place, RECORD));
    // A place is complete when it gets its name, so its record was damaged later: the work may be good.
    if (record === undefined) return { kept: await this.#keep(place) };
    let salvaged: string | undefined;
    try {
      salvaged = await salvageWork(this.repository, this.#describe(record, record));
    } catch (error) {
      // A full disk or a lock passes; then nothing is moved and the next try finds it again.
      if (error instanceof GitError && error.infrastructure) throw error;
      return { kept: await this.#keep(place) };
    }
    await this.#discard(place);
    return salvaged === undefined ? {} : { salvaged };
  }

  async #discard(place: string): Promise<boolean> {
    if (await this.spares.keep(place)) return true;
    const trash = path.join(this.root, '.trash', randomUUID());
    await mkdir(path.dirname(trash), { recursive: true });
    await rename(place, trash);
    return await this.cleanup.removeOrQueue(trash);
  }

  async #keep(place: string): Promise<string> {
    const keptRoot = path.join(this.stateDirectory, 'kept');
    await ensureIgnoredDirectory(keptRoot);
    const [task, run] = [path.basename(place), path.basename(path.dirname(place))];
    const kept = path.join(keptRoot, `${run}-${task}-${randomUUID().slice(0, 8)}`);
    await rename(place, kept);
    return kept;
  }

  #placeOf(name: TaskName): string {
    return path.join(this.root, taskPath(name));
  }

  #describe(
    { run, task }: TaskName,
    { attempt, base }: Pick<Workspace, 'attempt' | 'base'>,
  ): Workspace {
    const place = this.#placeOf({ run, task });
    const directory = path.join(place, 'work');
    return {
      run,
      task,
      attempt,
      base,
      directory,
      branch: branchOf({ run, task }),
      gitDir: path.join(place, 'git'),
      env: { ...ceilingEnvironment(directory), ...this.ports.of(place) },
    };
  }
}

const RECORD = 'workspace.json';

interface WorkspaceRecord extends TaskName {
  readonly attempt: number;
  readonly base: string;
}

async function readRecord(file: string): Promise<WorkspaceRecord | undefined> {
  let record: Partial<WorkspaceRecord> | null;
  try {
    record = JSON.parse(await readFile(file, 'utf8')) as Partial<WorkspaceRecord> | null;
  } catch {
    return undefined; // none, or damaged: what it described cannot be known
  }
  const wellFormed =
    typeof record === 'object' &&
    record !== null &&
    typeof record.run === 'string' &&
    typeof record.task === 'string' &&
    Number.isSafeInteger(record.attempt) &&
    typeof record.base === 'string' &&
    /^[0-9a-f]{40,64}$/.test(record.base);
  return wellFormed ? (record as WorkspaceRecord) : undefined;
}
