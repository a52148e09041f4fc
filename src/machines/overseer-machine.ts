import { fromPromise, setup } from 'xstate';
import type { Inbound } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Meta, replyTo } from '../protocol/message.ts';
import { admit, emptyPool, finish, type JobPool, startNext } from './job-pool.ts';

export interface OverseerInput {
  readonly name: string;
}

export interface OverseerContext {
  readonly name: string;
  readonly pool: JobPool;
}

type EffectEnd = {
  readonly type: `xstate.done.actor.${string}` | `xstate.error.actor.${string}`;
  readonly actorId: string;
  readonly output?: JsonValue;
  readonly error?: Failure;
  readonly meta: Meta;
};
export type OverseerEvent = Inbound<'overseer'> | EffectEnd;

const CONCURRENCY = 8;

const notProvided = async (): Promise<JsonValue> => {
  throw new Error('This effect is provided by src/actors.');
};

const durable = setup({
  types: {
    context: {} as OverseerContext,
    events: {} as OverseerEvent,
    input: {} as OverseerInput,
  },
  actors: {
    /** Asks the policy; its output answers `overseer.escalate`. */
    decide: fromPromise<JsonValue, JsonValue>(notProvided),
  },
  actions: durableActions,
});

const base = durable.extend({
  actions: {
    takeCase: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'overseer.escalate') return;
      const { type: _type, meta, ...escalation } = event;
      const pool = admit(context.pool, {
        task: event.task,
        attempt: event.attempts,
        priority: 0,
        replyTo: replyTo(meta) ?? null,
        input: escalation as unknown as JsonValue,
      });
      // With no room for the policy a person decides: the case is in the task's own state, not here.
      if (pool === undefined) {
        enqueue({
          type: 'reply',
          params: {
            to: replyTo(meta),
            type: 'overseer.escalate',
            reply: { decision: 'none' },
          },
        });
        return;
      }
      enqueue.assign({ pool });
    }),
    startDeciding: durable.enqueueActions(({ context, enqueue }) => {
      const { pool, started } = startNext(context.pool);
      if (started.length === 0) return;
      enqueue.assign({ pool });
      for (const job of started) {
        enqueue.spawnChild('decide', { id: job.id, input: job.input });
      }
    }),
    answer: durable.enqueueActions(({ context, event, enqueue }) => {
      if (!('actorId' in event)) return;
      const { pool, job } = finish(context.pool, event.actorId);
      if (job === undefined) return;
      enqueue.assign({ pool });
      enqueue.stopChild(job.id);
      enqueue({
        type: 'reply',
        params:
          event.error === undefined
            ? {
                to: job.replyTo ?? undefined,
                type: 'overseer.escalate',
                reply: event.output ?? { decision: 'none' },
              }
            : {
                to: job.replyTo ?? undefined,
                type: 'overseer.escalate',
                failure: event.error,
              },
      });
    }),
  },
});

/**
 * Where escalations go: a policy may decide at once; otherwise the task waits for a person, whose decision goes to
 * the task itself. The overseer keeps no list: the tasks' states are the list.
 */
export const overseerMachine = base.createMachine({
  id: 'overseer',
  context: ({ input }) => ({ name: input.name, pool: emptyPool(CONCURRENCY) }),
  initial: 'watching',
  on: {
    'overseer.escalate': { actions: ['takeCase', 'startDeciding'] },
    'xstate.done.actor.*': { actions: ['answer', 'startDeciding'] },
    'xstate.error.actor.*': { actions: ['answer', 'startDeciding'] },
  },
  states: { watching: {} },
});
