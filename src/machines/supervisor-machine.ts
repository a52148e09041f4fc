import { cancel, sendTo, setup } from 'xstate';
import { overseerAddress } from '../protocol/address.ts';
import type { Answer, Inbound } from '../protocol/catalogue.ts';
import { anyAddress, hostActions } from '../protocol/commands.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import { type Meta, type Received, replyTo } from '../protocol/message.ts';
import type { ChildReport, TreeInput } from '../protocol/supervision.ts';
import {
  allDown,
  countsOf,
  newSupervision,
  type Order,
  type Supervision,
  SupervisionTurn,
  statusOf,
} from './policies/supervision.ts';

export interface SupervisorInput extends TreeInput {
  /** Its address. */
  readonly address: string;
  /** The supervisor whose child it is; null: it is the topmost, and the overseer decides when it gives up. */
  readonly parent: string | null;
  readonly overseer: string;
}

export interface SupervisorContext extends Supervision {
  readonly address: string;
  readonly parent: string | null;
  readonly overseer: string;
  /** How often the overseer's policy has restarted it since a person last decided. */
  readonly restarted: number;
}

export type SupervisorEvent =
  | Inbound<'supervisor'>
  | Received<ChildReport>
  | Received<{
      readonly type: 'child.gaveUp';
      readonly address: string;
      readonly failure: Failure;
    }>
  | { readonly type: 'supervisor.begin'; readonly meta: Meta }
  | { readonly type: 'supervisor.due'; readonly id: string; readonly meta: Meta }
  | Received<{ readonly type: 'actor.stop'; readonly reason: string; readonly again: boolean }>
  | Answer<'overseer.supervisorFailed'>;

/** A policy that has restarted one so often, and no person meanwhile, is not asked again. */
const MAX_POLICY_RESTARTS = 3;
/** How long the overseer's policy may take. A person may take longer: they do not answer this request. */
const POLICY_TIMEOUT_MS = 600_000;

const durable = setup({
  types: {
    context: {} as SupervisorContext,
    events: {} as SupervisorEvent,
    input: {} as SupervisorInput,
  },
  actions: hostActions,
});

/** Where its due times are kept: one for each child. */
const dueId = (child: string): string => `child:${child}`;

const take = durable.enqueueActions(({ context, event, enqueue }) => {
  if (!('meta' in event)) return;
  const turn = new SupervisionTurn(context, context.address, event.meta.at);
  handle(turn, event);
  const after = turn.settle();
  enqueue.assign(after);
  for (const order of turn.orders) {
    switch (order.do) {
      case 'start': {
        const { id, machine, input, lives, messages } = order.child;
        const { renew, cause } = order;
        const params = { address: id, machine, input, life: lives, renew, messages, cause };
        enqueue({ type: 'startLife', params });
        break;
      }
      case 'stop': {
        const { child, brutal, again, reason } = order;
        const shutdown = brutal ? 'brutal' : child.shutdown;
        enqueue({ type: 'endLife', params: { address: child.id, shutdown, reason, again } });
        break;
      }
      case 'release':
        enqueue({ type: 'releaseLife', params: { address: order.id } });
        break;
      case 'wait':
        enqueue.raise({ type: 'supervisor.due', id: order.id } as SupervisorEvent, {
          id: dueId(order.id),
          delay: order.ms,
        });
        break;
      case 'waitNoLonger':
        enqueue(cancel(dueId(order.id)));
        break;
      case 'answer':
        enqueue({ type: 'reply', params: replyParams(order) });
        break;
    }
  }
});

function replyParams({ to, type, answer }: Extract<Order, { do: 'answer' }>) {
  return 'failure' in answer
    ? { to, type, failure: answer.failure }
    : { to, type, reply: answer.reply as unknown as JsonValue };
}

function handle(turn: SupervisionTurn, event: SupervisorEvent): void {
  switch (event.type) {
    case 'child.started':
    case 'child.startFailed':
    case 'child.ended':
    case 'child.faulted':
    case 'child.quarantined':
    case 'child.recovered':
      // Of a child only it itself is heard.
      if (event.meta.from === event.address) turn.report(event);
      return;
    case 'child.gaveUp':
      if (event.meta.from === event.address) turn.gaveUp(event.address, event.failure);
      return;
    case 'supervisor.due':
      turn.due(event.id);
      return;
    case 'supervisor.startChild':
      turn.startChild(event.child, replyTo(event.meta), event.type);
      return;
    case 'supervisor.stopChild':
      turn.stopChild(event.id, replyTo(event.meta), event.type);
      return;
    case 'supervisor.restartChild':
      turn.restartChild(event.id, replyTo(event.meta), event.type);
      return;
    case 'supervisor.deleteChild':
      turn.deleteChild(event.id, replyTo(event.meta), event.type);
      return;
    case 'supervisor.configure':
      turn.configure(event);
      return;
    case 'supervisor.decide':
      decide(turn, event.decision);
      return;
    case 'overseer.supervisorFailed:ok':
      if (event.reply.decision !== 'none') decide(turn, event.reply.decision);
      return;
    case 'actor.stop':
      turn.stop(event.again);
      return;
    default:
      return;
  }
}

function decide(turn: SupervisionTurn, decision: 'restart' | 'stop'): void {
  if (decision === 'restart') turn.restart();
  else turn.stop(false);
}

