// Migrates a database and is killed on the way. Arguments: path, name and text of the next schema file, where.
import { writeSync } from 'node:fs';
import Database from 'better-sqlite3';
import { migrate, readMigrations } from '../../../src/store/sqlite/migrations.ts';

const [, , path = '', file = '', sql = '', killedAt = ''] = process.argv;
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
  if (killedAt === 'before its commit' && source.startsWith('user_version =')) {
    pragma(source, options);
    return die();
  }
  return pragma(source, options);
};
const migrations = readMigrations();
migrate(db, [...migrations, { version: migrations.length + 1, name: file, sql }]);
