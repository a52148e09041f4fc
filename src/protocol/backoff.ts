/** How long to wait before the next try, growing from try to try. */
export interface BackoffPolicy {
  /** Wait after the first failure, in milliseconds. Default 10 000. */
  readonly initialMs: number;
  /** Each wait is this many times the one before. At least 1; default 2. */
  readonly factor: number;
  /** No wait is longer, jitter included, in milliseconds. Default 600 000. */
  readonly maxMs: number;
  /** The share of a wait that chance may take away, 0 to 1. Default 0.2. */
  readonly jitter: number;
}

/** The longest delay a Node timer keeps; a longer one fires after 1 ms instead. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * The wait before try `failures + 1`, in whole milliseconds.
 *
 * Law: with `nominal = min(initialMs · factor^(failures − 1), maxMs)`, the wait lies in
 * `[⌊nominal · (1 − jitter)⌋, ⌊nominal⌋]`, is at least 1 and at most `maxMs`, and for one `unit` never falls
 * as `failures` grows. Jitter only takes away: jitter in both directions, cut off at the cap, would wake half
 * of all long waiters in the same millisecond.
 *
 * @param failures failures so far, from 1; anything less counts as 1, and there is no upper end
 * @param unit a number in [0, 1) that differs between tasks: `unitHash(`${taskId}:${failures}`)`
 */
export function backoffMs(policy: BackoffPolicy, failures: number, unit: number): number {
  const ceilingMs = Math.min(Math.floor(policy.maxMs), MAX_TIMER_MS);
  // Not beyond the safe integers: 1 ** Infinity is NaN.
  const growths = Math.min(Math.max(0, failures - 1), Number.MAX_SAFE_INTEGER);
  const nominalMs = Math.min(policy.initialMs * policy.factor ** growths, ceilingMs);
  const waitMs = Math.floor(nominalMs * (1 - policy.jitter * unit));
  return Math.min(Math.max(1, waitMs), Math.max(0, ceilingMs));
}
