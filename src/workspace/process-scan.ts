import { readdirSync, readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { parseProcStat } from '../runtime/process-identity.ts';

/** Every process that Troupe starts carries this variable, and its children inherit it. */
export const MARKER_VARIABLE = 'TROUPE_JOB';

/**
 * Processes whose environment carries the marker of one job. Finds those that left their process group
 * (`setsid`, double fork); not those that cleared their environment.
 * @returns nothing where there is no /proc
 */
export async function findMarkedProcesses(marker: string): Promise<number[]> {
  const needle = `${MARKER_VARIABLE}=${marker}`;
  const found: number[] = [];
  await forEachProcess((pid) => {
    if (pid === process.pid) return;
    const environment = readFileSync(`/proc/${pid}/environ`, 'latin1');
    if (!environment.split('\0').includes(needle)) return;
    // A zombie keeps its environment readable for a moment; it is dead already.
    if (parseProcStat(readFileSync(`/proc/${pid}/stat`, 'latin1')) !== undefined) found.push(pid);
  });
  return found;
}

/** Whether a process group has a member that lives. A group of zombies, which `kill(-pid, 0)` still finds, has not. */
export async function isGroupAlive(group: number): Promise<boolean> {
  try {
    process.kill(-group, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  if (process.platform !== 'linux') return true;
  let alive = false;
  await forEachProcess((pid) => {
    if (alive) return;
    const stat = parseProcStat(readFileSync(`/proc/${pid}/stat`, 'latin1'));
    if (stat?.group === group) alive = true;
  });
  return alive;
}

/** The event loop waits for so many at most: they take a millisecond or two. */
const VISITED_AT_ONCE = 50;

/** Synchronously: the system answers from memory, and a thread that waits for the answer costs as much as the answer itself. */
async function forEachProcess(visit: (pid: number) => void): Promise<void> {
  if (process.platform !== 'linux') return;
  const pids = readdirSync('/proc').map(Number).filter(Number.isSafeInteger);
  for (const [index, pid] of pids.entries()) {
    if (index > 0 && index % VISITED_AT_ONCE === 0) await setImmediate();
    try {
      visit(pid);
    } catch (error) {
      // It ended meanwhile, or belongs to another user and so is not ours.
      if (!GONE_OR_FOREIGN.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
}

const GONE_OR_FOREIGN = new Set(['ENOENT', 'ESRCH', 'EACCES', 'EPERM']);
