import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { createTroupe } from '../../src/index.ts';
import { makeProject, troupe, troupeProcess } from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

test('schedules that a program has made are listed, held, let go and fired', async () => {
  const directory = makeProject([]);
  const app = await createTroupe({ store: path.join(directory, '.troupe', 'state.db') });
  await app.schedule(
    'nightly',
    { cron: '0 3 * * *', timeZone: 'Europe/Berlin' },
    { start: { template: 'bugFix', params: { title: '{{dueAt}}', agent: 'script' } } },
  );
  await app.stop();

  const list = await troupeProcess(directory, 'schedules');
  expect(list).toMatchObject({ exitCode: 0, stderr: '' });
  expect(list.stdout).toMatch(
    /^nightly: active, 0 3 \* \* \* Europe\/Berlin, starts bugFix\n {2}next 2/,
  );
  const json = JSON.parse((await troupe(directory, 'schedules', '--json')).stdout);
  expect(json).toMatchObject({ schedules: [{ id: 'nightly', state: 'active', fired: 0 }] });

  const order = (...args: string[]) => troupe(directory, 'schedules', ...args);
  expect((await order('pause', 'nightly')).stdout).toBe('Schedule nightly is paused.\n');
  const twice = await order('pause', 'nightly');
  expect(twice.exitCode).toBe(22);
  expect(twice.stderr).toContain('The schedule "nightly" is paused');
  expect((await order('resume', 'nightly')).stdout).toBe('Schedule nightly is active.\n');
  expect((await order('trigger', 'nightly')).stdout).toMatch(
    /^Fired nightly: nightly-\S+-m1\. A run/,
  );
  expect((await order('trigger', 'nightl')).stderr).toContain('did you mean nightly?');
  expect((await order('stop', 'nightly')).exitCode).toBe(20);
  expect((await order('pause')).stderr).toBe('troupe: name the schedule to pause\n');
});
