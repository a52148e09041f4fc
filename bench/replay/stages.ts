import type { RejectionStage } from '../../src/protocol/verdict.ts';

/**
 * The one place that says which of the product's own stages each stage of a workload means.
 *
 * A conflict may show when the patch is applied, if the other change is merged by then, or when the two are merged; and
 * two changes that fit together line by line may still be red together.
 */
const STAGES: Readonly<Record<string, readonly RejectionStage[]>> = {
  apply: ['apply'],
  verify: ['verify', 'setup'],
  verify_timeout: ['verify_timeout'],
  merge: ['merge', 'apply', 'verify'],
  apply_or_merge: ['merge', 'apply', 'verify'],
  policy: ['policy'],
};

/** @param expected absent: any stage will do. One that is not in the table means the product's of the same name. */
export function isStage(expected: string | undefined, actual: string | null): boolean {
  if (actual === null) return false;
  if (expected === undefined) return true;
  return (STAGES[expected] ?? [expected]).includes(actual as RejectionStage);
}

/** Where a task's last attempt was refused, as the product says it. */
export function stageOf(task: { readonly state: string }, recorded: string | null): string | null {
  // Only a rule about what may be changed asks for a person's word.
  return task.state === 'awaitingApproval' ? 'policy' : recorded;
}
