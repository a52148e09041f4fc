import { MAX_DEPENDENCIES } from '../machines/policies/dependency-graph.ts';
import { didYouMean } from '../machines/policies/did-you-mean.ts';
import {
  type OnBudget,
  type OnFailure,
  type Order,
  type PhaseRecord,
  timeBudget,
  type WorkflowRecord,
} from '../machines/policies/phases.ts';
import { readSettings } from '../machines/policies/settings.ts';
import { phaseOf } from '../machines/policies/task-phase.ts';
import { startState, type TaskSpec } from '../machines/task-machine.ts';
import { parseId } from '../protocol/address.ts';
import type { TaskPhase } from '../protocol/catalogue.ts';
import { ConfigurationError, ValidationError } from '../protocol/errors.ts';
import { typeWord } from '../protocol/json.ts';
import {
  type CheckedRun,
  checkRunSpec,
  type Known,
  type RunSpec,
  type TaskInput,
} from './run-spec.ts';

/*
 * A workflow is a run whose tasks are in phases. The order of the phases, and of the tasks within one, is compiled into
 * dependencies of the tasks: of a phase that others come after, each task that no other task of it waits for is waited for
 * by each task of a later phase that waits for no other task of its own. So that no task of a later phase starts before the
 * earlier one has ended is what makes every dependency hold, and nothing else has to see to it.
 */

/** A task of a phase: as of a run; its agent may be the workflow's. */
export interface PhaseTask extends Omit<TaskInput, 'agent'> {
  readonly agent?: TaskInput['agent'];
}

export interface PhaseInput {
  /** Unique within the workflow. */
  readonly id: string;
  /** Default: the id. */
  readonly title?: string;
  /**
   * In the order in which they are done, if the phase is sequential. `dependsOn` may name tasks of this phase and of phases
   * that have ended before it.
   */
  readonly tasks: readonly PhaseTask[];
  /** Of its tasks: `sequential` one after the other, `parallel` side by side. Default `parallel`. */
  readonly order?: Order;
  /** The phases it begins after, which come before it in the list. Default: the workflow's order decides. */
  readonly after?: readonly string[];
  /**
   * Time from when its first task can start to its end, by the clock: it also passes while the process is down or a
   * person is asked, and stands still while the run is paused. In milliseconds. Default: no limit.
   */
  readonly budgetMs?: number;
  /**
   * What becomes of its open tasks when the time is used up. `escalate`: agents are called off, and each task waits for the
   * overseer's or a person's decision; whoever lets it go on does so without a limit. `cancel`: they are cancelled, with
   * what agents have registered to take their steps back. Tasks that wait for a person already are not escalated again.
   * Default: the workflow's.
   */
  readonly onBudget?: OnBudget;
  /**
   * What becomes of its other tasks while one of it is blocked or escalated; what depends on that one waits in any case.
   * `goOn`: they go on. `hold`: no more of them are started; those under way go on to their end. Default `goOn`.
   */
  readonly onFailure?: OnFailure;
}

export interface WorkflowSpec extends Omit<RunSpec, 'tasks'> {
  readonly phases: readonly PhaseInput[];
  /** Of the phases: each after the one before it, or all at once. Default `sequential`. */
  readonly order?: Order;
  /** For the whole workflow, from its start. As a phase's. */
  readonly budgetMs?: number;
  /** As a phase's; `cancel` cancels the run. Default `escalate`. */
  readonly onBudget?: OnBudget;
  /** For tasks that name none; as there, one or a list. */
  readonly agent?: TaskInput['agent'];
  /** For tasks that name none. */
  readonly gatekeeper?: string;
}

const MAX_PHASES = 100;
/** Side by side in a phase that others come after: each of them tells each task that begins the next. */
const MAX_AWAITED = 100;
/** A longer time is no budget. */
const MAX_BUDGET_MS = 366 * 86_400_000;

