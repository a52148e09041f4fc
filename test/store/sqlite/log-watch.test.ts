import { statSync } from 'node:fs';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { LOG_LIMIT_BYTES } from '../../../src/store/sqlite/log-watch.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, turn } from '../rows.ts';
import { temporaryStore } from './temporary.ts';

// C05. What a test like this writes at once: more than a million turns would take minutes.
const TEXT = 'x'.repeat(2 ** 20);

test('a log that a reader keeps from being taken over is told of once, and cut back when the reader is gone', async () => {
  const path = temporaryStore();
  const warnings: string[] = [];
  const store = await openSqliteStore({
    path,
    durability: 'normal',
    onWarning: (message) => warnings.push(message),
  });
  let seq = 0;
  const write = async (megabytes: number): Promise<void> => {
    const end = seq + megabytes;
    while (seq < end) await store.commit(batch(turn('inbox/ada', seq++, TEXT)));
  };
  const logBytes = (): number => statSync(`${path}-wal`).size;

  await write(80);
  expect(logBytes()).toBeLessThan(LOG_LIMIT_BYTES);
  expect(warnings).toEqual([]);

  const reader = new Database(path, { readonly: true });
  reader.exec('BEGIN');
  expect(reader.prepare('SELECT count(*) FROM checkpoints').pluck().get()).toBe(80);
  await write(256);
  // The fault has fired: the log is larger than ever it should be.
  expect(logBytes()).toBeGreaterThan(LOG_LIMIT_BYTES);
  expect(warnings).toEqual([
    expect.stringMatching(
      /^The log .*state\.db-wal has grown to \d+ MB and cannot be taken over .* End it/,
    ),
  ]);

  // The reader never waits for the writer, nor the writer for it.
  expect(reader.prepare('SELECT count(*) FROM checkpoints').pluck().get()).toBe(80);
  reader.close();
  await write(8);
  expect(logBytes()).toBeLessThanOrEqual(LOG_LIMIT_BYTES);

  const again = new Database(path, { readonly: true });
  again.exec('BEGIN');
  again.prepare('SELECT count(*) FROM checkpoints').pluck().get();
  await write(200);
  expect(warnings).toHaveLength(2);
  again.close();
  await store.close();
});
