import type { TroupeError } from '../protocol/errors.ts';
import type { JsonObject } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { Priority } from '../protocol/priority.ts';

/**
 * What an actor runtime needs of a database: rows in, rows out, and one atomic write. The store knows
 * rows, not meanings; texts named `…Json` are opaque to it, but for those that begin with `={`: each is JSON after its
 * first character, and under `lists` it names lists of chunks, which are kept for as long as a text names them.
 * PackedStore (payload/) writes such texts and reads them. Every adapter passes the same contract suite
 * (test/store/contract.ts).
 *
 * Order: calls take effect in the order they were made. A read sees every commit called before it.
 * Failure: when `commit` rejects, none of the batch is stored, or (an I/O error during the last flush) all
 * of it is and nobody can tell; the caller must stop and start again from what is stored.
 */
export interface Store {
  /** For messages: `memory`, or the file's path. */
  readonly name: string;

  /** All of the batch or nothing. Once it resolves, the batch survives what the adapter promises to survive. */
  commit(batch: Batch): Promise<void>;

  /** Everything that waits to be done: read once, when a runtime opens the store. */
  loadPending(): Promise<Pending>;
  /** The actors among `addresses` that exist, each with its newest checkpoint. Order is not kept. */
  loadActors(addresses: readonly string[]): Promise<readonly StoredActor[]>;
  /** The steps finished in this scope, oldest first. */
  loadSteps(scope: string): Promise<readonly StepRecord[]>;
  /**
   * Writes rows of the app and keeps a step, both or neither. If a step of this key is kept already, nothing is
   * written. Refused for the statements' sake, it harms no other call.
   * @returns the step that is kept
   * @throws {ConfigurationError} this store has no tables for an app
   * @throws {TroupeError} `validation`: a statement that is not allowed, or that fails; `conflict`: a row with that key
   * exists already. Nothing was written
   */
  transact(transaction: AppTransaction): Promise<StepRecord>;
  /**
   * Brings the app's own tables up to date: of the list, which only ever grows, those statements are carried out that
   * have not been before, all or none.
   * @throws {ConfigurationError} this store has no tables for an app; or a statement that is not allowed, fails, or is
   * not the one that was carried out in its place before
   */
  applyAppSchema(statements: readonly string[]): Promise<void>;
  /**
   * The rows of one SELECT.
   * @throws {ConfigurationError} this store has no tables for an app
   * @throws {TroupeError} `validation`: a statement that is not allowed, or that fails, or gives too many rows
   */
  query(statement: SqlStatement): Promise<readonly JsonObject[]>;
  /** What is kept under this key, expired or not. */
  loadIdempotency(key: string): Promise<IdempotencyRecord | undefined>;
  /** Those of the lists that exist, with the chunks they name. */
  loadChunks(lists: readonly string[]): Promise<StoredChunks>;

  /**
   * Claims up to `limit` ready tasks of a run for an agent, in one atomic step: highest priority first, then
   * the most tasks unblocked, then the oldest. A token that has claimed before gets the same tasks again, so a
   * claim repeated after a crash is harmless. The claim ends when the task's row is written with another state.
   * @returns the task ids
   */
  claimTasks(claim: Claim): Promise<readonly string[]>;

  /**
   * Takes a lease, in one atomic step, if nobody holds it: it has expired, was let go of, or its holder's runtime has
   * lost the store. Each holder gets a token greater than every one before it.
   * @returns the lease as it stands: the caller's, or that of who holds it
   */
  acquireLease(
    claim: LeaseClaim,
  ): Promise<{ readonly acquired: boolean; readonly lease: LeaseRow }>;
  /** Holds it `ttlMs` from `now`. @returns false if it has expired or belongs to another token */
  extendLease(lease: {
    readonly name: string;
    readonly token: number;
    readonly now: EpochMs;
    readonly ttlMs: number;
  }): Promise<boolean>;
  /** @returns false if it belongs to another token */
  releaseLease(lease: { readonly name: string; readonly token: number }): Promise<boolean>;
  /** Those that are held at `now`, by name. */
  listLeases(now: EpochMs): Promise<readonly LeaseRow[]>;