// Written as objects so that the compiler misses a key that was forgotten.
const WORKFLOW_KEYS: Record<keyof WorkflowSpec, true> = {
  id: true,
  title: true,
  phases: true,
  order: true,
  budgetMs: true,
  onBudget: true,
  agent: true,
  gatekeeper: true,
  limits: true,
  qa: true,
  concurrency: true,
  staging: true,
};
const PHASE_KEYS: Record<keyof PhaseInput, true> = {
  id: true,
  title: true,
  tasks: true,
  order: true,
  after: true,
  budgetMs: true,
  onBudget: true,
  onFailure: true,
};

/**
 * Checks everything about a workflow before anything of it is made.
 * @throws {ValidationError} the first thing that cannot work: where it is, what was expected, what came
 */
export function checkWorkflow(
  spec: WorkflowSpec,
  newId: () => string,
  known: Known,
): CheckedRun & { readonly workflow: WorkflowRecord } {
  const id = parseId(spec?.id ?? newId(), 'the run id');
  const { tasks, phases, budgetMs, onBudget } = compile({ ...spec, id });
  const { title, limits, qa, concurrency, staging } = spec;
  const checked = checkRunSpec(
    {
      id,
      tasks,
      ...(title === undefined ? {} : { title }),
      ...(limits === undefined ? {} : { limits }),
      ...(qa === undefined ? {} : { qa }),
      ...(concurrency === undefined ? {} : { concurrency }),
      ...(staging === undefined ? {} : { staging }),
    },
    newId,
    known,
    MAX_AWAITED + MAX_DEPENDENCIES,
  );
  const phaseAt = phases.flatMap((phase) =>
    Array.from<string>({ length: phase.to - phase.from }).fill(phase.id),
  );
  const inPhases = checked.tasks.map(
    (task): TaskSpec => ({ ...task, phase: phaseAt[task.position] as string }),
  );
  return {
    ...checked,
    tasks: inPhases,
    workflow: {
      budget: timeBudget(budgetMs, onBudget),
      phases: phases.map((phase) => ({
        ...phase,
        counts: countsOf(inPhases.slice(phase.from, phase.to)),
      })),
    },
  };
}

function countsOf(tasks: readonly TaskSpec[]): PhaseRecord['counts'] {
  const counts: Partial<Record<TaskPhase, number>> = {};
  for (const task of tasks) {
    const phase = phaseOf(startState(task));
    counts[phase] = (counts[phase] ?? 0) + 1;
  }
  return counts;
}

interface Compiled {
  readonly tasks: readonly TaskInput[];
  readonly phases: readonly Omit<PhaseRecord, 'counts'>[];
  readonly budgetMs: number | undefined;
  readonly onBudget: OnBudget;
}

