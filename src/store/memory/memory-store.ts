import {
  ConfigurationError,
  ConflictError,
  LockConflictError,
  StoppedError,
  TroupeError,
} from '../../protocol/errors.ts';
import type { EpochMs } from '../../protocol/message.ts';
import type {
  ActorStatus,
  AttemptRow,
  AuditQuery,
  AuditSlice,
  Batch,
  CheckpointRange,
  CheckpointRecord,
  Claim,
  CutRow,
  DeadLetterRecord,
  IdempotencyRecord,
  LeaseClaim,
  LeaseRow,
  Pending,
  Pruned,
  PruneSlice,
  RunRow,
  StepRecord,
  Store,
  StoredActor,
  StoredAuditRow,
  StoredChunks,
  StoredCut,
  StreamChunkRow,
  StreamFilter,
  StreamHead,
  StreamQuery,
  TaskFilter,
  TaskRow,
  TurnRecord,
} from '../store.ts';
import { addChunks, loadChunks, refuseMissingChunks, sweepChunks } from './memory-chunks.ts';
import { putClaim, takeCut } from './memory-cuts.ts';
import { addReady, isReady, MemoryData, type MemoryLease, type MemoryTask } from './memory-data.ts';
import { addToAudit, addToJournal, listAudit, listTurns } from './memory-journal.ts';
import { prune } from './memory-prune.ts';
import { listStreamChunks, listStreams, putStreams } from './memory-streams.ts';
import { compareForClaim } from './ready-tasks.ts';

const DONE = Promise.resolve();

/**
 * A store without a disk, for tests and for work that may be forgotten. It keeps the records it is given
 * and checks nothing but that checkpoints are new: about a microsecond per row.
 *
 * A commit is applied when it is called. Its "disk" is `data`: a store that is dropped or closed leaves
 * everything committed there, and `new MemoryStore(store.data)` goes on from it. From then on the old store
 * can write no more, like a process that has lost its lock.
 */
export class MemoryStore implements Store {
  readonly name = 'memory';
  readonly data: MemoryData;
  readonly #epoch: number;
  #closed = false;
  /** A commit has failed, and its caller cannot know yet. */
  #refusing = false;

  constructor(data: MemoryData = new MemoryData()) {
    this.data = data;
    owners.set(data, this);
    this.#epoch = ++data.epoch;
  }

  commit(batch: Batch): Promise<void> {
    const refusal =
      this.#refusal() ??
      this.#refuseAfterFailure() ??
      refuseMissingChunks(this.data, batch) ??
      addCheckpoints(this.data, batch);
    if (refusal !== undefined) return this.#fail(refusal);
    apply(this.data, batch);
    return DONE;
  }

