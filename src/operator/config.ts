import path from 'node:path';
import type * as z from 'zod';
import type {
  AgentStage,
  BreakerSettings,
  CacheSettings,
  FlowOptions,
  JsonValue,
  PresetAgentOptions,
  QaInput,
  RetentionOptions,
  ReviewOptions,
  RuleSettings,
  StagingInput,
  Tract,
} from '../index.ts';
import { type ConfigProblem, configurationError, suggestion } from './config-problems.ts';
import {
  checkValue,
  MAX_ACCEPT_COMMANDS,
  MAX_CHAIN,
  MAX_DEPENDENCIES,
  MAX_PATCHES,
  MAX_REVIEWERS,
  projectSchema,
  tasksSchema,
} from './config-schema.ts';
import { type ConfigSource, readConfigSource } from './config-source.ts';
import type { ConfiguredEncryption } from './encryption.ts';
import { ProjectFiles } from './project-files.ts';

export { type Detected, writeInitialConfig } from './config-init.ts';

/** A text is a shell command the user wrote; a list is a program and its arguments, for which no shell is started. */
type ConfiguredCommand = string | readonly string[];

/** One command that accepted work has to pass. */
interface ConfiguredVerifyCommand {
  readonly name: string;
  readonly run: ConfiguredCommand;
  /** Default 600 000 (10 minutes). */
  readonly timeoutMs: number;
  /** Default false; never true for the command named `test`. */
  readonly allowFail: boolean;
  /** Run also for a tree that has passed before. Absent when not. */
  readonly always?: true;
  /** Exit codes by which it says that the machine is to blame. Absent: none. */
  readonly infrastructureExitCodes?: readonly number[];
  /** Absent: what it makes is made each time. */
  readonly cache?: CacheSettings;
}

/** One command that the work of one task has to pass besides. */
interface ConfiguredAcceptCommand {
  readonly name: string;
  readonly run: ConfiguredCommand;
  /** Default 600 000 (10 minutes). */
  readonly timeoutMs: number;
}

/** Of any agent. What is missing is as `AgentOptions` has it. */
interface AgentSettings {
  /** Reasons, or acts. Default external. */
  readonly tract: Tract;
  readonly name: string;
  /** Tasks it does at once. Default 1. */
  readonly concurrency: number;
  readonly mailboxLimit?: number;
  readonly overflow?: 'refuse' | 'wait';
  readonly fallback?: string;
  readonly breaker?: BreakerSettings;
  readonly stages?: readonly AgentStage[];
}

/** What limits it by key and by time is there if the file has it. */
type ConfiguredAgent = FlowOptions & ConfiguredEngine;

type ConfiguredEngine =
  | (AgentSettings & { readonly engine: 'patch' })
  | (AgentSettings & {
      readonly engine: 'command';
      /** As written: what stands in braces, such as `{project}`, is for the engine to fill in. */
      readonly run: ConfiguredCommand;
      /** For one attempt. Default 1 200 000 (20 minutes). */
      readonly timeoutMs: number;
    })
  | (AgentSettings & {
      readonly engine: 'preset';
      readonly program: PresetAgentOptions;
      /** For one attempt. Default 1 200 000 (20 minutes). */
      readonly timeoutMs: number;
    });

/** When a task stops trying. */
interface ConfiguredLimits {
  /** Default 10. */
  readonly attempts: number;
  /** Default 3. */
  readonly sameError: number;
  /** Default 3. */
  readonly sameChange: number;
  /** Default 2. */
  readonly sameFeedback: number;
  /** Default 10. */
  readonly infrastructureAttempts: number;
  /** Default 3. */
  readonly interruptions: number;
  /** Waits between attempts at the work. */
  readonly backoff: ConfiguredBackoff;
  /** Waits after a fault of the infrastructure. */
  readonly infrastructureBackoff: ConfiguredBackoff;
}

/** Defaults 10 000, 2 and 600 000. */
interface ConfiguredBackoff {
  readonly initialMs: number;
  readonly factor: number;
  readonly maxMs: number;
}

/** What the overseer decides without asking a person. The first rule whose conditions all hold counts. */
interface ConfiguredPolicyRule {
  readonly when: {
    readonly task?: string;
    readonly state?: 'escalated' | 'awaitingApproval';
    readonly agent?: string;
  };
  readonly decide: 'retry' | 'approve' | 'block' | 'cancel';
  /** Only with `retry`: what the next attempt is told. */
  readonly guidance?: string;
  /** How often the rule may answer one task. Default 1. */
  readonly times?: number;
}

