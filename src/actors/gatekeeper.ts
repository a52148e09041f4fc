import { z } from 'zod';
import { gatekeeperMachine } from '../machines/gatekeeper-machine.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { CommandEvidence, Verdict } from '../protocol/verdict.ts';
import { effect } from '../runtime/effect.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import { boundedByTask } from './bounded-by-task.ts';
import type { Registry } from './registry.ts';
import type { UnderWay } from './under-way.ts';

/** What an agent handed in. */
export interface Submission {
  readonly task: string;
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly attempt: number;
  readonly input: JsonValue;
  /** What the task's `accept` says. */
  readonly accept?: JsonValue;
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

export function gatekeeperActor(verifiers: Registry<Verifier>, underWay: UnderWay) {
  return gatekeeperMachine.provide({
    actors: {
      verify: effect<JsonValue>(async (context) => {
        const { input, address, signal, step, progress } = context;
        const verify = await verifiers.whenReady(address.slice('gatekeeper/'.length), context);
        const submission = input as unknown as Submission;
        const verdict = verify({ submission, signal, step, progress });
        return (await underWay.track(submission.task, address, verdict)) as unknown as JsonValue;
      }, boundedByTask),
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
    const judgement = checkJudgement(name, await verify(context));
    const evidence = { commands: (judgement.evidence ?? []).map(checkOf) };
    if ('needsApproval' in judgement) {
      const reasons = judgement.needsApproval;
      if (!context.submission.approved) return { verdict: 'approval_required', reasons, evidence };
      const approval = checkOf({ name: 'approval', approved: reasons });
      return { verdict: 'accepted', evidence: { commands: [...evidence.commands, approval] } };
    }
    if (judgement.accepted) {
      if (evidence.commands.length === 0) {
        throw new ConfigurationError(
          `The gatekeeper "${name}" accepted task "${context.submission.id}" without evidence. Name at least one check that was made: { accepted: true, evidence: ["read by ada"] }.`,
        );
      }
      return { verdict: 'accepted', evidence };
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

const evidenceItem = z.union([
  z.string().min(1),
  z.looseObject({ name: z.string().min(1) }) as unknown as z.ZodType<Exclude<EvidenceItem, string>>,
]);
const evidence = z.array(evidenceItem);
const text = z.string().min(1);

const judgement: z.ZodType<Judgement> = z.union([
  z.strictObject({ accepted: z.literal(true), evidence }),
  z.strictObject({
    accepted: z.literal(false),
    reason: text,
    feedback: z.array(text).optional(),
    evidence: evidence.optional(),
  }),
  z.strictObject({ needsApproval: z.array(text).min(1), evidence: evidence.optional() }),
]) as never;

/** What a function of the app answered, as far as it can be believed. @throws {ConfigurationError} */
function checkJudgement(name: string, answer: unknown): Judgement {
  const problem = findNonJson(answer, 'it');
  const parsed = problem === undefined ? judgement.safeParse(answer) : undefined;
  if (parsed?.success) return parsed.data;
  const found =
    problem === undefined ? excerpt(JSON.stringify(answer)) : `${problem.path} is ${problem.found}`;
  const got = answer === undefined ? 'nothing' : found;
  throw new ConfigurationError(
    `Expected the gatekeeper "${name}" to answer { accepted: true, evidence: ["…"] }, { accepted: false, reason: "…" } or { needsApproval: ["…"] } in plain JSON, got ${got}.`,
  );
}

const excerpt = (text: string): string => (text.length > 120 ? `${text.slice(0, 120)}…` : text);

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
