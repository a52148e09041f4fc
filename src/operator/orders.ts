import * as z from 'zod';
import {
  type BreakerStatus,
  ConflictError,
  type CutInfo,
  type JsonValue,
  type Reencrypted,
  type ReportedRegression,
  type Run,
  type RunState,
  type SkipPlan,
  type TaskMove,
  type TaskState,
  type TaskStatus,
  type Troupe,
  ValidationError,
} from '../index.ts';
import { nearest } from './config-problems.ts';
import { notFound } from './not-found.ts';
import { isTravelOrder, performTravel, travelOrders } from './travel-orders.ts';

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
  z.strictObject({ order: z.literal('enqueue'), run: id, count: z.int().min(1).max(1_000_000) }),
  z.strictObject({ order: z.literal('block'), ...task, reason: text.optional() }),
  z.strictObject({ order: z.literal('cancel'), ...task, reason: text }),
  z.strictObject({ order: z.literal('cancelRun'), run: id, reason: text }),
  z.strictObject({ order: z.literal('pauseRun'), run: id }),
  z.strictObject({ order: z.literal('resumeRun'), run: id }),
  /** Goes on with a task without those it depends on. */
  z.strictObject({ order: z.literal('skipTo'), run: id, to: id, strand: z.boolean() }),
  ...travelOrders,
  /** A task that was done is broken again. */
  z.strictObject({
    order: z.literal('regress'),
    run: id,
    broken: id,
    reason: text,
    evidence: text.optional(),
  }),
  z.strictObject({ order: z.literal('prune') }),
  z.strictObject({ order: z.literal('resetBreaker'), key: z.string().min(1).max(240) }),
  z.strictObject({
    order: z.literal('schedule'),
    act: z.enum(['pause', 'resume', 'trigger']),
    schedule: id,
  }),
  z.strictObject({
    order: z.literal('signal'),
    ...task,
    name: z.string().max(100),
    value: text.optional(),
  }),
  z.strictObject({ order: z.literal('reencrypt') }),
  z.strictObject({ order: z.literal('pause'), ...task }),
  z.strictObject({ order: z.literal('resume'), ...task }),
]);
export type Order = z.infer<typeof orderSchema>;
/** About one task; the others are about a run. */
export type TaskOrder = Extract<Order, { readonly task: string }>;

/**
 * Looks whether an order may be given, so that what is too long or too much is said in words of the command and not of a
 * request on a socket, and is the same whether a troupe runs or not.
 * @throws {ValidationError}
 */
export function checkOrder(order: Order): void {
  const issue = orderSchema.safeParse(order).error?.issues[0];
  if (issue === undefined) return;
  const key = String(issue.path[0] ?? 'order');
  const value = (order as Readonly<Record<string, unknown>>)[key];
  if (issue.code === 'too_big') {
    const { maximum } = issue;
    throw new ValidationError(
      typeof value === 'string'
        ? `Expected the ${key} to have at most ${maximum} characters, got ${value.length}.`
        : `Expected the ${key} to be at most ${maximum}, got ${String(value)}.`,
    );
  }
  if (value === '')
    throw new ValidationError(`Expected the ${key} to be a text, got an empty one.`);
  throw new ValidationError(`Expected the ${key} to be something else: ${issue.message}.`);
}

/** What came of it. */
export const orderResultSchema = z.strictObject({
  tasks: z.array(z.strictObject({ run: id, task: id, state: z.string() as z.ZodType<TaskState> })),
  run: z.strictObject({ id, state: z.string() as z.ZodType<RunState> }).optional(),
  /** The key of the firing, if it was triggered. */
  schedule: z.strictObject({ state: z.string(), key: z.string().optional() }).optional(),
  pruned: z.strictObject({ removed: z.record(id, z.int()), bytes: z.int() }).optional(),
  /** The breaker that was reset. */
  breaker: z.custom<BreakerStatus>().optional(),
  reencrypted: z.strictObject({ texts: z.int(), rewritten: z.int() }).optional(),
  /** Of a rollback or a fork: what has become of each task. */
  moves: z.array(z.custom<TaskMove>()).optional(),
  /** Of `skipTo`: what was left out. */
  skip: z.custom<SkipPlan<TaskState>>().optional(),
  /** The task that mends what is broken again. */
  regression: z.custom<ReportedRegression>().optional(),
  /** The cut that was taken. */
  cut: z.custom<CutInfo>().optional(),
});
export type OrderResult = z.infer<typeof orderResultSchema>;

/** Told how an order that takes long goes on. */
export interface OrderHooks {
  readonly onReencrypted?: (done: Reencrypted) => void;
}

export interface OrderContext {
  readonly troupe: Troupe;
  /** The agents that exist, for `retry` with another one. */
  readonly agents: readonly string[];
  /** Who ordered it. Default `cli`. */
  readonly by?: string;
  readonly hooks?: OrderHooks;
}

