import { readdirSync, readFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import { describe, expect, test, vi } from 'vitest';
import { EMPTY_BATCH } from '../../src/store/empty-batch.ts';
import { flattenBatch } from '../../src/store/sqlite/batch-rows.ts';
import { SqliteConnection } from '../../src/store/sqlite/sqlite-connection.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { program } from '../program.ts';
import { batch, tasks, turn } from '../store/rows.ts';
import { Child } from '../store/sqlite/children.ts';
import { temporaryStore } from '../store/sqlite/temporary.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: 240_000 });

const SQLITE_FLOOR = new URL('../../src/store/sqlite/', import.meta.url);

describe('C02: whoever writes has said so before it reads', () => {
  test('every statement that writes is in a transaction that began IMMEDIATE', async () => {
    const path = temporaryStore();
    await (await openSqliteStore({ path })).close();
    const statements: string[] = [];
    const log = (statement: unknown): void => {
      statements.push(String(statement).replaceAll(/\s+/g, ' ').trim());
    };
    const db = new Database(path, { verbose: log });
    const connection = new SqliteConnection(db, path);
    const flat = flattenBatch(batch({ ...turn('inbox/ada', 0), projections: tasks({}) }));
    connection.begin();
    connection.apply(flat, () => undefined);
    connection.commit();
    connection.claimTasks({ run: 'r1', agent: 'writer', limit: 1, token: 't' });
    const claimed = connection.acquireLease({ name: 'x', holder: 'h', now: 0, ttlMs: 9 });
    const lease = { name: 'x', token: claimed.lease.token, now: 1, ttlMs: 9 };
    connection.extendLease(lease);
    connection.releaseLease(lease);
    connection.assertOwner();
    connection.applyAppSchema(['CREATE TABLE IF NOT EXISTS app_rows (n INTEGER) STRICT']);
    connection.begin();
    const step = { scope: 's', key: 'k', flat: flattenBatch(EMPTY_BATCH) };
    const insert = { sql: 'INSERT INTO app_rows VALUES (?)', values: [1] };
    connection.transact({ statements: [insert], ...step }, () => undefined);
    connection.commit();
    connection.close();

    const writes = /^(WITH .*)?\b(INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER)\b/i;
    let open = false;
    let written = 0;
    for (const statement of statements) {
      if (/^BEGIN\b/i.test(statement)) {
        expect(statement).toBe('BEGIN IMMEDIATE');
        open = true;
      } else if (/^(COMMIT|ROLLBACK$|END)/i.test(statement)) open = false;
      else if (writes.test(statement)) {
        expect({ statement, open }).toEqual({ statement, open: true });
        written++;
      }
    }
    expect(written).toBeGreaterThan(10);
  });

  test('no other way to begin one is in the source', () => {
    const found = readdirSync(SQLITE_FLOOR)
      .filter((name) => name.endsWith('.ts'))
      .flatMap((name) => {
        const source = readFileSync(new URL(name, SQLITE_FLOOR), 'utf8');
        const code = source.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '');
        const begins = (code.match(/'BEGIN\b[^']*'/g) ?? []).filter(
          (b) => b !== "'BEGIN IMMEDIATE'",
        );
        const writes = /\b(INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER) /.test(code);
        // One that only reads may begin as it likes.
        const deferred = writes
          ? code.split('.transaction(').length - code.split('.immediate()').length
          : 0;
        return [...begins, ...(deferred === 0 ? [] : [`${deferred} not immediate`])].map(
          (what) => `${name}: ${what}`,
        );
      });
    expect(found).toEqual([]);
  });
});

test('C03: eight processes claim beneath the owner’s lock: each task is claimed once', async () => {
  const path = temporaryStore();
  const store = await openSqliteStore({ path });
  const rows = Array.from({ length: 100 }, (_, i) => ({ task: `t${i}`, position: i }));
  await store.commit(batch({ projections: tasks(...rows) }));
  await store.close();
  const file = program('faults/claim-race');
  const racers = Array.from(
    { length: 8 },
    (_, n) => new Child(process.execPath, [file, path, `p${n}`, '200']),
  );
  for (const racer of racers) expect(await racer.line()).toBe('ready');
  for (const racer of racers) racer.say('go');
  const said = (await Promise.all(racers.map((racer) => racer.rest()))).flat();
  const claims = said.filter((line) => /^p\d-\d+ t\d+$/.test(line)).map((line) => line.split(' '));
  const thrownOut = said.filter((line) => line.startsWith('thrown out '));
  expect(thrownOut).toHaveLength(8);
  // Without that they would have come one after the other.
  const times = thrownOut.reduce((sum, line) => sum + Number(line.slice('thrown out '.length)), 0);
  expect(times).toBeGreaterThan(8);
  expect(claims.map(([, task]) => task).toSorted()).toEqual(
    rows.map(({ task }) => task).toSorted(),
  );

  const db = new Database(path, { readonly: true });
  const stored = db.prepare('SELECT claim_token, task FROM tasks').raw().all() as string[][];
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
  db.close();
  expect(stored.map(String).toSorted()).toEqual(claims.map(String).toSorted());
});
