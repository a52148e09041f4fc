import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll } from 'vitest';
import { program, programEnvironment } from '../program.ts';

/** How a life ended: `SIGKILL`, or its exit code. */
export type Death = string | number;

/** A child that says nothing for so long while it is waited for is killed, and the test fails with what it had said. */
const PATIENCE_MS = 120_000;

/** Run when all tests of the file have ended: tests run side by side, and none may clean up under another. */
const cleanups = new Set<() => void>();
afterAll(() => {
  for (const cleanUp of [...cleanups].reverse()) cleanUp();
}, PATIENCE_MS);

/** Sees to it that something is cleaned up, at the latest when the file's tests have ended. @returns cleans it up now */
export function atLast(cleanUp: () => void): () => void {
  const once = (): void => {
    if (cleanups.delete(once)) cleanUp();
  };
  cleanups.add(once);
  return once;
}

/** A directory that is removed at last. Its path is real: no symlink on the way. */
export function scratch(): string {
  const directory = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'troupe-crash-')));
  atLast(() => rmSync(directory, { recursive: true, force: true, maxRetries: 3 }));
  return directory;
}

/** One life of a process: from its start to its death. */
export class Life {
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #waiting = new Set<() => void>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #errors: string[] = [];
  #death: Death | undefined;

  /**
   * Starts `<name>.child.ts` of this folder.
   * @param orders what the child is to do; it parses them from its first argument
   * @param under a program and its arguments that run the child and end with its exit code: strace, a shell with limits
   */
  constructor(
    name: string,
    orders: Readonly<Record<string, unknown>>,
    env: Readonly<Record<string, string>> = {},
    under: readonly string[] = [],
  ) {
    const run = [process.execPath, program(`crash/${name}`), JSON.stringify(orders)];
    const [first = '', ...args] = [...under, ...run];
    const child = spawn(first, args, {
      env: { ...programEnvironment(), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process = child;
    child.stderr?.on('data', (chunk: Buffer) => this.#errors.push(chunk.toString()));
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    lines.on('line', (line) => {
      this.#lines.push(line);
      for (const timer of this.#timers) timer.refresh();
      this.#wake();
    });
    // Not `close`: a command that the child had started may hold the pipes open for longer than the child lives.
    child.once('exit', (code, signal) => {
      this.#death = signal ?? code ?? 'unknown';
      setImmediate(() => this.#wake());
    });
    atLast(() => {
      child.kill('SIGKILL');
      child.stdout?.destroy();
      child.stderr?.destroy();
    });
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  get stderr(): string {
    return this.#errors.join('');
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    this.#process.kill(signal);
  }

  /** The first line that begins so. @throws when the child ends without it, or says nothing for too long */
  async line(start: string): Promise<string> {
    const find = (): string | undefined => this.#lines.find((line) => line.startsWith(start));
    await this.#until(() => find() !== undefined || this.#death !== undefined, `"${start}"`);
    const line = find();
    if (line === undefined)
      throw new Error(`It ended (${this.#death}) before "${start}".${this.#said()}`);
    return line;
  }

  /** Like `line`, but undefined when the child dies first. */
  async lineOrDeath(start: string): Promise<string | undefined> {
    const find = (): string | undefined => this.#lines.find((line) => line.startsWith(start));
    await this.#until(() => find() !== undefined || this.#death !== undefined, `"${start}"`);
    return find();
  }

  async death(): Promise<Death> {
    await this.#until(() => this.#death !== undefined, 'its end');
    return this.#death as Death;
  }

  /** Waits for an orderly end. @throws when it ends otherwise */
  async finished(): Promise<void> {
    const death = await this.death();
    if (death !== 0) throw new Error(`Expected an orderly end, got ${death}.${this.#said()}`);
  }

  async #until(condition: () => boolean, what: string): Promise<void> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#process.kill('SIGKILL');
      this.#wake();
    }, PATIENCE_MS);
    this.#timers.add(timer);
    try {
      while (!condition()) {
        if (late)
          throw new Error(
            `Not a word for ${PATIENCE_MS} ms while waiting for ${what}.${this.#said()}`,
          );
        await new Promise<void>((resolve) => this.#waiting.add(resolve));
      }
    } finally {
      clearTimeout(timer);
      this.#timers.delete(timer);
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  #said(): string {
    return `\nIt said:\n${this.#lines.slice(-40).join('\n')}\n${this.stderr.slice(-4000)}`;
  }
}

/** Random numbers that a seed repeats (mulberry32). */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}
