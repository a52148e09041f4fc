import { readFile } from 'node:fs/promises';
import { ConfigurationError } from '../protocol/errors.ts';
import { RefusedWorkError } from '../protocol/refused-work.ts';
import type { Engine } from './engine.ts';
import type { GitProject } from './git-project.ts';

/**
 * An agent that applies patches: the task's input names the files, `{ patches: ['first.patch', 'second.patch'] }`,
 * the next one each time the work has failed; the last one serves all later attempts. An attempt that infrastructure has
 * cost is made again with the patch it had.
 */
export function patchEngine(project: GitProject): Engine {
  return async ({ task, workspace, signal }) => {
    const files = patchFiles(task.input);
    const file = files[Math.min(task.failedAttempts, files.length - 1)];
    if (workspace === null || file === undefined) {
      throw new ConfigurationError(
        `Task "${task.id}" needs a workspace and an input such as { patches: ["change.patch"] }.`,
      );
    }
    // As bytes: a patch may be of files in any encoding.
    const patch = await readFile(file);
    const result = await project.applyPatch(workspace, patch, signal);
    if (result.kind === 'refused') {
      throw new RefusedWorkError('validation', sentenceOf(result.reason), 'apply', {
        name: 'apply',
        command: `git apply ${file}`,
        exitCode: 1,
        excerpt: result.output === '' ? result.reason : result.output,
      });
    }
    return { patch: file };
  };
}

const sentenceOf = (reason: string): string =>
  reason.startsWith('The patch') ? reason : `The patch does not apply: ${reason}`;

function patchFiles(input: unknown): readonly string[] {
  const patches: unknown = (input as { patches?: unknown } | null)?.patches;
  return Array.isArray(patches) && patches.every((file) => typeof file === 'string') ? patches : [];
}
