import { assign, fromPromise, setup } from 'xstate';
import { breakerAddress } from '../protocol/address.ts';
import type { Inbound } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Meta, replyTo } from '../protocol/message.ts';
import {
  admit,
  emptyPool,
  finish,
  type JobPool,
  startNext,
  supersede,
  superseded,
  withdraw,
} from './job-pool.ts';
import { blame, interruptionsIn } from './policies/failure-class.ts';

export interface AgentInput {
  readonly name: string;
  /** Tasks worked on at once. */
  readonly concurrency: number;
}

export interface AgentContext {
  readonly name: string;
  readonly pool: JobPool;
  /** What its circuit breaker says. */
  readonly breaker: 'closed' | 'open' | 'halfOpen';
  readonly processed: number;
  readonly failed: number;
  readonly lastError: string | null;
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
export type AgentEvent = Inbound<'agent'> | EffectDone | EffectError;

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
      const pool = admit(before.pool, {
        task: event.task,
        attempt: event.attempt,
        priority: 0,
        replyTo: replyTo(meta) ?? null,
        input: work as unknown as JsonValue,
      });
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
              context: { agent: context.name },
            },
          },
        });
        // A full mailbox is a failure: whoever is asked more than it can do is better left alone for a while.
        enqueue({ type: 'send', params: record(context, 'failure') });
        return;
      }
      enqueue.assign({ pool });
    }),
    /** Starts what may be started: all free places, one probe while the breaker is half open, nothing while it is open. */
    startWork: durable.enqueueActions(({ context, enqueue }) => {
      if (context.breaker === 'open') return;
      const most =
        context.breaker === 'halfOpen'
          ? Math.max(0, 1 - context.pool.running.length)
          : Number.POSITIVE_INFINITY;
      const { pool, started } = startNext(context.pool, most);
      if (started.length === 0) return;
      enqueue.assign({ pool });
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
              context: { agent: context.name },
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
      enqueue({ type: 'send', params: record(context, 'success') });
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
            context: { ...event.error.context, agent: context.name },
          },
        },
      });
      // A task done badly is no reason to stop asking; an agent that cannot work is. Time that has run out, or a process
      // that has died, says nothing either way.
      if (event.error.code === 'timeout' || interruptionsIn(event.error) !== undefined) return;
      const outcome = blame(event.error) === 'infrastructure' ? 'failure' : 'success';
      // The breaker will say so at once; no second probe until then.
      if (outcome === 'failure' && context.breaker === 'halfOpen')
        enqueue.assign({ breaker: 'open' });
      enqueue({ type: 'send', params: record(context, outcome) });
    }),
    withdrawWork: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'agent.cancel') return;
      const { pool, job, wasRunning } = withdraw(
        context.pool,
        event.task,
        event.attempt,
        event.correlation,
      );
      if (job === undefined) return;
      enqueue.assign({ pool });
      if (wasRunning) enqueue.stopChild(job.id);
    }),
    configure: assign(({ context, event }) =>
      event.type === 'agent.configure'
        ? { pool: { ...context.pool, concurrency: event.concurrency } }
        : {},
    ),
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
    pool: emptyPool(input.concurrency),
    breaker: 'closed' as const,
    processed: 0,
    failed: 0,
    lastError: null,
    busyMs: 0,
    busySince: null,
  }),
  initial: 'idle',
  on: {
    'agent.work': { actions: ['takeWork', 'startWork', 'turnAway'] },
    'agent.cancel': { actions: ['withdrawWork', 'startWork'] },
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
