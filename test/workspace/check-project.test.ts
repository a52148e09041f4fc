import { mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { checkProject, type ProjectCheck } from '../../src/workspace/check-project.ts';
import { commit, git, temporaryDirectory, write } from './git-fixture.ts';

function project(): string {
  const directory = temporaryDirectory();
  git(directory, 'init', '-q', '-b', 'main');
  commit(directory, { 'a.txt': 'a\n' }, 'first');
  return directory;
}

async function checked(
  name: ProjectCheck['name'],
  options: Parameters<typeof checkProject>[0],
): Promise<ProjectCheck | undefined> {
  return (await checkProject(options)).find((check) => check.name === name);
}

describe('what a project needs', () => {
  test('is all there in a new repository, which stays as it is', async () => {
    const directory = project();
    const checks = await checkProject({ directory });
    expect(checks.map(({ name, ok }) => [name, ok])).toEqual([
      ['git', true],
      ['disk', true],
      ['leftovers', true],
    ]);
    expect(checks[0]?.says[0]).toMatch(
      /^git version \d.*; what is merged into main is committed as .+ <.+>\.$/,
    );
    expect(readdirSync(directory).toSorted()).toEqual(['.git', 'a.txt']);
  });

  test('includes the repository and its target', async () => {
    expect(await checked('git', { directory: temporaryDirectory() })).toMatchObject({
      ok: false,
      says: [expect.stringMatching(/^Expected a git repository at /)],
    });
    expect(await checked('git', { directory: project(), target: 'release' })).toMatchObject({
      ok: false,
      says: [expect.stringContaining('release')],
    });
  });

  test('excludes locks of a git that was killed', async () => {
    const directory = project();
    const lock = path.join(directory, '.git', 'refs', 'heads', 'main.lock');
    writeFileSync(lock, '');
    // One that is held just now is no fault.
    expect(await checked('git', { directory })).toMatchObject({ ok: true });
    utimesSync(lock, 1, 1);
    expect(await checked('git', { directory })).toMatchObject({
      ok: false,
      says: [expect.stringContaining(lock), expect.stringMatching(/^git version/)],
    });
  });
});

describe('what is left behind', () => {
  const place = (directory: string, name: string): void => {
    mkdirSync(path.join(directory, '.troupe', name), { recursive: true });
  };

  test('is told when the next run removes it, and is no fault', async () => {
    const directory = project();
    place(directory, 'workspaces/main/over');
    place(directory, 'workspaces/main/under-way');
    place(directory, 'workspaces/.trash/x');
    place(directory, 'kept/main-strange-1234');
    const live = [{ run: 'main', task: 'under-way' }];
    expect(await checked('leftovers', { directory, live })).toEqual({
      name: 'leftovers',
      ok: true,
      says: [
        expect.stringContaining('(main-strange-1234): remove it when'),
        'Workspaces of tasks that are over: main/over. The next run removes them.',
      ],
    });
  });

  test('is a fault when it cannot be removed, again and again', async () => {
    const directory = project();
    const entry = { path: 'workspaces/.trash/x', notBeforeMs: 1, lastError: 'EBUSY' };
    const queue = (failures: number): void =>
      write(directory, {
        '.troupe/workspaces/.cleanup-queue.json': JSON.stringify([{ ...entry, failures }]),
      });
    queue(2);
    expect(await checked('leftovers', { directory })).toMatchObject({
      ok: true,
      says: ['1 could not be removed yet, and will be tried again.'],
    });
    queue(7);
    expect(await checked('leftovers', { directory })).toMatchObject({
      ok: false,
      says: [
        expect.stringMatching(
          /\.trash\/x could not be removed 7 times: EBUSY\. Remove it yourself\.$/,
        ),
      ],
    });
    write(directory, { '.troupe/workspaces/.cleanup-queue.json': '{ torn' });
    expect(await checked('leftovers', { directory })).toMatchObject({
      ok: true,
      says: [expect.stringMatching(/^The cleanup queue cannot be read/)],
    });
  });
});
