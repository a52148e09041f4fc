import type { EpochMs } from '../protocol/message.ts';

export interface Due {
  readonly dueAt: EpochMs;
}

/**
 * Timers by due time: O(log n) to add, O(1) to see the next. Removal is lazy: the owner forgets the timer
 * and drops it when it comes up. Entries with the same due time come out in the order they went in.
 */
export class TimerHeap<T extends Due> {
  readonly #entries: { readonly item: T; readonly order: number }[] = [];
  #order = 0;

  get size(): number {
    return this.#entries.length;
  }

  peek(): T | undefined {
    return this.#entries[0]?.item;
  }

  push(item: T): void {
    const heap = this.#entries;
    const entry = { item, order: this.#order++ };
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(at, parent)) break;
      this.#swap(at, parent);
      at = parent;
    }
  }

  pop(): T | undefined {
    const heap = this.#entries;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return undefined;
    if (heap.length > 0) {
      heap[0] = last;
      let at = 0;
      for (;;) {
        const left = 2 * at + 1;
        const right = left + 1;
        let least = at;
        if (left < heap.length && this.#before(left, least)) least = left;
        if (right < heap.length && this.#before(right, least)) least = right;
        if (least === at) break;
        this.#swap(at, least);
        at = least;
      }
    }
    return first.item;
  }

  #before(a: number, b: number): boolean {
    const x = this.#entries[a];
    const y = this.#entries[b];
    if (x === undefined || y === undefined) return false;
    return x.item.dueAt < y.item.dueAt || (x.item.dueAt === y.item.dueAt && x.order < y.order);
  }

  #swap(a: number, b: number): void {
    const heap = this.#entries;
    const x = heap[a];
    const y = heap[b];
    if (x === undefined || y === undefined) return;
    heap[a] = y;
    heap[b] = x;
  }
}
