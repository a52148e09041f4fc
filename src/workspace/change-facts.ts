import { type Change, type ChangedFile, findConflictMarkers, type RunGit } from './change.ts';
import {
  type ChangeFacts,
  DELETIONS_COUNT_FROM,
  type Deletions,
  type FileFacts,
  findFlags,
  RULES_OF_PATCHES,
  type RuleSettings,
  scriptsOfManifest,
  wantsText,
} from './change-rules.ts';
import { splitNul } from './git.ts';
import { type ChangedText, findMovedOn } from './moved-lines.ts';
import type { ObjectReader } from './object-reader.ts';
import type { Repository } from './repository.ts';
import type { VerifyCommand } from './verification.ts';
import { findVerifyScripts } from './verify-scripts.ts';

/** No content longer than this is looked into: nobody wrote it by hand. */
const MAX_TEXT_BYTES = 2 * 1024 * 1024;
/** Texts of one change that are compared to see what only moved. What is larger counts as deleted. */
const MAX_COMPARED_BYTES = 32 * 1024 * 1024;
/** Contents asked for at once; their texts are held in memory until the change is judged. */
const PORTION = 64;

/**
 * Reads what the rules need to know of a change from the object store: sizes of all files, contents of few.
 * @param from tree of the target; the verification's scripts are looked up there, not in the change
 */
export async function readChangeFacts(
  repository: Repository,
  from: string,
  to: string,
  change: Change,
  commands: readonly VerifyCommand['command'][],
): Promise<ChangeFacts> {
  const { objects } = repository;
  const git: RunGit = repository.run.bind(repository);
  const files = await readFiles(objects, change.files);
  return {
    files,
    conflictMarkers: await findConflictMarkers(git, from, to, change),
    nulBytes: change.mayHoldNul ? await findNulBytes(objects, change.files) : [],
    scripts: findVerifyScripts(commands, await readPackageScripts(objects, from)),
    deletions: await readDeletions(objects, git, from, files),
    testCounts: [],
  };
}

/**
 * What no patch may do, whoever made it: link to outside the project, plant another repository, touch what is protected,
 * add a huge file.
 * @returns one sentence per violation
 */
export async function findViolations(
  objects: ObjectReader,
  changed: readonly ChangedFile[],
  settings: RuleSettings = {},
): Promise<string[]> {
  const facts: ChangeFacts = {
    files: await readFiles(objects, changed, false),
    conflictMarkers: [],
    nulBytes: [],
    scripts: { files: new Set(), packageScripts: new Set() },
    deletions: undefined,
    testCounts: [],
  };
  // What a person may approve is for the gatekeeper to ask.
  return findFlags(facts, settings, RULES_OF_PATCHES)
    .filter(({ action }) => action === 'refuse')
    .map(({ reason }) => reason);
}

async function readFiles(
  objects: ObjectReader,
  changed: readonly ChangedFile[],
  withTexts = true,
): Promise<FileFacts[]> {
  const files: FileFacts[] = [];
  for (let start = 0; start < changed.length; start += PORTION) {
    const portion = changed.slice(start, start + PORTION);
    files.push(...(await Promise.all(portion.map((file) => readFile(objects, file, withTexts)))));
  }
  return files;
}

async function readFile(
  objects: ObjectReader,
  file: ChangedFile,
  withTexts: boolean,
): Promise<FileFacts> {
  const [bytes, previousBytes] = await Promise.all([
    sizeOf(objects, file.mode, file.blob),
    sizeOf(objects, file.previousMode, file.previousBlob),
  ]);
  const facts: FileFacts = { ...file, bytes, previousBytes };
  if (file.mode === '120000') {
    const linkTarget = (await objects.content(file.blob))?.toString('utf8');
    return linkTarget === undefined ? facts : { ...facts, linkTarget };
  }
  if (!withTexts) return facts;
  const wants = wantsText(facts);
  const [before, after] = await Promise.all([
    wants.before ? textOf(objects, file.previousBlob, previousBytes) : undefined,
    wants.after ? textOf(objects, file.blob, bytes) : undefined,
  ]);
  return {
    ...facts,
    ...(before === undefined ? {} : { before }),
    ...(after === undefined ? {} : { after }),
  };
}

async function sizeOf(objects: ObjectReader, mode: string, blob: string): Promise<number> {
  return isFile(mode) ? ((await objects.info(blob))?.bytes ?? 0) : 0;
}

async function textOf(
  objects: ObjectReader,
  blob: string,
  bytes: number,
): Promise<string | undefined> {
  if (bytes > MAX_TEXT_BYTES) return undefined;
  return (await objects.content(blob))?.toString('utf8');
}

/** Files without a NUL byte before, and with one now. Only those that were not empty: a new binary file is none. */
async function findNulBytes(
  objects: ObjectReader,
  changed: readonly ChangedFile[],
): Promise<string[]> {
  const found: string[] = [];
  for (const file of changed) {
    if (file.status !== 'modified' || !isFile(file.mode) || !isFile(file.previousMode)) continue;
    if (!(await holdsNul(objects, file.blob))) continue;
    const { bytes } = (await objects.info(file.previousBlob)) ?? { bytes: 0 };
    if (bytes > 0 && !(await holdsNul(objects, file.previousBlob))) found.push(file.path);
  }
  return found;
}

async function holdsNul(objects: ObjectReader, blob: string): Promise<boolean> {
  const { bytes } = (await objects.info(blob)) ?? { bytes: 0 };
  // What is so large is judged by its size.
  if (bytes > MAX_SEARCHED_BYTES) return false;
  return (await objects.content(blob))?.includes(0) === true;
}

const MAX_SEARCHED_BYTES = 32 * 1024 * 1024;

async function readPackageScripts(
  objects: ObjectReader,
  tree: string,
): Promise<Readonly<Record<string, string>>> {
  const manifest = await objects.content(`${tree}:package.json`);
  return manifest === undefined ? {} : scriptsOfManifest(manifest.toString('utf8'));
}

async function readDeletions(
  objects: ObjectReader,
  git: RunGit,
  from: string,
  files: readonly FileFacts[],
): Promise<Deletions | undefined> {
  const deleted = files.filter(({ status }) => status === 'deleted').length;
  if (deleted < DELETIONS_COUNT_FROM) return undefined;
  const texts: ChangedText[] = [];
  let left = MAX_COMPARED_BYTES;
  const read = async (mode: string, blob: string, bytes: number): Promise<string | undefined> =>
    isFile(mode) ? await textOf(objects, blob, bytes) : undefined;
  for (const file of files) {
    left -= file.bytes + file.previousBytes;
    if (left < 0) break;
    texts.push({
      path: file.path,
      before: file.before ?? (await read(file.previousMode, file.previousBlob, file.previousBytes)),
      after: file.after ?? (await read(file.mode, file.blob, file.bytes)),
    });
  }
  return { filesBefore: await countFiles(git, from), movedOn: findMovedOn(texts) };
}

async function countFiles(git: RunGit, tree: string): Promise<number> {
  const { stdout } = await git(['ls-tree', '-r', '-z', '--name-only', '--end-of-options', tree]);
  return splitNul(stdout.toString('utf8')).length;
}

function isFile(mode: string): boolean {
  return mode.startsWith('100');
}
