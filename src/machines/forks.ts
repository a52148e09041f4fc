import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { RunContext } from './run-machine.ts';
import type { TaskContext } from './task-machine.ts';

/*
 * What a run and its tasks know of themselves, for a copy of them under another id. Pure; one function for each role,
 * because only it knows where the id is written.
 */

export function forkedRun(
  context: RunContext,
  fork: {
    readonly run: string;
    readonly createdAt: number;
    readonly specHash: string;
    readonly cut: string;
  },
): RunContext {
  const { run, createdAt, specHash, cut } = fork;
  // The schedule that has started the other run does not know this one.
  const { startedBy: _startedBy, ...own } = context;
  return {
    ...own,
    run,
    createdAt,
    specHash,
    asking: context.asking === null ? null : { ...context.asking, run },
    forkedFrom: { run: context.run, cut },
  };
}

/** The workspace stays with the task it was made for. */
export function forkedTask(context: TaskContext, run: string): TaskContext {
  return { ...context, spec: { ...context.spec, run }, workspace: null };
}

/** Every effect of a run and of a task is told the run. */
export function forkedInput(input: JsonValue, run: string): JsonValue {
  return { ...(input as JsonObject), run };
}

/** A claim names the run that makes it: `<run>#<number>/<agent>`. */
export function forkedToken(token: string, from: string, run: string): string {
  return token.startsWith(`${from}#`) ? run + token.slice(from.length) : token;
}
