/** What a program says it prints: the comment block that begins with the line `// Output:`. */
const HEADING = '// Output:';

/** Stands for one part of a line that varies from run to run: at least one character. */
const VARYING = '…';

/**
 * Reads the lines below `// Output:`, to the end of that comment block.
 * @returns the lines, or `undefined` when the source promises nothing
 * @throws when there are two blocks, when a block is empty or when a line is nothing but `…`
 */
export function promisedOutput(source: string): string[] | undefined {
  const lines = source.split('\n');
  const at = lines.indexOf(HEADING);
  if (at === -1) return undefined;
  if (lines.indexOf(HEADING, at + 1) !== -1) {
    throw new Error(`Expected one "${HEADING}" block, got a second one.`);
  }
  const block = lines.slice(at + 1);
  const end = block.findIndex((line) => !line.startsWith('//'));
  const promised = (end === -1 ? block : block.slice(0, end)).map((line) =>
    line.replace(/^\/\/ ?/, ''),
  );
  if (promised.length === 0) throw new Error(`Expected lines below "${HEADING}", got none.`);
  const vague = promised.find(
    (line) => line.includes(VARYING) && line.replaceAll(VARYING, '').trim() === '',
  );
  if (vague !== undefined) {
    throw new Error(
      `Expected "${VARYING}" to stand for a part of a line, got the line "${vague}".`,
    );
  }
  return promised;
}

/**
 * What was printed, with everything that a `…` allows written as `…`: equal to what was promised
 * exactly when the promise was kept. Comparing texts instead of answering yes or no shows a reader the
 * difference.
 */
export function asPromised(printed: string, promised: readonly string[]): string[] {
  const lines = printed.replace(/\n$/, '').split('\n');
  return lines.map((line, index) => {
    const promise = promised[index];
    return promise !== undefined && matches(line, promise) ? promise : line;
  });
}

function matches(line: string, promise: string): boolean {
  const parts = promise.split(VARYING).map((part) => RegExp.escape(part));
  return new RegExp(`^${parts.join('.+')}$`).test(line);
}
