import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { createTroupe } from '../../src/index.ts';
import { makeProject, troupe, troupeProcess, writing } from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

test('a breaker that is open is shown with what to do, and closed by reset-breaker', async () => {
  const directory = makeProject([writing('one')]);
  const app = await createTroupe({ store: path.join(directory, '.troupe', 'state.db') });
  app.agent('script', () => null);
  const breaker = app.breaker('model/large', { failures: 1, openMs: 3_600_000 });
  await expect(breaker.run(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect((await app.breaker('agent/script').status()).state).toBe('closed');
  await app.stop();

  const line =
    /The circuit breaker of model\/large is open after 1 failures in a row: it is tried again in \d+ s\. Ask it again now: troupe reset-breaker model\/large\n/;
  expect((await troupeProcess(directory, 'status')).stdout).toMatch(line);
  expect(JSON.parse((await troupe(directory, 'status', '--json')).stdout)).toMatchObject({
    breakers: [
      { key: 'agent/script', state: 'closed' },
      { key: 'model/large', state: 'open', opened: 1 },
    ],
  });
  expect(await troupeProcess(directory, 'reset-breaker', 'model/large')).toEqual({
    exitCode: 0,
    signal: null,
    stdout: 'The circuit breaker of model/large is closed.\n',
    stderr: '',
  });
  expect((await troupe(directory, 'status')).stdout).not.toContain('circuit breaker');
  const unknown = await troupe(directory, 'reset-breaker', 'scrip');
  expect(unknown).toMatchObject({ exitCode: 21, stdout: '' });
  expect(unknown.stderr).toContain('agent/script');
  expect(await troupe(directory, 'reset-breaker', 'script')).toMatchObject({
    exitCode: 0,
    stdout: 'The circuit breaker of agent script is closed.\n',
  });
});
