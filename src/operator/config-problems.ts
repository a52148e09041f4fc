import { ConfigurationError } from '../index.ts';

/** One thing wrong with a configuration file, and where. */
export interface ConfigProblem {
  /** The file, as it is shown to the user. */
  readonly file: string;
  /** Both count from 1; both are 0 when the problem is the file itself and not a place in it. */
  readonly line: number;
  readonly column: number;
  /** Path of the key: `verify[0].timeout`; empty for the file as a whole. */
  readonly path: string;
  /** A function when the text is costly (a search for similar names) and perhaps never shown. */
  readonly message: string | (() => string);
}

/** More than this helps nobody: the first ones usually explain the rest. */
const MAX_SHOWN = 20;

/**
 * The one error for all that is wrong with a configuration, in the order of the lines.
 * The message is ready to print; `context.problems` has the same as data (the first 20, with `context.total`).
 */
export function configurationError(
  file: string,
  problems: readonly ConfigProblem[],
): ConfigurationError {
  const files = [...new Set([file, ...problems.map((problem) => problem.file)])];
  const sorted = problems.toSorted(
    (a, b) =>
      files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line || a.column - b.column,
  );
  const shown = sorted.slice(0, MAX_SHOWN).map(({ message, ...where }) => ({
    ...where,
    message: typeof message === 'string' ? message : message(),
  }));
  const lines = shown.map(
    ({ file, line, column, path, message }) =>
      `${file}${line === 0 ? '' : `:${line}:${column}`}: ${path === '' ? '' : `${path}: `}${message}`,
  );
  const total = problems.length;
  const heading =
    total === 1
      ? `${file} cannot be used, because of 1 problem:`
      : `${file} cannot be used, because of ${total} problems${total > MAX_SHOWN ? ` (the first ${MAX_SHOWN} follow)` : ''}:`;
  return new ConfigurationError([heading, ...lines].join('\n'), {
    context: { file, total, problems: shown },
  });
}

/** Writes a path the way people do: `tasks[3].limits.backoff`. */
export function formatPath(path: readonly PropertyKey[]): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else text += `${text === '' ? '' : '.'}${shorten(String(part), 64)}`;
  }
  // Whoever nests that deep looks for the place by its line.
  return text.length <= 160 ? text : `${text.slice(0, 80)}…${text.slice(-40)}`;
}

/** What came, in words: `the text "soon"`, `a list of 3 items`, `nothing`. */
export function describeValue(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  switch (typeof value) {
    case 'string':
      return value === '' ? 'an empty text' : `the text ${JSON.stringify(shorten(value, 60))}`;
    case 'number':
      return `the number ${value}`;
    case 'boolean':
      return String(value);
    default:
      break;
  }
  if (Array.isArray(value)) {
    return value.length === 0
      ? 'an empty list'
      : `a list of ${value.length} item${value.length === 1 ? '' : 's'}`;
  }
  const keys = Object.keys(value);
  if (keys.length === 0) return 'an empty mapping';
  const first = keys.slice(0, 3).map((key) => shorten(key, 30));
  return `a mapping with the key${keys.length === 1 ? '' : 's'} ${first.join(', ')}${keys.length > 3 ? ', …' : ''}`;
}

/** `; did you mean a?`, or else what there is to choose from, or else nothing. */
export function suggestion(word: string, known: readonly string[], choices: string): string {
  const near = nearest(word, known);
  if (near !== undefined) return `; did you mean ${near}?`;
  if (known.length === 0) return '';
  const listed = known.slice(0, 12).join(', ');
  return `; ${choices} ${listed}${known.length > 12 ? `, … (${known.length} in all)` : ''}`;
}

/** What other tools call it. Used only where the name on the right is known. */
const OTHER_NAMES: ReadonlyMap<string, string> = new Map([
  ['command', 'run'],
  ['cmd', 'run'],
  ['exec', 'run'],
  ['deps', 'dependsOn'],
  ['depends', 'dependsOn'],
  ['needs', 'dependsOn'],
  ['after', 'dependsOn'],
  ['requires', 'dependsOn'],
  ['branch', 'target'],
  ['env', 'environment'],
  ['retries', 'attempts'],
  ['maxattempts', 'attempts'],
  ['parallel', 'concurrency'],
  ['workers', 'concurrency'],
  ['optional', 'allowFail'],
  ['commands', 'verify'],
  ['gates', 'verify'],
]);

/** The known word that was probably meant; undefined when none is near enough to say so. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const plain = simplify(word);
  const other = OTHER_NAMES.get(plain);
  if (other !== undefined && known.includes(other)) return other;
  // A third of the letters may differ: "tmeout" is timeout, "agent" is not target.
  let allowed = Math.max(1, Math.floor(plain.length / 3));
  let best: string | undefined;
  for (const candidate of known) {
    const simple = simplify(candidate);
    if (simple === plain) return candidate;
    const distance = editDistance(plain, simple, allowed);
    if (distance <= allowed) {
      best = candidate;
      allowed = distance - 1;
    }
  }
  return best;
}

function simplify(word: string): string {
  return word.toLowerCase().replaceAll(/[-_ .]/g, '');
}

/**
 * Letters to insert, drop, change or swap with a neighbour to turn `a` into `b`; any number above `limit` when more.
 * Source: optimal string alignment, https://en.wikipedia.org/wiki/Damerau%E2%80%93Levenshtein_distance
 */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(
        (last[j] ?? 0) + 1,
        (row[j - 1] ?? 0) + 1,
        (last[j - 1] ?? 0) + (same ? 0 : 1),
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (beforeLast[j - 2] ?? 0) + 1);
      }
      row.push(cost);
    }
    if (Math.min(...row) > limit) return limit + 1;
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? limit + 1;
}

/** At most `max` characters, on one line. */
export function shorten(text: string, max: number): string {
  const line = text.replaceAll(/\s+/g, ' ');
  return line.length <= max ? line : `${line.slice(0, max - 1)}…`;
}
