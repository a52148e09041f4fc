import { AGENT_STAGES, type AgentStage } from '../machines/policies/agent-chain.ts';
import { didYouMean } from '../machines/policies/did-you-mean.ts';
import { ConfigurationError } from '../protocol/errors.ts';

/** Which agent does the work of which when that one cannot, and what each may be asked for. */
export class Fallbacks {
  readonly #of = new Map<string, string>();
  readonly #stages = new Map<string, readonly AgentStage[]>();

  /** @throws {ConfigurationError} the work would come back to the agent that cannot do it */
  check(agent: string, fallback: string | null): void {
    if (fallback === null) return;
    if (typeof fallback !== 'string') {
      throw new ConfigurationError(
        `Expected the fallback of agent "${agent}" to be the name of an agent, got ${typeof fallback}.`,
      );
    }
    const way = [agent];
    for (let next: string | undefined = fallback; next !== undefined; next = this.#of.get(next)) {
      way.push(next);
      if (next !== agent) continue;
      throw new ConfigurationError(
        `The fallbacks of agents go round in a circle: ${way.join(' → ')}. One of them must have none.`,
      );
    }
  }

  /** Checked before. */
  set(agent: string, fallback: string | null, stages: readonly AgentStage[]): void {
    this.#stages.set(agent, stages);
    if (fallback !== null) this.#of.set(agent, fallback);
  }

  readonly stagesOf = (agent: string): readonly AgentStage[] =>
    this.#stages.get(agent) ?? AGENT_STAGES;

  /** The agent, its fallback, the fallback of that, and so on. */
  readonly chainOf = (agent: string): readonly string[] => {
    const chain = [agent];
    for (let next = this.#of.get(agent); next !== undefined; next = this.#of.get(next)) {
      chain.push(next);
    }
    return chain;
  };

  /** The agents that stand in for another; also those that are named while somebody goes through them. */
  names(): Iterable<string> {
    return this.#of.values();
  }

  /** @throws {ConfigurationError} a fallback is no agent */
  requireAll(agents: readonly string[]): void {
    for (const [agent, fallback] of this.#of) {
      if (agents.includes(fallback)) continue;
      throw new ConfigurationError(
        `The fallback of agent "${agent}" is "${fallback}", and no agent of that name is registered. Registered: ${agents.join(', ')}.`,
      );
    }
  }
}

/** @throws {ConfigurationError} no list of stages */
export function checkStages(
  agent: string,
  stages: unknown,
  possible: readonly AgentStage[] = AGENT_STAGES,
): readonly AgentStage[] {
  if (stages === undefined) return possible;
  const expected = `Expected the stages of agent "${agent}" to be a list of ${possible.join(', ')}`;
  if (!Array.isArray(stages) || stages.length === 0) {
    throw new ConfigurationError(`${expected}, got ${JSON.stringify(stages)}.`);
  }
  for (const [index, stage] of stages.entries()) {
    if (!possible.includes(stage)) {
      const near = typeof stage === 'string' ? didYouMean(stage, possible) : '';
      throw new ConfigurationError(`${expected}, got ${JSON.stringify(stage)}.${near}`);
    }
    if (stages.indexOf(stage) === index) continue;
    throw new ConfigurationError(`${expected}, got ${JSON.stringify(stage)} twice.`);
  }
  return stages as readonly AgentStage[];
}
