import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Logger } from 'pino';
import type { Observable } from 'rxjs';
import type { AnyStateMachine } from 'xstate';
import { agentActor, type RegisteredAgent } from './actors/agent.ts';
import { AgentLife, type AgentLifeOptions, DEFAULT_START_TIMEOUT_MS } from './actors/agent-life.ts';
import { agentMigrations } from './actors/agent-migrations.ts';
import type { PresetAgentOptions } from './actors/agent-presets.ts';
import { type AgentStats, agentStats } from './actors/agent-stats.ts';
import {
  type AuditEntry,
  type AuditOptions,
  AuditReader,
  checkAuditQuery,
  followAudit,
} from './actors/audit.ts';
import {
  Breaker,
  type BreakerStatus,
  listBreakers,
  parseBreakerSettings,
} from './actors/breaker.ts';
import { type CommandEngineOptions, commandEngine, presetEngine } from './actors/command-engine.ts';
import type { Compensations } from './actors/compensation.ts';
import { cutOf, type TaskMove } from './actors/cuts.ts';
import type { Engine } from './actors/engine.ts';
import { checkStages, Fallbacks } from './actors/fallbacks.ts';
import { checkTract, Flow, type FlowMetrics, type Tract } from './actors/flow.ts';
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
import { type OverseerPolicy, overseerActor, type SupervisorPolicy } from './actors/overseer.ts';
import { patchEngine } from './actors/patch-engine.ts';
import { Registry } from './actors/registry.ts';
import {
  checkReport,
  type RegressionReport,
  type ReportedRegression,
  regressionNumber,
  regressionPrefix,
  regressionTask,
} from './actors/regressions.ts';
import { parseRetention, type RetentionOptions, type WholeRetention } from './actors/retention.ts';
import { runActor } from './actors/run.ts';
import { runMigrations } from './actors/run-migrations.ts';
import {
  agentsOf,
  type CheckedRun,
  checkRunSpec,
  type Known,
  type RunSpec,
  requireKnown,
  requireStage,
} from './actors/run-spec.ts';
import { RunTravel } from './actors/run-travel.ts';
import {
  type Schedule,
  type ScheduledAction,
  Schedules,
  type ScheduleTiming,
  scheduleActor,
} from './actors/schedules.ts';
import {
  type SignalOptions,
  StreamAccess,
  type StreamReading,
  type WriteStreamOptions,
} from './actors/stream-access.ts';
import {
  type SuperviseOptions,
  Supervisor,
  type SupervisorStatus,
  supervisorInput,
  supervisorsOf,
} from './actors/supervisor.ts';
import { GIT_GATEKEEPER, taskActor } from './actors/task.ts';
import { taskMigrations } from './actors/task-migrations.ts';
import {
  addBuiltIns,
  checkTemplate,
  instantiate,
  parseTemplateName,
  requireTemplate,
  type TemplateCall,
  type WorkflowTemplate,
} from './actors/templates.ts';
import { TimedCuts } from './actors/timed-cuts.ts';
import { TurnWatch } from './actors/turn-watch.ts';
import { UnderWay } from './actors/under-way.ts';
import { checkWorkflow, compile, type WorkflowSpec } from './actors/workflow.ts';
import { agentQueries } from './machines/agent-queries.ts';
import { type BreakerSettings, breakerMachine } from './machines/breaker-machine.ts';
import { FLOW_REACH, type FlowOptions, parseFlow } from './machines/flow-control.ts';
import { AGENT_STAGES, type AgentStage } from './machines/policies/agent-chain.ts';
import {
  type BlockersSummary,
  staggerMs,
  summariseBlockers,
} from './machines/policies/blockers.ts';
import { errorFingerprint } from './machines/policies/fingerprint.ts';
import type { PhaseStatus, WorkflowRecord } from './machines/policies/phases.ts';
import { readSettings } from './machines/policies/settings.ts';
import { planSkip, type SkipPlan } from './machines/policies/skip.ts';
import { nextStaged } from './machines/policies/staging.ts';
import { phaseOf } from './machines/policies/task-phase.ts';
import { PROGRESS_STREAM, type TaskProgress } from './machines/policies/task-progress.ts';
import { projectRun, projectTask, type RunState } from './machines/projections.ts';
import type { RunContext, RunInput } from './machines/run-machine.ts';
import type { StartInput, StartOutput } from './machines/schedule-machine.ts';
import { type SupervisorContext, supervisorMachine } from './machines/supervisor-machine.ts';
import { type CancelReport, doer, startState, type TaskContext } from './machines/task-machine.ts';
import {
  type Address,
  agentAddress,
  breakerAddress,
  gatekeeperAddress,
  kindOf,
  nameOf,
  overseerAddress,
  parseAddress,
  parseId,
  runAddress,
  scheduleAddress,
  taskAddress,
} from './protocol/address.ts';
import type { Decision, TaskPhase, TaskState } from './protocol/catalogue.ts';
import type { AcceptedBy } from './protocol/commands.ts';
import {
  ConfigurationError,
  ConflictError,
  NotFoundError,
  StoppedError,
  TimeoutError,
  TroupeError,
  ValidationError,
} from './protocol/errors.ts';
import { type FaultPoint, noFaults } from './protocol/fault-point.ts';
import { deepHash, unitHash } from './protocol/hash.ts';
import { type JsonObject, type JsonValue, typeWord } from './protocol/json.ts';
import type { Message } from './protocol/message.ts';
import { type Clock, systemClock } from './runtime/clock.ts';
import {
  DurableHost,
  type MachineOptions,
  type RequestOptions,
  type SendOptions,
} from './runtime/durable-host.ts';
import type { EffectContext } from './runtime/effect-runner.ts';
import type { HostEvents, Turn } from './runtime/host-events.ts';
import type { PruneReport } from './runtime/housekeeping.ts';
import type { Leases } from './runtime/leases.ts';
import type { Ending } from './runtime/lives.ts';
import { requireMachine } from './runtime/machine-check.ts';
import { type MailboxPolicy, type Overflow, parseMailboxPolicy } from './runtime/mailbox-policy.ts';
import type { MessageCounts } from './runtime/message-counts.ts';
import { rx } from './runtime/rx.ts';
import { checkStatement } from './runtime/step.ts';
import type { ReadStreamOptions, StreamLimits, StreamWriter } from './runtime/stream.ts';
import { MemoryStore } from './store/memory/memory-store.ts';
import type { PayloadCodec } from './store/payload/codec.ts';
import { PackedStore } from './store/payload/packed-store.ts';
import type { Reencrypted, ReencryptOptions } from './store/payload/reencrypt.ts';
import { openSqliteStore } from './store/sqlite/sqlite-store.ts';
import type { AttemptRow, SqlValue, Store, StreamHead, TaskRow } from './store/store.ts';

export type { QaInput, RunSpec, TaskInput } from './actors/run-spec.ts';

export interface TroupeOptions {
  /** Path of the SQLite file (made if need be), `:memory:`, or a store of your own. */
  readonly store: string | Store;
  /** Encrypts what actors store, or encodes it otherwise. Default: none. See PayloadCodec. */
  readonly codec?: PayloadCodec;
  /** A turn that would store a longer state of an actor fails, and says which keys are large. Default 16 MiB. */
  readonly maxSnapshotBytes?: number;
  /** What a stream may take. Default: see StreamLimits. */
  readonly streams?: Partial<StreamLimits>;
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
  /** Messages that may wait for one agent that has no limit of its own (see AgentOptions). Default 1 000. */
  readonly agentMailboxLimit?: number;
  /** See `HostEvents.looped`: a longer chain of messages is ended. Default: none is. */
  readonly chainLimit?: number;
  /** Idempotency keys of `send` and `request` are forgotten after so long. Default 86 400 000 ms, 24 hours. */
  readonly idempotencyTtlMs?: number;
  /** An agent or gatekeeper that shows no sign of life for so long is aborted. Default 600 000 ms; 0: never. */
  readonly heartbeatMs?: number;
  /** How much history is kept; false: all of it. Default: see RetentionOptions. */
  readonly retention?: RetentionOptions | false;
  /** A run is refused if one of the agents or gatekeepers it names could not be made within so long. Default 10 000 ms. */
  readonly startTimeoutMs?: number;
  /** @internal */
  readonly faultPoint?: FaultPoint;
  /** @internal */
  readonly defer?: (callback: () => void, yielding: boolean) => void;
}

