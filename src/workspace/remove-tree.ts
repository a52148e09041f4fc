import { chmod, lstat, readdir, rm } from 'node:fs/promises';
import path from 'node:path';

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

async function makeWritable(target: string): Promise<void> {
  if (!(await lstat(target)).isDirectory()) return;
  await chmod(target, 0o700);
  for (const entry of await readdir(target, { withFileTypes: true })) {
    if (entry.isDirectory()) await makeWritable(path.join(target, entry.name));
  }
}
