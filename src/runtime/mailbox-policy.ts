import { ConfigurationError } from '../protocol/errors.ts';
import type { JsonObject } from '../protocol/json.ts';

/**
 * What becomes of a message to a mailbox that is full:
 * - `refuse`: its sender gets a MailboxFullError. A request of an actor is answered with it, any other message of an
 *   actor is a dead letter.
 * - `dropOldest`: the oldest message that is neither a request nor an answer, and not of a higher class, makes room; of
 *   several senders, that of the one who has most waiting. It is told as `dropped` and counted (`overflow`). If there is
 *   none, the new one is refused.
 * - `wait`: whoever sends from outside waits for a place, in order, until its deadline or its signal. What an actor
 *   sends is stored with its turn, as always, and waits in the same line; the turn does not wait.
 */
export const OVERFLOW_POLICIES = ['refuse', 'dropOldest', 'wait'] as const;
export type Overflow = (typeof OVERFLOW_POLICIES)[number];

export interface MailboxOptions {
  /** Messages that may wait. Default: the host's `mailboxLimit`. */
  readonly mailboxLimit?: number;
  /** What becomes of one more. Default `refuse`. */
  readonly overflow?: Overflow;
}

export interface MailboxPolicy {
  readonly limit: number;
  readonly overflow: Overflow;
  /** Told to those who are refused. */
  readonly context?: JsonObject;
}

/**
 * @param whose for messages: `machine "inbox"`
 * @throws {ConfigurationError} says which option is wrong
 */
export function parseMailboxPolicy(
  whose: string,
  { mailboxLimit, overflow = 'refuse' }: MailboxOptions,
  defaultLimit: number,
): MailboxPolicy {
  const limit = mailboxLimit ?? defaultLimit;
  if (!Number.isSafeInteger(limit) || limit < 1) {
    throw new ConfigurationError(
      `Expected the mailboxLimit of ${whose} to be a positive integer, got ${String(limit)}.`,
    );
  }
  if (!OVERFLOW_POLICIES.includes(overflow)) {
    throw new ConfigurationError(
      `Expected the overflow of ${whose} to be one of ${OVERFLOW_POLICIES.join(', ')}, got ${JSON.stringify(overflow) ?? String(overflow)}.`,
    );
  }
  return { limit, overflow };
}
