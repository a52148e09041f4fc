import type { Logger } from 'pino';
import type { AnyStateMachine } from 'xstate';
import { type Address, kindOf, parseAddress } from '../protocol/address.ts';
import { checkAgainstCatalogue } from '../protocol/catalogue.ts';
import {
  ConfigurationError,
  ConflictError,
  NotFoundError,
  StoppedError,
  TroupeError,
  toFailure,
  ValidationError,
} from '../protocol/errors.ts';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue, typeWord } from '../protocol/json.ts';
import { type Envelope, type Message, parseMessage } from '../protocol/message.ts';
import { PRIORITIES, type Priority, parsePriority } from '../protocol/priority.ts';
import type { Shutdown } from '../protocol/supervision.ts';
import type { ActorRecord, Pending, Store, StoredActor } from '../store/store.ts';
import { checkNotAnswer, requireRegistration, requireSpawnable } from './action-checks.ts';
import { Agenda } from './agenda.ts';
import { answerQuery } from './answer-query.ts';
import { type Clock, MAX_TIMER_MS } from './clock.ts';
import { Commits } from './commits.ts';
import { APP, Delivery } from './delivery.ts';
import { Directory } from './directory.ts';
import { DurableEffects } from './durable-effects.ts';
import { DurableTimers } from './durable-timers.ts';
import type { EffectLimits } from './effect-runner.ts';
import { type Defer, fairDefer, MAX_SLICE_MS } from './fair-defer.ts';
import { HostEmitter } from './host-emitter.ts';
import { Housekeeping, type PruneReport, type Retention } from './housekeeping.ts';
import { DEFAULT_TTL_MS, Idempotency, type KeyedOperation, type Known } from './idempotency.ts';
import { copyJson } from './json-copy.ts';
import { type Fence, Leases } from './leases.ts';
import { type Ending, Lives } from './lives.ts';
import { Loader } from './loader.ts';
import type { MessageCounts } from './message-counts.ts';
import { DEFAULT_MAX_SNAPSHOT_BYTES, PayloadLimit } from './payload-limit.ts';
import {
  createRegistration,
  type MachineOptions,
  type Registration,
  restoreSnapshot,
} from './registration.ts';
import { type Asked, cancelled, Requests } from './requests.ts';
import { checkRetry, type StepRetry as Retry, retryWaitMs } from './step.ts';
import { readStoredWork, type StoredWork } from './stored-work.ts';
import { DEFAULT_STREAM_LIMITS, type StreamLimits } from './stream.ts';
import { Streams } from './streams.ts';
import { TimeTravel } from './time-travel.ts';
import { Turns } from './turns.ts';
import type { Place } from './waiting-room.ts';
import type { PersistedSnapshot } from './xstate-driver.ts';

export type { MachineOptions } from './registration.ts';

/*
 * The durable host: actors, their mailboxes, and the turn.
 *
 *     take a message → transition (pure) → stage → commit (with other turns) → then act
 *
 *     directory   the actors in memory, and whose turn it is
 *     loader      how they come into memory and leave it
 *     delivery    how messages reach their mailboxes          requests   who waits outside for an answer
 *     turns       what one message does to one actor          commits    stages on their way to the store
 *     timers, effects   what is due some time, what runs outside
 *
 * What is trusted: the store's `commit` (all or nothing, in order). What is not: everything outside, and every
 * machine's code, which may throw in any turn. On a failed commit the host stops at once: its memory is ahead
 * of the disk, and only what is stored is true. On a crash nothing needs doing: `open` reads what waits.
 *
 * Delivery: a durable message is a row from its sender's commit to its receiver's. Both change in the same
 * commits as the actors' states, so a message changes its receiver exactly once. Effects run at least once
 * (steps inside them once); their outcome is handled exactly once, because it is taken only while the
 * effect's row is current, and taking it deletes the row.
 */

const DEFAULT_TIMEOUT_MS = 30_000;
/** Turns in one commit, at most. */
const MAX_BATCH = 256;
/** When somebody outside has an answer, so many more turns are taken before whoever waits for it goes on. */
const TURNS_AFTER_ANSWER = 8;

export interface HostOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Makes texts that no other call, in this process or any other, will ever make again. */
  readonly newId: () => string;
  readonly faultPoint?: FaultPoint;
  /** Default: a microtask, and `setImmediate` when the slice is used up. */
  readonly defer?: Defer;
  /** Messages that may wait for one actor. Default 10 000. */
  readonly mailboxLimit?: number;
  /**
   * A chain of messages, each sent in the turn of the one before, may be so long; the next one is refused. Default: as
   * long as it likes, and told as `looped` at 10 000, 20 000, 40 000, … messages.
   */
  readonly chainLimit?: number;
  /** Default: 64 at once, 600 000 ms without a sign of life. */
  readonly effects?: Partial<EffectLimits>;
  /** An effect that was running at so many crashes in a row fails instead of starting again. Default 3. */
  readonly maxEffectRestarts?: number;
  /** An actor without messages leaves memory after so long. Default 60 000 ms. */
  readonly passivateAfterMs?: number;
  /** Idempotency keys are forgotten after so long. Default 86 400 000 ms, 24 hours. */
  readonly idempotencyTtlMs?: number;
  /** Deep-freeze contexts. Default: true unless NODE_ENV is `production`. */
  readonly freeze?: boolean;
  /** How much history is kept. Default: all. */
  readonly retention?: Retention | undefined;
  /**
   * A turn whose snapshot would be longer fails: its message becomes a dead letter, the actor stays as it was. The same
   * holds for messages and for results of steps and effects. Default 16 MiB.
   */
  readonly maxSnapshotBytes?: number;
  /** What a stream may take. Default: see `StreamLimits`. */
  readonly streams?: Partial<StreamLimits>;
}

