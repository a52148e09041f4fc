import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import {
  errorFingerprint,
  feedbackFingerprint,
  normaliseErrorText,
} from '../../../src/machines/policies/fingerprint.ts';
import { cpuTimeMs } from '../../cpu-time.ts';
import { OTHER_FAILURE, SAME_FAILURE } from './fingerprint-pairs.ts';

describe('error fingerprint: the table', () => {
  test.each(SAME_FAILURE)('$tool: $differs is noise', ({ one, other }) => {
    expect(one).not.toBe(other);
    expect(normaliseErrorText(other)).toBe(normaliseErrorText(one));
    expect(errorFingerprint(one)).toMatch(/^[0-9a-f]{64}$/);
  });

  test.each(OTHER_FAILURE)('$tool: $differs makes another failure', ({ one, other }) => {
    expect(errorFingerprint(other)).not.toBe(errorFingerprint(one));
  });
});

describe('error fingerprint: the laws', () => {
  const digits = (least: number, most: number) => fc.integer({ min: least, max: most }).map(String);
  const hex = (length: number) =>
    fc
      .array(fc.constantFrom(...'0123456789abcdef'), { minLength: length, maxLength: length })
      .map((all) => all.join(''));
  const mixed = fc
    .tuple(fc.constantFrom('a', 'Z', 'q'), fc.stringMatching(/^[A-Za-z]{4}$/), fc.nat(9))
    .map((all) => all.join(''));
  const noise = fc.record({
    folder: fc.oneof(
      mixed.map((name) => `/tmp/troupe-${name}`),
      mixed.map((name) => `/home/ada/.troupe/worktrees/run-${name}`),
      mixed.map((name) => `/var/folders/ab/${name}/T/wt-${name}`),
    ),
    line: digits(1, 9_999),
    column: digits(1, 200),
    ms: fc.oneof(
      digits(0, 99_999),
      fc.double({ min: 0.001, max: 999, noNaN: true }).map((n) => n.toFixed(3)),
    ),
    pid: digits(2, 4_194_304),
    port: digits(1_024, 65_535),
    address: hex(12).map((text) => `0x7${text.slice(1)}`),
    uuid: fc.uuid(),
    time: fc
      .date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true })
      .map((date) => date.toISOString()),
    colour: digits(30, 37),
    reportsReversed: fc.boolean(),
  });
  type Noise = typeof noise extends fc.Arbitrary<infer N> ? N : never;
  const failure = (n: Noise, name: string, got: number) => {
    const reports = [
      `\u001b[${n.colour}mnot ok 1 - ${name}\u001b[0m\n  ---\n  duration_ms: ${n.ms}\n  error: 'expected ${got} to be 1'\n  at: '${n.folder}/src/sum.ts:${n.line}:${n.column}'\n  ...`,
      `ok 2 - other # took ${n.ms} ms`,
    ];
    return `${n.time} started (pid ${n.pid}) in ${n.folder}/main.ts
connect ECONNREFUSED 127.0.0.1:${n.port}, job ${n.uuid}, object at ${n.address}
${(n.reportsReversed ? reports.reverse() : reports).join('\n')}
# fail 1
Done in ${n.ms}ms`;
  };
  const name = fc
    .stringMatching(/^[a-z]{1,8}( [a-z]{1,8})?$/)
    .filter((text) => !/[a-f]{7}/.test(text));

  test.prop([noise, noise, name, fc.integer()])(
    'noise changes nothing',
    (one, other, test, got) => {
      expect(normaliseErrorText(failure(other, test, got))).toBe(
        normaliseErrorText(failure(one, test, got)),
      );
    },
  );

  test.prop([noise, noise, name, fc.integer(), fc.integer()])(
    'another value makes another failure',
    (one, other, test, got, gotNow) => {
      fc.pre(got !== gotNow);
      expect(errorFingerprint(failure(other, test, gotNow))).not.toBe(
        errorFingerprint(failure(one, test, got)),
      );
    },
  );

  test.prop([noise, name, name, fc.integer()])(
    'another test makes another failure',
    (n, test, otherTest, got) => {
      fc.pre(test !== otherTest);
      expect(errorFingerprint(failure(n, otherTest, got))).not.toBe(
        errorFingerprint(failure(n, test, got)),
      );
    },
  );

  test.prop([fc.string({ unit: 'binary', maxLength: 400 })])(
    'any text at all has an answer, and always the same',
    (text) => {
      const print = errorFingerprint(text);
      expect(print === undefined || /^[0-9a-f]{64}$/.test(print)).toBe(true);
      expect(errorFingerprint(text)).toBe(print);
    },
  );

  test.each([
    '',
    ' \n\t\r\n',
    '\u001b[0m\n',
    '=====\n-----\n',
    '⠋ ⠙\n',
    '12% [####      ] downloading\n',
  ])('text that says nothing (%j) has none', (text) => {
    expect(errorFingerprint(text)).toBeUndefined();
  });

  test('two different lone surrogates are two failures', () => {
    expect(errorFingerprint('got \ud800')).not.toBe(errorFingerprint('got \udbff'));
  });
});

