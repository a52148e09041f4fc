import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { type Logger, pino } from 'pino';
import { fromEvent, map, type Observable } from 'rxjs';
import type { AnyStateMachine } from 'xstate';
import { agentActor, type RegisteredAgent } from './actors/agent.ts';
import { type CommandEngineOptions, commandEngine } from './actors/command-engine.ts';
import type { Compensations } from './actors/compensation.ts';
import type { Engine } from './actors/engine.ts';
import {
  gatekeeperActor,
  genericVerifier,
  type Verifier,
  type VerifyFunction,
} from './actors/gatekeeper.ts';
import { GitProject, type GitProjectOptions } from './actors/git-project.ts';
import { type OverseerPolicy, overseerActor } from './actors/overseer.ts';
import { patchEngine } from './actors/patch-engine.ts';
import { Registry } from './actors/registry.ts';
import { runActor } from './actors/run.ts';
import { GIT_GATEKEEPER, taskActor } from './actors/task.ts';
import { breakerMachine } from './machines/breaker-machine.ts';
import {
  type BlockersSummary,
  staggerMs,
  summariseBlockers,
} from './machines/policies/blockers.ts';
import { checkDependencies } from './machines/policies/dependency-graph.ts';
import { didYouMean } from './machines/policies/did-you-mean.ts';
import { errorFingerprint } from './machines/policies/fingerprint.ts';
import {
  DEFAULT_TASK_LIMITS,
  parseTaskLimits,
  type TaskLimits,
} from './machines/policies/limits.ts';
import { phaseOf } from './machines/policies/task-phase.ts';
import { projectRun, projectTask, type RunState } from './machines/projections.ts';
import type { RunContext, RunInput } from './machines/run-machine.ts';
import { startState, type TaskSpec } from './machines/task-machine.ts';
import {
  type Address,
  agentAddress,
  breakerAddress,
  gatekeeperAddress,
  overseerAddress,
  parseId,
  runAddress,
  taskAddress,
} from './protocol/address.ts';
import type { Decision, TaskPhase, TaskState } from './protocol/catalogue.ts';
import type { AcceptedBy } from './protocol/commands.ts';
import {
  ConfigurationError,
  ConflictError,
  NotFoundError,
  StoppedError,
  ValidationError,
} from './protocol/errors.ts';
import { type FaultPoint, noFaults } from './protocol/fault-point.ts';
import { deepHash, unitHash } from './protocol/hash.ts';
import { findNonJson, type JsonValue } from './protocol/json.ts';
import type { Message } from './protocol/message.ts';
import { type Priority, type PriorityName, parsePriority } from './protocol/priority.ts';
import { type Clock, systemClock } from './runtime/clock.ts';
import {
  DurableHost,
  type MachineOptions,
  type RequestOptions,
  type SendOptions,
} from './runtime/durable-host.ts';
import type { HostEvents, Turn } from './runtime/host-events.ts';
import { MemoryStore } from './store/memory/memory-store.ts';
import { openSqliteStore } from './store/sqlite/sqlite-store.ts';
import type { AttemptRow, Store, TaskRow } from './store/store.ts';

export interface TroupeOptions {
  /** Path of the SQLite file (made if need be), `:memory:`, or a store of your own. */
  readonly store: string | Store;
  /** `full` survives power loss; `normal` survives `kill -9` and is faster. Default `full`. */
  readonly durability?: 'full' | 'normal';
  /** A git repository for tasks that are code. */
  readonly project?: GitProjectOptions;
  /** Default: warnings and worse, as JSON lines on stderr. */
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly newId?: () => string;
  /** Messages that may wait for one agent. Default 1 000. */
  readonly agentMailboxLimit?: number;
  /** An agent or gatekeeper that shows no sign of life for so long is aborted. Default 600 000 ms; 0: never. */
  readonly heartbeatMs?: number;
  /** @internal */
  readonly faultPoint?: FaultPoint;
  /** @internal */
  readonly defer?: (callback: () => void, yielding: boolean) => void;
}

export interface AgentOptions {
  /** Tasks done at once. Default 1. */
  readonly concurrency?: number;
  /** For one attempt. Default 1 200 000 ms (20 minutes). */
  readonly timeoutMs?: number;
  /** By step name: takes a finished step back when its task is cancelled; newest first. */
  readonly compensate?: Compensations;
}

