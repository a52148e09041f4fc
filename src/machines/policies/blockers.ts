import { MAX_TIMER_MS } from './backoff.ts';

/** A task as far as it matters to what stands still. */
export interface TaskStanding {
  readonly id: string;
  /**
   * Its state. `done` settles its dependants; `blocked`, `escalated` and `cancelled` hold them up; `waiting` is the state
   * in which a task can be held up; any other is under way.
   */
  readonly state: string;
  readonly dependsOn: readonly string[];
  /** Why it stopped: `infrastructure` is worth another try as it is, `work` is not. Unknown when absent. */
  readonly cause?: 'infrastructure' | 'work' | undefined;
  /** In words, as the task reports it. */
  readonly reason?: string | undefined;
}

/**
 * `dependency`: waits for a task that stands still. `cycle`: waits, by way of others, for itself.
 * `transient`: stopped by infrastructure. `unknown`: stopped by its work, or nobody said why.
 */
export type BlockerKind = 'dependency' | 'cycle' | 'transient' | 'unknown';

export interface Blocker {
  readonly id: string;
  readonly reason: string;
}

export interface BlockerGroup {
  readonly kind: BlockerKind;
  readonly count: number;
  /** In the order of the tasks given. */
  readonly tasks: readonly Blocker[];
  /** What to do about this group, in words. */
  readonly recommendation: string;
}

export interface BlockersSummary {
  /** How many tasks stand still. */
  readonly total: number;
  /** Only groups with tasks in them; what to act on first comes first. */
  readonly groups: readonly BlockerGroup[];
  /** The next action, in words. */
  readonly recommendation: string;
}

/** This many tasks are named in a sentence; the rest are counted. */
const NAMED = 3;

/**
 * Sorts the tasks that stand still by what would help. Tasks that are done, cancelled, under way, or wait for one that is
 * under way are not among them. Linear in tasks and dependencies.
 */
export function summariseBlockers(tasks: readonly TaskStanding[]): BlockersSummary {
  const byId = new Map(tasks.map((task) => [task.id, task]));
  const stopped = tasks.filter((task) => task.state === 'blocked' || task.state === 'escalated');
  const cyclic = findCyclic(tasks, byId);
  const holdUps = findHoldUps(tasks, byId, cyclic);

  const found: Record<BlockerKind, Blocker[]> = {
    cycle: [],
    transient: [],
    unknown: [],
    dependency: [],
  };
  for (const task of stopped) {
    found[task.cause === 'infrastructure' ? 'transient' : 'unknown'].push({
      id: task.id,
      reason: task.reason ?? `It is ${task.state}; no reason was given.`,
    });
  }
  for (const task of tasks) {
    if (cyclic.has(task.id)) {
      found.cycle.push({
        id: task.id,
        reason: `Waits for itself by way of ${nameSome(task.dependsOn.filter((id) => cyclic.has(id)))}.`,
      });
      continue;
    }
    const holdUp = holdUps.get(task.id);
    if (holdUp !== undefined)
      found.dependency.push({ id: task.id, reason: `Waits for ${holdUp}.` });
  }

  const groups = (Object.keys(found) as BlockerKind[])
    .filter((kind) => found[kind].length > 0)
    .map((kind) => ({
      kind,
      count: found[kind].length,
      tasks: found[kind],
      recommendation: recommend(kind, found[kind], holdUps),
    }));
  const total = groups.reduce((sum, { count }) => sum + count, 0);
  return {
    total,
    groups,
    recommendation: groups[0]?.recommendation ?? 'Nothing stands still.',
  };
}

function recommend(
  kind: BlockerKind,
  blockers: readonly Blocker[],
  holdUps: ReadonlyMap<string, string>,
): string {
  const named = nameSome(blockers.map(({ id }) => id));
  switch (kind) {
    case 'cycle':
      return `Remove a dependency between ${named}, or cancel one of them: they wait for each other and will never start.`;
    case 'transient':
      return `Mend the infrastructure named in the reason, then unblock the tasks with transient causes: ${named}.`;
    case 'unknown':
      return `Read the reason of ${named}; give guidance, change the task or cancel it, then unblock it.`;
    case 'dependency': {
      const [holdUp, waiting] = mostFrequent(holdUps.values());
      return `Settle ${holdUp} first: ${waiting === 1 ? '1 task waits' : `${waiting} tasks wait`} for it.`;
    }
  }
}

