import { setTimeout as delay } from 'node:timers/promises';
import { processStartTime } from '../runtime/process-identity.ts';
import { isGroupAlive } from './process-scan.ts';

/** How often we look whether a group has gone: nothing reports the end of processes that are not our children. */
const LOOK_EVERY_MS = 25;
/** How long a killed process may take to go. Only one that hangs in the kernel takes longer. */
const KILL_LIMIT_MS = 2000;

/**
 * Ends a whole process group: SIGTERM, `graceMs` to comply, SIGKILL. Stopped members are continued so that they
 * can comply. Only for groups whose leader was spawned detached: any other pid would name our own group.
 * @returns whether the group is gone
 */
export async function terminateGroup(group: number, graceMs: number): Promise<boolean> {
  signalProcess(-group, 'SIGTERM');
  signalProcess(-group, 'SIGCONT');
  if (await goneWithin(graceMs, async () => !(await isGroupAlive(group)))) return true;
  signalProcess(-group, 'SIGKILL');
  return await goneWithin(KILL_LIMIT_MS, async () => !(await isGroupAlive(group)));
}

/** The same for single processes, each only while it is still the one that was seen. */
export async function terminateProcesses(
  processes: readonly { readonly pid: number; readonly startTime: string }[],
  graceMs: number,
): Promise<boolean> {
  const living = () => processes.filter((seen) => processStartTime(seen.pid) === seen.startTime);
  for (const { pid } of living()) {
    signalProcess(pid, 'SIGTERM');
    signalProcess(pid, 'SIGCONT');
  }
  const gone = () => Promise.resolve(living().length === 0);
  if (await goneWithin(graceMs, gone)) return true;
  for (const { pid } of living()) signalProcess(pid, 'SIGKILL');
  return await goneWithin(KILL_LIMIT_MS, gone);
}

/** Sends a signal; a receiver that is gone is no error. */
function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    // EPERM: it has become another user's (setuid). What we may not kill, the caller sees as not gone.
    if (code !== 'ESRCH' && code !== 'EPERM') throw error;
  }
}

async function goneWithin(limitMs: number, gone: () => Promise<boolean>): Promise<boolean> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    if (await gone()) return true;
    if (performance.now() >= deadline) return false;
    await delay(LOOK_EVERY_MS);
  }
}
