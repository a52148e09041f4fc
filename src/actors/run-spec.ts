import { AGENT_STAGES, type AgentStage } from '../machines/policies/agent-chain.ts';
import { checkDependencies, MAX_DEPENDENCIES } from '../machines/policies/dependency-graph.ts';
import { didYouMean } from '../machines/policies/did-you-mean.ts';
import { DEFAULT_QA, MOST_QA, type QaSpec } from '../machines/policies/fix.ts';
import {
  DEFAULT_TASK_LIMITS,
  parseTaskLimits,
  type TaskLimitsInput,
} from '../machines/policies/limits.ts';
import { positiveInteger, readSettings } from '../machines/policies/settings.ts';
import {
  parseStaging,
  type StagingInput,
  type StagingLimits,
  stagePlan,
} from '../machines/policies/staging.ts';
import type { TaskSpec } from '../machines/task-machine.ts';
import { parseId } from '../protocol/address.ts';
import { ConfigurationError, ValidationError } from '../protocol/errors.ts';
import { findNonJson, type JsonValue, typeWord } from '../protocol/json.ts';
import { type Priority, type PriorityName, parsePriority } from '../protocol/priority.ts';
import { checkAcceptCommands, type VerifyCommand } from '../workspace/verification.ts';

export interface TaskInput {
  readonly id: string;
  /** Default: the id. */
  readonly title?: string;
  /**
   * Who does it. A list is a chain: each attempt asks the first one, and the next one only when that cannot be asked (its
   * breaker is open, too many wait for it); after an attempt at which the agent itself could not work (it is missing,
   * away, rate limited, or has died) the next attempt is for the one after it, and behind the last for the first again.
   * The list counts alone: the `fallback` of an agent in it does not. At most 20.
   */
  readonly agent: string | readonly string[];
  /** Default: `git` if a project is open. */
  readonly gatekeeper?: string;
  /** Tasks of the same run that must be done first; at most 20. */
  readonly dependsOn?: readonly string[];
  /** Default `normal`. */
  readonly priority?: PriorityName | Priority;
  readonly input?: JsonValue;
  /**
   * Commands that its work has to pass besides the project's own, run after them. For tasks on the project's files only.
   * Default none.
   */
  readonly accept?: readonly Pick<VerifyCommand, 'name' | 'command' | 'timeoutMs'>[];
  readonly limits?: TaskLimitsInput;
  /** Who mends what is rejected of it; false: nobody, whatever the run says. Default: the run's. */
  readonly qa?: QaInput | false;
  /** Not started until it is enabled. */
  readonly staged?: boolean;
}

/**
 * An agent that mends what was rejected, before the task's own tries again. It is given the submission as it is, on the same
 * branch, with the error and the evidence, and is told to mend only that; what it hands in is verified. One session at most
 * for each attempt; when nobody could mend it, the task goes on as without it. The attempts and their budget stay as they
 * are; errors and changes of both count towards the limits on repetition.
 */
export interface QaInput {
  /** One, or a chain as `TaskInput.agent`; one that could not work is passed over at once. */
  readonly agent: string | readonly string[];
  /** For one task, until it is unblocked or somebody decides about it. Default 3; at most 10. */
  readonly sessions?: number;
  /** How often it may hand in at one session. Default 2; at most 10. */
  readonly iterations?: number;
}

export interface RunSpec {
  /** Starting a run that exists, with the same tasks, is harmless. Default: a new id. */
  readonly id?: string;
  readonly title?: string;
  readonly tasks: readonly TaskInput[];
  readonly limits?: TaskLimitsInput;
  /** Who mends what is rejected of tasks that say nothing about it. Default nobody. */
  readonly qa?: QaInput;
  /** Tasks in flight at once, being worked on or verified. Default: twice what the agents can do together. */
  readonly concurrency?: number;
  /**
   * Of a large plan only the most urgent tasks take part at first: the others are staged, and `Run.enqueue` lets the next
   * ones in. By priority, then by how many tasks wait for it, then as they are listed; what a task depends on comes before
   * it. `true`: of more than 120 tasks, 30. Default false: all take part at once.
   */
  readonly staging?: StagingInput;
}

