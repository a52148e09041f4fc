import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { ConfigurationError, ConflictError, NotFoundError } from '../protocol/errors.ts';
import { BRANCH_PREFIX, slugOf } from './branch-name.ts';
import { type Change, type ChangedFile, listChangedFiles, readChange } from './change.ts';
import {
  type Checkout,
  findObstacle,
  finishCheckouts,
  listTargetCheckouts,
  operationInProgress,
} from './checkouts.ts';
import { Git, GitError, type GitIdentity, type GitOptions, type GitResult } from './git.ts';
import { Mutex } from './mutex.ts';
import { ObjectReader } from './object-reader.ts';
import type { ProcessRegistry } from './process-registry.ts';
import { Remembered } from './remembered.ts';
import { isSpecial, readSpecialEntries, type SpecialEntries } from './special-entries.ts';
import { moveTarget } from './target-branch.ts';

export interface RepositoryOptions {
  /** The project: the top of a working tree, or a directory in it. */
  readonly directory: string;
  /** The branch that verified work goes to. Default `main`. */
  readonly target?: string;
  readonly processes: ProcessRegistry;
}

/**
 * The user's repository. We write objects and refs into it (`refs/heads/troupe/…`, `refs/troupe/…`, and the target
 * branch by compare-and-swap), never its configuration, hooks or a dirty working tree; and, while the target moves, the
 * file `troupe/move` in its git directory, which says so.
 *
 * Refs, all below `refs/troupe/` but the first:
 * ```
 * refs/heads/troupe/<run>/<task>    the latest submission
 * attempts/<run>/<task>/<n>         every submission; <n>-fix<m> those that mend it
 * salvage/<run>/<task>/<n>          what a dead attempt left: its commits and its uncommitted work
 * backup/<run>                      where the target stood before the run's first change
 * restore/<run>/<n>                 where it stood before the n-th restore
 * undone/<commit>                   moved to and back, as long as files of it may lie in a checkout
 * ```
 */
export class Repository {
  /** The top of the user's working tree. */
  readonly root: string;
  /** The git directory that all working trees share. */
  readonly commonDir: string;
  readonly target: string;
  readonly targetRef: string;
  readonly git: Git;
  readonly processes: ProcessRegistry;
  /** Reads refs and objects of the shared repository. */
  readonly objects: ObjectReader;
  /** `key=value` settings that change what files look like; clones and the user's own checkouts need the same. */
  readonly contentSettings: readonly string[];
  /** The filters (`filter.lfs.smudge=…`) that the user had configured when the repository was opened. */
  readonly #filters: readonly string[];
  readonly #mutex = new Mutex();
  /** By full object names, which stand for the same content for ever. */
  readonly #trees = new Remembered<string>(256);
  readonly #specialEntries = new Remembered<SpecialEntries>(32);
  readonly #changedFiles = new Remembered<readonly ChangedFile[]>(4);

  private constructor(
    found: Discovery,
    target: string,
    git: Git,
    processes: ProcessRegistry,
    settings: UserSettings,
  ) {
    this.processes = processes;
    this.root = found.root;
    this.commonDir = found.commonDir;
    this.target = target;
    this.targetRef = `refs/heads/${target}`;
    this.git = git;
    this.objects = new ObjectReader({
      git,
      place: { cwd: found.commonDir, gitDir: found.commonDir },
    });
    this.contentSettings = settings.content;
    this.#filters = settings.filters;
  }

  /**
   * Finds the repository and makes sure that it can be worked with. Nothing is written.
   * @throws {ConfigurationError} what is wrong, where, and what to do about it
   */
  static async open(options: RepositoryOptions): Promise<Repository> {
    const target = options.target ?? 'main';
    const probe = new Git({ processes: options.processes });
    await requireGitVersion(probe, options.directory);
    const found = await discover(probe, options.directory);
    const settings = await readUserSettings(probe, found);
    const git = new Git({
      processes: options.processes,
      ...(settings.identity === undefined ? {} : { identity: settings.identity }),
    });
    const repository = new Repository(found, target, git, options.processes, settings);
    try {
      await requireTarget(repository, found);
    } catch (error) {
      await repository.close();
      throw error;
    }
    return repository;
  }

