import type { Database, Statement } from 'better-sqlite3';
import { LockConflictError, TroupeError } from '../../protocol/errors.ts';
import type {
  Claim,
  LeaseClaim,
  LeaseRow,
  Pruned,
  PruneSlice,
  StepRecord,
  TextReplacement,
} from '../store.ts';
import { AppTables } from './app-tables.ts';
import { BatchWriter, type FlatBatch } from './batch-rows.ts';
import { LeaseRows, takeEpoch } from './lease-rows.ts';
import { COUNT_COMMIT, COUNT_COMMIT_OF_EPOCH } from './migrations.ts';
import { Pruner } from './pruner.ts';
import { RowReader } from './row-reader.ts';
import { explain, leavesOutcomeUnknown } from './sqlite-errors.ts';
import { TextColumns } from './text-columns.ts';
import { compareFile, type WatchedFile, watchFile } from './watched-file.ts';
import type { FlatTransaction } from './writer-protocol.ts';

// Differs by necessity: a deferred transaction that reads first and writes later fails at once when another
// process has written meanwhile (SQLITE_BUSY_SNAPSHOT), whatever the timeout. All that write begin IMMEDIATE.
const BEGIN = 'BEGIN IMMEDIATE';
const COMMIT = 'COMMIT';
const ROLLBACK = 'ROLLBACK';
// Lists first: they give their chunks free. Not by the triggers that count: see 0002_chunks.sql.
const DELETE_UNUSED_LISTS = 'DELETE FROM chunk_lists WHERE refs = 0';
const DELETE_UNUSED_CHUNKS = 'DELETE FROM chunks WHERE refs = 0';
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

