import type { Address } from '../protocol/address.ts';
import { CancelledError, fromFailure, TimeoutError, TroupeError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { Agenda, Appointment } from './agenda.ts';
import type { EffectOutcome } from './effect-runner.ts';
import { RecentAnswers } from './message-counts.ts';

/** A request that waits for its answer, as its asker knows it. */
export interface Asked {
  readonly correlation: string;
  readonly attempt: number;
  readonly to: Address;
  readonly type: string;
  readonly timeoutMs: number;
  readonly dueAt: EpochMs;
  readonly signal: AbortSignal | undefined;
  /** Called when its time is up or its signal is aborted, after it has failed: the receiver may want to know. */
  readonly left: (() => void) | undefined;
}

/** Somebody outside who waits for an answer. */
class Waiter implements Appointment {
  readonly asked: Asked;
  readonly dueAt: EpochMs;
  readonly resolve: (reply: JsonValue) => void;
  readonly reject: (error: Error) => void;
  slot = -1;
  order = 0;
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
    this.dueAt = asked.dueAt;
    this.resolve = resolve;
    this.reject = reject;
  }

  due(): void {
    const { to, type, timeoutMs, correlation, left } = this.asked;
    const error = new TimeoutError(`No answer from ${to} to "${type}" within ${timeoutMs} ms.`, {
      context: { address: to, timeoutMs },
    });
    if (this.#requests.fail(correlation, error)) left?.();
  }
}

/** Somebody who waits before asking once more. */
interface Pause extends Appointment {
  readonly end: (error?: Error) => void;
}

/** The requests from outside that wait for an answer. Each ends exactly once. */
export class Requests {
  readonly #waiters = new Map<string, Waiter>();
  readonly #pauses = new Set<Pause>();
  readonly #recent = new RecentAnswers();
  readonly #agenda: Agenda;

  constructor(agenda: Agenda) {
    this.#agenda = agenda;
  }

  get size(): number {
    return this.#waiters.size + this.#pauses.size;
  }

  open(asked: Asked): Promise<JsonValue> {
    return new Promise<JsonValue>((resolve, reject) => {
      const waiter = new Waiter(this, asked, resolve, reject);
      const { correlation, to, type, signal, left } = asked;
      this.#waiters.set(correlation, waiter);
      this.#agenda.add(waiter);
      if (signal !== undefined) {
        const onAbort = (): void => {
          if (this.fail(correlation, cancelled(to, type, signal.reason))) left?.();
        };
        signal.addEventListener('abort', onAbort, { once: true });
        waiter.forget = () => signal.removeEventListener('abort', onAbort);
      }
    });
  }

  /** Waits before the next attempt at a request. Ends early, with an error, when its signal is aborted or the host stops. */
  pause(
    { to, type, signal }: Pick<Asked, 'to' | 'type' | 'signal'>,
    dueAt: EpochMs,
  ): Promise<void> {
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
      if (signal?.aborted === true) onAbort();
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

  failAll(error: Error): void {
    for (const correlation of [...this.#waiters.keys()]) this.fail(correlation, error);
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
    this.#waiters.delete(correlation);
    this.#agenda.remove(waiter);
    waiter.forget?.();
    return waiter;
  }
}

export function cancelled(to: Address, type: string, reason: unknown): TroupeError {
  if (reason instanceof TroupeError) return reason;
  return new CancelledError(`The request "${type}" to ${to} was called off.`, { cause: reason });
}
