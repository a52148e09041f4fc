import { expect, test } from 'vitest';
import { LockConflictError } from '../../../src/protocol/errors.ts';
import { MemoryData } from '../../../src/store/memory/memory-data.ts';
import { MemoryStore } from '../../../src/store/memory/memory-store.ts';
import { describeStore, type StoreAdapter } from '../contract.ts';
import { describePruning } from '../pruning-contract.ts';
import { batch, message, tasks, turn } from '../rows.ts';

const adapter: StoreAdapter = {
  open: () => Promise.resolve(new MemoryStore()),
  survivesReopen: (closed) => Promise.resolve(new MemoryStore((closed as MemoryStore).data)),
  checksRows: false,
};
describeStore('MemoryStore', adapter);
describePruning('MemoryStore', adapter);

test('a store that is dropped without closing leaves what it committed to the next', async () => {
  const data = new MemoryData();
  const crashed = new MemoryStore(data);
  await crashed.commit(batch(turn('inbox/ada', 0)));
  const next = new MemoryStore(data);
  expect(await next.listActors()).toHaveLength(1);
  // The crashed one is a zombie from now on, whatever still runs in it.
  await expect(crashed.commit(batch({ messages: [message()] }))).rejects.toBeInstanceOf(
    LockConflictError,
  );
  expect((await next.loadPending()).messages).toEqual([]);
});

test('a copy of the data goes its own way', async () => {
  const store = new MemoryStore();
  await store.commit(batch({ ...turn('inbox/ada', 0), projections: tasks({ task: 'a' }) }));
  const copy = new MemoryStore(store.data.copy());
  const claim = { run: 'r1', agent: 'writer', limit: 1 };
  await store.commit(batch({ ...turn('inbox/ada', 1), messages: [message()] }));
  expect(await store.claimTasks({ ...claim, token: 'original' })).toEqual(['a']);
  expect(await copy.listCheckpoints('inbox/ada')).toHaveLength(1);
  expect((await copy.loadPending()).messages).toEqual([]);
  expect(await copy.claimTasks({ ...claim, token: 'copy' })).toEqual(['a']);
});

test('100 000 ready tasks are claimed without sorting them each time', async () => {
  const store = new MemoryStore();
  const rows = Array.from({ length: 100_000 }, (_, i) => ({ task: `t${i}`, position: i }));
  await store.commit(batch({ projections: tasks(...rows) }));
  const seen: string[] = [];
  for (let i = 0; i < 8_334; i++) {
    const claim = { run: 'r1', agent: 'writer', limit: 12, token: `c${i}` };
    seen.push(...(await store.claimTasks(claim)));
  }
  expect(seen).toEqual(rows.map(({ task }) => task));
});
