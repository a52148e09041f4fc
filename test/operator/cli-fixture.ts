import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, watch, writeFileSync } from 'node:fs';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { processStartTime } from '../../src/runtime/process-identity.ts';
import { REPOSITORY } from '../tooling/run-command.ts';
import { commit, git, temporaryDirectory, write } from '../workspace/git-fixture.ts';

const BIN = path.join(REPOSITORY, 'src', 'operator', 'bin.ts');

/** Every agent that a test here needs: what it does is in its task's input. */
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
import { readdirSync, readFileSync } from 'node:fs';
for (const name of readdirSync('src')) {
  if (!readFileSync('src/' + name, 'utf8').includes('broken')) continue;
  console.log('\\u001b]52;c;ZXZpbA==\\u0007\\u001b[2Jexpected src/' + name + ' to work');
  process.exit(1);
}
`;

export interface FixtureTask {
  readonly id: string;
  readonly agent?: 'script' | 'patcher';
  readonly [key: string]: unknown;
}

/** A git repository with a troupe.yaml: tasks for an agent that is a script, and for one that applies patches. */
export function makeProject(tasks: readonly FixtureTask[], settings: object = {}): string {
  // What people have in their paths.
  const directory = path.join(temporaryDirectory(), 'my prøject #1');
  write(directory, {
    'src/main.js': 'export const main = 1;\n',
    'test.js': TEST,
    'agent.mjs': AGENT,
    'package.json': '{ "type": "module" }\n',
    'add.patch':
      'diff --git a/src/added.js b/src/added.js\nnew file mode 100644\n--- /dev/null\n+++ b/src/added.js\n@@ -0,0 +1 @@\n+export const added = 1;\n',
  });
  configure(directory, tasks, settings);
  git(directory, 'init', '-q', '-b', 'main');
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
    verify: [{ name: 'test', run: ['node', 'test.js'] }],
    agents: {
      script: { engine: 'command', run: ['node', '{project}/agent.mjs'], concurrency: 2 },
      patcher: { engine: 'patch' },
    },
    limits: { attempts: 2, backoff: { initial: '10ms', max: '10ms' } },
    tasks: tasks.map((task) => ({ agent: 'script', ...task })),
    ...settings,
  };
  write(directory, { 'troupe.yaml': JSON.stringify(config, null, 2) });
}

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

  constructor(directory: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const { NO_COLOR: _no, FORCE_COLOR: _force, NODE_OPTIONS: _options, ...plain } = process.env;
    this.child = spawn(process.execPath, [BIN, ...args], {
      cwd: directory,
      env: { ...plain, LANG: 'C.UTF-8', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
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

/** Runs the command to its end. */
export const troupe = (directory: string, ...args: readonly string[]): Promise<Ended> =>
  new Cli(directory, args).ended;
