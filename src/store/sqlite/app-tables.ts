import { createHash } from 'node:crypto';
import Database, { type Statement } from 'better-sqlite3';
import { ConfigurationError, ConflictError, ValidationError } from '../../protocol/errors.ts';
import { findNonJson, type JsonObject } from '../../protocol/json.ts';
import type { SqlStatement } from '../store.ts';

/*
 * Tables of the app in the store's file.
 *
 * What is trusted: SQLite's own account of a statement, EXPLAIN: it names every b-tree that the statement and the
 * triggers and foreign keys behind it would write. What is not: the text of a statement. Text decides only what may be
 * handed to SQLite at all, by its first word, because a PRAGMA acts while it is being prepared.
 *
 * An app's tables, indexes, views and triggers are called `app_…`. They may read Troupe's tables, and refer only to
 * each other: a foreign key to a table of Troupe's could make Troupe's own commits fail. For the same reason nothing
 * may roll back the transaction it is in, which holds commits of others as well.
 */

const APP = /^app_/i;
/** SQLite's own: the counters of AUTOINCREMENT, and what ANALYZE finds out. */
const INTERNAL = /^sqlite_(?:sequence|stat\d)$/;

const WRITES = ['INSERT', 'UPDATE', 'DELETE', 'REPLACE', 'WITH'];
const READS = ['SELECT', 'WITH', 'VALUES'];
const DEFINITIONS = ['CREATE', 'ALTER', 'DROP'];

/** Rows of one query, at most: they are in memory all at once, twice. */
const MAX_QUERY_ROWS = 10_000;
/** Statements that are kept prepared. An app that has more builds them from values, instead of using `?`. */
const MAX_PREPARED = 500;

const OBJECTS = 'SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY name';
const TEMPORARY = 'SELECT count(*) FROM sqlite_temp_schema';
const FOREIGN_TABLES = 'SELECT "table" FROM pragma_foreign_key_list(?)';
const APPLIED = 'SELECT sql_hash FROM applied_app_schema ORDER BY position';
const NOTE_APPLIED = 'INSERT INTO applied_app_schema (position, sql_hash) VALUES (?, ?)';

// Source: https://sqlite.org/opcode.html, and OE_Rollback and OPFLAG_P2ISREG in SQLite's sqliteInt.h.
const ROLL_BACK = 1;
const ROOT_IN_REGISTER = 0x10;

interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly tbl_name: string;
  readonly rootpage: number | null;
  readonly sql: string | null;
}

interface Opcode {
  readonly opcode: string;
  readonly p1: number;
  readonly p2: number;
  readonly p3: number;
  readonly p5: number;
}

/** Writes to the app's tables, within a transaction of the caller. */
export class AppTables {
  readonly #db: Database.Database;
  /** Those that were looked at and found harmless. The schema changes only here, and then they are forgotten. */
  readonly #prepared = new Map<string, Statement>();

  constructor(db: Database.Database) {
    this.#db = db;
  }

  /** @throws {TroupeError} what is wrong with which statement; those before it have been carried out */
  run(statements: readonly SqlStatement[]): void {
    for (const statement of statements) {
      try {
        this.#prepare(statement).run(...statement.values);
      } catch (error) {
        throw explainStatement(error, statement.sql);
      }
    }
  }

  /** @throws {ConfigurationError} */
  applySchema(statements: readonly string[]): void {
    const applied = this.#db.prepare(APPLIED).pluck().all() as string[];
    if (applied.length > statements.length) {
      throw new ConfigurationError(
        `Expected appSchema to go on from what the store has, which is ${applied.length} statements; it has ${statements.length}. Is this an older version of the app? Statements are only ever added, at the end.`,
      );
    }
    for (const [index, sql] of statements.entries()) {
      const hash = createHash('sha256').update(sql).digest('hex');
      const before = applied[index];
      if (before === hash) continue;
      if (before !== undefined) {
        throw new ConfigurationError(
          `Expected statement ${index + 1} of appSchema to be the one that made the store's tables, got another: ${excerpt(sql)}. Leave it as it was, and change tables by a new statement at the end (ALTER TABLE …).`,
        );
      }
      this.#define(index + 1, sql);
      this.#db.prepare(NOTE_APPLIED).run(index + 1, hash);
    }
    this.#prepared.clear();
  }

