import path from 'node:path';
import { matchesGlob } from './glob.ts';
import { REPOSITORY_MODE } from './special-entries.ts';
import { type Finding, findLostTests, findWeakenedTests } from './test-losses.ts';
import { mayHoldTests, readTestSource } from './test-source.ts';
import type { VerifyScripts } from './verify-scripts.ts';

/** What is done about a change that a rule has found something in. */
export type RuleAction = 'approve' | 'refuse' | 'off';

/** One changed file, as far as the rules need to know it. */
export interface FileFacts {
  readonly path: string;
  readonly status: 'added' | 'modified' | 'deleted' | 'unmerged';
  /** Git's modes; `000000` for none. */
  readonly mode: string;
  readonly previousMode: string;
  readonly blob: string;
  readonly previousBlob: string;
  readonly bytes: number;
  readonly previousBytes: number;
  /** Where a symlink leads; undefined also when its content is lost. */
  readonly linkTarget?: string;
  /** Contents, read only where `wantsText` says so. */
  readonly before?: string;
  readonly after?: string;
}

export interface Deletions {
  /** Files of the target, to say how much of it is gone. */
  readonly filesBefore: number;
  /** Deleted files whose content stands in others now. */
  readonly movedOn: ReadonlySet<string>;
}

/** From so many deleted files on, they are held against the rest of the project and of the change. */
export const DELETIONS_COUNT_FROM = 5;

export interface ChangeFacts {
  readonly files: readonly FileFacts[];
  /** Files that hold the marks of an unresolved conflict and did not before. */
  readonly conflictMarkers: readonly string[];
  /** Files that were text and hold NUL bytes now. */
  readonly nulBytes: readonly string[];
  /** What the verification runs of the project's own files, as the target has them. */
  readonly scripts: VerifyScripts;
  /** What many deletions are held against; undefined for a handful. */
  readonly deletions: Deletions | undefined;
  /** Tests that ran, by command: on the target as it is, and with the change. Only where reports say so. */
  readonly testCounts: readonly {
    readonly command: string;
    readonly before: number;
    readonly after: number;
  }[];
}

/** What the rules compare with. From the app's or the target's configuration, never from the change. */
export interface RuleSettings {
  /** What a person has to be asked about, what is refused, what is let through; by the rule's name. */
  readonly rules?: Readonly<Partial<Record<RuleName, RuleAction>>>;
  /** Globs (`*`, `**`, from the top) of what a change may not touch, hidden files as well. Default none. */
  readonly protectedPaths?: readonly string[];
  /** Files that configure the verification, from the project's directory, besides troupe.yaml. Default none. */
  readonly configuration?: readonly string[];
  /** No single file may be larger. Default 10 485 760. */
  readonly maxFileBytes?: number;
  /** More files may not be deleted at once, those not counted whose content moved to others. Default 10. */
  readonly maxDeletedFiles?: number;
  /** From 5 deleted files on: not more than this part of all. Default 0.1: a folder of a small project is much. */
  readonly maxDeletedShare?: number;
}

/** What one rule says of one file, or of the change as a whole. */
export interface PolicyFlag {
  readonly rule: RuleName;
  readonly action: Exclude<RuleAction, 'off'>;
  /** Absent when it is about the whole change. */
  readonly path?: string;
  /** One sentence that names the file. */
  readonly reason: string;
}

interface Rule {
  /** What it looks for, in words. */
  readonly about: string;
  readonly action: RuleAction;
  readonly find: (facts: ChangeFacts, settings: RuleSettings) => readonly Finding[];
}

const DEFAULT_MAX_FILE_BYTES = 10 * 1024 * 1024;
const DEFAULT_MAX_DELETED_FILES = 10;
const DEFAULT_MAX_DELETED_SHARE = 0.1;
/** A file that had so much and keeps less than a tenth of it has lost its content. */
const TRUNCATED_FROM_BYTES = 4096;

