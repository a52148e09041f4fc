import { type Address, runOf } from '../protocol/address.ts';
import { Actor } from './actor.ts';
import type { Clock } from './clock.ts';
import { Fifo } from './fifo.ts';
import { STARVATION_LIMIT } from './mailbox.ts';

/** The actors in memory, those that have a turn to take, and those that have yet to be read. */
export class Directory {
  readonly actors = new Map<string, Actor>();
  /** Each takes one turn and goes to the end, so that a busy one delays nobody. */
  readonly #ready = new Fifo<Actor>();
  /** Those for whom something of the highest class waits: they go first. They may wait among the others as well. */
  readonly #urgent = new Fifo<Actor>();
  /** How many of them may still go before the next of the others. */
  #ahead = 0;
  toLoad: Actor[] = [];
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The actor at an address, or a place for its messages while it is being read. */
  at(address: Address): Actor {
    const known = this.actors.get(address);
    if (known !== undefined) return known;
    const actor = this.add(address);
    this.toLoad.push(actor);
    return actor;
  }

  /** It has not left memory, and nobody has taken its place. */
  has(actor: Actor): boolean {
    return this.actors.get(actor.address) === actor;
  }

  add(address: Address): Actor {
    const actor = new Actor(address, this.#clock.now());
    this.actors.set(address, actor);
    return actor;
  }

  /** Those of which an actor is in memory, or is being read. */
  runs(): readonly string[] {
    const runs = new Set<string>();
    for (const address of this.actors.keys()) {
      const run = runOf(address);
      if (run !== undefined) runs.add(run);
    }
    return [...runs];
  }

  /** How many have a turn to take; some may be counted twice. */
  get waiting(): number {
    return this.#ready.length + this.#urgent.length;
  }

  /** Gives it a turn, if it can take one and something waits for it. */
  enqueue(actor: Actor): void {
    if (actor.queued && actor.hurries) return;
    const canTake =
      actor.orders === undefined
        ? actor.state === 'live' && actor.mailbox.length > 0
        : actor.state !== 'loading';
    if (!canTake) return;
    if (!actor.queued) {
      actor.queued = true;
      this.#ready.push(actor);
    }
    if (!actor.hurries && (actor.orders !== undefined || actor.mailbox.hasCritical)) {
      actor.hurries = true;
      this.#urgent.push(actor);
    }
  }

  /**
   * Whose turn it is. Those that are urgent go before the next of the others: as many as wait when the one before had its
   * turn, so that one who has more of the highest class each time goes first every other time and not always.
   */
  next(): Actor | undefined {
    if (this.#urgent.length > 0 && (this.#ahead > 0 || this.#ready.length === 0)) {
      const actor = this.#urgent.shift() as Actor;
      actor.hurries = false;
      this.#ahead--;
      return actor;
    }
    this.#ahead = Math.min(this.#urgent.length, STARVATION_LIMIT);
    const actor = this.#ready.shift();
    if (actor !== undefined) actor.queued = false;
    return actor;
  }
}
