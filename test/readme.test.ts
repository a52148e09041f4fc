import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCli } from '../src/operator/cli.ts';
import { asPromised, promisedOutput } from './expected-output.ts';
import { FakeStream } from './operator/cli-terminal.ts';
import { installedBinary, mustRun, REPOSITORY, runCommand } from './tooling/run-command.ts';

interface Fence {
  /** The line of README.md on which it opens. */
  readonly line: number;
  readonly language: string;
  readonly isRun: boolean;
  readonly text: string;
}

const readme = join(REPOSITORY, 'README.md');
const fences = existsSync(readme) ? fencesOf(readFileSync(readme, 'utf8')) : [];
const programs = fences.filter(({ language, isRun }) => language === 'ts' && isRun);
const commands = fences
  .filter(({ language }) => ['sh', 'bash', 'shell', 'console'].includes(language))
  .flatMap(({ line, text }) =>
    commandsOf(text).map((words) => ({ line, command: words.join(' '), words })),
  )
  .filter(({ words: [program] }) => program === 'npm' || program === 'troupe');

test('README.md exists, with a program to run and a command to type', () => {
  expect(existsSync(readme), `Expected ${readme}, got no such file: write it.`).toBe(true);
  expect(
    programs.length,
    'Expected a block that opens with "```ts run", got none.',
  ).toBeGreaterThan(0);
  expect(
    commands.length,
    'Expected an "npm …" in a block that opens with "```sh", got none.',
  ).toBeGreaterThan(0);
});

describe.skipIf(programs.length === 0)('the programs of README.md', () => {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-readme-'));

  beforeAll(() => {
    // Not below node_modules: Node strips no types there.
    symlinkSync(join(REPOSITORY, 'node_modules'), join(directory, 'node_modules'), 'dir');
    writeFileSync(join(directory, 'package.json'), '{ "type": "module" }\n');
    for (const { line, text } of programs) writeFileSync(join(directory, fileName(line)), text);
    const tsconfig = {
      extends: join(REPOSITORY, 'tsconfig.json'),
      compilerOptions: {
        incremental: false,
        paths: { troupe: [join(REPOSITORY, 'src', 'index.ts')] },
      },
      include: programs.map(({ line }) => fileName(line)),
    };
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(tsconfig));
  });

  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  test('type-check', async () => {
    const { stdout } = await runCommand(installedBinary('tsc'), ['-p', directory], {
      cwd: directory,
    });
    // A mistake in src is found by tsc on the repository; here it would only be said twice.
    expect(stdout.split('\n').filter((line) => /^(readme-line-|error )/.test(line))).toEqual([]);
  });

  test.each(programs)(
    'the one at line $line runs',
    async ({ line, text }) => {
      const workplace = join(directory, `at-line-${line}`);
      mkdirSync(workplace);
      const resolver = join(import.meta.dirname, 'tooling', 'resolve-troupe.child.ts');
      const { stdout } = await mustRun(
        process.execPath,
        ['--import', pathToFileURL(resolver).href, join(directory, fileName(line))],
        { cwd: workplace },
      );
      const promised = promisedOutput(text);
      if (promised !== undefined) expect(asPromised(stdout, promised)).toEqual(promised);
    },
    90_000,
  );
});

describe.skipIf(commands.length === 0)('the commands of README.md', () => {
  test.each(commands)(
    'line $line: $command',
    async ({ words: [program, ...words] }) => {
      if (program === 'npm') checkNpm(words);
      else await checkTroupe([], words);
    },
    60_000,
  );
});

/** What npm does without a script of ours. */
const NPM_COMMANDS: ReadonlySet<string> = new Set([
  'ci',
  'exec',
  'i',
  'install',
  'pack',
  'uninstall',
  'update',
]);

function checkNpm([command = '', name = '']: readonly string[]): void {
  if (NPM_COMMANDS.has(command)) return;
  const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  expect(Object.keys(scripts)).toContain(command === 'run' ? name : command);
}

/** Follows the words into the command's own help: each has to be listed there, and each option too. */
async function checkTroupe(
  path: readonly string[],
  words: readonly string[],
  above = '',
): Promise<void> {
  const stdout = await helpOf(path);
  const [, list] = /^Commands:\n((?: .*\n?)+)/m.exec(stdout) ?? [];
  const [word] = words;
  if (list !== undefined && word !== undefined && !word.startsWith('-')) {
    const known = list
      .matchAll(/^ {2}([a-z][\w|-]*)/gm)
      .flatMap(([, names = '']) => names.split('|'))
      .toArray();
    expect(known, `the commands of "${['troupe', ...path].join(' ')}"`).toContain(word);
    await checkTroupe([...path, word], words.slice(1), above + stdout);
    return;
  }
  const options = words.filter((text) => text.startsWith('-')).map((text) => text.split('=')[0]);
  const known = (above + stdout).match(/(?<![\w-])--?[a-z][\w-]*/gi) ?? [];
  for (const option of options)
    expect(known, `the options of "${['troupe', ...path].join(' ')}"`).toContain(option);
}

/** What `troupe PATH --help` prints. */
async function helpOf(path: readonly string[]): Promise<string> {
  const stdout = new FakeStream();
  const stderr = new FakeStream();
  const cli = { cwd: tmpdir(), env: {}, stdout, stderr };
  expect(await runCli({ ...cli, argv: [...path, '--help'] }), stderr.text).toBe(0);
  return stdout.text;
}

function fencesOf(markdown: string): Fence[] {
  const found: Fence[] = [];
  const fence = /^( *)```(\w+)?([^\n]*)\n([\s\S]*?)^\1```\s*$/gm;
  for (const { index, 2: language = '', 3: marks = '', 4: text = '' } of markdown.matchAll(fence)) {
    const line = markdown.slice(0, index).split('\n').length;
    found.push({ line, language, isRun: marks.trim().split(/\s+/).includes('run'), text });
  }
  return found;
}

/** The commands of a shell block, as words; what is only a comment, an output or a prompt is left out. */
function commandsOf(text: string): string[][] {
  return text
    .replaceAll(/\\\n\s*/g, ' ')
    .split('\n')
    .map((line) => line.replace(/^\s*\$ /, '').replace(/(^|\s)#.*$/, ''))
    .flatMap((line) => line.split(/&&|\|\||[|;]/))
    .map((command) => {
      const words = command.trim().split(/\s+/);
      while (/^\w+=/.test(words[0] ?? '')) words.shift();
      if (words[0] === 'npx') {
        words.shift();
        while (words[0]?.startsWith('-')) words.shift();
      }
      return words;
    });
}

function fileName(line: number): string {
  return `readme-line-${line}.ts`;
}
