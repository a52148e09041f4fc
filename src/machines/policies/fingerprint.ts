import { deepHash } from '../../protocol/hash.ts';
import { isFrameContext, stripNoise, terminalLines } from './error-noise.ts';
import { type OutputLine, orderReports, roleOf, withoutPasses } from './test-reports.ts';

/**
 * Of long output only the beginning and the end count: compilers name the first fault at the beginning, test runners sum
 * up at the end, and a task must not hold up its host over 300 MB of log. From each end so much is kept …
 */
const KEPT_CHARS = 64 * 1024;
const KEPT_LINES = 4096;
/** … and twice as much is read, so that noise of varying length does not move the cut. */
const READ_CHARS = 2 * KEPT_CHARS;
const READ_LINES = 2 * KEPT_LINES;

/** The same for one line, such as minified code or a dump in one line. */
const KEPT_LINE_CHARS = 2048;
const READ_LINE_CHARS = 2 * KEPT_LINE_CHARS;

const CUT = '<cut>';

/**
 * The failure text without what varies from run to run, so that the same failure has the same text:
 * without folders (file names stay), temporary names, hashes, durations, times, addresses, ports, process numbers,
 * lines and columns, colours, progress and artifact pointers, and with the reports of parallel tests in one order.
 * Names, messages, values, counts, percentages and exit codes stay.
 * Time and memory are linear in the text up to 256 Ki characters, and constant beyond.
 */
export function normaliseErrorText(text: string): string {
  const whole = text.length <= 2 * READ_CHARS ? terminalLines(text) : undefined;
  if (whole !== undefined && whole.length <= 2 * READ_LINES) {
    const lines = readLines(whole);
    const head = takeWithin(lines);
    const tail = takeWithin(lines.toReversed()).reverse();
    if (head.length + tail.length >= lines.length) return orderReports(lines).join('\n');
    return joinCut(head, tail);
  }
  const first = whole ?? terminalLines(text.slice(0, READ_CHARS));
  const last = whole ?? terminalLines(text.slice(-READ_CHARS));
  return joinCut(
    takeWithin(readLines(first.slice(0, READ_LINES))),
    takeWithin(readLines(last.slice(-READ_LINES)).reverse()).reverse(),
  );
}

/**
 * The key of a failure: equal for the same failure in another place at another time.
 * @returns 64 hex digits, or undefined when the text says nothing (it then neither counts nor resets a streak)
 */
export function errorFingerprint(text: string): string | undefined {
  const normal = normaliseErrorText(text);
  return normal === '' ? undefined : deepHash(normal);
}

/**
 * The key of a list of review remarks. Their order does not matter; their text, their borders and how often each one
 * is there do: `['a|b']` is not `['a', 'b']`.
 * @returns 64 hex digits, or undefined for an empty list: saying nothing twice is no repetition
 */
export function feedbackFingerprint(items: readonly string[]): string | undefined {
  return items.length === 0 ? undefined : deepHash(items.toSorted());
}

function readLines(lines: readonly string[]): OutputLine[] {
  let inPrettyTsc = false;
  return lines.map((line, i) => {
    const start = line.slice(0, KEPT_LINE_CHARS);
    const role = roleOf(start);
    // tsc's frames number their lines without a bar: `12   const x = 1;`
    if (role !== 'text') inPrettyTsc = start.includes(' - error TS');
    const unnumbered = inPrettyTsc ? line.replace(/^\d+(?=\s)/, '') : line;
    const text = isFrameContext(start, lines[i + 1]) ? '' : stripNoiseOfLine(unnumbered);
    return {
      role,
      indent: start.search(/\S|$/),
      text: role === 'mark' ? withoutPasses(text) : text,
    };
  });
}

function stripNoiseOfLine(line: string): string {
  if (line.length > 2 * READ_LINE_CHARS) {
    const head = stripNoise(line.slice(0, READ_LINE_CHARS));
    return cutLine(head, stripNoise(line.slice(-READ_LINE_CHARS)));
  }
  const text = stripNoise(line);
  return text.length <= 2 * KEPT_LINE_CHARS ? text : cutLine(text, text);
}

function cutLine(head: string, tail: string): string {
  if (head === '' && tail === '') return '';
  return `${head.slice(0, KEPT_LINE_CHARS)}${CUT}${tail.slice(-KEPT_LINE_CHARS)}`;
}

/** As many lines from the front as fit. Lines of noise take no room. */
function takeWithin(lines: readonly OutputLine[]): OutputLine[] {
  let chars = 0;
  let kept = 0;
  const end = lines.findIndex(({ text }) => {
    if (text === '') return false;
    chars += text.length + 1;
    kept += 1;
    return chars > KEPT_CHARS || kept > KEPT_LINES;
  });
  return end < 0 ? [...lines] : lines.slice(0, end);
}

function joinCut(head: readonly OutputLine[], tail: readonly OutputLine[]): string {
  if (![...head, ...tail].some(({ text }) => text !== '')) return '';
  return [...orderReports(head), CUT, ...orderReports(tail)].join('\n');
}
