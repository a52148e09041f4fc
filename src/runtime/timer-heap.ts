import type { EpochMs } from '../protocol/message.ts';

/** Something that is due at a time. `slot` and `order` belong to the heap it is in. */
export interface Due {
  readonly dueAt: EpochMs;
  /** Where it is in the heap; -1 while it is in none. */
  slot: number;
  /** Tells entries with the same due time apart: first in, first out. */
  order: number;
}

/**
 * Entries by due time: O(log n) to add and to remove, O(1) to see the next. Entries know their place, so that
 * one which is cancelled leaves at once: ten thousand requests a second with a deadline of ten minutes each
 * would otherwise keep six million dead entries. Entries with the same due time come out in the order they
 * went in.
 */
export class TimerHeap<T extends Due> {
  readonly #heap: T[] = [];
  #order = 0;

  get size(): number {
    return this.#heap.length;
  }

  peek(): T | undefined {
    return this.#heap[0];
  }

  push(entry: T): void {
    entry.order = this.#order++;
    entry.slot = this.#heap.length;
    this.#heap.push(entry);
    this.#rise(entry);
  }

  pop(): T | undefined {
    const first = this.#heap[0];
    if (first !== undefined) this.remove(first);
    return first;
  }

  /** Does nothing if the entry is not in the heap. */
  remove(entry: T): void {
    const { slot } = entry;
    if (slot < 0 || this.#heap[slot] !== entry) return;
    entry.slot = -1;
    const last = this.#heap.pop() as T;
    if (last === entry) return;
    this.#put(last, slot);
    this.#rise(last);
    this.#sink(last);
  }

  #rise(entry: T): void {
    const heap = this.#heap;
    while (entry.slot > 0) {
      const parent = heap[(entry.slot - 1) >> 1] as T;
      if (!before(entry, parent)) return;
      const { slot } = parent;
      this.#put(parent, entry.slot);
      this.#put(entry, slot);
    }
  }

  #sink(entry: T): void {
    const heap = this.#heap;
    for (;;) {
      const left = heap[2 * entry.slot + 1];
      const right = heap[2 * entry.slot + 2];
      let least = entry;
      if (left !== undefined && before(left, least)) least = left;
      if (right !== undefined && before(right, least)) least = right;
      if (least === entry) return;
      const { slot } = least;
      this.#put(least, entry.slot);
      this.#put(entry, slot);
    }
  }

  #put(entry: T, slot: number): void {
    this.#heap[slot] = entry;
    entry.slot = slot;
  }
}

function before(a: Due, b: Due): boolean {
  return a.dueAt < b.dueAt || (a.dueAt === b.dueAt && a.order < b.order);
}
