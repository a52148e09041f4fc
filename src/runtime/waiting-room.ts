import type { Address } from '../protocol/address.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { Priority } from '../protocol/priority.ts';
import type { MessageItem } from './actor.ts';
import type { Appointment } from './agenda.ts';
import { Mailbox } from './mailbox.ts';

/** Whoever waits for a place in a mailbox. */
export interface Waiting {
  /** It does not wait any more. */
  readonly gone: boolean;
  /** What an actor has sent, and is stored already. */
  readonly item?: MessageItem;
  /** There is a place. */
  admit(): void;
  /** There will be none: the host stops. */
  giveUp(error: Error): void;
}

/**
 * Who waits for a place in a full mailbox, in the order in which they would be taken out of it: by class, the senders
 * of a class in turns, each in its order.
 */
export class WaitingRoom {
  /** Places that were given away, and are not taken yet. */
  reserved = 0;
  readonly #waiting = new Mailbox<Waiting>();
  #gone = 0;

  /** How many wait, those who have left included for a while. */
  get length(): number {
    return this.#waiting.length;
  }

  push(waiting: Waiting, priority: Priority, sender: string): void {
    this.#waiting.push(waiting, priority, sender);
  }

  /** The next one. */
  shift(): Waiting | undefined {
    for (;;) {
      const next = this.#waiting.shift();
      if (next?.gone !== true) return next;
      this.#gone--;
    }
  }

  take(matches: (waiting: Waiting) => boolean): Waiting[] {
    return this.#waiting.take(matches);
  }

  /** One who waits has left. They are swept out together, as looking for each would take long. */
  left(): void {
    this.#gone++;
    if (this.#gone * 2 <= this.#waiting.length) return;
    this.#waiting.take((waiting) => waiting.gone);
    this.#gone = 0;
  }
}

/** A place in a mailbox that is kept for somebody outside. */
export class Place implements Waiting, Appointment {
  readonly dueAt: EpochMs;
  slot = -1;
  order = 0;
  readonly #room: WaitingRoom;
  readonly #overdue: () => Error;
  readonly #done: () => void;
  readonly #got = Promise.withResolvers<void>();
  #state: 'waits' | 'has' | 'gone' = 'waits';

  /**
   * @param overdue what whoever waits is told when its time is up
   * @param done called once, when it does not wait any more
   */
  constructor(room: WaitingRoom, dueAt: EpochMs, overdue: () => Error, done: () => void) {
    this.#room = room;
    this.dueAt = dueAt;
    this.#overdue = overdue;
    this.#done = done;
  }

  get gone(): boolean {
    return this.#state === 'gone';
  }

  /** Resolves when there is a place, which is kept until `release`. */
  get got(): Promise<void> {
    return this.#got.promise;
  }

  admit(): void {
    this.#state = 'has';
    this.#room.reserved++;
    this.#done();
    this.#got.resolve();
  }

  giveUp(error: Error): void {
    if (this.#state !== 'waits') return;
    this.#state = 'gone';
    this.#room.left();
    this.#done();
    this.#got.reject(error);
  }

  due(): void {
    this.giveUp(this.#overdue());
  }

  /** It is taken now, or not needed. */
  release(): void {
    if (this.#state !== 'has') return;
    this.#state = 'gone';
    this.#room.reserved--;
  }
}

/** For messages about it. */
export const noRoom = (to: Address, limit: number, waitedMs: number): string =>
  `There was no room in the mailbox of ${to} within ${waitedMs} ms (${limit} messages wait there).`;
