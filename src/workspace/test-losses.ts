import type { FileFacts } from './change-rules.ts';
import { counted, surplus, take } from './multiset.ts';
import {
  isNamedAsTest,
  isSnapshot,
  readTestSource,
  type TestMark,
  type TestSource,
} from './test-source.ts';

/** What a rule found: in one file, or in the change as a whole. */
export interface Finding {
  readonly path?: string;
  readonly reason: string;
}

/** A changed file of which at least one side is a test. */
interface ChangedTest {
  readonly file: FileFacts;
  readonly before: TestSource | undefined;
  readonly after: TestSource | undefined;
}

const quote = (file: string): string => JSON.stringify(file);

/**
 * Tests that are gone: whole files, and tests of files that stay. What only moved to another file or got another name
 * is not gone, as long as what it asserts is kept.
 */
export function findLostTests(files: readonly FileFacts[]): readonly Finding[] {
  const tests = changedTests(files);
  const lostTests = losses(tests, ({ tests: declared }) => declared);
  const lostAssertions = losses(tests, ({ assertions }) => assertions);
  const added = new Set(files.filter(({ status }) => status === 'added').map(({ blob }) => blob));
  const findings: Finding[] = [];
  for (const file of files) {
    if (file.status !== 'deleted' || added.has(file.previousBlob)) continue;
    if (isSnapshot(file.path)) {
      findings.push({
        path: file.path,
        reason: `${quote(file.path)}, expected outputs, is deleted.`,
      });
    } else if (isNamedAsTest(file.path) && !tests.some((test) => test.file === file)) {
      findings.push({ path: file.path, reason: `The test ${quote(file.path)} is deleted.` });
    }
  }
  for (const test of tests) {
    const { file, before } = test;
    if (before === undefined || added.has(file.previousBlob)) continue;
    const tests = lostTests.get(test) ?? 0;
    const assertions = lostAssertions.get(test) ?? 0;
    if (file.status === 'deleted') {
      // A helper that asserts nothing and declares nothing is no test, wherever it lies.
      const gone = tests > 0 || assertions > 0;
      const wasEmpty = before.tests.length === 0 && before.assertions.length === 0;
      if (gone || (wasEmpty && isNamedAsTest(file.path))) {
        findings.push({ path: file.path, reason: `The test ${quote(file.path)} is deleted.` });
      }
    } else if (tests > 0) {
      findings.push({
        path: file.path,
        reason: `${quote(file.path)} has ${count(tests, 'test')} less than before.`,
      });
    }
  }
  return findings;
}

/** Tests that stay and prove less: skipped, singled out, ended early, with fewer assertions. */
export function findWeakenedTests(files: readonly FileFacts[]): readonly Finding[] {
  const tests = changedTests(files);
  const lost = losses(tests, ({ assertions }) => assertions);
  const lostTests = losses(tests, ({ tests: declared }) => declared);
  const anyLost = [...lostTests.values(), ...lost.values()].some((number) => number > 0);
  const knownNames = new Set(tests.flatMap(({ before }) => [...(before?.names ?? [])]));
  // What was skipped before may move.
  const oldMarks = counted(
    tests.flatMap(({ before }) => before?.marks.map(({ line }) => line) ?? []),
  );
  const findings: Finding[] = [];
  for (const test of tests) {
    const { file, after } = test;
    if (after === undefined) continue;
    for (const { kind, line, subject } of after.marks) {
      if (take(oldMarks, line)) continue;
      // A new test that is skipped takes nothing away; one that was there and is skipped now does.
      const isKnown = subject !== undefined && knownNames.has(subject);
      const isNew =
        !reachesOthers(file.path, kind, subject) &&
        (test.before === undefined || (kind === 'skip' && subject !== undefined));
      if (kind !== 'only' && isNew && !isKnown && !anyLost) continue;
      findings.push({
        path: file.path,
        reason: `${quote(file.path)} ${MARK_WORDS[kind]}: ${shorten(line)}`,
      });
    }
    const assertions = lost.get(test) ?? 0;
    if (test.before !== undefined && assertions > 0) {
      findings.push({
        path: file.path,
        reason: `${quote(file.path)} has ${count(assertions, 'assertion')} less than before.`,
      });
    }
  }
  return findings;
}

/** Whether what a file says of tests holds for those of other files too: the end of the runner, a hook of pytest. */
function reachesOthers(file: string, kind: TestMark['kind'], subject: string | undefined): boolean {
  if (kind === 'exit') return isNamedAsTest(file);
  return subject === undefined && /(?:^|\/)conftest\.py$/.test(file);
}

const MARK_WORDS = {
  skip: 'skips tests',
  only: 'leaves out all other tests',
  exit: 'ends the tests early, as if they had passed',
} as const;

function changedTests(files: readonly FileFacts[]): ChangedTest[] {
  return files.flatMap((file): ChangedTest[] => {
    const before = file.before === undefined ? undefined : readTestSource(file.path, file.before);
    const after = file.after === undefined ? undefined : readTestSource(file.path, file.after);
    // A file that is a test only now had nothing to lose; one that stops being a test has lost all.
    return before === undefined && after === undefined ? [] : [{ file, before, after }];
  });
}

/**
 * By how much each file has fewer of something than before, less what stands in other files now. A line that was
 * replaced by another in the same file is not lost.
 */
function losses(
  tests: readonly ChangedTest[],
  of: (source: TestSource) => readonly string[],
): ReadonlyMap<ChangedTest, number> {
  const sides = tests.map((test) => {
    const before = test.before === undefined ? [] : of(test.before);
    const after = test.after === undefined ? [] : of(test.after);
    return { test, before, after, net: before.length - after.length };
  });
  // What files have gained that did not stand in them before: it may have come from elsewhere.
  const gained = new Map<string, number>();
  for (const { before, after } of sides) {
    for (const line of surplus(after, before)) gained.set(line, (gained.get(line) ?? 0) + 1);
  }
  const result = new Map<ChangedTest, number>();
  for (const { test, before, after, net } of sides) {
    if (net <= 0) continue;
    const moved = surplus(before, after).filter((line) => take(gained, line)).length;
    result.set(test, Math.max(0, net - moved));
  }
  return result;
}

const count = (number: number, what: string): string =>
  `${number} ${what}${number === 1 ? '' : 's'}`;

const shorten = (line: string): string => (line.length > 120 ? `${line.slice(0, 119)}…` : line);
