import { phaseOf, type Store, type TaskState, type Troupe, type Turn } from '../index.ts';
import {
  type RunEvent,
  RunsView,
  runOfRow,
  runOfTurn,
  type TaskView,
  taskOfRow,
  taskOfTurn,
} from './run-view.ts';

/** In these states the overseer's policy is asked; its answer may set the task going again. */
const ASKS_OVERSEER: ReadonlySet<TaskState> = new Set(['escalated', 'awaitingApproval']);
const OVERSEER_ANSWER = 'overseer.escalate:';
/** Checkpoints read at a time to find out whether the overseer has answered. */
const CHECKPOINTS_AT_ONCE = 20;

type Listener = (event: RunEvent) => void;

/**
 * Looks on: keeps a view of the runs of one runtime up to date, and tells listeners what changed. Knows when a run
 * has come to rest.
 */
export class RunObserver {
  readonly view = new RunsView();
  readonly #store: Store;
  readonly #listeners = new Set<Listener>();
  readonly #off: (() => void)[] = [];
  /** `run/task` of tasks whose overseer has not answered yet. */
  readonly #undecided = new Set<string>();
  /** Tasks that a gatekeeper verifies just now, by its address. */
  readonly #verifying = new Map<string, readonly string[]>();
  readonly #wake = new Set<() => void>();
  #early: (() => void)[] | undefined = [];
  #failure: Error | undefined;

  private constructor(store: Store) {
    this.#store = store;
  }

