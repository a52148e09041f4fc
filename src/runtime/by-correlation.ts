/** What is found by its correlation. `next` belongs to the table that it is in. */
export interface Linked {
  readonly correlation: string;
  next: this | undefined;
}

/** Buckets of an empty table; a power of two. */
const FEWEST = 64;

/**
 * Those who wait for answers, by correlation. Correlations end with a number that counts up, so that those of one time
 * lie in different buckets.
 *
 * Not a Map: one from which as much is taken as is put in makes a new table every so often, and the old table, dead but
 * grown old, points to the new one. So every young entry outlives its time: a sixth of all that requests had allocated
 * was moved to the old space.
 */
export class ByCorrelation<T extends Linked> {
  #buckets: (T | undefined)[] = emptyBuckets(FEWEST);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(correlation: string): T | undefined {
    let entry = this.#buckets[this.#placeOf(correlation)];
    while (entry !== undefined && entry.correlation !== correlation) entry = entry.next;
    return entry;
  }

  /** Takes the place of another with this correlation. */
  add(entry: T): void {
    if (this.#size >= this.#buckets.length) this.#rebuild(this.#buckets.length * 2);
    const place = this.#placeOf(entry.correlation);
    for (let one = this.#buckets[place]; one !== undefined; one = one.next) {
      if (one.correlation !== entry.correlation) continue;
      this.delete(one);
      break;
    }
    this.#link(entry, place);
    this.#size++;
  }

  /** Does nothing if it is not there. */
  delete(entry: T): void {
    const place = this.#placeOf(entry.correlation);
    let before: T | undefined;
    let one = this.#buckets[place];
    while (one !== undefined && one !== entry) {
      before = one;
      one = one.next;
    }
    if (one === undefined) return;
    if (before === undefined) this.#buckets[place] = entry.next;
    else before.next = entry.next;
    entry.next = undefined;
    this.#size--;
    // What many left behind is given back.
    if (this.#size === 0 && this.#buckets.length > 16 * FEWEST) this.#rebuild(FEWEST);
  }

  /** A copy, in no order. */
  all(): readonly T[] {
    const all: T[] = [];
    for (let entry of this.#buckets)
      for (; entry !== undefined; entry = entry.next) all.push(entry);
    return all;
  }

  #rebuild(buckets: number): void {
    const all = this.all();
    this.#buckets = emptyBuckets(buckets);
    for (const entry of all) this.#link(entry, this.#placeOf(entry.correlation));
  }

  #link(entry: T, place: number): void {
    entry.next = this.#buckets[place];
    this.#buckets[place] = entry;
  }

  #placeOf(correlation: string): number {
    let number = 0;
    for (let at = correlation.length - 1, unit = 1; at >= 0 && unit < 1e9; at--, unit *= 10) {
      const digit = correlation.charCodeAt(at) - 48;
      if (digit < 0 || digit > 9) break;
      number += digit * unit;
    }
    return number & (this.#buckets.length - 1);
  }
}

const emptyBuckets = <T>(count: number): (T | undefined)[] =>
  new Array<T | undefined>(count).fill(undefined);