export interface AgentOptions extends FlowOptions, AgentLifeOptions {
  /** Tasks done at once. Default 1. */
  readonly concurrency?: number;
  /** For one attempt. Default 1 200 000 ms (20 minutes). */
  readonly timeoutMs?: number;
  /**
   * `internal` for an agent that reasons (plans, reviews), `external` for one that acts. Only counted: see `Troupe.flow`.
   * Default `external`.
   */
  readonly tract?: Tract;
  /** By step name: takes a finished step back when its task is cancelled; newest first. */
  readonly compensate?: Compensations;
  /** Tasks that may wait for it. Default: `agentMailboxLimit`. */
  readonly mailboxLimit?: number;
  /**
   * What becomes of one more: `refuse` (default), and it is tried again after the back-off, or `wait`, and it waits with
   * the others. Tasks are requests, which are never dropped.
   */
  readonly overflow?: Exclude<Overflow, 'dropOldest'>;
  /** When its circuit breaker opens and closes. Default: 10 failures in a row, 5 000 ms, 3 successes. */
  readonly breaker?: BreakerSettings;
  /**
   * The agent that does a task when this one cannot: its breaker is open or too many wait for it, and then the same
   * attempt is for that one; or it could not work at an attempt (it is missing, away, rate limited, or has died), and
   * then the next one is. The attempt says who did it (`by`); any later one asks this agent again. Default: nobody does,
   * and the task is tried again later.
   *
   * Fallbacks in a row are a chain: each is an agent that is registered, and `by.insteadOf` has those that were passed
   * over, with the reasons. Bad work leads to nobody else, nor does work that was not done in time. It is the chain of
   * tasks that name only this agent: one that names a list has said all (`TaskInput.agent`).
   */
  readonly fallback?: string;
  /** What it may be asked for: to do tasks (`implement`), to mend what was rejected (`qa`). Default: all. */
  readonly stages?: readonly AgentStage[];
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
  /** Those of them that it goes on without: they were skipped or cancelled. */
  readonly without: readonly string[];
  /** The task that goes on without this one, which was skipped. */
  readonly skippedFor: string | null;
  /** What an agent asked, while the task awaits the answer. */
  readonly question: JsonValue;
  /** The file that proves the last verdict. */
  readonly artifact: string | null;
  readonly commit: string | null;
  /** What came of cancelling it; null if it was not, or is being. */
  readonly cancellation: CancelReport | null;
  /** The task that was done and is broken again, which this one mends; null for any other. */
  readonly regressionOf: { readonly run: string; readonly task: string } | null;
  /** What its agent has said last about how far it is; null: nothing yet. The stream `progress` has it all. */
  readonly progress: (TaskProgress & { readonly at: number }) | null;
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
  /** How the phases of a workflow stand, in its order; none for a run that is only a set of tasks. */
  readonly phases: readonly PhaseStatus[];
}

