import { cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import Database from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import {
  APPLICATION_ID,
  readMigrations,
  schemaVersion,
} from '../../../src/store/sqlite/migrations.ts';
import { openReadOnlyStore } from '../../../src/store/sqlite/read-only.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, turn } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryDirectory, temporaryStore } from './temporary.ts';

const released = new URL('../../../src/store/sqlite/schema/', import.meta.url);

/** The product's schema files and those of a future version. */
function schemaWith(files: Readonly<Record<string, string>>): URL {
  const directory = join(temporaryDirectory(), 'schema');
  mkdirSync(directory);
  cpSync(released, directory, { recursive: true });
  for (const [name, sql] of Object.entries(files)) writeFileSync(join(directory, name), sql);
  return pathToFileURL(`${directory}/`);
}

const digits = (version: number): string => String(version).padStart(4, '0');
const next = readMigrations().length + 1;
const nextFile = `${digits(next)}_notes.sql`;
const nextSql = `-- ${digits(next)} notes: what people write.
CREATE TABLE notes (text TEXT NOT NULL) STRICT;
INSERT INTO notes (text) SELECT address FROM actors;
`;

async function hashes(...files: readonly string[]): Promise<readonly string[]> {
  return startChild('hash', ...files).rest();
}

test('the whole schema is known', async () => {
  const path = temporaryStore();
  await (await openSqliteStore({ path })).close();
  const db = new Database(path, { readonly: true });
  const rows = db
    .prepare<[], { readonly name: string; readonly sql: string }>(
      "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )
    .all();
  const header = `-- user_version ${schemaVersion(db)}, application_id ${APPLICATION_ID}\n\n`;
  const strict = db.pragma('table_list') as readonly {
    name: string;
    strict: number;
    type: string;
  }[];
  db.close();
  const loose = strict.filter(
    (t) => t.type === 'table' && !t.name.startsWith('sqlite_') && !t.strict,
  );
  expect(loose).toEqual([]);
  await expect(header + rows.map(({ sql }) => `${sql};\n`).join('\n')).toMatchFileSnapshot(
    'schema.golden.sql',
  );
});

describe('schema files', () => {
  test('begin with their number and purpose, without a gap', () => {
    const names = readMigrations().map(({ name }) => name);
    expect(names[0]).toBe('0001_core');
    expect(names.map((name) => name.slice(0, 5))).toEqual(
      names.map((_, index) => `${digits(index + 1)}_`),
    );
  });

  test.each([
    { file: `${digits(next + 1)}_gap.sql`, sql: `-- ${digits(next + 1)} gap: x.` },
    { file: `${digits(next)}_quiet.sql`, sql: 'CREATE TABLE x (y);' },
    { file: `${digits(next)}_quiet.sql`, sql: `-- ${digits(next)} loud: x.` },
  ])('$file that begins with "$sql" is refused', ({ file, sql }) => {
    const schema = schemaWith({ [file]: sql });
    expect(() => readMigrations(schema)).toThrow(
      `Expected schema file ${next} to be named ${digits(next)}_`,
    );
  });
});

describe('an older store', () => {
  test('is migrated, keeps its rows and its id, and leaves a backup of before', async () => {
    const path = temporaryStore();
    const old = await openSqliteStore({ path });
    await old.commit(batch(turn('inbox/ada', 0)));
    await old.close();
    const store = await openSqliteStore({ path, schema: schemaWith({ [nextFile]: nextSql }) });
    expect(store.id).toBe(old.id);
    expect(await store.listActors()).toHaveLength(1);
    await store.close();
    const db = new Database(path, { readonly: true });
    expect(db.prepare('SELECT text FROM notes').pluck().all()).toEqual(['inbox/ada']);
    expect(schemaVersion(db)).toBe(next);
    db.close();
    const backup = await openSqliteStore({ path: `${path}.v${next - 1}.bak` });
    expect(await backup.listActors()).toHaveLength(1);
    await backup.close();
  });

  test('is not read by a reader that expects the newer one', async () => {
    const path = temporaryStore();
    await (await openSqliteStore({ path })).close();
    const db = new Database(path);
    db.pragma(`user_version = ${next - 2}`);
    db.close();
    await expect(openReadOnlyStore(path)).rejects.toThrow(/written by an older Troupe/);
  });

  test.each([
    { killedAt: `in ${next}`, sql: `${nextSql}SELECT end_process();` },
    { killedAt: `before the commit of ${next}`, sql: nextSql },
  ])('has one version or the other when it is killed $killedAt', async ({ killedAt, sql }) => {
    const path = temporaryStore();
    const old = await openSqliteStore({ path });
    await old.commit(batch(turn('inbox/ada', 0)));
    await old.close();
    const child = startChild('migrate', path, killedAt, nextFile, sql);
    expect(await child.rest()).toEqual(['killing']);
    expect(await child.ended).toBe('SIGKILL');
    const db = new Database(path);
    expect(schemaVersion(db)).toBe(next - 1);
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    expect(db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'notes'").get()).toBeUndefined();
    db.close();
    const store = await openSqliteStore({ path, schema: schemaWith({ [nextFile]: nextSql }) });
    expect(await store.listActors()).toHaveLength(1);
    await store.close();
  });

  test('is left at its version by a step that fails', async () => {
    const path = temporaryStore();
    await (await openSqliteStore({ path })).close();
    const schema = schemaWith({ [nextFile]: `${nextSql}CREATE TABLE actors (x);` });
    await expect(openSqliteStore({ path, schema })).rejects.toThrow(/already exists/);
    const store = await openSqliteStore({ path });
    expect(await store.listActors()).toEqual([]);
    await store.close();
  });
});

test('a newer store is refused and not a byte of it changes, nor of its log', async () => {
  const path = temporaryStore();
  const schema = schemaWith({ [nextFile]: nextSql });
  await (await openSqliteStore({ path, schema })).close();
  const refused = async (): Promise<void> => {
    await expect(openSqliteStore({ path })).rejects.toMatchObject({ code: 'configuration' });
    await expect(openSqliteStore({ path })).rejects.toThrow(
      `schema version ${next}, this one knows ${next - 1}`,
    );
    await expect(openReadOnlyStore(path)).rejects.toThrow(/written by a newer Troupe/);
  };
  const before = await hashes(path);
  await refused();
  expect(await hashes(path)).toEqual(before);

  // The same with work in the write-ahead log that a crash has left there.
  const child = startChild('crash', path, 'store.before-begin', '3', 'full', '', schema.href);
  expect(await child.ended).toBe('SIGKILL');
  const files = [path, `${path}-wal`];
  const left = await hashes(...files);
  await refused();
  expect(await hashes(...files)).toEqual(left);
  const store = await openSqliteStore({ path, schema });
  expect(await store.listCheckpoints('inbox/ada')).toHaveLength(2);
  await store.close();
  expect(readdirSync(dirname(path)).filter((file) => file.startsWith('state.db'))).toEqual([
    'state.db',
  ]);
});

test('a store that was being made when the process was killed is made anew', async () => {
  const path = temporaryStore();
  writeFileSync(`${path}.new`, 'half a database');
  writeFileSync(`${path}.new-journal`, 'half a journal');
  const store = await openSqliteStore({ path });
  expect(await store.listActors()).toEqual([]);
  await store.close();
  expect(existsSync(`${path}.new`)).toBe(false);
  expect(existsSync(`${path}.new-journal`)).toBe(false);
});
