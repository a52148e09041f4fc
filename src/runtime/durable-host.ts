import { EventEmitter } from 'eventemitter3';
import type { Logger } from 'pino';
import type { AnyStateMachine } from 'xstate';
import { z } from 'zod';
import { type Address, isAddress, kindOf, parseAddress } from '../protocol/address.ts';
import { checkAgainstCatalogue } from '../protocol/catalogue.ts';
import type { ReplyParams, RequestParams, SendParams, SpawnParams } from '../protocol/commands.ts';
import {
  ConfigurationError,
  ConflictError,
  type Failure,
  fromFailure,
  MailboxFullError,
  NotFoundError,
  StoppedError,
  TimeoutError,
  TroupeError,
  toFailure,
  ValidationError,
} from '../protocol/errors.ts';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import { findNonJson, type JsonObject, type JsonValue } from '../protocol/json.ts';
import { type Envelope, type Message, type Meta, parseMessage } from '../protocol/message.ts';
import { PRIORITIES, type Priority } from '../protocol/priority.ts';
import type {
  ActorRecord,
  ActorStatus,
  EffectRecord,
  MessageRecord,
  Projection,
  Store,
  StoredActor,
  TimerRecord,
} from '../store/store.ts';
import { type Clock, MAX_TIMER_MS } from './clock.ts';
import { type EffectLimits, type EffectOutcome, EffectRunner } from './effect-runner.ts';
import { DeliveryFault } from './fault-points.ts';
import type { HostEvents, Turn } from './host-events.ts';
import { Mailbox } from './mailbox.ts';
import { Stage } from './stage.ts';
import { TimerHeap } from './timer-heap.ts';
import {
  type LiveSnapshot,
  type MachineAction,
  MachineDriver,
  type MachineEvent,
  type PersistedSnapshot,
  type Transition,
} from './xstate-driver.ts';

/*
 * The durable host: actors, their mailboxes, and the turn.
 *
 *     take a message → transition (pure) → stage → commit (with other turns) → then act
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

/** Turns in one commit, at most. */
const MAX_BATCH = 256;
/** The loop gives way to timers, sockets and people after so many milliseconds. */
const MAX_SLICE_MS = 2;
/** Commits under way at once: while one is flushed the next is already with the writer. */
const MAX_COMMITS = 2;
/** The type of the message that makes an actor. Reserved: the prefix is refused from outside. */
const SPAWN = 'xstate.troupe.spawn';
const INTERNAL: Priority = PRIORITIES.critical;
const APP: Address<'app'> = 'app/client';

export interface MachineOptions {
  /** Stored with every actor. Raise it when stored states no longer fit, and say how to migrate. Default 1. */
  readonly version?: number;
  /** Turns a snapshot of an older version into one of this version. Without it older actors are quarantined. */
  readonly migrate?: (snapshot: PersistedSnapshot, fromVersion: number) => PersistedSnapshot;
  /** Rows derived from the state, written in the same commit. Pure. */
  readonly project?: (actor: ProjectedActor) => readonly Projection[];
  /** Messages that may wait for one actor of this kind. Default: the host's `mailboxLimit`. */
  readonly mailboxLimit?: number;
}

export interface ProjectedActor {
  readonly address: Address;
  readonly value: JsonValue;
  readonly context: JsonObject;
  readonly status: 'active' | 'done' | 'error' | 'stopped';
  readonly at: number;
}

export interface HostOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: () => string;
  readonly faultPoint?: FaultPoint;
  /** Runs a callback soon, after what runs now. Default: `queueMicrotask`, then `setImmediate` when the slice is used up. */
  readonly defer?: (callback: () => void, yielding: boolean) => void;
  /** Messages that may wait for one actor. Default 10 000. */
  readonly mailboxLimit?: number;
  readonly effects?: Partial<EffectLimits>;
  /** An effect that was running at so many crashes in a row fails instead of starting again. Default 3. */
  readonly maxEffectRestarts?: number;
  /** An actor without messages leaves memory after so long. Default 60 000 ms. */
  readonly passivateAfterMs?: number;
  /** Deep-freeze contexts. Default: true unless NODE_ENV is `production`. */
  readonly freeze?: boolean;
}

export interface SendOptions {
  readonly priority?: Priority;
  /** The message's id: sending the same id again while the first still waits has no effect. Default: a new one. */
  readonly id?: string;
  /** `transient`: not stored; lost in a crash, and dropped if the actor's turn fails. Default `durable`. */
  readonly delivery?: 'durable' | 'transient';
}

export interface RequestOptions extends SendOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface SpawnRequest {
  readonly address: Address;
  readonly machine: string;
  readonly input?: JsonValue;
}

interface Registration {
  readonly name: string;
  readonly driver: MachineDriver;
  readonly version: number;
  readonly migrate: MachineOptions['migrate'];
  readonly project: MachineOptions['project'];
  readonly mailboxLimit: number;
}

type Item =
  | { readonly kind: 'message'; readonly envelope: Envelope; readonly durable: boolean }
  | { readonly kind: 'timer'; readonly id: string; readonly generation: string }
  | {
      readonly kind: 'effect';
      readonly id: string;
      readonly generation: string;
      readonly outcome: EffectOutcome;
    };

/** What a timer does when it is due; stored as JSON. */
type TimerAction =
  | { readonly do: 'event'; readonly event: MachineEvent }
  | {
      readonly do: 'deadline';
      readonly request: string;
      readonly to: string;
      readonly attempt: number;
      readonly timeoutMs: number;
    }
  | { readonly do: 'send'; readonly envelope: Envelope };

/** An actor in memory, or the place where its messages wait until it is. */
interface Actor {
  readonly address: Address;
  state: 'loading' | 'live' | 'parked' | 'quarantined' | 'ended';
  registration: Registration | undefined;
  snapshot: LiveSnapshot | undefined;
  seq: number;
  parent: Address | null;
  readonly mailbox: Mailbox<Item>;
  queued: boolean;
  lastUsed: number;
  /** Stages that hold a change of it and are not committed yet. */
  uncommitted: number;
  /** The last stage that changed it. */
  stage: Stage | undefined;
  status: ActorStatus;
  version: number;
  machine: string;
  reason: string | null;
}

interface Waiter {
  readonly resolve: (reply: JsonValue) => void;
  readonly reject: (error: Error) => void;
  readonly cleanup: () => void;
}

interface Timer extends TimerRecord {
  readonly dueAt: number;
}

export class DurableHost {
  readonly events = new EventEmitter<HostEvents>();
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #newId: () => string;
  readonly #faultPoint: FaultPoint;
  readonly #defer: (callback: () => void, yielding: boolean) => void;
  readonly #mailboxLimit: number;
  readonly #maxEffectRestarts: number;
  readonly #passivateAfterMs: number;
  readonly #freeze: boolean;
  readonly #runner: EffectRunner;

  readonly #registrations = new Map<string, Registration>();
  readonly #actors = new Map<string, Actor>();
  #ready: Actor[] = [];
  #toLoad: Actor[] = [];
  #loading = 0;
  readonly #pendingIds = new Set<string>();
  readonly #timers = new Map<string, Map<string, Timer>>();
  readonly #heap = new TimerHeap<Timer>();
  readonly #effects = new Map<string, Map<string, EffectRecord>>();
  readonly #waiters = new Map<string, Waiter>();

