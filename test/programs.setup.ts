import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  cpSync,
  globSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { rolldown } from 'rolldown';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  export interface ProvidedContext {
    /** Where the programs of the tests lie, bundled; see `program.ts`. */
    programs: string;
  }
}

const ROOT = path.join(import.meta.dirname, '..');
/** The command, as a program of the tests. */
const COMMAND = ['operator-bin.child', 'src/operator/bin.ts'] as const;
/** What the store starts as threads of its own: it looks for them beside itself, as in `dist`. */
const WORKERS = 'src/store/sqlite/*-worker.ts';
const SCHEMA = 'src/store/sqlite/schema';

/**
 * Bundles every `*.child.ts`, and the command, before the tests run. A program of the tests is started some thousand
 * times, and of a start from the source two thirds are spent on finding, reading and stripping 600 files: one file that
 * holds the same code starts in a third of the time.
 * @returns removes the bundle
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const place = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'troupe-programs-')));
  // As far below the package as src/operator is, whose code looks for package.json from there.
  const directory = path.join(place, 'bundled', 'programs');
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(place, 'node_modules'));
  copyFileSync(path.join(ROOT, 'package.json'), path.join(place, 'package.json'));
  await bundle(directory);
  const warm = warmUp(directory);
  // `vitest` that watches: a test that runs again runs what has been changed.
  project.onTestsRerun(() => bundle(directory));
  project.provide('programs', directory);
  return async () => {
    await warm;
    rmSync(place, { recursive: true, force: true, maxRetries: 3 });
  };
}

async function bundle(directory: string): Promise<void> {
  const children = globSync('test/**/*.child.ts', { cwd: ROOT }).map(
    (file) => [file.slice('test/'.length, -'.ts'.length).replaceAll(path.sep, '-'), file] as const,
  );
  const workers = globSync(WORKERS, { cwd: ROOT }).map(
    (file) => [path.basename(file, '.ts'), file] as const,
  );
  const build = await rolldown({
    cwd: ROOT,
    input: Object.fromEntries([...children, COMMAND, ...workers]),
    platform: 'node',
    // It has a native part that is looked for beside it.
    external: ['better-sqlite3'],
  });
  await build.write({
    dir: directory,
    // Errors and machines say the names of their classes and functions.
    keepNames: true,
    entryFileNames: '[name].js',
    chunkFileNames: '[name].js',
  });
  await build.close();
  cpSync(path.join(ROOT, SCHEMA), path.join(directory, 'schema'), { recursive: true });
}

/**
 * Only a program that comes to its end leaves what it has compiled to the next, and most that tests start are killed.
 * So one works here to its end, while the first tests begin.
 */
async function warmUp(directory: string): Promise<void> {
  const orders = {
    store: path.join(directory, 'warm', 'state.db'),
    history: path.join(directory, 'warm.jsonl'),
    tasks: 3,
    workMs: 0,
  };
  const life = spawn(
    process.execPath,
    [path.join(directory, 'crash-worker.child.js'), JSON.stringify(orders)],
    {
      env: { ...process.env, NODE_COMPILE_CACHE: path.join(directory, 'compiled') },
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  await once(life, 'exit');
}
