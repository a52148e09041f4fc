import type { TaskPhase } from '../../protocol/catalogue.ts';

/*
 * The phases of a workflow, as its run keeps them. That a task of a later phase starts after an earlier one has ended
 * is a matter of the tasks' dependencies; here is what a run has to know besides: how each phase stands, which of them
 * are held, and how much time they have left. Pure.
 */

/** What becomes of the open tasks when a time budget is used up. */
export type OnBudget = 'escalate' | 'cancel';
/** What becomes of the other tasks of a phase while one of it is blocked or escalated. */
export type OnFailure = 'goOn' | 'hold';
export type Order = 'sequential' | 'parallel';

/** Time that may pass, by the clock, while the process is down as well; it stands still while the run is paused. */
export interface TimeBudget {
  readonly budgetMs: number;
  readonly onBudget: OnBudget;
  /** What was left at `since`. */
  readonly leftMs: number;
  /** Since when it passes; null: it has not begun, stands still or is over. */
  readonly since: number | null;
  readonly usedUpAt: number | null;
}

export interface PhaseRecord {
  readonly id: string;
  readonly title: string;
  /** The phases that must have ended before its tasks start. */
  readonly after: readonly string[];
  readonly order: Order;
  readonly onFailure: OnFailure;
  /** Its tasks are those at these positions of the run: the first, and the one after the last. */
  readonly from: number;
  readonly to: number;
  readonly counts: Readonly<Partial<Record<TaskPhase, number>>>;
  /** Its tasks that are blocked or escalated now. */
  readonly failed: readonly string[];
  readonly budget: TimeBudget | null;
  /** When the first of its tasks could start. */
  readonly openedAt: number | null;
  readonly endedAt: number | null;
}

export interface WorkflowRecord {
  readonly budget: TimeBudget | null;
  readonly phases: readonly PhaseRecord[];
}

/** What a run is told of one of its tasks. */
export interface PhaseFact {
  readonly task: string;
  readonly phase?: string | undefined;
  readonly from: TaskPhase;
  readonly to: TaskPhase;
  /** With `to: 'person'`: it did not only ask something. */
  readonly escalated?: boolean | undefined;
}

export function timeBudget(budgetMs: number | undefined, onBudget: OnBudget): TimeBudget | null {
  if (budgetMs === undefined) return null;
  return { budgetMs, onBudget, leftMs: budgetMs, since: null, usedUpAt: null };
}

/** The workflow when its run begins: phases whose tasks can start are open. */
export function opened(workflow: WorkflowRecord, at: number): WorkflowRecord {
  return {
    budget: begun(workflow.budget, at),
    phases: workflow.phases.map((phase) => open(phase, at)),
  };
}

function open(phase: PhaseRecord, at: number): PhaseRecord {
  const waiting = phase.counts.waiting ?? 0;
  if (phase.openedAt !== null || waiting === phase.to - phase.from) return phase;
  return { ...phase, openedAt: at, budget: begun(phase.budget, at) };
}

/** @returns the same record if it makes no difference to any phase */
export function taskChanged(
  workflow: WorkflowRecord,
  fact: PhaseFact,
  at: number,
  paused: boolean,
): WorkflowRecord {
  const index = workflow.phases.findIndex(({ id }) => id === fact.phase);
  const phase = workflow.phases[index];
  if (phase === undefined) return workflow;
  const { task, from, to } = fact;
  const hasFailed = to === 'stuck' || (to === 'person' && fact.escalated === true);
  if (from === to && !hasFailed) return workflow;
  const counts = { ...phase.counts };
  if (from !== to) {
    counts[from] = (counts[from] ?? 0) - 1;
    counts[to] = (counts[to] ?? 0) + 1;
  }
  const others = phase.failed.filter((id) => id !== task);
  let next: PhaseRecord = { ...phase, counts, failed: hasFailed ? [...others, task] : others };
  next = open(next, at);
  if (next.openedAt === at && phase.openedAt === null && paused)
    next = withBudget(next, stopped(next.budget, at));
  const isOver = (counts.done ?? 0) + (counts.cancelled ?? 0) === next.to - next.from;
  if (next.endedAt === null && isOver) {
    next = { ...withBudget(next, stopped(next.budget, at)), endedAt: at };
  } else if (next.endedAt !== null && !isOver) {
    // A task of it was rolled back by itself.
    const budget = paused ? next.budget : begun(next.budget, at);
    next = { ...withBudget(next, budget), endedAt: null };
  }
  return { ...workflow, phases: workflow.phases.with(index, next) };
}

