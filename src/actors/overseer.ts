import { overseerMachine } from '../machines/overseer-machine.ts';
import type { Decision, OverseerAnswer } from '../protocol/catalogue.ts';
import { DECISIONS } from '../protocol/catalogue.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { effect } from '../runtime/effect.ts';

/** A task that needs a decision. */
export interface Escalation {
  readonly task: string;
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly agent: string;
  readonly state: 'escalated' | 'awaitingApproval';
  readonly reason: string;
  readonly feedback: readonly string[];
  readonly attempts: number;
}

export interface PolicyDecision {
  readonly decide: Decision;
  /** Told to the agent on its next attempt; for `block`, the reason. */
  readonly guidance?: string;
  /** For `reassign`. */
  readonly agent?: string;
}

/** Decides at once, or returns undefined to leave it to a person. */
export type OverseerPolicy = (
  escalation: Escalation,
) => Promise<PolicyDecision | undefined> | PolicyDecision | undefined;

export function overseerActor(policy: () => OverseerPolicy | undefined) {
  return overseerMachine.provide({
    actors: {
      decide: effect<JsonValue>(async ({ input }) => {
        const decision = await Promise.resolve(policy()?.(input as unknown as Escalation));
        return answerOf(decision) as unknown as JsonValue;
      }),
    },
  });
}

function answerOf(decision: PolicyDecision | undefined): OverseerAnswer {
  if (decision === undefined) return { decision: 'none' };
  if (!(DECISIONS as readonly string[]).includes(decision.decide)) {
    throw new ConfigurationError(
      `Expected the overseer's policy to decide one of ${DECISIONS.join(', ')}, got ${JSON.stringify(decision.decide)}.`,
    );
  }
  return {
    decision: decision.decide,
    by: 'policy',
    ...(decision.guidance === undefined ? {} : { guidance: decision.guidance }),
    ...(decision.agent === undefined ? {} : { agent: decision.agent }),
  };
}