/** The tasks of all phases, with the dependencies that keep them in order. */
export function compile(spec: WorkflowSpec & { readonly id: string }): Compiled {
  const whole = `workflow "${spec.id}"`;
  settings(spec, Object.keys(WORKFLOW_KEYS), whole);
  const given: unknown = spec.phases;
  if (!Array.isArray(given) || given.length === 0 || given.length > MAX_PHASES) {
    throw new ValidationError(
      `Expected ${whole} to have 1 to ${MAX_PHASES} phases, got ${Array.isArray(given) ? given.length : typeof given}.`,
    );
  }
  const order = oneOf(spec.order, ['sequential', 'parallel'], 'sequential', 'order', whole);
  const onBudget = oneOf(spec.onBudget, ON_BUDGET, 'escalate', 'onBudget', whole);
  const budgetMs = budgetOf(spec.budgetMs, whole);
  const tasks: TaskInput[] = [];
  const phases: Omit<PhaseRecord, 'counts'>[] = [];
  const ends = new Map<string, readonly string[]>();
  /** Task → the phase it is in; for dependencies that point forward. */
  const home = new Map<string, number>();
  for (const [index, phase] of spec.phases.entries()) {
    for (const task of Array.isArray(phase?.tasks) ? phase.tasks : []) {
      if (typeof task?.id === 'string' && !home.has(task.id)) home.set(task.id, index);
    }
  }
  for (const [index, phase] of spec.phases.entries()) {
    const where = shapeOf(phase, index, whole, ends);
    const after = phase.after ?? (order === 'sequential' ? [...ends.keys()].slice(-1) : []);
    checkAfter(after, [...ends.keys()], spec.phases, where);
    const awaited = after.flatMap((id) => ends.get(id) ?? []);
    if (awaited.length > MAX_AWAITED) {
      throw new ValidationError(
        `Expected ${where} to come after phases with at most ${MAX_AWAITED} tasks side by side, got ${awaited.length}. Put a task between them that waits for a part of them, or make a phase sequential.`,
      );
    }
    const inOrder = oneOf(phase.order, ['sequential', 'parallel'], 'parallel', 'order', where);
    const from = tasks.length;
    for (const [position, task] of phase.tasks.entries()) {
      const before = inOrder === 'sequential' ? phase.tasks[position - 1]?.id : undefined;
      tasks.push(inPhase(task, { spec, phase, index, home, awaited, before, where }));
    }
    const own = tasks.slice(from);
    const needed = new Set(own.flatMap(({ dependsOn = [] }) => dependsOn));
    ends.set(
      phase.id,
      own.map(({ id }) => id).filter((id) => !needed.has(id)),
    );
    phases.push({
      id: phase.id,
      title: titleOf(phase, where),
      after,
      order: inOrder,
      onFailure: oneOf(phase.onFailure, ['goOn', 'hold'], 'goOn', 'onFailure', where),
      from,
      to: tasks.length,
      failed: [],
      budget: timeBudget(
        budgetOf(phase.budgetMs, where),
        oneOf(phase.onBudget, ON_BUDGET, onBudget, 'onBudget', where),
      ),
      openedAt: null,
      endedAt: null,
    });
  }
  return { tasks, phases, budgetMs, onBudget };
}

const ON_BUDGET = ['escalate', 'cancel'] as const;

/** @returns what the phase is called in messages */
function shapeOf(
  phase: PhaseInput,
  index: number,
  whole: string,
  before: ReadonlyMap<string, unknown>,
): string {
  const nth = `phase ${index + 1} of ${whole}`;
  if (typeof phase !== 'object' || phase === null) {
    throw new ValidationError(
      `Expected ${nth} to be an object such as { id, tasks }, got ${typeWord(phase)}.`,
    );
  }
  const where = `phase "${parseId(phase.id, `the id of ${nth}`)}"`;
  settings(phase, Object.keys(PHASE_KEYS), where);
  if (before.has(phase.id)) {
    throw new ValidationError(
      `Two phases have the id "${phase.id}". Ids must be unique within a workflow: rename one of them.`,
    );
  }
  if (!Array.isArray(phase.tasks) || phase.tasks.length === 0) {
    throw new ValidationError(
      `Expected ${where} to have at least one task, got ${Array.isArray(phase.tasks) ? 'none' : typeof phase.tasks}.`,
    );
  }
  return where;
}

function checkAfter(
  after: unknown,
  before: readonly string[],
  phases: readonly PhaseInput[],
  where: string,
): asserts after is readonly string[] {
  if (!(Array.isArray(after) && after.every((id) => typeof id === 'string'))) {
    throw new ValidationError(
      `Expected after of ${where} to be a list of phases, got ${JSON.stringify(after)}.`,
    );
  }
  for (const [index, id] of after.entries()) {
    if (after.indexOf(id) < index) {
      throw new ValidationError(`Phase "${id}" is named twice in after of ${where}.`);
    }
    if (before.includes(id)) continue;
    const isLater = phases.some((phase) => phase?.id === id);
    throw new ValidationError(
      isLater
        ? `Expected after of ${where} to name phases before it in the list, got "${id}". Change their order.`
        : `Expected after of ${where} to name phases of the workflow, got "${id}".${didYouMean(id, before)}`,
    );
  }
}

interface Surroundings {
  readonly spec: WorkflowSpec;
  readonly phase: PhaseInput;
  readonly index: number;
  readonly home: ReadonlyMap<string, number>;
  readonly awaited: readonly string[];
  /** In a sequential phase, the task before it. */
  readonly before: string | undefined;
  readonly where: string;
}

