import { NotFoundError } from '../../protocol/errors.ts';
import { didYouMean } from './did-you-mean.ts';

/** A task as far as it matters to what is skipped. */
export interface SkippableTask<State extends string = string> {
  readonly id: string;
  readonly state: State;
  readonly dependsOn: readonly string[];
}

/** What going on with one task without waiting for others means for those others. */
export interface SkipPlan<State extends string = string> {
  /** The task that goes on. */
  readonly task: string;
  readonly state: State;
  /** What it depends on, directly or not, that has not ended: it is cancelled. In the order of the run. */
  readonly skips: readonly { readonly task: string; readonly state: State }[];
  /** Other tasks that depend on one of these: they will be blocked until somebody retries or cancels them. */
  readonly strands: readonly {
    readonly task: string;
    readonly state: State;
    readonly without: readonly string[];
  }[];
}

/** So many tasks are named in a sentence. */
const NAMED = 20;

const ENDED: ReadonlySet<string> = new Set(['done', 'cancelling', 'cancelled']);

/**
 * What would become of the tasks of a run if one of them went on without those it depends on. Linear in tasks and
 * dependencies.
 * @throws {NotFoundError} there is no such task; says what was probably meant
 */
export function planSkip<State extends string>(
  run: string,
  tasks: readonly SkippableTask<State>[],
  id: string,
): SkipPlan<State> {
  const byId = new Map(tasks.map((task) => [task.id, task]));
  const target = byId.get(id);
  if (target === undefined) {
    const ids = [...byId.keys()];
    const more = ids.length > NAMED ? ` and ${ids.length - NAMED} more` : '';
    throw new NotFoundError(
      `There is no task ${JSON.stringify(id)} in run "${run}".${didYouMean(id, ids)} Its tasks are ${ids.slice(0, NAMED).join(', ')}${more}.`,
    );
  }
  const behind = new Set<string>();
  const queue = [...target.dependsOn];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const task = byId.get(next);
    // What is done needs nothing any more; what was cancelled may still have something behind it.
    if (task === undefined || task.state === 'done' || behind.has(next)) continue;
    behind.add(next);
    queue.push(...task.dependsOn);
  }
  const skipped = new Set([...behind].filter((task) => !ENDED.has(byId.get(task)?.state ?? '')));
  const strands = tasks
    .filter((task) => task.id !== id && !ENDED.has(task.state) && !skipped.has(task.id))
    .map((task) => ({
      task: task.id,
      state: task.state,
      without: task.dependsOn.filter((other) => skipped.has(other)),
    }))
    .filter(({ without }) => without.length > 0);
  return {
    task: id,
    state: target.state,
    skips: tasks
      .filter((task) => skipped.has(task.id))
      .map((task) => ({ task: task.id, state: task.state })),
    strands,
  };
}
