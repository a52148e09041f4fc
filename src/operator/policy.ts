import type { Escalation, OverseerPolicy, Store } from '../index.ts';
import type { ProjectConfig } from './config.ts';

/** How often a rule may answer one task, unless it says `times`. */
const DEFAULT_TIMES = 1;

export type PolicyRule = ProjectConfig['policy'][number] & { readonly times?: number };

/** What the policy needs to remember what it has answered: the turns of the tasks themselves. */
export type PolicyMemory = Pick<Store, 'listCheckpoints'>;

/**
 * The overseer's policy as troupe.yaml writes it: the first rule whose conditions all hold and that is not used up for
 * this task decides; without one a person does.
 *
 * A rule answers each task once (or `times`), for ever: a rule that says `retry` would otherwise send a hopeless task
 * round without end. What it has answered is read from the task's checkpoints, so a restart does not make it forget.
 * Rules with the same decision and guidance cannot be told apart there, and share what they may do together.
 */
export function policyOf(rules: readonly PolicyRule[], memory: PolicyMemory): OverseerPolicy {
  return async (escalation) => {
    const matching = rules.filter((rule) => applies(rule, escalation));
    if (matching.length === 0) return undefined;
    const used = await answersGiven(escalation, memory);
    for (const rule of matching) {
      const key = answerKey(rule.decide, rule.guidance);
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

/** The answers the policy gave this task so far, and how often each. */
async function answersGiven(
  { run, id }: Escalation,
  memory: PolicyMemory,
): Promise<Map<string, number>> {
  const given = new Map<string, number>();
  for (const { eventJson } of await memory.listCheckpoints(`task/${run}/${id}`)) {
    if (eventJson === null) continue;
    const event = JSON.parse(eventJson) as {
      readonly type: string;
      readonly reply?: {
        readonly decision: string;
        readonly by?: string;
        readonly guidance?: string;
      };
    };
    if (event.type !== 'overseer.escalate:ok' || event.reply?.by !== 'policy') continue;
    const key = answerKey(event.reply.decision, event.reply.guidance);
    given.set(key, (given.get(key) ?? 0) + 1);
  }
  return given;
}

const answerKey = (decision: string, guidance: string | undefined): string =>
  JSON.stringify([decision, guidance ?? null]);
