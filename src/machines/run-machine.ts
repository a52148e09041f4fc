import { assign, fromPromise, setup } from 'xstate';
import { type Address, taskAddress } from '../protocol/address.ts';
import type { Answer, Inbound, TaskPhase } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Meta } from '../protocol/message.ts';
import { commandsFor } from './commands-for.ts';
import {
  heldRanges,
  heldReady,
  opened,
  overdue,
  passing,
  phasesInWords,
  startClocks,
  stopClocks,
  taskChanged,
  useUp,
  type WorkflowRecord,
} from './policies/phases.ts';

export interface RunInput {
  readonly run: string;
  readonly title: string;
  readonly createdAt: number;
  /** Hash of what the run was started with: starting it again with the same is harmless, with other tasks an error. */
  readonly specHash: string;
  /** How many tasks begin in each phase. */
  readonly counts: Readonly<Partial<Record<TaskPhase, number>>>;
  /** Agent → tasks it may have at once. */
  readonly slots: Readonly<Record<string, number>>;
  /** Tasks in flight at once, over all agents. */
  readonly concurrency: number;
  /** The run and the cut it began as a copy of. */
  readonly forkedFrom?: { readonly run: string; readonly cut: string };
  /** Its phases; null for a run that is only a set of tasks. */
  readonly workflow: WorkflowRecord | null;
  /** The schedule that is told when it ends. */
  readonly startedBy?: Address<'schedule'>;
}

export interface RunContext extends RunInput {
  readonly counts: Readonly<Record<TaskPhase, number>>;
  readonly total: number;
  /** Ends of tasks that dependants have been told and not yet heard: until then more may become ready. */
  readonly unheard: number;
  /** Tasks in flight, at most `concurrency`; more when one goes on after somebody's answer. */
  readonly claimed: Readonly<Record<string, PlaceTaken>>;
  /** Claims made so far. */
  readonly claims: number;
  /**
   * The claim under way. One that was interrupted (by a pause, by the store) is made again just as it was: in the
   * store it may have been made already, and only the same claim finds what it has claimed.
   */
  readonly asking: ClaimInput | null;
  /** Something changed while a claim was under way. */
  readonly again: boolean;
  readonly endedAt: number | null;
  readonly reason: string | null;
  /** Where cancelling has got to, in the order of the tasks. */
  readonly cancelledUpTo: number;
}

/** The place of a task in flight. */
export interface PlaceTaken {
  /** Whose place it holds; null while it is verified. */
  readonly agent: string | null;
  /** The claim that gave it the place; null: it has it without one, or from a Troupe that did not number them. */
  readonly claim: number | null;
}

/** What `claim` is given, and what it returns. */
export interface ClaimInput {
  readonly run: string;
  /** Its number in the run. */
  readonly claim: number;
  readonly slots: Readonly<Record<string, number>>;
  readonly total: number;
  /** Positions of tasks that are not to be claimed: first, and the one after the last. */
  readonly except?: readonly (readonly [number, number])[];
}
export type ClaimOutput = readonly { readonly task: string; readonly agent: string }[];

/** What `listOpen` is given, and what it returns. */
export interface ListInput {
  readonly run: string;
  readonly afterPosition: number;
  /** Only those before this position. */
  readonly beforePosition?: number;
}
export type ListOutput = {
  readonly tasks: readonly string[];
  /** The position of the last one; null when there are no more. */
  readonly upTo: number | null;
};

type EffectDone = {
  readonly type: `xstate.done.actor.${string}`;
  readonly actorId?: string;
  readonly output: JsonValue;
  readonly meta: Meta;
};
type EffectError = {
  readonly type: `xstate.error.actor.${string}`;
  readonly actorId?: string;
  readonly error: Failure;
  readonly meta: Meta;
};
/** What it tells itself: a time budget is used up; its tasks are to be called off (once more). */
type OwnEvent = {
  readonly type: 'run.timeUp' | 'run.callOff';
  /** Null: that of the whole workflow. */
  readonly phase: string | null;
  readonly meta: Meta;
};
export type RunEvent = Inbound<'run'> | Answer<'task.claim'> | EffectDone | EffectError | OwnEvent;

const NO_COUNTS: Record<TaskPhase, number> = {
  waiting: 0,
  ready: 0,
  active: 0,
  verifying: 0,
  delayed: 0,
  person: 0,
  stuck: 0,
  done: 0,
  cancelled: 0,
};

const CLAIM_WITHIN_MS = 3_600_000;
/** A store that cannot be read is asked again after so long. */
const STORE_RETRY_MS = 1_000;

const notProvided = async (): Promise<JsonValue> => {
  throw new Error('This effect is provided by src/actors.');
};

