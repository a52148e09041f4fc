import type { TaskContext } from '../machines/task-machine.ts';
import { type Address, kindOf, runAddress } from '../protocol/address.ts';
import type { TaskState } from '../protocol/catalogue.ts';
import { NotFoundError } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { Message } from '../protocol/message.ts';
import { PRIORITIES } from '../protocol/priority.ts';
import type { TimerAction } from '../runtime/durable-timers.ts';
import type { Pending, PendingTimer } from '../runtime/pending.ts';
import type { CutPlan } from '../runtime/registration.ts';
import type { Sent } from '../runtime/time-travel.ts';
import type { PersistedSnapshot } from '../runtime/xstate-driver.ts';
import type { CheckpointRecord, CutKind, Store, StoredCut } from '../store/store.ts';

/** Of the cuts that are taken by themselves, the newest stay. */
const KEEP: Readonly<Partial<Record<CutKind, number>>> = { timed: 20, milestone: 20 };

export interface CutNote {
  readonly label?: string | null;
  readonly details?: JsonObject;
}

export function cutOf(run: string, kind: CutKind, at: number, note: CutNote = {}): CutPlan {
  return {
    run,
    at,
    kind,
    label: note.label ?? null,
    detailsJson: note.details === undefined ? null : JSON.stringify(note.details),
    address: runAddress(run),
    prefix: `task/${run}/`,
    keep: KEEP[kind] ?? null,
  };
}

/** A cut, with the checkpoints it names. */
export interface LoadedCut {
  readonly stored: StoredCut;
  readonly members: ReadonlyMap<string, CheckpointRecord>;
}

type CutStore = Pick<Store, 'loadCut' | 'listCheckpoints'>;

/** Checkpoints read at once. */
const READ_AT_ONCE = 500;

/** @throws {NotFoundError} there is no such cut, or a checkpoint of it is gone */
export async function loadCut(store: CutStore, run: string, id: string): Promise<LoadedCut> {
  const stored = await store.loadCut(id);
  if (stored === undefined || stored.cut.run !== run) {
    throw new NotFoundError(`Run "${run}" has no cut ${id}.`);
  }
  const members = new Map<string, CheckpointRecord>();
  for (let i = 0; i < stored.members.length; i += READ_AT_ONCE) {
    const some = stored.members.slice(i, i + READ_AT_ONCE);
    const found = await Promise.all(
      some.map(({ address, seq }) => store.listCheckpoints(address, { fromSeq: seq, toSeq: seq })),
    );
    for (const [index, { address, seq }] of some.entries()) {
      const checkpoint = found[index]?.[0];
      if (checkpoint === undefined) {
        throw new NotFoundError(
          `The cut ${id} of run "${run}" cannot be gone back to: checkpoint ${seq} of ${address} has been pruned.`,
        );
      }
      members.set(address, checkpoint);
    }
  }
  return { stored, members };
}

const parsed = new WeakMap<CheckpointRecord, PersistedSnapshot>();

/** Parsed once, for each journey looks at it from several sides. */
export function snapshotOf(checkpoint: CheckpointRecord): PersistedSnapshot {
  const known = parsed.get(checkpoint);
  if (known !== undefined) return known;
  const snapshot = JSON.parse(checkpoint.snapshotJson) as PersistedSnapshot;
  parsed.set(checkpoint, snapshot);
  return snapshot;
}

export const isTask = (address: string): boolean => kindOf(address) === 'task';

export const topLevel = (value: JsonValue): TaskState =>
  (typeof value === 'string' ? value : Object.keys(value as object)[0]) as TaskState;

export const contextOf = (snapshot: PersistedSnapshot): TaskContext =>
  snapshot.context as unknown as TaskContext;

/** The states in which a task waits for others than its run, or will go on in its workspace. */
const WITH_OTHERS: ReadonlySet<TaskState> = new Set([
  'working',
  'verifying',
  'fixing',
  'awaitingInput',
  'escalated',
  'awaitingApproval',
]);
/** Those in which the attempt, or who mends it, begins again from its start, in a new workspace. */
export const BEGINS_AGAIN: ReadonlySet<TaskState> = new Set([
  'preparing',
  'working',
  'fixing',
  'awaitingInput',
]);