  claimTasks({ run, agent, limit, token, except = [] }: Claim): Promise<readonly string[]> {
    return this.#answer(() => {
      const tasks = this.data.tasks.get(run);
      if (tasks === undefined) return [];
      const before = tasks.byToken.get(token);
      if (before !== undefined && before.size > 0) {
        const claimed = Array.from(before, (id) => tasks.byId.get(id)).filter(
          (t) => t !== undefined,
        );
        return claimed.sort(compareForClaim).map(({ row }) => row.task);
      }
      const claimed: string[] = [];
      const ready = tasks.ready.get(agent);
      const passedOver: MemoryTask[] = [];
      while (ready !== undefined && claimed.length < limit) {
        const task = ready.take();
        if (task === undefined) break;
        // Replaced or claimed since it was put in.
        if (tasks.byId.get(task.row.task) !== task || !isReady(task)) continue;
        const { position } = task.row;
        if (except.some(([from, to]) => position >= from && position < to)) {
          passedOver.push(task);
          continue;
        }
        if (task.token !== null) tasks.byToken.get(task.token)?.delete(task.row.task);
        task.token = token;
        task.claimed = true;
        claimed.push(task.row.task);
      }
      for (const task of passedOver) ready?.add(task);
      if (claimed.length > 0) tasks.byToken.set(token, new Set(claimed));
      return claimed;
    });
  }

  acquireLease({ name, holder, now, ttlMs }: LeaseClaim) {
    return this.#answer(() => {
      const before = this.data.leases.get(name);
      if (before !== undefined && this.#isHeld(before, now)) {
        return { acquired: false, lease: before.row };
      }
      const token = (before?.row.token ?? 0) + 1;
      const row: LeaseRow = { name, holder, token, acquiredAt: now, expiresAt: now + ttlMs };
      this.data.leases.set(name, { row, epoch: this.#epoch });
      return { acquired: true, lease: row };
    });
  }

  extendLease({ name, token, now, ttlMs }: Parameters<Store['extendLease']>[0]): Promise<boolean> {
    return this.#answer(() => {
      const lease = this.data.leases.get(name);
      if (lease?.row.token !== token || !this.#isHeld(lease, now)) return false;
      this.data.leases.set(name, { ...lease, row: { ...lease.row, expiresAt: now + ttlMs } });
      return true;
    });
  }

  releaseLease({ name, token }: Parameters<Store['releaseLease']>[0]): Promise<boolean> {
    return this.#answer(() => {
      const lease = this.data.leases.get(name);
      if (lease?.row.token !== token) return false;
      // The row stays, so that the next token is greater.
      this.data.leases.set(name, { ...lease, row: { ...lease.row, expiresAt: 0 } });
      return true;
    });
  }

  listLeases(now: EpochMs): Promise<readonly LeaseRow[]> {
    return this.#answer(() =>
      [...this.data.leases.values()]
        .filter((lease) => this.#isHeld(lease, now))
        .map(({ row }) => row)
        .sort((a, b) => compareTexts(a.name, b.name)),
    );
  }

  assertOwner(): Promise<void> {
    return this.#answer(() => undefined);
  }

  #isHeld({ row, epoch }: MemoryLease, now: EpochMs): boolean {
    return row.expiresAt > now && epoch === this.#epoch;
  }

  transact(): Promise<never> {
    return this.#withoutTables('step.tx');
  }

  applyAppSchema(): Promise<never> {
    return this.#withoutTables('appSchema');
  }

  query(): Promise<never> {
    return this.#withoutTables('query');
  }

  loadPending(): Promise<Pending> {
    return this.#answer(() => ({
      messages: [...this.data.messages.values()],
      timers: flatten(this.data.timers),
      effects: flatten(this.data.effects),
      requests: [...this.data.idempotency.values()].filter(
        ({ correlation }) => correlation !== null,
      ),
    }));
  }

  loadActors(addresses: readonly string[]): Promise<readonly StoredActor[]> {
    return this.#answer(() => {
      const found: StoredActor[] = [];
      for (const address of new Set(addresses)) {
        const actor = this.data.actors.get(address);
        if (actor === undefined) continue;
        const checkpoint = this.data.checkpoints.get(address)?.findLast((c) => c.seq === actor.seq);
        if (checkpoint === undefined) {
          throw new TroupeError('internal', `The actor ${address} has no checkpoint ${actor.seq}.`);
        }
        found.push({ ...actor, snapshotJson: checkpoint.snapshotJson });
      }
      return found;
    });
  }

  loadIdempotency(key: string): Promise<IdempotencyRecord | undefined> {
    return this.#answer(() => this.data.idempotency.get(key));
  }

  loadChunks(lists: readonly string[]): Promise<StoredChunks> {
    return this.#answer(() => loadChunks(this.data, lists));
  }

  loadSteps(scope: string): Promise<readonly StepRecord[]> {
    return this.#answer(() => [...(this.data.steps.get(scope)?.values() ?? [])]);
  }

  listActors(filter: { readonly kind?: string; readonly status?: ActorStatus } = {}) {
    return this.#answer(() => {
      const prefix = filter.kind === undefined ? '' : `${filter.kind}/`;
      const found = [...this.data.actors.values()].filter(
        ({ address, status }) =>
          address.startsWith(prefix) && (filter.status === undefined || status === filter.status),
      );
      return found.sort((a, b) => compareTexts(a.address, b.address));
    });
  }

  listCheckpoints(
    address: string,
    { fromSeq = 0, toSeq = Number.MAX_SAFE_INTEGER, last }: CheckpointRange = {},
  ): Promise<readonly CheckpointRecord[]> {
    return this.#answer(() => {
      const all = this.data.checkpoints.get(address) ?? [];
      const found = all.filter(({ seq }) => seq >= fromSeq && seq <= toSeq);
      return last === undefined ? found : found.reverse().slice(0, Math.max(0, last));
    });
  }

  listCuts(run: string): Promise<readonly CutRow[]> {
    return this.#answer(() =>
      [...this.data.cuts.values()]
        .filter(({ cut }) => cut.run === run)
        .map(({ cut, members, messages }) => ({
          ...cut,
          members: members.length,
          messages: messages.length,
        })),
    );
  }

  loadCut(id: string): Promise<StoredCut | undefined> {
    return this.#answer(() => this.data.cuts.get(id));
  }

  listDeadLetters(): Promise<readonly DeadLetterRecord[]> {
    return this.#answer(() => [...this.data.deadLetters]);
  }

  listTurns(query: AuditQuery): Promise<AuditSlice<TurnRecord>> {
    return this.#answer(() => listTurns(this.data, query));
  }

  listAudit(query: AuditQuery): Promise<AuditSlice<StoredAuditRow>> {
    return this.#answer(() => listAudit(this.data, query));
  }

  listRuns(): Promise<readonly RunRow[]> {
    return this.#answer(() =>
      [...this.data.runs.values()].sort(
        (a, b) => a.createdAt - b.createdAt || compareTexts(a.run, b.run),
      ),
    );
  }

  listTasks(run: string, filter: TaskFilter = {}): Promise<readonly TaskRow[]> {
    return this.#answer(() => {
      const { states, afterPosition = Number.NEGATIVE_INFINITY, limit } = filter;
      const rows = Array.from(this.data.tasks.get(run)?.byId.values() ?? [], ({ row }) => row)
        .filter((row) => row.position > afterPosition && (states?.includes(row.state) ?? true))
        .sort((a, b) => a.position - b.position || compareTexts(a.task, b.task));
      return limit === undefined ? rows : rows.slice(0, Math.max(0, limit));
    });
  }

  listAttempts(run: string, task: string): Promise<readonly AttemptRow[]> {
    return this.#answer(() =>
      [...(this.data.attempts.get(run)?.get(task)?.values() ?? [])].sort(
        (a, b) => a.attempt - b.attempt,
      ),
    );
  }

  countTasks(run: string): Promise<Readonly<Record<string, number>>> {
    return this.#answer(() => {
      const counts = new Map<string, number>();
      for (const { row } of this.data.tasks.get(run)?.byId.values() ?? []) {
        counts.set(row.state, (counts.get(row.state) ?? 0) + 1);
      }
      return Object.fromEntries(counts);
    });
  }

  listStreams(filter: StreamFilter): Promise<readonly StreamHead[]> {
    return this.#answer(() => listStreams(this.data, filter));
  }

  listStreamChunks(query: StreamQuery): Promise<readonly StreamChunkRow[]> {
    return this.#answer(() => listStreamChunks(this.data, query));
  }

  prune(slice: PruneSlice): Promise<Pruned> {
    return this.#answer(() => {
      const pruned = prune(this.data, slice);
      if (Object.keys(pruned.removed).length > 0) sweepChunks(this.data);
      return pruned;
    });
  }

  backup(): Promise<number> {
    return Promise.reject(
      new ConfigurationError(
        'A store in memory has no file to copy. Open one in a file: createTroupe({ store: "state.db" }).',
      ),
    );
  }

  close(): Promise<void> {
    this.#closed = true;
    return DONE;
  }

  #withoutTables(what: string): Promise<never> {
    return this.#answer(() => {
      throw new ConfigurationError(
        `Tables of an app (${what}) need SQLite, and this store is in memory only: createTroupe({ store: "state.db" }).`,
      );
    });
  }

  #refusal(): TroupeError | undefined {
    if (this.#closed) return new StoppedError('The memory store is closed.');
    if (owners.get(this.data) === this) return undefined;
    return new LockConflictError('Another memory store has been opened on the same data.', {
      retryable: false,
    });
  }

  #refuseAfterFailure(): TroupeError | undefined {
    if (!this.#refusing) return undefined;
    return new TroupeError(
      'unavailable',
      'A commit was refused because one before it had failed: it may build on what was not stored.',
      { retryable: false },
    );
  }

  #fail(error: TroupeError): Promise<never> {
    this.#refusing = true;
    queueMicrotask(() => {
      this.#refusing = false;
    });
    return Promise.reject(error);
  }

  #answer<T>(read: () => T): Promise<T> {
    const refusal = this.#refusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    try {
      return Promise.resolve(read());
    } catch (error) {
      return Promise.reject(error);
    }
  }
}

