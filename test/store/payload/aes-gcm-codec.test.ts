import { test } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect } from 'vitest';
import { ConfigurationError } from '../../../src/protocol/errors.ts';
import { aesGcmCodec, parseKeys } from '../../../src/store/payload/aes-gcm-codec.ts';

const A = Buffer.alloc(32, 'a').toString('base64');
const B = Buffer.alloc(32, 'b').toString('base64');
const codec = aesGcmCodec({ keys: { old: A, new: B }, current: 'new' });

describe('aesGcmCodec', () => {
  test.prop([fc.uint8Array(), fc.string()])('gives back what it was given', (plain, kind) => {
    const data = codec.encode(plain, kind);
    expect(Buffer.from(codec.decode('new', data, kind))).toEqual(Buffer.from(plain));
    expect(data.length).toBe(plain.length + 28);
  });

  test('the same text is never encrypted to the same', () => {
    const texts = new Set(
      Array.from({ length: 100 }, () =>
        Buffer.from(codec.encode(Buffer.from('x'), 'k')).toString('hex'),
      ),
    );
    expect(texts.size).toBe(100);
  });

  test.prop([fc.uint8Array({ minLength: 1 }), fc.nat(), fc.integer({ min: 1, max: 255 })])(
    'any changed byte is found',
    (plain, at, flip) => {
      const data = Uint8Array.from(codec.encode(plain, 'k'));
      const index = at % data.length;
      data[index] = (data[index] as number) ^ flip;
      expect(() => codec.decode('new', data, 'k')).toThrow('it was changed');
      expect(() => codec.decode('new', data.subarray(0, 20), 'k')).toThrow('too short');
    },
  );

  test('what was made for another column, or under another key, is refused', () => {
    const data = codec.encode(Buffer.from('x'), 'messages.message');
    expect(() => codec.decode('new', data, 'timers.action')).toThrow('it was changed');
    expect(() => codec.decode('old', data, 'messages.message')).toThrow('it was changed');
    expect(() => codec.decode('gone', data, 'messages.message')).toThrow(ConfigurationError);
    expect(() => codec.decode('gone', data, 'messages.message')).toThrow('known: "old", "new"');
  });

  test('fingerprints are the same for the same bytes, and need the key', () => {
    const of = (keyId: string): string =>
      Buffer.from(codec.fingerprint?.(keyId, Buffer.from('x')) ?? []).toString('hex');
    expect(of('new')).toBe(of('new'));
    expect(of('new')).not.toBe(of('old'));
    expect(of('new')).toHaveLength(64);
  });

  test.each([
    [{ keys: { a: 'short' }, current: 'a' }, 'Expected the key "a" to have 32 bytes'],
    [{ keys: { 'a b': A }, current: 'a b' }, 'Expected the id of an encryption key'],
    [{ keys: { a: A }, current: 'b' }, 'Expected the current key "b" to be one of'],
    [{ keys: {}, current: 'b' }, 'none'],
  ])('keys that cannot work are refused: %j', (keys, says) => {
    expect(() => aesGcmCodec(keys)).toThrow(says);
  });
});

describe('parseKeys', () => {
  test('the last key is the current one', () => {
    const text = `# written in May\nold: ${A}\n\r\n  new:${B}  \n`;
    expect(parseKeys(text, 'it')).toEqual({ keys: { old: A, new: B }, current: 'new' });
  });

  test.each([
    ['', 'There is no key in the file k.'],
    ['# nothing', 'There is no key in the file k.'],
    [`a: ${A}\na: ${B}`, 'The key "a" is in the file k twice (line 2).'],
    ['a: secret!', 'line 1 is not.'],
    ['secretsecret', 'line 1 is not.'],
  ])('%j is refused without telling what is in it', (text, says) => {
    expect(() => parseKeys(text, 'the file k')).toThrow(says);
    try {
      parseKeys(text, 'the file k');
    } catch (error) {
      expect((error as Error).message).not.toContain('secret');
    }
  });
});
