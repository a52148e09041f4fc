import { randomUUID } from 'node:crypto';
import { link, lstat, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { type CacheSettings, ConfigurationError, ConflictError, NotFoundError } from '../index.ts';

/** One command found in a project. */
interface DetectedCommand {
  /** `setup`, `test`, `lint`, `typecheck`, `format` or `build`. */
  readonly name: string;
  readonly run: string;
  /** Of an install that depends on these files alone. */
  readonly cache?: CacheSettings;
}

/** What a directory looks like. */
export interface Detected {
  readonly kind: 'npm' | 'pnpm' | 'yarn' | 'go' | 'rust' | 'uv' | 'pip' | 'unknown';
  /** The files it was recognised by, for example `package.json` and `package-lock.json`. */
  readonly because: readonly string[];
  /** In the order in which they are to run. */
  readonly commands: readonly DetectedCommand[];
  /** The branch that work goes to. */
  readonly target: string;
}

interface InitialConfig {
  /** The file that was written, absolute. */
  readonly file: string;
  readonly detected: Detected;
  /** False when no test command was found: the file says what to fill in, and cannot be used before. */
  readonly complete: boolean;
  /** Whether the line `.troupe/` had to be added to .gitignore. */
  readonly gitignore: 'created' | 'extended' | 'unchanged';
}

const CONFIG_NAME = 'troupe.yaml';

/**
 * Looks at a project and writes a commented troupe.yaml for it; also adds `.troupe/` to its .gitignore if that is missing.
 * @throws {ConflictError} there is a troupe.yaml already; nothing was changed
 * @throws {NotFoundError} the directory does not exist
 * @throws {ConfigurationError} package.json is not JSON
 * Crash: troupe.yaml and .gitignore are each whole or untouched; at most a `.troupe-init-*.tmp` file is left.
 */
export async function writeInitialConfig(directory: string): Promise<InitialConfig> {
  const root = path.resolve(directory);
  const info = await stat(root).catch(() => undefined);
  if (info?.isDirectory() !== true) {
    throw new NotFoundError(`Expected ${root} to be the directory of a project; there is none.`, {
      context: { directory: root },
    });
  }
  const file = path.join(root, CONFIG_NAME);
  if (await exists(file)) throw alreadyThere(file);

  const detected = await detectProject(root);
  // First: when this were done last, a crash in between would leave it undone for ever.
  const gitignore = await ignoreStateDirectory(root);
  await writeNew(file, renderConfig(detected));
  return { file, detected, complete: hasTest(detected), gitignore };
}

function alreadyThere(file: string): ConflictError {
  return new ConflictError(
    `${file} exists already and was left as it is. Edit it, or move it away and try again.`,
    { context: { file } },
  );
}

function hasTest(detected: Pick<Detected, 'commands'>): boolean {
  return detected.commands.some((command) => command.name === 'test');
}

// ---- What kind of project is it? ----

type Found = Omit<Detected, 'target'>;

async function detectProject(root: string): Promise<Detected> {
  const candidates: Found[] = [];
  for (const detect of [detectNode, detectGo, detectRust, detectPython]) {
    const found = await detect(root);
    if (found !== undefined) candidates.push(found);
  }
  // A Go project may have a package.json for its website: the one with tests is the project.
  const found = candidates.find(hasTest) ??
    candidates[0] ?? { kind: 'unknown' as const, because: [], commands: [] };
  return { ...found, target: await detectTarget(root) };
}

/** What `npm init` writes into a package without tests. */
const NO_TEST_SCRIPT = /no test specified/i;

/** The names that scripts have in practice, the usual one first. */
const SCRIPTS: readonly (readonly [name: string, scripts: readonly string[]])[] = [
  ['test', ['test']],
  ['lint', ['lint']],
  ['typecheck', ['typecheck', 'type-check', 'check-types', 'types:check', 'tsc']],
  ['format', ['format:check', 'check:format', 'format-check', 'fmt:check']],
  ['build', ['build']],
  ['acceptance', ['acceptance', 'test:acceptance', 'acceptance:test']],
];

async function detectNode(root: string): Promise<Found | undefined> {
  const text = await readIfThere(path.join(root, 'package.json'));
  if (text === undefined) return undefined;
  const manifest = parseManifest(text, path.join(root, 'package.json'));
  const scripts = objectOf(manifest['scripts']);
  const manager = await detectManager(root, manifest);
  const run = (script: string) =>
    script === 'test' ? `${manager.kind} test` : `${manager.kind} run ${script}`;
  const commands: DetectedCommand[] = [];
  const installs =
    Object.keys(objectOf(manifest['dependencies'])).length > 0 ||
    Object.keys(objectOf(manifest['devDependencies'])).length > 0;
  if (manager.lockFile !== undefined || installs) {
    const own = ownSetup(scripts, run);
    const cache = own.length === 0 ? await installCache(root, manifest, manager) : undefined;
    commands.push({
      name: 'setup',
      run: [manager.install, ...own].join(' && '),
      ...(cache === undefined ? {} : { cache }),
    });
  }
  for (const [name, candidates] of SCRIPTS) {
    const script = candidates.find((candidate) => {
      const body = scripts[candidate];
      return typeof body === 'string' && body.trim() !== '' && !NO_TEST_SCRIPT.test(body);
    });
    if (script !== undefined) commands.push({ name, run: run(script) });
  }
  const because = ['package.json', ...(manager.lockFile === undefined ? [] : [manager.lockFile])];
  return { kind: manager.kind, because, commands };
}

/** What an install depends on; undefined when that is more than a few files, or when nothing says which versions. */
async function installCache(
  root: string,
  manifest: Readonly<Record<string, unknown>>,
  { kind, lockFile }: PackageManager,
): Promise<CacheSettings | undefined> {
  const several =
    manifest['workspaces'] !== undefined || (await exists(path.join(root, 'pnpm-workspace.yaml')));
  const local = ['dependencies', 'devDependencies', 'optionalDependencies']
    .flatMap((each) => Object.values(objectOf(manifest[each])))
    .some((version) => /^(?:file|link|portal|workspace|patch):|^[./~]/.test(String(version)));
  if (lockFile === undefined || several || local) return undefined;
  const settings = kind === 'yarn' ? ['.yarnrc', '.yarnrc.yml'] : ['.npmrc'];
  return { key: [lockFile, 'package.json', ...settings], paths: ['node_modules'] };
}

/** What a package manager runs of the project's own after an install; not what only puts hooks into git. */
function ownSetup(
  scripts: Readonly<Record<string, unknown>>,
  run: (script: string) => string,
): readonly string[] {
  return ['preinstall', 'install', 'postinstall', 'prepare'].flatMap((script) => {
    const body = scripts[script];
    if (typeof body !== 'string' || body.trim() === '') return [];
    return /\b(?:husky|lefthook|simple-git-hooks|pre-commit|only-allow|git config)\b/.test(body)
      ? []
      : [run(script)];
  });
}

function parseManifest(text: string, file: string): Readonly<Record<string, unknown>> {
  let manifest: unknown;
  try {
    manifest = JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    throw new ConfigurationError(
      `Expected ${file} to be JSON; it is not (${(error as Error).message}). Mend it and try again.`,
      { cause: error, context: { file } },
    );
  }
  return objectOf(manifest);
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : {};
}

interface PackageManager {
  readonly kind: 'npm' | 'pnpm' | 'yarn';
  readonly lockFile: string | undefined;
  /**
   * Installs exactly what the lock file says, when there is one. Scripts of packages do not run: a change may add a package,
   * and what that brings would run before anybody has seen it. Only those that the project has today, and that need
   * theirs, are built by name.
   */
  readonly install: string;
}

async function detectManager(
  root: string,
  manifest: Readonly<Record<string, unknown>>,
): Promise<PackageManager> {
  const declared = String(manifest['packageManager'] ?? '');
  const has = (name: string) => exists(path.join(root, name));
  const pnpm = await has('pnpm-lock.yaml');
  const yarn = await has('yarn.lock');
  if (pnpm || declared.startsWith('pnpm@')) {
    // With a list of its own, pnpm runs the scripts of those and of nobody else.
    const listed = objectOf(manifest['pnpm'])['onlyBuiltDependencies'] !== undefined;
    const settings = (await readIfThere(path.join(root, 'pnpm-workspace.yaml'))) ?? '';
    const own = listed || /^(?:onlyBuiltDependencies|allowBuilds):/m.test(settings);
    const exact = pnpm ? 'pnpm install --frozen-lockfile' : 'pnpm install';
    const install = own ? exact : `${exact} --ignore-scripts`;
    return { kind: 'pnpm', lockFile: pnpm ? 'pnpm-lock.yaml' : undefined, install };
  }
  if (yarn || declared.startsWith('yarn@')) {
    // Yarn 2 and later renamed the option; `--frozen-lockfile` is the one of Yarn 1.
    const modern = /^yarn@[2-9]/.test(declared) || (await has('.yarnrc.yml'));
    const exact = modern ? ' --immutable' : ' --frozen-lockfile';
    const lockFile = yarn ? 'yarn.lock' : undefined;
    const plain = `yarn install${yarn ? exact : ''}`;
    const install = modern ? `YARN_ENABLE_SCRIPTS=0 ${plain}` : `${plain} --ignore-scripts`;
    return { kind: 'yarn', lockFile, install };
  }
  for (const lockFile of ['package-lock.json', 'npm-shrinkwrap.json']) {
    const lock = await readIfThere(path.join(root, lockFile));
    if (lock === undefined) continue;
    const built = packagesWithScripts(lock);
    const rebuild = built.length === 0 ? '' : ` && npm rebuild ${built.join(' ')}`;
    return { kind: 'npm', lockFile, install: `npm ci --ignore-scripts${rebuild}` };
  }
  const install = 'npm install --no-package-lock --ignore-scripts';
  return { kind: 'npm', lockFile: undefined, install };
}

/** Packages that the lock file says have scripts of their own for an install, by name. */
function packagesWithScripts(lock: string): readonly string[] {
  let packages: Readonly<Record<string, unknown>>;
  try {
    packages = objectOf(objectOf(JSON.parse(lock))['packages']);
  } catch {
    return []; // `npm ci` will say so
  }
  const names = Object.entries(packages).flatMap(([place, entry]) => {
    const { hasInstallScript, optional } = objectOf(entry) as Readonly<Record<string, unknown>>;
    const [, name] = /(?:^|\/)node_modules\/((?:@[\w.~-]+\/)?[\w.~-]+)$/.exec(place) ?? [];
    // One for another system may not be there to be built.
    return hasInstallScript === true && optional !== true && name !== undefined ? [name] : [];
  });
  return [...new Set(names)].sort();
}

async function detectGo(root: string): Promise<Found | undefined> {
  if (!(await exists(path.join(root, 'go.mod')))) return undefined;
  return {
    kind: 'go',
    because: ['go.mod'],
    commands: [
      { name: 'setup', run: 'go mod download' },
      { name: 'test', run: 'go test ./...' },
      { name: 'lint', run: 'go vet ./...' },
      { name: 'build', run: 'go build ./...' },
    ],
  };
}

async function detectRust(root: string): Promise<Found | undefined> {
  if (!(await exists(path.join(root, 'Cargo.toml')))) return undefined;
  const locked = await exists(path.join(root, 'Cargo.lock'));
  const option = locked ? ' --locked' : '';
  return {
    kind: 'rust',
    because: locked ? ['Cargo.toml', 'Cargo.lock'] : ['Cargo.toml'],
    commands: [
      { name: 'setup', run: `cargo fetch${option}` },
      { name: 'test', run: `cargo test${option}` },
      // A project that configures them uses them; elsewhere they may not be installed.
      ...((await exists(path.join(root, 'clippy.toml'))) ||
      (await exists(path.join(root, '.clippy.toml')))
        ? [{ name: 'lint', run: `cargo clippy${option} -- -D warnings` }]
        : []),
      ...((await exists(path.join(root, 'rustfmt.toml'))) ||
      (await exists(path.join(root, '.rustfmt.toml')))
        ? [{ name: 'format', run: 'cargo fmt --check' }]
        : []),
      { name: 'build', run: `cargo build${option}` },
    ],
  };
}

async function detectPython(root: string): Promise<Found | undefined> {
  const project = await readIfThere(path.join(root, 'pyproject.toml'));
  const lock = await readIfThere(path.join(root, 'uv.lock'));
  const requirements = await readIfThere(path.join(root, 'requirements.txt'));
  if (project === undefined && lock === undefined && requirements === undefined) return undefined;
  const because = [
    ...(project === undefined ? [] : ['pyproject.toml']),
    ...(lock === undefined ? [] : ['uv.lock']),
    ...(requirements === undefined || lock !== undefined ? [] : ['requirements.txt']),
  ];
  const mentioned = [project, lock, requirements].join('\n');
  const usesPytest = /\bpytest\b/.test(mentioned) || (await exists(path.join(root, 'pytest.ini')));
  if (lock !== undefined) {
    // Only what is locked is sure to be installed.
    const tool = (name: string) => lock.includes(`name = "${name}"`);
    return {
      kind: 'uv',
      because,
      commands: [
        { name: 'setup', run: 'uv sync --locked' },
        ...(usesPytest ? [{ name: 'test', run: 'uv run pytest' }] : []),
        ...(tool('ruff') ? [{ name: 'lint', run: 'uv run ruff check .' }] : []),
        ...(tool('mypy') ? [{ name: 'typecheck', run: 'uv run mypy .' }] : []),
        ...(tool('ruff') && /^\[tool\.ruff\.format\]/m.test(project ?? '')
          ? [{ name: 'format', run: 'uv run ruff format --check .' }]
          : []),
      ],
    };
  }
  // Into a place of its own: without it, pip would change the user's own Python.
  const what = requirements === undefined ? '.' : '-r requirements.txt';
  const pytest = usesPytest && !/\bpytest\b/.test(requirements ?? '') ? ' pytest' : '';
  return {
    kind: 'pip',
    because,
    commands: [
      {
        name: 'setup',
        run: `python3 -m venv .venv && .venv/bin/python -m pip install ${what}${pytest}`,
      },
      ...(usesPytest ? [{ name: 'test', run: '.venv/bin/python -m pytest' }] : []),
    ],
  };
}

/** The branch named main or master, else the one that is checked out, else main. Reads git's files and runs nothing. */
async function detectTarget(root: string): Promise<string> {
  const { own, shared } = await gitDirectories(root);
  const packed = (await readIfThere(path.join(shared, 'packed-refs'))) ?? '';
  for (const branch of ['main', 'master']) {
    const loose = await exists(path.join(shared, 'refs', 'heads', branch));
    if (loose || new RegExp(`^\\S+ refs/heads/${branch}$`, 'm').test(packed)) return branch;
  }
  const head = (await readIfThere(path.join(own, 'HEAD'))) ?? '';
  const [, branch] = /^ref: refs\/heads\/([\w./-]+)\s*$/.exec(head) ?? [];
  return branch ?? 'main';
}

/**
 * Where git keeps what is of this working tree alone, and what all of the repository's share: the directory may lie below
 * the top of it, and `.git` may be a file that names another place.
 * Source: https://git-scm.com/docs/gitrepository-layout
 */
async function gitDirectories(
  root: string,
): Promise<{ readonly own: string; readonly shared: string }> {
  for (let directory = root; ; directory = path.dirname(directory)) {
    const git = path.join(directory, '.git');
    const info = await stat(git).catch(() => undefined);
    if (info?.isFile() === true) {
      const [, place = ''] = /^gitdir: (.+)$/m.exec((await readIfThere(git)) ?? '') ?? [];
      const own = path.resolve(directory, place.trim());
      const shared = (await readIfThere(path.join(own, 'commondir'))) ?? '';
      return { own, shared: path.resolve(own, shared.trim()) };
    }
    if (info !== undefined || directory === path.dirname(directory)) {
      return { own: git, shared: git };
    }
  }
}

// ---- The file ----

const WHY: Readonly<Record<string, string>> = {
  setup: 'installs exactly what is locked; new packages run no scripts',
  test: 'must always pass: allowFail is refused here',
};

function renderConfig(detected: Detected): string {
  const found =
    detected.because.length === 0
      ? 'No kind of project was recognised here.'
      : `Recognised by ${detected.because.join(' and ')}.`;
  const commands = detected.commands.flatMap(({ name, run, cache }) => [
    `  - name: ${name}${WHY[name] === undefined ? '' : `  # ${WHY[name]}`}`,
    `    run: ${quoted(run)}`,
    ...(name === 'setup' || name === 'test' ? ['    timeout: 10m'] : []),
    ...(cache === undefined
      ? []
      : [
          '    # Copied from the last change that was merged, as long as the key files are the same.',
          `    cache: { key: [${cache.key.join(', ')}], paths: [${cache.paths.join(', ')}] }`,
        ]),
  ]);
  const fillIn = hasTest(detected)
    ? []
    : [
        '  # FILL IN: no test command was found, and no work is accepted without one.',
        '  # Take away the # from the next two lines and write the command that runs your tests:',
        '  # - name: test',
        '  #   run: make test',
        '  # If the project really has no tests, say why instead (noTests: "It is prose.", outside this list)',
        '  # and list at least one other command that has to pass.',
      ];
  return `# What Troupe does in this project. ${found}
# Relative paths begin at this file. Durations need a unit: 200ms, 10s, 5m, 2h.
version: 1

# The branch that accepted work goes to.
target: ${quoted(detected.target)}

# What every change has to pass, in this order, in a fresh copy of the project, before it is accepted.
# A text is a shell command; a list such as [npm, test] is a program and its arguments, without a shell.
# Each may have a timeout (default 10m), and any but the test command "allowFail: true". With "always: true" it runs also
# for files that have passed before.
verify:
${[...fillIn, ...commands].join('\n')}

# Changes wait in line for the target branch, and several are verified at once, each on top of those ahead of it. Write 1 if
# the commands above get in each other's way (a fixed port, one database). Default: one per core, at most 4.
# verifyAtOnce: 1

# Variables that get a free port each, another one for every agent at work and every verification.
# ports: [PORT, API_PORT]

# Run the commands above where the agent has worked first: what is red there is sent back without a verification.
# preflight: true

# What no change may touch, and what a person has to agree to whatever the commands say: deleted, skipped or weakened tests,
# changes of what verifies, emptied files, many deletions and more need an approval unless a rule says otherwise
# (approve, refuse or off).
#protect: ["migrations/**"]
#gate:
#  rules: { tests-deleted: refuse, mass-deletion: approve }
#  maxDeletedFiles: 10

# Variables that agents and the commands above get besides PATH, HOME and the like. Names only, no values.
environment: []

# Who does the work, by name.
# - engine: command   runs a program in a copy of the project; what it changes there is the proposal
# - engine: patch     applies a patch file that a task names
# To begin, take away the {} and the # of the lines that follow it.
agents: {}
#  writer:
#    engine: command
#    run: [node, "{project}/agents/writer.mjs"]
#    concurrency: 2        # tasks it does at once; default 1
#    perKey: { key: input.customer, limit: 1 }   # at once of one customer; also throttle, rateLimit, debounce
#    timeout: 20m          # for one attempt; default 20m
#    fallback: coder       # does the task when this one cannot be asked, or could not work; may have a fallback, too
#    stages: [implement]   # what it may be asked for: implement (tasks), qa (see below); default both
#  coder:
#    engine: command
#    preset: codex         # or claude, or gemini: a program that is installed here
#    environment: [CODEX_API_KEY]   # what of its own variables it is given; only the agent, not the commands above
#    arguments: []         # further ones for the program
#  patcher: { engine: patch }

# When a task stops trying and asks for a decision. These are the defaults.
limits:
  attempts: 10                  # in all
  sameError: 3                  # attempts in a row that fail in the same way
  sameChange: 3                 # attempts in a row that propose the same change
  sameFeedback: 2               # refusals in a row for the same reasons
  infrastructureAttempts: 10    # faults that are nobody's work: disk, locks, a missing tool
  interruptions: 3              # deaths of the whole process in a row while the task was under way
  backoff: { initial: 10s, factor: 2, max: 10m }                  # waits between attempts
  infrastructureBackoff: { initial: 10s, factor: 2, max: 10m }    # waits after such a fault

# An agent that mends what was rejected, on the same branch, before the task's own agent tries again; also for one task.
# It is given the error and the evidence, and is told to mend only that. These are the defaults.
#qa: { agent: coder, sessions: 3, iterations: 2 }    # sessions of a task; in each it hands in so often

# Decisions that need no person. The first rule whose conditions all hold counts, for each task once (or "times: 3").
#overseer:
#  policy:
#    - { when: { task: first-task, state: escalated }, decide: retry, guidance: "Keep the public names." }

# Tasks in flight at once. Default: what all agents together can do.
#concurrency: 4

# The work: a list, or the path of a file that holds one (tasks: backlog.yaml).
# To begin, take away the [] and the # of the lines that follow it.
tasks: []
#  - id: first-task            # a-z 0-9 . _ -
#    title: Say what is to be done
#    agent: writer
#    priority: normal          # low, normal, high, urgent or critical
#    accept: [{ name: says hello, run: ./accept.sh }]    # has to pass besides, after the commands above
#    dependsOn: []             # ids of tasks that have to be done before
#    input: { any: json }      # given to the agent as it is
`;
}

/** A plain scalar where YAML reads it back as the same text, else a quoted one. */
function quoted(text: string): string {
  const plain = /^[A-Za-z.][\w ./=@+&,()-]*$/.test(text) && !/^(?:true|false|null)$/i.test(text);
  return plain && text.trim() === text ? text : JSON.stringify(text);
}

// ---- Files ----

/** Also true for a symbolic link that leads nowhere: writing there would still replace something. */
async function exists(file: string): Promise<boolean> {
  try {
    await lstat(file);
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

async function readIfThere(
  file: string,
  encoding: 'utf8' | 'latin1' = 'utf8',
): Promise<string | undefined> {
  try {
    return await readFile(file, encoding);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    // Node does not say which one it could not read.
    throw Object.assign(error as Error, { path: file });
  }
}

function isAbsent(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

async function writeNew(file: string, text: string): Promise<void> {
  await viaTemporary(file, text, async (temporary) => {
    try {
      // Unlike rename, link refuses when somebody else has written the file meanwhile.
      await link(temporary, file);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EEXIST') throw alreadyThere(file);
      // A file system without hard links.
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error;
      await rename(temporary, file);
    }
  });
}

async function viaTemporary(
  file: string,
  text: string | Buffer,
  publish: (temporary: string) => Promise<void>,
): Promise<void> {
  const temporary = path.join(path.dirname(file), `.troupe-init-${randomUUID()}.tmp`);
  try {
    {
      await using handle = await open(temporary, 'wx');
      await handle.writeFile(text);
      await handle.sync();
    }
    await publish(temporary);
  } finally {
    await rm(temporary, { force: true });
  }
}

async function ignoreStateDirectory(root: string): Promise<InitialConfig['gitignore']> {
  const named = path.join(root, '.gitignore');
  // Every byte is kept, also of what is not UTF-8: git does not ask.
  const old = await readIfThere(named, 'latin1');
  if (old?.split(/\r?\n/).some((line) => /^\/?\.troupe\/?\s*$/.test(line)) === true) {
    return 'unchanged';
  }
  const newline = old?.includes('\r\n') === true ? '\r\n' : '\n';
  const gap = old === undefined || old === '' || old.endsWith('\n') ? '' : newline;
  // Replacing a symbolic link by a file would be a surprise: replace what it leads to.
  const file = old === undefined ? named : await realpath(named);
  const text = Buffer.from(`${old ?? ''}${gap}.troupe/${newline}`, 'latin1');
  await viaTemporary(file, text, async (temporary) => {
    if (old !== undefined) {
      await using handle = await open(temporary, 'r');
      await handle.chmod((await stat(file)).mode & 0o777);
    }
    await rename(temporary, file);
  });
  return old === undefined ? 'created' : 'extended';
}
