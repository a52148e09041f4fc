/**
 * Finds the end of what a program says in a stream that goes on: a line that nobody else can know, written behind it.
 * @param mark how the line begins; the program's own output must not be able to have it
 * @param handOn gets the output as it comes, without the line
 * @param onLine gets what follows the mark in its line
 * @returns takes the stream, in whatever pieces it comes
 */
export function untilLine(
  mark: string,
  handOn: (chunk: Buffer) => void,
  onLine: (rest: string) => void,
): (chunk: Buffer) => void {
  const wanted = Buffer.from(mark);
  let held: Buffer = Buffer.alloc(0);
  return (chunk) => {
    let bytes = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    for (;;) {
      const at = beginningOf(wanted, bytes);
      const newline = bytes.indexOf(NEWLINE, at + wanted.length);
      if (at > 0) handOn(bytes.subarray(0, at));
      if (newline < 0) {
        held = Buffer.from(bytes.subarray(at));
        return;
      }
      onLine(bytes.subarray(at + wanted.length, newline).toString('latin1'));
      bytes = bytes.subarray(newline + 1);
    }
  };
}

const NEWLINE = 10;

/** @returns from where `bytes` are the mark, or, up to their end, how it begins; their length if nowhere */
function beginningOf(mark: Buffer, bytes: Buffer): number {
  const whole = bytes.indexOf(mark);
  if (whole >= 0) return whole;
  for (let at = Math.max(0, bytes.length - mark.length + 1); at < bytes.length; at++) {
    if (bytes.subarray(at).equals(mark.subarray(0, bytes.length - at))) return at;
  }
  return bytes.length;
}
