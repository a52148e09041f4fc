import { type BackoffPolicy, DEFAULT_BACKOFF, parseBackoffPolicy } from './backoff.ts';
import { positiveInteger, readSettings } from './settings.ts';

/** When a task stops trying. Every count starts again when the task is unblocked. */
export interface TaskLimits {
  /** Attempts at the work; infrastructure faults do not count. Default 10. */
  readonly attempts: number;
  /** The same error this many times in a row blocks the task. Default 3. */
  readonly sameError: number;
  /** The same change this many times in a row blocks the task. Default 3. */
  readonly sameChange: number;
  /** The same feedback this many times in a row is a case for the overseer. Default 2. */
  readonly sameFeedback: number;
  /** Infrastructure faults in a row, with no attempt at the work between them. Default 10. */
  readonly infrastructureAttempts: number;
  /**
   * The process died this many times in a row while an attempt was worked on, or verified: a case for the overseer, for
   * it may be what the process dies of. Default 3, as many as Sidekiq Pro lets a job be recovered before it is a
   * poison pill. Fewer than 3 may blame a task that only ran beside such a one.
   */
  readonly interruptions: number;
  /** Waits between attempts at the work. */
  readonly backoff: BackoffPolicy;
  /** Waits after an infrastructure fault. */
  readonly infrastructureBackoff: BackoffPolicy;
}

/** Limits as they may be given: whatever is left out is the run's, or the default. */
export type TaskLimitsInput = Partial<Omit<TaskLimits, 'backoff' | 'infrastructureBackoff'>> & {
  readonly backoff?: Partial<BackoffPolicy>;
  readonly infrastructureBackoff?: Partial<BackoffPolicy>;
};

export const DEFAULT_TASK_LIMITS: TaskLimits = {
  attempts: 10,
  sameError: 3,
  sameChange: 3,
  sameFeedback: 2,
  infrastructureAttempts: 10,
  interruptions: 3,
  backoff: DEFAULT_BACKOFF,
  infrastructureBackoff: DEFAULT_BACKOFF,
};

/**
 * @param partial an object with any of the limits, or undefined for all defaults
 * @param where what a person should look at, for example `troupe.yaml` or `limits of task draft`
 * @param defaults what a limit that is not given is; a task passes its run's limits
 * @throws {ConfigurationError} for unknown keys and for anything that is not a positive integer
 */
export function parseTaskLimits(
  partial: unknown,
  where: string,
  defaults: TaskLimits = DEFAULT_TASK_LIMITS,
): TaskLimits {
  const given = readSettings(partial, Object.keys(DEFAULT_TASK_LIMITS), where);
  const count = (key: keyof TaskLimits & string, fallback: number) =>
    positiveInteger(given, key, fallback, where);
  return {
    attempts: count('attempts', defaults.attempts),
    sameError: count('sameError', defaults.sameError),
    sameChange: count('sameChange', defaults.sameChange),
    sameFeedback: count('sameFeedback', defaults.sameFeedback),
    infrastructureAttempts: count('infrastructureAttempts', defaults.infrastructureAttempts),
    interruptions: count('interruptions', defaults.interruptions),
    backoff: parseBackoffPolicy(given['backoff'], `${where}, backoff`, defaults.backoff),
    infrastructureBackoff: parseBackoffPolicy(
      given['infrastructureBackoff'],
      `${where}, infrastructureBackoff`,
      defaults.infrastructureBackoff,
    ),
  };
}
