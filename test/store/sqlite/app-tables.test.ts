import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MemoryStore } from '../../../src/store/memory/memory-store.ts';
import { openReadOnlyStore } from '../../../src/store/sqlite/read-only.ts';
import { openSqliteStore, type SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import type { SqlStatement, SqlValue, StepRecord } from '../../../src/store/store.ts';
import { batch, step, turn } from '../rows.ts';

const SCHEMA = [
  'CREATE TABLE app_orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, euros REAL CHECK (euros > 0)) STRICT',
  'CREATE TABLE app_lines (order_id INTEGER NOT NULL REFERENCES app_orders (id) ON DELETE CASCADE, n INTEGER)',
  'CREATE UNIQUE INDEX app_lines_by_n ON app_lines (order_id, n)',
  'CREATE TABLE app_log (id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT)',
  `CREATE TRIGGER app_orders_log AFTER INSERT ON app_orders BEGIN
     INSERT INTO app_log (item) VALUES (NEW.item); SELECT 1; END`,
  'CREATE VIEW app_items AS SELECT item FROM app_orders',
];

const sql = (text: string, ...values: readonly SqlValue[]): SqlStatement => ({ sql: text, values });
const order = (id: number, item = 'ink', euros = 5): SqlStatement =>
  sql('INSERT INTO app_orders VALUES (?, ?, ?)', id, item, euros);
const txStep = (key: string): StepRecord => step({ key, kind: 'tx', inputHash: 'abc' });

let path: string;
let store: SqliteStore;

/** A store for each test, or, where no test changes it, one for all. */
function opened(
  before: typeof beforeAll | typeof beforeEach,
  after: typeof afterAll | typeof afterEach,
): void {
  before(async () => {
    path = join(mkdtempSync(join(tmpdir(), 'troupe-app-')), 'state.db');
    store = await openSqliteStore({ path, durability: 'normal' });
    await store.applyAppSchema(SCHEMA);
  });
  after(async () => {
    await store.close();
    rmSync(dirname(path), { recursive: true });
  });
}

const orders = async () => await store.query(sql('SELECT * FROM app_orders ORDER BY id'));
const steps = async () => await store.loadSteps('inbox/ada#fetch');

describe('a transaction', () => {
  opened(beforeEach, afterEach);

  test('writes the rows and the step, once', async () => {
    const first = { ...txStep('pay'), outcomeJson: '1' };
    expect(await store.transact({ statements: [order(1), order(2)], step: first })).toEqual(first);
    const again = { statements: [order(3)], step: { ...txStep('pay'), outcomeJson: '2', at: 7 } };
    expect(await store.transact(again)).toEqual(first);
    expect(await orders()).toEqual([
      { id: 1, item: 'ink', euros: 5 },
      { id: 2, item: 'ink', euros: 5 },
    ]);
    expect(await store.query(sql('SELECT item FROM app_log'))).toHaveLength(2);
    expect(await steps()).toEqual([first]);
  });

  test('survives the process', async () => {
    await store.transact({ statements: [order(1)], step: txStep('pay') });
    await store.close();
    store = await openSqliteStore({ path });
    expect(await orders()).toHaveLength(1);
    expect(await steps()).toEqual([txStep('pay')]);
  });

  test('without statements is a step', async () => {
    await store.transact({ statements: [], step: txStep('nothing') });
    expect(await steps()).toEqual([txStep('nothing')]);
  });

  test.each<{ what: string; statement: SqlStatement; code: string; says: RegExp }>([
    {
      what: 'a key that is there',
      statement: order(1),
      code: 'conflict',
      says: /UNIQUE constraint/,
    },
    { what: 'a check', statement: order(3, 'x', -1), code: 'validation', says: /CHECK/ },
    {
      what: 'a null',
      statement: sql('INSERT INTO app_orders VALUES (3, NULL, 1)'),
      code: 'validation',
      says: /NOT NULL/,
    },
    {
      what: 'a type',
      statement: sql("INSERT INTO app_orders VALUES (3, 'x', 'y')"),
      code: 'validation',
      says: /cannot store/,
    },
    {
      what: 'a foreign key',
      statement: sql('INSERT INTO app_lines VALUES (99, 1)'),
      code: 'validation',
      says: /FOREIGN KEY/,
    },
    {
      what: 'no such table',
      statement: sql('INSERT INTO app_nope VALUES (1)'),
      code: 'validation',
      says: /no such table/,
    },
    {
      what: 'too few values',
      statement: sql('INSERT INTO app_orders VALUES (?, ?, ?)', 3),
      code: 'validation',
      says: /Too few/,
    },
    {
      what: 'too many values',
      statement: sql('INSERT INTO app_orders VALUES (3, 1, 1)', 3),
      code: 'validation',
      says: /Too many/,
    },
  ])(
    'that fails ($what) writes nothing, names the statement and harms nobody',
    async ({ statement, code, says }) => {
      await store.transact({ statements: [order(1)], step: txStep('before') });
      const answers = await Promise.allSettled([
        store.commit(batch(turn('inbox/ada', 0))),
        store.transact({ statements: [order(2), statement, order(4)], step: txStep('bad') }),
        store.commit(batch(turn('inbox/ada', 1))),
        store.transact({ statements: [order(5)], step: txStep('good') }),
        store.commit(batch(turn('inbox/ada', 2))),
      ]);
      expect(answers.map(({ status }) => status)).toEqual([
        'fulfilled',
        'rejected',
        'fulfilled',
        'fulfilled',
        'fulfilled',
      ]);
      const { reason } = answers[1] as PromiseRejectedResult;
      expect(reason).toMatchObject({
        code,
        retryable: false,
        message: expect.stringMatching(says),
      });
      expect(reason.message).toContain(JSON.stringify(statement.sql));
      // Not the commits that are made once the failure is known, either.
      await store.commit(batch(turn('inbox/ada', 3)));
      expect((await orders()).map(({ id }) => id)).toEqual([1, 5]);
      expect((await steps()).map(({ key }) => key)).toEqual(['before', 'good']);
      expect(await store.listCheckpoints('inbox/ada')).toHaveLength(4);
    },
  );

  test('a commit that was called after a failed one is refused although a transaction has failed meanwhile', async () => {
    await store.commit(batch(turn('inbox/ada', 0)));
    const answers = await Promise.allSettled([
      store.transact({ statements: [order(1), order(1)], step: txStep('bad') }),
      store.commit(batch(turn('inbox/ada', 0))),
      store.transact({ statements: [order(2)], step: txStep('late') }),
      store.commit(batch(turn('inbox/ada', 1))),
    ]);
    expect(answers.map(({ status }) => status)).toEqual(
      Array.from({ length: 4 }, () => 'rejected'),
    );
    expect(await orders()).toEqual([]);
  });

  test('that fails does not make its caller seem to know of a commit that fails behind it', async () => {
    await store.commit(batch(turn('inbox/ada', 0)));
    const bad = store.transact({ statements: [order(1), order(1)], step: txStep('bad') });
    const next = bad.then(
      () => 'stored',
      () => store.commit(batch(turn('inbox/ada', 1))).catch(String),
    );
    // More than share a flush: the answer to the first comes while the last is still on its way.
    const between = Array.from({ length: 70 }, () => store.commit(batch({ clearedSteps: ['x'] })));
    const failing = store.commit(batch(turn('inbox/ada', 0)));
    failing.catch(() => undefined);
    expect(await next).toContain('one before it had failed');
    await expect(failing).rejects.toMatchObject({ code: 'conflict' });
    await Promise.all(between);
    await store.commit(batch(turn('inbox/ada', 1)));
  });

  test('whatever triggers and views lead to is looked at', async () => {
    await store.applyAppSchema([
      ...SCHEMA,
      'CREATE TRIGGER app_spy AFTER DELETE ON app_log BEGIN DELETE FROM messages; END',
      'CREATE TRIGGER app_into INSTEAD OF INSERT ON app_items BEGIN INSERT INTO runs (run) VALUES (1); END',
      "CREATE TRIGGER app_stop AFTER UPDATE ON app_log BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
      'CREATE TABLE app_strict (x UNIQUE ON CONFLICT ROLLBACK)',
    ]);
    for (const text of [
      'DELETE FROM app_log',
      "INSERT INTO app_items VALUES ('x')",
      'UPDATE app_log SET item = 1',
      'INSERT INTO app_strict VALUES (1)',
    ]) {
      await expect(
        store.transact({ statements: [sql(text)], step: txStep('bad') }),
      ).rejects.toMatchObject({ code: 'validation' });
    }
    // Other triggers, cascades, counters and subqueries are fine.
    await store.transact({
      statements: [
        order(1),
        sql('INSERT INTO app_lines SELECT id, 1 FROM app_orders'),
        sql('INSERT INTO app_lines VALUES (1, 1) ON CONFLICT DO NOTHING'),
        sql('UPDATE app_orders SET euros = (SELECT count(*) FROM actors) + 1'),
        sql('DELETE FROM app_orders'),
      ],
      step: txStep('good'),
    });
    expect(await store.query(sql('SELECT * FROM app_lines'))).toEqual([]);
  });
});

describe('a statement that is not for apps', () => {
  opened(beforeAll, afterAll);
  let seq = 0;

  test.each([
    'DELETE FROM messages',
    'DELETE FROM leases',
    'DELETE FROM owner',
    "DELETE FROM messages WHERE id = 'x'",
    "UPDATE actors SET status = 'done'",
    'INSERT INTO steps (scope, key, at, outcome_json) VALUES (1, 2, 3, 4)',
    'REPLACE INTO store VALUES (1, 2, 3)',
    'WITH x AS (SELECT 1) DELETE FROM runs',
    'INSERT INTO "ACTORS" SELECT * FROM actors',
    "UPDATE sqlite_schema SET sql = ''",
    'BEGIN',
    'COMMIT',
    'ROLLBACK',
    'SAVEPOINT x',
    'RELEASE one_batch',
    'PRAGMA synchronous = OFF',
    '/* not */ -- this\n PRAGMA foreign_keys = OFF',
    'EXPLAIN DELETE FROM app_orders',
    "ATTACH 'x.db' AS x",
    'VACUUM',
    'ANALYZE',
    'REINDEX',
    'CREATE TABLE app_more (x)',
    'DROP TABLE app_orders',
    'SELECT 1',
    'INSERT INTO app_orders VALUES (1, 2, 3) RETURNING id',
    "INSERT INTO app_orders VALUES (1, 'a', 3); DELETE FROM messages",
    "INSERT OR ROLLBACK INTO app_orders VALUES (1, 'a', 3)",
    'INSERT INTO app_items VALUES (1)',
    '',
    '-- nothing',
    'nonsense',
    'INSERT INTO app_orders VALUES (1, 2, 3)\0; DELETE FROM messages',
  ])('refuses %j', async (text) => {
    const before = await everything();
    await expect(
      store.transact({ statements: [order(9), sql(text)], step: txStep('bad') }),
    ).rejects.toMatchObject({ code: 'validation' });
    await store.commit(batch(turn('inbox/ada', seq++)));
    const after = await everything();
    expect({ ...after, checkpoints: 0, actors: 0 }).toEqual({
      ...before,
      checkpoints: 0,
      actors: 0,
    });
    expect(await store.query(sql('PRAGMA_OF')).catch(() => 'refused')).toBe('refused');
  });

  /** How many rows there are in each table of Troupe's. */
  async function everything(): Promise<Record<string, unknown>> {
    await store.query(sql('SELECT 1'));
    const db = new Database(path, { readonly: true });
    const tables = db
      .prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'store' ORDER BY name",
      )
      .pluck()
      .all() as string[];
    const counts = tables.map((table) => [
      table,
      db.prepare(`SELECT count(*) FROM "${table}"`).pluck().get(),
    ]);
    db.close();
    return Object.fromEntries(counts) as Record<string, unknown>;
  }
});

