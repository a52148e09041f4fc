import { readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import { writeDurably } from './durable-file.ts';
import { removeTree } from './remove-tree.ts';

export interface CleanupQueueOptions {
  /** The queue's file. */
  readonly file: string;
  /** Only what lies below it is ever removed, whatever the file says. */
  readonly root: string;
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly now?: () => number;
  readonly faultPoint?: FaultPoint;
  /** Removes a file or a directory with all that is in it. Default `removeTree`. */
  readonly remove?: (target: string) => Promise<void>;
}

/** One thing that could not be removed yet. */
export interface CleanupEntry {
  /** Relative to the root. */
  readonly path: string;
  readonly failures: number;
  readonly notBeforeMs: number;
  readonly lastError: string;
}

/**
 * Remembers on disk what could not be removed (a file in use, no permission), and tries again after
 * min(600, 5·2ⁿ) seconds. One entry per path.
 * Crash: an entry stays until its thing is gone; a queue file that cannot be read is put aside as `*.corrupt` and the
 * queue starts empty, since `Workspaces.reap` finds leftovers again.
 */
export class CleanupQueue {
  readonly #options: CleanupQueueOptions;
  readonly #now: () => number;
  readonly #remove: (target: string) => Promise<void>;
  readonly #faultPoint: FaultPoint;
  #entries: Map<string, CleanupEntry> | undefined;
  #working: Promise<unknown> = Promise.resolve();

  constructor(options: CleanupQueueOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#remove = options.remove ?? removeTree;
    this.#faultPoint = options.faultPoint ?? noFaults;
  }

  /**
   * Removes something now, or else puts it into the queue.
   * @returns whether it is gone
   * @throws {RangeError} it does not lie below the root
   */
  removeOrQueue(target: string): Promise<boolean> {
    const relative = path.relative(this.#options.root, target);
    if (!isBelow(relative)) {
      throw new RangeError(`Expected a path below ${this.#options.root}, got ${target}`);
    }
    return this.#inTurn(async (entries) => {
      const gone = await this.#attempt(entries, relative);
      const changed = gone ? entries.delete(relative) : true;
      if (changed) await this.#save(entries);
      await this.#faultPoint(gone ? 'cleanup.deleted' : 'cleanup.queued');
      return gone;
    });
  }

  /** Tries again what is due. @returns what is gone now, and what still waits */
  drain(): Promise<{
    readonly removed: readonly string[];
    readonly waiting: readonly CleanupEntry[];
  }> {
    return this.#inTurn(async (entries) => {
      const removed: string[] = [];
      const due = [...entries.values()].filter(({ notBeforeMs }) => notBeforeMs <= this.#now());
      for (const entry of due) {
        if (!(await this.#attempt(entries, entry.path))) continue;
        entries.delete(entry.path);
        removed.push(entry.path);
      }
      if (due.length > 0) await this.#save(entries);
      for (const _ of removed) await this.#faultPoint('cleanup.deleted');
      return { removed, waiting: [...entries.values()] };
    });
  }

  /** When the next entry is due, in milliseconds since 1970; undefined when the queue is empty. */
  nextDueMs(): Promise<number | undefined> {
    return this.#inTurn(async (entries) => {
      const due = [...entries.values()].map(({ notBeforeMs }) => notBeforeMs);
      return due.length === 0 ? undefined : Math.min(...due);
    });
  }

  async #attempt(entries: Map<string, CleanupEntry>, relative: string): Promise<boolean> {
    try {
      await this.#remove(path.join(this.#options.root, relative));
      return true;
    } catch (error) {
      const failures = (entries.get(relative)?.failures ?? 0) + 1;
      entries.set(relative, {
        path: relative,
        failures,
        notBeforeMs: this.#now() + cleanupDelayMs(failures),
        lastError: error instanceof Error ? error.message : String(error),
      });
      return false;
    }
  }

  #inTurn<T>(work: (entries: Map<string, CleanupEntry>) => Promise<T>): Promise<T> {
    const result = this.#working.then(async () => {
      this.#entries ??= await this.#load();
      return await work(this.#entries);
    });
    this.#working = result.catch(() => undefined);
    return result;
  }

  async #load(): Promise<Map<string, CleanupEntry>> {
    const text = await readIfThere(this.#options.file);
    if (text === undefined) return new Map();
    const entries = parseEntries(text);
    if (entries === undefined) {
      await rename(this.#options.file, `${this.#options.file}.corrupt`);
      return new Map();
    }
    // A clock that was wrong once must not keep an entry waiting for years.
    const latest = this.#now() + MAX_DELAY_MS;
    return new Map(
      entries.map((entry) => [
        entry.path,
        { ...entry, notBeforeMs: Math.min(entry.notBeforeMs, latest) },
      ]),
    );
  }

  async #save(entries: ReadonlyMap<string, CleanupEntry>): Promise<void> {
    await writeDurably(this.#options.file, `${JSON.stringify([...entries.values()], null, 2)}\n`);
  }
}

/**
 * What waits in a queue that another process may be working on: it is only read.
 * @returns undefined when the file cannot be understood
 */
export async function readCleanupQueue(file: string): Promise<readonly CleanupEntry[] | undefined> {
  const text = await readIfThere(file);
  return text === undefined ? [] : parseEntries(text);
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

const MAX_DELAY_MS = 600_000;

/** The wait after the n-th failure, n ≥ 1: min(600, 5·2ⁿ) seconds. */
export function cleanupDelayMs(failures: number): number {
  return Math.min(MAX_DELAY_MS, 5000 * 2 ** failures);
}

function isBelow(relative: string): boolean {
  return (
    relative !== '' &&
    relative !== '..' &&
    !relative.startsWith(`..${path.sep}`) &&
    !path.isAbsolute(relative)
  );
}

function parseEntries(text: string): CleanupEntry[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  const wellFormed = value.every(
    (entry: Partial<CleanupEntry> | null) =>
      typeof entry === 'object' &&
      entry !== null &&
      typeof entry.path === 'string' &&
      // Also against `a/../../x`: only what path.relative could have given.
      path.normalize(entry.path) === entry.path &&
      isBelow(entry.path) &&
      Number.isSafeInteger(entry.failures) &&
      typeof entry.notBeforeMs === 'number' &&
      typeof entry.lastError === 'string',
  );
  return wellFormed ? (value as CleanupEntry[]) : undefined;
}
