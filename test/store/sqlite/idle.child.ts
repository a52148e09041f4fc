// Opens a store, calls a commit, and has nothing else to do. Arguments: path.
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, turn } from '../rows.ts';

const [, , path = ''] = process.argv;
const store = await openSqliteStore({ path });
process.stdout.write('opened\n');
setImmediate(() => {
  void store.commit(batch(turn('inbox/ada', 0))).then(() => process.stdout.write('committed\n'));
});