  /** @throws {LockConflictError} somebody else has taken the store over: this one can write no more */
  assertOwner(): Promise<void>;

  listActors(filter?: {
    readonly kind?: string;
    readonly status?: ActorStatus;
  }): Promise<readonly ActorRecord[]>;
  /** Oldest first. */
  listCheckpoints(address: string, range?: CheckpointRange): Promise<readonly CheckpointRecord[]>;
  /** The cuts of a run, oldest first. */
  listCuts(run: string): Promise<readonly CutRow[]>;
  /** Everything a cut holds; undefined if there is none of this id. */
  loadCut(id: string): Promise<StoredCut | undefined>;
  listDeadLetters(): Promise<readonly DeadLetterRecord[]>;
  /**
   * What actors have handled, in the order of the commits: checkpoints without their states, of one actor or of all. In
   * slices of at most `limit` rows that are looked at, however few of them are meant.
   */
  listTurns(query: AuditQuery): Promise<AuditSlice<TurnRecord>>;
  /** What was ordered from outside and what came of it, in the order of the commits. Slices as for `listTurns`. */
  listAudit(query: AuditQuery): Promise<AuditSlice<StoredAuditRow>>;
  listRuns(): Promise<readonly RunRow[]>;
  /** In the order of their positions. */
  listTasks(run: string, filter?: TaskFilter): Promise<readonly TaskRow[]>;
  /** In the order of their numbers. */
  listAttempts(run: string, task: string): Promise<readonly AttemptRow[]>;
  /** How many tasks of the run are in each state; states with none are left out. */
  countTasks(run: string): Promise<Readonly<Record<string, number>>>;
  /** By address and name, each with its newest chunk. */
  listStreams(filter: StreamFilter): Promise<readonly StreamHead[]>;
  /** In the order of their offsets. */
  listStreamChunks(query: StreamQuery): Promise<readonly StreamChunkRow[]>;

  /**
   * Removes a slice of history: as much as is done in 5 ms or so, that turns go on meanwhile. Never what waits to be
   * done, nor an actor's newest checkpoint, nor one that a cut names. A crash leaves a slice done or not begun.
   */
  prune(slice: PruneSlice): Promise<Pruned>;
  /**
   * Writes a copy of the store as it is at one moment, while the store goes on. It is complete when it gets its name.
   * @returns the size of the copy in bytes
   * @throws {ConflictError} there is a file of that name
   * @throws {ConfigurationError} this store has no file to copy
   */
  backup(path: string): Promise<number>;

  /**
   * Stored texts as they are, whatever their table, in slices of at most `limit`; begin with null. Those that are written
   * while somebody goes through may be left out. Not offered by a store that keeps nothing when it is closed.
   */
  listTexts?(after: TextCursor | null, limit: number): Promise<TextSlice>;
  /** Replaces texts that are still what they were, all in one step. @returns how many were */
  replaceTexts?(texts: readonly TextReplacement[], packed: StoredChunks): Promise<number>;

  /** Finishes what was called before, then lets go of everything. Idempotent. Later calls reject with StoppedError. */
  close(): Promise<void>;
}

export type ActorStatus = 'active' | 'done' | 'error' | 'quarantined';

export interface ActorRecord {
  readonly address: string;
  /** The name its machine was registered under, and the machine's version. */
  readonly machine: string;
  readonly version: number;
  readonly status: ActorStatus;
  /** Turns taken; also the number of its newest checkpoint. 0 is the initial state. */
  readonly seq: number;
  readonly parent: string | null;
  /** Why it is quarantined or failed; null otherwise. */
  readonly reason: string | null;
  readonly updatedAt: EpochMs;
}

export interface StoredActor extends ActorRecord {
  readonly snapshotJson: string;
  /** Why the snapshot cannot be read: damage, or a key that is not there. Then `snapshotJson` is empty. */
  readonly unreadable?: TroupeError;
}