/** What there is for tasks to name. */
export interface Known {
  readonly agents: readonly string[];
  /** What an agent may be asked for. Default: all stages. */
  readonly stagesOf?: (agent: string) => readonly AgentStage[];
  /** The agent and those that stand in for it. Default: nobody does. */
  readonly chainOf?: (agent: string) => readonly string[];
  readonly gatekeepers: readonly string[];
  /** For tasks that name none. */
  readonly gatekeeper: string | undefined;
  readonly overseer: string;
}

/** A run that can be made. */
export interface CheckedRun {
  readonly id: string;
  readonly title: string;
  readonly concurrency: number | undefined;
  readonly tasks: readonly TaskSpec[];
}

const MAX_TASKS = 1_000_000;
const MAX_CHAIN = 20;
const MAX_TITLE_CHARS = 10_000;

// Written as objects so that the compiler misses a key that was forgotten.
const RUN_KEYS: Record<keyof RunSpec, true> = {
  id: true,
  title: true,
  tasks: true,
  limits: true,
  qa: true,
  concurrency: true,
  staging: true,
};
const QA_KEYS: Record<keyof QaInput, true> = { agent: true, sessions: true, iterations: true };
const TASK_KEYS: Record<keyof TaskInput, true> = {
  id: true,
  title: true,
  agent: true,
  gatekeeper: true,
  dependsOn: true,
  priority: true,
  input: true,
  accept: true,
  limits: true,
  qa: true,
  staged: true,
};

/**
 * Checks everything about a run before anything of it is made.
 * @throws {ValidationError} the first thing that cannot work: where it is, what was expected, what came
 */
export function checkRunSpec(
  spec: RunSpec,
  newId: () => string,
  known: Known,
  maxDependencies = MAX_DEPENDENCIES,
): CheckedRun {
  try {
    return check(spec, newId, known, maxDependencies);
  } catch (error) {
    // Limits in a file are configuration; here they are part of what the caller asked for.
    if (!(error instanceof ConfigurationError)) throw error;
    throw new ValidationError(error.message, { context: error.context });
  }
}

function check(
  spec: RunSpec,
  newId: () => string,
  known: Known,
  maxDependencies: number,
): CheckedRun {
  const run = parseId(spec?.id ?? newId(), 'the run id');
  const whole = `run "${run}"`;
  readSettings(spec ?? null, Object.keys(RUN_KEYS), whole);
  const { tasks, concurrency } = spec;
  if (!Array.isArray(tasks) || tasks.length === 0 || tasks.length > MAX_TASKS) {
    throw new ValidationError(
      `Expected ${whole} to have 1 to ${MAX_TASKS} tasks, got ${Array.isArray(tasks) ? tasks.length : typeof tasks}.`,
    );
  }
  if (concurrency !== undefined && !(Number.isSafeInteger(concurrency) && concurrency >= 1)) {
    throw new ValidationError(
      `Expected the concurrency of ${whole} to be a positive integer, got ${String(concurrency)}.`,
    );
  }
  const limits = parseTaskLimits(spec.limits, `limits of ${whole}`, DEFAULT_TASK_LIMITS);
  const staging = parseStaging(spec.staging, `staging of ${whole}`);
  const qa = qaOf(spec.qa, whole, known);
  const title = titleOf(spec.title ?? run, whole);
  for (const [position, task] of tasks.entries()) checkShape(task, position, whole);
  const { dependants } = checkDependencies(
    tasks.map(({ id, dependsOn = [] }) => ({ id, dependsOn })),
    maxDependencies,
  );
  const checked = {
    id: run,
    title,
    concurrency,
    tasks: tasks.map((task, position): TaskSpec => {
      const where = `task "${task.id}"`;
      const chain = checkChain(task.agent, 'implement', where, known);
      const gatekeeper = task.gatekeeper ?? known.gatekeeper;
      if (gatekeeper === undefined) {
        throw new ValidationError(
          `Expected ${where} to name a gatekeeper: without one nothing can be accepted. Register one: troupe.gatekeeper(name, verify).`,
        );
      }
      requireKnown(where, 'gatekeeper', gatekeeper, known.gatekeepers);
      return {
        run,
        id: task.id,
        title: titleOf(task.title ?? task.id, where),
        agent: chain[0] as string,
        ...(chain.length === 1 ? {} : { chain }),
        gatekeeper,
        overseer: known.overseer,
        priority: parsePriority(task.priority ?? 'normal'),
        dependsOn: task.dependsOn ?? [],
        dependants: dependants.get(task.id) ?? [],
        input: jsonOf(task.input, where),
        ...acceptOf(task.accept, where, gatekeeper, known),
        limits: parseTaskLimits(task.limits, `limits of ${where}`, limits),
        ...(task.qa === undefined ? qa : qaOf(task.qa, where, known)),
        staged: task.staged ?? false,
        position,
      };
    }),
  };
  return staging === undefined ? checked : { ...checked, tasks: stage(checked.tasks, staging) };
}

