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
 * Takes the unified diff out of what a model wrote (each character a byte, if the files may be in any encoding): code fences and prose around it are dropped, several diffs are
 * joined, headers without `diff --git` are fine. Other formats are refused by name.
 */
export function extractPatch(text: string): PatchText {
  // The mark of UTF-8, also as its three bytes when each byte is a character.
  const lines = text.replace(/^(?:\ufeff|\u00ef\u00bb\u00bf)/, '').split('\n');
  const diff = new DiffScanner(lines).scan();
  if (diff.lines.length === 0 || !diff.hasChange)
    return { kind: 'refused', reason: describeOther(text) };
  return {
    kind: 'diff',
    text: `${diff.lines.join('\n')}\n`,
    strip: diff.paths.every(hasPrefix) ? 1 : 0,
  };
}

const HUNK = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$/s;
/** Lines that git writes between `diff --git` and the first hunk. */
const EXTENDED_HEADER =
  /^(?:index [0-9a-f]+\.\.|(?:old|new) mode |(?:new|deleted) file mode |(?:dis)?similarity index |(?:rename|copy) (?:from|to) |Binary files |GIT binary patch)/;

/** Walks through the lines and keeps those that belong to a diff. */
class DiffScanner {
  readonly #lines: readonly string[];
  readonly #kept: string[] = [];
  readonly #paths: string[] = [];
  #hasChange = false;
  #at = 0;

  constructor(lines: readonly string[]) {
    this.#lines = lines;
  }

  scan(): {
    readonly lines: readonly string[];
    readonly paths: readonly string[];
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
    for (const header of [this.#line(), this.#line(1)]) {
      const name = header.slice(4).split('\t')[0]?.trim() ?? '';
      if (name !== '/dev/null') this.#paths.push(name);
    }
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

function hasPrefix(name: string): boolean {
  return /^"?[ab]\//.test(name);
}

const OTHER_FORMATS: readonly (readonly [RegExp, string])[] = [
  [
    /^\*\*\* (?:Begin Patch|Update File:|Add File:|Delete File:)/m,
    'an apply_patch block (*** Begin Patch)',
  ],
  [/^<{5,9} ?SEARCH/m, 'search/replace blocks (<<<<<<< SEARCH)'],
  [/^\*\*\* .*\n--- .*\n\*{15}/m, 'a context diff (*** and ---)'],
  [/^@@(?: |$)(?!-\d)/m, 'a diff whose hunks have no line numbers'],
  [/^\d+(?:,\d+)?[acd]\d+(?:,\d+)?\n[<>] /m, 'a normal diff (1c1, <, >)'],
  [/^\s*(?:```json\s*)?[[{]\s*"/, 'JSON'],
];

function describeOther(text: string): string {
  const wanted =
    'Expected a unified diff: "--- a/path" and "+++ b/path", then hunks that begin with "@@ -1,3 +1,4 @@"';
  if (text.trim() === '') return `${wanted}; got an empty text.`;
  const other = OTHER_FORMATS.find(([pattern]) => pattern.test(text))?.[1];
  return `${wanted}; got ${other ?? 'a text without any diff'}.`;
}
