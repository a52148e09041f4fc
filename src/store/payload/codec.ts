import { ConfigurationError } from '../../protocol/errors.ts';

/**
 * Turns what actors store into other bytes, before it reaches the store, and back: encryption at rest, for example.
 * Synchronous, because a turn is. `aesGcmCodec` is one that is ready to use.
 *
 * Encoded: every snapshot, event, message, timer, effect input, step result and dead letter, and the details of runs,
 * tasks and attempts. Not encoded, for the store sorts and searches by them: addresses, names of machines, titles,
 * states, reasons, labels, times and numbers. Nor are sizes hidden, and that two long texts have pieces in common.
 *
 * Each stored text names the key it was written under. So texts from before there was a codec, and those under an older
 * key, stay readable for as long as `decode` knows that key.
 */
export interface PayloadCodec {
  /** Names the key that `encode` uses: 1 to 64 letters, digits, dots, dashes or underscores. */
  readonly keyId: string;
  /** @param kind of row and column, for example `checkpoints.snapshot`: to bind the result to it */
  encode(plain: Uint8Array, kind: string): Uint8Array;
  /**
   * @throws {ConfigurationError} the key is not known
   * @throws the data is damaged, or was not made for this kind
   */
  decode(keyId: string, data: Uint8Array, kind: string): Uint8Array;
  /**
   * At least 16 bytes that stand for `plain`: pieces of long texts are found again by them, and they are stored as they
   * are. Without it they are a SHA-256, by which somebody who has the file can find out whether it holds a piece that he
   * guesses whole.
   */
  fingerprint?(keyId: string, plain: Uint8Array): Uint8Array;
}

/** @throws {ConfigurationError} */
export function checkKeyId(keyId: unknown): string {
  if (typeof keyId === 'string' && /^[\w.-]{1,64}$/.test(keyId)) return keyId;
  throw new ConfigurationError(
    `Expected the id of an encryption key to be 1 to 64 letters, digits, dots, dashes or underscores, got ${JSON.stringify(keyId)}.`,
  );
}
