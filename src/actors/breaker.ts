import { z } from 'zod';
import type { BreakerContext, BreakerSettings } from '../machines/breaker-machine.ts';
import { breakerAddress, nameOf } from '../protocol/address.ts';
import {
  BreakerOpenError,
  CancelledError,
  ConfigurationError,
  NotFoundError,
} from '../protocol/errors.ts';
import type { Message } from '../protocol/message.ts';
import type { DurableHost } from '../runtime/durable-host.ts';
import type { Store } from '../store/store.ts';

/** How a circuit breaker stands. */
export interface BreakerStatus {
  readonly key: string;
  /** `open`: what it guards is not asked. `halfOpen`: one call at a time tries whether it is over. */
  readonly state: 'closed' | 'open' | 'halfOpen';
  /** Failures in a row, while it is closed. */
  readonly failures: number;
  /** How often it has opened. */
  readonly opened: number;
  /** When an open one is tried again; null for one that is not. */
  readonly openUntil: number | null;
  readonly settings: Required<BreakerSettings>;
}

const settingsSchema = z.strictObject({
  failures: z.int().min(1).optional(),
  openMs: z.int().min(1).optional(),
  successes: z.int().min(1).optional(),
});

/** @throws {ConfigurationError} an option that is unknown or out of range */
export function parseBreakerSettings(whose: string, settings: BreakerSettings): BreakerSettings {
  const parsed = settingsSchema.safeParse(settings);
  if (parsed.success) return settings;
  const issue = parsed.error.issues[0];
  const where = issue?.path.map(String).join('.') || 'it';
  throw new ConfigurationError(
    `Expected ${whose} to be such as { failures: 10, openMs: 5000, successes: 3 }, positive integers: ${where}: ${issue?.message ?? 'does not fit'}.`,
  );
}

/** @throws {NotFoundError} */
function breakerStatus(
  key: string,
  stored: { readonly value: unknown; readonly context: unknown } | undefined,
): BreakerStatus {
  if (stored === undefined) throw new NotFoundError(`There is no circuit breaker "${key}".`);
  const state = stored.value as BreakerStatus['state'];
  const context = stored.context as BreakerContext;
  return {
    key,
    state,
    failures: context.failures,
    opened: context.opened,
    openUntil: state === 'open' ? (context.openUntil ?? null) : null,
    settings: {
      failures: context.maxFailures,
      openMs: context.openMs,
      successes: context.wantedSuccesses,
    },
  };
}

/** All that are stored, by their keys. */
export async function listBreakers(
  store: Pick<Store, 'listActors' | 'listCheckpoints'>,
): Promise<readonly BreakerStatus[]> {
  const breakers: BreakerStatus[] = [];
  for (const { address, seq } of await store.listActors({ kind: 'breaker' })) {
    const [last] = await store.listCheckpoints(address, { fromSeq: seq });
    if (last === undefined) continue;
    breakers.push(breakerStatus(nameOf(address), JSON.parse(last.snapshotJson)));
  }
  return breakers.toSorted((a, b) => (a.key < b.key ? -1 : 1));
}

/**
 * A circuit breaker: a durable actor at `breaker/<key>` that stops calls to what keeps failing, and tries one at a time
 * when some time has passed. Its state survives restarts. The breaker of an agent, `agent/<name>`, is told by the agent.
 */
export class Breaker {
  readonly key: string;
  readonly #host: DurableHost;
  readonly #ready: () => Promise<void>;

  /** @internal Use `troupe.breaker`. */
  constructor(key: string, host: DurableHost, ready: () => Promise<void>) {
    this.key = key;
    this.#host = host;
    this.#ready = ready;
  }

  /** @throws {NotFoundError} it is an agent's, and there never was such an agent */
  async status(): Promise<BreakerStatus> {
    await this.#ready();
    await this.#host.flush();
    const known = await this.#host.inspect(breakerAddress(this.key));
    return breakerStatus(this.key, known?.snapshot);
  }

  /** Closes it, whatever has happened. @throws {NotFoundError} as `status` */
  async reset(by = 'app'): Promise<BreakerStatus> {
    await this.status();
    await this.#send({ type: 'breaker.reset', by });
    // In turn: when this is answered the reset is done, and stored.
    await this.#admission();
    return await this.status();
  }

  /**
   * Makes a call, unless the breaker is open, and records how it went. A call that is called off (CancelledError, or an
   * AbortError) says nothing either way.
   * @param isFailure which errors speak against what is called. Default: all
   * @throws {BreakerOpenError} the call was not made
   * @throws what the call throws
   */
  async run<T>(
    call: () => Promise<T> | T,
    isFailure: (error: unknown) => boolean = () => true,
  ): Promise<T> {
    await this.#ready();
    const { admitted, state, permit, retryAfterMs } = await this.#admission();
    if (!admitted) throw new BreakerOpenError(this.key, state as 'open', retryAfterMs);
    const record = (outcome: 'success' | 'failure'): Promise<void> =>
      this.#send({ type: 'breaker.record', outcome, permit });
    let result: T;
    try {
      result = await call();
    } catch (error) {
      if (!isCancelled(error)) await record(isFailure(error) ? 'failure' : 'success');
      throw error;
    }
    await record('success');
    return result;
  }

  #send(message: Message): Promise<void> {
    return this.#host.send(breakerAddress(this.key), message);
  }

  async #admission() {
    const asked = this.#host.request(breakerAddress(this.key), { type: 'breaker.admit' });
    return (await asked) as {
      readonly admitted: boolean;
      readonly state: BreakerStatus['state'];
      readonly permit: number;
      readonly retryAfterMs: number;
    };
  }
}

const isCancelled = (error: unknown): boolean =>
  error instanceof CancelledError || (error instanceof Error && error.name === 'AbortError');
