import { ConfigurationError } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import { ignoreRejection } from './ignore-rejection.ts';
import type { PersistedSnapshot } from './xstate-driver.ts';

/** A stored state of a machine whose context is known. */
export type StateWith<Context extends JsonObject> = Omit<PersistedSnapshot, 'context'> & {
  readonly context: Context;
  /** The state's name, or an object of names for nested and parallel states. */
  readonly value: JsonValue;
};

type Step = (state: StateWith<JsonObject>) => PersistedSnapshot;

/** How stored states of older versions become states of today's: one step from each version to the next. */
export class Migrations<Context extends JsonObject = JsonObject> {
  /** The oldest version that is understood. */
  readonly from: number;
  readonly #steps: readonly Step[];

  /** @internal Use `migrations`. */
  constructor(from: number, steps: readonly Step[]) {
    this.from = from;
    this.#steps = steps;
  }

  /** The version that the last step leads to. */
  get version(): number {
    return this.from + this.#steps.length;
  }

  /**
   * Adds the step to the next version. It must be pure; it may change the state's name, its context, the names of its
   * effects (`children`) and its history, and must return a state of the next version's machine.
   */
  to<Next extends JsonObject>(
    step: (state: StateWith<Context>) => StateWith<Next>,
  ): Migrations<Next> {
    return new Migrations<Next>(this.from, [...this.#steps, step as unknown as Step]);
  }

  /**
   * @param check called with what each step returns, and with what to call the step
   * @throws whatever a step throws
   */
  apply(
    snapshot: PersistedSnapshot,
    version: number,
    check: (value: unknown, step: string) => PersistedSnapshot,
  ): PersistedSnapshot {
    let state = snapshot;
    for (let at = version; at < this.version; at++) {
      const step = this.#steps[at - this.from];
      if (step === undefined) {
        throw new ConfigurationError(
          `There is no migration from version ${at}: they begin at version ${this.from}.`,
        );
      }
      const migrated: unknown = step(state);
      ignoreRejection(migrated);
      state = check(migrated, `the migration from version ${at} to ${at + 1}`);
    }
    return state;
  }
}

/**
 * Begins a chain of migrations at the oldest version that is to be understood (default 1):
 * `migrations<InboxV1>().to<InboxV2>((state) => …).to<Inbox>((state) => …)`.
 * @throws {ConfigurationError} `from` is not a positive integer
 */
export function migrations<Context extends JsonObject>(from = 1): Migrations<Context> {
  if (Number.isSafeInteger(from) && from >= 1) return new Migrations<Context>(from, []);
  throw new ConfigurationError(
    `Expected migrations to begin at a version that is a positive integer, got ${String(from)}.`,
  );
}
