import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { paths, RUN } from '../crash/project.ts';
import { ProjectUnderTest } from '../crash/project-fixture.ts';
import { openWorld } from '../crash/world.ts';
import { firstOf } from '../extent.ts';
import { makeSpace, needNamespaces, onSmallDisk, type Spare, withLimit } from './toolbox.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: 240_000 });

/*
 * B02 and B03: a disk, or its inodes, come to an end in the middle of a run. With the database's disk the runtime
 * stops, and the next one goes on; with any other it waits, and no attempt at the work is counted. Whatever disk it
 * was, the run ends as if there had always been space.
 */

const TASKS = ['good', 'solo', 'chain-1', 'chain-2', 'untidy'] as const;
/** Enough where no size of the database has to be reached: a patch, a command, and one that needs TMPDIR. */
const FEW = ['good', 'chain-1', 'untidy'] as const;

/** Full for as long as it takes a person to see to it; the product's own patience is ten faults in a row. */
const PATIENT = { infrastructureAttempts: 10_000 };

const FULL = /ENOSPC|No space left on device|the disk is full|unable to write/;

const undisturbed = new Map<readonly string[], Promise<string>>();

/** The tree that main comes to without any fault. */
function undisturbedTree(tasks: readonly string[]): Promise<string> {
  const known = undisturbed.get(tasks);
  if (known !== undefined) return known;
  const made = (async () => {
    using project = new ProjectUnderTest(...tasks);
    await project.begin().finished();
    return project.tree();
  })();
  undisturbed.set(tasks, made);
  return made;
}

/** Why tasks had to wait, as their checkpoints say it. */
function reasonsOf({ home }: ProjectUnderTest): readonly string[] {
  using world = openWorld({ storePath: paths(home).store, expect: { fired: 1 } });
  return world.actors
    .filter(({ record }) => record.machine === 'task')
    .flatMap(({ checkpoints }) =>
      checkpoints.map(({ snapshot }) => String((snapshot.context as { reason?: unknown }).reason)),
    );
}

async function endsUndisturbed(
  project: ProjectUnderTest,
  tasks: readonly string[] = TASKS,
): Promise<void> {
  await project.finish({}, PATIENT);
  expect(project.tree()).toBe(await undisturbedTree(tasks));
}

describe('the disk of the database', () => {
  test.for<{
    readonly what: string;
    readonly tasks: readonly (typeof TASKS)[number][];
    readonly spare: Spare;
    readonly says: RegExp;
  }>([
    {
      what: 'is full',
      tasks: TASKS,
      spare: { kilobytes: 700 },
      says: /the disk is full \(SQLITE_FULL/,
    },
    // For the lock, the database, its log, …
    ...firstOf(1, [2, 0, 3]).map((inodes) => ({
      what: `has ${inodes} inodes left`,
      tasks: FEW,
      spare: { kilobytes: 10_000, inodes },
      says: /Could not (lock|open) the store .*(ENOSPC|cannot be opened|the disk is full)/,
    })),
  ])('$what: it stops, and the next one goes on', async ({ tasks, spare, says }, { skip }) => {
    needNamespaces(skip);
    using project = new ProjectUnderTest(...tasks);
    const life = project.begin(
      PATIENT,
      onSmallDisk(path.dirname(paths(project.home).store), spare),
    );
    expect(await life.death()).toBe(1);
    expect(life.stderr).toMatch(says);
    project.kills++;
    await project.checkMidway();
    await endsUndisturbed(project, tasks);
  });
});

describe('any other disk is full: the tasks wait, and go on when there is space', () => {
  test.for<{
    readonly what: string;
    readonly of: string;
    readonly task: string;
    readonly spare: Spare;
  }>([
    { what: 'workspaces', of: 'project/.troupe/workspaces', task: 'good', spare: { kilobytes: 4 } },
    { what: 'artifacts', of: 'project/.troupe/tasks', task: 'good', spare: { kilobytes: 4 } },
    { what: 'verification', of: 'project/.troupe/verify', task: 'good', spare: { kilobytes: 4 } },
    { what: 'the repository', of: 'project', task: 'good', spare: { kilobytes: 60 } },
    { what: 'TMPDIR', of: 'tmp', task: 'untidy', spare: { kilobytes: 40 } },
    {
      what: 'workspaces, by inodes',
      of: 'project/.troupe/workspaces',
      task: 'good',
      spare: { kilobytes: 10_000, inodes: 4 },
    },
    {
      what: 'the repository, by inodes',
      of: 'project',
      task: 'good',
      spare: { kilobytes: 10_000, inodes: 20 },
    },
  ])('$what', async ({ of, task, spare }, { skip }) => {
    needNamespaces(skip);
    using project = new ProjectUnderTest(...FEW);
    const temporary = path.join(project.home, 'tmp');
    mkdirSync(temporary);
    const disk = path.join(project.home, of);
    const life = project.begin(PATIENT, onSmallDisk(disk, spare), { TMPDIR: temporary });
    await life.line(`${RUN}/${task} {"retrying"`);
    project.kills++;
    // What is there is whole, also while there is no space for more.
    for (const file of jsonFiles(`/proc/${life.pid}/root${project.directory}/.troupe/tasks`)) {
      expect(() => JSON.parse(readFileSync(file, 'utf8')) as unknown, file).not.toThrow();
    }
    makeSpace(life, disk);
    await life.finished();
    expect(reasonsOf(project)).toContainEqual(expect.stringMatching(FULL));
    await endsUndisturbed(project, FEW);
  });
});

test('no file may grow any more (RLIMIT_FSIZE): it stops, and the next one goes on', async () => {
  using project = new ProjectUnderTest(...TASKS);
  const life = project.begin(PATIENT, withLimit('-f', 400));
  expect(await life.death()).toBe(1);
  expect(life.stderr).toMatch(/Could not (store a commit|open the store) .*SQLITE_(IOERR|FULL)/);
  project.kills++;
  await project.checkMidway();
  await endsUndisturbed(project);
});

/** Of gatekeepers; what an agent's task file is, is the agent's own. */
function jsonFiles(directory: string): readonly string[] {
  let names: string[];
  try {
    names = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names
    .filter((name) => name.endsWith('.json') && name.includes('/gatekeeper/'))
    .map((name) => path.join(directory, name));
}
