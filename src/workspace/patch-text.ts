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
 * Takes the unified diff out of what a model wrote: code fences and prose around it are dropped, several diffs are
 * joined, headers without `diff --git` are fine. Other formats are refused by name.
 */
export function extractPatch(text: string): PatchText {
  const lines = text.replace(/^\ufeff/, '').split('\n');
  const diff = new DiffScanner(lines).scan();
  if (diff.lines.length === 0 || !diff.hasChange)
    return { kind: 'refused', reason: describeOther(text) };
  return {
    kind: 'diff',
    text: `${diff.lines.join('\n')}\n`,
    strip: diff.paths.every(hasPrefix) ? 1 : 0,
  };
}

const HUNK = /^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@/;
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

  /** By its counts first, then by what still looks like part of it: models miscount. */
  #takeHunk(): void {
    const [, before, after] = HUNK.exec(this.#line()) ?? [];
    let old = Number(before ?? 1);
    let fresh = Number(after ?? 1);
    this.#hasChange = true;
    this.#take();
    while (this.#at < this.#lines.length) {
      const line = this.#line();
      const mark = line[0];
      if (line.startsWith('\\ ')) {
        this.#take();
        continue;
      }
      if (old > 0 || fresh > 0) {
        // Editors and models strip the space of an empty context line.
        const context = mark === ' ' || line === '' || line === '\r';
        if (!context && mark !== '+' && mark !== '-') return;
        if (mark !== '+') old--;
        if (mark !== '-') fresh--;
      } else if (line === '-- ' || (mark !== '+' && mark !== '-') || this.#isNames()) {
        return; // `-- ` begins the signature of a mail
      }
      this.#take();
    }
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
