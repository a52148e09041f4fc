import { createHash, randomUUID } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { cp, lstat, mkdir, readFile, realpath, rename, utimes } from 'node:fs/promises';
import path from 'node:path';
import { ConfigurationError } from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import type { CleanupQueue } from './cleanup-queue.ts';
import { entryAt } from './entry-at.ts';
import { ensureIgnoredDirectory } from './ignored-directory.ts';
import { oldestEntries } from './oldest-entries.ts';
import type { ProcessRegistry } from './process-registry.ts';
import { runProcessTree } from './process-tree.ts';
import { removeTree } from './remove-tree.ts';

/** What a command makes of which files, so that it need not be made again: dependencies, of the lock file. */
export interface CacheSettings {
  /**
   * Files on whose content alone it depends what the command makes, relative to the project: `package-lock.json`,
   * `package.json`, `.npmrc`. One that is not there counts as such.
   */
  readonly key: readonly string[];
  /**
   * The directories that it makes, relative to the project: `node_modules`. They are copied, so nothing in them may know
   * where it lies, as a Python environment does.
   */
  readonly paths: readonly string[];
}

/** A command whose outcome may be kept. */
export interface CachedCommand {
  readonly command: readonly string[] | string;
  readonly cache: CacheSettings;
}

/** The place in which it runs. */
export interface CachePlace {
  readonly directory: string;
  /** The command's complete environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** What a command has made, put aside before anything else ran there. One of the two is to be called. */
export interface Captured {
  /** From now on it is used. */
  keep(): Promise<void>;
  discard(): Promise<void>;
}

/** The ones used last. */
const KEPT = 5;
/** Of a place that was made for one verification, or one process. */
const VARYING = ['TMPDIR', 'GIT_CEILING_DIRECTORIES'];

/**
 * Refuses settings that could name anything outside of the project.
 * @throws {ConfigurationError} expected and got
 */
export function checkCacheSettings({ key, paths }: CacheSettings, where: string): void {
  for (const [what, names] of [
    ['key', key],
    ['paths', paths],
  ] as const) {
    if (names.length === 0) {
      throw new ConfigurationError(
        `Expected cache.${what} of ${where} to name at least one, got none.`,
      );
    }
    for (const name of names) {
      if (isPathBelow(name)) continue;
      throw new ConfigurationError(
        `Expected cache.${what} of ${where} to be paths below the project such as "node_modules", got ${JSON.stringify(name)}.`,
      );
    }
  }
}

/** Whether it leads to something below the top of a repository, written in the shortest way, and not to git's own. */
function isPathBelow(name: string): boolean {
  return (
    name !== '' &&
    path.normalize(name) === name &&
    !path.isAbsolute(name) &&
    !/^(?:\.\.?|\.git)(?:\/|$)/.test(name) &&
    !name.endsWith('/')
  );
}

/**
 * Keeps what commands have made, one directory per command, environment and content of the key files; the five used last.
 *
 * What a change makes is kept only when that change is on the target: until then its code might have made anything of it.
 * Crash: what was not kept is removed by `Workspaces.reap`; what is kept is complete, since it is renamed into place.
 */
export class CommandCache {
  readonly #root: string;
  readonly #processes: ProcessRegistry;
  readonly #cleanup: CleanupQueue;
  readonly #varying: ReadonlySet<string>;
  /** Made, or seen to be good, since this process started: what the machine's tools have become since cannot matter. */
  readonly #trusted = new Set<string>();

  /** @param root `<project>/.troupe/cache` */
  constructor(options: {
    readonly root: string;
    readonly processes: ProcessRegistry;
    readonly cleanup: CleanupQueue;
    /** More variables that are another value each time, and so decide nothing. */
    readonly varying?: readonly string[];
  }) {
    this.#varying = new Set([...VARYING, ...(options.varying ?? [])]);
    this.#root = options.root;
    this.#processes = options.processes;
    this.#cleanup = options.cleanup;
  }

