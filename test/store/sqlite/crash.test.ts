import { existsSync } from 'node:fs';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { PackedStore } from '../../../src/store/payload/packed-store.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { prose } from '../payload/prose.ts';
import { batch, turn } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryStore } from './temporary.ts';

const NFS = '0x6969';

test.each([
  { killedAt: 'store.before-begin', stored: 2, durability: 'full', fileSystem: '' },
  { killedAt: 'store.mid-transaction', stored: 2, durability: 'full', fileSystem: '' },
  { killedAt: 'store.before-commit', stored: 2, durability: 'full', fileSystem: '' },
  { killedAt: 'store.after-commit', stored: 3, durability: 'full', fileSystem: '' },
  { killedAt: 'store.mid-transaction', stored: 2, durability: 'normal', fileSystem: '' },
  { killedAt: 'store.after-commit', stored: 3, durability: 'normal', fileSystem: '' },
  { killedAt: 'store.mid-transaction', stored: 2, durability: 'full', fileSystem: NFS },
  { killedAt: 'store.after-commit', stored: 3, durability: 'full', fileSystem: NFS },
])(
  'SIGKILL in the third commit at $killedAt leaves $stored $durability $fileSystem',
  async ({ killedAt, stored, durability, fileSystem }) => {
    const path = temporaryStore();
    const child = startChild('crash', path, killedAt, '3', durability, fileSystem);
    const lines = await child.rest();
    expect(await child.ended).toBe('SIGKILL');
    expect(lines).toEqual(['stored 0', 'stored 1']);

    const store = await openSqliteStore({ path });
    const seqs = (await store.listCheckpoints('inbox/ada')).map(({ seq }) => seq);
    expect(seqs).toEqual([0, 1, 2].slice(0, stored));
    const { messages } = await store.loadPending();
    expect(messages.map(({ id }) => id)).toEqual(seqs.map((seq) => `m${seq}`));
    expect(await store.listActors()).toMatchObject([{ seq: stored - 1 }]);
    await store.close();
    expect(existsSync(`${path}.lock`)).toBe(false);
  },
);

test.each([
  { killedAt: 'store.before-begin', stored: 2 },
  { killedAt: 'store.mid-transaction', stored: 2 },
  { killedAt: 'store.before-commit', stored: 2 },
  { killedAt: 'store.after-commit', stored: 3 },
])('SIGKILL at $killedAt leaves $stored long texts whole, and no chunk of another', async (row) => {
  const path = temporaryStore();
  const child = startChild('crash', path, row.killedAt, '3', 'full', '', '', '50000');
  expect(await child.ended).toBe('SIGKILL');
  const store = new PackedStore(await openSqliteStore({ path }));
  const texts = (await store.listCheckpoints('inbox/ada')).map((one) => one.snapshotJson);
  expect(texts).toEqual([1, 2, 3].slice(0, row.stored).map((n) => prose(50_000 * n)));
  // It goes on where it was, without knowing what is stored.
  await store.commit(batch(turn('inbox/ada', row.stored, prose(300_000))));
  expect((await store.loadActors(['inbox/ada']))[0]?.snapshotJson).toBe(prose(300_000));
  await store.close();
  const db = new Database(path, { readonly: true });
  const count = (sql: string): unknown => db.prepare(sql).pluck().get();
  expect(count('SELECT count(*) FROM chunks')).toBe(count('SELECT count(*) FROM chunk_data'));
  expect(count('SELECT count(*) FROM chunks WHERE refs = 0')).toBe(0);
  expect(count('SELECT count(*) FROM chunk_lists WHERE refs = 0')).toBe(0);
  // What the texts share is there once: all of them together take less than the last one.
  expect(count('SELECT sum(length(data)) FROM chunk_data')).toBeLessThan(300_000);
  db.close();
});

test('SIGKILL at any moment, again and again, also around checkpoints of the log', async () => {
  const path = temporaryStore();
  for (let life = 0; life < 8; life++) {
    const child = startChild('writer', path, life % 2 === 0 ? 'normal' : 'full');
    let acknowledged = -1;
    const note = (line: string): void => {
      expect(line).toMatch(/^\d+$/);
      acknowledged = Number(line);
    };
    for (let lines = 0; lines < 40 + 60 * life; lines++) note(await child.line());
    child.kill('SIGKILL');
    for (const line of await child.rest()) note(line);
    expect(await child.ended).toBe('SIGKILL');
    // Only looked at: what is in the log stays there for the next life.
    const db = new Database(path, { readonly: true });
    const stored = db.prepare<[], number>('SELECT seq FROM checkpoints ORDER BY seq').pluck().all();
    const waiting = db.prepare('SELECT id FROM messages').pluck().all();
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    db.close();
    expect(stored).toEqual(stored.map((_, seq) => seq));
    expect(stored.length - 1).toBeGreaterThanOrEqual(acknowledged);
    expect(waiting).toEqual([`m${stored.length - 1}`]);
  }
});

test.each(['lock.created', 'lock.stolen'])(
  'SIGKILL at %s leaves a store that opens',
  async (point) => {
    const path = temporaryStore();
    if (point === 'lock.stolen') {
      const first = startChild('crash', path, 'lock.created', '1');
      expect(await first.ended).toBe('SIGKILL');
    }
    const child = startChild('crash', path, point, '1');
    expect(await child.ended).toBe('SIGKILL');
    expect(existsSync(`${path}.lock`)).toBe(true);
    expect(existsSync(path)).toBe(false);
    const store = await openSqliteStore({ path });
    await store.commit(batch());
    await store.close();
  },
);

test('a fault point that throws rolls the commit back and is what the caller is told', async () => {
  const path = temporaryStore();
  const fault = new Error('injected');
  let armed = '';
  const store = await openSqliteStore({
    path,
    faultPoint(name) {
      if (name === armed) throw fault;
    },
  });
  for (const point of ['store.before-begin', 'store.mid-transaction', 'store.before-commit']) {
    armed = point;
    await expect(store.commit(batch({ clearedSteps: ['x'] }))).rejects.toBe(fault);
  }
  armed = '';
  await store.commit(batch());
  await store.close();
});
