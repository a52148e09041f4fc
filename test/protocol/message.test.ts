import { describe, expect, test } from 'vitest';
import { ValidationError } from '../../src/protocol/errors.ts';
import { parseMessage, replyTo } from '../../src/protocol/message.ts';

describe('a message from outside', () => {
  test.each([
    { type: 'task.retry' },
    { type: 'x'.repeat(200), list: [1, { a: null }], gone: undefined },
    { type: 'xstate' },
    { type: 'my.*' },
    { type: 'a', __proto__: null },
  ])('$type', (message) => {
    expect(parseMessage(message)).toBe(message);
  });

  test.each([
    [null, 'got null'],
    [undefined, 'got undefined'],
    ['task.retry', 'got string'],
    [[{ type: 'x' }], 'Expected a message such as'],
    [
      {},
      'Expected the message\'s "type" to be a non-empty string of at most 200 characters, got undefined.',
    ],
    [{ type: '' }, 'got 0 characters'],
    [{ type: 'x'.repeat(201) }, 'got 201 characters'],
    [{ type: 7 }, 'got number'],
    [{ type: 'xstate.done.actor.w' }, 'is reserved: types that begin with "xstate."'],
    [{ type: 'xstate.stop' }, 'is reserved'],
    [{ type: '*' }, 'is reserved'],
    [{ type: 'x', meta: { at: 1 } }, 'The field "meta" of message "x" is reserved'],
    [{ type: 'x', meta: undefined }, 'The field "meta"'],
    [
      { type: 'x', when: new Date(0) },
      'Expected the message to be plain JSON, but x.when is a Date.',
    ],
    [{ type: 'x', n: [1n] }, 'x.n[0] is a BigInt'],
    [
      new (class Odd {
        type = 'x';
      })(),
      'x is a Odd',
    ],
    [JSON.parse('{"type":"x","__proto__":{"admin":true}}'), 'the key __proto__'],
  ])('%o is refused: %s', (value, says) => {
    expect(() => parseMessage(value)).toThrow(ValidationError);
    expect(() => parseMessage(value)).toThrow(says);
    expect(({} as { admin?: boolean }).admin).toBeUndefined();
  });
});

test('an answer goes back with the question’s correlation and attempt', () => {
  const meta = { id: 'm', from: 'task/r/t', at: 1 } as const;
  expect(replyTo(meta)).toBeUndefined();
  expect(replyTo({ ...meta, correlation: 'c', attempt: 3 })).toEqual({
    address: 'task/r/t',
    correlation: 'c',
    attempt: 3,
  });
  expect(replyTo({ ...meta, correlation: 'c' })?.attempt).toBe(1);
});
