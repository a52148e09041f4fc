import type { Logger } from 'pino';
import { type Address, kindOf } from '../protocol/address.ts';
import {
  ConflictError,
  type Failure,
  MailboxFullError,
  TimeoutError,
  type TroupeError,
} from '../protocol/errors.ts';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import type { JsonValue } from '../protocol/json.ts';
import {
  type Envelope,
  type EpochMs,
  type Message,
  REQUEST_CANCELLED,
  type ReplyTo,
} from '../protocol/message.ts';
import { PRIORITIES, type Priority } from '../protocol/priority.ts';
import type { AuditRow } from '../store/store.ts';
import type { Actor, Item, MessageItem } from './actor.ts';
import type { Agenda } from './agenda.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import type { Directory } from './directory.ts';
import type { DurableTimers } from './durable-timers.ts';
import type { EffectOutcome } from './effect-runner.ts';
import { DeliveryFault } from './fault-points.ts';
import type { HostEmitter } from './host-emitter.ts';
import type { Idempotency } from './idempotency.ts';
import { copyJson } from './json-copy.ts';
import type { MailboxPolicy } from './mailbox-policy.ts';
import { type DropReason, type MessageCounts, startCounting } from './message-counts.ts';
import { answerRow, orderRow } from './orders.ts';
import type { Registration } from './registration.ts';
import { REQUEST, requestOf } from './request-names.ts';
import { cancelled, type Requests } from './requests.ts';
import { noRoom, Place, WaitingRoom } from './waiting-room.ts';

/** The kind of the address that stands for whoever is outside: nothing hosted lives there. */
export const APP_KIND = 'app';
export const APP: Address<typeof APP_KIND> = `${APP_KIND}/client`;
/** The type of the message that makes an actor. Reserved: the prefix is refused from outside. */
export const SPAWN = 'xstate.troupe.spawn';
/** What a supervisor orders; see lives.ts. Reserved in the same way. */
export const START_LIFE = 'xstate.troupe.startLife';
export const END_LIFE = 'xstate.troupe.endLife';
export const RELEASE_LIFE = 'xstate.troupe.releaseLife';
const ORDERS: ReadonlySet<string> = new Set([START_LIFE, END_LIFE, RELEASE_LIFE]);
/** Timers, ends of effects and births go before everything that was sent. */
const INTERNAL: Priority = PRIORITIES.critical;
/**
 * Answers, and the deadlines they are held to: an answer that came in time, and waited in the mailbox when the process
 * died, must not be overtaken by its own deadline.
 */
const ANSWER: Priority = PRIORITIES.high;

export interface DeliveryOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: () => string;
  readonly faultPoint: FaultPoint;
  readonly mailboxLimit: number;
  readonly agenda: Agenda;
  readonly timers: DurableTimers;
  readonly registrations: ReadonlyMap<string, Registration>;
  readonly directory: Directory;
  readonly commits: Commits;
  readonly requests: Requests;
  readonly keys: Idempotency;
  readonly events: HostEmitter;
  /** Sees to it that what was delivered gets its turn. */
  readonly schedule: () => void;
}

type Fate = 'once' | 'twice' | 'never' | Promise<void>;

/** What names a request, and an answer to it. */
interface ReplyOf {
  /** The request's type. */
  readonly type: string;
  readonly correlation: string;
  readonly attempt: number;
}

/** How messages reach mailboxes, and what becomes of those that cannot. */
export class Delivery {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #newId: () => string;
  readonly #faultPoint: FaultPoint;
  readonly #mailboxPolicy: MailboxPolicy;
  readonly #agenda: Agenda;
  readonly #timers: DurableTimers;
  /** The actors that somebody waits to send to. */
  readonly #rooms = new Set<Actor>();
  readonly #counts = startCounting();
  /** Of the messages that are sent now: see `MessageItem.chain`. 0 outside turns. */
  chain = 0;
  /** Answers that did not wait for a commit. Only ever counts up. */
  answersAtOnce = 0;
  readonly #registrations: ReadonlyMap<string, Registration>;
  readonly #directory: Directory;
  readonly #commits: Commits;
  readonly #requests: Requests;
  readonly #events: HostEmitter;
  readonly #schedule: () => void;
  readonly #keys: Idempotency;