interface ConfiguredTask {
  readonly id: string;
  /** Default: the id. */
  readonly title: string;
  /** One, or those that are asked, in their order. */
  readonly agent: string | readonly string[];
  /** Who mends what is rejected of it; false: nobody. Default: the project's. */
  readonly qa?: QaInput | false;
  /** For patch engines only: absolute paths of existing files inside the project; at least one. Else empty. */
  readonly patches: readonly string[];
  readonly dependsOn: readonly string[];
  /** Run after the project's own commands. Absent when there are none. */
  readonly accept?: readonly ConfiguredAcceptCommand[];
  /** Default `normal`. */
  readonly priority: 'low' | 'normal' | 'high' | 'urgent' | 'critical';
  /** Absent when the task has none. */
  readonly input?: JsonValue;
  /** The task's own limits over the project's over the defaults. */
  readonly limits: ConfiguredLimits;
  /** Not started until it is enabled. Default false. */
  readonly staged: boolean;
}

/** What troupe.yaml says, checked and with every default filled in. */
export interface ProjectConfig {
  /** The file that was read, absolute, symbolic links followed. */
  readonly file: string;
  /** The directory of that file: the project. Absolute, symbolic links followed. */
  readonly directory: string;
  /** The branch that accepted work goes to. Default `main`. */
  readonly target: string;
  /** In the order in which they run; at least one. */
  readonly verify: readonly ConfiguredVerifyCommand[];
  /** `none` only if the file says so in words; otherwise `verify` has a command named `test`. */
  readonly tests: 'command' | 'none';
  /** Why there are no tests, in words. Then `verify` needs no command named `test`, and one may find nothing to run. */
  readonly noTests?: string;
  /** What is refused in a change, or needs a person; with the files that were read as `configuration`. */
  readonly gate: RuleSettings;
  /** Verifications that run at once. Default: as `GitProjectOptions`. */
  readonly verifyAtOnce?: number;
  /** Names of variables that get a free port each. Absent: none. */
  readonly ports?: readonly string[];
  /** The commands are run where the agent has worked, before a gatekeeper is asked. Default not. */
  readonly preflight?: true;
  /** Who looks at what has passed. Default nobody. */
  readonly review?: ReviewOptions;
  /** Names of variables that agents and verification get besides the usual ones. Default none. */
  readonly environment: readonly string[];
  /** In the order of the file. Default none. */
  readonly agents: readonly ConfiguredAgent[];
  readonly limits: ConfiguredLimits;
  /** Who mends what is rejected of a task that says nothing about it. Default nobody. */
  readonly qa?: QaInput;
  readonly policy: readonly ConfiguredPolicyRule[];
  /** Where the keys are under which the store is encrypted. Default: it is not. */
  readonly encryption?: ConfiguredEncryption;
  /** How much history is kept; false: all. What is missing is as `createTroupe` has it. */
  readonly retention: RetentionOptions | false;
  /** Only the most urgent tasks of a large backlog take part at first. Absent: all do. See RunSpec. */
  readonly staging?: StagingInput;
  /**
   * Tasks in flight at once. Default: the sum of the agents' concurrency, at least 1. One that is limited by key or time
   * counts 50: it must see the work of several keys to choose from.
   */
  readonly concurrency: number;
  /** In the order of the file. Default none. */
  readonly tasks: readonly ConfiguredTask[];
  /** The phases that the tasks are in, each task in one. Default: the tasks are one set. */
  readonly workflow?: ConfiguredWorkflow;
}

type Order = 'sequential' | 'parallel';

interface ConfiguredBudget {
  /** Default: no limit. */
  readonly budgetMs?: number;
  /** Default: a phase's is the workflow's, the workflow's is `escalate`. */
  readonly onBudget?: 'escalate' | 'cancel';
}

interface ConfiguredPhase extends ConfiguredBudget {
  readonly id: string;
  readonly title?: string;
  /** Ids of tasks. */
  readonly tasks: readonly string[];
  readonly order?: Order;
  readonly after?: readonly string[];
  readonly onFailure?: 'goOn' | 'hold';
}

interface ConfiguredWorkflow extends ConfiguredBudget {
  readonly order?: Order;
  readonly phases: readonly ConfiguredPhase[];
}

const DEFAULT_BACKOFF: ConfiguredBackoff = { initialMs: 10_000, factor: 2, maxMs: 600_000 };
const DEFAULT_LIMITS: ConfiguredLimits = {
  attempts: 10,
  sameError: 3,
  sameChange: 3,
  sameFeedback: 2,
  infrastructureAttempts: 10,
  interruptions: 3,
  backoff: DEFAULT_BACKOFF,
  infrastructureBackoff: DEFAULT_BACKOFF,
};
const DEFAULT_VERIFY_TIMEOUT_MS = 600_000;
const DEFAULT_AGENT_TIMEOUT_MS = 1_200_000;

/**
 * Reads a project's configuration. Nothing in it is run, and nothing is written.
 * @param file path of troupe.yaml; messages call the file what this argument calls it
 * @param directory where it is, for whoever was not called in the working directory. Default: as `file` says
 * @throws {ConfigurationError} the file cannot be read or anything in it is wrong. One error for all problems, in the order
 * of the lines, each with `file:line:column`; the message can be printed as it is and shows the first 20
 */
