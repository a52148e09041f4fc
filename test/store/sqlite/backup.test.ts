import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { ConfigurationError, ConflictError } from '../../../src/protocol/errors.ts';
import { openReadOnlyStore } from '../../../src/store/sqlite/read-only.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import {
  findUnfinishedBackups,
  unfinishedName,
} from '../../../src/store/sqlite/unfinished-backups.ts';
import { createTroupe } from '../../../src/troupe.ts';
import { endedRun } from '../pruning-contract.ts';
import { batch, message, turn } from '../rows.ts';
import { type Child, startChild } from './children.ts';
import { temporaryDirectory, temporaryStore } from './temporary.ts';

/** The last turn that is said to be stored when a line of another kind comes, and that line. */
async function until(child: Child, kind: RegExp): Promise<{ stored: number; line: string }> {
  let stored = -1;
  for (;;) {
    const line = await child.line();
    if (kind.test(line)) return { stored, line };
    if (!line.startsWith('stored ')) throw new Error(`Expected ${kind}, got ${line}.`);
    stored = Number(line.slice('stored '.length));
  }
}

/** The store as of one moment: the newest turn, its message waiting, the turns before it without a gap. */
function checkCopy(path: string): number {
  const db = new Database(path, { readonly: true });
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
  expect(db.pragma('foreign_key_check')).toEqual([]);
  expect(db.pragma('auto_vacuum', { simple: true })).toBe(2);
  const seq = db
    .prepare<[], number>("SELECT seq FROM actors WHERE address = 'inbox/ada'")
    .pluck()
    .get();
  const seqs = db.prepare<[], number>('SELECT seq FROM checkpoints ORDER BY seq').pluck().all();
  const waiting = db.prepare('SELECT id FROM messages').pluck().all();
  db.close();
  expect(seqs.at(-1)).toBe(seq);
  expect(seqs).toEqual(seqs.map((_, i) => (seqs[0] ?? 0) + i));
  expect(seqs.length).toBeGreaterThanOrEqual(Math.min(100, (seq ?? 0) + 1));
  expect(waiting).toEqual([`m${seq}`]);
  return seq ?? -1;
}

test('backup after backup under load, each complete and of its own moment', async () => {
  const path = temporaryStore();
  const child = startChild('backup', path);
  const copies = join(temporaryDirectory(), 'copies');
  for (let copy = 0; copy < 6; copy++) {
    for (let lines = 0; lines < 60; lines++) await until(child, /^stored/);
    const file = `${copies}-${copy}.db`;
    child.say(`backup ${file}`);
    const { stored: before } = await until(child, /^backing up$/);
    const { stored: during, line } = await until(child, /^(?:backup|refused)/);
    expect(line).toBe(`backup ${statSync(file).size}`);
    const seq = checkCopy(file);
    expect(seq).toBeGreaterThanOrEqual(before);
    // Turns went on while it was made.
    expect(seq).toBeLessThanOrEqual(Math.max(during, before) + 1);
  }
  child.say('stop');
  expect(await child.ended).toBe(0);
  // A backup is a store, and goes on from its own moment.
  const store = await openSqliteStore({ path: `${copies}-3.db` });
  const [ada] = await store.loadActors(['inbox/ada']);
  await store.commit(batch(turn('inbox/ada', (ada?.seq ?? 0) + 1)));
  await store.close();
});

test('a backup that is killed on its way has no name, and one that is named is whole', {
  timeout: 120_000,
}, async () => {
  const path = temporaryStore();
  const big = await openSqliteStore({ path });
  for (let i = 0; i < 20; i++) {
    await big.commit(
      batch({ checkpoints: turn(`inbox/${i}`, 0, 'y'.repeat(1_000_000)).checkpoints ?? [] }),
    );
  }
  await big.close();
  let named = 0;
  for (let life = 0; life < 6; life++) {
    const directory = temporaryDirectory();
    const file = join(directory, 'copy.db');
    const child = startChild('backup', path);
    await until(child, /^stored/);
    child.say(`backup ${file}`);
    await until(child, /^backing up$/);
    // Later in each life: before it begins, in the midst of it, when it is done.
    for (let lines = 0; lines < life * 8; lines++) await child.line();
    child.kill('SIGKILL');
    expect(await child.ended).toBe('SIGKILL');
    if (existsSync(file)) {
      named++;
      const db = new Database(file, { readonly: true });
      expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
      db.close();
    }
    for (const left of readdirSync(directory))
      expect(left).toMatch(/^copy\.db(\.\d+-\w+-\w+\.part.*)?$/);
  }
  expect(named).toBeLessThan(6);
});

