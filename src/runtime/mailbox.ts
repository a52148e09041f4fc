import { PRIORITIES, type Priority } from '../protocol/priority.ts';
import { FairQueue } from './fair-queue.ts';

/** A class that was passed over so often in a row goes first once. */
export const STARVATION_LIMIT = 32;

const CLASSES = 5;

/**
 * What waits for one actor. Higher classes first, and no class starves: whoever is next in a class is reached after at
 * most `STARVATION_LIMIT + 3` turns of the classes above it (3 others may be as hungry). Within a class, first in first
 * out for each sender, and the senders take turns: see FairQueue. The bound on its length is the host's business: it
 * asks `length` before it adds.
 */
export class Mailbox<T> {
  readonly #queues: (FairQueue<T> | undefined)[] = [];
  /** How often each class was passed over since it was last served. */
  readonly #passed = [0, 0, 0, 0, 0, 0];
  /** Bit p is set while class p has something. */
  #waiting = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Something of the highest class waits. */
  get hasCritical(): boolean {
    return this.#waiting >= 1 << PRIORITIES.critical;
  }

  push(item: T, priority: Priority, sender: string): void {
    let queue = this.#queues[priority];
    if (queue === undefined) {
      queue = new FairQueue<T>();
      this.#queues[priority] = queue;
    }
    queue.push(item, sender);
    this.#waiting |= 1 << priority;
    this.#length++;
  }

  shift(): T | undefined {
    const waiting = this.#waiting;
    if (waiting === 0) return undefined;
    // The highest class, by the highest bit.
    let chosen = 31 - Math.clz32(waiting);
    if (waiting !== 1 << chosen) chosen = this.#choose(chosen);
    const queue = this.#queues[chosen] as FairQueue<T>;
    const item = queue.shift();
    this.#passed[chosen] = 0;
    if (queue.length === 0) this.#waiting &= ~(1 << chosen);
    this.#length--;
    return item;
  }

  /** Takes out all that match, wherever they wait. */
  take(matches: (item: T) => boolean): T[] {
    const taken: T[] = [];
    for (const [priority, queue] of this.#queues.entries()) {
      if (queue === undefined || queue.length === 0) continue;
      for (const item of queue.take(matches)) taken.push(item);
      if (queue.length === 0) this.#waiting &= ~(1 << priority);
    }
    this.#length -= taken.length;
    return taken;
  }

  /**
   * Takes out the oldest that matches, from the lowest class that has one and is not above `highest`; of several
   * senders, from the one who has most waiting there.
   */
  takeOldest(matches: (item: T) => boolean, highest: Priority): T | undefined {
    for (let priority = 1; priority <= highest; priority++) {
      if ((this.#waiting & (1 << priority)) === 0) continue;
      const queue = this.#queues[priority] as FairQueue<T>;
      const item = queue.takeOldest(matches);
      if (item === undefined) continue;
      if (queue.length === 0) this.#waiting &= ~(1 << priority);
      this.#length--;
      return item;
    }
    return undefined;
  }

  #choose(highest: number): number {
    const passed = this.#passed;
    let chosen = highest;
    let most = STARVATION_LIMIT - 1;
    for (let priority = highest - 1; priority >= 1; priority--) {
      if ((this.#waiting & (1 << priority)) === 0) continue;
      const times = passed[priority] as number;
      if (times > most) {
        most = times;
        chosen = priority;
      }
    }
    for (let priority = 1; priority <= CLASSES; priority++) {
      if (priority !== chosen && priority < highest && this.#waiting & (1 << priority)) {
        passed[priority] = (passed[priority] as number) + 1;
      }
    }
    return chosen;
  }
}
