import { execFileSync } from 'node:child_process';
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigurationError, ConflictError, NotFoundError } from '../../src/index.ts';
import { type Detected, loadConfig, writeInitialConfig } from '../../src/operator/config.ts';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'troupe-init-'));
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

type Files = Readonly<Record<string, string>>;

async function project(files: Files): Promise<string> {
  const directory = await mkdtemp(path.join(root, 'p-'));
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(directory, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, content);
  }
  return directory;
}

function manifest(scripts: Files, more: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({ name: 'x', scripts, ...more });
}

const SCRIPTS = {
  build: 'tsc -b',
  'check-types': 'tsc',
  'format:check': 'prettier -c .',
  lint: 'eslint .',
  test: 'vitest run',
};

interface ProjectKind {
  readonly what: string;
  readonly files: Files;
  readonly kind: Detected['kind'];
  readonly because?: readonly string[];
  readonly commands: readonly (readonly [name: string, run: string])[];
  readonly target?: string;
}

const COMPLETE: readonly ProjectKind[] = [
  {
    what: 'npm with a lock file and all scripts',
    files: { 'package.json': manifest(SCRIPTS), 'package-lock.json': '{}' },
    kind: 'npm',
    because: ['package.json', 'package-lock.json'],
    commands: [
      ['setup', 'npm ci --ignore-scripts'],
      ['test', 'npm test'],
      ['lint', 'npm run lint'],
      ['typecheck', 'npm run check-types'],
      ['format', 'npm run format:check'],
      ['build', 'npm run build'],
    ],
  },
  {
    what: 'npm with neither lock file nor dependencies',
    files: { 'package.json': manifest({ test: 'node --test' }) },
    kind: 'npm',
    because: ['package.json'],
    commands: [['test', 'npm test']],
  },
  {
    what: 'npm with dependencies but no lock file',
    files: { 'package.json': manifest({ test: 'jest' }, { devDependencies: { jest: '*' } }) },
    kind: 'npm',
    commands: [
      ['setup', 'npm install --no-package-lock --ignore-scripts'],
      ['test', 'npm test'],
    ],
  },
  {
    what: 'pnpm',
    files: { 'package.json': manifest({ test: 'x' }), 'pnpm-lock.yaml': '' },
    kind: 'pnpm',
    because: ['package.json', 'pnpm-lock.yaml'],
    commands: [
      ['setup', 'pnpm install --frozen-lockfile --ignore-scripts'],
      ['test', 'pnpm test'],
    ],
  },
  {
    what: 'pnpm by its declaration only',
    files: {
      'package.json': manifest(
        { test: 'x' },
        { packageManager: 'pnpm@10.0.0', dependencies: { a: '1' } },
      ),
    },
    kind: 'pnpm',
    commands: [
      ['setup', 'pnpm install --ignore-scripts'],
      ['test', 'pnpm test'],
    ],
  },
  {
    what: 'npm with packages that have to be built, and scripts of its own',
    files: {
      'package.json': manifest({
        test: 'x',
        postinstall: 'node generate.js',
        prepare: 'husky',
        'test:acceptance': 'y',
      }),
      'package-lock.json': JSON.stringify({
        packages: {
          '': { hasInstallScript: true },
          'node_modules/a': { hasInstallScript: true },
          'node_modules/b': {},
          'node_modules/b/node_modules/@x/native': { hasInstallScript: true },
          'node_modules/fsevents': { hasInstallScript: true, optional: true },
          'node_modules/; echo': { hasInstallScript: true },
        },
      }),
    },
    kind: 'npm',
    commands: [
      ['setup', 'npm ci --ignore-scripts && npm rebuild @x/native a && npm run postinstall'],
      ['test', 'npm test'],
      ['acceptance', 'npm run test:acceptance'],
    ],
  },
  {
    what: 'pnpm that lists what may be built',
    files: {
      'package.json': manifest({ test: 'x' }, { pnpm: { onlyBuiltDependencies: ['a'] } }),
      'pnpm-lock.yaml': '',
    },
    kind: 'pnpm',
    commands: [
      ['setup', 'pnpm install --frozen-lockfile'],
      ['test', 'pnpm test'],
    ],
  },
  {
    what: 'yarn 1',
    files: { 'package.json': manifest({ test: 'x', lint: 'y' }), 'yarn.lock': '' },
    kind: 'yarn',
    commands: [
      ['setup', 'yarn install --frozen-lockfile --ignore-scripts'],
      ['test', 'yarn test'],
      ['lint', 'yarn run lint'],
    ],
  },
  {
    what: 'yarn 4',
    files: { 'package.json': manifest({ test: 'x' }), 'yarn.lock': '', '.yarnrc.yml': '' },
    kind: 'yarn',
    commands: [
      ['setup', 'YARN_ENABLE_SCRIPTS=0 yarn install --immutable'],
      ['test', 'yarn test'],
    ],
  },
  {
    what: 'go',
    files: { 'go.mod': 'module x\n' },
    kind: 'go',
    commands: [
      ['setup', 'go mod download'],
      ['test', 'go test ./...'],
      ['lint', 'go vet ./...'],
      ['build', 'go build ./...'],
    ],
  },
  {
    what: 'go with a package.json that has no tests',
    files: { 'go.mod': 'module x\n', 'package.json': manifest({ build: 'x' }) },
    kind: 'go',
    because: ['go.mod'],
    commands: [
      ['setup', 'go mod download'],
      ['test', 'go test ./...'],
      ['lint', 'go vet ./...'],
      ['build', 'go build ./...'],
    ],
  },
  {
    what: 'rust with a lock file',
    files: { 'Cargo.toml': '[package]\n', 'Cargo.lock': '' },
    kind: 'rust',
    because: ['Cargo.toml', 'Cargo.lock'],
    commands: [
      ['setup', 'cargo fetch --locked'],
      ['test', 'cargo test --locked'],
      ['build', 'cargo build --locked'],
    ],
  },
  {
    what: 'rust with settings for its tools',
    files: { 'Cargo.toml': '[package]\n', 'Cargo.lock': '', 'clippy.toml': '', 'rustfmt.toml': '' },
    kind: 'rust',
    commands: [
      ['setup', 'cargo fetch --locked'],
      ['test', 'cargo test --locked'],
      ['lint', 'cargo clippy --locked -- -D warnings'],
      ['format', 'cargo fmt --check'],
      ['build', 'cargo build --locked'],
    ],
  },
  {
    what: 'rust without a lock file',
    files: { 'Cargo.toml': '[package]\n' },
    kind: 'rust',
    commands: [
      ['setup', 'cargo fetch'],
      ['test', 'cargo test'],
      ['build', 'cargo build'],
    ],
  },
  {
    what: 'python with uv',
    files: {
      'pyproject.toml': '[project]\n',
      'uv.lock':
        '[[package]]\nname = "pytest"\n[[package]]\nname = "ruff"\n[[package]]\nname = "mypy"\n',
    },
    kind: 'uv',
    because: ['pyproject.toml', 'uv.lock'],
    commands: [
      ['setup', 'uv sync --locked'],
      ['test', 'uv run pytest'],
      ['lint', 'uv run ruff check .'],
      ['typecheck', 'uv run mypy .'],
    ],
  },
  {
    what: 'python with requirements.txt',
    files: { 'requirements.txt': 'pytest==8.0\n' },
    kind: 'pip',
    because: ['requirements.txt'],
    commands: [
      ['setup', 'python3 -m venv .venv && .venv/bin/python -m pip install -r requirements.txt'],
      ['test', '.venv/bin/python -m pytest'],
    ],
  },
  {
    what: 'python with pyproject.toml alone',
    files: { 'pyproject.toml': '[tool.pytest.ini_options]\n' },
    kind: 'pip',
    commands: [
      ['setup', 'python3 -m venv .venv && .venv/bin/python -m pip install . pytest'],
      ['test', '.venv/bin/python -m pytest'],
    ],
  },
  {
    what: 'a repository whose branch is master',
    files: {
      'package.json': manifest({ test: 'x' }),
      '.git/HEAD': 'ref: refs/heads/feature/a\n',
      '.git/packed-refs': '# pack-refs\n0123 refs/heads/master\n0123 refs/remotes/origin/main\n',
    },
    kind: 'npm',
    commands: [['test', 'npm test']],
    target: 'master',
  },
  {
    what: 'a repository with neither main nor master',
    files: { 'package.json': manifest({ test: 'x' }), '.git/HEAD': 'ref: refs/heads/trunk\n' },
    kind: 'npm',
    commands: [['test', 'npm test']],
    target: 'trunk',
  },
  {
    what: 'a repository on a side branch of main',
    files: {
      'package.json': manifest({ test: 'x' }),
      '.git/HEAD': 'ref: refs/heads/side\n',
      '.git/refs/heads/main': '0123\n',
    },
    kind: 'npm',
    commands: [['test', 'npm test']],
    target: 'main',
  },
];

