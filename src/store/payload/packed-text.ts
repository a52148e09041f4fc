// Not by name: a Node without zstd would refuse to link this, before it can be told that it is too old.
import zlib from 'node:zlib';
import type { PayloadCodec } from './codec.ts';

/*
 * The texts and bytes that stand for a text in the store. JSON begins with none of these characters.
 *
 *     {"a":1}                                  the text itself
 *     ={"lists":["…"],"length":N}              a manifest: the text is the chunks of these lists, N characters
 *     ={"lists":["…"],"length":N,"key":"k"}    the same, with chunks that are encoded under the key k
 *     ~k:base64                                the text as one block, encoded under the key k
 *     ~~=x                                     the text "=x", which begins like one of these
 *
 * A block, and what is in a chunk: one byte for the form, then
 *
 *     0   UTF-8
 *     1   UTF-8, compressed (Zstandard)
 *     2   one byte n, the id of the key in n bytes, and a block that is encoded under it
 */

const PLAIN = 0;
const COMPRESSED = 1;
const ENCODED = 2;

/** Shorter texts do not pay for the 20 µs that compressing costs. */
const MIN_COMPRESSED_BYTES = 1_024;

/** The lowest level: at the size of a piece twice as fast as deflate's lowest, and as small. */
const LEVEL = { params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } };

export const CHUNK_KIND = 'chunks.data';

export interface Manifest {
  readonly lists: readonly string[];
  /** Of the text, in UTF-16 units. */
  readonly length: number;
  /** The key that its chunks are encoded under. */
  readonly key?: string;
}

export const isManifest = (text: string): boolean => text.startsWith('={');
export const isMarked = (text: string): boolean => text.startsWith('=') || text.startsWith('~');

export function writeManifest(manifest: Manifest): string {
  return `=${JSON.stringify(manifest)}`;
}

/** @throws {SyntaxError} it is none */
export function readManifest(text: string): Manifest {
  const manifest = JSON.parse(text.slice(1)) as Partial<Manifest>;
  const { lists, length } = manifest;
  if (Array.isArray(lists) && typeof length === 'number') return manifest as Manifest;
  throw new SyntaxError('it lacks its lists or its length');
}

export const writeEscaped = (text: string): string => `~~${text}`;

export function writeEnvelope(text: string, codec: PayloadCodec, kind: string): string {
  const block = codec.encode(toBlock(Buffer.from(text)), kind);
  return `~${codec.keyId}:${toBuffer(block).toString('base64')}`;
}

/** The key that a stored text was written under; undefined: none. */
export function keyOf(text: string): string | undefined {
  if (isManifest(text)) return readManifest(text).key;
  if (!text.startsWith('~') || text.startsWith('~~')) return undefined;
  return text.slice(1, Math.max(1, text.indexOf(':')));
}

/** Of a text that is no manifest. `decode` is called if it is encoded. */
export function readMarked(
  text: string,
  decode: (keyId: string, data: Uint8Array) => Uint8Array,
): string {
  if (!text.startsWith('~')) return text;
  if (text.startsWith('~~')) return text.slice(2);
  const keyId = keyOf(text) ?? '';
  return fromBlock(decode(keyId, Buffer.from(text.slice(keyId.length + 2), 'base64')));
}

export function writeChunk(utf8: Buffer, codec: PayloadCodec | undefined): Uint8Array {
  const block = toBlock(utf8);
  if (codec === undefined) return block;
  const id = Buffer.from(codec.keyId);
  const head = Uint8Array.of(ENCODED, id.length, ...id);
  return concat(head, codec.encode(block, CHUNK_KIND));
}

export function readChunk(
  data: Uint8Array,
  decode: (keyId: string, data: Uint8Array) => Uint8Array,
): string {
  if (data[0] !== ENCODED) return fromBlock(data);
  const end = 2 + (data[1] ?? 0);
  const keyId = toBuffer(data.subarray(2, end)).toString();
  return fromBlock(decode(keyId, data.subarray(end)));
}

function toBlock(utf8: Buffer): Uint8Array {
  if (utf8.length >= MIN_COMPRESSED_BYTES) {
    const compressed = zlib.zstdCompressSync(utf8, LEVEL);
    if (compressed.length < utf8.length) return concat(Uint8Array.of(COMPRESSED), compressed);
  }
  return concat(Uint8Array.of(PLAIN), utf8);
}

function fromBlock(block: Uint8Array): string {
  const content = toBuffer(block.subarray(1));
  switch (block[0]) {
    case PLAIN:
      return content.toString();
    case COMPRESSED:
      return zlib.zstdDecompressSync(content).toString();
    default:
      throw new SyntaxError(`its form is ${String(block[0])}, which this version does not know`);
  }
}

/** In memory of its own: what lies in Node's shared pool is copied between threads together with its neighbours. */
function concat(head: Uint8Array, tail: Uint8Array): Uint8Array {
  const whole = new Uint8Array(head.length + tail.length);
  whole.set(head);
  whole.set(tail, head.length);
  return whole;
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
