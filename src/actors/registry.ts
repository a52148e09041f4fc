import { ConfigurationError } from '../protocol/errors.ts';

/**
 * Implementations by name: an agent's engine, a gatekeeper's function. A run that is resumed may need one before the
 * app has registered it again; then it waits, and says so.
 */
export class Registry<T> {
  readonly #what: string;
  readonly #entries = new Map<string, T>();
  readonly #waiting = new Map<string, ((entry: T) => void)[]>();
  readonly #onMissing: (what: string, name: string) => void;

  constructor(what: string, onMissing: (what: string, name: string) => void) {
    this.#what = what;
    this.#onMissing = onMissing;
  }

  /** @throws {ConfigurationError} the name is taken */
  add(name: string, entry: T): void {
    if (this.#entries.has(name)) {
      throw new ConfigurationError(`There is a ${this.#what} named "${name}" already.`);
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

  /** The entry, at once or when it is registered. Rejects when the signal is aborted. */
  whenReady(name: string, signal: AbortSignal): Promise<T> {
    const entry = this.#entries.get(name);
    if (entry !== undefined) return Promise.resolve(entry);
    this.#onMissing(this.#what, name);
    return new Promise<T>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      const waiting = this.#waiting.get(name) ?? [];
      waiting.push(resolve);
      this.#waiting.set(name, waiting);
    });
  }
}
