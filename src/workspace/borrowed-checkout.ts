import { constants, copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import path from 'node:path';
import type { Repository } from './repository.ts';

export interface GitDirectoryOptions {
  readonly repository: Repository;
  /** Where it is made; must not exist. */
  readonly gitDir: string;
  /** The branch that HEAD names, and where it stands. */
  readonly branch: string;
  readonly commit: string;
  /** Where the target stands for whoever works there. */
  readonly base: string;
  /** More places to read objects from. */
  readonly objects?: readonly string[];
}

/**
 * Makes a git directory that borrows all objects of the user's repository and shares nothing else with it: no
 * hooks, configuration, `info/exclude`, refs or remotes. What `git clone --shared` does, less what would have to be
 * removed again, and without a process. A local branch with the target's name shows where the target stands.
 * Synchronously: the system makes these few small files in less time than it takes to hand one of them to another thread.
 * Crash: an incomplete directory; the caller makes it where nobody looks and renames it.
 * Source: gitrepository-layout(5).
 */
export function makeGitDirectory(options: GitDirectoryOptions): void {
  const { repository, gitDir, branch, commit } = options;
  mkdirSync(path.dirname(gitDir), { recursive: true });
  mkdirSync(gitDir);
  const file = (name: string) => path.join(gitDir, name);
  const objects = [path.join(repository.commonDir, 'objects'), ...(options.objects ?? [])];
  const files = new Map([
    ['objects/info/alternates', `${objects.map(quoteAlternate).join('\n')}\n`],
    ['config', configText(repository, commit)],
    [`refs/heads/${repository.target}`, `${options.base}\n`],
    [`refs/heads/${branch}`, `${commit}\n`],
    ['HEAD', `ref: refs/heads/${branch}\n`],
  ]);
  const directories = new Set(['objects/pack', ...Array.from(files.keys(), path.posix.dirname)]);
  for (const name of directories) mkdirSync(file(name), { recursive: true });
  for (const [name, text] of files) writeFileSync(file(name), text);
  // A shallow repository lacks the parents of some commits; whoever borrows from it must know of which.
  const shallow = path.join(repository.commonDir, 'shallow');
  if (existsSync(shallow)) copyFileSync(shallow, file('shallow'));
}

/**
 * Makes another one for the same checkout. Not by copying the whole directory: to ask of everything what it is takes longer
 * than to write it.
 * @param filled where the first was made, and its index written by `fillWorkTree`
 */
export async function makeGitDirectoryBeside(
  filled: string,
  options: GitDirectoryOptions,
): Promise<void> {
  makeGitDirectory(options);
  const index = path.join(options.gitDir, 'index');
  await copyFile(path.join(filled, 'index'), index, constants.COPYFILE_EXCL);
}

export interface CheckoutPlace {
  readonly gitDir: string;
  readonly workTree: string;
  readonly commit: string;
}

/**
 * Fills a directory with the files of a commit, and the git directory's index with what is known of them. What is there
 * already stays if the index knows it and its times are as they were then.
 */
export async function fillWorkTree(
  repository: Repository,
  place: CheckoutPlace,
  signal?: AbortSignal,
): Promise<void> {
  await repository.git.run(['read-tree', '--reset', '-u', place.commit], {
    cwd: place.workTree,
    gitDir: place.gitDir,
    workTree: place.workTree,
    // A worker is a process; for a few hundred files to start one takes longer than to write them. 0: one per core.
    config: ['checkout.workers=0', 'checkout.thresholdForParallelism=1000'],
    timeoutMs: 600_000,
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Where an agent's or a verification's git must stop looking for a repository when its own was removed. */
export function ceilingEnvironment(directory: string): Record<string, string> {
  return { GIT_CEILING_DIRECTORIES: path.dirname(directory) };
}

function configText(repository: Repository, commit: string): string {
  const sha256 = commit.length === 64;
  const { name, email } = repository.git.identity;
  return [
    '[core]',
    `\trepositoryformatversion = ${sha256 ? 1 : 0}`,
    '\tbare = false',
    ...repository.contentSettings.map((setting) => {
      const [key = '', ...value] = setting.split('=');
      return `\t${key.slice('core.'.length)} = ${quoteConfig(value.join('='))}`;
    }),
    ...(sha256 ? ['[extensions]', '\tobjectformat = sha256'] : []),
    '[user]',
    `\tname = ${quoteConfig(name)}`,
    `\temail = ${quoteConfig(email)}`,
    '[gc]',
    '\tauto = 0',
    '',
  ].join('\n');
}

function quoteConfig(value: string): string {
  const escaped = value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  return `"${escaped}"`;
}

/** A line of `objects/info/alternates`; git unquotes one that begins with a quote. */
function quoteAlternate(directory: string): string {
  if (!/["\n\\]/.test(directory)) return directory;
  return quoteConfig(directory);
}
