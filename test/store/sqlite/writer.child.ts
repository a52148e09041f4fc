// Goes on with the turns of one actor for as long as it lives, four commits at a time, and says which were
// acknowledged. Arguments: path, durability.
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, message, turn } from '../rows.ts';

const [, , path = '', durability = 'full'] = process.argv;
const store = await openSqliteStore({
  path,
  durability: durability === 'normal' ? 'normal' : 'full',
});
const [newest] = await store.listCheckpoints('inbox/ada', { last: 1 });
let next = newest === undefined ? 0 : newest.seq + 1;
const write = async (): Promise<void> => {
  while (next < 1_000_000) {
    const seq = next++;
    const part = turn('inbox/ada', seq, 'x'.repeat(2_000));
    await store.commit(
      batch({ ...part, consumed: [`m${seq - 1}`], messages: [message({ id: `m${seq}` })] }),
    );
    process.stdout.write(`${seq}\n`);
  }
};
await Promise.all([write(), write(), write(), write()]);
