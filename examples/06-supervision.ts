// A supervisor keeps actors alive: whoever fails begins a new life, and those that rest on it with it; all of it is stored.
// Run: node examples/06-supervision.ts

import { pino } from 'pino';
import { assign, fromPromise, setup } from 'xstate';
import { createTroupe } from '../src/index.ts';

const machine = (id: string) =>
  setup({
    types: { context: {} as { readonly letters: number } },
    actors: { jam: fromPromise<null, null>(() => Promise.reject(new Error('paper jam'))) },
  }).createMachine({
    id,
    context: { letters: 0 },
    initial: 'ready',
    on: { letter: { actions: assign({ letters: ({ context }) => context.letters + 1 }) } },
    states: {
      ready: { on: { jam: 'jammed' } },
      // Nobody handles its failure: it ends the actor.
      jammed: { invoke: { src: 'jam', id: 'jam', input: null } },
    },
  });

const troupe = await createTroupe({ store: ':memory:', logger: pino({ level: 'silent' }) });
const office = await troupe.supervise('office', {
  strategy: 'restForOne',
  intensity: { restarts: 1, withinMs: 60_000 },
  children: [
    { id: 'inbox/ada', machine: machine('inbox') },
    { id: 'press/1', machine: machine('press'), backoff: null },
    { id: 'mail/1', machine: machine('mail') },
  ],
});

/** Resolves when the supervisor is in this state and its children have had so many lives. */
const until = (state: string, lives: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const look = (): void => {
      office.status().then((now) => {
        if (now.state !== state || now.children.map((one) => one.lives).join() !== lives) return;
        if (state === 'running' && now.children.some((one) => one.state !== 'running')) return;
        off();
        resolve();
      }, reject);
    };
    const off = troupe.on('turn', ({ address }) => {
      if (address === office.address) look();
    });
    look();
  });
const show = async (): Promise<void> => {
  const { state, children } = await office.status();
  console.log(`${state}:`, children.map((one) => `${one.id} ${one.state}`).join(', '));
};

await until('running', '1,1,1');
await show();

// The press fails: the mail, which was started after it, begins a new life with it; the inbox goes on.
await troupe.send('press/1', { type: 'jam' });
await until('running', '1,2,2');
await show();

// Once more is more than it may: it stops all, and a person decides.
await troupe.send('press/1', { type: 'jam' });
await until('escalated', '1,2,2');
await show();
console.log((await office.status()).failure?.message);
await office.decide('restart', 'ada');
await until('running', '2,3,3');
await show();

// All stop in the reverse of the order in which they were started.
troupe.on('ended', ({ address }) => console.log('ended:', address));
await office.stop();
await troupe.stop();

// Output:
// running: inbox/ada running, press/1 running, mail/1 running
// running: inbox/ada running, press/1 running, mail/1 running
// escalated: inbox/ada waiting, press/1 waiting, mail/1 waiting
// The supervisor supervisor/office has given up: more than 1 restarts within 60000 ms. The last to fail was press/1: paper jam
// running: inbox/ada running, press/1 running, mail/1 running
// ended: mail/1
// ended: press/1
// ended: inbox/ada
// ended: supervisor/office