/** Refuses a decision that nobody waits for. */
const refuseDecision = durable.enqueueActions(({ context, event, enqueue }) => {
  if (event.type !== 'supervisor.decide') return;
  const message = `The supervisor ${context.address} has not given up: there is nothing to decide about it.`;
  const params = {
    to: replyTo(event.meta),
    type: event.type,
    failure: { code: 'conflict', message, retryable: false } as const,
  };
  enqueue({ type: 'reply', params });
});

const base = durable.extend({
  actions: {
    take,
    refuseDecision,
    begin: sendTo(({ self }) => self, { type: 'supervisor.begin' } as never),
    answerChildren: durable.enqueueActions(({ context, event, enqueue }) => {
      const reply = context.children.map(statusOf) as unknown as JsonValue;
      const params = { to: replyTo(metaOf(event)), type: event.type, reply };
      enqueue({ type: 'reply', params });
    }),
    answerCount: durable.enqueueActions(({ context, event, enqueue }) => {
      const reply = countsOf(context) as unknown as JsonValue;
      enqueue({ type: 'reply', params: { to: replyTo(metaOf(event)), type: event.type, reply } });
    }),
    answerDecision: durable.enqueueActions(({ event, enqueue }) => {
      if (event.type !== 'supervisor.decide') return;
      const state = event.decision === 'restart' ? 'running' : 'stopping';
      const params = { to: replyTo(event.meta), type: event.type, reply: { state } };
      enqueue({ type: 'reply', params });
    }),
    forgetPolicy: durable.enqueueActions(({ enqueue }) => {
      enqueue.assign({ restarted: 0 });
      enqueue({ type: 'cancelRequest', params: { id: 'escalate' } });
    }),
    countPolicy: durable.enqueueActions(({ context, event, enqueue }) => {
      if (event.type !== 'overseer.supervisorFailed:ok') return;
      if (event.reply.decision === 'restart') enqueue.assign({ restarted: context.restarted + 1 });
    }),
    tellParent: durable.enqueueActions(({ context, enqueue }) => {
      const { address, failure, parent } = context;
      if (parent === null || failure === null) return;
      const message = { type: 'child.gaveUp', address, failure: failure as unknown as JsonValue };
      enqueue({ type: 'send', params: { to: anyAddress(parent), message } });
    }),
    askOverseer: durable.enqueueActions(({ context, enqueue }) => {
      const { address, failure, restarted } = context;
      if (restarted >= MAX_POLICY_RESTARTS) return;
      enqueue({
        type: 'request',
        params: {
          to: overseerAddress(context.overseer),
          id: 'escalate',
          timeoutMs: POLICY_TIMEOUT_MS,
          message: {
            type: 'overseer.supervisorFailed',
            supervisor: address,
            reason: failure?.message ?? '',
            children: context.children.map(({ id, restarts, lastError }) => ({
              id,
              restarts,
              lastError,
            })),
            restarted,
          },
        },
      });
    }),
  },
  guards: {
    isUp: ({ context }) => context.goal === 'up',
    stops: ({ context }) => context.goal === 'down',
    hasGivenUp: ({ context }) => context.goal === 'failed',
    isDown: ({ context }) => allDown(context),
    hasParent: ({ context }) => allDown(context) && context.parent !== null,
  },
});

const metaOf = (event: SupervisorEvent): Meta => event.meta;

/**
 * A supervisor: keeps its children alive, as policies/supervision.ts says, by orders to the host.
 *
 *     running ── too many failures ──► failing ── all down ──► failed (its own supervisor is told, and decides)
 *        ▲ │                                          └──────► escalated (the topmost: the overseer decides)
 *        │ └─ actor.stop, or a significant child has ended ──► stopping ── all down ──► stopped
 *        └─────────────── restart ─────────────────────────── failed, escalated ── stop ──┘
 */
export const supervisorMachine = base.createMachine({
  id: 'supervisor',
  context: ({ input }) => ({
    ...newSupervision(input),
    address: input.address,
    parent: input.parent,
    overseer: input.overseer,
    restarted: 0,
  }),
  initial: 'running',
  // The first event that tells the time.
  entry: 'begin',
  on: {
    'supervisor.begin': { actions: 'take' },
    'supervisor.due': { actions: 'take' },
    'child.*': { actions: 'take' },
    'supervisor.startChild': { actions: 'take' },
    'supervisor.stopChild': { actions: 'take' },
    'supervisor.restartChild': { actions: 'take' },
    'supervisor.deleteChild': { actions: 'take' },
    'supervisor.configure': { actions: 'take' },
    'supervisor.children': { actions: 'answerChildren' },
    'supervisor.count': { actions: 'answerCount' },
    'supervisor.decide': { actions: 'refuseDecision' },
    'actor.stop': { actions: 'take' },
  },
  states: {
    running: {
      always: [
        { guard: 'stops', target: 'stopping' },
        { guard: 'hasGivenUp', target: 'failing' },
      ],
    },
    failing: {
      always: [
        { guard: 'stops', target: 'stopping' },
        { guard: 'hasParent', target: 'failed' },
        { guard: 'isDown', target: 'escalated' },
      ],
    },
    failed: {
      entry: 'tellParent',
      always: { guard: 'stops', target: 'stopping' },
    },
    escalated: {
      entry: 'askOverseer',
      on: {
        'overseer.supervisorFailed:ok': { actions: ['countPolicy', 'take'] },
        'supervisor.decide': { actions: ['answerDecision', 'forgetPolicy', 'take'] },
      },
      always: [
        { guard: 'stops', target: 'stopping' },
        { guard: 'isUp', target: 'running' },
      ],
    },
    stopping: {
      always: { guard: 'isDown', target: 'stopped' },
    },
    stopped: { type: 'final' },
  },
});
