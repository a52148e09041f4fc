import { constants } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import path from 'node:path';
import type { FaultPoint } from '../protocol/fault-point.ts';
import { OutputBuffer } from './output-buffer.ts';
import type { ProcessRegistry } from './process-registry.ts';
import { runProcessTree } from './process-tree.ts';
import type { Redact } from './redact.ts';
import { RedactedLines } from './redacted-lines.ts';
import { shellQuote } from './shell-quote.ts';

export interface CommandOptions {
  /** An array is program and arguments. A string is the user's own shell command, run by `/bin/sh -c`. */
  readonly command: readonly string[] | string;
  readonly cwd: string;
  /** The complete environment; see `buildEnvironment`. */
  readonly env: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  /** From SIGTERM to SIGKILL. Default 3000. */
  readonly killGraceMs?: number;
  /** Of output kept in memory, half of it from the start and half from the end. Default 262 144. */
  readonly maxOutputBytes?: number;
  /** Gets the output while it comes, up to `maxLogBytes` and then a note. Never written through a symlink. */
  readonly logFile?: string;
  /** Default 10 000 000. */
  readonly maxLogBytes?: number;
  /** Takes secrets out of what is written to the log, line by line. */
  readonly redact?: Redact;
  readonly stdin?: string;
  readonly signal?: AbortSignal;
  readonly onOutput?: (chunk: Buffer, stream: 'stdout' | 'stderr') => void;
  readonly processes: ProcessRegistry;
  readonly faultPoint?: FaultPoint;
}

export interface CommandResult {
  /** The command as one line, to be shown. */
  readonly command: string;
  readonly exitCode: number | null;
  /** The signal that ended it. */
  readonly signal: string | null;
  readonly durationMs: number;
  /** Both streams in the order in which they came. */
  readonly output: string;
  readonly truncatedBytes: number;
  readonly timedOut: boolean;
  readonly aborted: boolean;
  /** The program, or one that a shell command names, is not there: nobody's work is to blame. */
  readonly missingTool: boolean;
  /** Why it could not be started, if it could not: `ENOENT`, `EACCES`, `E2BIG`, `EAGAIN`, `ENOCWD` (no such directory). */
  readonly spawnError?: string;
}

/**
 * Runs a command that is not ours (an agent's, a verification's) with its whole process tree.
 * A command that fails, is missing, takes too long or is aborted gives a result; nothing of that throws.
 * @throws {Error} the log file cannot be opened (disk full, no permission)
 * Crash: `ProcessRegistry.killLeftovers` ends the tree at the next start.
 */
export async function runCommand(options: CommandOptions): Promise<CommandResult> {
  const shown = describeCommand(options.command);
  const output = new OutputBuffer(options.maxOutputBytes ?? 256 * 1024);
  const log =
    options.logFile === undefined
      ? undefined
      : await LogFile.open(options.logFile, options.maxLogBytes ?? 10_000_000, options.redact);
  const take = (stream: 'stdout' | 'stderr') => (chunk: Buffer) => {
    output.append(chunk);
    log?.append(chunk);
    options.onOutput?.(chunk, stream);
  };
  try {
    const end = await runProcessTree({
      argv: argvOf(options.command),
      cwd: options.cwd,
      env: options.env,
      timeoutMs: options.timeoutMs,
      processes: options.processes,
      sweep: true,
      onStdout: take('stdout'),
      onStderr: take('stderr'),
      ...(options.killGraceMs === undefined ? {} : { killGraceMs: options.killGraceMs }),
      ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.faultPoint === undefined ? {} : { faultPoint: options.faultPoint }),
    });
    return {
      ...end,
      command: shown,
      output: output.toString(),
      truncatedBytes: output.truncatedBytes,
      missingTool: isMissingTool(options.command, end),
    };
  } finally {
    await log?.close();
  }
}

/** A command as one line that a person could paste into a shell. */
export function describeCommand(command: readonly string[] | string): string {
  if (typeof command === 'string') return command;
  return command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : shellQuote(word))).join(' ');
}

function argvOf(command: readonly string[] | string): [string, ...string[]] {
  if (typeof command === 'string') return ['/bin/sh', '-c', command];
  const [program = '', ...rest] = command;
  return [program, ...rest];
}

function isMissingTool(
  command: readonly string[] | string,
  end: { readonly exitCode: number | null; readonly spawnError?: string },
): boolean {
  if (end.spawnError === 'ENOENT' || end.spawnError === 'EACCES') return true;
  // 127: a shell, or a package manager that runs scripts by one, did not find the program.
  if (end.exitCode === 127) return true;
  // 126: it was found and could not be executed. Of a program that is not a shell it may mean anything.
  return end.exitCode === 126 && typeof command === 'string';
}

/** Takes output as fast as it comes; never more than its limit, so what waits for the disk is bounded as well. */
class LogFile {
  readonly #handle: FileHandle;
  readonly #maxBytes: number;
  readonly #lines: RedactedLines | undefined;
  #bytes = 0;
  #writing: Promise<void> = Promise.resolve();
  #failed = false;

  private constructor(handle: FileHandle, maxBytes: number, redact: Redact | undefined) {
    this.#handle = handle;
    this.#maxBytes = maxBytes;
    this.#lines = redact === undefined ? undefined : new RedactedLines(redact);
  }

  static async open(file: string, maxBytes: number, redact?: Redact): Promise<LogFile> {
    await mkdir(path.dirname(file), { recursive: true });
    const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
    return new LogFile(
      await open(file, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o644),
      maxBytes,
      redact,
    );
  }

  append(chunk: Buffer): void {
    this.#take(this.#lines === undefined ? chunk : Buffer.from(this.#lines.take(chunk)));
  }

  #take(chunk: Buffer): void {
    if (chunk.length === 0 || this.#bytes >= this.#maxBytes) return;
    const part = chunk.subarray(0, this.#maxBytes - this.#bytes);
    this.#bytes += part.length;
    this.#write(part);
    if (this.#bytes >= this.#maxBytes) {
      this.#write(Buffer.from(`\n[the log ends here: limit of ${this.#maxBytes} bytes]\n`));
    }
  }

  async close(): Promise<void> {
    this.#take(Buffer.from(this.#lines?.rest() ?? ''));
    await this.#writing;
    await this.#handle.close();
  }

  #write(bytes: Buffer): void {
    this.#writing = this.#writing.then(async () => {
      if (this.#failed) return;
      try {
        await this.#handle.write(bytes);
      } catch {
        // A full disk must not fail the command: its result still says all that the excerpt needs.
        this.#failed = true;
      }
    });
  }
}
