import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { type Logger, pino } from 'pino';
import { filter, Observable, ReplaySubject, takeUntil } from 'rxjs';
import type { AnyStateMachine } from 'xstate';
import { agentActor, type RegisteredAgent } from './actors/agent.ts';
import { type CommandEngineOptions, commandEngine } from './actors/command-engine.ts';
import type { Compensations } from './actors/compensation.ts';
import { cutOf, type TaskMove } from './actors/cuts.ts';
import type { Engine } from './actors/engine.ts';
import {
  gatekeeperActor,
  genericVerifier,
  type Verifier,
  type VerifyFunction,
} from './actors/gatekeeper.ts';
import { GitProject, type GitProjectOptions } from './actors/git-project.ts';
import {
  type CheckpointInfo,
  type CutDiff,
  type CutInfo,
  checkNote,
  checkpointInfo,
  History,
  type Note,
} from './actors/history.ts';
import { type OverseerPolicy, overseerActor } from './actors/overseer.ts';
import { patchEngine } from './actors/patch-engine.ts';
import { Registry } from './actors/registry.ts';
import { parseRetention, type RetentionOptions } from './actors/retention.ts';
import { runActor } from './actors/run.ts';
import { type CheckedRun, checkRunSpec, type RunSpec, requireKnown } from './actors/run-spec.ts';
import { RunTravel } from './actors/run-travel.ts';
import { GIT_GATEKEEPER, taskActor } from './actors/task.ts';
import { taskMigrations } from './actors/task-migrations.ts';
import { TimedCuts } from './actors/timed-cuts.ts';
import { breakerMachine } from './machines/breaker-machine.ts';
import {
  type BlockersSummary,
  staggerMs,
  summariseBlockers,
} from './machines/policies/blockers.ts';
import { errorFingerprint } from './machines/policies/fingerprint.ts';
import { phaseOf } from './machines/policies/task-phase.ts';
import { projectRun, projectTask, type RunState } from './machines/projections.ts';
import type { RunContext, RunInput } from './machines/run-machine.ts';
import { startState } from './machines/task-machine.ts';
import {
  type Address,
  agentAddress,
  breakerAddress,
  gatekeeperAddress,
  kindOf,
  overseerAddress,
  parseAddress,
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
  TroupeError,
  ValidationError,
} from './protocol/errors.ts';
import { type FaultPoint, noFaults } from './protocol/fault-point.ts';
import { deepHash, unitHash } from './protocol/hash.ts';
import type { JsonObject, JsonValue } from './protocol/json.ts';
import type { Message } from './protocol/message.ts';
import { type Clock, systemClock } from './runtime/clock.ts';
import {
  DurableHost,
  type MachineOptions,
  type RequestOptions,
  type SendOptions,
} from './runtime/durable-host.ts';
import type { HostEvents, Turn } from './runtime/host-events.ts';
import type { PruneReport, Retention } from './runtime/housekeeping.ts';
import type { Leases } from './runtime/leases.ts';
import { checkStatement } from './runtime/step.ts';
import { MemoryStore } from './store/memory/memory-store.ts';
import type { PayloadCodec } from './store/payload/codec.ts';
import { PackedStore } from './store/payload/packed-store.ts';
import type { Reencrypted } from './store/payload/reencrypt.ts';
import { openSqliteStore } from './store/sqlite/sqlite-store.ts';
import type { AttemptRow, SqlValue, Store, TaskRow } from './store/store.ts';

export type { RunSpec, TaskInput } from './actors/run-spec.ts';

