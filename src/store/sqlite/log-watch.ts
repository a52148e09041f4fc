import { statSync } from 'node:fs';
import type { Database } from 'better-sqlite3';
import { explain } from './sqlite-errors.ts';

/**
 * When the log is taken over into the file: at 16 MB, not at SQLite's own 4. A page that many commits change is written to
 * the file once each time, and the file is flushed.
 */
export const LOG_PAGES = 4_000;

/** Where the log of a writer that is not held up ends. */
export const LOG_LIMIT_BYTES = 64 * 2 ** 20;

/** So many flushes between two looks: a look is a system call of some microseconds. */
const LOOK_EVERY_FLUSHES = 64;

const MEGABYTE = 2 ** 20;

/**
 * Sees to it that a write-ahead log does not grow without a word.
 *
 * What is in the log can be taken over into the file only as far as no reader looks at something older. A reader that
 * never ends (a tool with an open transaction, a program that was stopped in the middle of a question) holds it up: the log then
 * grows with every commit, until the disk is full. Nobody but that reader can end that, so it is said, once each time.
 */
export class LogWatch {
  readonly #db: Database;
  readonly #path: string;
  readonly #warn: (message: string) => void;
  readonly #limitBytes: number;
  #flushes = 0;
  #warned = false;

  constructor(
    db: Database,
    path: string,
    warn: (message: string) => void,
    limitBytes: number = LOG_LIMIT_BYTES,
  ) {
    this.#db = db;
    this.#path = path;
    this.#warn = warn;
    this.#limitBytes = limitBytes;
  }

  /** To be called after each flush, outside of a transaction. What goes wrong here is no fault of a commit: it is said. */
  flushed(): void {
    if (++this.#flushes < LOOK_EVERY_FLUSHES) return;
    this.#flushes = 0;
    try {
      this.#look();
    } catch (error) {
      const doing = `take the log ${this.#path}-wal over into the store`;
      this.#warn(`${explain(error, doing).message} What was committed is in the log.`);
    }
  }

  #look(): void {
    const size = statSync(`${this.#path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    if (size < this.#limitBytes) {
      this.#warned = false;
      return;
    }
    // The file does not become smaller at once when its content has been taken over, so SQLite is asked.
    const held = this.#heldBytes();
    if (held < this.#limitBytes) this.#warned = false;
    else if (!this.#warned) this.#say(held);
  }

  /** What is in the log and cannot be taken over. Waits for nobody. */
  #heldBytes(): number {
    const [row] = this.#db.pragma('wal_checkpoint(PASSIVE)') as readonly {
      readonly log: number;
      readonly checkpointed: number;
    }[];
    const pageSize = Number(this.#db.pragma('page_size', { simple: true }));
    return row === undefined ? 0 : (row.log - row.checkpointed) * pageSize;
  }

  #say(held: number): void {
    this.#warned = true;
    this.#warn(
      `The log ${this.#path}-wal has grown to ${Math.round(held / MEGABYTE)} MB and cannot be taken over into the store: another program has been reading the store in one go all the while (a database tool with an open transaction, a program that stands still). End it: until then the log grows with every commit.`,
    );
  }
}
