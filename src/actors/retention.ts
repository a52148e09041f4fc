import { numberBetween, positiveInteger, readSettings } from '../machines/policies/settings.ts';
import type { Retention } from '../runtime/housekeeping.ts';

/**
 * How much history is kept. Never removed: what waits to be done, the newest checkpoint of an actor, those with a label,
 * those made by hand, at a milestone or by a rollback, and those that a cut of a run names.
 */
export interface RetentionOptions {
  /** The newest checkpoints of each actor. Default 100. */
  readonly checkpointsPerActor?: number;
  /** Runs that have ended, with their tasks, attempts and actors, so long after their end. Default 30; 0: they go soon. */
  readonly finishedRunsDays?: number;
  /** Default 14. */
  readonly deadLetterDays?: number;
  /** The newest dead letters, of those that are young enough. Default 5 000. */
  readonly deadLetters?: number;
  /** Orders in the audit stream, and the answers to them. Default 14. */
  readonly auditDays?: number;
  /** The newest of them, of those that are young enough. Default 5 000. */
  readonly auditEntries?: number;
}

const DAY_MS = 86_400_000;
const MOST_DAYS = 36_500;
const KEYS = [
  'checkpointsPerActor',
  'finishedRunsDays',
  'deadLetterDays',
  'deadLetters',
  'auditDays',
  'auditEntries',
] as const;

/**
 * @returns undefined: nothing is removed
 * @throws {ConfigurationError} a setting that nobody knows, or that cannot be
 */
export function parseRetention(options: RetentionOptions | false = {}): Retention | undefined {
  if (options === false) return undefined;
  const where = 'retention';
  const settings = readSettings(options, KEYS, where);
  const days = (key: (typeof KEYS)[number], fallback: number): number =>
    Math.round(numberBetween(settings, key, fallback, where, 0, MOST_DAYS) * DAY_MS);
  return {
    checkpointsPerActor: positiveInteger(settings, 'checkpointsPerActor', 100, where),
    finishedRunsMs: days('finishedRunsDays', 30),
    deadLetterMs: days('deadLetterDays', 14),
    deadLetters: positiveInteger(settings, 'deadLetters', 5_000, where),
    auditMs: days('auditDays', 14),
    auditEntries: positiveInteger(settings, 'auditEntries', 5_000, where),
  };
}
