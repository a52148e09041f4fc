import type { Envelope } from '../protocol/message.ts';
import type {
  ActorRecord,
  Batch,
  CheckpointRecord,
  DeadLetterRecord,
  EffectRecord,
  MessageRecord,
  Projection,
  StepRecord,
  TimerRecord,
} from '../store/store.ts';

const key = (address: string, id: string): string => `${address}\n${id}`;

/**
 * What a number of turns want written, and what is to happen once it is. Within a stage the last word counts:
 * a message sent and handled in it is never a row, a timer set and cancelled in it neither.
 */
export class Stage {
  /** Turns and other units of work in it. */
  size = 0;
  /** An actor's record is taken when the stage is sealed, so that its last turn in the stage counts. */
  readonly actors = new Map<string, () => ActorRecord>();
  readonly projections = new Map<string, () => readonly Projection[]>();
  readonly checkpoints: CheckpointRecord[] = [];
  readonly steps: StepRecord[] = [];
  readonly clearedSteps: string[] = [];
  readonly deadLetters: DeadLetterRecord[] = [];
  /** Run in order after the commit. */
  readonly after: (() => void)[] = [];
  /** Called instead if the commit fails. */
  readonly onFailure: ((error: unknown) => void)[] = [];
  readonly #messages = new Map<string, Envelope>();
  readonly #consumed: string[] = [];
  readonly #timers = new Map<string, TimerRecord | { address: string; id: string }>();
  readonly #effects = new Map<string, EffectRecord | { address: string; id: string }>();

  addMessage(envelope: Envelope): void {
    this.#messages.set(envelope.id, envelope);
  }

  consumeMessage(id: string): void {
    if (!this.#messages.delete(id)) this.#consumed.push(id);
  }

  setTimer(timer: TimerRecord): void {
    this.#timers.set(key(timer.address, timer.id), timer);
  }

  clearTimer(address: string, id: string): void {
    this.#timers.set(key(address, id), { address, id });
  }

  setEffect(effect: EffectRecord): void {
    this.#effects.set(key(effect.address, effect.id), effect);
  }

  clearEffect(address: string, id: string): void {
    this.#effects.set(key(address, id), { address, id });
  }

  get hasRows(): boolean {
    return (
      this.actors.size > 0 ||
      this.checkpoints.length > 0 ||
      this.#messages.size > 0 ||
      this.#consumed.length > 0 ||
      this.#timers.size > 0 ||
      this.#effects.size > 0 ||
      this.steps.length > 0 ||
      this.clearedSteps.length > 0 ||
      this.deadLetters.length > 0
    );
  }

  seal(): Batch {
    const timers: TimerRecord[] = [];
    const clearedTimers: { address: string; id: string }[] = [];
    for (const timer of this.#timers.values()) {
      if ('dueAt' in timer) timers.push(timer);
      else clearedTimers.push(timer);
    }
    const effects: EffectRecord[] = [];
    const clearedEffects: { address: string; id: string }[] = [];
    for (const effect of this.#effects.values()) {
      if ('generation' in effect) effects.push(effect);
      else clearedEffects.push(effect);
    }
    return {
      actors: Array.from(this.actors.values(), (record) => record()),
      checkpoints: this.checkpoints,
      consumed: this.#consumed,
      messages: Array.from(this.#messages.values(), toRecord),
      clearedTimers,
      timers,
      clearedEffects,
      effects,
      steps: this.steps,
      clearedSteps: this.clearedSteps,
      deadLetters: this.deadLetters,
      projections: Array.from(this.projections.values(), (rows) => rows()).flat(),
    };
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
