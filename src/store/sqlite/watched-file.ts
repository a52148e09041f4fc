import { statSync } from 'node:fs';

/** A file and which one it was: whether the name still leads to it can be told without opening it. */
export interface WatchedFile {
  readonly path: string;
  readonly ino: number;
  readonly dev: number;
}

/** @throws the system's error if there is no such file */
export function watchFile(path: string): WatchedFile {
  const { ino, dev } = statSync(path);
  return { path, ino, dev };
}

export function compareFile(file: WatchedFile): 'same' | 'gone' | 'replaced' {
  const now = statSync(file.path, { throwIfNoEntry: false });
  if (now === undefined) return 'gone';
  return now.ino === file.ino && now.dev === file.dev ? 'same' : 'replaced';
}
