import type {
  ActorRecord,
  AttemptRow,
  CheckpointRecord,
  DeadLetterRecord,
  EffectRecord,
  IdempotencyRecord,
  LeaseRow,
  MessageRecord,
  RunRow,
  StepRecord,
  StoredAuditRow,
  StoredCut,
  StreamChunkRow,
  StreamRow,
  TaskRow,
  TimerRecord,
} from '../store.ts';
import { ReadyTasks } from './ready-tasks.ts';

/** A task and the claim on it. `token` stays after the claim has ended, to answer the same token the same. */
export interface MemoryTask {
  readonly row: TaskRow;
  token: string | null;
  claimed: boolean;
}

export interface MemoryRunTasks {
  readonly byId: Map<string, MemoryTask>;
  /** By agent: what may be claimed. */
  readonly ready: Map<string, ReadyTasks<MemoryTask>>;
  readonly byToken: Map<string, Set<string>>;
}

/** A stream and what was written to it, in the order of the offsets. */
export interface MemoryStream {
  readonly row: StreamRow;
  readonly chunks: StreamChunkRow[];
}

/** A lease and which of the stores that were opened on the data it was given by. */
export interface MemoryLease {
  readonly row: LeaseRow;
  readonly epoch: number;
}

/**
 * What a memory store knows: its disk. It outlives the store, so that a test can drop a store without
 * closing it, as a crash does, and open another on the same data. The records in it are never changed,
 * only replaced.
 */
export class MemoryData {
  readonly actors = new Map<string, ActorRecord>();
  /** By address, in the order of their numbers. */
  readonly checkpoints = new Map<string, CheckpointRecord[]>();
  /**
   * The same, of all actors, in the order of the commits, and the position of each. One that is in no list any more was
   * removed; the next `sweepJournal` takes it out.
   */
  journal: CheckpointRecord[] = [];
  journalPositions: number[] = [];
  /** The last position given, in the journal and in the audit. */
  position = 0;
  audit: StoredAuditRow[] = [];
  readonly messages = new Map<string, MessageRecord>();
  readonly timers = new Map<string, Map<string, TimerRecord>>();
  readonly effects = new Map<string, Map<string, EffectRecord>>();
  readonly steps = new Map<string, Map<string, StepRecord>>();
  readonly idempotency = new Map<string, IdempotencyRecord>();
  readonly deadLetters: DeadLetterRecord[] = [];
  readonly runs = new Map<string, RunRow>();
  readonly tasks = new Map<string, MemoryRunTasks>();
  readonly attempts = new Map<string, Map<string, Map<number, AttemptRow>>>();
  readonly leases = new Map<string, MemoryLease>();
  /** How often it has been opened. */
  epoch = 0;

  readonly chunks = new Map<string, Uint8Array>();
  /** Their names, by the name of the list. */
  readonly chunkLists = new Map<string, readonly string[]>();
  /** So many lists there may be before somebody looks which of them are used. */
  sweepChunksAt = 0;
  /** In the order in which they were taken. */
  readonly cuts = new Map<string, StoredCut>();
  /** By address, then by name. */
  readonly streams = new Map<string, Map<string, MemoryStream>>();
  /** Their rows are gone; what is left of them goes bit by bit. */
  readonly prunedRuns = new Set<string>();

  /** A second disk with the same content. Costs a few microseconds per thousand rows; no text is copied. */
  copy(): MemoryData {
    const copy = new MemoryData();
    copyInto(this.actors, copy.actors);
    for (const [address, list] of this.checkpoints) copy.checkpoints.set(address, [...list]);
    copy.journal = [...this.journal];
    copy.journalPositions = [...this.journalPositions];
    copy.position = this.position;
    copy.audit = [...this.audit];
    copyInto(this.messages, copy.messages);
    copyNested(this.timers, copy.timers);
    copyNested(this.effects, copy.effects);
    copyNested(this.steps, copy.steps);
    copyInto(this.idempotency, copy.idempotency);
    for (const letter of this.deadLetters) copy.deadLetters.push(letter);
    copyInto(this.runs, copy.runs);
    copyInto(this.leases, copy.leases);
    copy.epoch = this.epoch;
    for (const [run, tasks] of this.tasks) copy.tasks.set(run, copyTasks(tasks));
    for (const [run, byTask] of this.attempts) {
      const target = new Map<string, Map<number, AttemptRow>>();
      copyNested(byTask, target);
      copy.attempts.set(run, target);
    }
    copyInto(this.cuts, copy.cuts);
    for (const [address, byName] of this.streams) {
      const twins = new Map<string, MemoryStream>();
      for (const [name, { row, chunks }] of byName) twins.set(name, { row, chunks: [...chunks] });
      copy.streams.set(address, twins);
    }
    for (const run of this.prunedRuns) copy.prunedRuns.add(run);
    copyInto(this.chunks, copy.chunks);
    copyInto(this.chunkLists, copy.chunkLists);
    copy.sweepChunksAt = this.sweepChunksAt;
    return copy;
  }
}

function copyInto<K, V>(from: ReadonlyMap<K, V>, to: Map<K, V>): void {
  for (const [key, value] of from) to.set(key, value);
}

function copyNested<K, L, V>(from: ReadonlyMap<K, ReadonlyMap<L, V>>, to: Map<K, Map<L, V>>): void {
  for (const [key, inner] of from) to.set(key, new Map(inner));
}

function copyTasks(from: MemoryRunTasks): MemoryRunTasks {
  const copy: MemoryRunTasks = { byId: new Map(), ready: new Map(), byToken: new Map() };
  for (const [id, task] of from.byId) {
    const twin = { ...task };
    copy.byId.set(id, twin);
    if (isReady(twin)) addReady(copy, twin);
  }
  for (const [token, ids] of from.byToken) copy.byToken.set(token, new Set(ids));
  return copy;
}

export function isReady(task: MemoryTask): boolean {
  return task.row.state === 'ready' && !task.claimed;
}

export function addReady(tasks: MemoryRunTasks, task: MemoryTask): void {
  let ready = tasks.ready.get(task.row.agent);
  if (ready === undefined) {
    ready = new ReadyTasks();
    tasks.ready.set(task.row.agent, ready);
  }
  ready.add(task);
}
