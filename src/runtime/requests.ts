import type { Address } from '../protocol/address.ts';
import { CancelledError, fromFailure, TimeoutError, TroupeError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Envelope, EpochMs } from '../protocol/message.ts';
import type { Agenda, Appointment } from './agenda.ts';
import { ByCorrelation, type Linked } from './by-correlation.ts';
import type { EffectOutcome } from './effect-runner.ts';
import { RecentAnswers } from './message-counts.ts';

/** A request that waits for its answer, as its asker knows it. */
export interface Asked {
  readonly envelope: Envelope;
  readonly correlation: string;
  readonly attempt: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly durable: boolean;
  /** The attempt that its receiver has. */
  readonly sent: number;
  /** Whether its receiver is told when nobody waits any more. `aborted`: only if the signal says so. */
  readonly callsOff: 'always' | 'aborted' | 'never';
}

/** Somebody outside who waits for an answer. */
export class Waiter implements Appointment, Linked {
  readonly asked: Asked;
  readonly dueAt: EpochMs;
  readonly resolve: (reply: JsonValue) => void;
  readonly reject: (error: Error) => void;
  slot = -1;
  order = 0;
  next: this | undefined = undefined;
  forget: (() => void) | undefined = undefined;
  readonly #requests: Requests;

  constructor(
    requests: Requests,
    asked: Asked,
    resolve: (reply: JsonValue) => void,
    reject: (error: Error) => void,
  ) {
    this.#requests = requests;
    this.asked = asked;
    this.dueAt = asked.envelope.sentAt + asked.timeoutMs;
    this.resolve = resolve;
    this.reject = reject;
  }

  get correlation(): string {
    return this.asked.correlation;
  }

  due(): void {
    const { envelope, timeoutMs } = this.asked;
    const { to, message } = envelope;
    const error = new TimeoutError(
      `No answer from ${to} to "${message.type}" within ${timeoutMs} ms.`,
      { context: { address: to, timeoutMs } },
    );
    this.#requests.leave(this.asked, error);
  }
}

/** Somebody who waits before asking once more. */
interface Pause extends Appointment {
  readonly end: (error?: Error) => void;
}

/** The requests from outside that wait for an answer. Each ends exactly once. */
export class Requests {
  readonly #waiters = new ByCorrelation<Waiter>();
  readonly #pauses = new Set<Pause>();
  readonly #recent = new RecentAnswers();
  readonly #agenda: Agenda;
  /** Why nobody is answered any more. */
  #ended: Error | undefined;
  readonly #left: (asked: Asked) => void;

  /** @param left called when one's time is up or its signal is aborted, after it has failed: the receiver may want to know */
  constructor(agenda: Agenda, left: (asked: Asked) => void) {
    this.#agenda = agenda;
    this.#left = left;
  }

  get size(): number {
    return this.#waiters.size + this.#pauses.size;
  }

  open(asked: Asked): Promise<JsonValue> {
    return new Promise<JsonValue>((resolve, reject) => {
      const waiter = new Waiter(this, asked, resolve, reject);
      this.#waiters.add(waiter);
      this.#agenda.add(waiter);
      const { signal } = asked;
      if (signal !== undefined) {
        const onAbort = (): void => {
          const { to, message } = asked.envelope;
          this.leave(asked, cancelled(to, message.type, signal.reason));
        };
        signal.addEventListener('abort', onAbort, { once: true });
        waiter.forget = () => signal.removeEventListener('abort', onAbort);
      }
    });
  }

  /** Waits before the next attempt at a request. Ends early, with an error, when its signal is aborted or the host stops. */
  pause(to: Address, type: string, signal: AbortSignal | undefined, dueAt: EpochMs): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const onAbort = (): void => end(cancelled(to, type, signal?.reason));
      const end = (error?: Error): void => {
        if (!this.#pauses.delete(pause)) return;
        this.#agenda.remove(pause);
        signal?.removeEventListener('abort', onAbort);
        if (error === undefined) resolve();
        else reject(error);
      };
      const pause: Pause = { dueAt, slot: -1, order: 0, end, due: () => end() };
      this.#pauses.add(pause);
      this.#agenda.add(pause);
      signal?.addEventListener('abort', onAbort, { once: true });
      if (this.#ended !== undefined) end(this.#ended);
      else if (signal?.aborted === true) onAbort();
    });
  }

  /**
   * Passes an answer on.
   * @param attempt undefined: whatever it is
   * @returns false if nobody waits for it any more, or for an answer to another attempt
   */
  settle(correlation: string, attempt: number | undefined, outcome: EffectOutcome): boolean {
    const waiter = this.#take(correlation, attempt);
    if (waiter === undefined) return false;
    this.#recent.add(correlation);
    if (outcome.ok) waiter.resolve(outcome.output);
    else waiter.reject(fromFailure(outcome.failure));
    return true;
  }

  /** Ends an attempt at a request that will not be answered. @returns as `settle` */
  refuse(correlation: string, attempt: number, error: Error): boolean {
    const waiter = this.#take(correlation, attempt);
    waiter?.reject(error);
    return waiter !== undefined;
  }

  /** Ends a request whatever the attempt. @returns false if nobody waits for it any more */
  fail(correlation: string, error: Error): boolean {
    const waiter = this.#take(correlation, undefined);
    waiter?.reject(error);
    return waiter !== undefined;
  }

  /** Ends a request whose asker waits no longer. */
  leave(asked: Asked, error: Error): void {
    if (this.fail(asked.correlation, error)) this.#left(asked);
  }

  failAll(error: Error): void {
    this.#ended = error;
    for (const waiter of this.#waiters.all()) this.fail(waiter.correlation, error);
    for (const pause of [...this.#pauses]) pause.end(error);
  }

  /** Why an answer that nobody waits for is dropped. */
  whyDropped(correlation: string): 'duplicate' | 'late' {
    return this.#recent.reason(correlation);
  }

  #take(correlation: string, attempt: number | undefined): Waiter | undefined {
    const waiter = this.#waiters.get(correlation);
    if (waiter === undefined) return undefined;
    if (attempt !== undefined && waiter.asked.attempt !== attempt) return undefined;
    this.#waiters.delete(waiter);
    this.#agenda.remove(waiter);
    waiter.forget?.();
    return waiter;
  }
}

export function cancelled(to: Address, type: string, reason: unknown): TroupeError {
  if (reason instanceof TroupeError) return reason;
  return new CancelledError(`The request "${type}" to ${to} was called off.`, { cause: reason });
}
