import { overseerMachine } from '../machines/overseer-machine.ts';
import { didYouMean } from '../machines/policies/did-you-mean.ts';
import type {
  Decision,
  OverseerAnswer,
  PolicyAnswer,
  SupervisorAnswer,
  SupervisorDecision,
} from '../protocol/catalogue.ts';
import { DECISIONS, SUPERVISOR_DECISIONS } from '../protocol/catalogue.ts';
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
  /** What the policy has decided about this task so far, and how often each: not to do so for ever. */
  readonly decided: readonly PolicyAnswer[];
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

/** A supervisor that has had more failures than it may, and has stopped its children. */
export interface SupervisorFailure {
  readonly supervisor: string;
  readonly reason: string;
  readonly children: readonly {
    readonly id: string;
    readonly restarts: number;
    readonly lastError: string | null;
  }[];
  /** How often this policy has restarted it since a person last decided. It is asked three times at most. */
  readonly restarted: number;
}

/** Decides at once about a supervisor that has given up, or returns undefined to leave it to a person. */
export type SupervisorPolicy = (
  failure: SupervisorFailure,
) => Promise<SupervisorDecision | undefined> | SupervisorDecision | undefined;

/** @param agents the names of those there are, to reassign to */
export function overseerActor(
  policy: () => OverseerPolicy | undefined,
  agents: () => readonly string[],
  supervisorPolicy: () => SupervisorPolicy | undefined,
) {
  return overseerMachine.provide({
    actors: {
      decide: effect<JsonValue>(async ({ input }) => {
        if (typeof input === 'object' && input !== null && 'supervisor' in input) {
          const failure = input as unknown as SupervisorFailure;
          const decided = await Promise.resolve(supervisorPolicy()?.(failure));
          return answerAbout(decided) as unknown as JsonValue;
        }
        const decision = await Promise.resolve(policy()?.(input as unknown as Escalation));
        return answerOf(decision, agents()) as unknown as JsonValue;
      }),
    },
  });
}

function answerAbout(decision: SupervisorDecision | undefined): SupervisorAnswer {
  if (decision === undefined) return { decision: 'none' };
  if (!SUPERVISOR_DECISIONS.includes(decision)) {
    throw new ConfigurationError(
      `Expected the policy about supervisors to return one of ${SUPERVISOR_DECISIONS.join(', ')} or undefined, got ${JSON.stringify(decision)}.`,
    );
  }
  return { decision, by: 'policy' };
}

function answerOf(decision: PolicyDecision | undefined, agents: readonly string[]): OverseerAnswer {
  if (decision === undefined) return { decision: 'none' };
  if (!(DECISIONS as readonly string[]).includes(decision.decide)) {
    throw new ConfigurationError(
      `Expected the overseer's policy to decide one of ${DECISIONS.join(', ')}, got ${JSON.stringify(decision.decide)}.`,
    );
  }
  if (decision.decide === 'reassign' && !agents.includes(decision.agent ?? '')) {
    throw new ConfigurationError(
      `Expected the overseer's policy to reassign to a registered agent, got ${JSON.stringify(decision.agent)}.${didYouMean(decision.agent ?? '', agents)} Known: ${agents.join(', ') || 'none'}.`,
    );
  }
  if (decision.guidance !== undefined && typeof decision.guidance !== 'string') {
    throw new ConfigurationError(
      `Expected the overseer's policy to give its guidance as a text, got ${JSON.stringify(decision.guidance)}.`,
    );
  }
  return {
    decision: decision.decide,
    by: 'policy',
    ...(decision.guidance === undefined ? {} : { guidance: decision.guidance }),
    ...(decision.agent === undefined ? {} : { agent: decision.agent }),
  };
}
