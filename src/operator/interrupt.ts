import { type Clock, EXIT_CODES, systemClock, type Troupe } from '../index.ts';

/** How a person, or the system, tells the command to end. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type EndSignal = (typeof SIGNALS)[number];

/** 128 + the number of the signal; a closed terminal counts as being told to end. */
const CODES: Readonly<Record<EndSignal, number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 143 };

/**
 * Listens for the signals that end the command: the first one asks it to come to an end, any later one to do so at
 * once. Until `dispose` no signal ends the process by itself.
 */
export class Interrupt {
  /** Resolves with the first signal. */
  readonly first: Promise<EndSignal>;
  #signal: EndSignal | undefined;
  #onSecond: (() => void) | undefined;
  #impatient = false;
  readonly #listeners: (readonly [EndSignal, () => void])[];

  constructor() {
    let resolveFirst: (signal: EndSignal) => void = () => undefined;
    this.first = new Promise((resolve) => {
      resolveFirst = resolve;
    });
    this.#listeners = SIGNALS.map((signal) => [
      signal,
      () => {
        if (this.#signal === undefined) {
          this.#signal = signal;
          resolveFirst(signal);
        } else {
          this.#impatient = true;
          this.#onSecond?.();
        }
      },
    ]);
    for (const [signal, listener] of this.#listeners) process.on(signal, listener);
  }

  get signal(): EndSignal | undefined {
    return this.#signal;
  }

  /** @param listener called for the second signal, also if it has come already */
  onSecond(listener: () => void): void {
    this.#onSecond = listener;
    if (this.#impatient) listener();
  }

  /** The exit code of a command that was interrupted. */
  get exitCode(): number {
    return this.#signal === undefined ? EXIT_CODES.unhandled : CODES[this.#signal];
  }

  dispose(): void {
    for (const [signal, listener] of this.#listeners) process.off(signal, listener);
  }
}

/**
 * A clock that lets a grace period be cut short. `Troupe.stop` with `drain` sets one timer before it returns, the one
 * that ends the grace; when somebody does not want to wait that long, it is made to fire at once.
 */
export class DrainClock implements Clock {
  #graceSet: ((fire: () => void) => void) | undefined;

  now(): number {
    return systemClock.now();
  }

  setTimer(delayMs: number, callback: () => void, background?: boolean): () => void {
    const cancel = systemClock.setTimer(delayMs, callback, background);
    this.#graceSet?.(() => {
      cancel();
      callback();
    });
    return cancel;
  }

  /** Stops the runtime. @returns what cuts its grace short; harmless when it is over */
  drain(
    troupe: Troupe,
    graceMs: number,
  ): { readonly stopped: Promise<void>; readonly hurry: () => void } {
    const timers: (() => void)[] = [];
    this.#graceSet = (fire) => timers.push(fire);
    const stopped = troupe.stop({ drain: true, graceMs });
    this.#graceSet = undefined;
    let done = false;
    const hurry = (): void => {
      if (done) return;
      done = true;
      for (const fire of timers) fire();
    };
    return {
      stopped: stopped.finally(() => {
        done = true;
      }),
      hurry,
    };
  }
}
