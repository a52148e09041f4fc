import { stripVTControlCharacters } from 'node:util';

/*
 * Text for a terminal. Titles, reasons and outputs come from files, agents and models: whatever is shown goes through
 * `cleanLine` or `cleanBlock` first, so that nothing in it can move the cursor, change colours, write to the
 * clipboard (OSC 52), hide behind a link (OSC 8) or turn the reading direction (Trojan Source).
 */

/** Everything invisible that acts: C0 and C1 controls, direction marks and overrides, zero-width and tag characters. */
const CONTROLS =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that must not get through
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;
const LONE_SURROGATES = /\p{Cs}/gu;

/** One line that is safe to print: white space becomes a blank, what acts is gone. */
export function cleanLine(text: string): string {
  return stripVTControlCharacters(text)
    .replaceAll(/[\t\n\v\f\r\u0085\u2028\u2029]+/g, ' ')
    .replaceAll(CONTROLS, '')
    .replaceAll(LONE_SURROGATES, '\ufffd');
}

/** The same for several lines. What a carriage return would have overwritten stays to be seen, on a line of its own. */
export function cleanBlock(text: string): readonly string[] {
  const lines = stripVTControlCharacters(text).split(/\r?\n|[\r\v\f\u0085\u2028\u2029]/);
  while (lines.at(-1) === '') lines.pop();
  return lines.map((line) => cleanLine(line.replaceAll('\t', '  ')));
}

let segmenter: Intl.Segmenter | undefined;

/** Made when a line is not plain: its tables take longer to load than all of the rest that is needed to print. */
function graphemesOf(text: string): Intl.Segments {
  segmenter ??= new Intl.Segmenter('en', { granularity: 'grapheme' });
  return segmenter.segment(text);
}

/** Two cells wide in a terminal. Source: https://www.unicode.org/reports/tr11/ (East Asian Width W and F). */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}|\ufe0f/u;
/** One cell each, whatever stands beside it: ASCII, Latin letters, and the marks that we print ourselves. */
const PLAIN = /^[\u0020-\u007e\u00a1-\u00ac\u00ae-\u024f–‖…→↻─░█○◑◔◕✓✗]*$/;

/** Cells that a clean line takes up in a terminal. */
export function displayWidth(text: string): number {
  if (PLAIN.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemesOf(text)) width += graphemeWidth(segment);
  return width;
}

function graphemeWidth(segment: string): number {
  if (/^\p{M}+$/u.test(segment)) return 0;
  return WIDE.test(segment) ? 2 : 1;
}

/** At most `width` cells of a clean line; what is cut is marked. */
export function truncate(text: string, width: number, ellipsis = '…'): string {
  if (displayWidth(text) <= width) return text;
  const mark = displayWidth(ellipsis) <= width ? ellipsis : '';
  const room = width - displayWidth(mark);
  if (PLAIN.test(text)) return text.slice(0, Math.max(0, room)) + mark;
  let kept = '';
  let used = 0;
  for (const { segment } of graphemesOf(text)) {
    const next = graphemeWidth(segment);
    if (used + next > room) break;
    kept += segment;
    used += next;
  }
  return kept + mark;
}

/** Breaks a clean line between words so that no part is wider than `width`; longer words are broken as well. */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (let word of text.split(' ')) {
    if (line !== '' && displayWidth(line) + 1 + displayWidth(word) > width) {
      lines.push(line);
      line = '';
    }
    while (displayWidth(word) > width) {
      const head = truncate(word, width, '');
      if (head === '') break;
      lines.push(head);
      word = word.slice(head.length);
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  if (line !== '' || lines.length === 0) lines.push(line);
  return lines;
}

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'blue' | 'cyan' | 'magenta';

const CODES: Readonly<Record<Style, readonly [on: number, off: number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  blue: [34, 39],
  magenta: [35, 39],
  cyan: [36, 39],
};

/** A part of a line, as data: the only way to a colour, so that no text can bring its own. */
export type Span = string | { readonly text: string; readonly style: Style };
export type Line = readonly Span[];

export interface RenderOptions {
  readonly color: boolean;
  /** Cut to so many cells. Default: not cut. */
  readonly width?: number;
  /** What marks a cut. Default `…`. */
  readonly ellipsis?: string;
}

/** A line as it is written: every text cleaned, cut to the width, styled if wanted. Without the line feed. */
export function renderLine(
  line: Line,
  { color, width = Number.POSITIVE_INFINITY, ellipsis = '…' }: RenderOptions,
): string {
  const parts = line.map((span) =>
    typeof span === 'string'
      ? { text: cleanLine(span), style: undefined }
      : { text: cleanLine(span.text), style: span.style },
  );
  const cut = parts.reduce((sum, { text }) => sum + displayWidth(text), 0) > width;
  let left = cut ? width - displayWidth(ellipsis) : width;
  let out = '';
  for (const { text, style } of parts) {
    const shown = cut ? truncate(text, Math.max(0, left), '') : text;
    left -= displayWidth(shown);
    const codes = color && style !== undefined && shown !== '' ? CODES[style] : undefined;
    out += codes === undefined ? shown : `\u001b[${codes[0]}m${shown}\u001b[${codes[1]}m`;
    if (shown !== text) break;
  }
  return cut && width >= displayWidth(ellipsis) ? out + ellipsis : out;
}

/** Pads on the right to so many cells; `right` aligns to the right. */
export function pad(text: string, width: number, side: 'left' | 'right' = 'left'): string {
  const blanks = ' '.repeat(Math.max(0, width - displayWidth(text)));
  return side === 'left' ? text + blanks : blanks + text;
}

/** JSON that is safe to print as well: what `JSON.stringify` leaves as it is and a terminal acts on is escaped. */
export function safeJson(value: unknown, indent = 2): string {
  return JSON.stringify(value, null, indent).replaceAll(
    /[\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu,
    (character) =>
      Array.from({ length: character.length }, (_, at) => {
        return `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`;
      }).join(''),
  );
}

/** `42s`, `3m05s`, `2h07m`, `4d03h`. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number): string => String(n).padStart(2, '0');
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
  if (seconds < 86_400) {
    return `${Math.floor(seconds / 3600)}h${two(Math.floor((seconds % 3600) / 60))}m`;
  }
  return `${Math.floor(seconds / 86_400)}d${two(Math.floor((seconds % 86_400) / 3600))}h`;
}

/** The local time, `12:03:11`, with the date before it when that is another day than `now`. */
export function formatWhen(at: number, now: number): string {
  const date = new Date(at);
  if (date.toDateString() === new Date(now).toDateString()) return formatTime(at);
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()];
  return `${day.map((part) => String(part).padStart(2, '0')).join('-')} ${formatTime(at)}`;
}

/** The local time of day, `12:03:11`. */
export function formatTime(at: number): string {
  const date = new Date(at);
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((part) => String(part).padStart(2, '0'))
    .join(':');
}
