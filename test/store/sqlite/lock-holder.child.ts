// Another program at work in the database: takes the write lock when told to, and lets go at the next line.
// Arguments: path.
import { createInterface } from 'node:readline';
import Database from 'better-sqlite3';

const [, , path = ''] = process.argv;
const db = new Database(path, { timeout: 0 });
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
process.stdout.write('ready\n');
await orders.next();
try {
  db.exec('BEGIN IMMEDIATE');
  process.stdout.write('holding\n');
  await orders.next();
  db.exec('COMMIT');
} catch (error) {
  process.stdout.write(`${(error as { code?: string }).code}\n`);
}
db.close();
process.exit();
