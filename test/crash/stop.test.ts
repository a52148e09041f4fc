import { expect, test, vi } from 'vitest';
import { readHistory } from './history.ts';
import { paths, release } from './project.ts';
import { ProjectUnderTest } from './project-fixture.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: 240_000 });

/* A13: stopping leaves no process, no handle that keeps the process alive, and no promise that hangs. */

/** What became of every promise that the API had given. */
const SETTLED = [
  'settled request NotFoundError',
  'settled result StoppedError',
  'settled send ValidationError',
  'settled unknownRun NotFoundError',
];

test('stop() in the middle of a command: it is ended, nothing hangs, the next runtime goes on', async () => {
  using project = new ProjectUnderTest('patient');
  const life = project.begin({ untilSignal: true });
  await life.line('progress');
  await life.line('waiting');
  expect(project.processes().length).toBeGreaterThanOrEqual(3);
  life.kill('SIGINT');
  await life.line('all settled');
  await life.finished(); // by itself: nobody calls exit
  expect(life.lines.filter((line) => line.startsWith('settled ')).toSorted()).toEqual(SETTLED);
  expect(life.lines).toContain('late StoppedError');
  expect(project.processes()).toEqual([]);
  project.kills++; // not a kill, but the fault of this test: it has happened
  await project.checkMidway();
  release(project.home);
  await project.finish();
});

test('stop({ drain }) waits for the command, keeps what it has done, and starts nothing new', async () => {
  using project = new ProjectUnderTest('patient');
  const life = project.begin({ untilSignal: true });
  await life.line('progress');
  await life.line('waiting');
  life.kill('SIGTERM');
  release(project.home);
  await life.line('all settled');
  await life.finished();
  expect(life.lines.filter((line) => line.startsWith('settled ')).toSorted()).toEqual(SETTLED);
  expect(project.processes()).toEqual([]);
  project.kills++;
  await project.checkMidway();
  await project.finish();
  const runs = readHistory(paths(project.home).history).filter(({ op }) => op === 'command.begun');
  expect(runs).toHaveLength(1);
});
