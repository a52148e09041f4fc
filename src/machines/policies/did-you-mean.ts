/** Longer names are not compared: nobody mistypes them, and the cost grows with the square of the length. */
const MAX_LENGTH = 80;

/** Fewer letters begin too many names. */
const MIN_PREFIX = 3;

/**
 * The candidate somebody probably meant when they wrote `word`, upper and lower case aside.
 * A third of the letters may be wrong, at least one; the nearest wins, and among equals the first.
 * If none is near, the first that goes on where `word` ends: `max` for `maxMs`, a unit forgotten.
 * @returns undefined when nothing is near enough.
 */
export function closestName(word: string, candidates: Iterable<string>): string | undefined {
  if (word === '' || word.length > MAX_LENGTH) return undefined;
  const wanted = word.toLowerCase();
  let closest: string | undefined;
  let longer: string | undefined;
  let limit = Math.max(1, Math.floor(word.length / 3));
  for (const candidate of candidates) {
    if (word.length >= MIN_PREFIX && candidate.toLowerCase().startsWith(wanted))
      longer ??= candidate;
    if (Math.abs(candidate.length - word.length) > limit) continue;
    const distance = editDistance(wanted, candidate.toLowerCase());
    if (distance > limit) continue;
    closest = candidate;
    limit = distance - 1;
  }
  return closest ?? longer;
}

/** ` Did you mean "attempts"?`, ready to be put behind a sentence, or nothing. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const closest = closestName(word, candidates);
  return closest === undefined ? '' : ` Did you mean ${JSON.stringify(closest)}?`;
}

/**
 * How many letters must be put in, taken out, changed, or swapped with a neighbour to turn `a` into `b`.
 * Optimal string alignment, three rows.
 * Source: https://en.wikipedia.org/wiki/Damerau–Levenshtein_distance#Optimal_string_alignment_distance
 */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(at(last, j) + 1, at(row, j - 1) + 1, at(last, j - 1) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, at(beforeLast, j - 2) + 1);
      }
      row.push(cost);
    }
    beforeLast = last;
    last = row;
  }
  return at(last, b.length);
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
