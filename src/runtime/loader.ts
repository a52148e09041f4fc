import type { Logger } from 'pino';
import type { Address } from '../protocol/address.ts';
import { NotFoundError, StoppedError, toFailure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Store, StoredActor } from '../store/store.ts';
import type { Actor, Item, MessageItem } from './actor.ts';
import { type Clock, MAX_TIMER_MS } from './clock.ts';
import type { Commits } from './commits.ts';
import { type Delivery, SPAWN } from './delivery.ts';
import type { Directory } from './directory.ts';
import type { DurableEffects } from './durable-effects.ts';
import type { HostEmitter } from './host-emitter.ts';
import { type Registration, restoreSnapshot } from './registration.ts';
import type { PreparedTurn, Turns } from './turns.ts';

const isSpawn = (item: Item): boolean =>
  item.kind === 'message' && item.envelope.message.type === SPAWN;

/** Actors read from the store in one go. */
const MAX_LOAD = 1000;

export interface LoaderOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registrations: ReadonlyMap<string, Registration>;
  readonly directory: Directory;
  readonly commits: Commits;
  readonly delivery: Delivery;
  readonly effects: DurableEffects;
  readonly turns: Turns;
  readonly events: HostEmitter;
  readonly passivateAfterMs: number;
  /** Sees to it that what a load has led to is handled. */
  readonly schedule: () => void;
  /** The store could not be read. */
  readonly failed: (cause: unknown) => void;
}

