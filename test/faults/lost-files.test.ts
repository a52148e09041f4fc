import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { checkInvariants } from '../crash/invariants.ts';
import { Life, scratch } from '../crash/life.ts';
import { RUN, release } from '../crash/project.ts';
import { ProjectUnderTest } from '../crash/project-fixture.ts';
import type { WorkerOrders } from '../crash/workload.ts';
import { firstOf } from '../extent.ts';
import { makeProject, troupe, writing } from '../operator/cli-fixture.ts';
import { needNamespaces, onReadOnlyDisk, withLimit, withoutPrivileges } from './toolbox.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: 240_000 });

/* B05, B06, B08, B09 and C09: somebody takes our files away, or the right to them, while we are at work. */

const PATIENT = { infrastructureAttempts: 10_000 };

describe('B06, C09: a file of the store is taken away while a run works on it', () => {
  const begin = async (): Promise<{ orders: WorkerOrders; life: Life }> => {
    const directory = scratch();
    const orders = {
      store: path.join(directory, 'state.db'),
      history: path.join(directory, 'history.jsonl'),
      tasks: 6,
      workMs: 0,
    };
    const life = new Life('worker', { ...orders, endless: true });
    await life.line('run r1 done');
    return { orders, life };
  };
  const goesOn = async (orders: WorkerOrders): Promise<void> => {
    await new Life('worker', { ...orders }).finished();
    await checkInvariants({
      storePath: orders.store,
      history: orders.history,
      expect: { fired: 1 },
    });
  };

  test('moved: it stops, and goes on when the file is put back', async () => {
    const { orders, life } = await begin();
    renameSync(orders.store, `${orders.store}.moved`);
    expect(await life.death()).toBe(1);
    expect(life.stderr).toMatch(/the file was deleted or moved .* Stop, put the file back/);
    // Its log is still here: to begin anew would be to lose what is in it.
    await expect(openSqliteStore({ path: orders.store })).rejects.toThrow(
      /is missing, but its log/,
    );
    renameSync(`${orders.store}.moved`, orders.store);
    await goesOn(orders);
  });

  test('replaced: it stops, and does not touch what is there now', async () => {
    const { orders, life } = await begin();
    renameSync(orders.store, `${orders.store}.moved`);
    writeFileSync(orders.store, 'mine');
    expect(await life.death()).toBe(1);
    expect(life.stderr).toMatch(/the file was replaced by another file/);
    expect(readFileSync(orders.store, 'utf8')).toBe('mine');
    renameSync(`${orders.store}.moved`, orders.store);
    await goesOn(orders);
  });

  test('its lock is deleted: it stops before another could write as well', async () => {
    const { orders, life } = await begin();
    rmSync(`${orders.store}.lock`);
    expect(await life.death()).toBe(1);
    expect(life.stderr).toMatch(/its lock .* was deleted or moved, so another process may own/);
    await goesOn(orders);
  });
});

describe('B08: what lies where artifacts belong', () => {
  test('nothing any more: the directory is made again', async () => {
    using project = new ProjectUnderTest('patient');
    const life = project.begin();
    await life.line('progress');
    rmSync(path.join(project.directory, '.troupe', 'tasks'), { recursive: true });
    project.kills++;
    release(project.home);
    await life.finished();
    const { merges } = await project.finish();
    expect(merges).toBe(1);
  });

  test('links: nothing is written to where they lead', async () => {
    using project = new ProjectUnderTest('solo');
    const victim = path.join(project.home, 'victim');
    mkdirSync(victim);
    writeFileSync(path.join(victim, 'file'), 'mine');
    const place = path.join(project.directory, '.troupe', 'tasks', RUN, 'solo');
    mkdirSync(place, { recursive: true });
    symlinkSync(path.join(victim, 'file'), path.join(place, 'task-1.json'));
    symlinkSync(path.join(victim, 'new'), path.join(place, 'agent-1.log'));
    project.kills++;
    await project.finish({}, PATIENT);
    expect(readdirSync(victim)).toEqual(['file']);
    expect(readFileSync(path.join(victim, 'file'), 'utf8')).toBe('mine');
  });

  test('a directory instead of a file: it gives way', async () => {
    using project = new ProjectUnderTest('solo');
    const place = path.join(project.directory, '.troupe', 'tasks', RUN, 'solo');
    mkdirSync(path.join(place, 'task-1.json', 'inside'), { recursive: true });
    mkdirSync(path.join(place, 'agent-1.log'), { recursive: true });
    project.kills++;
    await project.finish({}, PATIENT);
    expect(existsSync(path.join(place, 'agent-1.log'))).toBe(true);
  });
});

describe('B09: what may not be done, or not once more', () => {
  test('EACCES: the task waits until it may', async () => {
    using project = new ProjectUnderTest('good', 'solo');
    const workspaces = path.join(project.directory, '.troupe', 'workspaces');
    mkdirSync(workspaces, { recursive: true });
    chmodSync(workspaces, 0o500);
    const refused = project.begin(PATIENT, withoutPrivileges());
    expect(await refused.death()).toBe(1);
    expect(refused.stderr).toMatch(/Could not keep files in .*workspaces: EACCES.* may write to/);
    writeFileSync(path.join(workspaces, '.gitignore'), '*\n');
    const life = project.begin(PATIENT, withoutPrivileges());
    await life.line(`${RUN}/good {"retrying"`);
    project.kills++;
    chmodSync(workspaces, 0o700);
    await life.finished();
    await project.finish({}, PATIENT);
  });

  test('EMFILE: no attempt is counted, and the next life goes on', async () => {
    let seen = 0;
    for (const files of firstOf(2, [32, 24, 28, 36, 40])) {
      using project = new ProjectUnderTest('good', 'solo', 'chain-1');
      const life = project.begin(PATIENT, withLimit('-n', files));
      const met = await life.lineOrDeath(`${RUN}/good {"retrying"`);
      if (met !== undefined) life.kill();
      await life.death();
      if (met !== undefined || /EMFILE|too many open files|cannot be opened/i.test(life.stderr)) {
        seen++;
      }
      project.kills++;
      await project.checkMidway();
      await project.finish({}, PATIENT);
    }
    expect(seen).toBeGreaterThan(0);
  });
});

test('B05: on a disk that may only be read run and status say so', async ({ skip }) => {
  needNamespaces(skip);
  const directory = makeProject([writing('one')]);
  expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0 });
  const bin = path.join(import.meta.dirname, '..', '..', 'src', 'operator', 'bin.ts');
  const { spawnSync } = await import('node:child_process');
  const [unshare = '', ...under] = onReadOnlyDisk(directory);
  for (const command of ['run', 'status']) {
    const { status, stdout, stderr } = spawnSync(
      unshare,
      [...under, process.execPath, bin, command],
      { cwd: directory, encoding: 'utf8' },
    );
    // What can still be shown is true.
    if (status === 0) expect(stdout).toMatch(/Run main: done · 1 done/);
    else {
      expect(stderr).toMatch(/^troupe: .*(EROFS|read-only|cannot be opened|cannot be written)/);
      expect(stderr).not.toMatch(/ {4}at /);
    }
    expect([command, command === 'run' ? status : 1]).not.toEqual(['run', 0]);
  }
  expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0 });
});
