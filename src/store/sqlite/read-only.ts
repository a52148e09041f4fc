import { realpathSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { ConfigurationError, NotFoundError, StoppedError } from '../../protocol/errors.ts';
import type { PayloadCodec } from '../payload/codec.ts';
import { TextReader } from '../payload/text-reader.ts';
import type { Store } from '../store.ts';
import type { Prunable, PruneLimits, StoreUsage } from '../usage.ts';
import { backUp } from './back-up.ts';
import { BUSY_TIMEOUT_MS, type BusyOptions, retryWhileBusy } from './busy.ts';
import { refuseStrangeLog } from './log-check.ts';
import { readMigrations, schemaVersion } from './migrations.ts';
import { look, refuseOrphanedLog, refuseStrangers } from './open-database.ts';
import { isOpenHere, noteOpenFile } from './open-files.ts';
import { RowReader } from './row-reader.ts';
import { explain } from './sqlite-errors.ts';
import { countPrunable, usageOf } from './usage.ts';

/** What may be asked of a store that somebody else owns. */
export type ReadOnlyStore = Pick<
  Store,
  | 'name'
  | 'listActors'
  | 'loadActors'
  | 'listCheckpoints'
  | 'listCuts'
  | 'loadCut'
  | 'listDeadLetters'
  | 'listTurns'
  | 'listAudit'
  | 'listRuns'
  | 'listTasks'
  | 'listAttempts'
  | 'countTasks'
  | 'query'
  | 'listLeases'
  | 'listStreams'
  | 'listStreamChunks'
  | 'backup'
  | 'close'
> & {
  readonly id: string;
  usage(): Promise<StoreUsage>;
  /** What SQLite finds damaged or contradictory in the file, at most 20 things; none when it is whole. Reads all of it. */
  findDamage(): Promise<readonly string[]>;
  /** What `Store.prune` would remove. */
  countPrunable(limits: PruneLimits): Promise<Prunable>;
};

export interface ReadOnlyOptions {
  /** How long a call waits for a lock that another process holds, in milliseconds. Default: 5 000. */
  readonly busyLimitMs?: number;
  /** As the owner has it: what is encrypted cannot be read without. Default: none. */
  readonly codec?: PayloadCodec;
  /** Told in words when a lock is held for 30 s. */
  readonly onWarning?: (message: string) => void;
}

type ListMethod = Exclude<keyof ReadOnlyStore & keyof RowReader, 'name'> | 'loadChunks';

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
  await refuseForeignLog(file);
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
    return readOnlyStore(opened, file, id, busy, options.codec, forgetFile);
  } catch (error) {
    db?.close();
    forgetFile();
    throw explain(error, `open the store ${file} for reading`);
  }
}

const LOOKS_AT_LOG = 5;
const MAX_DAMAGE = 20;

/**
 * What an owner is writing may look torn for a moment; a log that is another's stays so.
 * @throws {TroupeError} the log is another database's, or does not continue this one
 */
async function refuseForeignLog(file: string): Promise<void> {
  for (let looks = 1; ; looks++) {
    const size = statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    // See log-check.ts: not while SQLite has it open here.
    if (size === 0 || isOpenHere(file)) return;
    try {
      refuseStrangeLog(file);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return; // its owner has just closed it
      if (looks === LOOKS_AT_LOG) throw explain(error, `read the log of ${file}`);
      await sleep(20);
    }
  }
}

function existing(path: string): string {
  try {
    return realpathSync(resolve(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw explain(error, `find ${path}`);
    refuseOrphanedLog(resolve(path), look(resolve(path)));
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

function damageIn(db: Database.Database): readonly string[] {
  const found = db.pragma(`integrity_check(${MAX_DAMAGE})`) as { integrity_check: string }[];
  const damaged = found.map((row) => row.integrity_check).filter((said) => said !== 'ok');
  const strays = db.pragma('foreign_key_check') as { table: string; parent: string }[];
  const lost = strays.map(({ table, parent }) => `a row of ${table} has lost its ${parent}`);
  return [...damaged, ...lost].slice(0, MAX_DAMAGE);
}

function readOnlyStore(
  db: Database.Database,
  name: string,
  id: string,
  busy: BusyOptions,
  codec: PayloadCodec | undefined,
  forgetFile: () => void,
): ReadOnlyStore {
  const reader = new RowReader(db);
  const look = async <T>(at: () => T): Promise<T> => {
    if (!db.open) throw new StoppedError(`The store ${name} is closed.`);
    try {
      return await retryWhileBusy(at, busy);
    } catch (error) {
      throw explain(error, `read ${name}`);
    }
  };
  const read = <M extends ListMethod>(
    method: M,
    ...args: Parameters<RowReader[M]>
  ): Promise<ReturnType<RowReader[M]>> => {
    const call = reader[method] as (...args: unknown[]) => ReturnType<RowReader[M]>;
    return look(() => call.apply(reader, args));
  };
  const texts = new TextReader((lists) => read('loadChunks', lists), codec);
  return {
    name,
    id,
    listActors: (...args) => read('listActors', ...args),
    loadActors: (addresses) => texts.actors(() => read('loadActors', addresses)),
    listCheckpoints: (...args) => texts.checkpoints(() => read('listCheckpoints', ...args)),
    listCuts: (run) => texts.cuts(() => read('listCuts', run)),
    loadCut: (id) => texts.cut(() => read('loadCut', id)),
    listDeadLetters: () => texts.deadLetters(() => read('listDeadLetters')),
    listTurns: (query) => texts.turns(() => read('listTurns', query)),
    listAudit: (query) => texts.audit(() => read('listAudit', query)),
    listRuns: () => texts.runs(() => read('listRuns')),
    listTasks: (...args) => texts.tasks(() => read('listTasks', ...args)),
    listAttempts: (...args) => texts.attempts(() => read('listAttempts', ...args)),
    countTasks: (run) => read('countTasks', run),
    query: (statement) => read('query', statement),
    listLeases: (now) => read('listLeases', now),
    listStreams: (filter) => texts.streams(() => read('listStreams', filter)),
    listStreamChunks: (query) => texts.streamChunks(() => read('listStreamChunks', query)),
    usage: () => look(() => usageOf(db)),
    findDamage: () => look(() => damageIn(db)),
    countPrunable: (limits) => look(() => countPrunable(db, limits)),
    async backup(path) {
      if (!db.open) throw new StoppedError(`The store ${name} is closed.`);
      return await backUp(name, path);
    },
    close() {
      if (db.open) {
        db.close();
        forgetFile();
      }
      return Promise.resolve();
    },
  };
}
