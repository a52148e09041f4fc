import type { Logger } from 'pino';
import type { Address } from '../protocol/address.ts';
import type {
  EndLifeParams,
  ReplyParams,
  RequestParams,
  SendParams,
  SpawnParams,
} from '../protocol/commands.ts';
import {
  type Failure,
  fromFailure,
  PayloadTooLargeError,
  TimeoutError,
  TroupeError,
  toFailure,
} from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import {
  type Envelope,
  type EpochMs,
  type Message,
  type Meta,
  REQUEST_CANCELLED,
} from '../protocol/message.ts';
import { PRIORITIES, type Priority } from '../protocol/priority.ts';
import type { Projection } from '../store/store.ts';
import { checkAction } from './action-checks.ts';
import type { Actor, Item, MessageItem } from './actor.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import { APP, type Delivery, END_LIFE, RELEASE_LIFE, SPAWN, START_LIFE } from './delivery.ts';
import type { DurableEffects } from './durable-effects.ts';
import type { DurableTimer, DurableTimers, TimerAction } from './durable-timers.ts';
import type { EffectOutcome } from './effect-runner.ts';
import type { HostEmitter } from './host-emitter.ts';
import { RecentAnswers } from './message-counts.ts';
import type { PayloadLimit } from './payload-limit.ts';
import { pendingJsonOf } from './pending.ts';
import { checkProjections } from './projections.ts';
import {
  ACTOR_REFERENCE,
  holdsActorReference,
  type ProjectedActor,
  type Registration,
} from './registration.ts';
import { REQUEST, requestOf } from './request-names.ts';
import { findRefusal } from './validation.ts';
import type {
  LiveSnapshot,
  MachineAction,
  MachineEvent,
  PersistedSnapshot,
  Transition,
} from './xstate-driver.ts';

export interface TurnsOptions {
  readonly limit: PayloadLimit;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registrations: ReadonlyMap<string, Registration>;
  readonly commits: Commits;
  readonly timers: DurableTimers;
  readonly effects: DurableEffects;
  readonly delivery: Delivery;
  readonly events: HostEmitter;
  /** Names this runtime among all that ever work on the store. */
  readonly runtimeId: string;
  readonly newCutId: () => string;
  readonly chainLimit: number;
}

/** A transition that may happen: all that can go wrong has been tried, and nothing has changed yet. */
export interface PreparedTurn {
  readonly snapshot: LiveSnapshot;
  readonly actions: readonly MachineAction[];
  /** Undefined: the actor is what it was, so there is nothing to checkpoint. */
  readonly change:
    | {
        readonly persisted: PersistedSnapshot;
        readonly snapshotJson: string;
        readonly eventJson: string | null;
        readonly projections: readonly Projection[];
        /** The label of a milestone that it reaches. */
        readonly milestone: string | undefined;
      }
    | undefined;
}

/** The turn: an item becomes an event, the event a transition, the transition rows and things to do. */
export class Turns {
  readonly #limit: PayloadLimit;
  /** Of those in memory, whose snapshots have come near the limit. */
  readonly #large = new WeakSet<Actor>();
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #registrations: ReadonlyMap<string, Registration>;
  readonly #commits: Commits;
  readonly #timers: DurableTimers;
  readonly #effects: DurableEffects;
  readonly #delivery: Delivery;
  readonly #events: HostEmitter;
  readonly #runtimeId: string;
  readonly #newCutId: () => string;
  readonly #chainLimit: number;
  /** From here on chains are looked at. */
  readonly #longChain: number;
  readonly #recent = new RecentAnswers();
  /** Of turns that leave no checkpoint, hence no number to name their messages by. */
  #unnumbered = 0;

  constructor(options: TurnsOptions) {
    this.#limit = options.limit;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#registrations = options.registrations;
    this.#commits = options.commits;
    this.#timers = options.timers;
    this.#effects = options.effects;
    this.#delivery = options.delivery;
    this.#events = options.events;
    this.#runtimeId = options.runtimeId;
    this.#newCutId = options.newCutId;
    this.#chainLimit = options.chainLimit;
    this.#longChain = Math.min(LONG_CHAIN, options.chainLimit);
  }