export interface SendOptions {
  /** Default: normal (2). */
  readonly priority?: Priority;
  /**
   * The same under the same key is sent once, also if the first was handled or its sender has died: `send` then does
   * nothing, `request` gives the answer of the first, or joins who waits for it. A failure that may be tried again is
   * not kept. Something else under a key that is taken is refused (IdempotencyConflictError). Keys are of the whole
   * store, and expire after `idempotencyTtlMs`.
   */
  readonly idempotencyKey?: string;
  /** Sent only while this lease is held. */
  readonly fence?: Fence;
  /** `transient`: not stored; lost in a crash, and not sent again if the actor's turn fails. Default `durable`. */
  readonly delivery?: 'durable' | 'transient';
  /** How long it may wait for room in a mailbox with `overflow: 'wait'`. Default 30 000. */
  readonly timeoutMs?: number;
  /** Calls off what is not sent yet. */
  readonly signal?: AbortSignal;
}

export interface RequestOptions extends SendOptions {
  /** How long to wait for the answer, room in the mailbox included; with `retry`, for each attempt. Default 30 000. */
  readonly timeoutMs?: number;
  /**
   * Calls the request off. Its receiver is told, if its machine has a transition for `request.cancelled`; so it is when
   * the time is up. (Not if the request has a key: others may wait for its answer, now or later.)
   */
  readonly signal?: AbortSignal;
  /**
   * Asks again when the failure says that this may help (`retryable`: no answer in time, no room, an answer that says
   * so), under the same correlation and with the next attempt number; both are in the receiver's `meta`. An answer to an
   * earlier attempt is dropped and counted. A request that is stored is never with its receiver twice: while that still
   * has it, the next attempt waits for the same answer. Default: asked once.
   */
  readonly retry?: Retry;
}

export interface SpawnRequest {
  readonly address: Address;
  /** The name the machine was registered under. */
  readonly machine: string;
  readonly input?: JsonValue;
}

export class DurableHost {
  /** What happens in the host, told after it is stored. */
  readonly events: HostEmitter;
  readonly leases: Leases;
  readonly streams: Streams;
  /** Checkpoints by hand, and going back to them. */
  readonly timeTravel: TimeTravel;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #defer: Defer;
  readonly #limit: PayloadLimit;
  readonly #defaults: { readonly mailboxLimit: number; readonly freeze: boolean };

  readonly #registrations = new Map<string, Registration>();
  readonly #directory: Directory;
  readonly #agenda: Agenda;
  readonly #commits: Commits;
  readonly #timers: DurableTimers;
  readonly #requests: Requests;
  readonly #keys: Idempotency;
  readonly #delivery: Delivery;
  readonly #effects: DurableEffects;
  readonly #turns: Turns;
  readonly #loader: Loader;
  readonly #housekeeping: Housekeeping;
  readonly #lives: Lives;

  /** Part of every id made here, so that no other runtime on the same store makes the same. */
  readonly #runtimeId: string;
  /** What the ids of messages from outside, and the correlations of requests, begin with; a number follows. */
  readonly #idPrefix: string;
  readonly #correlationPrefix: string;
  #sent = 0;
  #asked = 0;
  /**
   * stopping: outside calls are refused, what is under way is handled. closing: no turn is taken any more,
   * what was done is stored. failed: a commit was refused.
   */
  #state: 'new' | 'opening' | 'running' | 'stopping' | 'closing' | 'stopped' | 'failed' = 'new';
  #failure: Error | undefined;
  #scheduled = false;
  /** Turns are being taken: what they deliver needs no call of its own. */
  #pumping = false;
  #whenQuiet: { readonly quiet: () => boolean; readonly resolve: () => void }[] = [];
  #closed: Promise<void> | undefined;
  /** Resolved when somebody does not want to wait for effects (any longer). */
  readonly #hurry = Promise.withResolvers<void>();
  readonly #pump = (): void => this.#runTurns();
  readonly #schedule = (): void => this.#scheduleTurns(false);

  /** @throws {ConfigurationError} an option is out of range */
  constructor(options: HostOptions) {
    const { store, clock, logger, newId, faultPoint = noFaults } = options;
    this.#store = store;
    this.#clock = clock;
    this.#logger = logger;
    this.#defer = options.defer ?? fairDefer();
    this.#defaults = {
      mailboxLimit: atLeast(1, 'mailboxLimit', options.mailboxLimit ?? 10_000),
      freeze: options.freeze ?? process.env['NODE_ENV'] !== 'production',
    };
    const chainLimit =
      options.chainLimit === undefined
        ? Number.POSITIVE_INFINITY
        : atLeast(1, 'chainLimit', options.chainLimit);
    const limit = new PayloadLimit(
      atLeast(1_024, 'maxSnapshotBytes', options.maxSnapshotBytes ?? DEFAULT_MAX_SNAPSHOT_BYTES),
    );
    this.#limit = limit;
    // A correlation is taken apart at its exclamation marks.
    this.#runtimeId = newId().replaceAll('!', '');
    this.#idPrefix = `${APP}#${this.#runtimeId}.`;
    this.#correlationPrefix = `${APP}!${this.#runtimeId}.`;
    const registrations = this.#registrations;
    const schedule = this.#schedule;
    const failed = (cause: unknown): void => this.#fail(cause);