const withBudget = (phase: PhaseRecord, budget: TimeBudget | null): PhaseRecord => ({
  ...phase,
  budget,
});

function begun(budget: TimeBudget | null, at: number): TimeBudget | null {
  return budget === null || budget.since !== null || budget.usedUpAt !== null
    ? budget
    : { ...budget, since: at };
}

function stopped(budget: TimeBudget | null, at: number): TimeBudget | null {
  if (budget === null || budget.since === null) return budget;
  const passed = Math.max(0, at - budget.since);
  return { ...budget, leftMs: Math.max(0, budget.leftMs - passed), since: null };
}

/** The run was paused: no budget passes. */
export function stopClocks(workflow: WorkflowRecord, at: number): WorkflowRecord {
  return {
    budget: stopped(workflow.budget, at),
    phases: workflow.phases.map((phase) => withBudget(phase, stopped(phase.budget, at))),
  };
}

/** The run goes on. */
export function startClocks(workflow: WorkflowRecord, at: number): WorkflowRecord {
  return {
    budget: begun(workflow.budget, at),
    phases: workflow.phases.map((phase) =>
      phase.openedAt === null || phase.endedAt !== null
        ? phase
        : withBudget(phase, begun(phase.budget, at)),
    ),
  };
}

/** @param id the phase whose time is over; null: the whole workflow's */
export function useUp(workflow: WorkflowRecord, id: string | null, at: number): WorkflowRecord {
  const over = (budget: TimeBudget | null): TimeBudget | null =>
    budget && { ...budget, leftMs: 0, since: null, usedUpAt: at };
  if (id === null) return { ...workflow, budget: over(workflow.budget) };
  return {
    ...workflow,
    phases: workflow.phases.map((phase) =>
      phase.id === id ? withBudget(phase, over(phase.budget)) : phase,
    ),
  };
}

/** The budgets that pass now, by phase; that of the workflow under null. */
export function passing(workflow: WorkflowRecord | null): ReadonlyMap<string | null, TimeBudget> {
  const found = new Map<string | null, TimeBudget>();
  if (workflow === null) return found;
  const add = (id: string | null, budget: TimeBudget | null): void => {
    if (budget !== null && budget.since !== null) found.set(id, budget);
  };
  add(null, workflow.budget);
  for (const { id, budget } of workflow.phases) add(id, budget);
  return found;
}

const isHeld = ({ onFailure, failed }: PhaseRecord): boolean =>
  onFailure === 'hold' && failed.length > 0;

/** Tasks that could start and must not, because their phase is held. */
export function heldReady(workflow: WorkflowRecord | null): number {
  return (workflow?.phases ?? [])
    .filter(isHeld)
    .reduce((sum, { counts }) => sum + (counts.ready ?? 0), 0);
}

/** Positions from which nothing is to be started: first, and the one after the last. */
export function heldRanges(
  workflow: WorkflowRecord | null,
): readonly (readonly [number, number])[] {
  return (workflow?.phases ?? []).filter(isHeld).map(({ from, to }) => [from, to] as const);
}

