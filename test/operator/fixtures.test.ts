import { mkdirSync, readdirSync, realpathSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { runFixtures } from '../../src/operator/fixtures.ts';
import { temporaryDirectory } from '../workspace/git-fixture.ts';
import { Cli } from './cli-fixture.ts';

vi.setConfig({ testTimeout: 120_000 });

test('the fixtures find nothing wrong here, and leave nothing behind', async () => {
  const scratch = temporaryDirectory();
  vi.stubEnv('TMPDIR', scratch);
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
  expect(await runFixtures()).toEqual([
    { name: 'parallel mini project', ok: true, tookMs: expect.any(Number), problems: [] },
    { name: 'rejection and retry', ok: true, tookMs: expect.any(Number), problems: [] },
    { name: 'QA pipeline', ok: true, tookMs: expect.any(Number), problems: [] },
  ]);
  expect(readdirSync(scratch)).toEqual([]);
});

test('on a machine that cannot do it, each says why, and the exit code too', async () => {
  const directory = temporaryDirectory();
  // A PATH with node, and without git.
  const bin = path.join(directory, 'bin');
  mkdirSync(bin);
  symlinkSync(realpathSync(process.execPath), path.join(bin, 'node'));
  const doctor = new Cli(directory, ['doctor', '--fixtures', '--json'], { PATH: bin });
  const said = await doctor.ended;
  expect(said.exitCode).toBe(40);
  const report = JSON.parse(said.stdout);
  expect(report).toMatchObject({ healthy: false });
  expect(report.checks).toContainEqual({
    name: 'git',
    ok: false,
    says: [expect.stringMatching(/^git was not found on PATH/)],
  });
  expect(report.fixtures).toEqual([
    expect.objectContaining({ ok: false, problems: [expect.stringContaining('git')] }),
    expect.objectContaining({ ok: false, problems: [expect.stringContaining('git')] }),
    expect.objectContaining({ ok: false, problems: [expect.stringContaining('git')] }),
  ]);
});
