import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { bootId, processStartTime } from '../../src/runtime/process-identity.ts';
import { ProcessRegistry, runningJobs } from '../../src/workspace/process-registry.ts';
import { findMarkedProcesses } from '../../src/workspace/process-scan.ts';
import { program, programEnvironment } from '../program.ts';
import { temporaryDirectory } from './git-fixture.ts';

/** The registry's files. */
const logsIn = (directory: string) =>
  readdirSync(directory).filter((name) => name !== '.gitignore');

/** The markers of what is on record as running. */
const recordsIn = (directory: string) => runningJobs(directory).map(({ marker }) => marker);

const ownerScript = program('workspace/process-owner');

/** Starts an owner that runs a command, waits until the command speaks, and kills the owner. */
async function killedOwner(directory: string, command: string, faultPoint = ''): Promise<string[]> {
  const owner = spawn(process.execPath, [ownerScript, directory, command, faultPoint], {
    env: programEnvironment(),
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
  const [marker = ''] = recordsIn(directory);
  expect(await findMarkedProcesses(marker)).toHaveLength(3);

  const leftovers = await new ProcessRegistry(directory).killLeftovers();
  expect(leftovers).toMatchObject([{ kind: 'process', directory: expect.any(String) }]);
  expect(await findMarkedProcesses(marker)).toEqual([]);
  expect(logsIn(directory)).toEqual([]);
  expect(await new ProcessRegistry(directory).killLeftovers()).toEqual([]);
});

test('a crash between spawn and record is found by the marker', async () => {
  const directory = temporaryDirectory();
  await killedOwner(directory, 'exec sleep 95003', 'process.spawned');
  const [marker = ''] = recordsIn(directory);
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
  expect(recordsIn(directory)).toEqual([job.marker]);
  job.ended();
  expect(recordsIn(directory)).toEqual([]);
  registry.close();
  expect(logsIn(directory)).toEqual([]);
});

const writeLog = (directory: string, name: string, ...lines: readonly unknown[]) =>
  writeFileSync(
    path.join(directory, `${name}.jsonl`),
    lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''),
  );

const deadOwner = { pid: 2 ** 22 + 1, startTime: '1', bootId: bootId() };

test.each([
  { name: 'another start time: the pid was reused', startTime: '1', boot: bootId() },
  { name: 'another boot', startTime: undefined, boot: 'other' },
])('a stranger with the recorded pid is not killed ($name)', async ({ startTime, boot }) => {
  const directory = temporaryDirectory();
  const stranger = spawn('sleep', ['95005'], { detached: true });
  const pid = stranger.pid ?? 0;
  const marker = '00000000-0000-4000-8000-000000000000';
  const record = {
    marker,
    command: 'sleep',
    directory: '/',
    startedAtMs: 0,
    owner: deadOwner,
    process: { pid, startTime: startTime ?? processStartTime(pid), bootId: boot },
  };
  writeLog(directory, 'dead', { owner: deadOwner }, record);
  expect(await new ProcessRegistry(directory).killLeftovers()).toMatchObject([{ killed: [] }]);
  expect(processStartTime(pid)).toBeDefined();
  stranger.kill('SIGKILL');
  await once(stranger, 'exit');
});

test('files that cannot be read are removed and reported', async () => {
  const directory = temporaryDirectory();
  const good = { marker: '', command: 'x', directory: '/', startedAtMs: 0, owner: deadOwner };
  for (const [index, text] of ['', '{', 'null', '[]', good, '{"marker":1}'].entries()) {
    writeLog(directory, `owner-${index}`, text);
    writeLog(directory, `line-${index}`, { owner: deadOwner }, text === '' ? 'x' : text, {
      ended: 'x',
    });
  }
  writeFileSync(path.join(directory, 'half.jsonl.tmp'), '{');
  const leftovers = await new ProcessRegistry(directory).killLeftovers();
  // `good` is no header, but its owner is one; as a line it lacks a marker.
  expect(leftovers.map(({ kind }) => kind)).toEqual(Array(11).fill('corrupt'));
  expect(logsIn(directory)).toEqual([]);
});

test('a line that a kill has cut off hides nothing that was written before it', async () => {
  const directory = temporaryDirectory();
  await killedOwner(directory, 'echo ready; exec sleep 95006');
  const [marker = ''] = recordsIn(directory);
  const [log = ''] = logsIn(directory);
  appendFileSync(path.join(directory, log), `\n{"ended":"${marker}`);
  expect(await findMarkedProcesses(marker)).toHaveLength(1);
  expect(await new ProcessRegistry(directory).killLeftovers()).toMatchObject([{ kind: 'process' }]);
  expect(await findMarkedProcesses(marker)).toEqual([]);
});

test('a log that somebody has removed, or that has grown long, is begun anew with what runs', () => {
  const directory = temporaryDirectory();
  const registry = new ProcessRegistry(directory);
  const first = registry.announce('first', directory);
  const [log = ''] = logsIn(directory);
  rmSync(path.join(directory, log));
  const second = registry.announce('second', directory);
  expect(recordsIn(directory)).toEqual([first.marker, second.marker]);
  first.ended();
  for (let i = 0; i < 3000; i++) registry.announce('x'.repeat(1000), directory).ended();
  const logs = logsIn(directory);
  expect(logs).toHaveLength(1);
  expect(readFileSync(path.join(directory, logs[0] ?? '')).length).toBeLessThan(1_100_000);
  expect(recordsIn(directory)).toEqual([second.marker]);
  // What could not be ended stays on record.
  registry.close();
  expect(recordsIn(directory)).toEqual([second.marker]);
});

test('an owner that lives and runs nothing keeps its log', async () => {
  const directory = temporaryDirectory();
  const registry = new ProcessRegistry(directory);
  registry.announce('done', directory).ended();
  expect(await new ProcessRegistry(directory).killLeftovers()).toEqual([]);
  expect(logsIn(directory)).toHaveLength(1);
  registry.close();
  expect(logsIn(directory)).toEqual([]);
});

test('a pid that is none is nobody', () => {
  for (const pid of [0, -1, 1.5, Number.NaN, 2 ** 22 + 1]) {
    expect(processStartTime(pid)).toBeUndefined();
  }
  expect(processStartTime(process.pid)).toMatch(/\d/);
});
