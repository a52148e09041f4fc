/**
 * What varies between two runs of the same failure, as patterns for one line of output.
 * Each pattern reads the line once: no quantifier is nested in another over the same characters.
 * `<` and `>` mark what was put in place of something; durations leave nothing, because runners print them
 * only when a test was slow.
 */

const ESC = String.fromCodePoint(0x1b);
const BEL = String.fromCodePoint(0x07);
const CSI = String.fromCodePoint(0x9b);

const ESCAPES = new RegExp(
  [
    `(?:${ESC}\\[|${CSI})[0-?]*[ -/]*[@-~]?`, // colours, cursor
    `${ESC}\\][^${BEL}${ESC}\\n]*(?:${BEL}|${ESC}\\\\)?`, // titles and links
    `${ESC}[ -/]*[0-~]?`,
  ].join('|'),
  'g',
);

const CONTROL = /[\p{Cc}--\t]/gv;

/** The lines of a text as a terminal would show them in the end: without colours, and without what a carriage return wrote over. */
export function terminalLines(text: string): string[] {
  return text
    .replace(ESCAPES, '')
    .split('\n')
    .map((line) => {
      const shown = line.endsWith('\r') ? line.slice(0, -1) : line;
      return shown.slice(shown.lastIndexOf('\r') + 1).replace(CONTROL, '');
    });
}

const FRAME_LINE = /^\s*\d+ ?[|│┃]/u;
const FRAME_POINTER = /^\s*[|│┃]\s*[\^~]/u;

/**
 * Whether `line` only surrounds the place that a code frame points at. The line pointed at tells which assertion
 * failed; its neighbours change whenever somebody adds a test next to it.
 */
export function isFrameContext(line: string, next: string | undefined): boolean {
  return FRAME_LINE.test(line) && !(next !== undefined && FRAME_POINTER.test(next));
}

/** Takes out of one line what varies from run to run. May return nothing at all. */
export function stripNoise(line: string): string {
  if (line.trim() === '' || isProgress(line) || isInnerFrame(line)) return '';
  let text = stripPaths(line.replace(/\s+/g, ' '));
  for (const [pattern, replacement] of NOISE) text = text.replace(pattern, replacement);
  text = text.replace(/ +/g, ' ').trim();
  return ONLY_MARKS.test(text) ? '' : text;
}

// --- Progress -------------------------------------------------------------------------------------------------

const PROGRESS_WORD =
  /\b(?:download|fetch|install|extract|unpack|receiv|resolv|count|compress|writing|enumerat|updating|checking out|build|bundl|transform|render|compil|progress)/i;
