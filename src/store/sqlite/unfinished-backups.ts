import { createHash, randomBytes } from 'node:crypto';
import { lstatSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describeProcess, type ProcessIdentity, processIdentity } from './process-identity.ts';

/*
 * A backup has another name until it is complete: `<name>.<pid>-<who>-<random>.part`. `who` is the process that makes it:
 * when the process began, and where its number means something. So what a killed one has left can be told from what
 * another one is at.
 */

/** One that nobody can tell about (of another machine, or from before a reboot) is dead when nothing is written for so long. */
const SILENT_MS = 86_400_000;

const NAME = /^.+\.(\d+)-(?:([0-9a-f]{8})([0-9a-f]{8})-)?[0-9a-f]{8}\.part(?:-journal|-wal|-shm)?$/;

const short = (...parts: readonly unknown[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 8);

const placeOf = ({ host, bootId, pidNamespace }: ProcessIdentity): string =>
  short(host, bootId, pidNamespace);
const startOf = ({ pid, startedAt }: ProcessIdentity): string => short(pid, startedAt);

/** A name for a backup that this process is about to make. */
export function unfinishedName(target: string): string {
  const me = describeProcess(process.pid);
  const random = randomBytes(4).toString('hex');
  return `${target}.${me.pid}-${placeOf(me)}${startOf(me)}-${random}.part`;
}

/** The files that backups which were killed have left in a directory. */
export function findUnfinishedBackups(directory: string, now = Date.now()): readonly string[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return []; // none, or not to be read: the backup itself will say so
  }
  const here = placeOf(describeProcess(process.pid));
  return names
    .filter((name) => {
      const [, pid, place, start] = NAME.exec(name) ?? [];
      if (pid === undefined) return false;
      const found = lstatSync(join(directory, name), { throwIfNoEntry: false });
      if (found?.isFile() !== true) return false;
      if (place !== here) return now - found.mtimeMs > SILENT_MS;
      const maker = processIdentity(Number(pid));
      return maker === undefined || startOf(maker) !== start;
    })
    .map((name) => join(directory, name));
}

/** Removes what backups that were killed have left where another one is to be made. What cannot be removed stays. */
export function removeUnfinishedBackups(target: string): void {
  for (const file of findUnfinishedBackups(dirname(target))) {
    // A name of ours only: what it leads to is never looked at.
    if (basename(file) === basename(target)) continue;
    try {
      rmSync(file, { force: true });
    } catch {
      // Of another user, or on a disk that cannot be written: `troupe doctor` still names it.
    }
  }
}
