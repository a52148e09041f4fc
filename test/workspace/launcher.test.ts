import {
  chmodSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fc, test as property } from '@fast-check/vitest';
import { afterEach, describe, expect, test } from 'vitest';
import { processStartTime } from '../../src/runtime/process-identity.ts';
import { Launcher, type LaunchOptions } from '../../src/workspace/launcher.ts';
import { ProcessRegistry } from '../../src/workspace/process-registry.ts';
import { findMarkedProcesses } from '../../src/workspace/process-scan.ts';
import { temporaryDirectory } from './git-fixture.ts';

const registries: { readonly directory: string; readonly registry: ProcessRegistry }[] = [];

function newRegistry(): ProcessRegistry {
  const directory = temporaryDirectory();
  const registry = new ProcessRegistry(directory);
  registries.push({ directory, registry });
  return registry;
}

// After whatever a test has done, nothing is on record as running.
afterEach(() => {
  for (const { directory, registry } of registries.splice(0)) {
    registry.close();
    expect(readdirSync(directory)).toEqual(['.gitignore']);
  }
});

async function launch(
  launcher: Launcher,
  argv: readonly [string, ...string[]],
  options: Partial<LaunchOptions> = {},
) {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  const end = await launcher.run({
    argv,
    cwd: '/',
    env: { PATH: process.env['PATH'] ?? '' },
    timeoutMs: 60_000,
    onStdout: (chunk) => stdout.push(Buffer.from(chunk)),
    onStderr: (chunk) => stderr.push(Buffer.from(chunk)),
    ...options,
  });
  return { ...end, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString('utf8') };
}

const word = fc.string({ unit: 'binary', maxLength: 20 }).filter((text) => !text.includes('\0'));
const tricky = fc.oneof(
  word,
  fc.constantFrom(
    "'",
    "''",
    '"',
    '\\',
    '$HOME',
    '`id`',
    '$(id)',
    '\n',
    "'\n'",
    '!x',
    '*',
    '-n',
    '',
  ),
);

