import { chmod, lstat, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { entryAt } from './entry-at.ts';
import type { Launcher } from './launcher.ts';

/** A tree that takes longer is removed by Node, however long that takes. */
const PROGRAM_LIMIT_MS = 300_000;

/**
 * Removes a file or a directory with all that is in it. Symlinks are removed, never followed; directories without
 * write permission (module caches have them) are made writable first. What is not there is no error.
 */
export async function removeTree(target: string): Promise<void> {
  const remove = () => rm(target, { recursive: true, force: true, maxRetries: 2, retryDelay: 50 });
  try {
    await remove();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EACCES' && code !== 'EPERM' && code !== 'ENOTEMPTY') throw error;
    await makeWritable(target);
    await remove();
  }
}

/**
 * As `removeTree`, but a directory by the system's own `rm` where there is one: Node takes a turn of its event loop and of its
 * few threads for each file, twice, and whatever else is done meanwhile waits for them.
 */
export async function removeTreeBeside(launcher: Launcher, target: string): Promise<void> {
  if (entryAt(target)?.isDirectory() === true) {
    const nothing = (): void => undefined;
    const command = launcher.run({
      argv: ['rm', '-rf', '--', target],
      label: 'rm',
      cwd: path.parse(target).root,
      env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
      timeoutMs: PROGRAM_LIMIT_MS,
      onStdout: nothing,
      onStderr: nothing,
    });
    // It may not even be started: a full disk has no room for its record, and needs the removal most.
    const end = await command.catch(() => undefined);
    if (end?.exitCode === 0) return;
  }
  // What `rm` cannot remove this can, or it says why.
  await removeTree(target);
}

async function makeWritable(target: string): Promise<void> {
  if (!(await lstat(target)).isDirectory()) return;
  await chmod(target, 0o700);
  for (const entry of await readdir(target, { withFileTypes: true })) {
    if (entry.isDirectory()) await makeWritable(path.join(target, entry.name));
  }
}
