/** A first-in first-out queue whose `shift` does not move the rest. */
export class Fifo<T> {
  #items: T[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  /** Takes out all that match, wherever they are. */
  take(matches: (item: T) => boolean): T[] {
    const taken: T[] = [];
    const left: T[] = [];
    for (let item = this.shift(); item !== undefined; item = this.shift()) {
      (matches(item) ? taken : left).push(item);
    }
    for (const item of left) this.push(item);
    return taken;
  }

  /** Takes out the first that matches. */
  takeFirst(matches: (item: T) => boolean): T | undefined {
    const items = this.#items;
    for (let at = this.#head; at < items.length; at++) {
      const item = items[at] as T;
      if (!matches(item)) continue;
      if (at === this.#head) return this.shift();
      items.splice(at, 1);
      return item;
    }
    return undefined;
  }

  shift(): T | undefined {
    const items = this.#items;
    if (this.#head === items.length) return undefined;
    // The usual case, one waits: `pop` keeps the array's room, `length = 0` gives it back.
    if (items.length === 1) return items.pop();
    const item = items[this.#head];
    items[this.#head++] = undefined as T;
    if (this.#head === items.length) {
      items.length = 0;
      this.#head = 0;
    } else if (this.#head > 64 && this.#head * 2 > items.length) {
      this.#items = items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }
}