    const events = new HostEmitter(logger);
    const directory = new Directory(clock);
    const agenda = new Agenda(clock);
    const commits = new Commits(store, faultPoint, schedule, failed);
    const requests = new Requests(agenda, (asked) => this.#callOff(asked));
    const keys = new Idempotency({
      store,
      clock,
      commits,
      requests,
      ttlMs: atLeast(1, 'idempotencyTtlMs', options.idempotencyTtlMs ?? DEFAULT_TTL_MS),
    });
    const notify: Delivery['notify'] = (address, item) => {
      try {
        delivery.notify(address, item);
      } catch (error) {
        this.#fail(error);
      }
    };
    const timers = new DurableTimers(agenda, commits, (timer) => {
      // A stopping host handles what is under way; what is due is under way with the next one.
      if (this.#state === 'running') notify(timer.address, { kind: 'timer', timer });
    });
    const delivery: Delivery = new Delivery({
      clock,
      logger,
      newId,
      faultPoint,
      mailboxLimit: this.#defaults.mailboxLimit,
      agenda,
      timers,
      registrations,
      directory,
      commits,
      requests,
      keys,
      events,
      schedule,
    });
    this.streams = new Streams({
      ...{ store, clock, logger, commits, events, schedule },
      limits: streamLimits(options.streams),
    });
    const effects = new DurableEffects({
      streams: this.streams,
      store,
      limit,
      clock,
      logger,
      faultPoint,
      commits,
      events,
      schedule,
      limits: {
        concurrency: atLeast(1, 'effects.concurrency', options.effects?.concurrency ?? 64),
        heartbeatMs: atLeast(0, 'effects.heartbeatMs', options.effects?.heartbeatMs ?? 600_000),
      },
      maxRestarts: atLeast(0, 'maxEffectRestarts', options.maxEffectRestarts ?? 3),
      canStore: () => this.#state !== 'failed' && this.#state !== 'stopped',
      deliver: (effect, outcome) => {
        if (this.#state !== 'running' && this.#state !== 'stopping') return;
        notify(effect.record.address as Address, { kind: 'effect', effect, outcome });
      },
    });
    let cuts = 0;
    const newCutId = (): string => deepHash(`${this.#runtimeId}/${cuts++}`).slice(0, 16);
    const turns = new Turns({
      limit,
      clock,
      logger,
      registrations,
      commits,
      timers,
      effects,
      delivery,
      events,
      runtimeId: this.#runtimeId,
      newCutId,
      chainLimit,
    });
    this.#loader = new Loader({
      store,
      clock,
      logger,
      registrations,
      directory,
      commits,
      delivery,
      effects,
      turns,
      events,
      passivateAfterMs: atLeast(0, 'passivateAfterMs', options.passivateAfterMs ?? 60_000),
      schedule,
      failed,
    });
    this.#lives = new Lives({
      store,
      clock,
      registrations,
      directory,
      commits,
      delivery,
      timers,
      turns,
      loader: this.#loader,
      events,
      newId,
    });
    this.timeTravel = new TimeTravel({
      store,
      clock,
      registrations,
      directory,
      loader: this.#loader,
      commits,
      timers,
      effects,
      delivery,
      turns,
      events,
      runtimeId: this.#runtimeId,
      newCutId,
      schedule,
      assertRunning: () => this.#assertRunning(),
    });
    this.#housekeeping = new Housekeeping({
      store,
      clock,
      logger,
      retention: options.retention,
      busyRuns: () => directory.runs(),
    });
    this.events = events;
    this.leases = new Leases(store, clock);
    this.#directory = directory;
    this.#agenda = agenda;
    this.#commits = commits;
    this.#requests = requests;
    this.#keys = keys;
    this.#delivery = delivery;
    this.#timers = timers;
    this.#effects = effects;
    this.#turns = turns;
  }

  /** How much is in memory and under way. For metrics and tests. */
  get load(): {
    readonly actors: number;
    readonly timers: number;
    readonly effects: number;
    readonly requests: number;
    readonly keys: number;
  } {
    return {
      actors: this.#directory.actors.size,
      timers: this.#timers.size,
      effects: this.#effects.runner.running + this.#effects.runner.waiting,
      requests: this.#requests.size,
      keys: this.#keys.size,
    };
  }

  /** What has become of messages since the host was made. */
  get counts(): MessageCounts {
    return this.#delivery.counts();
  }

  /**
   * Makes a machine known under a name. Actors of that name that were waiting for it go on.
   * @throws {ConfigurationError} the machine cannot be hosted durably, or the name is taken
   */
  register(name: string, machine: AnyStateMachine, options: MachineOptions = {}): void {
    if (this.#registrations.has(name)) {
      throw new ConfigurationError(`A machine named "${name}" is registered already.`);
    }
    this.#registrations.set(name, createRegistration(name, machine, options, this.#defaults));
    this.#loader.registered(name);
    this.#schedule();
  }

  /**
   * Whether the machines that are registered can go on from a stored state. Nothing is changed.
   * @returns what is in the way, or undefined
   */
  findObstacle(stored: StoredActor): string | undefined {
    const registration = this.#registrations.get(stored.machine);
    if (registration === undefined) return `No machine "${stored.machine}" is registered.`;
    try {
      restoreSnapshot(registration, stored);
      return undefined;
    } catch (error) {
      return toFailure(error).message;
    }
  }

  isRegistered(name: string): boolean {
    return this.#registrations.has(name);
  }

  /**
   * Reads what waits in the store and goes on with it. Call once, when the machines are registered; actors whose
   * machine is not known yet wait for `register`.
   * @throws {ConflictError} it was called before
   * @throws {UnreadablePayloadError} something that waits there cannot be read: says what, and nothing has begun
   */
  async open(): Promise<void> {
    if (this.#state !== 'new') {
      this.#assertAlive();
      throw new ConflictError('This host has been opened already.');
    }
    this.#state = 'opening';
    let pending: Pending;
    let work: StoredWork;
    try {
      pending = await this.#store.loadPending();
      work = readStoredWork(pending);
    } catch (error) {
      if (this.#state === 'opening') this.#state = 'new';
      throw error;
    }
    if (this.#state !== 'opening') throw new StoppedError();
    this.#state = 'running';
    for (const { record, action } of work.timers) this.#timers.recover(record, action);
    for (const address of this.#effects.recover(work.effects)) this.#directory.at(address);
    for (const envelope of work.messages) this.#delivery.recover(envelope);
    this.#keys.recover(pending.requests);
    this.#agenda.start();
    this.#housekeeping.start();
    this.events.tell('recovered', {
      messages: pending.messages.length,
      timers: pending.timers.length,
      effects: pending.effects.length,
      actors: this.#directory.actors.size,
    });
    this.#schedule();
  }

  /**
   * Creates actors, all in one commit or none. Those that exist already are left as they are.
   * @returns the addresses that were created
   * @throws {ConfigurationError} a machine is not registered
   * @throws {ValidationError} an address or an input is malformed; also whatever a machine throws on its input
   */
  async spawn(requests: readonly SpawnRequest[]): Promise<readonly Address[]> {
    this.#assertRunning();
    for (const { address, machine, input } of requests) {
      requireSpawnable(address);
      requireRegistration(this.#registrations, machine);
      const problem = input === undefined ? undefined : findNonJson(input, 'input');
      if (problem) {
        throw new ValidationError(
          `The input of ${address} must be plain JSON, but ${problem.path} is ${problem.found}.`,
        );
      }
    }
    const existing = new Set(await this.#loader.stored(requests.map(({ address }) => address)));
    this.#assertRunning();
    // Nothing is created before everything is known to be possible.
    const born = [];
    for (const { address, machine, input } of requests) {
      const known = this.#directory.actors.get(address);
      const isThere = known !== undefined && known.state !== 'loading' && known.state !== 'absent';
      if (existing.has(address) || isThere) continue;
      existing.add(address);
      const registration = requireRegistration(this.#registrations, machine);
      const turn = this.#turns.prepareBirth(address, registration, copyJson(input));
      born.push({ address, registration, turn });
    }
    for (const { address, registration, turn } of born) {
      const actor = this.#directory.actors.get(address) ?? this.#directory.add(address);
      if (actor.birth !== undefined) this.#delivery.consume(actor.birth);
      actor.birth = undefined;
      this.#turns.giveBirth(actor, registration, turn, null);
      this.#directory.enqueue(actor);
    }
    this.#loader.armSweep();
    this.#schedule();
    await this.#commits.stored();
    return born.map(({ address }) => address);
  }

  /**
   * Sends a message. A durable one is stored when the promise resolves.
   * @throws {ValidationError} a malformed address, message, priority or key
   * @throws {MailboxFullError} too many wait there already; nothing was stored
   * @throws {IdempotencyConflictError} its key was used for something else
   * @throws {LockConflictError} the lease it is fenced with is not held
   */
  send(to: Address, message: Message, options: SendOptions = {}): Promise<void> {
    try {
      return this.#send(to, message, options);
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  /**
   * Sends a request and waits for its answer.
   * @throws {TimeoutError} no answer within `timeoutMs`
   * @throws {TroupeError} what the receiver answered
   * @throws {NotFoundError} there is no such actor
   * @throws {ConflictError} it has ended, or the key was used for something else (IdempotencyConflictError)
   * @throws {CancelledError} the signal was aborted; if its reason is a TroupeError, that
   * @throws {MailboxFullError} too many wait there already
   * @throws {StoppedError} the host stopped before the answer came
   */
  request(to: Address, message: Message, options: RequestOptions = {}): Promise<JsonValue> {
    try {
      return this.#request(to, message, options);
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  /**
   * Stops one actor for good: its machine is asked, by the event `actor.stop`, if its state handles that, and ended when
   * its time is up. What waits for it is refused.
   * @returns how it has ended; at once, if it had before
   * @throws {NotFoundError} there is no such actor
   * @throws {StoppedError} the host stopped first; it goes on with it when it is opened again
   */
  async stopActor(address: Address, shutdown: Shutdown, reason: string): Promise<Ending> {
    this.#assertRunning();
    return await this.#lives.stop(parseAddress(address), shutdown, reason);
  }

  /** The actor's state as stored; undefined if there is no such actor. */
  async inspect(
    address: Address,
  ): Promise<{ readonly record: ActorRecord; readonly snapshot: PersistedSnapshot } | undefined> {
    this.#assertRunning();
    const [stored] = await this.#store.loadActors([address]);
    if (stored === undefined) return undefined;
    const { snapshotJson, unreadable, ...record } = stored;
    if (unreadable !== undefined) throw unreadable;
    return { record, snapshot: JSON.parse(snapshotJson) as PersistedSnapshot };
  }

  /**
   * Answers a question from an actor's state as it is stored, with everything that was handed in before the call and has
   * been handled. No turn, no checkpoint; the actor need not be in memory.
   * @throws {NotFoundError} no such actor, its machine is not registered, or has no such query: says which there are
   */
  async query(address: Address, name: string, args: JsonValue = null): Promise<JsonValue> {
    this.#assertRunning();
    parseAddress(address);
    await this.#commits.stored();
    const [stored] = await this.#store.loadActors([address]);
    if (stored === undefined) throw new NotFoundError(`There is no actor at ${address}.`);
    const registration = this.#registrations.get(stored.machine);
    if (registration === undefined) {
      throw new NotFoundError(
        `${address} cannot be asked: its machine "${stored.machine}" is not registered here.`,
      );
    }
    return answerQuery(registration, stored, name, args);
  }

  /** Refuses what comes too early or too late. @throws {StoppedError | ConflictError} */
  assertRunning(): void {
    this.#assertRunning();
  }

  /** Removes all history that is older than that, and gives back the space. What waits to be done is not touched. */
  async prune(retention: Retention): Promise<PruneReport> {
    this.#assertRunning();
    const { removed, bytes } = await this.#housekeeping.prune(retention);
    return { removed, bytes };
  }

  /** Resolves when everything handed in so far is stored. */
  async flush(): Promise<void> {
    this.#assertRunning();
    await this.#commits.stored();
  }

  /**
   * Stops. With `drain`, effects that run may finish within `graceMs` (default 30 000) and what they lead to is
   * handled. Without, they are aborted. Either way no effect starts and no timer fires any more, and what is not
   * finished stays stored and goes on with the next runtime. An effect that does not heed its signal is left behind
   * after 5 s. Every promise of this host is settled when this resolves.
   *
   * Called again it is the same stop: without `drain` it ends the grace of one that is draining, with `drain` it
   * changes nothing.
   */
  stop(options: { readonly drain?: boolean; readonly graceMs?: number } = {}): Promise<void> {
    const { drain = false, graceMs = 30_000 } = options;
    if (!drain) this.#hurry.resolve();
    this.#closed ??= this.#stop(drain, graceMs);
    return this.#closed;
  }

  // ── turns, one after the other ─────────────────────────────────────────────────────────────────────

  #scheduleTurns(yielding: boolean): void {
    if (this.#scheduled || this.#pumping) return;
    if (this.#state === 'new' || this.#state === 'opening') return;
    this.#scheduled = true;
    this.#defer(this.#pump, yielding);
  }

  #runTurns(): void {
    this.#scheduled = false;
    if (this.#state === 'failed' || this.#state === 'stopped') return;
    const takesTurns = this.#state !== 'closing';
    let paused = false;
    try {
      if (takesTurns) paused = this.#takeTurns();
      // A batch that is not complete is handed over only if the store has nothing else to do.
      if (!paused || this.#commits.hasNoneUnderWay) this.#commits.flush();
    } catch (error) {
      // A mistake of ours, not of a machine: the stage may hold half a turn, and must not be stored.
      this.#fail(error);
    }
    if (paused) {
      this.#scheduleTurns(false);
    } else if (takesTurns) {
      const { waiting, toLoad } = this.#directory;
      // With a full stage it is the next commit that goes on.
      const more = waiting > 0 && this.#commits.stage.turns < MAX_BATCH;
      if (more || toLoad.length > 0) this.#scheduleTurns(true);
    }
    this.#checkQuiet();
  }

  /** @returns whether others go first, and then the batch goes on */
  #takeTurns(): boolean {
    const directory = this.#directory;
    if (directory.toLoad.length > 0) this.#loader.load();
    if (directory.waiting === 0) return false;
    let began: number | undefined;
    let turns = 0;
    const { answersAtOnce } = this.#delivery;
    let pauseAt = Number.POSITIVE_INFINITY;
    this.#pumping = true;
    try {
      while (this.#commits.stage.turns < MAX_BATCH) {
        if (turns >= pauseAt) return true;
        const actor = directory.next();
        if (actor === undefined) return false;
        let now = actor.orders === undefined ? undefined : this.#lives.take(actor);
        if (now === undefined) {
          const item = actor.state === 'live' ? actor.mailbox.shift() : undefined;
          if (item === undefined) continue;
          if (actor.room !== undefined) this.#delivery.admit(actor);
          now = this.#turns.take(actor, item);
        }
        turns++;
        directory.enqueue(actor);
        began ??= now;
        if (now - began > MAX_SLICE_MS) return false;
        if (pauseAt > MAX_BATCH && this.#delivery.answersAtOnce > answersAtOnce) {
          pauseAt = turns + TURNS_AFTER_ANSWER;
        }
      }
      return false;
    } finally {
      this.#pumping = false;
      this.#housekeeping.tookTurns(turns);
    }
  }

  #send(to: Address, message: Message, options: SendOptions): Promise<void> {
    this.#assertRunning();
    const envelope = this.#fromOutside(to, message, options, undefined);
    const { idempotencyKey: key, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
    checkTimeout(timeoutMs);
    if (signal?.aborted === true) throw cancelled(to, message.type, signal.reason);
    const place = this.#delivery.place(envelope, timeoutMs, signal);
    if (place !== undefined) return this.#sendFrom(place, envelope, options);
    if (key === undefined && !this.#keys.isBusy(envelope.to)) {
      return this.#sendNow(envelope, options, undefined);
    }
    return this.#sendInOrder(envelope, options, timeoutMs);
  }

  /** When its turn comes the mailbox may have filled up: then it waits for a place after all. */
  async #sendInOrder(envelope: Envelope, options: SendOptions, timeoutMs: number): Promise<void> {
    const { to } = envelope;
    const { idempotencyKey, signal } = options;
    const turn = await this.#keys.inOrder(to, idempotencyKey, (known) => {
      this.#assertStill(envelope, options);
      // What is known already is not posted again.
      const late = known === undefined && this.#delivery.place(envelope, timeoutMs, signal);
      // In an object: the next one waits for its turn, not until it is stored.
      return late ? { late } : { stored: this.#sendNow(envelope, options, known) };
    });
    await ('late' in turn ? this.#sendFrom(turn.late, envelope, options) : turn.stored);
  }

  #request(to: Address, message: Message, options: RequestOptions): Promise<JsonValue> {
    this.#assertRunning();
    checkGiven(options, 'request');
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal, retry } = options;
    checkTimeout(timeoutMs);
    const correlation = this.#correlationPrefix + this.#asked++;
    const envelope = this.#fromOutside(to, message, options, correlation);
    if (signal?.aborted === true) throw cancelled(to, message.type, signal.reason);
    const ask: Ask = { envelope, correlation, attempt: 1, timeoutMs, isLast: true };
    if (retry === undefined) return this.#ask(ask, options);
    checkRetry(`the request "${message.type}" to ${to}`, retry);
    return this.#askUntilAnswered(ask, options, retry);
  }

  /** One attempt after the other, each with its own time. */
  async #askUntilAnswered(first: Ask, options: RequestOptions, retry: Retry): Promise<JsonValue> {
    const { envelope, correlation } = first;
    const { to, message } = envelope;
    try {
      for (let attempt = 1; ; attempt++) {
        const isLast = attempt >= retry.attempts;
        const id = attempt === 1 ? envelope.id : `${envelope.id}~${attempt}`;
        const sentAt = this.#clock.now();
        try {
          const next = { ...envelope, id, sentAt, attempt };
          return await this.#ask({ ...first, envelope: next, attempt, isLast }, options);
        } catch (error) {
          const waitMs = retryWaitMs(retry, attempt, error, correlation);
          if (waitMs === undefined) throw error;
          const pausedUntil = this.#clock.now() + waitMs;
          await this.#requests.pause(to, message.type, options.signal, pausedUntil);
          this.#assertStill(envelope, options);
          this.#delivery.counted('retried');
        }
      }
    } finally {
      if (this.#state === 'running') {
        this.#keys.giveUp(correlation);
        this.#schedule();
      }
    }
  }

  #ask(ask: Ask, options: RequestOptions): Promise<JsonValue> {
    const { envelope } = ask;
    const { signal } = options;
    const key = this.#keyOf(ask, options);
    const place = this.#delivery.place(envelope, ask.timeoutMs, signal);
    if (place !== undefined) return this.#askFrom(place, ask, options, key);
    if (key === undefined && !this.#keys.isBusy(envelope.to)) {
      return this.#askNow(ask, options, undefined, undefined);
    }
    return this.#askInOrder(ask, options, key);
  }

  /** As `#sendInOrder`. */
  async #askInOrder(
    ask: Ask,
    options: RequestOptions,
    key: string | undefined,
  ): Promise<JsonValue> {
    const { envelope, timeoutMs } = ask;
    const turn = await this.#keys.inOrder(envelope.to, key, (known) => {
      this.#assertStill(envelope, options);
      const late = known === undefined && this.#delivery.place(envelope, timeoutMs, options.signal);
      return late ? { late } : { answer: this.#askNow(ask, options, key, known) };
    });
    return await ('late' in turn ? this.#askFrom(turn.late, ask, options, key) : turn.answer);
  }

  /** A stored request that may be asked again needs a key, so that its receiver does not have it twice. */
  #keyOf(
    { correlation }: Ask,
    { idempotencyKey, retry, delivery }: RequestOptions,
  ): string | undefined {
    if (idempotencyKey !== undefined || retry === undefined) return idempotencyKey;
    return delivery === 'transient' ? undefined : correlation;
  }

  async #askFrom(
    place: Place,
    ask: Ask,
    options: RequestOptions,
    key: string | undefined,
  ): Promise<JsonValue> {
    const { envelope } = ask;
    const { to } = envelope;
    try {
      await place.got;
      this.#assertStill(envelope, options);
      if (key === undefined && !this.#keys.isBusy(to)) {
        place.release();
        return await this.#askNow(ask, options, undefined, undefined);
      }
      return await this.#keys.inOrder(to, key, (known) => {
        this.#assertStill(envelope, options);
        place.release();
        return this.#askNow(ask, options, key, known);
      });
    } finally {
      this.#delivery.giveBack(place, to);
    }
  }

  async #sendFrom(place: Place, envelope: Envelope, options: SendOptions): Promise<void> {
    const { to } = envelope;
    const { idempotencyKey: key } = options;
    try {
      await place.got;
      this.#assertStill(envelope, options);
      if (key === undefined && !this.#keys.isBusy(to)) {
        place.release();
        await this.#sendNow(envelope, options, undefined);
        return;
      }
      await this.#keys.inOrder(to, key, (known) => {
        this.#assertStill(envelope, options);
        place.release();
        return this.#sendNow(envelope, options, known);
      });
    } finally {
      this.#delivery.giveBack(place, to);
    }
  }

  #askNow(
    ask: Ask,
    options: RequestOptions,
    key: string | undefined,
    known: Known | undefined,
  ): Promise<JsonValue> {
    const { envelope, correlation, attempt, timeoutMs } = ask;
    const { to, message } = envelope;
    const { signal, idempotencyKey } = options;
    const durable = options.delivery !== 'transient';
    const asked: Asked = {
      envelope,
      correlation,
      attempt,
      timeoutMs,
      signal,
      durable,
      sent: known?.entry?.attempt ?? attempt,
      callsOff: whenToCallOff(ask, idempotencyKey, key),
    };
    if (key === undefined) {
      this.#delivery.post(envelope, durable);
      return this.#requests.open(asked);
    }
    const operation: KeyedOperation = { key, operation: 'request', to, message };
    if (known === undefined) {
      this.#delivery.post(envelope, true);
      const isOwn = idempotencyKey === undefined;
      const entry = this.#keys.begin(operation, { correlation, attempt, isOwn });
      return this.#keys.join(entry, correlation, this.#requests.open(asked));
    }
    this.#keys.checkSame(operation, known.record);
    return known.entry === undefined
      ? this.#keys.answerOf(known.record)
      : this.#keys.join(known.entry, correlation, this.#requests.open(asked));
  }

  /** Nobody waits for the answer any more. */
  #callOff({ envelope, correlation, sent, durable, callsOff, signal }: Asked): void {
    if (callsOff === 'never' || this.#state !== 'running') return;
    if (callsOff === 'aborted' && signal?.aborted !== true) return;
    const { id, to, priority, message } = envelope;
    const off = { from: APP, to, priority, type: message.type, correlation, attempt: sent };
    this.#delivery.callOff(off, `${id}~off`, durable);
  }

  #sendNow(envelope: Envelope, options: SendOptions, known: Known | undefined): Promise<void> {
    const { to, message } = envelope;
    const { idempotencyKey: key, delivery } = options;
    const operation: KeyedOperation | undefined =
      key === undefined ? undefined : { key, operation: 'send', to, message };
    if (operation !== undefined && known !== undefined) {
      this.#keys.checkSame(operation, known.record);
      this.#delivery.drop(envelope, 'duplicate');
    } else {
      this.#delivery.post(envelope, delivery !== 'transient');
      if (operation !== undefined) this.#keys.begin(operation, undefined);
    }
    // A promise of its own for each: whoever ignores it must not hide from others that it was rejected, nor they from it.
    return delivery === 'transient' ? Promise.resolve() : this.#commits.stored().then();
  }

  /** What was checked when it was handed in, once more when its turn has come. */
  #assertStill({ to, message }: Envelope, { fence, signal }: SendOptions): void {
    this.#assertRunning();
    if (signal?.aborted === true) throw cancelled(to, message.type, signal.reason);
    if (fence !== undefined) this.leases.assertHeld(fence);
  }

  #fromOutside(
    to: Address,
    message: Message,
    options: SendOptions,
    correlation: string | undefined,
  ): Envelope {
    const known = this.#directory.actors.get(to);
    const address = known?.address ?? parseAddress(to);
    const parsed = parseMessage(message);
    checkNotAnswer(parsed.type);
    checkAgainstCatalogue(known?.kind ?? kindOf(address), parsed);
    this.#limit.checkMessage(parsed, address);
    checkGiven(options, 'send');
    const { priority, fence } = options;
    if (fence !== undefined) this.leases.assertHeld(fence);
    checkKey(options);
    const envelope = {
      id: this.#idPrefix + this.#sent++,
      from: APP,
      to: address,
      // A copy: what the app does with its message afterwards must not reach an actor.
      message: copyJson(parsed as unknown as JsonValue) as unknown as Message,
      priority: priority === undefined ? PRIORITIES.normal : parsePriority(priority),
      sentAt: this.#clock.now(),
    };
    return correlation === undefined ? envelope : { ...envelope, correlation, attempt: 1 };
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────

  #fail(cause: unknown): void {
    if (this.#state === 'failed' || this.#state === 'stopped') return;
    this.#state = 'failed';
    const { code, message } = toFailure(cause);
    const error = new TroupeError(
      code === 'unhandled' ? 'internal' : code,
      `The runtime has stopped, because it could not go on with the store "${this.#store.name}" (${message}). Open it again to go on from what is stored.`,
      { cause, retryable: false },
    );
    this.#failure = error;
    this.#logger.fatal({ err: cause }, error.message);
    this.#loader.stop();
    this.#housekeeping.stop();
    this.#effects.runner.close();
    this.#effects.runner.abortAll(error.message);
    this.#commits.abandon(error);
    this.#delivery.closeRooms(error);
    this.#requests.failAll(error);
    this.leases.close(error);
    this.#lives.close(error);
    this.streams.close(error);
    this.#agenda.stop();
    this.#checkQuiet();
    this.events.tell('failed', error);
  }

  async #stop(drain: boolean, graceMs: number): Promise<void> {
    const { runner } = this.#effects;
    if (this.#state === 'new' || this.#state === 'opening') this.#state = 'stopped';
    if (this.#state === 'running') {
      this.#state = 'stopping';
      this.#delivery.closeRooms(new StoppedError('The runtime is stopping.'));
      runner.close();
      if (drain) {
        await this.#within(graceMs, Promise.race([this.#drained(), this.#hurry.promise]));
      }
      runner.abortAll('The runtime stops.');
      await runner.idle();
      // Work that has ended is not done again by the next runtime.
      await this.#quiet(() => this.#effects.unhandled === 0);
    }
    // A failed host, too, waits for its effects to put away what they hold.
    await runner.idle();
    this.#loader.stop();
    this.#housekeeping.stop();
    if (this.#state === 'stopping') {
      this.#state = 'closing';
      this.#effects.putBack();
      await this.#quiet(() => this.#commits.idle);
    }
    this.#agenda.stop();
    if (this.#failure === undefined) this.#state = 'stopped';
    this.#requests.failAll(new StoppedError());
    this.leases.close(new StoppedError());
    this.#lives.close(new StoppedError());
    this.streams.close(new StoppedError());
    try {
      await this.#store.close();
    } finally {
      this.events.close();
    }
  }

  /** Nothing runs, nothing waits to be handled, nothing waits to be stored. */
  async #drained(): Promise<void> {
    const { runner } = this.#effects;
    const quiet = (): boolean =>
      this.#directory.waiting === 0 && !this.#loader.busy && this.#commits.idle;
    do {
      await runner.idle();
      await this.#quiet(quiet);
    } while (runner.running > 0 && this.#failure === undefined);
  }

  async #within(ms: number, promise: Promise<void>): Promise<void> {
    let cancel = (): void => undefined;
    const timeout = new Promise<void>((resolve) => {
      cancel = this.#clock.setTimer(Math.min(ms, MAX_TIMER_MS), resolve);
    });
    await Promise.race([promise, timeout]);
    cancel();
  }

  /** Resolves when `quiet` holds, or the host has failed. */
  #quiet(quiet: () => boolean): Promise<void> {
    // It may have failed while it was stopping: then nobody looks again.
    if (this.#state === 'failed') return Promise.resolve();
    return new Promise<void>((resolve) => {
      this.#whenQuiet.push({ quiet, resolve });
      this.#schedule();
    });
  }

  #checkQuiet(): void {
    if (this.#whenQuiet.length === 0) return;
    const failed = this.#state === 'failed';
    this.#whenQuiet = this.#whenQuiet.filter(({ quiet, resolve }) => {
      if (!failed && !quiet()) return true;
      resolve();
      return false;
    });
  }

  #assertAlive(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#state === 'stopped') throw new StoppedError();
  }

  #assertRunning(): void {
    if (this.#state === 'running') return;
    this.#assertAlive();
    if (this.#state === 'stopping' || this.#state === 'closing') {
      throw new StoppedError('The runtime is stopping.');
    }
    throw new ConflictError('The host is not open yet: call open() first.');
  }
}

