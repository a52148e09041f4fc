// Opens a store, commits turns as fast as it can, and says each that is stored. `backup FILE` makes a backup, `prune`
// removes history in slices, `stop` ends. Argument: path.
import { createInterface } from 'node:readline';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, message, turn } from '../rows.ts';

const [, , path = ''] = process.argv;
const store = await openSqliteStore({ path });
let going = true;
const say = (line: string): unknown => process.stdout.write(`${line}\n`);
createInterface({ input: process.stdin }).on('line', (line) => {
  const [order, file = ''] = line.split(' ');
  if (order === 'backup') {
    say('backing up');
    store.backup(file).then(
      (bytes) => say(`backup ${bytes}`),
      (error: Error) => say(`refused ${error.message}`),
    );
  }
  if (order === 'stop') going = false;
});
let seq = (await store.listActors()).find(({ address }) => address === 'inbox/ada')?.seq ?? -1;
while (going) {
  seq++;
  const parts = turn('inbox/ada', seq, 'x'.repeat(500));
  await store.commit(
    batch({ ...parts, messages: [message({ id: `m${seq}` })], consumed: [`m${seq - 1}`] }),
  );
  if (seq % 16 === 0) await store.prune({ what: 'checkpoints', keepPerActor: 100, from: 0 });
  say(`stored ${seq}`);
}
await store.close();
process.exit(0);