  #stage = new Stage();
  #commits = 0;
  #pumping = false;
  #scheduled = false;
  #state: 'new' | 'running' | 'stopping' | 'stopped' | 'failed' = 'new';
  #failure: Error | undefined;
  #cancelAlarm: () => void = () => undefined;
  #alarmAt = Number.POSITIVE_INFINITY;
  #cancelSweep: (() => void) | undefined;
  #wakeIdle: (() => void)[] = [];
  #closed: Promise<void> | undefined;

  constructor(options: HostOptions) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#newId = options.newId;
    this.#faultPoint = options.faultPoint ?? noFaults;
    this.#defer =
      options.defer ??
      ((callback, yielding) => {
        if (yielding) setImmediate(callback);
        else queueMicrotask(callback);
      });
    this.#mailboxLimit = options.mailboxLimit ?? 10_000;
    this.#maxEffectRestarts = options.maxEffectRestarts ?? 3;
    this.#passivateAfterMs = options.passivateAfterMs ?? 60_000;
    this.#freeze = options.freeze ?? process.env['NODE_ENV'] !== 'production';
    this.#runner = new EffectRunner(
      {
        clock: this.#clock,
        faultPoint: this.#faultPoint,
        loadSteps: async (scope) => {
          const steps = await this.#store.loadSteps(scope);
          return new Map(steps.map((s) => [s.key, JSON.parse(s.outcomeJson) as JsonValue]));
        },
        saveStep: (effect, scope, key, outcome) => this.#saveStep(effect, scope, key, outcome),
        ended: (effect, outcome) => this.#effectEnded(effect, outcome),
        progressed: (effect, value) =>
          this.#tell('progress', { address: effect.address as Address, src: effect.src, value }),
      },
      {
        concurrency: options.effects?.concurrency ?? 64,
        heartbeatMs: options.effects?.heartbeatMs ?? 600_000,
      },
    );
  }

  /** How much is in memory and under way. For metrics and tests. */
  get load(): {
    readonly actors: number;
    readonly timers: number;
    readonly effects: number;
    readonly requests: number;
  } {
    return {
      actors: this.#actors.size,
      timers: this.#heap.size,
      effects: this.#runner.running + this.#runner.waiting,
      requests: this.#waiters.size,
    };
  }

  /**
   * Makes a machine known under a name. Actors of that name that were waiting for it go on.
   * @throws {ConfigurationError} the machine cannot be hosted durably, or the name is taken
   */
  register(name: string, machine: AnyStateMachine, options: MachineOptions = {}): void {
    if (this.#registrations.has(name)) {
      throw new ConfigurationError(`A machine named "${name}" is registered already.`);
    }
    const version = options.version ?? 1;
    if (!Number.isSafeInteger(version) || version < 1) {
      throw new ConfigurationError(
        `Expected the version of machine "${name}" to be a positive integer, got ${String(version)}.`,
      );
    }
    this.#registrations.set(name, {
      name,
      driver: new MachineDriver(machine, { freeze: this.#freeze }),
      version,
      migrate: options.migrate,
      project: options.project,
      mailboxLimit: options.mailboxLimit ?? this.#mailboxLimit,
    });
    for (const actor of this.#actors.values()) {
      if (actor.state === 'parked' && actor.machine === name) {
        actor.state = 'loading';
        this.#toLoad.push(actor);
      }
    }
    this.#schedule();
  }

  isRegistered(name: string): boolean {
    return this.#registrations.has(name);
  }

  /**
   * Reads what waits in the store and goes on with it. Call once, when the machines are registered; actors whose
   * machine is not known yet wait for `register`.
   */
  async open(): Promise<void> {
    if (this.#state !== 'new') throw new ConflictError('This host has been opened already.');
    const pending = await this.#store.loadPending();
    this.#state = 'running';
    for (const record of pending.timers) {
      this.#indexTimer(record);
    }
    const withEffects = new Set<string>();
    for (const record of pending.effects) {
      this.#indexOf(this.#effects, record.address).set(record.id, record);
      withEffects.add(record.address);
    }
    for (const record of pending.messages) {
      this.#accept(this.#actorAt(record.to as Address), {
        kind: 'message',
        envelope: fromRecord(record),
        durable: true,
      });
      this.#pendingIds.add(record.id);
    }
    for (const address of withEffects) this.#actorAt(address as Address);
    this.#armAlarm();
    this.#tell('recovered', {
      messages: pending.messages.length,
      timers: pending.timers.length,
      effects: pending.effects.length,
      actors: this.#actors.size,
    });
    this.#schedule();
  }

  /**
   * Creates actors, all in one commit. Those that exist already are left as they are.
   * @returns the addresses that were created
   * @throws {ConfigurationError} a machine is not registered
   */
  async spawn(requests: readonly SpawnRequest[]): Promise<readonly Address[]> {
    this.#assertRunning();
    for (const request of requests) {
      parseAddress(request.address);
      this.#requireRegistration(request.machine);
      const problem = request.input === undefined ? undefined : findNonJson(request.input, 'input');
      if (problem) {
        throw new ValidationError(
          `The input of ${request.address} must be plain JSON, but ${problem.path} is ${problem.found}.`,
        );
      }
    }
    const existing = new Set<string>();
    for (let i = 0; i < requests.length; i += 1000) {
      const chunk = requests.slice(i, i + 1000).map((request) => request.address);
      for (const actor of await this.#store.loadActors(chunk)) existing.add(actor.address);
    }
    this.#assertRunning();
    const created: Address[] = [];
    for (const { address, machine, input } of requests) {
      const known = this.#actors.get(address);
      if (existing.has(address) || (known !== undefined && known.state !== 'loading')) continue;
      existing.add(address);
      const actor = known ?? this.#newActor(address);
      this.#create(actor, this.#requireRegistration(machine), input, null);
      created.push(address);
    }
    await this.#committed();
    return created;
  }

  /**
   * Sends a message. A durable one is stored when the promise resolves.
   * @throws {ValidationError} a malformed address or message
   * @throws {MailboxFullError} too many wait there already; nothing was stored
   */
  async send(to: Address, message: Message, options: SendOptions = {}): Promise<void> {
    this.#assertRunning();
    const envelope = this.#fromOutside(to, message, options);
    if (options.delivery === 'transient') {
      this.#post(envelope, false);
      return;
    }
    this.#post(envelope, true);
    await this.#committed();
  }

  /**
   * Sends a request and waits for its answer.
   * @throws {TimeoutError} no answer within `timeoutMs` (default 30 000)
   * @throws {TroupeError} what the receiver answered, NotFoundError, ConflictError (it has ended), MailboxFullError, StoppedError
   */
  request(to: Address, message: Message, options: RequestOptions = {}): Promise<JsonValue> {
    return new Promise<JsonValue>((resolve, reject) => {
      this.#assertRunning();
      const correlation = `${APP}!${this.#newId()}`;
      const envelope: Envelope = {
        ...this.#fromOutside(to, message, options),
        correlation,
        attempt: 1,
      };
      const timeoutMs = options.timeoutMs ?? 30_000;
      const cancelTimer = this.#clock.setTimer(Math.min(timeoutMs, MAX_TIMER_MS), () =>
        this.#settle(correlation, {
          ok: false,
          failure: new TimeoutError(
            `No answer from ${to} to "${message.type}" within ${timeoutMs} ms.`,
            { context: { address: to, timeoutMs } },
          ).toFailure(),
        }),
      );
      const onAbort = (): void =>
        this.#settle(correlation, { ok: false, failure: toFailure(options.signal?.reason) });
      options.signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.set(correlation, {
        resolve,
        reject,
        cleanup: () => {
          cancelTimer();
          options.signal?.removeEventListener('abort', onAbort);
        },
      });
      try {
        this.#post(envelope, options.delivery !== 'transient');
      } catch (error) {
        this.#settle(correlation, { ok: false, failure: toFailure(error) });
      }
    });
  }

  /** The actor's state as stored; undefined if there is no such actor. */
  async inspect(
    address: Address,
  ): Promise<{ readonly record: ActorRecord; readonly snapshot: PersistedSnapshot } | undefined> {
    this.#assertRunning();
    const [stored] = await this.#store.loadActors([address]);
    if (stored === undefined) return undefined;
    const { snapshotJson, ...record } = stored;
    return { record, snapshot: JSON.parse(snapshotJson) as PersistedSnapshot };
  }

  /** Resolves when everything handed in so far is stored. */
  flush(): Promise<void> {
    this.#assertRunning();
    return this.#committed();
  }

  /**
   * Stops. With `drain`, effects that run may finish within `graceMs` and what they lead to is handled; nothing new
   * starts. Without, they are aborted. Either way what is not finished is stored and goes on with the next runtime.
   * Every promise of this host is settled when this resolves. Idempotent.
   */
  stop(options: { readonly drain?: boolean; readonly graceMs?: number } = {}): Promise<void> {
    this.#closed ??= this.#stop(options.drain ?? false, options.graceMs ?? 30_000);
    return this.#closed;
  }

  // ── the turn ─────────────────────────────────────────────────────────────────────────────────────────

  #pump(): void {
    this.#scheduled = false;
    if (this.#state === 'failed' || this.#state === 'stopped' || this.#state === 'new') return;
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      if (this.#toLoad.length > 0) this.#load();
      const until = performance.now() + MAX_SLICE_MS;
      let turns = 0;
      let at = 0;
      const queue = this.#ready;
      // Round robin: each actor takes one turn and goes to the end, so that a busy one delays nobody.
      while (at < queue.length && this.#stage.size < MAX_BATCH) {
        const actor = queue[at++] as Actor;
        const item = actor.state === 'live' ? actor.mailbox.shift() : undefined;
        actor.queued = false;
        if (item !== undefined) {
          this.#turn(actor, item);
          if (actor.mailbox.length > 0) this.#enqueue(actor);
        }
        if ((++turns & 7) === 0 && performance.now() > until) break;
      }
      this.#ready = at === queue.length ? [] : queue.slice(at);
    } finally {
      this.#pumping = false;
    }
    this.#flush();
    if (this.#ready.length > 0 && this.#stage.size < MAX_BATCH) this.#schedule(true);
    else this.#checkIdle();
  }

  #turn(actor: Actor, item: Item): void {
    const now = this.#clock.now();
    actor.lastUsed = now;
    this.#stage.size++;
    const event = this.#take(actor, item, now);
    if (event === undefined) return;
    const registration = actor.registration as Registration;
    const before = actor.snapshot as LiveSnapshot;
    let transition: Transition;
    try {
      transition = registration.driver.transition(actor.address, before, event);
      this.#apply(actor, transition, event, now);
    } catch (error) {
      this.#faulted(actor, item, event, error);
    }
  }

  /** Takes an item out of the stored world (in the stage) and makes an event of it; undefined if it counts no more. */
  #take(actor: Actor, item: Item, now: number): MachineEvent | undefined {
    switch (item.kind) {
      case 'message': {
        const { envelope } = item;
        if (item.durable) {
          this.#pendingIds.delete(envelope.id);
          this.#stage.consumeMessage(envelope.id);
        }
        if (envelope.message.type === SPAWN) return undefined; // it exists: the spawn is a repetition
        if (envelope.reply === true && !this.#takeReply(actor, envelope)) {
          this.#drop(envelope, 'late');
          return undefined;
        }
        const { correlation } = envelope;
        const meta: Meta = {
          id: envelope.id,
          from: envelope.from,
          at: now,
          ...(correlation === undefined
            ? undefined
            : envelope.reply === true
              ? { request: correlation.slice(correlation.indexOf('!') + 1) }
              : { correlation, attempt: envelope.attempt ?? 1 }),
        };
        return { ...envelope.message, meta };
      }
      case 'timer': {
        const timer = this.#timers.get(actor.address)?.get(item.id);
        if (timer === undefined || timer.generation !== item.generation) return undefined;
        this.#clearTimer(actor.address, item.id);
        const meta: Meta = { id: timer.generation, from: actor.address, at: now };
        const action = JSON.parse(timer.actionJson) as TimerAction;
        switch (action.do) {
          case 'event':
            return { ...action.event, meta };
          case 'deadline':
            return {
              type: `${action.request}:err`,
              failure: new TimeoutError(
                `No answer from ${action.to} to "${action.request}" within ${action.timeoutMs} ms.`,
                { context: { address: action.to, attempt: action.attempt } },
              ).toFailure(),
              meta: { ...meta, request: item.id.slice('request:'.length) },
            };
          case 'send':
            this.#deliver(actor, action.envelope);
            return undefined;
        }
        return undefined;
      }
      case 'effect': {
        const effect = this.#effects.get(actor.address)?.get(item.id);
        if (effect === undefined || effect.generation !== item.generation) return undefined;
        this.#clearEffect(effect);
        const meta: Meta = { id: effect.generation, from: actor.address, at: now };
        return item.outcome.ok
          ? {
              type: `xstate.done.actor.${item.id}`,
              output: item.outcome.output,
              actorId: item.id,
              meta,
            }
          : {
              type: `xstate.error.actor.${item.id}`,
              error: item.outcome.failure,
              actorId: item.id,
              meta,
            };
      }
    }
  }

  /** An answer counts only while its request waits, and only for the attempt that waits. */
  #takeReply(actor: Actor, envelope: Envelope): boolean {
    const prefix = `${actor.address}!`;
    if (!envelope.correlation?.startsWith(prefix)) return false;
    const id = `request:${envelope.correlation.slice(prefix.length)}`;
    const timer = this.#timers.get(actor.address)?.get(id);
    if (timer === undefined) return false;
    const action = JSON.parse(timer.actionJson) as TimerAction;
    if (action.do !== 'deadline' || action.attempt !== envelope.attempt) return false;
    this.#clearTimer(actor.address, id);
    return true;
  }

  /** Stages what a transition asked for. Throws before it has changed anything, or not at all. */
  #apply(
    actor: Actor,
    transition: Transition,
    event: MachineEvent | null,
    now: number,
    initial = false,
  ): void {
    const { snapshot, actions } = transition;
    const before = actor.snapshot;
    if (!initial && before !== undefined && sameState(before, snapshot)) {
      // A question answered, a message passed on: the actor is what it was, so there is nothing to checkpoint.
      if (actions.length === 0) return;
      this.#checkActions(actor.address, actions);
      const cause = (event?.['meta'] as Meta).id;
      let k = 0;
      for (const action of actions) this.#act(actor, action, `${actor.address}~${cause}.${k++}`, now);
      return;
    }
    const registration = actor.registration as Registration;
    const persisted = registration.driver.persist(snapshot);
    const seq = initial ? 0 : actor.seq + 1;
    this.#checkActions(actor.address, actions);
    const snapshotJson = JSON.stringify(persisted);
    const eventJson = event === null ? null : JSON.stringify(event);

    actor.snapshot = snapshot;
    actor.seq = seq;
    actor.status = persisted.status;
    actor.version = registration.version;
    const stage = this.#stage;
    stage.checkpoints.push({
      address: actor.address,
      seq,
      at: now,
      kind: persisted.status === 'error' ? 'error' : 'auto',
      label: null,
      eventJson,
      snapshotJson,
    });
    this.#touch(actor, now);
    if (registration.project !== undefined) {
      const { project } = registration;
      stage.projections.set(actor.address, () =>
        project({
          address: actor.address,
          value: (actor.snapshot as LiveSnapshot).value,
          context: (actor.snapshot as LiveSnapshot).context,
          status: (actor.snapshot as LiveSnapshot).status,
          at: now,
        }),
      );
    }
    let k = 0;
    for (const action of actions) {
      this.#act(actor, action, `${actor.address}#${seq}.${k++}`, now);
    }
    if (this.events.listenerCount('turn') > 0) {
      const turn: Turn = {
        address: actor.address,
        machine: registration.name,
        seq,
        at: now,
        event:
          event === null
            ? null
            : {
                type: event.type,
                from: (event['meta'] as Meta | undefined)?.from ?? actor.address,
              },
        state: persisted.value,
        context: persisted.context,
        status: persisted.status,
      };
      stage.after.push(() => this.#tell('turn', turn));
    }
    if (persisted.status !== 'active') this.#end(actor, persisted);
  }

  /** Everything that may be wrong with what a machine asks for is found before anything is staged. */
  #checkActions(address: string, actions: readonly MachineAction[]): void {
    for (const action of actions) {
      if (action.kind === 'raiseLater') {
        if (!Number.isFinite(action.delayMs) || action.delayMs < 0) {
          throw new ConfigurationError(
            `A delay of ${address} must be a number of milliseconds from 0, got ${String(action.delayMs)}.`,
          );
        }
      }
      if (action.kind !== 'command') continue;
      const params = action.params as Partial<
        SendParams & RequestParams & ReplyParams & SpawnParams
      >;
      switch (action.command) {
        case 'send':
        case 'request': {
          if (!isAddress(params.to)) parseAddress(params.to);
          parseMessage(params.message);
          if (action.command === 'request' && !(Number(params.timeoutMs) > 0)) {
            throw new ConfigurationError(
              `A request of ${address} needs timeoutMs, a number of milliseconds above 0, got ${String(params.timeoutMs)}.`,
            );
          }
          break;
        }
        case 'spawn':
          parseAddress(params.address);
          this.#requireRegistration(String(params.machine));
          if (params.input !== undefined) {
            const problem = findNonJson(params.input, 'input');
            if (problem)
              throw new ValidationError(`${problem.path} is ${problem.found}, not JSON.`);
          }
          break;
        case 'reply': {
          const value: unknown = (params as { reply?: unknown; failure?: unknown }).reply;
          const problem = value === undefined ? undefined : findNonJson(value, 'reply');
          if (problem) throw new ValidationError(`${problem.path} is ${problem.found}, not JSON.`);
          break;
        }
        case 'cancelRequest':
          break;
      }
    }
  }

  #act(actor: Actor, action: MachineAction, id: string, now: number): void {
    switch (action.kind) {
      case 'command':
        this.#command(actor, action, id, now);
        return;
      case 'startEffect': {
        const effect: EffectRecord = {
          address: actor.address,
          id: action.id,
          generation: id,
          src: action.src,
          inputJson: JSON.stringify(action.input),
          attempt: 1,
          startedAt: now,
        };
        const previous = this.#effects.get(actor.address)?.get(action.id);
        if (previous !== undefined) this.#abortLater(previous);
        this.#indexOf(this.#effects, actor.address).set(action.id, effect);
        this.#stage.setEffect(effect);
        this.#stage.after.push(() => this.#startEffect(actor, effect));
        return;
      }
      case 'stopEffect': {
        const effect = this.#effects.get(actor.address)?.get(action.id);
        if (effect === undefined) return;
        this.#clearEffect(effect);
        this.#abortLater(effect);
        return;
      }
      case 'raiseLater':
        this.#setTimer(actor.address, action.id ?? id, id, now + action.delayMs, {
          do: 'event',
          event: action.event,
        });
        return;
      case 'cancelTimer':
        this.#clearTimer(actor.address, action.id);
        return;
      case 'sendSelf':
        this.#deliver(
          actor,
          this.#envelope(actor.address, actor.address, action.event as Message, id, now),
        );
        return;
      case 'sendParent': {
        if (actor.parent === null) return;
        const envelope = this.#envelope(
          actor.address,
          actor.parent,
          action.event as Message,
          id,
          now,
        );
        if (action.delayMs === undefined) this.#deliver(actor, envelope);
        else {
          this.#setTimer(actor.address, id, id, now + action.delayMs, { do: 'send', envelope });
        }
        return;
      }
      case 'emit':
        this.#stage.after.push(() =>
          this.#tell('emitted', {
            address: actor.address,
            event: action.event as unknown as JsonObject,
          }),
        );
        return;
      case 'log':
        this.#logger.info(
          { actor: actor.address, label: action.label, value: action.value },
          'log',
        );
        return;
      case 'local':
        this.#stage.after.push(() => {
          try {
            action.run();
          } catch (error) {
            this.#logger.error(
              { actor: actor.address, action: action.type, err: error },
              'a local action threw',
            );
          }
        });
        return;
    }
  }

  #command(
    actor: Actor,
    action: Extract<MachineAction, { kind: 'command' }>,
    id: string,
    now: number,
  ): void {
    switch (action.command) {
      case 'send': {
        const params = action.params as SendParams;
        const envelope = this.#envelope(
          actor.address,
          params.to,
          params.message as Message,
          id,
          now,
          params.priority,
        );
        if (params.delayMs === undefined || params.delayMs <= 0) this.#deliver(actor, envelope);
        else this.#setTimer(actor.address, id, id, now + params.delayMs, { do: 'send', envelope });
        return;
      }
      case 'request': {
        const params = action.params as RequestParams;
        const message = params.message as Message;
        const name = params.id ?? message.type;
        const attempt = params.attempt ?? 1;
        this.#setTimer(actor.address, `request:${name}`, id, now + params.timeoutMs, {
          do: 'deadline',
          request: message.type,
          to: params.to,
          attempt,
          timeoutMs: params.timeoutMs,
        });
        this.#deliver(actor, {
          ...this.#envelope(actor.address, params.to, message, id, now, params.priority),
          correlation: `${actor.address}!${name}`,
          attempt,
        });
        return;
      }
      case 'cancelRequest':
        this.#clearTimer(actor.address, `request:${(action.params as { id: string }).id}`);
        return;
      case 'reply': {
        const params = action.params as ReplyParams;
        if (params.to === undefined) return;
        this.#reply(
          actor.address,
          params.to,
          params.type,
          'failure' in params
            ? { ok: false, failure: params.failure }
            : { ok: true, output: params.reply },
          id,
          now,
        );
        return;
      }
      case 'spawn': {
        const params = action.params as SpawnParams;
        this.#deliver(actor, {
          ...this.#envelope(
            actor.address,
            params.address as Address,
            { type: SPAWN, machine: params.machine, input: params.input ?? null },
            id,
            now,
            INTERNAL,
          ),
        });
        return;
      }
    }
  }

  #reply(
    from: Address,
    to: { readonly address: Address; readonly correlation: string; readonly attempt: number },
    type: string,
    outcome: EffectOutcome,
    id: string,
    now: number,
  ): void {
    const message: Message = outcome.ok
      ? { type: `${type}:ok`, reply: outcome.output }
      : { type: `${type}:err`, failure: outcome.failure as unknown as JsonValue };
    this.#route({
      ...this.#envelope(from, to.address, message, id, now, PRIORITIES.high),
      correlation: to.correlation,
      attempt: to.attempt,
      reply: true,
    });
  }

  /** A machine's code threw: the message becomes a dead letter, the actor stays as it was, its parent is told. */
  #faulted(actor: Actor, item: Item, event: MachineEvent, error: unknown): void {
    const failure = toFailure(error);
    const now = this.#clock.now();
    this.#logger.error(
      { actor: actor.address, event: event.type, err: error },
      'a turn failed; the actor keeps its state',
    );
    this.#deadLetter(actor.address, event as unknown as Message, failure.message, now);
    if (
      item.kind === 'message' &&
      item.envelope.correlation !== undefined &&
      item.envelope.reply !== true
    ) {
      this.#refuse(item.envelope, failure);
    }
    if (actor.parent !== null) {
      this.#deliver(
        actor,
        this.#envelope(
          actor.address,
          actor.parent,
          {
            type: 'child.faulted',
            address: actor.address,
            failure: failure as unknown as JsonValue,
          },
          `${actor.address}#fault.${this.#newId()}`,
          now,
        ),
      );
    }
  }

  #end(actor: Actor, persisted: PersistedSnapshot): void {
    actor.state = 'ended';
    actor.reason = persisted.status === 'error' ? describeError(persisted.error) : null;
    for (const id of [...(this.#timers.get(actor.address)?.keys() ?? [])]) {
      this.#clearTimer(actor.address, id);
    }
    for (const effect of [...(this.#effects.get(actor.address)?.values() ?? [])]) {
      this.#clearEffect(effect);
      this.#abortLater(effect);
    }
    if (persisted.status === 'error') {
      this.#logger.error(
        { actor: actor.address, reason: actor.reason },
        'an actor ended with an error',
      );
      if (actor.parent !== null) {
        this.#deliver(
          actor,
          this.#envelope(
            actor.address,
            actor.parent,
            { type: 'child.faulted', address: actor.address, failure: persisted.error ?? null },
            `${actor.address}#end`,
            this.#clock.now(),
          ),
        );
      }
    }
    this.#refuseAll(actor);
  }

  // ── delivery ─────────────────────────────────────────────────────────────────────────────────────────

  #envelope(
    from: Address,
    to: string,
    message: Message,
    id: string,
    sentAt: number,
    priority: Priority = PRIORITIES.normal,
  ): Envelope {
    return { id, from, to: to as Address, message, priority, sentAt };
  }

  #fromOutside(to: Address, message: Message, options: SendOptions): Envelope {
    const address = parseAddress(to);
    const parsed = parseMessage(message);
    checkAgainstCatalogue(kindOf(address), parsed);
    return this.#envelope(
      APP,
      address,
      parsed,
      options.id ?? `${APP}#${this.#newId()}`,
      this.#clock.now(),
      options.priority,
    );
  }

  /** @throws {MailboxFullError} */
  #post(envelope: Envelope, durable: boolean): void {
    if (durable && this.#pendingIds.has(envelope.id)) {
      this.#drop(envelope, 'duplicate');
      return;
    }
    const actor = this.#actorAt(envelope.to);
    const limit = actor.registration?.mailboxLimit ?? this.#mailboxLimit;
    if (actor.mailbox.length >= limit) {
      this.#tell('mailboxFull', { address: actor.address, limit });
      throw new MailboxFullError(actor.address, limit);
    }
    if (durable) {
      this.#stage.addMessage(envelope);
      this.#stage.size++;
      this.#pendingIds.add(envelope.id);
    }
    this.#push(actor, { kind: 'message', envelope, durable });
    this.#schedule();
  }

  /** A message from a turn: it is stored with the turn's stage. A full mailbox is refused aloud. */
  #deliver(sender: Actor, envelope: Envelope): void {
    if (kindOf(envelope.to) === 'app') {
      this.#drop(envelope, 'nobody');
      return;
    }
    try {
      this.#post(envelope, true);
    } catch (error) {
      const failure = toFailure(error);
      if (envelope.correlation !== undefined) this.#refuse(envelope, failure);
      else this.#deadLetter(envelope.to, envelope.message, failure.message, this.#clock.now());
      this.#logger.warn(
        { from: sender.address, to: envelope.to, type: envelope.message.type },
        failure.message,
      );
    }
  }

  /** Sends a reply: to an actor's mailbox, or to whoever waits outside. Replies are never refused for lack of room. */
  #route(envelope: Envelope): void {
    if (kindOf(envelope.to) === 'app') {
      const { correlation, message } = envelope;
      if (correlation === undefined) return;
      const outcome: EffectOutcome =
        'failure' in message
          ? { ok: false, failure: message['failure'] as unknown as Failure }
          : { ok: true, output: (message['reply'] ?? null) as JsonValue };
      this.#afterCommit(() => this.#settle(correlation, outcome));
      return;
    }
    const actor = this.#actorAt(envelope.to);
    this.#stage.addMessage(envelope);
    this.#pendingIds.add(envelope.id);
    this.#push(actor, { kind: 'message', envelope, durable: true });
    this.#schedule();
  }

  /** Answers a request on behalf of a receiver that cannot. */
  #refuse(envelope: Envelope, failure: Failure): void {
    if (envelope.correlation === undefined || envelope.reply === true) return;
    this.#reply(
      envelope.to,
      {
        address: envelope.from,
        correlation: envelope.correlation,
        attempt: envelope.attempt ?? 1,
      },
      envelope.message.type,
      { ok: false, failure },
      `${envelope.id}~refused`,
      this.#clock.now(),
    );
  }

  #push(actor: Actor, item: Item): void {
    let times = 1;
    try {
      void this.#faultPoint('bus.deliver');
    } catch (error) {
      if (!(error instanceof DeliveryFault)) throw error;
      times = error.action === 'drop' ? 0 : 2;
    }
    for (let i = 0; i < times; i++) this.#accept(actor, item);
  }

  #accept(actor: Actor, item: Item): void {
    if (item.kind === 'message') actor.mailbox.push(item, item.envelope.priority);
    else actor.mailbox.push(item, INTERNAL);
    if (actor.state === 'ended') this.#refuseAll(actor);
    else this.#enqueue(actor);
  }

  #enqueue(actor: Actor): void {
    if (actor.queued || actor.state !== 'live') return;
    actor.queued = true;
    this.#ready.push(actor);
  }

  /** Empties the mailbox of an actor that will never read it again. */
  #refuseAll(actor: Actor): void {
    for (let item = actor.mailbox.shift(); item !== undefined; item = actor.mailbox.shift()) {
      if (item.kind !== 'message') continue;
      const { envelope } = item;
      if (item.durable) {
        this.#pendingIds.delete(envelope.id);
        this.#stage.consumeMessage(envelope.id);
      }
      if (envelope.message.type === SPAWN) continue;
      this.#drop(envelope, 'ended');
      const error =
        actor.status === 'error'
          ? `${actor.address} has ended with an error: ${actor.reason ?? 'unknown'}`
          : `${actor.address} has ended.`;
      this.#refuse(envelope, new ConflictError(error).toFailure());
    }
  }

  #drop(envelope: Envelope, reason: 'late' | 'duplicate' | 'ended' | 'nobody'): void {
    this.#tell('dropped', { address: envelope.to, type: envelope.message.type, reason });
  }

  #deadLetter(address: Address, message: Message, reason: string, at: number): void {
    this.#stage.deadLetters.push({
      id: this.#newId(),
      at,
      address,
      reason,
      messageJson: JSON.stringify(message),
    });
    this.#afterCommit(() => this.#tell('deadLettered', { address, type: message.type, reason }));
  }

  #settle(correlation: string, outcome: EffectOutcome): void {
    const waiter = this.#waiters.get(correlation);
    if (waiter === undefined) return; // nobody waits any more: the asker timed out or went away
    this.#waiters.delete(correlation);
    waiter.cleanup();
    if (outcome.ok) waiter.resolve(outcome.output);
    else waiter.reject(fromFailure(outcome.failure));
  }

  // ── actors ───────────────────────────────────────────────────────────────────────────────────────────

  #newActor(address: Address): Actor {
    const actor: Actor = {
      address,
      state: 'loading',
      registration: undefined,
      snapshot: undefined,
      seq: 0,
      parent: null,
      mailbox: new Mailbox<Item>(),
      queued: false,
      lastUsed: this.#clock.now(),
      uncommitted: 0,
      stage: undefined,
      status: 'active',
      version: 0,
      machine: '',
      reason: null,
    };
    this.#actors.set(address, actor);
    return actor;
  }

  /** The actor at an address, or a place for its messages while it is being read. */
  #actorAt(address: Address): Actor {
    const known = this.#actors.get(address);
    if (known !== undefined) return known;
    const actor = this.#newActor(address);
    this.#toLoad.push(actor);
    return actor;
  }

  #create(
    actor: Actor,
    registration: Registration,
    input: JsonValue | undefined,
    parent: Address | null,
  ): void {
    const now = this.#clock.now();
    const transition = registration.driver.initial(actor.address, input);
    actor.registration = registration;
    actor.machine = registration.name;
    actor.parent = parent;
    actor.state = 'live';
    this.#stage.size++;
    this.#apply(actor, transition, null, now, true);
    if (actor.mailbox.length > 0) this.#enqueue(actor);
    this.#armSweep();
  }

  #load(): void {
    const batch = this.#toLoad.splice(0, 1000);
    const wanted = batch.filter((actor) => actor.state === 'loading');
    if (wanted.length === 0) {
      if (this.#toLoad.length > 0) this.#load();
      return;
    }
    this.#loading++;
    this.#store.loadActors(wanted.map((actor) => actor.address)).then(
      (stored) => {
        this.#loading--;
        if (this.#state === 'failed' || this.#state === 'stopped') return;
        const byAddress = new Map(stored.map((record) => [record.address, record]));
        for (const actor of wanted) {
          if (actor.state === 'loading') this.#loaded(actor, byAddress.get(actor.address));
        }
        this.#schedule();
      },
      (error: unknown) => this.#fail(error),
    );
  }

  #loaded(actor: Actor, stored: StoredActor | undefined): void {
    if (stored === undefined) {
      this.#missing(actor);
      return;
    }
    actor.seq = stored.seq;
    actor.parent = stored.parent as Address | null;
    actor.status = stored.status;
    actor.version = stored.version;
    actor.machine = stored.machine;
    actor.reason = stored.reason;
    actor.lastUsed = this.#clock.now();
    if (stored.status === 'done' || stored.status === 'error') {
      actor.state = 'ended';
      this.#refuseAll(actor);
      this.#armSweep();
      return;
    }
    const registration = this.#registrations.get(stored.machine);
    if (registration === undefined) {
      actor.state = 'parked';
      this.#logger.warn(
        { actor: actor.address, machine: stored.machine },
        'an actor waits: its machine is not registered yet',
      );
      return;
    }
    try {
      actor.snapshot = this.#restore(actor.address, stored, registration);
    } catch (error) {
      this.#quarantine(actor, error instanceof Error ? error.message : String(error));
      return;
    }
    actor.registration = registration;
    actor.state = 'live';
    if (stored.status === 'quarantined') {
      // The machine of today can read it again.
      actor.status = 'active';
      actor.reason = null;
      this.#touch(actor, this.#clock.now());
    }
    for (const effect of this.#effects.get(actor.address)?.values() ?? []) {
      this.#restartEffect(actor, effect);
    }
    if (actor.mailbox.length > 0) this.#enqueue(actor);
    this.#armSweep();
  }

  #restore(address: Address, stored: StoredActor, registration: Registration): LiveSnapshot {
    let persisted = PERSISTED.parse(JSON.parse(stored.snapshotJson)) as PersistedSnapshot;
    if (stored.version > registration.version) {
      throw new ConfigurationError(
        `${address} was stored by version ${stored.version} of machine "${registration.name}"; this is version ${registration.version}.`,
      );
    }
    if (stored.version < registration.version) {
      if (registration.migrate === undefined) {
        throw new ConfigurationError(
          `${address} was stored by version ${stored.version} of machine "${registration.name}", and version ${registration.version} has no migrate function.`,
        );
      }
      persisted = PERSISTED.parse(
        registration.migrate(persisted, stored.version),
      ) as PersistedSnapshot;
    }
    return registration.driver.restore(address, persisted);
  }

  #quarantine(actor: Actor, reason: string): void {
    actor.state = 'quarantined';
    actor.status = 'quarantined';
    actor.reason = reason;
    this.#logger.error(
      { actor: actor.address, reason },
      'an actor is quarantined; the rest goes on',
    );
    this.#touch(actor, this.#clock.now());
    this.#afterCommit(() => this.#tell('quarantined', { address: actor.address, reason }));
  }

  /** Nobody has this address: create it if somebody asked for that, else refuse what was sent to it. */
  #missing(actor: Actor): void {
    for (let item = actor.mailbox.shift(); item !== undefined; item = actor.mailbox.shift()) {
      if (item.kind !== 'message') continue;
      const { envelope } = item;
      if (item.durable) {
        this.#pendingIds.delete(envelope.id);
        this.#stage.consumeMessage(envelope.id);
      }
      this.#stage.size++;
      if (envelope.message.type === SPAWN) {
        const registration = this.#registrations.get(String(envelope.message['machine']));
        if (registration !== undefined) {
          try {
            this.#create(
              actor,
              registration,
              envelope.message['input'] as JsonValue,
              envelope.from,
            );
            return;
          } catch (error) {
            this.#deadLetter(
              actor.address,
              envelope.message,
              toFailure(error).message,
              this.#clock.now(),
            );
            continue;
          }
        }
      }
      const failure = new NotFoundError(`There is no actor at ${actor.address}.`).toFailure();
      if (envelope.correlation !== undefined && envelope.reply !== true) {
        this.#refuse(envelope, failure);
      } else {
        this.#deadLetter(actor.address, envelope.message, failure.message, this.#clock.now());
      }
    }
    this.#actors.delete(actor.address);
  }

  /** Puts the actor's row into the stage. */
  #touch(actor: Actor, now: number): void {
    const stage = this.#stage;
    if (actor.stage !== stage) {
      actor.stage = stage;
      actor.uncommitted++;
      stage.after.push(() => {
        actor.uncommitted--;
      });
    }
    stage.actors.set(actor.address, () => ({
      address: actor.address,
      machine: actor.machine,
      version: actor.version,
      status: actor.status,
      seq: actor.seq,
      parent: actor.parent,
      reason: actor.reason,
      updatedAt: now,
    }));
  }

  #requireRegistration(name: string): Registration {
    const registration = this.#registrations.get(name);
    if (registration !== undefined) return registration;
    throw new ConfigurationError(
      `No machine named "${name}" is registered. Known: ${[...this.#registrations.keys()].join(', ') || 'none'}.`,
    );
  }

  #armSweep(): void {
    if (this.#cancelSweep !== undefined || this.#state !== 'running') return;
    this.#cancelSweep = this.#clock.setTimer(
      Math.min(this.#passivateAfterMs, MAX_TIMER_MS),
      () => {
        this.#cancelSweep = undefined;
        this.#passivate();
      },
      true,
    );
  }

  /** Lets actors without messages leave memory; their next message brings them back. */
  #passivate(): void {
    if (this.#state !== 'running') return;
    const before = this.#clock.now() - this.#passivateAfterMs;
    let left = 0;
    for (const actor of this.#actors.values()) {
      const idle =
        (actor.state === 'live' || actor.state === 'ended') &&
        actor.mailbox.length === 0 &&
        actor.uncommitted === 0 &&
        !this.#effects.has(actor.address);
      if (idle && actor.lastUsed <= before) this.#actors.delete(actor.address);
      else left++;
    }
    if (left > 0) this.#armSweep();
  }

  // ── timers ───────────────────────────────────────────────────────────────────────────────────────────

  #setTimer(
    address: Address,
    id: string,
    generation: string,
    dueAt: number,
    action: TimerAction,
  ): void {
    const timer: Timer = { address, id, generation, dueAt, actionJson: JSON.stringify(action) };
    this.#stage.setTimer(timer);
    this.#indexTimer(timer);
    this.#armAlarm();
  }

  #indexTimer(timer: Timer): void {
    this.#indexOf(this.#timers, timer.address).set(timer.id, timer);
    this.#heap.push(timer);
  }

  #clearTimer(address: Address, id: string): void {
    const timers = this.#timers.get(address);
    if (timers === undefined || !timers.delete(id)) return;
    if (timers.size === 0) this.#timers.delete(address);
    this.#stage.clearTimer(address, id);
  }

  #isCurrent(timer: Timer): boolean {
    return this.#timers.get(timer.address)?.get(timer.id) === timer;
  }

  #armAlarm(): void {
    if (this.#state !== 'running' && this.#state !== 'stopping') return;
    for (let next = this.#heap.peek(); next !== undefined; next = this.#heap.peek()) {
      if (!this.#isCurrent(next)) {
        this.#heap.pop();
        continue;
      }
      if (next.dueAt >= this.#alarmAt) return;
      this.#cancelAlarm();
      this.#alarmAt = next.dueAt;
      // A longer wait is cut into pieces: Node fires an overlong timer at once.
      const wait = Math.min(Math.max(0, next.dueAt - this.#clock.now()), MAX_TIMER_MS);
      this.#cancelAlarm = this.#clock.setTimer(wait, () => this.#alarm());
      return;
    }
    this.#cancelAlarm();
    this.#alarmAt = Number.POSITIVE_INFINITY;
  }

  #alarm(): void {
    this.#alarmAt = Number.POSITIVE_INFINITY;
    if (this.#state !== 'running' && this.#state !== 'stopping') return;
    const now = this.#clock.now();
    for (let next = this.#heap.peek(); next !== undefined; next = this.#heap.peek()) {
      const current = this.#isCurrent(next);
      if (current && next.dueAt > now) break;
      this.#heap.pop();
      if (!current) continue;
      this.#push(this.#actorAt(next.address as Address), {
        kind: 'timer',
        id: next.id,
        generation: next.generation,
      });
    }
    this.#armAlarm();
    this.#schedule();
  }

  // ── effects ──────────────────────────────────────────────────────────────────────────────────────────

  #startEffect(actor: Actor, effect: EffectRecord): void {
    if (this.#effects.get(actor.address)?.get(effect.id) !== effect) return;
    if (actor.registration === undefined) return;
    this.#tell('effectStarted', {
      address: actor.address,
      id: effect.id,
      src: effect.src,
      attempt: effect.attempt,
    });
    this.#runner.start(effect, actor.registration.driver.effect(effect.src));
  }

  /** After a crash: the effect was running, or about to. Its finished steps are kept. */
  #restartEffect(actor: Actor, effect: EffectRecord): void {
    if (effect.attempt > this.#maxEffectRestarts) {
      this.#push(actor, {
        kind: 'effect',
        id: effect.id,
        generation: effect.generation,
        outcome: {
          ok: false,
          failure: {
            code: 'internal',
            message: `The effect "${effect.src}" was running when the process ended, ${effect.attempt} times. It is not started again.`,
            retryable: false,
            context: { restarts: effect.attempt },
          },
        },
      });
      return;
    }
    const next: EffectRecord = { ...effect, attempt: effect.attempt + 1 };
    this.#indexOf(this.#effects, actor.address).set(effect.id, next);
    this.#stage.setEffect(next);
    this.#stage.size++;
    this.#stage.after.push(() => this.#startEffect(actor, next));
  }

  #clearEffect(effect: EffectRecord): void {
    const effects = this.#effects.get(effect.address);
    effects?.delete(effect.id);
    if (effects?.size === 0) this.#effects.delete(effect.address);
    this.#stage.clearEffect(effect.address, effect.id);
    this.#stage.clearedSteps.push(`${effect.address}!${effect.generation}`);
  }

  #abortLater(effect: EffectRecord): void {
    this.#stage.after.push(() => this.#runner.abort(effect, 'The state that started it was left.'));
  }

  #effectEnded(effect: EffectRecord, outcome: EffectOutcome): void {
    if (this.#state === 'failed' || this.#state === 'stopped') return;
    this.#tell('effectEnded', {
      address: effect.address as Address,
      id: effect.id,
      src: effect.src,
      attempt: effect.attempt,
      failure: outcome.ok ? null : outcome.failure,
    });
    this.#push(this.#actorAt(effect.address as Address), {
      kind: 'effect',
      id: effect.id,
      generation: effect.generation,
      outcome,
    });
    this.#schedule();
  }

  async #saveStep(
    effect: EffectRecord,
    scope: string,
    key: string,
    outcome: JsonValue,
  ): Promise<void> {
    this.#assertAlive();
    const current = this.#effects.get(effect.address)?.get(effect.id);
    if (current?.generation !== effect.generation) {
      throw new ConflictError(
        `The effect "${effect.src}" of ${effect.address} is no longer wanted.`,
      );
    }
    this.#stage.steps.push({
      scope,
      key,
      at: this.#clock.now(),
      outcomeJson: JSON.stringify(outcome),
    });
    this.#stage.size++;
    this.#schedule();
    await this.#committed();
  }

  // ── the commit ───────────────────────────────────────────────────────────────────────────────────────

  #schedule(yielding = false): void {
    if (this.#scheduled || this.#state === 'new') return;
    this.#scheduled = true;
    this.#defer(() => this.#pump(), yielding);
  }

  /** Runs `action` when everything staged so far is stored; at once if nothing is on its way. */
  #afterCommit(action: () => void): void {
    if (!this.#stage.hasRows && this.#commits === 0) {
      action();
      return;
    }
    this.#stage.after.push(action);
    this.#stage.size++;
  }

  #committed(): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      if (!this.#stage.hasRows && this.#commits === 0) {
        resolve();
        return;
      }
      this.#stage.after.push(resolve);
      this.#stage.onFailure.push(reject);
      this.#schedule();
    });
  }

  #flush(): void {
    const stage = this.#stage;
    if (this.#commits >= MAX_COMMITS) return;
    if (!stage.hasRows) {
      if (stage.after.length === 0) stage.size = 0;
      if (stage.after.length === 0 || this.#commits > 0) return;
      // Nothing to store: what waits for the commit has waited for nothing.
      this.#stage = new Stage();
      this.#finish(stage);
      return;
    }
    this.#stage = new Stage();
    this.#commits++;
    void this.#commit(stage);
  }

  #lastCommit: Promise<void> = Promise.resolve();

  async #commit(stage: Stage): Promise<void> {
    const previous = this.#lastCommit;
    let release: () => void = () => undefined;
    this.#lastCommit = new Promise((resolve) => {
      release = resolve;
    });
    try {
      const batch = stage.seal();
      const wait = this.#faultPoint('host.before-commit');
      if (wait instanceof Promise) await wait;
      await this.#store.commit(batch);
      const waitAfter = this.#faultPoint('host.after-commit');
      if (waitAfter instanceof Promise) await waitAfter;
      // The store answers in order; this only matters when a fault point delayed one of us.
      await previous;
    } catch (error) {
      release();
      for (const reject of stage.onFailure) reject(error);
      this.#fail(error);
      return;
    }
    this.#commits--;
    if (this.#state !== 'failed') {
      this.#finish(stage);
      void this.#faultPoint('host.after-effects');
    }
    release();
    this.#schedule();
  }

  #finish(stage: Stage): void {
    for (const action of stage.after) action();
  }

  #fail(cause: unknown): void {
    if (this.#state === 'failed' || this.#state === 'stopped') return;
    this.#state = 'failed';
    const error = new TroupeError(
      'internal',
      `The runtime has stopped: what happened could not be stored in ${this.#store.name} (${toFailure(cause).message}). Open it again to go on from what is stored.`,
      { cause },
    );
    this.#failure = error;
    this.#logger.fatal({ err: cause }, error.message);
    this.#cancelAlarm();
    this.#cancelSweep?.();
    this.#runner.close();
    this.#runner.abortAll(error.message);
    for (const reject of this.#stage.onFailure) reject(error);
    this.#rejectWaiters(error);
    this.#checkIdle();
    this.#tell('failed', error);
  }

  #rejectWaiters(error: Error): void {
    for (const waiter of this.#waiters.values()) {
      waiter.cleanup();
      waiter.reject(error);
    }
    this.#waiters.clear();
  }

  // ── the end ──────────────────────────────────────────────────────────────────────────────────────────

  async #stop(drain: boolean, graceMs: number): Promise<void> {
    const wasRunning = this.#state === 'running';
    if (wasRunning) {
      this.#state = 'stopping';
      this.#runner.close();
      if (drain) await this.#within(graceMs, this.#runner.idle());
      this.#runner.abortAll('The runtime stops.');
      await this.#quiet();
      await this.#runner.idle();
      await this.#quiet();
    }
    this.#cancelAlarm();
    this.#cancelSweep?.();
    if (this.#state !== 'failed') this.#state = 'stopped';
    this.#rejectWaiters(new StoppedError());
    if (this.#failure !== undefined) await this.#runner.idle();
    await this.#store.close();
    this.events.removeAllListeners();
  }

  async #within(ms: number, promise: Promise<void>): Promise<void> {
    let cancel = (): void => undefined;
    const timeout = new Promise<void>((resolve) => {
      cancel = this.#clock.setTimer(Math.min(ms, MAX_TIMER_MS), resolve);
    });
    await Promise.race([promise, timeout]);
    cancel();
  }

  /** Resolves when no message is waiting to be handled and nothing is waiting to be stored. */
  #quiet(): Promise<void> {
    return new Promise<void>((resolve) => {
      this.#wakeIdle.push(resolve);
      this.#schedule();
      this.#checkIdle();
    });
  }

  #checkIdle(): void {
    if (this.#wakeIdle.length === 0) return;
    const busy =
      this.#ready.length > 0 ||
      this.#toLoad.length > 0 ||
      this.#loading > 0 ||
      this.#commits > 0 ||
      this.#stage.hasRows;
    if (busy && this.#state !== 'failed') return;
    const wake = this.#wakeIdle;
    this.#wakeIdle = [];
    for (const resolve of wake) resolve();
  }

  #assertAlive(): void {
    if (this.#state === 'failed') throw this.#failure ?? new StoppedError();
    if (this.#state === 'stopped') throw new StoppedError();
  }

  #assertRunning(): void {
    this.#assertAlive();
    if (this.#state === 'stopping') throw new StoppedError('The runtime is stopping.');
    if (this.#state === 'new')
      throw new ConflictError('The host is not open yet: call open() first.');
  }

  #indexOf<V>(index: Map<string, Map<string, V>>, address: string): Map<string, V> {
    let inner = index.get(address);
    if (inner === undefined) {
      inner = new Map();
      index.set(address, inner);
    }
    return inner;
  }

  /** Tells listeners. One that throws harms nobody else. */
  #tell<E extends keyof HostEvents>(event: E, ...args: Parameters<HostEvents[E]>): void {
    if (this.events.listenerCount(event) === 0) return;
    try {
      (this.events.emit as (event: E, ...args: unknown[]) => boolean).call(
        this.events,
        event,
        ...args,
      );
    } catch (error) {
      this.#logger.error({ err: error, event }, 'a listener threw');
    }
  }
}

