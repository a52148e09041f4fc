import { mkdirSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { fromFailure, StoppedError, TroupeError } from '../../protocol/errors.ts';
import { type FaultPoint, noFaults } from '../../protocol/fault-point.ts';
import { EMPTY_BATCH } from '../empty-batch.ts';
import type {
  AppTransaction,
  Batch,
  Claim,
  LeaseClaim,
  PruneSlice,
  SqlStatement,
  StepRecord,
  Store,
  StoredChunks,
  TextReplacement,
} from '../store.ts';
import { backUp } from './back-up.ts';
import { flattenBatch } from './batch-rows.ts';
import { isOpenHere, noteOpenFile } from './open-files.ts';
import { startThread } from './own-thread.ts';
import { acquireOwnerLock, type OwnerLock } from './owner-lock.ts';
import type { RowReader } from './row-reader.ts';
import type { SqliteConnection } from './sqlite-connection.ts';
import {
  type Call,
  type FromWriter,
  GATE,
  type ReadMethod,
  type Reply,
  type WriteMethod,
  type WriterData,
} from './writer-protocol.ts';

export interface SqliteStoreOptions {
  /** The database file; made if it does not exist, its directories too. `:memory:`: gone when it is closed. */
  readonly path: string;
  /**
   * What a resolved commit survives. `full`: a power cut. `normal`: the end of the process, also by
   * `kill -9`; a power cut may cost the last commits, never half of one. Default: `full`.
   */
  readonly durability?: 'full' | 'normal';
  /** How long a call waits for a lock that another program holds, in milliseconds. Default: 120 000. */
  readonly busyLimitMs?: number;
  /**
   * Take the store from an owner that seems to live but has shown no sign of it for 60 s: a process that is
   * stopped or hangs, or one on another machine. Should it go on, its writes are refused. Default: false.
   */
  readonly takeOver?: boolean;
  /** Told in words what works but should not stay so: a network file system, a lock held for 30 s. */
  readonly onWarning?: (message: string) => void;
  /**
   * Hit at `lock.created` or `lock.stolen` and, in the midst of the writer's work, at `store.before-begin`,
   * `store.mid-transaction`, `store.before-commit` and `store.after-commit`. The writer waits for each, so
   * leave it out where nothing is armed.
   */
  readonly faultPoint?: FaultPoint;
  /** @internal The file system's type number, as statfs gives it, for tests. */
  readonly fileSystemType?: number;
  /** @internal Told of every statement that SQLite executes, for tests. */
  readonly onStatement?: (sql: string) => void;
  /** @internal How long an owner may show no sign of life, for tests. */
  readonly ownerTtlMs?: number;
  /** @internal A directory of other schema files, for tests. */
  readonly schema?: URL;
}

export interface SqliteStore extends Store {
  /** The store's own id. It stays the same wherever the file is moved. */
  readonly id: string;
}

/**
 * Opens an SQLite store and becomes its one owner.
 *
 * All of SQLite runs on a thread of its own, so that the event loop never waits for a disk (figures:
 * bench/README.md). Calls are carried out in their order; commits that wait together share a flush. The
 * thread keeps the process alive while a call is pending, and not otherwise.
 *
 * A text with half of a surrogate pair is refused (ValidationError): SQLite could not give it back.
 * Crash: what was committed is there at the next opening; the lock is taken over by it.
 * @throws {LockConflictError} another process owns the store; the message names it
 * @throws {TroupeError} not a store, damaged, or of a newer version; the file was left as it is
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<SqliteStore> {
  const { faultPoint = noFaults } = options;
  const path = options.path === ':memory:' ? ':memory:' : realPath(options.path);
  const lock = path === ':memory:' ? undefined : acquireOwnerLock(`${path}.lock`, path, options);
  try {
    if (lock !== undefined)
      await Promise.resolve(faultPoint(lock.stolen ? 'lock.stolen' : 'lock.created'));
    return await WriterThread.start(path, lock, options);
  } catch (error) {
    lock?.release();
    throw error;
  }
}

/** Links resolved, so that one file has one lock whatever it is called. */
function realPath(path: string): string {
  const absolute = resolve(path);
  try {
    return realpathSync(absolute);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const directory = dirname(absolute);
  try {
    mkdirSync(directory, { recursive: true });
    return join(realpathSync(directory), basename(absolute));
  } catch (error) {
    throw new TroupeError(
      'unavailable',
      `Could not make the directory of the store ${absolute}: ${(error as Error).message}. Make it, or name another place.`,
      { cause: error },
    );
  }
}

/** The number of the call that has no message: the thread's start. */
const OPENING = 0;

interface PendingCall {
  readonly isCommit: boolean;
  // A method, so that a resolver of any type fits: the answer to a call has the type of that call.
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** The store as its callers see it: it puts calls into words and matches the answers. */
class WriterThread implements SqliteStore {
  readonly name: string;
  #id = '';
  readonly #worker: Worker;
  readonly #lock: OwnerLock | undefined;
  readonly #faultPoint: FaultPoint;
  readonly #gate: Int32Array | undefined;
  readonly #onWarning: (message: string) => void;
  readonly #onStatement: ((sql: string) => void) | undefined;
  readonly #forgetFile: () => void;
  readonly #pending = new Map<number, PendingCall>();
  #calls = 0;
  /** Commits that failed so far; the writer refuses what was sent before the caller could know. */
  #epoch = 0;
  /** What a fault point threw; the call it was in is rejected with it. */
  #injected: Error | undefined;
  /** Backups that are being written. */
  readonly #copying = new Set<Promise<number>>();
  /** Why no call can be made any more. */
  #ended: TroupeError | undefined;
  #closing: Promise<void> | undefined;

  static async start(
    path: string,
    lock: OwnerLock | undefined,
    options: SqliteStoreOptions,
  ): Promise<WriterThread> {
    const store = new WriterThread(path, lock, options);
    try {
      store.#id = await new Promise<string>((resolve, reject) => {
        store.#pending.set(OPENING, { resolve, reject, isCommit: false });
      });
    } catch (error) {
      await store.#worker.terminate();
      store.#forgetFile();
      throw error;
    }
    return store;
  }

  private constructor(path: string, lock: OwnerLock | undefined, options: SqliteStoreOptions) {
    const { faultPoint = noFaults, onWarning = () => undefined } = options;
    this.name = path;
    this.#lock = lock;
    this.#faultPoint = faultPoint;
    this.#onWarning = onWarning;
    this.#onStatement = options.onStatement;
    const gate = faultPoint === noFaults ? undefined : new SharedArrayBuffer(4);
    this.#gate = gate === undefined ? undefined : new Int32Array(gate);
    const workerData: WriterData = {
      path,
      durability: options.durability ?? 'full',
      mayReadBytes: !isOpenHere(path),
      closedCleanly: lock?.stolen !== true,
      lock: lock?.file,
      busyLimitMs: options.busyLimitMs ?? 120_000,
      fileSystemType: options.fileSystemType,
      schema: options.schema?.href,
      tellsStatements: options.onStatement !== undefined,
      gate,
    };
    this.#forgetFile = path === ':memory:' ? () => undefined : noteOpenFile(path);
    this.#worker = startThread('sqlite-worker', 'troupe store writer', workerData);
    this.#worker.on('message', (message: FromWriter) => this.#receive(message));
    this.#worker.on('error', (error) => this.#writerEnded(error));
    this.#worker.on('exit', () => this.#writerEnded(undefined));
  }

  get id(): string {
    return this.#id;
  }

  commit(batch: Batch): Promise<void> {
    return this.#call((id) => [id, 'commit', flattenBatch(batch), this.#epoch], true);
  }

  async transact({ statements, step, packed }: AppTransaction): Promise<StepRecord> {
    const { scope, key } = step;
    const batch = { ...EMPTY_BATCH, steps: [step], ...(packed === undefined ? {} : { packed }) };
    const transaction = { statements, scope, key, flat: flattenBatch(batch) };
    const kept = await this.#call<StepRecord | undefined>((id) => [
      id,
      'transact',
      transaction,
      this.#epoch,
    ]);
    return kept ?? step;
  }

  applyAppSchema(statements: readonly string[]): Promise<void> {
    return this.#write('applyAppSchema', statements);
  }

  query({ sql, values }: SqlStatement) {
    return this.#read('query', { sql, values });
  }

  claimTasks(claim: Claim): Promise<readonly string[]> {
    const { run, agent, limit, token, except } = claim;
    const plain = { run, agent, limit, token };
    return this.#write('claimTasks', except === undefined ? plain : { ...plain, except });
  }

  acquireLease({ name, holder, now, ttlMs }: LeaseClaim) {
    return this.#write('acquireLease', { name, holder, now, ttlMs });
  }

  extendLease({ name, token, now, ttlMs }: Parameters<Store['extendLease']>[0]) {
    return this.#write('extendLease', { name, token, now, ttlMs });
  }

  releaseLease({ name, token }: Parameters<Store['releaseLease']>[0]) {
    return this.#write('releaseLease', { name, token });
  }

  listLeases(now: number) {
    return this.#read('listLeases', now);
  }

  assertOwner() {
    return this.#write('assertOwner');
  }

  prune(slice: PruneSlice) {
    return this.#write('prune', slice);
  }

  backup(path: string): Promise<number> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const copying = backUp(this.name, path);
    this.#copying.add(copying);
    const done = (): void => {
      this.#copying.delete(copying);
    };
    copying.then(done, done);
    return copying;
  }

  loadPending() {
    return this.#read('loadPending');
  }

  loadActors(addresses: readonly string[]) {
    return this.#read('loadActors', addresses);
  }

  loadSteps(scope: string) {
    return this.#read('loadSteps', scope);
  }

  loadChunks(lists: readonly string[]) {
    return this.#read('loadChunks', lists);
  }

  listTexts(...query: Parameters<RowReader['listTexts']>) {
    return this.#read('listTexts', ...query);
  }

  replaceTexts(texts: readonly TextReplacement[], packed: StoredChunks) {
    return this.#write('replaceTexts', texts, flattenBatch({ ...EMPTY_BATCH, packed }));
  }

  loadIdempotency(key: string) {
    return this.#read('loadIdempotency', key);
  }

  listActors(...filter: Parameters<RowReader['listActors']>) {
    return this.#read('listActors', ...filter);
  }

  listCheckpoints(...query: Parameters<RowReader['listCheckpoints']>) {
    return this.#read('listCheckpoints', ...query);
  }

  listCuts(run: string) {
    return this.#read('listCuts', run);
  }

  loadCut(id: string) {
    return this.#read('loadCut', id);
  }

  listDeadLetters() {
    return this.#read('listDeadLetters');
  }

  listTurns(query: Parameters<RowReader['listTurns']>[0]) {
    return this.#read('listTurns', query);
  }

  listAudit(query: Parameters<RowReader['listAudit']>[0]) {
    return this.#read('listAudit', query);
  }

  listRuns() {
    return this.#read('listRuns');
  }

  listTasks(...query: Parameters<RowReader['listTasks']>) {
    return this.#read('listTasks', ...query);
  }

  listAttempts(run: string, task: string) {
    return this.#read('listAttempts', run, task);
  }

  countTasks(run: string) {
    return this.#read('countTasks', run);
  }

  listStreams(...query: Parameters<RowReader['listStreams']>) {
    return this.#read('listStreams', ...query);
  }

  listStreamChunks(...query: Parameters<RowReader['listStreamChunks']>) {
    return this.#read('listStreamChunks', ...query);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const crashed = this.#ended !== undefined;
    try {
      if (!crashed) {
        const closed = this.#call<void>((id) => [id, 'close']);
        this.#ended = new StoppedError(`The store ${this.name} is closed.`);
        await Promise.allSettled(this.#copying);
        await closed;
      }
    } finally {
      await this.#worker.terminate();
      this.#forgetFile();
      this.#lock?.release();
    }
  }

  #read<M extends ReadMethod>(
    name: M,
    ...args: Parameters<RowReader[M]>
  ): Promise<ReturnType<RowReader[M]>> {
    return this.#call((id) => [id, 'read', name, args]);
  }

  #write<M extends WriteMethod>(
    name: M,
    ...args: Parameters<SqliteConnection[M]>
  ): Promise<ReturnType<SqliteConnection[M]>> {
    return this.#call((id) => [id, 'write', name, args] as Call);
  }

  #call<T>(describe: (id: number) => Call, isCommit = false): Promise<T> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise<T>((resolve, reject) => {
      const id = ++this.#calls;
      this.#worker.postMessage(describe(id));
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, { resolve, reject, isCommit });
    });
  }

  #receive(message: FromWriter): void {
    switch (message.type) {
      case 'opened':
        this.#settle([OPENING, null, message.id]);
        break;
      case 'refused':
        this.#settle([OPENING, message.failure]);
        break;
      case 'replies':
        for (const reply of message.replies) this.#settle(reply);
        break;
      case 'warning':
        this.#onWarning(message.message);
        break;
      case 'statement':
        this.#onStatement?.(message.sql);
        break;
      case 'point':
        void this.#passFaultPoint(message.name);
        break;
    }
    if (this.#pending.size === 0) this.#worker.unref();
  }

  #settle([id, failure, value]: Reply): void {
    const call = this.#pending.get(id);
    if (call === undefined) return;
    this.#pending.delete(id);
    if (failure === null) {
      call.resolve(value);
      return;
    }
    // A read or a transaction that is refused says nothing about the commits around it.
    if (call.isCommit) this.#epoch++;
    const injected = failure.context?.['fault'] === undefined ? undefined : this.#injected;
    call.reject(injected ?? fromFailure(failure));
  }

  /** The writer waits at the gate meanwhile: a point that kills or hangs does it in mid-transaction. */
  async #passFaultPoint(name: string): Promise<void> {
    const gate = this.#gate;
    if (gate === undefined) return;
    let outcome: number = GATE.goOn;
    try {
      await this.#faultPoint(name);
    } catch (error) {
      this.#injected = error instanceof Error ? error : new Error(String(error));
      outcome = GATE.fail;
    }
    Atomics.store(gate, 0, outcome);
    Atomics.notify(gate, 0);
  }

  #writerEnded(error: Error | undefined): void {
    this.#ended ??= new TroupeError(
      'internal',
      `The thread that writes the store ${this.name} ended unexpectedly${error === undefined ? '' : `: ${error.message}`}. Whether the commits that waited were stored is unknown: close the store, open it again and go on from what is stored.`,
      { retryable: false, ...(error === undefined ? {} : { cause: error }) },
    );
    const ended = this.#ended;
    for (const { reject } of this.#pending.values()) reject(ended);
    this.#pending.clear();
  }
}
