import type { Logger } from 'pino';
import { type Address, kindOf } from '../protocol/address.ts';
import {
  ConflictError,
  type Failure,
  MailboxFullError,
  type TroupeError,
} from '../protocol/errors.ts';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Envelope, EpochMs, Message, ReplyTo } from '../protocol/message.ts';
import { PRIORITIES, type Priority } from '../protocol/priority.ts';
import type { AuditRow } from '../store/store.ts';
import type { Actor, Item, MessageItem } from './actor.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import type { Directory } from './directory.ts';
import type { EffectOutcome } from './effect-runner.ts';
import { DeliveryFault } from './fault-points.ts';
import type { HostEmitter } from './host-emitter.ts';
import type { HostEvents } from './host-events.ts';
import type { Idempotency } from './idempotency.ts';
import { copyJson } from './json-copy.ts';
import { answerRow, orderRow } from './orders.ts';
import type { Registration } from './registration.ts';
import type { Requests } from './requests.ts';

/** The kind of the address that stands for whoever is outside: nothing hosted lives there. */
export const APP_KIND = 'app';
export const APP: Address<typeof APP_KIND> = `${APP_KIND}/client`;
/** The type of the message that makes an actor. Reserved: the prefix is refused from outside. */
export const SPAWN = 'xstate.troupe.spawn';
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
  readonly registrations: ReadonlyMap<string, Registration>;
  readonly directory: Directory;
  readonly commits: Commits;
  readonly requests: Requests;
  readonly keys: Idempotency;
  readonly events: HostEmitter;
  /** Sees to it that what was delivered gets its turn. */
  readonly schedule: () => void;
}

