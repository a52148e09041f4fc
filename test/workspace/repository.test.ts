import { readFileSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { ConfigurationError } from '../../src/protocol/errors.ts';
import { Mutex } from '../../src/workspace/mutex.ts';
import { Repository } from '../../src/workspace/repository.ts';
import { removeStaleLocks } from '../../src/workspace/stale-locks.ts';
import { moveTarget } from '../../src/workspace/target-branch.ts';
import {
  commit,
  git,
  makeRepository,
  openProject,
  processRegistry,
  temporaryDirectory,
  write,
} from './git-fixture.ts';

const open = (directory: string, target?: string) =>
  Repository.open({
    directory,
    processes: processRegistry(),
    ...(target === undefined ? {} : { target }),
  });

interface Refused {
  readonly name: string;
  readonly make: () => string;
  readonly target?: string;
  readonly says: string;
}

const REFUSED: readonly Refused[] = [
  { name: 'no directory', make: () => '/no/such/project', says: 'there is none' },
  { name: 'no repository', make: temporaryDirectory, says: 'not a git repository' },
  {
    name: 'a bare repository',
    make: () => {
      const directory = temporaryDirectory();
      git(directory, 'init', '-q', '--bare');
      return directory;
    },
    says: 'got a bare one',
  },
  {
    name: 'the inside of .git',
    make: () => path.join(makeRepository(), '.git'),
    says: 'inside of a git directory',
  },
  {
    name: 'no commit yet',
    make: () => {
      const directory = temporaryDirectory();
      git(directory, 'init', '-q', '-b', 'main');
      return directory;
    },
    says: 'has no commit yet. Make the first one',
  },
  { name: 'another branch', make: makeRepository, target: 'master', says: 'Did you mean main?' },
  {
    name: 'several branches',
    make: () => {
      const directory = makeRepository();
      git(directory, 'branch', 'aaa');
      return directory;
    },
    target: 'master',
    says: 'Did you mean main? (Branches there: aaa, main.)',
  },
  { name: 'an option as target', make: makeRepository, target: '--help', says: 'name of a branch' },
  { name: 'HEAD as target', make: makeRepository, target: 'HEAD', says: 'name of a branch' },
  { name: 'half a name as target', make: makeRepository, target: 'a/', says: 'name of a branch' },
  {
    name: 'an expression as target',
    make: makeRepository,
    target: '@{-1}',
    says: 'name of a branch',
  },
  { name: 'a ref as target', make: makeRepository, target: 'main^', says: 'name of a branch' },
  {
    name: 'a branch where ours belong',
    make: () => {
      const directory = makeRepository();
      git(directory, 'branch', 'troupe');
      return directory;
    },
    says: 'git branch -m troupe troupe-old',
  },
  {
    name: 'a merge in progress',
    make: () => {
      const directory = makeRepository({ a: '1\n' });
      git(directory, 'checkout', '-q', '-b', 'side');
      commit(directory, { a: '2\n' });
      git(directory, 'checkout', '-q', 'main');
      commit(directory, { a: '3\n' });
      expect(() => git(directory, 'merge', 'side')).toThrow();
      return directory;
    },
    says: 'git merge --abort',
  },
  {
    name: 'a rebase of main in progress',
    make: () => {
      const directory = makeRepository({ a: '1\n' });
      git(directory, 'checkout', '-q', '-b', 'side');
      commit(directory, { a: '2\n' });
      git(directory, 'checkout', '-q', 'main');
      commit(directory, { a: '3\n' });
      expect(() => git(directory, 'rebase', 'side')).toThrow();
      return directory;
    },
    says: 'git rebase --abort',
  },
  {
    name: 'a partial clone',
    make: () => {
      const directory = makeRepository();
      git(directory, 'config', 'extensions.partialClone', 'origin');
      return directory;
    },
    says: 'partial clone',
  },
];

test.each(REFUSED)('$name is refused, with what to do', async ({ make, target, says }) => {
  const opening = open(make(), target);
  await expect(opening).rejects.toBeInstanceOf(ConfigurationError);
  await expect(opening).rejects.toThrow(says);
});

test('a subdirectory, a shallow clone, a linked worktree and a detached HEAD are fine', async () => {
  const source = makeRepository({ 'dir/a': '1\n' });
  commit(source, { 'dir/a': '2\n' });
  expect((await open(path.join(source, 'dir'))).root).toBe(source);

  const shallow = path.join(temporaryDirectory(), 'shallow');
  git(source, 'clone', '-q', '--depth=1', `file://${source}`, shallow);
  const project = await open(shallow);
  expect(await project.targetHead()).toBe(git(source, 'rev-parse', 'main'));

  const linked = path.join(temporaryDirectory(), 'linked');
  git(source, 'worktree', 'add', '-q', '--detach', linked);
  expect(await open(linked)).toMatchObject({ root: linked, commonDir: path.join(source, '.git') });
});

test('opening writes nothing', async () => {
  const directory = makeRepository();
  const files = () =>
    git(directory, 'for-each-ref') + readFileSync(path.join(directory, '.git/config'), 'utf8');
  const before = files();
  await open(directory);
  expect(files()).toBe(before);
});

test('the user’s identity is used for what is merged', async () => {
  const directory = makeRepository();
  git(directory, 'config', 'user.name', 'Ada');
  git(directory, 'config', 'user.email', 'ada@example.org');
  expect((await open(directory)).git.identity).toEqual({ name: 'Ada', email: 'ada@example.org' });
});

test('a tag or another ref named like the target changes nothing', async () => {
  const { directory, repository } = await openProject();
  const head = git(directory, 'rev-parse', 'HEAD');
  git(directory, 'checkout', '-q', '--detach');
  git(directory, 'tag', 'main', commit(directory, { x: 'x\n' }));
  expect(await repository.targetHead()).toBe(head);
});

test('checkouts of the target are found, with what is wrong with them', async () => {
  const { directory, repository } = await openProject();
  expect(await repository.checkedOutTargets()).toEqual([{ directory, clean: true }]);
  write(directory, { 'readme.md': 'changed\n' });
  expect(await repository.checkedOutTargets()).toMatchObject([
    { directory, clean: false, reason: expect.stringContaining('Commit or stash') },
  ]);
  git(directory, 'add', '-A');
  expect(await repository.checkedOutTargets()).toMatchObject([{ clean: false }]);
  git(directory, 'checkout', '-q', '-b', 'other');
  expect(await repository.checkedOutTargets()).toEqual([]);
});

test('the target moves by compare-and-swap', async () => {
  const { directory, repository } = await openProject();
  const from = await repository.targetHead();
  const to = git(directory, 'commit-tree', `${from}^{tree}`, '-p', from, '-m', 'next');
  const meanwhile = commit(directory, { b: 'b\n' });
  expect(await moveTarget(repository, { from, to, message: 'x' })).toEqual({
    kind: 'moved_meanwhile',
  });
  expect(git(directory, 'rev-parse', 'main')).toBe(meanwhile);
});

test('a backup is made once, restored, and the restore is undone', async () => {
  const { directory, repository } = await openProject();
  const start = await repository.targetHead();
  expect(await repository.ensureBackupRef('Run 1')).toBe(start);
  const later = commit(directory, { 'b.txt': 'b\n' });
  expect(await repository.ensureBackupRef('Run 1')).toBe(start);

  const restored = await repository.restoreBackup('Run 1');
  expect(restored).toMatchObject({ from: later, to: start });
  expect(git(directory, 'rev-parse', 'main')).toBe(start);
  expect(git(directory, 'status', '--porcelain')).toBe('');

  const undone = await repository.undoRestore('Run 1', restored.undo);
  expect(undone).toMatchObject({ from: start, to: later });
  expect(undone.undo).not.toBe(restored.undo);
  expect(readFileSync(path.join(directory, 'b.txt'), 'utf8')).toBe('b\n');
  expect(git(directory, 'status', '--porcelain')).toBe('');
});

test('a restore refuses a dirty checkout, an unknown run and a foreign ref', async () => {
  const { directory, repository } = await openProject();
  await expect(repository.restoreBackup('none')).rejects.toThrow('there is none');
  await repository.ensureBackupRef('run');
  const later = commit(directory, { 'b.txt': 'b\n' });
  await expect(repository.undoRestore('run', 'refs/heads/main')).rejects.toThrow(
    'Expected a ref below',
  );
  write(directory, { 'b.txt': 'mine\n' });
  await expect(repository.restoreBackup('run')).rejects.toThrow('Nothing was changed');
  expect(git(directory, 'rev-parse', 'main')).toBe(later);
  expect(readFileSync(path.join(directory, 'b.txt'), 'utf8')).toBe('mine\n');
});

test('a move that comes between our look and our swap wins', async () => {
  const { directory, repository } = await openProject();
  const from = await repository.targetHead();
  const to = git(directory, 'commit-tree', `${from}^{tree}`, '-p', from, '-m', 'next');
  git(directory, 'checkout', '-q', '--detach');
  const meanwhile = commit(directory, { b: 'b\n' });
  git(directory, 'update-ref', 'refs/heads/main', meanwhile);
  vi.spyOn(repository, 'targetHead').mockResolvedValueOnce(from);
  expect(await moveTarget(repository, { from, to, message: 'x' })).toEqual({
    kind: 'moved_meanwhile',
  });
  expect(git(directory, 'rev-parse', 'main')).toBe(meanwhile);
});

test('writers take turns, in the order of asking, also after one has failed', async () => {
  const mutex = new Mutex();
  const log: string[] = [];
  const work = (name: string, fails = false) =>
    mutex.run(async () => {
      log.push(`${name} in`);
      await Promise.resolve();
      log.push(`${name} out`);
      if (fails) throw new Error(name);
      return name;
    });
  const outcomes = await Promise.allSettled([work('a', true), work('b'), work('c')]);
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
  expect(log).toEqual(['a in', 'a out', 'b in', 'b out', 'c in', 'c out']);
});

test('locks that a killed git of ours has left are removed, others stay', async () => {
  const { directory, repository } = await openProject();
  const gitDir = path.join(directory, '.git');
  const ours = ['index.lock', 'packed-refs.lock', 'refs/heads/main.lock'].map((name) =>
    path.join(gitDir, name),
  );
  const older = path.join(gitDir, 'refs/heads/older.lock');
  for (const lock of [...ours, older]) writeFileSync(lock, '');
  utimesSync(older, 1000, 1000);
  const leftover = {
    kind: 'process',
    command: 'git update-ref refs/heads/main',
    directory,
    startedAtMs: Date.now() - 1000,
    killed: [],
  } as const;
  expect(await removeStaleLocks(repository, [])).toEqual([]);
  expect(await removeStaleLocks(repository, [{ ...leftover, command: 'npm test' }])).toEqual([]);
  expect((await removeStaleLocks(repository, [leftover])).sort()).toEqual([...ours].sort());
  expect(readFileSync(older, 'utf8')).toBe('');
});

test('what a commit has of submodules and attributes is right after changes that touch them, and that do not', async () => {
  const { repository, directory } = await openProject({ 'a.txt': 'a\n' });
  const head = async () => {
    const commitName = git(directory, 'rev-parse', 'HEAD');
    return { entries: await repository.specialEntries(commitName), commitName };
  };
  const treeOf = (name: string) => git(directory, 'rev-parse', `${name}^{tree}`);
  const first = await head();
  expect(first.entries).toEqual({ repositories: [], attributes: [] });
  // The change is read before anybody asks about what it leads to, as the gatekeeper does.
  const plain = commit(directory, { 'dir/b.txt': 'b\n' });
  await repository.readChange(treeOf(first.commitName), treeOf(plain));
  expect((await head()).entries).toEqual({ repositories: [], attributes: [] });
  const attributed = commit(directory, { 'dir/.gitattributes': '*.txt merge=union\n' });
  await repository.readChange(treeOf(plain), treeOf(attributed));
  const blob = git(directory, 'rev-parse', 'HEAD:dir/.gitattributes');
  const attributes = [{ path: 'dir/.gitattributes', blob }];
  expect((await head()).entries).toEqual({ repositories: [], attributes });
  git(directory, 'update-index', '--add', '--cacheinfo', `160000,${plain},sub`);
  git(directory, 'commit', '-q', '-m', 'submodule');
  const withModule = await head();
  await repository.readChange(treeOf(attributed), treeOf(withModule.commitName));
  expect(withModule.entries).toEqual({ repositories: ['sub'], attributes });
});