function inPhase(task: PhaseTask, surroundings: Surroundings): TaskInput {
  const { spec, phase, index, home, awaited, before } = surroundings;
  // Whatever else is wrong with it, the run's own check says.
  if (typeof task !== 'object' || task === null) return task;
  const given: unknown = task.dependsOn ?? [];
  if (!(Array.isArray(given) && given.every((id) => typeof id === 'string'))) {
    return task as TaskInput;
  }
  if (given.length > MAX_DEPENDENCIES) {
    throw new ValidationError(
      `Task "${task.id}" has ${given.length} dependencies; at most ${MAX_DEPENDENCIES} are allowed. Put a task between them that waits for a part of them, or make them a phase of their own.`,
    );
  }
  for (const id of given) {
    const at = home.get(id);
    const later = at !== undefined && at > index ? spec.phases[at] : undefined;
    if (later === undefined || !comesAfter(spec, later.id, phase.id)) continue;
    throw new ValidationError(
      `Task "${task.id}" of phase "${phase.id}" depends on "${id}", which is in phase "${later.id}", and that begins only after "${phase.id}" has ended. Remove the dependency, or move one of the two.`,
    );
  }
  const needed = new Set(given);
  if (before !== undefined) needed.add(before);
  const waitsInside = [...needed].some((id) => home.get(id) === index);
  if (!waitsInside) for (const id of awaited) needed.add(id);
  return {
    ...task,
    agent: (task.agent ?? spec.agent) as TaskInput['agent'],
    ...(task.gatekeeper === undefined && spec.gatekeeper !== undefined
      ? { gatekeeper: spec.gatekeeper }
      : {}),
    dependsOn: [...needed],
  };
}

/** Whether a phase begins only when another has ended, as far as the phases say it. */
function comesAfter(spec: WorkflowSpec, later: string, earlier: string): boolean {
  const at = new Map(spec.phases.map((phase, index) => [phase.id, index]));
  const seen = new Set<string>();
  const open = [later];
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    if (id === earlier) return true;
    if (seen.has(id)) continue;
    seen.add(id);
    const index = at.get(id) ?? 0;
    const phase = spec.phases[index];
    const previous = spec.order === 'parallel' ? [] : [spec.phases[index - 1]?.id ?? ''];
    open.push(...(phase?.after ?? previous));
  }
  return false;
}

function titleOf(phase: PhaseInput, where: string): string {
  const title: unknown = phase.title ?? phase.id;
  if (typeof title === 'string' && title.length <= 200) {
    if (title.isWellFormed()) return title;
    throw new ValidationError(
      `Expected the title of ${where} to be well-formed Unicode, got half of a surrogate pair in ${JSON.stringify(title)}: was it cut in the middle of a character?`,
    );
  }
  throw new ValidationError(
    `Expected the title of ${where} to be a text of at most 200 characters, got ${typeof title === 'string' ? `${title.length} characters` : typeof title}.`,
  );
}

function budgetOf(value: unknown, where: string): number | undefined {
  if (value === undefined) return undefined;
  if (
    typeof value === 'number' &&
    Number.isSafeInteger(value) &&
    value >= 1 &&
    value <= MAX_BUDGET_MS
  ) {
    return value;
  }
  throw new ValidationError(
    `Expected budgetMs of ${where} to be a whole number of milliseconds from 1 to ${MAX_BUDGET_MS} (a year), got ${String(value)}.`,
  );
}

function oneOf<const T extends string>(
  value: unknown,
  allowed: readonly T[],
  fallback: NoInfer<T>,
  key: string,
  where: string,
): T {
  if (value === undefined) return fallback;
  if (allowed.includes(value as T)) return value as T;
  const near = typeof value === 'string' ? didYouMean(value, allowed) : '';
  throw new ValidationError(
    `Expected ${key} of ${where} to be ${allowed.map((one) => `"${one}"`).join(' or ')}, got ${JSON.stringify(value) ?? String(value)}.${near}`,
  );
}

/** What is given by a caller and not by a file is refused as such. */
function settings(value: unknown, known: readonly string[], where: string): void {
  try {
    readSettings(value ?? null, known, where);
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error;
    throw new ValidationError(error.message, { context: error.context });
  }
}
