import { createHash } from 'node:crypto';
import path from 'node:path';
import { GitError, type GitOptions, splitNul } from './git.ts';

/** Runs git where both sides of a change can be read. */
export type RunGit = (
  args: readonly string[],
  options?: Partial<GitOptions>,
) => Promise<{ readonly stdout: Buffer; readonly exitCode: number }>;

/** One path that differs between two trees. */
export interface ChangedFile {
  readonly path: string;
  readonly status: 'added' | 'modified' | 'deleted';
  /** Git's file mode afterwards (`100644`, `100755`, `120000` a symlink, `160000` a repository); `000000` if deleted. */
  readonly mode: string;
  readonly previousMode: string;
  /** Object name of the content afterwards; zeros if deleted. */
  readonly blob: string;
}

/** All paths that differ between two commits or trees. Renames are a deletion and an addition. */
export async function listChangedFiles(
  git: RunGit,
  from: string,
  to: string,
): Promise<ChangedFile[]> {
  const { stdout } = await git([
    'diff-tree',
    '-r',
    '-z',
    '--raw',
    '--full-index',
    '--no-abbrev',
    '--no-renames',
    '--end-of-options',
    from,
    to,
  ]);
  const parts = splitNul(stdout.toString('utf8'));
  const files: ChangedFile[] = [];
  for (let i = 0; i + 1 < parts.length; i += 2) {
    const [previousMode = '', mode = '', , blob = '', letter] = (parts[i] ?? '')
      .slice(1)
      .split(' ');
    const status = letter === 'A' ? 'added' : letter === 'D' ? 'deleted' : 'modified';
    files.push({ path: parts[i + 1] ?? '', status, mode, previousMode, blob });
  }
  return files;
}

/**
 * A hash of what a change does, the same wherever the target stands by now: SHA-256 of its diff without blob names
 * and line numbers (as git-patch-id does, but with white space and binary files).
 */
export async function fingerprintChange(git: RunGit, from: string, to: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    const { stdout } = await git([
      'diff',
      '--binary',
      '--full-index',
      '--no-renames',
      '--diff-algorithm=myers',
      '--src-prefix=a/',
      '--dst-prefix=b/',
      '-U3',
      '--end-of-options',
      from,
      to,
    ]);
    // Latin-1 keeps every byte. No `m` flag: it would also take a lone \r for the start of a line.
    const diff = stdout
      .toString('latin1')
      .replace(/(^|\n)index [0-9a-f]+\.\.[0-9a-f]+(?: \d+)?(?=\n)/g, '$1index')
      .replace(/(^|\n)@@ -[\d,]+ \+[\d,]+ @@[^\n]*/g, '$1@@');
    hash.update(diff, 'latin1');
  } catch (error) {
    if (!(error instanceof GitError && error.kind === 'too_much_output')) throw error;
    // A huge change is known by the contents it leaves.
    for (const file of await listChangedFiles(git, from, to)) {
      hash.update(`${file.mode} ${file.blob} ${file.path}\0`);
    }
  }
  return hash.digest('hex');
}

/** Changed files that hold all three marks of an unresolved conflict, and did not before. */
export async function findConflictMarkers(
  git: RunGit,
  from: string,
  to: string,
  files: readonly ChangedFile[],
): Promise<string[]> {
  const names = files.flatMap((file) => (isFile(file.mode) ? [file.path] : []));
  const after = await grepMarkers(git, to, names);
  if (after.length === 0) return [];
  const before = new Set(await grepMarkers(git, from, after));
  return after.filter((name) => !before.has(name));
}

export interface ChangePolicy {
  /** Globs (`*`, `**`, from the top) of what a change may not touch: what verifies it, above all. Default none. */
  readonly protectedPaths?: readonly string[];
  /** No single file may be larger. Default 10 485 760. */
  readonly maxFileBytes?: number;
}

/**
 * What no change may do, whoever made it: link to outside the project, plant another repository, touch what
 * is protected, add a huge file.
 * @returns one sentence per violation
 */
export async function findViolations(
  git: RunGit,
  files: readonly ChangedFile[],
  policy: ChangePolicy = {},
): Promise<string[]> {
  const violations: string[] = [];
  const maxFileBytes = policy.maxFileBytes ?? 10 * 1024 * 1024;
  const sizes = await sizesOf(git, files);
  for (const file of files) {
    const name = JSON.stringify(file.path);
    const glob = policy.protectedPaths?.find((pattern) => path.matchesGlob(file.path, pattern));
    if (glob !== undefined) {
      violations.push(`${name} is protected (${glob}) and was ${file.status}.`);
    }
    const bytes = sizes.get(file.blob) ?? 0;
    if (bytes > maxFileBytes) {
      violations.push(`${name} has ${bytes} bytes; at most ${maxFileBytes} are allowed.`);
    }
    if (file.mode === '160000') {
      violations.push(`${name} is a git repository of its own; only its name would be kept.`);
    }
    if (file.mode === '120000') {
      const { stdout } = await git(['cat-file', 'blob', file.blob]);
      const target = stdout.toString('utf8');
      if (leavesProject(file.path, target)) {
        violations.push(`${name} is a symlink to ${JSON.stringify(target)}, outside the project.`);
      }
    }
  }
  return violations;
}

function leavesProject(link: string, target: string): boolean {
  if (path.posix.isAbsolute(target)) return true;
  const resolved = path.posix.normalize(path.posix.join(path.posix.dirname(link), target));
  return resolved === '..' || resolved.startsWith('../') || /^\.git(\/|$)/i.test(resolved);
}

async function sizesOf(git: RunGit, files: readonly ChangedFile[]): Promise<Map<string, number>> {
  const blobs = files.flatMap((file) => (isFile(file.mode) ? [file.blob] : []));
  if (blobs.length === 0) return new Map();
  const { stdout } = await git(['cat-file', '--batch-check=%(objectname) %(objectsize)'], {
    stdin: `${blobs.join('\n')}\n`,
  });
  return new Map(
    stdout
      .toString('utf8')
      .trimEnd()
      .split('\n')
      .map((line) => {
        const [blob = '', size] = line.split(' ');
        return [blob, Number(size)];
      }),
  );
}

function isFile(mode: string): boolean {
  return mode.startsWith('100');
}

async function grepMarkers(
  git: RunGit,
  commit: string,
  names: readonly string[],
): Promise<string[]> {
  const found: string[] = [];
  // In portions: the names are arguments, and the system limits their length.
  for (let start = 0; start < names.length; start += GREP_PORTION) {
    const { stdout } = await git(
      [
        '--literal-pathspecs',
        'grep',
        '--no-textconv',
        '-I',
        '-l',
        '-z',
        '--full-name',
        '--all-match',
        ...['-e', '^<<<<<<< ', '-e', '^=======[[:space:]]*$', '-e', '^>>>>>>> '],
        commit,
        '--',
        ...names.slice(start, start + GREP_PORTION),
      ],
      { allowExitCodes: [0, 1] },
    );
    found.push(...splitNul(stdout.toString('utf8')).map((hit) => hit.slice(commit.length + 1)));
  }
  return found;
}

const GREP_PORTION = 200;
