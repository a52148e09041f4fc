import { createHash, randomBytes } from 'node:crypto';
import { existsSync, lstatSync, statSync } from 'node:fs';
import { mkdtemp, readFile, realpath, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

/**
 * Where a project's running troupe listens: `.troupe/control.sock` (on Windows a named pipe). The path of a Unix
 * socket has at most 108 bytes, on some systems 104; when the project lies deeper, the socket lies in a directory of
 * its own in /tmp, and `.troupe/control.path` says where. In /tmp and not where TMPDIR says, if that can be: another shell, or
 * a service, often has another TMPDIR, and both have to believe the path. (As tmux does, for the same reason.)
 */
export interface Endpoint {
  readonly path: string;
  readonly token: string;
}

/** The least of the limits of the systems we know, less the closing zero. */
const MAX_PATH_BYTES = 103;
const SHORT_PREFIX = 'troupe-';

const tokenFileOf = (stateDirectory: string): string => path.join(stateDirectory, 'control.token');
const pathFileOf = (stateDirectory: string): string => path.join(stateDirectory, 'control.path');

/**
 * Prepares a place to listen at, with a new token; whatever a crashed process left there is removed. Call it only as
 * the owner of the project's store: nobody else can be listening then.
 */
export async function createEndpoint(stateDirectory: string): Promise<Endpoint> {
  await removeEndpoint(stateDirectory);
  const token = randomBytes(32).toString('hex');
  const socket = await socketPath(stateDirectory);
  await replaceFile(tokenFileOf(stateDirectory), `${token}\n`);
  return { path: socket, token };
}

/** The token of whoever listens now. */
export const tokenOf = async (stateDirectory: string): Promise<string | undefined> =>
  (await readIfThere(tokenFileOf(stateDirectory)))?.trim();

/** @returns undefined when nobody listens, as far as the files tell */
export async function findEndpoint(stateDirectory: string): Promise<Endpoint | undefined> {
  const token = await tokenOf(stateDirectory);
  if (token === undefined) return undefined;
  if (process.platform === 'win32') return { path: pipeName(stateDirectory), token };
  const elsewhere = (await readIfThere(pathFileOf(stateDirectory)))?.trim();
  if (elsewhere === undefined) return { path: path.join(stateDirectory, 'control.sock'), token };
  return (await isOurs(elsewhere)) ? { path: elsewhere, token } : undefined;
}

/** Takes everything away again. Call it only as the owner of the project's store. */
export async function removeEndpoint(stateDirectory: string): Promise<void> {
  await rm(tokenFileOf(stateDirectory), { force: true });
  await rm(path.join(stateDirectory, 'control.sock'), { force: true });
  const elsewhere = (await readIfThere(pathFileOf(stateDirectory)))?.trim();
  if (elsewhere === undefined) return;
  if (await isOurs(elsewhere)) {
    await rm(elsewhere, { force: true });
    await rmdir(path.dirname(elsewhere));
  }
  await rm(pathFileOf(stateDirectory), { force: true });
}

async function socketPath(stateDirectory: string): Promise<string> {
  if (process.platform === 'win32') return pipeName(stateDirectory);
  const own = path.join(stateDirectory, 'control.sock');
  if (Buffer.byteLength(own) <= MAX_PATH_BYTES) return own;
  // Made anew with mode 0700 and a name nobody can guess: in a shared directory nobody can have prepared it.
  const directory = await shortDirectory();
  const short = path.join(directory, 's');
  await replaceFile(pathFileOf(stateDirectory), `${short}\n`);
  return short;
}

async function shortDirectory(): Promise<string> {
  const [root, otherwise] = await shortRoots();
  try {
    return await mkdtemp(path.join(root, SHORT_PREFIX));
  } catch (error) {
    if (otherwise === undefined) throw error;
    return await mkdtemp(path.join(otherwise, SHORT_PREFIX));
  }
}

async function shortRoots(): Promise<readonly [string, string?]> {
  const own = await realpath(os.tmpdir());
  const shared = existsSync('/tmp') ? await realpath('/tmp') : own;
  return shared === own ? [own] : [shared, own];
}

function pipeName(stateDirectory: string): string {
  const name = createHash('sha256').update(path.resolve(stateDirectory)).digest('hex').slice(0, 32);
  return `\\\\.\\pipe\\troupe-${name}`;
}

/** A path file can come with a repository: it is followed only to a directory that `socketPath` may have made. */
async function isOurs(socket: string): Promise<boolean> {
  const directory = path.dirname(socket);
  if (!(await shortRoots()).includes(path.dirname(directory))) return false;
  if (!path.basename(directory).startsWith(SHORT_PREFIX) || path.basename(socket) !== 's') {
    return false;
  }
  const info = lstatSync(directory, { throwIfNoEntry: false });
  return (
    info?.isDirectory() === true && info.uid === process.getuid?.() && (info.mode & 0o077) === 0
  );
}

/** Whole or not at all, and for nobody else from its first instant. */
async function replaceFile(file: string, text: string): Promise<void> {
  const fresh = `${file}.${process.pid}.tmp`;
  await rm(fresh, { force: true });
  await writeFile(fresh, text, { flag: 'wx', mode: 0o600 });
  await rename(fresh, file);
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    if (statSync(file).size > 4096) return undefined;
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