/** One turn of one actor: what it handled and what it became. Append-only. */
export interface CheckpointRecord {
  readonly address: string;
  readonly seq: number;
  readonly at: EpochMs;
  readonly kind: 'auto' | 'manual' | 'milestone' | 'error' | 'rollback';
  readonly label: string | null;
  /** The version of the machine whose state it is. */
  readonly version: number;
  /**
   * The event handled, with its meta; null for the initial state and for what no event has led to: a checkpoint made by
   * hand, a rollback. Replaying it on the checkpoint before gives this one.
   */
  readonly eventJson: string | null;
  readonly snapshotJson: string;
  /** The timers and effects under way after it, in the runtime's own format; null if there were none. */
  readonly pendingJson: string | null;
  /** What whoever made it by hand has noted; null otherwise. */
  readonly detailsJson: string | null;
}

export interface CheckpointRange {
  readonly fromSeq?: number;
  readonly toSeq?: number;
  /** Newest first, at most this many. Default: all, oldest first. */
  readonly last?: number;
}

/** A message that was sent and not yet handled. Kept in the order in which it was committed. */
export interface MessageRecord {
  readonly id: string;
  readonly from: string;
  readonly to: string;
  readonly priority: Priority;
  readonly sentAt: EpochMs;
  readonly messageJson: string;
  readonly correlation: string | null;
  readonly attempt: number | null;
  readonly reply: boolean;
}

/** Something that is due at a time. (address, id) is unique; `generation` tells one use of the id from the next. */
export interface TimerRecord {
  readonly address: string;
  readonly id: string;
  readonly generation: string;
  readonly dueAt: EpochMs;
  /** What happens then; the runtime's own format. */
  readonly actionJson: string;
}

/** Work that was started and has not ended. (address, id) is unique. */
export interface EffectRecord {
  readonly address: string;
  readonly id: string;
  readonly generation: string;
  readonly src: string;
  readonly inputJson: string;
  /** 1 for the first start; each restart after a crash adds one. */
  readonly attempt: number;
  readonly startedAt: EpochMs;
}

/** `tx`: kept together with rows of the app. */
export type StepKind = 'step' | 'tx';

/** The kept outcome of one step. (scope, key) is unique; a second write is ignored. */
export interface StepRecord {
  readonly scope: string;
  readonly key: string;
  readonly at: EpochMs;
  readonly kind: StepKind;
  /** Of what it was asked with; null if it did not say. */
  readonly inputHash: string | null;
  readonly outcomeJson: string;
}

/** What was sent or asked under a key of the app's. */
export interface IdempotencyRecord {
  readonly key: string;
  /** Of the operation, the receiver and the message. */
  readonly inputHash: string;
  /** Under which the answer to it will come; null: it is no request, or was answered. */
  readonly correlation: string | null;
  /** How it was answered; null: it is no request, or was not. */
  readonly outcomeJson: string | null;
  readonly createdAt: EpochMs;
  /** From then on the key is free, and the row may be deleted. */
  readonly expiresAt: EpochMs;
}

export interface DeadLetterRecord {
  readonly id: string;
  readonly at: EpochMs;
  readonly address: string;
  readonly reason: string;
  readonly messageJson: string;
}

/** A checkpoint without its state. */
export interface TurnRecord
  extends Pick<
    CheckpointRecord,
    'address' | 'seq' | 'at' | 'kind' | 'label' | 'eventJson' | 'detailsJson'
  > {
  /** Greater than that of every row committed before it, for as long as the newest rows are not removed. */
  readonly position: number;
}

/** An order from outside, or the answer to one. */
export interface AuditRow {
  readonly at: EpochMs;
  readonly kind: 'order' | 'answer';
  /** Of the message; an answer has that of its order. */
  readonly id: string;
  /** Who was ordered. */
  readonly address: string;
  readonly type: string;
  /** Who ordered it. */
  readonly by: string;
  /** Without secrets. */
  readonly detailsJson: string;
}

