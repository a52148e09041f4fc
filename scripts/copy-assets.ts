// Finishes what tsc began in dist, or in the directory that is named: tsc copies no assets and sets no modes.
import { chmodSync, copyFileSync, existsSync, globSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

const root = join(import.meta.dirname, '..');
const source = join(root, 'src');
const target = process.argv[2] ?? join(root, 'dist');

// The migrations are read at run time, so they ship next to the code that reads them.
for (const file of globSync('**/*.sql', { cwd: source })) {
  mkdirSync(dirname(join(target, file)), { recursive: true });
  copyFileSync(join(source, file), join(target, file));
}

// npm sets the mode of a bin when it installs from a registry; a linked or unpacked folder keeps this one.
const bin = join(target, 'operator', 'bin.js');
if (existsSync(bin)) chmodSync(bin, 0o755);
