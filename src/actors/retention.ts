import { numberBetween, positiveInteger, readSettings } from '../machines/policies/settings.ts';
import type { Retention } from '../runtime/housekeeping.ts';
import type { FileRetention } from '../workspace/run-leftovers.ts';

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
  /** What gatekeepers have written about attempts, of runs that have ended: for so many days. Default 14. */
  readonly artifactDays?: number;
  /** The newest of them. Default 500. */
  readonly artifacts?: number;
  /** So much of them. Default 200. */
  readonly artifactMegabytes?: number;
  /** The output of commands and agents, of runs that have ended: for so many days. Default 7. */
  readonly logDays?: number;
  /** The newest of them. Default 200. */
  readonly logs?: number;
  /** So much of them. Default 200. */
  readonly logMegabytes?: number;
  /** Orders in the audit stream, and the answers to them. Default 14. */
  readonly auditDays?: number;
  /** The newest of them, of those that are young enough. Default 5 000. */
  readonly auditEntries?: number;
}

/** Retention of the store, and of what lies beside it in a project. */
export interface WholeRetention extends Retention {
  readonly files: FileRetention;
}

const DAY_MS = 86_400_000;
const MOST_DAYS = 36_500;
const MEGABYTE = 1_000_000;
const KEYS = [
  ...(['checkpointsPerActor', 'finishedRunsDays', 'deadLetterDays', 'deadLetters'] as const),
  ...(['auditDays', 'auditEntries'] as const),
  ...(['artifactDays', 'artifacts', 'artifactMegabytes'] as const),
  ...(['logDays', 'logs', 'logMegabytes'] as const),
] as const;

/**
 * @returns undefined: nothing is removed
 * @throws {ConfigurationError} a setting that nobody knows, or that cannot be
 */
export function parseRetention(options: RetentionOptions | false = {}): WholeRetention | undefined {
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
    files: {
      artifacts: {
        ms: days('artifactDays', 14),
        files: positiveInteger(settings, 'artifacts', 500, where),
        bytes: positiveInteger(settings, 'artifactMegabytes', 200, where) * MEGABYTE,
      },
      logs: {
        ms: days('logDays', 7),
        files: positiveInteger(settings, 'logs', 200, where),
        bytes: positiveInteger(settings, 'logMegabytes', 200, where) * MEGABYTE,
      },
    },
  };
}
