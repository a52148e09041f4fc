import {
  ConfigurationError,
  type TroupeError,
  UnreadablePayloadError,
} from '../../protocol/errors.ts';
import type { StoredChunks } from '../store.ts';
import type { PayloadCodec } from './codec.ts';
import {
  CHUNK_KIND,
  isManifest,
  isMarked,
  readChunk,
  readManifest,
  readMarked,
} from './packed-text.ts';
import { nameOfChunk } from './packer.ts';

/** The chunks of some lists, each read once however many texts name it. */
export class Shelf {
  readonly #lists: ReadonlyMap<string, readonly string[]>;
  readonly #data: ReadonlyMap<string, Uint8Array>;
  readonly #texts = new Map<string, string>();

  constructor({ lists, chunks }: StoredChunks) {
    this.#lists = new Map(lists.map(({ name, chunks: names }) => [name, names]));
    this.#data = new Map(chunks.map(({ name, data }) => [name, data]));
  }

  has(list: string): boolean {
    return this.#lists.get(list)?.every((name) => this.#data.has(name)) ?? false;
  }

  /** @throws {Error} a list or a chunk is missing; and what `read` throws */
  textOf(lists: readonly string[], read: (data: Uint8Array, name: string) => string): string {
    const texts: string[] = [];
    for (const list of lists) {
      const names = this.#lists.get(list);
      if (names === undefined) throw new Error(`the list ${list} is missing`);
      for (const name of names) texts.push(this.#chunk(name, read));
    }
    return texts.join('');
  }

  #chunk(name: string, read: (data: Uint8Array, name: string) => string): string {
    const known = this.#texts.get(name);
    if (known !== undefined) return known;
    const data = this.#data.get(name);
    if (data === undefined) throw new Error(`the chunk ${name} is missing`);
    const text = read(data, name);
    this.#texts.set(name, text);
    return text;
  }
}

export const EMPTY_SHELF = new Shelf({ lists: [], chunks: [] });

/** Turns what is stored back into texts, and checks that it is what was written. */
export class Unpacker {
  readonly #codec: PayloadCodec | undefined;

  constructor(codec: PayloadCodec | undefined) {
    this.#codec = codec;
  }

  /**
   * @param row in words, for the error: `checkpoint 3 of task/r1/t1`
   * @throws {UnreadablePayloadError} it is damaged, or its key is not known
   */
  text(stored: string, kind: string, row: string, shelf: Shelf): string {
    if (!isMarked(stored)) return stored;
    let keyId: string | undefined;
    const decode = (id: string, data: Uint8Array, as: string): Uint8Array => {
      keyId = id;
      if (this.#codec === undefined) throw new ConfigurationError('no key was given');
      return this.#codec.decode(id, data, as);
    };
    try {
      if (!isManifest(stored)) return readMarked(stored, (id, data) => decode(id, data, kind));
      const { lists, length, key } = readManifest(stored);
      keyId = key;
      const text = shelf.textOf(lists, (data, name) => {
        const chunk = readChunk(data, (id, encoded) => decode(id, encoded, CHUNK_KIND));
        if (nameOfChunk(Buffer.from(chunk), this.#codec, keyId) !== name) {
          throw new Error(`the chunk ${name} holds something else`);
        }
        return chunk;
      });
      if (text.length !== length) {
        throw new Error(`it has ${text.length} characters instead of ${length}`);
      }
      return text;
    } catch (error) {
      throw unreadable(row, keyId, error);
    }
  }
}

function unreadable(row: string, keyId: string | undefined, error: unknown): TroupeError {
  const why = error instanceof Error ? error.message : String(error);
  const options = { cause: error, context: { row, ...(keyId === undefined ? {} : { keyId }) } };
  if (error instanceof ConfigurationError) {
    return new UnreadablePayloadError(
      `The ${row} cannot be read: it is encrypted under the key "${keyId}", and ${why}. Nothing was changed: open the store with that key.`,
      options,
    );
  }
  const under = keyId === undefined ? '' : ` (key "${keyId}")`;
  return new UnreadablePayloadError(
    `The ${row}${under} cannot be read: ${why}. It is damaged, or another program wrote to it; restore a backup.`,
    options,
  );
}
