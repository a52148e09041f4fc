// Any machine made by setup() becomes durable: its state, its messages and its timers are in the store.
// Run: node examples/02-durable-inbox.ts

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { assign, setup } from 'xstate';
import { createTroupe, durableActions, type Meta, replyTo } from '../src/index.ts';

type InboxEvent =
  | { readonly type: 'inbox.add'; readonly text: string; readonly meta: Meta }
  | { readonly type: 'inbox.count'; readonly meta: Meta };

const inbox = setup({
  types: { context: {} as { readonly letters: readonly string[] }, events: {} as InboxEvent },
  actions: durableActions,
}).createMachine({
  id: 'inbox',
  context: { letters: [] },
  on: {
    'inbox.add': {
      actions: assign(({ context, event }) => ({ letters: [...context.letters, event.text] })),
    },
    'inbox.count': {
      actions: {
        type: 'reply',
        params: ({ context, event }) => ({
          to: replyTo(event.meta),
          type: event.type,
          reply: context.letters.length,
        }),
      },
    },
  },
});

const directory = await mkdtemp(path.join(tmpdir(), 'troupe-inbox-'));
const store = path.join(directory, 'state.db');

const monday = await createTroupe({ store });
const ada = await monday.spawn(inbox, { id: 'inbox/ada' });
await monday.send(ada, { type: 'inbox.add', text: 'Dear Ada' });
await monday.send(ada, { type: 'inbox.add', text: 'Yours, Charles' });
console.log('on Monday:', await monday.request(ada, { type: 'inbox.count' }));
await monday.stop();

// Another process, or this one later: the inbox is where it was.
const tuesday = await createTroupe({ store });
tuesday.register(inbox);
console.log('on Tuesday:', await tuesday.request(ada, { type: 'inbox.count' }));
await tuesday.stop();
await rm(directory, { recursive: true });

// Output:
// on Monday: 2
// on Tuesday: 2