export interface StoredAuditRow extends AuditRow {
  /** As in `TurnRecord`. */
  readonly position: number;
}

export interface AuditQuery {
  /** Where the slice before has ended; 0 for the first one. */
  readonly after: number;
  readonly limit: number;
  readonly address?: string;
  /** Not before. */
  readonly from?: EpochMs;
  /** Before. */
  readonly to?: EpochMs;
}

export interface AuditSlice<R> {
  readonly rows: readonly R[];
  /** Where to go on, now or when there is more. Less than `after`: the newest rows were removed; begin anew. */
  readonly upTo: number;
  /** There was no more. */
  readonly isLast: boolean;
}

export interface RunRow {
  readonly run: string;
  readonly title: string;
  readonly state: string;
  readonly total: number;
  readonly createdAt: EpochMs;
  readonly updatedAt: EpochMs;
  readonly endedAt: EpochMs | null;
  readonly detailsJson: string;
}

export interface TaskRow {
  readonly run: string;
  readonly task: string;
  readonly title: string;
  readonly state: string;
  readonly agent: string;
  readonly priority: Priority;
  /** Tasks that wait for this one. */
  readonly unblocks: number;
  /** Where it stood in the list it came from. */
  readonly position: number;
  readonly attempts: number;
  /** Why it is blocked, escalated, retrying or waiting; null otherwise. */
  readonly reason: string | null;
  readonly updatedAt: EpochMs;
  readonly detailsJson: string;
}

export interface TaskFilter {
  readonly states?: readonly string[];
  readonly afterPosition?: number;
  readonly limit?: number;
}

export interface AttemptRow {
  readonly run: string;
  readonly task: string;
  readonly attempt: number;
  readonly outcome: string;
  readonly reason: string | null;
  readonly startedAt: EpochMs;
  readonly endedAt: EpochMs | null;
  readonly detailsJson: string;
}

/** Values that an actor has written for others to read, one after the other. (address, name) is unique. */
export interface StreamRow {
  readonly address: string;
  readonly name: string;
  /** Chunks stored so far; also the offset of the next one. */
  readonly next: number;
  /** Of their texts, in characters. */
  readonly size: number;
  readonly createdAt: EpochMs;
  readonly updatedAt: EpochMs;
  /** Null: there may come more. */
  readonly closedAt: EpochMs | null;
}

export interface StreamHead extends StreamRow {
  /** The value of its newest chunk; null if it has none. */
  readonly lastJson: string | null;
}

export interface StreamChunkRow {
  readonly address: string;
  readonly name: string;
  /** 0 for the first chunk of the stream, then without gaps. */
  readonly offset: number;
  readonly at: EpochMs;
  /** Who has written it. (writer, epoch, seq) is unique in the stream. */
  readonly writer: string;
  readonly epoch: number;
  readonly seq: number;
  readonly valueJson: string;
}

/** Of one actor, or of all whose address begins with `prefix`, which ends with a slash. */
export type StreamFilter = { readonly name?: string } & (
  | { readonly address: string }
  | { readonly prefix: string }
);

export interface StreamQuery {
  readonly address: string;
  readonly name: string;
  /** The first offset that is wanted. */
  readonly from: number;
  readonly limit: number;
  /** Only what this one has written. */
  readonly writer?: string;
}

/** Which history may go. `from`: where the slice before has ended; 0 for the first one. */
export type PruneSlice = { readonly from: number } & (
  | {
      /** What has no label and is `auto` or `error`, and is not among the newest of its actor. */
      readonly what: 'checkpoints';
      /** At least 1. */
      readonly keepPerActor: number;
    }
  | {
      /**
       * Runs that have ended, with their tasks, attempts, steps, cuts, streams, and the actors `run/<run>` and `task/<run>/…`. One
       * for which something waits stays.
       */
      readonly what: 'runs';
      readonly endedBefore: EpochMs;
      /** These stay: an actor of theirs is in use. */
      readonly busy: readonly string[];
    }
  | {
      readonly what: 'deadLetters';
      readonly before: EpochMs;
      /** At most so many stay. */
      readonly keep: number;
    }
  | { readonly what: 'idempotency'; readonly expiredAt: EpochMs }
  /** Streams that were closed, or whose actor has ended or is gone. Those of runs and tasks go with their run. */
  | { readonly what: 'streams'; readonly before: EpochMs }
  | {
      /** Orders and their answers; turns go with their checkpoints. */
      readonly what: 'audit';
      readonly before: EpochMs;
      /** At most so many stay. */
      readonly keep: number;
    }
  | {
      /** Nothing but empty space: it goes back to the file system, but for this share of the file or so many bytes. */
      readonly what: 'space';
      readonly mayStay: number;
      readonly mayStayBytes: number;
    }
);