/** The timer of a budget, by phase; null: of the workflow. */
const budgetTimer = (phase: string | null): string =>
  phase === null ? 'budget' : `budget:${phase}`;
/** The effect that lists whom to call off. */
const CALL_OFF = 'callOff:';
const callOffId = (phase: string | null): string => CALL_OFF + (phase ?? '');
const phaseOfCallOff = (id: string): string | null => id.slice(CALL_OFF.length) || null;

const durable = setup({
  types: {
    context: {} as RunContext,
    events: {} as RunEvent,
    input: {} as RunInput,
  },
  actors: {
    /** Claims ready tasks in the store: priority, then how many they unblock, then age. */
    claim: fromPromise<JsonValue, ClaimInput>(notProvided),
    /** Lists tasks that have not ended, some at a time. */
    listOpen: fromPromise<JsonValue, ListInput>(notProvided),
  },
  actions: durableActions,
});

const command = commandsFor<RunContext, RunEvent>();

/** Changes what is kept of the phases, and sets and cancels the timers of their budgets to match. */
const keepTime = (
  change: (workflow: WorkflowRecord, context: RunContext, event: RunEvent) => WorkflowRecord,
) =>
  durable.enqueueActions(({ context, event, enqueue }) => {
    const { workflow: before } = context;
    if (before === null) return;
    const workflow = change(before, context, event);
    if (workflow === before) return;
    const was = passing(before);
    const is = passing(workflow);
    for (const phase of was.keys()) if (!is.has(phase)) enqueue.cancel(budgetTimer(phase));
    for (const [phase, { leftMs }] of is) {
      if (was.has(phase)) continue;
      enqueue.raise({ type: 'run.timeUp', phase } as RunEvent, {
        id: budgetTimer(phase),
        delay: leftMs,
      });
    }
    enqueue.assign({ workflow });
  });

