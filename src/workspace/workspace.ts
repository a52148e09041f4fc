import type { TaskName } from './branch-name.ts';
import type { GitOptions, GitResult } from './git.ts';
import type { Repository } from './repository.ts';

/** A place where one attempt at a task is made. */
export interface Workspace extends TaskName {
  readonly attempt: number;
  /** The agent's directory: the project's files, and a `.git` of its own. */
  readonly directory: string;
  /** `troupe/<run>/<task>`, checked out there. */
  readonly branch: string;
  /** The commit of the target that the work starts from. */
  readonly base: string;
  /** The submission that it goes on from, which is on top of the base. Absent where it starts from the base. */
  readonly from?: string;
  /** To be added to the environment of what runs there. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * Our own git directory for the same files. The agent's `.git` is data to us: its configuration, filters and
   * hooks are never read.
   */
  readonly gitDir: string;
}

/** Runs git on the workspace's files with our git directory. */
export function runInWorkspace(
  repository: Repository,
  workspace: Pick<Workspace, 'directory' | 'gitDir'>,
  args: readonly string[],
  options: Partial<GitOptions> = {},
): Promise<GitResult> {
  return repository.git.run(args, {
    cwd: workspace.directory,
    gitDir: workspace.gitDir,
    workTree: workspace.directory,
    ...options,
  });
}
