import type { JsonValue } from '../protocol/json.ts';
import type { AgentContext } from './agent-machine.ts';

/** What can be asked about an agent, without a turn. */
export const agentQueries = {
  /** What it works on, what waits in which order (and until when, if it waits for a time), and what limits it. */
  work: ({ context }: { readonly context: unknown }): JsonValue => {
    const { pool, flow, breaker, processed, failed } = context as AgentContext;
    return {
      ...{ breaker, processed, failed },
      concurrency: pool.concurrency,
      limits: (flow?.settings ?? null) as unknown as JsonValue,
      running: pool.running.map(({ task, attempt }) => ({ task, attempt })),
      waiting: pool.queue.map(({ task, attempt, notBefore }) => ({
        ...{ task, attempt },
        ...(notBefore === undefined ? {} : { notBefore }),
      })),
    };
  },
};
