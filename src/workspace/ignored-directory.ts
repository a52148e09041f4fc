import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { TroupeError } from '../protocol/errors.ts';

/**
 * Makes a directory that the user's git does not see: a `.gitignore` of its own says `*`. So neither the user's
 * files nor the user's configuration have to name it.
 * @throws {TroupeError} `unavailable`: it cannot be made, or not be written to
 */
export async function ensureIgnoredDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true });
    await writeFile(path.join(directory, '.gitignore'), '*\n', { flag: 'wx' });
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    // Of mkdir it means that something else is there.
    if (code === 'EEXIST' && syscall === 'open') return;
    throw cannotKeepFiles(directory, error);
  }
}

/** The one error for a directory of ours that cannot be made, or not be written to. */
export function cannotKeepFiles(directory: string, error: unknown): TroupeError {
  return new TroupeError(
    'unavailable',
    `Could not keep files in ${directory}: ${(error as Error).message}. Troupe needs a directory there that it may write to, and space.`,
    { cause: error },
  );
}
