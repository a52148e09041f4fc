/** Why a message or an answer changed nothing. */
export const DROP_REASONS = [
  /** An answer that nobody waits for any more. */
  'late',
  /** A message that was handled before, or an answer to what has been answered. */
  'duplicate',
  /** Its receiver has ended. */
  'ended',
  /** Nobody lives at its address. */
  'nobody',
  /** It made room in a full mailbox: see `overflow: 'dropOldest'`. */
  'overflow',
  /** A message, not a request, that its receiver's `validate` has refused. */
  'invalid',
] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/** What has become of messages since the runtime was opened. Only ever counts up. */
export interface MessageCounts {
  /** Put in a mailbox: messages, requests, and answers to actors. */
  readonly sent: number;
  /** Taken by their receivers, in turns. */
  readonly delivered: number;
  /** Answers to those who asked from outside. */
  readonly answered: number;
  /** Not taken, because the mailbox was full. */
  readonly refused: number;
  /** Had to wait for a place in a full mailbox: see `overflow: 'wait'`. */
  readonly waited: number;
  /** Refused by their receiver's `validate`, requests included. */
  readonly invalid: number;
  /** Requests that were sent once more: see `retry`. */
  readonly retried: number;
  /** Receivers that were told that nobody waits for their answer any more. */
  readonly cancelled: number;
  readonly dropped: Readonly<Record<DropReason, number>>;
}

type Counting = { -readonly [K in keyof MessageCounts]: MessageCounts[K] } & {
  readonly dropped: Record<DropReason, number>;
};

export const startCounting = (): Counting => ({
  sent: 0,
  delivered: 0,
  answered: 0,
  refused: 0,
  waited: 0,
  invalid: 0,
  retried: 0,
  cancelled: 0,
  dropped: { late: 0, duplicate: 0, ended: 0, nobody: 0, overflow: 0, invalid: 0 },
});

/** How many of the last answers are remembered. */
const REMEMBERED = 256;

/** Tells a second answer from one that comes too late: knows the last requests that were answered. */
export class RecentAnswers {
  readonly #last: string[] = [];
  #next = 0;

  add(correlation: string): void {
    this.#last[this.#next] = correlation;
    this.#next = (this.#next + 1) % REMEMBERED;
  }

  /** Why an answer with this correlation, which nobody waits for, is dropped. */
  reason(correlation: string): 'duplicate' | 'late' {
    return this.#last.includes(correlation) ? 'duplicate' : 'late';
  }
}
