import type { Envelope } from '../protocol/message.ts';
import type {
  AuditRow,
  Batch,
  CheckpointRecord,
  ClaimRow,
  CutRequest,
  DeadLetterRecord,
  EffectRecord,
  IdempotencyRecord,
  MessageRecord,
  Projection,
  StepRecord,
  StreamChunkRow,
  StreamRow,
  TimerRecord,
} from '../store/store.ts';
import type { Actor, MessageItem } from './actor.ts';
import type { DurableTimer } from './durable-timers.ts';

/** The name of one row among all of its table. */
interface RowKey {
  readonly address: string;
  readonly id: string;
}

/**
 * What a number of turns want written, and what is to happen once it is. Within a stage the last word counts:
 * a message sent and handled in it is never a row, a timer set and cleared in it neither.
 */
export class Stage {
  /** Turns taken in it. */
  turns = 0;
  readonly checkpoints: CheckpointRecord[] = [];
  readonly steps: StepRecord[] = [];
  readonly clearedSteps: string[] = [];
  readonly deadLetters: DeadLetterRecord[] = [];
  readonly audit: AuditRow[] = [];
  readonly removedAttempts: Batch['removedAttempts'][number][] = [];
  readonly claims: ClaimRow[] = [];
  /** Taken of what is stored when this is. */
  readonly cuts: CutRequest[] = [];
  readonly streamChunks: StreamChunkRow[] = [];
  /** By address and name. */
  #streams: Map<string, StreamRow> | undefined;
  #after: (() => void)[] = [];
  #waiting: PromiseWithResolvers<void> | undefined;
  #actors: Actor[] = [];
  #messages: MessageItem[] = [];
  /** How many of them nobody has handled yet. */
  #unhandled = 0;
  readonly #consumed: string[] = [];
  readonly #timers = new Set<DurableTimer>();
  readonly #clearedTimers: RowKey[] = [];
  #effects: Map<string, EffectRecord | RowKey> | undefined;
  #projections: Map<string, Projection> | undefined;
  /** By key; null: the key is free again. */
  #idempotency: Map<string, IdempotencyRecord | null> | undefined;

  // ── rows ───────────────────────────────────────────────────────────────────────────────────────────

  /** The actor's row is taken when the stage is sealed, so that its last turn in the stage counts. */
  touch(actor: Actor): void {
    if (actor.stage === this) return;
    actor.stage = this;
    actor.uncommitted++;
    this.#actors.push(actor);
  }

  add(message: MessageItem): void {
    message.stage = this;
    this.#messages.push(message);
    this.#unhandled++;
  }

  consume(message: MessageItem): void {
    if (message.stage === this) {
      message.stage = undefined;
      this.#unhandled--;
    } else {
      this.#consumed.push(message.envelope.id);
    }
  }

  setTimer(timer: DurableTimer): void {
    this.#timers.add(timer);
  }

  clearTimer(timer: DurableTimer): void {
    this.#timers.delete(timer);
    if (timer.stored) this.#clearedTimers.push({ address: timer.address, id: timer.id });
  }

  setEffect(effect: EffectRecord): void {
    this.#effects ??= new Map();
    this.#effects.set(`${effect.address}\n${effect.id}`, effect);
  }

