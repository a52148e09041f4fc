import { projectTask } from '../machines/projections.ts';
import type { RunContext } from '../machines/run-machine.ts';
import type { TaskContext } from '../machines/task-machine.ts';
import { type Address, kindOf, runAddress, taskAddress } from '../protocol/address.ts';
import { ConflictError, NotFoundError } from '../protocol/errors.ts';
import type { JsonObject } from '../protocol/json.ts';
import { PRIORITIES } from '../protocol/priority.ts';
import type { Clock } from '../runtime/clock.ts';
import { parsePending } from '../runtime/pending.ts';
import type { ActorNow, Journey, Sent, TimeTravel } from '../runtime/time-travel.ts';
import type {
  AttemptRow,
  CheckpointRecord,
  Projection,
  StepRecord,
  Store,
  StoredCut,
} from '../store/store.ts';
import { artifactScope } from './artifacts.ts';
import { signalScope, workScopes } from './compensation.ts';
import {
  BEGINS_AGAIN,
  contextOf,
  cutOf,
  isTask,
  type LoadedCut,
  loadCut,
  moveOf,
  movesOf,
  pendingOf,
  putBack,
  rewinds,
  snapshotOf,
  type TaskMove,
  topLevel,
} from './cuts.ts';
import { forked, movedAddress } from './run-forks.ts';

/*
 * Going back with a run. Its actors are the run and its tasks; agents, gatekeepers and overseers serve many runs and are
 * left as they are. So a cut is restored in two parts:
 *
 *   within the run     exactly: states, timers, effects, the messages between its actors, the requests between them, and
 *                      the claims in the store
 *   with the others    anew: what was asked of them at the cut is void, what is asked of them now is called off, and each
 *                      task that had something under way, or has begun attempts since, is told (`task.rewound`)
 *
 * Nothing is taken back that has left the store: a merge stays on the target, and what an agent did outside stays done.
 */

export interface RunTravelOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly timeTravel: TimeTravel;
}

export class RunTravel {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #travel: TimeTravel;

  constructor({ store, clock, timeTravel }: RunTravelOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#travel = timeTravel;
  }

  /**
   * Makes a run what it was at a cut. How it is now is kept as another cut.
   * @param label of the cut of how it is now
   * @throws {NotFoundError} there is no such cut, or a checkpoint of it is gone
   * @throws {ConflictError} a checkpoint cannot be restored; nothing has changed then
   */
  async rollback(run: string, id: string, label: string): Promise<readonly TaskMove[]> {
    const loaded = await loadCut(this.#store, run, id);
    let moves: readonly TaskMove[] = [];
    await this.#travel.travel([...loaded.members.keys()] as Address[], (now) => {
      moves = movesOf(loaded, now);
      const at = this.#clock.now();
      const before = cutOf(run, 'rollback', at, { label });
      return { before, ...rolledBack(loaded, now, at) };
    });
    return moves;
  }

  /**
   * Begins a new run that is what this one was at a cut; this one goes on as it is.
   * @throws {ConflictError} there is a run of the new id
   */
  async fork(run: string, id: string, as: string): Promise<readonly TaskMove[]> {
    const loaded = await loadCut(this.#store, run, id);
    const map = (address: string): Address => movedAddress(address, run, as);
    const steps = await artifactsAt(this.#store, loaded, map);
    await this.#travel.travel([...loaded.members.keys()].map(map), (now) => {
      if (now.has(runAddress(as))) {
        throw new ConflictError(`There is a run "${as}" already. Choose another id for the fork.`);
      }
      return { steps, ...forked(loaded, as, map, this.#clock.now()) };
    });
    return movesOf(loaded, new Map());
  }

  /**
   * Makes one task what it was at one of its own checkpoints. Its run learns of it, and goes on with the others.
   * @throws {ConflictError} the run has ended, or others have gone on because this task had ended: then only the whole run
   * can be rolled back
   */
  async rollbackTask(run: string, task: string, seq: number): Promise<TaskMove> {
    const address = taskAddress(run, task);
    const checkpoint = await this.#travel.requireCheckpoint(address, seq);
    const dependencies = contextOf(snapshotOf(checkpoint)).spec.dependsOn;
    const addresses = [address, ...dependencies.map((id) => taskAddress(run, id))];
    const rows = await attemptsBefore(this.#store, checkpoint);
    let move: TaskMove | undefined;
    await this.#travel.travel([runAddress(run), ...addresses], (now) => {
      const current = now.get(address);
      if (current === undefined) throw new NotFoundError(`There is no task "${run}/${task}".`);
      refuseUnlessAlone(run, task, now, checkpoint);
      move = moveOf(checkpoint, current);
      return { rows, ...taskRolledBack(checkpoint, current, now) };
    });
    return move as TaskMove;
  }
}

