import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { createTroupe, parseRetention } from '../../src/index.ts';
import { removeTree } from '../../src/workspace/remove-tree.ts';
import {
  findLeftoverFiles,
  findLeftoverRefs,
  removeLeftoverFiles,
} from '../../src/workspace/run-leftovers.ts';
import { git, makeRepository, temporaryDirectory, write } from './git-fixture.ts';

const DAY = 86_400_000;
const NOW = Date.UTC(2026, 10, 30);
const retention = parseRetention({ artifactDays: 14, logDays: 7, artifacts: 3, logMegabytes: 1 });
const { files: keep } = retention as NonNullable<typeof retention>;

/** Writes a file that is so old. */
function aged(root: string, name: string, days: number, text = '{}'): void {
  write(root, { [name]: text });
  const at = new Date(NOW - days * DAY);
  utimesSync(path.join(root, name), at, at);
}

const gate = (run: string, n: number, type = 'json') =>
  `tasks/${run}/t/gatekeeper/2026-11-0${n}T00-00-00.000Z-${n}.${type}`;

const names = async (root: string, live: readonly string[] = []) =>
  (await findLeftoverFiles(root, new Set(live), keep, NOW)).map(({ file }) =>
    path.relative(root, file),
  );

const queue = (root: string) => ({
  removeOrQueue: async (target: string) => {
    expect(target.startsWith(`${root}/`)).toBe(true);
    await removeTree(target);
    return true;
  },
});

test('what is too old, too many or too much goes, and nothing of a run that has not ended', async () => {
  const root = temporaryDirectory();
  aged(root, gate('old', 1), 15);
  aged(root, gate('old', 1, 'log'), 8);
  aged(root, 'tasks/old/t/task-1.json', 8);
  aged(root, 'tasks/old/t/agent-1.log', 6);
  aged(root, gate('live', 1), 400);
  for (const n of [1, 2, 3, 4]) aged(root, gate('many', n), 10 - n);
  aged(root, 'tasks/much/t/agent-1.log', 1, 'x'.repeat(700_000));
  aged(root, 'tasks/much/t/agent-2.log', 2, 'x'.repeat(700_000));
  aged(root, 'tasks/much/t/notes.txt', 900);
  expect((await names(root, ['live'])).sort()).toEqual(
    [
      gate('old', 1),
      gate('many', 1),
      ...[gate('old', 1, 'log'), 'tasks/old/t/task-1.json'],
      // More than a megabyte together with the newer one, and so is what is older.
      ...['tasks/much/t/agent-2.log', 'tasks/old/t/agent-1.log'],
    ].sort(),
  );
});

test('removes them, and the directories that are empty then', async () => {
  const root = temporaryDirectory();
  aged(root, gate('old', 1), 15);
  aged(root, 'tasks/old/t/agent-1.log', 8);
  aged(root, gate('rest', 1), 15);
  aged(root, 'tasks/rest/t/notes.txt', 900);
  const files = await findLeftoverFiles(root, new Set(), keep, NOW);
  expect(await removeLeftoverFiles(root, files, queue(root))).toEqual({ artifacts: 2, logs: 1 });
  expect(readdirSync(path.join(root, 'tasks'))).toEqual(['rest']);
  expect(readdirSync(path.join(root, 'tasks/rest/t'))).toEqual(['notes.txt']);
});

