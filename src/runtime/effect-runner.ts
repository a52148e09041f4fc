import { CancelledError, type Failure, TimeoutError, toFailure } from '../protocol/errors.ts';
import type { FaultPoint } from '../protocol/fault-point.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { EffectRecord } from '../store/store.ts';
import type { Clock } from './clock.ts';
import type { EffectCreator } from './xstate-driver.ts';

/** What an effect's function is called with. */
export interface EffectContext<Input = JsonValue> {
  readonly input: Input;
  /** The actor that invoked it. */
  readonly address: string;
  /** The same for every restart of this effect, different for every other: hand it to services that de-duplicate. */
  readonly key: string;
  /** 1 for the first start; more after a crash. */
  readonly attempt: number;
  /** Aborted when the state is left, the time is up, or the runtime stops. */
  readonly signal: AbortSignal;
  /**
   * Runs `fn` once and keeps its result: when the effect is restarted, a step that had finished returns what it
   * returned. Keys are the names, numbered when a name is used again (`name`, `name#2`, …).
   * Crash: a step that was running when the process died runs again.
   */
  step<T extends JsonValue>(name: string, fn: () => Promise<T> | T): Promise<T>;
  /** The same, kept under a scope that outlives this effect (for example one attempt at a task). */
  stepsOf(
    scope: string,
  ): <T extends JsonValue>(name: string, fn: () => Promise<T> | T) => Promise<T>;
  /** Says that it is alive, and what it does. Seen by observers; not stored. */
  progress(value: JsonValue): void;
}

/** How an effect ended. */
export type EffectOutcome =
  | { readonly ok: true; readonly output: JsonValue }
  | { readonly ok: false; readonly failure: Failure };

/** An effect as the runner sees it: its row, which is rewritten at every start. */
export interface Runnable {
  record: EffectRecord;
}

/** What the runner needs of the host. */
export interface EffectHost<E extends Runnable> {
  readonly clock: Clock;
  readonly faultPoint: FaultPoint;
  /** An effect that has waited for a place may start. @returns false if it is not wanted any more */
  starting(effect: E): Promise<boolean>;
  loadSteps(scope: string): Promise<ReadonlyMap<string, JsonValue>>;
  /** Resolves when the step is stored; rejects when its effect is not wanted any more, and nothing is kept. */
  saveStep(effect: E, scope: string, key: string, outcome: JsonValue): Promise<void>;
  ended(effect: E, outcome: EffectOutcome): void;
  progressed(effect: E, value: JsonValue): void;
}

export interface EffectLimits {
  /** Effects running at once in this runtime; the rest waits its turn. */
  readonly concurrency: number;
  /** An effect that reports no progress and finishes no step for so long is aborted. 0: never. */
  readonly heartbeatMs: number;
}

interface Running<E extends Runnable> {
  readonly effect: E;
  readonly controller: AbortController;
  readonly settled: Promise<void>;
  cancelHeartbeat: () => void;
  /** Its state was left: whatever it does from now on changes nothing. */
  abandoned: boolean;
}

/** The same for every start of an effect, different for every other. Also the scope of its own steps. */
export const effectKey = (effect: {
  readonly address: string;
  readonly generation: string;
}): string => `${effect.address}!${effect.generation}`;

/**
 * Runs effects: at most so many at once, each with a signal, steps and a heartbeat. Their outcome goes to the host.
 *
 * A place is taken before the start is stored (`reserve`, then `launch` after the commit), so that the row of an
 * effect says "started" only if nothing but a crash can come between. One that finds no place waits (`enqueue`).
 */
export class EffectRunner<E extends Runnable> {
  readonly #host: EffectHost<E>;
  readonly #limits: EffectLimits;
  readonly #running = new Map<E, Running<E>>();
  readonly #waiting = new Map<E, EffectCreator>();
  #reserved = 0;
  #accepting = true;

  constructor(host: EffectHost<E>, limits: EffectLimits) {
    this.#host = host;
    this.#limits = limits;
  }

