import type { Redact } from './redact.ts';

/** A line without an end is not kept in memory for longer. */
const MAX_LINE_BYTES = 64 * 1024;
/** Of such a line this much is held back: what begins in it is not torn. */
const MAX_SECRET_BYTES = 4 * 1024;

/** Takes secrets out of what comes in pieces: a secret that comes in two of them is still one. */
export class RedactedLines {
  readonly #redact: Redact;
  /** The last line while it is not complete. */
  #line = Buffer.alloc(0);

  constructor(redact: Redact) {
    this.#redact = redact;
  }

  /** @returns what is complete by now, without secrets; perhaps empty */
  take(chunk: Buffer): string {
    const all = this.#line.length === 0 ? chunk : Buffer.concat([this.#line, chunk]);
    const lines = all.lastIndexOf(0x0a) + 1;
    const ready = all.length - lines > MAX_LINE_BYTES ? all.length - MAX_SECRET_BYTES : lines;
    this.#line = Buffer.from(all.subarray(ready));
    return ready === 0 ? '' : this.#redact(all.subarray(0, ready).toString('utf8'));
  }

  /** @returns the line that has no end */
  rest(): string {
    const line = this.#line;
    this.#line = Buffer.alloc(0);
    return line.length === 0 ? '' : this.#redact(line.toString('utf8'));
  }
}
