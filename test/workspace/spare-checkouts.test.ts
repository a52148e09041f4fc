import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { inFreshCheckout } from '../../src/workspace/verification.ts';
import type { Workspace } from '../../src/workspace/workspace.ts';
import {
  commit,
  git,
  openProject,
  type Project,
  reopenProject,
  temporaryDirectory,
} from './git-fixture.ts';

/** As many files as make it worth while, in directories of a hundred. */
const nameOf = (n: number): string => `src/d${n % 22}/sub/f${n}.txt`;
const FILES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(Array.from({ length: 1100 }, (_, n) => [nameOf(n), `file ${n}\n`])),
  '.gitignore': '*.log\nnode_modules\n',
  'run.sh': '#!/bin/sh\n',
};

type Listing = ReadonlyMap<string, string>;

/** Everything but git's own directory: type, permissions, number of names, and content. */
function listingOf(directory: string): Listing {
  const listing = new Map<string, string>();
  const walk = (relative: string): void => {
    for (const name of readdirSync(path.join(directory, relative)).sort()) {
      const below = path.join(relative, name);
      if (below === '.git') continue;
      const file = path.join(directory, below);
      const stat = lstatSync(file);
      const kind = (stat.mode & 0o170000).toString(8);
      const links = stat.isDirectory() ? '' : stat.nlink;
      let content = '';
      if (stat.isFile()) content = readFileSync(file, 'utf8');
      if (stat.isSymbolicLink()) content = readlinkSync(file);
      listing.set(below, `${kind} ${(stat.mode & 0o7777).toString(8)} ${links} ${content}`);
      if (stat.isDirectory()) walk(below);
    }
  };
  walk('');
  return listing;
}

/** Lines for what differs; a whole listing says too much. */
function differences(actual: Listing, expected: Listing | undefined): string[] {
  const names = new Set([...actual.keys(), ...(expected?.keys() ?? [])]);
  return [...names]
    .filter((name) => actual.get(name) !== expected?.get(name))
    .map((name) => `${name}: ${actual.get(name)} instead of ${expected?.get(name)}`);
}

/** What somebody who worked in a place may have left, with some file's name. */
const DIRT: Readonly<Record<string, (file: string, outside: string) => void>> = {
  'same size': (file) => writeFileSync(file, readFileSync(file, 'utf8').replace('file', 'FILE')),
  'same size and time': (file) => {
    const { atime, mtime } = lstatSync(file);
    writeFileSync(file, readFileSync(file, 'utf8').replace('file', 'FILE'));
    utimesSync(file, atime, mtime);
  },
  'more in it': (file) => appendFileSync(file, 'more\n'),
  'no file': (file) => rmSync(file),
  executable: (file) => chmodSync(file, 0o755),
  'for nobody else': (file) => chmodSync(file, 0o600),
  'a directory in its place': (file) => {
    rmSync(file);
    mkdirSync(file);
    writeFileSync(path.join(file, 'x'), 'x');
  },
  'a link in its place': (file) => {
    rmSync(file);
    symlinkSync('/etc/hostname', file);
  },
  'a second name outside': (file, outside) => linkSync(file, path.join(outside, 'second-name')),
  'a copy with its times': (file) => {
    execFileSync('cp', ['-p', file, `${file}.new`]);
    renameSync(`${file}.new`, file);
    writeFileSync(file, 'other\n');
  },
  'its directory elsewhere, a link in place': (file, outside) => {
    const directory = path.dirname(file);
    const elsewhere = path.join(outside, 'elsewhere');
    renameSync(directory, elsewhere);
    symlinkSync(elsewhere, directory);
  },
  'its directory elsewhere': (file, outside) => {
    renameSync(path.dirname(file), path.join(outside, 'gone'));
  },
  'its directory for us only': (file) => chmodSync(path.dirname(file), 0o700),
  'something untracked': (file) => writeFileSync(`${file}.untracked`, 'x'),
  'something ignored': (file) => {
    writeFileSync(`${file}.log`, 'x');
    mkdirSync(path.join(path.dirname(file), 'node_modules/a'), { recursive: true });
  },
  'other attributes': (file) => {
    writeFileSync(path.join(path.dirname(file), '.gitattributes'), '* text eol=crlf\n');
  },
  'an empty directory': (file) => mkdirSync(`${file}.d`),
  'a repository': (file) => execFileSync('git', ['init', '-q', `${file}.repository`]),
  'a repository around it': (file) => execFileSync('git', ['init', '-q', path.dirname(file)]),
  'a pipe': (file) => execFileSync('mkfifo', [`${file}.pipe`]),
};

/** What makes a place be made anew. */
const UNUSABLE = ['a repository around it', 'its directory for us only', 'a pipe'];

let count = 0;

async function placeFor({ workspaces }: Project, at: string): Promise<Workspace> {
  return await workspaces.prepare({
    run: 'run',
    task: `task-${count++}`,
    attempt: 1,
    continueFrom: at,
  });
}

const inode = ({ directory }: Pick<Workspace, 'directory'>): number | undefined =>
  lstatSync(path.join(directory, nameOf(1099)), { throwIfNoEntry: false })?.ino;

