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
 * Merges a commit with the target's head as git would. One that was made directly on the head needs no merge: its
 * tree is the outcome. Any other is merged without any working tree: the outcome is a tree in the object
 * store. How files are merged (`merge=union` for a changelog) is read from the `.gitattributes` of the target's
 * head; git would look for them in whatever directory it runs in.
 */
export async function mergeInMemory(
  workspaces: Workspaces,
  head: string,
  commit: string,
): Promise<MergeOutcome> {
  const { repository } = workspaces;
  if ((await repository.parentsOf(commit)).includes(head)) {
    return { kind: 'merged', tree: await repository.treeOf(commit) };
  }
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
  for (const { path: name, blob } of (await repository.specialEntries(head)).attributes) {
    const content = await repository.objects.content(blob);
    if (content === undefined) continue; // as for git, which reads what it has
    const file = path.join(directory, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, content);
  }
}
