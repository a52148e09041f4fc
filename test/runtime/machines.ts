import { assign, setup } from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import { replyTo } from '../../src/protocol/message.ts';
import type { Outside } from './world.ts';

/** Counts, answers how far it has come, remembers what it was told, and throws when told to. */
export const counterMachine = setup({ actions: { ...durableActions } }).createMachine({
  id: 'counter',
  context: ({ input }) => ({ n: 0, seen: [], name: input ?? null }),
  on: {
    inc: { actions: assign({ n: ({ context }) => context['n'] + 1 }) },
    note: {
      actions: assign({ seen: ({ context, event }) => [...context['seen'], event['what']] }),
    },
    count: {
      actions: {
        type: 'reply',
        params: ({ context, event }) => ({
          to: replyTo(event['meta']),
          type: 'count',
          reply: context['n'],
        }),
      },
    },
    incAndCount: {
      actions: [
        assign({ n: ({ context }) => context['n'] + 1 }),
        {
          type: 'reply',
          params: ({ context, event }) => ({
            to: replyTo(event['meta']),
            type: 'incAndCount',
            reply: context['n'],
          }),
        },
      ],
    },
    ignore: {},
    throw: {
      actions: assign(() => {
        throw new Error('told to throw');
      }),
    },
  },
});

/** Does what it is told: sends, asks, spawns; remembers what it gets. */
export const puppetMachine = setup({ actions: { ...durableActions } }).createMachine({
  id: 'puppet',
  context: () => ({ got: [], metas: [] }),
  initial: 'awake',
  states: {
    awake: {
      on: {
        send: {
          actions: {
            type: 'send',
            params: ({ event }) => ({
              to: anyAddress(event['to']),
              message: event['message'],
              ...event['options'],
            }),
          },
        },
        ask: {
          actions: {
            type: 'request',
            params: ({ event }) => ({
              to: anyAddress(event['to']),
              message: event['message'],
              timeoutMs: event['timeoutMs'] ?? 1000,
              ...event['options'],
            }),
          },
        },
        forget: {
          actions: { type: 'cancelRequest', params: ({ event }) => ({ id: event['id'] }) },
        },
        spawn: {
          actions: [
            {
              type: 'spawn',
              params: ({ event }) => ({
                address: event['address'],
                machine: event['machine'],
                ...(event['input'] === undefined ? {} : { input: event['input'] }),
              }),
            },
            {
              type: 'send',
              params: ({ event }) => ({
                to: anyAddress(event['address']),
                message: event['first'] ?? { type: 'ignore' },
              }),
            },
          ],
        },
        sleep: 'asleep',
        end: 'ended',
        '*': {
          actions: assign({
            got: ({ context, event }) => {
              const { meta: _meta, ...message } = event;
              return [...context['got'], message];
            },
            metas: ({ context, event }) => [...context['metas'], event['meta']],
          }),
        },
      },
    },
    asleep: { on: { wake: 'awake' } },
    ended: { type: 'final' },
  },
});

/** Keeps every question it is asked, and answers the n-th when told to, any number of times. */
export const oracleMachine = setup({ actions: { ...durableActions } }).createMachine({
  id: 'oracle',
  context: () => ({ questions: [] }),
  initial: 'listening',
  states: {
    listening: {
      on: {
        question: {
          actions: assign({
            questions: ({ context, event }) => [...context['questions'], replyTo(event['meta'])],
          }),
        },
        answer: {
          actions: {
            type: 'reply',
            params: ({ context, event }) => ({
              to: { ...context['questions'][event['nth']], ...event['forged'] },
              type: 'question',
              ...(event['failure'] === undefined
                ? { reply: event['reply'] ?? null }
                : { failure: event['failure'] }),
            }),
          },
        },
        throwAtQuestion: {
          actions: assign(() => {
            throw new Error('the oracle is broken');
          }),
        },
        end: 'ended',
      },
    },
    ended: { type: 'final' },
  },
});

/** Invokes `work` while it is working. */
export const workerMachine = (outside: Outside, options: Parameters<Outside['effect']>[1] = {}) =>
  setup({
    actors: { work: outside.effect('work', options) },
    actions: {
      ...durableActions,
      tooLate: assign({ log: ({ context }) => [...context['log'], 'too late'] }),
    },
  }).createMachine({
    id: 'worker',
    context: ({ input }) => ({ job: input ?? null, log: [] }),
    initial: 'idle',
    states: {
      idle: {
        on: {
          start: 'working',
          // It was left before these came: nobody may hear of them.
          'xstate.done.actor.w': { actions: 'tooLate' },
          'xstate.error.actor.w': { actions: 'tooLate' },
        },
      },
      working: {
        invoke: {
          src: 'work',
          id: 'w',
          input: ({ context }) => context['job'],
          onDone: {
            target: 'idle',
            actions: assign({ log: ({ context, event }) => [...context['log'], event.output] }),
          },
          onError: {
            target: 'idle',
            actions: assign({
              log: ({ context, event }) => [
                ...context['log'],
                (event.error as { code: string }).code,
              ],
            }),
          },
        },
        on: {
          leave: 'idle',
          again: { target: 'working', reenter: true },
        },
      },
    },
  });