/** Tasks on a cycle, or between two: what is left when everything with a free end is taken away, from both ends. */
function findCyclic(
  tasks: readonly TaskStanding[],
  byId: ReadonlyMap<string, TaskStanding>,
): Set<string> {
  const waiting = tasks.filter(isWaiting).map(({ id }) => id);
  const needs = new Map<string, string[]>(waiting.map((id) => [id, []]));
  const neededBy = new Map<string, string[]>(waiting.map((id) => [id, []]));
  for (const id of waiting) {
    for (const needed of byId.get(id)?.dependsOn ?? []) {
      if (!needs.has(needed)) continue;
      needs.get(id)?.push(needed);
      neededBy.get(needed)?.push(id);
    }
  }
  const left = new Set(waiting);
  trim(left, needs, neededBy);
  trim(left, neededBy, needs);
  return left;
}

/** Takes away every id that has nothing left in `forward`, until none has. */
function trim(
  left: Set<string>,
  forward: ReadonlyMap<string, readonly string[]>,
  backward: ReadonlyMap<string, readonly string[]>,
): void {
  const open = new Map<string, number>();
  for (const id of left) {
    open.set(id, (forward.get(id) ?? []).filter((other) => left.has(other)).length);
  }
  const free = [...left].filter((id) => open.get(id) === 0);
  for (let id = free.pop(); id !== undefined; id = free.pop()) {
    left.delete(id);
    for (const other of backward.get(id) ?? []) {
      const remaining = (open.get(other) ?? 0) - 1;
      open.set(other, remaining);
      if (remaining === 0 && left.has(other)) free.push(other);
    }
  }
}

/** For each task that waits in vain, what it waits for at the far end: the first cause that is found. */
function findHoldUps(
  tasks: readonly TaskStanding[],
  byId: ReadonlyMap<string, TaskStanding>,
  cyclic: ReadonlySet<string>,
): Map<string, string> {
  const dependants = new Map<string, string[]>();
  const holdUps = new Map<string, string>();
  const reached: string[] = [];
  const hold = (id: string, by: string) => {
    if (holdUps.has(id) || cyclic.has(id)) return;
    holdUps.set(id, by);
    reached.push(id);
  };
  for (const task of tasks) {
    if (!isWaiting(task)) continue;
    for (const needed of task.dependsOn) {
      const waiting = dependants.get(needed);
      if (waiting === undefined) dependants.set(needed, [task.id]);
      else waiting.push(task.id);
      const cause = byId.get(needed);
      if (cause === undefined) hold(task.id, `${needed} (which is not there)`);
      else if (STANDS_STILL.has(cause.state)) hold(task.id, `${needed} (${cause.state})`);
      else if (cyclic.has(needed)) hold(task.id, `${needed} (which waits for itself)`);
    }
  }
  for (let next = 0; next < reached.length; next++) {
    const id = reached[next] ?? '';
    for (const waiting of dependants.get(id) ?? []) hold(waiting, holdUps.get(id) ?? id);
  }
  return holdUps;
}

const STANDS_STILL: ReadonlySet<string> = new Set(['blocked', 'escalated', 'cancelled']);

/** Not started: only such a task can be held up by another. */
function isWaiting(task: TaskStanding): boolean {
  return task.state === 'waiting';
}

function mostFrequent(names: Iterable<string>): readonly [name: string, count: number] {
  const counts = new Map<string, number>();
  let most: readonly [string, number] = ['', 0];
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  for (const entry of counts) if (entry[1] > most[1]) most = entry;
  return most;
}

function nameSome(ids: readonly string[]): string {
  const rest = ids.length - NAMED;
  if (rest > 0) return `${ids.slice(0, NAMED).join(', ')} and ${rest} more`;
  return ids.length < 2 ? (ids[0] ?? '') : `${ids.slice(0, -1).join(', ')} and ${ids.at(-1)}`;
}

/** That many unblocked tasks start at once. */
const AT_ONCE = 6;
const GAP_MS = 15_000;
/** The share of a gap by which a start may move either way. */
const GAP_JITTER = 0.2;

/**
 * When the task at place `index` (from 0) of many that were unblocked together starts, in milliseconds from now.
 * Law: 0 for the first 6; then `15 s · k ± 3 s` for k = 1, 2, 3 …, so that later ones stay later (gaps of 9 to
 * 21 s); never beyond what a timer keeps.
 * @param unit a number in [0, 1) that differs between tasks: `unitHash(taskId)`
 */
export function staggerMs(index: number, unit: number): number {
  if (index < AT_ONCE) return 0;
  const place = index - AT_ONCE + 1;
  // Rounded by itself: as a part of a long wait it would be rounded beyond its bounds.
  const shiftMs = Math.trunc(GAP_MS * GAP_JITTER * (2 * unit - 1));
  return Math.min(GAP_MS * place + shiftMs, MAX_TIMER_MS);
}