/** Which tasks a budget is about, and what is said of them when it is used up. */
export function overdue(
  workflow: WorkflowRecord,
  id: string | null,
):
  | {
      readonly from: number;
      readonly to: number;
      readonly onBudget: OnBudget;
      readonly reason: string;
    }
  | undefined {
  if (id === null) {
    const { budget, phases } = workflow;
    if (budget === null) return undefined;
    const reason = `The time budget of the workflow (${durationInWords(budget.budgetMs)}) is used up.`;
    return { from: 0, to: phases.at(-1)?.to ?? 0, onBudget: budget.onBudget, reason };
  }
  const phase = workflow.phases.find((one) => one.id === id);
  if (phase === undefined || phase.budget === null) return undefined;
  const { from, to, budget } = phase;
  const reason = `The time budget of phase "${id}" (${durationInWords(budget.budgetMs)}) is used up.`;
  return { from, to, onBudget: budget.onBudget, reason };
}

export type PhaseState = 'waiting' | 'running' | 'blocked' | 'done' | 'cancelled';

/** How a phase stands. */
export interface PhaseStatus {
  readonly id: string;
  readonly title: string;
  /**
   * `waiting`: for other phases, or for tasks to be enabled. `blocked`: nothing of it moves by itself. `cancelled`: it
   * has ended, and not all of its tasks are done.
   */
  readonly state: PhaseState;
  readonly after: readonly string[];
  readonly order: Order;
  readonly total: number;
  readonly counts: Readonly<Partial<Record<TaskPhase, number>>>;
  /** Its tasks that are blocked or escalated. */
  readonly failed: readonly string[];
  /** Because of these, its other tasks are not started (`onFailure: 'hold'`). */
  readonly held: boolean;
  readonly budgetMs: number | null;
  /** When its time will be used up; null: it has no budget, or its time does not pass. */
  readonly dueAt: number | null;
  readonly usedUpAt: number | null;
  readonly openedAt: number | null;
  readonly endedAt: number | null;
}

export function phaseStatus(phase: PhaseRecord): PhaseStatus {
  const { id, title, after, order, counts, failed, budget, openedAt, endedAt } = phase;
  return {
    id,
    title,
    state: stateOf(phase),
    after,
    order,
    total: phase.to - phase.from,
    counts,
    failed,
    held: isHeld(phase),
    budgetMs: budget?.budgetMs ?? null,
    dueAt: budget === null || budget.since === null ? null : budget.since + budget.leftMs,
    usedUpAt: budget?.usedUpAt ?? null,
    openedAt,
    endedAt,
  };
}

function stateOf(phase: PhaseRecord): PhaseState {
  const { counts, endedAt, openedAt } = phase;
  const of = (...kinds: readonly TaskPhase[]): number =>
    kinds.reduce((sum, kind) => sum + (counts[kind] ?? 0), 0);
  if (endedAt !== null) return of('cancelled') === 0 ? 'done' : 'cancelled';
  if (of('active', 'verifying', 'delayed') > 0) return 'running';
  if (of('ready') > 0 && !isHeld(phase)) return 'running';
  if (of('person', 'stuck') > 0) return 'blocked';
  return openedAt === null || of('ready') === 0 ? 'waiting' : 'blocked';
}

/** What a run that stands still should say of its phases. */
export function phasesInWords(workflow: WorkflowRecord | null): readonly string[] {
  if (workflow === null) return [];
  const words: string[] = [];
  if (workflow.budget?.usedUpAt != null) words.push(overdue(workflow, null)?.reason ?? '');
  for (const phase of workflow.phases) {
    if (phase.endedAt !== null) continue;
    if (phase.budget?.usedUpAt != null) words.push(overdue(workflow, phase.id)?.reason ?? '');
    if (isHeld(phase) && (phase.counts.ready ?? 0) > 0) {
      words.push(`Phase "${phase.id}" is held because of ${phase.failed.join(', ')}.`);
    }
  }
  return words;
}

const UNITS = [
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1_000],
  ['ms', 1],
] as const;

/** `1 h 30 min`; at most two units. */
function durationInWords(ms: number): string {
  const parts: string[] = [];
  let rest = Math.max(0, Math.round(ms));
  for (const [unit, unitMs] of UNITS) {
    const count = Math.floor(rest / unitMs);
    rest -= count * unitMs;
    if (count > 0) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(' ') || '0 ms';
}
