import { agentMachine } from '../../src/machines/agent-machine.ts';
import { breakerMachine } from '../../src/machines/breaker-machine.ts';
import { gatekeeperMachine } from '../../src/machines/gatekeeper-machine.ts';
import { overseerMachine } from '../../src/machines/overseer-machine.ts';
import { interruptionsIn } from '../../src/machines/policies/failure-class.ts';
import { phaseOf } from '../../src/machines/policies/task-phase.ts';
import { type RunContext, runMachine } from '../../src/machines/run-machine.ts';
import { type TaskContext, taskMachine } from '../../src/machines/task-machine.ts';
import { kindOf } from '../../src/protocol/address.ts';
import type { TaskPhase, TaskState } from '../../src/protocol/catalogue.ts';
import type { Failure } from '../../src/protocol/errors.ts';
import { canonicalJson } from '../../src/protocol/hash.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import type { Verdict } from '../../src/protocol/verdict.ts';
import {
  MachineDriver,
  type MachineEvent,
  type PersistedSnapshot,
} from '../../src/runtime/xstate-driver.ts';
import type { MemoryData } from '../../src/store/memory/memory-data.ts';
import type { CheckpointRecord } from '../../src/store/store.ts';

/** A promise of the runtime is broken. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

export function demand(holds: boolean, message: () => string): asserts holds {
  if (!holds) throw new Violation(message());
}

/** Where a task may go from where it is, and what may send it there. `…` stands for the end of an effect. */
type Causes = readonly string[];
const CANCEL: Causes = ['task.cancel'];
const DECIDED: Causes = ['task.decide', 'overseer.escalate:ok'];
const LOST: Causes = ['task.dependencyEnded'];
const BACKOFF: Causes = ['xstate.after.backoff'];
const GAVE_UP: Causes = ['agent.work:err'];
const JUDGED: Causes = ['gatekeeper.verify:ok', 'gatekeeper.verify:err'];
const NOT_PREPARED: Causes = ['xstate.error.actor.prepare'];

const LEGAL: Readonly<Record<TaskState, Readonly<Partial<Record<TaskState, Causes>>>>> = {
  staged: {
    waiting: ['task.enable', 'task.skipTo'],
    ready: ['task.enable', 'task.skipTo'],
    blocked: ['task.enable'],
    paused: ['task.pause'],
    cancelling: CANCEL,
  },
  waiting: {
    ready: LOST, // the last dependency is done
    blocked: LOST,
    paused: ['task.pause'],
    cancelling: CANCEL,
  },
  ready: { preparing: ['task.claim'], paused: ['task.pause'], cancelling: CANCEL },
  preparing: {
    working: ['xstate.done.actor.prepare'],
    paused: NOT_PREPARED, // a pause that was asked for holds when the attempt ends
    retrying: NOT_PREPARED,
    blocked: NOT_PREPARED,
    escalated: NOT_PREPARED,
    cancelling: CANCEL,
  },
  working: {
    verifying: ['agent.work:ok'],
    preparing: ['task.rewound'], // rolled back to the middle of an attempt, it begins it again
    awaitingInput: ['agent.work:ok'],
    paused: GAVE_UP,
    retrying: GAVE_UP,
    blocked: GAVE_UP,
    escalated: GAVE_UP,
    cancelling: CANCEL,
  },
  awaitingInput: {
    fixing: ['task.answer', 'xstate.after.answerTime'],
    working: ['task.answer', 'xstate.after.answerTime'],
    preparing: ['task.answer', 'xstate.after.answerTime'], // rolled back: its workspace is not there any more
    escalated: ['xstate.after.answerTime'],
    cancelling: CANCEL,
  },
  verifying: {
    fixing: ['gatekeeper.verify:ok'], // rejected, and another agent mends it
    done: ['gatekeeper.verify:ok'],
    awaitingApproval: ['gatekeeper.verify:ok'],
    paused: JUDGED,
    retrying: JUDGED,
    blocked: JUDGED,
    escalated: JUDGED,
    cancelling: CANCEL,
  },
  fixing: {
    verifying: ['agent.work:ok'],
    awaitingInput: ['agent.work:ok'],
    paused: [...NOT_PREPARED, ...GAVE_UP],
    retrying: [...NOT_PREPARED, ...GAVE_UP],
    blocked: [...NOT_PREPARED, ...GAVE_UP],
    escalated: [...NOT_PREPARED, ...GAVE_UP],
    cancelling: CANCEL,
  },
  retrying: {
    waiting: [...BACKOFF, 'task.unblock'],
    ready: [...BACKOFF, 'task.unblock'],
    verifying: [...BACKOFF, 'task.unblock'], // it had been handed in, and was not judged
    blocked: BACKOFF,
    paused: [...BACKOFF, 'task.pause'],
    cancelling: CANCEL,
  },
  blocked: {
    waiting: ['task.unblock', 'task.decide', 'task.skipTo'],
    ready: ['task.unblock', 'task.decide', 'task.skipTo'],
    paused: ['task.unblock', 'task.decide'],
    retrying: ['task.unblock'],
    verifying: ['task.unblock', 'task.decide'],
    cancelling: ['task.cancel', 'task.decide'],
  },
  escalated: {
    waiting: ['task.unblock', ...DECIDED],
    ready: ['task.unblock', ...DECIDED],
    paused: ['task.unblock', ...DECIDED],
    retrying: ['task.unblock'], // a little later
    verifying: ['task.unblock', ...DECIDED],
    blocked: DECIDED,
    cancelling: ['task.cancel', ...DECIDED],
  },
  awaitingApproval: {
    waiting: DECIDED,
    ready: DECIDED,
    paused: DECIDED,
    verifying: DECIDED,
    blocked: DECIDED,
    cancelling: ['task.cancel', ...DECIDED],
  },
  paused: {
    staged: ['task.resume'],
    waiting: ['task.resume'],
    ready: ['task.resume'],
    verifying: ['task.resume'],
    blocked: ['task.resume'],
    cancelling: CANCEL,
  },
  cancelling: { cancelled: ['xstate.done.actor.release', 'xstate.error.actor.release'] },
  cancelled: {},
  done: {},
};

