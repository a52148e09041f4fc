import { existsSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { VerifiedTrees, type VerifiedUnder } from '../../src/workspace/verified-trees.ts';
import { temporaryDirectory, write } from './git-fixture.ts';

const COMMANDS = [{ name: 'test', command: 'true' }];
const UNDER: VerifiedUnder = { commands: COMMANDS, env: { CI: '1', TMPDIR: '/tmp/a' } };
const PROOF = {
  commands: [
    {
      name: 'test',
      command: 'true',
      exitCode: 0,
      signal: null,
      durationMs: 1,
      excerpt: '',
      tests: 3,
    },
  ],
  artifact: '.troupe/tasks/r/t/gatekeeper/one.json',
};

/** A project with the artifact of a verification. */
function project(): {
  readonly root: string;
  readonly trees: (under?: VerifiedUnder) => VerifiedTrees;
} {
  const directory = temporaryDirectory();
  write(directory, { [PROOF.artifact]: '{}' });
  const root = path.join(directory, '.troupe', 'verified-trees');
  return { root, trees: (under = UNDER) => new VerifiedTrees(root, under) };
}

test('what passed is found again, also by the next process, with the artifact that proved it', async () => {
  const { trees } = project();
  expect(await trees().find('tree')).toBeUndefined();
  await trees().remember('tree', PROOF);
  expect(await trees().find('tree')).toEqual(PROOF);
  expect(await trees().find('other')).toBeUndefined();
});

test.each<[what: string, under: VerifiedUnder, found: boolean]>([
  ['the same', { ...UNDER }, true],
  ['another place for temporary files', { ...UNDER, env: { CI: '1', TMPDIR: '/tmp/b' } }, true],
  ['another variable', { ...UNDER, env: { CI: '2' } }, false],
  ['another command', { ...UNDER, commands: [{ name: 'test', command: 'false' }] }, false],
  [
    'another time limit',
    { ...UNDER, commands: [{ ...COMMANDS[0], name: 'test', command: 'true', timeoutMs: 5 }] },
    false,
  ],
  [
    'a command that may fail now',
    { ...UNDER, commands: [{ name: 'test', command: 'true', allowFail: true }] },
    false,
  ],
  [
    'one more command',
    { ...UNDER, commands: [...COMMANDS, { name: 'lint', command: 'true' }] },
    false,
  ],
  ['a reason for having no tests', { ...UNDER, noTests: 'prose' }, false],
])('under %s', async (_what, under, found) => {
  const { trees } = project();
  await trees().remember('tree', PROOF);
  expect((await trees(under).find('tree')) !== undefined).toBe(found);
});

test('without its artifact, or damaged, a record proves nothing', async () => {
  const { root, trees } = project();
  await trees().remember('tree', PROOF);
  rmSync(path.join(root, '..', '..', PROOF.artifact));
  expect(await trees().find('tree')).toBeUndefined();
  write(path.join(root, '..', '..'), { [PROOF.artifact]: '{}' });
  expect(await trees().find('tree')).toEqual(PROOF);
  const [configuration = ''] = readdirSync(root).filter((name) => name !== '.gitignore');
  write(path.join(root, configuration), { 'tree.json': '{"commands":[' });
  expect(await trees().find('tree')).toBeUndefined();
});

test('the configurations used last are kept', async () => {
  const { root, trees } = project();
  write(
    root,
    Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`old-${n}/tree.json`, '{}'])),
  );
  for (let n = 0; n < 100; n++) utimesSync(path.join(root, `old-${n}`), n, n);
  await trees().remember('tree', PROOF);
  await trees().prune();
  expect(existsSync(path.join(root, 'old-0'))).toBe(false);
  expect(existsSync(path.join(root, 'old-1'))).toBe(true);
  expect(await trees().find('tree')).toEqual(PROOF);
});