// The text was parsed as JSON just before, so the parts that are any JSON need no second look.
const PERSISTED = z.object({
  status: z.enum(['active', 'done', 'error']),
  value: z.union([z.string(), z.record(z.string(), z.unknown())]),
  context: z.record(z.string(), z.unknown()),
  historyValue: z.record(z.string(), z.array(z.string())).optional(),
  children: z.record(z.string(), z.string()).optional(),
  output: z.unknown().optional(),
  error: z.unknown().optional(),
});

function fromRecord(record: MessageRecord): Envelope {
  return {
    id: record.id,
    from: record.from as Address,
    to: record.to as Address,
    message: JSON.parse(record.messageJson) as Message,
    priority: record.priority,
    sentAt: record.sentAt,
    ...(record.correlation === null ? undefined : { correlation: record.correlation }),
    ...(record.attempt === null ? undefined : { attempt: record.attempt }),
    ...(record.reply ? { reply: true as const } : undefined),
  };
}

function sameState(a: LiveSnapshot, b: LiveSnapshot): boolean {
  return (
    a === b ||
    (a.context === b.context &&
      a.status === b.status &&
      a.children === b.children &&
      a.historyValue === b.historyValue &&
      (a.value === b.value ||
        (typeof a.value === 'object' && JSON.stringify(a.value) === JSON.stringify(b.value))))
  );
}

function describeError(error: JsonValue | undefined): string {
  if (typeof error === 'object' && error !== null && 'message' in error) {
    return String((error as { message?: unknown }).message);
  }
  return JSON.stringify(error ?? null);
}
