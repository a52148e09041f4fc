import { readdir, readFile } from 'node:fs/promises';
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
  await forEachProcess(async (pid) => {
    if (pid === process.pid) return;
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1');
    if (!environment.split('\0').includes(needle)) return;
    // A zombie keeps its environment readable for a moment; it is dead already.
    if (parseProcStat(await readFile(`/proc/${pid}/stat`, 'latin1')) !== undefined) found.push(pid);
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
  await forEachProcess(async (pid) => {
    if (alive) return;
    const stat = parseProcStat(await readFile(`/proc/${pid}/stat`, 'latin1'));
    if (stat?.group === group) alive = true;
  });
  return alive;
}

async function forEachProcess(visit: (pid: number) => Promise<void>): Promise<void> {
  if (process.platform !== 'linux') return;
  const pids = (await readdir('/proc')).map(Number).filter((pid) => Number.isSafeInteger(pid));
  await Promise.all(
    pids.map((pid) =>
      visit(pid).catch((error: NodeJS.ErrnoException) => {
        // It ended meanwhile, or belongs to another user and so is not ours.
        if (!GONE_OR_FOREIGN.has(error.code ?? '')) throw error;
      }),
    ),
  );
}

const GONE_OR_FOREIGN = new Set(['ENOENT', 'ESRCH', 'EACCES', 'EPERM']);
