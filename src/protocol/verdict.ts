import type { JsonValue } from './json.ts';

/** One command a gatekeeper ran, or one check it made, and what came of it. */
export interface CommandEvidence {
  /** What it was for: `setup`, `test`, `lint`, … */
  readonly name: string;
  /** The command line as the user wrote it, or a description of the check. */
  readonly command: string;
  readonly exitCode: number | null;
  /** The signal that ended it, if one did. A signal is never green. */
  readonly signal: string | null;
  readonly durationMs: number;
  /** Head and tail of the output, at most 4 000 characters. */
  readonly excerpt: string;
  readonly timedOut?: boolean;
  /** It failed, and the configuration says that this may fail. */
  readonly allowedToFail?: boolean;
  /** It was not run: what it makes was there already, under this name in the cache. */
  readonly cached?: string;
  /** Tests that it ran, where its output says so. */
  readonly tests?: number;
}

/** Where in the pipeline a submission was refused. */
export type RejectionStage =
  | 'apply'
  | 'merge'
  | 'setup'
  | 'verify'
  | 'verify_timeout'
  | 'policy'
  | 'review';

/** What proves a verdict. */
export interface Evidence {
  /** Path of the artifact file, relative to the project; absent for tasks that are not code. */
  readonly artifact?: string;
  readonly commands: readonly CommandEvidence[];
  /** The commit that target branch moved to, and its tree: only when accepted, only for code. */
  readonly commit?: string;
  readonly tree?: string;
  /** Anything else a generic gatekeeper wants to keep. JSON only. */
  readonly details?: JsonValue;
}

/** What a gatekeeper answers. A refusal is an answer, not an error. */
export type Verdict =
  | { readonly verdict: 'accepted'; readonly evidence: Evidence }
  | {
      readonly verdict: 'rejected';
      readonly stage: RejectionStage;
      /** One sentence. */
      readonly reason: string;
      /** What the next attempt should mend; also compared to find a feedback loop. */
      readonly feedback: readonly string[];
      readonly errorFingerprint?: string;
      readonly changeFingerprint?: string;
      readonly evidence: Evidence;
    }
  | {
      readonly verdict: 'approval_required';
      /** `policy`: verified, and something in the change is for a person to see before it is merged. */
      readonly stage?: RejectionStage;
      readonly reasons: readonly string[];
      readonly evidence: Evidence;
    }
  | {
      /** Nobody's fault who worked on it: disk, locks, a missing tool, a dirty main. */
      readonly verdict: 'infrastructure';
      readonly reason: string;
      readonly retryAfterMs?: number;
      /** What was handed in cannot be found any more: the work is done again. Else only the verification is. */
      readonly submissionGone?: true;
      readonly evidence: Evidence;
    };
