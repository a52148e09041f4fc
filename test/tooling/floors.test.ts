import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installedBinary, REPOSITORY, runCommand } from './run-command.ts';

/** What a file of each floor may not import, and what it may, as it would write it. */
interface Floor {
  /** A file of this floor, one folder deep where the floor is a folder. */
  readonly file: string;
  /** Part of the rule's message: the person who meets it has to learn what is allowed. */
  readonly says: string;
  readonly refused: readonly string[];
  readonly allowed: readonly string[];
}

const FLOORS: readonly Floor[] = [
  {
    file: 'src/protocol/planted.ts',
    says: 'protocol/ imports nothing of ours',
    refused: [
      ...['../machines/x.ts', '../store/store.ts', '../runtime/x.ts', '../llm/x.ts'],
      ...['../workspace/x.ts', '../actors/x.ts', '../operator/x.ts', '../troupe.ts', '../index.ts'],
      ...['node:crypto', 'node:fs/promises', 'xstate', 'xstate/actors', 'better-sqlite3', 'troupe'],
    ],
    allowed: ['./errors.ts'],
  },
  {
    file: 'src/protocol/hash.ts',
    says: 'hash.ts imports node:crypto and protocol/ only',
    refused: [
      ...['../machines/x.ts', '../store/store.ts', '../runtime/x.ts', '../llm/x.ts'],
      ...['../workspace/x.ts', '../actors/x.ts', '../operator/x.ts', '../troupe.ts', '../index.ts'],
      ...['node:fs', 'node:fs/promises', 'xstate', 'xstate/actors', 'better-sqlite3', 'troupe'],
    ],
    allowed: ['node:crypto', './json.ts'],
  },
  {
    file: 'src/machines/planted.ts',
    says: 'Machines are pure',
    refused: [
      ...['../store/store.ts', '../runtime/x.ts', '../llm/x.ts', '../workspace/x.ts'],
      ...['../actors/x.ts', '../operator/x.ts', '../troupe.ts', '../index.ts', 'troupe'],
      ...['node:fs', 'node:fs/promises', 'better-sqlite3', 'rxjs', 'rxjs/operators'],
      ...['eventemitter3', 'pino'],
    ],
    allowed: ['./x.ts', '../protocol/x.ts', 'xstate', 'xstate/graph'],
  },
  {
    file: 'src/store/sqlite/planted.ts',
    says: 'store/ knows facts and addresses, not what they mean',
    refused: [
      ...['../../machines/x.ts', '../../runtime/x.ts', '../../llm/x.ts', '../../workspace/x.ts'],
      ...['../../actors/x.ts', '../../operator/x.ts', '../../troupe.ts', '../../index.ts'],
      ...['xstate', 'xstate/actors', 'troupe'],
    ],
    allowed: ['./x.ts', '../store.ts', '../../protocol/x.ts', 'better-sqlite3', 'node:fs'],
  },
  {
    file: 'src/runtime/planted.ts',
    says: 'runtime/ hosts any machine and knows no role',
    refused: [
      ...['../machines/x.ts', '../llm/x.ts', '../workspace/x.ts', '../actors/x.ts'],
      ...['../operator/x.ts', '../troupe.ts', '../index.ts', 'better-sqlite3', 'troupe'],
    ],
    allowed: ['./x.ts', '../protocol/x.ts', '../store/store.ts', 'xstate', 'node:fs', 'rxjs'],
  },
  {
    file: 'src/llm/planted.ts',
    says: 'llm/ imports protocol/ and runtime/ only',
    refused: [
      ...['../machines/x.ts', '../store/store.ts', '../workspace/x.ts', '../actors/x.ts'],
      ...['../operator/x.ts', '../troupe.ts', '../index.ts', 'better-sqlite3', 'xstate'],
      ...['xstate/actors', 'troupe'],
    ],
    allowed: ['./x.ts', '../protocol/x.ts', '../runtime/x.ts', 'node:fs', 'zod'],
  },
  {
    file: 'src/workspace/planted.ts',
    says: 'workspace/ imports protocol/ and runtime/ only',
    refused: [
      ...['../machines/x.ts', '../store/store.ts', '../llm/x.ts', '../actors/x.ts'],
      ...['../operator/x.ts', '../troupe.ts', '../index.ts', 'better-sqlite3', 'xstate'],
      ...['xstate/actors', 'troupe'],
    ],
    allowed: ['./x.ts', '../protocol/x.ts', '../runtime/x.ts', 'node:child_process'],
  },
  {
    file: 'src/actors/planted.ts',
    says: 'actors/ imports the floors above it',
    refused: ['../operator/x.ts', '../troupe.ts', '../index.ts', 'better-sqlite3', 'troupe'],
    allowed: [
      ...['./x.ts', '../protocol/x.ts', '../machines/x.ts', '../store/store.ts', '../runtime/x.ts'],
      ...['../llm/x.ts', '../workspace/x.ts', 'xstate', 'node:fs'],
    ],
  },
  {
    file: 'src/troupe.ts',
    says: 'troupe.ts puts the floors together',
    refused: ['./operator/x.ts', './index.ts', 'troupe'],
    allowed: ['./protocol/x.ts', './store/store.ts', './runtime/x.ts', './actors/x.ts', 'xstate'],
  },
  {
    file: 'src/index.ts',
    says: 'index.ts names what is public',
    refused: ['./operator/x.ts', 'troupe'],
    allowed: ['./require-node.ts', './protocol/x.ts', './store/store.ts', './troupe.ts'],
  },
  {
    file: 'src/operator/planted.ts',
    says: 'operator/ uses the public names of src/index.ts only',
    refused: [
      ...['../protocol/x.ts', '../machines/x.ts', '../store/store.ts', '../runtime/x.ts'],
      ...['../llm/x.ts', '../workspace/x.ts', '../actors/x.ts', '../troupe.ts'],
      ...['better-sqlite3', 'xstate'],
      ...['xstate/actors', 'troupe'],
    ],
    allowed: ['./x.ts', '../index.ts', '../require-node.ts', 'node:http', 'commander'],
  },
];

