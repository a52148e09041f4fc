// Hashes files from outside: to read a database with `fs` in the process that has it open drops its locks.
// Arguments: files.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

for (const file of process.argv.slice(2)) {
  process.stdout.write(`${createHash('sha256').update(readFileSync(file)).digest('hex')}\n`);
}
