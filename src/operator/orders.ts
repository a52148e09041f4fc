import * as z from 'zod';
import {
  ConflictError,
  type Run,
  type RunState,
  type TaskState,
  type TaskStatus,
  type Troupe,
  ValidationError,
} from '../index.ts';
import { nearest } from './config-problems.ts';
import { notFound } from './not-found.ts';

/** A longer text belongs in a file that is named instead: it would be stored with every later turn. */
export const MAX_TEXT = 32_000;

const id = z.string().min(1).max(64);
const text = z.string().max(MAX_TEXT);
const task = { run: id, task: id };

/** What a person may order, from the command line or over the control socket. */
export const orderSchema = z.discriminatedUnion('order', [
  z.strictObject({ order: z.literal('answer'), ...task, text, question: text.optional() }),
  z.strictObject({ order: z.literal('approve'), ...task }),
  z.strictObject({
    order: z.literal('retry'),
    ...task,
    guidance: text.optional(),
    agent: id.optional(),
  }),
  z.strictObject({ order: z.literal('unblock'), ...task }),
  z.strictObject({ order: z.literal('unblockAll'), run: id, transient: z.boolean() }),
  z.strictObject({ order: z.literal('block'), ...task, reason: text.optional() }),
  z.strictObject({ order: z.literal('cancel'), ...task, reason: text }),
  z.strictObject({ order: z.literal('cancelRun'), run: id, reason: text }),
  z.strictObject({ order: z.literal('pause'), ...task }),
  z.strictObject({ order: z.literal('resume'), ...task }),
]);
export type Order = z.infer<typeof orderSchema>;
type TaskOrder = Exclude<Order, { order: 'unblockAll' | 'cancelRun' }>;

/** What came of it. */
export const orderResultSchema = z.strictObject({
  tasks: z.array(z.strictObject({ run: id, task: id, state: z.string() as z.ZodType<TaskState> })),
  run: z.strictObject({ id, state: z.string() as z.ZodType<RunState> }).optional(),
});
export type OrderResult = z.infer<typeof orderResultSchema>;

export interface OrderContext {
  readonly troupe: Troupe;
  /** The agents that exist, for `retry` with another one. */
  readonly agents: readonly string[];
  /** Who ordered it. Default `cli`. */
  readonly by?: string;
}

/** How long a cancelled run may take to put its work away before we say that it is still at it. */
const CANCEL_WITHIN_MS = 30_000;

/**
 * Carries out an order; when this resolves it is stored.
 * @throws {NotFoundError} no such run or task; says what was probably meant
 * @throws {ConflictError} the task's state does not allow it, also because somebody else was faster
 * @throws {ValidationError} an answer or an agent that cannot be
 */
export async function performOrder(order: Order, context: OrderContext): Promise<OrderResult> {
  const { troupe, by = 'cli' } = context;
  if (order.order === 'unblockAll') {
    const run = await requireRun(troupe, order.run);
    const ids = await run.unblockAll({ transientOnly: order.transient, by });
    return { tasks: (await run.tasks()).filter((entry) => ids.includes(entry.id)).map(resultOf) };
  }
  if (order.order === 'cancelRun') return await cancelRun(order, troupe, by);

  const run = await requireRun(troupe, order.run);
  const tasks = await run.tasks();
  const status = tasks.find((entry) => entry.id === order.task);
  if (status === undefined) {
    const ids = tasks.map((entry) => entry.id);
    throw notFound(`task ${order.task} in run ${order.run}`, order.task, ids, 'its tasks are');
  }
  refuseUnlessPossible(order, status);
  const state = await decide(order, status, context, by);
  return { tasks: [{ run: order.run, task: order.task, state }] };
}

function decide(
  order: TaskOrder,
  status: TaskStatus,
  { troupe, agents }: OrderContext,
  by: string,
): Promise<TaskState> {
  const handle = troupe.task(order.run, order.task);
  switch (order.order) {
    case 'answer':
      return handle.answer(...answerOf(order, status), by);
    case 'approve':
      return handle.decide('approve', { by });
    case 'retry': {
      const { guidance, agent } = order;
      if (agent !== undefined && !agents.includes(agent)) {
        throw notFound(`agent ${agent}`, agent, agents, 'the agents are');
      }
      if (status.state === 'retrying') {
        if (guidance === undefined && agent === undefined) return handle.unblock({ by });
        throw new ConflictError(
          `Task ${order.task} is retrying by itself soon: guidance and another agent can be given when it is blocked or escalated. Without them, "troupe retry ${order.task}" starts it at once.`,
        );
      }
      return handle.decide(agent === undefined ? 'retry' : 'reassign', {
        by,
        ...(guidance === undefined ? {} : { guidance }),
        ...(agent === undefined ? {} : { agent }),
      });
    }
    case 'unblock':
      return handle.unblock({ by });
    case 'block':
      return handle.decide('block', {
        by,
        ...(order.reason === undefined ? {} : { guidance: order.reason }),
      });
    case 'cancel':
      return handle.cancel(order.reason, by);
    case 'pause':
      return handle.pause(by);
    case 'resume':
      return handle.resume(by);
  }
}

