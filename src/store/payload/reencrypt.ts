import { setImmediate } from 'node:timers/promises';
import { ConfigurationError } from '../../protocol/errors.ts';
import type { Store, StoredText, TextCursor, TextReplacement, TextSlice } from '../store.ts';
import { isManifest, keyOf, readManifest } from './packed-text.ts';
import type { Packer } from './packer.ts';
import { Shelf, type Unpacker } from './unpacker.ts';

/** Texts in one transaction. Long ones are done one by one, with a pause in which others have their turn. */
const SLICE = 100;

export interface Reencrypted {
  /** Texts that were looked at. */
  readonly texts: number;
  /** Those that were not under the current key, and are now. */
  readonly rewritten: number;
}

export interface ReencryptOptions {
  /** Called after each slice, with what was done so far. */
  readonly onProgress?: (done: Reencrypted) => void;
}

/**
 * Rewrites every text that is not under the codec's current key: rows from before there was a codec, and those under an
 * older key. In slices, each a transaction of its own, while everything else goes on. Begin it again after a crash:
 * what is done is only looked at.
 * @throws {ConfigurationError} the store is in memory only
 * @throws {UnreadablePayloadError} a text is damaged, or its key is not known; what was done before stays done
 */
export async function reencrypt(
  store: Store,
  keyId: string,
  packer: Packer,
  unpacker: Unpacker,
  { onProgress = () => undefined }: ReencryptOptions = {},
): Promise<Reencrypted> {
  let texts = 0;
  let rewritten = 0;
  let after: TextCursor | null = null;
  do {
    const { texts: slice, next }: TextSlice = await listTexts(store, after);
    after = next;
    texts += slice.length;
    const small = slice.filter(({ text }) => keyOf(text) !== keyId && !isManifest(text));
    const long = slice.filter(({ text }) => keyOf(text) !== keyId && isManifest(text));
    for (const group of [small, ...long.map((one) => [one])]) {
      if (group.length === 0) continue;
      rewritten += await rewrite(store, group, packer, unpacker);
      await setImmediate();
    }
    onProgress({ texts, rewritten });
  } while (after !== null);
  return { texts, rewritten };
}

async function listTexts(store: Store, after: TextCursor | null): Promise<TextSlice> {
  if (store.listTexts === undefined) {
    throw new ConfigurationError(
      `The store "${store.name}" keeps nothing on a disk, so there is nothing to encrypt again.`,
    );
  }
  return await store.listTexts(after, SLICE);
}

async function rewrite(
  store: Store,
  group: readonly StoredText[],
  packer: Packer,
  unpacker: Unpacker,
): Promise<number> {
  const lists = group.flatMap(({ text }) => (isManifest(text) ? readManifest(text).lists : []));
  const shelf = new Shelf(await store.loadChunks([...new Set(lists)]));
  // One that was pruned in the meantime is not missed: it is not replaced either.
  const whole = group.filter(({ text }) => !isManifest(text) || hasAll(shelf, text));
  const plain = whole.map(({ table, column, key, kind, text }) => ({
    ...{ table, column, key, kind, was: text },
    text: unpacker.text(text, kind, `${column} of row ${key} of ${table}`, shelf),
  }));
  const { texts, packed } = packer.packTexts(plain);
  const replacements: TextReplacement[] = plain.map(({ table, column, key, was }, index) => ({
    ...{ table, column, key, was },
    text: texts[index] as string,
  }));
  return (await store.replaceTexts?.(replacements, packed)) ?? 0;
}

function hasAll(shelf: Shelf, text: string): boolean {
  return readManifest(text).lists.every((list) => shelf.has(list));
}