const quote = (file: string): string => JSON.stringify(file);
/** Whether two paths may be the same file: on many a disk case makes no difference. */
const isSamePath = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase();
/** The last name of a path, as the tables of names have it: in lower case. */
const baseOf = (file: string): string => path.posix.basename(file).toLowerCase();
const isFile = (mode: string): boolean => mode.startsWith('100');
const named = (files: readonly FileFacts[], reason: (file: FileFacts) => string | undefined) =>
  files.flatMap((file): Finding[] => {
    const said = reason(file);
    return said === undefined ? [] : [{ path: file.path, reason: said }];
  });
/**
 * Each file that one of the patterns matches. On many a disk case makes no difference, so it makes none here; and where a
 * pattern is about what is in a directory, a link in the directory's place counts as well.
 */
const matching = (patterns: RegExp, what: string): ((facts: ChangeFacts) => readonly Finding[]) => {
  return ({ files }) =>
    named(files, ({ path: file, status }) =>
      patterns.test(file) ? `${quote(file)} was ${status}: ${what}.` : undefined,
    );
};

const RUNNER_CONFIG =
  /(?:^|\/)(?:(?:vitest|vite|jest|ava|playwright|cypress|wdio|web-test-runner|nightwatch)\.(?:config|workspace|setup)\.[^/]+|karma\.conf\.[^/]+|\.mocharc[^/]*|\.taprc|\.nycrc[^/]*|\.c8rc[^/]*|pytest\.ini|\.pytest\.ini|tox\.ini|noxfile\.py|\.coveragerc|\.rspec|phpunit\.xml(?:\.dist)?|nextest\.toml|tarpaulin\.toml|codecov\.ya?ml)$/i;
