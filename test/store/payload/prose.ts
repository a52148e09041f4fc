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