/** How long a run may take to do as it was told (a cancelled one puts its work away) before we say how it stands. */
const OBEY_WITHIN_MS = 30_000;

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
  if (order.order === 'enqueue') {
    const run = await requireRun(troupe, order.run);
    const ids = new Set(await run.enqueue(order.count));
    return { tasks: (await run.tasks()).filter((entry) => ids.has(entry.id)).map(resultOf) };
  }
  if (order.order === 'regress') {
    const { broken, reason, evidence } = order;
    const run = await requireRun(troupe, order.run);
    const regression = await run.reportRegression(broken, {
      reason,
      ...(evidence === undefined ? {} : { evidence }),
    });
    const { run: id, task: made, state } = regression;
    return { tasks: [{ run: id, task: made, state }], regression };
  }
  if (order.order === 'prune') return { tasks: [], pruned: await troupe.prune() };
  if (order.order === 'resetBreaker') {
    return { tasks: [], breaker: await resetBreaker(order.key, troupe, by) };
  }
  if (order.order === 'schedule') {
    const schedule = troupe.schedules.get(order.schedule);
    const key = order.act === 'trigger' ? await schedule.trigger(by) : undefined;
    if (order.act === 'pause') await schedule.pause(by);
    if (order.act === 'resume') await schedule.resume(by);
    const { state } = await schedule.status();
    return { tasks: [], schedule: { state, ...(key === undefined ? {} : { key }) } };
  }
  if (order.order === 'reencrypt') {
    const onProgress = context.hooks?.onReencrypted;
    const reencrypted = await troupe.reencrypt(onProgress === undefined ? {} : { onProgress });
    return { tasks: [], reencrypted };
  }
  if (order.order === 'cancelRun') return await cancelRun(order, troupe, by);
  if (order.order === 'pauseRun') return await pauseRun(order.run, troupe, by);
  if (isTravelOrder(order)) {
    return await performTravel(order, troupe, await requireRun(troupe, order.run));
  }
  if (order.order === 'resumeRun') return await resumeRun(order.run, troupe, by);
  if (order.order === 'skipTo') {
    const run = await requireRun(troupe, order.run);
    const skip = await run.skipTo(order.to, { by, strand: order.strand });
    const { state } = await run.status();
    return { tasks: (await run.tasks()).map(resultOf), run: { id: run.id, state }, skip };
  }

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

async function resetBreaker(key: string, troupe: Troupe, by: string): Promise<BreakerStatus> {
  const keys = (await troupe.breakers()).map((breaker) => breaker.key);
  if (!keys.includes(key)) {
    throw notFound(`circuit breaker ${key}`, key, keys, 'the circuit breakers are');
  }
  return await troupe.breaker(key).reset(by);
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
    case 'signal':
      return signal(order, status, troupe);
  }
}

/** It changes nothing of the task by itself. */
async function signal(
  { run, task: id, name, value }: Extract<Order, { order: 'signal' }>,
  { state }: TaskStatus,
  troupe: Troupe,
): Promise<TaskState> {
  await troupe.signal(`task/${run}/${id}`, name, value === undefined ? null : jsonOrText(value));
  return state;
}

/** What is no JSON is the text itself. */
function jsonOrText(value: string): JsonValue {
  try {
    return JSON.parse(value) as JsonValue;
  } catch {
    return value;
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
  if (choices === undefined || choices.length === 0) return [question.id, answer];
  // As it was offered: the task takes nothing else.
  const choice =
    choices.find((one) => one === answer) ?? choices.find((one) => one.trim() === answer);
  if (choice !== undefined) return [question.id, choice];
  const near = nearest(answer, choices);
  throw new ValidationError(
    `Expected one of ${choices.join(', ')} as the answer to "${question.text}", got ${JSON.stringify(answer.slice(0, 80))}.${near === undefined ? '' : ` Did you mean ${near}?`}`,
  );
}

const UNDER_WAY: readonly TaskState[] = ['preparing', 'working', 'verifying', 'fixing'];

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
  signal: {
    states: [
      ...(['staged', 'waiting', 'ready', ...UNDER_WAY, 'retrying', 'awaitingInput'] as const),
      ...(['awaitingApproval', 'escalated', 'blocked', 'paused'] as const),
    ],
    verb: 'told anything',
  },
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
  return await obey(troupe, run, 'ended', () => run.cancel(order.reason, by));
}

async function pauseRun(id: string, troupe: Troupe, by: string): Promise<OrderResult> {
  const run = await requireRun(troupe, id);
  const { state } = await run.status();
  if (state !== 'running' && state !== 'blocked') {
    throw new ConflictError(`Run ${id} is ${state}: there is nothing to pause.`);
  }
  return await obey(troupe, run, 'paused', () => run.pause(by));
}

async function resumeRun(id: string, troupe: Troupe, by: string): Promise<OrderResult> {
  const run = await requireRun(troupe, id);
  const { state } = await run.status();
  if (state !== 'paused') {
    throw new ConflictError(`Run ${id} is ${state}, not paused: there is nothing to resume.`);
  }
  return await obey(troupe, run, 'not paused', () => run.resume(by));
}

/** An order to a run has no answer: waits for the turn in which the run has become what it is to be. */
async function obey(
  troupe: Troupe,
  run: Run,
  until: 'paused' | 'not paused' | 'ended',
  order: () => Promise<void>,
): Promise<OrderResult> {
  const { promise: obeyed, resolve } = Promise.withResolvers<void>();
  const watching = troupe.turns$.subscribe({
    next: ({ address, status, state }) => {
      if (address !== `run/${run.id}`) return;
      const isSo = until !== 'ended' && (state === 'paused') === (until === 'paused');
      // One that ends meanwhile will not change any more.
      if (status === 'done' || isSo) resolve();
    },
    // Stopped before its turn came: the order is stored, and counts for the next runtime.
    complete: resolve,
  });
  const timer = setTimeout(resolve, OBEY_WITHIN_MS);
  try {
    await order();
    await obeyed;
  } finally {
    watching.unsubscribe();
    clearTimeout(timer);
  }
  const { state } = await run.status();
  return { tasks: (await run.tasks()).map(resultOf), run: { id: run.id, state } };
}

const resultOf = ({ run, id, state }: TaskStatus): OrderResult['tasks'][number] => ({
  run,
  task: id,
  state,
});
