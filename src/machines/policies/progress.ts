import { deepHash } from '../../protocol/hash.ts';
import type { TaskLimits } from './limits.ts';

/** How one attempt failed. An attempt that succeeded is not recorded: its task is done. */
export interface AttemptOutcome {
  /** Whose fault it was: the work's, or that of disks, locks, networks and missing tools. */
  readonly kind: 'work' | 'infrastructure';
  readonly errorFingerprint?: string | undefined;
  readonly changeFingerprint?: string | undefined;
  readonly feedbackFingerprint?: string | undefined;
}

/** The last fingerprints of one kind, and how often the newest came in a row. */
export interface FingerprintTrail {
  readonly streak: number;
  /** Oldest first; at most `TRAIL_LENGTH`. */
  readonly recent: readonly string[];
}

/**
 * What a task remembers of its attempts since it was made or last unblocked. Plain JSON of bounded size
 * (about 2 kB), so that every snapshot can carry it and a restart loses no streak.
 */
export interface ProgressRecord {
  /** Attempts at the work that failed. The `failures` of `backoffMs(limits.backoff, …)`. */
  readonly attempts: number;
  /** Infrastructure faults since the last attempt at the work. The `failures` of `limits.infrastructureBackoff`. */
  readonly infrastructureStreak: number;
  readonly error: FingerprintTrail;
  readonly change: FingerprintTrail;
  readonly feedback: FingerprintTrail;
}

export type StopCause =
  | 'same_error'
  | 'same_change'
  | 'oscillation'
  | 'same_feedback'
  | 'attempts'
  | 'infrastructure';

/** What comes next. `blocked`: trying again is pointless. `escalated`: somebody has to decide. */
export type Assessment =
  | { readonly next: 'retry' }
  | { readonly next: 'blocked'; readonly cause: StopCause; readonly reason: string }
  | { readonly next: 'escalated'; readonly cause: StopCause; readonly reason: string };

/** Longest circle that is looked for; it counts as one once it has gone round twice. */
const LONGEST_PERIOD = 3;
const TRAIL_LENGTH = 2 * LONGEST_PERIOD;

/** A gatekeeper may name its own fingerprints. Longer ones are hashed, so that the record stays small. */
const MAX_FINGERPRINT_LENGTH = 128;

const EMPTY_TRAIL: FingerprintTrail = { streak: 0, recent: [] };

/** The record of a new task, and of one that was just unblocked or approved. */
export function emptyProgress(): ProgressRecord {
  return {
    attempts: 0,
    infrastructureStreak: 0,
    error: EMPTY_TRAIL,
    change: EMPTY_TRAIL,
    feedback: EMPTY_TRAIL,
  };
}

/**
 * The record after one more failed attempt. The cost does not depend on how many came before.
 * An infrastructure fault touches nothing but its own streak; an attempt at the work ends that streak (the
 * infrastructure held). A fingerprint that is missing or empty neither counts nor resets.
 */
export function recordOutcome(record: ProgressRecord, outcome: AttemptOutcome): ProgressRecord {
  if (outcome.kind === 'infrastructure') {
    return { ...record, infrastructureStreak: record.infrastructureStreak + 1 };
  }
  return {
    attempts: record.attempts + 1,
    infrastructureStreak: 0,
    error: extend(record.error, outcome.errorFingerprint),
    change: extend(record.change, outcome.changeFingerprint),
    feedback: extend(record.feedback, outcome.feedbackFingerprint),
  };
}

/**
 * The record after somebody has tried to mend an attempt, in vain. That was no attempt, and what it was told is no word to
 * the agent of the attempts; but the same error, or the same change, is the same whoever meets it.
 */
export function recordFix(
  record: ProgressRecord,
  { errorFingerprint, changeFingerprint }: Omit<AttemptOutcome, 'kind' | 'feedbackFingerprint'>,
): ProgressRecord {
  return {
    ...record,
    infrastructureStreak: 0,
    error: extend(record.error, errorFingerprint),
    change: extend(record.change, changeFingerprint),
  };
}

/**
 * Decides what a task does after `recordOutcome`.
 *
 * Any sequence of outcomes leaves `retry` within `limits.attempts · limits.infrastructureAttempts` outcomes, and
 * within `limits.attempts` attempts at the work. When several limits are met at once, the one that tells a
 * person most is named: feedback, then error, change and oscillation, then the plain counts.
 */
