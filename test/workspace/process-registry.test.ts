import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { bootId, processStartTime } from '../../src/runtime/process-identity.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';
import { findMarkedProcesses } from '../../src/workspace/process-scan.ts';
import { temporaryDirectory } from './git-fixture.ts';

/** The registry's records. */
const recordsIn = (directory: string) =>
  readdirSync(directory).filter((name) => name !== '.gitignore');

const ownerScript = new URL('./process-owner.child.ts', import.meta.url).pathname;

/** Starts an owner that runs a command, waits until the command speaks, and kills the owner. */
async function killedOwner(directory: string, command: string, faultPoint = ''): Promise<string[]> {
  const owner = spawn(process.execPath, [ownerScript, directory, command, faultPoint], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(owner, 'exit');
  const said: string[] = [];
  for await (const line of createInterface({ input: owner.stdout })) {
    said.push(line);
    if (line === 'ready') break;
  }
  owner.kill('SIGKILL');
  await exited;
  return said;
}

test('a start-up ends what a killed owner left, escapees included', async () => {
  const directory = temporaryDirectory();
  await killedOwner(
    directory,
    'setsid sleep 95001 >/dev/null 2>&1 & sleep 95002 & echo ready; wait',
  );
  const [file = ''] = recordsIn(directory);
  const marker = file.replace('.json', '');
  expect(await findMarkedProcesses(marker)).toHaveLength(3);

  const leftovers = await new ProcessRegistry(directory).killLeftovers();
  expect(leftovers).toMatchObject([{ kind: 'process', directory: expect.any(String) }]);
  expect(await findMarkedProcesses(marker)).toEqual([]);
  expect(recordsIn(directory)).toEqual([]);
  expect(await new ProcessRegistry(directory).killLeftovers()).toEqual([]);
});

test('a crash between spawn and record is found by the marker', async () => {
  const directory = temporaryDirectory();
  await killedOwner(directory, 'exec sleep 95003', 'process.spawned');
  const [file = ''] = recordsIn(directory);
  const marker = file.replace('.json', '');
  expect(await findMarkedProcesses(marker)).toHaveLength(1);
  await new ProcessRegistry(directory).killLeftovers();
  expect(await findMarkedProcesses(marker)).toEqual([]);
});

test('processes of a living owner are left alone', async () => {
  const directory = temporaryDirectory();
  const registry = new ProcessRegistry(directory);
  const job = registry.announce('sleep', directory);
  const child = spawn('sleep', ['95004'], { detached: true });
  job.started(child.pid ?? 0);
  expect(await new ProcessRegistry(directory).killLeftovers()).toEqual([]);
  expect(processStartTime(child.pid ?? 0)).toBeDefined();
  child.kill('SIGKILL');
  await once(child, 'exit');
  job.ended();
  expect(recordsIn(directory)).toEqual([]);
});

const deadOwner = { pid: 2 ** 22 + 1, startTime: '1', bootId: bootId() };

test.each([
  { name: 'another start time: the pid was reused', startTime: '1', boot: bootId() },
  { name: 'another boot', startTime: undefined, boot: 'other' },
])('a stranger with the recorded pid is not killed ($name)', async ({ startTime, boot }) => {
  const directory = temporaryDirectory();
  const stranger = spawn('sleep', ['95005'], { detached: true });
  const pid = stranger.pid ?? 0;
  const marker = '00000000-0000-4000-8000-000000000000';
  writeFileSync(
    path.join(directory, `${marker}.json`),
    JSON.stringify({
      marker,
      command: 'sleep',
      directory: '/',
      startedAtMs: 0,
      owner: deadOwner,
      process: { pid, startTime: startTime ?? processStartTime(pid), bootId: boot },
    }),
  );
  expect(await new ProcessRegistry(directory).killLeftovers()).toMatchObject([{ killed: [] }]);
  expect(processStartTime(pid)).toBeDefined();
  stranger.kill('SIGKILL');
  await once(stranger, 'exit');
});

test('files that cannot be read are removed and reported', async () => {
  const directory = temporaryDirectory();
  const good = { marker: '', command: 'x', directory: '/', startedAtMs: 0, owner: deadOwner };
  for (const [index, text] of [
    '',
    '{',
    'null',
    '[]',
    JSON.stringify(good),
    '{"marker":1}',
  ].entries()) {
    writeFileSync(path.join(directory, `${index}.json`), text);
  }
  writeFileSync(path.join(directory, 'half.json.tmp'), '{');
  const leftovers = await new ProcessRegistry(directory).killLeftovers();
  expect(leftovers.map(({ kind }) => kind)).toEqual(Array(6).fill('corrupt'));
  expect(recordsIn(directory)).toEqual([]);
});

test('a pid that is none is nobody', () => {
  for (const pid of [0, -1, 1.5, Number.NaN, 2 ** 22 + 1]) {
    expect(processStartTime(pid)).toBeUndefined();
  }
  expect(processStartTime(process.pid)).toMatch(/\d/);
});
