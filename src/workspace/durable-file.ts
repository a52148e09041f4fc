import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';

let counter = 0;

/**
 * Puts `text` at `file`, whole or not at all: temporary file, fsync, rename, fsync of the directory.
 * The directory is made if need be.
 * Crash: the old content or the new one, never a part; at worst a temporary file stays beside it until
 * `removeCutOffWrites`.
 */
export async function writeDurably(file: string, text: string): Promise<void> {
  const directory = path.dirname(file);
  await mkdir(directory, { recursive: true });
  // Unique per process and call: two writers of one file must not share a temporary one.
  const temporary = `${file}.${process.pid}-${counter++}.tmp`;
  try {
    // `wx` does not follow a symlink that somebody put there.
    const handle = await open(temporary, 'wx', 0o644);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(directory);
}

const TEMPORARY = /\.\d+-\d+\.tmp$/;

/**
 * Removes the temporary files of writes that a crash has cut off. For when nobody writes there.
 * @param directory need not exist
 */
export async function removeCutOffWrites(
  directory: string,
  options: { readonly recursive: boolean },
): Promise<void> {
  let names: string[];
  try {
    names = await readdir(directory, { encoding: 'utf8', recursive: options.recursive });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  for (const name of names) {
    if (TEMPORARY.test(name)) await rm(path.join(directory, name), { force: true });
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
