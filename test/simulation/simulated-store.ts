import { TroupeError } from '../../src/protocol/errors.ts';
import type { MemoryData } from '../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import type {
  Batch,
  CheckpointRange,
  Claim,
  Pending,
  Store,
  TaskFilter,
} from '../../src/store/store.ts';

/** Bugs that a test plants: what is written, or read at the start, is not what it should be. */
export interface Tampering {
  readonly commit?: (batch: Batch) => Batch;
  readonly pending?: (pending: Pending) => Pending;
}

interface Operation {
  readonly name: string;
  readonly mayFail: boolean;
  readonly batch: Batch | undefined;
  readonly execute: () => Promise<unknown>;
  readonly settle: (answer: Promise<unknown>) => void;
}

/** What the world does to the store: asked once for each operation that is carried out. */
export interface DiskFaults {
  /** `unstored`: it fails; `stored`: it is carried out, and its answer is an error. */
  commit(): 'unstored' | 'stored' | undefined;
  read(): 'unstored' | false;
}

/**
 * One process's hold on a simulated disk. Calls are carried out one by one, in their order, and answered in their
 * order, but only when the world says so: a crash finds some of them not carried out, and some carried out and not
 * answered.
 */
export class SimulatedStore implements Store {
  readonly name = 'the simulated disk';
  readonly #inner: MemoryStore;
  readonly #faults: DiskFaults;
  readonly #tampering: Tampering;
  #waiting: Operation[] = [];
  #carriedOut: { readonly operation: Operation; readonly answer: Promise<unknown> }[] = [];
  #broken = false;
  #dead = false;

  constructor(disk: MemoryData, faults: DiskFaults, tampering: Tampering) {
    this.#inner = new MemoryStore(disk);
    this.#faults = faults;
    this.#tampering = tampering;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get unanswered(): number {
    return this.#carriedOut.length;
  }

  /** Carries out the oldest call. Returns what it was, and the batch that is stored now. */
  carryOut(): { readonly name: string; readonly stored: Batch | undefined } {
    const operation = this.#waiting.shift();
    if (operation === undefined) throw new Error('Nothing waits to be carried out.');
    const { name, batch, mayFail } = operation;
    const fault = batch === undefined ? mayFail && this.#faults.read() : this.#faults.commit();
    const refused = batch !== undefined && this.#broken;
    if ((fault === 'stored' || fault === 'unstored') && batch !== undefined) this.#broken = true;
    if (refused || fault === 'unstored') {
      this.#carriedOut.push({ operation, answer: failed(name) });
      return { name: `${name} fails`, stored: undefined };
    }
    const answer = operation.execute();
    if (fault === 'stored') {
      answer.catch(() => undefined);
      this.#carriedOut.push({ operation, answer: failed(name) });
      return { name: `${name} is stored and reported as failed`, stored: batch };
    }
    this.#carriedOut.push({ operation, answer });
    return { name, stored: batch };
  }

  /** Answers the oldest call that was carried out. */
  answer(): string {
    const next = this.#carriedOut.shift();
    if (next === undefined) throw new Error('Nothing waits for its answer.');
    next.operation.settle(next.answer);
    return next.operation.name;
  }

  /** The process has died: nothing of it reaches the disk any more, and nobody hears an answer. */
  kill(): void {
    this.#dead = true;
    this.#waiting = [];
    for (const { answer } of this.#carriedOut) answer.catch(() => undefined);
    this.#carriedOut = [];
  }

  commit(batch: Batch): Promise<void> {
    return this.#submit('commit', batch, () =>
      this.#inner.commit(this.#tampering.commit?.(batch) ?? batch),
    );
  }

