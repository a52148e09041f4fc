import { existsSync, statSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import path from 'node:path';
import { ConfigurationError } from '../index.ts';
import { describeFileError } from './project-files.ts';
import { singleQuoted } from './single-quoted.ts';
import { storePathOf } from './state-directory.ts';

const CONFIG_NAME = 'troupe.yaml';

/** Where a command works: the file that describes the project, and the project's directory. */
export interface ProjectPlace {
  /** As the user would write it. */
  readonly file: string;
  /** Absolute, symbolic links followed. */
  readonly directory: string;
}

/**
 * The project of a command: the one of the file named, or the nearest one: the current directory or a directory above
 * it that has a troupe.yaml or the state of a run. When there is none, the current directory; what is missing there is
 * for the command to say.
 * @throws {ConfigurationError} the directory of the file does not exist; or the nearest one lies above the current
 * directory and is another user's, whose commands would be run
 */
export async function findProject(cwd: string, file: string | undefined): Promise<ProjectPlace> {
  const given = file === undefined ? nearest(cwd) : fileOf(path.resolve(cwd, file));
  const directory = path.dirname(given);
  try {
    const shown = path.relative(cwd, given);
    return { file: shown.startsWith('..') ? given : shown, directory: await realpath(directory) };
  } catch (error) {
    throw new ConfigurationError(
      `The directory of ${file ?? given} cannot be used: ${describeFileError(error)}.`,
      { cause: error },
    );
  }
}

/** A directory means the troupe.yaml in it. */
function fileOf(given: string): string {
  const isDirectory = statSync(given, { throwIfNoEntry: false })?.isDirectory() === true;
  return isDirectory ? path.join(given, CONFIG_NAME) : given;
}

function nearest(cwd: string): string {
  for (let directory = cwd; ; ) {
    const file = path.join(directory, CONFIG_NAME);
    const found = [file, storePathOf(directory)].find((name) => existsSync(name));
    if (found !== undefined) {
      if (directory !== cwd) refuseForeign(found, file);
      return file;
    }
    const parent = path.dirname(directory);
    if (parent === directory) return path.join(cwd, CONFIG_NAME);
    directory = parent;
  }
}

/** Anybody may put a troupe.yaml into /tmp, below which others work. As git does it: what belongs to us is ours. */
function refuseForeign(found: string, file: string): void {
  const own = process.getuid?.();
  const uid = statSync(found, { throwIfNoEntry: false })?.uid;
  if (own === undefined || uid === undefined || uid === own || uid === 0) return;
  if (own === 0 && String(uid) === process.env['SUDO_UID']) return;
  throw new ConfigurationError(
    `Expected the project above the current directory to be yours; ${found} belongs to another user (uid ${uid}), and what it says would be run. ` +
      `If that is meant, name it: troupe --file ${singleQuoted(file)}`,
  );
}

/**
 * The run that a file's backlog is, unless the user names one: `main` for troupe.yaml, `docs` for troupe.docs.yaml or
 * docs.yaml.
 */
export function defaultRunId(file: string): string {
  const name = path
    .basename(file)
    .replace(/\.ya?ml$/i, '')
    .replace(/^\.?troupe[.-]?/i, '');
  const id = name
    .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
    .replaceAll(/\.{2,}/g, '.')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 64)
    .replace(/[._-]+$/, '');
  return id === '' ? 'main' : id;
}