export async function loadConfig(
  file: string,
  directory = path.dirname(file),
): Promise<ProjectConfig> {
  const files = await ProjectFiles.open(directory);
  const found = await files.find(path.basename(file));
  if ('refused' in found) {
    const message = found.missing
      ? 'there is no such file; `troupe init` writes a first one'
      : found.refused;
    throw configurationError(file, [{ file, line: 0, column: 0, path: '', message }]);
  }
  const read = await readConfigSource(found.path, file);
  if ('problems' in read) throw configurationError(file, read.problems);

  const { source } = read;
  const problems: ConfigProblem[] = [];
  const project = checkValue(projectSchema, source.value, source, [], problems);
  const given = await findTasks(source, files, problems);
  const tasks = checkValue(tasksSchema, given.value, given.source, given.base, problems);
  // These look at the raw data, so that they also speak when something else is wrong.
  checkVerify(source, problems);
  checkReferences(source, given, problems);
  checkPhases(source, given, problems);
  const patches = await findPatches(source, given, files, problems);
  const refused = [...source.problems, ...(given.source === source ? [] : given.source.problems)];
  if (refused.length > 0) throw configurationError(file, withConsequences(refused, problems));
  if (problems.length > 0 || project === undefined || tasks === undefined) {
    throw configurationError(file, problems);
  }

  const limits = mergeLimits(DEFAULT_LIMITS, project.limits);
  const agents = Object.entries(project.agents ?? {}).map(([name, agent]): ConfiguredAgent => {
    const settings = { ...agentSettings(name, agent), ...flowOf(agent) };
    if (agent.engine === 'patch') return { ...settings, engine: 'patch' };
    const { stages } = agent;
    const command = { ...settings, ...(stages === undefined ? {} : { stages }) };
    const timeoutMs = agent.timeout ?? DEFAULT_AGENT_TIMEOUT_MS;
    const { preset, arguments: more, environment } = agent;
    if (preset !== undefined) {
      const program = {
        preset,
        ...(more === undefined ? {} : { arguments: more }),
        ...(environment === undefined ? {} : { environment }),
      };
      return { ...command, engine: 'preset', program, timeoutMs };
    }
    // The schema has seen to it that there is one of the two.
    return { ...command, engine: 'command', run: agent.run as ConfiguredCommand, timeoutMs };
  });
  const total = agents.reduce((sum, agent) => sum + reachOf(agent), 0);
  return {
    file: found.path,
    directory: files.directory,
    target: project.target ?? 'main',
    verify: project.verify.map((command) => ({
      name: command.name,
      run: command.run,
      timeoutMs: command.timeout ?? DEFAULT_VERIFY_TIMEOUT_MS,
      allowFail: command.allowFail ?? false,
      ...(command.always === true ? { always: true } : {}),
      ...(command.infrastructureExitCodes === undefined
        ? {}
        : { infrastructureExitCodes: command.infrastructureExitCodes }),
      ...(command.cache === undefined ? {} : { cache: command.cache }),
    })),
    ...(project.noTests === undefined ? {} : { noTests: project.noTests }),
    ...(project.review === undefined ? {} : { review: reviewOf(project.review) }),
    gate: {
      ...(project.gate as RuleSettings | undefined),
      ...(project.protect === undefined ? {} : { protectedPaths: project.protect }),
      // The commands that verify stand in them. A link that names one could be made to name another.
      configuration: [
        ...new Set([
          path.join(files.directory, path.basename(file)),
          found.path,
          ...(given.paths ?? []),
        ]),
      ].map((each) => path.relative(files.directory, each)),
    },
    tests: project.tests ?? 'command',
    ...(project.verifyAtOnce === undefined ? {} : { verifyAtOnce: project.verifyAtOnce }),
    ...(project.ports === undefined ? {} : { ports: project.ports }),
    ...(project.preflight === true ? { preflight: true } : {}),
    environment: project.environment ?? [],
    agents,
    limits,
    ...(project.qa === undefined ? {} : { qa: project.qa as QaInput }),
    policy: (project.overseer?.policy ?? []) as readonly ConfiguredPolicyRule[],
    ...(project.encryption === undefined ? {} : { encryption: project.encryption }),
    retention: (project.retention ?? {}) as RetentionOptions | false,
    ...(project.staging === undefined ? {} : { staging: project.staging as StagingInput }),
    concurrency: project.concurrency ?? Math.max(1, total),
    tasks: tasks.map((task, index) => ({
      id: task.id,
      title: task.title ?? task.id,
      agent: task.agent,
      ...(task.qa === undefined ? {} : { qa: task.qa as QaInput | false }),
      patches: patches[index] ?? [],
      dependsOn: task.dependsOn ?? [],
      ...(task.accept === undefined || task.accept.length === 0
        ? {}
        : {
            accept: task.accept.map(({ name, run, timeout }) => ({
              name,
              run,
              timeoutMs: timeout ?? DEFAULT_VERIFY_TIMEOUT_MS,
            })),
          }),
      priority: task.priority ?? 'normal',
      ...(task.input === undefined ? {} : { input: task.input as JsonValue }),
      limits: mergeLimits(limits, task.limits),
      staged: task.staged ?? false,
    })),
    ...(project.workflow === undefined ? {} : { workflow: workflowOf(project.workflow) }),
  };
}

