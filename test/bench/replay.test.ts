import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import type { ReplayReport } from '../../bench/replay/replay.ts';
import { REPOSITORY, runCommand } from '../tooling/run-command.ts';
import { editManifest, makeWorkload, temporaryDirectory } from './replay-fixture.ts';

// Alone they take a second or two each.
vi.setConfig({ testTimeout: 150_000 });

interface Replayed {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly report: ReplayReport | undefined;
  /** What lies where it worked. */
  readonly left: readonly string[];
}

async function replay(folder: string, ...flags: readonly string[]): Promise<Replayed> {
  const directory = temporaryDirectory();
  const json = path.join(temporaryDirectory(), 'report.json');
  const { exitCode, stdout, stderr } = await runCommand(
    process.execPath,
    ['bench/replay.ts', folder, '--dir', directory, '--json', json, ...flags],
    { cwd: REPOSITORY, timeoutMs: 140_000 },
  );
  const report = existsSync(json)
    ? (JSON.parse(readFileSync(json, 'utf8')) as ReplayReport)
    : undefined;
  return { exitCode, stdout, stderr, report, left: readdirSync(directory) };
}

const endOf = ({ report }: Replayed) =>
  Object.fromEntries((report?.tasks ?? []).map((t) => [t.id, [t.state, t.stage, t.wrong ?? 'ok']]));

test('a package with tests: good changes are merged, each bad one is stopped at its stage', async () => {
  const folder = makeWorkload('javascript');
  editManifest(folder, ({ scenarios, bad }) => {
    scenarios.short = {
      features: ['sum1', 'sum2', 'extra-4'],
      bad: ['bad-dropped', 'bad-loop', 'bad-context', 'bad-again'],
    };
    for (const one of bad) if (one.id === 'bad-loop') one.timeout_s = 0.4;
  });
  const replayed = await replay(folder, '--scenario', 'short');
  expect(replayed.stderr).toBe('');
  expect(endOf(replayed)).toEqual({
    sum1: ['done', null, 'ok'],
    sum2: ['done', null, 'ok'],
    'extra-4': ['done', null, 'ok'],
    'bad-dropped': ['escalated', 'verify', 'ok'],
    'bad-loop': ['escalated', 'verify_timeout', 'ok'],
    'bad-context': ['escalated', 'apply', 'ok'],
    'bad-again': ['escalated', 'apply', 'ok'],
  });
  expect(replayed.report).toMatchObject({ tree_ok: true, wrong: [], merges: 3, main_wrong: [] });
  expect(replayed.report?.tasks[0]?.evidence.result).toMatchObject({ exit: 0, fail: 0 });
  expect(replayed.exitCode).toBe(0);
  expect(replayed.left).toEqual([]);
});

test('data: as many attempts as the sequence has, and main is green at every commit', async () => {
  const folder = makeWorkload('data');
  const replayed = await replay(folder, '--scenario', 'retry', '--check-main');
  expect(replayed.report?.tasks.map(({ attempts }) => attempts)).toEqual([2, 3]);
  expect(replayed.report).toMatchObject({ tree_ok: true, wrong: [], merges: 2 });
  expect(replayed.exitCode).toBe(0);
});

test('data: of two from the same base one is merged, the other stopped by the conflict', async () => {
  const replayed = await replay(makeWorkload('data'), '--scenario', 'race', '--agents', '1');
  const states = Object.values(endOf(replayed)).map(([state]) => state);
  expect(states.sort()).toEqual(['done', 'escalated']);
  expect(replayed.report).toMatchObject({ agents: 2, tree_ok: true, wrong: [], merges: 1 });
});

test('data: without their dependencies changes are red until those are merged, and then done', async () => {
  const folder = makeWorkload('data');
  editManifest(folder, ({ scenarios }) => {
    scenarios.undeclared.features = scenarios.undeclared.features.slice(-4);
  });
  const replayed = await replay(folder, '--scenario', 'undeclared', '--agents', '1');
  expect(replayed.report).toMatchObject({ tree_ok: true, wrong: [], merges: 4 });
  expect(
    Math.max(...(replayed.report?.tasks ?? []).map(({ attempts }) => attempts)),
  ).toBeGreaterThan(1);
});

test('a bad change that is merged is named as wrong, and so is a tree that is not the promised one', async () => {
  const folder = makeWorkload('data');
  editManifest(folder, ({ scenarios, bad, features }) => {
    scenarios.short = { features: [features[0].id], bad: [bad[0].id] };
    bad[0].patch = features[2].patch;
    bad[0].depends_on = features[2].depends_on;
  });
  const replayed = await replay(folder, '--scenario', 'short');
  expect(replayed.report).toMatchObject({ tree_ok: false, wrong: ['bad-row'] });
  expect(replayed.exitCode).toBe(1);
});

test.each([
  {
    title: 'a bundle that is none',
    spoil: (folder: string) => writeFileSync(path.join(folder, 'base.bundle'), 'no bundle'),
    says: 'to be a git bundle with the branch main; it cannot be cloned',
    exits: 41,
  },
  {
    title: 'dependencies that are missing',
    spoil: (folder: string) =>
      writeFileSync(path.join(folder, 'verify.sh'), '#!/bin/sh\necho no packages\nexit 97\n'),
    says: 'its dependencies are missing here. It said: no packages',
    exits: 41,
  },
])('$title: one error, and nothing is left', async ({ spoil, says, exits }) => {
  const folder = makeWorkload('data');
  spoil(folder);
  const { exitCode, stderr, report, left } = await replay(folder);
  expect(stderr).toContain(says);
  expect(stderr.trim().split('\n')).toHaveLength(1);
  expect({ exitCode, report, left }).toEqual({ exitCode: exits, report: undefined, left: [] });
});

test('kill -9 in the middle leaves no process and no directory', async () => {
  const folder = makeWorkload('data');
  // Green for the start; then it hangs, and says where.
  const hanging = path.join(folder, 'hanging');
  writeFileSync(
    path.join(folder, 'verify.sh'),
    `#!/bin/sh
here=$(dirname "$0")
[ -e "$here/started" ] || { : > "$here/started"; exit 0; }
echo $$ > "$here/hanging.new" && mv "$here/hanging.new" "$here/hanging"
sleep 1000
`,
  );
  const directory = temporaryDirectory();
  const child = spawn(process.execPath, ['bench/replay.ts', folder, '--dir', directory], {
    cwd: REPOSITORY,
    stdio: 'ignore',
  });
  const exited = once(child, 'exit');
  await vi.waitFor(() => expect(existsSync(hanging)).toBe(true), { timeout: 100_000 });
  const group = Number(readFileSync(hanging, 'utf8'));
  expect(() => process.kill(group, 0)).not.toThrow();
  child.kill('SIGKILL');
  await exited;
  await vi.waitFor(
    () => {
      expect(() => process.kill(group, 0)).toThrow('ESRCH');
      expect(readdirSync(directory)).toEqual([]);
    },
    { timeout: 40_000 },
  );
});