  constructor(options: DeliveryOptions) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#newId = options.newId;
    this.#faultPoint = options.faultPoint;
    this.#mailboxPolicy = { limit: options.mailboxLimit, overflow: 'refuse' };
    this.#agenda = options.agenda;
    this.#timers = options.timers;
    this.#registrations = options.registrations;
    this.#directory = options.directory;
    this.#commits = options.commits;
    this.#requests = options.requests;
    this.#keys = options.keys;
    this.#events = options.events;
    this.#schedule = options.schedule;
  }

  // ── into a mailbox ─────────────────────────────────────────────────────────────────────────────────

  /** A copy of the counts as they are now. */
  counts(): MessageCounts {
    return { ...this.#counts, dropped: { ...this.#counts.dropped } };
  }

  counted(what: 'delivered' | 'invalid' | 'retried' | 'answered'): void {
    this.#counts[what]++;
  }

  /**
   * Puts a message from outside into a mailbox. Where senders have to wait, whoever calls this has: see `place`.
   * @throws {MailboxFullError}
   */
  post(envelope: Envelope, durable: boolean): void {
    const actor = this.#directory.at(envelope.to);
    const policy = this.#policyOf(actor);
    try {
      if (policy.overflow !== 'wait') this.#makeRoom(actor, policy, envelope.priority);
    } catch (error) {
      if (error instanceof MailboxFullError) this.#auditRefused(envelope, error);
      throw error;
    }
    this.#put(actor, envelope, durable);
    if (this.#isAudited(actor.kind)) this.#audit(orderRow(envelope));
  }

  /**
   * For a message from outside, before it is posted.
   * @returns undefined: it need not wait, or the mailbox is not one for which it may. A place that it will get some day,
   * or not: whoever gets it releases it, and posts at once
   */
  place(envelope: Envelope, waitMs: number, signal?: AbortSignal): Place | undefined {
    const { to, message, priority } = envelope;
    const actor = this.#directory.at(to);
    const policy = this.#policyOf(actor);
    if (policy.overflow !== 'wait' || !this.#isFull(actor, policy.limit)) return undefined;
    this.#counts.waited++;
    this.#events.tell('mailboxFull', { address: actor.address, limit: policy.limit });
    const room = this.#roomOf(actor);
    let forget = (): void => undefined;
    const overdue = (): Error => {
      const error = new TimeoutError(noRoom(to, policy.limit, waitMs), {
        context: { address: to, limit: policy.limit },
      });
      this.#auditRefused(envelope, error);
      return error;
    };
    const place = new Place(room, this.#clock.now() + waitMs, overdue, () => {
      this.#agenda.remove(place);
      forget();
    });
    if (signal !== undefined) {
      const onAbort = (): void => place.giveUp(cancelled(to, message.type, signal.reason));
      signal.addEventListener('abort', onAbort, { once: true });
      forget = () => signal.removeEventListener('abort', onAbort);
    }
    this.#agenda.add(place);
    room.push(place, priority, APP);
    return place;
  }

  /** Whoever had a place is done with it, taken or not: if it is free, whoever waits next may have it. */
  giveBack(place: Place, to: Address): void {
    place.release();
    const actor = this.#directory.actors.get(to);
    if (actor !== undefined) this.admit(actor);
  }

  /** There may be room again: whoever waits longest for it gets it. */
  admit(actor: Actor): void {
    const { room } = actor;
    if (room === undefined) return;
    const { limit } = this.#policyOf(actor);
    const endless = actor.state === 'ended' || !this.#directory.has(actor);
    while (endless || actor.mailbox.length + room.reserved < limit) {
      const next = room.shift();
      if (next === undefined) break;
      next.admit();
    }
    if (!endless && (room.length > 0 || room.reserved > 0)) return;
    actor.room = undefined;
    this.#rooms.delete(actor);
  }

  /** Nobody gets a place any more. */
  closeRooms(error: Error): void {
    for (const { room } of this.#rooms) {
      for (const waiting of room?.take(() => true) ?? []) waiting.giveUp(error);
    }
    this.#rooms.clear();
  }

  /** Sends what a turn has sent: it is stored with the turn. What cannot be delivered is refused aloud. */
  deliver(envelope: Envelope): void {
    if (kindOf(envelope.to) === APP_KIND) {
      this.drop(envelope, 'nobody');
      return;
    }
    const actor = this.#directory.at(envelope.to);
    const policy = this.#policyOf(actor);
    try {
      if (policy.overflow !== 'wait') this.#makeRoom(actor, policy, envelope.priority);
      else if (this.#isFull(actor, policy.limit)) {
        this.#putInLine(actor, envelope, policy.limit);
        return;
      }
      this.#put(actor, envelope, true);
    } catch (error) {
      if (!(error instanceof MailboxFullError)) throw error;
      this.#logger.warn(
        { from: envelope.from, to: envelope.to, type: envelope.message.type },
        error.message,
      );
      this.refuse(envelope, error);
    }
  }

  /** A message that was sent before a crash or a stop. */
  recover(envelope: Envelope): void {
    this.#accept(this.#directory.at(envelope.to), {
      kind: 'message',
      envelope,
      durable: true,
      stage: undefined,
      taken: false,
      chain: 0,
    });
  }

  /** A message that waited in the past that is gone back to, or that goes with going back. Never refused for lack of room. */
  putBack(envelope: Envelope): void {
    this.#put(this.#directory.at(envelope.to), envelope, true);
  }

  /** An order of a supervisor. Never refused for lack of room. */
  order(envelope: Envelope): void {
    this.#put(this.#directory.at(envelope.to), envelope, true);
  }

  /** A timer that is due, or an effect that has ended. */
  notify(address: Address, item: Exclude<Item, MessageItem>): void {
    const actor = this.#directory.at(address);
    this.#arrive(actor, item, this.#fate());
    this.#schedule();
  }

  /**
   * Answers a transient request from outside, whatever is on its way to the store: whoever calls this knows that the
   * answer rests on nothing of that.
   * @returns false if it has to take the usual way: it is to be stored itself, or must not overtake one of that actor
   */
  replyAtOnce(from: Actor, to: ReplyTo, type: string, outcome: EffectOutcome): boolean {
    if (from.unsaid > 0 || this.#isAudited(from.kind)) return false;
    const answer: EffectOutcome = outcome.ok
      ? { ok: true, output: copyJson(outcome.output) }
      : outcome;
    const { correlation, attempt } = to;
    const isWanted = this.#requests.settle(correlation, attempt, answer);
    this.#answered(isWanted, to, type, answer.ok);
    this.answersAtOnce++;
    return true;
  }

  /** Answers a request: into an actor's mailbox, or to whoever waits outside. Never refused for lack of room. */
  reply(
    from: Address,
    to: ReplyTo,
    type: string,
    outcome: EffectOutcome,
    id: string,
    now: EpochMs,
  ): void {
    if (kindOf(to.address) === APP_KIND) {
      // A copy: what the app does with its answer must not change the actor that gave it.
      const answer: EffectOutcome = outcome.ok
        ? { ok: true, output: copyJson(outcome.output) }
        : outcome;
      const settle =
        this.#keys.answered(to.correlation, to.attempt, answer) ??
        (() => this.#requests.settle(to.correlation, to.attempt, answer));
      this.#auditAnswer(from, to, type, answer, now);
      this.#answer(from, to, type, outcome.ok, settle);
      return;
    }
    const message: Message = outcome.ok
      ? { type: `${type}:ok`, reply: outcome.output }
      : { type: `${type}:err`, failure: outcome.failure as unknown as JsonValue };
    this.#put(
      this.#directory.at(to.address),
      {
        id,
        from,
        to: to.address,
        message,
        priority: ANSWER,
        sentAt: now,
        correlation: to.correlation,
        attempt: to.attempt,
        reply: true,
      },
      true,
    );
  }

  // ── what becomes of the rest ───────────────────────────────────────────────────────────────────────

  /** A request is answered with the error, on behalf of a receiver that cannot; anything else becomes a dead letter. */
  refuse(envelope: Envelope, error: TroupeError): void {
    if (!this.answerFor(envelope, error)) {
      this.deadLetter(envelope.to, envelope.message, error.message);
    }
  }

  /** @returns false if the message is not a request */
  answerFor(envelope: Envelope, error: TroupeError): boolean {
    const { correlation, attempt = 1, from, to, message } = envelope;
    if (correlation === undefined || envelope.reply === true) return false;
    const asker: ReplyTo = { address: from, correlation, attempt };
    if (kindOf(from) === APP_KIND) {
      const fail =
        this.#keys.refused(correlation, attempt, error) ??
        (() => this.#requests.refuse(correlation, attempt, error));
      const refusal: EffectOutcome = { ok: false, failure: error.toFailure() };
      this.#auditAnswer(to, asker, message.type, refusal, this.#clock.now());
      this.#answer(to, asker, message.type, false, fail);
    } else {
      const outcome: EffectOutcome = { ok: false, failure: error.toFailure() };
      this.reply(to, asker, message.type, outcome, `${envelope.id}~refused`, this.#clock.now());
    }
    return true;
  }

  deadLetter(address: Address, message: Message, reason: string): void {
    this.#commits.stage.deadLetters.push({
      id: this.#newId(),
      at: this.#clock.now(),
      address,
      // Another's text may have been cut in the middle of a character; the store takes no halves.
      reason: reason.toWellFormed(),
      messageJson: JSON.stringify(message),
    });
    this.#commits.after(() =>
      this.#events.tell('deadLettered', { address, type: message.type, reason }),
    );
  }

  drop(envelope: Envelope, reason: DropReason): void {
    this.#counts.dropped[reason]++;
    this.#events.tell('dropped', { address: envelope.to, type: envelope.message.type, reason });
  }

  /** Tells the parent of an actor that a turn of it has failed, or that it has ended with an error. */
  tellParent(
    child: Address,
    parent: Address | null,
    failure: Failure | JsonValue,
    id: string,
  ): void {
    if (parent === null) return;
    this.tell(child, parent, id, {
      type: 'child.faulted',
      address: child,
      failure: failure as JsonValue,
    });
  }

  /** Whether this parent decides about the lives of its children. */
  isSupervised(parent: Address | null): boolean {
    return parent !== null && this.#registrations.get(kindOf(parent))?.supervises === true;
  }

  /** Tells a supervisor of a child. In the order in which it happens: one sender, one priority. */
  tell(child: Address, supervisor: Address, id: string, message: Message): void {
    if (kindOf(supervisor) === APP_KIND) return;
    this.deliver({
      id,
      from: child,
      to: supervisor,
      message,
      priority: PRIORITIES.normal,
      sentAt: this.#clock.now(),
    });
  }

  tellQuarantined({ address, parent, reason }: Actor, id: string): void {
    if (parent === null || !this.isSupervised(parent)) return;
    this.tell(address, parent, id, { type: 'child.quarantined', address, reason });
  }

  /** The message leaves the stored world, in this stage. @returns false if it was handled before */
  consume(item: MessageItem): boolean {
    if (item.taken) return false;
    item.taken = true;
    if (!item.durable) return true;
    this.#commits.stage.consume(item);
    return true;
  }

  /** As `consume`, for a message that its receiver is never to see: the deadline of what it answers counts again. */
  withdraw(item: MessageItem): boolean {
    if (!this.consume(item)) return false;
    const { envelope } = item;
    if (envelope.reply !== true || envelope.correlation === undefined) return true;
    const request = requestOf(envelope.to, envelope.correlation);
    if (request !== undefined) this.#timers.unkeep(envelope.to, REQUEST + request);
    return true;
  }

  /**
   * Tells the receiver of a request that nobody waits for its answer any more, if its machine wants to know.
   * @param request as it was sent
   */
  callOff(
    request: Pick<Envelope, 'from' | 'to' | 'priority'> & ReplyOf,
    id: string,
    durable: boolean,
  ): void {
    const { from, to, type, correlation, attempt, priority } = request;
    const known = this.#directory.actors.get(to);
    if (this.#registrationOf(to, known)?.hearsCancelled !== true) return;
    this.#counts.cancelled++;
    const message = { type: REQUEST_CANCELLED, request: type, correlation, attempt };
    const sentAt = this.#clock.now();
    // In the class of the request, behind it: it must not overtake what it calls off.
    this.#put(this.#directory.at(to), { id, from, to, message, priority, sentAt }, durable);
  }

  /** Empties the mailbox of an actor that has ended: it will never read it again. */
  refuseAll(actor: Actor): void {
    this.admit(actor);
    for (let item = actor.mailbox.shift(); item !== undefined; item = actor.mailbox.shift()) {
      if (item.kind !== 'message' || !this.consume(item)) continue;
      const { envelope } = item;
      if (envelope.message.type === SPAWN) continue;
      this.drop(envelope, 'ended');
      const how = actor.status === 'error' ? ` with an error: ${actor.reason ?? 'unknown'}` : '.';
      this.answerFor(envelope, new ConflictError(`${actor.address} has ended${how}`));
    }
  }

  /** Empties the mailbox of an actor that goes on, and the line before it; what is refused is answered or becomes a dead letter. */
  refuseWaiting(actor: Actor, error: TroupeError): void {
    const refuse = (item: Item | undefined): void => {
      if (item?.kind !== 'message' || !this.consume(item)) return;
      if (item.envelope.message.type === SPAWN) return;
      if (item.envelope.reply !== true) this.refuse(item.envelope, error);
    };
    for (let item = actor.mailbox.shift(); item !== undefined; item = actor.mailbox.shift()) {
      refuse(item);
    }
    for (const { item } of actor.room?.take((waiting) => waiting.item !== undefined) ?? []) {
      refuse(item);
    }
    // Whoever waits outside has not sent anything yet.
    this.admit(actor);
  }

  // ── inside ─────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Sees to it that one more may come.
   * @throws {MailboxFullError}
   */
  #makeRoom(actor: Actor, { limit, overflow, context }: MailboxPolicy, priority: Priority): void {
    if (actor.mailbox.length < limit || actor.state === 'ended') return;
    this.#events.tell('mailboxFull', { address: actor.address, limit });
    if (overflow === 'dropOldest') {
      const oldest = actor.mailbox.takeOldest(isDroppable, priority) as MessageItem | undefined;
      if (oldest !== undefined) {
        this.consume(oldest);
        this.#counts.dropped.overflow++;
        const { to: address, message } = oldest.envelope;
        this.#commits.after(() =>
          this.#events.tell('dropped', { address, type: message.type, reason: 'overflow' }),
        );
        return;
      }
    }
    this.#counts.refused++;
    throw new MailboxFullError(actor.address, limit, context);
  }

  #isFull(actor: Actor, limit: number): boolean {
    if (actor.state === 'ended') return false;
    const { room } = actor;
    if (room === undefined) return actor.mailbox.length >= limit;
    return room.length > 0 || actor.mailbox.length + room.reserved >= limit;
  }

  #roomOf(actor: Actor): WaitingRoom {
    actor.room ??= new WaitingRoom();
    this.#rooms.add(actor);
    return actor.room;
  }

  /** While an actor is being read its machine is not known; as a rule it has the name of the address's kind. */
  #registrationOf(address: Address, actor: Actor | undefined): Registration | undefined {
    if (actor?.registration !== undefined) return actor.registration;
    const machine = actor?.machine ?? '';
    return this.#registrations.get(machine === '' ? kindOf(address) : machine);
  }

  #policyOf(actor: Actor): MailboxPolicy {
    const registration = this.#registrationOf(actor.address, actor);
    if (registration === undefined) return this.#mailboxPolicy;
    return registration.mailboxOf?.(actor.address) ?? registration.mailbox;
  }

  #put(actor: Actor, envelope: Envelope, durable: boolean): void {
    const fate = this.#fate();
    this.#counts.sent++;
    const item = this.#itemOf(envelope, durable);
    this.#arrive(actor, item, fate);
    this.#schedule();
  }

  /** What an actor sends to a full mailbox where one waits: stored as any message, and let in when there is room. */
  #putInLine(actor: Actor, envelope: Envelope, limit: number): void {
    this.#counts.sent++;
    this.#counts.waited++;
    this.#events.tell('mailboxFull', { address: actor.address, limit });
    const item = this.#itemOf(envelope, true);
    const admit = (): void => this.#accept(actor, item);
    const waiting = { gone: false, item, admit, giveUp: () => undefined };
    this.#roomOf(actor).push(waiting, envelope.priority, envelope.from);
  }

  #itemOf(envelope: Envelope, durable: boolean): MessageItem {
    const item: MessageItem = {
      kind: 'message',
      envelope,
      durable,
      stage: undefined,
      taken: false,
      chain: this.chain,
    };
    if (durable) this.#commits.stage.add(item);
    return item;
  }

  /** An answer leaves the host when everything it may rest on is stored. */
  #answer(from: Address, to: ReplyTo, type: string, ok: boolean, settle: () => boolean): void {
    const actor = this.#directory.actors.get(from);
    if (actor !== undefined) actor.unsaid++;
    this.#commits.after(() => {
      if (actor !== undefined) actor.unsaid--;
      this.#answered(settle(), to, type, ok);
    });
    this.#schedule();
  }

  #answered(isWanted: boolean, to: ReplyTo, type: string, ok: boolean): void {
    if (isWanted) {
      this.#counts.answered++;
      return;
    }
    // The asker has timed out or gone away, or has its answer.
    const reason = this.#requests.whyDropped(to.correlation);
    this.#counts.dropped[reason]++;
    const dropped = `${type}:${ok ? 'ok' : 'err'}`;
    this.#events.tell('dropped', { address: to.address, type: dropped, reason });
  }

  /** A life that was ordered and has not begun is not wanted any more when another, or an end, is ordered. */
  #queueOrder(actor: Actor, item: MessageItem): void {
    const orders = (actor.orders ?? []).filter((earlier) => {
      if (earlier.envelope.message.type !== START_LIFE || earlier === item) return true;
      if (item.envelope.message.type === RELEASE_LIFE) return true;
      this.consume(earlier);
      return false;
    });
    orders.push(item);
    actor.orders = orders;
    this.#directory.enqueue(actor);
  }

  #isAudited(kind: string): boolean {
    return this.#registrations.get(kind)?.audited === true;
  }

  #auditAnswer(
    from: Address,
    to: ReplyTo,
    type: string,
    outcome: EffectOutcome,
    at: EpochMs,
  ): void {
    if (this.#isAudited(kindOf(from)))
      this.#audit(answerRow(from, to.correlation, type, outcome, at));
  }

  /** An order that has not come into the mailbox: nobody else will answer it. */
  #auditRefused(envelope: Envelope, error: TroupeError): void {
    const { id, to, message, correlation = id } = envelope;
    if (!this.#isAudited(kindOf(to))) return;
    const refusal: EffectOutcome = { ok: false, failure: error.toFailure() };
    this.#audit(orderRow(envelope));
    this.#audit(answerRow(to, correlation, message.type, refusal, this.#clock.now()));
    this.#schedule();
  }

  #audit(row: AuditRow): void {
    this.#commits.stage.audit.push(row);
    this.#commits.after(() => this.#events.tell('audited', row));
  }

  /**
   * How what is delivered arrives: once, unless a test wants it otherwise: not at all, twice, or later than what follows.
   * @throws what the fault point throws; nothing is staged then
   */
  #fate(): Fate {
    if (this.#faultPoint === noFaults) return 'once';
    try {
      return this.#faultPoint('bus.deliver') ?? 'once';
    } catch (error) {
      if (!(error instanceof DeliveryFault)) throw error;
      return error.action === 'drop' ? 'never' : 'twice';
    }
  }

  #arrive(actor: Actor, item: Item, fate: Fate): void {
    if (typeof fate === 'string') {
      if (fate !== 'never') this.#accept(actor, item);
      if (fate === 'twice') this.#accept(actor, item);
      return;
    }
    void fate.then(() => {
      this.#accept(this.#directory.at(actor.address), item);
      this.#schedule();
    });
  }

  #keepDeadline(address: Address, correlation: string, attempt: number): void {
    const request = requestOf(address, correlation);
    if (request !== undefined) this.#timers.keep(address, REQUEST + request, correlation, attempt);
  }

  #accept(actor: Actor, item: Item): void {
    if (item.kind !== 'message') {
      actor.mailbox.push(item, isDeadline(item) ? ANSWER : INTERNAL, actor.address);
    } else if (item.envelope.priority === INTERNAL && ORDERS.has(item.envelope.message.type)) {
      this.#queueOrder(actor, item);
      return;
    } else if (
      item.envelope.message.type === SPAWN &&
      actor.birth === undefined &&
      (actor.state === 'loading' || actor.state === 'parked')
    ) {
      actor.birth = item;
      return;
    } else {
      const { from, priority, reply, correlation, attempt } = item.envelope;
      if (reply === true && correlation !== undefined) {
        this.#keepDeadline(actor.address, correlation, attempt ?? 1);
      }
      actor.mailbox.push(item, priority, from);
    }
    if (actor.state === 'ended') this.refuseAll(actor);
    else this.#directory.enqueue(actor);
  }
}

/** Neither a request nor an answer, nor what makes an actor. */
function isDroppable(item: Item): boolean {
  return (
    item.kind === 'message' &&
    item.envelope.correlation === undefined &&
    item.envelope.message.type !== SPAWN &&
    item.envelope.message.type !== REQUEST_CANCELLED
  );
}

function isDeadline(item: Item): boolean {
  return item.kind === 'timer' && item.timer.action.do === 'deadline';
}