/** The store that was opened last on each disk: the only one that may use it. */
const owners = new WeakMap<MemoryData, MemoryStore>();

/**
 * The one part of a batch that can be refused, therefore the first to be written.
 * @returns why nothing was written
 */
function addCheckpoints(data: MemoryData, batch: Batch): ConflictError | undefined {
  let added = 0;
  for (const checkpoint of batch.checkpoints) {
    if (!addCheckpoint(data, checkpoint)) {
      for (const done of batch.checkpoints.slice(0, added)) removeCheckpoint(data, done);
      return new ConflictError(
        `Could not store a commit: checkpoint ${checkpoint.seq} of ${checkpoint.address} exists already. Nothing of the batch was stored.`,
      );
    }
    added++;
  }
  return undefined;
}

function addCheckpoint(data: MemoryData, checkpoint: CheckpointRecord): boolean {
  const list = data.checkpoints.get(checkpoint.address);
  if (list === undefined) {
    data.checkpoints.set(checkpoint.address, [checkpoint]);
    return true;
  }
  const last = list[list.length - 1];
  if (last === undefined || last.seq < checkpoint.seq) {
    list.push(checkpoint);
    return true;
  }
  const at = list.findIndex(({ seq }) => seq >= checkpoint.seq);
  if (list[at]?.seq === checkpoint.seq) return false;
  list.splice(at, 0, checkpoint);
  return true;
}

