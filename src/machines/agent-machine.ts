import { assign, fromPromise, setup } from 'xstate';
import { type Address, breakerAddress } from '../protocol/address.ts';
import type { Inbound } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Meta, type Received, type RequestCancelled, replyTo } from '../protocol/message.ts';
import {
  admitToFlow,
  configureFlow,
  type FlowSettings,
  type FlowState,
  newFlow,
  readFlow,
  startAllowed,
} from './flow-control.ts';
import {
  admit,
  emptyPool,
  finish,
  type Job,
  type JobPool,
  startNext,
  supersede,
  superseded,
  withdraw,
} from './job-pool.ts';
import { couldNotWork } from './policies/agent-chain.ts';
import { blame, interruptionsIn } from './policies/failure-class.ts';

export interface AgentInput {
  readonly name: string;
  /** Tasks worked on at once. */
  readonly concurrency: number;
  /** Tasks that may wait. Default 1 000. */
  readonly limit?: number;
  /** The agent that does the work when this one cannot be asked, or could not work. Default: none does. */
  readonly fallback?: string | null;
  /** What limits it by key and by time. */
  readonly flow?: FlowSettings | null;
}

export interface AgentContext {
  readonly name: string;
  readonly pool: JobPool;
  readonly flow: FlowState | null;
  /** What its circuit breaker says. */
  readonly breaker: 'closed' | 'open' | 'halfOpen';
  readonly processed: number;
  readonly failed: number;
  readonly lastError: string | null;
  readonly fallback?: string | null;
  /** While the breaker is half open: the job that tries whether it is over. */
  readonly probe?: string | null;
  /** How long it had something to do, before the time since `busySince`. Not there in states of older versions. */
  readonly busyMs?: number;
  readonly busySince?: number | null;
}

type EffectDone = {
  readonly type: `xstate.done.actor.${string}`;
  readonly actorId: string;
  readonly output: JsonValue;
  readonly meta: Meta;
};
type EffectError = {
  readonly type: `xstate.error.actor.${string}`;
  readonly actorId: string;
  readonly error: Failure;
  readonly meta: Meta;
};
/** Something that waited for a time may start. */
type FlowDue = { readonly type: 'agent.due'; readonly meta: Meta };
export type AgentEvent =
  | Inbound<'agent'>
  | Received<RequestCancelled>
  | EffectDone
  | EffectError
  | FlowDue;

const notProvided = async (): Promise<JsonValue> => {
  throw new Error('This effect is provided by src/actors.');
};

const durable = setup({
  types: {
    context: {} as AgentContext,
    events: {} as AgentEvent,
    input: {} as AgentInput,
  },
  actors: {
    /** Does one task with the agent's engine; its output answers `agent.work`. */
    engine: fromPromise<JsonValue, JsonValue>(notProvided),
  },
  actions: durableActions,
});

/** What its circuit breaker is told. */
const record = (context: AgentContext, outcome: 'success' | 'failure') => ({
  to: breakerAddress(`agent/${context.name}`),
  message: { type: 'breaker.record' as const, outcome },
});

/** Half open, only the probe says how it is now. */
const counts = ({ breaker, probe }: AgentContext, job: string): boolean =>
  breaker !== 'halfOpen' || job === probe;

/** In the failures that are no fault of the work: whom to ask instead. */
const itself = ({ name, fallback }: AgentContext) => ({
  agent: name,
  ...(typeof fallback === 'string' ? { fallback } : {}),
});

/** In the failures of work that it has not begun. */
const unreachable = (context: AgentContext, by: 'breaker' | 'mailbox') => ({
  ...itself(context),
  unreachable: by,
});

/** What may start now, and the timer that looks again. */
function startFlowing(context: AgentContext, { type, meta }: AgentEvent, most: number) {
  const { flow, pool } = context;
  const now = meta.at;
  if (flow === null) return { ...startNext(pool, most), flow, wakeInMs: undefined };
  const { wakeAt, ...next } = startAllowed(flow, pool, now, most);
  // A timer that is set for earlier is left alone: it looks again then.
  const isSet = type !== 'agent.due' && flow.wakeAt !== null && flow.wakeAt > now;
  const pending = isSet ? flow.wakeAt : null;
  const sets = wakeAt !== null && (pending === null || wakeAt < pending);
  const due = sets ? wakeAt : pending;
  return {
    ...next,
    flow: due === next.flow.wakeAt ? next.flow : { ...next.flow, wakeAt: due },
    wakeInMs: sets ? wakeAt - now : undefined,
  };
}