  /**
   * Puts what the command would make where it would make it.
   * @returns the entry's name; undefined when there is none, or the place has something there already
   */
  async restore(command: CachedCommand, place: CachePlace): Promise<string | undefined> {
    const { paths } = command.cache;
    if (!(await areFree(place.directory, paths))) return undefined;
    const name = await this.#nameOf(command, place);
    const entry = path.join(this.#root, name);
    try {
      const now = new Date();
      await utimes(entry, now, now); // the youngest are kept
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    for (const [index, each] of paths.entries()) {
      const to = path.join(place.directory, each);
      if (await this.#copy(path.join(entry, String(index)), to)) continue;
      for (const made of paths) await removeTree(path.join(place.directory, made));
      return undefined; // removed meanwhile, or no space: the command itself says what is wrong
    }
    return name;
  }

  /** Puts aside what the command has made. @returns undefined when it made something else than was said */
  async capture(command: CachedCommand, place: CachePlace): Promise<Captured | undefined> {
    const name = await this.#nameOf(command, place);
    await ensureIgnoredDirectory(this.#root);
    const aside = path.join(this.#root, NEW, randomUUID());
    const discard = async (): Promise<void> => {
      await this.#cleanup.removeOrQueue(aside);
    };
    await mkdir(aside, { recursive: true });
    for (const [index, each] of command.cache.paths.entries()) {
      const from = path.join(place.directory, each);
      const made = await lstat(from).catch(() => undefined);
      if (made?.isDirectory() && (await this.#copy(from, path.join(aside, String(index)))))
        continue;
      await discard();
      return undefined;
    }
    return {
      discard,
      keep: async () => {
        try {
          await rename(aside, path.join(this.#root, name));
          this.#trusted.add(name);
        } catch {
          await discard(); // another one was quicker
        }
        await this.#prune();
      },
    };
  }

  /** Whether a failure after it cannot be its fault. */
  isTrusted(name: string): boolean {
    return this.#trusted.has(name);
  }

  /** What was verified with it has passed. */
  trust(name: string): void {
    this.#trusted.add(name);
  }

  async drop(name: string): Promise<void> {
    this.#trusted.delete(name);
    await this.#cleanup.removeOrQueue(path.join(this.#root, name));
  }

  /** Removes what a crash has left. */
  async reap(): Promise<void> {
    await this.#cleanup.removeOrQueue(path.join(this.#root, NEW));
  }

  async #nameOf(
    { command, cache }: CachedCommand,
    { directory, env }: CachePlace,
  ): Promise<string> {
    const files = await Promise.all(cache.key.map((name) => contentHash(directory, name)));
    const variables = Object.entries(env).filter(([name]) => !this.#varying.has(name));
    const { platform, arch } = process;
    return deepHash({
      command,
      paths: cache.paths,
      files,
      env: Object.fromEntries(variables),
      platform,
      arch,
    }).slice(0, 16);
  }

  /** The system's own program is ten times as quick as Node, and shares blocks where the file system can. */
  async #copy(from: string, to: string): Promise<boolean> {
    await mkdir(path.dirname(to), { recursive: true });
    const { exitCode } = await runProcessTree({
      argv: ['cp', '-a', '--reflink=auto', '--', from, to],
      cwd: this.#root,
      env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' },
      timeoutMs: 600_000,
      processes: this.#processes,
      onStdout: () => undefined,
      onStderr: () => undefined,
    });
    if (exitCode === 0) return true;
    await removeTree(to);
    // A `cp` that knows no such options, or none at all.
    return await cp(from, to, {
      recursive: true,
      verbatimSymlinks: true,
      preserveTimestamps: true,
    }).then(
      () => true,
      async () => {
        await removeTree(to);
        return false;
      },
    );
  }

  async #prune(): Promise<void> {
    for (const entry of await oldestEntries(this.#root, KEPT))
      await this.drop(path.basename(entry));
  }
}

const NEW = '.new';

/** Whether nothing lies at these paths, and what leads there are directories of the place itself. */
async function areFree(directory: string, paths: readonly string[]): Promise<boolean> {
  const root = await realpath(directory);
  for (const each of paths) {
    let file = path.join(root, each);
    if (entryAt(file) !== undefined) return false;
    // What is not there on the way to it is made, as the command would have.
    while (entryAt(file) === undefined) file = path.dirname(file);
    if ((await realpath(file)) !== file || !lstatSync(file).isDirectory()) return false;
  }
  return true;
}

/** A link leads to what is not in the change: what counts is that it is one. */
async function contentHash(directory: string, name: string): Promise<string> {
  const file = path.join(directory, name);
  const entry = entryAt(file);
  if (entry === undefined || !entry.isFile()) return entry === undefined ? 'none' : 'other';
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}
