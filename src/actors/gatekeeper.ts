import { gatekeeperMachine } from '../machines/gatekeeper-machine.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { CommandEvidence, Verdict } from '../protocol/verdict.ts';
import { effect } from '../runtime/effect.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import type { Registry } from './registry.ts';

/** What an agent handed in. */
export interface Submission {
  readonly task: string;
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly attempt: number;
  readonly input: JsonValue;
  readonly result: JsonValue;
  readonly workspace: JsonValue;
  /** What needed approval has been approved. */
  readonly approved: boolean;
}

export interface VerifyContext {
  readonly submission: Submission;
  readonly signal: AbortSignal;
  readonly step: EffectContext['step'];
  readonly progress: EffectContext['progress'];
}

/** What a `verify` function may answer. `accepted` without evidence is refused: no work without evidence. */
export type Judgement =
  | { readonly accepted: true; readonly evidence: readonly EvidenceItem[] }
  | {
      readonly accepted: false;
      /** One sentence. */
      readonly reason: string;
      /** What to mend, item by item. Default: the reason. */
      readonly feedback?: readonly string[];
      readonly evidence?: readonly EvidenceItem[];
    }
  | { readonly needsApproval: readonly string[]; readonly evidence?: readonly EvidenceItem[] };

/** A check that was made: a sentence, or any JSON that shows it. */
export type EvidenceItem =
  | string
  | { readonly name: string; readonly [detail: string]: JsonValue | undefined };

/** Answers a submission. It throws when it cannot judge: that is nobody's fault who worked on the task. */
export type VerifyFunction = (context: VerifyContext) => Promise<Judgement> | Judgement;

/** Judges one submission for the gatekeeper machine. */
export type Verifier = (context: VerifyContext) => Promise<Verdict>;

export function gatekeeperActor(verifiers: Registry<Verifier>) {
  return gatekeeperMachine.provide({
    actors: {
      verify: effect<JsonValue>(async ({ input, address, signal, step, progress }) => {
        const verify = await verifiers.whenReady(address.slice('gatekeeper/'.length), signal);
        const submission = input as unknown as Submission;
        return (await verify({ submission, signal, step, progress })) as unknown as JsonValue;
      }),
    },
  });
}

/** A gatekeeper for work that is not code. */
export function genericVerifier(
  name: string,
  verify: VerifyFunction,
  fingerprint: (text: string) => string | undefined,
): Verifier {
  return async (context) => {
    const judgement: Judgement = await verify(context);
    const problem = findNonJson(judgement, 'judgement');
    if (typeof judgement !== 'object' || judgement === null || problem !== undefined) {
      throw new ConfigurationError(
        `The gatekeeper "${name}" must answer { accepted, evidence } in plain JSON${problem === undefined ? '' : `, but ${problem.path} is ${problem.found}`}.`,
      );
    }
    const evidence = { commands: (judgement.evidence ?? []).map(checkOf) };
    if ('needsApproval' in judgement) {
      return context.submission.approved
        ? { verdict: 'accepted', evidence }
        : { verdict: 'approval_required', reasons: judgement.needsApproval, evidence };
    }
    if (judgement.accepted === true) {
      if (evidence.commands.length === 0) {
        throw new ConfigurationError(
          `The gatekeeper "${name}" accepted task "${context.submission.id}" without evidence. Name at least one check that was made: { accepted: true, evidence: ["read by ada"] }.`,
        );
      }
      return { verdict: 'accepted', evidence };
    }
    if (judgement.accepted !== false || typeof judgement.reason !== 'string') {
      throw new ConfigurationError(
        `The gatekeeper "${name}" must answer { accepted: true, evidence } or { accepted: false, reason }.`,
      );
    }
    const feedback = judgement.feedback ?? [judgement.reason];
    const changeFingerprint = fingerprint(JSON.stringify(context.submission.result));
    return {
      verdict: 'rejected',
      stage: 'verify',
      reason: judgement.reason,
      feedback,
      ...(changeFingerprint === undefined ? {} : { changeFingerprint }),
      evidence,
    };
  };
}

function checkOf(item: EvidenceItem): CommandEvidence {
  const text = typeof item === 'string' ? item : JSON.stringify(item);
  return {
    name: typeof item === 'string' ? 'check' : item.name,
    command: 'check',
    exitCode: 0,
    signal: null,
    durationMs: 0,
    excerpt: text.slice(0, 4000),
  };
}
