import path from 'node:path';
import { expect, test } from 'vitest';
import { git, makeRepository, temporaryDirectory, write } from '../workspace/git-fixture.ts';
import { memoryDisk } from './open-troupe.ts';

test('{project} is the directory, whatever is in its name', async () => {
  const directory = makeRepository();
  const outside = temporaryDirectory();
  write(outside, { "$$a$&b$'c/agent.sh": 'echo made > made.txt' });
  const verify = [{ name: 'test', command: 'test -f made.txt' }];
  const troupe = await memoryDisk().open({ project: { directory, verify } });
  troupe.commandAgent('worker', {
    run: ['sh', '{project}/agent.sh'],
    projectDirectory: path.join(outside, "$$a$&b$'c"),
  });
  const run = await troupe.start({
    id: 'r',
    limits: { attempts: 1 },
    tasks: [{ id: 'a', agent: 'worker' }],
  });
  expect(await run.result()).toMatchObject({ state: 'done' });
  expect(git(directory, 'show', 'main:made.txt')).toBe('made');
});