export interface Pruned {
  /** Rows removed, by the name of what they are: `checkpoints`, `tasks`, … */
  readonly removed: Readonly<Record<string, number>>;
  /** Rows that were looked at and stay. */
  readonly kept: number;
  /** Given back to the file system. */
  readonly bytes: number;
  /** Where the next slice begins; null: there is no more to do. */
  readonly next: number | null;
}

export interface Claim {
  readonly run: string;
  readonly agent: string;
  readonly limit: number;
  readonly token: string;
  /** Positions of tasks that are not to be claimed: first, and the one after the last. Default: none. */
  readonly except?: readonly (readonly [number, number])[];
}

export interface LeaseClaim {
  readonly name: string;
  readonly holder: string;
  readonly now: EpochMs;
  readonly ttlMs: number;
}

/** The right to something, for a time. */
export interface LeaseRow {
  readonly name: string;
  readonly holder: string;
  /** Greater for each holder: whoever protects something by the lease refuses a smaller one than it has seen. */
  readonly token: number;
  readonly acquiredAt: EpochMs;
  readonly expiresAt: EpochMs;
}

export type SqlValue = string | number | null;

/** One statement of an app, and the values for its `?`. */
export interface SqlStatement {
  readonly sql: string;
  readonly values: readonly SqlValue[];
}

/** Rows of an app, written together with the step that wants them. */
export interface AppTransaction {
  readonly statements: readonly SqlStatement[];
  readonly step: StepRecord;
  /** As in a batch. */
  readonly packed?: StoredChunks;
}

/** A row to query by, derived from an actor's state and written in the same commit. */
export type Projection =
  | { readonly table: 'runs'; readonly row: RunRow }
  | { readonly table: 'tasks'; readonly row: TaskRow }
  | { readonly table: 'attempts'; readonly row: AttemptRow };

/** One column of one row. */
export interface TextCursor {
  readonly table: string;
  readonly column: string;
  /** Of the row, as JSON. As a place to go on from: of the last row before it, or empty for the first of the column. */
  readonly key: string;
}

export interface StoredText extends TextCursor {
  /** What a codec binds it to. */
  readonly kind: string;
  readonly text: string;
}

export interface TextSlice {
  readonly texts: readonly StoredText[];
  /** Where to go on; null: that was all. */
  readonly next: TextCursor | null;
}

export interface TextReplacement extends TextCursor {
  readonly was: string;
  readonly text: string;
}

/** A piece of a long text. */
export interface ChunkRecord {
  /** A hash of the content: one name, one content. */
  readonly name: string;
  readonly data: Uint8Array;
}

export interface ChunkListRecord {
  readonly name: string;
  /** The names of its chunks, in the order of the text. */
  readonly chunks: readonly string[];
}

export interface StoredChunks {
  readonly chunks: readonly ChunkRecord[];
  readonly lists: readonly ChunkListRecord[];
}

/** The claim on one task, as `claimTasks` has left it. */
export interface ClaimRow {
  readonly run: string;
  readonly task: string;
  /** The claim that got it last; null if none did. */
  readonly token: string | null;
  /** The task's row has not been written with another state since. */
  readonly open: boolean;
}

/** Why a moment of a run was kept. */
export type CutKind = 'start' | 'timed' | 'manual' | 'milestone' | 'rollback';