// ── what a journey is made of ──────────────────────────────────────────────────────────────────────────

/**
 * The rows of a task's attempts before that of a checkpoint, as they were then: after a rollback, and another one forward
 * again, the table has those of another life.
 */
async function attemptsBefore(
  store: Pick<Store, 'listCheckpoints' | 'listAttempts'>,
  checkpoint: CheckpointRecord,
): Promise<readonly Projection[]> {
  const { address, seq, at } = checkpoint;
  const { attempt, spec } = contextOf(snapshotOf(checkpoint));
  if (attempt < 2) return [];
  const found = new Map<number, AttemptRow>();
  const bySeq = new Map(
    (await store.listCheckpoints(address, { toSeq: seq })).map((record) => [record.seq, record]),
  );
  for (let next = bySeq.get(seq); next !== undefined; ) {
    const { value, context } = snapshotOf(next);
    const rows = projectTask({ value, context: context as unknown as TaskContext, at });
    for (const projection of rows) {
      if (projection.table !== 'attempts' || projection.row.attempt >= attempt) continue;
      // Its last state is met first.
      if (!found.has(projection.row.attempt)) found.set(projection.row.attempt, projection.row);
    }
    const { restores } = JSON.parse(next.detailsJson ?? '{}') as { readonly restores?: number };
    next = bySeq.get(restores ?? next.seq - 1);
  }
  for (const row of await store.listAttempts(spec.run, spec.id)) {
    // Its states have been pruned, and a later life has begun it again: that it had ended is all that is known.
    if (row.attempt >= attempt || found.has(row.attempt) || row.outcome !== 'running') continue;
    const reason = 'How it ended is not known any more: its checkpoints have been pruned.';
    found.set(row.attempt, { ...row, outcome: 'failed', endedAt: at, reason });
  }
  return Array.from(found.values(), (row) => ({ table: 'attempts', row }));
}

/** What the tasks of a cut had kept for those after them, for the tasks of a fork. */
async function artifactsAt(
  store: Pick<Store, 'loadSteps'>,
  { members }: LoadedCut,
  map: (address: string) => Address,
): Promise<readonly StepRecord[]> {
  const found: StepRecord[] = [];
  for (const [address, checkpoint] of members) {
    if (!isTask(address)) continue;
    const { kept } = scopesAt(address, checkpoint);
    for (const scope of kept) {
      const own = artifactScope(map(address) + scope.slice(address.length));
      const steps = await store.loadSteps(artifactScope(scope));
      found.push(...steps.map((step) => ({ ...step, scope: own })));
    }
  }
  return found;
}

function rolledBack(loaded: LoadedCut, now: ReadonlyMap<string, ActorNow>, at: number): Journey {
  const { stored, members } = loaded;
  const { cut } = stored;
  const pending = pendingOf(stored, at, (to) => members.has(to));
  const tasks = [...members].filter(([address]) => isTask(address));
  const called = tasks.flatMap(([address]) => callsOff(now.get(address)));
  return {
    restorations: [...members].map(([address, checkpoint]) => ({
      address: address as Address,
      checkpoint,
      pending: pending(address),
      label: `rolled back to cut ${cut.id}`,
    })),
    isGivenUp: ({ from, to, correlation, reply, message }) =>
      members.has(to)
        ? members.has(from) || reply === true || message.type === 'task.rewound'
        : members.has(from) && correlation !== undefined && reply !== true,
    messages: [
      ...called,
      ...putBack(stored, (from) => members.has(from)),
      ...tasks.flatMap(([address, checkpoint]) =>
        rewinds(address as Address, checkpoint, now.get(address)),
      ),
      ...tellsSchedule(loaded),
    ],
    clearedSteps: tasks.flatMap(([address, checkpoint]) =>
      stepsGivenUp(address, checkpoint, now.get(address)),
    ),
    removedAttempts: tasks.map(([, checkpoint]) => {
      const { spec, attempt } = contextOf(snapshotOf(checkpoint));
      return { run: spec.run, task: spec.id, above: attempt };
    }),
    claims: claimsOf(stored, tasks),
    rows: stored.attempts.map((row) => ({ table: 'attempts', row })),
  };
}

