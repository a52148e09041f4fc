import { copyFileSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { actor, batch, checkpoint, deadLetter, message } from '../rows.ts';
import { temporaryStore } from './temporary.ts';

const page = readFileSync(new URL('../../../docs/views.md', import.meta.url), 'utf8');
const blocks = [...page.matchAll(/```sql run\n([\s\S]*?)\n((?:-- .*\n)+)```/g)].map(
  ([, sql = '', output = '']) => ({ sql, output }),
);

async function migratedStore(): Promise<string> {
  const path = temporaryStore();
  copyFileSync(fileURLToPath(new URL('./fixtures/version-1.db', import.meta.url)), path);
  await (await openSqliteStore({ path })).close();
  return path;
}

test('the page shows queries', () => {
  expect(blocks).toHaveLength(3);
});

test.each(blocks)('docs/views.md: $sql', async ({ sql, output }) => {
  const db = new Database(await migratedStore(), { readonly: true });
  const rows = db.prepare<[], unknown[]>(sql).raw().all();
  db.close();
  const expected = output.trimEnd().split('\n');
  expect(rows.map((row) => row.join(' | '))).toEqual(
    expected.map((line) =>
      line
        .slice('-- '.length)
        .split('|')
        .map((cell) => cell.trim())
        .join(' | '),
    ),
  );
});

test('the views and their columns are known, and documented', async () => {
  const db = new Database(await migratedStore(), { readonly: true });
  const views = db
    .prepare<[], string>(
      "SELECT name FROM sqlite_schema WHERE type = 'view' AND name LIKE 'troupe@_%' ESCAPE '@' ORDER BY name",
    )
    .pluck()
    .all();
  const columns = views.map((view) => {
    const names = db.prepare<[string], string>('SELECT name FROM pragma_table_info(?)').pluck();
    return { view, columns: names.all(view).join(', ') };
  });
  // Every row of a real store can be read.
  for (const view of views) db.prepare(`SELECT * FROM ${view}`).all();
  db.close();
  await expect(
    columns.map(({ view, columns: names }) => `${view}: ${names}\n`).join(''),
  ).toMatchFileSnapshot('views.golden.txt');
  for (const { view, columns: names } of columns) {
    const row = page.split('\n').find((line) => line.startsWith(`| \`${view}\``));
    expect(row?.split('|')[3]?.trim()).toBe(names);
  }
});

test('what is not readable is said to be nothing, and fails nobody', async () => {
  const path = temporaryStore();
  const store = await openSqliteStore({ path });
  await store.commit(
    batch({
      actors: [actor({ seq: 0 }), actor({ address: 'inbox/bob', seq: 0 })],
      checkpoints: [
        checkpoint({ snapshotJson: 'encrypted' }),
        checkpoint({ address: 'inbox/bob', snapshotJson: '{"value":{"open":"half"}}' }),
      ],
      messages: [message({ messageJson: '=x' })],
      deadLetters: [deadLetter({ messageJson: 'secret', at: 86_400_000 })],
    }),
  );
  await store.close();
  const db = new Database(path, { readonly: true });
  const rows = (sql: string): unknown[] => db.prepare(sql).all();
  expect(rows('SELECT address, state, updated FROM troupe_actors')).toEqual([
    { address: 'inbox/ada', state: null, updated: '1970-01-01T00:00:01.000Z' },
    { address: 'inbox/bob', state: '{"open":"half"}', updated: '1970-01-01T00:00:01.000Z' },
  ]);
  expect(rows('SELECT type, priority, message FROM troupe_messages')).toEqual([
    { type: null, priority: 'normal', message: '=x' },
  ]);
  expect(rows('SELECT type, at FROM troupe_dead_letters')).toEqual([
    { type: null, at: '1970-01-02T00:00:00.000Z' },
  ]);
  db.close();
});