test('links are not followed, neither those that are there nor those that are put there meanwhile', async () => {
  const root = temporaryDirectory();
  const outside = temporaryDirectory();
  aged(outside, 't/gatekeeper/2020-secret.json', 900);
  aged(outside, 'gatekeeper/2020-secret.json', 900);
  aged(outside, '2020-secret.json', 900);
  mkdirSync(path.join(root, 'tasks/run/task'), { recursive: true });
  symlinkSync(outside, path.join(root, 'tasks/linked'));
  symlinkSync(outside, path.join(root, 'tasks/run/linked'));
  symlinkSync(outside, path.join(root, 'tasks/run/task/gatekeeper'));
  symlinkSync(
    path.join(outside, '2020-secret.json'),
    path.join(root, 'tasks/run/task/agent-1.log'),
  );
  expect(await names(root)).toEqual([]);

  // Found as ours, and then replaced.
  aged(root, 'tasks/other/t/gatekeeper/2020-secret.json', 900);
  const files = await findLeftoverFiles(root, new Set(), keep, NOW);
  expect(files).toHaveLength(1);
  await removeTree(path.join(root, 'tasks/other/t'));
  symlinkSync(path.join(outside, 't'), path.join(root, 'tasks/other/t'));
  expect(await removeLeftoverFiles(root, files, queue(root))).toEqual({ artifacts: 0, logs: 0 });
  expect(existsSync(path.join(outside, 't/gatekeeper/2020-secret.json'))).toBe(true);
});

test('nothing there is nothing to remove', async () => {
  expect(await names(temporaryDirectory())).toEqual([]);
});

test('refs go with a run that is forgotten and old, but for a branch that is checked out', () => {
  const line = (days: number | '', ref: string, checkedOut = '') =>
    `${ref.length} ${days === '' ? '' : (NOW - days * DAY) / 1000} ${ref} ${checkedOut}`;
  const listed = [
    line(40, 'refs/heads/troupe/old/a'),
    line(35, 'refs/troupe/attempts/old/a/1'),
    line(300, 'refs/troupe/backup/old'),
    line(40, 'refs/heads/troupe/used/a', '/home/me/tree'),
    line(40, 'refs/troupe/salvage/used/a/1'),
    line(40, 'refs/troupe/attempts/known/a/1'),
    // Its last attempt is young.
    line(400, 'refs/troupe/backup/young'),
    line(2, 'refs/troupe/attempts/young/a/9'),
    line('', 'refs/troupe/attempts/odd/a/1'),
    line(40, 'refs/heads/main'),
  ].join('\n');
  const found = findLeftoverRefs(listed, new Set(['known']), NOW - 30 * DAY);
  expect(found.map(({ ref }) => ref).sort()).toEqual([
    'refs/heads/troupe/old/a',
    'refs/troupe/attempts/old/a/1',
    'refs/troupe/backup/old',
    'refs/troupe/salvage/used/a/1',
  ]);
});

test('prune removes what forgotten runs have left in a project, and says how much', async () => {
  const directory = makeRepository();
  const env = {
    ...process.env,
    GIT_AUTHOR_NAME: 'Test',
    GIT_AUTHOR_EMAIL: 'test@example.org',
    GIT_COMMITTER_NAME: 'Test',
    GIT_COMMITTER_EMAIL: 'test@example.org',
    GIT_COMMITTER_DATE: '2001-01-01T00:00:00Z',
  };
  const tree = git(directory, 'rev-parse', 'HEAD^{tree}').trim();
  const commit = execFileSync('git', ['commit-tree', tree, '-m', 'old'], {
    ...{ cwd: directory, env, encoding: 'utf8' as const },
  }).trim();
  git(directory, 'update-ref', 'refs/heads/troupe/gone/a', commit);
  git(directory, 'update-ref', 'refs/troupe/backup/gone', commit);
  const troupe = await createTroupe({
    store: ':memory:',
    logger: pino({ level: 'silent' }),
    retention: false,
    project: { directory, verify: [{ name: 'test', command: ['true'] }] },
  });
  onTestFinished(() => troupe.stop());
  const at = new Date(Date.now() - 15 * DAY);
  const file = path.join(directory, '.troupe/tasks/gone/a/gatekeeper/2001-1.json');
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, '{}');
  utimesSync(file, at, at);
  expect((await troupe.prune({})).removed).toMatchObject({ artifacts: 1, logs: 0, refs: 2 });
  expect(existsSync(path.join(directory, '.troupe/tasks/gone'))).toBe(false);
  expect(git(directory, 'for-each-ref', 'refs/troupe', 'refs/heads/troupe')).toBe('');
  expect((await troupe.prune({})).removed).toMatchObject({ artifacts: 0, logs: 0, refs: 0 });
});
