import { EXIT_CODES, type PhaseStatus, phaseOf, type RunState, type TaskPhase } from '../index.ts';
import type { RunView, TaskView } from './run-view.ts';
import { singleQuoted } from './single-quoted.ts';

/** What a run waits for, and what a person can do about it. */
interface Need {
  readonly task: string;
  readonly state: TaskView['state'];
  readonly reason: string | null;
  /** What may be typed, the most likely first. */
  readonly commands: readonly string[];
  /** Answers that the question allows. */
  readonly choices?: readonly string[];
}

/** How a run stands: what `run`, `resume` and `status` say, in words or as JSON. */
export interface RunReport {
  readonly run: string;
  readonly title: string;
  readonly state: RunState;
  readonly reason: string | null;
  readonly createdAt: number;
  readonly endedAt: number | null;
  readonly total: number;
  readonly counts: Readonly<Partial<Record<TaskPhase, number>>>;
  /** Of a workflow, in its order. */
  readonly phases?: readonly PhaseStatus[];
  readonly tasks: readonly TaskView[];
  /** Empty while something moves by itself. */
  readonly needs: readonly Need[];
  /** Of several tasks that were stopped by infrastructure; absent when there are fewer than two. */
  readonly transient?: {
    readonly count: number;
    /** The command that lets all of them go on, for when what failed is mended. */
    readonly command: string;
  };
  /** The command that ends the pause; null when the run is not paused. */
  readonly resume: string | null;
}

export interface CommandNames {
  /** How the command is called: `troupe`, with the file if one was named. */
  readonly command: string;
  /** Whether tasks must be named with their run, because there are several. */
  readonly qualified: boolean;
}

export function reportOf(run: RunView, tasks: readonly TaskView[], names: CommandNames): RunReport {
  const counts: Partial<Record<TaskPhase, number>> = {};
  for (const task of tasks) {
    const phase = phaseOf(task.state);
    counts[phase] = (counts[phase] ?? 0) + 1;
  }
  const transient = tasks.filter(
    (task) => RESTS.has(phaseOf(task.state)) && task.cause === 'infrastructure',
  ).length;
  const unblockAll = `${names.command} unblock --all --transient`;
  return {
    run: run.id,
    title: run.title,
    state: run.state,
    reason: run.reason,
    createdAt: run.createdAt,
    endedAt: run.endedAt,
    total: run.total,
    counts,
    ...(run.phases === undefined ? {} : { phases: run.phases }),
    tasks,
    needs: tasks.flatMap((task) => needOf(task, names) ?? []),
    ...(transient < 2
      ? {}
      : {
          transient: {
            count: transient,
            command: names.qualified ? `${unblockAll} --run ${run.id}` : unblockAll,
          },
        }),
    resume: run.state === 'paused' ? `${names.command} resume ${run.id}` : null,
  };
}

function needOf(task: TaskView, { command, qualified }: CommandNames): Need | undefined {
  const name = qualified ? `${task.run}/${task.id}` : task.id;
  const of = (...commands: string[]): Need => ({
    task: task.id,
    state: task.state,
    reason: task.reason,
    commands: commands.map((text) => `${command} ${text}`),
  });
  switch (task.state) {
    case 'blocked':
      return of(`show ${name}`, `retry ${name} --guidance "…"`, `cancel ${name}`);
    case 'escalated':
      return of(`show ${name}`, `retry ${name} --guidance "…"`, `block ${name}`, `cancel ${name}`);
    case 'awaitingApproval':
      return of(`show ${name}`, `approve ${name}`, `cancel ${name}`);
    case 'awaitingInput': {
      const choices = task.question?.choices ?? [];
      const need = of(`answer ${name} ${quoted(choices[0] ?? '…')}`);
      return choices.length === 0 ? need : { ...need, choices };
    }
    case 'paused':
      return of(`resume-task ${name}`);
    default:
      return undefined;
  }
}

/** A text in a command that is suggested: it is pasted into a shell, and nothing in it may be a command there. */
export const quoted = (text: string): string =>
  /["$`\\!]/.test(text) ? singleQuoted(text) : `"${text}"`;

/** The phases that a task leaves only when somebody says so. */
const RESTS: ReadonlySet<TaskPhase> = new Set(['person', 'stuck']);

/** Waits only for a person's word; nothing is wrong with it. */
const ASKS: ReadonlySet<TaskView['state']> = new Set(['awaitingApproval', 'awaitingInput']);

/**
 * The exit code for a run that has come to rest: 0 when every task is done; 31 when only answers and approvals are
 * missing; 30 when a task is blocked, escalated or paused; 22 when it, or a task of it, was cancelled.
 */
export function exitCodeOf({ state, tasks }: Pick<RunReport, 'state' | 'tasks'>): number {
  if (state === 'cancelled') return EXIT_CODES.conflict;
  if (state === 'done') {
    return tasks.every((task) => task.state === 'done') ? 0 : EXIT_CODES.conflict;
  }
  const waiting = tasks.filter((task) => RESTS.has(phaseOf(task.state)));
  return waiting.length > 0 && waiting.every((task) => ASKS.has(task.state))
    ? EXIT_CODES.approval_required
    : EXIT_CODES.policy;
}

/** Of several runs, the one that needs most attention decides. */
export function worstExitCode(codes: readonly number[]): number {
  const order = [0, EXIT_CODES.conflict, EXIT_CODES.approval_required, EXIT_CODES.policy];
  return codes.toSorted((a, b) => order.indexOf(b) - order.indexOf(a))[0] ?? 0;
}
