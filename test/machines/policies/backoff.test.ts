import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import {
  type BackoffPolicy,
  backoffMs,
  clampDueAt,
  DEFAULT_BACKOFF,
  MAX_TIMER_MS,
  parseBackoffPolicy,
} from '../../../src/machines/policies/backoff.ts';
import { unitHash } from '../../../src/protocol/hash.ts';

const policy: fc.Arbitrary<BackoffPolicy> = fc.record({
  initialMs: fc.integer({ min: 1, max: MAX_TIMER_MS }),
  factor: fc.oneof(
    fc.constantFrom(1, 1.000_000_1, 2, 1_000_000),
    fc.double({ min: 1, max: 100, noNaN: true }),
  ),
  maxMs: fc.integer({ min: 1, max: MAX_TIMER_MS }),
  jitter: fc.oneof(fc.constantFrom(0, 0.2, 1), fc.double({ min: 0, max: 1, noNaN: true })),
});
const failures = fc.oneof(
  fc.integer({ min: 1, max: 40 }),
  fc.integer({ min: 1, max: 1_000_000_000 }),
);
const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

describe('the wait', () => {
  test.each([
    { failures: 1, ms: 10_000 },
    { failures: 2, ms: 20_000 },
    { failures: 3, ms: 40_000 },
    { failures: 6, ms: 320_000 },
    { failures: 7, ms: 600_000 },
    { failures: 22, ms: 600_000 },
    { failures: 1_000_000_000, ms: 600_000 },
  ])('after $failures failures is $ms ms by default, without jitter', ({ failures, ms }) => {
    expect(backoffMs(DEFAULT_BACKOFF, failures, 0)).toBe(ms);
    expect(backoffMs(DEFAULT_BACKOFF, failures, 0.5)).toBe(ms * 0.9);
  });

  test.prop([policy, failures, unit])(
    'lies between the nominal wait less jitter and the nominal wait',
    (p, n, u) => {
      const wait = backoffMs(p, n, u);
      const nominal = Math.min(p.initialMs * p.factor ** (n - 1), p.maxMs);
      expect(wait).toBeGreaterThanOrEqual(Math.max(1, Math.floor(nominal * (1 - p.jitter))));
      expect(wait).toBeLessThanOrEqual(Math.max(1, Math.floor(nominal)));
    },
  );

  test.prop([policy, failures, unit])(
    'is a whole number of milliseconds that a timer keeps, never above the cap',
    (p, n, u) => {
      const wait = backoffMs(p, n, u);
      expect(Number.isSafeInteger(wait)).toBe(true);
      expect(wait).toBeGreaterThanOrEqual(1);
      expect(wait).toBeLessThanOrEqual(Math.min(p.maxMs, 2 ** 31 - 1));
    },
  );

  test.prop([policy, failures, failures, unit])(
    'never falls from one failure to a later one',
    (p, n, m, u) => {
      expect(backoffMs(p, Math.max(n, m), u)).toBeGreaterThanOrEqual(
        backoffMs(p, Math.min(n, m), u),
      );
    },
  );

  test.prop([policy, fc.double(), unit])(
    'is a number that a timer keeps whatever the count is',
    (p, n, u) => {
      fc.pre(!Number.isNaN(n));
      const wait = backoffMs(p, n, u);
      expect(wait).toBeGreaterThanOrEqual(1);
      expect(wait).toBeLessThanOrEqual(p.maxMs);
    },
  );

  test.each([0, -3, Number.POSITIVE_INFINITY])('has an answer for %d failures', (n) => {
    const steady = { ...DEFAULT_BACKOFF, factor: 1 };
    expect(backoffMs(steady, n, 0)).toBe(10_000);
    expect(backoffMs(DEFAULT_BACKOFF, n, 0)).toBe(n > 0 ? 600_000 : 10_000);
  });

  test.each([
    { ...DEFAULT_BACKOFF, factor: 0.5 },
    { ...DEFAULT_BACKOFF, maxMs: 0 },
    { ...DEFAULT_BACKOFF, maxMs: 1e300 },
  ])('stays within what a timer keeps even for a policy nobody checked: %j', (unchecked) => {
    for (const n of [0, 1, 60, 1e6]) {
      const wait = backoffMs(unchecked, n, 0.999);
      expect(wait).toBeGreaterThanOrEqual(0);
      expect(wait).toBeLessThanOrEqual(Math.min(unchecked.maxMs, MAX_TIMER_MS));
    }
  });

  test('differs between two tasks with the same failure, at the cap as well', () => {
    for (const n of [1, 30]) {
      const waits = ['draft', 'edit', 'print'].map((id) =>
        backoffMs(DEFAULT_BACKOFF, n, unitHash(`${id}:${n}`)),
      );
      expect(new Set(waits).size).toBe(3);
    }
  });
});

describe('a stored due time', () => {
  test.each([
    { dueAt: 1_000, now: 5_000, is: 1_000, what: 'in the past is due' },
    { dueAt: 9_000, now: 5_000, is: 9_000, what: 'within the cap is believed' },
    {
      dueAt: 5_000 + 31_536_000_000,
      now: 5_000,
      is: 605_000,
      what: 'a year ahead is cut to the cap',
    },
  ])('$what', ({ dueAt, now, is }) => {
    expect(clampDueAt(dueAt, now, DEFAULT_BACKOFF)).toBe(is);
  });
});

describe('a policy from outside', () => {
  test('has the defaults for what is left out', () => {
    expect(parseBackoffPolicy(undefined, 'x')).toEqual(DEFAULT_BACKOFF);
    expect(parseBackoffPolicy({ factor: 1.5 }, 'x')).toEqual({ ...DEFAULT_BACKOFF, factor: 1.5 });
  });

  test.each([
    [
      { factor: 0.5 },
      'run 1: expected factor to be a number from 1 to 1000000, got 0.5. Leave it out for the default, 2.',
    ],
    [{ factor: Number.POSITIVE_INFINITY }, 'got Infinity'],
    [{ factor: Number.NaN }, 'got NaN'],
    [{ jitter: -0.1 }, 'expected jitter to be a number from 0 to 1, got -0.1'],
    [{ jitter: 20 }, 'got 20'],
    [{ maxMs: 0 }, 'expected maxMs to be a positive integer of at most 2147483647, got 0'],
    [{ maxMs: 2 ** 31 }, 'got 2147483648'],
    [{ initialMs: '10s' }, 'got the text "10s"'],
    [{ initalMs: 5 }, 'Did you mean "initialMs"?'],
  ])('%j is refused', (partial, message) => {
    expect(() => parseBackoffPolicy(partial, 'run 1')).toThrow(message);
  });
});
