import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { deepHash } from '../protocol/hash.ts';
import type { CommandEvidence } from '../protocol/verdict.ts';
import { writeRebuildable } from './durable-file.ts';
import { ensureIgnoredDirectory } from './ignored-directory.ts';
import { oldestEntries } from './oldest-entries.ts';
import type { VerifyCommand } from './verification.ts';

/** What proved a tree. */
export interface VerifiedTree {
  readonly commands: readonly CommandEvidence[];
  /** Path of the artifact of that verification, relative to the project. */
  readonly artifact: string;
}

const KEPT_PER_CONFIGURATION = 200;
/** Every task with acceptance commands of its own has a configuration of its own. */
const KEPT_CONFIGURATIONS = 100;

/** What else than its tree decides whether a tree passes. */
export interface VerifiedUnder {
  readonly commands: readonly VerifyCommand[];
  /** The commands' environment; only a hash of it is kept. Default none. */
  readonly env?: Readonly<Record<string, string>>;
  readonly noTests?: string;
}

/**
 * Remembers on disk which trees have passed which commands, so that the same tree is not verified twice: one file
 * per tree, in a directory per list of commands and environment. Only what passed is remembered; `prune` leaves 200 trees for
 * each of the 100 configurations used last. A record whose artifact is gone proves nothing, and is not found.
 */
export class VerifiedTrees {
  readonly #root: string;
  readonly #directory: string;

  /** @param root `<project>/.troupe/verified-trees` */
  constructor(root: string, { commands, env = {}, noTests }: VerifiedUnder) {
    const configuration = commands.map(({ name, command, timeoutMs, allowFail }) => ({
      name,
      command,
      timeoutMs,
      allowFail,
    }));
    this.#root = root;
    // Each verification has its own.
    const { TMPDIR: _, ...variables } = env;
    const key = deepHash({ configuration, env: variables, noTests: noTests ?? null });
    this.#directory = path.join(root, key.slice(0, 16));
  }

  async find(tree: string): Promise<VerifiedTree | undefined> {
    let record: Partial<VerifiedTree> | null;
    try {
      record = JSON.parse(await readFile(this.#file(tree), 'utf8')) as Partial<VerifiedTree> | null;
    } catch {
      return undefined; // not there or damaged: verified again, which is always right
    }
    const proved =
      Array.isArray(record?.commands) &&
      record.commands.length > 0 &&
      typeof record.artifact === 'string' &&
      existsSync(path.join(this.#root, '..', '..', record.artifact));
    return proved ? (record as VerifiedTree) : undefined;
  }

  async remember(tree: string, verified: VerifiedTree): Promise<void> {
    await ensureIgnoredDirectory(this.#root);
    await writeRebuildable(this.#file(tree), `${JSON.stringify(verified)}\n`);
  }

  /** Forgets what was remembered longest ago. */
  async prune(): Promise<void> {
    await pruneOldest(this.#directory, KEPT_PER_CONFIGURATION);
    await pruneOldest(this.#root, KEPT_CONFIGURATIONS);
  }

  #file(tree: string): string {
    return path.join(this.#directory, `${tree}.json`);
  }
}

/** Leaves the entries that were written to last. */
async function pruneOldest(directory: string, kept: number): Promise<void> {
  for (const entry of await oldestEntries(directory, kept)) {
    await rm(entry, { recursive: true, force: true });
  }
}
