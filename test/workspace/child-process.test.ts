import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import {
  type CommandOptions,
  describeCommand,
  runCommand,
} from '../../src/workspace/child-process.ts';
import { buildEnvironment } from '../../src/workspace/environment.ts';
import { findMarkedProcesses } from '../../src/workspace/process-scan.ts';
import { processRegistry, temporaryDirectory } from './git-fixture.ts';

function run(command: CommandOptions['command'], options: Partial<CommandOptions> = {}) {
  return runCommand({
    command,
    cwd: temporaryDirectory(),
    env: buildEnvironment(),
    timeoutMs: 20_000,
    killGraceMs: 300,
    processes: processRegistry(),
    ...options,
  });
}

/** Command lines of all processes that run now. */
function commandLines(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()];
      } catch {
        return []; // it has ended
      }
    });
}

let sleeps = 0;
/** A `sleep` that no other test and no other run starts, so that survivors can be told. */
const uniqueSleep = () => `sleep ${97_000 + sleeps++}.${process.pid}`;

test('gives exit code and both streams', async () => {
  const result = await run('echo out; echo err >&2; exit 3');
  expect(result).toMatchObject({
    command: 'echo out; echo err >&2; exit 3',
    exitCode: 3,
    signal: null,
    timedOut: false,
    aborted: false,
    missingTool: false,
    truncatedBytes: 0,
  });
  expect(result.output.split('\n').sort()).toEqual(['', 'err', 'out']);
});

test('an array is never seen by a shell', async () => {
  const cwd = temporaryDirectory();
  const result = await run(['echo', '$(touch canary)', ';', 'touch canary'], { cwd });
  expect(result.output).toBe('$(touch canary) ; touch canary\n');
  expect(existsSync(path.join(cwd, 'canary'))).toBe(false);
});

test('writes stdin, also to a program that does not read it', async () => {
  expect((await run(['cat'], { stdin: 'hello' })).output).toBe('hello');
  expect((await run(['true'], { stdin: 'x'.repeat(1_000_000) })).exitCode).toBe(0);
});

test.each([
  { name: 'a pipeline', command: (sleep: string) => `${sleep} | cat` },
  { name: 'children in the background', command: (sleep: string) => `${sleep} & wait` },
  // Without the marker only the group tells that they are ours.
  { name: 'children without environment', command: (sleep: string) => `env -i ${sleep} | cat` },
  { name: 'SIGTERM ignored', command: (sleep: string) => `trap '' TERM; ${sleep}; ${sleep}` },
  { name: 'a stopped child', command: (sleep: string) => `${sleep} & kill -STOP $!; wait` },
  { name: 'a stopped leader', command: (sleep: string) => `${sleep} & kill -STOP $$` },
  {
    name: 'one that left the session',
    command: (sleep: string) => `setsid ${sleep} >/dev/null 2>&1 & ${sleep}`,
  },
  {
    name: 'one that left the session and ignores SIGTERM',
    command: (sleep: string) => `setsid sh -c "trap '' TERM; ${sleep}; true" & ${sleep}`,
  },
])('on timeout nothing survives of $name', async ({ command }) => {
  const sleep = uniqueSleep();
  const processes = processRegistry();
  const result = await run(command(sleep), { timeoutMs: 300, processes });
  expect(result.timedOut).toBe(true);
  expect(result.exitCode === 0).toBe(false);
  expect(commandLines().filter((line) => line.includes(sleep))).toEqual([]);
});

test('on abort nothing survives', async () => {
  const sleep = uniqueSleep();
  const controller = new AbortController();
  const result = await run(`echo ready; ${sleep} | cat`, {
    signal: controller.signal,
    onOutput: () => controller.abort(),
  });
  expect(result).toMatchObject({ aborted: true, timedOut: false });
  expect(commandLines().filter((line) => line.includes(sleep))).toEqual([]);
});

test('an abort before the start starts nothing', async () => {
  const cwd = temporaryDirectory();
  const result = await run('touch canary', { cwd, signal: AbortSignal.abort() });
  expect(result).toMatchObject({ aborted: true, exitCode: null });
  expect(existsSync(path.join(cwd, 'canary'))).toBe(false);
});

test.each(['', '>/dev/null 2>&1 '])(
  'decides on exit while a grandchild %sgoes on, and ends it',
  async (redirection) => {
    const sleep = uniqueSleep();
    const result = await run(`echo done; ${sleep} ${redirection}& exit 0`);
    expect(result).toMatchObject({ exitCode: 0, output: 'done\n' });
    expect(result.durationMs).toBeLessThan(5000);
    expect(commandLines().filter((line) => line.includes(sleep))).toEqual([]);
  },
);

