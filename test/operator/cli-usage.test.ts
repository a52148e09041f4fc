import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { runCli } from '../../src/operator/cli.ts';
import { explainCrash } from '../../src/operator/explain.ts';
import { FakeStream } from './cli-terminal.ts';

async function troupe(argv: readonly string[], cwd = temporary(), env = {}) {
  const stdout = new FakeStream();
  const stderr = new FakeStream();
  const exitCode = await runCli({ argv, cwd, env, stdout, stderr });
  return { exitCode, stdout: stdout.text, stderr: stderr.text };
}

function temporary(): string {
  const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'troupe-usage-')));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const COMMANDS = [
  ...['init', 'run', 'resume', 'status', 'show', 'answer', 'approve', 'retry', 'unblock', 'block'],
  ...[
    'cancel',
    'pause',
    'pause-task',
    'resume-task',
    'export',
    'prune',
    'backup',
    'du',
    'help',
    'enqueue',
    'regress',
  ],
];

describe('help', () => {
  test('lists every command, with examples and exit codes', async () => {
    const { exitCode, stdout, stderr } = await troupe(['--help']);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    const listed = stdout.match(/^ {2}([a-z][\w-]*) /gm)?.map((line) => line.trim());
    expect(listed).toEqual(expect.arrayContaining(COMMANDS));
    expect(stdout).toContain('Examples:');
    expect(stdout).toContain('Exit codes:');
  });

  test.each(COMMANDS.filter((name) => name !== 'help'))('there is one for %s', async (name) => {
    const { exitCode, stdout } = await troupe([name, '--help']);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(new RegExp(`^Usage: troupe ${name}`));
    expect(stdout).toContain('--file <file>');
  });

  test('the version is that of the package', async () => {
    expect(await troupe(['--version'])).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
    });
  });
});

describe('what a person mistypes is said in words, without a stack', () => {
  test.each([
    { argv: ['staus'], says: "troupe: unknown command 'staus'\n(Did you mean status?)\n" },
    { argv: ['run', '--jsn'], says: "troupe: unknown option '--jsn'\n(Did you mean --json?)\n" },
    { argv: ['show'], says: "troupe: missing required argument 'task'\n" },
    { argv: ['unblock'], says: 'troupe: name a task, or use --all (one of the two)\n' },
    {
      argv: ['unblock', 'x', '--all'],
      says: 'troupe: name a task, or use --all (one of the two)\n',
    },
    { argv: ['unblock', 'x', '--transient'], says: 'troupe: --transient is for --all\n' },
    { argv: ['cancel'], says: 'troupe: name a task, or use --run (one of the two)\n' },
    {
      argv: ['run', '--grace', 'soon'],
      says: "troupe: option '--grace <time>' argument 'soon' is invalid. Expected a time such as 500ms, 30s or 5m.\n",
    },
  ])('troupe $argv', async ({ argv, says }) => {
    expect(await troupe(argv)).toEqual({ exitCode: 20, stdout: '', stderr: says });
  });

  test.each(['2026-02-31', '2026-13-01', '2026-11-31T10:00:00Z', 'yesterday'])(
    'troupe audit --from %s, which is no time',
    async (time) => {
      const { exitCode, stderr } = await troupe(['audit', '--from', time]);
      expect({ exitCode, stderr }).toEqual({
        exitCode: 20,
        stderr: `troupe: Expected --from to be a date such as 2026-11-30T12:00:00Z, or so long ago: 30m, 2h, 7d; got "${time}".\n`,
      });
    },
  );

  test('without a command the help is shown, and it is a mistake', async () => {
    const { exitCode, stdout, stderr } = await troupe([]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 20, stdout: '' });
    expect(stderr).toContain('Usage: troupe');
  });

  test.each([
    { argv: ['status'], code: 21 },
    { argv: ['show', 'x'], code: 21 },
    { argv: ['retry', 'x'], code: 21 },
    { argv: ['export'], code: 21 },
    { argv: ['cancel', '--run'], code: 21 },
    { argv: ['pause'], code: 21 },
    { argv: ['pause', 'main'], code: 21 },
  ])('troupe $argv where nothing was run', async ({ argv, code }) => {
    const directory = temporary();
    const { exitCode, stdout, stderr } = await troupe(argv, directory);
    expect({ exitCode, stdout }).toEqual({ exitCode: code, stdout: '' });
    expect(stderr).toBe(
      `troupe: Nothing was run in ${directory} yet. Begin with "troupe run", or name another project: troupe --file DIRECTORY/troupe.yaml.\n`,
    );
  });

  test('a project without troupe.yaml', async () => {
    const { exitCode, stderr } = await troupe(['--file', 'none.yaml', 'run']);
    expect(exitCode).toBe(41);
    expect(stderr).toContain('there is no such file; `troupe init` writes a first one');
  });

  test('as JSON when that was asked for', async () => {
    const { exitCode, stdout } = await troupe(['status', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'not_found' }, exitCode });
  });

  test('names with control characters in them do no harm', async () => {
    const { stderr } = await troupe(['\u001b[2Jrun\u0007']);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not get through
    expect(stderr.replaceAll('\n', '')).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  });
});

describe('a bug of ours', () => {
  test('is said in one line, with the way to its stack', () => {
    const stderr = new FakeStream();
    expect(explainCrash(new TypeError('x is not a function'), { env: {}, stderr })).toBe(42);
    expect(stderr.text).toBe(
      'troupe: unexpected: x is not a function\nRun it again with TROUPE_DEBUG=1 to see where this comes from.\n',
    );
  });

  test('shows its stack to those who ask', () => {
    const stderr = new FakeStream();
    explainCrash(new TypeError('x is not a function'), { env: { TROUPE_DEBUG: '1' }, stderr });
    expect(stderr.text).toContain('cli-usage.test.ts');
  });
});

describe('init', () => {
  test('writes a first troupe.yaml and says what it found', async () => {
    const directory = temporary();
    mkdirSync(path.join(directory, 'app'));
    writeFileSync(
      path.join(directory, 'app', 'package.json'),
      '{"scripts":{"test":"node --test"}}',
    );
    const { exitCode, stdout } = await troupe(['init', 'app'], directory);
    expect(exitCode).toBe(0);
    expect(stdout).toContain('Wrote app/troupe.yaml');
    expect(stdout).toContain('Found a project of kind npm (package.json');
    expect(stdout).toContain('  test: npm test');
    expect(stdout).toContain('Next:');
  });

  test('leaves an existing one alone', async () => {
    const directory = temporary();
    writeFileSync(path.join(directory, 'troupe.yaml'), 'mine');
    const { exitCode, stderr } = await troupe(['init'], directory);
    expect(exitCode).toBe(22);
    expect(stderr).toContain('exists already and was left as it is');
  });
});
