import { readdirSync, readlinkSync, realpathSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { listTargetCheckouts } from './checkouts.ts';
import type { Leftover } from './process-registry.ts';
import type { Repository } from './repository.ts';

/**
 * Removes lock files that a git command of ours has left when it was killed: the machine went down, or the system
 * killed it for want of memory. A lock is ours if it is younger than such a command and no process has it open;
 * every other lock stays, and whoever meets it is told its name.
 * @param leftovers what `ProcessRegistry.killLeftovers` gave; when it is empty nothing is removed
 * @returns the files removed
 */
export async function removeStaleLocks(
  repository: Repository,
  leftovers: readonly Leftover[],
): Promise<string[]> {
  const started = leftovers.flatMap((leftover) =>
    leftover.kind === 'process' && leftover.command.startsWith('git ')
      ? [leftover.startedAtMs]
      : [],
  );
  if (started.length === 0) return [];
  const since = Math.min(...started) - TIMESTAMP_SLACK_MS;
  const checkouts = await listTargetCheckouts(repository);
  const candidates = [
    ...['packed-refs.lock', 'shallow.lock', 'HEAD.lock'].map((name) =>
      path.join(repository.commonDir, name),
    ),
    ...locksBelow(path.join(repository.commonDir, 'refs')),
    ...checkouts.map(({ gitDir }) => path.join(gitDir, 'index.lock')),
  ];
  const removed: string[] = [];
  for (const lock of candidates) {
    const stat = statSync(lock, { throwIfNoEntry: false });
    if (stat === undefined || stat.mtimeMs < since || isOpenSomewhere(lock)) continue;
    rmSync(lock, { force: true });
    removed.push(lock);
  }
  return removed;
}

/** File systems keep times more coarsely than our clock. */
const TIMESTAMP_SLACK_MS = 2000;

function locksBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.lock'))
    .map((entry) => path.join(entry.parentPath, entry.name));
}

/** Whether any process has the file open; as far as we may look. */
function isOpenSomewhere(file: string): boolean {
  if (process.platform !== 'linux') return false;
  const real = realpathSync(file);
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`) === real) return true;
      }
    } catch {
      // It ended meanwhile, or is another user's, whose git would not work in this repository.
    }
  }
  return false;
}