  /** One turn of a live actor. @returns when it began */
  take(actor: Actor, item: Item): EpochMs {
    const now = this.#clock.now();
    actor.lastUsed = now;
    this.#commits.stage.turns++;
    const chain = item.kind === 'message' ? item.chain + 1 : 0;
    this.#delivery.chain = chain;
    try {
      if (chain >= this.#longChain && this.#isEndless(actor, item as MessageItem, chain))
        return now;
      return this.#take(actor, item, now);
    } finally {
      this.#delivery.chain = 0;
    }
  }

  #take(actor: Actor, item: Item, now: EpochMs): EpochMs {
    const event = this.#toEvent(actor, item, now);
    if (event !== undefined) this.handle(actor, item, event, now);
    return now;
  }

  /** What an item means for a live actor. @returns false if the machine threw: then it is what it was */
  handle(actor: Actor, item: Item, event: MachineEvent, now: EpochMs): boolean {
    const registration = actor.registration as Registration;
    const before = actor.snapshot as LiveSnapshot;
    const { address } = actor;
    if (registration.validate !== undefined && item.kind === 'message') {
      if (this.#isRefused(actor, item, registration, before)) return true;
    }
    const prepare = (tried: MachineEvent): PreparedTurn => {
      const transition = registration.driver.transition(address, before, tried);
      return this.#prepare(address, registration, before, transition, tried, now);
    };
    let handled = event;
    let turn: PreparedTurn;
    try {
      try {
        turn = prepare(event);
      } catch (error) {
        handled = asFailed(item, event, error);
        turn = prepare(handled);
      }
    } catch (error) {
      this.#faulted(actor, item, event, error);
      return false;
    }
    if (!this.#answersAtOnce(actor, item, turn)) this.#carryOut(actor, turn, handled, now);
    return true;
  }

  /**
   * A question that was not stored, about a state that is: its answer rests on nothing that has yet to be stored. So it
   * does not wait for the commits of others, which take as long as the disk.
   */
  #answersAtOnce(actor: Actor, item: Item, { change, actions }: PreparedTurn): boolean {
    if (item.kind !== 'message' || item.durable || item.envelope.from !== APP) return false;
    // The answer is all there is.
    const [action] = actions;
    if (change !== undefined || actions.length !== 1) return false;
    if (action?.kind !== 'command' || action.command !== 'reply') return false;
    if (actor.uncommitted > 0) return false;
    const params = action.params as ReplyParams;
    const { to, type } = params;
    if (to?.address !== APP || to.correlation !== item.envelope.correlation) return false;
    return this.#delivery.replyAtOnce(actor, to, type, outcomeOf(params));
  }

  /** @throws what the machine's code throws, or says why it cannot be stored; nothing has changed then */
  prepareBirth(
    address: Address,
    registration: Registration,
    input: JsonValue | undefined,
  ): PreparedTurn {
    const transition = registration.driver.initial(address, input);
    return this.#prepare(address, registration, undefined, transition, null, this.#clock.now());
  }

  /** The actor, in memory so far only as a place for its messages, begins to live. */
  giveBirth(
    actor: Actor,
    registration: Registration,
    turn: PreparedTurn,
    parent: Address | null,
  ): void {
    actor.registration = registration;
    actor.machine = registration.name;
    actor.parent = parent;
    actor.state = 'live';
    actor.seq = -1;
    this.#commits.stage.turns++;
    this.#carryOut(actor, turn, null, this.#clock.now());
  }

  // ── lives that a supervisor orders ──────────────────────────────────────────────────────────────────

  /** A name for something that no turn of an actor makes. */
  newName(address: Address): string {
    return `${address}~${this.#runtimeId}.${this.#unnumbered++}`;
  }

  /** The life before, if there was one, is over: nothing of it is left but its checkpoints. */
  beginLife(
    actor: Actor,
    registration: Registration,
    turn: PreparedTurn,
    parent: Address,
    details: JsonObject,
  ): void {
    const { address } = actor;
    for (const timer of this.#timers.of(address)) this.#callOff(address, timer);
    this.#timers.clearAll(address);
    this.#effects.stopAll(address);
    if (actor.state === 'absent') actor.seq = -1;
    actor.registration = registration;
    actor.machine = registration.name;
    actor.parent = parent;
    actor.reason = null;
    actor.state = 'live';
    this.#carryOut(actor, turn, null, this.#clock.now(), details);
  }

  /** Another decides about its lives from now on; null: nobody. */
  adopt(actor: Actor, parent: Address | null): void {
    actor.parent = parent;
    this.#commits.stage.touch(actor);
  }

  /** Ends a live actor as it is. */
  endNow(actor: Actor, how: 'done' | 'failed' | 'killed', reason: string): void {
    const { address } = actor;
    const now = this.#clock.now();
    const registration = actor.registration as Registration;
    const live = registration.driver.persist(actor.snapshot as LiveSnapshot);
    const { children: _children, ...state } = live;
    const status = how === 'failed' ? 'error' : 'done';
    const failure: Failure = { code: 'internal', message: reason, retryable: false };
    const error = how === 'failed' ? { error: failure as unknown as JsonValue } : undefined;
    const persisted: PersistedSnapshot = { ...state, ...error, status };
    actor.seq++;
    actor.status = status;
    actor.version = registration.version;
    actor.updatedAt = now;
    this.#commits.stage.touch(actor);
    for (const projection of this.#rowsOfEnd(actor, registration, persisted, now)) {
      this.#commits.stage.project(projection);
    }
    this.#end(actor, persisted, how, reason);
    this.#commits.stage.checkpoints.push({
      address,
      seq: actor.seq,
      at: now,
      kind: how === 'failed' ? 'error' : 'auto',
      label: null,
      version: registration.version,
      eventJson: null,
      snapshotJson: JSON.stringify(persisted),
      pendingJson: null,
      detailsJson: JSON.stringify({ ended: how, reason }),
    });
    if (this.#events.listenerCount('turn') > 0) {
      const stopped = { type: 'troupe.stopped', meta: { id: '', from: APP, at: now } };
      this.#tellTurn(actor, persisted, stopped, now);
    }
  }

