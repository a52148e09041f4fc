import { createHash } from 'node:crypto';
import { GitError, type GitOptions, splitNul } from './git.ts';

/** Runs git where both sides of a change can be read. */
export type RunGit = (
  args: readonly string[],
  options?: Partial<GitOptions>,
) => Promise<{ readonly stdout: Buffer; readonly exitCode: number }>;

/** One path that differs between two trees. */
export interface ChangedFile {
  readonly path: string;
  /** `unmerged` occurs in an index only. */
  readonly status: 'added' | 'modified' | 'deleted' | 'unmerged';
  /** Git's file mode afterwards (`100644`, `100755`, `120000` a symlink, `160000` a repository); `000000` if deleted. */
  readonly mode: string;
  readonly previousMode: string;
  /** Object name of the content afterwards; zeros if deleted. */
  readonly blob: string;
  /** And before; zeros if added. */
  readonly previousBlob: string;
}

/** What differs between two trees. */
export interface Change {
  readonly files: readonly ChangedFile[];
  /**
   * A hash of what it does, the same wherever the target stands by now: SHA-256 of its diff without blob names and
   * line numbers (as git-patch-id does, but with white space and binary files).
   */
  readonly fingerprint: string;
  /** False when no line that looks like the mark of a conflict was added. */
  readonly mayHoldMarkers: boolean;
  /** False when no line with a NUL byte was added. */
  readonly mayHoldNul: boolean;
}

/** For git to list all paths that differ, renames as a deletion and an addition; `parseRaw` reads it. */
export const RAW_LISTING = ['-z', '--raw', '--full-index', '--no-abbrev', '--no-renames'] as const;

/** All paths that differ between two commits or trees. Renames are a deletion and an addition. */
export async function listChangedFiles(
  git: RunGit,
  from: string,
  to: string,
): Promise<ChangedFile[]> {
  const { stdout } = await git(['diff-tree', '-r', ...RAW_LISTING, '--end-of-options', from, to]);
  return parseRaw(splitNul(stdout.toString('utf8')));
}

/** @param parts the output, split at its NULs */
export function parseRaw(parts: readonly string[]): ChangedFile[] {
  const files: ChangedFile[] = [];
  for (let i = 0; i + 1 < parts.length; i += 2) {
    const [previousMode = '', mode = '', previousBlob = '', blob = '', letter] = (parts[i] ?? '')
      .slice(1)
      .split(' ');
    const status = STATUSES[letter ?? ''] ?? 'modified';
    files.push({ path: parts[i + 1] ?? '', status, mode, previousMode, blob, previousBlob });
  }
  return files;
}

const STATUSES: Readonly<Record<string, ChangedFile['status']>> = {
  A: 'added',
  D: 'deleted',
  U: 'unmerged',
};

/** The changed paths and the diff of two commits or trees, by one git: the list first, an empty entry, the diff. */
export async function readChange(git: RunGit, from: string, to: string): Promise<Change> {
  try {
    const { stdout } = await git([
      'diff-tree',
      '-r',
      ...RAW_LISTING,
      '--patch',
      '--binary',
      '--diff-algorithm=myers',
      '--src-prefix=a/',
      '--dst-prefix=b/',
      '-U3',
      '--end-of-options',
      from,
      to,
    ]);
    const separator = stdout.indexOf('\0\0');
    const listBytes = separator < 0 ? stdout.length : separator + 1;
    const files = parseRaw(splitNul(stdout.toString('utf8', 0, listBytes)));
    // Latin-1 keeps every byte.
    const diff = stdout.toString('latin1', listBytes + 1);
    return {
      files,
      fingerprint: hashOfDiff(diff),
      mayHoldMarkers: ADDED_MARKER.test(diff),
      mayHoldNul: diff.includes('\0') || BINARY.test(diff),
    };
  } catch (error) {
    if (!(error instanceof GitError && error.kind === 'too_much_output')) throw error;
    // A huge change is known by the contents it leaves.
    const files = await listChangedFiles(git, from, to);
    const hash = createHash('sha256');
    for (const file of files) hash.update(`${file.mode} ${file.blob} ${file.path}\0`);
    return { files, fingerprint: hash.digest('hex'), mayHoldMarkers: true, mayHoldNul: true };
  }
}

function hashOfDiff(diff: string): string {
  // No `m` flag: it would also take a lone \r for the start of a line.
  const lasting = diff
    .replace(/(^|\n)index [0-9a-f]+\.\.[0-9a-f]+(?: \d+)?(?=\n)/g, '$1index')
    .replace(/(^|\n)@@ -[\d,]+ \+[\d,]+ @@[^\n]*/g, '$1@@');
  return createHash('sha256').update(lasting, 'latin1').digest('hex');
}

/** Of a file that git shows as binary the lines are not to be seen. */
const ADDED_MARKER = /^(?:\+(?:<<<<<<< |=======|>>>>>>> )|GIT binary patch|Binary files )/m;

const BINARY = /^(?:GIT binary patch|Binary files )/m;

/** Changed files that hold all three marks of an unresolved conflict, and did not before. */
export async function findConflictMarkers(
  git: RunGit,
  from: string,
  to: string,
  { files, mayHoldMarkers }: Pick<Change, 'files' | 'mayHoldMarkers'>,
): Promise<string[]> {
  // What holds all three now and did not before has at least one of them in a line that was added.
  if (!mayHoldMarkers) return [];
  const names = files.flatMap((file) => (isFile(file.mode) ? [file.path] : []));
  const after = await grepMarkers(git, to, names);
  if (after.length === 0) return [];
  const before = new Set(await grepMarkers(git, from, after));
  return after.filter((name) => !before.has(name));
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
        // Whatever the user's `grep.patternType` says.
        '--basic-regexp',
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
