import type { Escalation, OverseerPolicy } from '../index.ts';
import type { ProjectConfig } from './config.ts';

/** How often a rule may answer one task, unless it says `times`. */
const DEFAULT_TIMES = 1;

export type PolicyRule = ProjectConfig['policy'][number];

/**
 * The overseer's policy as troupe.yaml writes it: the first rule whose conditions all hold and that is not used up for
 * this task decides; without one a person does.
 *
 * A rule answers each task once (or `times`), for ever: a rule that says `retry` would otherwise send a hopeless task
 * round without end. The task itself keeps what was decided, so nothing makes it forget.
 * Rules with the same decision and guidance cannot be told apart there, and share what they may do together.
 */
export function policyOf(rules: readonly PolicyRule[]): OverseerPolicy {
  return (escalation) => {
    const matching = rules.filter((rule) => applies(rule, escalation));
    if (matching.length === 0) return undefined;
    const used = new Map(
      escalation.decided.map(({ decision, guidance, times }) => [
        answerKey(decision, guidance),
        times,
      ]),
    );
    for (const rule of matching) {
      const key = answerKey(rule.decide, rule.guidance ?? null);
      const left = (used.get(key) ?? 0) - (rule.times ?? DEFAULT_TIMES);
      if (left < 0) {
        return {
          decide: rule.decide,
          ...(rule.guidance === undefined ? {} : { guidance: rule.guidance }),
        };
      }
      used.set(key, left);
    }
    return undefined;
  };
}

function applies({ when }: PolicyRule, { id, state, agent }: Escalation): boolean {
  return (
    (when.task === undefined || when.task === id) &&
    (when.state === undefined || when.state === state) &&
    (when.agent === undefined || when.agent === agent)
  );
}

const answerKey = (decision: string, guidance: string | null): string =>
  JSON.stringify([decision, guidance]);
