import { assign, setup } from 'xstate';
import type { Address } from '../src/protocol/address.ts';
import { anyAddress, durableActions } from '../src/protocol/commands.ts';
import type { Message, Received } from '../src/protocol/message.ts';
import { replyTo } from '../src/protocol/message.ts';

type NotebookEvent =
  | Received<{ readonly type: 'note.add' }>
  | Received<{ readonly type: 'note.ask' }>
  | Received<{ readonly type: 'note.peek' }>
  | Received<{ readonly type: 'note.pass'; readonly hops: number; readonly among: number }>;

interface NotebookContext {
  readonly name: number;
  readonly count: number;
  /** Makes the stored state as large as that of a small agent: 500 bytes of JSON. */
  readonly text: string;
}

const base = setup({
  types: {
    context: {} as NotebookContext,
    events: {} as NotebookEvent,
    input: {} as { readonly name: number },
    /** A note that was passed on has made its last hop. */
    emitted: {} as { readonly type: 'note.arrived' },
  },
  actions: durableActions,
});

/**
 * The machine that most benches drive. Every event but `note.peek` changes its state and its context, so that each
 * turn has a checkpoint of its own; what never changes of the context is what an agent's would be as well.
 */
export const notebook = base
  .extend({
    actions: {
      count: assign(({ context }) => ({ count: context.count + 1 })),
    },
  })
  .createMachine({
    id: 'notebook',
    context: ({ input }) => {
      // XState's public `transition()` runs this once more for every event, without the input.
      const name = (input as { readonly name: number } | undefined)?.name ?? 0;
      return { name, count: 0, text: `note ${name} `.padEnd(420, '.') };
    },
    initial: 'open',
    states: {
      open: { on: { 'note.add': { target: 'shut', actions: 'count' } } },
      shut: { on: { 'note.add': { target: 'open', actions: 'count' } } },
    },
    on: {
      'note.ask': {
        actions: [
          'count',
          {
            type: 'reply',
            params: ({ context, event }) => ({
              to: replyTo(event.meta),
              type: event.type,
              reply: context.count,
            }),
          },
        ],
      },
      'note.peek': {
        actions: {
          type: 'reply',
          params: ({ context, event }) => ({
            to: replyTo(event.meta),
            type: event.type,
            reply: context.count,
          }),
        },
      },
      'note.pass': {
        actions: [
          'count',
          base.enqueueActions(({ context, event, enqueue }) => {
            if (event.type !== 'note.pass') return;
            if (event.hops === 0) {
              enqueue.emit({ type: 'note.arrived' });
              return;
            }
            enqueue({
              type: 'send',
              params: {
                to: anyAddress(notebookAddress((context.name + 1) % event.among)),
                message: { type: 'note.pass', hops: event.hops - 1, among: event.among },
              },
            });
          }),
        ],
      },
    },
  });

export const notebookAddress = (name: number): Address<'notebook'> => `notebook/number-${name}`;

export const ADD: Message = { type: 'note.add' };
export const ASK: Message = { type: 'note.ask' };
export const PEEK: Message = { type: 'note.peek' };
