import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { channel } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import type { Job, ProcessRegistry } from './process-registry.ts';
import { MARKER_VARIABLE } from './process-scan.ts';
import { type ProcessEnd, type ProcessTreeOptions, stopRequest } from './process-tree.ts';
import { shellQuote } from './shell-quote.ts';
import { terminateGroup } from './terminate.ts';
import { untilLine } from './until-line.ts';

/** What is launched leaves nothing in the background. */
export type LaunchOptions = Omit<ProcessTreeOptions, 'processes' | 'sweep' | 'faultPoint'>;

/** A shell that had nothing to do for so long is ended. */
const IDLE_MS = 10_000;
/** More than these do not wait for work. */
const MAX_IDLE = 4;
/** What is longer than this would come close to what the system takes as arguments and environment. */
const MAX_SCRIPT_BYTES = 100_000;
/** A longer input is for a pipe of its own; written so that a shell understands it, it is up to four times as long. */
const MAX_INPUT_BYTES = 16_384;
/** Of what the program says, as much is looked at to know why it could not be started. */
const MAX_SAID = 1000;
/** The shell could not go to the program's directory. No program's exit code is so large. */
const NO_DIRECTORY = 999;

/** Tells of each program: its `argv`, and `done`, a promise of its end. For who measures. */
const launched = channel('troupe:launched');

/**
 * Starts short programs (git's) from small shells that live on, one program at a time in each. To start a process, the
 * system copies what it knows of its parent's memory, while the parent waits: from a shell, a program costs less than half
 * of the CPU time that it costs from Node (bench/README.md, `pipeline`).
 *
 * The shell is told nothing that it could understand wrongly: each word is quoted, an input is spelled byte by byte. Output
 * comes straight from the program; behind it, the shell writes a line that no program can know.
 * Crash: its input is a pipe from us, so when we are gone it reads an end and exits after its program; what hangs is ended
 * by `ProcessRegistry.killLeftovers`, as any other program.
 */
export class Launcher {
  readonly #processes: ProcessRegistry;
  readonly #idle: Shell[] = [];
  #closed = false;

  constructor(processes: ProcessRegistry) {
    this.#processes = processes;
  }

  /** Whether a shell can be told that. */
  static takes({ argv, env, cwd, stdin = '' }: LaunchOptions): boolean {
    if (process.platform === 'win32' || Buffer.byteLength(stdin) > MAX_INPUT_BYTES) return false;
    if (!Object.keys(env).every((name) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name))) return false;
    const words = [...argv, ...Object.values(env), cwd];
    const bytes = words.reduce((sum, word) => sum + Buffer.byteLength(word), 0);
    return bytes < MAX_SCRIPT_BYTES && !words.some((word) => word.includes('\0'));
  }

  /**
   * As `runProcessTree`, but for what a program leaves in the background.
   * @returns undefined when it is not for a shell (`takes`), or there is none: nothing has been started
   */
  async run(options: LaunchOptions): Promise<ProcessEnd | undefined> {
    if (!Launcher.takes(options)) return undefined;
    const startedAt = performance.now();
    const durationMs = (): number => Math.round(performance.now() - startedAt);
    if (options.signal?.aborted === true) {
      return { exitCode: null, signal: null, timedOut: false, aborted: true, durationMs: 0 };
    }
    const shell = this.#idle.pop() ?? (await this.#start());
    if (shell === undefined) return undefined;
    let job: Job;
    try {
      job = this.#processes.announce(options.label ?? options.argv.join(' '), options.cwd);
    } catch (error) {
      this.#keep(shell);
      throw error;
    }
    const stop = stopRequest(options);
    const done = shell.run(options, job.marker);
    if (launched.hasSubscribers) launched.publish({ argv: options.argv, done });
    const first = await Promise.race([done, stop.requested]);
    stop.dispose();
    if (typeof first === 'string') {
      // The shell leads the group that its program is in.
      if (await shell.terminate(options.killGraceMs ?? 3000)) job.ended();
      const timedOut = first === 'timeout';
      return { ...(await done), timedOut, aborted: !timedOut, durationMs: durationMs() };
    }
    job.ended();
    this.#keep(shell);
    return { ...first, timedOut: false, aborted: false, durationMs: durationMs() };
  }

  /** Ends the shells that wait. One that works ends after its program. */
  close(): void {
    this.#closed = true;
    for (const shell of this.#idle.splice(0)) shell.end();
  }

  async #start(): Promise<Shell | undefined> {
    const shell = new Shell(this.#processes, (ended) => this.#forget(ended));
    return (await shell.started) ? shell : undefined;
  }

  #keep(shell: Shell): void {
    if (!shell.isUsable) return;
    if (this.#closed || this.#idle.length >= MAX_IDLE) {
      shell.end();
      return;
    }
    this.#idle.push(shell);
    shell.endWhenIdleFor(IDLE_MS);
  }

  #forget(shell: Shell): void {
    const index = this.#idle.indexOf(shell);
    if (index >= 0) this.#idle.splice(index, 1);
  }
}

