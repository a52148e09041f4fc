import type { CommandEvidence, Evidence, RejectionStage } from '../../protocol/verdict.ts';

/*
 * Mending what was rejected. A session begins when an attempt was rejected: another agent gets the submission as it is, the
 * error and the evidence, and may hand in so many times; then the task goes on as if nobody had tried.
 */

/** Who mends what is rejected, and how often. */
export interface QaSpec {
  /** In the order in which they are asked. */
  readonly agents: readonly string[];
  /** For one task, until somebody decides about it or unblocks it. */
  readonly sessions: number;
  /** Of handing in and verifying, in one session. */
  readonly iterations: number;
}

export const DEFAULT_QA = { sessions: 3, iterations: 2 } as const;
/** Every state of the task carries what they were. */
export const MOST_QA = { sessions: 10, iterations: 10 } as const;

/**
 * Where somebody can mend what another one has made. A change that does not apply or merge is made anew, on the target as
 * it is now; what the policy refuses is not to be mended around.
 */
const FIXABLE: ReadonlySet<string> = new Set<RejectionStage>([
  'setup',
  'verify',
  'verify_timeout',
  'review',
]);

export const isFixable = (stage: string | null): stage is RejectionStage =>
  stage !== null && FIXABLE.has(stage);

/** What whoever mends it is told to do. */
export function fixInstruction(
  attempt: number,
  stage: string,
  reason: string,
  evidence: Evidence | null,
): string {
  const where = evidence?.artifact === undefined ? '' : ` The evidence is in ${evidence.artifact}.`;
  return [
    `Attempt ${attempt} at this task was handed in and refused (${stage}): ${reason}`,
    `You go on from what was handed in. Mend only this, and change nothing else; then it is verified again.${where}`,
  ].join('\n');
}

/** Of what was run, what is to be mended: what has failed, or all if nothing says so. */
export function failedCommands(evidence: Evidence | null): readonly CommandEvidence[] {
  const commands = evidence?.commands ?? [];
  const failed = commands.filter((one) => one.exitCode !== 0 && one.allowedToFail !== true);
  return failed.length === 0 ? commands : failed;
}