/** Those that are staged by themselves stay so, and take no place of the others. */
function stage(tasks: readonly TaskSpec[], limits: StagingLimits): readonly TaskSpec[] {
  const plan = tasks
    .filter((task) => !task.staged)
    .map((task) => ({ ...task, unblocks: task.dependants.length }));
  const held = new Set(stagePlan(plan, limits).staged);
  return tasks.map((task) => (held.has(task.id) ? { ...task, staged: true } : task));
}

/** What does not depend on other tasks, and must hold before anything is said about the task by its id. */
function checkShape(task: TaskInput, position: number, whole: string): void {
  const nth = `task ${position + 1} of ${whole}`;
  if (typeof task !== 'object' || task === null) {
    throw new ValidationError(
      `Expected ${nth} to be an object such as { id, agent, gatekeeper }, got ${typeWord(task)}.`,
    );
  }
  const where = `task "${parseId(task.id, `the id of ${nth}`)}"`;
  readSettings(task, Object.keys(TASK_KEYS), where);
  const { dependsOn, staged } = task;
  if (
    dependsOn !== undefined &&
    !(Array.isArray(dependsOn) && dependsOn.every((id) => typeof id === 'string'))
  ) {
    throw new ValidationError(
      `Expected dependsOn of ${where} to be a list of task ids, got ${JSON.stringify(dependsOn)}.`,
    );
  }
  if (staged !== undefined && typeof staged !== 'boolean') {
    throw new ValidationError(
      `Expected staged of ${where} to be true or false, got ${JSON.stringify(staged)}.`,
    );
  }
}

function titleOf(title: unknown, where: string): string {
  if (typeof title === 'string' && title.length <= MAX_TITLE_CHARS) {
    if (title.isWellFormed()) return title;
    throw new ValidationError(
      `Expected the title of ${where} to be well-formed Unicode, got half of a surrogate pair in ${JSON.stringify(title.slice(0, 100))}: was it cut in the middle of a character?`,
    );
  }
  throw new ValidationError(
    `Expected the title of ${where} to be a text of at most ${MAX_TITLE_CHARS} characters, got ${typeof title === 'string' ? `${title.length} characters` : typeof title}.`,
  );
}

function acceptOf(
  accept: unknown,
  where: string,
  gatekeeper: string,
  { gatekeeper: git }: Known,
): { readonly accept?: JsonValue } {
  if (accept === undefined) return {};
  const commands = checkAcceptCommands(accept, where);
  if (commands.length === 0) return {};
  if (git === undefined || gatekeeper !== git) {
    throw new ValidationError(
      `Expected accept only for tasks on the project's files; ${where} has the gatekeeper "${gatekeeper}", which runs no commands.`,
    );
  }
  return { accept: commands as unknown as JsonValue };
}

