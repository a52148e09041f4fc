import { rmSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import Database from 'better-sqlite3';
import { ConfigurationError, TroupeError } from '../../protocol/errors.ts';
import { BUSY_TIMEOUT_MS, retryWhileBusy } from './busy.ts';
import { refuseStrangeLog } from './log-check.ts';
import { LOG_LIMIT_BYTES, LOG_PAGES } from './log-watch.ts';
import { APPLICATION_ID, type Migration, migrate, schemaVersion } from './migrations.ts';
import { renameDurably } from './rename-durably.ts';
import { explain } from './sqlite-errors.ts';

export interface OpenDatabaseOptions {
  /** Absolute, or `:memory:`. The caller holds the owner lock. */
  readonly path: string;
  readonly durability: 'full' | 'normal';
  readonly migrations: readonly Migration[];
  /** False when this process has the file open already: reading it with `fs` would drop SQLite's locks. */
  readonly mayReadBytes: boolean;
  /** False when the last owner did not close it. */
  readonly closedCleanly: boolean;
  /** Type number of the file system, as statfs gives it. Default: asked of the system. */
  readonly fileSystemType?: number;
  readonly busyLimitMs: number;
  readonly onWarning: (message: string) => void;
  /** Default: nobody is told. It costs every statement its text. */
  readonly onStatement?: (sql: string) => void;
}

export interface OpenedDatabase {
  readonly db: Database.Database;
  /** The store's own id: the same for as long as the store lives, wherever the file is moved. */
  readonly id: string;
}

/** Below this size the whole file is checked at every opening (about 0.1 s), above it only after a crash. */
const ALWAYS_CHECK_BYTES = 64 * 2 ** 20;

/** Shared memory, which the write-ahead log needs, does not work across machines. Source: statfs(2), https://sqlite.org/wal.html */
const NETWORK_FILE_SYSTEMS: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xfe534d42, 'SMB 2'],
  [0xff534d42, 'CIFS'],
  [0x01021997, '9P'],
  [0x65735546, 'FUSE'],
  [0x00c36400, 'Ceph'],
  [0x5346414f, 'AFS'],
  [0x0bd00bd0, 'Lustre'],
  [0x47504653, 'GPFS'],
]);

const STORE_ID = 'SELECT id FROM store';

/** `PRAGMA auto_vacuum`, by number. */
const INCREMENTAL = 2;

/**
 * Opens a store's database, or makes a new one where there is none.
 *
 * A new one is made under `<path>.new` and renamed when it is complete. An empty file was therefore never a
 * store that had just begun: it is refused, like every file that is not a healthy store of this or an
 * earlier version. A refused file is not written to.
 * @throws {TroupeError} what is wrong, where, and what to do
 */
export async function openDatabase(options: OpenDatabaseOptions): Promise<OpenedDatabase> {
  const { path, migrations } = options;
  if (path === ':memory:') {
    const db = new Database(path);
    migrate(db, migrations);
    db.pragma('foreign_keys = ON');
    return { db, id: readStoreId(db) };
  }
  try {
    const files = look(path);
    if (files.size === undefined) {
      refuseOrphanedLog(path, files);
      create(path, migrations);
    } else {
      await inspect(path, files, options);
    }
    const retry = {
      doing: `open ${path}`,
      limitMs: options.busyLimitMs,
      onWarning: options.onWarning,
    };
    return await retryWhileBusy(() => openForWriting(options), retry);
  } catch (error) {
    throw explain(error, `open the store ${path}`);
  }
}

interface Files {
  /** undefined: there is no such file */
  readonly size: number | undefined;
  readonly walSize: number;
  readonly journalSize: number;
}

export function look(path: string): Files {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat !== undefined && !stat.isFile()) {
    throw new ConfigurationError(
      `Expected ${path} to be a file, or not to exist; it is a directory or a device. Name a file for the store.`,
    );
  }
  const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  return {
    size: stat?.size,
    walSize: sizeOf(`${path}-wal`),
    journalSize: sizeOf(`${path}-journal`),
  };
}

/** @throws {TroupeError} there is a log that something may be lost with */
export function refuseOrphanedLog(path: string, { walSize, journalSize }: Files): void {
  if (walSize === 0 && journalSize === 0) return;
  const log = walSize > 0 ? `${path}-wal` : `${path}-journal`;
  throw new TroupeError(
    'internal',
    `The store ${path} is missing, but its log ${log} is there and may hold committed work. Nothing was changed. Put the database file back, or move the log away to begin with an empty store.`,
  );
}

function create(path: string, migrations: readonly Migration[]): void {
  const unfinished = `${path}.new`;
  for (const suffix of ['', '-journal', '-wal', '-shm'])
    rmSync(unfinished + suffix, { force: true });
  const db = new Database(unfinished, { timeout: BUSY_TIMEOUT_MS });
  try {
    // So that empty pages can be given back bit by bit. It cannot be changed once there is a table.
    db.pragma(`auto_vacuum = ${INCREMENTAL}`);
    // Nobody knows it by this name: it is flushed once, when it is complete.
    db.pragma('journal_mode = MEMORY');
    db.pragma('synchronous = OFF');
    migrate(db, migrations);
  } finally {
    db.close();
  }
  renameDurably(unfinished, path);
}