  /** Ends an actor whose state nobody can read, or whose machine is not known. It keeps that state. */
  endUnread(actor: Actor, reason: string): void {
    const { address } = actor;
    actor.status = 'done';
    actor.reason = reason.toWellFormed();
    actor.updatedAt = this.#clock.now();
    this.#commits.stage.touch(actor);
    for (const timer of this.#timers.of(address)) this.#callOff(address, timer);
    this.#timers.clearAll(address);
    this.#effects.stopAll(address);
    this.#afterEnd(actor, 'killed', reason, null);
  }

  /** Tells of an end that was before. */
  tellEnded(actor: Actor, supervisor: Address): void {
    const { address, reason, status } = actor;
    const failed = status === 'error';
    const failure: Failure | null = failed
      ? { code: 'internal', message: reason ?? 'unknown', retryable: false }
      : null;
    this.#delivery.tell(address, supervisor, this.newName(address), {
      type: 'child.ended',
      address,
      how: failed ? 'failed' : 'done',
      failure: failure as unknown as JsonValue,
    });
    const fact = { address, how: failed ? 'failed' : 'done', reason } as const;
    this.#commits.after(() => this.#events.tell('ended', fact));
  }

  // ── from an item to an event ───────────────────────────────────────────────────────────────────────

  /** Takes an item out of the stored world (in the stage) and makes an event of it; undefined if it counts no more. */
  #toEvent(actor: Actor, item: Item, now: EpochMs): MachineEvent | undefined {
    switch (item.kind) {
      case 'message':
        return this.#messageEvent(actor, item, now);
      case 'timer': {
        const { timer } = item;
        // The answer has come in time, and has its turn yet.
        if (timer.kept && timer.live) return undefined;
        if (!this.#timers.take(timer)) return undefined;
        const meta: Meta = { id: timer.generation, from: actor.address, at: now };
        const { action } = timer;
        switch (action.do) {
          case 'event':
            return { ...action.event, meta };
          case 'deadline': {
            const text = `No answer from ${action.to} to "${action.request}" within ${action.timeoutMs} ms.`;
            const context = { address: action.to, attempt: action.attempt };
            this.#callOff(actor.address, timer);
            return {
              type: `${action.request}:err`,
              failure: new TimeoutError(text, { context }).toFailure(),
              meta: { ...meta, request: timer.id.slice(REQUEST.length) },
            };
          }
          case 'rolledBack':
            return {
              type: `${action.request}:err`,
              failure: rolledBack(actor.address, action.to, action.request),
              meta: { ...meta, request: timer.id.slice(REQUEST.length) },
            };
          case 'send':
            this.#delivery.deliver(action.envelope);
            return undefined;
          case 'end':
            this.#outOfTime(actor, timer, action, now);
            return undefined;
        }
        return undefined;
      }
      case 'effect': {
        const { effect, outcome } = item;
        if (!this.#effects.take(effect)) return undefined;
        const { id, generation } = effect.record;
        const meta: Meta = { id: generation, from: actor.address, at: now };
        return outcome.ok
          ? { type: `xstate.done.actor.${id}`, output: outcome.output, actorId: id, meta }
          : { type: `xstate.error.actor.${id}`, error: outcome.failure, actorId: id, meta };
      }
    }
  }

  #messageEvent(actor: Actor, item: MessageItem, now: EpochMs): MachineEvent | undefined {
    const { envelope } = item;
    if (!this.#delivery.consume(item)) {
      this.#delivery.drop(envelope, 'duplicate');
      return undefined;
    }
    const { id, from, message, correlation } = envelope;
    if (message.type === SPAWN) return undefined; // it exists: the spawn is a repetition
    this.#delivery.counted('delivered');
    if (correlation === undefined) return { ...message, meta: { id, from, at: now } };
    if (envelope.reply !== true) {
      const attempt = envelope.attempt ?? 1;
      return { ...message, meta: { id, from, at: now, correlation, attempt } };
    }
    const request = this.#takeReply(actor.address, envelope);
    if (request === undefined) {
      this.#delivery.drop(envelope, this.#recent.reason(correlation));
      return undefined;
    }
    return { ...message, meta: { id, from, at: now, request } };
  }

  /** An answer counts only while its very request waits. @returns the request's id, or undefined */
  #takeReply(address: Address, { correlation, attempt }: Envelope): string | undefined {
    const request = requestOf(address, correlation as string);
    if (request === undefined) return undefined;
    const timer = this.#timers.get(address, REQUEST + request);
    if (timer === undefined || timer.action.do !== 'deadline') return undefined;
    if (timer.action.correlation !== correlation || timer.action.attempt !== attempt) {
      return undefined;
    }
    this.#timers.take(timer);
    this.#recent.add(correlation as string);
    return request;
  }

  /** The machine's validator does not want it: nothing is recorded, whoever asked is told. */
  #isRefused(
    { address }: Actor,
    { envelope }: MessageItem,
    { validate }: Registration,
    before: LiveSnapshot,
  ): boolean {
    // What an actor has asked for itself, and what the host tells it, it takes.
    if (validate === undefined || envelope.reply === true) return false;
    const { message, from, correlation } = envelope;
    if (message.type === REQUEST_CANCELLED || message.type === END_LIFE) return false;
    const error = findRefusal(validate, message, address, from, correlation !== undefined, before);
    if (error === undefined) return false;
    this.#delivery.counted('invalid');
    if (!this.#delivery.answerFor(envelope, error)) this.#delivery.drop(envelope, 'invalid');
    return true;
  }

  /** Tells the receiver of a request that its asker does not wait any more. */
  #callOff(
    from: Address,
    { generation, action }: DurableTimer,
    id: string = `${generation}~off`,
  ): void {
    if (action.do !== 'deadline') return;
    const sending = this.#timers.get(from, SEND + generation.slice(0, -DEADLINE.length));
    if (sending !== undefined) {
      // It was to be sent later.
      this.#timers.take(sending);
      return;
    }
    const { request: type, to, correlation, attempt, priority = PRIORITIES.normal } = action;
    const off = { from, to: to as Address, type, correlation, attempt, priority };
    this.#delivery.callOff(off, id, true);
  }

  /** Tells of a chain of messages that seems to have no end. @returns whether it was ended */
  #isEndless(actor: Actor, item: MessageItem, chain: number): boolean {
    const { address } = actor;
    const { from, message } = item.envelope;
    const isOver = chain > this.#chainLimit;
    // At 10 000, 20 000, 40 000, …: often enough to be seen, too seldom to be in the way.
    if (!isOver && (chain % LONG_CHAIN !== 0 || !isPowerOfTwo(chain / LONG_CHAIN))) return false;
    const fact = { address, from, type: message.type, messages: chain, ended: isOver };
    this.#logger.warn(fact, 'messages lead to messages, and nothing from outside is among them');
    this.#commits.after(() => this.#events.tell('looped', fact));
    if (!isOver || !this.#delivery.withdraw(item)) return isOver;
    this.#delivery.refuse(
      item.envelope,
      new TroupeError(
        'policy',
        `A chain of ${this.#chainLimit} messages has led to this one, each sent in the turn of the one before: it is taken for a loop without end (chainLimit). Let something come from outside, or use a delay.`,
        { context: { address, from, limit: this.#chainLimit } },
      ),
    );
    return true;
  }

  // ── from an event to rows ──────────────────────────────────────────────────────────────────────────

  /** Everything that may be wrong with what a machine wants is found before anything is staged. */
  #prepare(
    address: Address,
    registration: Registration,
    before: LiveSnapshot | undefined,
    { snapshot, actions }: Transition,
    event: MachineEvent | null,
    at: EpochMs,
  ): PreparedTurn {
    for (const action of actions) checkAction(this.#registrations, address, action);
    if (before !== undefined && isSameState(before, snapshot)) {
      return { snapshot, actions, change: undefined };
    }
    const persisted = registration.driver.persist(snapshot);
    const snapshotJson = JSON.stringify(persisted);
    if (snapshotJson.includes(ACTOR_REFERENCE))
      throw holdsActorReference(`The state of ${address}`);
    this.#limit.checkSnapshot(address, persisted, snapshotJson);
    const eventJson = event === null ? null : JSON.stringify(event);
    if (event !== null && eventJson !== null) {
      this.#limit.checkMessageJson(event, address, eventJson);
    }
    const projected = registration.project?.(projectedOf({ address }, snapshot, at));
    const projections = projected === undefined ? NONE : checkProjections(address, projected);
    return {
      snapshot,
      actions,
      change: {
        persisted,
        snapshotJson,
        eventJson,
        projections,
        milestone: registration.driver.milestone(before, snapshot),
      },
    };
  }

  /** The rows of an actor that is ended. It ends, whatever the app's code says to that. */
  #rowsOfEnd(
    actor: Actor,
    { project }: Registration,
    persisted: PersistedSnapshot,
    at: EpochMs,
  ): readonly Projection[] {
    try {
      const projected = project?.(projectedOf(actor, persisted, at));
      return projected === undefined ? NONE : checkProjections(actor.address, projected);
    } catch (error) {
      this.#logger.error(
        { actor: actor.address, err: error },
        'an actor was ended; its rows are as they were, because its projection threw',
      );
      return NONE;
    }
  }

  /** It was asked to stop. When nobody was there at the end of its time, it has had none: it gets it once more. */
  #outOfTime(
    actor: Actor,
    { generation, dueAt }: DurableTimer,
    action: Extract<TimerAction, { do: 'end' }>,
    now: EpochMs,
  ): void {
    const { reason, timeoutMs } = action;
    if (now - dueAt > LATE_MS && action.again !== true) {
      const again = { ...action, again: true as const };
      this.#timers.set(actor.address, ASKED_TO_STOP, `${generation}~`, now + timeoutMs, again);
      return;
    }
    this.endNow(actor, 'killed', `${reason} It had not stopped after ${timeoutMs} ms.`);
  }

  #carryOut(
    actor: Actor,
    turn: PreparedTurn,
    event: MachineEvent | null,
    now: EpochMs,
    details?: JsonObject,
  ): void {
    const { actions, change } = turn;
    if (change === undefined) {
      // A question answered, a message passed on. Chains of such turns must not lengthen the ids from link to link.
      if (actions.length > 0) {
        this.#actAll(actor, actions, `~${this.#runtimeId}.${this.#unnumbered++}`, now);
      }
      return;
    }
    const registration = actor.registration as Registration;
    const { persisted } = change;
    const seq = actor.seq + 1;
    actor.snapshot = turn.snapshot;
    actor.seq = seq;
    actor.status = persisted.status;
    actor.version = registration.version;
    actor.updatedAt = now;
    if (this.#limit.isLarge(change.snapshotJson)) this.#tellLarge(actor, change.snapshotJson);
    const { stage } = this.#commits;
    stage.touch(actor);
    for (const projection of change.projections) stage.project(projection);
    if (actions.length > 0) this.#actAll(actor, actions, `#${seq}`, now);
    if (this.#events.listenerCount('turn') > 0) this.#tellTurn(actor, persisted, event, now);
    const { observe } = registration;
    if (observe !== undefined && event !== null) {
      const seen = projectedOf(actor, turn.snapshot, now);
      this.#commits.after(() => observe(seen, event['meta'] as Meta));
    }
    if (persisted.status !== 'active') {
      const failed = persisted.status === 'error';
      this.#end(actor, persisted, failed ? 'failed' : 'done', null);
    }
    const { milestone = null } = change;
    stage.checkpoints.push({
      address: actor.address,
      seq,
      at: now,
      kind: persisted.status === 'error' ? 'error' : milestone === null ? 'auto' : 'milestone',
      label: milestone,
      version: registration.version,
      eventJson: change.eventJson,
      snapshotJson: change.snapshotJson,
      pendingJson: pendingJsonOf(actor.address, this.#timers, this.#effects),
      detailsJson: details === undefined ? null : JSON.stringify(details),
    });
    if (registration.cut !== undefined && (seq === 0 || milestone !== null)) {
      const projected = projectedOf(actor, turn.snapshot, now);
      const cut = registration.cut(projected, seq === 0 ? 'start' : 'milestone');
      stage.cuts.push({ ...cut, id: this.#newCutId() });
    }
  }

  /** Once for as long as it is in memory. */
  #tellLarge(actor: Actor, snapshotJson: string): void {
    if (this.#large.has(actor)) return;
    this.#large.add(actor);
    const fact = {
      address: actor.address,
      bytes: Buffer.byteLength(snapshotJson),
      limit: this.#limit.bytes,
    };
    this.#commits.after(() => {
      this.#logger.warn(fact, 'the state of an actor grows towards the limit');
      this.#events.tell('grewLarge', fact);
    });
  }

  #tellTurn(
    actor: Actor,
    persisted: PersistedSnapshot,
    event: MachineEvent | null,
    at: EpochMs,
  ): void {
    const turn = {
      address: actor.address,
      machine: actor.machine,
      seq: actor.seq,
      at,
      event:
        event === null
          ? null
          : { type: event.type, from: (event['meta'] as Meta | undefined)?.from ?? actor.address },
      state: persisted.value,
      context: persisted.context,
      status: persisted.status,
    };
    this.#commits.after(() => this.#events.tell('turn', turn));
  }

  /** A machine's code threw: the message becomes a dead letter, the actor stays as it was, its parent is told. */
  #faulted(actor: Actor, item: Item, event: MachineEvent, error: unknown): void {
    const failure = toFailure(error);
    const { address } = actor;
    this.#logger.error(
      { actor: address, event: event.type, err: error },
      'a turn failed; the actor keeps its state',
    );
    this.#delivery.deadLetter(address, event as unknown as Message, failure.message);
    if (item.kind === 'message') this.#delivery.answerFor(item.envelope, fromFailure(failure));
    const id = `${address}~${this.#runtimeId}.${this.#unnumbered++}`;
    this.#delivery.tellParent(address, actor.parent, failure, id);
  }

  /** @param given why, if it is ended; else its own error says so */
  #end(
    actor: Actor,
    persisted: PersistedSnapshot,
    how: 'done' | 'failed' | 'killed',
    given: string | null,
  ): void {
    const { address } = actor;
    for (const timer of this.#timers.of(address)) this.#callOff(address, timer);
    this.#timers.clearAll(address);
    this.#effects.stopAll(address);
    const reason = how === 'failed' ? describeError(persisted.error) : given;
    actor.reason = reason?.toWellFormed() ?? null;
    if (how === 'failed') {
      this.#logger.error({ actor: address, reason: actor.reason }, 'an actor ended with an error');
    }
    this.#afterEnd(actor, how, actor.reason, persisted.error ?? null);
  }

  /** Who is supervised is down: what waits for it waits on, until its supervisor has decided. */
  #afterEnd(
    actor: Actor,
    how: 'done' | 'failed' | 'killed',
    reason: string | null,
    error: JsonValue,
  ): void {
    const { address, parent } = actor;
    this.#commits.after(() => this.#events.tell('ended', { address, how, reason }));
    if (parent !== null && this.#delivery.isSupervised(parent)) {
      actor.state = 'down';
      const failure = how === 'failed' ? failureOf(error, reason) : null;
      const fact = { type: 'child.ended', address, how, failure: failure as unknown as JsonValue };
      this.#delivery.tell(address, parent, this.newName(address), fact);
      return;
    }
    actor.state = 'ended';
    if (how === 'failed') this.#delivery.tellParent(address, parent, error, `${address}#end`);
    this.#delivery.refuseAll(actor);
  }

  // ── what a machine asks for ────────────────────────────────────────────────────────────────────────

  /** @param turn names the turn within the actor: with the place in it, the name of whatever it makes */
  #actAll(actor: Actor, actions: readonly MachineAction[], turn: string, now: EpochMs): void {
    let place = 0;
    for (const action of actions) this.#act(actor, action, `${turn}.${place++}`, now);
  }

  #act(actor: Actor, action: MachineAction, name: string, now: EpochMs): void {
    const { address } = actor;
    const id = address + name;
    switch (action.kind) {
      case 'command':
        this.#command(actor, action, name, now);
        return;
      case 'startEffect':
        this.#effects.start(actor, action.id, action.src, JSON.stringify(action.input), id, now);
        return;
      case 'stopEffect':
        this.#effects.stop(address, action.id);
        return;
      case 'raiseLater':
        this.#timers.set(address, RAISE + (action.id ?? id), id, now + action.delayMs, {
          do: 'event',
          event: action.event,
        });
        return;
      case 'cancelTimer':
        this.#timers.clear(address, RAISE + action.id);
        return;
      case 'sendSelf':
        this.#delivery.deliver(envelope(address, address, action.event as Message, id, now));
        return;
      case 'sendParent':
        if (actor.parent === null) return;
        this.#send(
          envelope(address, actor.parent, action.event as Message, id, now),
          action.delayMs,
        );
        return;
      case 'emit':
        this.#commits.after(() =>
          this.#events.tell('emitted', { address, event: action.event as unknown as JsonObject }),
        );
        return;
      case 'log':
        this.#commits.after(() =>
          this.#logger.info({ actor: address, label: action.label, value: action.value }, 'log'),
        );
        return;
      case 'local':
        this.#commits.after(() => {
          const threw = (error: unknown): void =>
            this.#logger.error(
              { actor: address, action: action.type, err: error },
              'a local action threw',
            );
          try {
            const result = action.run();
            // Nobody awaits it: its rejection would end the process.
            if (result instanceof Promise) result.catch(threw);
          } catch (error) {
            threw(error);
          }
        });
        return;
    }
  }

  #command(
    actor: Actor,
    action: Extract<MachineAction, { kind: 'command' }>,
    name: string,
    now: EpochMs,
  ): void {
    const { address } = actor;
    const id = address + name;
    switch (action.command) {
      case 'send': {
        const { to, message, priority, delayMs } = action.params as SendParams;
        this.#send(envelope(address, to, message as Message, id, now, priority), delayMs);
        return;
      }
      case 'request': {
        const params = action.params as RequestParams;
        const message = params.message as Message;
        const request = params.id ?? message.type;
        const attempt = params.attempt ?? 1;
        const correlation = `${address}!${name}!${request}`;
        // A delayed request is waited for from when it is sent.
        const dueAt = now + (params.delayMs ?? 0) + params.timeoutMs;
        const before = this.#timers.get(address, REQUEST + request);
        if (before !== undefined) this.#callOff(address, before);
        this.#timers.set(address, REQUEST + request, id + DEADLINE, dueAt, {
          do: 'deadline',
          request: message.type,
          to: params.to,
          correlation,
          attempt,
          timeoutMs: params.timeoutMs,
          ...(params.priority === undefined ? undefined : { priority: params.priority }),
        });
        this.#send(
          {
            ...envelope(address, params.to, message, id, now, params.priority),
            correlation,
            attempt,
          },
          params.delayMs,
        );
        return;
      }
      case 'cancelRequest':
        this.#cancelRequest(address, (action.params as { id: string }).id, id);
        return;
      case 'reply': {
        const params = action.params as ReplyParams;
        if (params.to === undefined) return;
        this.#delivery.reply(address, params.to, params.type, outcomeOf(params), id, now);
        return;
      }
      case 'startLife':
      case 'endLife':
      case 'releaseLife': {
        const { address: child, ...params } = action.params as EndLifeParams;
        const message = { type: ORDER_TYPES[action.command], ...params } as unknown as Message;
        this.#delivery.order(envelope(address, child, message, id, now, PRIORITIES.critical));
        return;
      }
      case 'spawn': {
        const { address: child, machine, input = null } = action.params as SpawnParams;
        this.#delivery.deliver(
          envelope(address, child, { type: SPAWN, machine, input }, id, now, PRIORITIES.critical),
        );
        return;
      }
    }
  }

  /** @param id of the message that tells its receiver */
  #cancelRequest(address: Address, request: string, id: string): void {
    const timer = this.#timers.get(address, REQUEST + request);
    if (timer === undefined) return;
    this.#callOff(address, timer, id);
    this.#timers.take(timer);
  }

  #send(envelope: Envelope, delayMs: number | undefined): void {
    if (delayMs === undefined || delayMs <= 0) {
      this.#delivery.deliver(envelope);
      return;
    }
    const { id, from, sentAt } = envelope;
    this.#timers.set(from, SEND + id, id, sentAt + delayMs, { do: 'send', envelope });
  }
}

