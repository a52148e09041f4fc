/*
 * What the source of a test says about itself: which tests it declares, what they assert, what it leaves out. Read line
 * by line, without a parser for any language: enough to see that something was taken away, and cheap enough to look at
 * every change. What is in comments and in strings does not count.
 */

/** What was found in one source file. */
export interface TestSource {
  /** One entry per declared test: its line, without the marks that skip it. */
  readonly tests: readonly string[];
  /** One entry per assertion: its line, and its number on that line. One that is always true is none. */
  readonly assertions: readonly string[];
  readonly marks: readonly TestMark[];
  /** Names of tests and groups. */
  readonly names: ReadonlySet<string>;
  /** Its lines, without what differs by indentation. */
  readonly lines: readonly string[];
}

/** Something that keeps tests from being run, or their failure from being seen. */
export interface TestMark {
  /** `only` leaves out all other tests, `exit` ends the runner as if it were green. */
  readonly kind: 'skip' | 'only' | 'exit';
  /** The line as it stands. */
  readonly line: string;
  /** The test or group that it is about, where that can be told. */
  readonly subject: string | undefined;
}

/** Where the name of the test stands that a mark is about. `all`: it is about more than one. */
type Subject = 'line' | 'next' | 'previous' | 'all';

interface Language {
  readonly files: RegExp;
  /** A name that only a test has. */
  readonly named: RegExp;
  /** A place where tests lie, among other things: then its content decides. */
  readonly placed?: RegExp;
  /** Tests may stand in any file; what is before the first of them is not test code. */
  readonly inline?: RegExp;
  readonly comments: 'c' | 'hash';
  readonly quotes: string;
  readonly test: RegExp;
  /** Declares a test or a group of tests, and has its name somewhere in the line. */
  readonly name: RegExp;
  readonly assertion: RegExp;
  readonly always: RegExp;
  readonly marks: readonly (readonly [kind: TestMark['kind'], mark: RegExp, subject: Subject])[];
  /** Marks that are comments. */
  readonly markedComments?: RegExp;
}

const PLACES =
  /(?:^|\/)(?:tests?|specs?|__tests__|e2e|integration|cypress|testing)(?:\/|[-_.][^/]*$)|(?:^|\/)tests?\.[^/]+$/;

