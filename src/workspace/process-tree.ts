import { type ChildProcess, spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import { processStartTime } from '../runtime/process-identity.ts';
import type { ProcessRegistry } from './process-registry.ts';
import { findMarkedProcesses, isGroupAlive, MARKER_VARIABLE } from './process-scan.ts';
import { terminateGroup, terminateProcesses } from './terminate.ts';

export interface ProcessTreeOptions {
  /** Program and arguments; never through a shell. */
  readonly argv: readonly [string, ...string[]];
  /** What the registry calls it. Default: `argv` joined. */
  readonly label?: string;
  readonly cwd: string;
  /** The complete environment; only the job's marker is added. */
  readonly env: Readonly<Record<string, string>>;
  readonly stdin?: string | Buffer;
  readonly timeoutMs: number;
  /** From SIGTERM to SIGKILL. Default 3000. */
  readonly killGraceMs?: number;
  readonly signal?: AbortSignal;
  readonly processes: ProcessRegistry;
  /** Also end processes that left the group but carry the marker. For commands that are not ours. Default false. */
  readonly sweep?: boolean;
  readonly faultPoint?: FaultPoint;
  readonly onStdout: (chunk: Buffer) => void;
  readonly onStderr: (chunk: Buffer) => void;
}

export interface ProcessEnd {
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** The system's code (`ENOENT`, `EAGAIN`, …) when the program could not be started. */
  readonly spawnError?: string;
  readonly durationMs: number;
  readonly timedOut: boolean;
  readonly aborted: boolean;
}

/** After the program has exited, how long its output may still come while a grandchild holds the pipe. */
export const DRAIN_MS = 200;
/** What is left of a tree whose leader exited by itself gets less time than one that is being told to stop. */
const LEFTOVER_GRACE_MS = 500;
/** After SIGKILL, how long we wait for the exit of something that hangs in the kernel. */
const UNKILLABLE_MS = 5000;

/**
 * Runs one program in a process group of its own and sees to it that nothing of it is left: on timeout and abort
 * the group is terminated (then killed), and after the program's own exit what it left in the background as well.
 * The program's exit decides, not the end of its output: a background grandchild may hold the pipe for ever.
 * Resolves in every case. Crash: the registry's record lets the next start end the tree.
 */
export async function runProcessTree(options: ProcessTreeOptions): Promise<ProcessEnd> {
  const faultPoint = options.faultPoint ?? noFaults;
  const startedAt = performance.now();
  const durationMs = () => Math.round(performance.now() - startedAt);
  const notRun = { exitCode: null, signal: null, timedOut: false, aborted: false };
  if (options.signal?.aborted) return { ...notRun, aborted: true, durationMs: 0 };

  const job = options.processes.announce(options.label ?? options.argv.join(' '), options.cwd);
  await faultPoint('process.announced');
  let child: ChildProcess;
  try {
    child = spawn(options.argv[0], options.argv.slice(1), {
      cwd: options.cwd,
      env: { ...options.env, [MARKER_VARIABLE]: job.marker },
      // A process group of its own: only such a one can be killed as a whole without killing ourselves.
      detached: true,
      stdio: [options.stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    });
  } catch (error) {
    job.ended(); // E2BIG, a NUL in an argument: thrown, not emitted
    return { ...notRun, spawnError: errorCode(error), durationMs: durationMs() };
  }
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const exited = exitOf(child);
  child.stdout?.on('data', options.onStdout);
  child.stderr?.on('data', options.onStderr);
  const pid = child.pid;
  if (pid === undefined) {
    const { spawnError } = await exited;
    job.ended();
    const code = spawnError === 'ENOENT' && !isDirectory(options.cwd) ? 'ENOCWD' : spawnError;
    return { ...notRun, spawnError: code ?? 'UNKNOWN', durationMs: durationMs() };
  }
  await faultPoint('process.spawned');
  job.started(pid);
  // A program that does not read its input closes the pipe; that is its right.
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(options.stdin);

  const graceMs = options.killGraceMs ?? 3000;
  const stop = stopRequest(options);
  const first = await Promise.race([exited, stop.requested]);
  const stoppedFor = typeof first === 'string' ? first : undefined;
  stop.dispose();
  let survived = false;
  if (stoppedFor !== undefined) survived = !(await terminateGroup(pid, graceMs));
  const end = stoppedFor === undefined ? await exited : await within(exited, UNKILLABLE_MS);

  await within(closed, DRAIN_MS);
  if (stoppedFor === undefined && (await isGroupAlive(pid))) {
    survived = !(await terminateGroup(pid, Math.min(graceMs, LEFTOVER_GRACE_MS)));
  }
  if (options.sweep === true) {
    const escaped = await findMarkedProcesses(job.marker);
    const identified = escaped.flatMap((escapee) => {
      const startTime = processStartTime(escapee);
      return startTime === undefined ? [] : [{ pid: escapee, startTime }];
    });
    if (!(await terminateProcesses(identified, Math.min(graceMs, LEFTOVER_GRACE_MS)))) {
      survived = true;
    }
  }
  await within(closed, DRAIN_MS);
  child.stdout?.destroy();
  child.stderr?.destroy();
  // What could not be killed keeps its record, so that the next start tries again.
  if (!survived) job.ended();
  return {
    exitCode: end?.exitCode ?? null,
    signal: end === undefined ? 'SIGKILL' : end.signal,
    durationMs: durationMs(),
    timedOut: stoppedFor === 'timeout',
    aborted: stoppedFor === 'abort',
  };
}

interface Exit {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly spawnError?: string;
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.once('exit', (exitCode, signal) => resolve({ exitCode, signal }));
    child.once('error', (error) => {
      // Later errors (a signal that could not be sent) do not end the program.
      if (child.pid === undefined) {
        resolve({ exitCode: null, signal: null, spawnError: errorCode(error) });
      }
    });
  });
}

/** Resolves when the time is up or the signal is aborted. `dispose` when nobody waits for it any more. */
export function stopRequest({
  timeoutMs,
  signal,
}: Pick<ProcessTreeOptions, 'timeoutMs' | 'signal'>): {
  readonly requested: Promise<'timeout' | 'abort'>;
  readonly dispose: () => void;
} {
  let dispose = (): void => undefined;
  const requested = new Promise<'timeout' | 'abort'>((resolve) => {
    // Node fires a timer of more than 2^31 - 1 ms at once.
    const timer = setTimeout(() => resolve('timeout'), Math.min(timeoutMs, 2 ** 31 - 1));
    const onAbort = () => resolve('abort');
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    dispose = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
  });
  return { requested, dispose };
}

/** @returns undefined when the limit comes first */
/** @returns undefined when it takes longer */
export async function within<T>(promise: Promise<T>, limitMs: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), limitMs);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'UNKNOWN';
}

function isDirectory(directory: string): boolean {
  return statSync(directory, { throwIfNoEntry: false })?.isDirectory() === true;
}
