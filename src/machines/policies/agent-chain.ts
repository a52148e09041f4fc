import type { Failure } from '../../protocol/errors.ts';
import { blame, DIED_OF, interruptionsIn } from './failure-class.ts';

/*
 * Which agent does something when another one cannot. A chain is a list, in the order in which its agents are asked: the
 * one that a task names, or, where a task names a single agent, that one, its `fallback`, the fallback of that, and so on.
 */

/** What an agent can be asked for: to do a task, or to mend what was rejected. */
export const AGENT_STAGES = ['implement', 'qa'] as const;
export type AgentStage = (typeof AGENT_STAGES)[number];

/** An agent that could not be asked, or could not work. */
export interface Unreached {
  readonly agent: string;
  readonly reason: string;
}

/** Every failure that an agent answers with names it; the others come from where it should be. */
export const isFromAgent = (failure: Failure): boolean => failure.context?.['agent'] !== undefined;

/** It was not even asked: its circuit breaker is open, or too many wait for it. */
export const isUnreachable = (failure: Failure): boolean =>
  failure.context?.['unreachable'] !== undefined;

/**
 * The agent itself could not work, be it that it is missing, away, limited or has died. Work that is bad, or not done in
 * time, says nothing about it; nor does the death of our own process.
 */
export function couldNotWork(failure: Failure): boolean {
  if (interruptionsIn(failure) !== undefined) return false;
  return blame(failure) === 'infrastructure' || failure.context?.[DIED_OF] !== undefined;
}

/**
 * Who is asked after this agent. What the task names counts; the `fallback` of an agent only where the task has no list
 * with that agent in it.
 * @param before those that were asked in vain already: none of them is asked again
 */
export function nextInChain(
  chain: readonly string[] | undefined,
  agent: string,
  failure: Failure,
  before: readonly Unreached[],
): string | undefined {
  const at = chain?.indexOf(agent) ?? -1;
  const next = at >= 0 ? chain?.[at + 1] : failure.context?.['fallback'];
  if (typeof next !== 'string' || next === agent) return undefined;
  return before.some((one) => one.agent === next) ? undefined : next;
}
