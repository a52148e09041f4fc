import { fromPromise, setup } from 'xstate';
import { kindOf } from '../protocol/address.ts';
import type { Inbound } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Meta, replyTo } from '../protocol/message.ts';
import { admit, emptyPool, finish, type Job, type JobPool, startNext } from './job-pool.ts';

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
      if (event.type !== 'overseer.escalate' && event.type !== 'overseer.supervisorFailed') return;
      const { type, meta, ...escalation } = event;
      const pool = admit(context.pool, {
        task: 'task' in event ? event.task : event.supervisor,
        attempt: 'task' in event ? event.attempts : event.restarted,
        priority: 0,
        replyTo: replyTo(meta) ?? null,
        input: escalation as unknown as JsonValue,
      });
      // With no room for the policy a person decides: the case is in the task's own state, not here.
      if (pool === undefined) {
        enqueue({
          type: 'reply',
          params: { to: replyTo(meta), type, reply: { decision: 'none' } },
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
      const type = typeOf(job);
      enqueue({
        type: 'reply',
        params:
          event.error === undefined
            ? {
                to: job.replyTo ?? undefined,
                type,
                reply: event.output ?? { decision: 'none' },
              }
            : {
                to: job.replyTo ?? undefined,
                type,
                failure: event.error,
              },
      });
    }),
  },
});

/** Which request a job answers: that of a task, or that of a supervisor. */
const typeOf = ({ task }: Job): 'overseer.escalate' | 'overseer.supervisorFailed' =>
  kindOf(task) === 'supervisor' ? 'overseer.supervisorFailed' : 'overseer.escalate';

/**
 * Where escalations go: a policy may decide at once; otherwise the task, or the supervisor that has given up, waits for
 * a person, whose decision goes to it itself. The overseer keeps no list: their states are the list.
 */
export const overseerMachine = base.createMachine({
  id: 'overseer',
  context: ({ input }) => ({ name: input.name, pool: emptyPool(CONCURRENCY) }),
  initial: 'watching',
  on: {
    'overseer.escalate': { actions: ['takeCase', 'startDeciding'] },
    'overseer.supervisorFailed': { actions: ['takeCase', 'startDeciding'] },
    'xstate.done.actor.*': { actions: ['answer', 'startDeciding'] },
    'xstate.error.actor.*': { actions: ['answer', 'startDeciding'] },
  },
  states: { watching: {} },
});
