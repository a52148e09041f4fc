import { ValidationError } from '../../index.ts';

/**
 * Splits a stream of bytes into lines, holding back no more than one.
 * @throws {ValidationError} a line is longer than `maxBytes`
 */
export async function* readLines(
  chunks: AsyncIterable<Buffer>,
  maxBytes: number,
): AsyncGenerator<string, void, undefined> {
  let parts: Buffer[] = [];
  let held = 0;
  for await (const chunk of chunks) {
    let from = 0;
    for (let at = chunk.indexOf(0x0a); at !== -1; at = chunk.indexOf(0x0a, from)) {
      const end = chunk.subarray(from, at);
      if (held + end.length > maxBytes) throw tooLong(maxBytes);
      yield Buffer.concat([...parts, end]).toString('utf8');
      parts = [];
      held = 0;
      from = at + 1;
    }
    const rest = chunk.subarray(from);
    held += rest.length;
    if (held > maxBytes) throw tooLong(maxBytes);
    if (rest.length > 0) parts.push(rest);
  }
}

const tooLong = (maxBytes: number): ValidationError =>
  new ValidationError(`Expected lines of at most ${maxBytes} bytes, got a longer one.`);