const base = durable.extend({
  actions: {
    count: assign(({ context, event }) => {
      if (event.type !== 'run.taskChanged') return {};
      const { from, to, agent } = event;
      const unheard = context.unheard + event.telling - event.heard;
      // An agent that none of the tasks had at first: one place, until a run knows better.
      const slots =
        agent === undefined || Object.hasOwn(context.slots, agent)
          ? context.slots
          : { ...context.slots, [agent]: 1 };
      if (from === to) return { unheard, slots };
      const counts = {
        ...context.counts,
        [from]: context.counts[from] - 1,
        [to]: context.counts[to] + 1,
      };
      return { counts, unheard, slots };
    }),
    /** A task that does not work (any more) gives its place back; one that goes on after a pause for thought has one. */
    keepPlaces: assign(({ context, event }) => {
      if (event.type !== 'run.taskChanged') return {};
      const { task, to, agent } = event;
      const place = placeOf(context, task);
      // The end of a claim overtakes words that wait: this one is of the task's life before it was claimed again.
      if (event.claim !== undefined && isOlder(event.claim, place?.claim ?? null)) return {};
      const claim = event.claim ?? null;
      switch (to) {
        case 'ready':
          // Perhaps it was claimed before this word of it came.
          return {};
        case 'active': {
          // One that was verified holds no agent's place; who mends it takes one again.
          const has = place !== undefined && place.agent !== null;
          if (has || agent === undefined) return {};
          return { claimed: { ...context.claimed, [task]: { agent, claim } } };
        }
        case 'verifying':
          return { claimed: { ...context.claimed, [task]: { agent: null, claim } } };
        default:
          return { claimed: without(context, task) };
      }
    }),
    openPhases: keepTime((workflow, { createdAt }) => opened(workflow, createdAt)),
    keepPhases: keepTime((workflow, _context, event) =>
      event.type === 'run.taskChanged'
        ? taskChanged(workflow, event, event.meta.at, false)
        : workflow,
    ),
    keepPhasesPaused: keepTime((workflow, _context, event) =>
      event.type === 'run.taskChanged'
        ? taskChanged(workflow, event, event.meta.at, true)
        : workflow,
    ),
    stopClocks: keepTime((workflow, _context, event) => stopClocks(workflow, event.meta.at)),
    startClocks: keepTime((workflow, _context, event) => startClocks(workflow, event.meta.at)),
    useUpTime: keepTime((workflow, _context, event) =>
      event.type === 'run.timeUp' ? useUp(workflow, event.phase, event.meta.at) : workflow,
    ),
    noteTimeUp: assign(({ context: { workflow }, event }) =>
      event.type === 'run.timeUp' && workflow !== null
        ? { reason: overdue(workflow, event.phase)?.reason ?? null, cancelledUpTo: -1 }
        : {},
    ),
    /** Asks which tasks of a phase are open. */
    listOverdue: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'run.timeUp' && event.type !== 'run.callOff') return;
      const { run, workflow } = context;
      const due = workflow === null ? undefined : overdue(workflow, event.phase);
      if (due === undefined) return;
      enqueue.spawnChild('listOpen', {
        id: callOffId(event.phase),
        input: { run, afterPosition: due.from - 1, beforePosition: due.to },
      });
    }),
    callOff: durable.enqueueActions(({ context, event, enqueue }) => {
      const id = 'actorId' in event ? (event.actorId ?? '') : '';
      if (!id.startsWith(CALL_OFF)) return;
      const phase = phaseOfCallOff(id);
      enqueue.stopChild(id);
      const { run, workflow } = context;
      const due = workflow === null ? undefined : overdue(workflow, phase);
      if (due === undefined) return;
      if ('error' in event) {
        // The store could not be read. Those that have been called off already take no notice.
        enqueue.raise({ type: 'run.callOff', phase } as RunEvent, {
          id: `again:${id}`,
          delay: STORE_RETRY_MS,
        });
        return;
      }
      const { tasks, upTo } = ('output' in event ? event.output : null) as unknown as ListOutput;
      for (const task of tasks) {
        const type = due.onBudget === 'cancel' ? 'task.cancel' : 'task.timeUp';
        enqueue({
          type: 'send',
          params: { to: taskAddress(run, task), message: { type, by: 'run', reason: due.reason } },
        });
      }
      if (upTo === null) return;
      enqueue.spawnChild('listOpen', {
        id,
        input: { run, afterPosition: upTo, beforePosition: due.to },
      });
    }),
    tellSchedule: command(
      ({ context, enqueue }, params: { readonly state: 'done' | 'cancelled' }) => {
        const { run, startedBy } = context;
        if (startedBy === undefined) return;
        enqueue({
          type: 'send',
          params: {
            to: startedBy,
            message: { type: 'schedule.runEnded', run, state: params.state },
          },
        });
      },
    ),
    claimRefused: assign(({ context, event }) => {
      if (event.type !== 'task.claim:err') return {};
      return { claimed: without(context, event.meta.request?.slice('claim:'.length) ?? '') };
    }),
    sendClaims: durable.enqueueActions(({ context, event, enqueue }) => {
      const output = ('output' in event ? event.output : []) as unknown as ClaimOutput;
      enqueue.assign({ claims: context.claims + 1, asking: null });
      if (output.length === 0) return;
      const claimed = { ...context.claimed };
      for (const { task, agent } of output) {
        claimed[task] = { agent, claim: context.claims };
        enqueue({
          type: 'request',
          params: {
            to: taskAddress(context.run, task),
            id: `claim:${task}`,
            timeoutMs: CLAIM_WITHIN_MS,
            message: { type: 'task.claim', claim: context.claims },
          },
        });
      }
      enqueue.assign({ claimed });
    }),
    ask: assign(({ context }) => ({ asking: context.asking ?? claimInput(context) })),
    lookAgain: assign({ again: true }),
    // A claim that is made again asks for what was free when it was interrupted: after it, look once more.
    looked: assign(({ context }) => ({ again: context.asking !== null })),
    notePaused: assign(({ event }) =>
      event.type === 'run.pause' ? { reason: `Paused by ${event.by}.` } : {},
    ),
    noteCancel: assign(({ event }) =>
      event.type === 'run.cancel' ? { reason: event.reason, cancelledUpTo: -1 } : {},
    ),
    clearReason: assign({ reason: null }),
    cancelListed: durable.enqueueActions(({ context, event, enqueue }) => {
      const output = ('output' in event ? event.output : null) as unknown as ListOutput | null;
      if (output === null) return;
      for (const task of output.tasks) {
        enqueue({
          type: 'send',
          params: {
            to: taskAddress(context.run, task),
            message: {
              type: 'task.cancel',
              by: 'run',
              reason: context.reason ?? 'The run was cancelled.',
            },
          },
        });
      }
      if (output.upTo !== null) enqueue.assign({ cancelledUpTo: output.upTo });
    }),
    // A task may have been cancelled in the very moment in which it was claimed: its answer does not come any more.
    noteEnd: assign(({ event }) => ({ endedAt: event.meta.at, claimed: {} })),
    noteWhatItWaitsFor: assign(({ context }) => ({
      reason: [waitsFor(context.counts), ...phasesInWords(context.workflow)].join(' '),
    })),
  },
  guards: {
    hasEnded: ({ context }) => context.counts.done + context.counts.cancelled === context.total,
    allCancelled: ({ context }) => context.counts.done + context.counts.cancelled === context.total,
    /** There is something to claim and room to do it. */
    canClaim: ({ context }) => startable(context) > unansweredClaims(context) && hasRoom(context),
    looksAgain: ({ context }) => context.again,
    /** Nothing moves by itself any more. */
    standsStill: ({ context }) =>
      startable(context) === 0 &&
      // One of a held phase may have been claimed just before.
      (context.counts.ready === 0 || inFlight(context) === 0) &&
      context.counts.active === 0 &&
      context.counts.verifying === 0 &&
      context.counts.delayed === 0 &&
      context.unheard === 0 &&
      context.counts.person + context.counts.stuck + context.counts.waiting > 0,
    moves: ({ context }) =>
      startable(context) +
        context.counts.active +
        context.counts.verifying +
        context.counts.delayed >
      0,
    /** With the time of the whole workflow its run is over. */
    cancelsRun: ({ context, event }) =>
      event.type === 'run.timeUp' &&
      event.phase === null &&
      context.workflow?.budget?.onBudget === 'cancel',
    hasMore: ({ event }) =>
      'output' in event && (event.output as unknown as ListOutput).upTo !== null,
  },
  delays: { storeRetry: STORE_RETRY_MS },
});