  loadPending(): Promise<Pending> {
    return this.#submit('loadPending', undefined, async () => {
      const pending = await this.#inner.loadPending();
      return this.#tampering.pending?.(pending) ?? pending;
    });
  }

  loadIdempotency(key: string) {
    return this.#submit('loadIdempotency', undefined, () => this.#inner.loadIdempotency(key));
  }
  transact() {
    return this.#submit('transact', undefined, () => this.#inner.transact());
  }
  applyAppSchema() {
    return this.#submit('applyAppSchema', undefined, () => this.#inner.applyAppSchema());
  }
  query() {
    return this.#submit('query', undefined, () => this.#inner.query());
  }
  claimTasks(claim: Claim) {
    return this.#submit('claimTasks', undefined, () => this.#inner.claimTasks(claim));
  }
  loadActors(addresses: readonly string[]) {
    return this.#submit('loadActors', undefined, () => this.#inner.loadActors(addresses));
  }
  loadSteps(scope: string) {
    return this.#submit('loadSteps', undefined, () => this.#inner.loadSteps(scope));
  }
  loadChunks(lists: readonly string[]) {
    return this.#submit('loadChunks', undefined, () => this.#inner.loadChunks(lists));
  }
  listActors(filter?: Parameters<Store['listActors']>[0]) {
    return this.#submit('listActors', undefined, () => this.#inner.listActors(filter));
  }
  listCheckpoints(address: string, range?: CheckpointRange) {
    return this.#submit('listCheckpoints', undefined, () =>
      this.#inner.listCheckpoints(address, range),
    );
  }
  listCuts(run: string) {
    return this.#submit('listCuts', undefined, () => this.#inner.listCuts(run));
  }
  loadCut(id: string) {
    return this.#submit('loadCut', undefined, () => this.#inner.loadCut(id));
  }
  listDeadLetters() {
    return this.#submit('listDeadLetters', undefined, () => this.#inner.listDeadLetters());
  }
  listTurns(query: Parameters<Store['listTurns']>[0]) {
    return this.#submit('listTurns', undefined, () => this.#inner.listTurns(query));
  }
  listAudit(query: Parameters<Store['listAudit']>[0]) {
    return this.#submit('listAudit', undefined, () => this.#inner.listAudit(query));
  }
  listRuns() {
    return this.#submit('listRuns', undefined, () => this.#inner.listRuns());
  }
  listTasks(run: string, filter?: TaskFilter) {
    return this.#submit('listTasks', undefined, () => this.#inner.listTasks(run, filter));
  }
  listAttempts(run: string, task: string) {
    return this.#submit('listAttempts', undefined, () => this.#inner.listAttempts(run, task));
  }
  countTasks(run: string) {
    return this.#submit('countTasks', undefined, () => this.#inner.countTasks(run));
  }
  listStreams(...args: Parameters<Store['listStreams']>) {
    return this.#submit('listStreams', undefined, () => this.#inner.listStreams(...args));
  }
  listStreamChunks(...args: Parameters<Store['listStreamChunks']>) {
    return this.#submit('listStreamChunks', undefined, () => this.#inner.listStreamChunks(...args));
  }
  acquireLease(...args: Parameters<Store['acquireLease']>) {
    return this.#submit('acquireLease', undefined, () => this.#inner.acquireLease(...args));
  }
  extendLease(...args: Parameters<Store['extendLease']>) {
    return this.#submit('extendLease', undefined, () => this.#inner.extendLease(...args));
  }
  releaseLease(...args: Parameters<Store['releaseLease']>) {
    return this.#submit('releaseLease', undefined, () => this.#inner.releaseLease(...args));
  }
  listLeases(...args: Parameters<Store['listLeases']>) {
    return this.#submit('listLeases', undefined, () => this.#inner.listLeases(...args));
  }
  assertOwner() {
    return this.#submit('assertOwner', undefined, () => this.#inner.assertOwner());
  }
  prune(...args: Parameters<Store['prune']>) {
    return this.#submit('prune', undefined, () => this.#inner.prune(...args));
  }
  backup() {
    return this.#inner.backup();
  }
  close(): Promise<void> {
    return this.#submit('close', undefined, () => this.#inner.close(), false);
  }

  #submit<T>(
    name: string,
    batch: Batch | undefined,
    execute: () => Promise<T>,
    mayFail = true,
  ): Promise<T> {
    return new Promise<T>((resolve) => {
      if (this.#dead) return;
      const settle = resolve as (answer: unknown) => void;
      this.#waiting.push({ name, mayFail, batch, execute, settle });
    });
  }
}

function failed(name: string): Promise<never> {
  const answer = Promise.reject(
    new TroupeError('unavailable', `The simulated disk failed at "${name}".`),
  );
  answer.catch(() => undefined);
  return answer;
}
