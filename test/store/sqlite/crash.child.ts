// Commits turns 0, 1, 2, … of one actor and says which were acknowledged; kills itself at the n-th hit of a
// fault point. Arguments: path, point, n, durability, file system type or empty, schema
// directory or empty.
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, message, turn } from '../rows.ts';

const [, , path = '', point = '', nth = '1', durability = 'full', fileSystem = '', schema = ''] =
  process.argv;
let hits = 0;
const store = await openSqliteStore({
  path,
  durability: durability === 'normal' ? 'normal' : 'full',
  ...(fileSystem === '' ? {} : { fileSystemType: Number(fileSystem) }),
  ...(schema === '' ? {} : { schema: new URL(schema) }),
  faultPoint(name) {
    if (name === point && ++hits === Number(nth)) process.kill(process.pid, 'SIGKILL');
  },
});
for (let seq = 0; seq < 5; seq++) {
  const part = turn('inbox/ada', seq);
  await store.commit(batch({ ...part, messages: [message({ id: `m${seq}` })] }));
  process.stdout.write(`stored ${seq}\n`);
}