const changed = { actions: ['count', 'keepPlaces', 'keepPhases'] } as const;

/** The time of a phase or of the workflow is used up; or the store could not be read when it was. */
const overtime = {
  'run.timeUp': [
    {
      guard: 'cancelsRun',
      target: '#run.cancelling',
      actions: ['useUpTime', 'noteTimeUp'],
    },
    { actions: ['useUpTime', 'listOverdue'] },
  ],
  'run.callOff': { actions: 'listOverdue' },
} as const;

/**
 * A run: hands ready tasks to agents until every task has ended.
 *
 *     running: idle ⇄ claiming   ─nothing moves by itself→ blocked ─something does→ running
 *        │ pause ⇄ paused           │ all tasks ended → done
 *        └ cancel → cancelling → cancelled
 *
 * It keeps counts, not lists: its state does not grow with the number of tasks, so neither does the cost of a turn.
 * Which task is next is asked of the store (`claim`), in one atomic step. A workflow's phases are counts, too; their time
 * budgets are timers of the run, and when one is used up the store is asked which tasks are open.
 */
export const runMachine = base.createMachine({
  id: 'run',
  context: ({ input }) => {
    const counts = { ...NO_COUNTS, ...input.counts };
    return {
      ...input,
      counts,
      total: Object.values(counts).reduce((sum, count) => sum + count, 0),
      unheard: 0,
      claimed: {},
      claims: 0,
      asking: null,
      again: false,
      endedAt: null,
      reason: null,
      cancelledUpTo: -1,
    };
  },
  initial: 'running',
  entry: 'openPhases',
  on: {
    'run.taskChanged': changed,
    'task.claim:err': { actions: 'claimRefused' },
    // Of what it has not invoked in a state of its own: who is to be called off.
    'xstate.done.actor.*': { actions: 'callOff' },
    'xstate.error.actor.*': { actions: 'callOff' },
  },
  states: {
    running: {
      initial: 'idle',
      entry: 'clearReason',
      on: {
        ...overtime,
        'run.pause': { target: 'paused', actions: 'notePaused' },
        'run.cancel': { target: 'cancelling', actions: 'noteCancel' },
      },
      states: {
        idle: {
          always: [
            { guard: 'hasEnded', target: '#run.done' },
            { guard: 'canClaim', target: 'claiming' },
            { guard: 'standsStill', target: '#run.blocked' },
          ],
        },
        claiming: {
          entry: ['looked', 'ask'],
          invoke: {
            id: 'claim',
            src: 'claim',
            input: ({ context }) => context.asking ?? claimInput(context),
            onDone: [
              { guard: 'looksAgain', target: 'settling', actions: 'sendClaims' },
              { target: 'waiting', actions: 'sendClaims' },
            ],
            onError: 'holding',
          },
          on: {
            'run.taskChanged': { actions: ['count', 'keepPlaces', 'keepPhases', 'lookAgain'] },
            'task.claim:err': { actions: ['claimRefused', 'lookAgain'] },
          },
        },
        /** Something changed while it claimed: look once more. */
        settling: { always: 'idle' },
        /** Claimed what there was; the next change decides. */
        waiting: {
          on: {
            'run.taskChanged': { target: 'idle', actions: ['count', 'keepPlaces', 'keepPhases'] },
            'task.claim:err': { target: 'idle', actions: 'claimRefused' },
          },
        },
        holding: { after: { storeRetry: 'idle' } },
      },
    },
    blocked: {
      meta: { milestone: 'blocked' },
      entry: 'noteWhatItWaitsFor',
      always: [
        { guard: 'hasEnded', target: 'done' },
        { guard: 'moves', target: 'running' },
      ],
      on: {
        ...overtime,
        'run.taskChanged': {
          actions: ['count', 'keepPlaces', 'keepPhases', 'noteWhatItWaitsFor'],
        },
        'run.pause': { target: 'paused', actions: 'notePaused' },
        'run.cancel': { target: 'cancelling', actions: 'noteCancel' },
      },
    },
    /** Starts nothing new; what runs goes on to its end. */
    paused: {
      entry: 'stopClocks',
      exit: 'startClocks',
      always: { guard: 'hasEnded', target: 'done' },
      on: {
        'run.callOff': { actions: 'listOverdue' },
        'run.taskChanged': { actions: ['count', 'keepPlaces', 'keepPhasesPaused'] },
        'run.resume': 'running',
        'run.cancel': { target: 'cancelling', actions: 'noteCancel' },
      },
    },
    cancelling: {
      entry: 'stopClocks',
      initial: 'listing',
      always: { guard: 'allCancelled', target: 'cancelled' },
      states: {
        listing: {
          invoke: {
            id: 'listOpen',
            src: 'listOpen',
            input: ({ context }) => ({ run: context.run, afterPosition: context.cancelledUpTo }),
            onDone: [
              { guard: 'hasMore', target: 'listing', reenter: true, actions: 'cancelListed' },
              { target: 'awaiting', actions: 'cancelListed' },
            ],
            onError: 'holding',
          },
        },
        holding: { after: { storeRetry: 'listing' } },
        awaiting: {},
      },
    },
    cancelled: {
      type: 'final',
      meta: { milestone: 'cancelled' },
      entry: ['noteEnd', { type: 'tellSchedule', params: { state: 'cancelled' } }],
    },
    done: {
      type: 'final',
      meta: { milestone: 'done' },
      entry: ['noteEnd', 'stopClocks', { type: 'tellSchedule', params: { state: 'done' } }],
    },
  },
});

