import { assign, setup } from 'xstate';
import { agentAddress } from '../protocol/address.ts';
import type { Inbound } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import { type Meta, replyTo } from '../protocol/message.ts';
import { commandsFor } from './commands-for.ts';

/** When a breaker opens and closes. */
export interface BreakerSettings {
  /** Failures in a row that open it. Default 10. */
  readonly failures?: number;
  /** How long it stays open, in milliseconds. Default 5 000. */
  readonly openMs?: number;
  /** Successful probes that close it. Default 3. */
  readonly successes?: number;
}

export interface BreakerInput extends BreakerSettings {
  /** The agent it guards, which is told of every change; null: those who use what it guards ask it. */
  readonly agent: string | null;
}

export interface BreakerContext {
  readonly agent: string | null;
  readonly maxFailures: number;
  readonly openMs: number;
  readonly wantedSuccesses: number;
  readonly failures: number;
  readonly successes: number;
  /** How often it has opened. */
  readonly opened: number;
  /** When an open one lets a probe through. */
  readonly openUntil?: number;
  /** Permits given so far; each names one call. */
  readonly permits?: number;
  /** The call that tries, half open, whether it is over; it has until then to say. */
  readonly probe?: { readonly permit: number; readonly until: number } | null;
}

type Elapsed = { readonly type: `xstate.after.${string}`; readonly meta: Meta };
export type BreakerEvent = Inbound<'breaker'> | Elapsed;

const durable = setup({
  types: {
    context: {} as BreakerContext,
    events: {} as BreakerEvent,
    input: {} as BreakerInput,
  },
  actions: durableActions,
});

const command = commandsFor<BreakerContext, BreakerEvent>();

const base = durable.extend({
  actions: {
    tellAgent: command(
      ({ context, enqueue }, params: { readonly state: 'closed' | 'open' | 'halfOpen' }) => {
        if (context.agent === null) return;
        enqueue({
          type: 'send',
          params: {
            to: agentAddress(context.agent),
            priority: 4,
            message: { type: 'agent.breaker', state: params.state },
          },
        });
      },
    ),
    countFailure: assign(({ context }) => ({ failures: context.failures + 1 })),
    countSuccess: assign(({ context }) => ({ successes: context.successes + 1, probe: null })),
    countOpening: assign(({ context, event }) => ({
      opened: context.opened + 1,
      openUntil: event.meta.at + context.openMs,
    })),
    forget: assign({ failures: 0, successes: 0, probe: null }),
    configure: assign(({ context, event }) =>
      event.type === 'breaker.configure'
        ? {
            maxFailures: event.failures ?? context.maxFailures,
            openMs: event.openMs ?? context.openMs,
            wantedSuccesses: event.successes ?? context.wantedSuccesses,
          }
        : {},
    ),
    /** Half open: whoever asks first tries; a call that never says how it went has its time. */
    admitProbe: command(({ context, event, enqueue }) => {
      const permit = (context.permits ?? 0) + 1;
      enqueue.assign({ permits: permit, probe: { permit, until: event.meta.at + context.openMs } });
      enqueue({
        type: 'reply',
        params: {
          to: replyTo(event.meta),
          type: 'breaker.admit',
          reply: { admitted: true, state: 'halfOpen', permit, retryAfterMs: 0 },
        },
      });
    }),
    admit: command(({ event, enqueue }) => {
      enqueue({
        type: 'reply',
        params: {
          to: replyTo(event.meta),
          type: 'breaker.admit',
          // Of no probe: what it tells counts while the breaker is closed.
          reply: { admitted: true, state: 'closed', permit: 0, retryAfterMs: 0 },
        },
      });
    }),
    turnAway: command(
      ({ context, event, enqueue }, params: { readonly state: 'open' | 'halfOpen' }) => {
        const until =
          params.state === 'open' ? (context.openUntil ?? 0) : (context.probe?.until ?? 0);
        enqueue({
          type: 'reply',
          params: {
            to: replyTo(event.meta),
            type: 'breaker.admit',
            reply: {
              admitted: false,
              state: params.state,
              permit: null,
              retryAfterMs: Math.max(0, until - event.meta.at),
            },
          },
        });
      },
    ),
  },
  guards: {
    /** A success while there is nothing to forget: the usual case, which is not worth a checkpoint. */
    isNoNews: ({ context, event }) =>
      event.type === 'breaker.record' && event.outcome === 'success' && context.failures === 0,
    mayProbe: ({ context, event }) =>
      (context.probe ?? null) === null || event.meta.at >= (context.probe?.until ?? 0),
    /** Half open, what began before it opened proves nothing either way. */
    isNoProbe: ({ context, event }) =>
      event.type === 'breaker.record' &&
      event.permit !== undefined &&
      event.permit !== context.probe?.permit,
    isSuccess: ({ event }) => event.type === 'breaker.record' && event.outcome === 'success',
    isLastStraw: ({ context, event }) =>
      event.type === 'breaker.record' &&
      event.outcome === 'failure' &&
      context.failures + 1 >= context.maxFailures,
    isLastProof: ({ context, event }) =>
      event.type === 'breaker.record' &&
      event.outcome === 'success' &&
      context.successes + 1 >= context.wantedSuccesses,
  },
  delays: { cooling: ({ context }) => context.openMs },
});

/**
 * A circuit breaker, as a statechart that can be watched.
 *
 *     closed ─failures→ open ─openMs→ halfOpen ─successes→ closed
 *                        ▲               │failure
 *                        └───────────────┘
 *
 * Closed: failures in a row are counted, a success forgets them. Open: what it guards is not asked. Half open: one probe
 * at a time. An agent is told, and sees to that itself; others ask (`breaker.admit`) and name their permit when they
 * record how it went. Source: M. Nygard, Release It!, "Circuit Breaker".
 */
export const breakerMachine = base.createMachine({
  id: 'breaker',
  context: ({ input }) => ({
    agent: input.agent,
    maxFailures: input.failures ?? 10,
    openMs: input.openMs ?? 5_000,
    wantedSuccesses: input.successes ?? 3,
    failures: 0,
    successes: 0,
    opened: 0,
  }),
  initial: 'closed',
  on: {
    'breaker.configure': { actions: 'configure' },
    'breaker.reset': {
      target: '.closed',
      actions: { type: 'tellAgent', params: { state: 'closed' } },
    },
  },
  states: {
    closed: {
      entry: 'forget',
      on: {
        'breaker.admit': { actions: 'admit' },
        'breaker.record': [
          { guard: 'isNoNews' },
          { guard: 'isSuccess', actions: 'forget' },
          { guard: 'isLastStraw', target: 'open' },
          { actions: 'countFailure' },
        ],
      },
    },
    open: {
      entry: ['countOpening', { type: 'tellAgent', params: { state: 'open' } }],
      // What was running when it opened may still end; it proves nothing either way.
      on: {
        'breaker.admit': { actions: { type: 'turnAway', params: { state: 'open' } } },
      },
      after: { cooling: 'halfOpen' },
    },
    halfOpen: {
      entry: ['forget', { type: 'tellAgent', params: { state: 'halfOpen' } }],
      on: {
        'breaker.admit': [
          { guard: 'mayProbe', actions: 'admitProbe' },
          { actions: { type: 'turnAway', params: { state: 'halfOpen' } } },
        ],
        'breaker.record': [
          { guard: 'isNoProbe' },
          {
            guard: 'isLastProof',
            target: 'closed',
            actions: { type: 'tellAgent', params: { state: 'closed' } },
          },
          { guard: 'isSuccess', actions: 'countSuccess' },
          { target: 'open' },
        ],
      },
    },
  },
});
