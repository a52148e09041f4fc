import { assign, setup } from 'xstate';
import { agentAddress } from '../protocol/address.ts';
import type { Inbound } from '../protocol/catalogue.ts';
import { durableActions } from '../protocol/commands.ts';
import type { Meta } from '../protocol/message.ts';
import { commandsFor } from './commands-for.ts';

export interface BreakerInput {
  /** The agent it guards. */
  readonly agent: string;
  /** Failures in a row that open it. Default 10. */
  readonly failures?: number;
  /** How long it stays open, in milliseconds. Default 5 000. */
  readonly openMs?: number;
  /** Successful probes that close it. Default 3. */
  readonly successes?: number;
}

export interface BreakerContext {
  readonly agent: string;
  readonly maxFailures: number;
  readonly openMs: number;
  readonly wantedSuccesses: number;
  readonly failures: number;
  readonly successes: number;
  /** How often it has opened. */
  readonly opened: number;
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
    countSuccess: assign(({ context }) => ({ successes: context.successes + 1 })),
    countOpening: assign(({ context }) => ({ opened: context.opened + 1 })),
    forget: assign({ failures: 0, successes: 0 }),
  },
  guards: {
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
 * Closed: failures in a row are counted, a success forgets them. Open: its agent is not asked. Half open: one
 * probe at a time. Source: M. Nygard, Release It!, "Circuit Breaker".
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
    'breaker.reset': {
      target: '.closed',
      actions: { type: 'tellAgent', params: { state: 'closed' } },
    },
  },
  states: {
    closed: {
      entry: 'forget',
      on: {
        'breaker.record': [
          { guard: 'isSuccess', actions: 'forget' },
          { guard: 'isLastStraw', target: 'open' },
          { actions: 'countFailure' },
        ],
      },
    },
    open: {
      entry: ['countOpening', { type: 'tellAgent', params: { state: 'open' } }],
      // What was running when it opened may still end; it proves nothing either way.
      after: { cooling: 'halfOpen' },
    },
    halfOpen: {
      entry: ['forget', { type: 'tellAgent', params: { state: 'halfOpen' } }],
      on: {
        'breaker.record': [
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