const placeOf = ({ claimed }: RunContext, task: string): PlaceTaken | undefined =>
  Object.hasOwn(claimed, task) ? claimed[task] : undefined;

/** @param claim null: before any claim  @param than null: no claim */
const isOlder = (claim: number | null, than: number | null): boolean =>
  than !== null && (claim === null || claim < than);

function without(context: RunContext, task: string): RunContext['claimed'] {
  if (!Object.hasOwn(context.claimed, task)) return context.claimed;
  const { [task]: _gone, ...rest } = context.claimed;
  return rest;
}

/** Ready tasks that may start: not those of a phase that is held. */
const startable = ({ counts, workflow }: RunContext): number => counts.ready - heldReady(workflow);

const inFlight = (context: RunContext): number => Object.keys(context.claimed).length;

/** Claimed tasks that still count as ready, because their first word has not come yet. */
const unansweredClaims = (context: RunContext): number =>
  Math.max(0, inFlight(context) - context.counts.active - context.counts.verifying);

function freeSlots(context: RunContext): Record<string, number> {
  const used = new Map<string, number>();
  for (const { agent } of Object.values(context.claimed)) {
    if (agent !== null) used.set(agent, (used.get(agent) ?? 0) + 1);
  }
  const free: Record<string, number> = {};
  for (const [agent, slots] of Object.entries(context.slots)) {
    const left = slots - (used.get(agent) ?? 0);
    if (left > 0) free[agent] = left;
  }
  return free;
}

const hasRoom = (context: RunContext): boolean =>
  inFlight(context) < context.concurrency && Object.keys(freeSlots(context)).length > 0;

function claimInput(context: RunContext): ClaimInput {
  const except = heldRanges(context.workflow);
  return {
    run: context.run,
    claim: context.claims,
    slots: freeSlots(context),
    total: context.concurrency - inFlight(context),
    ...(except.length === 0 ? {} : { except }),
  };
}

/** What a run that stands still waits for, in words. */
function waitsFor(counts: Readonly<Record<TaskPhase, number>>): string {
  const parts: string[] = [];
  if (counts.stuck > 0) parts.push(`${counts.stuck} blocked`);
  if (counts.person > 0) parts.push(`${counts.person} waiting for a person`);
  if (counts.waiting > 0) parts.push(`${counts.waiting} waiting for these or staged`);
  return `Nothing moves by itself: ${parts.join(', ')}.`;
}
