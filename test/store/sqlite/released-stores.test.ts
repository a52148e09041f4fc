import { copyFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { describe, expect, onTestFinished, test } from 'vitest';
import { readMigrations, schemaVersion } from '../../../src/store/sqlite/migrations.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { createTroupe } from '../../../src/troupe.ts';
import { startChild } from './children.ts';
import { inbox, registerRoles } from './fixtures/workload.ts';
import { temporaryStore } from './temporary.ts';

const folder = new URL('./fixtures/', import.meta.url);
const released = readdirSync(folder)
  .filter((file) => file.endsWith('.db'))
  .map((file) => ({ file, version: Number(/^version-(\d+)\.db$/.exec(file)?.[1]) }));
const newest = readMigrations().length;

/** What the version of a store knew: every row of each of its tables, of its columns only. */
type Content = ReadonlyMap<string, { readonly columns: string; readonly rows: readonly string[] }>;

function read(path: string, known?: Content): Content {
  const db = new Database(path, { readonly: true });
  const tables =
    known === undefined
      ? db
          .prepare<[], string>(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
          )
          .pluck()
          .all()
      : [...known.keys()];
  const content = new Map<string, { columns: string; rows: readonly string[] }>();
  for (const table of tables) {
    const names = db.prepare<[string], string>('SELECT name FROM pragma_table_info(?)').pluck();
    // A commit is counted by each migration; that the id stays is looked at elsewhere.
    const columns =
      known?.get(table)?.columns ?? (table === 'store' ? 'id' : names.all(table).join(', '));
    const rows = db.prepare<[], unknown[]>(`SELECT ${columns} FROM ${table}`).raw().all();
    content.set(table, { columns, rows: rows.map((row) => JSON.stringify(row)).sort() });
  }
  db.close();
  return content;
}

function fixture(file: string): string {
  const path = temporaryStore();
  copyFileSync(fileURLToPath(new URL(file, folder)), path);
  return path;
}

test('there is a store of version 1', () => {
  expect(released).toContainEqual({ file: 'version-1.db', version: 1 });
});

describe.each(released)('the released $file', ({ file, version }) => {
  test('is migrated, and keeps every value of every row', async () => {
    const path = fixture(file);
    const before = read(path);
    expect([...before].filter(([, { rows }]) => rows.length === 0)).toEqual([]);
    await (await openSqliteStore({ path })).close();
    expect(read(path, before)).toEqual(before);
    const db = new Database(path, { readonly: true });
    expect(schemaVersion(db)).toBe(newest);
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    db.close();
    expect(read(`${path}.v${version}.bak`)).toEqual(before);
  });

  test.each(Array.from({ length: newest - version }, (_, index) => version + index + 1))(
    'is of version $0 or the one before when it is killed on the way there',
    async (to) => {
      const path = fixture(file);
      const before = read(path);
      const child = startChild('migrate', path, `before the commit of ${to}`);
      expect(await child.rest()).toEqual(['killing']);
      expect(await child.ended).toBe('SIGKILL');
      expect(read(path, before)).toEqual(before);
      const db = new Database(path);
      expect(schemaVersion(db)).toBe(to - 1);
      expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
      db.close();
      await (await openSqliteStore({ path })).close();
      expect(read(path, before)).toEqual(before);
    },
  );

  test('goes on with its work', async () => {
    const troupe = await createTroupe({ store: fixture(file) });
    onTestFinished(() => troupe.stop());
    const cuts: string[] = [];
    registerRoles(troupe, cuts);
    troupe.register(inbox);
    expect(await troupe.request('inbox/ada', { type: 'inbox.list' })).toEqual([
      'Dear Ada — Łódź, 東京',
      'Yours, Charles',
    ]);
    const run = troupe.run('order');
    expect(await run.task('hat').status()).toMatchObject({ state: 'done', attempts: 2 });
    const shod = new Promise<void>((resolve) => {
      troupe.on('turn', ({ address, state }) => {
        if (address === 'task/order/shoes' && state === 'done') resolve();
      });
    });
    await run.task('coat').answer('colour', 'red', 'ada');
    await shod;
    // The cloth of the coat had been cut by the version that made the store.
    expect(cuts).toEqual(['shoes']);
    expect(await run.task('coat').status()).toMatchObject({ state: 'done', attempts: 1 });
  });
});
