import type { AgentContext } from '../machines/agent-machine.ts';
import type { EpochMs } from '../protocol/message.ts';

/** What an agent has done since it was first registered, in all processes together, and what it has to do. */
export interface AgentStats {
  readonly name: string;
  readonly state: 'idle' | 'working';
  readonly concurrency: number;
  /** Tasks that it has answered, well or not. */
  readonly processed: number;
  /** Of these, those that it could not do. */
  readonly failed: number;
  /** 0 to 1; null while it has answered none. */
  readonly successRate: number | null;
  /** How long it had at least one task in hand, the present one included. */
  readonly busyMs: number;
  readonly working: number;
  /** Tasks that wait for it to have a place. */
  readonly queued: number;
  readonly breaker: 'closed' | 'open' | 'halfOpen';
  readonly lastError: string | null;
}

/** @param snapshot of its actor, as it is stored */
export function agentStats(snapshot: { readonly context: unknown }, now: EpochMs): AgentStats {
  const context = snapshot.context as AgentContext;
  const { pool, processed, failed, busyMs = 0, busySince = null } = context;
  return {
    name: context.name,
    state: pool.running.length > 0 ? 'working' : 'idle',
    concurrency: pool.concurrency,
    processed,
    failed,
    successRate: processed === 0 ? null : (processed - failed) / processed,
    busyMs: busyMs + (busySince === null ? 0 : Math.max(0, now - busySince)),
    working: pool.running.length,
    queued: pool.queue.length,
    breaker: context.breaker,
    lastError: context.lastError,
  };
}