/** Files of which only some settings are about tests. */
const TEST_SETTINGS: readonly (readonly [file: RegExp, settings: (text: string) => string])[] = [
  [
    /(?:^|\/)pyproject\.toml$/i,
    (text) => sectionsOf(text, /^\[tool\.(?:pytest|coverage|tox|nox|hatch\.envs)/),
  ],
  [/(?:^|\/)setup\.cfg$/i, (text) => sectionsOf(text, /^\[(?:tool:pytest|coverage|tox|aliases)/)],
  [
    /(?:^|\/)Cargo\.toml$/i,
    (text) =>
      `${sectionsOf(text, /^\[\[test\]\]/)}${linesOf(text, /^\s*(?:test|harness|autotests|doctest)\s*=/)}`,
  ],
  [/(?:^|\/)(?:deno|bunfig)\.(?:jsonc?|toml)$/i, (text) => linesOf(text, /test|coverage|tasks/i)],
];
const LIFECYCLE =
  /^(?:pre|post)\w|^(?:install|prepare|prepublish|prepublishOnly|prepack|postpack|dependencies)$/;
const RUNNER_KEYS = ['jest', 'vitest', 'mocha', 'ava', 'nyc', 'c8', 'tap', 'playwright'] as const;

const LOCK_FILES: Readonly<Record<string, { readonly manifest: RegExp; readonly family: string }>> =
  {
    'package-lock.json': { manifest: /^package\.json$/, family: 'node' },
    'npm-shrinkwrap.json': { manifest: /^package\.json$/, family: 'node' },
    'pnpm-lock.yaml': { manifest: /^(?:package\.json|pnpm-workspace\.yaml)$/, family: 'node' },
    'yarn.lock': { manifest: /^package\.json$/, family: 'node' },
    'bun.lock': { manifest: /^package\.json$/, family: 'node' },
    'bun.lockb': { manifest: /^package\.json$/, family: 'node' },
    'uv.lock': { manifest: /^pyproject\.toml$/, family: 'python' },
    'poetry.lock': { manifest: /^pyproject\.toml$/, family: 'python' },
    'pipfile.lock': { manifest: /^pipfile$/, family: 'python' },
    'cargo.lock': { manifest: /^cargo\.toml$/, family: 'rust' },
    'go.sum': { manifest: /^go\.mod$/, family: 'go' },
    'gemfile.lock': { manifest: /^gemfile$/, family: 'ruby' },
    'composer.lock': { manifest: /^composer\.json$/, family: 'php' },
  };

const SCRIPT_EXTENSION =
  /\.(?:sh|bash|zsh|fish|py|rb|pl|php|lua|[cm]?[jt]s|ps1|bat|cmd|exe|awk|tcl|R|run|command|jar)$|(?:^|\/)gradlew$|(?:^|\/)mvnw$/;
/** How programs begin: a script's first line, ELF, Mach-O, Windows. */
const PROGRAM_START = /^(?:#!|\x7fELF|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe|MZ)/;

/**
 * All rules, in the order in which their findings are told. A change is looked at as a whole, whoever made it; a rule says
 * what it found in words, and its action says what follows. `settings.rules` overrides the actions.
 */
const RULES = {
  verification: {
    about: 'what verifies changes is changed: configuration, scripts, test runner settings',
    action: 'approve',
    find: (facts, settings) =>
      named(facts.files, (file) => changedVerification(file, facts, settings)),
  },
  'tests-deleted': {
    about: 'test files or tests are gone',
    action: 'approve',
    find: ({ files }) => findLostTests(files),
  },
  'tests-weakened': {
    about: 'tests are skipped, singled out or ended early, or assert less',
    action: 'approve',
    find: ({ files }) => findWeakenedTests(files),
  },
  'test-count': {
    about: 'fewer tests ran than on the target',
    action: 'approve',
    find: ({ testCounts }) =>
      testCounts.flatMap(({ command, before, after }) =>
        after < before
          ? [{ reason: `${command} ran ${after} tests; on the target it ran ${before}.` }]
          : [],
      ),
  },
  'protected-paths': {
    about: 'paths that the configuration protects are touched',
    action: 'refuse',
    find: ({ files }, { protectedPaths = [] }) =>
      named(files, (file) => {
        const glob = protectedPaths.find((pattern) => matchesGlob(file.path, pattern));
        return glob && `${quote(file.path)} is protected (${glob}) and was ${file.status}.`;
      }),
  },
  'conflict-markers': {
    about: 'files hold the marks of an unresolved conflict',
    action: 'refuse',
    find: ({ conflictMarkers }) =>
      conflictMarkers.map((file) => ({
        path: file,
        reason: `${quote(file)} holds the marks of an unresolved conflict (<<<<<<<, =======, >>>>>>>).`,
      })),
  },
  'nul-bytes': {
    about: 'text files hold NUL bytes',
    action: 'refuse',
    find: ({ nulBytes }) =>
      nulBytes.map((file) => ({
        path: file,
        reason: `${quote(file)} was text and holds NUL bytes now.`,
      })),
  },
  'emptied-files': {
    about: 'files are emptied',
    action: 'approve',
    find: ({ files }) => {
      const kept = new Set(files.filter((file) => file.status === 'added').map(({ blob }) => blob));
      return named(files, (file) =>
        isFile(file.mode) &&
        file.status === 'modified' &&
        file.previousBytes > 0 &&
        !kept.has(file.previousBlob) &&
        (file.bytes === 0 || file.after?.trim() === '')
          ? `${quote(file.path)} was emptied (it had ${file.previousBytes} bytes).`
          : undefined,
      );
    },
  },
  'mass-deletion': {
    about: 'many files are deleted, or a file loses nearly all it held',
    action: 'approve',
    find: findMassDeletion,
  },
  symlinks: {
    about: 'symlinks lead out of the project',
    action: 'refuse',
    find: ({ files }) =>
      named(files, (file) => {
        if (file.mode !== '120000') return undefined;
        if (file.linkTarget === undefined) {
          return `${quote(file.path)} is a symlink whose target is lost (${file.blob}).`;
        }
        const wrong = leavesProject(file.path, file.linkTarget);
        return wrong && `${quote(file.path)} is a symlink to ${quote(file.linkTarget)}, ${wrong}.`;
      }),
  },
  'nested-repositories': {
    about: 'another repository is planted',
    action: 'refuse',
    find: ({ files }) =>
      named(files, (file) =>
        file.mode === REPOSITORY_MODE
          ? `${quote(file.path)} is a git repository of its own; only its name would be kept.`
          : undefined,
      ),
  },
  'repository-settings': {
    about: 'settings of git that travel with the repository',
    action: 'approve',
    find: matching(
      /(?:^|\/)(?:\.git(?:attributes|modules)|\.lfsconfig)$/i,
      'it changes how git treats files of everybody',
    ),
  },
  workflows: {
    about: 'what runs elsewhere with more rights: CI, hooks',
    action: 'approve',
    find: matching(
      /^\.(?:github(?:$|\/(?:workflows|actions))|circleci|husky|githooks|buildkite|gitlab)(?:\/|$)|^(?:\.gitlab-ci\.yml|\.travis\.yml|Jenkinsfile|azure-pipelines\.yml|bitbucket-pipelines\.yml|\.drone\.yml|\.pre-commit-config\.yaml|lefthook\.ya?ml|CODEOWNERS|\.github\/CODEOWNERS)$/i,
      'it runs, or decides who is asked, outside of this verification',
    ),
  },
  'package-sources': {
    about: 'where packages come from, and packages that are checked in',
    action: 'approve',
    find: matching(
      /(?:^|\/)(?:\.npmrc|\.yarnrc(?:\.ya?ml)?|\.pnpmfile\.cjs|pip\.conf|\.pypirc|uv\.toml|\.cargo(?:\/config(?:\.toml)?)?|\.bundle(?:\/config)?|\.netrc|node_modules(?:\/.*)?|\.yarn(?:\/(?:releases|plugins)(?:\/.*)?)?)$/i,
      'it decides which packages, or whose, are installed',
    ),
  },
  'lock-files': {
    about: 'a lock file is swapped, or changed without its manifest',
    action: 'approve',
    find: findLockSwaps,
  },
  'file-modes': {
    about: 'data becomes executable',
    action: 'approve',
    find: ({ files }) =>
      named(files, (file) =>
        file.mode === '100755' &&
        file.previousMode !== '100755' &&
        !SCRIPT_EXTENSION.test(file.path) &&
        file.after !== undefined &&
        !PROGRAM_START.test(file.after)
          ? `${quote(file.path)} is data and was made executable.`
          : undefined,
      ),
  },
  'large-files': {
    about: 'a file is too large',
    action: 'refuse',
    find: ({ files }, { maxFileBytes = DEFAULT_MAX_FILE_BYTES }) =>
      named(files, (file) =>
        isFile(file.mode) && file.bytes > maxFileBytes
          ? `${quote(file.path)} has ${file.bytes} bytes; at most ${maxFileBytes} are allowed.`
          : undefined,
      ),
  },
  'check-configuration': {
    about: 'settings of linters, formatters and type checkers',
    action: 'off',
    find: matching(
      /(?:^|\/)(?:tsconfig[^/]*\.json|\.?eslint(?:rc[^/]*|\.config\.[^/]+)|\.eslintignore|biome\.jsonc?|\.prettier(?:rc[^/]*|ignore)|\.?ruff\.toml|mypy\.ini|\.flake8|\.pylintrc|pyrightconfig\.json|\.golangci\.ya?ml|\.?clippy\.toml|\.?rustfmt\.toml)$/i,
      'it decides what is complained about',
    ),
  },
} as const satisfies Readonly<Record<string, Rule>>;

export type RuleName = keyof typeof RULES;

export const CHANGE_RULES = Object.keys(RULES) as readonly RuleName[];
export const RULE_ACTIONS = ['approve', 'refuse', 'off'] as const;

/** Rules that say what no patch may do; the others need more than the list of files. */
export const RULES_OF_PATCHES = [
  'protected-paths',
  'symlinks',
  'nested-repositories',
  'large-files',
] as const satisfies readonly RuleName[];

/** For a list of the rules to be shown. */
export function describeRule(name: RuleName): {
  readonly about: string;
  readonly action: RuleAction;
} {
  const { about, action } = RULES[name];
  return { about, action };
}

/** Of one rule, more than this helps nobody. */
const MAX_FLAGS_OF_RULE = 20;

/**
 * What the rules say of a change: by path, what is about the whole change first.
 * @param only default all
 */
export function findFlags(
  facts: ChangeFacts,
  settings: RuleSettings = {},
  only: readonly RuleName[] = CHANGE_RULES,
): readonly PolicyFlag[] {
  const flags = only.flatMap((rule): PolicyFlag[] => {
    const { action: usual, find }: Rule = RULES[rule];
    const action = settings.rules?.[rule] ?? usual;
    if (action === 'off') return [];
    const found = find(facts, settings);
    const shown = found.slice(0, MAX_FLAGS_OF_RULE);
    const more = found.length - shown.length;
    return [
      ...shown.map((finding) => ({ rule, action, ...finding })),
      ...(more > 0 ? [{ rule, action, reason: `The same of ${more} more files (${rule}).` }] : []),
    ];
  });
  const order = (flag: PolicyFlag): string => flag.path ?? '';
  return flags.toSorted((a, b) => (order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : 0));
}

/** Which contents the rules need. Everything else is judged by names, modes and sizes. */
export function wantsText(file: Omit<FileFacts, 'before' | 'after' | 'linkTarget'>): {
  readonly before: boolean;
  readonly after: boolean;
} {
  const base = baseOf(file.path);
  const settings = TEST_SETTINGS.some(([pattern]) => pattern.test(file.path));
  const both =
    base === 'package.json' ||
    Object.hasOwn(LOCK_FILES, base) ||
    settings ||
    mayHoldTests(file.path);
  const becomesProgram =
    file.mode === '100755' && file.previousMode !== '100755' && !SCRIPT_EXTENSION.test(file.path);
  const maybeBlank = file.bytes <= 64 && file.previousBytes > file.bytes;
  return {
    before: both && isFile(file.previousMode),
    after: isFile(file.mode) && (both || becomesProgram || maybeBlank),
  };
}

function changedVerification(
  file: FileFacts,
  { scripts }: ChangeFacts,
  { configuration = [] }: RuleSettings,
): string | undefined {
  const name = quote(file.path);
  if (
    /(?:^|\/)\.?troupe(?:[.-][^/]*)?\.ya?ml$/i.test(file.path) ||
    configuration.some((each) => isSamePath(each, file.path))
  ) {
    return `${name} configures what verifies changes, and was ${file.status}.`;
  }
  if (RUNNER_CONFIG.test(file.path)) {
    return `${name} configures the test runner, and was ${file.status}.`;
  }
  const isManifest = baseOf(file.path) === 'package.json';
  const settings = TEST_SETTINGS.find(([pattern]) => pattern.test(file.path))?.[1];
  const unread =
    (file.status !== 'added' && file.before === undefined) ||
    (file.status !== 'deleted' && file.after === undefined);
  if (unread && (isManifest || settings !== undefined)) {
    return `${name} may change what verifies, and cannot be read: it is a link, or too large.`;
  }
  if (isManifest) return changedManifest(file, scripts);
  if (settings !== undefined && settings(file.before ?? '') !== settings(file.after ?? '')) {
    return `${name} changes settings of the tests.`;
  }
  if ([...scripts.files].some((each) => isSamePath(each, file.path)) && !onlyAddsTests(file)) {
    return `${name} is run by the verification, and was ${file.status}.`;
  }
  return undefined;
}

/** A test that a command names may get more tests; what it loses is for the rules about tests. */
function onlyAddsTests(file: FileFacts): boolean {
  if (file.before === undefined || file.after === undefined) return false;
  const before = readTestSource(file.path, file.before);
  const after = readTestSource(file.path, file.after);
  if (before === undefined || after === undefined || before.tests.length === 0) return false;
  if (after.marks.length > before.marks.length) return false;
  return missingFrom(before.lines, after.lines).length === 0;
}

function changedManifest(file: FileFacts, { packageScripts }: VerifyScripts): string | undefined {
  const name = quote(file.path);
  // Without a manifest before there was nothing that could have been weakened; at the top there is one now.
  const before = parseObject(file.before ?? '{}');
  const after = parseObject(file.after ?? '{}');
  if (before === undefined || after === undefined)
    return `${name} is not JSON any more, or was none.`;
  const [old, fresh] = [scriptsOf(before), scriptsOf(after)];
  const changed = Object.keys(old).filter((script) => old[script] !== fresh[script]);
  const added = Object.keys(fresh).filter(
    (script) =>
      !Object.hasOwn(old, script) &&
      file.status !== 'added' &&
      (LIFECYCLE.test(script) || packageScripts.has(script)),
  );
  const settings = RUNNER_KEYS.filter(
    (key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]),
  );
  const parts = [
    ...(changed.length === 0 ? [] : [`changes or removes the scripts ${list(changed)}`]),
    ...(added.length === 0 ? [] : [`adds the scripts ${list(added)}, which run by themselves`]),
    ...(settings.length === 0 ? [] : [`changes the settings of ${list(settings)}`]),
  ];
  return parts.length === 0 ? undefined : `${name} ${parts.join(' and ')}.`;
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 5).map(quote).join(', ');
  return names.length > 5 ? `${shown}, …` : shown;
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text.replace(/^\uFEFF/, ''));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined; // the caller says so
  }
}