function outcomeOf(params: ReplyParams): EffectOutcome {
  return 'failure' in params
    ? { ok: false, failure: params.failure }
    : { ok: true, output: params.reply ?? null };
}

// The names of an actor's timers: what a machine calls a delayed event must not meet what it calls a request.
const RAISE = 'raise:';
/** What follows the id of a request in the name of its deadline's use. */
const DEADLINE = '~timeout';
export const SEND = 'send:';
/** The one of an actor that was asked to stop. */
export const ASKED_TO_STOP = 'stop:';
/** Something that is so late that the process was not there when it was due. */
const LATE_MS = 1_000;

const ORDER_TYPES = {
  startLife: START_LIFE,
  endLife: END_LIFE,
  releaseLife: RELEASE_LIFE,
} as const;

const NONE: readonly Projection[] = [];

/** A chain of messages so long is told of. */
const LONG_CHAIN = 10_000;

const isPowerOfTwo = (n: number): boolean => (n & (n - 1)) === 0;

function envelope(
  from: Address,
  to: string,
  message: Message,
  id: string,
  sentAt: EpochMs,
  priority: Priority = PRIORITIES.normal,
): Envelope {
  return { id, from, to: to as Address, message, priority, sentAt };
}

export function projectedOf(
  { address }: { readonly address: Address },
  { value, context, status }: Pick<LiveSnapshot, 'value' | 'context' | 'status'>,
  at: EpochMs,
): ProjectedActor {
  return { address, value, context, status, at };
}

