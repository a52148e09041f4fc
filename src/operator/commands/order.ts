import { ValidationError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { deliver } from '../deliver.ts';
import { MAX_TEXT, type Order, type OrderResult } from '../orders.ts';
import { onlyRun, readProject, requireRun, requireTask } from '../stored-runs.ts';
import { lookOf } from '../terminal/task-style.ts';
import { safeJson } from '../terminal/text.ts';

type TaskOrder = Exclude<Order, { order: 'unblockAll' | 'cancelRun' }>;
/** An order about a task, as it is made once the task is found. */
type Unaddressed<O extends Order = TaskOrder> = O extends TaskOrder
  ? Omit<O, 'run' | 'task'>
  : never;

export interface OrderOptions {
  readonly json: boolean;
}

/** A command that decides about one task: `answer`, `approve`, `retry`, `unblock`, `block`, `cancel`, `pause`, `resume-task`. */
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

/** `unblock --all [--transient]`. */
export async function unblockAll(
  cli: CliContext,
  run: string | undefined,
  { transient, ...options }: OrderOptions & { readonly transient: boolean },
): Promise<number> {
  const id = await chooseRun(cli, run);
  return await give(cli, { order: 'unblockAll', run: id, transient }, options);
}

async function chooseRun(cli: CliContext, run: string | undefined): Promise<string> {
  const place = await cli.project();
  return await readProject(place, async (store) => {
    const chosen = run === undefined ? await onlyRun(store) : await requireRun(store, run);
    return chosen.id;
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
  for (const line of inWords(order, result)) stdout.line(line);
  if (!active && mayGoOn(result)) {
    stdout.line(`Nothing runs now. It goes on with: ${cli.commandFor(place)} resume`);
  }
  return 0;
}

function inWords(order: Order, result: OrderResult): string[] {
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
  if (order.order === 'cancelRun') {
    const { state = 'cancelling' } = result.run ?? {};
    return [
      state === 'cancelling'
        ? `Run ${order.run} is being cancelled.`
        : `Run ${order.run} is ${state}.`,
    ];
  }
  return result.tasks.map(({ task, state }) => {
    const { words } = lookOf(state);
    return order.order === 'pause' && state !== 'paused'
      ? `Task ${task} is ${words}; it is paused when this attempt has ended.`
      : `Task ${task} is ${words}.`;
  });
}

/** Whether something now waits for a troupe to run. */
const mayGoOn = ({ tasks }: OrderResult): boolean =>
  tasks.some(({ state }) => !['cancelled', 'blocked', 'paused', 'done'].includes(state));