/** Refused, and not counted against the agent: it can work, it is not to. */
const refusedByRate = (context: AgentContext, until: number, { type, meta }: Inbound<'agent'>) => ({
  to: replyTo(meta),
  type,
  failure: {
    code: 'rate_limited' as const,
    message: `The agent "${context.name}" is asked too often: its rateLimit is used up for ${Math.max(0, until - meta.at)} ms.`,
    retryable: true,
    retryAfterMs: Math.max(0, until - meta.at),
    context: itself(context),
  },
});

/** The task whose place another one takes ends in the open. */
const cancelSuperseded = ({ name }: AgentContext, job: Job, by: string) => ({
  to: job.task as Address<'task'>,
  message: {
    type: 'task.cancel' as const,
    by: `agent/${name}`,
    reason: `Superseded by ${by}, which came later with the same key (debounce of agent "${name}").`,
  },
});

const base = durable.extend({
  actions: {
    takeWork: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'agent.work') return;
      const { type, meta, ...work } = event;
      const before = supersede(context.pool, event.task);
      if (before.job !== undefined) {
        if (before.wasRunning) enqueue.stopChild(before.job.id);
        const to = before.job.replyTo ?? undefined;
        enqueue({
          type: 'reply',
          params: { to, type, failure: superseded(event.task, { agent: context.name }) },
        });
      }
      const admission =
        context.flow === null
          ? undefined
          : admitToFlow(context.flow, before.pool, work as unknown as JsonValue, meta.at);
      if (admission !== undefined && 'refusedUntil' in admission) {
        enqueue({ type: 'reply', params: refusedByRate(context, admission.refusedUntil, event) });
        if (before.job !== undefined) enqueue.assign({ pool: before.pool });
        return;
      }
      for (const job of admission?.superseded ?? []) {
        enqueue({ type: 'send', params: cancelSuperseded(context, job, event.task) });
        const to = job.replyTo ?? undefined;
        enqueue({
          type: 'reply',
          params: { to, type, failure: superseded(job.task, { by: event.task }) },
        });
      }
      const waiting = before.pool.queue.filter((job) => !admission?.superseded.includes(job));
      const pool = admit(
        { ...before.pool, queue: waiting },
        {
          task: event.task,
          attempt: event.attempt,
          priority: 0,
          replyTo: replyTo(meta) ?? null,
          input: work as unknown as JsonValue,
          ...(admission?.notBefore === undefined ? {} : { notBefore: admission.notBefore }),
        },
      );
      if (pool === undefined) {
        enqueue({
          type: 'reply',
          params: {
            to: replyTo(meta),
            type,
            failure: {
              code: 'unavailable',
              message: `The agent "${context.name}" has ${context.pool.limit} tasks waiting already.`,
              retryable: true,
              context: unreachable(context, 'mailbox'),
            },
          },
        });
        if (before.job !== undefined) enqueue.assign({ pool: before.pool });
        // A full mailbox is a failure: whoever is asked more than it can do is better left alone for a while.
        enqueue({ type: 'send', params: record(context, 'failure') });
        return;
      }
      enqueue.assign({ pool, ...(admission === undefined ? {} : { flow: admission.flow }) });
    }),
    /** Starts what may be started: all free places, one probe while the breaker is half open, nothing while it is open. */
    startWork: durable.enqueueActions(({ context, event, enqueue }) => {
      if (context.breaker === 'open') return;
      const isTrying = context.breaker === 'halfOpen';
      // What ran before it opened goes on, and is no probe.
      if (isTrying && context.pool.running.some(({ id }) => id === context.probe)) return;
      const most = isTrying ? 1 : Number.POSITIVE_INFINITY;
      const { pool, started, flow, wakeInMs } = startFlowing(context, event, most);
      if (flow !== context.flow) enqueue.assign({ flow });
      if (wakeInMs !== undefined) {
        enqueue.raise({ type: 'agent.due' } as FlowDue, { id: 'flow', delay: wakeInMs });
      }
      if (started.length === 0) return;
      enqueue.assign({ pool, probe: isTrying ? (started[0]?.id ?? null) : null });
      for (const job of started) {
        enqueue.spawnChild('engine', { id: job.id, input: job.input });
      }
    }),
    /** While the breaker is open nobody waits in the queue: the tasks are told, and wait by their own backoff. */
    turnAway: durable.enqueueActions(({ context, enqueue }) => {
      if (context.breaker !== 'open') return;
      for (const job of context.pool.queue) {
        enqueue({
          type: 'reply',
          params: {
            to: job.replyTo ?? undefined,
            type: 'agent.work',
            failure: {
              code: 'unavailable',
              message: `The agent "${context.name}" is not asked at present: its circuit breaker is open${context.lastError === null ? '' : ` (${context.lastError})`}.`,
              retryable: true,
              context: unreachable(context, 'breaker'),
            },
          },
        });
      }
      if (context.pool.queue.length > 0) enqueue.assign({ pool: { ...context.pool, queue: [] } });
    }),
    answerDone: durable.enqueueActions(({ context, event, enqueue }) => {
      if (!('output' in event)) return;
      const { pool, job } = finish(context.pool, event.actorId);
      if (job === undefined) return;
      enqueue.assign({ pool, processed: context.processed + 1 });
      enqueue.stopChild(job.id);
      enqueue({
        type: 'reply',
        params: { to: job.replyTo ?? undefined, type: 'agent.work', reply: event.output },
      });
      if (counts(context, job.id)) enqueue({ type: 'send', params: record(context, 'success') });
    }),
    answerFailed: durable.enqueueActions(({ context, event, enqueue }) => {
      if (!('error' in event)) return;
      const { pool, job } = finish(context.pool, event.actorId);
      if (job === undefined) return;
      enqueue.assign({
        pool,
        processed: context.processed + 1,
        failed: context.failed + 1,
        lastError: event.error.message,
      });
      enqueue.stopChild(job.id);
      enqueue({
        type: 'reply',
        params: {
          to: job.replyTo ?? undefined,
          type: 'agent.work',
          failure: {
            ...event.error,
            context: {
              ...event.error.context,
              ...(couldNotWork(event.error) ? itself(context) : { agent: context.name }),
            },
          },
        },
      });
      // A task done badly is no reason to stop asking; an agent that cannot work is. Time that has run out, or a process
      // that has died, says nothing either way.
      if (event.error.code === 'timeout' || interruptionsIn(event.error) !== undefined) return;
      if (!counts(context, job.id)) return;
      const outcome = blame(event.error) === 'infrastructure' ? 'failure' : 'success';
      // The breaker will say so at once; no second probe until then.
      if (outcome === 'failure' && context.breaker === 'halfOpen')
        enqueue.assign({ breaker: 'open' });
      enqueue({ type: 'send', params: record(context, outcome) });
    }),
    /** Whoever asked for it calls it off, or nobody waits for it any more. */
    withdrawWork: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'agent.cancel' && event.type !== 'request.cancelled') return;
      const { pool, job, wasRunning } = withdraw(context.pool, event);
      if (job === undefined) return;
      enqueue.assign({ pool });
      if (wasRunning) enqueue.stopChild(job.id);
    }),
    configure: assign(({ context, event }) => {
      if (event.type !== 'agent.configure') return {};
      const { concurrency, limit = context.pool.limit, fallback } = event;
      return {
        pool: { ...context.pool, concurrency, limit },
        ...(fallback === undefined ? {} : { fallback }),
        flow: configureFlow(context.flow, readFlow(event.flow ?? null, context.name)),
      };
    }),
    heedBreaker: assign(({ event }) =>
      event.type === 'agent.breaker' ? { breaker: event.state } : {},
    ),
  },
});

