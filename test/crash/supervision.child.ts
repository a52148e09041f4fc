// One life of a runtime with trees of three, one after the other: of each tree one child fails, and all three begin a
// new life, until the process is killed. Orders: see `SupervisionOrders`. Says `done`, and how many trees there were.
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { fromPromise, setup } from 'xstate';
import type { Address } from '../../src/protocol/address.ts';
import { effect } from '../../src/runtime/effect.ts';
import { FaultPoints } from '../../src/runtime/fault-points.ts';
import { createTroupe } from '../../src/troupe.ts';

export interface SupervisionOrders {
  readonly store: string;
  /** When all of a tree have begun their second life, begin with the next tree. */
  readonly endless?: boolean;
  /** For `FaultPoints`. */
  readonly faults?: string;
}

const orders = JSON.parse(process.argv[2] ?? '{}') as SupervisionOrders;
const faults = orders.faults === undefined ? undefined : new FaultPoints(orders.faults);

/** Takes its time to go, so that there are commits between the end of one and that of the next. */
const part = setup({
  actors: {
    breaks: fromPromise<never, null>(() => Promise.reject(new Error('it broke'))),
    farewell: effect<null>(async () => {
      await delay(2);
      return null;
    }),
  },
}).createMachine({
  id: 'part',
  initial: 'idle',
  on: { break: '.breaking', 'actor.stop': '.leaving' },
  states: {
    idle: {},
    breaking: { invoke: { src: 'breaks', id: 'breaks', input: null } },
    leaving: { invoke: { src: 'farewell', id: 'farewell', input: null, onDone: 'gone' } },
    gone: { type: 'final' },
  },
});

const troupe = await createTroupe({
  store: orders.store,
  durability: 'normal',
  logger: pino({ level: 'silent' }),
  ...(faults === undefined ? {} : { faultPoint: faults.hit }),
});
process.stdout.write('open\n');
for (let number = Math.max(1, (await troupe.supervisors()).length); ; number++) {
  const name = (child: string): Address => `part/${number}${child}`;
  const tree = await troupe.supervise(`t${number}`, {
    strategy: 'oneForAll',
    children: ['a', 'b', 'c'].map((child) => ({
      id: name(child),
      machine: part,
      backoff: { initialMs: 3, jitter: 0 },
    })),
  });
  /** All of the tree live, and have had so many lives at least. */
  const haveLived = (lives: number): Promise<void> =>
    new Promise<void>((resolve, reject) => {
      const look = (): void => {
        tree.status().then(({ children }) => {
          if (!children.every((one) => one.state === 'running' && one.lives >= lives)) return;
          off();
          resolve();
        }, reject);
      };
      const off = troupe.on('turn', ({ address }) => {
        if (address === tree.address) look();
      });
      look();
    });
  await haveLived(1);
  // Sent once, whatever crashes.
  await troupe.send(name('b'), { type: 'break' }, { idempotencyKey: `break ${number}` });
  await haveLived(2);
  if (orders.endless === true) continue;
  process.stdout.write(`done ${number}\n`);
  break;
}
await troupe.stop();
