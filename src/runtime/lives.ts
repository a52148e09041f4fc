import type { Address } from '../protocol/address.ts';
import type { EndLifeParams, StartLifeParams } from '../protocol/commands.ts';
import { ConflictError, NotFoundError, toFailure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EpochMs, Message } from '../protocol/message.ts';
import { PRIORITIES } from '../protocol/priority.ts';
import type { Shutdown } from '../protocol/supervision.ts';
import type { Store } from '../store/store.ts';
import type { Actor, MessageItem } from './actor.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import { APP, type Delivery, END_LIFE, RELEASE_LIFE, START_LIFE } from './delivery.ts';
import type { Directory } from './directory.ts';
import type { DurableTimers } from './durable-timers.ts';
import type { HostEmitter } from './host-emitter.ts';
import type { HostEvents } from './host-events.ts';
import type { Loader } from './loader.ts';
import type { Registration } from './registration.ts';
import { ASKED_TO_STOP, type PreparedTurn, type Turns } from './turns.ts';
import type { LiveSnapshot } from './xstate-driver.ts';

/*
 * The lives of one address. Its supervisor orders them by messages, so an order is carried out once, whatever crashes;
 * the host carries it out in one turn of the child, before anything that waits in its mailbox.
 *
 *     startLife   one commit: timers, effects, steps and requests of the life before are gone, the new state is the next
 *                 checkpoint (its details say which life it is, and why), its effects start, the supervisor is told.
 *                 Checkpoints are kept; messages, too, unless they are to be dropped.
 *     endLife     asks it to stop, by the event `actor.stop`, if its state handles that; else, and when its time is up,
 *                 it ends as it is.
 *     releaseLife no new life will come: what waits is refused.
 *
 * Between an end and its supervisor's word an actor is down: messages wait for the life to come. That is stored: it is
 * an actor that has ended and has a parent that supervises.
 */

/** How an actor has ended. killed: it was not asked, or has not stopped in time. */
export interface Ending {
  readonly how: 'done' | 'failed' | 'killed';
  readonly reason: string | null;
}

export interface LivesOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly registrations: ReadonlyMap<string, Registration>;
  readonly directory: Directory;
  readonly commits: Commits;
  readonly delivery: Delivery;
  readonly timers: DurableTimers;
  readonly turns: Turns;
  readonly loader: Loader;
  readonly events: HostEmitter;
  readonly newId: () => string;
}

export class Lives {
  readonly #o: LivesOptions;
  /** Calls that wait for somebody's end. */
  readonly #waiting = new Set<(error: Error) => void>();

  constructor(options: LivesOptions) {
    this.#o = options;
  }

