/*
 * How many tests a runner says that it ran. Read from its summary, since nothing else is alike among runners; what is
 * not recognised is not guessed.
 */

interface Summary {
  readonly line: RegExp;
  /** Adds up what the line says of tests that ran, green or red. Default: its first group. */
  readonly ran?: (found: RegExpExecArray) => number;
}

/** `1 failed | 6 passed (7)`, `1 skipped, 5 passed, 6 total`: what was skipped did not run. */
const partsOf = (text: string): number =>
  [...text.matchAll(/(\d+) (?:passed|failed|errors?|xpassed|xfailed)\b/g)].reduce(
    (sum, [, count]) => sum + Number(count),
    0,
  );

const both = ([, first = '0', second = '0']: RegExpExecArray): number =>
  Number(first) + Number(second);

const SUMMARIES: readonly Summary[] = [
  { line: /^\s*Tests:? {2,}(.*\d.*)$/, ran: ([, parts = '']) => partsOf(parts) }, // vitest, jest
  { line: /^(?:#|ℹ) (?:pass|fail) (\d+)$/u }, // node:test
  { line: /^\s*(\d+) (?:passing|failing)\b/ }, // mocha
  {
    line: /^=+ (\d.*) in \d.*=$/,
    ran: ([, parts = '']) => partsOf(parts),
  }, // pytest
  {
    line: /^((?:\d+ \w+, )*\d+ (?:passed|failed|skipped|error)\w*(?:, \d+ \w+)*) in [\d.]+s/,
    ran: ([, parts = '']) => partsOf(parts),
  }, // pytest -q
  { line: /^Ran (\d+) tests? in / }, // unittest
  { line: /^test result: \w+\. (\d+) passed; (\d+) failed;/, ran: both }, // cargo test
  { line: /^\s+Summary \[.*\] +(\d+) tests? run:/ }, // cargo nextest
  { line: /^\s*--- (?:PASS|FAIL): \S/, ran: () => 1 }, // go test -v
  { line: /^ *(\d+) (?:pass|fail)$/ }, // bun
  { line: /^(?:ok|FAILED) \| (\d+) passed(?: \([^)]*\))? \| (\d+) failed/, ran: both }, // deno
  { line: /^ {2}(\d+) (?:passed|failed)(?: \([\d.]+m?s\))?$/ }, // playwright
  { line: /^ {2}(\d+) tests? (?:passed|failed)$/ }, // ava
  { line: /^(\d+) examples?, \d+ failures?/ }, // rspec
  { line: /^OK \((\d+) tests?, / }, // phpunit
  { line: /^Tests: (\d+), Assertions: \d+, / },
  { line: /^(?:\[\w+\] )?Tests run: (\d+), Failures: \d+, Errors: \d+, Skipped: \d+$/ }, // maven
  { line: /(?:Passed|Failed)! +- Failed: +(\d+), Passed: +(\d+),/, ran: both }, // dotnet test
];

/** What runners say when there was nothing to run, whether they call that a success or not. */
const NOTHING: readonly RegExp[] = [
  /^\s*No test files? found\b/, // vitest
  /^\s*No tests? found\b/, // jest, playwright
  /\bno tests ran\b/i, // pytest, unittest
  /^\s*(?:Error: )?No test (?:modules?|files?|suites?) (?:were )?found\b/i, // deno, mocha
  /^No tests executed!/, // phpunit
  /^collected 0 items\b/,
  /^(?:#|ℹ) tests 0$/u,
  /^(?:\?|ok) *\t\S+\t.*\[no test(?: files|s to run)\]/, // go test
  /^\s*(?:error: )?0 test files matching/, // bun
  /^\s*Couldn't find any files to test/, // ava
  /^error: no tests to run/, // cargo nextest
  /^No test is available in /, // dotnet test
];

const MAX_LINE_CHARACTERS = 500;

/** A package of which go only says that it is well: it had tests, and nobody knows how many. */
const GO_PACKAGE = /^(?:ok|FAIL) *\t\S+\t(?!.*\[no tests to run\])/;

/**
 * @param output without terminal escapes
 * @returns how many tests ran, by all summaries in it together; undefined when none is recognised
 */
export function countTests(output: string): number | undefined {
  let ran = 0;
  let recognised = false;
  let nothing = false;
  let uncounted = false;
  for (const line of output.split(/\r?\n/)) {
    // No summary is that long, and no pattern shall be kept busy.
    if (line.length > MAX_LINE_CHARACTERS) continue;
    if (NOTHING.some((pattern) => pattern.test(line))) nothing = true;
    if (GO_PACKAGE.test(line)) uncounted = true;
    for (const { line: pattern, ran: count } of SUMMARIES) {
      const found = pattern.exec(line);
      if (found === null) continue;
      recognised = true;
      ran += count === undefined ? Number(found[1]) : count(found);
      break;
    }
  }
  if (recognised && (ran > 0 || !uncounted)) return ran;
  return nothing && !uncounted ? 0 : undefined;
}