/** These give a task its budgets back; only an approval does not. */
const FRESH_START = new Set(['task.unblock', 'task.decide', 'overseer.escalate:ok']);

interface Event extends MachineEvent {
  readonly meta: { readonly id: string; readonly from: string; readonly at: number };
}

interface Job {
  readonly id: string;
  readonly task: string;
  readonly attempt: number;
  readonly replyTo: { readonly correlation: string } | null;
}

interface TaskHistory {
  state: TaskState;
  /** It was handed in, and the gatekeeper could not judge it: from then on only the verification may be tried again. */
  unjudged: boolean;
  /** Failures of the work, and of what is around it in a row, since it was given its budget. */
  failures: number;
  infrastructure: number;
  accepted: number;
}

/** The machines as functions: for the replay. Their effects are not run. */
const drivers = new Map(
  Object.entries({
    run: runMachine,
    task: taskMachine,
    agent: agentMachine,
    gatekeeper: gatekeeperMachine,
    overseer: overseerMachine,
    breaker: breakerMachine,
  }).map(([name, machine]) => [name, new MachineDriver(machine as never, { freeze: false })]),
);

/**
 * Reads the disk as it grows and holds it against the promises. It looks only at what is stored, never into the
 * host's memory: what a crash leaves is what counts.
 */
export class Ledger {
  /** How often something that was handed in was verified once more, and not worked on. */
  verifiedAgain = 0;
  /** How often a task was given up because the process had died with it too often. */
  givenUp = 0;
  readonly #disk: MemoryData;
  readonly #concurrency: ReadonlyMap<string, number>;
  readonly #onAnswered: (task: string, attempt?: number) => void;
  /** Every checkpoint that was ever stored: what is on the disk is pruned. */
  readonly #history = new Map<string, CheckpointRecord[]>();
  readonly #handled = new Map<string, Set<string>>();
  readonly #tasks = new Map<string, TaskHistory>();
  readonly #running = new Map<string, readonly Job[]>();
  /** Task → the turns that had asked for what a gatekeeper has accepted. */
  readonly #accepted = new Map<string, number[]>();
  /** Task → the turn of its last rollback, and whether it was done then: a new life. */
  readonly #lives = new Map<string, { readonly from: number; readonly done: boolean }>();
  /** What is known of a task, or of what a run was told, at each of its checkpoints. */
  readonly #past = new Map<string, Map<number, unknown>>();
  /** How often an actor was rolled back, and how often one began as a copy. */
  rolledBack = 0;
  forked = 0;
  /** How often one was found missing after pruning. */
  prunedCheckpoints = 0;
  /** The phase that the run was last told of each task. */
  readonly #told = new Map<string, Map<string, string>>();