export function assess(record: ProgressRecord, limits: TaskLimits): Assessment {
  if (record.feedback.streak >= limits.sameFeedback) {
    return {
      next: 'escalated',
      cause: 'same_feedback',
      reason:
        `The same feedback came ${times(record.feedback.streak)} in a row (${newest('feedback', record.feedback)}), ` +
        'so the agent does not act on it. Decide who is right: retry with guidance, approve, or reassign.',
    };
  }
  if (record.error.streak >= limits.sameError) {
    return {
      next: 'blocked',
      cause: 'same_error',
      reason:
        `The same error came ${times(record.error.streak)} in a row (${newest('error', record.error)}). ` +
        'Another try would meet it again: look at the evidence, change the task or give guidance, then unblock it.',
    };
  }
  if (record.change.streak >= limits.sameChange) {
    return {
      next: 'blocked',
      cause: 'same_change',
      reason:
        `The agent delivered the same change ${times(record.change.streak)} in a row (${newest('change', record.change)}), ` +
        'and it was refused each time. Give guidance or choose another agent, then unblock it.',
    };
  }
  for (const [name, trail] of [
    ['error', record.error],
    ['change', record.change],
  ] as const) {
    const circle = findCircle(trail.recent);
    if (circle === undefined) continue;
    return {
      next: 'blocked',
      cause: 'oscillation',
      reason:
        `The task goes in a circle: the ${name}s of its last ${2 * circle.length} attempts repeat with period ` +
        `${circle.length} (${circle.map(shorten).join(' → ')}, twice). ` +
        'Mending one thing breaks the other: give guidance or split the task, then unblock it.',
    };
  }
  if (record.attempts >= limits.attempts) {
    return {
      next: 'escalated',
      cause: 'attempts',
      reason:
        `All ${limits.attempts} attempts are used up${lastSeen(record)}. ` +
        'Decide: retry with guidance, approve, reassign, block or cancel.',
    };
  }
  return assessInfrastructure(record, limits);
}

/** The same, of an outcome that was nobody's fault who worked: only its own budget counts. */
export function assessInfrastructure(record: ProgressRecord, limits: TaskLimits): Assessment {
  if (record.infrastructureStreak >= limits.infrastructureAttempts) {
    return {
      next: 'escalated',
      cause: 'infrastructure',
      reason:
        `The infrastructure failed ${times(record.infrastructureStreak)} in a row; the work itself was not judged, ` +
        'and no attempt was used up. Mend the cause named in the last evidence, then retry.',
    };
  }
  return { next: 'retry' };
}

function extend(trail: FingerprintTrail, fingerprint: string | undefined): FingerprintTrail {
  if (fingerprint === undefined || fingerprint === '') return trail;
  const print = fingerprint.length > MAX_FINGERPRINT_LENGTH ? deepHash(fingerprint) : fingerprint;
  return {
    streak: trail.recent.at(-1) === print ? trail.streak + 1 : 1,
    recent: [...trail.recent, print].slice(-TRAIL_LENGTH),
  };
}

/**
 * The shortest circle that the newest entries have gone round twice: A B A B, or A B C A B C.
 * A A A A is no circle but a streak, which has a limit of its own; A A B A A B is one.
 */
function findCircle(recent: readonly string[]): readonly string[] | undefined {
  for (let period = 2; period <= LONGEST_PERIOD; period++) {
    if (recent.length < 2 * period) return undefined;
    const last = recent.slice(-period);
    const before = recent.slice(-2 * period, -period);
    const repeats = last.every((print, i) => print === before[i]);
    if (repeats && last.some((print) => print !== last[0])) return last;
  }
  return undefined;
}

function newest(name: string, trail: FingerprintTrail): string {
  return `${name} ${shorten(trail.recent.at(-1) ?? '')}`;
}

function lastSeen(record: ProgressRecord): string {
  return record.error.recent.length === 0 ? '' : `; the last ${newest('error', record.error)}`;
}

/** Enough of a fingerprint to find it in the evidence. */
function shorten(fingerprint: string): string {
  return fingerprint.length > 12 ? fingerprint.slice(0, 12) : fingerprint;
}

function times(count: number): string {
  return count === 1 ? 'once' : count === 2 ? 'twice' : `${count} times`;
}
