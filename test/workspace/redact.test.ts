import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fc, test as property } from '@fast-check/vitest';
import { expect, test } from 'vitest';
import { runCommand } from '../../src/workspace/child-process.ts';
import { redactorFor } from '../../src/workspace/redact.ts';
import { processRegistry, temporaryDirectory } from './git-fixture.ts';

const ENV = {
  API_TOKEN: 's3cret-value-1',
  DB_PASSWORD: 's3cret-value-1-longer',
  SHORT_KEY: 'abc',
  NODE_ENV: 'production',
};
const redact = redactorFor(ENV);

test.each<[text: string, clean: string]>([
  ['the token is s3cret-value-1.', 'the token is [API_TOKEN].'],
  ['s3cret-value-1-longer', '[DB_PASSWORD]'],
  // Too short to be told from a word, or not named like a secret.
  ['abc in production', 'abc in production'],
  [
    `ghp_${'a'.repeat(36)} sk-${'b'.repeat(30)} AKIAABCDEFGHIJKLMNOP`,
    '[redacted] [redacted] [redacted]',
  ],
  ['Authorization: Bearer abcdefghijklmnop1234', 'Authorization: Bearer [redacted]'],
  ['postgres://ada:hunter2@db/x', 'postgres://ada:[redacted]@db/x'],
  [
    '-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nafter',
    '[redacted]\nafter',
  ],
  [
    'sk-ip the tests; https://example.org:8080/a@b',
    'sk-ip the tests; https://example.org:8080/a@b',
  ],
])('%s', (text, clean) => {
  expect(redact(text)).toBe(clean);
});

property.prop(
  [fc.array(fc.oneof(fc.string(), fc.constantFrom(...Object.values(ENV).slice(0, 2))))],
  { numRuns: 50 },
)('no value of a secret is left, whatever stands around it', (parts) => {
  const clean = redact(parts.join(' '));
  for (const secret of [ENV.API_TOKEN, ENV.DB_PASSWORD]) expect(clean).not.toContain(secret);
});

test('a log has no secret in it, also when it comes in pieces and without an end of line', async () => {
  const logFile = path.join(temporaryDirectory(), 'a.log');
  const result = await runCommand({
    command: 'printf s3cret-; printf "value-1\\nmore\\n"; printf "end s3cret-value-1"',
    cwd: temporaryDirectory(),
    env: { PATH: process.env['PATH'] ?? '' },
    timeoutMs: 30_000,
    logFile,
    redact,
    processes: processRegistry(),
  });
  expect(result.exitCode).toBe(0);
  expect(readFileSync(logFile, 'utf8')).toBe('[API_TOKEN]\nmore\nend [API_TOKEN]');
});
