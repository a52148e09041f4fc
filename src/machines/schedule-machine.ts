import { assign, fromPromise, setup } from 'xstate';
import type { Address } from '../protocol/address.ts';
import type { Inbound } from '../protocol/catalogue.ts';
import { anyAddress, durableActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Message, type Meta, replyTo } from '../protocol/message.ts';
import type { Priority } from '../protocol/priority.ts';
import { commandsFor } from './commands-for.ts';
import { lastDues, nextDue, type Timing } from './policies/calendar.ts';
import { fillIn } from './policies/placeholders.ts';

/** What becomes of times at which nobody was there: the process was down, or busy. */
export type Missed = 'skip' | 'one' | 'all';
/** What becomes of a time at which the run before it has not ended. */
export type Overlap = 'skip' | 'queue' | 'allow';

export type ScheduleAction =
  | {
      readonly send: {
        readonly to: Address;
        readonly message: Message;
        readonly priority?: Priority;
      };
    }
  /** A `TemplateCall` without an id. */
  | { readonly start: { readonly template: string; readonly [key: string]: JsonValue } };

/** What a schedule is, checked and with every default filled in. */
export interface ScheduleDefinition {
  readonly timing: Timing;
  readonly action: ScheduleAction;
  readonly missed: Missed;
  /** With `all`: so many at most, the newest. */
  readonly missedAtMost: number;
  /** With `skip`: a time that is handled later than this is one that was missed. */
  readonly lateAfterMs: number;
  readonly overlap: Overlap;
  /** With `queue`: so many wait at most. */
  readonly queueAtMost: number;
}

export interface ScheduleInput {
  readonly id: string;
  readonly createdAt: number;
  /** Of the definition: the same one configured again changes nothing. */
  readonly hash: string;
  readonly definition: ScheduleDefinition;
}

export interface Firing {
  /** Its run's id; for messages, what tells it apart. Never the same twice for one schedule. */
  readonly key: string;
  readonly dueAt: number;
}

export interface ScheduleContext extends ScheduleInput {
  /** When it is due next; null: never, as it stands. */
  readonly nextAt: number | null;
  /** When it last looked at the clock. */
  readonly asOf: number;
  /** The last due time that is dealt with: no time up to this one is ever due again, also if the clock is set back. */
  readonly upTo: number;
  readonly triggers: number;
  /** How often it has fired, by the clock or by hand. */
  readonly fired: number;
  readonly lastFiring: (Firing & { readonly at: number }) | null;
  /** Runs that it has started and that have not ended. */
  readonly running: readonly Firing[];
  readonly queued: readonly Firing[];
  /** Due times that nothing came of, the last ones. */
  readonly skipped: {
    readonly from: number;
    readonly to: number;
    readonly reason: string;
  } | null;
  readonly failure: (Firing & { readonly at: number; readonly reason: string }) | null;
}

/** What `start` is given: once for each firing, and again with the same after a crash. */
export interface StartInput {
  readonly schedule: string;
  readonly run: string;
  readonly call: { readonly template: string; readonly [key: string]: JsonValue };
}
export type StartOutput = {
  /** It had been started before, and has ended since. */
  readonly ended: boolean;
};

type EffectEnd = {
  readonly type: `xstate.done.actor.${string}` | `xstate.error.actor.${string}`;
  readonly actorId: string;
  readonly output?: JsonValue;
  readonly error?: Failure;
  readonly meta: Meta;
};
type Due = { readonly type: 'xstate.after.due'; readonly meta: Meta };
export type ScheduleEvent = Inbound<'schedule'> | EffectEnd | Due;

export type ScheduleState = 'active' | 'paused' | 'ended' | 'deleted';

const notProvided = async (): Promise<JsonValue> => {
  throw new Error('This effect is provided by src/actors.');
};

const durable = setup({
  types: {
    context: {} as ScheduleContext,
    events: {} as ScheduleEvent,
    input: {} as ScheduleInput,
  },
  actors: {
    /** Starts the run of a firing. */
    start: fromPromise<JsonValue, StartInput>(notProvided),
  },
  actions: durableActions,
});

const command = commandsFor<ScheduleContext, ScheduleEvent>();
type Enqueue = Parameters<Parameters<typeof durable.enqueueActions>[0]>[0]['enqueue'];