/** Apart, so that the usual claim does not pay for what it does not ask. */
const CLAIM_TASKS_EXCEPT = CLAIM_TASKS.replace(
  'AND claim_open = 0\n',
  `AND claim_open = 0 AND NOT EXISTS (
      SELECT 1 FROM json_each(:except)
      WHERE tasks.position >= value ->> 0 AND tasks.position < value ->> 1)\n`,
);

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
  readonly #claimTasks: Statement<[Omit<Claim, 'except'>], string>;
  readonly #claimTasksExcept: Statement<
    [Omit<Claim, 'except'> & { readonly except: string }],
    string
  >;
  readonly #control: Readonly<
    Record<
      | 'begin'
      | 'count'
      | 'deleteUnusedLists'
      | 'deleteUnusedChunks'
      | 'commit'
      | 'savepoint'
      | 'release',
      Statement
    >
  >;
  #texts: TextColumns | undefined;
  readonly #leases: LeaseRows;
  readonly #appTables: AppTables;
  readonly #pruner: Pruner;
  readonly #epoch: number;
  readonly #file: WatchedFile | undefined;
  readonly #lock: WatchedFile | undefined;
  /** A write-ahead log; else a rollback journal. */
  readonly #hasLog: boolean;
  #filesCheckedAt = performance.now();
  #commitsUnchecked = 0;
  #broken: TroupeError | undefined;

  /**
   * Becomes the owner: whoever was it before can write no more. Throws SQLITE_BUSY unexplained.
   * @param path of the file, or `:memory:`
   * @param lock whose loss ends the right to write
   */
  constructor(db: Database, path: string, lock?: WatchedFile) {
    this.#db = db;
    this.#path = path;
    this.#file = path === ':memory:' ? undefined : watchFile(path);
    this.#lock = lock;
    this.#hasLog = db.pragma('journal_mode', { simple: true }) === 'wal';
    this.#epoch = db
      .transaction(() => {
        db.exec(COUNT_COMMIT);
        return takeEpoch(db);
      })
      .immediate();
    this.#leases = new LeaseRows(db, this.#epoch);
    this.reader = new RowReader(db);
    this.#writer = new BatchWriter(db);
    this.#appTables = new AppTables(db);
    this.#pruner = new Pruner(db);
    this.#tasksOfToken = db.prepare<[string, string], string>(TASKS_OF_TOKEN).pluck();
    this.#claimTasks = db.prepare<[Omit<Claim, 'except'>], string>(CLAIM_TASKS).pluck();
    this.#claimTasksExcept = db
      .prepare<[Omit<Claim, 'except'> & { readonly except: string }], string>(CLAIM_TASKS_EXCEPT)
      .pluck();
    this.#control = {
      begin: db.prepare(BEGIN),
      count: db.prepare(COUNT_COMMIT_OF_EPOCH),
      deleteUnusedLists: db.prepare(DELETE_UNUSED_LISTS),
      deleteUnusedChunks: db.prepare(DELETE_UNUSED_CHUNKS),
      commit: db.prepare(COMMIT),
      savepoint: db.prepare(SAVEPOINT),
      release: db.prepare(RELEASE),
    };
  }

  /** @throws {TroupeError} this connection can no longer be trusted, or the file is gone */
  begin(): void {
    if (this.#broken === undefined) this.#checkFiles();
    if (this.#broken !== undefined) throw this.#broken;
    this.#control.begin.run();
    try {
      if (this.#control.count.run(this.#epoch).changes === 1) return;
    } catch (error) {
      // Left open, it would make every later write fail, and for a reason that is none.
      this.rollback();
      throw error;
    }
    this.rollback();
    this.#broken = new LockConflictError(
      `The store ${this.#path} takes no more writes from this process: while it stood still, another took the store over. Nothing of this write was stored; what was stored before counts. Stop this process, or open the store again when the other has ended.`,
      { retryable: false },
    );
    throw this.#broken;
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

  /**
   * Writes rows of the app and their step into the transaction. When it throws, nothing of them is there, and
   * everything before them is, unless `isOpen` says otherwise.
   * @param midway called between the rows and the step
   * @returns the step that was kept before, if one was: then nothing was written
   */
  transact(
    { statements, scope, key, flat }: FlatTransaction,
    midway: () => void,
  ): StepRecord | undefined {
    this.#control.savepoint.run();
    try {
      const kept = this.reader.loadStep(scope, key);
      if (kept === undefined) {
        this.#appTables.run(statements);
        midway();
        this.#writer.apply(flat, () => undefined);
      }
      this.#control.release.run();
      return kept;
    } catch (error) {
      if (this.#db.inTransaction) this.#db.exec(ROLLBACK_TO).exec(RELEASE);
      this.#noteFailure(error);
      throw explain(error, `store a step and its rows in ${this.#path}`);
    }
  }

  /** In a transaction of its own. Throws SQLITE_BUSY unexplained. */
  applyAppSchema(statements: readonly string[]): void {
    this.#alone(() => this.#appTables.applySchema(statements));
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
      this.#control.deleteUnusedLists.run();
      this.#control.deleteUnusedChunks.run();
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
    return this.#alone(() => {
      const before = this.#tasksOfToken.all(claim.run, claim.token);
      if (before.length === 0 && claim.limit > 0) {
        const { except, ...rest } = claim;
        if (except === undefined) this.#claimTasks.all(rest);
        else this.#claimTasksExcept.all({ ...rest, except: JSON.stringify(except) });
      }
      // RETURNING promises no order.
      return before.length > 0 ? before : this.#tasksOfToken.all(claim.run, claim.token);
    });
  }

  /** @param flat a batch with nothing but what the texts name */
  replaceTexts(texts: readonly TextReplacement[], flat: FlatBatch): number {
    return this.#alone(() => {
      this.#writer.apply(flat, () => undefined);
      this.#texts ??= new TextColumns(this.#db);
      return this.#texts.replace(texts);
    });
  }

  acquireLease(claim: LeaseClaim): { readonly acquired: boolean; readonly lease: LeaseRow } {
    return this.#alone(() => this.#leases.acquire(claim));
  }

  extendLease(lease: Parameters<LeaseRows['extend']>[0]): boolean {
    return this.#alone(() => this.#leases.extend(lease));
  }

  releaseLease(lease: Parameters<LeaseRows['release']>[0]): boolean {
    return this.#alone(() => this.#leases.release(lease));
  }

  /** Nothing, in a transaction that only the owner can begin. */
  assertOwner(): void {
    this.begin();
    this.rollback();
  }

  /** In a transaction of its own. Throws SQLITE_BUSY unexplained. */
  prune(slice: PruneSlice): Pruned {
    // Without a write-ahead log a power cut may damage the file when the flush is missing.
    // Source: https://sqlite.org/pragma.html#pragma_synchronous
    if (!this.#hasLog) return this.#alone(() => this.#pruner.prune(slice));
    // Not flushed: what a power cut brings back is removed again, and the next commit's flush is for both.
    const flushes = this.#db.pragma('synchronous', { simple: true });
    this.#db.pragma('synchronous = NORMAL');
    try {
      return this.#alone(() => this.#pruner.prune(slice));
    } finally {
      this.#db.pragma(`synchronous = ${String(flushes)}`);
    }
  }

  close(): void {
    try {
      this.rollback();
      if (this.#broken === undefined) this.#db.pragma('optimize');
    } catch {
      // Statistics for SQLite's planner: the next one to close gathers them. What was committed is there.
    } finally {
      this.#db.close();
    }
  }

  /** In a transaction of its own. Throws SQLITE_BUSY unexplained. */
  #alone<T>(write: () => T): T {
    this.begin();
    try {
      const result = write();
      this.commit();
      return result;
    } catch (error) {
      this.rollback();
      throw error;
    }
  }

  #noteFailure(error: unknown): void {
    if (!leavesOutcomeUnknown(error)) return;
    const { code, message } = error as Error & { code: string };
    this.#broken = unusable(
      `The store ${this.#path} takes no more writes: an earlier commit ended with a disk error (${code}: ${message}), and whether it was stored is unknown. Close the store and open it again: what is stored counts.`,
    );
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
      this.#broken = unusable(
        `The store ${this.#path} takes no more writes: the file was ${WORDS[found]} while it was open, and up to ${this.#commitsUnchecked} commits since the last check went into the old one. Stop, put the file back or restore a backup, then start again.`,
      );
    } else if (lock !== 'same') {
      this.#broken = unusable(
        `The store ${this.#path} takes no more writes: its lock ${this.#lock?.path} was ${WORDS[lock]}, so another process may own the store by now. Stop this one, then start again.`,
      );
    }
    this.#filesCheckedAt = now;
    this.#commitsUnchecked = 0;
  }
}

function unusable(message: string): TroupeError {
  return new TroupeError('unavailable', message, { retryable: false });
}