export interface TaskInput {
  readonly id: string;
  /** Default: the id. */
  readonly title?: string;
  readonly agent: string;
  /** Default: `git` if a project is open. */
  readonly gatekeeper?: string;
  /** Tasks of the same run that must be done first; at most 20. */
  readonly dependsOn?: readonly string[];
  /** Default `normal`. */
  readonly priority?: PriorityName | Priority;
  readonly input?: JsonValue;
  readonly limits?: Partial<TaskLimits>;
  /** Not started until it is enabled. */
  readonly staged?: boolean;
}

export interface RunSpec {
  /** Starting a run that exists, with the same tasks, is harmless. Default: a new id. */
  readonly id?: string;
  readonly title?: string;
  readonly tasks: readonly TaskInput[];
  readonly limits?: Partial<TaskLimits>;
  /** Tasks in flight at once, being worked on or verified. Default: twice what the agents can do together. */
  readonly concurrency?: number;
}

/** A task as it stands. */
export interface TaskStatus {
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly state: TaskState;
  readonly agent: string;
  readonly attempts: number;
  /** Why it waits, is blocked or will be retried. */
  readonly reason: string | null;
  /** Whose fault it was that it stopped. */
  readonly cause: 'work' | 'infrastructure' | null;
  readonly dependsOn: readonly string[];
  /** What an agent asked, while the task awaits the answer. */
  readonly question: JsonValue;
  /** The file that proves the last verdict. */
  readonly artifact: string | null;
  readonly commit: string | null;
  readonly updatedAt: number;
}

export interface RunStatus {
  readonly id: string;
  readonly title: string;
  readonly state: RunState;
  readonly total: number;
  readonly counts: Readonly<Record<TaskPhase, number>>;
  /** What a run that stands still waits for. */
  readonly reason: string | null;
  readonly createdAt: number;
  readonly endedAt: number | null;
}

export interface RunResult extends RunStatus {
  readonly tasks: readonly TaskStatus[];
}

const DEFAULT_CONCURRENCY = 1;
const DEFAULT_AGENT_TIMEOUT_MS = 1_200_000;
const OVERSEER = 'main';
const MAX_TASKS = 1_000_000;

/**
 * Opens a store and goes on with whatever waits in it. Register agents and gatekeepers right after; work of agents
 * that are not registered yet waits for them.
 * @throws {LockConflictError} another process has the store open; the message names it
 * @throws {ConfigurationError} the project or an option cannot be worked with
 */
