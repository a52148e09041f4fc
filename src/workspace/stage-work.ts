import { existsSync } from 'node:fs';
import path from 'node:path';
import type { RunGit } from './change.ts';
import { GitError, splitNul } from './git.ts';
import type { Repository } from './repository.ts';
import { REPOSITORY_MODE } from './special-entries.ts';
import type { Workspace } from './workspace.ts';

/**
 * Puts the state of all files of a workspace into our index: new, changed and deleted ones. Files whose stat data
 * did not change are not read again.
 * @throws {GitError} with `nestedRepositoryIn(error)` when there is a repository without a commit, with
 *   `unstageableIn(error)` when there is something else that git does not take
 */
export async function stageWork(
  repository: Repository,
  workspace: Workspace,
  git: RunGit,
): Promise<void> {
  const excluded = await guardSubmodules(repository, workspace, git);
  await git(['add', '--all', '--', '.', ...excluded]);
}

/** A nested repository without a commit stops `git add` where one with commits is only warned about. */
export function nestedRepositoryIn(error: unknown): string | undefined {
  if (!(error instanceof GitError)) return undefined;
  return /'(.+?)\/?' does not have a commit checked out/.exec(error.stderr)?.[1];
}

/** What is no content that git could keep: a pipe in a file's place, a name that means `.git` on some system, a file that may not be read. */
export function unstageableIn(error: unknown): string | undefined {
  if (!(error instanceof GitError)) return undefined;
  return UNSTAGEABLE.exec(error.stderr)
    ?.slice(1)
    .find((name) => name !== undefined);
}

const UNSTAGEABLE =
  /^error: (?:invalid path '(.+)'|(.+): can only add regular files.*|open\("(.+)"\): Permission denied)$/im;

/**
 * Keeps git out of repositories inside the workspace: for one that the index knows, `git add` would run
 * `git status` in there, with whatever filters its configuration names. Submodules of the project stay as the base
 * has them; what the agent made itself is looked at afresh, from outside.
 * @returns pathspecs to leave out
 */
async function guardSubmodules(
  repository: Repository,
  workspace: Workspace,
  git: RunGit,
): Promise<string[]> {
  const { repositories: inBase } = await repository.specialEntries(workspace.base);
  const { stdout } = await git(['ls-files', '-z', '--stage']);
  const inIndex = splitNul(stdout.toString('utf8')).flatMap((line) =>
    line.startsWith(`${REPOSITORY_MODE} `) ? [line.slice(line.indexOf('\t') + 1)] : [],
  );
  const made = inIndex.filter((name) => !inBase.includes(name));
  if (made.length > 0) {
    await git(['update-index', '--force-remove', '-z', '--stdin'], {
      stdin: made.map((name) => `${name}\0`).join(''),
    });
  }
  return inBase
    .filter((name) => existsSync(path.join(workspace.directory, name, '.git')))
    .map((name) => `:(exclude,literal,top)${name}`);
}
