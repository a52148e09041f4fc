import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { Engine } from '../../src/actors/engine.ts';
import { composeTroupe, runSpecOf } from '../../src/operator/compose.ts';
import { loadConfig } from '../../src/operator/config.ts';
import type { GateArtifact } from '../../src/workspace/gate-artifact.ts';
import { git, makeRepository, temporaryDirectory, write } from '../workspace/git-fixture.ts';
import { memoryDisk } from './open-troupe.ts';

const LIMITS = { attempts: 2, backoff: { initialMs: 1, maxMs: 1 } };

/** Runs one task, and says where the commands were run: in the agent's place, or in the gatekeeper's. */
async function run(engine: Engine, { preflight = true, then = 'exit 0', timeoutMs = 60_000 } = {}) {
  const directory = makeRepository();
  const log = path.join(temporaryDirectory(), 'places');
  writeFileSync(log, '');
  const place = 'case "$PWD" in */verify/*) where=gate;; *) where=agent;; esac';
  const command = `${place}; echo $where >> '${log}'; echo litter > litter.txt; ${then}`;
  const troupe = await memoryDisk().open({
    project: { directory, preflight, verify: [{ name: 'test', command, timeoutMs }] },
  });
  troupe.agent('writer', engine);
  const started = await troupe.start({
    id: 'r',
    tasks: [{ id: 'one', agent: 'writer', limits: LIMITS }],
  });
  const { state } = await started.result();
  const attempts = (await started.task('one').attempts()).map((row) => ({
    outcome: row.outcome,
    ...(JSON.parse(row.detailsJson) as {
      readonly stage: string | null;
      readonly evidence: { readonly artifact: string } | null;
    }),
  }));
  const artifactOf = (at: number) => {
    const file = path.join(directory, attempts[at]?.evidence?.artifact ?? 'none');
    return JSON.parse(readFileSync(file, 'utf8')) as GateArtifact;
  };
  const places = readFileSync(log, 'utf8').trim().split('\n');
  return { directory, state, attempts, artifactOf, places };
}

const writes =
  (told: (readonly string[])[] = []): Engine =>
  ({ task, workspace }) => {
    told.push(task.feedback);
    write(workspace?.directory ?? '', { 'a.txt': task.attempt === 1 ? 'red\n' : 'green\n' });
    return null;
  };

test('what is red where the agent has worked is sent back, and no gatekeeper is asked', async () => {
  const told: (readonly string[])[] = [];
  const then = 'if grep red a.txt; then echo "a.txt must be green"; exit 3; fi';
  const { directory, state, attempts, artifactOf, places } = await run(writes(told), { then });
  expect(state).toBe('done');
  expect(places).toEqual(['agent', 'agent', 'gate']);
  expect(attempts.map(({ outcome, stage }) => [outcome, stage])).toEqual([
    ['failed', 'verify'],
    ['accepted', null],
  ]);
  expect(told[1]?.[0]).toMatch(
    /^test \([\s\S]* failed with exit code 3\.\nred\na\.txt must be green/,
  );
  expect(artifactOf(0)).toMatchObject({
    verdict: 'rejected',
    stage: 'verify',
    commands: [{ name: 'test', exitCode: 3, excerpt: 'red\na.txt must be green' }],
  });
  // What the commands write is no part of the change.
  expect(git(directory, 'ls-tree', '--name-only', 'main').split('\n')).not.toContain('litter.txt');
});

test('one that does not end is sent back as well', async () => {
  const then = 'grep -q green a.txt || exec sleep 94013';
  const { state, attempts, places } = await run(writes(), { then, timeoutMs: 3_000 });
  expect([state, places]).toEqual(['done', ['agent', 'agent', 'gate']]);
  expect(attempts[0]).toMatchObject({ outcome: 'failed', stage: 'verify_timeout' });
});

test('what the machine is to blame for there is for the gatekeeper to find', async () => {
  const then = 'if [ $where = agent ]; then no-such-tool; fi';
  const { state, attempts, places } = await run(writes(), { then });
  expect([state, attempts.length, places]).toEqual(['done', 1, ['agent', 'gate']]);
});

test('without it only the gatekeeper runs the commands', async () => {
  const then = '! grep red a.txt';
  const { attempts, places } = await run(writes(), { then, preflight: false });
  expect(places).toEqual(['gate', 'gate']);
  expect(attempts[0]).toMatchObject({ outcome: 'rejected', stage: 'verify' });
});

test('troupe.yaml has it too', async () => {
  const directory = makeRepository();
  const log = path.join(temporaryDirectory(), 'places');
  write(directory, {
    'troupe.yaml': `version: 1
preflight: true
verify: [{ name: test, run: "pwd >> '${log}'" }]
agents: { writer: { engine: command, run: "echo x > x.txt" } }
tasks: [{ id: one, agent: writer }]
`,
  });
  git(directory, 'add', '.');
  git(directory, 'commit', '-qm', 'settings');
  const config = await loadConfig(path.join(directory, 'troupe.yaml'));
  const { troupe } = await composeTroupe(config);
  try {
    const { state } = await (await troupe.start(runSpecOf(config, 'main'))).result();
    expect(state).toBe('done');
    const [first, second, ...more] = readFileSync(log, 'utf8').trim().split('\n');
    expect([first?.includes('/workspaces/'), second?.includes('/verify/'), more]).toEqual([
      true,
      true,
      [],
    ]);
  } finally {
    await troupe.stop();
  }
});