function agentSettings(
  name: string,
  agent: NonNullable<z.infer<typeof projectSchema>['agents']>[string],
): AgentSettings {
  const { tract = 'external', concurrency = 1, mailbox, overflow, fallback, breaker } = agent;
  const { failures, open, successes } = breaker ?? {};
  return {
    name,
    tract,
    concurrency,
    ...(mailbox === undefined ? {} : { mailboxLimit: mailbox }),
    ...(overflow === undefined ? {} : { overflow }),
    ...(fallback === undefined ? {} : { fallback }),
    ...(breaker === undefined
      ? {}
      : {
          breaker: {
            ...(failures === undefined ? {} : { failures }),
            ...(open === undefined ? {} : { openMs: open }),
            ...(successes === undefined ? {} : { successes }),
          },
        }),
  };
}

/** Fallbacks of agents: each an agent, and none the agent itself, be it by way of others. */
function checkFallbacks(
  source: ConfigSource,
  agents: Readonly<Record<string, unknown>>,
  noAgent: (name: string) => () => string,
  problems: ConfigProblem[],
): void {
  const fallbackOf = (name: string): string | undefined =>
    Object.hasOwn(agents, name) ? textOrNothing(field(agents[name], 'fallback')) : undefined;
  const told = new Set<string>();
  for (const name of Object.keys(agents)) {
    const fallback = fallbackOf(name);
    if (fallback === undefined) continue;
    const where = ['agents', name, 'fallback'];
    if (!Object.hasOwn(agents, fallback)) {
      problems.push(source.problem(where, noAgent(fallback)));
      continue;
    }
    const way = [name];
    let next: string | undefined = fallback;
    while (next !== undefined && !way.includes(next)) {
      way.push(next);
      next = fallbackOf(next);
    }
    if (next !== name || told.has(name)) continue;
    for (const one of way) told.add(one);
    problems.push(
      source.problem(where, `the fallbacks go round in a circle: ${[...way, name].join(' → ')}`),
    );
  }
}

type GivenWorkflow = NonNullable<ReturnType<typeof projectSchema.parse>['workflow']>;

function workflowOf({ phases, ...whole }: GivenWorkflow): ConfiguredWorkflow {
  const inMs = <T extends { readonly budget?: number | undefined }>({ budget, ...rest }: T) => ({
    ...rest,
    ...(budget === undefined ? {} : { budgetMs: budget }),
  });
  return { ...inMs(whole), phases: phases.map(inMs) } as unknown as ConfiguredWorkflow;
}

/** What the reader refused, and what else is wrong: less what is said of those same places because nothing is left there. */
function withConsequences(
  refused: readonly ConfigProblem[],
  problems: readonly ConfigProblem[],
): readonly ConfigProblem[] {
  const place = ({ file, line, column }: ConfigProblem) => `${line}:${column}:${file}`;
  const places = new Set(refused.map(place));
  return [...refused, ...problems.filter((problem) => !places.has(place(problem)))];
}

const LIMITED_REACH = 50;

const reachOf = ({ concurrency, ...agent }: ConfiguredAgent): number =>
  ['perKey', 'rateLimit', 'throttle', 'debounce'].some((limit) => limit in agent)
    ? Math.max(concurrency, LIMITED_REACH)
    : concurrency;

type GivenAgent = NonNullable<ReturnType<typeof projectSchema.parse>['agents']>[string];

/** In the file a period is a duration such as 10s. */
function flowOf({ perKey, rateLimit, throttle, debounce }: GivenAgent): FlowOptions {
  const rate = (given: NonNullable<typeof rateLimit>) => ({
    limit: given.limit,
    periodMs: given.period,
    ...(given.key === undefined ? {} : { key: given.key }),
  });
  return {
    ...(perKey === undefined ? {} : { perKey }),
    ...(rateLimit === undefined ? {} : { rateLimit: rate(rateLimit) }),
    ...(throttle === undefined ? {} : { throttle: rate(throttle) }),
    ...(debounce === undefined
      ? {}
      : { debounce: { key: debounce.key, periodMs: debounce.period } }),
  };
}

