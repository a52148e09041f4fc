// Commits turns 0, 1, 2, … of one actor and says which were acknowledged; kills itself at the n-th hit of a
// fault point. Arguments: path, point, n, durability, file system type or empty, schema
// directory or empty, length of the snapshots or empty (then through a PackedStore).
import { PackedStore } from '../../../src/store/payload/packed-store.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { prose } from '../payload/prose.ts';
import { batch, message, turn } from '../rows.ts';

const [
  ,
  ,
  path = '',
  point = '',
  nth = '1',
  durability = 'full',
  fileSystem = '',
  schema = '',
  long = '',
] = process.argv;
let hits = 0;
/** Each begins with the one before, and ends with something new. */
const state = (seq: number): string => prose(Number(long) * (seq + 1));
const sqlite = await openSqliteStore({
  path,
  durability: durability === 'normal' ? 'normal' : 'full',
  ...(fileSystem === '' ? {} : { fileSystemType: Number(fileSystem) }),
  ...(schema === '' ? {} : { schema: new URL(schema) }),
  faultPoint(name) {
    if (name === point && ++hits === Number(nth)) process.kill(process.pid, 'SIGKILL');
  },
});
const store = long === '' ? sqlite : new PackedStore(sqlite);
for (let seq = 0; seq < 5; seq++) {
  const part = long === '' ? turn('inbox/ada', seq) : turn('inbox/ada', seq, state(seq));
  await store.commit(batch({ ...part, messages: [message({ id: `m${seq}` })] }));
  process.stdout.write(`stored ${seq}\n`);
}
