/** What was found in a text that should hold a patch. */
export type PatchText =
  | {
      readonly kind: 'diff';
      readonly text: string;
      /** Leading path components to strip (`git apply -p`): 1 for `a/` and `b/`, 0 for bare names. */
      readonly strip: 0 | 1;
    }
  | { readonly kind: 'refused'; readonly reason: string };

/**
 * Takes the unified diff out of what a model wrote (each character a byte, if the files may be in any encoding): code
 * fences and prose around it are dropped, and so is the margin of one that is indented or quoted; several diffs are
 * joined, headers without `diff --git` are fine. Other formats are refused by name.
 */
export function extractPatch(text: string): PatchText {
  // The mark of UTF-8, also as its three bytes when each byte is a character.
  const lines = text.replace(/^(?:\ufeff|\u00ef\u00bb\u00bf)/, '').split('\n');
  let diff = new DiffScanner(lines).scan();
  if (diff.lines.length === 0) diff = new DiffScanner(withoutMargin(lines, text)).scan();
  if (diff.lines.length === 0 || !diff.hasChange)
    return { kind: 'refused', reason: describeOther(text) };
  return {
    kind: 'diff',
    text: `${diff.lines.join('\n')}\n`,
    strip: havePrefixes(diff.paths) ? 1 : 0,
  };
}

/** What stands before each line of a diff inside of a list, or in the answer to a mail. */
const MARGIN = /^([ \t>]{1,40})(?:diff --git |--- [^\n]*\n\1\+\+\+ )/m;

function withoutMargin(lines: readonly string[], text: string): readonly string[] {
  const margin = MARGIN.exec(text)?.[1];
  if (margin === undefined) return [];
  return lines.map((line) => {
    if (line.startsWith(margin)) return line.slice(margin.length);
    // Of an empty line editors strip the blanks of the margin as well.
    return line.trimEnd() === margin.trimEnd() || line.trim() === '' ? '' : line;
  });
}

const HUNK = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$/s;
/** Lines that git writes between `diff --git` and the first hunk. */
const EXTENDED_HEADER =
  /^(?:index [0-9a-f]+\.\.|(?:old|new) mode |(?:new|deleted) file mode |(?:dis)?similarity index |(?:rename|copy) (?:from|to) |Binary files |GIT binary patch)/;

/** Walks through the lines and keeps those that belong to a diff. */
class DiffScanner {
  readonly #lines: readonly string[];
  readonly #kept: string[] = [];
  readonly #paths: DiffPaths[] = [];
  #hasChange = false;
  #at = 0;

  constructor(lines: readonly string[]) {
    this.#lines = lines;
  }

