import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXIT_CODES } from '../../src/protocol/errors.ts';
import { findOldNode } from './old-node.ts';
import { packTroupe } from './pack-troupe.ts';
import {
  installedBinary,
  mustRun,
  pathWithThisNode,
  REPOSITORY,
  runCommand,
} from './run-command.ts';

interface LockedPackage {
  readonly version: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly bin?: Readonly<Record<string, string>>;
}

const directory = mkdtempSync(join(tmpdir(), 'troupe-consumer-'));
const consumer = join(directory, 'consumer');
const troupe = join(consumer, 'node_modules', '.bin', 'troupe');
const oldNode = await findOldNode();
const hasCommand = existsSync(join(REPOSITORY, 'src', 'operator', 'bin.ts'));

let files: readonly string[] = [];

beforeAll(async () => {
  const packed = await packTroupe(directory);
  files = packed.files;
  await install(packed.tarball);
}, 180_000);

// All of node_modules once more: removing it takes a while on a slow disk.
afterAll(() => rmSync(directory, { recursive: true, force: true }), 60_000);

describe('the packed package', () => {
  test('holds what was built, and the pages about it', () => {
    const pages = ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json'];
    expect(files.filter((file) => !file.startsWith('dist/'))).toEqual(pages);
  });

  test('holds the program, its types and its SQL, and no source or test', () => {
    expect(files).toEqual(expect.arrayContaining(['dist/index.js', 'dist/index.d.ts']));
    const kinds = /\.(js|js\.map|d\.ts|d\.ts\.map|sql)$/;
    expect(files.filter((file) => file.startsWith('dist/') && !kinds.test(file))).toEqual([]);
    expect(files.filter((file) => /(^|\/)test\/|\.test\./.test(file))).toEqual([]);
  });
});

describe('a project that has installed the packed package', () => {
  test('type-checks its program, with the types of every library checked too', async () => {
    const { stdout } = await mustRun(installedBinary('tsc'), ['-p', '.'], { cwd: consumer });
    expect(stdout).toBe('');
    // A Node that is too old needs what this has written.
    expect(existsSync(join(consumer, 'compiled', 'program.js'))).toBe(true);
  });

  test('runs its program', async () => {
    const result = await mustRun(process.execPath, ['program.ts'], { cwd: consumer });
    expect(result).toEqual({
      exitCode: 0,
      stdout: 'Expected a task, got nothing. (validation, exit code 20)\n',
      stderr: '',
    });
  });

  test.skipIf(!hasCommand)(
    `npx troupe --help answers${hasCommand ? '' : ' (skipped: there is no src/operator/bin.ts)'}`,
    async () => {
      const { stdout } = await mustRun('npx', ['--no-install', 'troupe', '--help'], {
        cwd: consumer,
        env: { PATH: pathWithThisNode() },
      });
      expect(stdout).toMatch(/^Usage: troupe /);
    },
  );
});

const noOldNode =
  oldNode === undefined ? ' (skipped: no node older than Troupe needs is on the PATH)' : '';

describe.skipIf(oldNode === undefined)(`on a Node that is too old${noOldNode}`, () => {
  const oneLine =
    /^troupe needs Node 24\.12 or newer, and this is Node [\d.]+ \(.+\): install .+\n$/;

  test('the program ends with one line and exit code 41', async () => {
    const result = await runCommand(oldNode ?? '', [join('compiled', 'program.js')], {
      cwd: consumer,
    });
    expect(result).toEqual({
      exitCode: EXIT_CODES.configuration,
      stdout: '',
      stderr: expect.stringMatching(oneLine),
    });
  });

  test.skipIf(!hasCommand)(
    `troupe ends with one line and exit code 41${hasCommand ? '' : ' (skipped: there is no src/operator/bin.ts)'}`,
    async () => {
      const result = await runCommand(oldNode ?? '', [troupe, '--help'], { cwd: consumer });
      expect(result).toEqual({
        exitCode: EXIT_CODES.configuration,
        stdout: '',
        stderr: expect.stringMatching(oneLine),
      });
    },
  );
});

/**
 * A real `npm install` of the tarball that needs no network: everything the package may depend on lies
 * in node_modules beforehand, copied from the repository. npm links the command, and removes again
 * whatever the package does not declare, so an undeclared dependency is missing here as it would be
 * for a user.
 */
async function install(tarball: string): Promise<void> {
  const lock = JSON.parse(readFileSync(join(REPOSITORY, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockedPackage>;
  };
  const types = ['@types/node', 'undici-types'];
  mkdirSync(join(consumer, 'node_modules', '.bin'), { recursive: true });
  for (const [path, locked] of Object.entries(lock.packages)) {
    const development = locked.dev === true || locked.devOptional === true;
    if (path === '' || (development && !types.some((name) => path === `node_modules/${name}`)))
      continue;
    copyPackage(path, locked);
  }
  const nodeTypes = lock.packages['node_modules/@types/node']?.version;
  writeJson('package.json', {
    name: 'consumer',
    private: true,
    type: 'module',
    devDependencies: { '@types/node': nodeTypes },
  });
  writeJson('tsconfig.json', {
    compilerOptions: {
      target: 'es2024',
      module: 'nodenext',
      types: ['node'],
      strict: true,
      skipLibCheck: false,
      outDir: 'compiled',
    },
    files: ['program.ts'],
  });
  copyFileSync(join(import.meta.dirname, 'consumer', 'program.ts'), join(consumer, 'program.ts'));
  await mustRun(
    'npm',
    ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', tarball],
    { cwd: consumer, env: { PATH: pathWithThisNode() } },
  );
}

function copyPackage(path: string, locked: LockedPackage): void {
  const from = join(REPOSITORY, path);
  if (!existsSync(from)) return; // An optional dependency for another platform.
  cpSync(from, join(consumer, path), { recursive: true });
  if (dirname(path) !== 'node_modules' && !/^node_modules\/@[^/]+\/[^/]+$/.test(path)) return;
  // Without its command npm takes a package for damaged and wants to fetch it again.
  const commands = join(consumer, 'node_modules', '.bin');
  for (const [name, file] of Object.entries(locked.bin ?? {})) {
    symlinkSync(relative(commands, join(consumer, path, file)), join(commands, name));
  }
}

function writeJson(name: string, content: unknown): void {
  writeFileSync(join(consumer, name), `${JSON.stringify(content, null, 2)}\n`);
}
