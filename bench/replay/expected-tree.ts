import { rm } from 'node:fs/promises';
import path from 'node:path';
import { GitError } from '../../src/workspace/git.ts';
import type { Change, Workload } from './manifest.ts';
import { inOrder } from './plan.ts';
import type { Scratch } from './scratch.ts';

/**
 * What main's tree must be when exactly these changes are merged: the tip of the manifest for all good ones, else what
 * git makes of the start by applying the patches one after the other.
 * @returns undefined: they cannot be applied in any order that respects their dependencies
 */
export async function expectedTree(
  scratch: Scratch,
  workload: Workload,
  base: string,
  merged: readonly Change[],
): Promise<string | undefined> {
  const good = [...workload.changes.values()].filter(({ bad }) => bad === undefined);
  const ids = new Set(merged.map(({ id }) => id));
  if (ids.size === good.length && good.every(({ id }) => ids.has(id))) return workload.tipTree;
  const indexFile = path.join(scratch.directory, 'expected-index');
  const git = (args: readonly string[]) =>
    scratch.git.text(args, { cwd: scratch.project, indexFile, timeoutMs: 600_000 });
  try {
    await git(['read-tree', base]);
    for (const { patch } of inOrder(workload, ids)) {
      await git(['apply', '--cached', '--whitespace=nowarn', patch]).catch((error: unknown) => {
        if (!(error instanceof GitError) || error.infrastructure) throw error;
        return git(['apply', '--cached', '--3way', '--whitespace=nowarn', patch]);
      });
    }
    return await git(['write-tree']);
  } catch (error) {
    if (!(error instanceof GitError) || error.infrastructure) throw error;
    return undefined;
  } finally {
    await rm(indexFile, { force: true });
  }
}
