import { StringDecoder } from 'node:string_decoder';
import type { StreamWriter } from '../runtime/stream.ts';

/** Of one attempt, in characters; the log file has the rest. */
const MAX_OUTPUT = 1024 * 1024;
/** As JSON a character may take six, and a chunk has a limit. */
const MAX_PIECE = 32 * 1024;

/**
 * Copies what a command prints into a stream, as text, in the order in which it comes.
 * @param rest what to say where it is cut off
 */
export function outputStream(
  stream: StreamWriter,
  rest: string,
): (chunk: Buffer, from: 'stdout' | 'stderr') => void {
  const decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };
  let left = MAX_OUTPUT;
  const write = (text: string): void => {
    // What is refused is in the log of the runtime; the command goes on, and its log file has everything.
    stream.write(text).catch(() => {
      left = 0;
    });
  };
  return (chunk, from) => {
    const text = decoders[from].write(chunk);
    if (left <= 0 || text === '') return;
    const kept = text.slice(0, left).toWellFormed();
    left -= text.length;
    for (let at = 0; at < kept.length; at += MAX_PIECE) write(kept.slice(at, at + MAX_PIECE));
    if (left <= 0) write(`\n${rest}\n`);
  };
}
