import { complaintAboutNode } from '../../src/require-node.ts';
import { nodesOnPath, runCommand } from './run-command.ts';

/** A Node on the PATH that is older than Troupe needs, or `undefined` when there is none. */
export async function findOldNode(): Promise<string | undefined> {
  for (const file of nodesOnPath()) {
    const { stdout } = await runCommand(file, ['--version'], { cwd: '/' });
    if (complaintAboutNode(stdout.trim().replace(/^v/, ''), file) !== undefined) return file;
  }
  return undefined;
}
