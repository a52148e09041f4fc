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
  await writeWhole(file, text, { flush: true });
  await syncDirectory(path.dirname(file));
}

/**
 * As `writeDurably`, without waiting for the disk: for what can be found out again.
 * Crash: after a power cut the file may hold anything, so whoever reads it has to tell.
 */
export async function writeRebuildable(file: string, text: string): Promise<void> {
  await writeWhole(file, text, { flush: false });
}

async function writeWhole(
  file: string,
  text: string,
  { flush }: { readonly flush: boolean },
): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  // Unique per process and call: two writers of one file must not share a temporary one.
  const temporary = `${file}.${process.pid}-${counter++}.tmp`;
  try {
    // `wx` does not follow a symlink that somebody put there.
    const handle = await open(temporary, 'wx', 0o644);
    try {
      await handle.writeFile(text);
      if (flush) await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
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
    const { code } = error as NodeJS.ErrnoException;
    // A file in its place holds none, and is refused by whoever wants to write there.
    if (code === 'ENOENT' || code === 'ENOTDIR') return;
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
