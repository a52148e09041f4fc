import {
  type JsonValue,
  type PhaseStatus,
  phaseStatus,
  type RunState,
  type Store,
  type TaskProgress,
  type TaskState,
  type Turn,
} from '../index.ts';

/** A run as it is shown: in the terminal, as JSON, to whoever watches from another process. */
export interface RunView {
  readonly id: string;
  readonly title: string;
  readonly state: RunState;
  readonly total: number;
  readonly reason: string | null;
  readonly createdAt: number;
  readonly endedAt: number | null;
  /** Of a workflow, in its order. */
  readonly phases?: readonly PhaseStatus[];
}

export interface TaskView {
  readonly run: string;
  readonly id: string;
  readonly title: string;
  readonly state: TaskState;
  readonly agent: string;
  readonly attempts: number;
  readonly reason: string | null;
  /** Whose fault it is that it waits or stands still. */
  readonly cause: 'work' | 'infrastructure' | null;
  readonly dependsOn: readonly string[];
  readonly question: QuestionView | null;
  /** The commit on the target branch. */
  readonly commit: string | null;
  /** The file that proves the last verdict. */
  readonly evidence: string | null;
  /** Since when it is in this state; of a task read from the store: its last change. */
  readonly since: number;
  /** When the current or last attempt began. */
  readonly startedAt: number | null;
  readonly position: number;
  /** What its agent has said last about how far it is; where nobody has asked for it, it is left out. */
  readonly progress?: ProgressView;
  /** The task that was done and is broken again; where this one is about no such, it is left out. */
  readonly regressionOf?: { readonly run: string; readonly task: string };
}

export type ProgressView = TaskProgress & { readonly at: number };

/** What the agents of a run's tasks have said last, by the tasks' addresses. */
export async function progressOfRun(
  store: Pick<Store, 'listStreams'>,
  run: string,
): Promise<ReadonlyMap<string, ProgressView>> {
  const streams = await store.listStreams({ prefix: `task/${run}/`, name: 'progress' });
  return new Map(
    streams.flatMap(({ address, lastJson, updatedAt }) =>
      lastJson === null
        ? []
        : [[address, { ...(JSON.parse(lastJson) as TaskProgress), at: updatedAt }] as const],
    ),
  );
}

export function withProgress(
  task: TaskView,
  progress: ReadonlyMap<string, ProgressView>,
): TaskView {
  const said = progress.get(`task/${task.run}/${task.id}`);
  return said === undefined ? task : { ...task, progress: said };
}

interface QuestionView {
  readonly id: string;
  readonly text: string;
  readonly choices?: readonly string[];
  readonly timeoutMs?: number;
}

/** Where runs and tasks are read from. */
type RowSource = Pick<Store, 'listRuns' | 'listTasks'>;

type RunRow = Awaited<ReturnType<RowSource['listRuns']>>[number];
type TaskRow = Awaited<ReturnType<RowSource['listTasks']>>[number];

export function runOfRow(row: RunRow): RunView {
  const details = JSON.parse(row.detailsJson) as Pick<RunView, 'reason' | 'phases'>;
  return {
    id: row.run,
    title: row.title,
    state: row.state as RunState,
    total: row.total,
    reason: details.reason,
    createdAt: row.createdAt,
    endedAt: row.endedAt,
    ...(details.phases === undefined ? {} : { phases: details.phases }),
  };
}

export function taskOfRow(row: TaskRow): TaskView {
  const details = JSON.parse(row.detailsJson) as {
    readonly dependsOn: readonly string[];
    readonly cause: TaskView['cause'];
    readonly question: QuestionView | null;
    readonly artifact: string | null;
    readonly commit: string | null;
    readonly startedAt: number | null;
    readonly regressionOf?: TaskView['regressionOf'];
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
    commit: details.commit,
    evidence: details.artifact,
    since: row.updatedAt,
    startedAt: details.startedAt,
    position: row.position,
    ...(details.regressionOf === undefined ? {} : { regressionOf: details.regressionOf }),
  };
}

/** What of a task's and a run's state the views are made of; the rows in the store are made of the same. */
interface TaskContext {
  readonly spec: {
    readonly run: string;
    readonly id: string;
    readonly title: string;
    readonly dependsOn: readonly string[];
    readonly position: number;
  };
  readonly agent: string;
  /** Who mends what that one has handed in. */
  readonly fix: { readonly agent: string } | null;
  readonly attempt: number;
  readonly reason: string | null;
  readonly cause: TaskView['cause'];
  readonly question: QuestionView | null;
  readonly last: {
    readonly startedAt: number;
    readonly evidence: { readonly artifact?: string; readonly commit?: string } | null;
  } | null;
}

