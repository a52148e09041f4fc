// Tries to get a lock each time it is told to; the next line makes it let go. Arguments: path.
import { createInterface } from 'node:readline';
import { acquireOwnerLock, type OwnerLock } from '../../../src/store/sqlite/owner-lock.ts';

const [, , path = ''] = process.argv;
let lock: OwnerLock | undefined;
process.stdout.write('ready\n');
for await (const order of createInterface({ input: process.stdin })) {
  if (order === 'release') {
    lock?.release();
    lock = undefined;
    process.stdout.write('released\n');
    continue;
  }
  try {
    lock = acquireOwnerLock(path, '/s.db');
    process.stdout.write(lock.stolen ? 'stolen\n' : 'created\n');
  } catch (error) {
    process.stdout.write(`${(error as Error).name}\n`);
  }
}
