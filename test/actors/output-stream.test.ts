import { expect, test } from 'vitest';
import { OutputStream } from '../../src/actors/output-stream.ts';
import type { StreamWriter } from '../../src/runtime/stream.ts';
import { redactorFor } from '../../src/workspace/redact.ts';

function collected() {
  const written: string[] = [];
  const stream = {
    write: async (value: string) => {
      written.push(value);
    },
  } as unknown as StreamWriter;
  const output = new OutputStream(stream, redactorFor({ DEPLOY_TOKEN: 'tok-12345678' }), '(rest)');
  return { output, text: () => written.join(''), written };
}

test('a secret is taken out, also when it comes in two pieces', () => {
  const { output, text } = collected();
  output.take(Buffer.from('one\ntwo tok-123'), 'stdout');
  expect(text()).toBe('one\n');
  output.take(Buffer.from('err tok-12345678\n'), 'stderr');
  output.take(Buffer.from('45678 three'), 'stdout');
  output.end();
  expect(text()).toBe('one\nerr [DEPLOY_TOKEN]\ntwo [DEPLOY_TOKEN] three');
});

test('a character that comes in two pieces is one', () => {
  const { output, text } = collected();
  const bytes = Buffer.from('ä€😀\n');
  for (const byte of bytes) output.take(Buffer.of(byte), 'stdout');
  output.end();
  expect(text()).toBe('ä€😀\n');
});

test('what is too long is cut off once, and says so', () => {
  const { output, text, written } = collected();
  const line = `${'x'.repeat(99_999)}\n`;
  for (let n = 0; n < 12; n++) output.take(Buffer.from(line), 'stdout');
  output.end();
  expect(text()).toHaveLength(1024 * 1024 + '\n(rest)\n'.length);
  expect(text().endsWith('x\n(rest)\n')).toBe(true);
  expect(Math.max(...written.map((piece) => piece.length))).toBeLessThanOrEqual(32 * 1024);
});
