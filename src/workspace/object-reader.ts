import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { StoppedError } from '../protocol/errors.ts';
import { excerptOf } from './excerpt.ts';
import { type Git, GitError, type GitErrorKind, type GitOptions } from './git.ts';
import type { Job } from './process-registry.ts';
import { MARKER_VARIABLE } from './process-scan.ts';
import { DRAIN_MS, within } from './process-tree.ts';
import { terminateGroup } from './terminate.ts';

export interface ObjectReaderOptions {
  readonly git: Git;
  /** The repository, as for any other command. */
  readonly place: Pick<GitOptions, 'cwd' | 'gitDir' | 'workTree'>;
  /** Without a question for so long, the process is ended; the next question starts another. Default 10 000. */
  readonly idleMs?: number;
  /** For one answer. Default 120 000. */
  readonly timeoutMs?: number;
}

/** What git says of an object without its content. */
export interface ObjectInfo {
  readonly name: string;
  readonly type: string;
  readonly bytes: number;
}

/**
 * Answers questions about objects and refs by one `git cat-file --batch-command` that lives on, instead of one process
 * for each. It is hardened as every other git is, takes no locks and writes nothing. Git reads a ref anew for every
 * question, loose or packed, and looks again for objects and packs that it does not know.
 *
 * A process that has died or hangs is replaced and asked again, once; then the question fails. It does not keep ours
 * alive while nothing is asked.
 * Crash: its input is a pipe from us, so when we are gone it reads an end and exits; should it hang,
 * `ProcessRegistry.killLeftovers` ends it.
 * Source: git-cat-file(1); `--batch-command` needs git 2.36.
 */
