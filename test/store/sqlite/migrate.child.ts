// Migrates a database and is killed on the way. Arguments: path, where, and name and text of the next schema file.
// Where: `in 7`, at the first end_process() of the text; `before the commit of 7`.
import { writeSync } from 'node:fs';
import Database from 'better-sqlite3';
import { migrate, readMigrations } from '../../../src/store/sqlite/migrations.ts';

const [, , path = '', killedAt = '', file = '', sql = ''] = process.argv;
const db = new Database(path);
db.pragma('journal_mode = WAL');
const die = (): number => {
  // Synchronously: nothing is printed any more after the next line.
  writeSync(1, 'killing\n');
  process.kill(process.pid, 'SIGKILL');
  return 0;
};
db.function('end_process', die);
const pragma = db.pragma.bind(db);
db.pragma = (source, options) => {
  const result = pragma(source, options);
  const version = /^user_version = (\d+)$/.exec(source)?.[1];
  return killedAt === `before the commit of ${version}` ? die() : result;
};
const migrations = readMigrations();
const next = { version: migrations.length + 1, name: file, sql };
migrate(db, file === '' ? migrations : [...migrations, next]);