test('what a backup that was killed in its midst has left, the next one removes', {
  timeout: 120_000,
}, async () => {
  const path = temporaryStore();
  const big = await openSqliteStore({ path, durability: 'normal' });
  const text = 'y'.repeat(2_000_000);
  for (let i = 0; i < 20; i++) {
    await big.commit(batch({ checkpoints: turn(`inbox/${i}`, 0, text).checkpoints ?? [] }));
  }
  await big.close();
  const directory = temporaryDirectory();
  const rests = (): string[] => readdirSync(directory).filter((name) => name.includes('.part'));
  // One that was ready before it was killed has left nothing: once more then.
  for (let life = 0; life < 5 && rests().length === 0; life++) {
    const child = startChild('backup', path);
    await until(child, /^stored/);
    const { promise: begun, resolve } = Promise.withResolvers<void>();
    const watcher = watch(directory, () => rests().length > 0 && resolve());
    child.say(`backup ${join(directory, `copy-${life}.db`)}`);
    await begun;
    child.kill('SIGKILL');
    watcher.close();
    expect(await child.ended).toBe('SIGKILL');
  }
  expect(rests()).not.toEqual([]);
  expect(findUnfinishedBackups(directory).map((file) => basename(file))).toEqual(rests());
  const next = await openSqliteStore({ path: temporaryStore() });
  await next.backup(join(directory, 'next.db'));
  await next.close();
  expect(rests()).toEqual([]);
});

test('of what looks like an unfinished backup only that goes which nobody makes any more', async () => {
  const store = await openSqliteStore({ path: temporaryStore() });
  const directory = temporaryDirectory();
  const mine = basename(unfinishedName(join(directory, 'a.db')));
  const [, start = ''] = /-([0-9a-f]{16})-/.exec(mine) ?? [];
  // The same number, of a process that began at another time; and a process that is not there.
  const reused = mine.replace(start, `${start.slice(0, 8)}00000000`);
  const gone = mine.replace(/\.\d+-/, '.4194300-');
  // Of another machine, silent for a minute and for two days; and of a Troupe that gave shorter names.
  const elsewhere = mine.replace(start, `00000000${start.slice(8)}`);
  const silent = elsewhere.replace('a.db', 'b.db');
  const stay = [mine, elsewhere, 'notes.part', 'a.db.12-34.part', 'mine.123-abcdef01.part'];
  for (const name of [...stay, reused, gone, `${gone}-journal`, silent, 'c.db.12-abcdef01.part']) {
    writeFileSync(join(directory, name), 'x');
  }
  const old = new Date(Date.now() - 2 * 86_400_000);
  for (const name of [silent, 'c.db.12-abcdef01.part']) utimesSync(join(directory, name), old, old);
  mkdirSync(join(directory, `${gone}.dir.4194300-${start}-00000000.part`));
  symlinkSync('notes.part', join(directory, `l.4194300-${start}-00000000.part`));
  expect(
    findUnfinishedBackups(directory)
      .map((file) => basename(file))
      .sort(),
  ).toEqual([reused, gone, `${gone}-journal`, silent, 'c.db.12-abcdef01.part'].sort());
  await store.backup(join(directory, 'whole.db'));
  await store.close();
  expect(readdirSync(directory).sort()).toEqual(
    [
      ...[...stay, 'whole.db'],
      ...[`${gone}.dir.4194300-${start}-00000000.part`, `l.4194300-${start}-00000000.part`],
    ].sort(),
  );
  expect(findUnfinishedBackups(join(directory, 'none'))).toEqual([]);
});

