import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { expect, test } from 'vitest';
import { makeProject, troupe, troupeProcess, workedProject, writing } from './cli-fixture.ts';

/** A project whose run is done. */
const done = (): Promise<string> =>
  workedProject([writing('first'), writing('second')], 0, {
    retention: { checkpointsPerActor: 2, finishedRunsDays: 1 },
  });

async function json(
  directory: string,
  ...args: readonly string[]
): Promise<Record<string, unknown>> {
  const { exitCode, stdout, stderr } = await troupe(directory, ...args, '--json');
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  return JSON.parse(stdout) as Record<string, unknown>;
}

test('du says what takes how much room', async () => {
  const directory = await done();
  const usage = (await json(directory, 'du')) as {
    file: string;
    fileBytes: number;
    emptyBytes: number;
    tables: { table: string; rows: number; bytes: number }[];
    runs: { run: string | null; rows: number; bytes: number }[];
  };
  expect(usage.file).toBe(path.join(directory, '.troupe', 'state.db'));
  expect(usage.fileBytes).toBe(statSync(usage.file).size);
  expect(usage.tables.find(({ table }) => table === 'tasks')).toMatchObject({ rows: 2 });
  expect(usage.runs.map(({ run }) => run).sort()).toEqual(['main', null].sort());
  const content = usage.tables.reduce((sum, { bytes }) => sum + bytes, 0);
  expect(content).toBeLessThan(usage.fileBytes - usage.emptyBytes);
  expect(content).toBeGreaterThan(usage.runs.reduce((sum, { bytes }) => sum + bytes, 0));
  const { stdout } = await troupeProcess(directory, 'du');
  expect(stdout).toMatch(/state\.db: \d.* of it empty\n/);
  expect(stdout).toMatch(/ {2}main\n/);
});

test('backup writes a copy that is a store, and overwrites nothing', async () => {
  const directory = await done();
  const { stdout } = await troupeProcess(directory, 'backup', 'copy.db');
  expect(stdout).toMatch(/^Wrote .*copy\.db \([\d.]+ kB\)\.\n$/);
  const db = new Database(path.join(directory, 'copy.db'), { readonly: true });
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
  expect(db.prepare('SELECT state FROM troupe_tasks').pluck().all()).toEqual(['done', 'done']);
  db.close();
  const again = await troupe(directory, 'backup', 'copy.db');
  expect(again.exitCode).toBe(22);
  expect(again.stderr).toMatch(
    /^troupe: The backup was not written: there is a file .*copy\.db already\./,
  );
  const nowhere = await troupe(directory, 'backup', 'not/there.db');
  expect(nowhere.exitCode).not.toBe(0);
  expect(nowhere.stderr).not.toContain('    at ');
  expect(await json(directory, 'backup', 'third.db')).toEqual({
    file: path.join(directory, 'third.db'),
    bytes: statSync(path.join(directory, 'third.db')).size,
  });
});

test('prune says what would go, and then removes that', async () => {
  const directory = await done();
  const dry = (await json(directory, 'prune', '--dry-run')) as {
    wouldRemove: Record<string, number>;
  };
  expect(dry.wouldRemove).toMatchObject({ runs: 0, tasks: 0, deadLetters: 0 });
  const { checkpoints } = dry.wouldRemove;
  expect(checkpoints).toBeGreaterThan(3);
  expect((await troupe(directory, 'prune', '--dry-run')).stdout).toBe(
    `Would remove ${checkpoints} checkpoints. Nothing was changed.\n`,
  );
  const pruned = (await json(directory, 'prune')) as {
    removed: Record<string, number>;
    active: boolean;
  };
  expect(pruned).toMatchObject({ active: false });
  // It may take turns of its own when it opens the store, and the round after opening may be first.
  expect(pruned.removed['checkpoints'] ?? 0).toBeGreaterThanOrEqual(checkpoints as number);
  expect((await troupeProcess(directory, 'prune')).stdout).toMatch(
    /^Removed .*\. The file is .* smaller\.\n$/,
  );
  expect(await troupe(directory, 'status')).toMatchObject({ exitCode: 0 });
});

test('where nothing was run there is nothing to look at, and nothing is made', async () => {
  const directory = makeProject([writing('first')]);
  for (const args of [['prune'], ['prune', '--dry-run'], ['backup', 'copy.db'], ['du']]) {
    const { exitCode, stderr } = await troupe(directory, ...args);
    expect({ exitCode, stderr }).toMatchObject({
      exitCode: 21,
      stderr: expect.stringContaining('Nothing was run in') as string,
    });
  }
  expect(existsSync(path.join(directory, '.troupe', 'state.db'))).toBe(false);
  expect(existsSync(path.join(directory, 'copy.db'))).toBe(false);
});

test('a project that keeps everything says so', async () => {
  const directory = makeProject([writing('first')], { retention: false });
  const { exitCode, stderr } = await troupe(directory, 'prune');
  expect({ exitCode, stderr }).toMatchObject({
    exitCode: 41,
    stderr: expect.stringContaining('says "retention: false"') as string,
  });
});