/** The schedule that has started a run takes it for running, or for ended, as it is after the rollback. */
function tellsSchedule({ stored, members }: LoadedCut): readonly Sent[] {
  const from = runAddress(stored.cut.run);
  const checkpoint = members.get(from);
  if (checkpoint === undefined) return [];
  const { status, value, context } = snapshotOf(checkpoint);
  const { run, startedBy } = context as unknown as RunContext;
  if (startedBy === undefined) return [];
  const message =
    status === 'active'
      ? { type: 'schedule.runReopened', run }
      : { type: 'schedule.runEnded', run, state: topLevel(value) };
  return [{ from, to: startedBy, message, priority: PRIORITIES.normal }];
}

/** A claim that was made since is forgotten: the same claim may be made again, and find other tasks. */
function claimsOf(
  { claims }: StoredCut,
  tasks: readonly (readonly [string, CheckpointRecord])[],
): NonNullable<Journey['claims']> {
  const known = new Map(claims.map((claim) => [claim.task, claim]));
  return tasks.map(([, checkpoint]) => {
    const { run, id } = contextOf(snapshotOf(checkpoint)).spec;
    return known.get(id) ?? { run, task: id, token: null, open: false };
  });
}

/** What a task has asked of agents and gatekeepers is called off: by its correlation, for it will be asked again. */
function callsOff(now: ActorNow | undefined): readonly Sent[] {
  if (now?.snapshot === undefined) return [];
  const { attempt } = contextOf(now.snapshot);
  return now.pending.timers.flatMap(({ action }): readonly Sent[] => {
    if (action.do !== 'deadline') return [];
    const kind = kindOf(action.to);
    if (kind !== 'agent' && kind !== 'gatekeeper') return [];
    const { correlation } = action;
    return [
      {
        from: now.address,
        to: action.to as Address,
        message: { type: `${kind}.cancel`, task: now.address, attempt, correlation },
        priority: PRIORITIES.critical,
      },
    ];
  });
}

/** The journals of attempts that are begun again, and of those that have not been begun yet. */
function stepsGivenUp(
  address: string,
  checkpoint: CheckpointRecord,
  now: ActorNow | undefined,
): readonly string[] {
  const { first, kept, fixers } = scopesAt(address, checkpoint);
  const { attempt: last = first, fixers: fixersNow = fixers } =
    now?.snapshot === undefined ? {} : contextOf(now.snapshot);
  const before = new Set(kept);
  return workScopes(address, Math.max(first, last), fixersNow)
    .filter(({ scope }) => !before.has(scope))
    .flatMap(({ scope }) => [scope, signalScope(scope), artifactScope(scope)]);
}

/** The first attempt that begins (again) after a checkpoint, and the journals of what was before it. */
function scopesAt(
  address: string,
  checkpoint: CheckpointRecord,
): {
  readonly first: number;
  readonly kept: readonly string[];
  readonly fixers: TaskContext['fixers'];
} {
  const { value, context } = snapshotOf(checkpoint);
  // As the cut has it, perhaps by an earlier Troupe.
  const {
    attempt,
    fix = null,
    fixers = [],
  } = context as unknown as Pick<TaskContext, 'attempt'> & Partial<TaskContext>;
  const begins = BEGINS_AGAIN.has(topLevel(value));
  // Of an attempt that is being mended, only the mending begins again.
  const first = begins && fix === null ? Math.max(1, attempt) : attempt + 1;
  const mended = begins && fix !== null ? fixers.slice(0, -1) : fixers;
  const kept = workScopes(address, first - 1, mended).map(({ scope }) => scope);
  return { first, kept, fixers };
}

// ── one task ───────────────────────────────────────────────────────────────────────────────────────────

