import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { ConfigurationError } from '../../src/index.ts';
import { type CommandResult, runCommand } from '../../src/workspace/child-process.ts';
import { buildEnvironment } from '../../src/workspace/environment.ts';
import { excerptOf } from '../../src/workspace/excerpt.ts';
import type { Workload } from './manifest.ts';
import type { Scratch } from './scratch.ts';

/** By this exit code a workload's script says that what it needs is not installed: nobody's change is to blame. */
export const DEPENDENCIES_MISSING = 97;

/** What a script may need besides the usual: where toolchains and their caches lie, and its own settings. */
export const PASSED_ON: readonly string[] = [
  ...['REALREPO_*', 'NODE_PATH', 'PYTHONPATH', 'VIRTUAL_ENV', 'JAVA_HOME', 'XDG_*'],
  ...['GOPATH', 'GOROOT', 'GOCACHE', 'GOMODCACHE', 'GOFLAGS', 'GOPROXY', 'CARGO_*', 'RUSTUP_*'],
];

/** Runs the workload's script on a commit in a fresh checkout, without the product. */
export async function verifyTree(
  scratch: Scratch,
  workload: Workload,
  commit: string,
  signal: AbortSignal,
): Promise<CommandResult> {
  const place = await mkdtemp(path.join(scratch.directory, 'tree-'));
  try {
    const tree = path.join(place, 'work');
    const temporary = path.join(place, 'tmp');
    await mkdir(temporary);
    await scratch.git.run(
      ['clone', '--quiet', '--shared', '--no-checkout', scratch.project, tree],
      { cwd: place, timeoutMs: 600_000 },
    );
    await scratch.git.run(['checkout', '--quiet', '--detach', commit], {
      cwd: tree,
      timeoutMs: 600_000,
    });
    const result = await runCommand({
      command: [workload.verify.script],
      cwd: tree,
      env: buildEnvironment(PASSED_ON, { TMPDIR: temporary }),
      timeoutMs: workload.verify.timeoutMs,
      processes: scratch.processes,
      signal,
    });
    signal.throwIfAborted();
    return result;
  } finally {
    await rm(place, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * Whether the start is green; red is told and no more, for the first change may be what makes it green.
 * @throws {ConfigurationError} the script cannot run here, so that no change could be verified
 */
export async function verifyStart(
  scratch: Scratch,
  workload: Workload,
  base: string,
  signal: AbortSignal,
): Promise<string> {
  const result = await verifyTree(scratch, workload, base, signal);
  const { script } = workload.verify;
  const said = excerptOf(result.output, 1000);
  if (result.exitCode === DEPENDENCIES_MISSING) {
    throw new ConfigurationError(
      `${script}: exit code ${DEPENDENCIES_MISSING}, its dependencies are missing here. It said: ${said}`,
    );
  }
  if (result.spawnError !== undefined || result.missingTool) {
    const why = result.spawnError ?? `exit code ${result.exitCode}`;
    throw new ConfigurationError(`${script} cannot be run here (${why}). It said: ${said}`);
  }
  if (result.timedOut) return `red: no end within ${workload.verify.timeoutMs} ms`;
  if (result.exitCode === 0) return 'green';
  return `red: ${result.signal ?? `exit code ${result.exitCode}`}, ${said.split('\n').at(-1) ?? ''}`;
}
