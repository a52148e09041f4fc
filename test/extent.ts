/** `npm run faults`: everything that takes minutes, too. Otherwise each loop of faults is gone through in part. */
export const ALL_FAULTS = process.env['FAULTS'] === 'all';

/** Of cases that differ little the gate has the first so many, `npm run faults` all. */
export const firstOf = <T>(count: number, cases: readonly T[]): readonly T[] =>
  ALL_FAULTS ? cases : cases.slice(0, count);
