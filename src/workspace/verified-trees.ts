import { readdir, readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { deepHash } from '../protocol/hash.ts';
import type { CommandEvidence } from '../protocol/verdict.ts';
import { writeDurably } from './durable-file.ts';
import { ensureIgnoredDirectory } from './ignored-directory.ts';
import type { VerifyCommand } from './verification.ts';

/** What proved a tree. */
export interface VerifiedTree {
  readonly commands: readonly CommandEvidence[];
  /** Path of the artifact of that verification, relative to the project. */
  readonly artifact: string;
}

const KEPT_PER_CONFIGURATION = 200;

/**
 * Remembers on disk which trees have passed which commands, so that the same tree is not verified twice: one file
 * per tree, in a directory per list of commands. Only what passed is remembered; at most 200 per list.
 */
export class VerifiedTrees {
  readonly #root: string;
  readonly #directory: string;

  /** @param root `<project>/.troupe/verified-trees` */
  constructor(root: string, commands: readonly VerifyCommand[]) {
    const configuration = commands.map(({ name, command, timeoutMs, allowFail }) => ({
      name,
      command,
      timeoutMs,
      allowFail,
    }));
    this.#root = root;
    this.#directory = path.join(root, deepHash(configuration).slice(0, 16));
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
      typeof record.artifact === 'string';
    return proved ? (record as VerifiedTree) : undefined;
  }

  async remember(tree: string, verified: VerifiedTree): Promise<void> {
    await ensureIgnoredDirectory(this.#root);
    await writeDurably(this.#file(tree), `${JSON.stringify(verified)}\n`);
    await this.#prune();
  }

  async #prune(): Promise<void> {
    const names = await readdir(this.#directory);
    if (names.length <= KEPT_PER_CONFIGURATION) return;
    const files = names.map((name) => path.join(this.#directory, name));
    const dated = await Promise.all(
      files.map(async (file) => ({ file, time: (await stat(file)).mtimeMs })),
    );
    dated.sort((a, b) => b.time - a.time);
    for (const { file } of dated.slice(KEPT_PER_CONFIGURATION)) await rm(file, { force: true });
  }

  #file(tree: string): string {
    return path.join(this.#directory, `${tree}.json`);
  }
}
