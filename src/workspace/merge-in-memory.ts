import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { splitNul } from './git.ts';
import { ensureIgnoredDirectory } from './ignored-directory.ts';
import type { Workspaces } from './workspaces.ts';

export type MergeOutcome =
  | { readonly kind: 'merged'; readonly tree: string }
  | { readonly kind: 'conflict'; readonly files: readonly string[] };

/**
 * Merges a commit with the target's head as git would, without any working tree: the outcome is a tree in the object
 * store. How files are merged (`merge=union` for a changelog) is read from the `.gitattributes` of the target's
 * head; git would look for them in whatever directory it runs in.
 */
export async function mergeInMemory(
  workspaces: Workspaces,
  head: string,
  commit: string,
): Promise<MergeOutcome> {
  const { repository } = workspaces;
  const root = path.join(workspaces.stateDirectory, 'verify');
  await ensureIgnoredDirectory(root);
  const attributesOnly = path.join(root, randomUUID().slice(0, 8));
  await mkdir(attributesOnly);
  try {
    await writeAttributes(workspaces, head, attributesOnly);
    const { exitCode, stdout } = await repository.run(
      ['merge-tree', '--write-tree', '--no-messages', '--name-only', '-z', head, commit],
      { cwd: attributesOnly, workTree: attributesOnly, allowExitCodes: [0, 1] },
    );
    const [tree = '', ...files] = splitNul(stdout.toString('utf8'));
    return exitCode === 0
      ? { kind: 'merged', tree }
      : { kind: 'conflict', files: [...new Set(files)] };
  } finally {
    await workspaces.cleanup.removeOrQueue(attributesOnly);
  }
}

async function writeAttributes(
  { repository }: Workspaces,
  head: string,
  directory: string,
): Promise<void> {
  const entries = await repository.list(['ls-tree', '-r', '-z', '--end-of-options', head]);
  for (const entry of entries) {
    const [, blob, name] = /^100\d+ blob (\w+)\t((?:.*\/)?\.gitattributes)$/s.exec(entry) ?? [];
    if (blob === undefined || name === undefined) continue;
    const { stdout } = await repository.run(['cat-file', 'blob', blob]);
    const file = path.join(directory, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, stdout);
  }
}