/** What came of cancelling a run. */
export interface RunCancellation {
  readonly cancelled: readonly string[];
  /** Tasks that had been done before: they stay so. */
  readonly alreadyDone: readonly string[];
  /** Who did not heed that it was called off, and may still be at work. */
  readonly notStopped: readonly { readonly task: string; readonly who: string }[];
  /** Finished steps that could not be taken back. */
  readonly notTakenBack: readonly {
    readonly task: string;
    readonly step: string;
    readonly reason: string;
  }[];
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

/** A run that can be made, with its phases if it has any. */
type StartableRun = CheckedRun & {
  readonly workflow: WorkflowRecord | null;
  readonly startedBy?: Address<'schedule'>;
};

/** Actors read in one go. */
const MAX_CHECKED = 1000;
const DEFAULT_CONCURRENCY = 1;
const DEFAULT_AGENT_TIMEOUT_MS = 1_200_000;
const DEFAULT_AGENT_MAILBOX = 1_000;
/** An actor that is asked to stop and does not is ended after so long. */
const STOP_TIMEOUT_MS = 5_000;
const OVERSEER = 'main';
const DEFAULT_BREAKER: Required<BreakerSettings> = { failures: 10, openMs: 5_000, successes: 3 };
/** As far as a run's tasks can get ahead of it: it is not refused what they report, or it would never end. */
const RUN_MAILBOX_LIMIT = 10_000_000;
/** Kinds of actors and names of machines that are Troupe's own. */
const ROLES: ReadonlySet<string> = new Set([
  ...([
    'run',
    'task',
    'agent',
    'gatekeeper',
    'overseer',
    'breaker',
    'supervisor',
    'schedule',
    'app',
  ] as const),
]);

/** Of runs and of tasks. */
const ENDING: ReadonlySet<string> = new Set(['cancelling', 'cancelled', 'done']);
/** So many tasks are named in a sentence. */
const MAX_NAMED = 10;

// Written as objects so that the compiler misses a key that was forgotten.
const TROUPE_KEYS: Record<keyof TroupeOptions, true> = {
  store: true,
  codec: true,
  maxSnapshotBytes: true,
  streams: true,
  durability: true,
  takeOver: true,
  appSchema: true,
  project: true,
  logger: true,
  clock: true,
  newId: true,
  agentMailboxLimit: true,
  chainLimit: true,
  idempotencyTtlMs: true,
  heartbeatMs: true,
  retention: true,
  startTimeoutMs: true,
  faultPoint: true,
  defer: true,
};
const AGENT_KEYS: Record<keyof AgentOptions, true> = {
  concurrency: true,
  timeoutMs: true,
  tract: true,
  compensate: true,
  mailboxLimit: true,
  overflow: true,
  breaker: true,
  fallback: true,
  stages: true,
  perKey: true,
  rateLimit: true,
  throttle: true,
  debounce: true,
  start: true,
  stop: true,
  startTimeoutMs: true,
  stopTimeoutMs: true,
};

const MOVING: ReadonlySet<TaskPhase> = new Set(['ready', 'active', 'verifying', 'delayed']);

/**
 * Opens a store and goes on with whatever waits in it. Register agents and gatekeepers right after; work of agents
 * that are not registered yet waits for them.
 * @throws {LockConflictError} another process has the store open; the message names it
 * @throws {ConfigurationError} the project or an option cannot be worked with
 */
export async function createTroupe(options: TroupeOptions): Promise<Troupe> {
  checkOptions(options);
  const logger = options.logger ?? (await standardErrorLogger());
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

/**
 * What the parts that it is for do not check themselves. A misspelt `durability` would be a weaker one, and nobody would know.
 * @throws {ConfigurationError}
 */
function checkOptions(options: unknown): void {
  const given = readSettings(options, Object.keys(TROUPE_KEYS), 'createTroupe');
  const { store, durability = 'full', takeOver = false, appSchema = [] } = given;
  const refuse = (expected: string, got: string): never => {
    throw new ConfigurationError(`createTroupe: Expected ${expected}, got ${got}.`);
  };
  if (typeof store !== 'string' && (typeof store !== 'object' || store === null)) {
    refuse(
      'the store to be the path of a file, ":memory:" or a store of your own',
      typeWord(store),
    );
  }
  if (durability !== 'full' && durability !== 'normal') {
    refuse('durability to be full or normal', JSON.stringify(durability) ?? typeof durability);
  }
  if (typeof takeOver !== 'boolean') {
    refuse('takeOver to be true or false', JSON.stringify(takeOver) ?? typeof takeOver);
  }
  if (!Array.isArray(appSchema)) refuse('appSchema to be a list of statements', typeof appSchema);
  for (const [index, statement] of (appSchema as readonly unknown[]).entries()) {
    if (typeof statement === 'string') continue;
    refuse(`statement ${index + 1} of appSchema to be a text`, typeWord(statement));
  }
}

async function standardErrorLogger(): Promise<Logger> {
  // Not loaded for those who bring their own.
  const { pino } = await import('pino');
  return pino({ level: 'warn' }, pino.destination(2));
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
  /** What was: checkpoints of actors, cuts of runs, and how they differ. */
  readonly history: History;
  /** Schedules of messages and runs: list them, pause, resume, trigger and delete them. */
  readonly schedules: Schedules;
  readonly #timedCuts: TimedCuts;
  readonly #flow: Flow;
  readonly #runTravel: RunTravel;
  readonly #streams: StreamAccess;
  readonly #host: DurableHost;
  readonly #store: PackedStore;
  readonly #retention: WholeRetention | undefined;
  readonly #project: GitProject | undefined;
  readonly #clock: Clock;
  readonly #newId: () => string;
  readonly #logger: Logger;
  readonly #agents: Registry<RegisteredAgent>;
  readonly #concurrency = new Map<string, number>();
  readonly #mailboxes = new Map<string, MailboxPolicy>();
  readonly #fallbacks = new Fallbacks();
  readonly #agentMailboxLimit: number;
  readonly #verifiers: Registry<Verifier>;
  readonly #templates: Registry<WorkflowTemplate>;
  #policy: OverseerPolicy | undefined;
  #supervisorPolicy: SupervisorPolicy | undefined;
  /** Roles that are being made; one that could not be made stays, and is told to whoever starts a run with it. */
  readonly #setup = new Map<string, Promise<unknown>>();
  readonly #startTimeoutMs: number;
  readonly #agentLives: AgentLife[] = [];
  readonly #inTurn = new Map<string, Promise<void>>();
  readonly #starting = new Map<string, Promise<unknown>>();
  #turns$: Observable<Turn> | undefined;
  /** Aborted when the runtime has stopped or failed. */
  readonly #over = new AbortController();
  readonly #waiting = new Set<(error: Error) => void>();
  #keepAlive: NodeJS.Timeout | undefined;
  #pruning = false;

  /** @internal Use `createTroupe`. */
  constructor(
    options: TroupeOptions,
    store: PackedStore,
    project: GitProject | undefined,
    logger: Logger,
    faultPoint: FaultPoint,
    retention: WholeRetention | undefined,
  ) {
    this.#store = store;
    this.#retention = retention;
    this.#project = project;
    this.#clock = options.clock ?? systemClock;
    this.#newId = options.newId ?? randomUUID;
    this.#startTimeoutMs = options.startTimeoutMs ?? DEFAULT_START_TIMEOUT_MS;
    requirePositive('startTimeoutMs', this.#startTimeoutMs);
    this.#logger = logger;
    const underWay = new UnderWay(this.#clock);
    const flow = new Flow(this.#clock.now());
    this.#flow = flow;
    const onMissing = (what: string, name: string): void =>
      logger.warn({ name }, `work waits for the ${what} "${name}", which is not registered`);
    this.#agents = new Registry<RegisteredAgent>('agent', onMissing, this.#clock);
    this.#verifiers = new Registry<Verifier>('gatekeeper', onMissing, this.#clock);
    this.#templates = new Registry<WorkflowTemplate>('template', onMissing, this.#clock);
    addBuiltIns(this.#templates);
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
      ...(options.chainLimit === undefined ? {} : { chainLimit: options.chainLimit }),
      retention,
      ...(options.maxSnapshotBytes === undefined
        ? {}
        : { maxSnapshotBytes: options.maxSnapshotBytes }),
      ...(options.streams === undefined ? {} : { streams: options.streams }),
      ...(options.defer === undefined ? {} : { defer: options.defer }),
    });
    this.#host.register('run', runActor(store), {
      project: (actor) => projectRun(actor as never),
      migrations: runMigrations,
      cut: ({ context, value, at }, occasion) =>
        cutOf((context as unknown as RunContext).run, occasion, at, {
          label: occasion === 'milestone' && typeof value === 'string' ? value : null,
        }),
      mailboxLimit: RUN_MAILBOX_LIMIT,
      audited: true,
    });
    this.#host.register('task', taskActor(store, this.#agents, project, this.#clock, underWay), {
      project: (actor) => projectTask(actor as never),
      migrations: taskMigrations,
      audited: true,
      observe: ({ address, context }, { from }) =>
        flow.taskHeard({ address, from }, doer(context as unknown as TaskContext)),
    });
    this.#agentMailboxLimit = options.agentMailboxLimit ?? DEFAULT_AGENT_MAILBOX;
    const agents = agentActor(
      this.#agents,
      project,
      this.#clock,
      store,
      underWay,
      this.#host.streams,
    );
    this.#host.register('agent', agents, {
      migrations: agentMigrations,
      queries: agentQueries,
      mailboxLimit: this.#agentMailboxLimit,
      mailboxOf: (address) => this.#mailboxes.get(nameOf(address)),
    });
    const observeJudge: MachineOptions['observe'] = ({ address }, { from }) =>
      flow.judgeHeard({ address, from });
    this.#host.register('gatekeeper', gatekeeperActor(this.#verifiers, underWay), {
      observe: observeJudge,
    });
    this.#host.register(
      'overseer',
      overseerActor(
        () => this.#policy,
        () =>
          this.#agents
            .names()
            .filter((name) => this.#fallbacks.stagesOf(name).includes('implement')),
        () => this.#supervisorPolicy,
      ),
      { observe: observeJudge },
    );
    this.#host.register('breaker', breakerMachine);
    this.#host.register('supervisor', supervisorMachine, {
      supervises: true,
      // It is not refused what it is told of its children.
      mailboxLimit: RUN_MAILBOX_LIMIT,
    });
    this.#host.register(
      'schedule',
      scheduleActor((input, context) => this.#startScheduled(input, context)),
    );
    this.schedules = new Schedules({
      host: this.#host,
      store,
      clock: this.#clock,
      checkCall: (call) => void instantiate(requireTemplate(this.#templates, call.template), call),
    });
    this.#timedCuts = new TimedCuts(this.#host, this.#clock, logger);
    this.history = new History(store);
    this.#streams = new StreamAccess(this.#host, store, this.#newId);
    this.#runTravel = new RunTravel({
      store,
      clock: this.#clock,
      timeTravel: this.#host.timeTravel,
    });
    this.on('failed', () => this.#over.abort());
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
      const { kept, left } = await this.#project.reap(live);
      if (kept.length + left.length > 0) {
        this.#logger.warn(
          { kept, left },
          'put aside, or left, places of agents that a crash had left behind',
        );
      }
      this.#verifiers.add(
        GIT_GATEKEEPER,
        this.#project.verifier(() => this.#store.assertOwner()),
      );
    }
    await this.#host.open();
    if (this.#project !== undefined) {
      this.#pruneProjectMeanwhile();
      this.on('turn', ({ machine, status }) => {
        if (machine === 'run' && status === 'done') this.#pruneProjectMeanwhile();
      });
    }
    this.#spawnSoon([
      { address: overseerAddress(OVERSEER), machine: 'overseer', input: { name: OVERSEER } },
    ]);
    if (this.#project !== undefined) {
      this.#spawnGatekeeper(GIT_GATEKEEPER, this.#project.gatekeeperConcurrency);
    }
  }

  /**
   * Registers an agent: a function that does tasks.
   * @throws {ConfigurationError} the name is taken or an option is out of range
   */
  agent(name: string, engine: Engine, options: AgentOptions = {}): void {
    this.#addAgent(name, engine, options, false);
  }

  #addAgent(
    name: string,
    engine: Engine,
    options: AgentOptions,
    freshOnRestart: boolean,
    possible: readonly AgentStage[] = AGENT_STAGES,
  ): void {
    parseId(name, 'the name of an agent');
    readSettings(options, Object.keys(AGENT_KEYS), `agent "${name}"`);
    if (typeof engine !== 'function') {
      throw new ConfigurationError(
        `Expected agent "${name}" to be a function that does tasks, got ${typeWord(engine)}.`,
      );
    }
    const concurrency = options.concurrency ?? DEFAULT_CONCURRENCY;
    const timeoutMs = options.timeoutMs ?? DEFAULT_AGENT_TIMEOUT_MS;
    requirePositive(`concurrency of agent "${name}"`, concurrency);
    requirePositive(`timeoutMs of agent "${name}"`, timeoutMs);
    const { fallback = null } = options;
    if ((options.overflow as Overflow | undefined) === 'dropOldest') {
      throw new ConfigurationError(
        `Expected the overflow of agent "${name}" to be refuse or wait, got dropOldest: what waits for an agent are tasks, and none is dropped.`,
      );
    }
    const mailbox = parseMailboxPolicy(`agent "${name}"`, options, this.#agentMailboxLimit);
    const breaker = parseBreakerSettings(`the breaker of agent "${name}"`, options.breaker ?? {});
    this.#fallbacks.check(name, fallback);
    const stages = checkStages(name, options.stages, possible);
    const tract = checkTract(name, options.tract ?? 'external');
    const { perKey, rateLimit, throttle, debounce } = options;
    const flow = parseFlow(
      { perKey, rateLimit, throttle, debounce } as FlowOptions,
      `agent "${name}"`,
    );
    const { start, stop, startTimeoutMs, stopTimeoutMs } = options;
    for (const [key, value] of Object.entries({ startTimeoutMs, stopTimeoutMs })) {
      if (value !== undefined) requirePositive(`${key} of agent "${name}"`, value);
    }
    const life = new AgentLife(name, options, this.#clock, this.#logger);
    const startedEngine: Engine = async (context) => {
      await life.ready();
      return await engine(context);
    };
    this.#agents.add(name, {
      engine: start === undefined ? engine : startedEngine,
      timeoutMs,
      freshOnRestart,
      compensations: options.compensate ?? {},
    });
    // What may start is for the agent to say: it has to see the work of every key.
    this.#concurrency.set(name, flow === null ? concurrency : Math.max(concurrency, FLOW_REACH));
    this.#fallbacks.set(name, fallback, stages);
    const context = {
      agent: name,
      unreachable: 'mailbox',
      ...(fallback === null ? {} : { fallback }),
    };
    this.#mailboxes.set(name, { ...mailbox, context });
    // The agent takes every task at once and keeps them itself; those that may wait have no end then.
    const limit = mailbox.overflow === 'wait' ? Number.MAX_SAFE_INTEGER : mailbox.limit;
    const settings = { concurrency, limit, fallback, flow: flow as unknown as JsonValue };
    this.#flow.setTract(name, tract);
    if (start !== undefined || stop !== undefined) {
      this.#agentLives.push(life);
      // Its tasks hear of a failure, and try again; until then it must not end the process.
      life.ready().catch(() => undefined);
    }
    this.#spawnSoon(
      [
        { address: agentAddress(name), machine: 'agent', input: { name, ...settings } },
        {
          address: breakerAddress(`agent/${name}`),
          machine: 'breaker',
          input: { agent: name, ...breaker },
        },
      ],
      // Those that live on from before may have had other settings.
      async () => {
        await this.#host.send(agentAddress(name), { type: 'agent.configure', ...settings });
        await this.#host.send(breakerAddress(`agent/${name}`), {
          type: 'breaker.configure',
          ...DEFAULT_BREAKER,
          ...breaker,
        });
      },
    );
  }

  /**
   * A circuit breaker by its key: that of an agent, `agent/writer`, or one of your own, which is made when it is first
   * used: `troupe.breaker('model/large').run(() => call())`.
   * @param settings of one of your own; those of an agent come with the agent
   * @throws {ConfigurationError} settings that cannot be, or for an agent's
   * @throws {ValidationError} a key that is no name: white space, or more than 240 characters
   */
  breaker(key: string, settings?: BreakerSettings): Breaker {
    const address = breakerAddress(key);
    parseAddress(address);
    const isAgents = key.startsWith('agent/');
    if (isAgents && settings !== undefined) {
      throw new ConfigurationError(
        `The breaker "${key}" is an agent's: give its settings with the agent, troupe.agent(name, engine, { breaker }).`,
      );
    }
    if (settings !== undefined) parseBreakerSettings(`the breaker "${key}"`, settings);
    if (isAgents) {
      const agent = agentAddress(key.slice('agent/'.length));
      return new Breaker(key, this.#host, () => this.#ready([agent]));
    }
    let ready: Promise<void> | undefined;
    const make = async (): Promise<void> => {
      const input = { agent: null, ...settings };
      const made = await this.#host.spawn([{ address, machine: 'breaker', input }]);
      if (made.length > 0 || settings === undefined) return;
      const configure = { type: 'breaker.configure', ...DEFAULT_BREAKER, ...settings };
      await this.#host.send(address, configure);
    };
    return new Breaker(key, this.#host, () => {
      ready ??= make().catch((error: unknown) => {
        ready = undefined;
        throw error;
      });
      return ready;
    });
  }

  /** Every circuit breaker that there is, by its key. */
  async breakers(): Promise<readonly BreakerStatus[]> {
    await this.#host.flush();
    return await listBreakers(this.#store);
  }

  /**
   * Registers an agent that is a command run in the task's workspace: your own, or a program of `AGENT_PRESETS`. Needs a
   * project.
   * @throws {ConfigurationError} the name is taken, an option is out of range, or there is no such preset
   */
  commandAgent(
    name: string,
    command: CommandEngineOptions | PresetAgentOptions,
    options: AgentOptions = {},
  ): void {
    const project = this.#requireProject(`agent "${name}"`);
    const engine =
      'preset' in command ? presetEngine(project, name, command) : commandEngine(project, command);
    this.#addAgent(name, engine, options, true);
  }

  /**
   * What of the project agents and verification will not see as its user does: submodules, files in LFS, a history that is
   * cut. Something to show before work begins; empty without a project.
   */
  async projectNotes(): Promise<readonly string[]> {
    return (await this.#project?.notes()) ?? [];
  }

  /**
   * Registers an agent that applies the patches named in a task's input. Needs a project. It mends nothing: its only stage
   * is `implement`.
   */
  patchAgent(name: string, options: AgentOptions = {}): void {
    const engine = patchEngine(this.#requireProject(`agent "${name}"`));
    this.#addAgent(name, engine, options, true, ['implement']);
  }

  /** Registers a gatekeeper for tasks that are not code. */
  gatekeeper(
    name: string,
    verify: VerifyFunction,
    options: { readonly concurrency?: number } = {},
  ): void {
    parseId(name, 'the name of a gatekeeper');
    readSettings(options, ['concurrency'], `gatekeeper "${name}"`);
    if (typeof verify !== 'function') {
      throw new ConfigurationError(
        `Expected gatekeeper "${name}" to be a function that verifies, got ${typeWord(verify)}.`,
      );
    }
    const concurrency = options.concurrency ?? DEFAULT_CONCURRENCY;
    requirePositive(`concurrency of gatekeeper "${name}"`, concurrency);
    this.#verifiers.add(name, genericVerifier(name, verify, errorFingerprint));
    this.#spawnGatekeeper(name, concurrency);
  }

  #spawnGatekeeper(name: string, concurrency: number): void {
    const address = gatekeeperAddress(name);
    this.#spawnSoon([{ address, machine: 'gatekeeper', input: { name, concurrency } }], () =>
      // One that lives on from before may have had another setting.
      this.#host.send(address, { type: 'gatekeeper.configure', concurrency }),
    );
  }

  /** What each agent has done and has to do, also those of earlier processes that are not registered here. */
  async agents(): Promise<readonly AgentStats[]> {
    await this.#host.flush();
    const all = await this.#store.listActors({ kind: 'agent' });
    const stored = await this.#store.loadActors(all.map(({ address }) => address));
    const now = this.#clock.now();
    return stored
      .filter(({ unreadable }) => unreadable === undefined)
      .map(({ snapshotJson }) => agentStats(JSON.parse(snapshotJson), now))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Lets a policy decide about escalated tasks; what it leaves undecided waits for a person. */
  overseer(policy: OverseerPolicy): void {
    if (this.#policy !== undefined) throw new ConfigurationError('There is an overseer already.');
    this.#policy = policy;
  }

  /** Lets a policy decide about supervisors that have given up; what it leaves undecided waits for a person. */
  overseeSupervisors(policy: SupervisorPolicy): void {
    if (this.#supervisorPolicy !== undefined) {
      throw new ConfigurationError('There is a policy about supervisors already.');
    }
    this.#supervisorPolicy = policy;
  }

  /**
   * Starts a run: all its tasks are stored in one commit, or none.
   * @throws {ValidationError} anything about the tasks that cannot work: ids, agents, dependencies, cycles, limits
   * @throws {ConflictError} a run of this id exists with other tasks
   */
  async start(spec: RunSpec): Promise<Run> {
    return await this.#startOnce({
      ...checkRunSpec(spec, this.#newId, this.#known()),
      workflow: null,
    });
  }

  /**
   * Starts a run whose tasks are in phases: as they are given, or as a template has them. Each run of a template is a copy
   * of its own.
   * @throws {ValidationError} anything about phases or tasks that cannot work; no template of that name, or wrong parameters
   * @throws {ConflictError} a run of this id exists with other phases or tasks
   */
  async startWorkflow(spec: WorkflowSpec | TemplateCall): Promise<Run> {
    const whole =
      typeof spec === 'object' && spec !== null && 'template' in spec
        ? instantiate(requireTemplate(this.#templates, spec.template), spec)
        : spec;
    return await this.#startOnce(checkWorkflow(whole, this.#newId, this.#known()));
  }

  /**
   * Registers a template for `startWorkflow` and schedules. `feature`, `bugFix` and `refactoring` are there already.
   * @throws {ConfigurationError} the name is taken, or a placeholder is no parameter
   */
  template(name: string, template: WorkflowTemplate): void {
    this.#templates.add(parseTemplateName(name), checkTemplate(name, template));
  }

  /**
   * Sends a message, or starts a run of a template, whenever it is due: `troupe.schedule('nightly', { cron: '0 3 * * *',
   * timeZone: 'Europe/Berlin' }, { start: { template: 'report', params: { day: '{{dueAt}}' } } })`. It is stored; call this
   * at every start of the program, a schedule that is the same stays as it is. Each due time fires exactly once, wherever the
   * process dies.
   * @throws {ValidationError} a pattern, a zone, an address, a message or a template that cannot work
   */
  schedule(id: string, timing: ScheduleTiming, action: ScheduledAction): Promise<Schedule> {
    return this.schedules.set(id, timing, action);
  }

  /** After a restart it may be due before the app has registered what it needs: then it waits for that, and says so. */
  async #startScheduled(
    { schedule, run, call }: StartInput,
    context: Pick<EffectContext, 'signal' | 'progress'>,
  ): Promise<StartOutput> {
    const known = await this.#host.inspect(runAddress(run));
    if (known !== undefined) return { ended: known.record.status !== 'active' };
    const template = await this.#templates.whenReady(call.template, context);
    const spec = { ...instantiate(template, call as TemplateCall), id: run };
    const { tasks } = compile(spec);
    const qa = [spec, ...tasks].flatMap((one) => (one.qa ? one.qa.agent : []));
    for (const agent of new Set([...tasks.flatMap((task) => task.agent), ...qa])) {
      if (agent !== undefined) await this.#agents.whenReady(agent, context);
    }
    for (const gatekeeper of new Set(tasks.map((task) => task.gatekeeper))) {
      if (gatekeeper !== undefined) await this.#verifiers.whenReady(gatekeeper, context);
    }
    // Last: no run is started while a fallback is missing, and any agent registered meanwhile may have one.
    for (const fallback of this.#fallbacks.names()) await this.#agents.whenReady(fallback, context);
    await this.#startOnce({
      ...checkWorkflow(spec, this.#newId, this.#known()),
      startedBy: scheduleAddress(schedule),
    });
    return { ended: false };
  }

  #known(): Known {
    return {
      agents: this.#agents.names(),
      stagesOf: this.#fallbacks.stagesOf,
      chainOf: this.#fallbacks.chainOf,
      gatekeepers: this.#verifiers.names(),
      gatekeeper: this.#project === undefined ? undefined : GIT_GATEKEEPER,
      overseer: OVERSEER,
    };
  }

  async #startOnce(checked: StartableRun): Promise<Run> {
    this.#fallbacks.requireAll(this.#agents.names());
    await this.#ready([
      ...checked.tasks.flatMap((task) => [
        ...agentsOf(task).map(agentAddress),
        gatekeeperAddress(task.gatekeeper),
      ]),
      overseerAddress(OVERSEER),
    ]);
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

  async #start({
    id,
    title,
    concurrency,
    tasks,
    workflow,
    startedBy,
  }: StartableRun): Promise<void> {
    const whole = workflow === null ? tasks : { tasks, workflow };
    const specHash = deepHash(whole as unknown as JsonValue);
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
      slots.set(task.agent, this.#slotsOf(task.agent));
    }
    const together = [...slots.values()].reduce((sum, n) => sum + n, 0);
    // Those that stand in, or mend, have places as well, and are no reason to begin more.
    for (const task of tasks) {
      for (const agent of agentsOf(task)) slots.set(agent, this.#slotsOf(agent));
    }
    const input: RunInput = {
      run: id,
      title,
      createdAt: this.#clock.now(),
      specHash,
      counts,
      slots: Object.fromEntries(slots),
      // While one submission of an agent is verified, the agent may do its next task.
      concurrency: concurrency ?? together * 2,
      workflow,
      ...(startedBy === undefined ? {} : { startedBy }),
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

  #slotsOf(agent: string): number {
    return this.#concurrency.get(agent) ?? DEFAULT_CONCURRENCY;
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
    if (typeof options !== 'object' || options === null) {
      throw new ValidationError(
        `Expected spawn to be given the machine and { id: "inbox/ada", input?, … }, got ${typeWord(options)}.`,
      );
    }
    const { id, input, ...machineOptions } = options;
    parseAddress(id);
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

  /**
   * Keeps actors alive: starts them in order, gives those that fail a new life as `strategy` says, with a back-off, and
   * gives up when that happens too often; then its own supervisor decides, or, if it has none, the overseer or a person
   * (`supervisor.decide`). Children are machines of your own, as for `spawn`, or supervisors.
   *
   * All of it is stored. Call it in every process, after a restart too: what lives goes on, nothing is started twice. With
   * other children or settings than before it takes them over: what is new is started, what is gone is stopped. One that
   * was stopped stays so.
   *
   * A new life begins in one commit from the child's `input`: timers, effects and requests of the one before are gone, its
   * checkpoints and the messages that wait are kept.
   * @throws {ConfigurationError} says which child cannot work, and why
   */
  async supervise(id: string, options: SuperviseOptions): Promise<Supervisor> {
    const register = (machine: AnyStateMachine, more: MachineOptions | undefined): void =>
      this.#registerOnce(machine, more);
    const input = supervisorInput(id, options, register, { overseer: OVERSEER, parent: null });
    const { address } = input;
    const created = await this.#host.spawn([
      { address: address as Address, machine: 'supervisor', input: input as unknown as JsonValue },
    ]);
    if (created.length === 0) {
      const known = await this.#host.inspect(address as Address);
      const context = known?.snapshot.context as unknown as SupervisorContext | undefined;
      if (known?.record.status === 'active' && context?.specHash !== input.specHash) {
        const { strategy, intensity, autoShutdown, children, specHash } = input;
        await this.#host.send(address as Address, {
          type: 'supervisor.configure',
          ...({ strategy, intensity, autoShutdown, children, specHash } as unknown as JsonObject),
        });
      }
    }
    return this.supervisor(id);
  }

  /** A supervisor that was made before, here or in a process that is gone. */
  supervisor(id: string): Supervisor {
    return new Supervisor(this.#host, id, (machine, more) => this.#registerOnce(machine, more));
  }

  /** All supervisors with their children. Those that are `escalated` wait for somebody's decision. */
  async supervisors(): Promise<readonly SupervisorStatus[]> {
    await this.#host.flush();
    const all = await this.#store.listActors({ kind: 'supervisor' });
    return supervisorsOf(await this.#store.loadActors(all.map(({ address }) => address)));
  }

  /**
   * Stops an actor for good. Its machine is asked, by the event `actor.stop`, if its state handles that, and ended as it
   * is when its time is up; what waits for it is refused. A supervisor stops its children first, in order.
   * @param options.timeoutMs how long it may take. Default 5 000; a supervisor has the time of all its children
   * @returns how it has ended; `killed`: it has not stopped in time
   * @throws {NotFoundError} there is no such actor
   * @throws {ValidationError} it is one of Troupe's own roles
   * @throws {ConflictError} it has a supervisor, which would start it again: stop it there
   */
  async stopActor(
    address: Address,
    options: { readonly timeoutMs?: number; readonly reason?: string } = {},
  ): Promise<Ending> {
    const { timeoutMs, reason = 'It was told to stop.' } = options;
    if (timeoutMs !== undefined) requirePositive('timeoutMs', timeoutMs);
    const isSupervisor = kindOf(parseAddress(address)) === 'supervisor';
    if (!isSupervisor) requireNoRole(address, 'stopped', 'Cancel a task or a run.');
    await this.#host.flush();
    const known = await this.#host.inspect(address);
    const parent = known?.record.parent ?? null;
    if (parent !== null && kindOf(parent) === 'supervisor') {
      throw new ConflictError(
        `${address} is a child of ${parent}. Stop it there: troupe.supervisor(id).stopChild("${address}").`,
      );
    }
    const shutdown =
      isSupervisor && timeoutMs === undefined
        ? 'infinity'
        : { timeoutMs: timeoutMs ?? STOP_TIMEOUT_MS };
    return await this.#host.stopActor(address, shutdown, reason);
  }

  #registerOnce(machine: AnyStateMachine, options: MachineOptions | undefined): void {
    requireOwnId(machine);
    if (!this.#host.isRegistered(machine.id)) this.register(machine, options ?? {});
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
   * Idempotency keys that were used since stay used: a message delivered again under one of them does not undo the
   * rollback. What is to be done anew, send under a new key, or without.
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
    options: { readonly as: Address },
  ): Promise<Address> {
    const as = parseAddress(readSettings(options, ['as'], 'fork')['as']);
    for (const one of [parseAddress(address), as]) {
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

  /** What has become of messages since the runtime was opened: refused, dropped, late, … */
  get counts(): MessageCounts {
    return this.#host.counts;
  }

  /**
   * Reads a stream of a task or another actor, from an offset on: what is stored, then what comes. A reader that goes on
   * after the last chunk it has seen, in this process or the next, misses nothing and sees nothing twice.
   * `for await (const { value } of troupe.readStream('task/report-42/draft', { from: 0 })) …`
   * @throws {ValidationError} an address, name or offset that cannot be. The reading itself ends with an error:
   * NotFoundError (no such actor, no such stream), CancelledError (`signal`), StoppedError
   */
  readStream(address: Address, options: ReadStreamOptions = {}): StreamReading {
    return this.#streams.read(address, options);
  }

  /** Writes to a stream of an actor from the app. Agents and effects have a `stream` of their own. */
  writeStream(address: Address, options: WriteStreamOptions = {}): StreamWriter {
    return this.#streams.writer(address, options);
  }

  /**
   * Tells something to a task's agent while it works, which waits for it with `nextSignal` or `signals`. When it resolves
   * the signal is stored: in the order in which they were sent each is given to one attempt, and to a restart of it again.
   * @throws {NotFoundError} there is no such task
   * @throws {ConflictError} the task has ended, or the key was used for another value (IdempotencyConflictError)
   * @throws {TroupeError} `quota`: too many have been sent
   */
  async signal(
    address: Address<'task'>,
    name: string,
    value: JsonValue = null,
    options: SignalOptions = {},
  ): Promise<void> {
    await this.#streams.signal(address, name, value, options);
  }

  /**
   * Asks about an actor's state: one of the `queries` its machine is registered with. It is answered from the state as it
   * is stored, without a turn or a checkpoint, whether the actor is in memory or not, or has ended.
   * @throws {NotFoundError} no such actor or query; says which queries there are
   * @throws {TroupeError} `internal`: the query threw, or answered with what is not JSON
   */
  queryActor(address: Address, name: string, args: JsonValue = null): Promise<JsonValue> {
    return this.#host.query(address, name, args);
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
   * How messages flow between the agents that reason and those that act, since this runtime opened the store. A restart
   * begins anew, and `since` says when.
   */
  flow(): FlowMetrics {
    return this.#flow.metrics();
  }

  /**
   * What has happened, oldest first: every turn with the message it handled, every order from outside with its answer (who,
   * what, when; also those that were refused), dead letters. Texts are without secrets. Turns are kept as long as their
   * checkpoints (`retention`), orders for 14 days, at most 5 000 of them.
   *
   * `for await (const entry of troupe.audit({ correlation: 'task/r/draft#3' })) …` follows what a turn, a message or a
   * request has led to, across actors and restarts.
   * @param options.follow goes on with what happens, until the signal is aborted or the runtime stops
   * @throws {ValidationError} a condition that cannot be (when it is called)
   */
  audit(options: AuditOptions = {}): AsyncIterable<AuditEntry> {
    const { follow = false, signal, ...query } = options;
    checkAuditQuery(options);
    const reader = new AuditReader(this.#store, query);
    return follow ? this.#follow(reader, signal) : this.#read(reader, signal);
  }

  async *#read(reader: AuditReader, signal: AbortSignal | undefined): AsyncGenerator<AuditEntry> {
    await this.#host.flush();
    for await (const entry of reader.read()) {
      if (signal?.aborted === true) return;
      yield entry;
    }
  }

  async *#follow(reader: AuditReader, signal: AbortSignal | undefined): AsyncGenerator<AuditEntry> {
    await this.#host.flush();
    const over = new AbortController();
    const stop = (): void => over.abort();
    signal?.addEventListener('abort', stop, { once: true });
    if (signal?.aborted === true) stop();
    const ended = this.#over.signal;
    ended.addEventListener('abort', stop, { once: true });
    if (ended.aborted) stop();
    try {
      yield* followAudit(reader, over.signal, (wake) => {
        const offs = (['turn', 'audited', 'deadLettered'] as const).map((event) =>
          this.on(event, wake),
        );
        return () => {
          for (const off of offs) off();
        };
      });
    } catch (error) {
      // Stopped in the middle of a read.
      if (!over.signal.aborted) throw error;
    } finally {
      ended.removeEventListener('abort', stop);
      signal?.removeEventListener('abort', stop);
    }
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
    const { removed, bytes } = await this.#host.prune(policy);
    const files = await this.#pruneProject(policy);
    return { removed: { ...removed, ...files }, bytes };
  }

  /** After the store: what it has forgotten is known then. */
  async #pruneProject(policy: WholeRetention): Promise<Readonly<Record<string, number>>> {
    if (this.#project === undefined) return {};
    const runs = () => this.#store.listRuns();
    return await this.#project.prune(runs, policy, this.#clock.now());
  }

  /** By itself: when the store is opened, and when a run has ended. Nothing waits for it. */
  #pruneProjectMeanwhile(): void {
    if (this.#retention === undefined || this.#pruning) return;
    this.#pruning = true;
    this.#pruneProject(this.#retention)
      .catch((error: unknown) => {
        // Nothing depends on it, and a runtime that stops ends its git: the next one tries again.
        this.#logger.debug({ err: error }, 'old files of runs could not be removed');
      })
      .finally(() => {
        this.#pruning = false;
      });
  }

  /**
   * Writes a copy of the store to a file while everything goes on: a store itself, as it was at one moment. See
   * `backUp` in store/sqlite/back-up.ts.
   * @returns its size in bytes
   * @throws {ConflictError} there is a file of that name
   * @throws {ConfigurationError} the store is in memory
   * @throws {ValidationError} no name of a file
   */
  async backup(file: string): Promise<number> {
    if (typeof file !== 'string' || file === '' || file.includes('\0')) {
      throw new ValidationError(
        `Expected backup to be given the file to write, got ${file === '' ? 'an empty text' : typeWord(file)}.`,
      );
    }
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

  /** Turns of all actors, told after they are stored. Completes when the runtime stops or fails (see `on('failed')`). */
  get turns$(): Observable<Turn> {
    const over = this.#over.signal;
    this.#turns$ ??= new (rx().Observable)<Turn>((subscriber) => {
      const complete = (): void => subscriber.complete();
      if (over.aborted) {
        complete();
        return;
      }
      over.addEventListener('abort', complete, { once: true });
      const off = this.on('turn', (turn) => subscriber.next(turn));
      return () => {
        over.removeEventListener('abort', complete);
        off();
      };
    });
    return this.#turns$;
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
  reencrypt(options: ReencryptOptions = {}): Promise<Reencrypted> {
    return this.#store.reencrypt(options);
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
    try {
      await this.#host.stop(options);
      await Promise.all(this.#agentLives.map((life) => life.stop()));
      await this.#project?.close();
    } finally {
      this.#over.abort();
      const error = new StoppedError();
      for (const reject of [...this.#waiting]) reject(error);
      this.#waiting.clear();
      clearInterval(this.#keepAlive);
      this.#keepAlive = undefined;
    }
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
    requireStage(where, name, 'implement', this.#fallbacks.stagesOf(name));
  }

  /** @internal See `Run.reportRegression`. */
  async reportRegression(
    run: string,
    task: string,
    report: RegressionReport,
  ): Promise<ReportedRegression> {
    const { reason, evidence } = checkReport(report, `the regression of task "${run}/${task}"`);
    const { state, commit } = await this.task(run, task).status();
    const actor = await this.#host.inspect(taskAddress(run, task));
    const known = (actor?.snapshot.context as unknown as TaskContext | undefined)?.spec;
    if (known?.regressionOf !== undefined && !ENDING.has(state)) {
      return { run, task, state, isNew: false };
    }
    if (state !== 'done' || known === undefined) {
      throw new ConflictError(
        `Task "${run}/${task}" is ${state}: only what was done can be broken again. What is wrong with it now belongs to its own attempts: decide("retry", { guidance }).`,
        { context: { state } },
      );
    }
    // What has mended it once, and is broken again in its turn, is about the same task.
    const origin = known.regressionOf ?? { run, task };
    const prefix = regressionPrefix(origin.run, origin.task);
    return await this.inTurn(prefix, async () => {
      let last = 0;
      for (const row of await this.#store.listRuns()) {
        const number = regressionNumber(row.run, prefix);
        if (number === undefined) continue;
        if (row.endedAt === null) {
          const open = await this.task(row.run, origin.task).status();
          return { run: row.run, task: open.id, state: open.state, isNew: false };
        }
        last = Math.max(last, number);
      }
      const id = `${prefix}${last + 1}`;
      const regressionOf = { run: origin.run, task: origin.task, commit, reason, evidence };
      const made = regressionTask(known, id, regressionOf);
      await this.#start({
        ...{ id, title: made.title, concurrency: undefined, workflow: null },
        tasks: [made],
      });
      return { run: id, task: made.id, state: startState(made), isNew: true };
    });
  }

  /** @internal One after the other, of those with the same key. */
  async inTurn<T>(key: string, work: () => Promise<T>): Promise<T> {
    const result = (this.#inTurn.get(key) ?? Promise.resolve()).then(work);
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.#inTurn.set(key, settled);
    try {
      return await result;
    } finally {
      if (this.#inTurn.get(key) === settled) this.#inTurn.delete(key);
    }
  }

  /** @internal Those of the tasks that can take a turn: they have neither ended nor been quarantined. */
  async activeTasks(run: string, tasks: readonly string[]): Promise<readonly string[]> {
    const active: string[] = [];
    for (let at = 0; at < tasks.length; at += MAX_CHECKED) {
      const addresses = tasks.slice(at, at + MAX_CHECKED).map((task) => taskAddress(run, task));
      for (const { address, status } of await this.#store.loadActors(addresses)) {
        if (status === 'active') active.push(address.slice(taskAddress(run, '').length));
      }
    }
    return active;
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

  /**
   * Resolves when these roles are made. One that cannot be keeps nobody from the others.
   * @throws {TimeoutError} names the one that was not made in time
   */
  async #ready(roles: readonly Address[]): Promise<void> {
    await Promise.all([...new Set(roles)].map((role) => this.#made(role)));
  }

  async #made(role: Address): Promise<void> {
    const making = this.#setup.get(role);
    if (making === undefined) return;
    const ms = this.#startTimeoutMs;
    const late = Promise.withResolvers<never>();
    const cancel = this.#clock.setTimer(ms, () => {
      const text = `The ${kindOf(role)} "${role.slice(role.indexOf('/') + 1)}" was not started within ${ms} ms.`;
      late.reject(new TimeoutError(text, { context: { address: role } }));
    });
    try {
      await Promise.race([making, late.promise]);
    } finally {
      cancel();
    }
  }

  #spawnSoon(
    requests: Parameters<DurableHost['spawn']>[0],
    then: () => Promise<void> = async () => undefined,
  ): void {
    const promise = this.#host.spawn(requests).then(async (created) => {
      if (created.length < requests.length) await then();
    });
    const [role] = requests;
    if (role === undefined) return;
    this.#setup.set(role.address, promise);
    promise.then(
      () => this.#setup.delete(role.address),
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

  /**
   * How the phases of a workflow stand, in its order.
   * @throws {NotFoundError} there is no such run
   */
  async phases(): Promise<readonly PhaseStatus[]> {
    return (await this.status()).phases;
  }

  async tasks(): Promise<readonly TaskStatus[]> {
    return await tasksOf(this.#troupe.store, this.id);
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
      rx().filter(({ address }) => address === own || address.startsWith(mine)),
    );
  }

  /**
   * Starts nothing new; what runs goes on to its end. It holds until `resume`, whatever restarts in between.
   *
   * The order is stored when this resolves; the run takes it in its next turn (see `Troupe.send`). It is `paused` when
   * `events$` says so; one that has ended or is being cancelled takes no notice.
   * @throws {NotFoundError} there is no such run
   */
  async pause(by = 'app'): Promise<void> {
    await this.#order({ type: 'run.pause', by });
  }

  /**
   * Ends a pause of the run; tasks that were paused one by one stay so. Stored when it resolves, as for `pause`.
   * @throws {NotFoundError} there is no such run
   */
  async resume(by = 'app'): Promise<void> {
    await this.#order({ type: 'run.resume', by });
  }

  /** One that nobody can take would be lost without a word. */
  async #order(message: AcceptedBy<Address<'run'>>): Promise<void> {
    const address = runAddress(this.id);
    if ((await this.#troupe.host.inspect(address)) === undefined) {
      throw new NotFoundError(`There is no run "${this.id}".`);
    }
    await this.#troupe.send(address, message);
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
   * @returns the ids of the tasks that were unblocked; those that somebody else has set going meanwhile are not among them
   * @throws {NotFoundError} there is no such run
   */
  async unblockAll(
    options: { readonly transientOnly?: boolean; readonly by?: string } = {},
  ): Promise<readonly string[]> {
    readSettings(options, ['by', 'transientOnly'], 'unblockAll');
    const { by = 'app', transientOnly = false } = options;
    await this.status();
    const stopped = (await this.tasks()).filter(
      (task) =>
        (task.state === 'blocked' || task.state === 'escalated') &&
        (!transientOnly || task.cause === 'infrastructure'),
    );
    const unblocked = await Promise.all(
      stopped.map(async ({ id }, index) => {
        const delayMs = Math.round(staggerMs(index, unitHash(`${this.id}/${id}`)));
        try {
          await this.task(id).unblock({ by, delayMs });
          return [id];
        } catch (error) {
          // It has moved since it was looked at: then it needs nobody any more.
          if (error instanceof ConflictError) return [];
          throw error;
        }
      }),
    );
    return unblocked.flat();
  }

  /**
   * Reports that a task which was done is broken again. A new task is made for it, the same as it was and with what is known,
   * in a run of its own: what was done stays done. While that one is open, reporting it again changes nothing and says which
   * it is; when it has ended, the next report makes another.
   *
   * Crash: the run is there with its task, or is not, and a report that is repeated finds it.
   * @throws {NotFoundError} no such task
   * @throws {ConflictError} it is not done
   * @throws {ValidationError} no reason, or evidence that is too long or no JSON
   */
  reportRegression(task: string, report: RegressionReport): Promise<ReportedRegression> {
    return this.#troupe.reportRegression(this.id, task, report);
  }

  /**
   * Lets the next staged tasks in: the most urgent first, what a task depends on before it. Of two calls at once the second
   * goes on where the first has ended.
   *
   * Crash: each task is let in by a turn of its own; who calls it again does so for the next ones.
   * @param count how many; fewer when no more are staged
   * @returns their ids, in that order
   * @throws {NotFoundError} no such run
   * @throws {ValidationError} `count` is no whole number of 0 or more
   */
  async enqueue(count: number): Promise<readonly string[]> {
    nextStaged([], count);
    return await this.#troupe.inTurn(`enqueue ${this.id}`, () => this.#enqueue(count));
  }

  async #enqueue(count: number): Promise<readonly string[]> {
    const { state } = await this.status();
    const watch = new TurnWatch(this.events$);
    const off = this.#troupe.on('quarantined', () => watch.close());
    try {
      const rows = await this.#troupe.store.listTasks(this.id, { states: ['staged'] });
      const names = rows.map(({ task }) => task);
      const open = new Set(await this.#troupe.activeTasks(this.id, names));
      const staged = rows
        .filter(({ task }) => open.has(task))
        .map((row) => ({
          ...{ id: row.task, priority: row.priority, unblocks: row.unblocks },
          dependsOn: (JSON.parse(row.detailsJson) as Pick<TaskStatus, 'dependsOn'>).dependsOn,
        }));
      const next = nextStaged(staged, count);
      await Promise.all(next.map((id) => this.task(id).enable()));
      // Whoever looks next, or waits for the end, is not to find it as it was.
      const states = await Promise.all(
        next.map((id) => watch.until(taskAddress(this.id, id), (is) => is !== 'staged')),
      );
      if (state === 'blocked' && states.includes('ready')) {
        await watch.until(runAddress(this.id), (is) => is !== 'blocked');
      }
      return next;
    } finally {
      off();
      watch.close();
    }
  }

  /**
   * Cancels every task that has not ended: whatever works for it is called off (its signal, then its processes), and its
   * finished steps are taken back, newest first (`AgentOptions.compensate`). Stored when it resolves; `result` waits for
   * the end, and `cancellation` says what came of it.
   * @throws {NotFoundError} there is no such run
   */
  async cancel(reason: string, by = 'app'): Promise<void> {
    await this.#order({ type: 'run.cancel', by, reason });
  }

  /** What came of cancelling: the run's tasks by how they ended, and what went wrong on the way. */
  async cancellation(): Promise<RunCancellation> {
    const tasks = await this.tasks();
    const idsOf = (state: TaskState): readonly string[] =>
      tasks.filter((task) => task.state === state).map(({ id }) => id);
    return {
      cancelled: idsOf('cancelled'),
      alreadyDone: idsOf('done'),
      notStopped: tasks.flatMap(({ id, cancellation }) =>
        (cancellation?.notStopped ?? []).map((who) => ({ task: id, who })),
      ),
      notTakenBack: tasks.flatMap(({ id, cancellation }) =>
        (cancellation?.failed ?? []).map((failed) => ({ task: id, ...failed })),
      ),
    };
  }

  task(id: string): Task {
    return this.#troupe.task(this.id, id);
  }

  /**
   * Goes on with a task without waiting for the tasks it depends on. Those that have not ended, and what has to be done
   * for them, are skipped: cancelled, with a reason that begins with "Skipped", so the result says what was left out.
   * The task goes on when they have ended. A staged one is enabled, a paused one stays paused, and one that waits for
   * nothing stays as it is.
   *
   * Crash: it is one turn of the task, from which everything else follows, whatever restarts in between. Doing it again
   * does no harm.
   * @param options.strand also when other tasks depend on what is skipped: they will be blocked until somebody retries
   * (without it) or cancels them. Default false: refused
   * @param options.dryRun changes nothing, and says what would be skipped and stranded
   * @throws {NotFoundError} no such run or task; says what was probably meant
   * @throws {ConflictError} the run or the task has ended, or others would be stranded; nothing has changed
   */
  async skipTo(
    task: string,
    options: { readonly by?: string; readonly strand?: boolean; readonly dryRun?: boolean } = {},
  ): Promise<SkipPlan<TaskState>> {
    readSettings(options, ['by', 'strand', 'dryRun'], 'skipTo');
    const { by = 'app', strand = false, dryRun = false } = options;
    const { state } = await this.status();
    refuseSkip(`Run "${this.id}"`, state, 'none of its tasks can be skipped to');
    const watch = new TurnWatch(this.events$);
    const off = this.#troupe.on('quarantined', () => watch.close());
    try {
      const plan = planSkip(this.id, await this.tasks(), task);
      refuseSkip(`Task "${task}"`, plan.state, 'it cannot be skipped to');
      if (dryRun) return plan;
      if (!strand) refuseToStrand(plan);
      const address = taskAddress(this.id, task);
      const reply = await this.#troupe
        .request(address, { type: 'task.skipTo', by })
        .catch((error) => {
          throw refusalOf(error);
        });
      // Whoever looks next, or waits for the end, is not to find the run still standing where it stood.
      const readable = await this.#troupe.activeTasks(
        this.id,
        plan.skips.map((skip) => skip.task),
      );
      await Promise.all(
        readable.map((id) => watch.until(taskAddress(this.id, id), (is) => ENDING.has(is))),
      );
      if (state === 'blocked' && readable.length > 0) {
        await watch.until(runAddress(this.id), (is) => is !== 'blocked');
      }
      return { ...plan, state: (reply as unknown as { state: TaskState }).state };
    } finally {
      off();
      watch.close();
    }
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
   * is found to be when it is done again. Nor is what is the app's: rows that `step.tx` has written stay, and a step that
   * is done again writes them again (so write them with `ON CONFLICT`, by a key of your own).
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
  async fork(to: string, options: { readonly id: string }): Promise<Run> {
    await this.status();
    const id = parseId(readSettings(options, ['id'], 'fork')['id'], 'the id of the fork');
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
    const task = (await tasksOf(this.#troupe.store, this.run)).find(({ id }) => id === this.id);
    if (task === undefined) throw new NotFoundError(`There is no task "${this.run}/${this.id}".`);
    return task;
  }

  attempts(): Promise<readonly AttemptRow[]> {
    return this.#troupe.store.listAttempts(this.run, this.id);
  }

  /** @throws {ValidationError} `reassign` without an agent, or to one that is not registered */
  async decide(
    decision: Decision,
    options: { readonly guidance?: string; readonly agent?: string; readonly by?: string } = {},
  ): Promise<TaskState> {
    readSettings(options, ['guidance', 'agent', 'by'], 'decide');
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

  async unblock(
    options: { readonly by?: string; readonly delayMs?: number } = {},
  ): Promise<TaskState> {
    readSettings(options, ['by', 'delayMs'], 'unblock');
    const { by = 'app', ...rest } = options;
    return await this.#ask({ type: 'task.unblock', by, ...rest });
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

/** @throws {ConflictError} it has ended, or is about to */
function refuseSkip(what: string, state: string, why: string): void {
  if (!ENDING.has(state)) return;
  throw new ConflictError(`${what} is ${state}: ${why}.`, { context: { state } });
}

/** @throws {ConflictError} */
function refuseToStrand({ task, strands }: SkipPlan): void {
  if (strands.length === 0) return;
  const named = strands
    .slice(0, MAX_NAMED)
    .map(({ task: id, without }) => `"${id}" (depends on ${without.join(', ')})`);
  const more = strands.length > MAX_NAMED ? ` and ${strands.length - MAX_NAMED} more` : '';
  throw new ConflictError(
    `Skipping to "${task}" would leave other tasks blocked: ${named.join(', ')}${more}. Each would have to be retried, without what was skipped, or cancelled. To do it all the same, say so: strand.`,
    { context: { task, stranded: strands.map((one) => one.task) } },
  );
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
  requireMachine(machine);
  const { id } = machine;
  // What XState calls a machine without an id: the next one without would be taken for it.
  if (id !== '(machine)' && !ROLES.has(id)) return;
  throw new ConfigurationError(
    id === '(machine)'
      ? 'Expected the machine to have an id, under which its actors are found again: createMachine({ id: "inbox", … }).'
      : `The machine id "${id}" is Troupe's own. Choose another than ${[...ROLES].join(', ')}.`,
  );
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
    phases?: readonly PhaseStatus[];
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
    phases: details.phases ?? [],
  };
}

async function tasksOf(
  store: Pick<Store, 'listTasks' | 'listStreams'>,
  run: string,
): Promise<readonly TaskStatus[]> {
  const [tasks, streams] = await Promise.all([
    store.listTasks(run),
    store.listStreams({ prefix: taskAddress(run, ''), name: PROGRESS_STREAM }),
  ]);
  const progress = new Map(streams.map((stream) => [stream.address, stream]));
  return tasks.map((row) => taskStatus(row, progress.get(taskAddress(run, row.task))));
}

function taskStatus(row: TaskRow, progress: StreamHead | undefined): TaskStatus {
  const details = JSON.parse(row.detailsJson) as {
    dependsOn: readonly string[];
    without?: readonly string[];
    skippedFor?: string | null;
    cause: 'work' | 'infrastructure' | null;
    question: JsonValue;
    artifact: string | null;
    commit: string | null;
    cancellation?: CancelReport;
    regressionOf?: TaskStatus['regressionOf'];
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
    without: details.without ?? [],
    skippedFor: details.skippedFor ?? null,
    question: details.question,
    artifact: details.artifact,
    commit: details.commit,
    cancellation: details.cancellation ?? null,
    regressionOf: details.regressionOf ?? null,
    progress:
      typeof progress?.lastJson === 'string'
        ? { ...(JSON.parse(progress.lastJson) as TaskProgress), at: progress.updatedAt }
        : null,
    updatedAt: row.updatedAt,
  };
}