export async function createTroupe(options: TroupeOptions): Promise<Troupe> {
  const logger = options.logger ?? pino({ level: 'warn' }, pino.destination(2));
  const faultPoint = options.faultPoint ?? noFaults;
  const store = await openStore(options, logger, faultPoint);
  try {
    const project =
      options.project === undefined
        ? undefined
        : await GitProject.open(options.project, faultPoint);
    const troupe = new Troupe(options, store, project, logger, faultPoint);
    await troupe.open();
    return troupe;
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function openStore(
  options: TroupeOptions,
  logger: Logger,
  faultPoint: FaultPoint,
): Promise<Store> {
  if (typeof options.store !== 'string') return options.store;
  if (options.store === ':memory:') return new MemoryStore();
  await mkdir(path.dirname(path.resolve(options.store)), { recursive: true });
  return await openSqliteStore({
    path: options.store,
    durability: options.durability ?? 'full',
    faultPoint,
    onWarning: (message) => logger.warn(message),
  });
}

export class Troupe {
  /** Turns of all actors, told after they are stored. */
  readonly turns$: Observable<Turn>;
  readonly #host: DurableHost;
  readonly #store: Store;
  readonly #project: GitProject | undefined;
  readonly #clock: Clock;
  readonly #newId: () => string;
  readonly #logger: Logger;
  readonly #agents: Registry<RegisteredAgent>;
  readonly #concurrency = new Map<string, number>();
  readonly #verifiers: Registry<Verifier>;
  #policy: OverseerPolicy | undefined;
  readonly #setup: Promise<unknown>[] = [];
  readonly #waiting = new Set<(error: Error) => void>();
  #keepAlive: NodeJS.Timeout | undefined;

  /** @internal Use `createTroupe`. */
  constructor(
    options: TroupeOptions,
    store: Store,
    project: GitProject | undefined,
    logger: Logger,
    faultPoint: FaultPoint,
  ) {
    this.#store = store;
    this.#project = project;
    this.#clock = options.clock ?? systemClock;
    this.#newId = options.newId ?? randomUUID;
    this.#logger = logger;
    const onMissing = (what: string, name: string): void =>
      logger.warn({ name }, `work waits for the ${what} "${name}", which is not registered`);
    this.#agents = new Registry<RegisteredAgent>('agent', onMissing);
    this.#verifiers = new Registry<Verifier>('gatekeeper', onMissing);
    this.#host = new DurableHost({
      store,
      clock: this.#clock,
      logger,
      newId: this.#newId,
      faultPoint,
      effects: { heartbeatMs: options.heartbeatMs ?? 600_000 },
      ...(options.defer === undefined ? {} : { defer: options.defer }),
    });
    this.#host.register('run', runActor(store), {
      project: (actor) => projectRun(actor as never),
    });
    this.#host.register('task', taskActor(store, this.#agents, project), {
      project: (actor) => projectTask(actor as never),
    });
    this.#host.register('agent', agentActor(this.#agents, project, this.#clock), {
      mailboxLimit: options.agentMailboxLimit ?? 1_000,
    });
    this.#host.register('gatekeeper', gatekeeperActor(this.#verifiers));
    this.#host.register(
      'overseer',
      overseerActor(() => this.#policy),
    );
    this.#host.register('breaker', breakerMachine);
    this.turns$ = fromEvent(this.#host.events as never, 'turn').pipe(map((turn) => turn as Turn));
  }

  /** @internal Called by `createTroupe`. */
  async open(): Promise<void> {
    if (this.#project !== undefined) {
      const { processes, checkouts } = await this.#project.recover();
      if (processes.length > 0) {
        this.#logger.warn({ processes }, 'ended processes that a crashed run had left behind');
      }
      if (checkouts.length > 0) {
        this.#logger.warn({ checkouts }, 'brought checkouts forward that a crash had left behind');
      }
      const live: { run: string; task: string }[] = [];
      for (const run of await this.#store.listRuns()) {
        if (run.endedAt !== null) continue;
        for (const task of await this.#store.listTasks(run.run)) {
          if (task.state !== 'done' && task.state !== 'cancelled') {
            live.push({ run: task.run, task: task.task });
          }
        }
      }
      await this.#project.reap(live);
      this.#verifiers.add(GIT_GATEKEEPER, this.#project.verifier());
    }
    await this.#host.open();
    this.#spawnSoon([
      { address: overseerAddress(OVERSEER), machine: 'overseer', input: { name: OVERSEER } },
      ...(this.#project === undefined ? [] : [gatekeeperSpawn(GIT_GATEKEEPER, 1)]),
    ]);
  }

  /**
   * Registers an agent: a function that does tasks.
   * @throws {ConfigurationError} the name is taken or an option is out of range
   */
  agent(name: string, engine: Engine, options: AgentOptions = {}): void {
    this.#addAgent(name, engine, options, false);
  }

  #addAgent(name: string, engine: Engine, options: AgentOptions, freshOnRestart: boolean): void {
    parseId(name, 'the name of an agent');
    const concurrency = options.concurrency ?? DEFAULT_CONCURRENCY;
    const timeoutMs = options.timeoutMs ?? DEFAULT_AGENT_TIMEOUT_MS;
    requirePositive(`concurrency of agent "${name}"`, concurrency);
    requirePositive(`timeoutMs of agent "${name}"`, timeoutMs);
    this.#agents.add(name, {
      engine,
      timeoutMs,
      freshOnRestart,
      compensations: options.compensate ?? {},
    });
    this.#concurrency.set(name, concurrency);
    this.#spawnSoon(
      [
        { address: agentAddress(name), machine: 'agent', input: { name, concurrency } },
        {
          address: breakerAddress(`agent/${name}`),
          machine: 'breaker',
          input: { agent: name },
        },
      ],
      // An agent that lives on from before may have had other settings.
      () => this.#host.send(agentAddress(name), { type: 'agent.configure', concurrency }),
    );
  }

  /** Registers an agent that is a command run in the task's workspace. Needs a project. */
  commandAgent(name: string, command: CommandEngineOptions, options: AgentOptions = {}): void {
    const project = this.#requireProject(`agent "${name}"`);
    this.#addAgent(name, commandEngine(project, command), options, true);
  }

  /** Registers an agent that applies the patches named in a task's input. Needs a project. */
  patchAgent(name: string, options: AgentOptions = {}): void {
    this.#addAgent(name, patchEngine(this.#requireProject(`agent "${name}"`)), options, true);
  }

  /** Registers a gatekeeper for tasks that are not code. */
  gatekeeper(
    name: string,
    verify: VerifyFunction,
    options: { readonly concurrency?: number } = {},
  ): void {
    parseId(name, 'the name of a gatekeeper');
    const concurrency = options.concurrency ?? DEFAULT_CONCURRENCY;
    requirePositive(`concurrency of gatekeeper "${name}"`, concurrency);
    this.#verifiers.add(name, genericVerifier(name, verify, errorFingerprint));
    this.#spawnSoon([gatekeeperSpawn(name, concurrency)], () =>
      this.#host.send(gatekeeperAddress(name), { type: 'gatekeeper.configure', concurrency }),
    );
  }

  /** Lets a policy decide about escalated tasks; what it leaves undecided waits for a person. */
  overseer(policy: OverseerPolicy): void {
    if (this.#policy !== undefined) throw new ConfigurationError('There is an overseer already.');
    this.#policy = policy;
  }

  /**
   * Starts a run: all its tasks are stored in one commit, or none.
   * @throws {ValidationError} anything about the tasks that cannot work: ids, agents, dependencies, cycles, limits
   * @throws {ConflictError} a run of this id exists with other tasks
   */
  async start(spec: RunSpec): Promise<Run> {
    const id = parseId(spec.id ?? this.#newId(), 'the run id');
    const specs = this.#taskSpecs(id, spec);
    await this.#ready();
    const specHash = deepHash(specs as unknown as JsonValue);
    const known = await this.#host.inspect(runAddress(id));
    if (known !== undefined) {
      if ((known.snapshot.context as unknown as RunContext).specHash !== specHash) {
        throw new ConflictError(
          `A run "${id}" exists already, with other tasks. Choose another id, or go on with it: troupe.run("${id}").`,
        );
      }
      return new Run(this, id);
    }
    const counts: Partial<Record<TaskPhase, number>> = {};
    const slots: Record<string, number> = {};
    for (const task of specs) {
      const phase = phaseOf(startState(task));
      counts[phase] = (counts[phase] ?? 0) + 1;
      slots[task.agent] ??= this.#concurrency.get(task.agent) ?? DEFAULT_CONCURRENCY;
    }
    const together = Object.values(slots).reduce((sum, n) => sum + n, 0);
    const input: RunInput = {
      run: id,
      title: spec.title ?? id,
      createdAt: this.#clock.now(),
      specHash,
      counts,
      slots,
      // While one submission of an agent is verified, the agent may do its next task.
      concurrency: spec.concurrency ?? together * 2,
    };
    await this.#host.spawn([
      ...specs.map((task) => ({
        address: taskAddress(id, task.id),
        machine: 'task',
        input: task as unknown as JsonValue,
      })),
      { address: runAddress(id), machine: 'run', input: input as unknown as JsonValue },
    ]);
    return new Run(this, id);
  }

  /** A run that was started before, here or in a process that is gone. */
  run(id: string): Run {
    return new Run(this, parseId(id, 'the run id'));
  }

  async runs(): Promise<readonly RunStatus[]> {
    return (await this.#store.listRuns()).map(runStatus);
  }

  /** One task of a run, to be decided about. */
  task(run: string, task: string): Task {
    return new Task(this, parseId(run, 'the run id'), parseId(task, 'the task id'));
  }

  /**
   * Makes a machine of your own durable: its messages, state, timers and effects survive.
   * @param machine made by `setup({ … }).createMachine({ … })`; registered under its id on first use
   */
  async spawn(
    machine: AnyStateMachine,
    options: { readonly id: Address; readonly input?: JsonValue } & MachineOptions,
  ): Promise<Address> {
    const { id, input, ...machineOptions } = options;
    if (!this.#host.isRegistered(machine.id)) this.register(machine, machineOptions);
    await this.#host.spawn([
      { address: id, machine: machine.id, ...(input === undefined ? {} : { input }) },
    ]);
    return id;
  }

  /** Makes a machine known without creating an actor: after a restart, its actors go on. */
  register(machine: AnyStateMachine, options: MachineOptions = {}): void {
    this.#host.register(machine.id, machine, options);
  }

  /** Sends a message; resolves when it is stored. */
  send<A extends Address>(to: A, message: AcceptedBy<A>, options?: SendOptions): Promise<void> {
    return this.#host.send(to, message as Message, options);
  }

  /** Sends a request and waits for its answer. */
  request<A extends Address>(
    to: A,
    message: AcceptedBy<A>,
    options?: RequestOptions,
  ): Promise<JsonValue> {
    return this.#host.request(to, message as Message, options);
  }

  on<E extends keyof HostEvents>(event: E, listener: HostEvents[E]): () => void {
    this.#host.events.on(event, listener as never);
    return () => this.#host.events.off(event, listener as never);
  }

  /** Stops: see `DurableHost.stop`. Every promise of this object is settled when it resolves. */
  async stop(options: { readonly drain?: boolean; readonly graceMs?: number } = {}): Promise<void> {
    await this.#host.stop(options);
    const error = new StoppedError();
    for (const reject of this.#waiting) reject(error);
    this.#waiting.clear();
    clearInterval(this.#keepAlive);
    this.#keepAlive = undefined;
  }

  /** @internal */
  get store(): Store {
    return this.#store;
  }

  /** @internal */
  get host(): DurableHost {
    return this.#host;
  }

  /**
   * Waits until a run ends or stands still.
   * @internal
   */
  untilSettled(run: string): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const address = runAddress(run);
      const release = (): void => {
        off();
        offFailed();
        this.#waiting.delete(fail);
        if (this.#waiting.size === 0) {
          clearInterval(this.#keepAlive);
          this.#keepAlive = undefined;
        }
      };
      const fail = (error: Error): void => {
        release();
        reject(error);
      };
      const settled = (state: JsonValue): boolean =>
        state === 'done' || state === 'cancelled' || state === 'blocked';
      const off = this.on('turn', (turn) => {
        if (turn.address !== address || !settled(turn.state)) return;
        release();
        resolve();
      });
      const offFailed = this.on('failed', fail);
      this.#waiting.add(fail);
      // Somebody awaits this: the process stays while nothing but a person's answer is outstanding.
      this.#keepAlive ??= setInterval(() => undefined, 2 ** 30);
      this.#host.inspect(address).then((known) => {
        if (known === undefined) fail(new NotFoundError(`There is no run "${run}".`));
        else if (settled(known.snapshot.value)) {
          release();
          resolve();
        }
      }, fail);
    });
  }

  async #ready(): Promise<void> {
    while (this.#setup.length > 0) await Promise.all(this.#setup.splice(0));
  }

  #spawnSoon(
    requests: Parameters<DurableHost['spawn']>[0],
    then: () => Promise<void> = async () => undefined,
  ): void {
    const promise = this.#host.spawn(requests).then(async (created) => {
      if (created.length < requests.length) await then();
    });
    // Whoever starts a run hears of it; until then it must not end the process.
    promise.catch((error: unknown) => this.#logger.debug({ err: error }, 'a role did not start'));
    this.#setup.push(promise);
  }

  #requireProject(what: string): GitProject {
    if (this.#project !== undefined) return this.#project;
    throw new ConfigurationError(
      `The ${what} works on files: open Troupe with a project, createTroupe({ store, project: { directory, verify } }).`,
    );
  }

  #taskSpecs(run: string, spec: RunSpec): readonly TaskSpec[] {
    if (!Array.isArray(spec.tasks) || spec.tasks.length === 0 || spec.tasks.length > MAX_TASKS) {
      throw new ValidationError(
        `Expected run "${run}" to have 1 to ${MAX_TASKS} tasks, got ${Array.isArray(spec.tasks) ? spec.tasks.length : typeof spec.tasks}.`,
      );
    }
    if (spec.concurrency !== undefined)
      requirePositive(`concurrency of run "${run}"`, spec.concurrency);
    const limits = parseTaskLimits(spec.limits, `limits of run "${run}"`, DEFAULT_TASK_LIMITS);
    const { dependants } = checkDependencies(
      spec.tasks.map((task) => ({
        id: parseId(task.id, `the id of a task of run "${run}"`),
        dependsOn: task.dependsOn ?? [],
      })),
    );
    return spec.tasks.map((task, position) => {
      const where = `task "${task.id}"`;
      requireKnown(where, 'agent', task.agent, this.#agents.names());
      const gatekeeper =
        task.gatekeeper ?? (this.#project === undefined ? undefined : GIT_GATEKEEPER);
      if (gatekeeper === undefined) {
        throw new ValidationError(
          `Expected ${where} to name a gatekeeper: without one nothing can be accepted. Register one: troupe.gatekeeper(name, verify).`,
        );
      }
      requireKnown(where, 'gatekeeper', gatekeeper, this.#verifiers.names());
      const problem = task.input === undefined ? undefined : findNonJson(task.input, 'input');
      if (problem) {
        throw new ValidationError(
          `Expected the input of ${where} to be plain JSON, but ${problem.path} is ${problem.found}.`,
        );
      }
      return {
        run,
        id: task.id,
        title: task.title ?? task.id,
        agent: task.agent,
        gatekeeper,
        overseer: OVERSEER,
        priority: parsePriority(task.priority ?? 'normal'),
        dependsOn: task.dependsOn ?? [],
        dependants: dependants.get(task.id) ?? [],
        input: task.input ?? null,
        limits: parseTaskLimits(task.limits, `limits of ${where}`, limits),
        staged: task.staged ?? false,
        position,
      };
    });
  }
}

/** A run: look at it, wait for it, stop it. */
export class Run {
  readonly id: string;
  readonly #troupe: Troupe;

  /** @internal Use `troupe.run`. */
  constructor(troupe: Troupe, id: string) {
    this.#troupe = troupe;
    this.id = id;
  }

  /** @throws {NotFoundError} */
  async status(): Promise<RunStatus> {
    const row = (await this.#troupe.store.listRuns()).find((entry) => entry.run === this.id);
    if (row === undefined) throw new NotFoundError(`There is no run "${this.id}".`);
    return runStatus(row);
  }

  async tasks(): Promise<readonly TaskStatus[]> {
    return (await this.#troupe.store.listTasks(this.id)).map(taskStatus);
  }

  /**
   * Waits until the run ends or nothing in it moves by itself (`state: 'blocked'`, with the reason), and says how
   * every task stands. Ask again after a person has decided something. Survives restarts: ask the next process.
   * @throws {NotFoundError} there is no such run
   * @throws {StoppedError} the runtime was stopped first
   */
  async result(): Promise<RunResult> {
    await this.#troupe.untilSettled(this.id);
    return { ...(await this.status()), tasks: await this.tasks() };
  }

  /** The turns of this run and its tasks. */
  get events$(): Observable<Turn> {
    const mine = `task/${this.id}/`;
    const own = runAddress(this.id);
    return new (
      this.#troupe.turns$.constructor as new (
        subscribe: (subscriber: { next(turn: Turn): void }) => () => void,
      ) => Observable<Turn>
    )((subscriber) =>
      this.#troupe.on('turn', (turn) => {
        if (turn.address === own || turn.address.startsWith(mine)) subscriber.next(turn);
      }),
    );
  }

  /** Starts nothing new; what runs goes on to its end. */
  async pause(by = 'app'): Promise<void> {
    await this.#troupe.send(runAddress(this.id), { type: 'run.pause', by });
  }

  async resume(by = 'app'): Promise<void> {
    await this.#troupe.send(runAddress(this.id), { type: 'run.resume', by });
  }

  /** What stands still, sorted by what would help, and what to do about it. */
  async blockers(): Promise<BlockersSummary> {
    return summariseBlockers(
      (await this.tasks()).map((task) => ({
        id: task.id,
        state: task.state,
        dependsOn: task.dependsOn,
        ...(task.cause === null ? {} : { cause: task.cause }),
        ...(task.reason === null ? {} : { reason: task.reason }),
      })),
    );
  }

  /**
   * Unblocks every blocked or escalated task, or only those that infrastructure has stopped: six at once, the rest
   * 15 s apart, so that what just recovered is not overrun.
   * @returns the ids of the tasks that were unblocked
   */
  async unblockAll(
    options: { readonly transientOnly?: boolean; readonly by?: string } = {},
  ): Promise<readonly string[]> {
    const { by = 'app', transientOnly = false } = options;
    const stopped = (await this.tasks()).filter(
      (task) =>
        (task.state === 'blocked' || task.state === 'escalated') &&
        (!transientOnly || task.cause === 'infrastructure'),
    );
    await Promise.all(
      stopped.map((task, index) =>
        this.task(task.id).unblock({
          by,
          delayMs: Math.round(staggerMs(index, unitHash(`${this.id}/${task.id}`))),
        }),
      ),
    );
    return stopped.map((task) => task.id);
  }

  /** Cancels every task that has not ended. */
  async cancel(reason: string, by = 'app'): Promise<void> {
    await this.#troupe.send(runAddress(this.id), { type: 'run.cancel', by, reason });
  }

  task(id: string): Task {
    return this.#troupe.task(this.id, id);
  }
}