function refuseUnlessAlone(
  run: string,
  task: string,
  now: ReadonlyMap<string, ActorNow>,
  checkpoint: CheckpointRecord,
): void {
  const runNow = now.get(runAddress(run))?.snapshot;
  const runState = runNow === undefined ? 'unreadable' : topLevel(runNow.value);
  const instead = `Roll the whole run back instead: troupe rollback ${run}.`;
  if (['done', 'cancelled', 'cancelling', 'unreadable'].includes(runState)) {
    throw new ConflictError(
      `Task "${task}" cannot be rolled back by itself: its run "${run}" is ${runState}. ${instead}`,
    );
  }
  const current = now.get(taskAddress(run, task))?.snapshot;
  const { value, context } = snapshotOf(checkpoint);
  const { dependants } = (context as unknown as TaskContext).spec;
  if (dependants.length === 0) return;
  const from = current === undefined ? undefined : topLevel(current.value);
  const ended = [from, topLevel(value)].find((state) => state === 'done' || state === 'cancelled');
  if (ended === undefined) return;
  throw new ConflictError(
    `Task "${task}" cannot be rolled back by itself: ${from === ended ? `it is ${ended}` : `it was ${ended} then`}, and ${dependants.map((id) => `"${id}"`).join(', ')} ${dependants.length === 1 ? 'depends' : 'depend'} on it. ${instead}`,
  );
}

function taskRolledBack(
  checkpoint: CheckpointRecord,
  now: ActorNow,
  others: ReadonlyMap<string, ActorNow>,
): Journey {
  const { address } = now;
  const { context, value } = snapshotOf(checkpoint);
  const { spec, attempt, told, agent, remaining } = context as unknown as TaskContext;
  const toldNow = now.snapshot === undefined ? told : contextOf(now.snapshot).told;
  const isReady = now.snapshot?.value === 'ready';
  // Dependencies whose end it does not know of yet, and that will not tell it again.
  const stateOf = (id: string): string => {
    const snapshot = others.get(taskAddress(spec.run, id))?.snapshot;
    return snapshot === undefined ? 'unreadable' : topLevel(snapshot.value);
  };
  const ended = remaining.filter((id) => ['done', 'cancelled'].includes(stateOf(id)));
  const pending = parsePending(checkpoint.pendingJson);
  const priority = PRIORITIES.normal;
  const tellRun = (message: JsonObject): Sent => ({
    from: address,
    to: runAddress(spec.run),
    message: {
      type: 'run.taskChanged',
      task: spec.id,
      heard: 0,
      ...(spec.phase === undefined ? {} : { phase: spec.phase }),
      ...message,
    },
    priority,
  });
  return {
    restorations: [
      {
        address,
        checkpoint,
        pending: {
          effects: pending.effects,
          timers: pending.timers.filter(
            ({ action }) => action.do === 'event' || action.do === 'send',
          ),
        },
        label: `rolled back to #${checkpoint.seq}`,
        keepNow: `before rollback to #${checkpoint.seq}`,
      },
    ],
    isGivenUp: ({ from, to, correlation, reply, message }) =>
      to === address
        ? reply === true || message.type === 'task.rewound'
        : from === address && correlation !== undefined && reply !== true,
    messages: [
      ...callsOff(now),
      // First it gives back the place it has; then it stands where it stood.
      tellRun({ from: toldNow, to: 'delayed', telling: ended.length }),
      tellRun({
        ...{ from: 'delayed', to: told, telling: 0, agent },
        ...(told === 'person' && topLevel(value) === 'escalated' ? { escalated: true } : {}),
      }),
      ...ended.map(
        (id): Sent => ({
          from: taskAddress(spec.run, id),
          to: address,
          message: { type: 'task.dependencyEnded', task: id, outcome: stateOf(id) },
          priority,
        }),
      ),
      ...rewinds(address, checkpoint, now),
    ],
    clearedSteps: stepsGivenUp(address, checkpoint, now),
    removedAttempts: [{ run: spec.run, task: spec.id, above: attempt }],
    // A claim that it has obeyed is over, though its row may never have said anything but `ready`. One that it has not
    // obeyed yet waits in its mailbox, which stays.
    claims: isReady ? [] : [{ run: spec.run, task: spec.id, token: null, open: false }],
  };
}
