import type { EpochMs } from '../protocol/message.ts';
import type { Priority } from '../protocol/priority.ts';

/**
 * What an actor runtime needs of a database: rows in, rows out, and one atomic write. The store knows
 * rows, not meanings; texts named `…Json` are opaque to it. Every adapter passes the same contract suite
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
   * Claims up to `limit` ready tasks of a run for an agent, in one atomic step: highest priority first, then
   * the most tasks unblocked, then the oldest. A token that has claimed before gets the same tasks again, so a
   * claim repeated after a crash is harmless. The claim ends when the task's row is written with another state.
   * @returns the task ids
   */
  claimTasks(claim: Claim): Promise<readonly string[]>;

  listActors(filter?: {
    readonly kind?: string;
    readonly status?: ActorStatus;
  }): Promise<readonly ActorRecord[]>;
  /** Oldest first. */
  listCheckpoints(address: string, range?: CheckpointRange): Promise<readonly CheckpointRecord[]>;
  listDeadLetters(): Promise<readonly DeadLetterRecord[]>;
  listRuns(): Promise<readonly RunRow[]>;
  /** In the order of their positions. */
  listTasks(run: string, filter?: TaskFilter): Promise<readonly TaskRow[]>;
  /** In the order of their numbers. */
  listAttempts(run: string, task: string): Promise<readonly AttemptRow[]>;
  /** How many tasks of the run are in each state; states with none are left out. */
  countTasks(run: string): Promise<Readonly<Record<string, number>>>;

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
}

/** One turn of one actor: what it handled and what it became. Append-only. */
export interface CheckpointRecord {
  readonly address: string;
  readonly seq: number;
  readonly at: EpochMs;
  readonly kind: 'auto' | 'manual' | 'milestone' | 'error' | 'rollback';
  readonly label: string | null;
  /** The event handled, with its meta; null for the initial state. Replaying it on the checkpoint before gives this one. */
  readonly eventJson: string | null;
  readonly snapshotJson: string;
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

/** The kept outcome of one step. (scope, key) is unique; a second write is ignored. */
export interface StepRecord {
  readonly scope: string;
  readonly key: string;
  readonly at: EpochMs;
  readonly outcomeJson: string;
}

export interface DeadLetterRecord {
  readonly id: string;
  readonly at: EpochMs;
  readonly address: string;
  readonly reason: string;
  readonly messageJson: string;
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

export interface Claim {
  readonly run: string;
  readonly agent: string;
  readonly limit: number;
  readonly token: string;
}

/** A row to query by, derived from an actor's state and written in the same commit. */
export type Projection =
  | { readonly table: 'runs'; readonly row: RunRow }
  | { readonly table: 'tasks'; readonly row: TaskRow }
  | { readonly table: 'attempts'; readonly row: AttemptRow };

/** One atomic write. Lists are applied in the order of the fields here, each list in its own order. */
export interface Batch {
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
  readonly deadLetters: readonly DeadLetterRecord[];
  /** Inserted or replaced by key. A task row written with a state other than its stored one ends a claim on it. */
  readonly projections: readonly Projection[];
}

/** What `loadPending` returns. */
export interface Pending {
  /** In the order of their commits. */
  readonly messages: readonly MessageRecord[];
  readonly timers: readonly TimerRecord[];
  readonly effects: readonly EffectRecord[];
}
