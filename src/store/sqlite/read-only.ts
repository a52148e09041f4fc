import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import Database from 'better-sqlite3';
import { ConfigurationError, NotFoundError, StoppedError } from '../../protocol/errors.ts';
import type { Store } from '../store.ts';
import { BUSY_TIMEOUT_MS, type BusyOptions, retryWhileBusy } from './busy.ts';
import { readMigrations, schemaVersion } from './migrations.ts';
import { refuseStrangers } from './open-database.ts';
import { noteOpenFile } from './open-files.ts';
import { RowReader } from './row-reader.ts';
import { explain } from './sqlite-errors.ts';

/** What may be asked of a store that somebody else owns. */
export type ReadOnlyStore = Pick<
  Store,
  | 'name'
  | 'listActors'
  | 'listCheckpoints'
  | 'listDeadLetters'
  | 'listRuns'
  | 'listTasks'
  | 'listAttempts'
  | 'countTasks'
  | 'close'
> & { readonly id: string };

export interface ReadOnlyOptions {
  /** How long a call waits for a lock that another process holds, in milliseconds. Default: 5 000. */
  readonly busyLimitMs?: number;
  /** Told in words when a lock is held for 30 s. */
  readonly onWarning?: (message: string) => void;
}

type ListMethod = Exclude<keyof ReadOnlyStore, 'name' | 'id' | 'close'>;

/**
 * Opens a store to look into it, for a process that does not own it: a command line, a dashboard. Needs no
 * lock and holds none between calls; each call sees the last commit of the moment, while the owner writes on.
 * Reads run on the caller's thread and are short.
 * @throws {NotFoundError} there is no such file
 * @throws {TroupeError} not a store, or of a newer or older version
 */
export async function openReadOnlyStore(
  path: string,
  options: ReadOnlyOptions = {},
): Promise<ReadOnlyStore> {
  const { busyLimitMs = 5_000, onWarning = () => undefined } = options;
  const file = existing(path);
  const busy: BusyOptions = { doing: `read ${file}`, limitMs: busyLimitMs, onWarning };
  const newest = readMigrations().length;
  const forgetFile = noteOpenFile(file);
  let db: Database.Database | undefined;
  try {
    const opened = new Database(file, {
      readonly: true,
      fileMustExist: true,
      timeout: BUSY_TIMEOUT_MS,
    });
    db = opened;
    const id = await retryWhileBusy(() => refuseStrangers(opened, file, newest), busy);
    refuseOlder(opened, file, newest);
    return readOnlyStore(opened, file, id, busy, forgetFile);
  } catch (error) {
    db?.close();
    forgetFile();
    throw explain(error, `open the store ${file} for reading`);
  }
}

function existing(path: string): string {
  try {
    return realpathSync(resolve(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw explain(error, `find ${path}`);
    throw new NotFoundError(
      `There is no store ${resolve(path)}. Reading does not make one: check the path, or start a run first.`,
      { cause: error },
    );
  }
}

function refuseOlder(db: Database.Database, path: string, newest: number): void {
  const version = schemaVersion(db);
  if (version === newest) return;
  throw new ConfigurationError(
    `The store ${path} was written by an older Troupe: it has schema version ${version}, this one reads ${newest}. Let its owner run once with this version; that brings it up to date.`,
    { context: { version, newest } },
  );
}

function readOnlyStore(
  db: Database.Database,
  name: string,
  id: string,
  busy: BusyOptions,
  forgetFile: () => void,
): ReadOnlyStore {
  const reader = new RowReader(db);
  const read = async <M extends ListMethod>(
    method: M,
    ...args: Parameters<RowReader[M]>
  ): Promise<ReturnType<RowReader[M]>> => {
    if (!db.open) throw new StoppedError(`The store ${name} is closed.`);
    const call = reader[method] as (...args: unknown[]) => ReturnType<RowReader[M]>;
    try {
      return await retryWhileBusy(() => call.apply(reader, args), busy);
    } catch (error) {
      throw explain(error, `read ${name}`);
    }
  };
  return {
    name,
    id,
    listActors: (...args) => read('listActors', ...args),
    listCheckpoints: (...args) => read('listCheckpoints', ...args),
    listDeadLetters: () => read('listDeadLetters'),
    listRuns: () => read('listRuns'),
    listTasks: (...args) => read('listTasks', ...args),
    listAttempts: (...args) => read('listAttempts', ...args),
    countTasks: (run) => read('countTasks', run),
    close() {
      if (db.open) {
        db.close();
        forgetFile();
      }
      return Promise.resolve();
    },
  };
}