type Done = Pick<ProcessEnd, 'exitCode' | 'signal' | 'spawnError'>;

/** The program that a shell runs. */
interface Running {
  readonly options: LaunchOptions;
  readonly resolve: (done: Done) => void;
  status: number | undefined;
  /** Whose output has not yet come to the shell's line. */
  openStreams: number;
  said: string;
}

class Shell {
  /** False when there can be none: the system has no shell, or no room for another process. */
  readonly started: Promise<boolean>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #job: Job;
  readonly #onEnd: (shell: Shell) => void;
  /** Written behind the output of each program. */
  readonly #line = `\u001e${randomUUID()}`;
  #running: Running | undefined;
  #idle: NodeJS.Timeout | undefined;
  #ended = false;

  constructor(processes: ProcessRegistry, onEnd: (shell: Shell) => void) {
    this.#onEnd = onEnd;
    this.#job = processes.announce('launcher: /bin/sh', '/');
    const child = spawn('/bin/sh', ['-s'], {
      cwd: '/',
      // What a program is to have, it is given by name.
      env: { [MARKER_VARIABLE]: this.#job.marker },
      detached: true,
    });
    this.#child = child;
    const { pid } = child;
    if (pid !== undefined) this.#job.started(pid);
    this.started = new Promise((resolve) => {
      child.once('spawn', () => resolve(true));
      child.on('error', () => {
        // Later errors (a signal that could not be sent) do not end it.
        if (pid !== undefined) return;
        this.#over({ exitCode: null, signal: null });
        resolve(false);
      });
    });
    // Not `exit`: what the program had said before is heard first.
    child.once('close', (_code, signal) =>
      this.#over({ exitCode: null, signal: signal ?? 'SIGHUP' }),
    );
    child.stdin.on('error', () => undefined); // it is gone, and `close` says so
    const onLine = (rest: string): void => this.#streamEnded(rest);
    const onStdout = (chunk: Buffer): void => this.#running?.options.onStdout(chunk);
    const onStderr = (chunk: Buffer): void => {
      const running = this.#running;
      if (running === undefined) return;
      if (running.said.length < MAX_SAID) running.said += chunk.toString('utf8');
      running.options.onStderr(chunk);
    };
    child.stdout.on('data', untilLine(this.#line, onStdout, onLine));
    child.stderr.on('data', untilLine(this.#line, onStderr, onLine));
  }

  get isUsable(): boolean {
    return !this.#ended;
  }

  run(options: LaunchOptions, marker: string): Promise<Done> {
    clearTimeout(this.#idle);
    this.#hold(true);
    return new Promise((resolve) => {
      this.#running = { options, resolve, status: undefined, openStreams: 2, said: '' };
      this.#child.stdin.write(scriptOf(options, marker, this.#line));
    });
  }

  /** With its program. @returns whether both are gone */
  async terminate(graceMs: number): Promise<boolean> {
    const { pid } = this.#child;
    const isGone = pid === undefined || (await terminateGroup(pid, graceMs));
    this.#over({ exitCode: null, signal: 'SIGKILL' }, isGone);
    this.#child.stdout.destroy();
    this.#child.stderr.destroy();
    return isGone;
  }

  end(): void {
    this.#child.stdin.end();
    this.#over({ exitCode: null, signal: null });
  }

  endWhenIdleFor(limitMs: number): void {
    this.#hold(false);
    this.#idle = setTimeout(() => this.end(), limitMs).unref();
  }

  #over(done: Done, isGone = true): void {
    if (!this.#ended) {
      this.#ended = true;
      clearTimeout(this.#idle);
      if (isGone) this.#job.ended();
      this.#onEnd(this);
    }
    const running = this.#running;
    this.#running = undefined;
    running?.resolve(done);
    this.#hold(false);
  }

  #streamEnded(rest: string): void {
    const running = this.#running;
    if (running === undefined) return;
    if (rest !== '') running.status = Number(rest);
    running.openStreams--;
    if (running.openStreams > 0) return;
    this.#running = undefined;
    running.resolve(doneOf(running.status ?? Number.NaN, running.said));
  }

  /** While it works, it keeps our process alive; while it waits, it does not. */
  #hold(works: boolean): void {
    const { stdin, stdout, stderr } = this.#child;
    // They are sockets; a stream that could not be made is none.
    for (const one of [this.#child, stdin, stdout, stderr] as unknown as Partial<Socket>[]) {
      if (works) one.ref?.();
      else one.unref?.();
    }
  }
}

function scriptOf({ argv, env, cwd, stdin }: LaunchOptions, marker: string, line: string): string {
  const { PATH = '/usr/bin:/bin', ...others } = env;
  const variables = Object.entries({ ...others, [MARKER_VARIABLE]: marker });
  const assignments = variables.map(([name, value]) => `${name}=${shellQuote(value)}`);
  const words = [...assignments, 'exec', ...argv.map(shellQuote)].join(' ');
  // PATH is set in the shell, so that it looks there, too. PWD would be the way by which it came, with its symlinks.
  // `exec` takes the program for a program, also if the shell has something of that name itself.
  const program =
    stdin === undefined
      ? `(unset PWD OLDPWD; ${words} </dev/null)`
      : `printf ${spelled(stdin)} | (unset PWD OLDPWD; ${words})`;
  return `export PATH=${shellQuote(PATH)}
if cd -P -- ${shellQuote(cwd)} 2>/dev/null; then ${program}; E=$?; else E=${NO_DIRECTORY}; fi
printf '%s\\n' ${shellQuote(line)} >&2; printf '%s%d\\n' ${shellQuote(line)} "$E"
`;
}

/** A format for the shell's own `printf` that writes these bytes. */
function spelled(input: string | Buffer): string {
  const bytes = Buffer.from(input as string).toString('latin1');
  const escaped = bytes.replace(/[^A-Za-z0-9 ./_:=@,+-]/g, (byte) =>
    byte === '%' ? '%%' : `\\${byte.charCodeAt(0).toString(8).padStart(3, '0')}`,
  );
  // The first character must not make it an option.
  return `-- '${escaped}'`;
}

/** Source of the numbers: POSIX.1-2024, XCU 2.8.2. */
function doneOf(status: number, said: string): Done {
  const notStarted = (spawnError: string): Done => ({ exitCode: null, signal: null, spawnError });
  if (status === NO_DIRECTORY) return notStarted('ENOCWD');
  if (status === 127) return notStarted('ENOENT');
  if (status === 126) {
    return notStarted(said.includes('Argument list too long') ? 'E2BIG' : 'EACCES');
  }
  const signal = SIGNALS.get(status - 128);
  return signal === undefined ? { exitCode: status, signal: null } : { exitCode: null, signal };
}

/** Those that end a program; a shell adds 128. Git itself ends with 128 and 129, so that SIGHUP (1) is none of them. */
const SIGNALS: ReadonlyMap<number, NodeJS.Signals> = new Map([
  [2, 'SIGINT'],
  [3, 'SIGQUIT'],
  [6, 'SIGABRT'],
  [7, 'SIGBUS'],
  [9, 'SIGKILL'],
  [11, 'SIGSEGV'],
  [13, 'SIGPIPE'],
  [14, 'SIGALRM'],
  [15, 'SIGTERM'],
]);
