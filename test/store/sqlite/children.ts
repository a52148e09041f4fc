import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import { program, programEnvironment } from '../../program.ts';

/** A real process that a test talks to line by line. It is killed when the test is over. */
export class Child {
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #waiting: ((line: string) => void)[] = [];
  readonly #errors: string[] = [];
  /** How it ended: `SIGKILL`, or its exit code. */
  readonly ended: Promise<string | number>;

  constructor(command: string, args: readonly string[]) {
    const child = spawn(command, args, {
      env: programEnvironment(),
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#process = child;
    child.stderr.on('data', (chunk: Buffer) => this.#errors.push(chunk.toString()));
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => {
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#lines.push(line);
      else waiting(line);
    });
    const closed = new Promise<void>((resolve) => lines.once('close', () => resolve()));
    this.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        void closed.then(() => {
          for (const waiting of this.#waiting.splice(0)) waiting(`ended: ${this.#errors.join('')}`);
          resolve(signal ?? code ?? 'unknown');
        });
      });
    });
    onTestFinished(() => {
      child.kill('SIGKILL');
    });
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  /** The next line it prints; `ended: …` with its stderr if it ends first. */
  line(): Promise<string> {
    const line = this.#lines.shift();
    if (line !== undefined) return Promise.resolve(line);
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) {
      return this.ended.then(() => this.#lines.shift() ?? `ended: ${this.#errors.join('')}`);
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** All lines until it ends. */
  async rest(): Promise<readonly string[]> {
    await this.ended;
    return this.#lines.splice(0);
  }

  say(line: string): void {
    this.#process.stdin?.write(`${line}\n`);
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }
}

/** Runs `<name>.child.ts` of this folder. */
export function startChild(name: string, ...args: readonly string[]): Child {
  return new Child(process.execPath, [childFile(name), ...args]);
}

export function childFile(name: string): string {
  return program(`store/sqlite/${name}`);
}
