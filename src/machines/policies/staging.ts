import { ValidationError } from '../../protocol/errors.ts';
import { positiveInteger, readSettings } from './settings.ts';

export interface StageableTask {
  readonly id: string;
  /** 1 (low) to 5 (critical). */
  readonly priority: number;
  /** How many tasks wait for it. Default 0. */
  readonly unblocks?: number;
  readonly dependsOn?: readonly string[];
}

export interface StagingLimits {
  /** A plan with more tasks than this is staged. Default 120. */
  readonly stageAbove: number;
  /** That many tasks of a staged plan are enabled at first. Default 30. */
  readonly enableFirst: number;
}

const DEFAULT_STAGING: StagingLimits = { stageAbove: 120, enableFirst: 30 };

/** `true`: the defaults. `false`, or nothing: a plan of any size takes part whole. */
export type StagingInput = boolean | Partial<StagingLimits>;

/**
 * @returns undefined when nothing is to be held back
 * @throws {ConfigurationError} no such setting, or not a positive integer
 */
export function parseStaging(
  input: StagingInput | undefined,
  where: string,
): StagingLimits | undefined {
  if (input === undefined || input === false) return undefined;
  const settings = readSettings(input === true ? {} : input, Object.keys(DEFAULT_STAGING), where);
  const { stageAbove, enableFirst } = DEFAULT_STAGING;
  return {
    stageAbove: positiveInteger(settings, 'stageAbove', stageAbove, where),
    enableFirst: positiveInteger(settings, 'enableFirst', enableFirst, where),
  };
}

export interface StagedPlan {
  /** Ids of the tasks that take part now, the most urgent first. */
  readonly enabled: readonly string[];
  /** Ids of the tasks held back, in the order in which `nextStaged` would take them. */
  readonly staged: readonly string[];
}

/** Splits a plan into what takes part now and what is held back. A plan within the limit is enabled whole. */
export function stagePlan(
  tasks: readonly StageableTask[],
  limits: StagingLimits = DEFAULT_STAGING,
): StagedPlan {
  const order = urgencyOrder(tasks);
  const cut = tasks.length > limits.stageAbove ? limits.enableFirst : tasks.length;
  return { enabled: order.slice(0, cut), staged: order.slice(cut) };
}

/**
 * The next `count` of the tasks that are still staged.
 * @param staged only the staged ones: a dependency that is not among them counts as enabled already
 * @throws {ValidationError} when `count` is not a whole number of 0 or more
 */
export function nextStaged(staged: readonly StageableTask[], count: number): readonly string[] {
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new ValidationError(
      `Expected the number of staged tasks to enable to be a whole number of 0 or more, got ${String(count)}.`,
    );
  }
  return urgencyOrder(staged).slice(0, count);
}

/**
 * Priority first, then how many wait for it, then the order given; but a task's dependencies always come before it. Without that, the
 * first 30 could all wait for tasks that are held back, and nothing would ever run.
 * Ends also when the dependencies are cyclic.
 */
function urgencyOrder(tasks: readonly StageableTask[]): readonly string[] {
  const byId = new Map(tasks.map((task) => [task.id, task]));
  const placed = new Set<string>();
  const entered = new Set<string>();
  // Array.prototype.sort is stable: equals keep the order of the plan.
  const wantedFirst = tasks.toSorted(
    (a, b) => b.priority - a.priority || (b.unblocks ?? 0) - (a.unblocks ?? 0),
  );
  for (const wanted of wantedFirst) {
    const open = [wanted];
    for (let task = open.at(-1); task !== undefined; task = open.at(-1)) {
      if (placed.has(task.id) || entered.has(task.id)) {
        placed.add(task.id);
        open.pop();
        continue;
      }
      entered.add(task.id);
      for (const id of (task.dependsOn ?? []).toReversed()) {
        const needed = byId.get(id);
        if (needed !== undefined && !entered.has(id)) open.push(needed);
      }
    }
  }
  return [...placed];
}
