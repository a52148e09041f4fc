import { type BackoffPolicy, MAX_TIMER_MS } from '../../protocol/backoff.ts';
import { numberBetween, positiveInteger, readSettings } from './settings.ts';

export { type BackoffPolicy, backoffMs, MAX_TIMER_MS } from '../../protocol/backoff.ts';

export const DEFAULT_BACKOFF: BackoffPolicy = {
  initialMs: 10_000,
  factor: 2,
  maxMs: 600_000,
  jitter: 0.2,
};

/**
 * A stored due time as it may be believed after a restart: never further away than the longest wait.
 * A clock that was wrong when the time was written (a year ahead, say) would otherwise park the task until then.
 */
export function clampDueAt(dueAt: number, now: number, policy: BackoffPolicy): number {
  return Math.min(dueAt, now + Math.min(policy.maxMs, MAX_TIMER_MS));
}

/**
 * @param partial an object with any of the policy's fields, or undefined
 * @param where what a person should look at, for example `limits.backoff of run report-42`
 * @throws {ConfigurationError} for unknown keys, a factor below 1 (waits would shrink to nothing), or numbers out of range
 */
export function parseBackoffPolicy(
  partial: unknown,
  where: string,
  defaults: BackoffPolicy = DEFAULT_BACKOFF,
): BackoffPolicy {
  const given = readSettings(partial, Object.keys(DEFAULT_BACKOFF), where);
  return {
    initialMs: positiveInteger(given, 'initialMs', defaults.initialMs, where, MAX_TIMER_MS),
    factor: numberBetween(given, 'factor', defaults.factor, where, 1, 1_000_000),
    maxMs: positiveInteger(given, 'maxMs', defaults.maxMs, where, MAX_TIMER_MS),
    jitter: numberBetween(given, 'jitter', defaults.jitter, where, 0, 1),
  };
}
