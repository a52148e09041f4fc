import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import {
  closestName,
  didYouMean,
  editDistance,
} from '../../../src/machines/policies/did-you-mean.ts';

describe('the nearest name', () => {
  const known = ['attempts', 'sameError', 'sameChange', 'backoff'];
  test.each([
    ['atempts', 'attempts'], // a letter missing
    ['attemptss', 'attempts'], // one too many
    ['attemtps', 'attempts'], // two swapped
    ['ATTEMPTS', 'attempts'],
    ['sameErrors', 'sameError'],
    ['backof', 'backoff'],
    ['same', 'sameError'], // goes on where the word ends
    ['at', undefined],
    ['zebra', undefined],
    ['', undefined],
    ['a'.repeat(500), undefined],
  ])('to %s is %s', (word, closest) => {
    expect(closestName(word, known)).toBe(closest);
  });

  test('is the first of several that are equally near', () => {
    expect(closestName('task-x', ['task-b', 'task-a'])).toBe('task-b');
    expect(closestName('task-x', ['tusk-b', 'task-a'])).toBe('task-a');
  });

  test('is not looked for when the word is very long', () => {
    const long = 'a'.repeat(500);
    expect(closestName(`${long}b`, [`${long}c`])).toBeUndefined();
  });

  test('is put in words', () => {
    expect(didYouMean('bakoff', known)).toBe(' Did you mean "backoff"?');
    expect(didYouMean('zebra', known)).toBe('');
  });
});

describe('the edit distance', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 6 });

  /** The definition, word for word. */
  function naive(a: string, b: string): number {
    if (a === '' || b === '') return a.length + b.length;
    const costs = [
      naive(a.slice(0, -1), b) + 1,
      naive(a, b.slice(0, -1)) + 1,
      naive(a.slice(0, -1), b.slice(0, -1)) + (a.at(-1) === b.at(-1) ? 0 : 1),
    ];
    if (a.length > 1 && b.length > 1 && a.at(-1) === b.at(-2) && a.at(-2) === b.at(-1)) {
      costs.push(naive(a.slice(0, -2), b.slice(0, -2)) + 1);
    }
    return Math.min(...costs);
  }

  test.prop([word, word])('is what its definition says', (a, b) => {
    expect(editDistance(a, b)).toBe(naive(a, b));
  });
});
