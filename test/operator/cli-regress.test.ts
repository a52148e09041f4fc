import { expect, test, vi } from 'vitest';
import { makeProject, merges, troupe, troupeProcess, writing } from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

test('troupe regress makes a task for what is broken again, once', async () => {
  const directory = makeProject([writing('one')]);
  expect((await troupe(directory, 'run')).exitCode).toBe(0);
  expect((await troupe(directory, 'regress', 'one')).exitCode).toBe(20);
  const report = ['regress', 'one', '--reason', 'It is gone.', '--evidence', 'src/one.js'];
  const made = await troupeProcess(directory, ...report);
  expect(made).toMatchObject({ exitCode: 0, stderr: '' });
  const { run } = /^To mend it, task (?<run>\S+)\/one is ready\.\n/.exec(made.stdout)?.groups ?? {};
  expect(run).toMatch(/^main-one-regression-/);
  expect(made.stdout).toContain('Nothing runs now. It goes on with: troupe resume\n');
  // The name alone means the open one.
  expect(JSON.parse((await troupe(directory, ...report, '--json')).stdout)).toMatchObject({
    // How far it comes before the agent would be asked is a matter of time.
    regression: {
      ...{ run, task: 'one', isNew: false },
      state: expect.stringMatching(/^(ready|preparing)$/),
    },
  });
  const named = await troupe(directory, 'regress', 'main/one', '--reason', 'Still.');
  expect(named.stdout).toMatch(/^It was reported already, and nothing has changed: task \S+\/one/);
  const shown = await troupe(directory, 'show', `${run}/one`);
  expect(shown.stdout).toContain('\n  broken again: main/one\n');
  expect(merges(directory)).toEqual(['one']);
});
