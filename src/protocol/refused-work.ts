import { type ErrorCode, type Failure, TroupeError } from './errors.ts';
import type { JsonObject, JsonValue } from './json.ts';
import type { CommandEvidence, Evidence, RejectionStage } from './verdict.ts';

/** Where work was refused before a gatekeeper saw it, and what shows it. */
export interface WorkRefusal {
  readonly stage: RejectionStage;
  readonly evidence: Evidence;
  /** What would have been handed in, if it came so far: somebody else may mend it. */
  readonly submission?: JsonValue;
}

/**
 * An agent's work that cannot be submitted: a patch that does not apply, a change that is empty or not allowed, or one
 * that has failed the preflight. As a failure it carries its stage and its evidence, so that the attempt is recorded with both, as a verdict's would be.
 */
export class RefusedWorkError extends TroupeError {
  constructor(
    code: Extract<ErrorCode, 'validation' | 'policy'>,
    message: string,
    stage: RejectionStage,
    check:
      | Pick<CommandEvidence, 'name' | 'command' | 'exitCode' | 'excerpt'>
      | readonly CommandEvidence[],
    submission?: JsonValue,
  ) {
    const commands: readonly CommandEvidence[] =
      'name' in check ? [{ ...check, signal: null, durationMs: 0 }] : check;
    const refusal: WorkRefusal = {
      ...{ stage, evidence: { commands } },
      ...(submission === undefined ? {} : { submission }),
    };
    super(code, message, { context: refusal as unknown as JsonObject });
  }
}

/** @returns undefined for any failure that does not name both */
export function refusalIn({ context }: Failure): WorkRefusal | undefined {
  const { stage, evidence, submission } = (context ?? {}) as Partial<WorkRefusal>;
  const both = typeof stage === 'string' && Array.isArray(evidence?.commands);
  if (!both) return undefined;
  return { stage, evidence, ...(submission === undefined ? {} : { submission }) };
}
