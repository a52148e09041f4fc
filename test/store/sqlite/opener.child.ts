// Opens a store when told to, says how that went, and holds it until told to end. Arguments: path.
import { createInterface } from 'node:readline';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';

const [, , path = ''] = process.argv;
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
process.stdout.write('at the barrier\n');
await orders.next();
try {
  const store = await openSqliteStore({ path });
  process.stdout.write(`opened ${store.id}\n`);
  await orders.next();
  await store.close();
} catch (error) {
  process.stdout.write(`${(error as Error).name}: ${(error as Error).message}\n`);
}
process.exit();
