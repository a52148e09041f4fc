import { statfs } from 'node:fs/promises';

/** With less than this left a failure says nothing about the work. */
const DISK_FULL_BYTES = 8 * 1024 * 1024;

/**
 * Why a command that failed may have failed for want of space.
 * @param directories where it writes; one that is not there is not asked
 * @returns undefined: there is space
 */
export async function diskTrouble(directories: readonly string[]): Promise<string | undefined> {
  for (const directory of directories) {
    const disk = await statfs(directory).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
      throw error;
    });
    if (disk === undefined) continue;
    const free = disk.bavail * disk.bsize;
    // Some file systems have no fixed number of inodes and report 0 of 0.
    const noInodes = disk.files > 0 && disk.ffree === 0;
    if (free >= DISK_FULL_BYTES && !noInodes) continue;
    return `the disk is full (${free} bytes${noInodes ? ', no inodes' : ''} left at ${directory})`;
  }
  return undefined;
}
