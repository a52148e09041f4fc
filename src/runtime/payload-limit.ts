import type { Address } from '../protocol/address.ts';
import { PayloadTooLargeError } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Message } from '../protocol/message.ts';
import type { PersistedSnapshot } from './xstate-driver.ts';

/**
 * 16 MiB. Every turn makes the whole text of the snapshot and compares it with the one before: about 0.1 s at this size
 * (bench: conversation), in which no other actor moves. What is larger belongs into a file that the context names.
 */
export const DEFAULT_MAX_SNAPSHOT_BYTES = 16 * 1024 * 1024;

/** JSON writes a character as at most six: `\u0000`. */
const MAX_ESCAPE = 6;
/** A character of a text takes at most three bytes. */
const MAX_UTF8 = 3;

/** How many keys of a snapshot are named to whoever has to make it smaller. */
const NAMED_KEYS = 3;

/** What one actor may store at a time: a snapshot, a message, a result of a step. */
export class PayloadLimit {
  readonly bytes: number;

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  /** At a quarter of the limit it is time to say something. By characters, hence a little late for other scripts. */
  isLarge(json: string): boolean {
    return json.length >= this.bytes / 4;
  }

  /** @throws {PayloadTooLargeError} it names the largest parts */
  checkSnapshot(address: Address, snapshot: PersistedSnapshot, json: string): void {
    if (!this.#isTooLong(json)) return;
    const bytes = Buffer.byteLength(json);
    const largest = largestParts(snapshot as unknown as JsonValue);
    const named = largest.map((part) => `${part.path} (${part.bytes} bytes)`).join(', ');
    throw new PayloadTooLargeError(
      `The state of ${address} would take ${bytes} bytes, and ${this.bytes} are allowed. The largest parts: ${named}. Nothing changed. Keep what is large in files and their names in the context, or raise maxSnapshotBytes.`,
      { context: { address, bytes, limit: this.bytes, largest: [...largest] } },
    );
  }

  /**
   * @param what in words: `The message "note.add" to inbox/ada`
   * @throws {PayloadTooLargeError}
   */
  checkJson(what: string, json: string): void {
    if (!this.#isTooLong(json)) return;
    const bytes = Buffer.byteLength(json);
    throw new PayloadTooLargeError(
      `${what} takes ${bytes} bytes, and ${this.bytes} are allowed. It was not stored. Keep what is large in a file and pass its name, or raise maxSnapshotBytes.`,
      { context: { bytes, limit: this.bytes } },
    );
  }

  /** As `checkJson`, for a message that has no text yet: none is made of one that is small. @throws {PayloadTooLargeError} */
  checkMessage(message: Message, to: Address): void {
    if (roughLength(message as unknown as JsonValue) * MAX_ESCAPE * MAX_UTF8 <= this.bytes) return;
    this.checkMessageJson(message, to, JSON.stringify(message));
  }

  /** @param json of the message, or of the event that was made of it. @throws {PayloadTooLargeError} */
  checkMessageJson({ type }: { readonly type: string }, to: Address, json: string): void {
    if (this.#isTooLong(json)) this.checkJson(`The message "${type}" to ${to}`, json);
  }

  #isTooLong(json: string): boolean {
    if (json.length * MAX_UTF8 <= this.bytes) return false;
    return json.length > this.bytes || Buffer.byteLength(json) > this.bytes;
  }
}

/** At least as many characters as its JSON has, but for what must be escaped. */
function roughLength(value: JsonValue | undefined): number {
  if (typeof value === 'string') return value.length + 2;
  if (typeof value !== 'object' || value === null) return 25;
  let length = 2;
  if (Array.isArray(value)) {
    for (const item of value as readonly JsonValue[]) length += roughLength(item) + 1;
    return length;
  }
  for (const key of Object.keys(value)) {
    length += key.length + 4 + roughLength((value as Record<string, JsonValue | undefined>)[key]);
  }
  return length;
}

// A type, not an interface: only types count as JSON.
type Part = { readonly path: string; readonly bytes: number };

/** The largest parts, largest first. An object of which one key is nearly everything is entered. */
function largestParts(root: JsonValue): readonly Part[] {
  let path = '';
  let object: JsonValue = root;
  for (;;) {
    const parts = partsOf(path, object);
    const total = parts.reduce((sum, part) => sum + part.bytes, 0);
    const [first] = parts;
    if (first === undefined) return [{ path: path || 'the snapshot', bytes: total }];
    const dominates = first.bytes > total * 0.9;
    const isObject = typeof first.value === 'object' && !Array.isArray(first.value);
    if (!dominates || !isObject || first.value === null || Object.keys(first.value).length === 0) {
      return parts.slice(0, NAMED_KEYS).map(({ path: name, bytes }) => ({ path: name, bytes }));
    }
    path = first.path;
    object = first.value;
  }
}

function partsOf(path: string, object: JsonValue): (Part & { readonly value: JsonValue })[] {
  const parts = [];
  for (const [key, value] of Object.entries(object as Record<string, JsonValue | undefined>)) {
    if (value === undefined) continue;
    const name = path === '' ? key : `${path}.${key}`;
    parts.push({ path: name, bytes: Buffer.byteLength(JSON.stringify(value)), value });
  }
  return parts.sort((a, b) => b.bytes - a.bytes);
}