function removeCheckpoint(data: MemoryData, checkpoint: CheckpointRecord): void {
  const list = data.checkpoints.get(checkpoint.address);
  list?.splice(list.indexOf(checkpoint), 1);
}

function apply(data: MemoryData, batch: Batch): void {
  if (batch.packed !== undefined) addChunks(data, batch.packed);
  for (const actor of batch.actors) data.actors.set(actor.address, actor);
  for (const checkpoint of batch.checkpoints) addToJournal(data, checkpoint);
  for (const id of batch.consumed) data.messages.delete(id);
  for (const message of batch.messages) {
    if (!data.messages.has(message.id)) data.messages.set(message.id, message);
  }
  for (const { address, id } of batch.clearedTimers) data.timers.get(address)?.delete(id);
  for (const timer of batch.timers) innerMap(data.timers, timer.address).set(timer.id, timer);
  for (const { address, id } of batch.clearedEffects) data.effects.get(address)?.delete(id);
  for (const effect of batch.effects) innerMap(data.effects, effect.address).set(effect.id, effect);
  for (const step of batch.steps) {
    const scope = innerMap(data.steps, step.scope);
    if (!scope.has(step.key)) scope.set(step.key, step);
  }
  for (const scope of batch.clearedSteps) data.steps.delete(scope);
  for (const key of batch.clearedIdempotency) data.idempotency.delete(key);
  for (const record of batch.idempotency) data.idempotency.set(record.key, record);
  for (const letter of batch.deadLetters) data.deadLetters.push(letter);
  if (batch.audit !== undefined) addToAudit(data, batch.audit);
  for (const { run, task, above } of batch.removedAttempts) {
    const attempts = data.attempts.get(run)?.get(task);
    for (const attempt of attempts?.keys() ?? []) if (attempt > above) attempts?.delete(attempt);
  }
  for (const projection of batch.projections) {
    switch (projection.table) {
      case 'runs':
        data.runs.set(projection.row.run, projection.row);
        break;
      case 'tasks':
        putTask(data, projection.row);
        break;
      case 'attempts': {
        const { run, task, attempt } = projection.row;
        innerMap(innerMap(data.attempts, run), task).set(attempt, projection.row);
        break;
      }
    }
  }
  for (const claim of batch.claims) putClaim(data, claim);
  for (const cut of batch.cuts) takeCut(data, cut);
  putStreams(data, batch);
  if (batch.packed !== undefined) sweepChunks(data);
}

function putTask(data: MemoryData, row: TaskRow): void {
  let tasks = data.tasks.get(row.run);
  if (tasks === undefined) {
    tasks = { byId: new Map(), ready: new Map(), byToken: new Map() };
    data.tasks.set(row.run, tasks);
  }
  const before = tasks.byId.get(row.task);
  const claimed = before?.claimed === true && before.row.state === row.state;
  const task: MemoryTask = { row, token: before?.token ?? null, claimed };
  tasks.byId.set(row.task, task);
  if (isReady(task)) addReady(tasks, task);
}

function innerMap<K, L, V>(outer: Map<K, Map<L, V>>, key: K): Map<L, V> {
  let inner = outer.get(key);
  if (inner === undefined) {
    inner = new Map();
    outer.set(key, inner);
  }
  return inner;
}

function flatten<T>(outer: ReadonlyMap<string, ReadonlyMap<string, T>>): T[] {
  const all: T[] = [];
  for (const inner of outer.values()) for (const value of inner.values()) all.push(value);
  return all;
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
