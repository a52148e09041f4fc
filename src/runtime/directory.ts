import { type Address, runOf } from '../protocol/address.ts';
import { Actor } from './actor.ts';
import type { Clock } from './clock.ts';
import { Fifo } from './fifo.ts';

/** The actors in memory, those that have a turn to take, and those that have yet to be read. */
export class Directory {
  readonly actors = new Map<string, Actor>();
  /** Each takes one turn and goes to the end, so that a busy one delays nobody. */
  readonly ready = new Fifo<Actor>();
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

  /** Gives it a turn, if it can take one and something waits for it. */
  enqueue(actor: Actor): void {
    if (actor.queued) return;
    const canTake =
      actor.orders === undefined
        ? actor.state === 'live' && actor.mailbox.length > 0
        : actor.state !== 'loading';
    if (!canTake) return;
    actor.queued = true;
    this.ready.push(actor);
  }
}
