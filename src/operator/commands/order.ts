import { NotFoundError, phaseOf, ValidationError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { deliver } from '../deliver.ts';
import { MAX_TEXT, type Order, type OrderResult, type TaskOrder } from '../orders.ts';
import { onlyRun, readProject, requireRun, requireTask } from '../stored-runs.ts';
import { lookOf } from '../terminal/task-style.ts';
import { safeJson } from '../terminal/text.ts';

/** An order about a task, as it is made once the task is found. */
type Unaddressed<O extends Order = TaskOrder> = O extends TaskOrder
  ? Omit<O, 'run' | 'task'>
  : never;

export interface OrderOptions {
  readonly json: boolean;
}

/** A command that decides about one task: `answer`, `approve`, `retry`, `unblock`, `block`, `cancel`, `pause-task`, … */
export async function orderTask(
  cli: CliContext,
  name: string,
  order: Unaddressed,
  options: OrderOptions,
): Promise<number> {
  checkTexts(order);
  const place = await cli.project();
  const found = await readProject(place, (store) => requireTask(store, name));
  return await give(cli, { ...order, ...found } as Order, options);
}

/** `cancel --run [RUN]`. */
export async function cancelRun(
  cli: CliContext,
  run: string | undefined,
  reason: string,
  options: OrderOptions,
): Promise<number> {
  const id = await chooseRun(cli, run);
  return await give(cli, { order: 'cancelRun', run: id, reason }, options);
}

/** `pause [RUN]`. */
export async function pauseRun(
  cli: CliContext,
  run: string | undefined,
  options: OrderOptions,
): Promise<number> {
  const id = await chooseRun(cli, run, 'pause-task');
  return await give(cli, { order: 'pauseRun', run: id }, options);
}

/** What `resume [RUN]` is when a troupe works on the run already. */
export async function resumeRun(
  cli: CliContext,
  run: string,
  options: OrderOptions,
): Promise<number> {
  return await give(cli, { order: 'resumeRun', run }, options);
}

/** `unblock --all [--transient]`. */
export async function unblockAll(
  cli: CliContext,
  run: string | undefined,
  { transient, ...options }: OrderOptions & { readonly transient: boolean },
): Promise<number> {
  const id = await chooseRun(cli, run);
  return await give(cli, { order: 'unblockAll', run: id, transient }, options);
}

/** `regress TASK --reason TEXT`. */
export async function regress(
  cli: CliContext,
  name: string,
  report: { readonly reason: string; readonly evidence?: string },
  options: OrderOptions,
): Promise<number> {
  const place = await cli.project();
  const { run, task } = await readProject(place, (store) => requireTask(store, name));
  return await give(cli, { order: 'regress', run, broken: task, ...report }, options);
}

/** `enqueue [N] [--run RUN]`. */
export async function enqueue(
  cli: CliContext,
  run: string | undefined,
  count: number,
  options: OrderOptions,
): Promise<number> {
  const id = await chooseRun(cli, run);
  return await give(cli, { order: 'enqueue', run: id, count }, options);
}

/**
 * @param taskCommand the command that does the same with a task: for those who name one
 * @returns the run that is meant
 */
export async function chooseRun(
  cli: CliContext,
  run: string | undefined,
  taskCommand?: string,
): Promise<string> {
  const place = await cli.project();
  return await readProject(place, async (store) => {
    if (run === undefined) return (await onlyRun(store)).id;
    try {
      return (await requireRun(store, run)).id;
    } catch (error) {
      if (!(error instanceof NotFoundError) || taskCommand === undefined) throw error;
      const isTask = await requireTask(store, run).then(
        () => true,
        () => false,
      );
      if (!isTask) throw error;
      throw new NotFoundError(
        `There is no run ${run}, but a task: ${cli.commandFor(place)} ${taskCommand} ${run}`,
        { cause: error },
      );
    }
  });
}

/** Checked here already, so that the message is about the command and not about a request on a socket. */
function checkTexts(order: Unaddressed): void {
  for (const [key, value] of Object.entries(order)) {
    if (typeof value !== 'string' || value.length <= MAX_TEXT) continue;
    throw new ValidationError(
      `Expected the ${key} to have at most ${MAX_TEXT} characters, got ${value.length}. Put longer things into a file of the project and name it.`,
    );
  }
}

async function give(cli: CliContext, order: Order, { json }: OrderOptions): Promise<number> {
  const { stdout } = cli;
  const place = await cli.project();
  const { result, active } = await deliver(cli, place, order);
  if (json) {
    stdout.raw(`${safeJson({ ...result, active })}\n`);
    return 0;
  }
  const resume = `${cli.commandFor(place)} resume`;
  for (const line of inWords(order, result, resume)) stdout.line(line);
  if (!active && mayGoOn(result)) {
    stdout.line(`Nothing runs now. It goes on with: ${resume}`);
  }
  return 0;
}

function inWords(order: Order, result: OrderResult, resume: string): string[] {
  if (order.order === 'unblockAll') {
    if (result.tasks.length === 0) {
      return [
        order.transient
          ? `No task of run ${order.run} was stopped by infrastructure.`
          : `No task of run ${order.run} is blocked or escalated.`,
      ];
    }
    return result.tasks.map(({ task, state }) => `Task ${task} is ${lookOf(state).words}.`);
  }
  if (order.order === 'regress' && result.regression !== undefined) {
    const { run, task, state, isNew } = result.regression;
    const which = `task ${run}/${task} is ${lookOf(state).words}`;
    return [
      isNew
        ? `To mend it, ${which}.`
        : `It was reported already, and nothing has changed: ${which}.`,
    ];
  }
  if (order.order === 'enqueue' && result.tasks.length === 0) {
    return [`No task of run ${order.run} is staged.`];
  }
  if (order.order === 'cancelRun') {
    const { state = 'cancelling' } = result.run ?? {};
    return [
      state === 'cancelling'
        ? `Run ${order.run} is being cancelled.`
        : `Run ${order.run} is ${state}.`,
    ];
  }
  if (order.order === 'pauseRun' || order.order === 'resumeRun') {
    const { state = 'running' } = result.run ?? {};
    if (state === 'running') return [`Run ${order.run} goes on.`];
    if (state !== 'paused') return [`Run ${order.run} is ${state}.`];
    const begun = result.tasks.filter((task) => BEGUN.has(phaseOf(task.state)));
    return [
      `Run ${order.run} is paused. Nothing new starts until: ${resume} ${order.run}`,
      ...(begun.length === 0
        ? []
        : [`Begun already, and going on to an end: ${begun.map(({ task }) => task).join(', ')}.`]),
    ];
  }
  return result.tasks.map(({ task, state }) => {
    const { words } = lookOf(state);
    return order.order === 'pause' && state !== 'paused'
      ? `Task ${task} is ${words}; it is paused when this attempt has ended.`
      : `Task ${task} is ${words}.`;
  });
}

const BEGUN: ReadonlySet<string> = new Set(['active', 'verifying']);

/** Whether something now waits for a troupe to run. */
const mayGoOn = ({ tasks, run }: OrderResult): boolean =>
  run?.state !== 'paused' &&
  tasks.some(({ state }) => !['cancelled', 'blocked', 'paused', 'done'].includes(state));
