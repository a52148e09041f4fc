import { Fifo } from './fifo.ts';

/** What one sender has waiting. */
interface Lane<T> {
  readonly sender: string;
  readonly items: Fifo<T>;
}

/** What several senders have waiting. */
class Lanes<T> {
  readonly bySender = new Map<string, Lane<T>>();
  /** Those that have something, in the order of their turns. A new one goes to the end. */
  readonly ring = new Fifo<Lane<T>>();

  open(sender: string, items: Fifo<T>): Lane<T> {
    const lane = { sender, items };
    this.bySender.set(sender, lane);
    this.ring.push(lane);
    return lane;
  }
}

/**
 * First in, first out for each sender, and the senders take turns: with k of them waiting, the n-th item of one is
 * reached after at most n·(k − 1) items of the others, however many they have sent, and however many come meanwhile.
 *
 * As long as all is of one sender it is a plain queue: no map, no ring.
 */
export class FairQueue<T> {
  /** Of `#sender`, while it is not shared. */
  #only = new Fifo<T>();
  #sender = '';
  /** Made for the first who share it: most actors have one sender in each class at a time, and there are many actors. */
  #lanes: Lanes<T> | undefined;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(item: T, sender: string): void {
    this.#length++;
    let lanes = this.#shared;
    if (lanes === undefined) {
      if (this.#only.length === 0) this.#sender = sender;
      if (this.#sender === sender) {
        this.#only.push(item);
        return;
      }
      this.#lanes ??= new Lanes<T>();
      lanes = this.#lanes;
      lanes.open(this.#sender, this.#only);
      this.#only = new Fifo<T>();
    }
    const lane = lanes.bySender.get(sender) ?? lanes.open(sender, new Fifo<T>());
    lane.items.push(item);
  }

  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    this.#length--;
    const lanes = this.#shared;
    if (lanes === undefined) return this.#only.shift();
    const lane = lanes.ring.shift() as Lane<T>;
    const item = lane.items.shift();
    if (lane.items.length > 0) lanes.ring.push(lane);
    else lanes.bySender.delete(lane.sender);
    this.#unshare(lanes);
    return item;
  }

  /** Takes out all that match, wherever they are. */
  take(matches: (item: T) => boolean): T[] {
    const lanes = this.#shared;
    if (lanes === undefined) {
      const taken = this.#only.take(matches);
      this.#length -= taken.length;
      return taken;
    }
    const taken: T[] = [];
    for (let left = lanes.ring.length; left > 0; left--) {
      const lane = lanes.ring.shift() as Lane<T>;
      for (const item of lane.items.take(matches)) taken.push(item);
      if (lane.items.length > 0) lanes.ring.push(lane);
      else lanes.bySender.delete(lane.sender);
    }
    this.#length -= taken.length;
    this.#unshare(lanes);
    return taken;
  }

  /** Takes out the oldest that matches of the sender who has most waiting: whoever floods pays for it. */
  takeOldest(matches: (item: T) => boolean): T | undefined {
    const lanes = this.#shared;
    const item =
      lanes === undefined ? this.#only.takeFirst(matches) : this.#takeFromLongest(lanes, matches);
    if (item !== undefined) this.#length--;
    return item;
  }

  get #shared(): Lanes<T> | undefined {
    return this.#lanes !== undefined && this.#lanes.ring.length > 0 ? this.#lanes : undefined;
  }

  #takeFromLongest(lanes: Lanes<T>, matches: (item: T) => boolean): T | undefined {
    const longest = [...lanes.bySender.values()].sort((a, b) => b.items.length - a.items.length);
    for (const lane of longest) {
      const item = lane.items.takeFirst(matches);
      if (item === undefined) continue;
      if (lane.items.length === 0) {
        lanes.bySender.delete(lane.sender);
        lanes.ring.take((one) => one === lane);
        this.#unshare(lanes);
      }
      return item;
    }
    return undefined;
  }

  /** One sender is left: the plain queue will do again. */
  #unshare({ ring, bySender }: Lanes<T>): void {
    if (ring.length > 1) return;
    const last = ring.shift();
    bySender.clear();
    if (last === undefined) return;
    this.#only = last.items;
    this.#sender = last.sender;
  }
}
