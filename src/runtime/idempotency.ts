import type { Address } from '../protocol/address.ts';
import { fromFailure, IdempotencyConflictError, type TroupeError } from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Message } from '../protocol/message.ts';
import type { IdempotencyRecord, Store } from '../store/store.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import type { EffectOutcome } from './effect-runner.ts';
import type { Requests } from './requests.ts';

/*
 * What is sent or asked under a key of the app's is sent once, however often it is said.
 *
 *     unknown ──▶ sent ······································ (send)
 *        │            row and message in one commit
 *        └──────▶ waiting ──answered──▶ answered ··········· (request)
 *                    │ correlation       row and answer in one commit
 *                    └─ answered with what may be tried again, or refused before anybody handled it ──▶ unknown
 *
 * The row of a request that waits names the correlation under which its answer will come. The request itself is a
 * durable message, so a crash loses neither: whoever asks again, in this process or the next, joins those who wait,
 * and the answer is kept though its first asker has died. Nothing needs a lease: what waits always has its message,
 * or a receiver that has it in hand. A receiver that never answers holds the key until it expires.
 *
 * The correlation is of one use of the key: an answer to a use that has expired is nobody's who asks anew.
 */

/** Answers are kept for so long unless the app says otherwise: 24 hours. */
export const DEFAULT_TTL_MS = 24 * 3_600_000;

/** A key that this process has something to do with: it is being stored, or waits for an answer. */
interface Entry {
  readonly record: IdempotencyRecord;
  /** Correlations of those who wait for the answer; undefined: nothing is asked. */
  readonly waiting: Set<string> | undefined;
  /** The attempt at the request that its receiver has; undefined: it was asked in another process. */
  readonly attempt?: number | undefined;
  /** Nobody else knows the key: once it is answered it is of no more use. */
  readonly isOwn?: boolean | undefined;
}

export interface IdempotencyOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly commits: Commits;
  readonly requests: Requests;
  readonly ttlMs: number;
}

/** What the app wants done under a key. */
export interface KeyedOperation {
  readonly key: string;
  readonly operation: 'send' | 'request';
  readonly to: Address;
  readonly message: Message;
}

/** What belongs to this call, and not to the key. */
interface Asking {
  readonly correlation: string;
  readonly attempt: number;
  readonly isOwn: boolean;
}

/** Somebody whose turn has not come has asked the store about a key. */
interface Look {
  /** What it says is told when the turn has come, and may be too old by then: the key was written and forgotten here. */
  isStale: boolean;
}

/** What is known of a key that was used before. */
export interface Known {
  readonly record: IdempotencyRecord;
  /** Somebody waits for the answer, or may. */
  readonly entry: Entry | undefined;
}

export class Idempotency {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #commits: Commits;
  readonly #requests: Requests;
  readonly #ttlMs: number;
  readonly #entries = new Map<string, Entry>();
  readonly #byCorrelation = new Map<string, Entry>();
  /** By receiver, the last operation that has to wait for a look into the store, or for one that has. */
  readonly #queues = new Map<Address, Promise<unknown>>();
  /** By key. */
  readonly #looks = new Map<string, Set<Look>>();

  constructor({ store, clock, commits, requests, ttlMs }: IdempotencyOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#commits = commits;
    this.#requests = requests;
    this.#ttlMs = ttlMs;
  }

  /** Requests that were waiting for their answers before a crash or a stop. */
  recover(records: readonly IdempotencyRecord[]): void {
    for (const record of records) {
      if (record.correlation !== null && record.expiresAt > this.#clock.now()) {
        this.#remember({ record, waiting: new Set() });
      }
    }
  }

  /** Keys that are being stored, or wait for an answer. */
  get size(): number {
    return this.#entries.size;
  }

  /** Something is on its way to this receiver: what is sent to it now must not overtake that. */
  isBusy(to: Address): boolean {
    return this.#queues.size > 0 && this.#queues.has(to);
  }