// A thousand files, again and again, on a machine that may be busy.
test('whatever is done to a place, the next one that is made of it is as a fresh one', {
  timeout: 120_000,
}, async () => {
  const project = await openProject(FILES);
  const { directory, workspaces } = project;
  const first = git(directory, 'rev-parse', 'HEAD');
  rmSync(path.join(directory, nameOf(4)));
  const second = commit(directory, { [nameOf(3)]: 'second\n', 'new/file.txt': 'new\n' });
  const commits = [first, second] as const;
  const expected: Listing[] = [];
  for (const at of commits) {
    const fresh = await placeFor(project, at);
    expected.push(listingOf(fresh.directory));
    rmSync(path.dirname(fresh.directory), { recursive: true });
  }
  let used = 0;
  // Each with a directory of its own, but for the first.
  const each = Object.keys(DIRT).map((dirt, n) => ({ dirt, n }));
  const end = fc.constantFrom<0 | 1>(0, 1);
  const dirty = fc.record({
    dirt: fc.constantFrom(...Object.keys(DIRT)),
    n: fc.integer({ min: 0, max: 1000 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(dirty, { minLength: 1, maxLength: 6 }),
      end,
      end,
      async (all, from, to) => {
        const before = await placeFor(project, commits[from]);
        const outside = temporaryDirectory();
        for (const { dirt, n } of all) {
          const file = path.join(before.directory, nameOf(n));
          // An earlier one of the list may have taken it away, or have used the name.
          if (!lstatSync(file, { throwIfNoEntry: false })?.isFile()) continue;
          if (readdirSync(outside).length > 0 && dirt.includes('elsewhere')) continue;
          DIRT[dirt]?.(file, outside);
        }
        const old = inode(before);
        await workspaces.release(before);
        const after = await placeFor(project, commits[to]);
        expect(differences(listingOf(after.directory), expected[to])).toEqual([]);
        expect(git(after.directory, 'status', '--porcelain', '--ignored')).toBe('');
        if (inode(after) === old) used++;
        // So that the next one is made of one that was made of one.
        await workspaces.release(after);
      },
    ),
    {
      numRuns: 7,
      examples: [
        [each.filter(({ dirt }) => !UNUSABLE.includes(dirt)), 0, 1],
        [each.filter(({ dirt }) => !UNUSABLE.includes(dirt)), 1, 0],
        ...UNUSABLE.map((dirt): [typeof each, 0, 0] => [[{ dirt, n: 5 }], 0, 0]),
      ],
    },
  );
  // The two examples with nothing that makes a place unusable, at least.
  expect(used).toBeGreaterThanOrEqual(2);
});

test('a verification gets one that an agent has used, and none when other attributes hold', async () => {
  const project = await openProject(FILES);
  const { directory, workspaces, repository } = project;
  const first = git(directory, 'rev-parse', 'HEAD');
  const workspace = await placeFor(project, first);
  const used = inode(workspace);
  writeFileSync(path.join(workspace.directory, nameOf(1)), 'changed\n');
  await workspaces.release(workspace);
  const [work, seen] = await inFreshCheckout({ workspaces, commit: first }, (workTree) =>
    Promise.resolve([inode({ directory: workTree }), readFileSync(path.join(workTree, nameOf(1)))]),
  );
  expect(work).toBe(used);
  expect(String(seen)).toBe('file 1\n');
  await workspaces.settled();

  const second = commit(directory, { 'src/.gitattributes': '*.txt text eol=crlf\n' });
  const other = await placeFor(project, second);
  expect(inode(other)).not.toBe(used);
  expect(readFileSync(path.join(other.directory, nameOf(1)), 'utf8')).toBe('file 1\r\n');
  // The one that was not taken is still there, and is as good as ever for what it is good for.
  const again = await placeFor(project, first);
  expect(inode(again)).toBe(used);
  expect(readFileSync(path.join(again.directory, nameOf(1)), 'utf8')).toBe('file 1\n');
  await repository.close();
});

test('few are kept, and none when all work is over or after a crash', async () => {
  const project = await openProject(FILES);
  const { directory, workspaces, repository } = project;
  const kept = path.join(directory, '.troupe/workspaces/.spare');
  const places: Workspace[] = [];
  for (let n = 0; n < 6; n++)
    places.push(await placeFor(project, await project.repository.targetHead()));
  for (const each of places) await workspaces.release(each);
  expect(readdirSync(kept)).toHaveLength(4);
  expect(places.filter(({ directory: place }) => existsSync(place))).toEqual([]);

  const later = await reopenProject(directory);
  await later.workspaces.reap([]);
  expect(readdirSync(kept)).toEqual([]);
  // One that has lost what it kept makes its places anew.
  const fresh = await placeFor(project, await project.repository.targetHead());
  expect(git(fresh.directory, 'status', '--porcelain', '--ignored')).toBe('');
  await workspaces.release(fresh);
  await workspaces.close();
  expect(readdirSync(kept)).toEqual([]);
  await repository.close();
});

test('a small project keeps none: to make them anew takes less', async () => {
  const project = await openProject();
  const workspace = await placeFor(project, await project.repository.targetHead());
  await project.workspaces.release(workspace);
  expect(existsSync(path.join(project.directory, '.troupe/workspaces/.spare'))).toBe(false);
});
