import { lstatSync, type Stats } from 'node:fs';

/** What lies at a path, a link itself and not what it leads to; undefined: nothing, or a file where a directory leads there. */
export function entryAt(file: string): Stats | undefined {
  try {
    return lstatSync(file, { throwIfNoEntry: false });
  } catch (error) {
    // A file on the way: so there is nothing at that path.
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined;
    throw error;
  }
}
