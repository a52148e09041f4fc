import type { Output } from './terminal.ts';
import { displayWidth, type Line } from './text.ts';

/** So often at most: more than the eye can use only flickers. */
const MIN_INTERVAL_MS = 80;
/** Elapsed times are redrawn that often when nothing else happens. */
const TICK_MS = 1_000;

const HIDE_CURSOR = '\u001b[?25l';
const SHOW_CURSOR = '\u001b[?25h';
const CLEAR_TO_END_OF_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';
/** A terminal that knows it shows everything between the two at once; others ignore it. */
const BEGIN_UPDATE = '\u001b[?2026h';
const END_UPDATE = '\u001b[?2026l';

/**
 * Some lines at the bottom of a terminal, redrawn in place: the cursor goes back up, every line is written over the
 * one that was there, what is left over is cleared. One write for each frame, none if nothing changed.
 */
export class LiveArea {
  readonly #output: Output;
  readonly #draw: () => readonly Line[];
  readonly #off: () => void;
  readonly #restore = (): void => this.#output.raw(SHOW_CURSOR);
  #widths: readonly number[] = [];
  #frame = '';
  #lastDrawn = 0;
  #pending: NodeJS.Timeout | undefined;
  readonly #ticker: NodeJS.Timeout;
  #closed = false;

  /** @param draw the lines of now; called for every frame, each line is cut to the width of the terminal */
  constructor(output: Output, draw: () => readonly Line[]) {
    this.#output = output;
    this.#draw = draw;
    output.raw(HIDE_CURSOR);
    // Also when the process ends by an error that nobody caught.
    process.once('exit', this.#restore);
    this.#off = output.onResize(() => this.refresh());
    this.#ticker = setInterval(() => this.#paint(), TICK_MS);
    this.#ticker.unref();
    this.#paint();
  }

  /** Redraws soon. */
  refresh(): void {
    if (this.#closed || this.#pending !== undefined) return;
    const wait = Math.max(0, this.#lastDrawn + MIN_INTERVAL_MS - performance.now());
    this.#pending = setTimeout(() => this.#paint(), wait);
    this.#pending.unref();
  }

  /** Draws a last time, or takes the lines away, and gives the cursor back. Idempotent. */
  close(options: { readonly clear?: boolean } = {}): void {
    if (this.#closed) return;
    if (options.clear === true) this.#output.raw(this.#up() + CLEAR_BELOW);
    else this.#paint();
    this.#closed = true;
    clearTimeout(this.#pending);
    clearInterval(this.#ticker);
    this.#off();
    this.#restore();
    process.off('exit', this.#restore);
  }

  #paint(): void {
    clearTimeout(this.#pending);
    this.#pending = undefined;
    if (this.#closed || !this.#output.isLive) return;
    // The last column stays free: some terminals wrap when it is written to.
    const width = this.#output.columns - 1;
    const lines = this.#draw().map((line) => this.#output.render(line, width));
    const frame = lines.map((line) => `${line}${CLEAR_TO_END_OF_LINE}\n`).join('');
    if (frame === this.#frame && this.#widths.every((cells) => cells <= width)) return;
    this.#output.raw(BEGIN_UPDATE + this.#up() + frame + CLEAR_BELOW + END_UPDATE);
    this.#frame = frame;
    this.#widths = lines.map(cellsOf);
    this.#lastDrawn = performance.now();
  }

  /** To the first line of the last frame. A terminal that has become narrower has wrapped the lines it shows. */
  #up(): string {
    const columns = this.#output.columns;
    const rows = this.#widths.reduce(
      (sum, cells) => sum + Math.max(1, Math.ceil(cells / columns)),
      0,
    );
    return rows === 0 ? '' : `\r\u001b[${rows}A`;
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: the codes that renderLine writes
const STYLES = /\u001b\[\d+m/g;
const cellsOf = (line: string): number => displayWidth(line.replaceAll(STYLES, ''));
