import { constants } from 'node:fs';
import { access, chmod, lstat, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ConfigurationError } from '../index.ts';

/** Below the project's directory. */
const NAME = '.troupe';

export const stateDirectoryOf = (projectDirectory: string): string =>
  path.join(projectDirectory, NAME);

export const storePathOf = (projectDirectory: string): string =>
  path.join(stateDirectoryOf(projectDirectory), 'state.db');

/**
 * Makes the directory that holds everything Troupe keeps about a project: nobody else may look into it, and the
 * user's git does not see it (a `.gitignore` of its own says `*`).
 * @returns its path
 * @throws {ConfigurationError} it is a symbolic link or no directory, or cannot be made
 */
export async function prepareStateDirectory(projectDirectory: string): Promise<string> {
  const directory = stateDirectoryOf(projectDirectory);
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    // A repository may bring a link of this name, and what we write would go wherever it leads.
    const info = await lstat(directory);
    if (!info.isDirectory()) {
      throw new ConfigurationError(
        `Expected ${directory} to be a directory, got ${info.isSymbolicLink() ? 'a symbolic link' : 'something else'}. Remove it and try again.`,
      );
    }
    if ((info.mode & 0o077) !== 0) await chmod(directory, 0o700);
    // What is in there may be writable all the same; but what is made next is not.
    await access(directory, constants.W_OK | constants.X_OK);
    await writeFile(path.join(directory, '.gitignore'), '*\n', { flag: 'wx' }).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      },
    );
    return directory;
  } catch (error) {
    if (error instanceof ConfigurationError) throw error;
    throw new ConfigurationError(
      `Cannot keep state in ${directory}: ${error instanceof Error ? error.message : String(error)}. Troupe needs a directory there that it may write to.`,
      { cause: error },
    );
  }
}
