// Runs one command as an owner that the test then kills: directory, command, fault point at which to hang.
import { runCommand } from '../../src/workspace/child-process.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';

const [directory = '', command = '', hangAt = ''] = process.argv.slice(2);
const say = (line: string) => process.stdout.write(`${line}\n`);
await runCommand({
  command,
  cwd: '/',
  env: { PATH: process.env['PATH'] ?? '' },
  timeoutMs: 60_000,
  processes: new ProcessRegistry(directory),
  onOutput: (chunk) => say(chunk.toString().trim()),
  faultPoint: (name) => {
    if (name !== hangAt) return undefined;
    say('ready');
    return new Promise(() => setInterval(() => undefined, 1000));
  },
});