  /** Runs git on the shared repository, not on any working tree. What it writes is flushed to the disk. */
  run(args: readonly string[], options: Partial<GitOptions> = {}): Promise<GitResult> {
    return this.git.run(args, this.#shared(options));
  }

  text(args: readonly string[], options: Partial<GitOptions> = {}): Promise<string> {
    return this.git.text(args, this.#shared(options));
  }

  list(args: readonly string[], options: Partial<GitOptions> = {}): Promise<string[]> {
    return this.git.list(args, this.#shared(options));
  }

  /** Runs git in one of the user's working trees, with the filters and line endings that the user has there. */
  runInCheckout(
    checkout: Pick<Checkout, 'directory' | 'gitDir'>,
    args: readonly string[],
    options: Partial<GitOptions> = {},
  ): Promise<GitResult> {
    return this.git.run(args, {
      cwd: checkout.directory,
      gitDir: checkout.gitDir,
      workTree: checkout.directory,
      config: [...this.contentSettings, ...this.#filters],
      ...options,
      env: { HOME: process.env['HOME'] ?? '/nonexistent', ...options.env },
    });
  }

  /** One writer at a time. Everything that changes the shared repository goes through here; not re-entrant. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#mutex.run(work);
  }

  /** The commit that a full ref name or an object name stands for. */
  async resolve(name: string): Promise<string | undefined> {
    return (await this.objects.info(`${name}^{commit}`))?.name;
  }

  /** @throws {ConfigurationError} the target branch has gone */
  async targetHead(): Promise<string> {
    const head = await this.resolve(this.targetRef);
    if (head !== undefined) return head;
    throw new ConfigurationError(
      `Expected the branch ${this.target} in ${this.root}; it is not there any more. ` +
        `Restore it (git branch ${this.target} <commit>) or name another target branch.`,
    );
  }

  /**
   * @param commit its full object name, not a ref: the answer is remembered
   * @throws {GitError} there is no such commit
   */
  async treeOf(commit: string): Promise<string> {
    return await this.#trees.get(commit, async () => {
      const tree = await this.objects.info(`${commit}^{tree}`);
      return (tree ?? missingCommit(this, commit)).name;
    });
  }

  /** @throws {GitError} there is no such commit */
  async parentsOf(commit: string): Promise<readonly string[]> {
    const content = await this.objects.content(`${commit}^{commit}`);
    if (content === undefined) missingCommit(this, commit);
    const [header = ''] = content.toString('latin1').split('\n\n', 1);
    return header.split('\n').flatMap((line) => /^parent (\w+)$/.exec(line)?.[1] ?? []);
  }

  /** What of a commit's files git treats in a way of its own. */
  async specialEntries(commit: string): Promise<SpecialEntries> {
    const tree = await this.treeOf(commit);
    return await this.#specialEntries.get(tree, () => readSpecialEntries(this, tree));
  }

  /**
   * All paths that differ between two trees.
   * @param from full object name of a tree, as is `to`
   */
  changedFiles(from: string, to: string): Promise<readonly ChangedFile[]> {
    return this.#changedFiles.get(`${from} ${to}`, () =>
      listChangedFiles(this.run.bind(this), from, to),
    );
  }

  /** The same with its fingerprint. */
  async readChange(from: string, to: string): Promise<Change> {
    const change = await readChange(this.run.bind(this), from, to);
    void this.#changedFiles.get(`${from} ${to}`, () => Promise.resolve(change.files));
    // A change that touches none of them leaves them as they were: the next target is known before it is the target.
    const entries = this.#specialEntries.find(from);
    if (entries !== undefined && !change.files.some(isSpecial)) {
      void this.#specialEntries.get(to, () => entries);
    }
    return change;
  }

  /** Ends the process that reads objects. For when all work is over. */
  async close(): Promise<void> {
    await this.objects.close();
  }

  /**
   * The working trees that have the target checked out.
   * @param next also tells which of them have untracked files where `next` puts files
   */
  async checkedOutTargets(
    next?: string,
  ): Promise<
    readonly { readonly directory: string; readonly clean: boolean; readonly reason?: string }[]
  > {
    const head = await this.targetHead();
    const checkouts = await listTargetCheckouts(this);
    return await Promise.all(
      checkouts.map(async (checkout) => {
        const reason = await findObstacle(this, checkout, head, next ?? head);
        const { directory } = checkout;
        return reason === undefined
          ? { directory, clean: true }
          : { directory, clean: false, reason };
      }),
    );
  }

  /**
   * Completes checkouts that a crash has left between the move of the branch and the update of the files.
   * Call it when the project is opened. Files that are neither of the old nor of the new state stay as they are.
   * @returns the directories that were brought up to date
   */
  async finishCheckouts(): Promise<string[]> {
    return await this.exclusive(() => finishCheckouts(this));
  }

  /** Remembers where the target stands, once per run. Call it before the run's first change. */
  async ensureBackupRef(run: string): Promise<string> {
    const ref = backupRef(run);
    return await this.exclusive(async () => {
      const existing = await this.resolve(ref);
      if (existing !== undefined) return existing;
      const head = await this.targetHead();
      await this.run(['update-ref', '-m', 'troupe: backup', ref, head, NO_COMMIT]);
      return head;
    });
  }

  /**
   * Puts the target back to where it stood before the run, its clean checkouts with it.
   * @returns `undo`: the ref that remembers where it stood until now; give it to `undoRestore`
   * @throws {NotFoundError} there is no backup of that run
   * @throws {ConflictError} a checkout is dirty, or the target moves at this moment; nothing was changed
   */
  async restoreBackup(run: string): Promise<Restored> {
    const to = await this.resolve(backupRef(run));
    if (to === undefined) {
      throw new NotFoundError(
        `Expected a backup of run ${JSON.stringify(run)} at ${backupRef(run)} in ${this.root}; there is none. ` +
          `"git for-each-ref refs/troupe/backup" lists those there are.`,
      );
    }
    return await this.#restoreTo(run, to);
  }

  /** Takes a restore back. It is a restore itself, and so leaves an `undo` of its own. */
  async undoRestore(run: string, undo: string): Promise<Restored> {
    const to = undo.startsWith(`${restoreNamespace(run)}/`) ? await this.resolve(undo) : undefined;
    if (to === undefined) {
      throw new NotFoundError(
        `Expected a ref below ${restoreNamespace(run)}/ in ${this.root}, got ${JSON.stringify(undo)}.`,
      );
    }
    return await this.#restoreTo(run, to);
  }

  async #restoreTo(run: string, to: string): Promise<Restored> {
    const from = await this.targetHead();
    const undo = await this.exclusive(() => this.#keepUnderNextNumber(restoreNamespace(run), from));
    const outcome = await moveTarget(this, { from, to, message: `troupe: restore ${slugOf(run)}` });
    switch (outcome.kind) {
      case 'moved':
        return { from, to, undo };
      case 'moved_meanwhile':
        throw new ConflictError(
          `${this.target} moved from ${from} while it was being restored. Nothing was changed; try again.`,
        );
      case 'obstructed':
        throw new ConflictError(`${outcome.reason} Nothing was changed.`);
    }
  }

  /** Points the next free `<namespace>/<n>` at a commit. For use inside `exclusive`. */
  async #keepUnderNextNumber(namespace: string, commit: string): Promise<string> {
    const ref = `${namespace}/${await this.nextNumber(namespace)}`;
    await this.run(['update-ref', ref, commit, NO_COMMIT]);
    return ref;
  }

