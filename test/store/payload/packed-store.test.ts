import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { StoppedError } from '../../../src/protocol/errors.ts';
import { dropUnusedChunks } from '../../../src/store/memory/memory-chunks.ts';
import { MemoryStore } from '../../../src/store/memory/memory-store.ts';
import { aesGcmCodec } from '../../../src/store/payload/aes-gcm-codec.ts';
import { PackedStore } from '../../../src/store/payload/packed-store.ts';
import { openReadOnlyStore } from '../../../src/store/sqlite/read-only.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { describeStore } from '../contract.ts';
import { batch, deadLetter, turn } from '../rows.ts';
import { temporaryStore } from '../sqlite/temporary.ts';
import { prose } from './prose.ts';

const disks = new WeakMap<object, MemoryStore>();

function packedMemory(inner = new MemoryStore()): PackedStore {
  const store = new PackedStore(inner);
  disks.set(store, inner);
  return store;
}

describeStore('PackedStore over MemoryStore', {
  open: () => Promise.resolve(packedMemory()),
  survivesReopen: (closed) => {
    const { data } = disks.get(closed) as MemoryStore;
    return Promise.resolve(packedMemory(new MemoryStore(data)));
  },
  checksRows: false,
  packs: true,
});

describeStore('PackedStore over SqliteStore', {
  open: async () => new PackedStore(await openSqliteStore({ path: temporaryStore() })),
  packs: true,
  survivesReopen: async (closed) => new PackedStore(await openSqliteStore({ path: closed.name })),
});

test('history is pruned while it is written: what is left is whole, and nothing else is left', async () => {
  const path = temporaryStore();
  const store = new PackedStore(await openSqliteStore({ path }));
  const text = (seq: number): string => prose(40_000 + 1_000 * seq);
  const calls: Promise<unknown>[] = [];
  for (let seq = 0; seq < 60; seq++) {
    calls.push(store.commit(batch(turn('inbox/ada', seq, text(seq)))));
    // Not awaited: which chunks are there is decided by the order of the calls alone.
    if (seq % 3 === 2) calls.push(store.prune({ what: 'checkpoints', keepPerActor: 1, from: 0 }));
    if (seq % 20 === 19) calls.push(store.listCheckpoints('inbox/ada'));
  }
  await Promise.all(calls);
  const stored = await store.listCheckpoints('inbox/ada');
  expect(stored.map(({ seq }) => seq)).toEqual([59]);
  expect(stored[0]?.snapshotJson).toBe(text(59));
  await store.close();
  const db = new Database(path, { readonly: true });
  const total = db.prepare('SELECT sum(length(data)) FROM chunk_data').pluck().get();
  expect(total).toBeLessThan(text(59).length);
  expect(db.prepare('SELECT count(*) FROM chunks WHERE refs <> 1').pluck().get()).toBe(0);
  db.close();
});

test('a read that is under way when the store is closed is finished; later ones are refused', async () => {
  const store = new PackedStore(await openSqliteStore({ path: temporaryStore() }));
  await store.commit(batch(turn('inbox/ada', 0, prose(50_000))));
  const read = store.listCheckpoints('inbox/ada');
  const closed = store.close();
  await expect(store.listRuns()).rejects.toBeInstanceOf(StoppedError);
  expect((await read)[0]?.snapshotJson).toBe(prose(50_000));
  await closed;
});

test('chunks that somebody prunes between a row and its chunks are no damage', async () => {
  const inner = new MemoryStore();
  const store = new PackedStore(inner);
  await store.commit(batch(turn('inbox/ada', 0, prose(50_000))));
  await store.commit(batch(turn('inbox/ada', 1, '{}')));
  const load = inner.loadChunks.bind(inner);
  inner.loadChunks = (lists) => {
    inner.data.checkpoints.get('inbox/ada')?.shift();
    dropUnusedChunks(inner.data);
    inner.loadChunks = load;
    return load(lists);
  };
  expect((await store.listCheckpoints('inbox/ada')).map(({ seq }) => seq)).toEqual([1]);
});

test('another process reads long and encrypted texts too', async () => {
  const path = temporaryStore();
  const codec = aesGcmCodec({ keys: { k: Buffer.alloc(32, 'k') }, current: 'k' });
  const store = new PackedStore(await openSqliteStore({ path }), { codec });
  await store.commit(batch(turn('inbox/ada', 0, prose(50_000))));
  await store.commit(batch({ deadLetters: [deadLetter()] }));
  const reader = await openReadOnlyStore(path, { codec });
  expect((await reader.listCheckpoints('inbox/ada'))[0]?.snapshotJson).toBe(prose(50_000));
  expect(await reader.listDeadLetters()).toEqual([deadLetter()]);
  await reader.close();
  await store.close();
});
