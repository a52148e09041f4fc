// Commits one turn at each line it is told, and says how that went. Arguments: path.
import { createInterface } from 'node:readline';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, turn } from '../rows.ts';

const [, , path = ''] = process.argv;
const store = await openSqliteStore({ path });
process.stdout.write('opened\n');
let seq = 0;
for await (const order of createInterface({ input: process.stdin })) {
  try {
    if (order === 'claim') {
      await store.claimTasks({ run: 'r', agent: 'a', limit: 1, token: 't' });
    } else if (order === 'lease') {
      await store.acquireLease({ name: 'x', holder: 'frozen', now: 0, ttlMs: 1 });
    } else if (order === 'assert') {
      await store.assertOwner();
    } else if (order === 'close') {
      await store.close();
    } else {
      await store.commit(batch(turn('inbox/frozen', seq++)));
    }
    process.stdout.write(`${order}: ok\n`);
  } catch (error) {
    process.stdout.write(
      `${order}: ${(error as { code?: string }).code}: ${(error as Error).message}\n`,
    );
  }
}