test('a grandchild in a session of its own is swept after a normal exit', async () => {
  const sleep = uniqueSleep();
  const result = await run(`setsid ${sleep} >/dev/null 2>&1 & exit 0`);
  expect(result.exitCode).toBe(0);
  expect(commandLines().filter((line) => line.includes(sleep))).toEqual([]);
});

test('endless output costs bounded memory and a bounded log', async () => {
  const logFile = path.join(temporaryDirectory(), 'logs', 'yes.log');
  let seen = 0;
  const controller = new AbortController();
  const result = await run('echo first; yes', {
    maxOutputBytes: 1000,
    logFile,
    maxLogBytes: 5000,
    signal: controller.signal,
    onOutput: (chunk) => {
      seen += chunk.length;
      if (seen > 50_000_000) controller.abort();
    },
  });
  expect(result.output.startsWith('first\ny\n')).toBe(true);
  expect(result.output.length).toBeLessThan(1100);
  expect(result.truncatedBytes).toBe(seen - 1000);
  const log = readFileSync(logFile, 'utf8');
  expect(log.length).toBeLessThan(5100);
  expect(log).toContain('the log ends here: limit of 5000 bytes');
});

test('the log is not written through a symlink', async () => {
  const directory = temporaryDirectory();
  const victim = path.join(directory, 'victim');
  writeFileSync(victim, 'precious');
  symlinkSync(victim, path.join(directory, 'log'));
  await expect(run('echo x', { logFile: path.join(directory, 'log') })).rejects.toThrow('ELOOP');
  expect(readFileSync(victim, 'utf8')).toBe('precious');
});

test('invalid UTF-8 becomes replacement characters', async () => {
  expect((await run(['printf', 'a\\377b'])).output).toBe('a\ufffdb');
});

test.each([
  { command: ['no-such-program-anywhere'], missing: true, spawnError: 'ENOENT' },
  { command: ['/etc/passwd'], missing: true, spawnError: 'EACCES' },
  { command: 'no-such-program-anywhere', missing: true, exitCode: 127 },
  { command: '/etc/passwd', missing: true, exitCode: 126 },
  { command: ['sh', '-c', 'no-such-program-anywhere'], missing: true, exitCode: 127 },
  { command: ['sh', '-c', 'exit 126'], missing: false, exitCode: 126 },
  { command: 'exit 1', missing: false, exitCode: 1 },
  { command: ['echo', 'a\0b'], missing: false, spawnError: 'ERR_INVALID_ARG_VALUE' },
  { command: ['echo', 'x'.repeat(3_000_000)], missing: false, spawnError: 'E2BIG' },
])('$command.0 … missing tool: $missing', async ({ command, missing, ...expected }) => {
  const result = await run(command);
  expect(result.missingTool).toBe(missing);
  expect(result).toMatchObject(expected);
});

test('a directory that is not there is not called a missing tool', async () => {
  const result = await run(['true'], { cwd: '/no/such/directory' });
  expect(result).toMatchObject({ missingTool: false, spawnError: 'ENOCWD', exitCode: null });
});

test('a signal is reported as a signal', async () => {
  expect(await run('kill -KILL $$')).toMatchObject({ exitCode: null, signal: 'SIGKILL' });
});

test('the child sees the given environment and its marker, nothing else', async () => {
  const result = await run(['env'], { env: { PATH: process.env['PATH'] ?? '' } });
  const names = result.output
    .trim()
    .split('\n')
    .map((line) => line.split('=')[0])
    .sort();
  expect(names).toEqual(['PATH', 'TROUPE_JOB']);
  const marker = /TROUPE_JOB=(.*)/.exec(result.output)?.[1] ?? '';
  expect(await findMarkedProcesses(marker)).toEqual([]);
});

test('buildEnvironment passes what is allowed and never secrets or git variables', () => {
  const source = {
    PATH: '/bin',
    LC_TIME: 'C',
    OPENAI_API_KEY: 'sk-1',
    NPM_TOKEN: 'secret',
    NPM_CONFIG_REGISTRY: 'r',
    GIT_DIR: '/elsewhere',
    GIT_INDEX_FILE: 'x',
    TROUPE_JOB: 'outer',
    OTHER: '1',
  };
  expect(buildEnvironment(['NPM_*', 'GIT_DIR', 'TROUPE_*'], { EXTRA: '2' }, source)).toEqual({
    PATH: '/bin',
    LC_TIME: 'C',
    NPM_CONFIG_REGISTRY: 'r',
    EXTRA: '2',
  });
  expect(buildEnvironment(['NPM_TOKEN'], {}, source)).toMatchObject({ NPM_TOKEN: 'secret' });
});

test('a command is shown so that it could be pasted into a shell', () => {
  expect(describeCommand(['npm', 'run', "it's", 'a b'])).toBe("npm run 'it'\\''s' 'a b'");
});
