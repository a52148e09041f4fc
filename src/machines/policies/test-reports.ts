/**
 * Test runners with several workers print the report of whichever test ends first. To compare two outputs, the
 * reports are put in one fixed order. Sorting all lines would do that too, but it would tear each test's name from its
 * values: "a: 1 ≠ 2, b: 3 ≠ 4" would equal "a: 3 ≠ 4, b: 1 ≠ 2". So a report moves as a whole, its lines keep
 * their order, and text that belongs to no known report stays where it is.
 *
 * Tests that passed are left out, with their counts: a worker that adds a passing test in each attempt has not come
 * nearer to mending the one that fails.
 */

/**
 * What one line is to the output around it.
 * `status`: says how one test or file fared; lines indented deeper belong to it.
 * `passed`: the same, and it fared well.
 * `report`: heads the details of one failure; all that follows belongs to it, indented or not.
 * `mark`: a ruler, a summary: ends the report before it.
 */
export type LineRole = 'status' | 'passed' | 'report' | 'mark' | 'text';

export interface OutputLine {
  readonly role: LineRole;
  /** Spaces or tabs in front. */
  readonly indent: number;
  /** The line without noise. A line with nothing left may still end a report. */
  readonly text: string;
}

const MARKS: readonly RegExp[] = [
  /^\s*(?:Test Suites|Tests|Test Files|Snapshots|Time|Duration|Start at)(?::| {2})/,
  /^Summary of all failing tests/,
  /^\s*(?:={3,}(?! (?:RUN|PAUSE|CONT|NAME)\b)|[⎯─━]{3,})/u,
  /^failures:$|^test result: |^successes:$/,
  /^Found \d+ errors?/,
  /^(?:running \d+ tests?|(?:collecting \.{3} )?collected \d+ items?)/,
  /^(?:# (?!Subtest)|ℹ |1\.\.\d)/u,
];

const REPORTS: readonly RegExp[] = [
  /^ ?FAIL {1,2}\S/, // vitest, jest
  /^_{3,} .+ _{3,}$/, // pytest
  /^---- .+ stdout ----$/, // cargo test
  /^error\[E\d+\]: /, // rustc
  /^\S+:\d+:\d+ - error TS\d+: /, // tsc --pretty
];

const PASSES: readonly RegExp[] = [
  /^\s*ok \d+/, // TAP
  /^\s*[✓✔√] /u, // vitest, jest, node:test, mocha
  /^PASS \S/, // jest
  /^(?:\[gw\d+\] )?(?:\[\s*\d+%\] )?PASSED \S/, // pytest
  /^[^\s:]+::\S+ PASSED/,
  /^\s*--- PASS: /, // go test
  /^(?:ok {2}|\?)\s*\t/,
  /^test .+ \.\.\. ok$/, // cargo test
];

const STATUSES: readonly RegExp[] = [
  /^\s*not ok \d+/, // TAP
  /^\s*# Subtest: /,
  /^test at \S+:\d+:\d+$/, // node:test
  /^\s*[×✖✗✘✕▶] /u,
  /^\s*❯ .*\(\d+ tests?/u, // vitest
  /^(?:\[gw\d+\] )?(?:\[\s*\d+%\] )?(?:FAILED|ERROR|SKIPPED|XFAIL|XPASS) \S/, // pytest
  /^[^\s:]+::\S+ (?:FAILED|ERROR|SKIPPED)/,
  /^=== (?:RUN|PAUSE|CONT|NAME)\s/, // go test -v
  /^\s*--- (?:FAIL|SKIP): /,
  /^FAIL\s*\t/, // go test, one line per package
  /^test .+ \.\.\. (?:FAILED|ignored)/, // cargo test
  /^\S.*\(\d+,\d+\): (?:error|warning) /, // tsc
  /^\/\S+$/, // eslint: a file, its findings indented
];

/** @param line without terminal escapes, otherwise as it was printed */
export function roleOf(line: string): LineRole {
  if (MARKS.some((pattern) => pattern.test(line))) return 'mark';
  if (REPORTS.some((pattern) => pattern.test(line))) return 'report';
  if (PASSES.some((pattern) => pattern.test(line))) return 'passed';
  if (STATUSES.some((pattern) => pattern.test(line))) return 'status';
  return 'text';
}

/** A head without a body that says no more than the failure's own report does, or belongs to a test that passed. */
const NAMES_ONLY = /^(?:RUN|PAUSE|CONT|NAME) \S+$|^# Subtest: /; // go test -v, TAP

const FAILS = /^FAIL (?=\S+ > )/; // vitest

/** Heads of one report (several when vitest names all tests with the same failure first), and its lines. */
interface Report {
  readonly role: 'status' | 'report';
  readonly indent: number;
  readonly heads: string[];
  readonly body: string[];
}

/** The lines in an order that does not depend on which worker was faster: loose text first, then the reports, sorted. */
export function orderReports(lines: readonly OutputLine[]): string[] {
  const loose: string[] = [];
  const reports: Report[] = [];
  let open: Report | undefined;
  /** Indentation of the passed test whose lines are being left out. */
  let passed: number | undefined;
  for (const line of lines) {
    if (line.role === 'passed') {
      passed = line.indent;
      // TAP announces a test before it says how the test fared.
      if (open?.body.at(-1)?.startsWith('# Subtest: ')) open.body.pop();
      continue;
    }
    if (passed !== undefined) {
      if (line.role !== 'report' && (line.indent > passed || isBlank(line))) continue;
      passed = undefined;
    }
    if (open !== undefined && belongsTo(open, line)) {
      if (line.text !== '') open.body.push(line.text);
    } else if (
      open?.body.length === 0 &&
      FAILS.test(open.heads[0] ?? '') &&
      FAILS.test(line.text)
    ) {
      open.heads.push(line.text);
    } else if (line.role === 'report' || line.role === 'status') {
      open = { role: line.role, indent: line.indent, heads: [line.text], body: [] };
      reports.push(open);
    } else {
      open = undefined;
      if (line.text !== '') loose.push(line.text);
    }
  }
  const texts = reports
    .filter(({ heads, body }) => body.length > 0 || !NAMES_ONLY.test(heads[0] ?? ''))
    .map(({ heads, body }) => [...heads.sort(), ...body].join('\n').trim());
  return [...loose, ...texts.filter((text) => text !== '').sort()];
}

function belongsTo(report: Report, line: OutputLine): boolean {
  if (line.indent > report.indent) return line.role !== 'report';
  // A blank line ends no indented report: YAML and diffs have some inside.
  if (report.role === 'status') return isBlank(line);
  return line.role === 'text';
}

function isBlank(line: OutputLine): boolean {
  return line.role === 'text' && line.text === '';
}

/** A summary line without what it says about tests that passed: `1 failed | 6 passed (7)` → `1 failed`. */
export function withoutPasses(summary: string): string {
  if (
    /^(?:#|ℹ) (?:tests|suites|pass|skipped|todo)\b|^(?:running|(?:collecting \.{3} )?collected) \d+ /u.test(
      summary,
    )
  ) {
    return '';
  }
  return summary
    .replace(/[|,;]? *\b\d+ (?:passed|total)\b/g, '')
    .replace(/^((?:Test Files|Tests) .*) \(\d+\)$/, '$1');
}