function qaOf(given: unknown, of: string, known: Known): { readonly qa?: QaSpec } {
  if (given === undefined || given === false) return {};
  const where = `qa of ${of}`;
  const settings = readSettings(given, Object.keys(QA_KEYS), where);
  const count = (key: 'sessions' | 'iterations'): number =>
    positiveInteger(settings, key, DEFAULT_QA[key], where, MOST_QA[key]);
  return {
    qa: {
      agents: checkChain(settings['agent'], 'qa', where, known),
      sessions: count('sessions'),
      iterations: count('iterations'),
    },
  };
}

function jsonOf(input: JsonValue | undefined, where: string): JsonValue {
  if (input === undefined) return null;
  const problem = findNonJson(input, 'input');
  if (problem === undefined) return input;
  throw new ValidationError(
    `Expected the input of ${where} to be plain JSON, but ${problem.path} is ${problem.found}.`,
  );
}

/**
 * The agents of a stage, in their order.
 * @param given one name, or a list
 * @throws {ValidationError} one is not registered, may not be asked for this, or is named twice; the list is empty or too long
 */
function checkChain(
  given: unknown,
  stage: AgentStage,
  where: string,
  known: Pick<Known, 'agents' | 'stagesOf' | 'chainOf'>,
): readonly string[] {
  const chain: readonly unknown[] = Array.isArray(given) ? given : [given];
  if (chain.length === 0 || chain.length > MAX_CHAIN) {
    throw new ValidationError(
      `Expected ${where} to name an agent or a list of 1 to ${MAX_CHAIN}, got ${chain.length === 0 ? 'an empty list' : chain.length}.`,
    );
  }
  for (const [index, name] of chain.entries()) {
    requireKnown(where, 'agent', name, known.agents);
    // The fallbacks of an agent in a list do not count.
    const asked = chain.length === 1 ? known.chainOf?.(name as string) : undefined;
    for (const agent of asked ?? [name as string]) {
      const through = agent === name ? where : `${where} (by the fallbacks of "${String(name)}")`;
      requireStage(through, agent, stage, known.stagesOf?.(agent) ?? AGENT_STAGES);
    }
    if (chain.indexOf(name) === index) continue;
    throw new ValidationError(
      `Expected ${where} to name each agent once, got "${String(name)}" twice: whoever could not do it is not asked again.`,
    );
  }
  return chain as readonly string[];
}

/** @throws {ValidationError} the agent is not for this stage */
export function requireStage(
  where: string,
  agent: string,
  stage: AgentStage,
  stages: readonly AgentStage[],
): void {
  if (stages.includes(stage)) return;
  throw new ValidationError(
    `Expected ${where} to name an agent for the stage ${stage}, got "${agent}", whose stages are ${stages.join(', ')}. Name another one, or give it the stage: stages: [${[...stages, stage].join(', ')}].`,
  );
}

/** @throws {ValidationError} nothing of this name is registered; says what was probably meant */
export function requireKnown(
  where: string,
  what: string,
  name: unknown,
  known: readonly string[],
): void {
  if (known.includes(name as string)) return;
  const suggestion = typeof name === 'string' ? didYouMean(name, known) : '';
  throw new ValidationError(
    `Expected ${where} to name a registered ${what}, got ${JSON.stringify(name) ?? 'nothing'}.${suggestion} Known: ${known.join(', ') || 'none'}.`,
  );
}

/** Everybody who may be asked for something of it. */
export const agentsOf = ({ agent, chain = [agent], qa }: TaskSpec): readonly string[] => [
  ...chain,
  ...(qa?.agents ?? []),
];
