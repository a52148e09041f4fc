import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  DEFAULT_TASK_LIMITS,
  parseTaskLimits,
  type TaskLimits,
} from '../../../src/machines/policies/limits.ts';
import { ConfigurationError } from '../../../src/protocol/errors.ts';

test('the defaults are the documented ones', () => {
  expect(DEFAULT_TASK_LIMITS).toEqual({
    attempts: 10,
    sameError: 3,
    sameChange: 3,
    sameFeedback: 2,
    infrastructureAttempts: 10,
    interruptions: 3,
    backoff: { initialMs: 10_000, factor: 2, maxMs: 600_000, jitter: 0.2 },
    infrastructureBackoff: { initialMs: 10_000, factor: 2, maxMs: 600_000, jitter: 0.2 },
  });
});

describe('parseTaskLimits', () => {
  test('takes what is given and leaves the rest at the defaults', () => {
    expect(parseTaskLimits({ attempts: 4, backoff: { maxMs: 5 } }, 'here')).toEqual({
      ...DEFAULT_TASK_LIMITS,
      attempts: 4,
      backoff: { ...DEFAULT_TASK_LIMITS.backoff, maxMs: 5 },
    });
    expect(parseTaskLimits(undefined, 'here')).toEqual(DEFAULT_TASK_LIMITS);
    expect(parseTaskLimits({ attempts: undefined }, 'here')).toEqual(DEFAULT_TASK_LIMITS);
    expectTypeOf(parseTaskLimits).returns.toEqualTypeOf<TaskLimits>();
  });

  test("a task's limits fall back on its run's", () => {
    const run = parseTaskLimits({ attempts: 4, infrastructureBackoff: { initialMs: 7 } }, 'run');
    const task = parseTaskLimits(
      { sameError: 2, infrastructureBackoff: { factor: 3 } },
      'task',
      run,
    );
    expect(task).toEqual({
      ...run,
      sameError: 2,
      infrastructureBackoff: { ...run.infrastructureBackoff, factor: 3 },
    });
  });

  const counts = [
    'attempts',
    'sameError',
    'sameChange',
    'sameFeedback',
    'infrastructureAttempts',
    'interruptions',
  ];
  const nonsense: readonly (readonly [unknown, string])[] = [
    [0, '0'],
    [-1, '-1'],
    [1.5, '1.5'],
    [Number.NaN, 'NaN'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    [2 ** 53, '9007199254740992'],
    ['10', 'the text "10"'],
    ['x'.repeat(100), `the text "${'x'.repeat(40)}…"`],
    [null, 'null'],
    [true, 'true'],
    [[3], 'an array'],
    [{}, 'an object'],
    [10n, 'a BigInt'],
    [() => 3, 'a function'],
  ];
  test.each(counts.flatMap((key) => nonsense.map(([value, got]) => ({ key, value, got }))))(
    '$key: $got is refused',
    ({ key, value, got }) => {
      expect(() => parseTaskLimits({ [key]: value }, 'limits of run r1')).toThrow(
        `limits of run r1: expected ${key} to be a positive integer, got ${got}. Leave it out for the default, `,
      );
    },
  );

  test.each([
    [
      { atempts: 3 },
      'here: there is no setting "atempts". Did you mean "attempts"? Known settings: attempts, sameError,',
    ],
    [{ colour: 3 }, 'here: there is no setting "colour". Known settings:'],
    [JSON.parse('{"__proto__": {"attempts": 3}}'), 'there is no setting "__proto__"'],
    [{ backoff: { max: 3 } }, 'here, backoff: there is no setting "max". Did you mean "maxMs"?'],
    [
      { infrastructureBackoff: 3 },
      'here, infrastructureBackoff: expected an object with settings, got 3.',
    ],
    [null, 'here: expected an object with settings, got null.'],
    [[1], 'got an array'],
    ['attempts=3', 'got the text "attempts=3"'],
  ])('%j is refused', (partial, message) => {
    expect(() => parseTaskLimits(partial, 'here')).toThrow(message);
    expect(() => parseTaskLimits(partial, 'here')).toThrow(ConfigurationError);
  });
});
