import { Fifo } from './fifo.ts';

/** What one sender has waiting. */
interface Lane<T> {
  readonly sender: string;
  readonly items: Fifo<T>;
}

/**
 * First in, first out for each sender, and the senders take turns: with k of them waiting, the n-th item of one is
 * reached after at most n·(k − 1) items of the others, however many they have sent, and however many come meanwhile.
 *
 * As long as all is of one sender it is a plain queue: no map, no ring.
 */
export class FairQueue<T> {
  /** Of `#sender`, while `#shared` is false. */
  #only = new Fifo<T>();
  #sender = '';
  #shared = false;
  readonly #lanes = new Map<string, Lane<T>>();
  /** The lanes that have something, in the order of their turns. A new one goes to the end. */
  readonly #ring = new Fifo<Lane<T>>();
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(item: T, sender: string): void {
    this.#length++;
    if (!this.#shared) {
      if (this.#only.length === 0) this.#sender = sender;
      if (this.#sender === sender) {
        this.#only.push(item);
        return;
      }
      this.#shared = true;
      this.#open(this.#sender, this.#only);
      this.#only = new Fifo<T>();
    }
    const lane = this.#lanes.get(sender) ?? this.#open(sender, new Fifo<T>());
    lane.items.push(item);
  }

  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    this.#length--;
    if (!this.#shared) return this.#only.shift();
    const lane = this.#ring.shift() as Lane<T>;
    const item = lane.items.shift();
    if (lane.items.length > 0) this.#ring.push(lane);
    else this.#lanes.delete(lane.sender);
    this.#unshare();
    return item;
  }

  /** Takes out all that match, wherever they are. */
  take(matches: (item: T) => boolean): T[] {
    if (!this.#shared) {
      const taken = this.#only.take(matches);
      this.#length -= taken.length;
      return taken;
    }
    const taken: T[] = [];
    for (let lanes = this.#ring.length; lanes > 0; lanes--) {
      const lane = this.#ring.shift() as Lane<T>;
      for (const item of lane.items.take(matches)) taken.push(item);
      if (lane.items.length > 0) this.#ring.push(lane);
      else this.#lanes.delete(lane.sender);
    }
    this.#length -= taken.length;
    this.#unshare();
    return taken;
  }

  /** Takes out the oldest that matches of the sender who has most waiting: whoever floods pays for it. */
  takeOldest(matches: (item: T) => boolean): T | undefined {
    const item = this.#shared ? this.#takeFromLongest(matches) : this.#only.takeFirst(matches);
    if (item !== undefined) this.#length--;
    return item;
  }

  #takeFromLongest(matches: (item: T) => boolean): T | undefined {
    const longest = [...this.#lanes.values()].sort((a, b) => b.items.length - a.items.length);
    for (const lane of longest) {
      const item = lane.items.takeFirst(matches);
      if (item === undefined) continue;
      if (lane.items.length === 0) {
        this.#lanes.delete(lane.sender);
        this.#ring.take((one) => one === lane);
        this.#unshare();
      }
      return item;
    }
    return undefined;
  }

  #open(sender: string, items: Fifo<T>): Lane<T> {
    const lane = { sender, items };
    this.#lanes.set(sender, lane);
    this.#ring.push(lane);
    return lane;
  }

  /** One sender is left: the plain queue will do again. */
  #unshare(): void {
    if (this.#ring.length > 1) return;
    const last = this.#ring.shift();
    this.#lanes.clear();
    this.#shared = false;
    if (last === undefined) return;
    this.#only = last.items;
    this.#sender = last.sender;
  }
}