/**
 * An agent: takes tasks, works on so many at once, and answers each.
 *
 *     idle ⇄ working          every event: take or finish, then start what there is room for
 *
 * Each task runs as an effect of its own (`engine`). The breaker is an actor of its own; this one only heeds it.
 */
export const agentMachine = base.createMachine({
  id: 'agent',
  context: ({ input }) => ({
    name: input.name,
    pool: emptyPool(input.concurrency, input.limit),
    flow: newFlow(input.flow ?? null),
    breaker: 'closed' as const,
    processed: 0,
    failed: 0,
    lastError: null,
    fallback: input.fallback ?? null,
    probe: null,
    busyMs: 0,
    busySince: null,
  }),
  initial: 'idle',
  on: {
    'agent.work': { actions: ['takeWork', 'startWork', 'turnAway'] },
    'agent.cancel': { actions: ['withdrawWork', 'startWork'] },
    'request.cancelled': { actions: ['withdrawWork', 'startWork'] },
    'agent.due': { actions: 'startWork' },
    'agent.configure': { actions: ['configure', 'startWork'] },
    'agent.breaker': { actions: ['heedBreaker', 'startWork', 'turnAway'] },
    'xstate.done.actor.*': { actions: ['answerDone', 'startWork'] },
    'xstate.error.actor.*': { actions: ['answerFailed', 'startWork', 'turnAway'] },
  },
  states: {
    idle: {
      always: {
        guard: ({ context }) => context.pool.running.length > 0,
        target: 'working',
        actions: assign({ busySince: ({ event }) => event.meta.at }),
      },
    },
    working: {
      always: {
        guard: ({ context }) => context.pool.running.length === 0,
        target: 'idle',
        actions: assign(({ context: { busyMs = 0, busySince = null }, event }) => ({
          busySince: null,
          busyMs: busyMs + (busySince === null ? 0 : Math.max(0, event.meta.at - busySince)),
        })),
      },
    },
  },
});
