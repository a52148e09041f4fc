import { CancelledError, LockConflictError, ValidationError } from '../protocol/errors.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { LeaseRow, Store } from '../store/store.ts';
import { type Clock, MAX_TIMER_MS } from './clock.ts';

/** The time to live of a lease unless its holder says otherwise: catalogue C5. */
const TTL_MS = 60_000;
/** A held lease is renewed when a third of its time is over, so that two renewals may be late. */
const RENEWALS_PER_TTL = 3;
const MAX_NAME = 500;

export interface LeaseOptions {
  /** Who asks, for others to read. Default: `app`. */
  readonly holder?: string;
  /** How long it is held unless extended, in milliseconds. Default 60 000. */
  readonly ttlMs?: number;
  /** How long to wait for it while somebody else holds it, in milliseconds. Default 0. */
  readonly waitMs?: number;
  /** Aborts the wait. */
  readonly signal?: AbortSignal;
}

/** What a write is fenced with: see `SendOptions.fence`. */
export interface Fence {
  readonly name: string;
  readonly token: number;
}

/** The right to something, held for a time by one at a time. */
export interface Lease extends Fence {
  readonly holder: string;
  /**
   * Greater than that of every holder before. Pass it on with each write to what the lease protects, so that a
   * holder that was frozen past its time is refused there: `send(…, { fence: lease })` does.
   */
  readonly token: number;
  /** Milliseconds since 1970. */
  readonly expiresAt: EpochMs;
  /** Aborted when it expires or is let go of. */
  readonly signal: AbortSignal;
  /**
   * Holds it `ttlMs` (default: as acquired) from now.
   * @throws {LockConflictError} it has expired or was let go of
   */
  extend(ttlMs?: number): Promise<void>;
  /** Idempotent. */
  release(): Promise<void>;
}

/**
 * Leases by name, for what the store cannot protect itself: a port, a deployment, a file.
 *
 * Their rows say who holds what, and keep the tokens growing. A store has one owner, so that all who ask for leases
 * ask here: whoever waits is told by the one who lets go, nobody polls. When the owner dies its leases end with it:
 * the next one need not wait for them to expire.
 */
