import { execFileSync } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** Tells a process from every other that ever had its number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it began: clock ticks since the boot (Linux) or a date (other Unix); null where the system does not say. */
  readonly startedAt: string | null;
  /** The boot during which it ran; null where the system does not say. */
  readonly bootId: string | null;
  /** Within which its number means something: containers of one machine have their own. */
  readonly pidNamespace: string | null;
  readonly host: string;
}

/** @returns undefined if no process of this machine has this number now, or it has ended and awaits its parent */
export function processIdentity(pid: number): ProcessIdentity | undefined {
  if (!isAlive(pid)) return undefined;
  const process = describeProcess(pid);
  return process.startedAt === ENDED ? undefined : process;
}

/** What is known of a process that exists, such as this one. */
export function describeProcess(pid: number): ProcessIdentity {
  return {
    pid,
    startedAt: startOf(pid),
    bootId: readOrNull('/proc/sys/kernel/random/boot_id')?.trim() ?? null,
    pidNamespace: ownPidNamespace(),
    host: hostname(),
  };
}

const ENDED = 'ended';

function isAlive(pid: number): boolean {
  // 0 and negative numbers mean process groups.
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it exists and belongs to another user.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function startOf(pid: number): string | null {
  if (process.platform === 'linux') {
    const stat = readOrNull(`/proc/${pid}/stat`);
    if (stat === null) return null;
    // The name in parentheses may contain anything, also spaces and parentheses; field 3 follows it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? ENDED : (fields[19] ?? null);
  }
  if (process.platform === 'win32') return null;
  try {
    const options = {
      encoding: 'utf8',
      env: { LC_ALL: 'C', TZ: 'UTC', PATH: '/bin:/usr/bin' },
    } as const;
    return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], options).trim() || null;
  } catch {
    // No `ps`, or the process ended meanwhile: without a start time the number alone decides.
    return null;
  }
}

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Not Linux, or hidden from this user.
    return null;
  }
}

function ownPidNamespace(): string | null {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return null;
  }
}
