import type { JsonValue } from '../protocol/json.ts';

/** Restarts of an effect that is done for a task: its input carries the task's `limits.interruptions`. */
export const boundedByTask = {
  interruptions: (input: JsonValue | { readonly interruptions: number }): number =>
    (input as { readonly interruptions: number }).interruptions,
};