interface RunContext {
  readonly run: string;
  readonly title: string;
  readonly total: number;
  readonly reason: string | null;
  readonly createdAt: number;
  readonly endedAt: number | null;
  readonly workflow: { readonly phases: readonly Parameters<typeof phaseStatus>[0][] } | null;
}

const topLevel = (state: JsonValue): string =>
  typeof state === 'string' ? state : (Object.keys(state as object)[0] ?? '');

export function runOfTurn(turn: Turn): RunView {
  const context = turn.context as unknown as RunContext;
  return {
    id: context.run,
    title: context.title,
    state: topLevel(turn.state) as RunState,
    total: context.total,
    reason: context.reason,
    createdAt: context.createdAt,
    endedAt: context.endedAt,
    ...(context.workflow === null ? {} : { phases: context.workflow.phases.map(phaseStatus) }),
  };
}

/** In these, whoever mends what was rejected is shown, as in the rows of the store. */
const MENDED: ReadonlySet<string> = new Set<TaskState>(['fixing', 'awaitingInput']);

export function taskOfTurn(turn: Turn): TaskView {
  const context = turn.context as unknown as TaskContext;
  const { spec, last } = context;
  return {
    run: spec.run,
    id: spec.id,
    title: spec.title,
    state: topLevel(turn.state) as TaskState,
    agent: (MENDED.has(topLevel(turn.state)) ? context.fix?.agent : undefined) ?? context.agent,
    attempts: context.attempt,
    reason: context.reason,
    cause: context.cause,
    dependsOn: spec.dependsOn,
    question: context.question,
    commit: last?.evidence?.commit ?? null,
    evidence: last?.evidence?.artifact ?? null,
    since: turn.at,
    startedAt: last?.startedAt ?? null,
    position: spec.position,
  };
}

/** What happens, as it is told to whoever looks on. JSON. */
export type RunEvent =
  | { readonly type: 'run'; readonly at: number; readonly run: RunView }
  | { readonly type: 'task'; readonly at: number; readonly task: TaskView }
  /** What a task's agent or gatekeeper does just now, in a word or two. */
  | {
      readonly type: 'doing';
      readonly at: number;
      readonly run: string;
      readonly task: string;
      readonly what: string;
    }
  /** Something was written to a stream, or it was closed. */
  | {
      readonly type: 'stream';
      readonly at: number;
      readonly address: string;
      readonly name: string;
      readonly next: number;
      readonly closed: boolean;
    }
  | { readonly type: 'notice'; readonly at: number; readonly text: string }
  /** There is an order, or an answer to one, to be read in the audit stream. */
  | { readonly type: 'audited'; readonly at: number; readonly id: string };

/** Runs and their tasks, kept up to date by events. */
export class RunsView {
  readonly #runs = new Map<string, RunView>();
  readonly #tasks = new Map<string, Map<string, TaskView>>();
  readonly #doing = new Map<string, string>();

  /** Oldest first. */
  runs(): readonly RunView[] {
    return [...this.#runs.values()].toSorted((a, b) => a.createdAt - b.createdAt);
  }

  run(id: string): RunView | undefined {
    return this.#runs.get(id);
  }

  /** In the order of the list they came from. */
  tasks(run: string): readonly TaskView[] {
    return [...(this.#tasks.get(run)?.values() ?? [])].toSorted((a, b) => a.position - b.position);
  }

  task(run: string, id: string): TaskView | undefined {
    return this.#tasks.get(run)?.get(id);
  }

  /** Only while the task is active. */
  doing(run: string, task: string): string | undefined {
    return this.#doing.get(`${run}/${task}`);
  }

  setRun(run: RunView): void {
    this.#runs.set(run.id, run);
  }

  /** @returns the task as it was; undefined if it is new */
  setTask(task: TaskView): TaskView | undefined {
    let tasks = this.#tasks.get(task.run);
    if (tasks === undefined) {
      tasks = new Map();
      this.#tasks.set(task.run, tasks);
    }
    const before = tasks.get(task.id);
    // A turn that leaves the state as it is (a refused order) does not start its time anew.
    const since = before?.state === task.state ? before.since : task.since;
    tasks.set(task.id, { ...task, since });
    if (before?.state !== task.state) this.#doing.delete(`${task.run}/${task.id}`);
    return before;
  }

  setDoing(run: string, task: string, what: string): void {
    this.#doing.set(`${run}/${task}`, what);
  }

  apply(event: RunEvent): void {
    if (event.type === 'run') this.setRun(event.run);
    else if (event.type === 'task') this.setTask(event.task);
    else if (event.type === 'doing') this.setDoing(event.run, event.task, event.what);
  }
}
