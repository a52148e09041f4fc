import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Runs a file of the repository with this very Node, outside the test runner.
 * @returns what it printed; what it wrote to stderr is in the error, if it fails
 */
export async function runNode(file: string, ...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [file, ...args], {
    cwd: REPOSITORY,
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout;
}
