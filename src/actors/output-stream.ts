import type { StreamWriter } from '../runtime/stream.ts';
import type { Redact } from '../workspace/redact.ts';
import { RedactedLines } from '../workspace/redacted-lines.ts';

/** Of one attempt, in characters; the log file has the rest. */
const MAX_OUTPUT = 1024 * 1024;
/** As JSON a character may take six, and a chunk has a limit. */
const MAX_PIECE = 32 * 1024;

/**
 * Copies what a command prints into a stream, line by line, without secrets, in the order in which it comes. Of a
 * longer output, its beginning.
 */
export class OutputStream {
  readonly #stream: StreamWriter;
  readonly #rest: string;
  readonly #lines: Readonly<Record<'stdout' | 'stderr', RedactedLines>>;
  #left = MAX_OUTPUT;

  /** @param rest what to say where it is cut off */
  constructor(stream: StreamWriter, redact: Redact, rest: string) {
    this.#stream = stream;
    this.#rest = rest;
    this.#lines = { stdout: new RedactedLines(redact), stderr: new RedactedLines(redact) };
  }

  take(chunk: Buffer, from: 'stdout' | 'stderr'): void {
    if (this.#left > 0) this.#put(this.#lines[from].take(chunk));
  }

  /** No more comes. */
  end(): void {
    for (const lines of Object.values(this.#lines)) this.#put(lines.rest());
  }

  #put(text: string): void {
    if (this.#left <= 0 || text === '') return;
    const kept = text.slice(0, this.#left).toWellFormed();
    this.#left -= text.length;
    for (let at = 0; at < kept.length; at += MAX_PIECE) {
      this.#write(kept.slice(at, at + MAX_PIECE));
    }
    if (this.#left <= 0) this.#write(`\n${this.#rest}\n`);
  }

  #write(text: string): void {
    // What is refused is in the log of the runtime; the command goes on, and its log file has everything.
    this.#stream.write(text).catch(() => {
      this.#left = 0;
    });
  }
}
