import { expect, test, vi } from 'vitest';
import { configure, makeProject, merges, troupe, troupeProcess, writing } from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

test('troupe enqueue lets the next tasks of a large backlog in', async () => {
  const tasks = [writing('one'), writing('two'), writing('three', {}, { priority: 'high' })];
  const directory = makeProject(tasks, { staging: { stageAbove: 2, enableFirst: 1 } });
  // It stands still: the others are staged.
  expect((await troupe(directory, 'run')).exitCode).toBe(30);
  expect(merges(directory)).toEqual(['three']);
  expect(await troupeProcess(directory, 'enqueue', '1')).toMatchObject({
    exitCode: 0,
    stdout: 'Task one is ready.\nNothing runs now. It goes on with: troupe resume\n',
  });
  const rest = await troupe(directory, 'enqueue', '--run', 'main', '--json');
  expect(JSON.parse(rest.stdout)).toMatchObject({ tasks: [{ task: 'two', state: 'ready' }] });
  expect(await troupe(directory, 'enqueue')).toMatchObject({
    exitCode: 0,
    stdout: 'No task of run main is staged.\n',
  });
  const wrong = await troupe(directory, 'enqueue', 'all');
  expect(wrong).toMatchObject({ exitCode: 20, stdout: '' });
  expect((await troupe(directory, 'resume')).exitCode).toBe(0);
  expect(merges(directory)).toHaveLength(3);
  configure(directory, tasks, { staging: 3 });
  expect((await troupe(directory, 'run')).stderr).toContain(
    'expected true, false, or a mapping such as { stageAbove: 120, enableFirst: 30 }',
  );
});