  /** Nobody will end any more. */
  close(error: Error): void {
    for (const reject of [...this.#waiting]) reject(error);
  }

  /**
   * Stops an actor: asks it first, if its machine handles `actor.stop`, and ends it when its time is up.
   * @throws {NotFoundError} there is no such actor
   */
  async stop(address: Address, shutdown: Shutdown, reason: string): Promise<Ending> {
    const { store, commits, events } = this.#o;
    const order = (): void => this.#order(address, { shutdown, reason, again: false });
    let asked = false;
    // One that has become what it was before it was asked does not know of it: it is asked once more.
    const onRollback: HostEvents['rolledBack'] = (fact) => {
      if (asked && fact.address === address) order();
    };
    let end = (_ending: Ending): void => undefined;
    const listener: HostEvents['ended'] = (ended) => {
      if (ended.address === address) end(ended);
    };
    const ended = new Promise<Ending>((resolve, reject) => {
      const done = (): void => {
        events.off('ended', listener);
        events.off('rolledBack', onRollback);
        this.#waiting.delete(fail);
      };
      const fail = (error: Error): void => {
        done();
        reject(error);
      };
      end = (ending) => {
        done();
        resolve({ how: ending.how, reason: ending.reason });
      };
      this.#waiting.add(fail);
      events.on('ended', listener);
      events.on('rolledBack', onRollback);
    });
    // Whoever does not come to await it has thrown something else.
    ended.catch(() => undefined);
    try {
      await commits.stored();
      const [stored] = await store.loadActors([address]);
      if (stored === undefined) throw new NotFoundError(`There is no actor at ${address}.`);
      const { status } = stored;
      if (status === 'done' || status === 'error') {
        end({ how: status === 'done' ? 'done' : 'failed', reason: stored.reason });
      } else {
        order();
        asked = true;
      }
    } catch (error) {
      end({ how: 'done', reason: null });
      throw error;
    }
    return await ended;
  }

  /**
   * Carries out the first order of an actor.
   * @returns when; undefined: it waits for the actor to be read, or for a machine to be registered
   */
  take(actor: Actor): EpochMs | undefined {
    if (actor.state === 'loading') return undefined;
    const [item] = actor.orders as [MessageItem];
    const { message } = item.envelope;
    const now = this.#o.clock.now();
    if (message.type === START_LIFE && !item.taken && !this.#canStart(actor, message)) {
      return undefined;
    }
    actor.orders?.shift();
    if (actor.orders?.length === 0) actor.orders = undefined;
    if (!this.#o.delivery.consume(item)) return now;
    this.#o.commits.stage.turns++;
    actor.lastUsed = now;
    switch (message.type) {
      case START_LIFE:
        this.#start(actor, item);
        break;
      case END_LIFE:
        this.#end(actor, item, now);
        break;
      case RELEASE_LIFE:
        this.#release(actor, item.envelope.from);
        break;
    }
    return now;
  }

  // ── the beginning ──────────────────────────────────────────────────────────────────────────────────

  #canStart(actor: Actor, message: Message): boolean {
    if (message['renew'] !== true) {
      if (actor.state === 'live' || actor.state === 'quarantined') return true;
      // It exists, and goes on when its machine is known.
      if (actor.state === 'parked') return false;
    }
    return this.#o.registrations.has(String(message['machine']));
  }

  #start(actor: Actor, { envelope }: MessageItem): void {
    const { delivery, directory, loader, registrations, turns } = this.#o;
    const { address } = actor;
    const order = envelope.message as unknown as StartLifeParams;
    const { life } = order;
    const supervisor = envelope.from;
    const failed = (error: unknown): void => {
      delivery.tell(address, supervisor, turns.newName(address), {
        type: 'child.startFailed',
        address,
        life,
        failure: toFailure(error) as unknown as JsonValue,
      });
    };
    const { parent } = actor;
    if (parent !== supervisor && delivery.isSupervised(parent) && actor.state !== 'absent') {
      failed(
        new ConflictError(
          `${address} has a supervisor already: ${parent}. Delete it there, or choose another address.`,
        ),
      );
      return;
    }
    const started = (): void => {
      const fact = { type: 'child.started', address, life };
      delivery.tell(address, supervisor, turns.newName(address), fact);
    };
    if (!order.renew && (actor.state === 'live' || actor.state === 'quarantined')) {
      turns.adopt(actor, supervisor);
      started();
      if (actor.state === 'quarantined') delivery.tellQuarantined(actor, turns.newName(address));
      directory.enqueue(actor);
      return;
    }
    const registration = registrations.get(order.machine) as Registration;
    let born: PreparedTurn;
    try {
      born = turns.prepareBirth(address, registration, order.input);
    } catch (error) {
      if (actor.state === 'absent') loader.forget(actor);
      else if (actor.state === 'live') turns.endNow(actor, 'failed', toFailure(error).message);
      failed(error);
      return;
    }
    if (order.messages === 'drop') {
      delivery.refuseWaiting(
        actor,
        new ConflictError(`${address} has begun a new life, for which nothing was kept.`),
      );
    }
    started();
    const details = { life, ...(order.cause === null ? {} : { cause: order.cause }) };
    turns.beginLife(actor, registration, born, supervisor, details);
    directory.enqueue(actor);
    loader.armSweep();
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────

  #end(actor: Actor, item: MessageItem, now: EpochMs): void {
    const { delivery, loader, timers, turns } = this.#o;
    const { address } = actor;
    const { id, from, message } = item.envelope;
    const { shutdown, reason, again } = message as unknown as EndLifeParams;
    if (from !== APP && actor.state !== 'absent' && actor.parent !== from) {
      // It was ordered to live and has not begun to: what lives there, or has, is somebody else's.
      const fact = { type: 'child.ended', address, how: 'done', failure: null };
      delivery.tell(address, from, turns.newName(address), fact);
      return;
    }
    switch (actor.state) {
      case 'absent':
        loader.forget(actor);
        delivery.tell(address, from, turns.newName(address), {
          type: 'child.ended',
          address,
          how: 'done',
          failure: null,
        });
        return;
      case 'down':
      case 'ended':
        // It had ended before it heard of this: whoever waits for its end is told.
        turns.tellEnded(actor, from);
        return;
      case 'parked':
      case 'quarantined':
        turns.endUnread(actor, reason);
        return;
      default:
        break;
    }
    if (shutdown === 'brutal') {
      turns.endNow(actor, 'killed', reason);
      return;
    }
    if (timers.get(address, ASKED_TO_STOP) !== undefined) return;
    const event = { type: 'actor.stop', reason, again, meta: { id, from, at: now } };
    const registration = actor.registration as Registration;
    if (!registration.driver.accepts(address, actor.snapshot as LiveSnapshot, event)) {
      turns.endNow(actor, 'done', reason);
      return;
    }
    const handled = turns.handle(actor, item, event, now);
    if (actor.state !== 'live') return;
    if (!handled) {
      turns.endNow(actor, 'killed', reason);
    } else if (shutdown !== 'infinity') {
      const { timeoutMs } = shutdown;
      timers.set(address, ASKED_TO_STOP, `${id}~stop`, now + timeoutMs, {
        do: 'end',
        reason,
        timeoutMs,
      });
    }
  }

  #release(actor: Actor, from: Address): void {
    if (actor.state === 'absent') {
      this.#o.loader.forget(actor);
      return;
    }
    if (actor.parent !== from) return;
    this.#o.turns.adopt(actor, null);
    if (actor.state !== 'down') return;
    actor.state = 'ended';
    this.#o.delivery.refuseAll(actor);
    this.#o.loader.armSweep();
  }

  #order(address: Address, params: Omit<EndLifeParams, 'address'>): void {
    const { clock, delivery, newId } = this.#o;
    delivery.order({
      id: `${APP}#${newId()}`,
      from: APP,
      to: address,
      message: { type: END_LIFE, ...params } as unknown as Message,
      priority: PRIORITIES.critical,
      sentAt: clock.now(),
    });
  }
}
