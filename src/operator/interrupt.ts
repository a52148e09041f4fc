import { EXIT_CODES } from '../index.ts';

/** How a person, or the system, tells the command to end. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type EndSignal = (typeof SIGNALS)[number];

/** 128 + the number of the signal; a closed terminal counts as being told to end. */
const CODES: Readonly<Record<EndSignal, number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 143 };

/**
 * Listens for the signals that end the command, each more pressing than the one before: the first asks it to come to
 * an end, the second to abort what runs, the third ends the process where it stands. Until `dispose` no other signal
 * ends it.
 */
export class Interrupt {
  /** Resolves with the first signal. */
  readonly first: Promise<EndSignal>;
  /** Resolves with the second. */
  readonly second: Promise<EndSignal>;
  #signal: EndSignal | undefined;
  readonly #listeners: (readonly [EndSignal, () => void])[];

  /** @param end called with every signal from the third on; does not return */
  constructor(end: (exitCode: number) => void) {
    const first = Promise.withResolvers<EndSignal>();
    const second = Promise.withResolvers<EndSignal>();
    this.first = first.promise;
    this.second = second.promise;
    let count = 0;
    this.#listeners = SIGNALS.map((signal) => [
      signal,
      () => {
        this.#signal ??= signal;
        count += 1;
        if (count === 1) first.resolve(signal);
        else if (count === 2) second.resolve(signal);
        else end(this.exitCode);
      },
    ]);
    for (const [signal, listener] of this.#listeners) process.on(signal, listener);
  }

  get signal(): EndSignal | undefined {
    return this.#signal;
  }

  /** The exit code of a command that was interrupted. */
  get exitCode(): number {
    return this.#signal === undefined ? EXIT_CODES.unhandled : CODES[this.#signal];
  }

  dispose(): void {
    for (const [signal, listener] of this.#listeners) process.off(signal, listener);
  }
}
