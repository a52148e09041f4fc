import { test } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect } from 'vitest';
import {
  type CutText,
  cutText,
  MAX_PIECE,
  MIN_PIECE,
  WANTED_PIECE,
} from '../../../src/store/payload/cut-text.ts';
import { prose } from './prose.ts';
import { longText } from './texts.ts';

/** Names that tell which text they were made for. */
function named(text: string, before?: CutText): CutText {
  return {
    text,
    pieces: cutText(text, before).map((piece) => ({ length: piece.text.length, name: piece.text })),
  };
}

const texts = (text: string, before?: CutText): readonly string[] =>
  cutText(text, before).map((piece) => piece.text);

describe('cutText', () => {
  test.prop([longText])('the pieces are the text, and none ends within a character', (text) => {
    const pieces = texts(text);
    expect(pieces.join('')).toBe(text);
    for (const [i, piece] of pieces.entries()) {
      expect(piece.isWellFormed()).toBe(true);
      expect(piece.length).toBeLessThanOrEqual(MAX_PIECE + 1);
      if (i < pieces.length - 1) expect(piece.length).toBeGreaterThan(MIN_PIECE);
    }
  });

  test('pieces are about as long as is wanted', () => {
    const pieces = texts(prose(2_000_000));
    const mean = 2_000_000 / pieces.length;
    expect(mean).toBeGreaterThan(WANTED_PIECE * 0.8);
    expect(mean).toBeLessThan(WANTED_PIECE * 1.4);
  });

  test.prop([longText, longText])(
    'what is appended changes the last two pieces at most',
    (text, more) => {
      const before = texts(text);
      const after = texts(text + more);
      // One piece ended because the text did; its end may have been within a character's reach of a cut.
      const kept = before.slice(0, -1);
      expect(after.slice(0, kept.length)).toEqual(kept);
      expect(texts(text + more, named(text))).toEqual(after);
    },
  );

  /** Some places where a text is replaced, in order. */
  const edits = fc.array(
    fc.record({ at: fc.nat(), removed: fc.nat({ max: 9_000 }), inserted: longText }),
    { maxLength: 3 },
  );

  test.prop([longText, edits])(
    'with the text before, the pieces are the same as without it, and names are those of equal pieces',
    (text, changes) => {
      let next = text;
      for (const { at, removed, inserted } of changes) {
        const place = at % (next.length + 1);
        next = next.slice(0, place) + inserted + next.slice(place + removed);
      }
      next = next.toWellFormed();
      if (next === '') return;
      const pieces = cutText(next, text === '' ? undefined : named(text));
      expect(pieces.map((piece) => piece.text)).toEqual(texts(next));
      for (const piece of pieces) expect(piece.name ?? piece.text).toBe(piece.text);
    },
  );

  test('a change in the middle and one at the front leave nearly every piece its name', () => {
    const text = prose(1_000_000);
    const before = named(text);
    const next = `{"turn":2}${text.slice(0, 500_000)}changed${text.slice(500_300)}and more`;
    const unknown = cutText(next, before).filter((piece) => piece.name === undefined);
    expect(unknown.length).toBeGreaterThan(0);
    expect(unknown.length).toBeLessThanOrEqual(8);
  });

  test('the cuts are the same for ever: stored pieces are found again by later versions', () => {
    expect(texts(prose(40_000)).map((piece) => piece.length)).toMatchInlineSnapshot(`
      [
        4163,
        4236,
        4883,
        3012,
        5450,
        6083,
        4136,
        4828,
        2443,
        766,
      ]
    `);
    expect(texts('👩‍🚀é'.repeat(4_000)).map((piece) => piece.length)).toMatchInlineSnapshot(`
      [
        16385,
        7615,
      ]
    `);
  });
});
