import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** The folder of package.json. */
export const REPOSITORY = join(import.meta.dirname, '..', '..');

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly cwd: string;
  /** Set on top of this process's environment. */
  readonly env?: NodeJS.ProcessEnv;
  /** Default 60 000. A command that takes longer is killed, and the promise rejects. */
  readonly timeoutMs?: number;
}

/**
 * Runs one program, without a shell, to its end.
 * @returns its exit code, whatever it is, and what it wrote
 * @throws when it cannot be started, is killed by a signal or runs out of time
 */
export function runCommand(
  file: string,
  args: readonly string[],
  { cwd, env = {}, timeoutMs = 60_000 }: CommandOptions,
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    execFile(
      file,
      args,
      {
        cwd,
        env: { ...plainEnvironment(), ...env },
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: 64 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        const exitCode = error === null ? 0 : error.code;
        if (typeof exitCode === 'number') resolve({ exitCode, stdout, stderr });
        else {
          const command = [file, ...args].join(' ');
          reject(
            new Error(`${command} did not end by itself.\n${stdout}${stderr}`, { cause: error }),
          );
        }
      },
    );
  });
}

/** As `runCommand`, for a command that is only a means: anything but exit code 0 throws what it wrote. */
export async function mustRun(
  file: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<CommandResult> {
  const result = await runCommand(file, args, options);
  if (result.exitCode !== 0) {
    const command = [file, ...args].join(' ');
    throw new Error(
      `${command} (in ${options.cwd}) exited with ${result.exitCode}, expected 0.\n${result.stdout}${result.stderr}`,
    );
  }
  return result;
}

/** A program that `npm ci` installed, as a path. */
export function installedBinary(name: string): string {
  return join(REPOSITORY, 'node_modules', '.bin', name);
}

/** A PATH on which the `node` that runs this test is found first. */
export function pathWithThisNode(): string {
  return [join(process.execPath, '..'), process.env['PATH'] ?? ''].join(delimiter);
}

/** Every `node` on the PATH, in its order. */
export function nodesOnPath(): string[] {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, 'node'))
    .filter((file) => existsSync(file));
}

function plainEnvironment(): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {};
  for (const [name, value] of Object.entries(process.env)) {
    // npm run tells its children about the project it runs in; ours work in projects of their own.
    if (!name.startsWith('npm_') && name !== 'INIT_CWD') env[name] = value;
  }
  // The runner's own settings would colour or change what a program under test prints.
  delete env['FORCE_COLOR'];
  delete env['NODE_OPTIONS'];
  return { ...env, NO_COLOR: '1' };
}