/** How messages reach mailboxes, and what becomes of those that cannot. */
export class Delivery {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #newId: () => string;
  readonly #faultPoint: FaultPoint;
  readonly #mailboxLimit: number;
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
    this.#mailboxLimit = options.mailboxLimit;
    this.#registrations = options.registrations;
    this.#directory = options.directory;
    this.#commits = options.commits;
    this.#requests = options.requests;
    this.#keys = options.keys;
    this.#events = options.events;
    this.#schedule = options.schedule;
  }

  // ── into a mailbox ─────────────────────────────────────────────────────────────────────────────────

  /**
   * Puts a message from outside into a mailbox.
   * @throws {MailboxFullError}
   */
  post(envelope: Envelope, durable: boolean): void {
    const actor = this.#room(envelope.to);
    this.#put(actor, envelope, durable);
    if (this.#isAudited(envelope.to)) this.#audit(orderRow(envelope));
  }

  /** Sends what a turn has sent: it is stored with the turn. What cannot be delivered is refused aloud. */
  deliver(envelope: Envelope): void {
    if (kindOf(envelope.to) === APP_KIND) {
      this.drop(envelope, 'nobody');
      return;
    }
    try {
      this.#put(this.#room(envelope.to), envelope, true);
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
    });
  }

  /** A message that waited in the past that is gone back to, or that goes with going back. Never refused for lack of room. */
  putBack(envelope: Envelope): void {
    this.#put(this.#directory.at(envelope.to), envelope, true);
  }

  /** A timer that is due, or an effect that has ended. */
  notify(address: Address, item: Exclude<Item, MessageItem>): void {
    const actor = this.#directory.at(address);
    for (let times = this.#times(); times > 0; times--) this.#accept(actor, item);
    this.#schedule();
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
        this.#keys.answered(to.correlation, answer) ??
        (() => this.#requests.settle(to.correlation, answer));
      this.#auditAnswer(from, to, type, answer, now);
      this.#answer(to, `${type}:${outcome.ok ? 'ok' : 'err'}`, settle);
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
        this.#keys.refused(correlation, error) ?? (() => this.#requests.fail(correlation, error));
      const refusal: EffectOutcome = { ok: false, failure: error.toFailure() };
      this.#auditAnswer(to, asker, message.type, refusal, this.#clock.now());
      this.#answer(asker, `${message.type}:err`, fail);
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

  drop(envelope: Envelope, reason: Parameters<HostEvents['dropped']>[0]['reason']): void {
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
    this.deliver({
      id,
      from: child,
      to: parent,
      message: { type: 'child.faulted', address: child, failure: failure as JsonValue },
      priority: PRIORITIES.normal,
      sentAt: this.#clock.now(),
    });
  }

  /** The message leaves the stored world, in this stage. @returns false if it was handled before */
  consume(item: MessageItem): boolean {
    if (item.taken) return false;
    item.taken = true;
    if (!item.durable) return true;
    this.#commits.stage.consume(item);
    return true;
  }

  /** Empties the mailbox of an actor that has ended: it will never read it again. */
  refuseAll(actor: Actor): void {
    for (let item = actor.mailbox.shift(); item !== undefined; item = actor.mailbox.shift()) {
      if (item.kind !== 'message' || !this.consume(item)) continue;
      const { envelope } = item;
      if (envelope.message.type === SPAWN) continue;
      this.drop(envelope, 'ended');
      const how = actor.status === 'error' ? ` with an error: ${actor.reason ?? 'unknown'}` : '.';
      this.answerFor(envelope, new ConflictError(`${actor.address} has ended${how}`));
    }
  }

  // ── inside ─────────────────────────────────────────────────────────────────────────────────────────

  /** @throws {MailboxFullError} */
  #room(to: Address): Actor {
    const actor = this.#directory.at(to);
    const limit = this.#limitOf(actor);
    if (actor.mailbox.length < limit || actor.state === 'ended') return actor;
    this.#events.tell('mailboxFull', { address: actor.address, limit });
    throw new MailboxFullError(actor.address, limit);
  }

  /** While an actor is being read its machine is not known; as a rule it has the name of the address's kind. */
  #limitOf(actor: Actor): number {
    const registration =
      actor.registration ??
      this.#registrations.get(actor.machine === '' ? kindOf(actor.address) : actor.machine);
    return registration?.mailboxLimit ?? this.#mailboxLimit;
  }

  #put(actor: Actor, envelope: Envelope, durable: boolean): void {
    const times = this.#times();
    const item: MessageItem = {
      kind: 'message',
      envelope,
      durable,
      stage: undefined,
      taken: false,
    };
    if (durable) this.#commits.stage.add(item);
    for (let i = 0; i < times; i++) this.#accept(actor, item);
    this.#schedule();
  }

  /** An answer leaves the host when everything it may rest on is stored. */
  #answer(to: ReplyTo, type: string, settle: () => boolean): void {
    this.#commits.after(() => {
      // The asker has timed out or gone away.
      if (!settle()) {
        this.#events.tell('dropped', { address: to.address, type, reason: 'late' });
      }
    });
    this.#schedule();
  }

  #isAudited(to: Address): boolean {
    return this.#registrations.get(kindOf(to))?.audited === true;
  }

  #auditAnswer(
    from: Address,
    to: ReplyTo,
    type: string,
    outcome: EffectOutcome,
    at: EpochMs,
  ): void {
    if (this.#isAudited(from)) this.#audit(answerRow(from, to.correlation, type, outcome, at));
  }

  #audit(row: AuditRow): void {
    this.#commits.stage.audit.push(row);
    this.#commits.after(() => this.#events.tell('audited', row));
  }

  /** How often what is delivered arrives: once, unless a test wants it otherwise. */
  #times(): number {
    if (this.#faultPoint === noFaults) return 1;
    try {
      void this.#faultPoint('bus.deliver');
      return 1;
    } catch (error) {
      if (!(error instanceof DeliveryFault)) throw error;
      return error.action === 'drop' ? 0 : 2;
    }
  }

  #accept(actor: Actor, item: Item): void {
    if (item.kind !== 'message') {
      actor.mailbox.push(item, isDeadline(item) ? ANSWER : INTERNAL);
    } else if (
      item.envelope.message.type === SPAWN &&
      actor.birth === undefined &&
      (actor.state === 'loading' || actor.state === 'parked')
    ) {
      actor.birth = item;
      return;
    } else {
      actor.mailbox.push(item, item.envelope.priority);
    }
    if (actor.state === 'ended') this.refuseAll(actor);
    else this.#directory.enqueue(actor);
  }
}

function isDeadline(item: Item): boolean {
  return item.kind === 'timer' && item.timer.action.do === 'deadline';
}
