/** How often each value occurs. `take` removes from it. */
export function counted<T>(values: Iterable<T>): Map<T, number> {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

/** Takes one such value out. @returns false when none is left */
export function take<T>(counts: Map<T, number>, value: T): boolean {
  const left = counts.get(value) ?? 0;
  if (left > 0) counts.set(value, left - 1);
  return left > 0;
}

/** The values that occur more often than in `less`, as often as they do, in their order. */
export function surplus<T>(values: readonly T[], less: Iterable<T>): T[] {
  const left = counted(less);
  return values.filter((value) => !take(left, value));
}
