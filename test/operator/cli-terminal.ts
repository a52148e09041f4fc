import type { OutputStream } from '../../src/operator/terminal/terminal.ts';
import { displayWidth, truncate } from '../../src/operator/terminal/text.ts';

/** A stream that keeps what is written to it. */
export class FakeStream implements OutputStream {
  isTTY: boolean;
  columns: number;
  rows: number;
  /** Everything that was written, in its order. */
  readonly writes: string[] = [];
  readonly #resize = new Set<() => void>();
  #onError: ((error: NodeJS.ErrnoException) => void) | undefined;

  constructor({ isTTY = false, columns = 80, rows = 24 } = {}) {
    this.isTTY = isTTY;
    this.columns = columns;
    this.rows = rows;
  }

  get text(): string {
    return this.writes.join('');
  }

  write(text: string): boolean {
    this.writes.push(text);
    return true;
  }

  on(event: 'error' | 'resize', listener: (error: NodeJS.ErrnoException) => void): void {
    if (event === 'error') this.#onError = listener;
    else this.#resize.add(listener as () => void);
  }

  off(_event: 'resize', listener: () => void): void {
    this.#resize.delete(listener);
  }

  resize(columns: number): void {
    this.columns = columns;
    for (const listener of this.#resize) listener();
  }

  fail(code: string): void {
    this.#onError?.(Object.assign(new Error(code), { code }));
  }
}

/**
 * What a terminal would show: just the control sequences that the command uses, and an error for any other. Lines
 * that are too long for a terminal that became narrower are wrapped, as terminals do.
 */
export class FakeTerminal extends FakeStream {
  #screen: string[] = [''];
  #row = 0;
  cursorVisible = true;

  constructor(options: { readonly columns?: number; readonly rows?: number } = {}) {
    super({ isTTY: true, ...options });
  }

  /** The lines that are to be seen, without the blank ones at the end. */
  get screen(): readonly string[] {
    const lines = this.#screen.map((line) => line.trimEnd());
    while (lines.at(-1) === '') lines.pop();
    return lines;
  }

  override write(text: string): boolean {
    let rest = text;
    while (rest !== '') rest = rest.slice(this.#step(rest));
    return super.write(text);
  }

  override resize(columns: number): void {
    const wrapped: string[] = [];
    let row = 0;
    for (const [index, line] of this.#screen.entries()) {
      if (index === this.#row) row = wrapped.length;
      let left = line.trimEnd();
      do {
        const part = truncate(left, columns, '');
        wrapped.push(part);
        left = left.slice(part.length);
      } while (left !== '');
    }
    this.#screen = wrapped;
    this.#row = row;
    super.resize(columns);
  }

  #step(text: string): number {
    if (text.startsWith('\n')) {
      this.#row++;
      this.#screen[this.#row] ??= '';
      this.#column = 0;
      return 1;
    }
    if (text.startsWith('\r')) {
      this.#column = 0;
      return 1;
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: this is what a terminal reads
    const sequence = /^\u001b\[(\??)(\d*)([A-Za-z])/.exec(text);
    if (sequence !== null) {
      this.#control(`${sequence[1]}${sequence[3]}`, Number(sequence[2] || '0'));
      return sequence[0].length;
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: everything that must not be printed
    const [plain = ''] = /^[^\u0000-\u001f\u007f-\u009f]+/.exec(text) ?? [];
    if (plain === '') throw new Error(`A control character was written: ${JSON.stringify(text)}`);
    const line = this.#screen[this.#row] ?? '';
    this.#screen[this.#row] =
      line.slice(0, this.#column) + plain + line.slice(this.#column + plain.length);
    this.#column += plain.length;
    if (displayWidth(this.#screen[this.#row] ?? '') > this.columns) {
      throw new Error(`A line is wider than ${this.columns}: ${this.#screen[this.#row]}`);
    }
    return plain.length;
  }

  #column = 0;

  #control(name: string, n: number): void {
    if (name === 'A') {
      if (n > this.#row)
        throw new Error(`The cursor was moved ${n - this.#row} lines off the top.`);
      this.#row -= n;
    } else if (name === 'K') {
      this.#screen[this.#row] = (this.#screen[this.#row] ?? '').slice(0, this.#column);
    } else if (name === 'J') {
      this.#screen = [
        ...this.#screen.slice(0, this.#row),
        (this.#screen[this.#row] ?? '').slice(0, this.#column),
      ];
    } else if (name === '?h' || name === '?l') {
      if (n === 25) this.cursorVisible = name === '?h';
      else if (n !== 2026) throw new Error(`Unknown mode ${n}.`);
    } else if (name !== 'm') throw new Error(`Unknown control sequence ${name}.`);
  }
}