const START = 'start:';

const base = durable.extend({
  actions: {
    /** The time has come: for one due time, or, after some rest, for several. */
    fireDue: durable.enqueueActions(({ context, event, enqueue }) => {
      const { at } = event.meta;
      const { nextAt, definition } = context;
      const { timing, missed, missedAtMost, lateAfterMs } = definition;
      // The clock was set back, or nothing is due: it is only set again.
      if (nextAt === null || nextAt > at) {
        enqueue.assign({ asOf: at });
        return;
      }
      const most = missed === 'all' ? missedAtMost : 1;
      const found = lastDues(timing, nextAt, at, most + 1);
      const newest = found.at(-1) ?? nextAt;
      const isLate = at - newest > lateAfterMs;
      const dues = missed === 'skip' && isLate ? [] : found.slice(-most);
      const passedOver = found.slice(0, found.length - dues.length).at(-1);
      const state = {
        ...context,
        asOf: at,
        upTo: newest,
        nextAt: nextDue(timing, Math.max(at, newest)),
        ...(passedOver === undefined
          ? {}
          : {
              skipped: {
                from: nextAt,
                to: passedOver,
                reason: `Nobody was there (missed: ${missed}).`,
              },
            }),
      };
      enqueue.assign(
        dues.reduce<ScheduleContext>(
          (now, dueAt) => fire(now, { key: keyOf(context.id, dueAt), dueAt }, at, enqueue),
          state,
        ),
      );
    }),
    fireByHand: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'schedule.trigger') return;
      const { at } = event.meta;
      const { action, overlap, queueAtMost } = context.definition;
      // A message waits for nobody.
      const busy = 'start' in action ? context.running[0] : undefined;
      const isFull = overlap === 'queue' && context.queued.length >= queueAtMost;
      if (busy !== undefined && (overlap === 'skip' || isFull)) {
        enqueue({
          type: 'reply',
          params: {
            to: replyTo(event.meta),
            type: event.type,
            failure: {
              code: 'conflict',
              message: isFull
                ? `${context.queued.length} wait already for "${busy.key}" to end (overlap: queue). Wait for it, or cancel it.`
                : `The run "${busy.key}" of schedule "${context.id}" has not ended. Wait for it, or cancel it.`,
              retryable: false,
              context: { run: busy.key },
            },
          },
        });
        return;
      }
      const triggers = context.triggers + 1;
      const key = `${keyOf(context.id, at)}-m${triggers}`;
      enqueue({
        type: 'reply',
        params: { to: replyTo(event.meta), type: event.type, reply: { key } },
      });
      enqueue.assign(fire({ ...context, asOf: at, triggers }, { key, dueAt: at }, at, enqueue));
    }),
    /** A run has ended, or could not be started: the next of the queue may begin. */
    takeEnd: durable.enqueueActions(({ context, event, enqueue }) => {
      const { at } = event.meta;
      let run: string;
      let failure = context.failure;
      if (event.type === 'schedule.runEnded') run = event.run;
      else if ('actorId' in event) run = event.actorId.slice(START.length);
      else return;
      // It has begun, whether its start has said so yet or not: begun again it would be the same run twice.
      enqueue.stopChild(START + run);
      if ('actorId' in event) {
        const { error } = event;
        const output = event.output as unknown as StartOutput | undefined;
        if (error === undefined && output?.ended !== true) return;
        const firing = context.running.find(({ key }) => key === run);
        if (error !== undefined && firing !== undefined) {
          failure = { ...firing, at, reason: error.message };
        }
      }
      const running = context.running.filter(({ key }) => key !== run);
      const [next, ...queued] = context.queued;
      const state = { ...context, running, failure };
      if (next === undefined || running.length > 0) {
        enqueue.assign({ running, failure });
        return;
      }
      enqueue.assign(begin({ ...state, queued }, next, at, enqueue));
    }),
    takeReopened: assign(({ context, event }) => {
      if (event.type !== 'schedule.runReopened') return {};
      const { run } = event;
      const { running, lastFiring } = context;
      if (running.some(({ key }) => key === run)) return {};
      const dueAt = lastFiring?.key === run ? lastFiring.dueAt : event.meta.at;
      return { running: [...running, { key: run, dueAt }] };
    }),
    /** Times that pass while it is paused or deleted are nobody's: it goes on with the next one. */
    lookAhead: assign(({ context, event }) => ({
      asOf: event.meta.at,
      nextAt: nextDue(context.definition.timing, Math.max(event.meta.at, context.upTo)),
    })),
    takeDefinition: assign(({ context, event }) => {
      if (event.type !== 'schedule.configure') return {};
      const { hash, definition } = event.definition as unknown as Pick<
        ScheduleInput,
        'hash' | 'definition'
      >;
      const { at } = event.meta;
      const { timing: before } = context.definition;
      const { timing: given } = definition;
      // An interval that stays the same keeps its beat.
      const keepsBeat =
        'everyMs' in given && 'everyMs' in before && given.everyMs === before.everyMs;
      const timing = keepsBeat ? before : given;
      return {
        hash,
        definition: { ...definition, timing },
        // Runs wait there, and nobody starts them any more.
        queued: 'start' in definition.action ? context.queued : [],
        asOf: at,
        nextAt: nextDue(timing, Math.max(at, context.upTo)),
      };
    }),
    forgetQueue: assign({ queued: [] }),
    answer: command(({ context, event, enqueue }, params: { readonly state: ScheduleState }) => {
      enqueue({
        type: 'reply',
        params: {
          to: replyTo(event.meta),
          type: event.type,
          reply: { state: params.state, nextAt: params.state === 'active' ? context.nextAt : null },
        },
      });
    }),
    refuse: command(({ context, event, enqueue }, params: { readonly state: ScheduleState }) => {
      enqueue({
        type: 'reply',
        params: {
          to: replyTo(event.meta),
          type: event.type,
          failure: {
            code: params.state === 'deleted' ? 'not_found' : 'conflict',
            message:
              params.state === 'deleted'
                ? `There is no schedule "${context.id}": it was deleted.`
                : `The schedule "${context.id}" is ${params.state}: "${event.type}" is not possible now.`,
            retryable: false,
            context: { state: params.state },
          },
        },
      });
    }),
  },
  guards: {
    isSame: ({ context, event }) =>
      event.type === 'schedule.configure' &&
      (event.definition as unknown as ScheduleInput).hash === context.hash,
    isOver: ({ context }) => context.nextAt === null,
  },
  delays: {
    due: ({ context }) => Math.max(0, (context.nextAt ?? context.asOf) - context.asOf),
  },
});