  /** One more than the highest number below a namespace of refs. */
  async nextNumber(namespace: string): Promise<number> {
    const refs = await this.text(['for-each-ref', '--format=%(refname)', `${namespace}/`]);
    const numbers = refs.split('\n').map((ref) => Number(ref.slice(namespace.length + 1)));
    return Math.max(0, ...numbers.filter((number) => Number.isSafeInteger(number))) + 1;
  }

  #shared(options: Partial<GitOptions>): GitOptions {
    return {
      cwd: this.commonDir,
      gitDir: this.commonDir,
      ...options,
      // Refs and what they need survive a power loss, not only a kill.
      config: ['core.fsync=committed,reference', ...(options.config ?? [])],
    };
  }
}

export interface Restored {
  readonly from: string;
  readonly to: string;
  readonly undo: string;
}

function missingCommit(repository: Repository, commit: string): never {
  throw new GitError('failed', `git in ${repository.commonDir}: there is no commit ${commit}.`, {
    args: ['cat-file', commit],
    exitCode: null,
    stderr: '',
  });
}

/** As an old value: the ref must not exist yet. */
const NO_COMMIT = '';

const backupRef = (run: string) => `refs/troupe/backup/${slugOf(run)}`;
const restoreNamespace = (run: string) => `refs/troupe/restore/${slugOf(run)}`;