describe('a launched program', () => {
  property.prop([fc.array(tricky, { maxLength: 6 }), tricky], { numRuns: 60 })(
    'gets each word as it is, whatever is in it',
    async (args, value) => {
      const env = { PATH: '/usr/bin:/bin', VALUE: value };
      const print = 'for a in "$@"; do printf "%s\\0" "$a"; done; printf "%s" "$VALUE"';
      const { stdout, exitCode } = await launch(
        newRegistry().launcher,
        ['sh', '-c', print, 'sh', ...args],
        {
          env,
        },
      );
      expect(exitCode).toBe(0);
      // What is no text in UTF-16 becomes the replacement character on the way to any program.
      const sent = [...args.map((arg) => `${arg}\0`), value].join('');
      expect(stdout.toString('hex')).toBe(Buffer.from(sent).toString('hex'));
    },
  );

  property.prop([fc.uint8Array({ maxLength: 300 })], { numRuns: 40 })(
    'reads its input to the last byte, and then an end',
    async (bytes) => {
      const stdin = Buffer.from(bytes);
      const { stdout } = await launch(newRegistry().launcher, ['cat'], { stdin });
      expect(stdout.toString('hex')).toBe(stdin.toString('hex'));
    },
  );

  test.each(['-n', '-- x', '%s %d %%', "it's\\n\n", '', 'ü€😀', 'a'.repeat(16_384)])(
    'reads %j',
    async (stdin) => {
      const { stdout } = await launch(newRegistry().launcher, ['cat'], { stdin });
      expect(stdout.toString('utf8')).toBe(stdin);
    },
  );

  test('need not read its input, and its own end counts', async () => {
    const { launcher } = newRegistry();
    const stdin = 'a'.repeat(16_000);
    expect(await launch(launcher, ['sh', '-c', 'exit 3'], { stdin })).toMatchObject({
      exitCode: 3,
    });
    expect(await launch(launcher, ['no-such'], { stdin })).toMatchObject({ spawnError: 'ENOENT' });
  });

  test('has the environment it was given and its marker, and no other', async () => {
    const env = { PATH: '/usr/bin:/bin', ONE: '1' };
    const { stdout } = await launch(newRegistry().launcher, ['env'], { env });
    const names = stdout
      .toString('utf8')
      .trim()
      .split('\n')
      .map((line) => line.split('=')[0]);
    // The shell's own, if it is one that has them.
    expect(names.filter((name) => name !== '_' && name !== 'SHLVL').sort()).toEqual([
      'ONE',
      'PATH',
      'TROUPE_JOB',
    ]);
  });

  test('is where it was told to be, without the symlinks by which it came', async () => {
    const directory = temporaryDirectory();
    mkdirSync(path.join(directory, "it's here"));
    symlinkSync(path.join(directory, "it's here"), path.join(directory, 'link'));
    const { stdout } = await launch(newRegistry().launcher, ['sh', '-c', 'echo "$PWD"; pwd -L'], {
      cwd: path.join(directory, 'link'),
    });
    const real = path.join(realpathSync(directory), "it's here");
    expect(stdout.toString('utf8')).toBe(`${real}\n${real}\n`);
  });

  test('is heard to its last byte, whatever it says', async () => {
    const { launcher } = newRegistry();
    const bytes = Buffer.from(
      Array.from({ length: 3_000_000 }, (_, i) => (i * 31 + (i >> 8)) % 256),
    );
    const file = path.join(temporaryDirectory(), 'bytes');
    writeFileSync(file, bytes);
    const { stdout, stderr } = await launch(launcher, [
      'sh',
      '-c',
      `cat '${file}'; cat '${file}' >&2`,
    ]);
    expect(stdout.equals(bytes)).toBe(true);
    expect(stderr).toBe(bytes.toString('utf8'));
    expect((await launch(launcher, ['echo', 'next'])).stdout.toString('utf8')).toBe('next\n');
  });

  test('reads an end', async () => {
    expect(await launch(newRegistry().launcher, ['cat'])).toMatchObject({ exitCode: 0 });
  });

  test.each([
    [['sh', '-c', 'exit 0'], { exitCode: 0, signal: null }],
    [['sh', '-c', 'exit 129'], { exitCode: 129, signal: null }],
    [['sh', '-c', 'kill -9 $$'], { exitCode: null, signal: 'SIGKILL' }],
    [['sh', '-c', 'kill -15 $$'], { exitCode: null, signal: 'SIGTERM' }],
    [['no-such-program'], { exitCode: null, spawnError: 'ENOENT' }],
    [['/etc/passwd'], { exitCode: null, spawnError: 'EACCES' }],
  ] as const)('%j ends as it does', async (argv, end) => {
    expect(await launch(newRegistry().launcher, argv as readonly [string])).toMatchObject(end);
  });

  test('without its directory it is not started', async () => {
    const missing = path.join(temporaryDirectory(), 'gone');
    expect(await launch(newRegistry().launcher, ['true'], { cwd: missing })).toMatchObject({
      spawnError: 'ENOCWD',
    });
  });

  test('is looked for in the path of its own environment', async () => {
    const directory = temporaryDirectory();
    writeFileSync(path.join(directory, 'true'), '#!/bin/sh\necho mine\n');
    chmodSync(path.join(directory, 'true'), 0o755);
    const mine = { PATH: `${directory}:/usr/bin:/bin` };
    const { launcher } = newRegistry();
    const says = async (env: Readonly<Record<string, string>>) =>
      (await launch(launcher, ['true'], { env })).stdout.toString('utf8');
    expect([await says({ PATH: '/usr/bin:/bin' }), await says(mine)]).toEqual(['', 'mine\n']);
    expect(await says({ PATH: '/usr/bin:/bin' })).toBe('');
  });

  test('takes its time, and is ended with all that it has started when that is up', async () => {
    const { launcher } = newRegistry();
    const script = 'trap "" TERM; sleep 1000 & echo $!; wait';
    const late = await launch(launcher, ['sh', '-c', script], { timeoutMs: 300, killGraceMs: 100 });
    expect(late).toMatchObject({ exitCode: null, timedOut: true, aborted: false });
    expect(processStartTime(Number(late.stdout))).toBeUndefined();
    expect(await launch(launcher, ['true'])).toMatchObject({ exitCode: 0, timedOut: false });
  });

  test('is ended when nobody wants it any more', async () => {
    const { launcher } = newRegistry();
    const abort = new AbortController();
    const onStdout = () => abort.abort();
    const ended = await launch(launcher, ['sh', '-c', 'echo begun; sleep 1000'], {
      ...{ signal: abort.signal, onStdout },
    });
    expect(ended).toMatchObject({ exitCode: null, aborted: true });
    expect(await launch(launcher, ['true'], { signal: abort.signal })).toMatchObject({
      ...{ exitCode: null, aborted: true },
    });
  });

  test('whose shell is killed has ended by a signal, and the next one gets another shell', async () => {
    const { launcher } = newRegistry();
    expect(await launch(launcher, ['sh', '-c', 'echo a; kill -9 $PPID'])).toMatchObject({
      exitCode: null,
      signal: 'SIGKILL',
      stdout: Buffer.from('a\n'),
    });
    expect(await launch(launcher, ['true'])).toMatchObject({ exitCode: 0 });
  });

  test('runs beside others', async () => {
    const { launcher } = newRegistry();
    const numbers = Array.from({ length: 12 }, (_, i) => `${i}`);
    const ended = await Promise.all(numbers.map((n) => launch(launcher, ['echo', n])));
    expect(ended.map(({ stdout }) => stdout.toString('utf8').trim())).toEqual(numbers);
  });
});

test('shells that nobody needs are ended with the registry', async () => {
  const registry = newRegistry();
  const { stdout } = await launch(registry.launcher, [
    'sh',
    '-c',
    'tr "\\0" "\\n" < /proc/$PPID/environ',
  ]);
  const marker = /^TROUPE_JOB=(.*)$/m.exec(stdout.toString('utf8'))?.[1] ?? '';
  expect(await findMarkedProcesses(marker)).toHaveLength(1);
  registry.close();
  while ((await findMarkedProcesses(marker)).length > 0) await delay(10);
});

test.each([
  ['a NUL', { argv: ['echo', 'a\0b'] }],
  ['a variable that is no name for a shell', { env: { 'a-b': '1' } }],
  ['a long input', { stdin: 'a'.repeat(16_385) }],
  ['more than a shell should be told', { argv: ['echo', 'a'.repeat(200_000)] }],
])('%s is not for a shell', (_what, options) => {
  const plain = { argv: ['echo'], cwd: '/', env: {}, timeoutMs: 1, onStdout() {}, onStderr() {} };
  expect(Launcher.takes(plain as never)).toBe(true);
  expect(Launcher.takes({ ...plain, ...options } as never)).toBe(false);
});