  get running(): number {
    return this.#running.size;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Takes a place for one effect, if there is one and nobody waits for it. */
  reserve(): boolean {
    if (!this.#hasPlace() || this.#waiting.size > 0) return false;
    this.#reserved++;
    return true;
  }

  /** Gives a reserved place back. */
  release(): void {
    this.#reserved--;
    this.#next();
  }

  /** Starts an effect in a reserved place. @returns false when the runner is closed */
  launch(effect: E, create: EffectCreator): boolean {
    this.#reserved--;
    if (!this.#accepting) return false;
    this.#launch(effect, create);
    return true;
  }

  /** Starts an effect when there is a place. */
  enqueue(effect: E, create: EffectCreator): void {
    if (!this.#accepting) return;
    this.#waiting.set(effect, create);
    this.#next();
  }

  /** Aborts it, or takes it from the queue. Its outcome, if it still comes, is dropped. */
  abort(effect: E, reason: string): void {
    this.#waiting.delete(effect);
    const running = this.#running.get(effect);
    if (running === undefined) return;
    running.abandoned = true;
    running.controller.abort(new CancelledError(reason));
  }

  /** Starts nothing more; what waits stays stored and starts with the next runtime. */
  close(): void {
    this.#accepting = false;
    this.#waiting.clear();
  }

  /** Aborts everything that runs. Its outcome is not delivered: the next runtime runs it again. */
  abortAll(reason: string): void {
    for (const running of this.#running.values()) {
      running.abandoned = true;
      running.controller.abort(new CancelledError(reason));
    }
  }

  /** Resolves when nothing runs any more. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) {
      await Promise.all(Array.from(this.#running.values(), (running) => running.settled));
    }
  }

  #hasPlace(): boolean {
    return this.#accepting && this.#running.size + this.#reserved < this.#limits.concurrency;
  }

  #next(): void {
    while (this.#hasPlace()) {
      const next = this.#waiting.entries().next().value;
      if (next === undefined) return;
      const [effect, create] = next;
      this.#waiting.delete(effect);
      this.#reserved++;
      this.#host.starting(effect).then(
        (wanted) => {
          if (wanted) this.launch(effect, create);
          else this.release();
        },
        // The host has failed: nothing starts any more.
        () => this.release(),
      );
    }
  }

  #launch(effect: E, create: EffectCreator): void {
    const { promise: settled, resolve: settle } = Promise.withResolvers<void>();
    const running: Running<E> = {
      effect,
      controller: new AbortController(),
      settled,
      cancelHeartbeat: () => undefined,
      abandoned: false,
    };
    this.#running.set(effect, running);
    this.#beat(running);
    void this.#run(running, create).then((outcome) => {
      running.cancelHeartbeat();
      this.#running.delete(effect);
      if (!running.abandoned) this.#host.ended(effect, outcome);
      settle();
      this.#next();
    });
  }

  async #run(running: Running<E>, create: EffectCreator): Promise<EffectOutcome> {
    const { controller, effect } = running;
    const { record } = effect;
    const key = effectKey(record);
    try {
      await this.#host.faultPoint('effect.before-start');
      const input = JSON.parse(record.inputJson) as JsonValue;
      const journals = new Map<string, ReturnType<EffectContext['stepsOf']>>();
      const stepsOf: EffectContext['stepsOf'] = (scope) => {
        let journal = journals.get(scope);
        if (journal === undefined) {
          journal = this.#journal(running, scope);
          journals.set(scope, journal);
        }
        return journal;
      };
      const context: EffectContext = {
        input,
        address: record.address,
        key,
        attempt: record.attempt,
        signal: controller.signal,
        step: (name, fn) => stepsOf(key)(name, fn),
        stepsOf,
        progress: (value) => {
          this.#beat(running);
          this.#host.progressed(effect, value);
        },
      };
      const output: unknown = await settledOrLeftBehind(
        Promise.resolve(
          create({ ...context, self: undefined, system: undefined, emit: () => undefined }),
        ),
        controller.signal,
        this.#host.clock,
      );
      await this.#host.faultPoint('effect.after-end');
      const value = (output ?? null) as JsonValue;
      const problem = findNonJson(value, 'output');
      if (problem) {
        return {
          ok: false,
          failure: {
            code: 'internal',
            message: `The effect "${record.src}" must return plain JSON, but ${problem.path} is ${problem.found}.`,
            retryable: false,
          },
        };
      }
      return { ok: true, output: value };
    } catch (error) {
      return { ok: false, failure: failureOf(error) };
    }
  }

  #journal(running: Running<E>, scope: string): ReturnType<EffectContext['stepsOf']> {
    const { effect, controller } = running;
    const used = new Map<string, number>();
    let known: Promise<ReadonlyMap<string, JsonValue>> | undefined;
    return async <T extends JsonValue>(name: string, fn: () => Promise<T> | T): Promise<T> => {
      const use = (used.get(name) ?? 0) + 1;
      used.set(name, use);
      const key = use === 1 ? name : `${name}#${use}`;
      controller.signal.throwIfAborted();
      known ??= this.#host.loadSteps(scope);
      const kept = (await known).get(key);
      if (kept !== undefined) return kept as T;
      const result = ((await fn()) ?? null) as T;
      const problem = findNonJson(result, `step "${key}"`);
      if (problem) {
        throw new TypeError(
          `The result of a step must be plain JSON, but ${problem.path} is ${problem.found}.`,
        );
      }
      await this.#host.faultPoint('step.before-save');
      // Also when the time is up or the runtime stops: what is done need not be done again.
      await this.#host.saveStep(effect, scope, key, result);
      this.#beat(running);
      controller.signal.throwIfAborted();
      return result;
    };
  }

  #beat(running: Running<E>): void {
    running.cancelHeartbeat();
    // What was left behind may still finish a step; nobody waits for its next sign of life.
    const ended = this.#running.get(running.effect) !== running;
    if (ended || this.#limits.heartbeatMs === 0) return;
    const { record } = running.effect;
    running.cancelHeartbeat = this.#host.clock.setTimer(
      this.#limits.heartbeatMs,
      () =>
        running.controller.abort(
          new TimeoutError(
            `The effect "${record.src}" of ${record.address} showed no sign of life for ${this.#limits.heartbeatMs} ms.`,
          ),
        ),
      true,
    );
  }
}

/** A failure that can be stored: an error may carry facts that are not JSON. */
function failureOf(error: unknown): Failure {
  const { context, ...failure } = toFailure(error);
  if (context === undefined || findNonJson(context) !== undefined) return failure;
  return { ...failure, context };
}

/** How long an aborted effect may take to put away what it holds (processes, files) before it is left behind. */
export const ABORT_GRACE_MS = 5_000;

/**
 * Settles with the promise. Once the signal is aborted, waits for it a while longer, so that an effect that
 * obeys its signal has ended its processes before anybody goes on; one that does not is left behind.
 */
function settledOrLeftBehind<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  clock: Clock,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let cancelGrace = (): void => undefined;
    const onAbort = (): void => {
      cancelGrace = clock.setTimer(ABORT_GRACE_MS, () => reject(signal.reason as Error));
    };
    const done = (): void => {
      cancelGrace();
      signal.removeEventListener('abort', onAbort);
    };
    promise.then(
      (value) => {
        done();
        // Work that was called off did not happen, whatever it says.
        if (signal.aborted) reject(signal.reason as Error);
        else resolve(value);
      },
      (error: unknown) => {
        done();
        reject((signal.aborted ? signal.reason : error) as Error);
      },
    );
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
