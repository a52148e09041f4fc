import fc from 'fast-check';
import { prose } from './prose.ts';

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