  /**
   * @param store the one the runtime works on
   * Finished runs are not read; whoever needs one calls `load`.
   */
  static async start(troupe: Troupe, store: Store): Promise<RunObserver> {
    const observer = new RunObserver(store);
    // First listen, then read: what happens in between is applied afterwards, so nothing is missed.
    const later =
      <T>(handle: (fact: T) => void) =>
      (fact: T): void => {
        if (observer.#early === undefined) handle(fact);
        else observer.#early.push(() => handle(fact));
      };
    observer.#off.push(
      troupe.on(
        'turn',
        later((turn) => observer.#onTurn(turn)),
      ),
      troupe.on(
        'progress',
        later((fact) => observer.#onProgress(fact.address, fact.value)),
      ),
      troupe.on('quarantined', ({ address, reason }) =>
        observer.notice(`${address} was put aside: ${reason}`),
      ),
      troupe.on('failed', (error) => {
        observer.#failure = error;
        observer.#changed();
      }),
    );
    for (const row of await store.listRuns()) {
      if (row.endedAt === null) await observer.load(row.run);
    }
    const early = observer.#early ?? [];
    observer.#early = undefined;
    for (const handle of early) handle();
    return observer;
  }

  /** Reads a run that has ended, or that began elsewhere. Nothing happens if there is no such run. */
  async load(run: string): Promise<void> {
    const row = (await this.#store.listRuns()).find((entry) => entry.run === run);
    if (row === undefined) return;
    this.view.setRun(runOfRow(row));
    for (const taskRow of await this.#store.listTasks(run)) {
      const task = taskOfRow(taskRow);
      this.view.setTask(task);
      if (ASKS_OVERSEER.has(task.state) && !(await this.#overseerAnswered(task))) {
        this.#undecided.add(keyOf(task));
      }
    }
  }

  onEvent(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  notice(text: string): void {
    this.#tell({ type: 'notice', at: Date.now(), text });
  }

  /**
   * Resolves when every one of these runs has ended, or nothing in it moves by itself: every open task waits for a
   * person, for another task, or is blocked, and the overseer's policy has said what it had to say.
   * @throws what made the runtime fail
   */
  async untilSettled(runs: readonly string[]): Promise<void> {
    while (true) {
      if (this.#failure !== undefined) throw this.#failure;
      if (runs.every((run) => this.isSettled(run))) return;
      await new Promise<void>((resolve) => this.#wake.add(resolve));
    }
  }

  isSettled(id: string): boolean {
    const run = this.view.run(id);
    if (run === undefined) return false;
    if (run.state === 'done' || run.state === 'cancelled') return true;
    if (run.state !== 'blocked' && run.state !== 'paused') return false;
    return this.view.tasks(id).every((task) => {
      if (this.#undecided.has(keyOf(task))) return false;
      if (task.state === 'awaitingInput') return task.question?.timeoutMs === undefined;
      const phase = phaseOf(task.state);
      if (phase === 'active') return false;
      // A paused run starts nothing, so these stay where they are.
      return run.state === 'paused' || (phase !== 'ready' && phase !== 'delayed');
    });
  }

  close(): void {
    for (const off of this.#off.splice(0)) off();
    this.#listeners.clear();
  }

  #onTurn(turn: Turn): void {
    if (turn.machine === 'task') this.#onTaskTurn(turn);
    else if (turn.machine === 'run') {
      const run = runOfTurn(turn);
      const before = this.view.run(run.id);
      this.view.setRun(run);
      if (before?.state !== run.state || before.reason !== run.reason) {
        this.#tell({ type: 'run', at: turn.at, run });
      }
    } else if (turn.machine === 'gatekeeper') this.#onGatekeeperTurn(turn);
    this.#changed();
  }

  #onTaskTurn(turn: Turn): void {
    const task = taskOfTurn(turn);
    const before = this.view.setTask(task);
    const key = keyOf(task);
    if (!ASKS_OVERSEER.has(task.state)) this.#undecided.delete(key);
    else if (turn.event?.type.startsWith(OVERSEER_ANSWER) === true) this.#undecided.delete(key);
    else if (before?.state !== task.state) this.#undecided.add(key);
    if (before?.state === task.state && before.reason === task.reason) return;
    this.#tell({ type: 'task', at: turn.at, task: this.view.task(task.run, task.id) ?? task });
  }

  #onGatekeeperTurn(turn: Turn): void {
    const pool = (turn.context as unknown as GatekeeperContext).pool;
    this.#verifying.set(
      turn.address,
      pool.running.map(({ task }) => task),
    );
    for (const { task } of pool.queue) this.#setDoing(task, 'queued', turn.at);
  }

  #onProgress(address: string, value: unknown): void {
    if (!address.startsWith('gatekeeper/')) return;
    const [task, ...others] = this.#verifying.get(address) ?? [];
    // With several at once nobody can tell whose progress it is.
    if (task === undefined || others.length > 0) return;
    const { phase, command } = value as { readonly phase?: unknown; readonly command?: unknown };
    const what = typeof command === 'string' ? command : phase;
    if (typeof what === 'string') this.#setDoing(task, what, Date.now());
  }

  #setDoing(address: string, what: string, at: number): void {
    const [kind, run, task] = address.split('/');
    if (kind !== 'task' || run === undefined || task === undefined) return;
    if (this.view.doing(run, task) === what) return;
    this.view.setDoing(run, task, what);
    this.#tell({ type: 'doing', at, run, task, what });
  }

  #tell(event: RunEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #changed(): void {
    const wake = [...this.#wake];
    this.#wake.clear();
    for (const resolve of wake) resolve();
  }

  /** Whether the answer to the escalation that the task stands in has come: it is one of the task's last turns. */
  async #overseerAnswered({ run, id, state }: TaskView): Promise<boolean> {
    const address = `task/${run}/${id}`;
    let toSeq: number | undefined;
    for (;;) {
      const checkpoints = await this.#store.listCheckpoints(address, {
        last: CHECKPOINTS_AT_ONCE,
        ...(toSeq === undefined ? {} : { toSeq }),
      });
      for (const { seq, eventJson, snapshotJson } of checkpoints.toSorted(
        (a, b) => b.seq - a.seq,
      )) {
        if ((JSON.parse(snapshotJson) as { value: unknown }).value !== state) return false;
        const event = eventJson === null ? null : (JSON.parse(eventJson) as { type: string });
        if (event?.type.startsWith(OVERSEER_ANSWER) === true) return true;
        toSeq = seq - 1;
      }
      if (checkpoints.length === 0 || toSeq === undefined || toSeq < 0) return false;
    }
  }
}

interface GatekeeperContext {
  readonly pool: {
    readonly running: readonly { readonly task: string }[];
    readonly queue: readonly { readonly task: string }[];
  };
}

const keyOf = ({ run, id }: TaskView): string => `${run}/${id}`;