interface Discovery {
  readonly root: string;
  readonly commonDir: string;
}

interface UserSettings {
  readonly identity?: GitIdentity;
  readonly content: readonly string[];
  readonly filters: readonly string[];
}

async function requireGitVersion(git: Git, cwd: string): Promise<void> {
  if (!existsSync(cwd)) {
    throw new ConfigurationError(`Expected a project directory at ${cwd}; there is none.`);
  }
  let said: string;
  try {
    said = await git.text(['version'], { cwd });
  } catch (error) {
    if (!(error instanceof GitError && error.kind === 'missing')) throw error;
    throw new ConfigurationError(
      'git was not found on PATH. Install git 2.38 or newer (https://git-scm.com/downloads).',
      { cause: error },
    );
  }
  const [, major, minor] = /(\d+)\.(\d+)/.exec(said) ?? [];
  if (Number(major) * 1000 + Number(minor) < 2038) {
    throw new ConfigurationError(
      `Expected git 2.38 or newer (merges are made by "git merge-tree --write-tree"), got ${said}.`,
    );
  }
}

async function discover(git: Git, directory: string): Promise<Discovery> {
  const { exitCode, stdout, stderr } = await git.run(
    [
      ...['rev-parse', '--path-format=absolute', '--is-bare-repository', '--is-inside-work-tree'],
      // The last one fails where there are no working files; what comes before it is said all the same.
      ...['--git-common-dir', '--show-toplevel'],
    ],
    { cwd: directory, userConfiguration: true, allowExitCodes: [0, 128] },
  );
  const said = stdout.toString('utf8');
  if (exitCode !== 0 && said === '') {
    // "Not a repository" and "dubious ownership" both end here; git says which, and what to do about the second.
    throw new ConfigurationError(
      `Expected a git repository at ${directory}. git says: ${stderr.trim()} ` +
        `If there is none yet: git init -b main && git add -A && git commit -m "First commit".`,
    );
  }
  const [bare, inside, commonDir = '', ...root] = said.replace(/\n$/, '').split('\n');
  if (bare === 'true') {
    throw new ConfigurationError(
      `Expected a repository with working files, got a bare one at ${directory}. ` +
        `Use a clone of it (git clone ${directory} project).`,
    );
  }
  if (inside !== 'true') {
    throw new ConfigurationError(
      `Expected the project directory, got the inside of a git directory: ${directory}.`,
    );
  }
  return { root: root.join('\n'), commonDir };
}

/** Keys that change the bytes of working files or of what is committed from them. */
const CONTENT_KEYS =
  'autocrlf|eol|ignorecase|filemode|symlinks|precomposeunicode|longpaths|protecthfs|protectntfs';

