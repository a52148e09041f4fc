import { readFile } from 'node:fs/promises';
import { ConfigurationError, TroupeError } from '../protocol/errors.ts';
import { applyPatch } from '../workspace/patch.ts';
import type { Engine } from './engine.ts';
import type { GitProject } from './git-project.ts';

/**
 * An agent that applies patches: the task's input names the files, `{ patches: ['first.patch', 'second.patch'] }`,
 * one for each attempt; the last one serves all later attempts.
 */
export function patchEngine(project: GitProject): Engine {
  return async ({ task, workspace, signal }) => {
    const files = patchFiles(task.input);
    const file = files[Math.min(task.attempt, files.length) - 1];
    if (workspace === null || file === undefined) {
      throw new ConfigurationError(
        `Task "${task.id}" needs a workspace and an input such as { patches: ["change.patch"] }.`,
      );
    }
    const patch = await readFile(file, 'utf8');
    const result = await applyPatch({ repository: project.repository, workspace, patch, signal });
    if (result.kind === 'refused') {
      throw new TroupeError('validation', `The patch does not apply: ${result.reason}`, {
        context: { stage: 'apply' },
      });
    }
    return { patch: file };
  };
}

function patchFiles(input: unknown): readonly string[] {
  const patches: unknown = (input as { patches?: unknown } | null)?.patches;
  return Array.isArray(patches) && patches.every((file) => typeof file === 'string') ? patches : [];
}