/** One task: look at it, decide about it. Each order is answered with the state it led to, or refused with the reason. */
export class Task {
  readonly run: string;
  readonly id: string;
  readonly #troupe: Troupe;

  /** @internal Use `troupe.task`. */
  constructor(troupe: Troupe, run: string, id: string) {
    this.#troupe = troupe;
    this.run = run;
    this.id = id;
  }

  /** @throws {NotFoundError} */
  async status(): Promise<TaskStatus> {
    const row = (await this.#troupe.store.listTasks(this.run)).find((t) => t.task === this.id);
    if (row === undefined) throw new NotFoundError(`There is no task "${this.run}/${this.id}".`);
    return taskStatus(row);
  }

  attempts(): Promise<readonly AttemptRow[]> {
    return this.#troupe.store.listAttempts(this.run, this.id);
  }

  decide(
    decision: Decision,
    options: { readonly guidance?: string; readonly agent?: string; readonly by?: string } = {},
  ): Promise<TaskState> {
    const { by = 'app', ...rest } = options;
    return this.#ask({ type: 'task.decide', decision, by, ...rest });
  }

  answer(question: string, answer: JsonValue, by = 'app'): Promise<TaskState> {
    return this.#ask({ type: 'task.answer', question, answer, by });
  }

  unblock(options: { readonly by?: string; readonly delayMs?: number } = {}): Promise<TaskState> {
    const { by = 'app', ...rest } = options;
    return this.#ask({ type: 'task.unblock', by, ...rest });
  }

  pause(by = 'app'): Promise<TaskState> {
    return this.#ask({ type: 'task.pause', by });
  }

  resume(by = 'app'): Promise<TaskState> {
    return this.#ask({ type: 'task.resume', by });
  }

  cancel(reason: string, by = 'app'): Promise<TaskState> {
    return this.#ask({ type: 'task.cancel', reason, by });
  }

  async #ask(message: AcceptedBy<Address<'task'>>): Promise<TaskState> {
    const reply = await this.#troupe.request(taskAddress(this.run, this.id), message);
    return (reply as unknown as { state: TaskState }).state;
  }
}

