import { randomUUID } from 'node:crypto';
import {
  closeSync,
  futimesSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { z } from 'zod';
import { LockConflictError, TroupeError } from '../../protocol/errors.ts';
import { describeProcess, processIdentity } from './process-identity.ts';
import { compareFile, type WatchedFile, watchFile } from './watched-file.ts';

/**
 * One process owns a store. The lock is a file beside the database that names its holder:
 *
 *     absent ──link(own)──► held ──release──► absent
 *     stale  ──(with <lock>.takeover held) rename(own)──► held
 *
 * A lock file is written under another name first and then linked into place, which fails if the place is
 * taken: it is complete from its first instant, and of two processes one wins. A stale one (its holder is
 * dead, or the boot is another, or it is empty or torn by a power cut) is replaced by a rename. So that a
 * slow thief cannot replace the lock of a faster one, whoever takes over must first hold `<lock>.takeover`,
 * which is a lock of the same kind, and look again.
 *
 * What is trusted: the machine's process table. A holder on another machine, or in another container, cannot
 * be looked up; it counts as alive, and the message says which file to delete.
 * A holder touches its file every 20 s. One that has not done so for 60 s may be taken over if the caller says so,
 * although it seems to live: it is stopped, or hangs. Whether it writes again is not decided here but by the
 * epoch in the database (0005_leases.sql), which every transaction looks at.
 * Crash: the lock stays and is taken over by the next who wants it.
 */
export interface OwnerLock {
  /** Another process had held it and had not let go. */
  readonly stolen: boolean;
  /** While this is the file at its path, the lock is held. */
  readonly file: WatchedFile;
  /** Idempotent. A lock that is no longer ours is left alone. */
  release(): void;
}

const lockContent = z.object({
  pid: z.int().positive(),
  startedAt: z.string().nullable(),
  bootId: z.string().nullable(),
  pidNamespace: z.string().nullable(),
  host: z.string(),
  lockedAt: z.string(),
  /** What it protects: the path of the database. */
  store: z.string(),
});
type LockContent = z.infer<typeof lockContent>;

type Holder =
  | { readonly state: 'alive' | 'elsewhere'; readonly content: LockContent }
  | { readonly state: 'stale' };

/** Without a sign of life for so long, a holder that seems to live may be taken over. C5's time to live of a lease. */
const OWNER_TTL_MS = 60_000;
/** Two of three signs may be late. */
const SIGNS_PER_TTL = 3;

export interface OwnerLockOptions {
  /** Take the lock also from a holder that seems to live but has shown no sign of it for so long. Default: false. */
  readonly takeOver?: boolean;
  /** @internal Default: 60 000. */
  readonly ownerTtlMs?: number;
}

/** Takeovers of takeovers: each needs a process that died in the middle of one. */
const MAX_DEPTH = 3;

/**
 * @param path of the lock file
 * @param store what it protects, for messages
 * @throws {LockConflictError} a living process holds it, or one that cannot be looked up from here
 */
export function acquireOwnerLock(
  path: string,
  store: string,
  options: OwnerLockOptions = {},
): OwnerLock {
  try {
    const lock = acquire(path, store, 0, options);
    showLife(lock, options.ownerTtlMs ?? OWNER_TTL_MS);
    return lock;
  } catch (error) {
    if (error instanceof TroupeError) throw error;
    throw new TroupeError(
      'unavailable',
      `Could not lock the store ${store}: ${error instanceof Error ? error.message : String(error)}. The directory of ${path} must be writable and its file system must know hard links (a local disk does).`,
      { cause: error },
    );
  }
}

function acquire(path: string, store: string, depth: number, options: OwnerLockOptions): OwnLock {
  const own = `${path}.${process.pid}-${randomUUID()}`;
  // Kept open: the number of a deleted file that is open is not given to another one, so that
  // `compareFile` can tell ours from a later one at the same path.
  const descriptor = openSync(own, 'wx');
  let lock: OwnLock | undefined;
  try {
    writeFileSync(descriptor, describeSelf(store));
    const file = { ...watchFile(own), path };
    for (;;) {
      if (linkUnlessTaken(own, path)) {
        lock = held(file, descriptor, false);
        return lock;
      }
      const found = readIfThere(path);
      if (found === undefined) continue;
      refuseUnlessStale(found, path, store, options);
      if (depth === MAX_DEPTH) {
        throw new LockConflictError(
          `The lock of ${store} cannot be taken over: ${path} is left from ${MAX_DEPTH} attempts that were killed. Delete the files ${path}* and try again.`,
        );
      }
      const takeover = acquire(`${path}.takeover`, store, depth + 1, {});
      try {
        // Another may have been faster between the look and the takeover.
        if (readIfThere(path) !== found) continue;
        renameSync(own, path);
        lock = held(file, descriptor, true);
        return lock;
      } finally {
        takeover.release();
      }
    }
  } finally {
    if (lock === undefined) closeSync(descriptor);
    unlinkIfThere(own);
  }
}

/** Who has a store, as far as that can be seen from here. */
export interface StoreOwner {
  /**
   * `alive`: a process of this machine; `elsewhere`: of another machine or container, where nobody can look;
   * `dead`: it was killed, and whoever opens the store next takes the lock over.
   */
  readonly state: 'alive' | 'elsewhere' | 'dead';
  /** Null when the lock file cannot be read. */
  readonly pid: number | null;
  readonly host: string | null;
  readonly lockedAt: string | null;
  /** Since its last sign of life. One that is alive gives one every 20 s. */
  readonly silentMs: number;
  readonly lockFile: string;
}

/**
 * Looks at the lock of a store, and changes nothing.
 * @param store its file
 * @returns undefined when nobody holds it
 */
export function findStoreOwner(store: string, now = Date.now()): StoreOwner | undefined {
  const lockFile = `${store}.lock`;
  const text = readIfThere(lockFile);
  const stat = statSync(lockFile, { throwIfNoEntry: false });
  if (text === undefined || stat === undefined) return undefined;
  const { state } = judge(text);
  const { pid, host, lockedAt } = parse(text) ?? { pid: null, host: null, lockedAt: null };
  const silentMs = Math.max(0, Math.round(now - stat.mtimeMs));
  return { state: state === 'stale' ? 'dead' : state, pid, host, lockedAt, silentMs, lockFile };
}

/** A lock with what holds it. */
interface OwnLock extends OwnerLock {
  readonly descriptor: number;
  signs: NodeJS.Timeout | undefined;
}

function showLife(lock: OwnLock, ttlMs: number): void {
  const sign = (): void => {
    const now = new Date();
    try {
      // Through the descriptor: what has been put in the file's place is not ours to touch.
      futimesSync(lock.descriptor, now, now);
    } catch {
      // A disk that has failed, or is read-only by now, must not end the process from a timer: the next commit says so.
    }
  };
  lock.signs = setInterval(sign, ttlMs / SIGNS_PER_TTL).unref();
}

function held(file: WatchedFile, descriptor: number, stolen: boolean): OwnLock {
  let released = false;
  return {
    stolen,
    file,
    descriptor,
    signs: undefined,
    release() {
      if (released) return;
      released = true;
      clearInterval(this.signs);
      if (compareFile(file) === 'same') unlinkIfThere(file.path);
      closeSync(descriptor);
    },
  };
}

function describeSelf(store: string): string {
  const content: LockContent = {
    ...describeProcess(process.pid),
    lockedAt: new Date().toISOString(),
    store,
  };
  return `${JSON.stringify(content)}\n`;
}

function refuseUnlessStale(
  text: string,
  path: string,
  store: string,
  { takeOver = false, ownerTtlMs = OWNER_TTL_MS }: OwnerLockOptions,
): void {
  const holder = judge(text);
  if (holder.state === 'stale') return;
  const silentMs = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
  const silent = silentMs > ownerTtlMs;
  if (silent && takeOver) return;
  const { pid, host, lockedAt, store: theirs } = holder.content;
  const context = { pid, host, lockedAt, lock: path, silentMs: Math.max(0, Math.round(silentMs)) };
  const takeable = silent
    ? ` It has shown no sign of life for ${Math.round(silentMs / 1000)} s: it can be taken over (takeOver: true, or --take-over), and can then write no more.`
    : '';
  if (holder.state === 'elsewhere') {
    throw new LockConflictError(
      `The store ${store} is held by process ${pid} on host ${host} since ${lockedAt}. Whether that process still runs cannot be seen from here (another machine or container). If it has ended, delete ${path} and try again.${takeable}`,
      { context },
    );
  }
  const who = pid === process.pid ? `this process (${pid})` : `process ${pid}`;
  const as = theirs === store ? '' : ` (as ${theirs})`;
  throw new LockConflictError(
    `The store ${store}${as} is held by ${who} since ${lockedAt}. Only one process may write to a store: stop that one, or wait for it to end, then try again.${takeable}`,
    { context },
  );
}

function judge(text: string): Holder {
  const content = parse(text);
  if (content === undefined) return { state: 'stale' };
  const self = describeProcess(process.pid);
  const sameBoot = content.bootId !== null && content.bootId === self.bootId;
  const sameProcessTable = sameBoot && content.pidNamespace === self.pidNamespace;
  // Within one process table the host's name may change; otherwise it is all there is to go by.
  if (!sameProcessTable && content.host !== self.host) return { state: 'elsewhere', content };
  if (differ(content.bootId, self.bootId)) return { state: 'stale' };
  if (differ(content.pidNamespace, self.pidNamespace)) return { state: 'elsewhere', content };
  const now = processIdentity(content.pid);
  if (now === undefined || differ(content.startedAt, now.startedAt)) return { state: 'stale' };
  return { state: 'alive', content };
}

/** Unknown is not different: when in doubt, the holder lives. */
function differ(a: string | null, b: string | null): boolean {
  return a !== null && b !== null && a !== b;
}

function parse(text: string): LockContent | undefined {
  try {
    return lockContent.safeParse(JSON.parse(text)).data;
  } catch {
    // Not JSON: ours are complete from their first instant, so this one was torn by a power cut.
    return undefined;
  }
}

function linkUnlessTaken(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