  #define(position: number, sql: string): void {
    const where = `Statement ${position} of appSchema, ${excerpt(sql)},`;
    const before = this.#objectsOfTroupe();
    try {
      requireFirstWord(sql, DEFINITIONS);
      this.#db.prepare(sql).run();
    } catch (error) {
      throw new ConfigurationError(`${where} cannot be carried out: ${messageOf(error)}`, {
        cause: error,
      });
    }
    const problem = this.#findProblem(before);
    if (problem !== undefined) throw new ConfigurationError(`${where} is refused: ${problem}`);
  }

  #findProblem(before: string): string | undefined {
    if (this.#objectsOfTroupe() !== before) {
      return 'it would make or change something whose name, or the name of whose table, does not begin with "app_".';
    }
    if (this.#db.prepare(TEMPORARY).pluck().get() !== 0) return 'temporary tables are not kept.';
    for (const { type, name, sql } of this.#objects()) {
      if (type !== 'table' || !APP.test(name) || sql === null) continue;
      if (/^\s*create\s+virtual\b/i.test(sql)) return 'virtual tables cannot be written in a step.';
      // Seen only at the end of the whole transaction, where it would take the commits of others with it.
      if (/\bdeferred\b/i.test(sql)) return 'constraints cannot be DEFERRED.';
      const foreign = this.#db.prepare(FOREIGN_TABLES).pluck().all(name) as string[];
      const stranger = foreign.find((table) => !APP.test(table));
      if (stranger !== undefined) {
        return `a foreign key may refer only to tables of the app, not to "${stranger}".`;
      }
    }
    return undefined;
  }

  #objects(): readonly SchemaObject[] {
    return this.#db.prepare(OBJECTS).all() as SchemaObject[];
  }

  #objectsOfTroupe(): string {
    return JSON.stringify(this.#objects().filter((object) => !isOfApp(object)));
  }

  /** @throws {ValidationError} it would do something that an app's statement may not */
  #prepare({ sql, values }: SqlStatement): Statement {
    const known = this.#prepared.get(sql);
    if (known !== undefined) return known;
    requireFirstWord(sql, WRITES);
    const statement = this.#db.prepare(sql);
    if (statement.reader) {
      throw new ValidationError('it returns rows (RETURNING); read them with query() afterwards.');
    }
    const program = this.#db.prepare(`EXPLAIN ${sql}`).all(...values) as Opcode[];
    const tables = new Map(this.#objects().map((object) => [object.rootpage, object]));
    for (const opcode of program) {
      const problem = findHarm(opcode, (root) => tables.get(root));
      if (problem !== undefined) throw new ValidationError(problem);
    }
    if (this.#prepared.size >= MAX_PREPARED) this.#prepared.clear();
    this.#prepared.set(sql, statement);
    return statement;
  }
}

/**
 * The rows of one SELECT, as JSON.
 * @throws {ValidationError} it is no plain SELECT, fails, gives too many rows, or a value that is not JSON
 */
export function readRows(
  db: Database.Database,
  { sql, values }: SqlStatement,
): readonly JsonObject[] {
  const rows: JsonObject[] = [];
  try {
    requireFirstWord(sql, READS);
    const statement = db.prepare(sql);
    if (!statement.reader || !statement.readonly) {
      throw new ValidationError('it would write, which only step.tx can.');
    }
    // Otherwise an integer beyond 2⁵³ would come as its neighbour, and nobody would be told.
    statement.safeIntegers(true);
    for (const read of statement.iterate(...values) as Iterable<Record<string, unknown>>) {
      const row = withNumbers(read);
      if (rows.length === MAX_QUERY_ROWS) {
        throw new ValidationError(
          `it has more than ${MAX_QUERY_ROWS} rows; ask for fewer with LIMIT, and go on from the last.`,
        );
      }
      const problem = findNonJson(row, 'row');
      if (problem !== undefined) {
        throw new ValidationError(
          `${problem.path} is ${problem.found}, which JSON has not; read a blob as hex(…), and an integer beyond 2^53 as CAST(… AS TEXT).`,
        );
      }
      rows.push(row);
    }
  } catch (error) {
    throw explainStatement(error, sql);
  }
  return rows;
}