const PROGRESS_BAR = /[█▓▒░▏▎▍▌▋▊▉]|#{3,}|={2,}>/;
const BUILD_STEP =
  /^\s+(?:Compiling|Downloaded|Downloading|Updating|Blocking|Locking|Fresh|Adding) \S|^note: run with `RUST_BACKTRACE/;
const BAD_NEWS = /error|fail|fatal|refus|denied|not found|unable|cannot/i;
/** Spinners, rulers, carets and rows of dots: nothing that tells two failures apart. */
const ONLY_MARKS = /^[\s.|^~⠀-⣿\-+\\/]*$/u;
const DOTS_OF_TESTS = /^(?=[^.]*\.)[.FEsxX,]+$/;

/**
 * A line that only says how far something is. Percentages elsewhere stay: "coverage is 71 %, expected 80 %" is a
 * failure, and 71 is nearer than 65.
 */
function isProgress(line: string): boolean {
  if (BUILD_STEP.test(line)) return true;
  if (DOTS_OF_TESTS.test(line.replace(IN_BRACKETS_PERCENT, '').trim())) return true;
  if (!/\d ?%/.test(line) || BAD_NEWS.test(line)) return false;
  return PROGRESS_BAR.test(line) || PROGRESS_WORD.test(line);
}

const IN_BRACKETS_PERCENT = /\[\s*\d{1,3}%\]/g;

/** A stack frame in Node or in a package: a test runner comes by another way when the test before was slower. */
function isInnerFrame(line: string): boolean {
  const text = line.trim().replace(/ \{$/, '');
  const place = text.slice(text.lastIndexOf(' ') + 1);
  if (!/^\(?node:|node_modules/.test(place) || !/:\d+:\d+\)?$/.test(place)) return false;
  return /^(?:at|❯) /u.test(text) || place.startsWith('(') || text.startsWith('node:');
}

// --- Paths ----------------------------------------------------------------------------------------------------

const SEGMENT = '[^\\s/\\\\:"\'`()[\\]<>|,;*?{}=]+';
const POSIX = `(?<![\\w.~@%+\\-\\\\/])(?:file://)?/${SEGMENT}(?:/${SEGMENT})*/?`;
const PARENT = `(?<![\\w.\\-\\\\/])(?:\\.\\./)+${SEGMENT}(?:/${SEGMENT})*/?`;
const OURS = `(?<![\\w\\-\\\\/])(?:\\./)?\\.troupe(?:/${SEGMENT})+/?`;
const WINDOWS = `(?<!\\w)(?:file:///)?[A-Za-z]:(?:[\\\\/]+${SEGMENT})+[\\\\/]*`;
const PATHS = new RegExp([POSIX, PARENT, OURS, WINDOWS].join('|'), 'g');
const QUOTED_PATH = /(["'`])(\/[^"'`]*)\1/g;

/** First components that no web route has, so that `GET /api/users/5` keeps its route. */
const FILE_ROOTS: ReadonlySet<string> = new Set(
  'bin,builds,dev,etc,github,home,lib,mnt,nix,opt,private,proc,root,sbin,srv,sys,tmp,usr,Users,var,Volumes,workspace,workspaces,.troupe,..'.split(
    ',',
  ),
);
const TEMP_FOLDERS: ReadonlySet<string> = new Set(['tmp', 'Temp', 'shm', 'T', '.troupe']);
const EXTENSION = /[^.]\.[A-Za-z]\w{0,9}$/;

function stripPaths(line: string): string {
  return line
    .replace(QUOTED_PATH, (whole, quote: string, path: string) =>
      path.includes(' ') && isFilePath(path) ? `${quote}${baseName(path)}${quote}` : whole,
    )
    .replace(PATHS, (path) => (isFilePath(path) ? baseName(path) : path));
}

function parts(path: string): string[] {
  return path.split(/[\\/]+/).filter((part) => part !== '' && part !== '.');
}

function isFilePath(path: string): boolean {
  if (/^(?:file:|[A-Za-z]:)/.test(path)) return true;
  return FILE_ROOTS.has(parts(path)[0] ?? '') || EXTENSION.test(path);
}

/** The name of the file without the folders it is in. Names made up for one run are replaced as well. */
function baseName(path: string): string {
  const all = parts(path);
  const base = (all.at(-1) ?? '').replace(/\.+$/, '');
  if (all.includes('gatekeeper') && base.endsWith('.json')) return '<artifact>';
  const temp = all.findLastIndex((part) => TEMP_FOLDERS.has(part));
  if (temp < 0) return base;
  const rightInside = temp === all.length - 2;
  if (!EXTENSION.test(base)) return rightInside || /\d/.test(base) ? '<tmp>' : base;
  return rightInside ? base.replace(SUFFIX, (word) => (looksRandom(word) ? '<tmp>' : word)) : base;
}

const SUFFIX = /(?<=[-_.])[A-Za-z\d]{6,}(?=\.)/;

/** What mkdtemp and the like append: letters of both cases in no order, or with digits. */
function looksRandom(word: string): boolean {
  return /\d|[a-z][A-Z]/.test(word);
}

// --- The rest -------------------------------------------------------------------------------------------------

const CLOCK = String.raw`\d{1,2}[:_-]\d{2}(?:[:_-]\d{2})?(?:[.,_-]\d{1,9})?`;
const ZONE = String.raw`(?: ?(?:Z\b|UTC\b|GMT\b|[+-]\d{2}:?\d{2}\b))?`;
const MONTH = '(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)';
const NUMBER = String.raw`\d[\d,]*(?:\.\d+)?`;
const UNIT = String.raw`(?: ?(?:ns|µs|μs|us|ms|msecs?|milliseconds?|s|secs?|seconds?|mins?|minutes?|hrs?|hours?)|[mh])(?!\w)`;
// Not right behind a quote: '5s' in quotes is a value somebody asserted, not a time somebody measured.
const DURATION = String.raw`(?<![\w.,'"\x60$-])(?:\d+h ?)?(?:\d+m ?)?${NUMBER}${UNIT}`;
const HEX = '[0-9a-f]';

const NOISE: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  // Numbers of what ran when.
  [/^ ?not ok \d+/, 'not ok'], // TAP: the order of parallel tests
  [/^ ?1\.\.\d+$/, ''], // TAP: how many tests there are
  [/^ ?RUN v\d.*|^rootdir: .*/, ''], // vitest, pytest: the folder
  [/\[gw\d+\]\s*/g, ''], // pytest-xdist workers
  [IN_BRACKETS_PERCENT, ''],
  [/^\S+\.py [.FEsxX]+ ?$/, ''], // pytest: one letter per test; the failures are told at length
  [/\b(worker|thread|goroutine|ThreadId|fiber)([ #:(-]*)\d+/gi, '$1'],
  [/^(thread '[^']*') \(\d+\) /, '$1 '], // Rust, since 1.91
  [/\(node:\d+\)/g, '(node)'],
  [/==\d+==/g, '=='], // sanitizers, valgrind
  [/\b(pid|process)([ :=#(]+)\d+/gi, '$1'],
  [/\bseed\b(["']?[ :=]*)-?\d+/gi, 'seed'],
  [/\bpath: "[\d:]+"/g, 'path'], // fast-check: where in the shrink tree

  [/\?(?:v|t|mtime)=[\w.-]+/g, ''], // cache busters of module URLs

  [/\(\d+ tests? \| (\d+ failed)[^)]*\)/, '($1)'], // vitest: how many passed or were skipped
  [/^( ?❯ \S.*) \(\d+\)$/u, '$1'],

  // Times.
  [new RegExp(String.raw`\b\d{4}[-/]\d{2}[-/]\d{2}[T _]${CLOCK}${ZONE}`, 'g'), '<time>'],
  [
    new RegExp(
      String.raw`\b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?(?:${MONTH} +\d{1,2}|\d{1,2} ${MONTH}),?(?: \d{4})? \d{1,2}:\d{2}(?::\d{2})?${ZONE}(?: \d{4})?`,
      'g',
    ),
    '<time>',
  ],
  [/(?<![\w:.'"])\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?(?: ?[AP]M\b)?/g, '<time>'],
  [/(?<![\w.])1\d{12}(?![\w.])/g, '<time>'], // milliseconds since 1970

  // Names and places in memory.
  [new RegExp(`\\b${HEX}{8}-(?:${HEX}{4}-){3}${HEX}{12}\\b`, 'gi'), '<uuid>'],
  [/\btmp(?=[a-z_]*\d)[a-z0-9_]{8}\b/g, '<tmp>'],
  // Shorter ones may be values: 0xdeadbeef, #ff00ff.
  [/\b0x[0-9a-f]{9,16}\b/gi, '<address>'],
  [/\b(at |pc=|sp=|fp=)0x[0-9a-f]+/gi, '$1<address>'],
  [/ \+0x[0-9a-f]+$/, ''], // Go: offset in the function
  [/(?<=[\w$])@(?=[a-f]*\d)[0-9a-f]{5,8}\b/g, '@<address>'], // Java
  [
    /\b(commit|apply|HEAD is now at|onto|index|>>>>>>>|<<<<<<<) [0-9a-f]{7,40}(?:\.\.[0-9a-f]{7,40})?\b/g,
    '$1 <hash>',
  ],
  [/(?<![\w.])(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,128}(?![\w])/g, '<hash>'],

  // Ports.
  [/((?:localhost|\b\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]|::1?)):\d{2,5}\b/g, '$1:<port>'],
  [/(\b(?:https?|wss?|tcp|udp|postgres(?:ql)?|redis|mysql):\/\/[^\s/:]+):\d{2,5}\b/g, '$1:<port>'],
  [/\bport([ :=#]+)\d{2,5}\b/gi, 'port$1<port>'],

  // Lines and columns.
  [
    /(\.[A-Za-z]\w{0,9}["']?|node:[\w/]+|<anonymous>|\b(?:Make|Docker|just|Rake|Gem)file):\d+(?::\d+)?/g,
    '$1',
  ],
  [/(\.[A-Za-z]\w{0,9})\(\d+,\d+\)/g, '$1'],
  [/:\d+:\d+(?=[\s),\]]|$)/g, ''],
  [/^\s+\d+:\d+(?=\s+(?:error|warning)\b)/, ''], // eslint
  [/\b(lines?|col(?:umn)?)([ :]+)\d+(?: ?- ?\d+)?/gi, '$1'],
  [/^@@ [-+, \d]+ @@/, '@@'],
  [/^\s*>?\s*\d+ ?[|│┃]/u, '|'], // code frames

  [/^( ?at \S.*) \{$/, '$1'], // Node: the properties of the error follow

  // Durations.
  [/\bduration_ms:? ?[\d.]+/g, ''],
  [new RegExp(String.raw` ?[([]${DURATION}[)\]]`, 'g'), ''],
  [new RegExp(DURATION, 'g'), ''],
  [/, estimated(?= *$)/, ''], // jest

  // Marks.
  [/[=_─━-]{3,}|⎯+/gu, ''],
  [/^\s*[⠀-⣿]\s*/u, ''],
];
