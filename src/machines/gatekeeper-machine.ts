import { assign, fromPromise, setup } from 'xstate';
import type { Inbound } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Meta, type Received, type RequestCancelled, replyTo } from '../protocol/message.ts';
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

export interface GatekeeperInput {
  readonly name: string;
  /** Submissions taken at once. A git gatekeeper stands them in line: main has one next commit. */
  readonly concurrency: number;
}

export interface GatekeeperContext {
  readonly name: string;
  readonly pool: JobPool;
  readonly verified: number;
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
export type GatekeeperEvent =
  | Inbound<'gatekeeper'>
  | Received<RequestCancelled>
  | EffectDone
  | EffectError;

const notProvided = async (): Promise<JsonValue> => {
  throw new Error('This effect is provided by src/actors.');
};

const durable = setup({
  types: {
    context: {} as GatekeeperContext,
    events: {} as GatekeeperEvent,
    input: {} as GatekeeperInput,
  },
  actors: {
    /** Verifies one submission, and merges it if it is accepted; its output is the verdict. */
    verify: fromPromise<JsonValue, JsonValue>(notProvided),
  },
  actions: durableActions,
});

const base = durable.extend({
  guards: {
    /** A program says it at each start; what it says again is no turn. */
    isNews: ({ context, event }) =>
      event.type === 'gatekeeper.configure' && event.concurrency !== context.pool.concurrency,
  },
  actions: {
    takeSubmission: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'gatekeeper.verify') return;
      const { type, meta, ...submission } = event;
      const before = supersede(context.pool, event.task);
      if (before.job !== undefined) {
        if (before.wasRunning) enqueue.stopChild(before.job.id);
        const to = before.job.replyTo ?? undefined;
        enqueue({ type: 'reply', params: { to, type, failure: superseded(event.task, {}) } });
      }
      const pool = admit(before.pool, {
        task: event.task,
        attempt: event.attempt,
        priority: 0,
        replyTo: replyTo(meta) ?? null,
        input: submission as unknown as JsonValue,
      });
      if (pool === undefined) {
        enqueue({
          type: 'reply',
          params: {
            to: replyTo(meta),
            type,
            failure: {
              code: 'unavailable',
              message: `The gatekeeper "${context.name}" has ${context.pool.limit} submissions waiting already.`,
              retryable: true,
            },
          },
        });
        if (before.job !== undefined) enqueue.assign({ pool: before.pool });
        return;
      }
      enqueue.assign({ pool });
    }),
    startVerifying: durable.enqueueActions(({ context, enqueue }) => {
      const { pool, started } = startNext(context.pool);
      if (started.length === 0) return;
      enqueue.assign({ pool });
      for (const job of started) {
        enqueue.spawnChild('verify', { id: job.id, input: job.input });
      }
    }),
    /** Fail closed: a gatekeeper that could not finish has accepted nothing. */
    answer: durable.enqueueActions(({ context, event, enqueue }) => {
      if (!('actorId' in event)) return;
      const { pool, job } = finish(context.pool, event.actorId);
      if (job === undefined) return;
      enqueue.assign({ pool, verified: context.verified + 1 });
      enqueue.stopChild(job.id);
      enqueue({
        type: 'reply',
        params:
          'error' in event
            ? {
                to: job.replyTo ?? undefined,
                type: 'gatekeeper.verify',
                failure: { ...event.error, code: 'internal' },
              }
            : { to: job.replyTo ?? undefined, type: 'gatekeeper.verify', reply: event.output },
      });
    }),
    /** Whoever asked for it calls it off, or nobody waits for its verdict any more. */
    withdrawSubmission: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'gatekeeper.cancel' && event.type !== 'request.cancelled') return;
      const { pool, job, wasRunning } = withdraw(context.pool, event);
      if (job === undefined) return;
      enqueue.assign({ pool });
      if (wasRunning) enqueue.stopChild(job.id);
    }),
    configure: assign(({ context, event }) =>
      event.type === 'gatekeeper.configure'
        ? { pool: { ...context.pool, concurrency: event.concurrency } }
        : {},
    ),
  },
});

/**
 * A gatekeeper: takes submissions, verifies so many at once, and answers each with a verdict.
 *
 *     idle ⇄ verifying          every event: take or finish, then start what there is room for
 */
export const gatekeeperMachine = base.createMachine({
  id: 'gatekeeper',
  context: ({ input }) => ({
    name: input.name,
    pool: emptyPool(input.concurrency),
    verified: 0,
  }),
  initial: 'idle',
  on: {
    'gatekeeper.verify': { actions: ['takeSubmission', 'startVerifying'] },
    'gatekeeper.cancel': { actions: ['withdrawSubmission', 'startVerifying'] },
    'request.cancelled': { actions: ['withdrawSubmission', 'startVerifying'] },
    'gatekeeper.configure': { guard: 'isNews', actions: ['configure', 'startVerifying'] },
    'xstate.done.actor.*': { actions: ['answer', 'startVerifying'] },
    'xstate.error.actor.*': { actions: ['answer', 'startVerifying'] },
  },
  states: {
    idle: {
      always: { guard: ({ context }) => context.pool.running.length > 0, target: 'verifying' },
    },
    verifying: {
      always: { guard: ({ context }) => context.pool.running.length === 0, target: 'idle' },
    },
  },
});