/** Integers as the numbers that they are; those that no number is stay, and are refused as not JSON. */
function withNumbers(read: Readonly<Record<string, unknown>>): JsonObject {
  const values = Object.entries(read).map(([column, value]) => {
    if (typeof value !== 'bigint') return [column, value];
    const number = Number(value);
    return [column, Number.isSafeInteger(number) ? number : value];
  });
  return Object.fromEntries(values) as JsonObject;
}

function isOfApp({ name, tbl_name: table }: SchemaObject): boolean {
  if (INTERNAL.test(name) || INTERNAL.test(table)) return true;
  return APP.test(table) && (APP.test(name) || name.startsWith('sqlite_autoindex_'));
}

/** @returns what one instruction would do that it may not */
function findHarm(
  { opcode, p1, p2, p3, p5 }: Opcode,
  find: (root: number) => SchemaObject | undefined,
): string | undefined {
  switch (opcode) {
    case 'OpenWrite': {
      const root = p3 === 0 && (p5 & ROOT_IN_REGISTER) === 0 ? p2 : -1;
      return findStranger(find(root));
    }
    case 'Clear':
      return findStranger(p2 === 0 ? find(p1) : undefined);
    case 'VUpdate':
      return 'it writes a virtual table.';
    case 'Halt':
    case 'HaltIfNull':
      if (p1 === 0 || p2 !== ROLL_BACK) return undefined;
      return 'it, a constraint or a trigger says ROLLBACK, which would take commits of others with it; say ABORT.';
    default:
      return undefined;
  }
}

function findStranger(object: SchemaObject | undefined): string | undefined {
  if (object !== undefined && isOfApp(object)) return undefined;
  return `it writes ${object === undefined ? 'something' : `"${object.tbl_name}"`} that is not a table of the app (app_…).`;
}

/** @throws {ValidationError} */
function requireFirstWord(sql: string, allowed: readonly string[]): void {
  const word = /^(?:\s|--[^\n]*\n|\/\*.*?\*\/)*([a-z]+)\b/is.exec(sql)?.[1]?.toUpperCase();
  if (word !== undefined && allowed.includes(word) && !sql.includes('\0')) return;
  throw new ValidationError(`expected it to begin with ${allowed.join(', ')}.`);
}

/** One error that names the statement; faults of the disk stay what they are. */
function explainStatement(error: unknown, sql: string): unknown {
  const code = error instanceof Database.SqliteError ? error.code : '';
  const text = `The statement ${excerpt(sql)} was refused and nothing of its transaction written: ${messageOf(error)}`;
  const options = { cause: error, context: { sql: sql.slice(0, 1000), sqlite: code } };
  if (/^SQLITE_CONSTRAINT_(?:PRIMARYKEY|UNIQUE|ROWID)/.test(code)) {
    return new ConflictError(text, options);
  }
  const isItsOwn =
    error instanceof ValidationError ||
    // What better-sqlite3 says of values and of more than one statement.
    error instanceof RangeError ||
    error instanceof TypeError ||
    /^SQLITE_(?:ERROR|CONSTRAINT|MISMATCH|TOOBIG|RANGE|AUTH)/.test(code);
  return isItsOwn ? new ValidationError(text, options) : error;
}

const excerpt = (sql: string): string =>
  JSON.stringify(sql.length > 200 ? `${sql.slice(0, 200)}…` : sql);

function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.endsWith('.') ? text : `${text}.`;
}
