import type { Line } from './text.ts';
import { renderLine } from './text.ts';

/** What of a stream the command needs; `process.stdout` is one. */
export interface OutputStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): boolean;
  on(event: 'error', listener: (error: NodeJS.ErrnoException) => void): unknown;
  on(event: 'resize', listener: () => void): unknown;
  off(event: 'resize', listener: () => void): unknown;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;
/** A terminal that says it is narrower cannot be drawn on usefully; the lines are cut there. */
const MIN_COLUMNS = 20;
const READER_GONE: ReadonlySet<unknown> = new Set(['EPIPE', 'ERR_STREAM_DESTROYED', 'EIO']);

/**
 * One of the command's two outputs. Whatever happens to it, what is written after that is dropped and the work goes on;
 * a reader that went away (`| head`) is no error.
 */
export class Output {
  readonly #stream: OutputStream;
  readonly color: boolean;
  readonly unicode: boolean;
  readonly #canMoveCursor: boolean;
  readonly #gone = Promise.withResolvers<void>();
  #open = true;
  #failure: Error | undefined;

  constructor(stream: OutputStream, env: Environment, platform: NodeJS.Platform) {
    this.#stream = stream;
    this.color = wantsColor(env, stream.isTTY === true);
    this.unicode = hasUnicode(env, platform);
    this.#canMoveCursor = stream.isTTY === true && env['TERM'] !== 'dumb';
    stream.on('error', (error) => {
      this.#open = false;
      this.#gone.resolve();
      if (!READER_GONE.has(error.code)) this.#failure ??= error;
    });
  }

  /** What could not be written, though somebody may still read it: a disk is full. It is known an event loop later. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Resolves when the reader has gone away, which is noticed when something is written. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /** A terminal that can be drawn on. */
  get isLive(): boolean {
    return this.#canMoveCursor && this.#open;
  }

  get columns(): number {
    return Math.max(MIN_COLUMNS, this.#stream.columns || DEFAULT_COLUMNS);
  }

  get rows(): number {
    return this.#stream.rows || DEFAULT_ROWS;
  }

  get ellipsis(): string {
    return this.unicode ? '…' : '...';
  }

  line(line: Line | string = ''): void {
    this.raw(`${this.render(typeof line === 'string' ? [line] : line)}\n`);
  }

  render(line: Line, width?: number): string {
    return renderLine(line, {
      color: this.color,
      ellipsis: this.ellipsis,
      ...(width === undefined ? {} : { width }),
    });
  }

  /** Writes text as it is. Only for text that this program made safe. */
  raw(text: string): void {
    if (this.#open) this.#stream.write(text);
  }

  onResize(listener: () => void): () => void {
    this.#stream.on('resize', listener);
    return () => this.#stream.off('resize', listener);
  }
}

/** FORCE_COLOR wins over NO_COLOR, and both over what the output is; as Node itself does. */
export function wantsColor(env: Environment, isTty: boolean): boolean {
  const forced = env['FORCE_COLOR'];
  if (forced !== undefined) return forced !== '0' && forced.toLowerCase() !== 'false';
  if ((env['NO_COLOR'] ?? '') !== '') return false;
  return isTty && env['TERM'] !== 'dumb';
}

/** Under `LANG=C` a terminal may show the bytes of a `…` one by one. Nothing set at all says nothing about the terminal. */
export function hasUnicode(env: Environment, platform: NodeJS.Platform): boolean {
  if (platform === 'win32') return true;
  const locale = [env['LC_ALL'], env['LC_CTYPE'], env['LANG']].find(
    (value) => (value ?? '') !== '',
  );
  return locale === undefined || /utf-?8/i.test(locale);
}
