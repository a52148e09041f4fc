import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

/**
 * Makes a directory that the user's git does not see: a `.gitignore` of its own says `*`. So neither the user's
 * files nor the user's configuration have to name it.
 */
export async function ensureIgnoredDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  try {
    await writeFile(path.join(directory, '.gitignore'), '*\n', { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
