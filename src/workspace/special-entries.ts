import type { ChangedFile } from './change.ts';
import type { Repository } from './repository.ts';

/** What of a tree's files git treats in a way of its own. */
export interface SpecialEntries {
  /** Paths of repositories inside it (submodules). */
  readonly repositories: readonly string[];
  /** Its `.gitattributes` files. */
  readonly attributes: readonly { readonly path: string; readonly blob: string }[];
}

/** @param tree its full object name */
export async function readSpecialEntries(
  repository: Repository,
  tree: string,
): Promise<SpecialEntries> {
  const entries = await repository.list(['ls-tree', '-r', '-z', '--end-of-options', tree]);
  const repositories: string[] = [];
  const attributes: { path: string; blob: string }[] = [];
  for (const entry of entries) {
    const path = entry.slice(entry.indexOf('\t') + 1);
    const [mode = '', , blob = ''] = entry.slice(0, entry.indexOf('\t')).split(' ');
    if (mode === REPOSITORY_MODE) repositories.push(path);
    else if (mode.startsWith('100') && ATTRIBUTES.test(path)) attributes.push({ path, blob });
  }
  return { repositories, attributes };
}

/** Whether one of the two sides of a changed path is such an entry. */
export function isSpecial({ path, mode, previousMode }: ChangedFile): boolean {
  return mode === REPOSITORY_MODE || previousMode === REPOSITORY_MODE || ATTRIBUTES.test(path);
}

/** Git's mode of a repository inside another one. */
export const REPOSITORY_MODE = '160000';
const ATTRIBUTES = /(^|\/)\.gitattributes$/;
