import type { JsonValue } from '../../protocol/json.ts';

/** How far a task is, as its agent has said last. */
export interface TaskProgress {
  /** 0 to 100; null: it did not say. */
  readonly percent: number | null;
  /** What it does just now; null: it did not say. */
  readonly step: string | null;
  /** Whatever else it said; null: nothing. */
  readonly detail: JsonValue;
}

/** The stream of a task in which its progress is kept. */
export const PROGRESS_STREAM = 'progress';

/**
 * What an agent says, as it is kept: a number is the percent, a text the current step; of an object `percent` and
 * `step`, and the rest is the detail. A percent outside of 0 to 100 is taken for the nearer end, NaN for 0.
 */
export function progressOf(said: unknown): TaskProgress {
  if (typeof said === 'number') return { percent: clamped(said), step: null, detail: null };
  if (typeof said === 'string') return { percent: null, step: said, detail: null };
  if (typeof said !== 'object' || said === null || Array.isArray(said)) {
    return { percent: null, step: null, detail: (said ?? null) as JsonValue };
  }
  const { percent, step, ...rest } = said as Readonly<Record<string, JsonValue>>;
  const others = {
    ...(percent === undefined || typeof percent === 'number' ? {} : { percent }),
    ...(step === undefined || typeof step === 'string' ? {} : { step }),
    ...rest,
  };
  return {
    percent: typeof percent === 'number' ? clamped(percent) : null,
    step: typeof step === 'string' ? step : null,
    detail: Object.keys(others).length === 0 ? null : others,
  };
}

function clamped(percent: number): number {
  if (Number.isNaN(percent)) return 0;
  // Not -0, which JSON has not.
  return Math.min(100, Math.max(0, percent)) + 0;
}

/** In a few words: `40 % compiles`. */
export function describeProgress({ percent, step }: TaskProgress): string {
  const parts = [percent === null ? '' : `${Math.round(percent)} %`, step ?? ''];
  return parts.filter((part) => part !== '').join(' ');
}
