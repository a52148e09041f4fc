import { ConfigurationError, TroupeError } from '../protocol/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';

/** Whoever waits to be registered is not silent: it says so, well within every heartbeat. */
const SAY_EVERY_MS = 60_000;

/**
 * Implementations by name: an agent's engine, a gatekeeper's function. A run that is resumed may need one before the
 * app has registered it again; then it waits, and says so.
 */
export class Registry<T> {
  readonly #what: string;
  readonly #entries = new Map<string, T>();
  readonly #waiting = new Map<string, Set<(entry: T) => void>>();
  readonly #onMissing: (what: string, name: string) => void;
  readonly #clock: Clock;

  constructor(what: string, onMissing: (what: string, name: string) => void, clock: Clock) {
    this.#what = what;
    this.#onMissing = onMissing;
    this.#clock = clock;
  }

  /** @throws {ConfigurationError} the name is taken */
  add(name: string, entry: T): void {
    if (this.#entries.has(name)) {
      throw new ConfigurationError(`The ${this.#what} "${name}" is registered already.`);
    }
    this.#entries.set(name, entry);
    for (const resolve of this.#waiting.get(name) ?? []) resolve(entry);
    this.#waiting.delete(name);
  }

  get(name: string): T | undefined {
    return this.#entries.get(name);
  }

  names(): readonly string[] {
    return [...this.#entries.keys()];
  }

  /**
   * The entry, at once or when it is registered. Rejects when the effect is aborted.
   * @param withinMs rejects also if it is not there after so long. Default: whoever needs it waits
   */
  whenReady(
    name: string,
    { signal, progress }: Pick<EffectContext, 'signal' | 'progress'>,
    withinMs?: number,
  ): Promise<T> {
    const entry = this.#entries.get(name);
    if (entry !== undefined) return Promise.resolve(entry);
    this.#onMissing(this.#what, name);
    return new Promise<T>((resolve, reject) => {
      const waiting = this.#waiting.get(name) ?? new Set();
      this.#waiting.set(name, waiting);
      let cancelNext = (): void => undefined;
      const say = (): void => {
        progress({ waitsFor: this.#what, name });
        cancelNext = this.#clock.setTimer(SAY_EVERY_MS, say, true);
      };
      let cancelLimit = (): void => undefined;
      const giveUp = (reason: Error): void => {
        cancelNext();
        cancelLimit();
        signal.removeEventListener('abort', onAbort);
        waiting.delete(ready);
        reject(reason);
      };
      const onAbort = (): void => giveUp(signal.reason as Error);
      const ready = (found: T): void => {
        cancelNext();
        cancelLimit();
        signal.removeEventListener('abort', onAbort);
        resolve(found);
      };
      waiting.add(ready);
      if (signal.aborted) {
        onAbort();
        return;
      }
      signal.addEventListener('abort', onAbort, { once: true });
      if (withinMs !== undefined) {
        cancelLimit = this.#clock.setTimer(withinMs, () =>
          giveUp(
            new TroupeError(
              'unavailable',
              `No ${this.#what} "${name}" was registered in ${withinMs} ms.`,
            ),
          ),
        );
      }
      say();
    });
  }
}