/** What is alike in the languages that have no entry of their own. */
const OTHER: Language = {
  files: /\.(?:java|kt|kts|scala|groovy|cs|php|swift|dart|cc|cpp|c)$/,
  named:
    /(?:^|\/)src\/(?:test|androidTest)\/|(?:Tests?|IT|Spec)\.(?:java|kts?|scala|groovy|cs|php|swift)$|[_.-](?:spec|test)\.(?:rb|exs|dart|cc|cpp|c|sh)$|\.bats$/,
  placed: PLACES,
  comments: 'c',
  quotes: '"',
  test: /@(?:Test|ParameterizedTest)\b|^\s*\[(?:Test|Fact|Theory|TestMethod|TestCase)\b|^\s*(?:it|specify|scenario|test)\s*\(?\s*["']|^\s*@test\b|^\s*def\s+test_|\bfunc(?:tion)?\s+test\w*\s*\(|^\s*TEST(?:_F|_P)?\s*\(/,
  name: /(?:\bvoid|\bfun|\bfunc|\bfunction|\bdef)\s+(\w+)|^\s*(?:it|specify|scenario|test|describe)\b/,
  assertion:
    /\b(?:assert|expect|verify|ASSERT_|EXPECT_|XCTAssert|REQUIRE|CHECK)\w*!?\s*[({]|^\s*assert\b|\.should\b|\bexit\s+[1-9]/g,
  always: /\bassertTrue\(\s*true\s*[,)]/,
  marks: [
    ['skip', /^\s*@(?:Disabled|Ignore)\b|\[(?:Ignore|Skip)\b/, 'next'],
    [
      'skip',
      /\bSkip\s*=|\bmarkTestSkipped\b|\bGTEST_SKIP\b|^\s*x(?:it|describe|specify)\b|^\s*(?:skip|pending)\b|\bXCTSkip\b/,
      'previous',
    ],
    ['exit', /^\s*exit\s+0\b/, 'previous'],
  ],
};

const LANGUAGES: readonly Language[] = [
  {
    files: /\.[cm]?[jt]sx?$/,
    named: /(?:^|\/)__tests__\/.*\.[cm]?[jt]sx?$|[._-](?:test|spec|e2e|cy)s?\.[cm]?[jt]sx?$/,
    placed: PLACES,
    comments: 'c',
    quotes: '\'"`',
    test: /^\s*(?:await\s+|return\s+)?(?:x|f)?(?:it|test|specify)\b(?:\.\w+)*\s*(?:[(`<]|$)|^\s*Deno\.test\s*\(/,
    name: /\b[xf]?(?:describe|it|test|suite|context|specify)\b(?:\.\w+)*\s*(?:\([^)]*\))?\s*\(/,
    assertion:
      /\bexpect(?:\.\w+|TypeOf)*\s*\(|\bassert(?:\.\w+)*\s*\(|\.should\b|\bt\.(?:is|not|deepEqual|notDeepEqual|throws|throwsAsync|true|false|truthy|falsy|equal|ok|same|like|regex|snapshot|assert\.\w+)\s*\(|\bthrow new \w*Error\b|\bprocess\.exit(?:Code\s*=\s*|\(\s*)[1-9]/g,
    always:
      /\bexpect\(\s*(?:true|1|!0)\s*\)\.(?:toBe|toEqual|toStrictEqual)\(\s*(?:true|1|!0)\s*\)|\bexpect\(\s*true\s*\)\.toBeTruthy\(|\bassert(?:\.ok|\.equal|\.strictEqual)?\(\s*(?:true|1)\s*(?:,\s*(?:true|1)\s*)?[,)]/,
    marks: [
      [
        'skip',
        /\b(?:describe|it|test|suite|context|specify|t|this)(?:\.\w+)*\.(?:skip|skipIf|runIf|fixme|failing|fails)\b|^\s*x(?:it|describe|test|context|specify)\s*\(|\bskip:\s*(?:true|['"`])/,
        'line',
      ],
      [
        'only',
        /\b(?:describe|it|test|suite|context|specify)(?:\.\w+)*\.only\b|^\s*f(?:it|describe)\s*\(\s*['"`]|\bonly:\s*true/,
        'line',
      ],
      ['exit', /\bprocess\.exit(?:Code\s*=\s*0|\(\s*0?\s*\))/, 'previous'],
      ['skip', /^\s*if\s*\(\s*(?:false|0)\s*\)/, 'previous'],
    ],
  },
  {
    files: /\.py$/,
    named: /(?:^|\/)test_[^/]*\.py$|_test\.py$|(?:^|\/)(?:tests|conftest)\.py$/,
    placed: PLACES,
    comments: 'hash',
    quotes: '\'"',
    test: /^\s*(?:async\s+)?def\s+test\w*\s*\(/,
    name: /^\s*(?:(?:async\s+)?def|class)\s+(\w+)/,
    assertion:
      /^\s*assert\b|\bself\.(?:assert|fail)\w*\s*\(|\bpytest\.(?:raises|warns|fail)\s*\(|\.assert_\w+\s*\(/g,
    always:
      /^\s*assert\s+(?:True|1)\s*(?:,.*)?$|\bself\.assertTrue\(\s*True\s*[,)]|\bor\s+True\s*$/,
    marks: [
      [
        'skip',
        /^\s*@(?:pytest\.mark\.(?:skip|skipif|xfail)|(?:unittest\.)?(?:skip|skipIf|skipUnless|expectedFailure))\b/,
        'next',
      ],
      [
        'skip',
        /\bpytest\.(?:skip|xfail|importorskip)\s*\(|\bself\.skipTest\s*\(|\braise\s+(?:unittest\.)?SkipTest\b|^\s*if\s+(?:False|0)\s*:/,
        'previous',
      ],
      [
        'skip',
        /^pytestmark\s*=.*\bskip|^\s*__test__\s*=\s*False|^collect_ignore|\bpytest_(?:collection_modifyitems|ignore_collect|collect_file)\b/,
        'all',
      ],
      ['exit', /\b(?:sys\.exit|os\._exit|exit|quit)\(\s*0?\s*\)/, 'previous'],
    ],
  },
  {
    files: /\.go$/,
    named: /_test\.go$/,
    comments: 'c',
    quotes: '"`',
    test: /^func\s+(?:Test|Benchmark|Fuzz|Example)\w*\s*\(|\b\w+\.Run\s*\(\s*["`]/,
    name: /^func\s+(?:\([^)]*\)\s*)?(\w+)/,
    assertion:
      /\b[tb]\.(?:Error|Fatal)f?\s*\(|\b[tb]\.Fail(?:Now)?\s*\(|\b(?:assert|require|is|qt)\.\w+\s*\(|\bExpect\s*\(/g,
    always: /\b(?:assert|require)\.True\(\s*t\s*,\s*true\s*[,)]/,
    marks: [
      ['skip', /\b[tb]\.Skip(?:f|Now)?\s*\(|^\s*if\s+false\s*\{/, 'previous'],
      ['exit', /\bos\.Exit\(\s*0\s*\)/, 'previous'],
    ],
    markedComments: /^\/\/(?:go:build\s+|\s*\+build\s+)(?:ignore|never|!\w+)/,
  },
  {
    files: /\.rs$/,
    named: /(?:^|\/)tests\/[^/]+\.rs$/,
    inline: /^\s*#\[cfg\(test\)\]|^\s*#\[(?:\w+::)*(?:test|rstest|test_case)\b/m,
    comments: 'c',
    quotes: '"',
    test: /^\s*#\[(?:\w+::)*(?:test|rstest|test_case)\b/,
    name: /\bfn\s+(\w+)/,
    assertion: /\b(?:debug_|prop_)?assert(?:_\w+)?!\s*[([{]|#\[should_panic|\bpanic!\s*\(/g,
    always: /\bassert!\(\s*true\s*[,)]/,
    marks: [
      ['skip', /#\[ignore\b/, 'next'],
      ['skip', /#!?\[cfg\((?:any\(\)|not\(test\)|FALSE)\)\]/, 'next'],
      ['exit', /\bprocess::exit\(\s*0\s*\)/, 'previous'],
    ],
  },
  OTHER,
  { ...OTHER, files: /\.(?:rb|exs?|sh|bats)$/, comments: 'hash' },
];

const MAX_LINE_CHARACTERS = 2_000;

/** A file that holds expected outputs of tests. */
const SNAPSHOT = /(?:^|\/)__snapshots__\/|\.snap$/;

export function isSnapshot(path: string): boolean {
  return SNAPSHOT.test(path);
}

/** Whether the content of this file can tell anything about tests. */
export function mayHoldTests(path: string): boolean {
  const language = languageOf(path);
  if (language === undefined) return false;
  return (
    language.named.test(path) ||
    language.placed?.test(path) === true ||
    language.inline !== undefined
  );
}

/** Whether the name alone says that it is a test. */
export function isNamedAsTest(path: string): boolean {
  return languageOf(path)?.named.test(path) === true;
}

/** @returns undefined when it is no test: not named as one, and its content has none */
export function readTestSource(path: string, text: string): TestSource | undefined {
  const language = languageOf(path);
  if (language === undefined) return undefined;
  const named = language.named.test(path);
  const start = named ? 0 : (language.inline?.exec(text)?.index ?? 0);
  if (!named && language.inline !== undefined && !language.inline.test(text)) return undefined;
  const source = analyse(language, text.slice(start));
  if (named || source.tests.length > 0) return source;
  return language.placed?.test(path) === true && source.assertions.length > 0 ? source : undefined;
}

function languageOf(path: string): Language | undefined {
  return LANGUAGES.find(({ files }) => files.test(path));
}

function analyse(language: Language, text: string): TestSource {
  const raw = text.split(/\r?\n/);
  const code = withoutStrings(language, text).split(/\r?\n/);
  const tests: string[] = [];
  const assertions: string[] = [];
  const marks: TestMark[] = [];
  const names = new Set<string>();
  const nameAt = code.map((line, index) =>
    line.length > MAX_LINE_CHARACTERS ? undefined : nameIn(language, line, raw[index] ?? ''),
  );
  for (const [index, line] of code.entries()) {
    const written = (raw[index] ?? '').trim();
    const name = nameAt[index];
    if (name !== undefined) names.add(name);
    if (language.markedComments?.test(written) === true) {
      marks.push({ kind: 'skip', line: written, subject: undefined });
    }
    // Nobody has written such a line, and no pattern shall be kept busy.
    if (line.trim() === '' || line.length > MAX_LINE_CHARACTERS) continue;
    if (language.test.test(line)) tests.push(withoutMarks(written));
    if (!language.always.test(line)) {
      const found = line.match(language.assertion)?.length ?? 0;
      const unit = written.replace(/\s+/g, ' ');
      for (let n = 0; n < found; n++) assertions.push(`${unit}#${n}`);
    }
    for (const [kind, mark, where] of language.marks) {
      if (!mark.test(line)) continue;
      marks.push({ kind, line: written, subject: subjectOf(where, nameAt, index) });
    }
  }
  const lines = raw.map((line) => line.trim()).filter((line) => line !== '');
  return { tests, assertions, marks, names, lines };
}

function subjectOf(
  where: Subject,
  names: readonly (string | undefined)[],
  index: number,
): string | undefined {
  if (where === 'all') return undefined;
  if (where === 'line') return names[index];
  if (where === 'next') return names.slice(index + 1).find((name) => name !== undefined);
  return names.slice(0, index + 1).findLast((name) => name !== undefined);
}

function nameIn(language: Language, code: string, raw: string): string | undefined {
  const found = language.name.exec(code);
  if (found === null) return undefined;
  return found[1] ?? /(['"`])(.*?)\1/.exec(raw)?.[2];
}

/** `it.skip('a', …)` and `xit('a', …)` are the test that `it('a', …)` was. */
function withoutMarks(line: string): string {
  return line
    .replace(/\.(?:skip|only|fixme|failing|fails|skipIf|runIf)\b/g, '')
    .replace(/^[xf](?=(?:it|test|specify|describe)\b)/, '')
    .replace(/\s+/g, ' ');
}

/** The same text, line by line, with blanks for comments and for what is between quotes. */
function withoutStrings({ comments, quotes }: Language, text: string): string {
  let out = '';
  let at = 0;
  /** What ends the string that is open; longer than one character in Python. */
  let open: string | undefined;
  let block = false;
  const is = (what: string): boolean => text.startsWith(what, at);
  while (at < text.length) {
    const character = text[at] ?? '';
    if (character === '\n') {
      // Only these go on in the next line.
      if (open !== '`' && open?.length !== 3) open = undefined;
      out += '\n';
      at++;
    } else if (block) {
      block = !is('*/');
      at += block ? 1 : 2;
      out += block ? ' ' : '  ';
    } else if (open !== undefined) {
      if (character === '\\' && text[at + 1] !== '\n') {
        out += '  ';
        at += 2;
      } else if (is(open)) {
        out += open;
        at += open.length;
        open = undefined;
      } else {
        out += ' ';
        at++;
      }
    } else if (comments === 'c' && is('/*')) {
      block = true;
      at += 2;
      out += '  ';
    } else if ((comments === 'c' && is('//')) || (comments === 'hash' && character === '#')) {
      const end = text.indexOf('\n', at);
      at = end < 0 ? text.length : end;
    } else if (quotes.includes(character)) {
      const three = character.repeat(3);
      open = comments === 'hash' && is(three) ? three : character;
      out += open;
      at += open.length;
    } else if (comments === 'c' && quotes.includes('`') && character === '/' && opensPattern(out)) {
      const end = endOfPattern(text, at);
      out += end === undefined ? '/' : ' '.repeat(end - at);
      at = end ?? at + 1;
    } else {
      out += character;
      at++;
    }
  }
  return out;
}

/** Whether a `/` after this begins a regular expression, which may hold quotes, and is no division. */
function opensPattern(before: string): boolean {
  return /(?:^|[(,=:[!&|?{};\n]|\breturn)\s*$/.test(before.slice(-40));
}

function endOfPattern(text: string, start: number): number | undefined {
  let inClass = false;
  for (let at = start + 1; at < text.length; at++) {
    const character = text[at];
    if (character === '\n') return undefined;
    if (character === '\\') at++;
    else if (character === '[') inClass = true;
    else if (character === ']') inClass = false;
    else if (character === '/' && !inClass) return at + 1;
  }
  return undefined;
}
