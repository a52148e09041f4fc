/** So much in a period: at once, then evenly. */
export interface RateLimit {
  /** At least 1. */
  readonly limit: number;
  /** In milliseconds. */
  readonly periodMs: number;
}

export type RateDecision =
  /** `tat` is to be kept for the next decision. */
  | { readonly allowed: true; readonly tat: number }
  /** From then on it is allowed, unless another one comes first. */
  | { readonly allowed: false; readonly at: number };

/**
 * The generic cell rate algorithm (GCRA) as virtual scheduling: one number, the theoretical arrival time of the next one,
 * says it all. It is `periodMs / limit` after each that is allowed; one may come so much before it that `limit` fit in
 * at once. In any window of length w there are at most `1 + ⌊(periodMs − T + w) / T⌋`, where T is `periodMs / limit`.
 * Source: ITU-T I.371, annex A; https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
 * @param tat of the decision before; undefined: there was none, or it was long ago
 */
export function decideRate(
  { limit, periodMs }: RateLimit,
  tat: number | undefined,
  now: number,
): RateDecision {
  const interval = periodMs / limit;
  const expected = Math.max(tat ?? now, now);
  // Sums of fractions of milliseconds are not exact: a millionth is nothing.
  const earliest = expected - (periodMs - interval) - 1e-6;
  if (now >= earliest) return { allowed: true, tat: expected + interval };
  return { allowed: false, at: Math.ceil(earliest) };
}

/** Arrival times that still matter. */
export function forgetOldRates(
  tats: Readonly<Record<string, number>>,
  now: number,
): Readonly<Record<string, number>> {
  const entries = Object.entries(tats);
  const left = entries.filter(([, tat]) => tat > now);
  return left.length === entries.length ? tats : Object.fromEntries(left);
}