/** One consistent moment of a run: which checkpoint each of its actors was at, and what was under way. */
export interface CutRecord {
  readonly id: string;
  readonly run: string;
  readonly at: EpochMs;
  readonly kind: CutKind;
  readonly label: string | null;
  readonly detailsJson: string | null;
}

/** A cut to be taken of what is stored when the batch is. */
export interface CutRequest extends CutRecord {
  /** The actors of the run: the one at `address`, and all whose address begins with `prefix`, which ends with a slash. */
  readonly address: string;
  readonly prefix: string;
  /** Of this run and kind at most so many stay, the newest; null: all. */
  readonly keep: number | null;
}

export interface CutRow extends CutRecord {
  /** Actors in it. Their checkpoints are kept for as long as the cut is. */
  readonly members: number;
  /** Messages to them that were waiting. */
  readonly messages: number;
}

export interface StoredCut {
  readonly cut: CutRecord;
  /** By address. */
  readonly members: readonly { readonly address: string; readonly seq: number }[];
  /** Those to its members, in the order of their commits. */
  readonly messages: readonly MessageRecord[];
  readonly timers: readonly TimerRecord[];
  readonly effects: readonly EffectRecord[];
  readonly claims: readonly ClaimRow[];
  /** Of each task those before its last one, which its state knows. */
  readonly attempts: readonly AttemptRow[];
}

/** One atomic write. Lists are applied in the order of the fields here, each list in its own order. */
export interface Batch {
  /**
   * What its texts name and may not be stored yet; what is there already is left as it is. A batch with a text that
   * names a list, or with a list that names a chunk, which is neither here nor in the store is refused. From when it
   * is applied, lists and chunks that nothing names may be gone.
   */
  readonly packed?: StoredChunks;
  /** Inserted or replaced by address. */
  readonly actors: readonly ActorRecord[];
  /** Appended. */
  readonly checkpoints: readonly CheckpointRecord[];
  /** Ids of messages that were handled. */
  readonly consumed: readonly string[];
  /** Inserted; an id that is there already is left as it is. */
  readonly messages: readonly MessageRecord[];
  readonly clearedTimers: readonly { readonly address: string; readonly id: string }[];
  /** Inserted or replaced. */
  readonly timers: readonly TimerRecord[];
  readonly clearedEffects: readonly { readonly address: string; readonly id: string }[];
  /** Inserted or replaced. */
  readonly effects: readonly EffectRecord[];
  readonly steps: readonly StepRecord[];
  /** Scopes whose steps are no longer needed. */
  readonly clearedSteps: readonly string[];
  /** Keys that are free again. */
  readonly clearedIdempotency: readonly string[];
  /** Inserted or replaced by key. */
  readonly idempotency: readonly IdempotencyRecord[];
  readonly deadLetters: readonly DeadLetterRecord[];
  /** Appended. Left out: none. */
  readonly audit?: readonly AuditRow[];
  /** Attempts of a later life: those of the task with a greater number are deleted. */
  readonly removedAttempts: readonly {
    readonly run: string;
    readonly task: string;
    readonly above: number;
  }[];
  /** Inserted or replaced by key. A task row written with a state other than its stored one ends a claim on it. */
  readonly projections: readonly Projection[];
  /** Written over what is known of the claims on these tasks; they exist. */
  readonly claims: readonly ClaimRow[];
  /** Taken of what is stored once everything above is. */
  readonly cuts: readonly CutRequest[];
  /** Inserted or replaced by address and name. Default: none. */
  readonly streams?: readonly StreamRow[];
  /** Appended; their streams exist. Default: none. */
  readonly streamChunks?: readonly StreamChunkRow[];
}

/** What `loadPending` returns. */
export interface Pending {
  /** In the order of their commits. */
  readonly messages: readonly MessageRecord[];
  readonly timers: readonly TimerRecord[];
  readonly effects: readonly EffectRecord[];
  /** Requests under a key of the app's that wait for their answer. */
  readonly requests: readonly IdempotencyRecord[];
}