export interface TroupeOptions {
  /** Path of the SQLite file (made if need be), `:memory:`, or a store of your own. */
  readonly store: string | Store;
  /** Encrypts what actors store, or encodes it otherwise. Default: none. See PayloadCodec. */
  readonly codec?: PayloadCodec;
  /** A turn that would store a longer state of an actor fails, and says which keys are large. Default 16 MiB. */
  readonly maxSnapshotBytes?: number;
  /** `full` survives power loss; `normal` survives `kill -9` and is faster. Default `full`. */
  readonly durability?: 'full' | 'normal';
  /** See `SqliteStoreOptions.takeOver`. Default: false. */
  readonly takeOver?: boolean;
  /**
   * Tables of the app in the same file, called `app_…`, for `step.tx` and `query`: one statement each (CREATE, ALTER,
   * DROP), carried out once, in this order. To change a table later, add a statement at the end. Needs SQLite.
   */
  readonly appSchema?: readonly string[];
  /** A git repository for tasks that are code. */
  readonly project?: GitProjectOptions;
  /** Default: warnings and worse, as JSON lines on stderr. */
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly newId?: () => string;
  /** Messages that may wait for one agent. Default 1 000. */
  readonly agentMailboxLimit?: number;
  /** Idempotency keys of `send` and `request` are forgotten after so long. Default 86 400 000 ms, 24 hours. */
  readonly idempotencyTtlMs?: number;
  /** An agent or gatekeeper that shows no sign of life for so long is aborted. Default 600 000 ms; 0: never. */
  readonly heartbeatMs?: number;
  /** How much history is kept; false: all of it. Default: see RetentionOptions. */
  readonly retention?: RetentionOptions | false;
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
  /** The run and the cut it began as a copy of; null for one that was started. */
  readonly forkedFrom: { readonly run: string; readonly cut: string } | null;
}

export interface RunResult extends RunStatus {
  readonly tasks: readonly TaskStatus[];
}

/** What `check` and `checkStore` found. */
export interface StoreCheck {
  /** How many actors were looked at: those that have not ended. */
  readonly actors: number;
  /** Those that today's code could not go on with; each would be quarantined. */
  readonly problems: readonly {
    readonly address: Address;
    readonly machine: string;
    /** Of the machine that stored it. */
    readonly version: number;
    /** What is in the way, in words. */
    readonly problem: string;
  }[];
}

/** Actors read in one go. */
const MAX_CHECKED = 1000;
const DEFAULT_CONCURRENCY = 1;
const DEFAULT_AGENT_TIMEOUT_MS = 1_200_000;
const OVERSEER = 'main';
/** As far as a run's tasks can get ahead of it: it is not refused what they report, or it would never end. */
const RUN_MAILBOX_LIMIT = 10_000_000;
/** Kinds of actors and names of machines that are Troupe's own. */
const ROLES: ReadonlySet<string> = new Set([
  ...(['run', 'task', 'agent', 'gatekeeper', 'overseer', 'breaker', 'app'] as const),
]);

const MOVING: ReadonlySet<TaskPhase> = new Set(['ready', 'active', 'verifying', 'delayed']);

/**
 * Opens a store and goes on with whatever waits in it. Register agents and gatekeepers right after; work of agents
 * that are not registered yet waits for them.
 * @throws {LockConflictError} another process has the store open; the message names it
 * @throws {ConfigurationError} the project or an option cannot be worked with
 */
export async function createTroupe(options: TroupeOptions): Promise<Troupe> {
  const logger = options.logger ?? pino({ level: 'warn' }, pino.destination(2));
  const faultPoint = options.faultPoint ?? noFaults;
  const retention = parseRetention(options.retention);
  const store = packedStore(await openStore(options, logger), options.codec);
  let project: GitProject | undefined;
  try {
    if (options.appSchema !== undefined) await store.applyAppSchema(options.appSchema);
    project =
      options.project === undefined
        ? undefined
        : await GitProject.open(options.project, faultPoint);
    const troupe = new Troupe(options, store, project, logger, faultPoint, retention);
    await troupe.open();
    return troupe;
  } catch (error) {
    await project?.close();
    await store.close();
    throw error;
  }
}

function packedStore(store: Store, codec: PayloadCodec | undefined): PackedStore {
  if (!(store instanceof PackedStore)) {
    return new PackedStore(store, codec === undefined ? {} : { codec });
  }
  if (codec === undefined) return store;
  throw new ConfigurationError(
    'Give the codec to the PackedStore or to createTroupe, not to both: it would be two.',
  );
}

async function openStore(options: TroupeOptions, logger: Logger): Promise<Store> {
  if (typeof options.store !== 'string') return options.store;
  if (options.store === ':memory:') return new MemoryStore();
  await mkdir(path.dirname(path.resolve(options.store)), { recursive: true });
  return await openSqliteStore({
    path: options.store,
    durability: options.durability ?? 'full',
    takeOver: options.takeOver ?? false,
    // Armed points run on this thread while the writer's waits: not for production.
    ...(options.faultPoint === undefined ? {} : { faultPoint: options.faultPoint }),
    onWarning: (message) => logger.warn(message),
  });
}

