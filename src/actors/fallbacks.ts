import { ConfigurationError } from '../protocol/errors.ts';

/** Which agent does the work of which when that one cannot be asked. */
export class Fallbacks {
  readonly #of = new Map<string, string>();

  /** @throws {ConfigurationError} the work would come back to the agent that cannot be asked */
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
  set(agent: string, fallback: string | null): void {
    if (fallback !== null) this.#of.set(agent, fallback);
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
