// Reads a store that another process writes, each time it is told to. Arguments: path.
import { createInterface } from 'node:readline';
import { openReadOnlyStore } from '../../../src/store/sqlite/read-only.ts';

const [, , path = ''] = process.argv;
const store = await openReadOnlyStore(path);
process.stdout.write(`reading ${store.id}\n`);
for await (const run of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await store.countTasks(run))}\n`);
}
await store.close();
