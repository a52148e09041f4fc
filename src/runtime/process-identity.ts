import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/**
 * When a process was started, as text that is compared only for equality (Linux: clock ticks since boot;
 * elsewhere: what `ps` prints). A pid is reused; the pair of pid and start time, within one boot, is not.
 * @returns undefined when no such process lives. A zombie does not live.
 * Source: proc_pid_stat(5), fields 3 and 22.
 */
export function processStartTime(pid: number): string | undefined {
  // `kill(0)` and `kill(-1)` mean groups; a corrupt lock file must not make us ask about those.
  if (!Number.isSafeInteger(pid) || pid < 1) return undefined;
  return process.platform === 'linux' ? startTimeFromProc(pid) : startTimeFromPs(pid);
}

/** Changes with every boot, so that a start time of an earlier one proves nothing. Empty where it is not known. */
export function bootId(): string {
  cachedBootId ??= readBootId();
  return cachedBootId;
}

/** Who a process is: enough to recognise it after its pid was reused, and after a reboot. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: string;
  readonly bootId: string;
}

/** @returns undefined when no such process lives. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const startTime = processStartTime(pid);
  return startTime === undefined ? undefined : { pid, startTime, bootId: bootId() };
}

/** Whether the very process that was recorded still lives. */
export function isSameProcess(recorded: ProcessIdentity): boolean {
  return recorded.bootId === bootId() && processStartTime(recorded.pid) === recorded.startTime;
}

let cachedBootId: string | undefined;

function readBootId(): string {
  try {
    if (process.platform === 'linux') {
      return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    }
    return execFileSync('sysctl', ['-n', 'kern.boottime'], { encoding: 'utf8' }).trim();
  } catch {
    // Not known (a container without /proc/sys, another Unix): pid and start time still tell processes apart.
    return '';
  }
}

function startTimeFromProc(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  return parseProcStat(stat)?.startTime;
}

/** @internal The fields of `/proc/<pid>/stat` that identify a process; undefined for a zombie or nonsense. */
export function parseProcStat(
  stat: string,
): { readonly group: number; readonly startTime: string } | undefined {
  // The second field is the command in parentheses and may itself hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, , group] = fields;
  const startTime = fields[19];
  if (state === undefined || state === 'Z' || state === 'X' || startTime === undefined) {
    return undefined;
  }
  return { group: Number(group), startTime };
}

function startTimeFromPs(pid: number): string | undefined {
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
    const [state = '', ...started] = line.split(/\s+/);
    return started.length === 0 || state.startsWith('Z') ? undefined : started.join(' ');
  } catch {
    return undefined; // `ps` exits with 1 when there is no such process
  }
}
