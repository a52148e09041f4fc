import { describe, expect, test } from 'vitest';
import { ValidationError } from '../../src/protocol/errors.ts';
import { PRIORITIES, parsePriority } from '../../src/protocol/priority.ts';

describe('a priority', () => {
  test.each(Object.entries(PRIORITIES))('%s is %i', (name, number) => {
    expect([parsePriority(name), parsePriority(number)]).toEqual([number, number]);
  });

  test('the numbers are 1 to 5, low to critical', () => {
    expect(PRIORITIES).toEqual({ low: 1, normal: 2, high: 3, urgent: 4, critical: 5 });
  });

  test.each([
    0,
    6,
    1.5,
    -1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '1',
    'LOW',
    'toString',
    '',
    null,
    undefined,
    {},
    [3],
  ])('%j is refused with what is allowed', (value) => {
    expect(() => parsePriority(value)).toThrow(ValidationError);
    expect(() => parsePriority(value)).toThrow(
      'Expected a priority: low (1), normal (2), high (3), urgent (4), critical (5); got ',
    );
  });
});
