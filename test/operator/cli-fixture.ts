import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, watch, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, inject, onTestFinished } from 'vitest';
import { runCli } from '../../src/operator/cli.ts';
import { processStartTime } from '../../src/runtime/process-identity.ts';
import { program, programEnvironment } from '../program.ts';
import { commit, git, temporaryDirectory, write } from '../workspace/git-fixture.ts';
import { FakeStream } from './cli-terminal.ts';

/**
 * Every agent that a test here needs: what it does is in its task's input. Most only write a file, for which a shell
 * starts in a tenth of the time.
 */
const AGENT_SCRIPT = `
while IFS= read -r line; do
  case $line in
    '    "wait": '* | '    "pid": '* | '    "deaf": '* | '    "wrongUntil": '*)
      exec node "$TROUPE_PROJECT/agent.mjs" ;;
    '    "file": '*) file=$line ;;
    '    "text": '*) text=$line ;;
  esac
done <"$TROUPE_TASK_FILE"
[ -n "$file" ] || exit 1
value() { v="\${1#*: \\"}"; v="\${v%,}"; printf %b "\${v%\\"}"; }
value "$text" >"$(value "$file")"
`;

const AGENT = `
import { existsSync, readFileSync, watch, writeFileSync } from 'node:fs';
const task = JSON.parse(readFileSync(process.env.TROUPE_TASK_FILE, 'utf8'));
const { file, text, needs, pid, wait, deaf, wrongUntil } = task.input;
// Told to end, it only says that it was told.
if (deaf) process.on('SIGTERM', () => writeFileSync(\`\${process.env.TROUPE_PROJECT}/\${deaf}\`, 'told'));
if (pid) writeFileSync(\`\${process.env.TROUPE_PROJECT}/\${pid}\`, String(process.pid));
if (wait) {
  const gate = \`\${process.env.TROUPE_PROJECT}/\${wait}\`;
  await new Promise((resolve) => {
    const look = () => existsSync(gate) && resolve();
    watch(process.env.TROUPE_PROJECT, look);
    look();
  });
}
const told = task.guidance.some((each) => each.includes(wrongUntil));
writeFileSync(file, wrongUntil && !told ? 'export const broken = 1;\\n' : text);
process.exit(0);
`;

/** Red while any file in src says that it is broken; its output tries to take over the terminal. */
const TEST = `
broken=$(grep -l broken src/* | head -n 1)
[ -z "$broken" ] && exit 0
printf '\\033]52;c;ZXZpbA==\\007\\033[2Jexpected %s to work\\n' "$broken"
exit 1
`;

export interface FixtureTask {
  readonly id: string;
  readonly agent?: 'script' | 'patcher';
  readonly [key: string]: unknown;
}

/** What tests have in common: made once, and copied for each. */
const kept = new Map<string, Promise<string> | string>();
let count = 0;
let keptIn: string | undefined;

function keep(directory: string): string {
  // Removed with the programs of the tests.
  keptIn ??= mkdtempSync(path.join(inject('programs'), 'kept-'));
  return copy(directory, path.join(keptIn, `${count++}`));
}

function copy(from: string, to: string): string {
  // With its times, or git would have to look into every file.
  cpSync(from, to, { recursive: true, preserveTimestamps: true });
  return to;
}

/** What people have in their paths. */
const newPlace = (): string => path.join(temporaryDirectory(), 'my prøject #1');

/** A git repository with a troupe.yaml: tasks for an agent that is a script, and for one that applies patches. */
export function makeProject(tasks: readonly FixtureTask[], settings: object = {}): string {
  const key = JSON.stringify([tasks, settings]);
  const same = kept.get(key);
  if (typeof same === 'string') return copy(same, newPlace());
  const directory = writeProject(tasks, settings);
  kept.set(key, keep(directory));
  return directory;
}

/** Such a project after `troupe run`, which has ended with this code. The run is made once for all tests of a file. */
export async function workedProject(
  tasks: readonly FixtureTask[],
  exitCode = 0,
  settings: object = {},
): Promise<string> {
  const key = JSON.stringify([tasks, settings, exitCode]);
  let worked = kept.get(key);
  if (worked === undefined) {
    worked = workOff(makeProject(tasks, settings), exitCode);
    kept.set(key, worked);
  }
  return copy(await worked, newPlace());
}

async function workOff(directory: string, exitCode: number): Promise<string> {
  const ended = await troupe(directory, 'run');
  expect(ended).toMatchObject({ exitCode, stderr: '' });
  return keep(directory);
}