export class Troupe {
  /** Turns of all actors, told after they are stored. Completes when the runtime stops or fails (see `on('failed')`). */
  readonly turns$: Observable<Turn>;
  /** What was: checkpoints of actors, cuts of runs, and how they differ. */
  readonly history: History;
  readonly #timedCuts: TimedCuts;
  readonly #runTravel: RunTravel;
  readonly #host: DurableHost;
  readonly #store: PackedStore;
  readonly #retention: Retention | undefined;
  readonly #project: GitProject | undefined;
  readonly #clock: Clock;
  readonly #newId: () => string;
  readonly #logger: Logger;
  readonly #agents: Registry<RegisteredAgent>;
  readonly #concurrency = new Map<string, number>();
  readonly #verifiers: Registry<Verifier>;
  #policy: OverseerPolicy | undefined;
  /** Roles that are being made; one that could not be made stays, and is told to whoever starts a run. */
  readonly #setup = new Set<Promise<unknown>>();
  readonly #starting = new Map<string, Promise<unknown>>();
  readonly #over = new ReplaySubject<void>(1);
  readonly #waiting = new Set<(error: Error) => void>();
  #keepAlive: NodeJS.Timeout | undefined;

  /** @internal Use `createTroupe`. */
  constructor(
    options: TroupeOptions,
    store: PackedStore,
    project: GitProject | undefined,
    logger: Logger,
    faultPoint: FaultPoint,
    retention: Retention | undefined,
  ) {
    this.#store = store;
    this.#retention = retention;
    this.#project = project;
    this.#clock = options.clock ?? systemClock;
    this.#newId = options.newId ?? randomUUID;
    this.#logger = logger;
    const onMissing = (what: string, name: string): void =>
      logger.warn({ name }, `work waits for the ${what} "${name}", which is not registered`);
    this.#agents = new Registry<RegisteredAgent>('agent', onMissing, this.#clock);
    this.#verifiers = new Registry<Verifier>('gatekeeper', onMissing, this.#clock);
    this.#host = new DurableHost({
      store,
      clock: this.#clock,
      logger,
      newId: this.#newId,
      faultPoint,
      ...(options.idempotencyTtlMs === undefined
        ? {}
        : { idempotencyTtlMs: options.idempotencyTtlMs }),
      effects: { heartbeatMs: options.heartbeatMs ?? 600_000 },
      retention,
      ...(options.maxSnapshotBytes === undefined
        ? {}
        : { maxSnapshotBytes: options.maxSnapshotBytes }),
      ...(options.defer === undefined ? {} : { defer: options.defer }),
    });
    this.#host.register('run', runActor(store), {
      project: (actor) => projectRun(actor as never),
      cut: ({ context, value, at }, occasion) =>
        cutOf((context as unknown as RunContext).run, occasion, at, {
          label: occasion === 'milestone' && typeof value === 'string' ? value : null,
        }),
      mailboxLimit: RUN_MAILBOX_LIMIT,
    });
    this.#host.register('task', taskActor(store, this.#agents, project), {
      project: (actor) => projectTask(actor as never),
      migrations: taskMigrations,
    });
    this.#host.register('agent', agentActor(this.#agents, project, this.#clock, store), {
      mailboxLimit: options.agentMailboxLimit ?? 1_000,
    });
    this.#host.register('gatekeeper', gatekeeperActor(this.#verifiers));
    this.#host.register(
      'overseer',
      overseerActor(
        () => this.#policy,
        () => this.#agents.names(),
      ),
    );
    this.#host.register('breaker', breakerMachine);
    this.#timedCuts = new TimedCuts(this.#host, this.#clock, logger);
    this.history = new History(store);
    this.#runTravel = new RunTravel({
      store,
      clock: this.#clock,
      timeTravel: this.#host.timeTravel,
    });
    this.turns$ = new Observable<Turn>((subscriber) =>
      this.on('turn', (turn) => subscriber.next(turn)),
    ).pipe(takeUntil(this.#over));
    this.on('failed', () => this.#over.next());
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
      await this.#project.checkClean();
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
      this.#verifiers.add(
        GIT_GATEKEEPER,
        this.#project.verifier(() => this.#store.assertOwner()),
      );
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

  /**
   * What of the project agents and verification will not see as its user does: submodules, files in LFS, a history that is
   * cut. Something to show before work begins; empty without a project.
   */
  async projectNotes(): Promise<readonly string[]> {
    return (await this.#project?.notes()) ?? [];
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
    const checked = checkRunSpec(spec, this.#newId, {
      agents: this.#agents.names(),
      gatekeepers: this.#verifiers.names(),
      gatekeeper: this.#project === undefined ? undefined : GIT_GATEKEEPER,
      overseer: OVERSEER,
    });
    await this.#ready();
    // Two starts of one run at once: the second finds what the first has made.
    const before = this.#starting.get(checked.id);
    const started = (before ?? Promise.resolve())
      .catch(() => undefined)
      .then(() => this.#start(checked));
    this.#starting.set(checked.id, started);
    try {
      await started;
    } finally {
      if (this.#starting.get(checked.id) === started) this.#starting.delete(checked.id);
    }
    return new Run(this, checked.id);
  }

  async #start({ id, title, concurrency, tasks }: CheckedRun): Promise<void> {
    const specHash = deepHash(tasks as unknown as JsonValue);
    const known = await this.#host.inspect(runAddress(id));
    if (known !== undefined) {
      const found = (known.snapshot.context as unknown as RunContext).specHash;
      if (found === specHash) return;
      throw new ConflictError(
        `A run "${id}" exists already, with other tasks (${found}, these are ${specHash}). Choose another id, or go on with it: troupe.run("${id}").`,
        { context: { run: id, expected: specHash, found } },
      );
    }
    const counts: Partial<Record<TaskPhase, number>> = {};
    const slots = new Map<string, number>();
    for (const task of tasks) {
      const phase = phaseOf(startState(task));
      counts[phase] = (counts[phase] ?? 0) + 1;
      slots.set(task.agent, this.#concurrency.get(task.agent) ?? DEFAULT_CONCURRENCY);
    }
    const together = [...slots.values()].reduce((sum, n) => sum + n, 0);
    const input: RunInput = {
      run: id,
      title,
      createdAt: this.#clock.now(),
      specHash,
      counts,
      slots: Object.fromEntries(slots),
      // While one submission of an agent is verified, the agent may do its next task.
      concurrency: concurrency ?? together * 2,
    };
    await this.#host.spawn([
      ...tasks.map((task) => ({
        address: taskAddress(id, task.id),
        machine: 'task',
        input: task as unknown as JsonValue,
      })),
      { address: runAddress(id), machine: 'run', input: input as unknown as JsonValue },
    ]);
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
   * @throws {ConfigurationError} the machine has no id, or its id or the address is one of Troupe's own
   */
  async spawn(
    machine: AnyStateMachine,
    options: { readonly id: Address; readonly input?: JsonValue } & MachineOptions,
  ): Promise<Address> {
    const { id, input, ...machineOptions } = options;
    if (ROLES.has(kindOf(id))) {
      throw new ConfigurationError(
        `The address "${id}" is of a kind that is Troupe's own. Choose another than ${[...ROLES].join(', ')}.`,
      );
    }
    requireOwnId(machine);
    if (!this.#host.isRegistered(machine.id)) this.register(machine, machineOptions);
    await this.#host.spawn([
      { address: id, machine: machine.id, ...(input === undefined ? {} : { input }) },
    ]);
    return id;
  }

  /** Makes a machine known without creating an actor: after a restart, its actors go on. */
  register(machine: AnyStateMachine, options: MachineOptions = {}): void {
    requireOwnId(machine);
    this.#host.register(machine.id, machine, options);
  }

  /**
   * Keeps an actor as it is now, under a label to go back to it by. (Every turn is a checkpoint anyway.)
   * @throws {NotFoundError} there is no such actor
   */
  async checkpoint(address: Address, note: Note = {}): Promise<CheckpointInfo> {
    const seq = await this.#host.timeTravel.checkpoint(parseAddress(address), checkNote(note));
    return checkpointInfo(await this.history.checkpoint(address, seq));
  }

  /**
   * Makes an actor what it was right after the turn of a checkpoint, byte for byte; keys that were added later are gone.
   * Timers are due when they were due (at once, if that is past), effects are started again, and a request that it had
   * just made ends with a failure (`conflict`, retryable). Its mailbox stays, and so does what it has sent. How it is now
   * is kept as a checkpoint, to which it can be rolled back in turn. Also for one that has ended or is quarantined.
   *
   * Crash: before it is stored nothing has happened, afterwards everything has.
   * @param to the checkpoint's number, its label or the beginning of its id
   * @returns the checkpoint that it is at now
   * @throws {NotFoundError} no such actor or checkpoint; says which there are
   * @throws {ConflictError} it was made by a version of the machine that cannot be migrated; nothing has changed
   * @throws {ValidationError} the address is of one of Troupe's own roles: roll back its task or run
   */
  async rollback(address: Address, to: number | string): Promise<CheckpointInfo> {
    requireNoRole(
      address,
      'rolled back',
      'Roll back a task or a run: troupe.run(id).rollback(cut).',
    );
    await this.#host.flush();
    const { seq } = await this.history.checkpoint(address, to);
    const now = await this.#host.timeTravel.rollback(address, seq);
    return checkpointInfo(await this.history.checkpoint(address, now));
  }

  /**
   * Makes a new actor of what another one was; that one goes on as it is. Timers, effects and requests as for `rollback`.
   * @throws {ConflictError} there is an actor at `as`, or the checkpoint cannot be restored
   */
  async fork(
    address: Address,
    to: number | string,
    { as }: { readonly as: Address },
  ): Promise<Address> {
    for (const one of [address, parseAddress(as)]) {
      requireNoRole(one, 'forked', 'Fork a run: troupe.run(id).fork(cut, { id }).');
    }
    await this.#host.flush();
    const { seq } = await this.history.checkpoint(address, to);
    await this.#host.timeTravel.fork(address, seq, as);
    return as;
  }

  /** @internal */
  get runTravel(): RunTravel {
    return this.#runTravel;
  }

  /** @internal Keeps a run as it is now. @returns the cut's id */
  async takeCut(run: string, note: Note): Promise<string> {
    const plan = cutOf(run, 'manual', this.#clock.now(), checkNote(note));
    return await this.#host.timeTravel.takeCut(plan);
  }

  /**
   * Sends a message. It resolves when the message is stored, not when it is handled: from then on no crash can lose
   * it, and its receiver has its turn with it later, perhaps in the next process. So do not look for what it leads to
   * right after; wait for it:
   * - `request` resolves with the receiver's answer, given in the turn that handled it;
   * - `on('turn', …)` and `turns$` tell every turn after it is stored, with the state it led to;
   * - `run.result()` waits until a run ends or stands still.
   *
   * With `delivery: 'transient'` it resolves at once, and a crash loses the message.
   * @throws {ValidationError} a malformed address, message, priority or id
   * @throws {MailboxFullError} too many wait there already; nothing was stored
   * @throws {StoppedError} the runtime stops or has stopped
   */
  send<A extends Address>(to: A, message: AcceptedBy<A>, options?: SendOptions): Promise<void> {
    return this.#host.send(to, message as Message, options);
  }

  /**
   * Sends a request and waits for its answer, which the receiver gives in the turn that handles it or in a later one.
   * When it resolves, that turn is stored.
   * @throws {TimeoutError} no answer within `timeoutMs` (default 30 000); the receiver may handle it all the same
   * @throws {TroupeError} what the receiver answered instead; see `DurableHost.request` for the rest
   */
  request<A extends Address>(
    to: A,
    message: AcceptedBy<A>,
    options?: RequestOptions,
  ): Promise<JsonValue> {
    return this.#host.request(to, message as Message, options);
  }

  /**
   * Leases by name, for what Troupe cannot protect itself (a port, a deployment): one holder at a time, for a time,
   * each with a greater token. `troupe.leases.withLease('deploy', async (lease) => { … })`.
   */
  get leases(): Leases {
    return this.#host.leases;
  }

  /**
   * The rows of one SELECT: of the app's own tables, and of Troupe's. It sees what was committed before the call, and
   * while it runs nothing is written, so keep it short. At most 10 000 rows. Needs SQLite.
   * @throws {TroupeError} `validation`: no plain SELECT, one that fails, or a value that JSON has not
   */
  async query(sql: string, ...values: readonly SqlValue[]): Promise<readonly JsonObject[]> {
    return await this.#store.query(checkStatement('query', sql, values));
  }

  /**
   * Removes history now, until none is left that is too old, and gives the space back. This happens by itself, bit by
   * bit, unless `retention` is false.
   * @param retention instead of that of `createTroupe`
   * @throws {ConfigurationError} a setting that cannot be; or `retention` is false, and none is named here
   */
  async prune(retention?: RetentionOptions): Promise<PruneReport> {
    const policy = retention === undefined ? this.#retention : parseRetention(retention);
    if (policy === undefined) {
      throw new ConfigurationError(
        'Expected to be told what may be removed: this runtime keeps all history (retention: false). Name it: troupe.prune({ checkpointsPerActor: 100 }).',
      );
    }
    return await this.#host.prune(policy);
  }

  /**
   * Writes a copy of the store to a file while everything goes on: a store itself, as it was at one moment. See
   * `backUp` in store/sqlite/back-up.ts.
   * @returns its size in bytes
   * @throws {ConflictError} there is a file of that name
   * @throws {ConfigurationError} the store is in memory
   */
  async backup(file: string): Promise<number> {
    return await this.#store.backup(file);
  }

  /**
   * Whether the code of today can go on from every stored state: restores each actor that has not ended, and changes
   * nothing. To try an upgrade before it is made, see `checkStore`.
   */
  async check(): Promise<StoreCheck> {
    const all = (await this.#store.listActors()).filter(
      ({ status }) => status === 'active' || status === 'quarantined',
    );
    const problems: StoreCheck['problems'][number][] = [];
    for (let at = 0; at < all.length; at += MAX_CHECKED) {
      const addresses = all.slice(at, at + MAX_CHECKED).map(({ address }) => address);
      for (const stored of await this.#store.loadActors(addresses)) {
        const problem = this.#host.findObstacle(stored);
        if (problem === undefined) continue;
        const { address, machine, version } = stored;
        problems.push({ address: address as Address, machine, version, problem });
      }
    }
    return { actors: all.length, problems };
  }

  /**
   * Calls a function for each event of a kind, after it is stored. One that throws is logged and harms nobody else.
   * @returns a function that ends it
   */
  on<E extends keyof HostEvents>(event: E, listener: HostEvents[E]): () => void {
    this.#host.events.on(event, listener as never);
    return () => this.#host.events.off(event, listener as never);
  }

  /**
   * Brings everything that is stored under the codec's current key: rows from before there was a codec, and those under
   * an older key, which is not needed afterwards. In slices, while everything else goes on. After a crash begin it
   * again.
   * @throws {ConfigurationError} there is no codec, or the store is in memory only
   * @throws {UnreadablePayloadError} a text is damaged, or its key is not known; what was done before stays done
   */
  reencrypt(): Promise<Reencrypted> {
    return this.#store.reencrypt();
  }

  /**
   * Stops; what is not finished stays stored, and the next `createTroupe` on the store goes on with it. Every promise
   * of this object is settled when it resolves.
   *
   * Called again while it stops, it is the same stop, which both promises tell the end of. So `stop({ drain: true })`
   * and then `stop()` is: wait for what runs, until somebody has waited long enough.
   * @param options.drain what runs may finish, and what comes of it is handled; nothing new starts. Default false: it
   * is aborted (its signal first; what does not heed that is left behind after 5 s)
   * @param options.graceMs with `drain`: after so long it is aborted all the same. Default 30 000
   */
  async stop(options: { readonly drain?: boolean; readonly graceMs?: number } = {}): Promise<void> {
    this.#timedCuts.stop();
    await this.#host.stop(options);
    await this.#project?.close();
    this.#over.next();
    const error = new StoppedError();
    for (const reject of [...this.#waiting]) reject(error);
    this.#waiting.clear();
    clearInterval(this.#keepAlive);
    this.#keepAlive = undefined;
  }

  /** @internal */
  get store(): Store {
    return this.#store;
  }

  /**
   * @internal
   * @throws {ValidationError} no agent of this name is registered
   */
  requireAgent(where: string, name: string): void {
    requireKnown(where, 'agent', name, this.#agents.names());
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
      const off = this.on('turn', (turn) => {
        if (turn.address !== address || !isSettled(turn.state)) return;
        release();
        resolve();
      });
      const offFailed = this.on('failed', fail);
      this.#waiting.add(fail);
      // Somebody awaits this: the process stays while nothing but a person's answer is outstanding.
      this.#keepAlive ??= setInterval(() => undefined, 2 ** 30);
      this.#isSettledNow(run).then((settled) => {
        if (!settled) return;
        release();
        resolve();
      }, fail);
    });
  }

  /**
   * Whether a run that was settled when it last took a turn still is: a task that somebody has just decided about
   * moves again before its run has heard of it.
   * @throws {NotFoundError}
   */
  async #isSettledNow(run: string): Promise<boolean> {
    const known = await this.#host.inspect(runAddress(run));
    if (known === undefined) throw new NotFoundError(`There is no run "${run}".`);
    const state = known.snapshot.value;
    if (state !== 'blocked') return isSettled(state);
    const counts = await this.#store.countTasks(run);
    return !Object.keys(counts).some((task) => MOVING.has(phaseOf(task as TaskState)));
  }

  async #ready(): Promise<void> {
    while (this.#setup.size > 0) await Promise.all(this.#setup);
  }

  #spawnSoon(
    requests: Parameters<DurableHost['spawn']>[0],
    then: () => Promise<void> = async () => undefined,
  ): void {
    const promise = this.#host.spawn(requests).then(async (created) => {
      if (created.length < requests.length) await then();
    });
    this.#setup.add(promise);
    promise.then(
      () => this.#setup.delete(promise),
      // Whoever starts a run hears of it; until then it must not end the process.
      (error: unknown) => this.#logger.debug({ err: error }, 'a role did not start'),
    );
  }

  #requireProject(what: string): GitProject {
    if (this.#project !== undefined) return this.#project;
    throw new ConfigurationError(
      `The ${what} works on files: open Troupe with a project, createTroupe({ store, project: { directory, verify } }).`,
    );
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
    for (;;) {
      await this.#troupe.untilSettled(this.id);
      const [status, tasks] = await Promise.all([this.status(), this.tasks()]);
      // Somebody may have set it going again in the meantime.
      if (isSettled(status.state)) return { ...status, tasks };
    }
  }

  /** The turns of this run and its tasks. Completes when the runtime stops or fails. */
  get events$(): Observable<Turn> {
    const own = runAddress(this.id);
    const mine = taskAddress(this.id, '');
    return this.#troupe.turns$.pipe(
      filter(({ address }) => address === own || address.startsWith(mine)),
    );
  }

  /**
   * Starts nothing new; what runs goes on to its end. It holds until `resume`, whatever restarts in between.
   *
   * The order is stored when this resolves; the run takes it in its next turn (see `Troupe.send`). It is `paused` when
   * `events$` says so; one that has ended or is being cancelled takes no notice.
   */
  async pause(by = 'app'): Promise<void> {
    await this.#troupe.send(runAddress(this.id), { type: 'run.pause', by });
  }

  /** Ends a pause of the run; tasks that were paused one by one stay so. Stored when it resolves, as for `pause`. */
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

  /** Cancels every task that has not ended. Stored when it resolves; `result` waits for the end. */
  async cancel(reason: string, by = 'app'): Promise<void> {
    await this.#troupe.send(runAddress(this.id), { type: 'run.cancel', by, reason });
  }

  task(id: string): Task {
    return this.#troupe.task(this.id, id);
  }

  /** The moments to which the run can be rolled back, oldest first. */
  cuts(): Promise<readonly CutInfo[]> {
    return this.#troupe.history.cuts(this.id);
  }

  /**
   * Keeps the run with all its tasks as they are now, in one consistent cut. (One is taken at the start, when it stands
   * still or ends, before each rollback, and every ten minutes in which something happens.)
   * @throws {NotFoundError} there is no such run
   */
  async checkpoint(note: Note = {}): Promise<CutInfo> {
    await this.status();
    return await this.#troupe.history.cut(this.id, await this.#troupe.takeCut(this.id, note));
  }

  /**
   * Makes the run with all its tasks what they were at a cut, in one commit. Work that is under way is called off; tasks
   * that were in the middle of an attempt begin it again. How it is now is kept as another cut.
   *
   * What has left the store is not taken back: a task that was merged since is merged (the answer names the commit), and
   * is found to be when it is done again.
   * @param to the cut's label, the beginning of its id, `start` or `last`
   * @param options.dryRun changes nothing, and says what would become of each task
   * @throws {NotFoundError} no such cut; says which there are
   * @throws {ConflictError} a checkpoint cannot be restored; nothing has changed
   */
  async rollback(
    to: string,
    options: { readonly dryRun?: boolean } = {},
  ): Promise<readonly TaskMove[]> {
    await this.status();
    if (options.dryRun === true) return await this.#troupe.history.moves(this.id, to);
    const { id, label } = await this.#troupe.history.cut(this.id, to);
    const before = `before rollback to ${label ?? id}`;
    return await this.#troupe.runTravel.rollback(this.id, id, before);
  }

  /**
   * Begins a new run that is what this one was at a cut: its tasks with their states, timers and budgets. Attempts that
   * were under way begin again; this run goes on as it is.
   * @throws {NotFoundError} no such cut
   * @throws {ConflictError} there is a run of that id
   */
  async fork(to: string, { id }: { readonly id: string }): Promise<Run> {
    await this.status();
    parseId(id, 'the id of the fork');
    const cut = await this.#troupe.history.cut(this.id, to);
    await this.#troupe.runTravel.fork(this.id, cut.id, id);
    return this.#troupe.run(id);
  }

  /** How the run and its tasks differ between two cuts. */
  diff(from: string, to: string): Promise<CutDiff> {
    return this.#troupe.history.diffCuts(this.id, from, to);
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

  /** @throws {ValidationError} `reassign` without an agent, or to one that is not registered */
  async decide(
    decision: Decision,
    options: { readonly guidance?: string; readonly agent?: string; readonly by?: string } = {},
  ): Promise<TaskState> {
    const { by = 'app', ...rest } = options;
    if (decision === 'reassign') {
      this.#troupe.requireAgent(`the decision about task "${this.id}"`, rest.agent ?? '');
    }
    return await this.#ask({ type: 'task.decide', decision, by, ...rest });
  }

  /** Lets a staged task go on. Nothing happens if it is not staged. Stored when it resolves: see `Troupe.send`. */
  async enable(): Promise<void> {
    await this.#troupe.send(taskAddress(this.run, this.id), { type: 'task.enable' });
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

  /**
   * Makes the task what it was at one of its checkpoints; its run goes on with the others. Work that is under way is
   * called off; an attempt it was in the middle of begins again.
   * @throws {ConflictError} the run has ended, or others have gone on because this task had: roll back the run
   */
  async rollback(to: number | string): Promise<TaskMove> {
    const address = taskAddress(this.run, this.id);
    await this.#troupe.host.flush();
    const { seq } = await this.#troupe.history.checkpoint(address, to);
    return await this.#troupe.runTravel.rollbackTask(this.run, this.id, seq);
  }

  async #ask(message: AcceptedBy<Address<'task'>>): Promise<TaskState> {
    try {
      const reply = await this.#troupe.request(taskAddress(this.run, this.id), message);
      return (reply as unknown as { state: TaskState }).state;
    } catch (error) {
      throw refusalOf(error);
    }
  }
}

