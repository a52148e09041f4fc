import type { Dirent } from 'node:fs';
import { lstat, readdir, rmdir } from 'node:fs/promises';

/*
 * Directories below `.troupe`, where an agent that is not contained can put links: none of them is followed, so that
 * what is removed or moved is ours.
 */

/** The names of the directories in a directory. A link to one is none. */
export async function directoriesIn(directory: string): Promise<string[]> {
  const entries = await entriesIn(directory);
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** What is in a directory; nothing if there is none, or a link or a file instead. */
export async function entriesIn(directory: string): Promise<readonly Dirent[]> {
  // The last part of the way only: whoever asks has looked at what leads to it.
  if ((await lstat(directory).catch(ignoreMissing))?.isDirectory() !== true) return [];
  return (await readdir(directory, { withFileTypes: true }).catch(ignoreMissing)) ?? [];
}

/** @returns whether it is gone: not if something is in it, or it must not be removed */
export async function removeIfEmpty(directory: string): Promise<boolean> {
  try {
    await rmdir(directory);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Something else is there, or it must not be removed: it stays, and harms nobody.
    if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'EACCES' || code === 'EPERM') {
      return false;
    }
    if (code === 'ENOENT') return true;
    throw error;
  }
}

export function ignoreMissing(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
  throw error;
}
