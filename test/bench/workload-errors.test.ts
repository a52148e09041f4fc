import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { readWorkload, requireScenario } from '../../bench/replay/manifest.ts';
import { REPOSITORY, runCommand } from '../tooling/run-command.ts';
import { editManifest, makeWorkload, temporaryDirectory } from './replay-fixture.ts';

const remove = (name: string) => (folder: string) => rmSync(path.join(folder, name));

// biome-ignore lint/suspicious/noExplicitAny: a manifest that is to be spoilt in every way
const edit = (change: (manifest: any) => void) => (folder: string) => editManifest(folder, change);

test.each([
  { title: 'no manifest', spoil: remove('manifest.json'), says: 'no such file', exits: 20 },
  {
    title: 'no JSON',
    spoil: (folder: string) => writeFileSync(path.join(folder, 'manifest.json'), '{'),
    says: 'expected a file with JSON',
    exits: 20,
  },
  {
    title: 'no tip',
    spoil: edit((manifest) => delete manifest.tip_tree),
    says: 'manifest.json: tip_tree: ',
    exits: 20,
  },
  {
    title: 'a number as a list',
    spoil: edit((manifest) => {
      manifest.features[2].depends_on = 3;
    }),
    says: 'manifest.json: features[2].depends_on: ',
    exits: 20,
  },
  {
    title: 'a patch that is missing',
    spoil: edit((manifest) => {
      manifest.features[1].patch = 'patches/none.patch';
    }),
    says: /features\[1\]\.patch: expected a file \(.*none\.patch\), got none there/,
    exits: 20,
  },
  {
    title: 'an attempt that is missing',
    spoil: edit((manifest) => {
      manifest.attempt_sequences[0].attempts[0] = 'attempts/none.patch';
    }),
    says: 'attempt_sequences[0].attempts[0]: expected a file',
    exits: 20,
  },
  {
    title: 'two of one id',
    spoil: edit((manifest) => {
      manifest.bad[0].id = manifest.features[0].id;
    }),
    says: 'bad[0].id: expected a unique id, got "change-0001"',
    exits: 20,
  },
  {
    title: 'a dependency that is not there',
    spoil: edit((manifest) => {
      manifest.features[3].depends_on = ['nobody'];
    }),
    says: 'features[3].depends_on[0]: expected the id of a change, got "nobody"',
    exits: 20,
  },
  {
    title: 'a cycle',
    spoil: edit((manifest) => {
      manifest.features[0].depends_on = ['change-0002'];
      manifest.features[1].depends_on = ['change-0001'];
    }),
    says: 'expected no cycle, got change-0001 → change-0002 → change-0001',
    exits: 20,
  },
  {
    title: 'a scenario of what is not there',
    spoil: edit((manifest) => {
      manifest.scenarios.mixed.bad = ['change-0001'];
    }),
    says: 'scenarios.mixed.bad[0]: expected the id of a bad change, got "change-0001"',
    exits: 20,
  },
  { title: 'no bundle', spoil: remove('base.bundle'), says: 'a git bundle at', exits: 41 },
  { title: 'no script', spoil: remove('verify.sh'), says: 'expected a script at', exits: 41 },
  {
    title: 'a script that cannot be run',
    spoil: (folder: string) => chmodSync(path.join(folder, 'verify.sh'), 0o644),
    says: 'to be executable; it is not. Run chmod +x on it',
    exits: 41,
  },
])('a workload with $title is refused', ({ spoil, says, exits }) => {
  const folder = makeWorkload('data');
  spoil(folder);
  let refusal: unknown;
  try {
    readWorkload(folder);
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toMatchObject({ exitCode: exits });
  expect((refusal as Error).message).toMatch(says);
  expect((refusal as Error).message).toContain(folder);
});

test('unknown keys, and whatever a scenario expects in its own words, are left alone', () => {
  const folder = makeWorkload('data');
  editManifest(folder, (manifest) => {
    manifest.made_by = { anything: [1] };
    manifest.scenarios.green.expect = { merged: 12 };
    manifest.features[0].author = null;
    delete manifest.name;
    delete manifest.attempt_sequences;
  });
  const { name, changes } = readWorkload(folder);
  expect(name).toBe('data');
  expect(changes.get('bad-context')?.bad?.expect).toEqual({
    state: 'not merged',
    stage: 'apply',
    outputContains: ['patch failed'],
  });
});

test('an unknown scenario is refused with the names of those there are', () => {
  const workload = readWorkload(makeWorkload('data'));
  expect(() => requireScenario(workload, 'purple')).toThrow(
    'got "purple". There are: green, mixed, mixed-policy, retry, race, undeclared.',
  );
});

test.each([
  { flags: [], says: 'Expected one folder, got 0. Usage: npm run replay', exits: 20 },
  {
    flags: ['x', '--agents', 'many'],
    says: 'Expected --agents to be 1 to 64, got many.',
    exits: 20,
  },
  { flags: ['/nowhere/at-all'], says: 'Expected the folder of a workload', exits: 20 },
])('the command refuses $flags in one line', async ({ flags, says, exits }) => {
  const { exitCode, stderr } = await runCommand(
    process.execPath,
    ['bench/replay.ts', ...flags, '--dir', temporaryDirectory()],
    { cwd: REPOSITORY },
  );
  expect(stderr).toContain(says);
  expect(stderr.trim().split('\n')).toHaveLength(1);
  expect(exitCode).toBe(exits);
});