  scan(): {
    readonly lines: readonly string[];
    readonly paths: readonly DiffPaths[];
    readonly hasChange: boolean;
  } {
    while (this.#at < this.#lines.length) {
      const line = this.#line();
      if (line.startsWith('diff --git ')) this.#takeGitHeader();
      else if (line.startsWith('--- ') && this.#line(1).startsWith('+++ ')) this.#takeNames();
      else if (HUNK.test(line) && this.#kept.length > 0) this.#takeHunk();
      else this.#at++;
    }
    return { lines: this.#kept, paths: this.#paths, hasChange: this.#hasChange };
  }

  #takeGitHeader(): void {
    this.#take();
    while (EXTENDED_HEADER.test(this.#line())) {
      const header = this.#line();
      // A file that only appears, goes, moves or changes its mode has no hunk.
      if (!header.startsWith('index ')) this.#hasChange = true;
      this.#take();
      if (header.startsWith('GIT binary patch')) this.#takeBinary();
    }
  }

  #takeNames(): void {
    const [before = '', after = ''] = [this.#line(), this.#line(1)].map(
      (header) => header.slice(4).split('\t')[0]?.trim() ?? '',
    );
    this.#paths.push({ before, after });
    this.#take();
    this.#take();
  }

  /** By its counts first, then by what still looks like part of it: models miscount. Leaves the right counts. */
  #takeHunk(): void {
    const headerAt = this.#kept.length;
    const [, start, before, freshStart, after, rest] = HUNK.exec(this.#line()) ?? [];
    const wanted = { old: Number(before ?? 1), fresh: Number(after ?? 1) };
    const got = { old: 0, fresh: 0 };
    let blankAtEnd = 0;
    this.#hasChange = true;
    this.#take();
    while (this.#at < this.#lines.length) {
      const line = this.#line();
      // Editors and models strip the space of an empty context line.
      const blank = line === '' || line === '\r';
      const mark = blank ? ' ' : line[0];
      if (mark === '\\') {
        this.#take();
        continue;
      }
      if (mark !== ' ' && mark !== '+' && mark !== '-') break;
      const full = got.old >= wanted.old && got.fresh >= wanted.fresh;
      const tooLong = got.old > wanted.old || got.fresh > wanted.fresh;
      // Beyond the counts only a change shows that they are wrong, and then the context after it belongs here too.
      if (full && (blank || (mark === ' ' && !tooLong))) break;
      // `-- ` begins the signature of a mail.
      if (full && (line === '-- ' || this.#isNames())) break;
      if (mark !== '+') got.old++;
      if (mark !== '-') got.fresh++;
      blankAtEnd = blank ? blankAtEnd + 1 : 0;
      this.#take();
    }
    if (got.old === wanted.old && got.fresh === wanted.fresh) return;
    // Empty lines at the end of a hunk that should have been longer are the text's, not the file's.
    this.#kept.length -= blankAtEnd;
    const [old, fresh] = [got.old - blankAtEnd, got.fresh - blankAtEnd];
    this.#kept[headerAt] = `@@ -${start},${old} +${freshStart},${fresh} @@${rest}`;
  }

  #takeBinary(): void {
    while (/^(?:literal|delta) \d+$|^[A-Za-z][\x21-\x7e]+$|^$/.test(this.#line())) {
      if (this.#at >= this.#lines.length) return;
      this.#take();
    }
  }

  #isNames(): boolean {
    return this.#line().startsWith('--- ') && this.#line(1).startsWith('+++ ');
  }

  #line(ahead = 0): string {
    return this.#lines[this.#at + ahead] ?? '';
  }

  #take(): void {
    this.#kept.push(this.#line());
    this.#at++;
  }
}

/** The names of one file in the two lines that begin with `---` and `+++`. */
interface DiffPaths {
  readonly before: string;
  readonly after: string;
}

/** What `diff.mnemonicPrefix` makes of `a/` and `b/`: commit, index, working tree, object, and the files of `--no-index`. */
const MNEMONIC = ['ci', 'cw', 'iw', 'ow', '12', 'ic', 'wc', 'wi', 'wo', '21'];

/**
 * Whether the first part of each name is none of the file's path. One letter in both lines may also be a directory,
 * unless it is that of `a/` and `b/`.
 */
function havePrefixes(paths: readonly DiffPaths[]): boolean {
  return paths.every(({ before, after }) => {
    const names = [before, after].filter((name) => name !== '/dev/null');
    if (names.every((name) => /^"?(?:[ab]|\.)\//.test(name))) return true;
    const pair = names.map((name) => /^"?([ciow12])\//.exec(name)?.[1] ?? '').join('');
    return MNEMONIC.includes(pair);
  });
}

const OTHER_FORMATS: readonly (readonly [RegExp, string])[] = [
  [
    /^\*\*\* (?:Begin Patch|Update File:|Add File:|Delete File:)/m,
    'an apply_patch block (*** Begin Patch)',
  ],
  [/^<{5,9} ?SEARCH/m, 'search/replace blocks (<<<<<<< SEARCH)'],
  [/^\*\*\* .*\n--- .*\n\*{15}/m, 'a context diff (*** and ---)'],
  [
    /^<{7} [^\n]*\n(?:[\s\S]*\n)?={7}\r?\n(?:[\s\S]*\n)?>{7} /m,
    'conflict markers (<<<<<<<, >>>>>>>)',
  ],
  [/^@@@+ -\d/m, 'the combined diff of a merge (@@@)'],
  [/^@@ -\d/m, 'hunks with no names of files before them'],
  [/^@@(?:[ \r]|$)(?!-\d)/m, 'a diff whose hunks have no line numbers'],
  [/^--- [^\n]*\n\+\+\+ /m, 'the names of files with no hunk after them'],
  [/^\d+(?:,\d+)?[acd]\d+(?:,\d+)?\r?\n[<>] /m, 'a normal diff (1c1, <, >)'],
  [/^\d+(?:,\d+)?[acd]\r?\n(?:[^\n]*\n)*?\.\r?$/m, 'an ed script (2c, .)'],
  [/\[-[^\n]*-\]|\{\+[^\n]*\+\}/, 'a word diff ([-old-]{+new+})'],
  [/^\s*(?:```json\s*)?[[{]\s*"/, 'JSON'],
  [/^[ \t]*(?:`{3}|~{3})/m, 'code in a fence, with no diff in it'],
];

function describeOther(text: string): string {
  const wanted =
    'Expected a unified diff: "--- a/path" and "+++ b/path", then hunks that begin with "@@ -1,3 +1,4 @@"';
  if (text.trim() === '') return `${wanted}; got an empty text.`;
  const other = OTHER_FORMATS.find(([pattern]) => pattern.test(text))?.[1];
  return `${wanted}; got ${other ?? 'a text without any diff'}.`;
}
