import fc from 'fast-check';

/** Text that looks like what agents say: words, so that it compresses. Another seed, another text. */
export function prose(characters: number, seed = 1): string {
  const words: string[] = [];
  let state = (seed * 0x9e37_79b9) | 1;
  for (let length = 0; length < characters; ) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const word = ((state >>> 0) % 46_656).toString(36);
    words.push(word);
    length += word.length + 1;
  }
  return words.join(' ').slice(0, characters);
}

/** Long texts of every kind of character, well-formed. */
export const longText: fc.Arbitrary<string> = fc
  .record({
    parts: fc.array(
      fc.record({
        of: fc.oneof(
          fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }),
          fc.constantFrom('x', '👩‍🚀', 'é', '\u{10FFFF}', '","role":"user"', '\0'),
        ),
        times: fc.nat({ max: 2_000 }),
      }),
      { minLength: 1, maxLength: 5 },
    ),
    seed: fc.nat({ max: 1_000 }),
    characters: fc.nat({ max: 60_000 }),
  })
  .map(({ parts, seed, characters }) =>
    [...parts.map(({ of, times }) => of.repeat(times)), prose(characters, seed)].join(''),
  );
