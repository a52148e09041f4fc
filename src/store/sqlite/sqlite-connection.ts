import type { Database, Statement } from 'better-sqlite3';
import { TroupeError } from '../../protocol/errors.ts';
import type { Claim } from '../store.ts';
import { BatchWriter, type FlatBatch } from './batch-rows.ts';
import { COUNT_COMMIT } from './migrations.ts';
import { RowReader } from './row-reader.ts';
import { explain, leavesOutcomeUnknown } from './sqlite-errors.ts';
import { compareFile, type WatchedFile, watchFile } from './watched-file.ts';

// Differs by necessity: a deferred transaction that reads first and writes later fails at once when another
// process has written meanwhile (SQLITE_BUSY_SNAPSHOT), whatever the timeout. All that write begin IMMEDIATE.
const BEGIN = 'BEGIN IMMEDIATE';
const COMMIT = 'COMMIT';
const ROLLBACK = 'ROLLBACK';
const SAVEPOINT = 'SAVEPOINT one_batch';
const RELEASE = 'RELEASE one_batch';
const ROLLBACK_TO = 'ROLLBACK TO one_batch';

const TASKS_OF_TOKEN = `
SELECT task FROM tasks WHERE run = ? AND claim_token = ?
ORDER BY priority DESC, unblocks DESC, position, task`;

// `state = 'ready' AND claim_open = 0` word for word as in the partial index, which is thereby used.
const CLAIM_TASKS = `
UPDATE tasks SET claim_token = :token, claim_open = 1
WHERE run = :run AND task IN (
  SELECT task FROM tasks
  WHERE run = :run AND agent = :agent AND state = 'ready' AND claim_open = 0
  ORDER BY priority DESC, unblocks DESC, position, task LIMIT :limit)
RETURNING task`;

/** The check that the open file is still the one at its path is at most this old, in time or in commits. */
const CHECK_FILES_EVERY_MS = 60_000;
const CHECK_FILES_EVERY_COMMITS = 1000;

const WORDS = { gone: 'deleted or moved', replaced: 'replaced by another file' } as const;

/**
 * One connection that writes: the whole SQLite side of a store, synchronously. Whoever drives it decides on
 * which thread, how to wait for locks and how many batches share a flush.
 *
 *     begin() → apply()* → commit(), or rollback()
 *
 * `begin` and `commit` throw SQLITE_BUSY unexplained, so that the caller can try them again.
 */
export class SqliteConnection {
  readonly reader: RowReader;
  readonly #db: Database;
  readonly #path: string;
  readonly #writer: BatchWriter;
  readonly #tasksOfToken: Statement<[string, string], string>;
  readonly #claimTasks: Statement<[Claim], string>;
  readonly #control: Readonly<
    Record<'begin' | 'count' | 'commit' | 'savepoint' | 'release', Statement>
  >;
  readonly #file: WatchedFile | undefined;
  readonly #lock: WatchedFile | undefined;
  #filesCheckedAt = performance.now();
  #commitsUnchecked = 0;
  #broken: string | undefined;

  /**
   * @param path of the file, or `:memory:`
   * @param lock whose loss ends the right to write
   */
  constructor(db: Database, path: string, lock?: WatchedFile) {
    this.#db = db;
    this.#path = path;
    this.#file = path === ':memory:' ? undefined : watchFile(path);
    this.#lock = lock;
    this.reader = new RowReader(db);
    this.#writer = new BatchWriter(db);
    this.#tasksOfToken = db.prepare<[string, string], string>(TASKS_OF_TOKEN).pluck();
    this.#claimTasks = db.prepare<[Claim], string>(CLAIM_TASKS).pluck();
    this.#control = {
      begin: db.prepare(BEGIN),
      count: db.prepare(COUNT_COMMIT),
      commit: db.prepare(COMMIT),
      savepoint: db.prepare(SAVEPOINT),
      release: db.prepare(RELEASE),
    };
  }

  /** @throws {TroupeError} this connection can no longer be trusted, or the file is gone */
  begin(): void {
    if (this.#broken === undefined) this.#checkFiles();
    if (this.#broken !== undefined) {
      throw new TroupeError('unavailable', this.#broken, { retryable: false });
    }
    this.#control.begin.run();
    this.#control.count.run();
  }

  /**
   * Writes one batch into the transaction. When it throws, what was applied before it is still there, unless
   * `isOpen` says that SQLite has given up the whole transaction.
   * @param midway called in the middle of the batch
   */
  apply(flat: FlatBatch, midway: () => void): void {
    this.#control.savepoint.run();
    try {
      this.#writer.apply(flat, midway);
      this.#control.release.run();
    } catch (error) {
      if (this.#db.inTransaction) this.#db.exec(ROLLBACK_TO).exec(RELEASE);
      this.#noteFailure(error);
      throw explain(error, `store a commit in ${this.#path}`);
    }
  }

  get isOpen(): boolean {
    return this.#db.inTransaction;
  }

  /**
   * Crash: once this returns, the batches survive a kill, and with `durability: 'full'` also a power cut.
   * When it throws an I/O error nobody knows whether they do, and the connection takes no more writes.
   */
  commit(): void {
    try {
      this.#control.commit.run();
      this.#commitsUnchecked++;
    } catch (error) {
      this.#noteFailure(error);
      throw error;
    }
  }

  rollback(): void {
    if (this.#db.inTransaction) this.#db.exec(ROLLBACK);
  }

  /** In a transaction of its own. Throws SQLITE_BUSY unexplained. */
  claimTasks(claim: Claim): readonly string[] {
    this.begin();
    try {
      const before = this.#tasksOfToken.all(claim.run, claim.token);
      if (before.length === 0 && claim.limit > 0) this.#claimTasks.all(claim);
      // RETURNING promises no order.
      const claimed = before.length > 0 ? before : this.#tasksOfToken.all(claim.run, claim.token);
      this.commit();
      return claimed;
    } catch (error) {
      this.rollback();
      throw error;
    }
  }

  close(): void {
    try {
      this.rollback();
      if (this.#broken === undefined) this.#db.pragma('optimize');
    } finally {
      this.#db.close();
    }
  }

  #noteFailure(error: unknown): void {
    if (!leavesOutcomeUnknown(error)) return;
    this.#broken = `The store ${this.#path} takes no more writes: an earlier commit ended with a disk error (${(error as Error).message}), and whether it was stored is unknown. Close the store and open it again: what is stored counts.`;
  }

  /** By stat only: to open the file here would drop SQLite's locks. */
  #checkFiles(): void {
    const now = performance.now();
    const due =
      this.#commitsUnchecked >= CHECK_FILES_EVERY_COMMITS ||
      now - this.#filesCheckedAt >= CHECK_FILES_EVERY_MS;
    if (!due || this.#file === undefined) return;
    const found = compareFile(this.#file);
    const lock = this.#lock === undefined ? 'same' : compareFile(this.#lock);
    if (found !== 'same') {
      this.#broken = `The store ${this.#path} takes no more writes: the file was ${WORDS[found]} while it was open, and up to ${this.#commitsUnchecked} commits since the last check went into the old one. Stop, put the file back or restore a backup, then start again.`;
    } else if (lock !== 'same') {
      this.#broken = `The store ${this.#path} takes no more writes: its lock ${this.#lock?.path} was ${WORDS[lock]}, so another process may own the store by now. Stop this one, then start again.`;
    }
    this.#filesCheckedAt = now;
    this.#commitsUnchecked = 0;
  }
}
