import type { Priority } from '../protocol/priority.ts';

/** After this many messages of higher classes in a row, the oldest of a lower class goes first once. */
export const STARVATION_LIMIT = 32;

/** A first-in first-out queue whose `shift` does not move the rest. */
class Fifo<T> {
  #items: T[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined as T;
    if (this.#head > 64 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    } else if (this.#head === this.#items.length) {
      this.#items.length = 0;
      this.#head = 0;
    }
    return item;
  }
}

/**
 * What waits for one actor. Higher classes first, first in first out within a class, and no class starves:
 * whatever waits is reached after at most `STARVATION_LIMIT` turns per class above it.
 * The bound is the host's business: it asks `length` before it adds.
 */
export class Mailbox<T> {
  readonly #classes: (Fifo<T> | undefined)[] = [];
  #length = 0;
  #highInARow = 0;

  get length(): number {
    return this.#length;
  }

  push(item: T, priority: Priority): void {
    let queue = this.#classes[priority];
    if (queue === undefined) {
      queue = new Fifo<T>();
      this.#classes[priority] = queue;
    }
    queue.push(item);
    this.#length++;
  }

  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    this.#length--;
    let highest: Fifo<T> | undefined;
    let lower: Fifo<T> | undefined;
    for (let priority = 5; priority >= 1; priority--) {
      const queue = this.#classes[priority];
      if (queue === undefined || queue.length === 0) continue;
      if (highest === undefined) highest = queue;
      else lower = queue; // ends as the lowest class that waits
    }
    if (lower === undefined) {
      this.#highInARow = 0;
      return highest?.shift();
    }
    if (this.#highInARow < STARVATION_LIMIT) {
      this.#highInARow++;
      return highest?.shift();
    }
    this.#highInARow = 0;
    return this.#nextBelow(highest)?.shift();
  }

  // The classes below the highest take the spare places in turn, so that a middle class is not starved either.
  #turn = 0;
  #nextBelow(highest: Fifo<T> | undefined): Fifo<T> | undefined {
    const waiting = this.#classes.filter(
      (queue) => queue !== undefined && queue !== highest && queue.length > 0,
    );
    this.#turn++;
    return waiting[this.#turn % waiting.length];
  }
}