  /**
   * @param concurrency agent or gatekeeper address → jobs it may run at once
   * @param onAnswered is told of each answer that a task has got, from its agent, its gatekeeper or a deadline; and, with
   * no attempt, of each rollback of a task
   */
  constructor(
    disk: MemoryData,
    concurrency: ReadonlyMap<string, number>,
    onAnswered: (task: string, attempt?: number) => void,
  ) {
    this.#disk = disk;
    this.#concurrency = concurrency;
    this.#onAnswered = onAnswered;
  }

  /** After each commit: the actors it may have changed. Cost: what is new. */
  committed(addresses: Iterable<string>): void {
    for (const address of addresses) {
      const all = this.#disk.checkpoints.get(address) ?? [];
      const history = this.#history.get(address) ?? [];
      this.#history.set(address, history);
      const seen = history.length - 1;
      for (const checkpoint of all.slice(1 + all.findLastIndex(({ seq }) => seq <= seen))) {
        history.push(checkpoint);
        this.#checkpoint(checkpoint, history.length - 1);
      }
      const actor = this.#disk.actors.get(address);
      demand(
        actor?.seq === all.at(-1)?.seq,
        () =>
          `The row of ${address} says seq ${actor?.seq}, its newest checkpoint ${all.at(-1)?.seq}.`,
      );
    }
  }

  /** After each slice that was pruned: nothing is gone that must stay, and nothing has changed. */
  pruned(keepPerActor: number): void {
    const pinned = new Set(
      [...this.#disk.cuts.values()].flatMap(({ members }) =>
        members.map(({ address, seq }) => `${address}#${seq}`),
      ),
    );
    for (const [address, history] of this.#history) {
      const stored = new Set(this.#disk.checkpoints.get(address));
      for (const checkpoint of history) {
        const { seq, kind, label } = checkpoint;
        const mayGo =
          seq <= history.length - 1 - keepPerActor &&
          label === null &&
          (kind === 'auto' || kind === 'error') &&
          !pinned.has(`${address}#${seq}`);
        if (stored.delete(checkpoint)) continue;
        demand(mayGo, () => `Checkpoint ${seq} of ${address} (${kind}, ${label}) was pruned.`);
        this.prunedCheckpoints++;
      }
      demand(stored.size === 0, () => `${address} has checkpoints that were never committed.`);
    }
  }

  #checkpoint(checkpoint: CheckpointRecord, index: number): void {
    const { address, seq } = checkpoint;
    demand(
      seq === index,
      () => `Checkpoint ${index} of ${address} has seq ${seq}: there is a gap.`,
    );
    const event =
      checkpoint.eventJson === null ? null : (JSON.parse(checkpoint.eventJson) as Event);
    if (event === null && (seq > 0 || checkpoint.kind === 'manual')) {
      this.#travelled(checkpoint);
      return;
    }
    demand((event === null) === (seq === 0), () => `Only checkpoint 0 of ${address} has no event.`);
    if (event !== null) {
      let handled = this.#handled.get(address);
      if (handled === undefined) {
        handled = new Set();
        this.#handled.set(address, handled);
      }
      demand(
        !handled.has(event.meta.id),
        () => `${address} handled ${event.meta.id} (${event.type}) twice.`,
      );
      handled.add(event.meta.id);
    }
    switch (kindOf(address)) {
      case 'task':
        this.#taskTurn(checkpoint, event);
        this.#remember(address, seq, { ...this.#tasks.get(address) });
        break;
      case 'run':
        if (event?.type === 'run.taskChanged') this.#heard(address, event);
        this.#remember(address, seq, new Map(this.#told.get(address)));
        break;
      case 'agent':
      case 'gatekeeper':
        this.#poolTurn(checkpoint, event);
        break;
      default:
    }
  }