/** How actors come into memory, are born, and leave it again. */
export class Loader {
  readonly #o: LoaderOptions;
  #loading = 0;
  #stopped = false;
  /** While somebody looks which actors exist, none of them may leave memory. */
  #held = 0;
  #cancelSweep: (() => void) | undefined;
  /** Those who wait for actors to be read. */
  #awaited: {
    readonly actors: readonly Actor[];
    readonly resolve: () => void;
    readonly reject: (error: Error) => void;
  }[] = [];

  constructor(options: LoaderOptions) {
    this.#o = options;
  }

  get busy(): boolean {
    return this.#loading > 0 || this.#o.directory.toLoad.length > 0;
  }

  /** Nothing more comes into memory or leaves it. */
  stop(): void {
    this.#stopped = true;
    this.#cancelSweep?.();
    const error = new StoppedError();
    for (const { reject } of this.#awaited.splice(0)) reject(error);
  }

  /**
   * Calls back when all of these actors are in memory, those that exist, and none can leave it meanwhile.
   * @throws {StoppedError} the host stops first
   */
  async withLoaded<T>(addresses: readonly Address[], then: () => Promise<T> | T): Promise<T> {
    this.#held++;
    try {
      const actors = addresses.map((address) => this.#o.directory.at(address));
      await new Promise<void>((resolve, reject) => {
        if (this.#stopped) reject(new StoppedError());
        else this.#awaited.push({ actors, resolve, reject });
        this.#tellAwaited();
        this.#o.schedule();
      });
      return await then();
    } finally {
      this.#held--;
      this.armSweep();
    }
  }

  /** Reads the actors for which something waits. */
  load(): void {
    const { directory } = this.#o;
    const batch = directory.toLoad.splice(0, MAX_LOAD);
    const wanted = batch.filter((actor) => actor.state === 'loading');
    if (wanted.length === 0) return;
    this.#loading++;
    this.#o.store.loadActors(wanted.map((actor) => actor.address)).then(
      (stored) => {
        this.#loading--;
        if (this.#stopped) return;
        const byAddress = new Map(stored.map((record) => [record.address, record]));
        try {
          for (const actor of wanted) {
            // Somebody may have created it in the meantime.
            if (actor.state === 'loading') this.#loaded(actor, byAddress.get(actor.address));
          }
        } catch (error) {
          this.#o.failed(error);
        }
        this.#tellAwaited();
        this.#o.schedule();
      },
      (error: unknown) => {
        this.#loading--;
        if (!this.#stopped) this.#o.failed(error);
      },
    );
  }

  /**
   * Finds out which of the addresses have an actor in the store. One that is made while this looks may be missing;
   * then it is in memory, as none leaves memory meanwhile.
   */
  async stored(addresses: readonly Address[]): Promise<ReadonlySet<string>> {
    const found = new Set<string>();
    this.#held++;
    try {
      for (let i = 0; i < addresses.length; i += MAX_LOAD) {
        const chunk = addresses.slice(i, i + MAX_LOAD);
        for (const { address } of await this.#o.store.loadActors(chunk)) found.add(address);
      }
    } finally {
      this.#held--;
    }
    return found;
  }

  /** A machine has become known: those who waited for it go on. */
  registered(name: string): void {
    const { directory } = this.#o;
    for (const actor of directory.actors.values()) {
      if (actor.orders !== undefined) directory.enqueue(actor);
      if (actor.state !== 'parked' || actor.machine !== name) continue;
      actor.state = 'loading';
      directory.toLoad.push(actor);
    }
  }

  /** Sees to it that actors without messages leave memory some day. */
  armSweep(): void {
    if (this.#cancelSweep !== undefined || this.#stopped) return;
    this.#cancelSweep = this.#o.clock.setTimer(
      Math.min(this.#o.passivateAfterMs, MAX_TIMER_MS),
      () => {
        this.#cancelSweep = undefined;
        this.#passivate();
      },
      true,
    );
  }

  #tellAwaited(): void {
    if (this.#awaited.length === 0) return;
    this.#awaited = this.#awaited.filter(({ actors, resolve }) => {
      const { directory } = this.#o;
      // One that is gone from the directory was looked for and does not exist.
      const isLooked = (actor: Actor): boolean =>
        actor.state !== 'loading' || directory.actors.get(actor.address) !== actor;
      if (!actors.every(isLooked)) return true;
      resolve();
      return false;
    });
  }

  #loaded(actor: Actor, stored: StoredActor | undefined): void {
    if (stored === undefined) {
      this.#missing(actor);
      return;
    }
    const { clock, delivery, directory, logger, registrations } = this.#o;
    const now = clock.now();
    actor.seq = stored.seq;
    actor.parent = stored.parent as Address | null;
    actor.status = stored.status;
    actor.version = stored.version;
    actor.machine = stored.machine;
    actor.reason = stored.reason;
    actor.updatedAt = stored.updatedAt;
    actor.lastUsed = now;
    // It exists: whoever asked for it to be made had asked before.
    if (actor.birth !== undefined) delivery.consume(actor.birth);
    actor.birth = undefined;
    if (stored.status === 'done' || stored.status === 'error') {
      if (delivery.isSupervised(actor.parent)) {
        actor.state = 'down';
        directory.enqueue(actor);
        return;
      }
      actor.state = 'ended';
      delivery.refuseAll(actor);
      directory.enqueue(actor);
      this.armSweep();
      return;
    }
    const registration = registrations.get(stored.machine);
    if (registration === undefined) {
      actor.state = 'parked';
      logger.warn(
        { actor: actor.address, machine: stored.machine },
        'an actor waits: its machine is not registered yet',
      );
      directory.enqueue(actor);
      return;
    }
    try {
      actor.snapshot = restoreSnapshot(registration, stored);
    } catch (error) {
      this.#quarantine(actor, toFailure(error).message, stored.status === 'quarantined');
      directory.enqueue(actor);
      return;
    }
    actor.registration = registration;
    actor.state = 'live';
    if (stored.status === 'quarantined') {
      // The machine of today can read it again.
      actor.status = 'active';
      actor.reason = null;
      actor.updatedAt = now;
      this.#o.commits.stage.touch(actor);
      const { address, parent } = actor;
      if (parent !== null && delivery.isSupervised(parent)) {
        const fact = { type: 'child.recovered', address };
        delivery.tell(address, parent, this.#o.turns.newName(address), fact);
      }
    }
    this.#o.effects.restart(actor, now);
    directory.enqueue(actor);
    this.armSweep();
  }

  #quarantine(actor: Actor, reason: string, isKnown: boolean): void {
    const { address } = actor;
    actor.state = 'quarantined';
    actor.status = 'quarantined';
    actor.reason = reason.toWellFormed();
    actor.updatedAt = this.#o.clock.now();
    this.#o.logger.error({ actor: address, reason }, 'an actor is quarantined; the rest goes on');
    this.#o.commits.stage.touch(actor);
    this.#o.commits.after(() => this.#o.events.tell('quarantined', { address, reason }));
    if (!isKnown) this.#o.delivery.tellQuarantined(actor, this.#o.turns.newName(address));
  }

  /** Nobody has this address: create it if somebody asked for that, else refuse what was sent to it. */
  #missing(actor: Actor): void {
    const { delivery, directory, logger, registrations, turns } = this.#o;
    const { address, birth } = actor;
    if (birth !== undefined) {
      const { message, from, id } = birth.envelope;
      const machine = String(message['machine']);
      const registration = registrations.get(machine);
      if (registration === undefined) {
        actor.machine = machine;
        actor.state = 'parked';
        logger.warn(
          { actor: address, machine },
          'an actor is not made yet: its machine is not registered yet',
        );
        return;
      }
      actor.birth = undefined;
      delivery.consume(birth);
      let born: PreparedTurn | undefined;
      try {
        born = turns.prepareBirth(address, registration, message['input'] as JsonValue);
      } catch (error) {
        const failure = toFailure(error);
        logger.error({ actor: address, machine, err: error }, 'an actor could not be made');
        delivery.deadLetter(address, message, failure.message);
        delivery.tellParent(address, from, failure, `${id}~failed`);
        // Somebody else may have asked for it as well, with an input that it can be made of.
        if (this.#isAskedFor(actor)) {
          this.#missing(actor);
          return;
        }
      }
      if (born !== undefined) {
        turns.giveBirth(actor, registration, born, from);
        directory.enqueue(actor);
        this.armSweep();
        return;
      }
    }
    if (actor.orders !== undefined) {
      actor.state = 'absent';
      directory.enqueue(actor);
      return;
    }
    this.forget(actor);
  }

  /** Somebody has asked for it to be made, and waits in its mailbox: that is the next to be tried. */
  #isAskedFor(actor: Actor): boolean {
    const [next, ...more] = actor.mailbox.take(isSpawn) as MessageItem[];
    actor.birth = next;
    for (const item of more) actor.mailbox.push(item, item.envelope.priority, item.envelope.from);
    return next !== undefined;
  }

  /** Nobody lives there: refuses what was sent there, unless somebody has asked for one to live there. */
  forget(actor: Actor): void {
    const { commits, delivery, directory } = this.#o;
    const { address, mailbox } = actor;
    if (actor.orders !== undefined) return; // there is more to be done about it
    if (this.#isAskedFor(actor)) {
      this.#missing(actor);
      return;
    }
    directory.actors.delete(address);
    delivery.admit(actor);
    for (let item = mailbox.shift(); item !== undefined; item = mailbox.shift()) {
      if (item.kind !== 'message' || !delivery.consume(item)) continue;
      commits.stage.turns++;
      if (item.envelope.message.type === SPAWN) continue;
      delivery.refuse(item.envelope, new NotFoundError(`There is no actor at ${address}.`));
    }
  }

  #passivate(): void {
    if (this.#stopped) return;
    const { clock, directory, effects, passivateAfterMs } = this.#o;
    const before = clock.now() - passivateAfterMs;
    let left = 0;
    for (const actor of directory.actors.values()) {
      // No time lets another go: one that is parked waits for its machine, and whoever is being read arms this again.
      if (actor.state !== 'live' && actor.state !== 'ended') continue;
      const idle =
        this.#held === 0 &&
        actor.mailbox.length === 0 &&
        actor.orders === undefined &&
        actor.uncommitted === 0 &&
        actor.lastUsed <= before &&
        !effects.has(actor.address);
      if (idle) directory.actors.delete(actor.address);
      else left++;
    }
    if (left > 0) this.armSweep();
  }
}
