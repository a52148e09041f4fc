import {
  ConflictError,
  planSkip,
  type SkipPlan,
  type TaskState,
  ValidationError,
} from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import type { ProjectPlace } from '../project.ts';
import { taskOfRow } from '../run-view.ts';
import { readProject, requireRun, requireTask, type TaskName } from '../stored-runs.ts';
import { lookOf } from '../terminal/task-style.ts';

/** `resume [RUN] --skip-to TASK`: which task is meant, and what it means for the others. */

/**
 * @param named the run, if it is named apart from the task
 * @param name `TASK`, or `RUN/TASK`
 * @throws {NotFoundError} there is none; says what was probably meant
 * @throws {ValidationError} two runs are named, or several have such a task
 */
export async function skippedTo(
  place: ProjectPlace,
  named: string | undefined,
  name: string,
): Promise<TaskName> {
  return await readProject(place, async (store) => {
    if (named === undefined) return await requireTask(store, name);
    const { id: run } = await requireRun(store, named);
    if (!name.includes('/')) return await requireTask(store, `${run}/${name}`);
    const found = await requireTask(store, name);
    if (found.run === run) return found;
    throw new ValidationError(
      `Expected --skip-to to name a task of run ${run}, got one of run ${found.run}.`,
    );
  });
}

/**
 * What would be skipped; reads only.
 * @throws {ConflictError} the task has ended
 */
export async function plannedSkip(
  place: ProjectPlace,
  { run, task }: TaskName,
): Promise<SkipPlan<TaskState>> {
  const rows = await readProject(place, (store) => store.listTasks(run));
  const plan = planSkip(run, rows.map(taskOfRow), task);
  if (['done', 'cancelled', 'cancelling'].includes(plan.state)) {
    throw new ConflictError(`Task ${task} is ${plan.state}: it cannot be skipped to.`, {
      context: { state: plan.state },
    });
  }
  return plan;
}

/** Turns the refusal of an order into what can be done about it on the command line. */
export function inTermsOfTheCommand(error: unknown, command: string): unknown {
  const stranded = error instanceof ConflictError ? error.context?.['stranded'] : undefined;
  if (stranded === undefined || !(error instanceof ConflictError)) return error;
  const text = error.message.replace(/ To do it all the same, say so: strand\.$/, '');
  return new ConflictError(`${text}\n  To do it all the same: ${command} --strand`, {
    cause: error,
    context: error.context,
  });
}

/** @param mood `would`: nothing has happened yet */
export function skipLines(
  cli: CliContext,
  place: ProjectPlace,
  { run, task }: TaskName,
  { skips, strands }: SkipPlan<TaskState>,
  mood: 'would' | 'did',
): readonly string[] {
  const command = cli.commandFor(place);
  const lines =
    skips.length === 0
      ? [
          mood === 'would'
            ? `Task ${task} depends on nothing that is open: nothing would be skipped.`
            : `Task ${task} depends on nothing that is open: nothing was skipped.`,
        ]
      : [
          mood === 'would'
            ? `To go on with ${task}, these would be skipped, which means cancelled:`
            : `Skipped, so that ${task} goes on without:`,
          ...skips.map((skip) =>
            mood === 'would' ? `  ${skip.task} (${lookOf(skip.state).words})` : `  ${skip.task}`,
          ),
        ];
  if (strands.length === 0) return lines;
  return [
    ...lines,
    mood === 'would'
      ? 'These depend on what would be skipped and would be left blocked (refused without --strand):'
      : `These depend on what was skipped. Each is blocked until it is retried or cancelled: ${command} retry ${run}/TASK`,
    ...strands.map((one) => `  ${one.task} (without ${one.without.join(', ')})`),
  ];
}
