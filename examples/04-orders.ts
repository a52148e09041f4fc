// Steps that survive crashes: side by side, tried again, and with rows of the app in the same commit.
// Run: node examples/04-orders.ts

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createTroupe, TroupeError } from '../src/index.ts';

const directory = await mkdtemp(path.join(tmpdir(), 'troupe-orders-'));
const troupe = await createTroupe({
  store: path.join(directory, 'state.db'),
  // Tables of the app, in the same file. Statements are only ever added, at the end.
  appSchema: ['CREATE TABLE app_orders (item TEXT PRIMARY KEY, euros REAL NOT NULL) STRICT'],
});

troupe.agent('buyer', async ({ task, step, artifact }) => {
  const items = task.input as string[];
  const prices = await Promise.all(
    items.map((item) =>
      // Each has a key, so it is found again whatever the order. A failure that may pass is tried again.
      step('price', { key: item, retry: { attempts: 3, initialMs: 10 } }, ({ attempt }) => {
        if (item === 'ink' && attempt < 3)
          throw new TroupeError('unavailable', 'The shop is closed.');
        return item.length;
      }),
    ),
  );
  // The rows and the step are there both or neither: however often this is killed, each order is placed once.
  const total = await step.tx('order', (tx) => {
    for (const [n, item] of items.entries()) {
      tx.run('INSERT INTO app_orders VALUES (?, ?)', item, prices[n] as number);
    }
    return prices.reduce((sum, euros) => sum + euros, 0);
  });
  await artifact('total', total);
  return { total };
});

troupe.agent('accountant', async ({ artifacts }) => (await artifacts())['total'] ?? null);

troupe.gatekeeper('nod', ({ submission }) => ({
  accepted: true,
  evidence: [`saw ${JSON.stringify(submission.result)}`],
}));

const run = await troupe.start({
  id: 'shopping',
  tasks: [
    { id: 'buy', agent: 'buyer', gatekeeper: 'nod', input: ['ink', 'paper'] },
    { id: 'book', agent: 'accountant', gatekeeper: 'nod', dependsOn: ['buy'] },
  ],
});
const { state } = await run.result();
console.log(state, await troupe.query('SELECT * FROM app_orders WHERE euros < ?', 100));
await troupe.stop();
await rm(directory, { recursive: true });

// Output:
// done [ { item: 'ink', euros: 3 }, { item: 'paper', euros: 5 } ]
