import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { JsonValue } from '../../src/protocol/json.ts';
import { redactJson, redactText } from '../../src/protocol/redact.ts';

// Put together here, so that nobody's scanner takes this file for a leak.
const long = 'A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8';
const SECRETS: readonly { readonly what: string; readonly secret: string }[] = [
  { what: 'a model key', secret: `sk-ant-api03-${long}` },
  { what: 'a payment key', secret: `sk_live_${long}` },
  { what: 'a GitHub token', secret: `ghp_${long}` },
  { what: 'a fine-grained GitHub token', secret: `github_pat_${long}_${long}` },
  { what: 'a GitLab token', secret: `glpat-${long}` },
  { what: 'an npm token', secret: `npm_${long}` },
  { what: 'a Slack token', secret: `xoxb-1234567890-${long}` },
  { what: 'a Google key', secret: `AIza${long}` },
  { what: 'an AWS key id', secret: 'AKIAIOSFODNN7EXAMPLE' },
  { what: 'a web token', secret: `eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.${long}` },
  {
    what: 'a private key',
    secret: `-----BEGIN RSA PRIVATE KEY-----\n${long}\n${long}\n-----END RSA PRIVATE KEY-----`,
  },
];

describe('by how it looks', () => {
  test.each(SECRETS)('$what is taken out of a text, and the text around it stays', ({ secret }) => {
    expect(redactText(`before ${secret} after`)).toBe('before [redacted] after');
    expect(redactText(`("${secret}")`)).not.toContain(long);
  });

  test.each([
    { text: 'Authorization: Bearer abcdef1234567890', gives: 'Authorization: Bearer [redacted]' },
    { text: 'https://ada:hunter2@host/x?y=1', gives: 'https://ada:[redacted]@host/x?y=1' },
    { text: 'password=hunter22 user=ada', gives: 'password=[redacted] user=ada' },
    { text: 'DB_PASSWORD="a b\\"c" next', gives: 'DB_PASSWORD=[redacted] next' },
    { text: "apiKey: 'abc def', n", gives: 'apiKey: [redacted], n' },
    { text: '{"access_token":"abcdef"}', gives: '{"access_token":[redacted]}' },
  ])('$text', ({ text, gives }) => {
    expect(redactText(text)).toBe(gives);
  });

  test.each([
    'The tokenizer reads 12 tokens per second.',
    'src/secret-santa.ts:12:3 expected 5',
    'key: value, and a skeleton-key',
    'https://host:8080/path@2x.png',
    'const token = readToken();'.replace('readToken();', ''),
    '0f3c2b1a9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a',
  ])('what is none stays: %s', (text) => {
    expect(redactText(text)).toBe(text);
  });
});

describe('by what it is called', () => {
  test('a text under such a name goes as a whole, whatever it looks like; numbers are counts', () => {
    const value: JsonValue = {
      user: 'ada',
      password: 'x',
      dbPassword: 'correct horse',
      'x-api-key': 'short',
      tokens: 1200,
      headers: [{ Authorization: 'whatever' }, { cookie: ['a=1', 'b=2'] }],
      nested: { secret: { deep: 'kept by its own name' } },
    };
    expect(redactJson(value)).toEqual({
      user: 'ada',
      password: '[redacted]',
      dbPassword: '[redacted]',
      'x-api-key': '[redacted]',
      tokens: 1200,
      headers: [{ Authorization: '[redacted]' }, { cookie: ['[redacted]', '[redacted]'] }],
      nested: { secret: { deep: 'kept by its own name' } },
    });
  });
});

test('whatever stands around a secret, it is gone, and doing it again changes nothing', () => {
  const secret = fc.constantFrom(...SECRETS.map((entry) => entry.secret));
  const around = fc.string({ maxLength: 30, unit: fc.constantFrom(...'ab :="\'{},\n/@.') });
  fc.assert(
    fc.property(around, secret, around, (before, hidden, after) => {
      const once = redactText(`${before} ${hidden} ${after}`);
      expect(once).not.toContain(hidden.slice(-20));
      expect(redactText(once)).toBe(once);
    }),
    { numRuns: 300 },
  );
});

// An agent chooses what its commands print: a text that is slow to look through would hold up everything else.
test.each([
  { of: 'beginnings of keys', part: 'sk-' },
  { of: 'what could begin a URL', part: 'a.' },
  { of: 'beginnings of web tokens', part: '-eyJaaaaaaaa' },
  { of: 'names of secrets', part: 'token="' },
  { of: 'beginnings of private keys', part: '-----BEGIN ' },
])('a long text of $of costs no more than its length', ({ part }) => {
  const text = `:// PRIVATE KEY ${part.repeat(Math.ceil(100_000 / part.length))}`;
  const startedAt = performance.now();
  redactText(text);
  expect(performance.now() - startedAt).toBeLessThan(500);
});

// As long as a message may be.
test.each([
  'sk-',
  'ghp_',
  'glpat-',
  'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.',
  'Bearer ',
  'token=',
  'token="',
  '-----BEGIN PRIVATE KEY-----',
])('%s and then megabytes are looked through all the same', (begin) => {
  const text = `${begin}${'x'.repeat(16_000_000)}`;
  expect(() => redactText(text)).not.toThrow();
});

test.each([
  { text: 'sk-proj-abc-def-A1b2C3d4E5f6G7h8I9j0 x', gives: '[redacted] x' },
  { text: 'sk-abcdefghijklmnopqrstuvwxyz-0-1 x', gives: '[redacted] x' },
  { text: 'git+ssh://ada:hunter2@host', gives: 'git+ssh://ada:[redacted]@host' },
  { text: 'x-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0 x', gives: 'x-[redacted] x' },
])('$text is seen as well', ({ text, gives }) => {
  expect(redactText(text)).toBe(gives);
});

test('any value keeps its shape', () => {
  const shape = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(shape)
      : typeof value === 'object' && value !== null
        ? Object.values(value).map(shape)
        : typeof value;
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 3 }), (value) => {
      const json = JSON.parse(JSON.stringify(value)) as JsonValue;
      expect(shape(redactJson(json))).toEqual(shape(json));
    }),
    { numRuns: 100 },
  );
});
