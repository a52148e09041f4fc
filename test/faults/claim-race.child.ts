// Claims tasks beneath the owner's lock, each with a token of its own, and says which it got. Whoever makes a
// connection owns the store from then on, so of several such processes each is thrown out again and again.
// Arguments: path, name, claims.
import { createInterface } from 'node:readline';
import Database from 'better-sqlite3';
import { LockConflictError } from '../../src/protocol/errors.ts';
import { retryWhileBusy } from '../../src/store/sqlite/busy.ts';
import { SqliteConnection } from '../../src/store/sqlite/sqlite-connection.ts';

const [, , path = '', name = '', claims = '0'] = process.argv;
const busy = { doing: 'claim', limitMs: 120_000, onWarning: () => undefined };
const db = new Database(path, { timeout: 50 });
const connect = (): Promise<SqliteConnection> =>
  retryWhileBusy(() => new SqliteConnection(db, path), busy);

let thrownOut = 0;
let connection = await connect();
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
process.stdout.write('ready\n');
await orders.next();
for (let n = 0; n < Number(claims); n++) {
  const token = `${name}-${n}`;
  for (;;) {
    try {
      const claim = { run: 'r1', agent: 'writer', limit: 1, token };
      const tasks = await retryWhileBusy(() => connection.claimTasks(claim), busy);
      for (const task of tasks) process.stdout.write(`${token} ${task}\n`);
      break;
    } catch (error) {
      if (!(error instanceof LockConflictError)) throw error;
      thrownOut++;
      connection = await connect();
    }
  }
}
process.stdout.write(`thrown out ${thrownOut}\n`);
process.exit();