export class Leases {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #held = new Map<string, HeldLease>();
  /** By name, first come first served. */
  readonly #waiting = new Map<string, (() => void)[]>();
  #closed: Error | undefined;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /**
   * @throws {LockConflictError} somebody else holds it, also after `waitMs`; the message says who
   * @throws {ValidationError} a malformed name or time
   * @throws {CancelledError} `signal` was aborted
   */
  async acquire(name: string, options: LeaseOptions = {}): Promise<Lease> {
    const { holder = 'app', ttlMs = TTL_MS, waitMs = 0, signal } = options;
    requireName('the name of a lease', name);
    requireName('the holder of a lease', holder);
    requireMs('ttlMs', ttlMs, 1);
    requireMs('waitMs', waitMs, 0);
    const until = this.#clock.now() + waitMs;
    for (;;) {
      if (this.#closed !== undefined) throw this.#closed;
      if (signal?.aborted === true) throw cancelled(name, signal);
      const now = this.#clock.now();
      const { acquired, lease } = await this.#store.acquireLease({ name, holder, now, ttlMs });
      // It ended meanwhile, and its leases with it: whoever waited now would never be woken.
      if (this.#closed !== undefined) throw this.#closed;
      if (acquired) return this.#hold(lease, ttlMs);
      if (this.#clock.now() >= until) throw heldBySomebody(lease);
      await this.#wait(lease, until, signal);
    }
  }

  /**
   * Calls `fn` while the lease is held and renewed. If it is lost all the same (the process stood still, or the store
   * failed), its signal is aborted; what `fn` then returns is not believed.
   * @throws {LockConflictError} it could not be had, or was lost
   */
  async withLease<T>(
    name: string,
    fn: (lease: Lease) => Promise<T> | T,
    options: LeaseOptions = {},
  ): Promise<T> {
    const lease = (await this.acquire(name, options)) as HeldLease;
    lease.keepRenewing();
    try {
      const result = await fn(lease);
      this.assertHeld(lease);
      return result;
    } finally {
      await lease.release();
    }
  }

  /**
   * Whether a write may be made in the name of a lease. Synchronous: nothing can come between it and the write.
   * @throws {LockConflictError} the lease has expired, was let go of, or somebody else has it
   * @throws {ValidationError} it is no fence: its name or its token is missing
   */
  assertHeld(fence: Fence): void {
    const { name, token } = requireFence(fence);
    const held = this.#held.get(name);
    // The timer that ends it may be late: after a stop of the whole process it is.
    if (held !== undefined && held.expiresAt <= this.#clock.now()) held.end();
    const now = this.#held.get(name);
    if (now?.token === token) return;
    const who =
      now === undefined ? 'nobody holds it' : `"${now.holder}" holds it (token ${now.token})`;
    throw new LockConflictError(
      `The lease "${name}" with token ${token} is over: ${who}. The write was refused; acquire the lease again, and look before you go on.`,
      { retryable: false, context: { lease: name, token } },
    );
  }

  /** Those that are held now, by name. */
  async list(): Promise<readonly LeaseRow[]> {
    return await this.#store.listLeases(this.#clock.now());
  }

  /** The runtime ends: its leases are over, and nobody gets one any more. */
  close(error: Error): void {
    this.#closed ??= error;
    for (const lease of [...this.#held.values()]) lease.end();
    for (const waiting of this.#waiting.values()) for (const wake of waiting) wake();
    this.#waiting.clear();
  }

  #hold(row: LeaseRow, ttlMs: number): HeldLease {
    const lease = new HeldLease(row, ttlMs, this.#store, this.#clock, () => {
      if (this.#held.get(row.name) === lease) this.#held.delete(row.name);
      this.#next(row.name);
    });
    this.#held.get(row.name)?.end();
    this.#held.set(row.name, lease);
    if (this.#closed !== undefined) lease.end();
    return lease;
  }

  #next(name: string): void {
    const waiting = this.#waiting.get(name);
    const wake = waiting?.shift();
    if (waiting?.length === 0) this.#waiting.delete(name);
    wake?.();
  }

  /** Until it is let go of, it expires, or the time is up. */
  async #wait({ name, expiresAt }: LeaseRow, until: EpochMs, signal?: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = this.#waiting.get(name) ?? [];
    waiting.push(resolve);
    this.#waiting.set(name, waiting);
    const held = this.#held.get(name);
    const waitMs = Math.min(until, held?.expiresAt ?? expiresAt) - this.#clock.now();
    const cancelTimer = this.#clock.setTimer(Math.min(Math.max(1, waitMs), MAX_TIMER_MS), resolve);
    const onAbort = (): void => resolve();
    signal?.addEventListener('abort', onAbort);
    await promise;
    signal?.removeEventListener('abort', onAbort);
    cancelTimer();
    const at = waiting.indexOf(resolve);
    if (at >= 0) waiting.splice(at, 1);
    // Its turn came, and it does not want it any more: the next one has it.
    else if (signal?.aborted === true) this.#next(name);
    if (waiting.length === 0 && this.#waiting.get(name) === waiting) this.#waiting.delete(name);
  }
}

class HeldLease implements Lease {
  readonly name: string;
  readonly holder: string;
  readonly token: number;
  #expiresAt: EpochMs;
  readonly #ttlMs: number;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #ended: () => void;
  readonly #controller = new AbortController();
  #cancelExpiry: () => void = () => undefined;
  #cancelRenewal: () => void = () => undefined;

  constructor(row: LeaseRow, ttlMs: number, store: Store, clock: Clock, ended: () => void) {
    this.name = row.name;
    this.holder = row.holder;
    this.token = row.token;
    this.#expiresAt = row.expiresAt;
    this.#ttlMs = ttlMs;
    this.#store = store;
    this.#clock = clock;
    this.#ended = ended;
    this.#armExpiry();
  }

  get expiresAt(): EpochMs {
    return this.#expiresAt;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  async extend(ttlMs = this.#ttlMs): Promise<void> {
    requireMs('ttlMs', ttlMs, 1);
    const now = this.#clock.now();
    const { name, token } = this;
    const extended =
      !this.signal.aborted && (await this.#store.extendLease({ name, token, now, ttlMs }));
    if (!extended || this.signal.aborted) {
      this.end();
      throw lost(this);
    }
    this.#expiresAt = now + ttlMs;
    this.#armExpiry();
  }

  async release(): Promise<void> {
    if (this.signal.aborted) return;
    this.#cancelRenewal();
    this.#cancelExpiry();
    const { name, token } = this;
    try {
      await this.#store.releaseLease({ name, token });
    } finally {
      // Not before the row is free: who waits would find it held.
      this.end();
    }
  }

  keepRenewing(): void {
    const renewInMs = Math.min(this.#ttlMs / RENEWALS_PER_TTL, MAX_TIMER_MS);
    this.#cancelRenewal = this.#clock.setTimer(
      renewInMs,
      () => {
        this.extend().then(
          () => {
            if (!this.signal.aborted) this.keepRenewing();
          },
          // Whoever holds it hears of it by the signal.
          () => this.end(),
        );
      },
      true,
    );
  }

  end(): void {
    if (this.signal.aborted) return;
    this.#cancelRenewal();
    this.#cancelExpiry();
    this.#controller.abort(lost(this));
    this.#ended();
  }

  #armExpiry(): void {
    this.#cancelExpiry();
    const leftMs = Math.max(0, this.#expiresAt - this.#clock.now());
    const waitMs = Math.min(leftMs, MAX_TIMER_MS);
    const due = (): void => (waitMs < leftMs ? this.#armExpiry() : this.end());
    this.#cancelExpiry = this.#clock.setTimer(waitMs, due, true);
  }
}

function lost({ name, token }: Fence): LockConflictError {
  return new LockConflictError(
    `The lease "${name}" with token ${token} is over: it expired or was let go of.`,
    { retryable: false, context: { lease: name, token } },
  );
}

function heldBySomebody({ name, holder, token, expiresAt }: LeaseRow): LockConflictError {
  const until = new Date(expiresAt).toISOString();
  return new LockConflictError(
    `The lease "${name}" is held by "${holder}" until ${until} unless it is extended. Wait for it (waitMs), or try again later.`,
    { context: { lease: name, holder, token, expiresAt } },
  );
}

function cancelled(name: string, signal: AbortSignal): CancelledError {
  return new CancelledError(`Waiting for the lease "${name}" was called off.`, {
    cause: signal.reason,
  });
}

function requireFence(fence: unknown): Fence {
  const { name, token } = (fence ?? {}) as Partial<Fence>;
  if (typeof name === 'string' && Number.isSafeInteger(token)) return fence as Fence;
  throw new ValidationError(
    `Expected a fence to be a lease, or its { name, token }, got ${JSON.stringify(fence)?.slice(0, 80) ?? typeof fence}.`,
  );
}

function requireName(what: string, name: string): void {
  if (typeof name === 'string' && name !== '' && name.length <= MAX_NAME && name.isWellFormed()) {
    return;
  }
  throw new ValidationError(
    `Expected ${what} to be a text of 1 to ${MAX_NAME} characters, got ${JSON.stringify(name) ?? String(name)}.`,
  );
}

function requireMs(what: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new ValidationError(
    `Expected ${what} of a lease to be a whole number of milliseconds from ${least}, got ${String(value)}.`,
  );
}
