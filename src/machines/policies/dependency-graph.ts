import { ValidationError } from '../../protocol/errors.ts';
import { didYouMean } from './did-you-mean.ts';

export interface TaskWithDependencies {
  readonly id: string;
  /** Ids of the tasks that must be done first; at most `MAX_DEPENDENCIES`. */
  readonly dependsOn: readonly string[];
}

export interface DependencyGraph {
  /** For every task, the tasks that name it in `dependsOn`, in the order they were given. */
  readonly dependants: ReadonlyMap<string, readonly string[]>;
  /**
   * How many tasks each task unblocks: its direct dependants. Counting indirect ones exactly costs the square
   * of the number of tasks, and would rank no better.
   */
  readonly unblocks: ReadonlyMap<string, number>;
}

export const MAX_DEPENDENCIES = 20;

/** A cycle longer than this is named by its beginning only. */
const NAMED_IN_CYCLE = 12;

/**
 * Checks the dependencies of a whole plan, in time linear in tasks and dependencies.
 * The first fault in the order of the tasks is reported, cycles last, so the same plan gets the same message.
 * @param maxDependencies more than a person may write, where a workflow has made them
 * @throws {ValidationError} for duplicate ids, more than 20 dependencies, a dependency named twice, on itself or on
 * a task that is not there, and for a cycle, which is named: `a → b → a` (a waits for b, b waits for a)
 */
export function checkDependencies(
  tasks: readonly TaskWithDependencies[],
  maxDependencies = MAX_DEPENDENCIES,
): DependencyGraph {
  const dependants = new Map<string, string[]>();
  for (const { id } of tasks) {
    if (dependants.has(id)) {
      throw new ValidationError(
        `Two tasks have the id ${quote(id)}. Ids must be unique within a run: rename one of them.`,
        { context: { task: id } },
      );
    }
    dependants.set(id, []);
  }
  for (const task of tasks) checkOne(task, dependants, maxDependencies);
  const unfinished = withoutOrder(tasks, dependants);
  if (unfinished.size > 0) throw cycleError(findCycle(tasks, unfinished));
  return {
    dependants,
    unblocks: new Map(Array.from(dependants, ([id, waiting]) => [id, waiting.length])),
  };
}

/** Checks one task and enters it with those it waits for. */
function checkOne(
  task: TaskWithDependencies,
  dependants: Map<string, string[]>,
  maxDependencies: number,
): void {
  const { id, dependsOn } = task;
  if (dependsOn.length > maxDependencies) {
    throw new ValidationError(
      `Task ${quote(id)} has ${dependsOn.length} dependencies; at most ${maxDependencies} are allowed. ` +
        'Put a task between them that waits for a part of them.',
      { context: { task: id, dependencies: dependsOn.length } },
    );
  }
  const seen = new Set<string>();
  for (const needed of dependsOn) {
    const context = { task: id, dependency: needed };
    if (needed === id) {
      throw new ValidationError(
        `Task ${quote(id)} depends on itself, so it could never start. Remove that dependency.`,
        { context },
      );
    }
    const waiting = dependants.get(needed);
    if (waiting === undefined) {
      throw new ValidationError(
        `Task ${quote(id)} depends on ${quote(needed)}, which is not a task of this run.` +
          `${didYouMean(needed, dependants.keys())}`,
        { context },
      );
    }
    if (seen.has(needed)) {
      throw new ValidationError(
        `Task ${quote(id)} names the dependency ${quote(needed)} twice. Remove one of the two.`,
        { context },
      );
    }
    seen.add(needed);
    waiting.push(id);
  }
}

/**
 * The tasks that no order can reach: those on a cycle and those behind one. Empty for a sound plan.
 * Kahn's algorithm. Source: https://doi.org/10.1145/368996.369025
 */
function withoutOrder(
  tasks: readonly TaskWithDependencies[],
  dependants: ReadonlyMap<string, readonly string[]>,
): Map<string, TaskWithDependencies> {
  const unfinished = new Map(tasks.map((task) => [task.id, task]));
  const open = new Map(tasks.map((task) => [task.id, task.dependsOn.length]));
  const startable = tasks.filter((task) => task.dependsOn.length === 0).map((task) => task.id);
  for (let id = startable.pop(); id !== undefined; id = startable.pop()) {
    unfinished.delete(id);
    for (const waiting of dependants.get(id) ?? []) {
      const left = (open.get(waiting) ?? 0) - 1;
      open.set(waiting, left);
      if (left === 0) startable.push(waiting);
    }
  }
  return unfinished;
}

/** Walks from one unfinished task to the next until one comes twice: each of them waits for another of them. */
function findCycle(
  tasks: readonly TaskWithDependencies[],
  unfinished: ReadonlyMap<string, TaskWithDependencies>,
): readonly string[] {
  const step = new Map<string, number>();
  const walk: string[] = [];
  let task = unfinished.values().next().value;
  while (task !== undefined && !step.has(task.id)) {
    step.set(task.id, walk.length);
    walk.push(task.id);
    task = task.dependsOn.map((id) => unfinished.get(id)).find((needed) => needed !== undefined);
  }
  const cycle = walk.slice(task === undefined ? 0 : step.get(task.id));
  // Begin with the member that comes first in the plan: that is where a reader looks.
  const members = new Set(cycle);
  const first = tasks.findIndex(({ id }) => members.has(id));
  const start = cycle.indexOf(tasks[first]?.id ?? '');
  return [...cycle.slice(start), ...cycle.slice(0, start)];
}

function cycleError(cycle: readonly string[]): ValidationError {
  const named = cycle.slice(0, NAMED_IN_CYCLE);
  const more = cycle.length - named.length;
  const path = [...named, ...(more > 0 ? [`(${more} more)`] : []), cycle[0]].join(' → ');
  return new ValidationError(
    `The tasks wait for each other in a circle: ${path}. Remove one of these dependencies.`,
    { context: { cycle: named, length: cycle.length } },
  );
}

function quote(id: string): string {
  return JSON.stringify(id);
}
