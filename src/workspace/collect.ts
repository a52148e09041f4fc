import { existsSync, lstatSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import { taskPath } from './branch-name.ts';
import {
  type Change,
  findConflictMarkers,
  listChangedFiles,
  parseRaw,
  RAW_LISTING,
  type RunGit,
  readChange,
} from './change.ts';
import { entryAt } from './entry-at.ts';
import { GitError, splitNul } from './git.ts';
import type { Repository } from './repository.ts';
import { REPOSITORY_MODE } from './special-entries.ts';
import { nestedRepositoryIn, stageWork, unstageableIn } from './stage-work.ts';
import { runInWorkspace, type Workspace } from './workspace.ts';

export interface CollectOptions {
  readonly workspace: Workspace;
  /** Subject and body of the commit. */
  readonly message: string;
  /** Of the submission among those of the task: the last part of its ref. Default: the number of the attempt. */
  readonly label?: string;
  /** Added below the message: `{ 'Troupe-Attempt': '2' }`. */
  readonly trailers?: Readonly<Record<string, string>>;
  /**
   * What our index and all files hold, if that is known because nobody but us has written there since. Then the files
   * are not looked at.
   */
  readonly tree?: string;
  /** Only what the agent has committed itself, on top of the base; what it has not stays where it is. Default false. */
  readonly committedOnly?: boolean;
  readonly signal?: AbortSignal;
  readonly faultPoint?: FaultPoint;
}

/** What came of an agent's work. */
export type Collected =
  | {
      readonly kind: 'submitted';
      readonly commit: string;
      readonly tree: string;
      readonly base: string;
      /** Changed paths. */
      readonly files: readonly string[];
      readonly changeFingerprint: string;
    }
  /** Nothing differs from the base, or from the submission that the workspace went on from. */
  | { readonly kind: 'empty' }
  /** It cannot be submitted as it is; the reason is for the next attempt. */
  | { readonly kind: 'refused'; readonly reason: string; readonly files: readonly string[] };

/**
 * Makes one submission of whatever an agent has left in its workspace, committed or not, and brings it into the
 * user's repository as the branch `troupe/<run>/<task>` and as `refs/troupe/attempts/<run>/<task>/<attempt>`.
 * Done again after a crash it gives the same commit.
 */
export async function collectWork(
  repository: Repository,
  options: CollectOptions,
): Promise<Collected> {
  const { workspace, signal } = options;
  const faultPoint = options.faultPoint ?? noFaults;
  const git = workspaceGit(repository, workspace, signal);
  let snapshot: Snapshot;
  try {
    snapshot =
      options.committedOnly === true
        ? await committedSnapshot(repository, workspace, git, signal)
        : options.tree === undefined
          ? await takeSnapshot(repository, workspace, signal)
          : await knownSnapshot(workspace, git, options.tree);
  } catch (error) {
    const nested = nestedRepositoryIn(error);
    if (nested !== undefined) return nestedRefusal([nested]);
    const name = unstageableIn(error);
    if (name === undefined) throw error;
    const reason = `Git cannot keep ${quoted([name])}: only files that can be read, and links, under a name that is not one for .git. Remove it.`;
    return { kind: 'refused', reason, files: [name] };
  }
  const { change } = snapshot;
  const { files } = change;
  if (files.length === 0) return { kind: 'empty' };
  if (workspace.from !== undefined && (await repository.treeOf(workspace.from)) === snapshot.tree) {
    return { kind: 'empty' };
  }
  const nested = files.filter(({ mode }) => mode === REPOSITORY_MODE).map((file) => file.path);
  if (nested.length > 0) return nestedRefusal(nested);
  // The character that stands for such bytes when they are read.
  const unreadable = files.filter((file) => file.status !== 'deleted' && /\ufffd/.test(file.path));
  if (unreadable.length > 0) {
    const names = unreadable.map((file) => file.path);
    const reason = `The name of ${quoted(names)} is not UTF-8: give it another one.`;
    return { kind: 'refused', reason, files: names };
  }
  const unresolved = [
    ...new Set([
      ...snapshot.unmerged,
      ...(await findConflictMarkers(git, workspace.base, snapshot.tree, change)),
    ]),
  ];
  if (unresolved.length > 0) {
    return {
      kind: 'refused',
      reason: `Conflicts are not resolved in ${quoted(unresolved)}: remove the <<<<<<<, =======, >>>>>>> marks.`,
      files: unresolved,
    };
  }
  const message = messageWithTrailers(options.message, options.trailers ?? {});
  const refs = [
    `refs/heads/${workspace.branch}`,
    `refs/troupe/attempts/${taskPath(workspace)}/${options.label ?? workspace.attempt}`,
  ];
  await faultPoint('workspace.before-commit');
  let commit = await commitSnapshot(repository, workspace, snapshot, message);
  await faultPoint('workspace.after-commit');
  try {
    commit = await importWork(repository, workspace, snapshot, commit, message, refs);
  } catch (error) {
    if (!isMalformed(error)) throw error;
    const reason = `Git refuses what is in the change: ${error.stderr.split('\n')[0]}`;
    return { kind: 'refused', reason, files: files.map((file) => file.path) };
  }
  await faultPoint('workspace.after-import');
  return {
    kind: 'submitted',
    commit,
    tree: snapshot.tree,
    base: workspace.base,
    files: files.map((file) => file.path),
    changeFingerprint: change.fingerprint,
  };
}

/**
 * Keeps what a dead attempt has left, its commits and its uncommitted work, as the next
 * `refs/troupe/salvage/<run>/<task>/<n>`.
 * @returns the ref; undefined when there is nothing that is not kept already
 */
export async function salvageWork(
  repository: Repository,
  workspace: Workspace,
): Promise<string | undefined> {
  const snapshot = await takeSnapshot(repository, workspace);
  const { files } = snapshot.change;
  if (files.length === 0 && snapshot.parent === workspace.base) return undefined;
  if (files.some(({ mode, previousMode }) => mode === REPOSITORY_MODE && previousMode !== mode)) {
    throw new Error(`a nested repository in ${workspace.directory} cannot be kept as a ref`);
  }
  const name = taskPath(workspace);
  const kept = await repository.text([
    'for-each-ref',
    '--format=%(tree)',
    `refs/heads/${workspace.branch}`,
    `refs/troupe/attempts/${name}/`,
    `refs/troupe/salvage/${name}/`,
  ]);
  if (kept.split('\n').includes(snapshot.tree)) return undefined;
  const commit = await commitSnapshot(
    repository,
    workspace,
    snapshot,
    messageWithTrailers(`Salvaged work of ${workspace.run}/${workspace.task}`, {
      'Troupe-Attempt': String(workspace.attempt),
    }),
  );
  const namespace = `refs/troupe/salvage/${name}`;
  const ref = `${namespace}/${await repository.nextNumber(namespace)}`;
  await importCommit(repository, workspace, commit, [ref]);
  return ref;
}

/** A message with trailers below. Line breaks in values become spaces: a value must not make a trailer of its own. */
export function messageWithTrailers(
  message: string,
  trailers: Readonly<Record<string, string>>,
): string {
  const lines = Object.entries(trailers).map(
    ([key, value]) => `${key}: ${value.replace(/\s+/g, ' ').trim()}`,
  );
  const text = message.replaceAll('\0', '').trim() || 'Change';
  return lines.length === 0 ? `${text}\n` : `${text}\n\n${lines.join('\n')}\n`;
}

interface Snapshot {
  readonly tree: string;
  /** From the base to the tree. */
  readonly change: Change;
  /** The agent's last commit if it builds on the base, else the base. */
  readonly parent: string;
  /** Paths that the agent's own index calls unmerged. */
  readonly unmerged: readonly string[];
}

/** Reads all files of the workspace into our index. What the agent tracks counts even where `.gitignore` hides it. */
async function takeSnapshot(
  repository: Repository,
  workspace: Workspace,
  signal?: AbortSignal,
): Promise<Snapshot> {
  const git = workspaceGit(repository, workspace, signal);
  const parent = await readAgentHead(repository, workspace, signal);
  await stageWork(repository, workspace, git);
  const staged = await writeSnapshot(workspace, git);
  const agentIndex = await readAgentIndex(workspace, git, staged.tree);
  const known =
    parent === workspace.base
      ? staged.change.files
      : await listChangedFiles(git, parent, staged.tree);
  const left = known.flatMap(({ path: name, status }) => (status === 'deleted' ? [name] : []));
  const hidden = [...left, ...agentIndex.tracked].filter((name) =>
    isFileOrLink(workspace.directory, name),
  );
  const { unmerged } = agentIndex;
  if (hidden.length === 0) return { ...staged, parent, unmerged };
  await git(['update-index', '--add', '-z', '--stdin'], {
    stdin: hidden.map((name) => `${name}\0`).join(''),
  });
  return { ...(await writeSnapshot(workspace, git)), parent, unmerged };
}

/** Of files that nobody but us has written: no agent has committed, tracked or hidden anything there. */
async function knownSnapshot(workspace: Workspace, git: RunGit, tree: string): Promise<Snapshot> {
  const change = await readChange(git, workspace.base, tree);
  return { tree, change, parent: workspace.from ?? workspace.base, unmerged: [] };
}

/** Of the agent's last commit: its files may be half written. */
async function committedSnapshot(
  repository: Repository,
  workspace: Workspace,
  git: RunGit,
  signal?: AbortSignal,
): Promise<Snapshot> {
  const parent = await readAgentHead(repository, workspace, signal);
  const { stdout } = await git(['rev-parse', '--verify', `${parent}^{tree}`]);
  const tree = stdout.toString('utf8').trim();
  return { tree, change: await readChange(git, workspace.base, tree), parent, unmerged: [] };
}

/** Our index as a tree, and what that changes. */
async function writeSnapshot(
  workspace: Workspace,
  git: RunGit,
): Promise<Pick<Snapshot, 'tree' | 'change'>> {
  const tree = (await git(['write-tree'])).stdout.toString('utf8').trim();
  return { tree, change: await readChange(git, workspace.base, tree) };
}

async function commitSnapshot(
  repository: Repository,
  workspace: Workspace,
  snapshot: Snapshot,
  message: string,
): Promise<string> {
  const git = workspaceGit(repository, workspace);
  const ref = `refs/heads/${workspace.branch}`;
  const describe = async (commit: string) =>
    (await git(['log', '-1', '--format=%T %P%n%B', '--end-of-options', commit])).stdout.toString();
  // A crash may have come between this commit and its import: then it is here already.
  const wanted = `${snapshot.tree} ${snapshot.parent}\n${message}`;
  const madeNothing = (await readPlainRef(workspace.gitDir, ref)) === snapshot.parent;
  if (!madeNothing && (await describe(ref)).trimEnd() === wanted.trimEnd()) {
    return (await git(['rev-parse', '--verify', ref])).stdout.toString().trim();
  }
  const { stdout } = await git(['commit-tree', snapshot.tree, '-p', snapshot.parent, '-F', '-'], {
    stdin: message,
  });
  const commit = stdout.toString('utf8').trim();
  await writePlainRef(workspace.gitDir, ref, commit);
  return commit;
}

/**
 * Points a ref of our git directory, which nobody else writes to and git never packs, at a commit. No fsync: the place
 * is made anew when a power loss takes it.
 */
async function writePlainRef(gitDir: string, ref: string, commit: string): Promise<void> {
  const file = path.join(gitDir, ref);
  const temporary = path.join(gitDir, 'new-ref');
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(temporary, `${commit}\n`);
  await rename(temporary, file);
}

/**
 * Copies a commit of our git directory, and what it needs, into the user's repository, and only then points the refs at
 * it, all at once, also where somebody looks at such a branch. Objects are checked on the way (`--strict`), as a fetch
 * with `transfer.fsckObjects` does, at the cost of two processes where that starts seven; what is too large to be held in
 * memory is fetched.
 */
async function importCommit(
  repository: Repository,
  workspace: Workspace,
  commit: string,
  refs: readonly string[],
): Promise<void> {
  const pack = await packOf(repository, workspace, commit);
  if (pack === undefined) return await fetchCommit(repository, workspace, refs);
  await repository.run(['unpack-objects', '-q', '--strict'], { stdin: pack, timeoutMs: 600_000 });
  await repository.exclusive(() =>
    repository.run(['update-ref', '-m', 'troupe: import', '--stdin'], {
      stdin: refs.map((ref) => `update ${ref} ${commit}\n`).join(''),
    }),
  );
}

/** What a commit has beyond the base, as a pack. @returns undefined when it is large */
async function packOf(
  repository: Repository,
  workspace: Workspace,
  commit: string,
): Promise<Buffer | undefined> {
  try {
    const { stdout } = await runInWorkspace(
      repository,
      workspace,
      ['pack-objects', '--revs', '--thin', '--stdout', '-q'],
      { stdin: `${commit}\n^${workspace.base}\n`, maxStdoutBytes: MAX_PACK_BYTES },
    );
    return stdout;
  } catch (error) {
    if (error instanceof GitError && error.kind === 'too_much_output') return undefined;
    throw error;
  }
}

const MAX_PACK_BYTES = 16 * 1024 * 1024;

/** The same for any size: what the workspace's branch in our git directory stands at. */
async function fetchCommit(
  repository: Repository,
  workspace: Workspace,
  refs: readonly string[],
): Promise<void> {
  await repository.exclusive(() =>
    repository.run(
      [
        'fetch',
        '--quiet',
        '--atomic',
        '--update-head-ok',
        '--no-prune',
        '--no-tags',
        '--no-write-fetch-head',
        '--no-auto-maintenance',
        '--no-recurse-submodules',
        '--end-of-options',
        workspace.gitDir,
        ...refs.map((ref) => `+refs/heads/${workspace.branch}:${ref}`),
      ],
      { env: { GIT_REFLOG_ACTION: 'troupe: import' } },
    ),
  );
}

/**
 * The agent's last commit, if it descends from the base. Read with the agent's git directory, since only that knows
 * it; `rev-parse` runs nothing that a configuration could name.
 */
async function readAgentHead(
  repository: Repository,
  workspace: Workspace,
  signal?: AbortSignal,
): Promise<string> {
  const agentGitDir = path.join(workspace.directory, '.git');
  // A `.git` file or link leads to some other repository.
  if (!isDirectory(agentGitDir)) return workspace.base;
  // Most agents leave committing to us: then two small files say so, and no git has to read the agent's configuration.
  const branch = `refs/heads/${workspace.branch}`;
  if (
    (await readSmallFile(path.join(agentGitDir, 'HEAD'))) === `ref: ${branch}` &&
    (await readPlainRef(agentGitDir, branch)) === workspace.base
  ) {
    return workspace.base;
  }
  // A pipe in the place of one would hold git up until its time is over.
  for (const name of ['HEAD', branch]) {
    if (entryAt(path.join(agentGitDir, name))?.isFIFO() === true) return workspace.base;
  }
  const git = workspaceGit(repository, workspace, signal);
  try {
    const head = await runInWorkspace(
      repository,
      { directory: workspace.directory, gitDir: agentGitDir },
      ['rev-parse', '--verify', '--quiet', 'HEAD^{commit}'],
      {
        timeoutMs: 10_000,
        allowExitCodes: [0, 1, 128],
        ...(signal === undefined ? {} : { signal }),
      },
    );
    const commit = head.stdout.toString('utf8').trim();
    if (head.exitCode !== 0 || !/^[0-9a-f]{40,64}$/.test(commit)) return workspace.base;
    const descends = await git(['merge-base', '--is-ancestor', workspace.base, commit], {
      allowExitCodes: [0, 1, 128],
    });
    return descends.exitCode === 0 ? commit : workspace.base;
  } catch (error) {
    // A configuration made to hang or to confuse: the files themselves still count.
    if (error instanceof GitError && error.kind !== 'missing') return workspace.base;
    throw error;
  }
}

/**
 * What the agent's own index has that a tree does not have, and what it calls unmerged. Our git directory with the
 * agent's index: the index is data, the agent's configuration is not read, nor are any files.
 */
async function readAgentIndex(
  workspace: Workspace,
  git: RunGit,
  tree: string,
): Promise<{ readonly tracked: readonly string[]; readonly unmerged: readonly string[] }> {
  const indexFile = path.join(workspace.directory, '.git', 'index');
  if (!isDirectory(path.dirname(indexFile)) || !existsSync(indexFile)) {
    return { tracked: [], unmerged: [] };
  }
  const { stdout, exitCode } = await git(
    ['diff-index', '--cached', ...RAW_LISTING, '--end-of-options', tree],
    { indexFile, allowExitCodes: [0, 128] },
  );
  if (exitCode !== 0) return { tracked: [], unmerged: [] }; // corrupt: the files themselves still count
  const entries = parseRaw(splitNul(stdout.toString('utf8')));
  const unmerged = entries.filter(({ status }) => status === 'unmerged');
  const tracked = entries.filter(
    ({ status, mode }) => status === 'added' && mode !== REPOSITORY_MODE,
  );
  return {
    tracked: [...tracked, ...unmerged].map((entry) => entry.path),
    unmerged: [...new Set(unmerged.map((entry) => entry.path))],
  };
}

/** Where a ref stands that lies in a file of its own; undefined when git itself must be asked. */
async function readPlainRef(gitDir: string, ref: string): Promise<string | undefined> {
  const text = await readSmallFile(path.join(gitDir, ref));
  return text !== undefined && /^[0-9a-f]{40,64}$/.test(text) ? text : undefined;
}

/** A line of text in a regular file. An agent may have put anything in its place, something that never ends too. */
async function readSmallFile(file: string): Promise<string | undefined> {
  const entry = entryAt(file);
  if (entry?.isFile() !== true || entry.size > 1000) return undefined;
  return (await readFile(file, 'utf8')).replace(/\n$/, '');
}

function workspaceGit(repository: Repository, workspace: Workspace, signal?: AbortSignal): RunGit {
  return (args, options = {}) =>
    runInWorkspace(repository, workspace, args, {
      ...(signal === undefined ? {} : { signal }),
      ...options,
    });
}

/** Imports a commit; if something in the agent's own commits is malformed, the result without their history. */
async function importWork(
  repository: Repository,
  workspace: Workspace,
  snapshot: Snapshot,
  commit: string,
  message: string,
  refs: readonly string[],
): Promise<string> {
  try {
    await importCommit(repository, workspace, commit, refs);
    return commit;
  } catch (error) {
    if (!isMalformed(error) || snapshot.parent === workspace.base) throw error;
    const squashed = { ...snapshot, parent: workspace.base };
    const result = await commitSnapshot(repository, workspace, squashed, message);
    await importCommit(repository, workspace, result, refs);
    return result;
  }
}

/** Whether git's check of the objects that it was to take in has failed (`transfer.fsckObjects`). */
function isMalformed(error: unknown): error is GitError {
  return error instanceof GitError && error.kind === 'failed' && /fsck error/.test(error.stderr);
}

function nestedRefusal(files: readonly string[]): Collected {
  return {
    kind: 'refused',
    reason:
      `${quoted(files)} is a git repository inside the workspace; git would keep only its name and lose its files. ` +
      'Remove its .git directory, or the whole of it.',
    files,
  };
}

function quoted(names: readonly string[]): string {
  return names.map((name) => JSON.stringify(name)).join(', ');
}

function isDirectory(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** Whether there is a file or link at that path, not seen through a link on the way. */
function isFileOrLink(top: string, name: string): boolean {
  const parts = name.split('/');
  for (let length = 1; length < parts.length; length++) {
    if (!isDirectory(path.join(top, ...parts.slice(0, length)))) return false;
  }
  const entry = lstatSync(path.join(top, name), { throwIfNoEntry: false });
  return entry !== undefined && (entry.isFile() || entry.isSymbolicLink());
}
