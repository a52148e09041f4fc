import { phaseOf, type TaskPhase } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { type RunView, type TaskView, taskOfRow } from '../run-view.ts';
import { listRuns, readProject, requireRun } from '../stored-runs.ts';
import { safeJson } from '../terminal/text.ts';
import { refuseEnded } from './run.ts';
import { plannedSkip, skipLines, skippedTo } from './skip.ts';

/** What would become of a task: it goes on at once, waits for something, or has ended. */
type Then = 'goesOn' | 'waits' | 'ended';

interface TaskPlan {
  readonly task: string;
  readonly state: string;
  readonly attempts: number;
  readonly then: Then;
  /** In words. */
  readonly what: string;
}

interface RunPlan {
  readonly run: string;
  readonly state: string;
  readonly tasks: readonly TaskPlan[];
}

const THEN: Readonly<Record<TaskPhase, Then>> = {
  waiting: 'waits',
  ready: 'goesOn',
  active: 'goesOn',
  verifying: 'goesOn',
  delayed: 'waits',
  person: 'waits',
  stuck: 'waits',
  cancelled: 'ended',
  done: 'ended',
};

/**
 * `troupe resume [RUN] --dry-run`: what `troupe resume` would go on with. Reads, and changes nothing; also while
 * another process works on the project.
 */
export async function plan(
  cli: CliContext,
  named: string | undefined,
  { json, skipTo }: { readonly json: boolean; readonly skipTo?: string | undefined },
): Promise<number> {
  const place = await cli.project();
  if (skipTo !== undefined) {
    const task = await skippedTo(place, named, skipTo);
    await refuseEnded(cli, place, task.run);
    const skip = await plannedSkip(place, task);
    if (json) cli.stdout.raw(`${safeJson({ dryRun: true, run: task.run, skip })}\n`);
    else {
      for (const line of skipLines(cli, place, task, skip, 'would')) cli.stdout.line(line);
      cli.stdout.line('Nothing was changed.');
    }
    return 0;
  }
  const plans = await readProject(place, async (store) => {
    const runs =
      named === undefined
        ? (await listRuns(store)).filter((run) => run.endedAt === null)
        : [await requireRun(store, named)];
    const made: RunPlan[] = [];
    for (const run of runs) {
      const tasks = (await store.listTasks(run.id)).map(taskOfRow);
      const open = new Set(
        tasks.filter(({ state }) => phaseOf(state) !== 'done').map(({ id }) => id),
      );
      made.push({
        run: run.id,
        state: run.state,
        tasks: tasks.map((task) => planOf(run, task, open)),
      });
    }
    return made;
  });
  if (json) {
    cli.stdout.raw(`${safeJson({ dryRun: true, runs: plans })}\n`);
    return 0;
  }
  if (plans.length === 0) cli.stdout.line('Every run has ended: there is nothing to go on with.');
  for (const one of plans) for (const line of describe(one)) cli.stdout.line(line);
  cli.stdout.line('Nothing was changed: this is what resume would do.');
  return 0;
}

/** @param open the tasks of the run that are not done */
function planOf(run: RunView, task: TaskView, open: ReadonlySet<string>): TaskPlan {
  const { id, state, attempts } = task;
  const phase = phaseOf(state);
  // A pause of the run ends with resume, unless it is one of several; either way nothing that runs is held.
  const then = run.endedAt === null ? THEN[phase] : 'ended';
  return { task: id, state, attempts, then, what: inWords(task, phase, open) };
}

function inWords(
  { state, attempts, reason, dependsOn }: TaskView,
  phase: TaskPhase,
  open: ReadonlySet<string>,
): string {
  if (state === 'staged') return 'it waits to be enabled';
  const missing = dependsOn.filter((id) => open.has(id));
  if (state === 'waiting' && missing.length > 0) return `it waits for ${missing.join(', ')}`;
  switch (phase) {
    case 'active':
      return `attempt ${attempts} goes on; what it had finished step by step is not done again`;
    case 'verifying':
      return `what attempt ${attempts} has handed in is verified`;
    case 'ready':
      return `attempt ${attempts + 1} begins when its agent has a place`;
    case 'delayed':
      return `it is tried again at its time${reason === null ? '' : ` (${reason})`}`;
    case 'done':
    case 'cancelled':
      return phase;
    default:
      return reason ?? 'it waits';
  }
}

function* describe({ run, state, tasks }: RunPlan): Iterable<string> {
  const ended = tasks.filter(({ then }) => then === 'ended').length;
  yield `Run ${run} (${state}): ${ended} of ${tasks.length} tasks have ended.`;
  for (const then of ['goesOn', 'waits'] as const) {
    const some = tasks.filter((task) => task.then === then);
    if (some.length === 0) continue;
    yield then === 'goesOn' ? '  goes on:' : '  waits:';
    for (const { task, state: now, what } of some) yield `    ${task}  ${now}  ${what}`;
  }
}
