import { realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { ConfigurationError } from '../index.ts';
import { shorten } from './config-problems.ts';

/** A file of the project, or why the name given cannot be one. */
export type ProjectFile =
  | { readonly path: string }
  | { readonly refused: string; readonly missing: boolean };

/**
 * Finds regular files of a project by names that came from a configuration: relative, and inside the project even after
 * all symbolic links have been followed.
 */
export class ProjectFiles {
  /** Absolute, symbolic links followed. */
  readonly directory: string;
  readonly #found = new Map<string, Promise<ProjectFile>>();

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** @throws {ConfigurationError} the directory does not exist */
  static async open(directory: string): Promise<ProjectFiles> {
    try {
      return new ProjectFiles(await realpath(directory));
    } catch (error) {
      throw new ConfigurationError(
        `The project directory ${directory} cannot be used: ${describeFileError(error)}.`,
        { cause: error },
      );
    }
  }

  find(name: string): Promise<ProjectFile> {
    let found = this.#found.get(name);
    if (found === undefined) {
      found = this.#find(name);
      this.#found.set(name, found);
    }
    return found;
  }

  async #find(name: string): Promise<ProjectFile> {
    const shown = name === '' ? 'an empty text' : shorten(name, 100);
    const refuse = (refused: string, missing = false): ProjectFile => ({ refused, missing });
    if (name.includes('\0')) return refuse('expected a path, got a NUL character in it');
    if (path.isAbsolute(name)) {
      return refuse(`expected a path relative to the project, got ${shown}`);
    }
    const wanted = path.resolve(this.directory, name);
    if (!this.#holds(wanted)) {
      return refuse(`expected a file inside the project, got ${shown}`);
    }
    try {
      const real = await realpath(wanted);
      if (!this.#holds(real)) {
        return refuse(
          `expected a file inside the project; ${shown} is a symbolic link that leads out of it`,
        );
      }
      const info = await stat(real);
      if (!info.isFile()) {
        return refuse(
          `expected a file; ${shown} is ${info.isDirectory() ? 'a directory' : 'something else'}`,
        );
      }
      return { path: real };
    } catch (error) {
      return refuse(`${shown}: ${describeFileError(error)}`, isMissing(error));
    }
  }

  #holds(file: string): boolean {
    const relative = path.relative(this.directory, file);
    return relative !== '' && !/^\.\.(?:[\\/]|$)/.test(relative) && !path.isAbsolute(relative);
  }
}

function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** In words, why a file could not be read. Rethrows what did not come from the file system. */
export function describeFileError(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  switch (code) {
    case undefined:
      throw error;
    case 'ENOENT':
    case 'ENOTDIR':
      return 'there is no such file';
    case 'EACCES':
    case 'EPERM':
      return 'the file may not be read (permission denied)';
    case 'ELOOP':
      return 'the file is a symbolic link that leads to itself';
    default:
      return `the file cannot be read (${code})`;
  }
}
