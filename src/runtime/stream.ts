import { ValidationError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { StreamChunkRow } from '../store/store.ts';

/** One value of a stream. */
export interface StreamChunk {
  /** Its place in the stream: 0 for the first, without gaps. Read on from `offset + 1`. */
  readonly offset: number;
  readonly at: EpochMs;
  readonly value: JsonValue;
  /** Who wrote it: an attempt at a task (`task/report-42/draft@2`), an effect, an app. */
  readonly writer: string;
  /**
   * 1, and one more each time the writer was started again and then wrote something else than before: from its first
   * `seq` on it replaces what the writer had written in the epochs before. See `latestChunks`.
   */
  readonly epoch: number;
  /** Its number among what the writer has written: 1 for the first. */
  readonly seq: number;
}

/**
 * Writes to one stream. What is written is numbered in the order of the calls; a writer that is started again after a
 * crash does not store again what is there, as long as it writes the same.
 */
export interface StreamWriter {
  /**
   * Resolves with the chunk's offset when it is stored. It need not be waited for: an effect does not end before.
   * @throws {ValidationError} not plain JSON
   * @throws {PayloadTooLargeError} the chunk is larger than a chunk may be
   * @throws {TroupeError} `quota`: the stream is full
   * @throws {ConflictError} whoever writes is not wanted any more (its state was left), or has closed the stream
   */
  write(value: JsonValue): Promise<number>;
  /** Nothing comes after it: readers end. Another writer (the next attempt) opens it again by writing. */
  close(): Promise<void>;
}

/** What a stream may take. */
export interface StreamLimits {
  /** Of one chunk, as JSON, in characters. Default 262 144. */
  readonly maxChunkChars: number;
  /** Of one stream. Default 100 000. */
  readonly maxChunks: number;
  /** Of all chunks of one stream together, as JSON, in characters. Default 67 108 864. */
  readonly maxStreamChars: number;
}

export const DEFAULT_STREAM_LIMITS: StreamLimits = {
  maxChunkChars: 256 * 1024,
  maxChunks: 100_000,
  maxStreamChars: 64 * 1024 * 1024,
};

export interface ReadStreamOptions {
  /** Default `output`. */
  readonly name?: string;
  /** The first offset that is wanted. Default 0: all of it. */
  readonly from?: number;
  /** Ends the reading with a `CancelledError`. */
  readonly signal?: AbortSignal;
}

/** The stream that is meant when none is named. */
export const DEFAULT_STREAM = 'output';

// Names of Troupe's own have a colon.
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** @throws {ValidationError} */
export function checkStreamName(name: unknown): string {
  if (typeof name === 'string' && NAME.test(name)) return name;
  throw new ValidationError(
    `Expected the name of a stream to be 1 to 100 letters, digits, dots, dashes or underscores, got ${JSON.stringify(name)?.slice(0, 80) ?? String(name)}.`,
  );
}

/** What counts of one writer's chunks, given in the order of their offsets: a later epoch replaces all from where it begins. */
export function latestOfWriter<T extends Pick<StreamChunk, 'epoch' | 'seq'>>(
  chunks: Iterable<T>,
): readonly T[] {
  const latest: T[] = [];
  for (const chunk of chunks) {
    while ((latest.at(-1)?.seq ?? 0) >= chunk.seq) latest.pop();
    latest.push(chunk);
  }
  return latest;
}

/**
 * What counts of a stream: without what a writer that was started again has replaced. For those who show a text as it
 * stands, and not how it came to be.
 * @param chunks of one stream, from its beginning, in the order of their offsets
 */
export function latestChunks(chunks: Iterable<StreamChunk>): readonly StreamChunk[] {
  const byWriter = new Map<string, StreamChunk[]>();
  for (const chunk of chunks) {
    const own = byWriter.get(chunk.writer);
    if (own === undefined) byWriter.set(chunk.writer, [chunk]);
    else own.push(chunk);
  }
  return [...byWriter.values()].flatMap(latestOfWriter).sort((a, b) => a.offset - b.offset);
}

export function chunkOf(row: StreamChunkRow): StreamChunk {
  const { offset, at, writer, epoch, seq, valueJson } = row;
  return { offset, at, value: JSON.parse(valueJson) as JsonValue, writer, epoch, seq };
}
