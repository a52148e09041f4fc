/**
 * The database files that SQLite has open in this process. POSIX locks belong to the process, so their
 * bookkeeping has to as well: while a file is in here nobody may open it with `fs`, not even to read it,
 * because closing that descriptor would drop SQLite's locks. https://sqlite.org/howtocorrupt.html §2.2
 */
const openFiles = new Map<string, number>();

export function isOpenHere(path: string): boolean {
  return openFiles.has(path);
}

/** @returns call it once the connection is closed */
export function noteOpenFile(path: string): () => void {
  openFiles.set(path, (openFiles.get(path) ?? 0) + 1);
  return () => {
    const others = (openFiles.get(path) ?? 1) - 1;
    if (others === 0) openFiles.delete(path);
    else openFiles.set(path, others);
  };
}
