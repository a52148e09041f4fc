import type { TaskState } from '../protocol/catalogue.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Priority } from '../protocol/priority.ts';
import { phaseStatus } from './policies/phases.ts';
import type { RunContext } from './run-machine.ts';
import { type CancelReport, type CurrentFix, doer, type TaskContext } from './task-machine.ts';

/*
 * Rows to query by, computed from the actors' states and written in the same commit: they cannot disagree with
 * them. Field by field they are what the store's tables `runs`, `tasks` and `attempts` hold.
 */

/** A run's states as the outside sees them. */
export const RUN_STATES = [
  'running',
  'blocked',
  'paused',
  'cancelling',
  'cancelled',
  'done',
] as const;
export type RunState = (typeof RUN_STATES)[number];

interface Actor<Context> {
  readonly value: JsonValue;
  readonly context: Context;
  readonly at: number;
}

const topLevel = (value: JsonValue): string =>
  typeof value === 'string' ? value : (Object.keys(value as object)[0] ?? '');

export function projectRun({ value, context, at }: Actor<RunContext>) {
  const row = {
    run: context.run,
    title: context.title,
    state: topLevel(value),
    total: context.total,
    createdAt: context.createdAt,
    updatedAt: at,
    endedAt: context.endedAt,
    detailsJson: JSON.stringify({
      counts: context.counts,
      reason: context.reason,
      specHash: context.specHash,
      ...(context.forkedFrom === undefined ? {} : { forkedFrom: context.forkedFrom }),
      ...(context.workflow === null ? {} : { phases: context.workflow.phases.map(phaseStatus) }),
    }),
  };
  return [{ table: 'runs' as const, row }];
}

/** While these last, whoever mends what was rejected is the one to look at; else the task's own agent is. */
const HAS_DOER: ReadonlySet<string> = new Set<TaskState>(['fixing', 'awaitingInput']);

/** What a task's row carries besides its columns. */
export interface TaskDetails {
  readonly dependsOn: readonly string[];
  /** Those of them that it goes on without. Not in rows of an earlier Troupe, nor is the next. */
  readonly without?: readonly string[];
  readonly skippedFor?: string | null;
  readonly gatekeeper: string;
  readonly cause: 'work' | 'infrastructure' | null;
  readonly question: TaskContext['question'];
  readonly artifact: string | null;
  readonly commit: string | null;
  readonly startedAt: number | null;
  readonly cancellation?: CancelReport;
  readonly regressionOf?: { readonly run: string; readonly task: string };
}

export function projectTask({ value, context, at }: Actor<TaskContext>) {
  const { spec, last } = context;
  const details: TaskDetails = {
    dependsOn: spec.dependsOn,
    without: context.without,
    skippedFor: context.skippedFor,
    gatekeeper: spec.gatekeeper,
    cause: context.cause,
    question: context.question,
    artifact: last?.evidence?.artifact ?? null,
    commit: last?.evidence?.commit ?? null,
    startedAt: last?.startedAt ?? null,
    ...(context.cancellation === undefined ? {} : { cancellation: context.cancellation }),
    ...(spec.regressionOf === undefined
      ? {}
      : { regressionOf: { run: spec.regressionOf.run, task: spec.regressionOf.task } }),
  };
  const row = {
    run: spec.run,
    task: spec.id,
    title: spec.title,
    state: topLevel(value) as TaskState,
    agent: HAS_DOER.has(topLevel(value)) ? doer(context) : context.agent,
    priority: spec.priority as Priority,
    unblocks: spec.dependants.length,
    position: spec.position,
    attempts: context.attempt,
    reason: wellFormed(context.reason),
    updatedAt: at,
    detailsJson: JSON.stringify(details),
  };
  const tasks = { table: 'tasks' as const, row };
  if (last === null) return [tasks];
  const attempts = {
    table: 'attempts' as const,
    row: {
      run: spec.run,
      task: spec.id,
      attempt: last.attempt,
      outcome: last.outcome,
      reason: wellFormed(last.reason),
      startedAt: last.startedAt,
      endedAt: last.endedAt,
      detailsJson: JSON.stringify({
        stage: last.stage,
        summary: last.summary,
        evidence: last.evidence,
        ...(last.by === undefined ? {} : { by: last.by }),
        ...(last.refused === undefined ? {} : { refused: last.refused }),
        ...(last.fixes === undefined ? {} : { fixes: last.fixes }),
        ...(context.fix === null ? {} : { fixing: fixingOf(context.fix) }),
      }),
    },
  };
  return [tasks, attempts];
}

/** The try to mend it that is under way. */
const fixingOf = ({ session, iteration, agent, startedAt }: CurrentFix) => ({
  ...{ session, iteration, agent, startedAt },
});

/** What agents and gatekeepers say may have been cut in the middle of a character. In JSON that stays; a column takes no halves. */
const wellFormed = (text: string | null): string | null => text?.toWellFormed() ?? null;