describe('a project whose tests are found', () => {
  test.each(COMPLETE)('$what', async ({ files, kind, because, commands, target }) => {
    const directory = await project(files);
    const result = await writeInitialConfig(directory);
    expect(result.file).toBe(path.join(directory, 'troupe.yaml'));
    expect(result.complete).toBe(true);
    expect(result.detected.kind).toBe(kind);
    expect(result.detected.target).toBe(target ?? 'main');
    if (because !== undefined) expect(result.detected.because).toEqual(because);
    const config = await loadConfig(result.file);
    expect(config.verify.map(({ name, run }) => [name, run])).toEqual(commands);
    expect(result.detected.commands.map(({ name, run }) => [name, run])).toEqual(commands);
    expect(config.target).toBe(target ?? 'main');
    expect(config.tests).toBe('command');
  });

  test('the file itself is the one in the golden file', async () => {
    const directory = await project(COMPLETE[0]?.files ?? {});
    const { file } = await writeInitialConfig(directory);
    await expect(await readFile(file, 'utf8')).toMatchFileSnapshot('./golden/initial-npm.yaml');
  });

  test('the defaults it shows are the defaults', async () => {
    const directory = await project({ 'go.mod': '' });
    const { file } = await writeInitialConfig(directory);
    const minimal = path.join(directory, 'minimal.yaml');
    await writeFile(minimal, 'version: 1\nverify: [{ name: test, run: x }]\n');
    const written = await loadConfig(file);
    const { verify, gate } = written;
    expect(gate).toEqual({ configuration: ['troupe.yaml'] });
    expect(written).toEqual({ ...(await loadConfig(minimal)), file, verify, gate });
  });

  test('what it shows in comments works once the signs are taken away', async () => {
    const directory = await project({ 'go.mod': '' });
    const { file } = await writeInitialConfig(directory);
    const text = await readFile(file, 'utf8');
    await writeFile(
      file,
      text
        .replaceAll(/^(agents|tasks): (?:\{\}|\[\])$/gm, '$1:')
        // A sign that is followed by one space begins a sentence, any other one a setting.
        .replaceAll(/^#(?! \S)/gm, ''),
    );
    const config = await loadConfig(file);
    expect(config.agents.map((agent) => agent.name)).toEqual(['writer', 'coder', 'patcher']);
    expect(config.tasks.map((task) => task.id)).toEqual(['first-task']);
    expect(config.policy).toHaveLength(1);
    expect(config.concurrency).toBe(4);
  });
});

describe('a project whose tests are not found', () => {
  test.each([
    { what: 'nothing at all', files: {}, kind: 'unknown', others: [] },
    {
      what: 'the test script that npm init writes',
      files: {
        'package.json': manifest({ test: 'echo "Error: no test specified" && exit 1', lint: 'x' }),
      },
      kind: 'npm',
      others: ['lint'],
    },
    {
      what: 'an empty test script',
      files: { 'package.json': manifest({ test: ' ' }) },
      kind: 'npm',
      others: [],
    },
    {
      what: 'scripts that are no mapping',
      files: { 'package.json': '{"scripts":[1]}' },
      kind: 'npm',
      others: [],
    },
    { what: 'python without pytest', files: { 'uv.lock': '' }, kind: 'uv', others: ['setup'] },
  ])('$what: the file says what to fill in', async ({ files, kind, others }) => {
    const directory = await project(files as Files);
    const { file, complete, detected } = await writeInitialConfig(directory);
    expect(complete).toBe(false);
    expect(detected.kind).toBe(kind);
    expect(detected.commands.map((command) => command.name)).toEqual(others);
    const refused: unknown = await loadConfig(file).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ConfigurationError);
    expect((refused as ConfigurationError).context['total']).toBe(1);

    // Following the instructions is enough.
    const text = await readFile(file, 'utf8');
    expect(text).toContain('FILL IN');
    await writeFile(
      file,
      text.replace('# - name: test', '- name: test').replace('#   run: make', '  run: make'),
    );
    const config = await loadConfig(file);
    expect(config.verify.map((command) => command.name)).toEqual(['test', ...others]);
  });
});

