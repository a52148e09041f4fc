import { ValidationError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { Clock } from '../runtime/clock.ts';
import { MAX_TIMER_MS } from '../runtime/clock.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import type { Step } from '../runtime/step.ts';
import type { Streams } from '../runtime/streams.ts';
import type { Store } from '../store/store.ts';
import { signalScope } from './compensation.ts';

/*
 * Signals to work that runs. One is a chunk in a stream of the task (`signal:<name>`): stored when its sender is told so,
 * in the order in which they came, whether anybody waits for it or not. Which signal an attempt was given is a step of
 * its journal: a restart of the attempt is given the same ones again, in the same order, and then those that follow.
 */

/** Something that was told to work while it runs. */
export interface Signal {
  readonly name: string;
  readonly value: JsonValue;
  /** When it was stored. */
  readonly at: EpochMs;
}

export interface NextSignalOptions {
  /** How long to wait for one, in milliseconds. It is kept: a restart does not begin it anew. Default: no limit of its own. */
  readonly timeoutMs?: number;
}

/** @returns the signal; null: none came in time, or the task has ended */
export type NextSignal = (name: string, options?: NextSignalOptions) => Promise<Signal | null>;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** @throws {ValidationError} */
export function checkSignalName(name: unknown): string {
  if (typeof name === 'string' && NAME.test(name)) return name;
  throw new ValidationError(
    `Expected the name of a signal to be 1 to 100 letters, digits, dots, dashes or underscores, got ${JSON.stringify(name)?.slice(0, 80) ?? String(name)}.`,
  );
}

export const signalStream = (name: string): string => `signal:${name}`;

/** A signal that was given to an attempt. */
type Given = { readonly offset: number; readonly at: EpochMs; readonly value: JsonValue };

/** @internal */
export interface SignalSource {
  readonly task: string;
  /** The journal of whoever is given them. */
  readonly scope: string;
  /** Of all who have worked on the task before. */
  readonly earlier: readonly string[];
  readonly context: Pick<EffectContext, 'stepsOf' | 'patiently'>;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly store: Pick<Store, 'loadSteps'>;
  readonly streams: Pick<Streams, 'read'>;
}

/** Gives an attempt its signals: each to one attempt, those of one name in their order. @internal */
export class SignalReceiver {
  readonly #source: SignalSource;
  readonly #step: Step;
  readonly #names = new Map<
    string,
    { asked: number; from: Promise<number>; last: Promise<unknown> }
  >();

  constructor(source: SignalSource) {
    this.#source = source;
    const { scope, context, signal } = source;
    this.#step = context.stepsOf(signalScope(scope), signal);
  }

  readonly next: NextSignal = (name, options = {}) => {
    checkSignalName(name);
    const { timeoutMs } = options;
    if (timeoutMs !== undefined && !(Number.isSafeInteger(timeoutMs) && timeoutMs >= 0)) {
      throw new ValidationError(
        `Expected timeoutMs of nextSignal("${name}") to be a number of milliseconds from 0, got ${String(timeoutMs)}.`,
      );
    }
    let state = this.#names.get(name);
    if (state === undefined) {
      state = { asked: 0, from: this.#firstOf(name), last: Promise.resolve() };
      this.#names.set(name, state);
    }
    const known = state;
    const number = ++known.asked;
    // One after the other: who asks first is given the first.
    const given = known.last.then(async () => {
      const found = await this.#given(name, number, await known.from, timeoutMs);
      if (found !== null) known.from = Promise.resolve(found.offset + 1);
      return found === null ? null : { name, value: found.value, at: found.at };
    });
    known.last = given.catch(() => undefined);
    return given;
  };

  async *all(name: string): AsyncGenerator<Signal, void, undefined> {
    for (;;) {
      const signal = await this.next(name);
      if (signal === null) return;
      yield signal;
    }
  }

  async #given(
    name: string,
    number: number,
    from: number,
    timeoutMs: number | undefined,
  ): Promise<Given | null> {
    const { clock, context } = this.#source;
    const key = `${name} ${number}`;
    const dueAt =
      timeoutMs === undefined
        ? undefined
        : await this.#step('due', { key }, () => clock.now() + timeoutMs);
    return await this.#step('signal', { key }, () =>
      context.patiently(() => this.#wait(name, from, dueAt)),
    );
  }

  async #wait(name: string, from: number, dueAt: number | undefined): Promise<Given | null> {
    const { clock, signal, streams, task } = this.#source;
    const limit = new AbortController();
    const cancel =
      dueAt === undefined
        ? (): void => undefined
        : clock.setTimer(Math.min(MAX_TIMER_MS, Math.max(0, dueAt - clock.now())), () =>
            limit.abort(),
          );
    try {
      const reading = streams.read(task as never, {
        name: signalStream(name),
        from,
        signal: AbortSignal.any([signal, limit.signal]),
      });
      for await (const { offset, at, value } of reading) return { offset, at, value };
      return null;
    } catch (error) {
      if (limit.signal.aborted && !signal.aborted) return null;
      throw error;
    } finally {
      cancel();
    }
  }

  /** After those that earlier attempts were given. */
  async #firstOf(name: string): Promise<number> {
    const { earlier, store } = this.#source;
    let from = 0;
    for (const scope of earlier) {
      for (const { key, outcomeJson } of await store.loadSteps(signalScope(scope))) {
        if (!key.startsWith(`signal[${name} `)) continue;
        const given = JSON.parse(outcomeJson) as Given | null;
        if (given !== null) from = Math.max(from, given.offset + 1);
      }
    }
    return from;
  }
}
