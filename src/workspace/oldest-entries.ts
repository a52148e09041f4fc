import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';

/** Paths of what a directory holds beyond the entries that were written to last. Hidden ones are ours, and do not count. */
export async function oldestEntries(directory: string, kept: number): Promise<readonly string[]> {
  const names = (await readdir(directory)).filter((name) => !name.startsWith('.'));
  if (names.length <= kept) return [];
  const dated = await Promise.all(
    names.map(async (name) => {
      const entry = path.join(directory, name);
      return { entry, time: (await stat(entry)).mtimeMs };
    }),
  );
  dated.sort((a, b) => b.time - a.time);
  return dated.slice(kept).map(({ entry }) => entry);
}
