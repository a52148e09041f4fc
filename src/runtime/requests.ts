import type { Address } from '../protocol/address.ts';
import { CancelledError, fromFailure, TimeoutError, TroupeError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { Agenda, Appointment } from './agenda.ts';
import type { EffectOutcome } from './effect-runner.ts';

/** Somebody outside who waits for an answer. */
class Waiter implements Appointment {
  readonly correlation: string;
  readonly to: Address;
  readonly type: string;
  readonly timeoutMs: number;
  readonly dueAt: EpochMs;
  readonly resolve: (reply: JsonValue) => void;
  readonly reject: (error: Error) => void;
  slot = -1;
  order = 0;
  forget: (() => void) | undefined = undefined;
  readonly #requests: Requests;

  constructor(
    requests: Requests,
    correlation: string,
    to: Address,
    type: string,
    timeoutMs: number,
    dueAt: EpochMs,
    resolve: (reply: JsonValue) => void,
    reject: (error: Error) => void,
  ) {
    this.#requests = requests;
    this.correlation = correlation;
    this.to = to;
    this.type = type;
    this.timeoutMs = timeoutMs;
    this.dueAt = dueAt;
    this.resolve = resolve;
    this.reject = reject;
  }

  due(): void {
    this.#requests.fail(
      this.correlation,
      new TimeoutError(`No answer from ${this.to} to "${this.type}" within ${this.timeoutMs} ms.`, {
        context: { address: this.to, timeoutMs: this.timeoutMs },
      }),
    );
  }
}

/** The requests from outside that wait for an answer. Each ends exactly once. */
export class Requests {
  readonly #waiters = new Map<string, Waiter>();
  readonly #agenda: Agenda;

  constructor(agenda: Agenda) {
    this.#agenda = agenda;
  }

  get size(): number {
    return this.#waiters.size;
  }

  open(
    correlation: string,
    to: Address,
    type: string,
    timeoutMs: number,
    dueAt: EpochMs,
    signal: AbortSignal | undefined,
  ): Promise<JsonValue> {
    return new Promise<JsonValue>((resolve, reject) => {
      const waiter = new Waiter(this, correlation, to, type, timeoutMs, dueAt, resolve, reject);
      this.#waiters.set(correlation, waiter);
      this.#agenda.add(waiter);
      if (signal !== undefined) {
        const onAbort = (): void => {
          this.fail(correlation, cancelled(to, type, signal.reason));
        };
        signal.addEventListener('abort', onAbort, { once: true });
        waiter.forget = () => signal.removeEventListener('abort', onAbort);
      }
    });
  }

  /** Passes an answer on. @returns false if nobody waits for it any more */
  settle(correlation: string, outcome: EffectOutcome): boolean {
    const waiter = this.#take(correlation);
    if (waiter === undefined) return false;
    if (outcome.ok) waiter.resolve(outcome.output);
    else waiter.reject(fromFailure(outcome.failure));
    return true;
  }

  /** Ends a request that will not be answered. @returns false if nobody waits for it any more */
  fail(correlation: string, error: Error): boolean {
    const waiter = this.#take(correlation);
    waiter?.reject(error);
    return waiter !== undefined;
  }

  failAll(error: Error): void {
    for (const correlation of [...this.#waiters.keys()]) this.fail(correlation, error);
  }

  #take(correlation: string): Waiter | undefined {
    const waiter = this.#waiters.get(correlation);
    if (waiter === undefined) return undefined;
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