/** A turn that ends where it began leaves no checkpoint. */
function isSameState(a: LiveSnapshot, b: LiveSnapshot): boolean {
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

/** Whether it was carried out is unknown: `retryable` says that asking again may help, `conflict` that nobody failed. */
function rolledBack(address: Address, to: string, request: string): Failure {
  return {
    code: 'conflict',
    message: `The request "${request}" to ${to} was given up when ${address} was rolled back to the moment at which it had asked.`,
    retryable: true,
    context: { address: to, rolledBack: true },
  };
}

/**
 * An effect whose result or failure is too large has failed, and so has a request whose answer is: whoever waits for an
 * end must hear of one.
 * @throws what was thrown, if it is anything else
 */
function asFailed(item: Item, event: MachineEvent, error: unknown): MachineEvent {
  if (!(error instanceof PayloadTooLargeError)) throw error;
  const failure = error.toFailure();
  const { type, meta } = event;
  if (item.kind === 'effect') {
    const { id } = item.effect.record;
    return { type: `xstate.error.actor.${id}`, error: failure, actorId: id, meta };
  }
  if (item.kind === 'message' && item.envelope.reply === true) {
    return { type: type.replace(/:(?:ok|err)$/, ':err'), failure, meta };
  }
  throw error;
}

/** What an actor has failed with, which is whatever its machine made of it. */
function failureOf(error: JsonValue, reason: string | null): Failure {
  const known = error as Partial<Failure> | null;
  if (typeof known === 'object' && known !== null && typeof known.message === 'string') {
    const { code = 'unhandled', message, retryable = false } = known;
    return { code, message, retryable };
  }
  return { code: 'unhandled', message: reason ?? 'unknown', retryable: false };
}

function describeError(error: JsonValue | undefined): string {
  if (typeof error === 'object' && error !== null && 'message' in error) {
    return String((error as { message?: unknown }).message);
  }
  return JSON.stringify(error ?? null);
}
