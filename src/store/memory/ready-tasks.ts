import type { TaskRow } from '../store.ts';

interface Candidate {
  readonly row: TaskRow;
}

/** Negative if `a` is to be claimed before `b`: highest priority, then the most tasks unblocked, then the oldest. */
export function compareForClaim({ row: a }: Candidate, { row: b }: Candidate): number {
  return (
    b.priority - a.priority ||
    b.unblocks - a.unblocks ||
    a.position - b.position ||
    (a.task < b.task ? -1 : a.task > b.task ? 1 : 0)
  );
}

/**
 * The tasks that may be claimed, best first: a binary heap, so that a claim does not sort 100 000 of them.
 * A task that is no longer ready stays in it until it comes to the top; who takes it out looks.
 */
export class ReadyTasks<T extends Candidate> {
  readonly #heap: T[] = [];

  add(task: T): void {
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above] as T;
      if (compareForClaim(parent, task) <= 0) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = task;
  }

  /** Takes out the best one. */
  take(): T | undefined {
    const heap = this.#heap;
    const best = heap[0];
    const last = heap.pop();
    if (best === undefined || last === undefined || heap.length === 0) return best;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      const left = heap[below];
      if (left === undefined) break;
      const right = heap[below + 1];
      let better = left;
      if (right !== undefined && compareForClaim(right, left) < 0) {
        better = right;
        below++;
      }
      if (compareForClaim(last, better) <= 0) break;
      heap[at] = better;
      at = below;
    }
    heap[at] = last;
    return best;
  }
}