  /**
   * Does something when its turn comes: after everything to this receiver that was handed in before, and, if it has a
   * key, when the key was looked up.
   */
  async inOrder<T>(
    to: Address,
    key: string | undefined,
    act: (known: Known | undefined) => T | Promise<T>,
  ): Promise<T> {
    const found =
      key === undefined || this.#entries.has(key) ? undefined : this.#store.loadIdempotency(key);
    const look: Look = { isStale: false };
    if (key !== undefined) this.#beginLook(key, look);
    // Whoever went before has told its own caller what went wrong.
    const before = (this.#queues.get(to) ?? Promise.resolve()).catch(() => undefined);
    // In an object: whoever comes next waits until it is handed in, not until it is stored.
    const turn = Promise.all([found, before]).then(async ([record]) => {
      let newest = record;
      while (key !== undefined && look.isStale && !this.#entries.has(key)) {
        look.isStale = false;
        newest = await this.#store.loadIdempotency(key);
      }
      return { result: act(this.#look(key, newest)) };
    });
    this.#queues.set(to, turn);
    let result: T | Promise<T>;
    try {
      ({ result } = await turn);
    } finally {
      if (this.#queues.get(to) === turn) this.#queues.delete(to);
      if (key !== undefined) this.#endLook(key, look);
    }
    return await result;
  }

  /**
   * @param asking of a request
   * @returns its row, to be stored with the message
   */
  begin({ key, ...input }: KeyedOperation, asking: Asking | undefined): Entry {
    const now = this.#clock.now();
    const record: IdempotencyRecord = {
      key,
      inputHash: hashOf(input),
      correlation: asking?.correlation ?? null,
      outcomeJson: null,
      createdAt: now,
      expiresAt: now + this.#ttlMs,
    };
    const entry: Entry = {
      record,
      waiting: asking === undefined ? undefined : new Set<string>(),
      attempt: asking?.attempt,
      isOwn: asking?.isOwn,
    };
    this.#remember(entry);
    this.#commits.stage.putIdempotency(record);
    if (asking === undefined) this.#forgetWhenStored(entry);
    return entry;
  }

  /** @throws {IdempotencyConflictError} the key was used for something else */
  checkSame({ key, ...input }: KeyedOperation, known: IdempotencyRecord): void {
    const hash = hashOf(input);
    if (hash === known.inputHash) return;
    throw new IdempotencyConflictError(key, hash, known.inputHash);
  }

  /** Waits for the answer to a request. It lasts as long as its promise. */
  join(entry: Entry, correlation: string, answer: Promise<JsonValue>): Promise<JsonValue> {
    entry.waiting?.add(correlation);
    return answer.finally(() => entry.waiting?.delete(correlation));
  }

  /** Whoever asked under a key of its own does not wait any more, so nobody will ever ask for the answer. */
  giveUp(key: string): void {
    const entry = this.#entries.get(key);
    if (entry?.isOwn !== true) return;
    this.#byCorrelation.delete(entry.record.correlation as string);
    this.#commits.stage.clearIdempotency(key);
    this.#forgetWhenStored(entry);
  }

  /** The answer that was kept. */
  answerOf({ outcomeJson }: IdempotencyRecord): Promise<JsonValue> {
    const outcome = JSON.parse(outcomeJson as string) as EffectOutcome;
    return outcome.ok
      ? Promise.resolve(outcome.output)
      : Promise.reject(fromFailure(outcome.failure));
  }

  /**
   * The receiver has answered: in the same commit the answer is kept, or, if it may be tried again, the key is free.
   * @returns passes it on to whoever waits, once that is stored; undefined if no key belongs to the correlation
   */
  answered(
    correlation: string,
    attempt: number,
    outcome: EffectOutcome,
  ): (() => boolean) | undefined {
    const isFinal = outcome.ok || !outcome.failure.retryable;
    return this.#end(
      correlation,
      attempt,
      isFinal ? JSON.stringify(outcome) : undefined,
      (waiter) => this.#requests.settle(waiter, undefined, outcome),
    );
  }

  /** It was refused before anybody handled it, so it may be tried again. @returns as `answered` */
  refused(correlation: string, attempt: number, error: TroupeError): (() => boolean) | undefined {
    return this.#end(correlation, attempt, undefined, (waiter) =>
      this.#requests.fail(waiter, error),
    );
  }

  // ── inside ─────────────────────────────────────────────────────────────────────────────────────────

  #beginLook(key: string, look: Look): void {
    const looks = this.#looks.get(key);
    if (looks === undefined) this.#looks.set(key, new Set([look]));
    else looks.add(look);
  }

  #endLook(key: string, look: Look): void {
    const looks = this.#looks.get(key);
    looks?.delete(look);
    if (looks?.size === 0) this.#looks.delete(key);
  }

  #look(key: string | undefined, found: IdempotencyRecord | undefined): Known | undefined {
    if (key === undefined) return undefined;
    let entry = this.#entries.get(key);
    const record = entry?.record ?? found;
    if (record === undefined || record.expiresAt <= this.#clock.now()) return undefined;
    if (entry === undefined && record.correlation !== null) {
      entry = { record, waiting: new Set() };
      this.#remember(entry);
    }
    return { record, entry };
  }

  #end(
    correlation: string,
    attempt: number,
    outcomeJson: string | undefined,
    tell: (waiter: string) => boolean,
  ): (() => boolean) | undefined {
    const entry = this.#byCorrelation.get(correlation);
    if (entry === undefined) return undefined;
    // To an attempt before the one that is under way.
    if (entry.attempt !== undefined && entry.attempt !== attempt) return () => false;
    this.#byCorrelation.delete(correlation);
    const { record } = entry;
    // Otherwise it has expired, and the key is used for something new.
    if (this.#entries.get(record.key) === entry) {
      const { stage } = this.#commits;
      if (outcomeJson === undefined || entry.isOwn === true) stage.clearIdempotency(record.key);
      else stage.putIdempotency({ ...record, correlation: null, outcomeJson });
      this.#forgetWhenStored(entry);
    }
    return () => {
      for (const waiter of [...(entry.waiting ?? [])]) tell(waiter);
      return true;
    };
  }

  #remember(entry: Entry): void {
    this.#forgetExpired();
    const { key, correlation } = entry.record;
    // At the end, whatever was there before: they expire in this order.
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (correlation !== null) this.#byCorrelation.set(correlation, entry);
  }

  /** A receiver that never answers must not keep its keys in memory for ever. */
  #forgetExpired(): void {
    const now = this.#clock.now();
    for (const [key, { record, waiting }] of this.#entries) {
      if (record.expiresAt > now) return;
      if (waiting?.size !== 0) continue;
      this.#entries.delete(key);
      if (record.correlation !== null) this.#byCorrelation.delete(record.correlation);
    }
  }

  /** From then on the store knows. */
  #forgetWhenStored(entry: Entry): void {
    const { key } = entry.record;
    this.#commits.after(() => {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
      for (const look of this.#looks.get(key) ?? []) look.isStale = true;
    });
  }
}

const hashOf = (input: Omit<KeyedOperation, 'key'>): string =>
  deepHash(input as unknown as JsonValue);
