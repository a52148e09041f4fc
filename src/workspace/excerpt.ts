/** Evidence carries at most this many characters of one command's output. */
export const MAX_EXCERPT_CHARACTERS = 4000;

/**
 * Head and tail of an output, fit to be stored, shown and given to the next attempt: at most `limit` characters,
 * without escape sequences and control characters. The tail gets two thirds, since failures are reported last.
 */
export function excerptOf(output: string, limit = MAX_EXCERPT_CHARACTERS): string {
  const text = stripControls(output).trim();
  if (text.length <= limit) return text;
  const note = '\n[…]\n';
  const head = Math.floor((limit - note.length) / 3);
  const tail = limit - note.length - head;
  return `${text.slice(0, head).toWellFormed()}${note}${text.slice(-tail).toWellFormed()}`;
}

/**
 * Removes what a terminal would obey: CSI and OSC sequences, other escapes, control characters but newline and
 * tab, and the marks that turn the direction of writing. `\r\n` becomes `\n`; what a lone `\r` hid stays visible.
 */
export function stripControls(text: string): string {
  return text.replace(ESCAPE_SEQUENCES, '').replace(/\r\n?/g, '\n').replace(CONTROL_CHARACTERS, '');
}

// Written without literal control characters: the linter refuses those in a pattern, and so would a reader.
const ESCAPE = String.fromCharCode(0x1b);
const BELL = String.fromCharCode(0x07);
const CSI = `(?:${ESCAPE}\\[|${String.fromCharCode(0x9b)})`;
const ESCAPE_SEQUENCES = new RegExp(
  [
    // OSC, DCS, APC, PM and SOS up to their terminator; an unterminated one ends with its line.
    `${ESCAPE}[\\]PX^_][^${BELL}${ESCAPE}\\n]*(?:${BELL}|${ESCAPE}\\\\)?`,
    `${CSI}[0-?]*[ -/]*[@-~]`,
    `${ESCAPE}[ -/]*[0-~]`,
  ].join('|'),
  'g',
);
const CONTROL_CHARACTERS = /(?![\n\t])\p{Cc}|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