test('nothing is overwritten, and nothing is left of what was refused', async () => {
  const store = await openSqliteStore({ path: temporaryStore() });
  const directory = temporaryDirectory();
  for (const [file, there] of [
    ['a.db', 'a.db'],
    ['b.db', 'b.db-wal'],
  ] as const) {
    writeFileSync(join(directory, there), 'precious');
    const refused = store.backup(join(directory, file));
    await expect(refused).rejects.toBeInstanceOf(ConflictError);
    await expect(refused).rejects.toThrow(/There is a file .* already|there is a file .* already/);
    expect(readFileSync(join(directory, there), 'utf8')).toBe('precious');
  }
  await expect(store.backup(join(directory, 'none', 'c.db'))).rejects.toThrow(/Could not copy/);
  expect(readdirSync(directory).sort()).toEqual(['a.db', 'b.db-wal']);
  await store.close();
  await expect(store.backup(join(directory, 'd.db'))).rejects.toThrow(/closed/);
});

test('whoever only reads can make one, with an owner and without', async () => {
  const path = temporaryStore();
  const owner = await openSqliteStore({ path });
  await owner.commit(batch({ ...turn('inbox/ada', 0), messages: [message({ id: 'm0' })] }));
  for (const file of ['one.db', 'two.db']) {
    const reader = await openReadOnlyStore(path);
    const copy = join(dirname(path), file);
    expect(await reader.backup(copy)).toBe(statSync(copy).size);
    await reader.close();
    await owner.close();
    expect(checkCopy(copy)).toBe(0);
  }
});

test('a store in memory has no file to copy', async () => {
  const store = await openSqliteStore({ path: ':memory:' });
  await expect(store.backup('/tmp/never.db')).rejects.toBeInstanceOf(ConfigurationError);
  await store.close();
});

test('space that history leaves goes back to the file system', async () => {
  const path = temporaryStore();
  const full = await openSqliteStore({ path, durability: 'normal' });
  await full.commit(endedRun('r1', 3_000, 1));
  await full.close();
  const before = statSync(path).size;
  const store = await openSqliteStore({ path, durability: 'normal' });
  for (let from: number | null = 0; from !== null; ) {
    from = (await store.prune({ what: 'runs', endedBefore: 2, busy: [], from })).next;
  }
  let bytes = 0;
  for (let from: number | null = 0; from !== null; ) {
    const pruned = await store.prune({ what: 'space', mayStay: 0, mayStayBytes: 0, from });
    bytes += pruned.bytes;
    from = pruned.next;
  }
  expect(bytes).toBeGreaterThan(1_000_000);
  await store.close();
  expect(statSync(path).size).toBeLessThan(before / 4);
  const again = await openSqliteStore({ path });
  expect(await again.listActors()).toEqual([]);
  await again.close();
});

test('a small store, or one that is soon full again, keeps its empty space', async () => {
  const store = await openSqliteStore({ path: temporaryStore(), durability: 'normal' });
  await store.commit(endedRun('r1', 500, 1));
  await store.prune({ what: 'runs', endedBefore: 2, busy: [], from: 0 });
  const space = { what: 'space', from: 0 } as const;
  expect(await store.prune({ ...space, mayStay: 0, mayStayBytes: 2 ** 24 })).toMatchObject({
    bytes: 0,
  });
  expect(await store.prune({ ...space, mayStay: 1, mayStayBytes: 0 })).toMatchObject({ bytes: 0 });
  await store.close();
});

test('a runtime copies its store, and makes none for an option that cannot be', async () => {
  const directory = temporaryDirectory();
  const store = join(directory, 'state.db');
  await expect(createTroupe({ store, retention: { checkpointsPerActor: 0 } })).rejects.toThrow(
    /retention: expected checkpointsPerActor to be a positive integer, got 0/,
  );
  expect(existsSync(store)).toBe(false);
  const troupe = await createTroupe({ store, retention: false });
  const copy = join(directory, 'copy.db');
  expect(await troupe.backup(copy)).toBe(statSync(copy).size);
  await expect(troupe.prune()).rejects.toThrow(/keeps all history \(retention: false\)/);
  expect(await troupe.prune({ checkpointsPerActor: 1 })).toMatchObject({ removed: {} });
  await troupe.stop();
  const again = await createTroupe({ store: copy });
  await again.stop();
});
