/** One word for a POSIX shell, whatever is in it. Source: POSIX.1-2024, XCU 2.2.2. */
export function shellQuote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
