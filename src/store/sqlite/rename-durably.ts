import { closeSync, fsyncSync, openSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Gives a complete file its final name.
 * Crash: the name leads to the whole of it or is not there; once this returns, also after a power cut.
 */
export function renameDurably(unfinished: string, path: string): void {
  flush(unfinished, 'r+');
  renameSync(unfinished, path);
  // Windows has no such call for a directory, and needs none.
  if (process.platform !== 'win32') flush(dirname(path), 'r');
}

function flush(path: string, mode: 'r' | 'r+'): void {
  const file = openSync(path, mode);
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