type GivenReview = NonNullable<NonNullable<ReturnType<typeof projectSchema.parse>>['review']>;

function reviewOf({ mode, decide, failures, pause, reviewers }: GivenReview): ReviewOptions {
  return {
    ...(mode === undefined ? {} : { mode }),
    ...(decide === undefined ? {} : { decide }),
    ...(failures === undefined ? {} : { failures }),
    ...(pause === undefined ? {} : { pauseMs: pause }),
    reviewers: reviewers.map(({ name, run, timeout }) => ({
      name,
      command: run,
      timeoutMs: timeout ?? DEFAULT_VERIFY_TIMEOUT_MS,
    })),
  };
}

type GivenLimits = NonNullable<NonNullable<ReturnType<typeof projectSchema.parse>>['limits']>;

function mergeLimits(base: ConfiguredLimits, given: GivenLimits = {}): ConfiguredLimits {
  return {
    attempts: given.attempts ?? base.attempts,
    sameError: given.sameError ?? base.sameError,
    sameChange: given.sameChange ?? base.sameChange,
    sameFeedback: given.sameFeedback ?? base.sameFeedback,
    infrastructureAttempts: given.infrastructureAttempts ?? base.infrastructureAttempts,
    interruptions: given.interruptions ?? base.interruptions,
    backoff: mergeBackoff(base.backoff, given.backoff),
    infrastructureBackoff: mergeBackoff(base.infrastructureBackoff, given.infrastructureBackoff),
  };
}

function mergeBackoff(
  base: ConfiguredBackoff,
  given: GivenLimits['backoff'] = {},
): ConfiguredBackoff {
  return {
    initialMs: given.initial ?? base.initialMs,
    factor: given.factor ?? base.factor,
    maxMs: given.max ?? base.maxMs,
  };
}

/** The tasks as the user wrote them, and where they stand. */
interface GivenTasks {
  readonly source: ConfigSource;
  /** The file of their own, by the name that was given and as it is; absent when they stand in troupe.yaml. */
  readonly paths?: readonly string[];
  /** Path of the list in that source. */
  readonly base: readonly PropertyKey[];
  readonly value: unknown;
  readonly items: readonly GivenTask[];
  /** False when the tasks are in a file that could not be read: then nobody can say that one is missing. */
  readonly known: boolean;
}

/** What is usable of one task; the schema reports the rest. */
interface GivenTask {
  readonly index: number;
  readonly id: string | undefined;
  /** Those that are named, with the keys behind `agent` or `qa`. */
  readonly agents: readonly NamedAgent[];
  readonly qa: readonly NamedAgent[];
  readonly dependsOn: readonly unknown[];
  /** Names of its acceptance commands. */
  readonly accept: readonly (string | undefined)[];
  readonly patch: unknown;
  readonly patches: unknown;
}

interface NamedAgent {
  readonly name: string;
  readonly keys: readonly PropertyKey[];
}

/** What can be looked up of an agent, or of a list of them. */
function namesIn(value: unknown, ...keys: readonly PropertyKey[]): readonly NamedAgent[] {
  if (typeof value === 'string') return [{ name: value, keys }];
  return (Array.isArray(value) ? value.slice(0, MAX_CHAIN) : []).flatMap((name: unknown, index) =>
    typeof name === 'string' ? [{ name, keys: [...keys, index] }] : [],
  );
}

async function findTasks(
  source: ConfigSource,
  files: ProjectFiles,
  problems: ConfigProblem[],
): Promise<GivenTasks> {
  const given = field(source.value, 'tasks');
  const value = given === undefined ? [] : given;
  if (typeof value !== 'string') {
    return { source, base: ['tasks'], value, items: givenTasks(value), known: true };
  }
  const unknown: GivenTasks = { source, base: ['tasks'], value: [], items: [], known: false };
  const found = await files.find(value);
  if ('refused' in found) {
    problems.push(source.problem(['tasks'], found.refused));
    return unknown;
  }
  const read = await readConfigSource(
    found.path,
    path.join(path.dirname(source.file), path.normalize(value)),
    ['tasks'],
  );
  if ('problems' in read) {
    for (const problem of read.problems) problems.push(problem);
    return unknown;
  }
  const list = read.source.value;
  return {
    source: read.source,
    paths: [path.resolve(files.directory, value), found.path],
    base: [],
    value: list,
    items: givenTasks(list),
    known: true,
  };
}

