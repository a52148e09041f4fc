/**
 * Watches over the scratch directory of a replay: `node guardian.ts DIRECTORY`. Its input is a pipe from the replay and
 * ends when that one does, however it does. What the replay has not removed by then is ended and removed here.
 */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';
import { processesOf } from './scratch-layout.ts';

const [directory = ''] = process.argv.slice(2);
// Ctrl-C and a closed terminal are for the replay, which ends us by its own end.
for (const signal of ['SIGINT', 'SIGHUP', 'SIGTERM'] as const) process.on(signal, () => undefined);

const said = await text(process.stdin);
if (!said.includes('keep') && existsSync(directory)) {
  const processes = processesOf(directory);
  if (existsSync(processes)) await new ProcessRegistry(processes).killLeftovers(500);
  await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}