interface Question {
  readonly id: string;
  readonly text: string;
  readonly choices?: readonly string[];
}

function answerOf(
  order: Extract<Order, { order: 'answer' }>,
  status: TaskStatus,
): [question: string, answer: string] {
  const question = status.question as unknown as Question | null;
  if (question === null) throw new ConflictError(`Task ${order.task} asks nothing just now.`);
  if (order.question !== undefined && order.question !== question.id) {
    throw new ConflictError(
      `Task ${order.task} does not ask the question ${order.question} now, but ${question.id}: ${question.text}`,
    );
  }
  const answer = order.text.trim();
  if (answer === '') {
    throw new ValidationError(`Expected an answer to "${question.text}", got an empty text.`);
  }
  const { choices } = question;
  if (choices === undefined || choices.length === 0 || choices.includes(answer)) {
    return [question.id, answer];
  }
  const near = nearest(answer, choices);
  throw new ValidationError(
    `Expected one of ${choices.join(', ')} as the answer to "${question.text}", got ${JSON.stringify(answer.slice(0, 80))}.${near === undefined ? '' : ` Did you mean ${near}?`}`,
  );
}

const UNDER_WAY: readonly TaskState[] = ['preparing', 'working', 'verifying'];

/** When an order makes sense, and the verb for saying that it does not. */
const POSSIBLE: Readonly<
  Record<TaskOrder['order'], { readonly states: readonly TaskState[]; readonly verb: string }>
> = {
  answer: { states: ['awaitingInput'], verb: 'answered' },
  approve: { states: ['awaitingApproval', 'escalated'], verb: 'approved' },
  retry: { states: ['blocked', 'escalated', 'awaitingApproval', 'retrying'], verb: 'retried' },
  unblock: { states: ['blocked', 'escalated', 'retrying'], verb: 'unblocked' },
  block: { states: ['escalated', 'awaitingApproval', 'blocked'], verb: 'blocked' },
  cancel: {
    states: [
      ...(['staged', 'waiting', 'ready', ...UNDER_WAY, 'retrying', 'awaitingInput'] as const),
      ...(['awaitingApproval', 'escalated', 'blocked', 'paused', 'cancelling'] as const),
    ],
    verb: 'cancelled',
  },
  pause: { states: ['staged', 'waiting', 'ready', 'retrying', ...UNDER_WAY], verb: 'paused' },
  resume: { states: ['paused', ...UNDER_WAY], verb: 'resumed' },
};

/** The machine would refuse it as well; here it can be said in the words of the command. */
function refuseUnlessPossible(order: TaskOrder, { id, state }: TaskStatus): void {
  const { states, verb } = POSSIBLE[order.order];
  if (states.includes(state)) return;
  const ended = state === 'done' || state === 'cancelled';
  const why = ended ? 'that is final' : `only a task that is ${listOf(states)} can be`;
  throw new ConflictError(`Task ${id} is ${state} and cannot be ${verb}: ${why}.`, {
    context: { task: id, state },
  });
}

function listOf(words: readonly string[]): string {
  return words.length < 2
    ? (words[0] ?? '')
    : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

async function requireRun(troupe: Troupe, run: string): Promise<Run> {
  const ids = (await troupe.runs()).map((entry) => entry.id);
  if (ids.includes(run)) return troupe.run(run);
  throw notFound(`run ${run}`, run, ids, 'the runs are');
}

async function cancelRun(
  order: Extract<Order, { order: 'cancelRun' }>,
  troupe: Troupe,
  by: string,
): Promise<OrderResult> {
  const run = await requireRun(troupe, order.run);
  const before = await run.status();
  if (before.state === 'done' || before.state === 'cancelled') {
    throw new ConflictError(`Run ${order.run} is ${before.state}: there is nothing to cancel.`);
  }
  const ended = untilRunEnds(troupe, order.run);
  try {
    await run.cancel(order.reason, by);
    await ended.promise;
  } finally {
    ended.dispose();
  }
  const { state } = await run.status();
  return { tasks: (await run.tasks()).map(resultOf), run: { id: order.run, state } };
}

function untilRunEnds(
  troupe: Troupe,
  run: string,
): { readonly promise: Promise<void>; readonly dispose: () => void } {
  let dispose = (): void => undefined;
  const promise = new Promise<void>((resolve) => {
    const off = troupe.on('turn', ({ address, status }) => {
      if (address === `run/${run}` && status === 'done') resolve();
    });
    const timer = setTimeout(resolve, CANCEL_WITHIN_MS);
    dispose = () => {
      off();
      clearTimeout(timer);
    };
  });
  return { promise, dispose };
}

const resultOf = ({ run, id, state }: TaskStatus): OrderResult['tasks'][number] => ({
  run,
  task: id,
  state,
});