async function readUserSettings(git: Git, found: Discovery): Promise<UserSettings> {
  const { stdout } = await git.run(
    [
      'config',
      '-z',
      '--get-regexp',
      `^(user\\.(name|email)|core\\.(${CONTENT_KEYS})|filter\\..*|extensions\\.partialclone)$`,
    ],
    { cwd: found.root, userConfiguration: true, allowExitCodes: [0, 1] },
  );
  const settings = new Map<string, string>();
  for (const entry of stdout.toString('utf8').split('\0')) {
    const newline = entry.indexOf('\n');
    if (newline > 0) settings.set(entry.slice(0, newline), entry.slice(newline + 1));
  }
  if (settings.has('extensions.partialclone')) {
    throw new ConfigurationError(
      `The repository at ${found.root} is a partial clone: git would fetch missing files over the network in the ` +
        'middle of the work. Make it complete: git fetch --refetch --no-filter, then ' +
        'git config --unset extensions.partialclone.',
    );
  }
  const name = settings.get('user.name');
  const email = settings.get('user.email');
  const withPrefix = (prefix: string) =>
    [...settings].filter(([key]) => key.startsWith(prefix)).map((entry) => entry.join('='));
  return {
    ...(name && email ? { identity: { name, email } } : {}),
    content: withPrefix('core.'),
    filters: withPrefix('filter.'),
  };
}

/** Letters, digits and what may stand between them: no process is needed to know that git takes it. */
const PLAIN_BRANCH = /^(?!HEAD$)[A-Za-z0-9_]+(?:[-/][A-Za-z0-9_]+)*$/;

async function isBranchName(repository: Repository, name: string): Promise<boolean> {
  if (PLAIN_BRANCH.test(name)) return true;
  const { exitCode, stdout } = await repository.run(['check-ref-format', '--branch', name], {
    allowExitCodes: [0, 1, 128],
  });
  // `@{-1}` is a valid argument there and comes out as another name.
  return exitCode === 0 && stdout.toString('utf8').trim() === name;
}

async function requireTarget(repository: Repository, found: Discovery): Promise<void> {
  const { target } = repository;
  if (!(await isBranchName(repository, target))) {
    throw new ConfigurationError(
      `Expected the name of a branch as target, got ${JSON.stringify(target)}.`,
    );
  }
  if ((await repository.resolve(repository.targetRef)) === undefined) {
    throw new ConfigurationError(await describeMissingTarget(repository));
  }
  if ((await repository.resolve(`refs/heads/${BRANCH_PREFIX}`)) !== undefined) {
    throw new ConfigurationError(
      `The branch ${BRANCH_PREFIX} in ${found.root} is in the way of ours (${BRANCH_PREFIX}/<run>/<task>). ` +
        `Rename it: git branch -m ${BRANCH_PREFIX} ${BRANCH_PREFIX}-old`,
    );
  }
  for (const checkout of await listTargetCheckouts(repository)) {
    const operation = operationInProgress(checkout.gitDir);
    if (operation === undefined) continue;
    throw new ConfigurationError(
      `A ${operation} is in progress in ${checkout.directory}, which has ${target} checked out. ` +
        `Finish it, or call it off (git ${operation} --abort), then try again.`,
    );
  }
}

async function describeMissingTarget(repository: Repository): Promise<string> {
  const { root, target } = repository;
  const branches = (
    await repository.text(['for-each-ref', '--format=%(refname:lstrip=2)', 'refs/heads/'])
  )
    .split('\n')
    .filter((name) => name !== '' && !name.startsWith(`${BRANCH_PREFIX}/`));
  if (branches.length === 0) {
    return `The repository at ${root} has no commit yet. Make the first one: git add -A && git commit -m "First commit".`;
  }
  const head = headBranch(repository);
  const suggestion =
    branches.length === 1 || !head || !branches.includes(head) ? branches[0] : head;
  return (
    `Expected the branch ${target} in ${root}; there is none. Did you mean ${suggestion}? ` +
    `(Branches there: ${branches.slice(0, 10).join(', ')}${branches.length > 10 ? ', …' : ''}.)`
  );
}

function headBranch(repository: Repository): string | undefined {
  const head = readFileSync(path.join(repository.commonDir, 'HEAD'), 'utf8');
  return /^ref: refs\/heads\/(.+)$/m.exec(head)?.[1];
}
