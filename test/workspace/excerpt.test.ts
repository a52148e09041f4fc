import { expect, test } from 'vitest';
import { excerptOf, MAX_EXCERPT_CHARACTERS, stripControls } from '../../src/workspace/excerpt.ts';
import { OutputBuffer } from '../../src/workspace/output-buffer.ts';

test.each([
  ['\u001b[31mred\u001b[0m', 'red'],
  ['\u001b]8;;https://x\u0007link\u001b]8;;\u0007', 'link'],
  ['\u001b]52;c;c2VjcmV0\u001b\\x', 'x'],
  ['\u001b]0;never ended\nnext', '\nnext'],
  ['\u009b1mx', 'x'],
  ['\u001b(Bx\u001b7', 'x'],
  ['a\r\nb\rc', 'a\nb\nc'],
  ['a\u0000b\u0007\u007f\tc', 'ab\tc'],
  ['\u202etxt.exe', 'txt.exe'],
  ['plain [31m text', 'plain [31m text'],
])('%j is shown as %j', (text, shown) => {
  expect(stripControls(text)).toBe(shown);
});

test('keeps head and tail, more of the tail, within the limit', () => {
  const text = Array.from({ length: 5000 }, (_, n) => `line ${n}`).join('\n');
  const excerpt = excerptOf(text);
  expect(excerpt.length).toBeLessThanOrEqual(MAX_EXCERPT_CHARACTERS);
  expect(excerpt.startsWith('line 0\n')).toBe(true);
  expect(excerpt.endsWith('line 4999')).toBe(true);
  expect(excerpt.indexOf('[…]')).toBeLessThan(excerpt.length / 2);
  expect(excerptOf('🎭'.repeat(5000)).isWellFormed()).toBe(true);
});

test('the buffer keeps the first and the last bytes, whatever the chunks', () => {
  for (const size of [1, 3, 7, 1000]) {
    const buffer = new OutputBuffer(10);
    const all = Buffer.from('abcdefghijklmnopqrstuvwxyz');
    for (let at = 0; at < all.length; at += size) buffer.append(all.subarray(at, at + size));
    expect(buffer.truncatedBytes).toBe(16);
    expect(buffer.toString()).toBe('abcde\n[… 16 bytes left out …]\nvwxyz');
  }
  const small = new OutputBuffer(10);
  small.append(Buffer.from('é'.repeat(5)));
  expect(small.toString()).toBe('ééééé');
});