const told = (state: ScheduleState) => ({ type: 'answer', params: { state } }) as const;
const refused = (state: ScheduleState) =>
  ({ actions: { type: 'refuse', params: { state } } }) as const;

/** A definition that is the same changes nothing; another one counts from now on. */
const configurable = (state: 'active' | 'paused' | 'ended') => {
  const target = state === 'ended' ? 'active' : state;
  return [
    { guard: 'isSame', actions: told(state) },
    { target, reenter: true, actions: ['takeDefinition', told(target)] },
  ] as const;
};

/**
 * A schedule: sends a message or starts a run whenever it is due.
 *
 *     active ⇄ paused      active ─nothing is due any more→ ended
 *     any → deleted ─configured again→ active
 *
 * That a time has come and what it leads to are one turn: the message, or the run's number, is stored in the very commit
 * that says when it is due next. So each due time fires once, wherever the process dies. The run itself is started by
 * an effect under the id that comes of the schedule's and the due time: repeated, it finds the run there.
 */
export const scheduleMachine = base.createMachine({
  id: 'schedule',
  context: ({ input }) => ({
    ...input,
    nextAt: nextDue(input.definition.timing, input.createdAt),
    asOf: input.createdAt,
    upTo: input.createdAt,
    triggers: 0,
    fired: 0,
    lastFiring: null,
    running: [],
    queued: [],
    skipped: null,
    failure: null,
  }),
  initial: 'active',
  on: {
    'schedule.runEnded': { actions: 'takeEnd' },
    'schedule.runReopened': { actions: 'takeReopened' },
    'xstate.done.actor.*': { actions: 'takeEnd' },
    'xstate.error.actor.*': { actions: 'takeEnd' },
  },
  states: {
    active: {
      always: { guard: 'isOver', target: 'ended' },
      after: { due: { target: 'active', reenter: true, actions: 'fireDue' } },
      on: {
        'schedule.configure': configurable('active'),
        'schedule.trigger': { actions: 'fireByHand' },
        'schedule.pause': { target: 'paused', actions: ['forgetQueue', told('paused')] },
        'schedule.resume': refused('active'),
        'schedule.delete': { target: 'deleted', actions: told('deleted') },
      },
    },
    paused: {
      on: {
        'schedule.configure': configurable('paused'),
        'schedule.trigger': { actions: 'fireByHand' },
        'schedule.pause': refused('paused'),
        'schedule.resume': { target: 'active', actions: ['lookAhead', told('active')] },
        'schedule.delete': { target: 'deleted', actions: told('deleted') },
      },
    },
    ended: {
      on: {
        'schedule.configure': configurable('ended'),
        'schedule.trigger': { actions: 'fireByHand' },
        'schedule.pause': refused('ended'),
        'schedule.resume': refused('ended'),
        'schedule.delete': { target: 'deleted', actions: told('deleted') },
      },
    },
    /** Runs that it has started go on. Not `final`, so that a schedule of this id can be made again. */
    deleted: {
      entry: 'forgetQueue',
      on: {
        'schedule.configure': { target: 'active', actions: ['takeDefinition', told('active')] },
        'schedule.trigger': refused('deleted'),
        'schedule.pause': refused('deleted'),
        'schedule.resume': refused('deleted'),
        'schedule.delete': refused('deleted'),
      },
    },
  },
});

