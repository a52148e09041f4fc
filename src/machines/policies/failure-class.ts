import type { ErrorCode, Failure } from '../../protocol/errors.ts';

/**
 * Failures that say nothing about the work: something around it was missing, full, slow or broken. They have
 * a budget and a backoff of their own. Decided by code, never by words in the text.
 */
const INFRASTRUCTURE: ReadonlySet<ErrorCode> = new Set([
  'rate_limited',
  'network',
  'unavailable',
  'upstream',
  'lock_conflict',
  'not_found',
  'conflict',
  'configuration',
  'internal',
]);

/** Whose fault a failed attempt is. `timeout`, `validation`, `policy` and what agents throw are the work's. */
export function blame(failure: Failure): 'work' | 'infrastructure' {
  return INFRASTRUCTURE.has(failure.code) ? 'infrastructure' : 'work';
}

/** In the facts of a failure: the signal that has ended the agent's process. It did not end by itself. */
export const DIED_OF = 'diedOf';

/** How often in a row the process has died while it was done; undefined for any other failure. The host says so. */
export function interruptionsIn({ context }: Failure): number | undefined {
  const interruptions = context?.['interruptions'];
  return typeof interruptions === 'number' ? interruptions : undefined;
}