function writeProject(tasks: readonly FixtureTask[], settings: object): string {
  const directory = newPlace();
  write(directory, {
    'src/main.js': 'export const main = 1;\n',
    'test.sh': TEST,
    'agent.sh': AGENT_SCRIPT,
    'agent.mjs': AGENT,
    'package.json': '{ "type": "module" }\n',
    'add.patch':
      'diff --git a/src/added.js b/src/added.js\nnew file mode 100644\n--- /dev/null\n+++ b/src/added.js\n@@ -0,0 +1 @@\n+export const added = 1;\n',
  });
  configure(directory, tasks, settings);
  git(directory, 'init', '-q', '-b', 'main', '--template=');
  commit(directory, {}, 'first');
  return directory;
}

export function configure(
  directory: string,
  tasks: readonly FixtureTask[],
  settings: object = {},
): void {
  // JSON is YAML.
  const config = {
    version: 1,
    verify: [{ name: 'test', run: ['sh', 'test.sh'] }],
    agents: {
      script: { engine: 'command', run: ['sh', '{project}/agent.sh'], concurrency: 2 },
      patcher: { engine: 'patch' },
    },
    limits: { attempts: 2, backoff: { initial: '10ms', max: '10ms' } },
    tasks: tasks.map((task) => ({ agent: 'script', ...task })),
    ...settings,
  };
  write(directory, { 'troupe.yaml': JSON.stringify(config, null, 2) });
}

/** With `limits`, for tests in which a second attempt would only fail like the first. */
export const ONCE = { limits: { attempts: 1 } };

/** A task that writes one file. */
export const writing = (id: string, input: object = {}, more: object = {}): FixtureTask => ({
  id,
  input: { file: `src/${id}.js`, text: `export const it = '${id}';\n`, ...input },
  ...more,
});

/** The subjects of the merges on main, oldest first. */
export const merges = (directory: string): string[] =>
  git(directory, 'log', '--format=%s', '--reverse', '--first-parent', 'main').split('\n').slice(1);

export const open = (directory: string, gate: string): void =>
  writeFileSync(path.join(directory, gate), '');

/** Resolves when an agent has written a file into the project: the sign that it has begun. */
export async function untilWritten(directory: string, name: string): Promise<void> {
  const file = path.join(directory, name);
  await new Promise<void>((resolve) => {
    const look = (): void => {
      if (!existsSync(file) || readFileSync(file, 'utf8') === '') return;
      watcher.close();
      resolve();
    };
    const watcher = watch(directory, look);
    look();
  });
}

/** Whether a process that wrote its pid into the project still lives. A zombie does not. */
export function isAlive(directory: string, name: string): boolean {
  return processStartTime(Number(readFileSync(path.join(directory, name), 'utf8'))) !== undefined;
}

export interface Ended {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The real command in a process of its own. Ended, if need be, with the test. */
export class Cli {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  readonly #waiting = new Set<() => void>();

  /** @param stdout a file to write to; default: what it prints is kept in `stdout` */
  constructor(
    directory: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
    stdout: number | 'pipe' = 'pipe',
  ) {
    this.child = spawn(process.execPath, [program('operator/bin'), ...args], {
      cwd: directory,
      env: { ...environment(), ...env },
      stdio: ['ignore', stdout, 'pipe'],
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      this.#look();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      this.#look();
    });
    this.ended = new Promise((resolve) => {
      this.child.once('close', (exitCode, signal) => {
        resolve({ exitCode, signal, stdout: this.stdout, stderr: this.stderr });
        this.#look();
      });
    });
    onTestFinished(async () => {
      this.child.kill('SIGKILL');
      await this.ended;
    });
  }

  /** Resolves when the output has it; rejects when the process ends without. */
  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.stdout + this.stderr)) {
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        const { stdout, stderr } = await this.ended;
        if (pattern.test(stdout + stderr)) return;
        throw new Error(`It ended without ${pattern}:\n${stdout}${stderr}`);
      }
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  #look(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** Runs the command to its end, in a process of its own as people do. For each command one test at least does. */
export const troupeProcess = (directory: string, ...args: readonly string[]): Promise<Ended> =>
  new Cli(directory, args).ended;

/** Runs the command to its end in this process, where all that it needs is loaded: it starts at once. */
export const troupe = (directory: string, ...argv: readonly string[]): Promise<Ended> =>
  troupeIn(environment(), directory, ...argv);

/** The same with another environment. The programs that it starts have that of this process. */
export async function troupeIn(
  env: NodeJS.ProcessEnv,
  directory: string,
  ...argv: readonly string[]
): Promise<Ended> {
  const stdout = new FakeStream();
  const stderr = new FakeStream();
  const exitCode = await runCli({ argv, cwd: directory, env, stdout, stderr });
  return { exitCode, signal: null, stdout: stdout.text, stderr: stderr.text };
}

/** What colours the output of the test runner, or loads something into it, is not for the command. */
function environment(): NodeJS.ProcessEnv {
  const {
    NO_COLOR: _no,
    FORCE_COLOR: _force,
    NODE_OPTIONS: _options,
    ...plain
  } = programEnvironment();
  return { ...plain, LANG: 'C.UTF-8' };
}
