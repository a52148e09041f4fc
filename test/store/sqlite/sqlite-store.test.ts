import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Worker } from 'node:worker_threads';
import Database from 'better-sqlite3';
import { afterAll, describe, expect, test } from 'vitest';
import { SqliteConnection } from '../../../src/store/sqlite/sqlite-connection.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { cpuTimeMs } from '../../cpu-time.ts';
import { describeStore, type StoreAdapter } from '../contract.ts';
import { describePruning } from '../pruning-contract.ts';
import { actor, batch, checkpoint, message, turn } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryStore } from './temporary.ts';

const directory = mkdtempSync(join(tmpdir(), 'troupe-contract-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let stores = 0;
const freshPath = (): string => join(directory, `${stores++}.db`);
const NFS = 0x6969;

const inFile: StoreAdapter = {
  open: () => openSqliteStore({ path: freshPath() }),
  survivesReopen: (closed) => openSqliteStore({ path: closed.name }),
};
describeStore('SqliteStore in a file', inFile);
describePruning('SqliteStore in a file', inFile);

describeStore('SqliteStore on a network file system', {
  open: () => openSqliteStore({ path: freshPath(), fileSystemType: NFS }),
  survivesReopen: (closed) => openSqliteStore({ path: closed.name, fileSystemType: NFS }),
});

describe('the writer thread', () => {
  test('starts and backs up in a program that was given on the command line', async () => {
    const store = new URL('../../../src/store/sqlite/sqlite-store.ts', import.meta.url).href;
    const [path, copy] = [freshPath(), freshPath()];
    const program = `
      import { openSqliteStore } from ${JSON.stringify(store)};
      const store = await openSqliteStore({ path: ${JSON.stringify(path)} });
      await store.backup(${JSON.stringify(copy)});
      await store.close();
      console.log('backed up');`;
    const { stdout } = await promisify(execFile)(process.execPath, [
      ...['--input-type=module', '--eval', program],
    ]);
    expect(stdout).toBe('backed up\n');
    expect(existsSync(copy)).toBe(true);
  });

  test('commits that wait together are stored together, in their order', async () => {
    const store = await openSqliteStore({ path: temporaryStore() });
    const ids = Array.from({ length: 500 }, (_, i) => `m${i}`);
    await Promise.all(ids.map((id) => store.commit(batch({ messages: [message({ id })] }))));
    expect((await store.loadPending()).messages.map(({ id }) => id)).toEqual(ids);
    await store.close();
  });

  // Eight rows are one statement, and the rest is written row by row.
  test.each([1, 7, 8, 9, 16, 21])('%i rows of each kind are stored, and removed', async (rows) => {
    const store = await openSqliteStore({ path: temporaryStore() });
    const nths = Array.from({ length: rows }, (_, i) => i);
    const actors = nths.map((i) => actor({ address: `inbox/n${i}`, seq: 0 }));
    const checkpoints = nths.map((i) => checkpoint({ address: `inbox/n${i}`, seq: 0 }));
    const messages = nths.map((i) => message({ id: `m${i}` }));
    await store.commit(batch({ actors, checkpoints, messages }));
    expect((await store.loadPending()).messages).toEqual(messages);
    expect(await store.listActors()).toHaveLength(rows);
    for (const { address, seq } of checkpoints) {
      expect((await store.listCheckpoints(address)).map((one) => one.seq)).toEqual([seq]);
    }
    // The last row of a key counts, within one statement too.
    const twice = actors.flatMap((one) => [one, { ...one, reason: 'second' }]);
    const kept = messages.filter((_, i) => i % 5 === 0);
    const consumed = messages.filter((_, i) => i % 5 !== 0).map(({ id }) => id);
    await store.commit(batch({ actors: twice, consumed }));
    expect((await store.loadPending()).messages).toEqual(kept);
    expect((await store.listActors()).map(({ reason }) => reason)).toEqual(
      nths.map(() => 'second'),
    );
    await store.close();
  });

  test('a process may end while an idle store is open, and not while a commit is pending', async () => {
    const path = temporaryStore();
    const child = startChild('idle', path);
    expect(await child.rest()).toEqual(['opened', 'committed']);
    expect(await child.ended).toBe(0);
    const store = await openSqliteStore({ path });
    expect(await store.listActors()).toHaveLength(1);
    await store.close();
  });

  test('its death rejects what waits and what comes later, with one clear error', async () => {
    const path = temporaryStore();
    const started = new Promise<Worker>((resolve) => process.once('worker', resolve));
    const midway = Promise.withResolvers<void>();
    const store = await openSqliteStore({
      path,
      faultPoint(name) {
        if (name !== 'store.mid-transaction') return;
        midway.resolve();
        return new Promise<void>(() => undefined);
      },
    });
    const pending = store.commit(batch(turn('inbox/ada', 0)));
    const rejected = expect(pending).rejects.toMatchObject({ code: 'internal', retryable: false });
    await midway.promise;
    await (await started).terminate();
    await rejected;
    for (const late of [store.commit(batch()), store.listActors()]) {
      await expect(late).rejects.toThrow(`thread that writes the store ${path} ended unexpectedly`);
    }
    await store.close();
    const next = await openSqliteStore({ path });
    expect(await next.listActors()).toEqual([]);
    await next.commit(batch(turn('inbox/ada', 0)));
    await next.close();
  });

  test('bulk reads of 10 000 actors and 10 000 messages are checked and quick', async () => {
    const store = await openSqliteStore({ path: temporaryStore(), durability: 'normal' });
    const addresses = Array.from({ length: 10_000 }, (_, i) => `inbox/${i}`);
    const turns = addresses.map((address) => turn(address, 0, 'x'.repeat(500)));
    await store.commit(
      batch({
        actors: turns.flatMap(({ actors = [] }) => actors),
        checkpoints: turns.flatMap(({ checkpoints = [] }) => checkpoints),
        messages: addresses.map((to, i) => message({ id: `m${i}`, to })),
      }),
    );
    const begin = cpuTimeMs();
    expect(await store.loadActors(addresses)).toHaveLength(10_000);
    expect((await store.loadPending()).messages).toHaveLength(10_000);
    // 150 ms on two busy cores; the limit leaves room for slower ones.
    expect(cpuTimeMs() - begin).toBeLessThan(2_000);
    await store.close();
  });
});

test('a write that fails as it begins leaves no transaction open for the next one', async () => {
  const path = temporaryStore();
  await (await openSqliteStore({ path })).close();
  const db = new Database(path);
  const connection = new SqliteConnection(db, path);
  // In the place of a page that cannot be read.
  db.exec(
    "CREATE TRIGGER fault BEFORE UPDATE ON store BEGIN SELECT RAISE(ABORT, 'no such page'); END",
  );
  expect(() => connection.releaseLease({ name: 'x', token: 1 })).toThrow('no such page');
  db.exec('DROP TRIGGER fault');
  expect(connection.releaseLease({ name: 'x', token: 1 })).toBe(false);
  connection.close();
});

test.each([
  { journal: 'wal', flushed: false },
  { journal: 'delete', flushed: true },
])(
  'what is pruned is flushed where a power cut would damage the file: $journal',
  async ({ journal, flushed }) => {
    const path = temporaryStore();
    await (await openSqliteStore({ path })).close();
    const statements: string[] = [];
    const db = new Database(path, { verbose: (sql) => statements.push(String(sql)) });
    db.pragma(`journal_mode = ${journal}`);
    db.pragma('synchronous = FULL');
    const connection = new SqliteConnection(db, path);
    statements.length = 0;
    connection.prune({ what: 'checkpoints', keepPerActor: 1, from: 0 });
    const commit = statements.indexOf('COMMIT');
    expect(commit).toBeGreaterThan(0);
    const isLess = statements.slice(0, commit).includes('PRAGMA synchronous = NORMAL');
    expect(isLess).toBe(!flushed);
    expect(db.pragma('synchronous', { simple: true })).toBe(2);
    connection.close();
  },
);