/** An attempt at a request, on its way out. */
interface Ask {
  readonly envelope: Envelope;
  /** Of this very call; several may wait for one answer. */
  readonly correlation: string;
  readonly attempt: number;
  readonly timeoutMs: number;
  /** No other attempt follows it. */
  readonly isLast: boolean;
}

/** Somebody else may wait for the answer under a key of the app's; under one of ours the next attempt does. */
function whenToCallOff(
  { isLast }: Ask,
  idempotencyKey: string | undefined,
  key: string | undefined,
): Asked['callsOff'] {
  if (idempotencyKey !== undefined) return 'never';
  return key !== undefined && !isLast ? 'aborted' : 'always';
}

/** @throws {ValidationError} */
function checkTimeout(timeoutMs: number): void {
  if (timeoutMs > 0 && Number.isFinite(timeoutMs)) return;
  throw new ValidationError(
    `Expected timeoutMs to be a number of milliseconds above 0, got ${String(timeoutMs)}.`,
  );
}

/** @throws {ValidationError} */
function checkGiven(options: unknown, to: 'send' | 'request'): void {
  if (typeof options === 'object' && options !== null) return;
  throw new ValidationError(
    `Expected the options of ${to} to be an object, or left out, got ${typeWord(options)}.`,
  );
}

function checkKey({ idempotencyKey: key, delivery }: SendOptions): void {
  if (key === undefined) return;
  if (typeof key !== 'string' || key === '' || key.length > 500 || !key.isWellFormed()) {
    throw new ValidationError(
      `Expected the idempotency key to be a text of 1 to 500 characters, got ${JSON.stringify(key) ?? String(key)}.`,
    );
  }
  if (delivery === 'transient') {
    throw new ValidationError(
      `The idempotency key ${JSON.stringify(key)} needs a message that is stored: leave out delivery: "transient".`,
    );
  }
}

function streamLimits(given: Partial<StreamLimits> = {}): StreamLimits {
  const limit = (key: keyof StreamLimits): number =>
    atLeast(1, `streams.${key}`, given[key] ?? DEFAULT_STREAM_LIMITS[key]);
  return {
    maxChunkChars: limit('maxChunkChars'),
    maxChunks: limit('maxChunks'),
    maxStreamChars: limit('maxStreamChars'),
  };
}

function atLeast(least: number, name: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new ConfigurationError(
    `Expected the host's option ${name} to be an integer from ${least}, got ${String(value)}.`,
  );
}
