import { copyFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { type ChangedFile, parseRaw, RAW_LISTING, type RunGit } from './change.ts';
import { findViolations } from './change-facts.ts';
import type { RuleSettings } from './change-rules.ts';
import { entryAt } from './entry-at.ts';
import { excerptOf } from './excerpt.ts';
import { GitError, splitNul } from './git.ts';
import { ObjectReader } from './object-reader.ts';
import { extractPatch } from './patch-text.ts';
import type { Repository } from './repository.ts';
import { nestedRepositoryIn, stageWork } from './stage-work.ts';
import { runInWorkspace, type Workspace } from './workspace.ts';

export interface ApplyPatchOptions {
  readonly repository: Repository;
  readonly workspace: Workspace;
  /** A unified diff, perhaps with prose and code fences around it. Bytes for files that are not UTF-8. */
  readonly patch: string | Uint8Array;
  /**
   * Nobody has worked in the workspace since it was prepared: our index holds its files as they are. Default false: they
   * are all looked at first.
   */
  readonly untouched?: boolean;
  /** What no patch may do; see `findViolations`. */
  readonly policy?: RuleSettings;
  readonly signal?: AbortSignal;
}

export type PatchOutcome =
  | {
      readonly kind: 'applied';
      readonly files: readonly string[];
      /** What our index holds now, and the files with it. */
      readonly tree: string;
    }
  | {
      readonly kind: 'refused';
      /** One sentence for whoever wrote the patch. */
      readonly reason: string;
      /** What git said, at most 4 000 characters. */
      readonly output: string;
    };

/** A patch is a text that somebody wrote; what is longer is something else. */
const MAX_PATCH_BYTES = 50_000_000;

/**
 * How to try, strictest first: as it is; by a three-way merge with the blobs that its `index` lines name, for a file
 * that has changed meanwhile.
 */
const WAYS = [[], ['--3way']] as const;

/**
 * Applies a patch to a workspace, all of it or nothing. It is first applied to a copy of our index, so that what it
 * would do is known and checked before any file is touched; git itself refuses paths that leave the directory, name
 * `.git` or go through a symlink that it knows, and we those that go through another.
 * Crash: files may be half written; the attempt is made again in a fresh workspace.
 */
export async function applyPatch(options: ApplyPatchOptions): Promise<PatchOutcome> {
  const { repository, workspace, signal } = options;
  const bytes = Buffer.from(options.patch as string);
  if (bytes.length > MAX_PATCH_BYTES) {
    const reason = `The patch has ${bytes.length} bytes; at most ${MAX_PATCH_BYTES} are allowed.`;
    return { kind: 'refused', reason, output: '' };
  }
  // Latin-1 keeps every byte; what tells a diff from the rest is ASCII.
  const extracted = extractPatch(bytes.toString('latin1'));
  if (extracted.kind === 'refused') return { ...extracted, output: '' };
  const git: RunGit = (args, more = {}) =>
    runInWorkspace(repository, workspace, args, {
      ...(signal === undefined ? {} : { signal }),
      ...more,
    });
  try {
    if (options.untouched !== true) await stageWork(repository, workspace, git);
  } catch (error) {
    const nested = nestedRepositoryIn(error);
    if (nested === undefined) throw error;
    const reason = `${JSON.stringify(nested)} is a git repository inside the workspace; remove it first.`;
    return { kind: 'refused', reason, output: '' };
  }
  const trial = path.join(workspace.gitDir, 'index-of-patch');
  try {
    const tried = await applyToIndex(git, trial, workspace, extracted);
    if (tried.kind === 'refused') return tried;
    const after = await writeTree(git, trial);
    // From our index, as it was before the patch, to the tree: `-R`, for git looks from the tree.
    const listing = await git([
      'diff-index',
      '--cached',
      '-R',
      ...RAW_LISTING,
      '--end-of-options',
      after,
    ]);
    const files = parseRaw(splitNul(listing.stdout.toString('utf8')));
    const beyond = findBeyondLink(workspace.directory, files);
    if (beyond !== undefined) return { kind: 'refused', reason: beyond, output: '' };
    await using objects = new ObjectReader({
      git: repository.git,
      place: { cwd: workspace.directory, gitDir: workspace.gitDir, workTree: workspace.directory },
    });
    const violations = isPlain(options, extracted.text, files)
      ? []
      : await findViolations(objects, files, options.policy);
    if (violations.length > 0) {
      return { kind: 'refused', reason: violations.join(' '), output: '' };
    }
    if (files.length === 0) {
      return {
        kind: 'refused',
        reason: 'The patch changes nothing: its lines are there already.',
        output: '',
      };
    }
    await git(['read-tree', '-m', '-u', after]);
    return { kind: 'applied', files: files.map((file) => file.path), tree: after };
  } finally {
    await rm(trial, { force: true });
    await rm(`${trial}.lock`, { force: true });
  }
}

/**
 * A file that would lie beyond a symlink which git does not know, because it is ignored: git would write through none,
 * but put a directory into its place.
 */
function findBeyondLink(directory: string, files: readonly ChangedFile[]): string | undefined {
  const seen = new Set(['.']);
  for (const { path: name, mode } of files) {
    if (mode === '000000') continue;
    for (let above = path.dirname(name); !seen.has(above); above = path.dirname(above)) {
      seen.add(above);
      const found = entryAt(path.join(directory, above));
      if (found?.isSymbolicLink() !== true) continue;
      return `${JSON.stringify(name)} lies beyond the symlink ${JSON.stringify(above)}; write to where that one leads, or leave it out.`;
    }
  }
  return undefined;
}

/**
 * Whether none of what is looked for can be there, so that no git has to be asked for the sizes: there is no policy of
 * the caller's, there are only plain files, and a text can make a file no longer than it is itself.
 */
function isPlain(
  { policy, workspace }: ApplyPatchOptions,
  text: string,
  files: readonly ChangedFile[],
): boolean {
  // A file that moves or is copied has the size of another.
  if (policy !== undefined || /^(?:GIT binary patch|rename to |copy to )/m.test(text)) return false;
  return files.every(({ path: name, mode }) => {
    if (mode === '000000') return true;
    if (!mode.startsWith('100')) return false;
    const before = entryAt(path.join(workspace.directory, name));
    return (before?.size ?? 0) + text.length <= PLAIN_BYTES;
  });
}

/** Far below what `findViolations` allows of one file. */
const PLAIN_BYTES = 1_000_000;

async function applyToIndex(
  git: RunGit,
  indexFile: string,
  workspace: Workspace,
  patch: { readonly text: string; readonly strip: 0 | 1 },
): Promise<{ readonly kind: 'applied' } | Extract<PatchOutcome, { kind: 'refused' }>> {
  let firstRefusal = '';
  // Line endings of the transport (a Windows editor, a mail) only when it does not fit as it is.
  const unix = patch.text.replaceAll('\r\n', '\n');
  for (const stdin of unix === patch.text ? [unix] : [patch.text, unix]) {
    for (const way of WAYS) {
      await copyFile(path.join(workspace.gitDir, 'index'), indexFile);
      try {
        await git(['apply', '--cached', '--whitespace=nowarn', `-p${patch.strip}`, ...way, '-'], {
          indexFile,
          stdin: Buffer.from(stdin, 'latin1'),
        });
        return { kind: 'applied' };
      } catch (error) {
        if (!(error instanceof GitError) || error.infrastructure) throw error;
        firstRefusal ||= error.stderr;
      }
    }
  }
  const output = excerptOf(firstRefusal);
  const why = output.split('\n')[0]?.replace(/^error: /, '') ?? '';
  return { kind: 'refused', reason: `The patch does not apply: ${why}.`, output };
}

async function writeTree(git: RunGit, indexFile: string): Promise<string> {
  const { stdout } = await git(['write-tree'], { indexFile });
  return stdout.toString('utf8').trim();
}
