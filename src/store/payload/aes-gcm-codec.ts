import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ConfigurationError } from '../../protocol/errors.ts';
import { checkKeyId, type PayloadCodec } from './codec.ts';

export interface AesGcmKeys {
  /** By id. Each has 32 bytes, as they are or in base64. Keep an old one for as long as texts may be under it. */
  readonly keys: Readonly<Record<string, Uint8Array | string>>;
  /** The id of the one to write with. */
  readonly current: string;
}

const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
/** At random for each text: with 96 bits the odds of using one twice under one key stay below 2⁻³² up to 2³² texts (NIST SP 800-38D, 8.3). */
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

interface Secrets {
  readonly encryption: KeyObject;
  /** Another one for fingerprints: they are stored in the clear. */
  readonly fingerprint: KeyObject;
}

/**
 * Encrypts with AES-256-GCM: nonce, ciphertext, tag. The kind of the row and the id of the key are authenticated, so
 * that a text cannot be moved to another column unnoticed. It can be moved to another row of the same column, and a
 * row can be replaced by an older one: whoever can write the file can do that.
 *
 * What stays visible is told at `PayloadCodec`. Pieces of long texts are named by a keyed hash: nobody without the key
 * can find out by guessing what is in one.
 *
 * 2³² texts should not be exceeded under one key: at a thousand a second that is 50 days. Add a key and call
 * `troupe.reencrypt()`.
 * @throws {ConfigurationError} a key of another length, an id that cannot be one, or no key under `current`
 */
export function aesGcmCodec({ keys, current }: AesGcmKeys): PayloadCodec {
  const secrets = new Map<string, Secrets>();
  for (const [id, key] of Object.entries(keys)) secrets.set(checkKeyId(id), derive(id, key));
  const secretsOf = (id: string): Secrets => {
    const found = secrets.get(id);
    if (found !== undefined) return found;
    throw new ConfigurationError(
      `there is no such key (known: ${[...secrets.keys()].map((known) => `"${known}"`).join(', ')})`,
    );
  };
  if (!secrets.has(current)) {
    throw new ConfigurationError(
      `Expected the current key "${current}" to be one of the keys that were given: ${[...secrets.keys()].join(', ') || 'none'}.`,
    );
  }
  return {
    keyId: current,
    encode(plain, kind) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv(CIPHER, secretsOf(current).encryption, nonce);
      cipher.setAAD(boundTo(current, kind));
      return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    decode(keyId, data, kind) {
      const { encryption } = secretsOf(keyId);
      if (data.length < NONCE_BYTES + TAG_BYTES) throw new Error('it is too short to be encrypted');
      const options = { authTagLength: TAG_BYTES };
      const nonce = data.subarray(0, NONCE_BYTES);
      const decipher = createDecipheriv(CIPHER, encryption, nonce, options);
      decipher.setAAD(boundTo(keyId, kind));
      decipher.setAuthTag(data.subarray(-TAG_BYTES));
      const plain = decipher.update(data.subarray(NONCE_BYTES, -TAG_BYTES));
      try {
        return Buffer.concat([plain, decipher.final()]);
      } catch (error) {
        throw new Error('it was changed, or encrypted with another key of the same name', {
          cause: error,
        });
      }
    },
    fingerprint: (keyId, plain) =>
      createHmac('sha256', secretsOf(keyId).fingerprint).update(plain).digest(),
  };
}

function boundTo(keyId: string, kind: string): Buffer {
  return Buffer.from(`troupe\0${keyId}\0${kind}`);
}

function derive(id: string, key: Uint8Array | string): Secrets {
  const bytes = typeof key === 'string' ? Buffer.from(key, 'base64') : Buffer.from(key);
  if (bytes.length !== KEY_BYTES) {
    throw new ConfigurationError(
      `Expected the key "${id}" to have ${KEY_BYTES} bytes (in base64 44 characters), got ${bytes.length} bytes. Make one: openssl rand -base64 32`,
    );
  }
  const part = (purpose: string): KeyObject =>
    createSecretKey(Buffer.from(hkdfSync('sha256', bytes, '', `troupe ${purpose}`, KEY_BYTES)));
  return { encryption: part('encryption'), fingerprint: part('fingerprint') };
}

/**
 * Keys from a text with one `id: base64` in each line; the last one is the current. Empty lines and those that begin
 * with # count for nothing.
 * @param source for errors: `the file keys.txt`. No part of a key is ever in a message
 * @throws {ConfigurationError}
 */
export function parseKeys(text: string, source: string): AesGcmKeys {
  const keys: Record<string, string> = {};
  let current: string | undefined;
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) continue;
    const match = /^([\w.-]{1,64}): *([A-Za-z0-9+/]+=*)$/.exec(trimmed);
    const [, id, key] = match ?? [];
    if (id === undefined || key === undefined) {
      throw new ConfigurationError(
        `Expected each line of ${source} to be "id: key", the key being 32 bytes in base64; line ${index + 1} is not.`,
      );
    }
    if (Object.hasOwn(keys, id)) {
      throw new ConfigurationError(`The key "${id}" is in ${source} twice (line ${index + 1}).`);
    }
    keys[id] = key;
    current = id;
  }
  if (current === undefined) throw new ConfigurationError(`There is no key in ${source}.`);
  return { keys, current };
}

/** @throws {ConfigurationError} the file cannot be read, or holds no keys: see `parseKeys` */
export function readKeyFile(path: string): AesGcmKeys {
  try {
    return parseKeys(readFileSync(path, 'utf8'), `the file ${path}`);
  } catch (error) {
    if (error instanceof ConfigurationError) throw error;
    throw new ConfigurationError(
      `Could not read the encryption keys in ${path}: ${(error as Error).message}.`,
      { cause: error },
    );
  }
}
