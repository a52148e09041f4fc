import { existsSync, rmSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  ConfigurationError,
  ConflictError,
  type Failure,
  fromFailure,
  toFailure,
} from '../../protocol/errors.ts';
import { startThread } from './own-thread.ts';
import { renameDurably } from './rename-durably.ts';
import { removeUnfinishedBackups, unfinishedName } from './unfinished-backups.ts';

export interface BackUpData {
  readonly source: string;
  readonly target: string;
}

/**
 * Copies a store's file, as it is at one moment, to another file, which is a store itself.
 *
 * By VACUUM INTO, on a connection and a thread of its own: it reads one snapshot, so the writer is not held at all and
 * the copy has no empty pages. (SQLite's own backup in steps either stands in the writer's thread or begins anew after
 * each commit.) Meanwhile the write-ahead log cannot be cut back: it grows by what is written in that time. Without such
 * a log, on a network file system, commits wait until the copy is made.
 *
 * Crash: the copy gets its name when it is complete and flushed; what is left of an incomplete one ends in `.part`,
 * and the next backup to the same directory removes it.
 * @returns the size of the copy in bytes
 * @throws {ConflictError} there is a file of that name, or the log of one
 */
export async function backUp(source: string, path: string): Promise<number> {
  if (source === ':memory:') {
    throw new ConfigurationError(
      'A store in memory has no file to copy. Open one in a file: createTroupe({ store: "state.db" }).',
    );
  }
  const target = resolve(path);
  refuseToOverwrite(target);
  removeUnfinishedBackups(target);
  const unfinished = unfinishedName(target);
  try {
    await copy({ source, target: unfinished });
    refuseToOverwrite(target);
    const { size } = statSync(unfinished);
    renameDurably(unfinished, target);
    return size;
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  }
}

function refuseToOverwrite(target: string): void {
  for (const file of [target, `${target}-wal`, `${target}-journal`]) {
    if (!existsSync(file)) continue;
    throw new ConflictError(
      `The backup was not written: there is a file ${file} already. Name another file, or move that one away.`,
    );
  }
}

async function copy(workerData: BackUpData): Promise<void> {
  const worker = startThread('back-up-worker', 'troupe store backup', workerData);
  const failure = await new Promise<Failure | null>((resolve_) => {
    worker.once('message', resolve_);
    worker.once('error', (error) => resolve_(toFailure(error)));
  });
  await worker.terminate();
  if (failure !== null) throw fromFailure(failure);
}
