import {
  describeProgress,
  type HostEvents,
  phaseOf,
  type Store,
  type TaskPhase,
  type Troupe,
  type Turn,
} from '../index.ts';
import {
  progressOfRun,
  type RunEvent,
  RunsView,
  runOfRow,
  runOfTurn,
  taskOfRow,
  taskOfTurn,
} from './run-view.ts';

/** In a run that stands still no task is in one of these. */
const MOVES: ReadonlySet<TaskPhase> = new Set(['ready', 'active', 'verifying', 'delayed']);
/** In a paused run nothing new starts, so there these two do not move either. */
const HELD: ReadonlySet<TaskPhase> = new Set(['ready', 'delayed']);

type Listener = (event: RunEvent) => void;
/** What is read of a store. */
type RunsStore = Pick<Store, 'listRuns' | 'listTasks' | 'listStreams'>;

/**
 * Looks on: keeps a view of the runs of one runtime up to date, and tells listeners what changed. Knows when a run
 * has come to rest.
 */
export class RunObserver {
  readonly view = new RunsView();
  readonly #store: RunsStore;
  readonly #listeners = new Set<Listener>();
  readonly #off: (() => void)[] = [];
  /** Tasks that a gatekeeper verifies just now, by its address. */
  readonly #verifying = new Map<string, readonly string[]>();
  readonly #wake = new Set<() => void>();
  #early: (() => void)[] | undefined = [];
  #failure: Error | undefined;

  private constructor(store: RunsStore) {
    this.#store = store;
  }

  /**
   * @param store the one the runtime works on
   * Finished runs are not read; whoever needs one calls `load`.
   */
  static async start(troupe: Troupe, store: RunsStore): Promise<RunObserver> {
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
      troupe.on('audited', ({ at, id }) => observer.#tell({ type: 'audited', at, id })),
      troupe.on('streamed', (fact) => observer.#onStream(fact)),
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
    for (const taskRow of await this.#store.listTasks(run)) this.view.setTask(taskOfRow(taskRow));
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
   * person, for another task, or is blocked.
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
    // A task may be ahead of its run, whose state is the last it was told: after a restart, for example.
    return this.view.tasks(id).every((task) => {
      const phase = phaseOf(task.state);
      // Its dependencies are done, and it has not been told yet: in a moment it is ready.
      const isDone = (other: string) => this.view.task(id, other)?.state === 'done';
      if (task.state === 'waiting' && task.dependsOn.every(isDone)) return false;
      return !MOVES.has(phase) || (run.state === 'paused' && HELD.has(phase));
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

  #onStream(fact: Parameters<HostEvents['streamed']>[0]): void {
    this.#tell({ type: 'stream', at: Date.now(), ...fact });
    const [kind, run = ''] = fact.address.split('/');
    if (kind !== 'task' || fact.name !== 'progress') return;
    progressOfRun(this.#store, run).then(
      (all) => {
        const said = all.get(fact.address);
        const words = said === undefined ? '' : describeProgress(said);
        if (words !== '') this.#setDoing(fact.address, words, Date.now());
      },
      // The runtime has stopped meanwhile: nobody looks on any more.
      () => undefined,
    );
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
}

interface GatekeeperContext {
  readonly pool: {
    readonly running: readonly { readonly task: string }[];
    readonly queue: readonly { readonly task: string }[];
  };
}
