import path from 'node:path';
import type { Logger } from 'pino';
import {
  createTroupe,
  type JsonValue,
  openSqliteStore,
  PackedStore,
  type RunSpec,
  type Store,
  type TaskInput,
  type Troupe,
  type WorkflowSpec,
} from '../index.ts';
import type { ProjectConfig } from './config.ts';
import { codecOf } from './encryption.ts';
import { policyOf } from './policy.ts';
import { requirePrograms } from './programs.ts';
import { prepareStateDirectory } from './state-directory.ts';

export interface ComposeOptions {
  /** Default: as `createTroupe`. */
  readonly logger?: Logger;
  /**
   * Whether agents may work. Without, tasks can be decided about and nothing new is begun: their work waits for the
   * next runtime. Default true.
   */
  readonly agents?: boolean;
  /** Take the store from a process that seems to live and has shown no sign of it for a minute. Default false. */
  readonly takeOver?: boolean;
}

/** A runtime for a project, and the store it works on, to be read from. Stop the runtime; that closes the store. */
export interface Composition {
  readonly troupe: Troupe;
  readonly store: Store;
}

/**
 * Opens a project as troupe.yaml describes it: its store in `.troupe/state.db`, its repository, its agents, its
 * overseer's policy. What waits in the store goes on at once.
 * @throws {LockConflictError} another process works on it; the message names it
 * @throws {ConfigurationError} the repository cannot be worked with; with agents also: the target is checked out
 * somewhere with uncommitted changes, or a program that a command begins with is missing. No agent has begun then
 */
export async function composeTroupe(
  config: ProjectConfig,
  options: ComposeOptions = {},
): Promise<Composition> {
  const { logger, agents = true, takeOver = false } = options;
  const { directory } = config;
  const stateDirectory = await prepareStateDirectory(directory);
  // Before the store is opened: without its keys nothing in it could be read.
  const codec = codecOf(config.encryption, directory);
  const sqlite = await openSqliteStore({
    path: path.join(stateDirectory, 'state.db'),
    takeOver,
    ...(logger === undefined ? {} : { onWarning: (message) => logger.warn(message) }),
  });
  const store = new PackedStore(sqlite, codec === undefined ? {} : { codec });
  // Closes the store when it fails.
  const troupe = await createTroupe({
    store,
    project: {
      directory,
      target: config.target,
      verify: config.verify.map(({ run, ...command }) => ({ ...command, command: run })),
      policy: config.gate,
      ...(config.review === undefined ? {} : { review: config.review }),
      ...(config.noTests === undefined ? {} : { noTests: config.noTests }),
      ...(config.ports === undefined ? {} : { ports: config.ports }),
      ...(config.verifyAtOnce === undefined ? {} : { verifyAtOnce: config.verifyAtOnce }),
      ...(config.preflight === undefined ? {} : { preflight: config.preflight }),
      environment: config.environment,
      stateDirectory,
      // Agents would work for nothing, or for a long time at least. To decide about a task it may be as it is.
      requireClean: agents,
    },
    retention: config.retention,
    ...(logger === undefined ? {} : { logger }),
  });
  troupe.overseer(policyOf(config.policy));
  if (agents) {
    try {
      requirePrograms(config);
    } catch (error) {
      await troupe.stop();
      throw error;
    }
    for (const agent of config.agents) {
      if (agent.engine === 'patch') {
        const { name, engine: _engine, ...options } = agent;
        troupe.patchAgent(name, options);
      } else if (agent.engine === 'preset') {
        const { name, engine: _engine, program, ...options } = agent;
        troupe.commandAgent(name, { ...program, projectDirectory: directory }, options);
      } else {
        const { name, engine: _engine, run, ...options } = agent;
        troupe.commandAgent(name, { run, projectDirectory: directory }, options);
      }
    }
  }
  return { troupe, store };
}

/** The backlog as a run. */
export function runSpecOf(config: ProjectConfig, id: string): RunSpec {
  return {
    id,
    concurrency: config.concurrency,
    ...(config.staging === undefined ? {} : { staging: config.staging }),
    ...(config.qa === undefined ? {} : { qa: config.qa }),
    tasks: config.tasks.map(
      (task): TaskInput => ({
        id: task.id,
        title: task.title,
        agent: task.agent,
        dependsOn: task.dependsOn,
        // As the file has it: a run that was begun before there were any is still the same run.
        ...(task.accept === undefined
          ? {}
          : { accept: task.accept.map(({ run, ...command }) => ({ ...command, command: run })) }),
        priority: task.priority,
        input: inputOf(task),
        limits: task.limits,
        ...(task.qa === undefined ? {} : { qa: task.qa }),
        staged: task.staged,
      }),
    ),
  };
}

/** The backlog as a run in phases; undefined if the project has none. */
export function workflowSpecOf(config: ProjectConfig, id: string): WorkflowSpec | undefined {
  const { workflow } = config;
  if (workflow === undefined) return undefined;
  const { tasks, ...run } = runSpecOf(config, id);
  const byId = new Map(tasks.map((task) => [task.id, task]));
  return {
    ...run,
    ...workflow,
    phases: workflow.phases.map((phase) => ({
      ...phase,
      tasks: phase.tasks.map((task) => byId.get(task) as TaskInput),
    })),
  };
}

/** A patch engine reads the names of its files in the task's input. */
function inputOf({ input, patches }: ProjectConfig['tasks'][number]): JsonValue {
  if (patches.length === 0) return input ?? null;
  if (input === undefined || input === null) return { patches: [...patches] };
  const isMapping = typeof input === 'object' && !Array.isArray(input);
  return { ...(isMapping ? input : { input }), patches: [...patches] };
}