/** The scripts of a package.json; none when it has none, or is not one. */
export function scriptsOfManifest(text: string): Readonly<Record<string, string>> {
  return scriptsOf(parseObject(text) ?? {});
}

function scriptsOf(manifest: Readonly<Record<string, unknown>>): Record<string, string> {
  const scripts = manifest['scripts'];
  if (typeof scripts !== 'object' || scripts === null) return {};
  return Object.fromEntries(
    Object.entries(scripts).filter(
      (entry): entry is [string, string] => typeof entry[1] === 'string',
    ),
  );
}

/**
 * The sections of a TOML or INI file whose heading matches, without comments and blank lines. Headings of TOML may have blanks and
 * quotes in them, and a table may be written as a key: `[tool]` and below it `pytest.ini_options = …`.
 */
function sectionsOf(text: string, heading: RegExp): string {
  let section = '';
  const kept: string[] = [];
  for (const line of text.split(/\r?\n/).map((each) => each.trim())) {
    const bare = line.replace(/[\s"']/g, '');
    const isHeading = line.startsWith('[');
    if (isHeading) section = bare;
    const table = section.replace(/^\[|\].*$/g, '');
    const inside =
      heading.test(section) ||
      (!isHeading && heading.test(`[${table === '' ? '' : `${table}.`}${bare}`));
    if (inside && line !== '' && !line.startsWith('#')) kept.push(line);
  }
  return kept.join('\n');
}

function linesOf(text: string, pattern: RegExp): string {
  return text
    .split(/\r?\n/)
    .filter((line) => pattern.test(line))
    .map((line) => line.trim())
    .join('\n');
}

function findMassDeletion(
  { files, deletions }: ChangeFacts,
  {
    maxDeletedFiles = DEFAULT_MAX_DELETED_FILES,
    maxDeletedShare = DEFAULT_MAX_DELETED_SHARE,
  }: RuleSettings,
): readonly Finding[] {
  const moved = new Map<string, number>();
  for (const { status, blob } of files) {
    if (status === 'added') moved.set(blob, (moved.get(blob) ?? 0) + 1);
  }
  const gone = files.filter(({ path: file, status, previousBlob }) => {
    if (status !== 'deleted' || deletions?.movedOn.has(file) === true) return false;
    const places = moved.get(previousBlob) ?? 0;
    if (places > 0) moved.set(previousBlob, places - 1);
    return places === 0;
  });
  const share = deletions === undefined ? 0 : gone.length / Math.max(1, deletions.filesBefore);
  const findings: Finding[] = [];
  if (
    gone.length > maxDeletedFiles ||
    (gone.length >= DELETIONS_COUNT_FROM && share > maxDeletedShare)
  ) {
    const some = gone.slice(0, 5).map((file) => quote(file.path));
    const of = deletions === undefined ? '' : ` of ${deletions.filesBefore}`;
    findings.push({
      reason: `${gone.length}${of} files are deleted: ${some.join(', ')}${gone.length > 5 ? ', …' : ''}.`,
    });
  }
  // What a file lost may stand in others now: a module that was split is no loss.
  const gained = files.reduce((sum, file) => sum + Math.max(0, file.bytes - file.previousBytes), 0);
  for (const file of files) {
    const lost = file.previousBytes - file.bytes;
    if (file.status !== 'modified' || !isFile(file.mode) || file.bytes === 0) continue;
    if (file.previousBytes < TRUNCATED_FROM_BYTES || file.bytes * 10 > file.previousBytes) continue;
    if (gained * 2 >= lost) continue;
    findings.push({
      path: file.path,
      reason: `${quote(file.path)} loses nearly all it held: ${file.bytes} of ${file.previousBytes} bytes are left.`,
    });
  }
  return findings;
}

function findLockSwaps({ files }: ChangeFacts): readonly Finding[] {
  return named(files, (file) => {
    const base = baseOf(file.path);
    const lock = Object.hasOwn(LOCK_FILES, base) ? LOCK_FILES[base] : undefined;
    if (lock === undefined) return undefined;
    const directory = path.posix.dirname(file.path);
    const name = quote(file.path);
    if (file.status === 'deleted') {
      const whole = files.some(
        (other) =>
          other.status === 'deleted' &&
          path.posix.dirname(other.path) === directory &&
          lock.manifest.test(baseOf(other.path)),
      );
      return whole ? undefined : `${name} is deleted: versions are no longer fixed.`;
    }
    // A workspace has its lock at the top and its manifests anywhere below.
    const withManifest = files.some(
      (other) =>
        lock.manifest.test(baseOf(other.path)) &&
        (directory === '.' || other.path.startsWith(`${directory}/`)),
    );
    if (file.status === 'modified' && !withManifest) {
      return `${name} was changed without its manifest: other packages, or other sources, would be installed.`;
    }
    const hosts = missingFrom(hostsOf(file.after ?? ''), hostsOf(file.before ?? ''));
    if (file.status === 'modified' && hosts.length > 0) {
      return `${name} names new sources of packages: ${list([...new Set(hosts)])}.`;
    }
    return undefined;
  });
}

function hostsOf(lock: string): string[] {
  return [
    ...new Set(
      [...lock.matchAll(/\b(?:https?|git\+\w+|git|ssh):\/\/([^/\s"')]+)/g)].map(
        ([, host]) => host ?? '',
      ),
    ),
  ];
}

/** What of `wanted` is not in `there`, each as often as it is missing. */
function missingFrom(wanted: readonly string[], there: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const each of there) left.set(each, (left.get(each) ?? 0) + 1);
  return wanted.filter((each) => {
    const count = left.get(each) ?? 0;
    if (count > 0) left.set(each, count - 1);
    return count === 0;
  });
}

/** What is wrong with where a link leads; undefined when that is inside the project. */
function leavesProject(link: string, target: string): string | undefined {
  const outside = 'outside the project';
  // What comes after a NUL the system does not see.
  if (path.posix.isAbsolute(target) || target.includes('\0')) return outside;
  const parts = target.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.some((part) => part.toLowerCase() === '.git')) return outside;
  const resolved = path.posix.normalize(path.posix.join(path.posix.dirname(link), target));
  if (resolved === '..' || resolved.startsWith('../')) return outside;
  const down = parts.findIndex((part) => part !== '..');
  // A name may be a link as well, and up from where that leads is somewhere else than it looks.
  return down >= 0 && parts.includes('..', down) ? 'which goes up again after a name' : undefined;
}