  #remember(address: string, seq: number, what: unknown): void {
    const past = this.#past.get(address) ?? new Map<number, unknown>();
    this.#past.set(address, past.set(seq, what));
  }

  /** A checkpoint that no event has led to: byte for byte that of another one, or of the one before. */
  #travelled({ address, seq, kind, label, snapshotJson }: CheckpointRecord): void {
    const all = this.#history.get(address) ?? [];
    const [, origin, number] = /^forked from (.*)#(\d+)$/.exec(label ?? '') ?? [];
    const [, plain, cut] = /^rolled back to (?:#(\d+)|cut (\w+))$/.exec(label ?? '') ?? [];
    const member = this.#disk.cuts.get(cut ?? '')?.members.find((m) => m.address === address);
    const to = origin === undefined ? Number(plain ?? member?.seq ?? seq - 1) : Number(number);
    const was = origin === undefined ? all[to]?.snapshotJson : snapshotJson;
    demand(
      was === snapshotJson,
      () => `Checkpoint ${seq} of ${address} (${kind}, ${label}) is not what ${to} was.`,
    );
    const known = this.#past.get(origin ?? address)?.get(to);
    this.#remember(address, seq, known);
    if (kindOf(address) === 'run') this.#told.set(address, new Map(known as Map<string, string>));
    if (kindOf(address) !== 'task') return;
    this.#tasks.set(address, { ...(known as TaskHistory) });
    this.#onAnswered(address);
    if (origin !== undefined) this.forked++;
    else if (to !== seq - 1) this.rolledBack++;
    else return;
    this.#lives.set(address, { from: seq, done: stateIn(snapshotJson) === 'done' });
  }

  #taskTurn({ address, seq, snapshotJson }: CheckpointRecord, event: Event | null): void {
    const value = stateIn(snapshotJson);
    const history = this.#tasks.get(address);
    if (history === undefined || event === null) {
      demand(seq === 0, () => `${address} begins at seq ${seq}.`);
      this.#tasks.set(address, {
        state: value,
        unjudged: false,
        failures: 0,
        infrastructure: 0,
        accepted: 0,
      });
      return;
    }
    const { state } = history;
    history.state = value;
    const context = (): TaskContext =>
      (JSON.parse(snapshotJson) as { context: TaskContext }).context;
    if (/^(?:agent\.work|gatekeeper\.verify):/.test(event.type)) {
      this.#onAnswered(address, context().attempt);
    }
    const wasFix = (): boolean => {
      const before = this.#history.get(address)?.[seq - 1]?.snapshotJson ?? '{}';
      return (JSON.parse(before) as { context?: TaskContext }).context?.fix != null;
    };
    this.#budget(address, history, event, context, wasFix);
    demand(state !== 'done', () => `${address} was done and took a turn (${event.type}).`);
    if (value === state) return;
    this.#unjudged(address, history, state, event);
    const causes = LEGAL[state][value];
    demand(
      causes?.some((cause) => isCause(cause, event.type)) === true,
      () => `${address} went from ${state} to ${value} because of "${event.type}".`,
    );
    if (value === 'done') {
      const verdict = event['reply'] as Verdict;
      demand(
        verdict.verdict === 'accepted' && verdict.evidence.commands.length > 0,
        () => `${address} is done after the verdict ${JSON.stringify(verdict)}.`,
      );
      demand(++history.accepted === 1, () => `${address} was accepted ${history.accepted} times.`);
      const { remaining } = context();
      demand(remaining.length === 0, () => `${address} is done before ${remaining.join(', ')}.`);
    }
  }

  /** What was handed in and could not be verified is verified again, as it is; nobody works on it a second time. */
  #unjudged(address: string, history: TaskHistory, from: TaskState, event: Event): void {
    if (from === 'verifying') {
      history.unjudged =
        event.type === 'gatekeeper.verify:err' ||
        (event.type === 'gatekeeper.verify:ok' &&
          !['rejected', 'approval_required'].includes((event['reply'] as Verdict).verdict));
      return;
    }
    // A person or the policy has given it to another agent, or this one has advice to follow.
    if (event['guidance'] !== undefined || wants(event, 'reassign')) history.unjudged = false;
    if (history.state === 'verifying' && from !== 'working' && history.unjudged) {
      this.verifiedAgain++;
    }
    demand(
      !history.unjudged || !['ready', 'preparing', 'working', 'fixing'].includes(history.state),
      () => `${address} was handed in and not judged, and is ${history.state} (${event.type}).`,
    );
  }

  /** Counts failed attempts by itself, from what was handled, and holds them against the task's limits. */
  #budget(
    address: string,
    history: TaskHistory,
    event: Event,
    context: () => TaskContext,
    wasFix: () => boolean,
  ): void {
    if (FRESH_START.has(event.type) && !wants(event, 'approve')) {
      history.failures = 0;
      history.infrastructure = 0;
      return;
    }
    const interruptions = interruptionsIn(
      (event['failure'] ?? event['error'] ?? {}) as Partial<Failure> as Failure,
    );
    // Putting its place away is given up, too; then the task is cancelled all the same. And the policy may be
    // what dies: then a person is asked.
    const notTheWork = ['xstate.error.actor.release', 'overseer.escalate:err'];
    if (interruptions !== undefined && !notTheWork.includes(event.type)) {
      this.givenUp++;
      const { spec } = context();
      demand(
        history.state === 'escalated' && interruptions === spec.limits.interruptions,
        () =>
          `${address} is ${history.state} after ${interruptions} interruptions; it may have ${spec.limits.interruptions}.`,
      );
      return;
    }
    const failed =
      event.type === 'agent.work:err' ||
      event.type === 'gatekeeper.verify:err' ||
      event.type === 'xstate.error.actor.prepare' ||
      (event.type === 'gatekeeper.verify:ok' &&
        ['rejected', 'infrastructure'].includes((event['reply'] as Verdict).verdict));
    if (!failed) return;
    const { cause, spec } = context();
    if (spec.qa !== undefined && wasFix() && cause !== 'infrastructure') {
      // Mending is no attempt. That a gatekeeper has judged it says that the infrastructure holds.
      if (event.type === 'gatekeeper.verify:ok') history.infrastructure = 0;
    } else if (cause === 'infrastructure') history.infrastructure++;
    else {
      history.failures++;
      history.infrastructure = 0;
    }
    const { attempts, infrastructureAttempts } = spec.limits;
    // What the infrastructure did says nothing about the work: each is held to its own budget.
    const spent =
      history.infrastructure >= infrastructureAttempts ||
      (cause !== 'infrastructure' && history.failures >= attempts);
    demand(
      !spent || history.state !== 'retrying',
      () =>
        `${address} tries again after ${history.failures} of ${attempts} attempts and ${history.infrastructure} of ${infrastructureAttempts} infrastructure faults.`,
    );
  }

  /** What the run hears of one task is a chain: nothing missing, nothing doubled, nothing out of order. */
  #heard(run: string, event: Event): void {
    const { task, from, to } = event as unknown as { task: string; from: string; to: string };
    const all = this.#told.get(run) ?? new Map<string, string>();
    this.#told.set(run, all);
    const before = all.get(task) ?? from;
    demand(
      before === from,
      () =>
        `The run was told that ${task} is no longer ${from}, but had been told that it is ${before}: a message is missing, doubled or out of order.`,
    );
    all.set(task, to);
  }

  #poolTurn({ address, snapshotJson }: CheckpointRecord, event: Event | null): void {
    const { context } = JSON.parse(snapshotJson) as {
      context: { pool: { running: readonly Job[] } };
    };
    const { running } = context.pool;
    const most = this.#concurrency.get(address) ?? 0;
    demand(
      running.length <= most,
      () => `${address} runs ${running.length} jobs, and may run ${most}.`,
    );
    const jobs = new Set(running.map((job) => `${job.task}@${job.attempt}`));
    demand(
      jobs.size === running.length,
      () => `${address} does one attempt twice: ${[...jobs].join(', ')}.`,
    );
    const before = this.#running.get(address) ?? [];
    this.#running.set(address, running);
    if (event?.type.startsWith('xstate.done.actor.') !== true) return;
    const verdict = event['output'] as Partial<Verdict> | null;
    if (verdict?.verdict !== 'accepted') return;
    const job = before.find(({ id }) => id === event['actorId']);
    const asked = Number(/!#(\d+)\./.exec(job?.replyTo?.correlation ?? '')?.[1]);
    const task = job?.task ?? 'nobody';
    this.#accepted.set(task, [...(this.#accepted.get(task) ?? []), asked]);
  }

  // ── when nothing moves ───────────────────────────────────────────────────────────────────────────────

  /** The world has come to rest, and nothing was lost on purpose: everything must have a reason to wait. */
  atRest(run: string): void {
    const disk = this.#disk;
    demand(
      disk.messages.size === 0,
      () =>
        `Nothing moves, but messages wait: ${[...disk.messages.values()].map((m) => `${m.from}→${m.to} ${m.messageJson.slice(0, 60)}`).join('; ')}.`,
    );
    demand(
      disk.deadLetters.length === 0,
      () =>
        `There are dead letters: ${disk.deadLetters.map((l) => `${l.address}: ${l.reason} ${l.messageJson.slice(0, 80)}`).join('; ')}.`,
    );
    const effects = [...disk.effects.values()].flatMap((byId) => [...byId.values()]);
    demand(
      effects.length === 0,
      () =>
        `Nothing moves, but effects are stored: ${effects.map((e) => `${e.address} ${e.id} (${e.src})`).join(', ')}.`,
    );
    const tasks = this.#currentTasks(run);
    const { value: runValue, context } = this.#runState(run);
    const state = topLevel(runValue);
    const open = [...tasks.values()].filter(({ state: s }) => s !== 'done' && s !== 'cancelled');

    const others = [...disk.runs.keys()].filter((id) => id !== run);
    const timers = [...disk.timers.values()]
      .flatMap((byId) => [...byId.values()])
      .filter(({ address }) => !others.some((id) => address.startsWith(`task/${id}/`)));
    for (const timer of timers) {
      demand(
        tasks.get(timer.address)?.state === 'awaitingInput',
        () =>
          `Nothing moves, but a timer is stored: ${timer.address} ${timer.id}, due in the far future.`,
      );
    }
    for (const [address, task] of tasks) this.#mayRest(address, task, tasks, state);
    demand(
      state === 'done' || state === 'cancelled' ? open.length === 0 : open.length > 0,
      () => `The run is ${state}, and ${open.length} of its tasks are open.`,
    );
    demand(
      ['done', 'cancelled', 'blocked', 'paused'].includes(state),
      () =>
        `Nothing moves, but the run is ${JSON.stringify(runValue)} and does not say what it waits for. Open: ${open.map((t) => `${t.context.spec.id} ${t.state}`).join(', ')}.`,
    );
    demand(
      state !== 'blocked' || (context.reason ?? '') !== '',
      () => 'The run is blocked without a reason.',
    );
    // An ended run hears no more, and need not.
    demand(
      context.unheard === 0 || open.length === 0,
      () => `Nothing moves, but ${context.unheard} ends of tasks are unheard.`,
    );
    demand(
      Object.keys(context.claimed).length === 0,
      () => `Nothing moves, but places are taken: ${JSON.stringify(context.claimed)}.`,
    );
    this.#counts(run, tasks, context);
    this.#rows(run, tasks, state);
  }

  #mayRest(
    address: string,
    { state, context }: { state: TaskState; context: TaskContext },
    tasks: ReadonlyMap<string, { state: TaskState; context: TaskContext }>,
    run: string,
  ): void {
    switch (state) {
      case 'waiting': {
        const stateOf = (id: string) => tasks.get(`task/${context.spec.run}/${id}`)?.state;
        const reasons = context.remaining.filter((id) => stateOf(id) !== 'done');
        demand(
          reasons.length > 0 && reasons.length === context.remaining.length,
          () =>
            `${address} waits for ${JSON.stringify(context.remaining)}, which are ${context.remaining.map(stateOf).join(', ')}.`,
        );
        demand(
          !reasons.some((id) => stateOf(id) === 'cancelled'),
          () => `${address} waits for a cancelled task.`,
        );
        return;
      }
      case 'ready':
        demand(
          run === 'paused',
          () => `${address} is ready, nothing moves, and the run is ${run}.`,
        );
        return;
      case 'blocked':
      case 'escalated':
      case 'awaitingApproval':
        demand((context.reason ?? '') !== '', () => `${address} is ${state} without a reason.`);
        return;
      case 'preparing':
      case 'working':
      case 'verifying':
      case 'retrying':
      case 'cancelling':
        demand(false, () => `${address} is ${state}, and nothing moves.`);
        return;
      default:
    }
  }

  #counts(
    run: string,
    tasks: ReadonlyMap<string, { state: TaskState }>,
    context: RunContext,
  ): void {
    const counts: Partial<Record<TaskPhase, number>> = {};
    for (const { state } of tasks.values()) {
      const phase = phaseOf(state);
      counts[phase] = (counts[phase] ?? 0) + 1;
    }
    for (const [phase, count] of Object.entries(context.counts)) {
      const is = counts[phase as TaskPhase] ?? 0;
      demand(is === count, () => `Run ${run} counts ${count} tasks ${phase}; there are ${is}.`);
    }
  }

  /** The rows to query by say what the actors are. */
  #rows(
    run: string,
    tasks: ReadonlyMap<string, { state: TaskState; context: TaskContext }>,
    runState: string,
  ): void {
    const rows = this.#disk.tasks.get(run)?.byId;
    demand(
      rows?.size === tasks.size,
      () => `There are ${rows?.size} rows for ${tasks.size} tasks.`,
    );
    for (const [address, { state, context }] of tasks) {
      const row = rows.get(context.spec.id)?.row;
      const mends =
        state === 'fixing' || state === 'awaitingInput' ? context.fix?.agent : undefined;
      const agent = mends ?? context.agent;
      demand(
        row?.state === state && row.attempts === context.attempt && row.agent === agent,
        () =>
          `The row of ${address} says ${JSON.stringify(row)}; the actor is ${state}, attempt ${context.attempt}.`,
      );
      const attempts = this.#disk.attempts.get(run)?.get(context.spec.id);
      demand(
        (attempts?.size ?? 0) === context.attempt,
        () =>
          `${address} has made ${context.attempt} attempts; there are ${attempts?.size ?? 0} rows.`,
      );
      const last = attempts?.get(context.attempt);
      demand(
        last === undefined || last.outcome === context.last?.outcome,
        () =>
          `The row of attempt ${context.attempt} of ${address} says ${last?.outcome}, the actor ${context.last?.outcome}.`,
      );
      for (const attempt of attempts?.values() ?? []) {
        const open = attempt.outcome === 'running';
        demand(
          open ? attempt.attempt === context.attempt : attempt.endedAt !== null,
          () =>
            `Attempt ${attempt.attempt} of ${address} is ${attempt.outcome} and ended at ${attempt.endedAt}; the task is at ${context.attempt}.`,
        );
      }
    }
    const row = this.#disk.runs.get(run);
    demand(
      row?.state === runState,
      () => `The row of run ${run} says ${row?.state}; the actor is ${runState}.`,
    );
  }

  /** Everything has ended: nothing may be left over. */
  ended(run: string): void {
    this.atRest(run);
    const tasks = this.#currentTasks(run);
    for (const [address, { state }] of tasks) {
      demand(state === 'done' || state === 'cancelled', () => `${address} is ${state} at the end.`);
      const accepted = this.#tasks.get(address)?.accepted ?? 0;
      demand(
        accepted === (state === 'done' ? 1 : 0),
        () => `${address} is ${state} and was accepted ${accepted} times.`,
      );
      // What was called off may have been accepted in the same moment; what is done was accepted once.
      // What was given up by a rollback was of another life.
      const life = this.#lives.get(address) ?? { from: -1, done: false };
      const since = (this.#accepted.get(address) ?? []).filter((asked) => asked > life.from);
      const verdicts = since.length + (life.done ? 1 : 0);
      demand(
        verdicts === 1 || (verdicts === 0 && state === 'cancelled'),
        () => `${address} is ${state}, and the gatekeeper has accepted it ${verdicts} times.`,
      );
    }
    const timers = [...this.#disk.timers.values()].reduce((sum, byId) => sum + byId.size, 0);
    demand(timers === 0, () => `${timers} timers are left at the end.`);
    for (const actor of this.#disk.actors.values()) {
      demand(
        actor.status === 'active' || actor.status === 'done',
        () => `${actor.address} is ${actor.status}: ${actor.reason}.`,
      );
    }
  }

  /** Every checkpoint is what the machine, as a function, makes of the one before and the event. Byte for byte. */
  replay(): number {
    let turns = 0;
    for (const [address, [first, ...rest]] of this.#history) {
      const driver = drivers.get(this.#disk.actors.get(address)?.machine ?? '');
      demand(
        driver !== undefined && first !== undefined,
        () => `${address} is of an unknown machine.`,
      );
      const stored = JSON.parse(first.snapshotJson) as PersistedSnapshot;
      if (kindOf(address) === 'task' && first.kind === 'auto') {
        const spec = (stored.context as unknown as TaskContext).spec as unknown as JsonValue;
        const initial = JSON.stringify(driver.persist(driver.initial(address, spec).snapshot));
        demand(initial === first.snapshotJson, () =>
          differs(address, 0, initial, first.snapshotJson),
        );
      }
      let live = driver.restore(address, stored);
      for (const checkpoint of rest) {
        if (checkpoint.eventJson === null) {
          live = driver.restore(address, JSON.parse(checkpoint.snapshotJson) as PersistedSnapshot);
          continue;
        }
        const event = JSON.parse(String(checkpoint.eventJson)) as MachineEvent;
        live = driver.transition(address, live, event).snapshot;
        const replayed = JSON.stringify(driver.persist(live));
        demand(replayed === checkpoint.snapshotJson, () =>
          differs(address, checkpoint.seq, replayed, checkpoint.snapshotJson),
        );
        turns++;
      }
    }
    return turns;
  }

  // ── what is stored now ───────────────────────────────────────────────────────────────────────────────

  #snapshot(address: string): PersistedSnapshot {
    const seq = this.#disk.actors.get(address)?.seq;
    const checkpoint = this.#disk.checkpoints.get(address)?.at(-1);
    demand(
      checkpoint !== undefined && checkpoint.seq === seq,
      () => `${address} has no checkpoint ${seq}.`,
    );
    return JSON.parse(checkpoint.snapshotJson) as PersistedSnapshot;
  }

  #runState(run: string): { value: JsonValue; context: RunContext } {
    const { value, context } = this.#snapshot(`run/${run}`);
    return { value, context: context as unknown as RunContext };
  }

  #currentTasks(run: string): Map<string, { state: TaskState; context: TaskContext }> {
    const tasks = new Map<string, { state: TaskState; context: TaskContext }>();
    for (const address of this.#disk.actors.keys()) {
      if (!address.startsWith(`task/${run}/`)) continue;
      const { value, context } = this.#snapshot(address);
      tasks.set(address, {
        state: topLevel(value) as TaskState,
        context: context as unknown as TaskContext,
      });
    }
    return tasks;
  }

  /** What the run and its tasks came to, for comparing two worlds. */
  outcome(run: string): string {
    const tasks = [...this.#currentTasks(run).values()].map(({ state, context }) => ({
      task: context.spec.id,
      state,
      attempts: context.attempt,
      result: context.result,
      answers: context.answers,
    }));
    const { value } = this.#runState(run);
    return canonicalJson({ run: value, tasks } as unknown as JsonValue);
  }
}

/** The state in a stored snapshot, without reading the rest: `{"status":…,"value":…,"context":…`. */
function stateIn(snapshotJson: string): TaskState {
  const from = snapshotJson.indexOf('"value":') + '"value":'.length;
  const value = snapshotJson.slice(from, snapshotJson.indexOf(',"context":', from));
  return topLevel(JSON.parse(value) as JsonValue) as TaskState;
}

function topLevel(value: JsonValue): string {
  return typeof value === 'string' ? value : (Object.keys(value as object)[0] ?? '');
}

/** Whether a person or the policy decides so. */
const wants = (event: Event, decision: string): boolean =>
  (event['decision'] ?? (event['reply'] as { decision?: string } | undefined)?.decision) ===
  decision;

function isCause(cause: string, type: string): boolean {
  return type === cause || type.startsWith(`${cause}.`);
}

function differs(address: string, seq: number, replayed: string, stored: string): string {
  return `The replay of ${address} differs at ${seq}: it gives ${replayed}, stored is ${stored}.`;
}
