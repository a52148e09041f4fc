import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { write } from '../workspace/git-fixture.ts';
import { Cli, configure, makeProject, troupe, troupeProcess, writing } from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

const OLD = `old: ${Buffer.alloc(32, 'o').toString('base64')}\n`;
const NEW = `new: ${Buffer.alloc(32, 'n').toString('base64')}\n`;

test('a project whose store is encrypted: worked off, looked at, with its keys in a file or a variable', async () => {
  const tasks = [writing('one', { note: 'correct horse battery staple' })];
  const directory = makeProject(tasks, { encryption: { keyFile: '../keys.txt' } });
  const missing = await troupe(directory, 'run');
  expect(missing.exitCode).toBe(41);
  expect(missing.stderr).toMatch(/Could not read the encryption keys in .*keys\.txt: ENOENT/);

  write(path.dirname(directory), { 'keys.txt': OLD });
  expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0, stderr: '' });
  const state = path.join(directory, '.troupe');
  for (const file of readdirSync(state).filter((name) => name.startsWith('state.db'))) {
    expect(readFileSync(path.join(state, file)).includes('horse')).toBe(false);
  }
  const shown = await troupe(directory, 'show', 'one');
  expect(shown).toMatchObject({ exitCode: 0, stderr: '' });
  expect(shown.stdout).toContain('Attempt 1  accepted');
  expect((await troupe(directory, 'status')).stdout).toContain('1 done');
  const checked = await troupe(directory, 'check');
  expect(checked).toMatchObject({ exitCode: 0, stderr: '' });
  expect(checked.stdout).toMatch(
    /^This version can go on from .*state\.db: \d+ actors restored\.\n$/,
  );

  // Another key is added, and all of them come from a variable.
  configure(directory, tasks, { encryption: { keyVariable: 'TROUPE_TEST_KEYS' } });
  const variable = { TROUPE_TEST_KEYS: OLD + NEW };
  expect(await new Cli(directory, ['show', 'one'], variable).ended).toMatchObject({ exitCode: 0 });
  const unset = await troupe(directory, 'status');
  expect(unset.exitCode).toBe(41);
  expect(unset.stderr).toContain('environment variable TROUPE_TEST_KEYS, and it is not set');

  // Without the right key the error names the row and the key, and nothing of the secret.
  const wrong = await new Cli(directory, ['show', 'one'], { TROUPE_TEST_KEYS: NEW }).ended;
  expect(wrong.exitCode).not.toBe(0);
  expect(wrong.stderr).toContain(
    'cannot be read: it is encrypted under the key "old", and there is',
  );
  configure(directory, tasks);
  const none = await troupe(directory, 'show', 'one');
  expect(none.stderr).toContain('is encrypted under the key "old", and no key was given');
});

test('reencrypt brings a store under a key, after which no older one is needed', {
  timeout: 240_000,
}, async () => {
  const tasks = [writing('one', { note: 'correct horse battery staple' })];
  const directory = makeProject(tasks, {});
  expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0 });
  configure(directory, tasks, { encryption: { keyFile: '../keys.txt' } });
  write(path.dirname(directory), { 'keys.txt': OLD + NEW });
  const first = await troupeProcess(directory, 'reencrypt', '--json');
  expect(first).toMatchObject({ exitCode: 0, stderr: '' });
  const done = JSON.parse(first.stdout) as { texts: number; rewritten: number };
  expect(done).toEqual({ texts: done.rewritten, rewritten: done.texts, active: false });
  expect(done.texts).toBeGreaterThan(10);
  write(path.dirname(directory), { 'keys.txt': NEW });
  const again = await troupe(directory, 'reencrypt');
  expect(again.stdout).toMatch(/^All \d+ texts were under the current key\.\n$/);
});

test('without a key there is nothing to encrypt with', async () => {
  expect(await troupe(makeProject([writing('one')]), 'reencrypt')).toMatchObject({
    exitCode: 41,
    stderr: expect.stringContaining('troupe.yaml has no encryption'),
  });
});