function givenTasks(list: unknown): readonly GivenTask[] {
  if (!Array.isArray(list)) return [];
  return list.map((item: unknown, index) => {
    const dependsOn = field(item, 'dependsOn');
    const patches = field(item, 'patches');
    const accept = field(item, 'accept');
    return {
      index,
      id: textOrNothing(field(item, 'id')),
      agents: namesIn(field(item, 'agent'), 'agent'),
      qa: namesIn(field(field(item, 'qa'), 'agent'), 'qa', 'agent'),
      // The schema refuses longer lists; to look up half a million names first would take minutes.
      dependsOn: Array.isArray(dependsOn) ? dependsOn.slice(0, MAX_DEPENDENCIES) : [],
      accept: (Array.isArray(accept) ? accept : [])
        .slice(0, MAX_ACCEPT_COMMANDS)
        .map((command) => textOrNothing(field(command, 'name'))),
      patch: field(item, 'patch'),
      patches: Array.isArray(patches) ? patches.slice(0, MAX_PATCHES) : patches,
    };
  });
}

function field(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
}

function textOrNothing(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** No work is accepted without tests unless the file says, in words, that there are none. */
function checkVerify(source: ConfigSource, problems: ConfigProblem[]): void {
  const verify = field(source.value, 'verify');
  if (!Array.isArray(verify) || verify.length === 0) return;
  const names = new Map<string, number>();
  for (const [index, command] of verify.entries()) {
    const name = textOrNothing(field(command, 'name'));
    if (name === undefined) continue;
    const first = names.get(name);
    if (first !== undefined) {
      const { line } = source.problem(['verify', first], '');
      problems.push(
        source.problem(
          ['verify', index, 'name'],
          `${name} is already the name of the command on line ${line}`,
        ),
      );
    }
    names.set(name, first ?? index);
    if (name === 'test' && field(command, 'allowFail') === true) {
      problems.push(
        source.problem(
          ['verify', index, 'allowFail'],
          'the test command may never fail; remove allowFail, or give the command another name',
        ),
      );
    }
    if (name === 'test' && field(command, 'cache') !== undefined) {
      problems.push(
        source.problem(
          ['verify', index, 'cache'],
          'the test command is always run; remove cache, or give it to the command that installs',
        ),
      );
    }
  }
  const none = field(source.value, 'tests') === 'none';
  const why = textOrNothing(field(source.value, 'noTests'));
  if (none && names.has('test')) {
    problems.push(
      source.problem(
        ['tests'],
        'says that there are no tests, but verify has a command named test; remove one of the two',
      ),
    );
  } else if (!none && why === undefined && !names.has('test')) {
    problems.push(
      source.keyProblem(
        ['verify'],
        'no command is named test; add the command that runs the tests, or say why there are none: noTests: "…"',
      ),
    );
  }
}

/** What an agent may be asked for; undefined: for anything, or nobody can say. One that applies patches mends nothing. */
function stagesIn(agent: unknown): readonly string[] | undefined {
  if (field(agent, 'engine') === 'patch') return ['implement'];
  const stages = field(agent, 'stages');
  return Array.isArray(stages) && stages.length > 0 ? stages.map(String) : undefined;
}

/** Names that must be the name of something: ids, agents, dependencies, conditions of rules. */
function checkReferences(source: ConfigSource, tasks: GivenTasks, problems: ConfigProblem[]): void {
  const at = (task: GivenTask, ...keys: PropertyKey[]) => [...tasks.base, task.index, ...keys];
  const given = field(source.value, 'agents');
  // When `agents` itself is wrong, complaining about each task's agent would only hide that.
  const agentsKnown = given === undefined || isMapping(given);
  const agents = isMapping(given) ? Object.keys(given) : [];
  const agentNames = new Set(agents);
  const noAgent = (name: string) => () =>
    `no agent is called ${name}${agents.length === 0 ? '; none is configured under agents' : suggestion(name, agents, 'the agents are')}`;

  if (isMapping(given)) checkFallbacks(source, given, noAgent, problems);
  const checkNamed = (
    named: readonly NamedAgent[],
    stage: AgentStage,
    place: ConfigSource,
    base: readonly PropertyKey[],
  ): void => {
    for (const [index, { name, keys }] of named.entries()) {
      const refuse = (what: string | (() => string)) =>
        problems.push(place.problem([...base, ...keys], what));
      const stages = stagesIn(field(given, name));
      if (agentsKnown && !agentNames.has(name)) refuse(noAgent(name));
      else if (named.findIndex((one) => one.name === name) < index)
        refuse(`${name} is listed twice`);
      else if (stages !== undefined && !stages.includes(stage)) {
        refuse(`${name} is not for the stage ${stage}; its stages are ${stages.join(', ')}`);
      }
    }
  };
  checkNamed(namesIn(field(field(source.value, 'qa'), 'agent'), 'qa', 'agent'), 'qa', source, []);

  const byId = new Map<string, GivenTask>();
  for (const task of tasks.items) {
    for (const [index, name] of task.accept.entries()) {
      if (name === undefined || task.accept.indexOf(name) === index) continue;
      problems.push(
        tasks.source.problem(
          at(task, 'accept', index, 'name'),
          `${name} is already the name of a command of this task`,
        ),
      );
    }
    checkNamed(task.agents, 'implement', tasks.source, at(task));
    checkNamed(task.qa, 'qa', tasks.source, at(task));
    if (task.id === undefined) continue;
    const first = byId.get(task.id);
    if (first === undefined) {
      byId.set(task.id, task);
      continue;
    }
    const { line } = tasks.source.problem(at(first, 'id'), '');
    problems.push(
      tasks.source.problem(
        at(task, 'id'),
        `${task.id} is already the id of the task on line ${line}`,
      ),
    );
  }

  const ids = [...byId.keys()];
  const noTask = (id: string) => () =>
    `no task has the id ${id}${ids.length === 0 ? '' : suggestion(id, ids, 'the ids are')}`;
  for (const task of tasks.items) {
    for (const [index, id] of task.dependsOn.entries()) {
      if (typeof id !== 'string') continue;
      const where = at(task, 'dependsOn', index);
      if (id === task.id) {
        problems.push(tasks.source.problem(where, `the task ${id} depends on itself`));
      } else if (task.dependsOn.indexOf(id) < index) {
        problems.push(tasks.source.problem(where, `${id} is listed twice`));
      } else if (!byId.has(id)) {
        problems.push(tasks.source.problem(where, noTask(id)));
      }
    }
  }
  for (const cycle of findCycles(byId)) {
    const first = cycle[0];
    if (first === undefined) continue;
    problems.push(
      tasks.source.problem(at(first, 'dependsOn'), `dependency cycle: ${describeCycle(cycle)}`),
    );
  }

  const reviewers = field(field(source.value, 'review'), 'reviewers');
  const names = (Array.isArray(reviewers) ? reviewers.slice(0, MAX_REVIEWERS) : []).map(
    (reviewer) => textOrNothing(field(reviewer, 'name')),
  );
  for (const [index, name] of names.entries()) {
    if (name === undefined || names.indexOf(name) === index) continue;
    problems.push(
      source.problem(
        ['review', 'reviewers', index, 'name'],
        `${name} is already the name of a reviewer`,
      ),
    );
  }

  const policy = field(field(source.value, 'overseer'), 'policy');
  for (const [index, rule] of (Array.isArray(policy) ? policy : []).entries()) {
    const where = ['overseer', 'policy', index];
    const task = textOrNothing(field(field(rule, 'when'), 'task'));
    const agent = textOrNothing(field(field(rule, 'when'), 'agent'));
    if (task !== undefined && tasks.known && !byId.has(task)) {
      problems.push(source.problem([...where, 'when', 'task'], noTask(task)));
    }
    if (agent !== undefined && agentsKnown && !agentNames.has(agent)) {
      problems.push(source.problem([...where, 'when', 'agent'], noAgent(agent)));
    }
    if (field(rule, 'guidance') !== undefined && field(rule, 'decide') !== 'retry') {
      problems.push(
        source.keyProblem([...where, 'guidance'], 'is only for rules that decide: retry'),
      );
    }
  }
}

/** Phases name tasks, each of which is in one of them, and phases before them. */
function checkPhases(source: ConfigSource, tasks: GivenTasks, problems: ConfigProblem[]): void {
  const given = field(field(source.value, 'workflow'), 'phases');
  if (!Array.isArray(given)) return;
  const ids = tasks.items.flatMap(({ id }) => id ?? []);
  const homes = new Map<string, string>();
  const before: string[] = [];
  const all = given.flatMap((phase) => textOrNothing(field(phase, 'id')) ?? []);
  for (const [index, phase] of given.entries()) {
    const where = ['workflow', 'phases', index];
    const id = textOrNothing(field(phase, 'id')) ?? `${index + 1}`;
    if (before.includes(id)) {
      problems.push(source.problem([...where, 'id'], `there is another phase called ${id}`));
    }
    const named = field(phase, 'tasks');
    for (const [at, task] of (Array.isArray(named) ? named : []).entries()) {
      if (typeof task !== 'string') continue;
      const place = [...where, 'tasks', at];
      const home = homes.get(task);
      if (tasks.known && !ids.includes(task)) {
        const known = ids.length === 0 ? '' : suggestion(task, ids, 'the ids are');
        problems.push(source.problem(place, () => `no task has the id ${task}${known}`));
      } else if (home !== undefined) {
        problems.push(source.problem(place, `the task ${task} is in the phase ${home} already`));
      }
      homes.set(task, home ?? id);
    }
    const after = field(phase, 'after');
    for (const [at, other] of (Array.isArray(after) ? after : []).entries()) {
      if (typeof other !== 'string' || before.includes(other)) continue;
      const what = all.includes(other)
        ? `the phase ${other} must come before ${id} in the list`
        : `no phase is called ${other}${suggestion(other, all, 'the phases are')}`;
      problems.push(source.problem([...where, 'after', at], what));
    }
    before.push(id);
  }
  const homeless = ids.filter((id) => !homes.has(id));
  const [first] = homeless;
  if (first === undefined) return;
  const rest = homeless.length - 1;
  const what =
    rest === 0
      ? `the task ${first} is in no phase; add it to one`
      : `the task ${first} and ${rest} more are in no phase; add each to one`;
  problems.push(source.keyProblem(['workflow', 'phases'], what));
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** More cycles than this are not looked for: a dense tangle has too many to list. */
const MAX_CYCLES = 20;

/** One cycle for each dependency that closes one. Without recursion: a chain may be 10 000 tasks long. */
function findCycles(byId: ReadonlyMap<string, GivenTask>): readonly (readonly GivenTask[])[] {
  const cycles: GivenTask[][] = [];
  const finished = new Set<GivenTask>();
  for (const root of byId.values()) {
    const trail: { readonly task: GivenTask; next: number }[] = [{ task: root, next: 0 }];
    const onTrail = new Map<GivenTask, number>([[root, 0]]);
    for (let top = trail.at(-1); top !== undefined; top = trail.at(-1)) {
      const id = top.task.dependsOn[top.next];
      top.next += 1;
      if (finished.has(top.task) || top.next > top.task.dependsOn.length) {
        finished.add(top.task);
        onTrail.delete(top.task);
        trail.pop();
        continue;
      }
      const task = typeof id === 'string' ? byId.get(id) : undefined;
      // A task that depends on itself has been reported as that.
      if (task === undefined || task === top.task || finished.has(task)) continue;
      const start = onTrail.get(task);
      if (start === undefined) {
        onTrail.set(task, trail.length);
        trail.push({ task, next: 0 });
      } else {
        cycles.push(trail.slice(start).map((step) => step.task));
        if (cycles.length >= MAX_CYCLES) return cycles;
      }
    }
  }
  return cycles;
}

/** Ids named of one cycle; a longer one shows its beginning and its end. */
const MAX_CYCLE_SHOWN = 10;

function describeCycle(cycle: readonly GivenTask[]): string {
  const ids = cycle.map((task) => task.id ?? '');
  const shown =
    ids.length <= MAX_CYCLE_SHOWN
      ? ids
      : [
          ...ids.slice(0, MAX_CYCLE_SHOWN / 2),
          `… (${ids.length - MAX_CYCLE_SHOWN} more)`,
          ...ids.slice(-MAX_CYCLE_SHOWN / 2),
        ];
  return [...shown, ids[0]].join(' -> ');
}

/** Checks that exactly the tasks of patch engines have patches, and finds the files. One list for each task. */
async function findPatches(
  source: ConfigSource,
  tasks: GivenTasks,
  files: ProjectFiles,
  problems: ConfigProblem[],
): Promise<readonly (readonly string[])[]> {
  const engines = new Map<string, unknown>();
  const agents = field(source.value, 'agents');
  for (const [name, agent] of Object.entries(isMapping(agents) ? agents : {})) {
    engines.set(name, field(agent, 'engine'));
  }
  const all: string[][] = [];
  for (const task of tasks.items) {
    const at = (...keys: PropertyKey[]) => [...tasks.base, task.index, ...keys];
    const named = task.agents.map(({ name }) => name);
    const applies = named.find((name) => engines.get(name) === 'patch');
    const other = named.find((name) => engines.get(name) === 'command');
    const hasPatch = task.patch !== undefined;
    const hasPatches = task.patches !== undefined;
    if (applies === undefined && other !== undefined) {
      for (const key of [...(hasPatch ? ['patch'] : []), ...(hasPatches ? ['patches'] : [])]) {
        problems.push(
          tasks.source.keyProblem(
            at(key),
            `is only for agents with engine: patch; ${other} has engine: command`,
          ),
        );
      }
    } else if (applies !== undefined && !hasPatch && !hasPatches) {
      problems.push(
        tasks.source.problem(
          at(),
          `the agent ${applies} has engine: patch, so this task needs patch or patches`,
        ),
      );
    }
    if (hasPatch && hasPatches) {
      problems.push(tasks.source.keyProblem(at('patches'), 'expected patch or patches, got both'));
    }
    const listed: [PropertyKey[], unknown][] = [
      ...(hasPatch ? [[at('patch'), task.patch] as [PropertyKey[], unknown]] : []),
      ...(Array.isArray(task.patches) ? task.patches : []).map(
        (name: unknown, index): [PropertyKey[], unknown] => [at('patches', index), name],
      ),
    ];
    const found: string[] = [];
    for (const [keys, name] of listed) {
      if (typeof name !== 'string' || name === '') continue;
      const file = await files.find(name);
      if ('refused' in file) problems.push(tasks.source.problem(keys, file.refused));
      else found.push(file.path);
    }
    all.push(found);
  }
  return all;
}
