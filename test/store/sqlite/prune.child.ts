// Opens a store that was filled, and removes history slice by slice until there is none, and is killed in the midst of it.
// Arguments: path, how many slices are done before.
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import type { PruneSlice } from '../../../src/store/store.ts';

const [, , path = '', slices = '0'] = process.argv;
const store = await openSqliteStore({ path });
let left = Number(slices);
for (const slice of [
  { what: 'runs', endedBefore: 10, busy: [] },
  { what: 'checkpoints', keepPerActor: 5 },
  { what: 'space', mayStay: 0, mayStayBytes: 0 },
] as const) {
  for (let from: number | null = 0; from !== null; ) {
    const asked = store.prune({ ...slice, from } as PruneSlice);
    // The writer has it, and is in the middle of it or has not begun.
    if (left-- === 0) setImmediate(() => process.kill(process.pid, 'SIGKILL'));
    from = (await asked).next;
  }
}
await store.close();