  clearEffect(effect: EffectRecord): void {
    this.#effects ??= new Map();
    this.#effects.set(`${effect.address}\n${effect.id}`, {
      address: effect.address,
      id: effect.id,
    });
  }

  project(projection: Projection): void {
    this.#projections ??= new Map();
    this.#projections.set(keyOf(projection), projection);
  }

  putIdempotency(record: IdempotencyRecord): void {
    this.#idempotency ??= new Map();
    this.#idempotency.set(record.key, record);
  }

  clearIdempotency(key: string): void {
    this.#idempotency ??= new Map();
    this.#idempotency.set(key, null);
  }

  putStream(row: StreamRow): void {
    this.#streams ??= new Map();
    this.#streams.set(`${row.address}\n${row.name}`, row);
  }

  /** Attempts at a task above a number are of a life that was given up: those of this stage, too, but none of the next. */
  removeAttempts(removed: Batch['removedAttempts'][number]): void {
    this.removedAttempts.push(removed);
    for (const [key, { table, row }] of this.#projections ?? []) {
      const isOne = table === 'attempts' && row.run === removed.run && row.task === removed.task;
      if (isOne && row.attempt > removed.above) this.#projections?.delete(key);
    }
  }

  /** Whether anything has to be stored. */
  get hasRows(): boolean {
    return (
      this.#actors.length > 0 ||
      this.#unhandled > 0 ||
      this.#consumed.length > 0 ||
      this.#timers.size > 0 ||
      this.#clearedTimers.length > 0 ||
      this.checkpoints.length > 0 ||
      this.steps.length > 0 ||
      this.clearedSteps.length > 0 ||
      this.deadLetters.length > 0 ||
      this.audit.length > 0 ||
      this.cuts.length > 0 ||
      this.#effects !== undefined ||
      this.#streams !== undefined ||
      this.#idempotency !== undefined ||
      this.#projections !== undefined
    );
  }

  /** The rows, as they are now: nothing may be added any more. */
  seal(): Batch {
    const messages: MessageRecord[] = [];
    if (this.#unhandled > 0) {
      for (const message of this.#messages) {
        if (message.stage === this) messages.push(toRecord(message.envelope));
      }
    }
    const effects: EffectRecord[] = [];
    const clearedEffects: RowKey[] = [];
    for (const effect of this.#effects?.values() ?? []) {
      if ('generation' in effect) effects.push(effect);
      else clearedEffects.push(effect);
    }
    const idempotency: IdempotencyRecord[] = [];
    const clearedIdempotency: string[] = [];
    for (const [key, record] of this.#idempotency ?? []) {
      if (record === null) clearedIdempotency.push(key);
      else idempotency.push(record);
    }
    const timers: TimerRecord[] = [];
    for (const timer of this.#timers) {
      timer.stored = true;
      timers.push(timer.toRecord());
    }
    return {
      actors: this.#actors.map((actor) => actor.record()),
      checkpoints: this.checkpoints,
      consumed: this.#consumed,
      messages,
      clearedTimers: this.#clearedTimers,
      timers,
      clearedEffects,
      effects,
      steps: this.steps,
      clearedSteps: this.clearedSteps,
      clearedIdempotency,
      idempotency,
      deadLetters: this.deadLetters,
      ...(this.audit.length === 0 ? undefined : { audit: this.audit }),
      projections: this.#projections === undefined ? [] : [...this.#projections.values()],
      removedAttempts: this.removedAttempts,
      claims: this.claims,
      cuts: this.cuts,
      streams: this.#streams === undefined ? [] : [...this.#streams.values()],
      streamChunks: this.streamChunks,
    };
  }

  // ── what happens when they are stored ──────────────────────────────────────────────────────────────

  /** Runs `action` when the stage is stored, in the order of the calls. */
  after(action: () => void): void {
    this.#after.push(action);
  }

  get hasActions(): boolean {
    return this.#after.length > 0 || this.#waiting !== undefined;
  }

  /** Settles when the stage is stored, or cannot be. */
  stored(): Promise<void> {
    this.#waiting ??= Promise.withResolvers<void>();
    return this.#waiting.promise;
  }

  /** What was to happen after `other`, which has no rows, happens after this one. */
  adopt(other: Stage): void {
    for (const action of other.#after) this.#after.push(action);
    other.#after = [];
    const waiting = other.#waiting;
    if (waiting === undefined) return;
    other.#waiting = undefined;
    this.stored().then(waiting.resolve, waiting.reject);
  }

  /** The rows are stored: does what waited for that. */
  finish(): void {
    for (const actor of this.#actors) {
      actor.uncommitted--;
      // An idle actor must not keep its last stage alive, with the text of every checkpoint in it.
      if (actor.stage === this) actor.stage = undefined;
    }
    this.#actors.length = 0;
    if (this.#messages.length > 0) this.#messages = [];
    this.turns = 0;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (this.#after.length > 0) {
      // Actions may add actions: those belong to the next time.
      const actions = this.#after;
      this.#after = [];
      for (const action of actions) action();
    }
    waiting?.resolve();
  }

  /** The rows are not stored, and never will be. */
  abandon(error: Error): void {
    this.#after = [];
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}

function keyOf(projection: Projection): string {
  switch (projection.table) {
    case 'runs':
      return `runs\n${projection.row.run}`;
    case 'tasks':
      return `tasks\n${projection.row.run}\n${projection.row.task}`;
    case 'attempts':
      return `attempts\n${projection.row.run}\n${projection.row.task}\n${projection.row.attempt}`;
  }
}

function toRecord(envelope: Envelope): MessageRecord {
  return {
    id: envelope.id,
    from: envelope.from,
    to: envelope.to,
    priority: envelope.priority,
    sentAt: envelope.sentAt,
    messageJson: JSON.stringify(envelope.message),
    correlation: envelope.correlation ?? null,
    attempt: envelope.attempt ?? null,
    reply: envelope.reply === true,
  };
}