describe('the schema of an app', () => {
  opened(beforeEach, afterEach);

  test('is carried out once, and grows at its end', async () => {
    await store.transact({ statements: [order(1)], step: txStep('pay') });
    await store.close();
    store = await openSqliteStore({ path });
    await store.applyAppSchema(SCHEMA);
    await store.applyAppSchema([...SCHEMA, 'ALTER TABLE app_orders ADD COLUMN note TEXT']);
    await store.applyAppSchema([...SCHEMA, 'ALTER TABLE app_orders ADD COLUMN note TEXT']);
    expect(await orders()).toEqual([{ id: 1, item: 'ink', euros: 5, note: null }]);
  });
});

describe('a schema that is not for apps', () => {
  opened(beforeAll, afterAll);
  let seq = 0;

  test.each<{ what: string; schema: readonly string[]; says: RegExp }>([
    {
      what: 'another statement in its place',
      schema: ['CREATE TABLE app_orders (x)', ...SCHEMA.slice(1)],
      says: /Expected statement 1 of appSchema to be the one that made/,
    },
    { what: 'fewer', schema: SCHEMA.slice(0, 2), says: /which is 6 statements; it has 2/ },
    {
      what: 'a name without app_',
      schema: [...SCHEMA, 'CREATE TABLE orders (x)'],
      says: /Statement 7.*does not begin with "app_"/,
    },
    { what: 'a table of ours', schema: [...SCHEMA, 'DROP TABLE messages'], says: /refused/ },
    {
      what: 'a column of ours',
      schema: [...SCHEMA, 'ALTER TABLE actors ADD COLUMN x TEXT'],
      says: /refused/,
    },
    {
      what: 'an index on ours',
      schema: [...SCHEMA, 'CREATE INDEX app_x ON actors (status)'],
      says: /refused/,
    },
    {
      what: 'a trigger on ours',
      schema: [
        ...SCHEMA,
        'CREATE TRIGGER app_x AFTER INSERT ON messages BEGIN DELETE FROM app_log; END',
      ],
      says: /refused/,
    },
    {
      what: 'renaming',
      schema: [...SCHEMA, 'ALTER TABLE app_orders RENAME TO orders'],
      says: /refused/,
    },
    {
      what: 'a temporary table',
      schema: [...SCHEMA, 'CREATE TEMP TABLE app_x (x)'],
      says: /temporary/,
    },
    {
      what: 'a temporary trigger on ours',
      schema: [...SCHEMA, 'CREATE TEMP TRIGGER app_x AFTER INSERT ON messages BEGIN SELECT 1; END'],
      says: /temporary/,
    },
    {
      what: 'a virtual table',
      schema: [...SCHEMA, 'CREATE VIRTUAL TABLE app_x USING fts5(x)'],
      says: /virtual/,
    },
    {
      what: 'a foreign key to ours',
      schema: [...SCHEMA, 'CREATE TABLE app_x (a REFERENCES actors (address))'],
      says: /not to "actors"/,
    },
    {
      what: 'a deferred constraint',
      schema: [
        ...SCHEMA,
        'CREATE TABLE app_x (a REFERENCES app_orders (id) DEFERRABLE INITIALLY DEFERRED)',
      ],
      says: /DEFERRED/,
    },
    {
      what: 'rows',
      schema: [...SCHEMA, "INSERT INTO app_log (item) VALUES ('x')"],
      says: /begin with CREATE, ALTER, DROP/,
    },
    {
      what: 'two in one',
      schema: [...SCHEMA, 'CREATE TABLE app_x (x); DROP TABLE actors'],
      says: /more than one/,
    },
    { what: 'nonsense', schema: [...SCHEMA, 'CREATE nonsense'], says: /syntax error/ },
  ])('refuses $what, and nothing of the rest is carried out', async ({ schema, says }) => {
    const tables = sql('SELECT name, sql FROM sqlite_schema ORDER BY name');
    const before = await store.query(tables);
    await expect(
      store.applyAppSchema(
        schema.length > SCHEMA.length ? [...schema, 'CREATE TABLE app_last (x)'] : schema,
      ),
    ).rejects.toMatchObject({ code: 'configuration', message: expect.stringMatching(says) });
    expect(await store.query(tables)).toEqual(before);
    expect(await store.query(sql('SELECT count(*) AS n FROM sqlite_temp_schema'))).toEqual([
      { n: 0 },
    ]);
    await store.transact({ statements: [order(seq)], step: txStep(`pay ${seq}`) });
    await store.commit(batch(turn('inbox/ada', seq++)));
  });
});