/** What a task refuses comes as data; here it is an error of its class again. */
function refusalOf(error: unknown): unknown {
  if (!(error instanceof TroupeError)) return error;
  const { code, message, context } = error;
  if (code === 'conflict') return new ConflictError(message, { context, cause: error });
  return code === 'validation' ? new ValidationError(message, { context, cause: error }) : error;
}

const isSettled = (state: JsonValue): boolean =>
  state === 'done' || state === 'cancelled' || state === 'blocked';

function requireNoRole(address: Address, what: string, instead: string): void {
  if (!ROLES.has(kindOf(address))) return;
  throw new ValidationError(
    `${address} is of one of Troupe's own roles and cannot be ${what} by itself: others rely on it. ${instead}`,
  );
}

function requireOwnId(machine: AnyStateMachine): void {
  const { id } = machine ?? {};
  // What XState calls a machine without an id: the next one without would be taken for it.
  if (id !== '(machine)' && !ROLES.has(id)) return;
  throw new ConfigurationError(
    id === '(machine)'
      ? 'Expected the machine to have an id, under which its actors are found again: createMachine({ id: "inbox", … }).'
      : `The machine id "${id}" is Troupe's own. Choose another than ${[...ROLES].join(', ')}.`,
  );
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

function runStatus(row: Awaited<ReturnType<Store['listRuns']>>[number]): RunStatus {
  const details = JSON.parse(row.detailsJson) as {
    counts: Record<TaskPhase, number>;
    reason: string | null;
    forkedFrom?: RunStatus['forkedFrom'];
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
    forkedFrom: details.forkedFrom ?? null,
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