export class ObjectReader {
  readonly #options: ObjectReaderOptions;
  #process: Promise<ReaderProcess> | undefined;
  readonly #ending = new Set<Promise<void>>();
  #idle: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ObjectReaderOptions) {
    this.#options = options;
  }

  /**
   * @param name anything that rev-parse understands: a ref, an object name, either with `^{commit}` or `^{tree}`
   * @returns undefined when there is no such object, or the name is none
   * @throws {GitError} git cannot be started, died twice, or did not answer in time
   * @throws {StoppedError} after `close`
   */
  async info(name: string): Promise<ObjectInfo | undefined> {
    // A line is a question, so such a name would be two.
    if (/[\n\0]/.test(name)) return undefined;
    return (await this.#ask('info', name))?.info;
  }

  /**
   * @param maxBytes default 67 108 864
   * @throws {GitError} also when the object is larger (`too_much_output`)
   */
  async content(name: string, maxBytes = 64 * 1024 * 1024): Promise<Buffer | undefined> {
    const info = await this.info(name);
    if (info === undefined) return undefined;
    if (info.bytes > maxBytes) {
      throw this.#error(
        'too_much_output',
        `${name} has ${info.bytes} bytes, more than ${maxBytes}.`,
      );
    }
    return (await this.#ask('contents', info.name))?.content;
  }

  /** Ends the process. What was asked before is still answered. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#retire();
    await Promise.all(this.#ending);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #ask(command: 'info' | 'contents', name: string): Promise<Answer | undefined> {
    try {
      return await this.#askOnce(command, name);
    } catch (error) {
      if (!(error instanceof ReaderEnded)) throw error;
    }
    try {
      return await this.#askOnce(command, name);
    } catch (error) {
      if (!(error instanceof ReaderEnded)) throw error;
      throw this.#error(error.kind, error.message, error.stderr);
    }
  }

  async #askOnce(command: 'info' | 'contents', name: string): Promise<Answer | undefined> {
    if (this.#closed) throw new StoppedError();
    clearTimeout(this.#idle);
    this.#process ??= this.#start();
    const started = this.#process;
    try {
      const reader = await started;
      return await reader.ask(command, name);
    } catch (error) {
      if (error instanceof ReaderEnded && this.#process === started) this.#process = undefined;
      throw error;
    } finally {
      clearTimeout(this.#idle);
      this.#idle = setTimeout(() => this.#retire(), this.#options.idleMs ?? 10_000).unref();
    }
  }

  async #start(): Promise<ReaderProcess> {
    const { git, place, timeoutMs = 120_000 } = this.#options;
    const { argv, env } = git.invocation(['cat-file', '--batch-command'], place);
    // Not called `git …` in the registry: `removeStaleLocks` takes locks that are younger than such a command for its own.
    const job = git.processes.announce(`reader: ${argv[0]} cat-file --batch-command`, place.cwd);
    let child: ChildProcessWithoutNullStreams;
    try {
      child = spawn(argv[0], argv.slice(1), {
        cwd: place.cwd,
        env: { ...env, [MARKER_VARIABLE]: job.marker },
        detached: true,
      });
    } catch (error) {
      job.ended();
      throw error;
    }
    if (child.pid !== undefined) return new ReaderProcess(child, child.pid, job, timeoutMs);
    const [error] = (await once(child, 'error')) as [NodeJS.ErrnoException];
    job.ended();
    const why = (code: string | undefined) => `it could not be started (${code}).`;
    if (!existsSync(place.cwd)) throw new ReaderEnded('failed', why('ENOCWD'), '');
    const missing = error.code === 'ENOENT' || error.code === 'EACCES';
    throw new ReaderEnded(missing ? 'missing' : 'disk', why(error.code), '');
  }

  #retire(): void {
    clearTimeout(this.#idle);
    const started = this.#process;
    if (started === undefined) return;
    this.#process = undefined;
    const ending = started.then(
      (reader) => reader.end(),
      () => undefined, // it never ran; whoever asked has been told
    );
    this.#ending.add(ending);
    void ending.finally(() => this.#ending.delete(ending));
  }

  #error(kind: GitErrorKind, why: string, stderr = ''): GitError {
    const { cwd } = this.#options.place;
    return new GitError(kind, `git cat-file in ${cwd}: ${why}`, {
      args: ['cat-file', '--batch-command'],
      exitCode: null,
      stderr,
    });
  }
}

interface Answer {
  readonly info: ObjectInfo;
  readonly content?: Buffer;
}

interface Question {
  readonly wantsContent: boolean;
  readonly resolve: (answer: Answer | undefined) => void;
  readonly reject: (error: ReaderEnded) => void;
}

/** The process is gone without an answer. */
class ReaderEnded extends Error {
  readonly kind: GitErrorKind;
  readonly stderr: string;
  constructor(kind: GitErrorKind, message: string, stderr: string) {
    super(message);
    this.kind = kind;
    this.stderr = stderr;
  }
}

/** How long a reader that was told to end may take. It has nothing to tidy up. */
const END_MS = 2000;

/** One process. It answers in the order in which it is asked. */
class ReaderProcess {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #pid: number;
  readonly #timeoutMs: number;
  readonly #questions: Question[] = [];
  readonly #closed: Promise<unknown>;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  /** Of the answer at the head: not known until its first line is there. */
  #neededBytes = 0;
  #stderr = '';
  #timer: NodeJS.Timeout | undefined;
  #timedOut = false;
  #ended = false;

  constructor(child: ChildProcessWithoutNullStreams, pid: number, job: Job, timeoutMs: number) {
    this.#child = child;
    this.#pid = pid;
    this.#timeoutMs = timeoutMs;
    job.started(pid);
    this.#closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
    child.once('exit', (code, signal) => {
      job.ended();
      this.#ended = true;
      clearTimeout(this.#timer);
      // What it said last may still be in the pipe, which somebody else may hold.
      void within(this.#closed, DRAIN_MS).then(() => this.#fail(code, signal));
    });
    // A signal that could not be sent; a pipe that closes is told of by `exit`.
    child.on('error', () => undefined);
    child.stdin.on('error', () => undefined);
    child.stdout.on('data', (chunk: Buffer) => this.#receive(chunk));
    child.stderr.on('data', (chunk: Buffer) => {
      if (this.#stderr.length < 10_000) this.#stderr += chunk.toString('utf8');
    });
    // It does not keep us alive; while somebody waits for an answer, the timer does.
    child.unref();
    for (const pipe of [child.stdin, child.stdout, child.stderr] as unknown as Socket[])
      pipe.unref();
  }

  ask(command: 'info' | 'contents', name: string): Promise<Answer | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#ended) {
        reject(new ReaderEnded('disk', 'it has ended.', this.#stderr));
        return;
      }
      this.#questions.push({ wantsContent: command === 'contents', resolve, reject });
      if (this.#questions.length === 1) this.#wait();
      this.#child.stdin.write(`${command} ${name}\n`);
    });
  }

  /** Lets it answer what it was asked, and go. */
  async end(): Promise<void> {
    this.#child.stdin.end();
    const late = setTimeout(() => this.#kill(), END_MS);
    await this.#closed;
    clearTimeout(late);
  }

  #wait(): void {
    clearTimeout(this.#timer);
    if (this.#questions.length === 0) return;
    this.#timer = setTimeout(() => {
      this.#timedOut = true;
      this.#kill();
    }, this.#timeoutMs);
  }

  #kill(): void {
    if (!this.#ended) void terminateGroup(this.#pid, 0);
  }

  #receive(chunk: Buffer): void {
    this.#received.push(chunk);
    this.#receivedBytes += chunk.length;
    // A long content comes in many pieces; it is put together once.
    if (this.#receivedBytes < this.#neededBytes) return;
    let rest = Buffer.concat(this.#received);
    for (;;) {
      const question = this.#questions[0];
      const taken = question === undefined ? undefined : takeAnswer(rest, question.wantsContent);
      if (question === undefined || taken === undefined) {
        this.#neededBytes = 0;
        break;
      }
      if (taken.kind === 'incomplete') {
        this.#neededBytes = taken.neededBytes;
        break;
      }
      rest = rest.subarray(taken.bytes);
      this.#questions.shift();
      question.resolve(taken.answer);
      this.#wait();
    }
    this.#received = [rest];
    this.#receivedBytes = rest.length;
  }

  #fail(code: number | null, signal: string | null): void {
    clearTimeout(this.#timer);
    const kind = this.#timedOut ? 'timeout' : code === null ? 'disk' : 'failed';
    const how = this.#timedOut
      ? `no answer within ${this.#timeoutMs} ms.`
      : `it ended (${code === null ? `signal ${signal}` : `exit code ${code}`}). ${excerptOf(this.#stderr, 1000)}`;
    for (const question of this.#questions.splice(0)) {
      question.reject(new ReaderEnded(kind, how, excerptOf(this.#stderr, 1000)));
    }
  }
}

/** The first answer in what was received: its first line, and the content and a newline if that was asked for. */
function takeAnswer(
  received: Buffer,
  wantsContent: boolean,
):
  | { readonly kind: 'answer'; readonly answer: Answer | undefined; readonly bytes: number }
  | { readonly kind: 'incomplete'; readonly neededBytes: number } {
  const newline = received.indexOf(0x0a);
  if (newline < 0) return { kind: 'incomplete', neededBytes: received.length + 1 };
  const start = newline + 1;
  const line = received.toString('utf8', 0, newline);
  const [, name, type, size] = /^([0-9a-f]{40,64}) (\w+) (\d+)$/.exec(line) ?? [];
  // `<name> missing`, `<name> ambiguous`
  if (name === undefined || type === undefined) {
    return { kind: 'answer', answer: undefined, bytes: start };
  }
  const info = { name, type, bytes: Number(size) };
  if (!wantsContent) return { kind: 'answer', answer: { info }, bytes: start };
  const end = start + info.bytes;
  if (received.length < end + 1) return { kind: 'incomplete', neededBytes: end + 1 };
  const content = Buffer.from(received.subarray(start, end));
  return { kind: 'answer', answer: { info, content }, bytes: end + 1 };
}