test('the scripts of a package do not run when it is installed', async () => {
  const directory = await project({
    'package.json': manifest({ test: 'x' }, { dependencies: { canary: 'file:canary' } }),
    'canary/package.json': JSON.stringify({
      name: 'canary',
      version: '1.0.0',
      scripts: { postinstall: 'echo ran > ../ran.txt' },
    }),
    'package-lock.json': JSON.stringify({
      name: 'x',
      lockfileVersion: 3,
      packages: {
        '': { name: 'x', dependencies: { canary: 'file:canary' } },
        canary: { version: '1.0.0' },
        'node_modules/canary': { resolved: 'canary', link: true },
      },
    }),
  });
  const { detected } = await writeInitialConfig(directory);
  const setup = detected.commands.find(({ name }) => name === 'setup')?.run ?? 'false';
  const install = (command: string) =>
    execFileSync('/bin/sh', ['-c', command], {
      cwd: directory,
      env: { ...process.env, npm_config_offline: 'true', npm_config_audit: 'false' },
      stdio: 'pipe',
    });
  install(setup);
  expect(await readdir(path.join(directory, 'node_modules'))).toContain('canary');
  expect(await readdir(directory)).not.toContain('ran.txt');
  // It would have, else.
  install(setup.replace(' --ignore-scripts', ''));
  expect(await readdir(directory)).toContain('ran.txt');
});

