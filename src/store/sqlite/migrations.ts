import { readdirSync, readFileSync } from 'node:fs';
import type { Database } from 'better-sqlite3';
import { ConfigurationError } from '../../protocol/errors.ts';

/** Written into every store's header, so that a stranger's database is not taken for ours: "TRUP" in ASCII. */
export const APPLICATION_ID = 0x54_52_55_50;

/** In every transaction that writes, so that every log says whose it is: log-check.ts. */
export const COUNT_COMMIT = 'UPDATE store SET commits = commits + 1';
/** The same for an owner: changes nothing when another has taken the store over since. */
export const COUNT_COMMIT_OF_EPOCH = `${COUNT_COMMIT} WHERE (SELECT epoch FROM owner) = ?`;

/** One step of the schema. Forward only; a released one is never edited. */
export interface Migration {
  readonly version: number;
  /** The file's name without its ending: `0001_core`. */
  readonly name: string;
  readonly sql: string;
}

// tsc copies no assets; the migrations are read at run time, so they ship next to the code.
const SCHEMA = new URL('./schema/', import.meta.url);

/**
 * Reads `NNNN_name.sql` files, whose first line names their purpose: `-- 0001 core: …`.
 * @throws {ConfigurationError} a gap in the numbers, or a file that does not introduce itself
 */
export function readMigrations(directory: URL = SCHEMA): readonly Migration[] {
  const files = readdirSync(directory)
    .filter((file) => file.endsWith('.sql'))
    .sort();
  return files.map((file, index) => {
    const version = index + 1;
    const digits = String(version).padStart(4, '0');
    const name = file.slice(0, -'.sql'.length);
    const sql = readFileSync(new URL(file, directory), 'utf8');
    const introduction = `-- ${digits} ${name.slice(digits.length + 1)}: `;
    if (!file.startsWith(`${digits}_`) || !sql.startsWith(introduction)) {
      throw new ConfigurationError(
        `Expected schema file ${version} to be named ${digits}_<purpose>.sql and to begin with "-- ${digits} <purpose>: ", got ${file}, which begins with ${JSON.stringify(sql.slice(0, 40))}.`,
      );
    }
    return { version, name, sql };
  });
}

export function schemaVersion(db: Database): number {
  return db.pragma('user_version', { simple: true }) as number;
}

/**
 * Brings the schema up to date, each step in a transaction of its own.
 * Crash: the database has the version before or after a step, never a mixture.
 */
export function migrate(db: Database, migrations: readonly Migration[]): void {
  for (const { version, sql } of migrations) {
    if (version <= schemaVersion(db)) continue;
    db.transaction(() => {
      db.exec(sql);
      db.exec(COUNT_COMMIT);
      db.pragma(`application_id = ${APPLICATION_ID}`);
      db.pragma(`user_version = ${version}`);
    }).immediate();
  }
}