/** Every way to reach another module, each on one line: a finding is told by its line. */
const FORMS: Readonly<Record<string, (specifier: string, name: string) => string>> = {
  'value import': (specifier, name) => `import { x as ${name} } from '${specifier}';`,
  'type import': (specifier, name) => `import type { x as ${name} } from '${specifier}';`,
  're-export': (specifier, name) => `export { x as ${name} } from '${specifier}';`,
  'type re-export': (specifier, name) => `export type { x as ${name} } from '${specifier}';`,
  'export of everything': (specifier) => `export * from '${specifier}';`,
  'import for its effect': (specifier) => `import '${specifier}';`,
  'dynamic import': (specifier, name) => `export const ${name} = await import('${specifier}');`,
};

interface Plant {
  readonly what: string;
  readonly line: string;
  readonly refused: boolean;
}

function plantsOf({ refused, allowed }: Floor): Plant[] {
  return [...refused, ...allowed].flatMap((specifier, index) =>
    Object.entries(FORMS).map(([form, write], formIndex) => ({
      what: `${form} of ${specifier}`,
      line: write(specifier, `planted${index}_${formIndex}`),
      refused: refused.includes(specifier),
    })),
  );
}

interface Finding {
  readonly rule: string;
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

const directory = mkdtempSync(join(tmpdir(), 'troupe-floors-'));

afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('biome holds the floors', () => {
  let findings: readonly Finding[] = [];

  beforeAll(async () => {
    const files: Record<string, string> = {};
    for (const floor of FLOORS) {
      files[floor.file] = `${plantsOf(floor)
        .map((plant) => plant.line)
        .join('\n')}\n`;
    }
    findings = await biome('floors', files);
  });

  test.each(FLOORS)('$file: $says', (floor) => {
    const verdicts = plantsOf(floor).map(({ what, refused }, index) => {
      const messages = findings
        .filter(({ rule }) => rule === 'lint/style/noRestrictedImports')
        .filter(({ file, line }) => file === floor.file && line === index + 1)
        .map(({ message }) => message);
      return { what, refused, messages };
    });
    const missed = verdicts.filter(({ refused, messages }) => refused && messages.length === 0);
    const tooStrict = verdicts.filter(({ refused, messages }) => !refused && messages.length > 0);
    expect(missed.map(({ what }) => what)).toEqual([]);
    expect(tooStrict.map(({ what }) => what)).toEqual([]);
    for (const message of verdicts.flatMap(({ messages }) => messages)) {
      expect(message).toContain(floor.says);
    }
  });

  test('every folder of src has a floor', () => {
    const folders = readdirSync(join(REPOSITORY, 'src'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `src/${entry.name}`);
    const held = FLOORS.map(({ file }) => file.split('/').slice(0, 2).join('/'));
    expect(held).toEqual(expect.arrayContaining(folders));
  });
});

describe('biome holds what the floors stand on', () => {
  const files = {
    'src/runtime/inline-type.ts': "export type Hidden = import('../actors/x.ts').Hidden;\n",
    'src/runtime/no-protocol.ts':
      "import { readFileSync } from 'fs';\nexport const x = readFileSync;\n",
    'src/runtime/no-extension.ts': "import { one } from './cycle-one';\nexport const x = one;\n",
    'src/runtime/cycle-one.ts':
      "import { two } from './cycle-two.ts';\nexport const one = () => two;\n",
    'src/runtime/cycle-two.ts':
      "import { one } from './cycle-one.ts';\nexport const two = () => one;\n",
    'src/runtime/console.ts': "console.error('printed');\n",
    'test/console.ts': "console.log('printed');\n",
    'examples/console.ts': "console.log('printed');\n",
    'scripts/console.ts': "console.log('printed');\n",
    'bench/console.ts': "console.log('printed');\n",
  };
  let findings: readonly Finding[] = [];

  beforeAll(async () => {
    findings = await biome('foundations', files);
  });

  test.each<{ file: keyof typeof files; rule: string }>([
    { file: 'src/runtime/inline-type.ts', rule: 'plugin' },
    { file: 'src/runtime/no-protocol.ts', rule: 'lint/style/useNodejsImportProtocol' },
    { file: 'src/runtime/no-extension.ts', rule: 'lint/correctness/useImportExtensions' },
    { file: 'src/runtime/cycle-one.ts', rule: 'lint/suspicious/noImportCycles' },
    { file: 'src/runtime/cycle-two.ts', rule: 'lint/suspicious/noImportCycles' },
    { file: 'src/runtime/console.ts', rule: 'lint/suspicious/noConsole' },
    { file: 'test/console.ts', rule: 'lint/suspicious/noConsole' },
  ])('$rule refuses $file', ({ file, rule }) => {
    expect(findings).toContainEqual(expect.objectContaining({ file, rule }));
  });

  test.each<{ file: keyof typeof files }>([
    { file: 'examples/console.ts' },
    { file: 'scripts/console.ts' },
    { file: 'bench/console.ts' },
  ])('$file may print', ({ file }) => {
    expect(findings.filter((finding) => finding.file === file)).toEqual([]);
  });
});

describe('oxlint holds the promises', () => {
  const emitter =
    "import { EventEmitter } from 'node:events';\nconst emitter = new EventEmitter();\n";
  const work = 'async function work(): Promise<void> {}\n';
  const floating = `${work}work();\n`;
  const misused = `${emitter}${work}emitter.on('x', async () => {\n  await work();\n});\n`;
  const sound = `${emitter}${work}await work();\nemitter.on('x', () => {\n  work().catch(console.error);\n});\n`;

  test('the sound way passes', async () => {
    expect(await oxlint('sound', { 'src/sound.ts': sound, 'test/sound.ts': sound })).toEqual({
      exitCode: 0,
      found: [],
    });
  });

  test('a floating and a misused promise do not, in src and in test', async () => {
    const { exitCode, found } = await oxlint('unsound', {
      'src/floating.ts': floating,
      'src/misused.ts': misused,
      'test/floating.ts': floating,
      'test/misused.ts': misused,
    });
    expect(exitCode).toBe(1);
    expect(found.sort()).toEqual([
      'src/floating.ts:2 no-floating-promises',
      'src/misused.ts:4 no-misused-promises',
      'test/floating.ts:2 no-floating-promises',
      'test/misused.ts:4 no-misused-promises',
    ]);
  });
});

/** Runs the repository's Biome, with the repository's configuration, on a project of these files. */
async function biome(name: string, files: Readonly<Record<string, string>>): Promise<Finding[]> {
  const project = makeProject(name, files);
  const { stdout } = await runCommand(
    installedBinary('biome'),
    ['lint', '--reporter=json', '--max-diagnostics=none', '.'],
    { cwd: project },
  );
  const report = JSON.parse(stdout) as {
    diagnostics: readonly {
      category: string;
      severity: string;
      message: string;
      location: { path: string; start: { line: number } };
    }[];
  };
  return report.diagnostics
    .filter(({ severity }) => severity === 'error')
    .map(({ category, message, location }) => ({
      rule: category,
      file: location.path,
      line: location.start.line,
      message,
    }));
}

/** Runs the command line of the `promises` script, as it stands in package.json, on such a project. */
async function oxlint(
  name: string,
  files: Readonly<Record<string, string>>,
): Promise<{ exitCode: number; found: string[] }> {
  const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8')) as {
    scripts: { promises: string };
  };
  const [command = '', ...args] = scripts.promises.split(' ');
  const { exitCode, stdout } = await runCommand(
    installedBinary(command),
    [...args, '--format=unix'],
    { cwd: makeProject(name, files) },
  );
  const found = stdout
    .matchAll(/^(\S+?):(\d+):\d+: .*\[Error\/typescript(?:-eslint)?\((.+)\)\]$/gm)
    .map(([, file, line, rule]) => `${file}:${line} ${rule}`)
    .toArray();
  return { exitCode, found };
}

function makeProject(name: string, files: Readonly<Record<string, string>>): string {
  const project = join(directory, name);
  for (const [file, source] of Object.entries(files)) {
    mkdirSync(join(project, dirname(file)), { recursive: true });
    writeFileSync(join(project, file), source);
  }
  for (const file of ['biome.json', 'biome', '.gitignore', 'package.json', 'tsconfig.json']) {
    cpSync(join(REPOSITORY, file), join(project, file), { recursive: true });
  }
  symlinkSync(join(REPOSITORY, 'node_modules'), join(project, 'node_modules'), 'dir');
  return project;
}