describe('error fingerprint: long output', () => {
  const megabytes10 = 10 * 1024 * 1024;
  /** Attacks on single patterns, and plain bulk. Milliseconds that one of them may take, far above what they need. */
  const limitMs = 3_000;
  test.each([
    ['one letter', 'a'],
    ['spaces', ' '],
    ['tabs', '\t'],
    ['carriage returns', '\r'],
    ['newlines', '\n'],
    ['digits', '1'],
    ['numbers', '1,'],
    ['decimals', '1.'],
    ['clock', '1:'],
    ['hex', 'deadbeef0'],
    ['escapes', '\u001b['],
    ['titles', '\u001b]0;'],
    ['slashes', '/'],
    ['paths', '/tmp/a'],
    ['parents', '../'],
    ['backslashes', 'C:\\'],
    ['quotes', "'/ a "],
    ['brackets', '[::'],
    ['underscores', '___ _'],
    ['colons', '::'],
    ['short lines', '1\n'],
    ['letters and newlines', 'test FAILED at src/a.ts:1:2 in 3 ms 0x1 \n'],
    ['ports', 'localhost:1'],
    ['node frames', 'node:a/'],
    ['pytest ids', 'a::b '],
    ['rulers', '==== '],
    ['durations', '1h 1m 1'],
    ['months', 'Nov 20 '],
    ['at signs', 'a@1'],
    ['parentheses', '(1'],
  ])('10 MB of %s take no longer than their cap', (_, unit) => {
    const inOneLine = unit.repeat(Math.ceil(megabytes10 / unit.length));
    const line = `${unit.repeat(Math.ceil(4_000 / unit.length))}\n`;
    for (const text of [inOneLine, line.repeat(Math.ceil(megabytes10 / line.length))]) {
      const start = cpuTimeMs();
      errorFingerprint(text);
      expect(cpuTimeMs() - start).toBeLessThan(limitMs);
    }
  });

  const log = (ms: (line: number) => number, end: string) =>
    `start of build\n${Array.from({ length: 200_000 }, (_, i) => `step ${i} of the build ended after ${ms(i)} ms`).join('\n')}\n${end}\n`;

  test('noise in 10 MB does not move the cut', () => {
    const one = log((i) => i % 7, 'Error: boom');
    const other = log((i) => 1_000 + (i % 911), 'Error: boom');
    expect(one.length).toBeGreaterThan(megabytes10 * 0.7);
    expect(errorFingerprint(other)).toBe(errorFingerprint(one));
  });

  test('nor do lines of noise', () => {
    const lines = (progress: number) =>
      [
        ...Array.from({ length: progress }, (_, i) => `downloading ${i % 100}%`),
        ...Array.from({ length: 20_000 }, (_, i) => `line ${i}`),
      ].join('\n');
    expect(errorFingerprint(lines(3_000))).toBe(errorFingerprint(lines(5)));
  });

  test.each([20_000, megabytes10])('%i blanks say nothing', (length) => {
    expect(errorFingerprint(' '.repeat(length))).toBeUndefined();
    expect(errorFingerprint(' \n'.repeat(length / 2))).toBeUndefined();
  });

  test.each([
    ['the beginning', 'start of build', 'start of tests'],
    ['the end', 'Error: boom', 'Error: bang'],
  ])('a difference at %s of 10 MB counts', (_, word, otherWord) => {
    const text = log(() => 1, 'Error: boom');
    expect(errorFingerprint(text.replace(word, otherWord))).not.toBe(errorFingerprint(text));
  });

  test.each([5_000, 600_000])(
    'so does one at either end of a single line of %i characters',
    (length) => {
      const filler = 'lorem ipsum '.repeat(length / 12);
      const text = `alpha ${filler} omega`;
      expect(errorFingerprint(text.replace('alpha', 'beta'))).not.toBe(errorFingerprint(text));
      expect(errorFingerprint(text.replace('omega', 'gamma'))).not.toBe(errorFingerprint(text));
    },
  );
});

describe('feedback fingerprint', () => {
  const items = fc.array(fc.string(), { maxLength: 6 });

  test.prop([
    items.chain((all) =>
      fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length })),
    ),
  ])('the order does not matter', ([all, shuffled]) => {
    expect(feedbackFingerprint(shuffled)).toBe(feedbackFingerprint(all));
  });

  test.prop([items, items])(
    'two lists have one fingerprint only if they are the same list',
    (one, other) => {
      const equal = JSON.stringify(one.toSorted()) === JSON.stringify(other.toSorted());
      expect(feedbackFingerprint(one) === feedbackFingerprint(other)).toBe(equal);
    },
  );

  test.each([
    [['a|b'], ['a', 'b']],
    [['a,b'], ['a', 'b']],
    [['a\nb'], ['a', 'b']],
    [['a","b'], ['a', 'b']],
    [['a'], ['a', 'a']],
    [['a'], ['a', '']],
    [['a'], ['A']],
    [['\ud800'], ['\udbff']],
  ])('%j is not %j', (one, other) => {
    expect(feedbackFingerprint(one)).not.toBe(feedbackFingerprint(other));
  });

  test('an empty list has none', () => {
    expect(feedbackFingerprint([])).toBeUndefined();
    expect(feedbackFingerprint([''])).toBeDefined();
  });
});
