import { ValidationError } from './errors.ts';

/** The one mapping between the names and the numbers of priorities. Higher goes first. */
export const PRIORITIES = { low: 1, normal: 2, high: 3, urgent: 4, critical: 5 } as const;

export type PriorityName = keyof typeof PRIORITIES;
export type Priority = (typeof PRIORITIES)[PriorityName];

/** @throws {ValidationError} neither one of the names nor one of the numbers 1 to 5 */
export function parsePriority(value: unknown): Priority {
  if (typeof value === 'string' && Object.hasOwn(PRIORITIES, value)) {
    return PRIORITIES[value as PriorityName];
  }
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 5) {
    return value as Priority;
  }
  const allowed = Object.entries(PRIORITIES).map(([name, number]) => `${name} (${number})`);
  throw new ValidationError(
    `Expected a priority: ${allowed.join(', ')}; got ${JSON.stringify(value) ?? String(value)}.`,
  );
}