/** One firing: what it leads to, and the state after it. */
function fire(
  context: ScheduleContext,
  firing: Firing,
  at: number,
  enqueue: Enqueue,
): ScheduleContext {
  const { id, definition, running, queued } = context;
  const { action, overlap, queueAtMost } = definition;
  const { dueAt } = firing;
  if ('send' in action) {
    const { to, message, priority } = action.send;
    enqueue({
      type: 'send',
      params: {
        to: anyAddress(to),
        message: fillIn(message as unknown as JsonValue, valuesOf(id, firing)) as never,
        ...(priority === undefined ? {} : { priority }),
      },
    });
    return { ...context, fired: context.fired + 1, lastFiring: { ...firing, at } };
  }
  if (running.length === 0 || overlap === 'allow') return begin(context, firing, at, enqueue);
  if (overlap === 'queue' && queued.length < queueAtMost) {
    return { ...context, queued: [...queued, firing] };
  }
  const what = running.map((one) => one.key).join(', ');
  const reason =
    overlap === 'queue'
      ? `${queued.length} wait already for ${what} to end (overlap: queue).`
      : `${what} had not ended (overlap: skip).`;
  return { ...context, skipped: { from: dueAt, to: dueAt, reason } };
}

/** Starts the run of a firing. */
function begin(
  context: ScheduleContext,
  firing: Firing,
  at: number,
  enqueue: Enqueue,
): ScheduleContext {
  const { id, definition, running } = context;
  if (!('start' in definition.action)) return context;
  const input: StartInput = {
    schedule: id,
    run: firing.key,
    call: fillIn(definition.action.start, valuesOf(id, firing)) as StartInput['call'],
  };
  enqueue.spawnChild('start', { id: START + firing.key, input });
  return {
    ...context,
    running: [...running, firing],
    fired: context.fired + 1,
    lastFiring: { ...firing, at },
  };
}

/** What may stand in braces in a message and in parameters. */
const valuesOf = (schedule: string, { dueAt, key }: Firing): Readonly<Record<string, string>> => ({
  schedule,
  dueAt: new Date(dueAt).toISOString(),
  firing: key,
});

/** The names that `{{…}}` may have. */
export const FIRING_VALUES = ['schedule', 'dueAt', 'firing'] as const;

/** `nightly-20260329T010000Z`. The same for the same due time; may be the id of a run. */
function keyOf(schedule: string, dueAt: number): string {
  const stamp = new Date(dueAt).toISOString().replace(/[-:]/g, '').replace('.000', '');
  return `${schedule}-${stamp}`;
}
