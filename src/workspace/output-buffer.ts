/**
 * Keeps the first and the last bytes of an output, whatever its length: half of `maxBytes` each.
 * What lies between is counted and forgotten.
 */
export class OutputBuffer {
  readonly #headLimit: number;
  readonly #tailLimit: number;
  readonly #head: Buffer[] = [];
  #headBytes = 0;
  #tail: Buffer[] = [];
  #tailBytes = 0;
  #totalBytes = 0;

  constructor(maxBytes: number) {
    this.#headLimit = Math.ceil(maxBytes / 2);
    this.#tailLimit = Math.floor(maxBytes / 2);
  }

  append(chunk: Buffer): void {
    this.#totalBytes += chunk.length;
    let rest = chunk;
    if (this.#headBytes < this.#headLimit) {
      const part = rest.subarray(0, this.#headLimit - this.#headBytes);
      this.#head.push(part);
      this.#headBytes += part.length;
      rest = rest.subarray(part.length);
    }
    if (rest.length === 0) return;
    this.#tail.push(rest);
    this.#tailBytes += rest.length;
    // Cut only when twice too long, so that a million small chunks do not cost a copy each.
    if (this.#tailBytes > 2 * this.#tailLimit) this.#cutTail();
  }

  /** Bytes that came and are not kept. */
  get truncatedBytes(): number {
    return Math.max(0, this.#totalBytes - this.#headLimit - this.#tailLimit);
  }

  /** What is kept, decoded as UTF-8 (invalid bytes become U+FFFD), with a note where something is missing. */
  toString(): string {
    this.#cutTail();
    const head = Buffer.concat(this.#head).toString('utf8');
    const tail = Buffer.concat(this.#tail).toString('utf8');
    if (this.truncatedBytes === 0) return Buffer.concat([...this.#head, ...this.#tail]).toString();
    return `${head}\n[… ${this.truncatedBytes} bytes left out …]\n${tail}`;
  }

  #cutTail(): void {
    if (this.#tailBytes <= this.#tailLimit) return;
    // A copy, not a view: a view would keep the whole chunk alive.
    const all = Buffer.concat(this.#tail);
    this.#tail = [Buffer.from(all.subarray(all.length - this.#tailLimit))];
    this.#tailBytes = this.#tailLimit;
  }
}