/** Everything that can be refused is refused here, through a connection that cannot write. */
async function inspect(path: string, files: Files, options: OpenDatabaseOptions): Promise<void> {
  if (files.size === 0) {
    throw new TroupeError(
      'internal',
      `The store ${path} is an empty file, which Troupe never leaves behind: its content was lost. Restore a backup, or delete the file to begin with an empty store.`,
    );
  }
  if (files.walSize > 0 && options.mayReadBytes) refuseStrangeLog(path);
  const newest = options.migrations.length;
  // A journal means a crash in the middle of a write, which only a writing connection can undo.
  const readonly = files.journalSize === 0;
  const db = new Database(path, { readonly, fileMustExist: true, timeout: BUSY_TIMEOUT_MS });
  try {
    const retry = {
      doing: `read ${path}`,
      limitMs: options.busyLimitMs,
      onWarning: options.onWarning,
    };
    await retryWhileBusy(() => {
      refuseStrangers(db, path, newest);
      const size = (files.size ?? 0) + files.walSize;
      if (size <= ALWAYS_CHECK_BYTES || !options.closedCleanly) refuseDamaged(db, path);
    }, retry);
  } finally {
    db.close();
  }
}

/** What a reader must know before it believes a file: that it is a store, and of a version it can read. */
export function refuseStrangers(db: Database.Database, path: string, newest: number): string {
  const applicationId = db.pragma('application_id', { simple: true });
  if (applicationId !== APPLICATION_ID) {
    throw new ConfigurationError(
      `${path} is a database, but not a store of Troupe (its application id is ${String(applicationId)}, expected ${APPLICATION_ID}). It was left as it is: name another file.`,
    );
  }
  const version = schemaVersion(db);
  if (version > newest) {
    throw new ConfigurationError(
      `The store ${path} was written by a newer Troupe: it has schema version ${version}, this one knows ${newest}. It was left as it is: use the newer Troupe, or restore a backup from before the upgrade.`,
      { context: { version, newest } },
    );
  }
  return readStoreId(db);
}

function refuseDamaged(db: Database.Database, path: string): void {
  const problem = db.pragma('quick_check(1)', { simple: true });
  if (problem === 'ok') return;
  throw new TroupeError(
    'internal',
    `The store ${path} is damaged: ${String(problem).replaceAll('\n', ' ')}. It was left as it is: keep a copy, then restore a backup or try \`sqlite3 <file> .recover\`.`,
  );
}

function readStoreId(db: Database.Database): string {
  return db.prepare(STORE_ID).pluck().get() as string;
}

function openForWriting(options: OpenDatabaseOptions): OpenedDatabase {
  const { path, durability, migrations, onWarning, onStatement } = options;
  const db = new Database(path, {
    fileMustExist: true,
    timeout: BUSY_TIMEOUT_MS,
    ...(onStatement === undefined
      ? {}
      : { verbose: (sql?: unknown): void => onStatement(String(sql)) }),
  });
  try {
    backUpBeforeMigrating(db, path, migrations.length);
    makeShrinkable(db, path);
    const network = networkFileSystem(options);
    setJournal(db, path, network === undefined ? 'wal' : 'delete');
    if (network !== undefined) {
      onWarning(
        `The store ${path} is on a network file system (${network}): it is written without a write-ahead log, which is slower, and readers and the writer wait for each other. Keep it on a local disk if you can.`,
      );
    }
    db.pragma(`synchronous = ${durability === 'full' ? 'FULL' : 'NORMAL'}`);
    db.pragma('foreign_keys = ON');
    // What a large commit would need to be taken back is otherwise written to TMPDIR, which may be full or gone.
    db.pragma('temp_store = MEMORY');
    db.pragma(`wal_autocheckpoint = ${LOG_PAGES}`);
    // A log that a reader has let grow is cut back once it is taken over.
    db.pragma(`journal_size_limit = ${LOG_LIMIT_BYTES}`);
    migrate(db, migrations);
    return { db, id: readStoreId(db) };
  } catch (error) {
    db.close();
    throw error;
  }
}

function setJournal(db: Database.Database, path: string, wanted: 'wal' | 'delete'): void {
  const mode = db.pragma(`journal_mode = ${wanted}`, { simple: true });
  if (mode === wanted) return;
  throw new TroupeError(
    'unavailable',
    `The store ${path} cannot change its journal from ${String(mode)} to ${wanted} while another process has it open. End that process, then try again.`,
  );
}

function networkFileSystem({ path, fileSystemType }: OpenDatabaseOptions): string | undefined {
  // The kernel's number has 32 bits; Node hands some of them out as negative.
  const type = (fileSystemType ?? statfsSync(dirname(path)).type) >>> 0;
  return NETWORK_FILE_SYSTEMS.get(type);
}

/**
 * A store of version 1 to 2 cannot give empty pages back. It is written anew, once, with a rollback journal: that moves
 * its first table from page 2 to 3, and a write-ahead log with both would be taken for a stranger's (log-check.ts).
 * Crash: the store is as it was or is made anew.
 */
function makeShrinkable(db: Database.Database, path: string): void {
  if (db.pragma('auto_vacuum', { simple: true }) === INCREMENTAL) return;
  setJournal(db, path, 'delete');
  db.pragma(`auto_vacuum = ${INCREMENTAL}`);
  db.exec('VACUUM');
}

/** Leaves a copy `<path>.v<version>.bak`, as the older Troupe can open it. */
function backUpBeforeMigrating(db: Database.Database, path: string, newest: number): void {
  const version = schemaVersion(db);
  if (version >= newest) return;
  const backup = `${path}.v${version}.bak`;
  const unfinished = `${backup}.new`;
  rmSync(unfinished, { force: true });
  db.prepare('VACUUM INTO ?').run(unfinished);
  renameDurably(unfinished, backup);
}