describe('what is there already', () => {
  test('a troupe.yaml is never replaced, nor anything else touched', async () => {
    const directory = await project({ 'troupe.yaml': 'mine\n', 'go.mod': '' });
    await expect(writeInitialConfig(directory)).rejects.toThrow(ConflictError);
    await expect(writeInitialConfig(directory)).rejects.toThrow(
      /exists already and was left as it is/,
    );
    expect(await readFile(path.join(directory, 'troupe.yaml'), 'utf8')).toBe('mine\n');
    expect((await readdir(directory)).sort()).toEqual(['go.mod', 'troupe.yaml']);
  });

  test('not even a link that leads nowhere', async () => {
    const directory = await project({});
    await symlink('nowhere', path.join(directory, 'troupe.yaml'));
    await expect(writeInitialConfig(directory)).rejects.toThrow(ConflictError);
    expect(await readdir(directory)).toEqual(['troupe.yaml']);
  });

  test('of many at the same time, one writes', async () => {
    const directory = await project({ 'go.mod': '' });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () => writeInitialConfig(directory)),
    );
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(ConflictError);
    }
    expect((await readdir(directory)).sort()).toEqual(['.gitignore', 'go.mod', 'troupe.yaml']);
    await loadConfig(path.join(directory, 'troupe.yaml'));
  });

  test('a package.json that is not JSON, a directory that is not there', async () => {
    const directory = await project({ 'package.json': '{ "scripts": ' });
    await expect(writeInitialConfig(directory)).rejects.toThrow(ConfigurationError);
    await expect(writeInitialConfig(directory)).rejects.toThrow(/package\.json to be JSON/);
    expect(await readdir(directory)).toEqual(['package.json']);
    await expect(writeInitialConfig(path.join(directory, 'no'))).rejects.toThrow(NotFoundError);
    await expect(writeInitialConfig(path.join(directory, 'package.json'))).rejects.toThrow(
      NotFoundError,
    );
  });
});