function gatekeeperSpawn(name: string, concurrency: number) {
  return {
    address: gatekeeperAddress(name),
    machine: 'gatekeeper',
    input: { name, concurrency },
  } as const;
}

function requirePositive(what: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 1) return;
  throw new ConfigurationError(`Expected ${what} to be a positive integer, got ${String(value)}.`);
}

function requireKnown(where: string, what: string, name: string, known: readonly string[]): void {
  if (known.includes(name)) return;
  throw new ValidationError(
    `Expected ${where} to name a registered ${what}, got ${JSON.stringify(name)}.${didYouMean(name, known)} Known: ${known.join(', ') || 'none'}.`,
  );
}

function runStatus(row: Awaited<ReturnType<Store['listRuns']>>[number]): RunStatus {
  const details = JSON.parse(row.detailsJson) as {
    counts: Record<TaskPhase, number>;
    reason: string | null;
  };
  return {
    id: row.run,
    title: row.title,
    state: row.state as RunState,
    total: row.total,
    counts: details.counts,
    reason: details.reason,
    createdAt: row.createdAt,
    endedAt: row.endedAt,
  };
}

function taskStatus(row: TaskRow): TaskStatus {
  const details = JSON.parse(row.detailsJson) as {
    dependsOn: readonly string[];
    cause: 'work' | 'infrastructure' | null;
    question: JsonValue;
    artifact: string | null;
    commit: string | null;
  };
  return {
    run: row.run,
    id: row.task,
    title: row.title,
    state: row.state as TaskState,
    agent: row.agent,
    attempts: row.attempts,
    reason: row.reason,
    cause: details.cause,
    dependsOn: details.dependsOn,
    question: details.question,
    artifact: details.artifact,
    commit: details.commit,
    updatedAt: row.updatedAt,
  };
}