describe('a query', () => {
  opened(beforeAll, afterAll);
  let seq = 0;

  test('gives rows as JSON, and sees every call before it', async () => {
    const written = store.transact({
      statements: [order(1, 'Tinte „blau“', 2.5)],
      step: txStep('pay'),
    });
    expect(await orders()).toEqual([{ id: 1, item: 'Tinte „blau“', euros: 2.5 }]);
    await written;
    expect(await store.query(sql('SELECT ? AS a, ? AS b, ? AS c', 'x', 1.5, null))).toEqual([
      { a: 'x', b: 1.5, c: null },
    ]);
    expect(await store.query(sql('WITH x AS (VALUES (1)) SELECT * FROM x'))).toHaveLength(1);
    expect(await store.query(sql('SELECT count(*) AS n FROM runs'))).toEqual([{ n: 0 }]);
  });

  test.each<{ text: string; says: RegExp }>([
    { text: 'DELETE FROM app_orders', says: /begin with SELECT/ },
    { text: 'WITH x AS (SELECT 1) DELETE FROM app_orders', says: /step\.tx/ },
    { text: 'PRAGMA journal_mode = DELETE', says: /begin with SELECT/ },
    { text: 'SELECT 1; SELECT 2', says: /more than one/ },
    { text: 'SELECT * FROM nope', says: /no such table/ },
    { text: 'SELECT ?', says: /Too few/ },
    {
      text: "SELECT x'00' AS b",
      says: /row\.b is a Buffer, which JSON has not; read a blob as hex/,
    },
    { text: 'SELECT 9e999 AS b', says: /row\.b is Infinity/ },
    {
      text: 'SELECT 9007199254740993 AS b',
      says: /row\.b is a BigInt.*beyond 2\^53 as CAST\(… AS TEXT\)/,
    },
    {
      text: 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n',
      says: /more than 10000 rows/,
    },
  ])('refuses $text', async ({ text, says }) => {
    await expect(store.query(sql(text))).rejects.toMatchObject({
      code: 'validation',
      message: expect.stringMatching(says),
    });
    await store.commit(batch(turn('inbox/bob', seq++)));
  });

  test('gives integers as they are', async () => {
    const text =
      'SELECT ? AS least, ? AS most, 1 AS one, 0.5 AS half, CAST(9007199254740993 AS TEXT) AS far';
    const [least, most] = [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER];
    expect(await store.query(sql(text, least, most))).toEqual([
      { least, most, one: 1, half: 0.5, far: '9007199254740993' },
    ]);
  });

  test('gives 10 000 rows, and no more', async () => {
    const numbers = (count: number) =>
      sql(
        'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n',
        count,
      );
    expect(await store.query(numbers(10_000))).toHaveLength(10_000);
    await expect(store.query(numbers(10_001))).rejects.toMatchObject({ code: 'validation' });
  });

  test('can be asked by a process that only looks', async () => {
    await store.transact({ statements: [order(7)], step: txStep('look') });
    const reader = await openReadOnlyStore(path);
    expect(await reader.query(sql('SELECT item FROM app_items LIMIT 1'))).toHaveLength(1);
    await reader.close();
  });
});

test('a store in memory has no tables, and says what to do', async () => {
  const memory = new MemoryStore();
  for (const call of [memory.transact(), memory.applyAppSchema(), memory.query()]) {
    await expect(call).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('createTroupe({ store: "state.db" })'),
    });
  }
});