test('in a directory below, or in another working tree, the branch is that of the repository', async () => {
  const directory = await project({ 'package.json': manifest({ test: 'x' }), 'site/go.mod': '' });
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=A', '-c', 'user.email=a@b', ...args], { cwd: directory });
  git('init', '-q', '-b', 'master', '--template=');
  git('add', '--all');
  git('commit', '-q', '-m', 'first');
  git('worktree', 'add', '-q', '-b', 'side', '../side-tree');
  const other = path.join(path.dirname(directory), 'side-tree');
  const trees = [path.join(directory, 'site'), other, path.join(other, 'site')];
  for (const tree of trees) {
    expect((await writeInitialConfig(tree)).detected.target).toBe('master');
  }
  git('branch', '-m', 'master', 'trunk');
  await rm(path.join(other, 'troupe.yaml'));
  // Neither main nor master: what is checked out there.
  expect((await writeInitialConfig(other)).detected.target).toBe('side');
});

describe('.gitignore', () => {
  test.each([
    { what: 'missing', before: undefined, after: '.troupe/\n', said: 'created' },
    { what: 'empty', before: '', after: '.troupe/\n', said: 'extended' },
    { what: 'without the line', before: 'dist/\n', after: 'dist/\n.troupe/\n', said: 'extended' },
    {
      what: 'without a last line end',
      before: 'dist',
      after: 'dist\n.troupe/\n',
      said: 'extended',
    },
    {
      what: 'with Windows line ends',
      before: 'a\r\nb',
      after: 'a\r\nb\r\n.troupe/\r\n',
      said: 'extended',
    },
    {
      what: 'with only a comment on it',
      before: '# .troupe/\n',
      after: '# .troupe/\n.troupe/\n',
      said: 'extended',
    },
    {
      what: 'with something longer',
      before: '.troupe/x\n',
      after: '.troupe/x\n.troupe/\n',
      said: 'extended',
    },
    {
      what: 'with the line',
      before: 'a\n.troupe/\nb\n',
      after: 'a\n.troupe/\nb\n',
      said: 'unchanged',
    },
    { what: 'with it another way', before: '/.troupe', after: '/.troupe', said: 'unchanged' },
  ])('$what', async ({ before, after, said }) => {
    const directory = await project(before === undefined ? {} : { '.gitignore': before });
    expect((await writeInitialConfig(directory)).gitignore).toBe(said);
    expect(await readFile(path.join(directory, '.gitignore'), 'utf8')).toBe(after);
    expect((await readdir(directory)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('keeps every byte of what is not UTF-8', async () => {
    const directory = await project({});
    const file = path.join(directory, '.gitignore');
    await writeFile(file, Buffer.from('pr\u00fcfung/\n', 'latin1'));
    await writeInitialConfig(directory);
    expect(await readFile(file, 'latin1')).toBe('pr\u00fcfung/\n.troupe/\n');
  });

  test('keeps its mode, and stays the link it was', async () => {
    const directory = await project({ shared: 'a\n' });
    await chmod(path.join(directory, 'shared'), 0o640);
    await symlink('shared', path.join(directory, '.gitignore'));
    await writeInitialConfig(directory);
    expect((await lstat(path.join(directory, '.gitignore'))).isSymbolicLink()).toBe(true);
    expect(await readFile(path.join(directory, 'shared'), 'utf8')).toBe('a\n.troupe/\n');
    expect((await stat(path.join(directory, 'shared'))).mode & 0o777).toBe(0o640);
  });
});