/** What becomes of one task. */
export interface TaskMove {
  readonly task: string;
  /** Its state now; null for a fork, which begins with it. */
  readonly from: TaskState | null;
  readonly to: TaskState;
  /** The attempt that begins once more; null if it was not in the middle of one. */
  readonly redoes: number | null;
  /** It is done now, and not at the cut: the commit stays on the target, where its next attempt will find it. */
  readonly merged: string | null;
}

/** @param now the states of its tasks as they are; none for a fork */
export function movesOf(
  { members }: LoadedCut,
  now: ReadonlyMap<string, StateNow>,
): readonly TaskMove[] {
  return [...members]
    .filter(([address]) => isTask(address))
    .map(([address, checkpoint]) => ({
      position: contextOf(snapshotOf(checkpoint)).spec.position,
      move: moveOf(checkpoint, now.get(address)),
    }))
    .sort((a, b) => a.position - b.position)
    .map(({ move }) => move);
}

type StateNow = { readonly snapshot: PersistedSnapshot | undefined };

export function moveOf(checkpoint: CheckpointRecord, now: StateNow | undefined): TaskMove {
  const { value, context } = snapshotOf(checkpoint);
  const to = topLevel(value);
  const { spec, attempt } = context as unknown as TaskContext;
  const from = now?.snapshot === undefined ? null : topLevel(now.snapshot.value);
  const evidence = now?.snapshot === undefined ? null : contextOf(now.snapshot).last?.evidence;
  return {
    task: spec.id,
    from,
    to,
    redoes: WITH_OTHERS.has(to) || to === 'preparing' ? Math.max(1, attempt) : null,
    merged: from === 'done' && to !== 'done' ? (evidence?.commit ?? null) : null,
  };
}

/**
 * Timers and effects as they were at the cut. Requests within the run have as much time left as they had; those to
 * others are void.
 */
export function pendingOf(
  { cut, timers, effects }: StoredCut,
  at: number,
  isMember: (address: string) => boolean,
): (address: string) => Pending {
  const byAddress = new Map<
    string,
    { timers: PendingTimer[]; effects: Pending['effects'][number][] }
  >();
  const of = (address: string) => {
    const known = byAddress.get(address) ?? { timers: [], effects: [] };
    byAddress.set(address, known);
    return known;
  };
  for (const { address, id, dueAt, actionJson } of timers) {
    const action = JSON.parse(actionJson) as TimerAction;
    // Whoever is taken back is not asked to stop any more.
    if (action.do === 'end') continue;
    if (action.do === 'event' || action.do === 'send')
      of(address).timers.push({ id, dueAt, action });
    else if (isMember(action.to)) {
      of(address).timers.push({ id, dueAt: dueAt + Math.max(0, at - cut.at), action });
    }
  }
  for (const { address, id, src, inputJson } of effects) {
    of(address).effects.push({ id, src, input: JSON.parse(inputJson) as JsonValue });
  }
  return (address) => byAddress.get(address) ?? { timers: [], effects: [] };
}

/** The messages to the run and its tasks that waited at the cut. */
export function putBack(
  { messages }: StoredCut,
  isMember: (address: string) => boolean,
): readonly Sent[] {
  return messages.flatMap((record): readonly Sent[] => {
    // What others have answered, they have answered to a request that is void now.
    if (record.reply && !isMember(record.from)) return [];
    const message = JSON.parse(record.messageJson) as Message;
    if (message.type === 'task.rewound') return [];
    const envelope = {
      from: record.from as Address,
      to: record.to as Address,
      message,
      priority: record.priority,
      ...(record.correlation === null ? {} : { correlation: record.correlation }),
      ...(record.attempt === null ? {} : { attempt: record.attempt }),
      ...(record.reply ? { reply: true as const } : {}),
    };
    return [{ ...envelope, was: record.id }];
  });
}

/**
 * What tells a task that something with others begins again: that it was in the midst of something, or that attempts have
 * been begun since.
 */
export function rewinds(
  address: Address,
  checkpoint: CheckpointRecord,
  now?: StateNow,
): readonly Sent[] {
  const { status, value } = snapshotOf(checkpoint);
  if (status !== 'active') return [];
  const begun = now?.snapshot === undefined ? 0 : contextOf(now.snapshot).attempt;
  if (!WITH_OTHERS.has(topLevel(value)) && begun === 0) return [];
  const message = { type: 'task.rewound' };
  return [{ from: address, to: address, message, priority: PRIORITIES.critical }];
}
