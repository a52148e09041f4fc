import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { LockConflictError } from '../../src/protocol/errors.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { firstOf } from '../extent.ts';
import { readHistory } from './history.ts';
import { checkInvariants } from './invariants.ts';
import { Life, scratch } from './life.ts';
import { paths, RUN, release } from './project.ts';
import { ProjectUnderTest } from './project-fixture.ts';
import type { WorkerOrders } from './workload.ts';
import { openWorld } from './world.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: 240_000 });

/* One test for each window between two things that belong together, with a real SIGKILL in it. */

/** How often the task's command was run. */
function commandsRun({ home }: ProjectUnderTest): number {
  return readHistory(paths(home).history).filter(({ op }) => op === 'command.begun').length;
}

/** How often somebody has begun to mend what was rejected. */
function fixesRun({ home }: ProjectUnderTest): number {
  return readHistory(paths(home).history).filter(({ op }) => op === 'fix.begun').length;
}

/** The state that the next life will find. */
function storedState({ home }: ProjectUnderTest, task: string): string | undefined {
  using world = openWorld({ storePath: paths(home).store, expect: { fired: 1 } });
  return world.tasks.find((row) => row.task === task)?.state;
}

function acceptances({ home, base, directory }: ProjectUnderTest): number {
  const { store } = paths(home);
  using world = openWorld({
    projectDirectory: directory,
    storePath: store,
    expect: { fired: 1, base },
  });
  const { artifacts = [] } = world.project ?? {};
  return artifacts.filter(({ content }) => content?.['verdict'] === 'accepted').length;
}

test('between the claim and the start of the work', async () => {
  using project = new ProjectUnderTest('solo');
  expect(await project.killed({ faults: 'workspace.before-clone:kill:1' })).toBe(true);
  expect(storedState(project, 'solo')).toBe('preparing');
  await project.checkMidway();
  await project.finish();
  expect(commandsRun(project)).toBe(1);
});

test('in the middle of the work: the command is gone, and the same attempt is made again', async () => {
  using project = new ProjectUnderTest('patient');
  const life = project.begin();
  await life.line('progress');
  const running = (): number[] => project.processes().map(({ pid }) => pid);
  life.kill();
  await life.death();
  project.kills++;
  const orphans = running();
  expect(orphans.length).toBeGreaterThanOrEqual(2); // the shell and its sleep: a kill alone ends neither
  await project.checkMidway();

  const next = project.begin();
  await next.line('open');
  expect(running().filter((pid) => orphans.includes(pid))).toEqual([]);
  release(project.home);
  await next.finished();
  await project.finish();
  const attempts = readHistory(paths(project.home).history).flatMap((fact) =>
    fact.op === 'command.begun' ? [fact.attempt] : [],
  );
  expect(attempts).toEqual([1, 1]);
});

test('the work is handed in and not recorded: it is done again and counted once', async () => {
  using project = new ProjectUnderTest('solo');
  expect(await project.killed({ faults: 'workspace.after-import:kill:1' })).toBe(true);
  expect(storedState(project, 'solo')).toBe('working');
  const first = project.git('rev-parse', `refs/troupe/attempts/${RUN}/solo/1`);
  await project.finish();
  expect(commandsRun(project)).toBe(2);
  const refs = project.git('for-each-ref', '--format=%(objectname)', 'refs/troupe/attempts/');
  expect(refs.split('\n')).toHaveLength(1);
  // The same work on the same base is the same tree, whoever has made the commit.
  expect(project.git('rev-parse', `${refs}^{tree}`)).toBe(
    project.git('rev-parse', `${first}^{tree}`),
  );
});

test('after the submission, before the verification: the work is not done again', async () => {
  using project = new ProjectUnderTest('solo');
  expect(await project.killed({ dieWhen: { task: 'solo', state: 'verifying' } })).toBe(true);
  expect(storedState(project, 'solo')).toBe('verifying');
  await project.checkMidway();
  await project.finish();
  expect(commandsRun(project)).toBe(1);
});

test.each(
  firstOf(1, [
    // Handed in by whoever mends it, and not recorded.
    { when: 'workspace.after-import:kill:2', fixes: [2, 2] },
    { when: 'fixing.preparing', fixes: [1, 1] },
    // The shell may have said already that it runs.
    { when: 'fixing.working', fixes: [1, 2] },
  ]),
)(
  'while it is mended ($when): it is mended in the same session, and main gets it once',
  async ({ when, fixes: [least = 0, most = 0] }) => {
    using project = new ProjectUnderTest('mended');
    const isState = when.startsWith('fixing');
    const orders = isState ? { dieWhen: { task: 'mended', state: when } } : { faults: when };
    expect(await project.killed(orders)).toBe(true);
    expect(storedState(project, 'mended')).toBe('fixing');
    expect(project.head()).toBe(project.base);
    await project.checkMidway();
    const { merges } = await project.finish();
    expect(merges).toBe(1);
    expect(fixesRun(project)).toBeGreaterThanOrEqual(least);
    expect(fixesRun(project)).toBeLessThanOrEqual(most);
    expect(project.git('show', 'main:mended.txt')).toBe('mended');
    using world = openWorld({ storePath: paths(project.home).store, expect: { fired: 1 } });
    const [attempt, ...more] = world.attempts.filter((row) => row.task === 'mended');
    expect(more).toEqual([]);
    expect(JSON.parse(attempt?.detailsJson ?? '{}')).toMatchObject({
      refused: { stage: 'verify' },
      fixes: [{ session: 1, iteration: 1, agent: 'scribe', outcome: 'accepted' }],
    });
  },
);

test('verified, and no artifact yet: main has not moved, and moves once', async () => {
  using project = new ProjectUnderTest('solo');
  expect(await project.killed({ faults: 'gate.verified-before-artifact:kill:1' })).toBe(true);
  expect(project.head()).toBe(project.base);
  expect(acceptances(project)).toBe(0);
  await project.checkMidway();
  const { merges } = await project.finish();
  expect(merges).toBe(1);
});

test('the artifact is written and the ref not moved: main moves once', async () => {
  using project = new ProjectUnderTest('solo');
  expect(await project.killed({ faults: 'gate.artifact-before-ref:kill:1' })).toBe(true);
  expect(project.head()).toBe(project.base);
  expect(acceptances(project)).toBe(1);
  await project.checkMidway();
  const { merges } = await project.finish();
  expect(merges).toBe(1);
});

test('the ref has moved and the working tree not followed: it follows, the user’s files stay', async () => {
  using project = new ProjectUnderTest('solo');
  expect(await project.killed({ faults: 'gate.ref-before-checkout:kill:1' })).toBe(true);
  const merged = project.head();
  expect(merged).not.toBe(project.base);
  expect(project.git('status', '--porcelain', '--untracked-files=no')).not.toBe('');
  await project.checkMidway();

  const life = project.begin();
  await life.line('open');
  expect(project.git('status', '--porcelain', '--untracked-files=no')).toBe('');
  expect(readFileSync(path.join(project.directory, 'solo.txt'), 'utf8')).toBe('solo\n');
  await life.finished();
  const { merges } = await project.finish();
  expect(merges).toBe(1);
  expect(project.head()).toBe(merged);
});

test.each(['gate.after-checkout:kill:1', 'effect.after-end:kill:4'])(
  'the ref has moved and nobody knows (%s): done without a second merge',
  async (faults) => {
    using project = new ProjectUnderTest('solo');
    expect(await project.killed({ faults })).toBe(true);
    const merged = project.head();
    expect(merged).not.toBe(project.base);
    expect(storedState(project, 'solo')).toBe('verifying');
    await project.checkMidway();
    await project.finish();
    expect(project.head()).toBe(merged);
    expect(commandsRun(project)).toBe(1);
  },
);

test('the ref has moved, and the process dies until the verification is given up: tried again, it finds the merge', async () => {
  using project = new ProjectUnderTest('unlucky');
  expect(await project.killed({ faults: 'gate.ref-before-checkout:kill:1' })).toBe(true);
  const merged = project.head();
  // The verification starts again in each life, and dies before it can say what it finds.
  for (let life = 1; life <= 2; life++) {
    expect(await project.killed({ faults: 'effect.after-end:kill:1' })).toBe(true);
    await project.checkMidway();
  }
  await project.finish({}, { retry: 'unlucky' });
  expect(project.head()).toBe(merged);
  using world = openWorld({ storePath: paths(project.home).store, expect: { fired: 1 } });
  expect(world.attempts.map(({ outcome }) => outcome)).toEqual(['accepted']);
});

test('during the cleanup, at each thing that is cleaned up', async () => {
  using project = new ProjectUnderTest('solo', 'good', 'chain-1');
  let killed = 0;
  // Each life removes less than the one before; the last one has nothing left to remove.
  for (let n = 1; await project.killed({ faults: `cleanup.deleted:kill:${n}` }); n++) {
    killed++;
    await project.checkMidway();
  }
  expect(killed).toBeGreaterThanOrEqual(2);
  const { merges } = await project.finish();
  expect(merges).toBe(3);
});

test('in the middle of writing a file: what is left of it is removed at the next start', async () => {
  using project = new ProjectUnderTest('good');
  expect(await project.killed({ faults: 'gate.artifact-before-ref:kill:1' })).toBe(true);
  const state = path.join(project.directory, '.troupe');
  const gatekeeper = path.join(state, 'tasks', RUN, 'good', 'gatekeeper');
  const trees = path.join(state, 'verified-trees');
  const [list = ''] = readdirSync(trees).filter((name) => name !== '.gitignore');
  const cutOff = [
    path.join(gatekeeper, `${readdirSync(gatekeeper)[0]}.123-0.tmp`),
    path.join(trees, list, 'x.json.123-1.tmp'),
    path.join(state, 'workspaces', '.cleanup-queue.json.123-2.tmp'),
  ];
  for (const file of cutOff) writeFileSync(file, '{');
  await project.finish();
  expect(cutOff.filter((file) => existsSync(file))).toEqual([]);
});

test('a claim that is stored and not answered, more often than an effect is started again', async () => {
  const orders = workerOrders({ tasks: 3 });
  // Of all effects of a life with everything ready, the claim is the first to end.
  for (let life = 1; life <= 6; life++) {
    const death = await new Life('worker', {
      ...orders,
      faults: 'effect.after-end:kill:1',
    }).death();
    expect(death).toBe('SIGKILL');
  }
  await new Life('worker', { ...orders }).finished();
  await checkInvariants({ storePath: orders.store, history: orders.history, expect: { fired: 6 } });
});

test('a task that kills the process each time is given up, and the others go on', async () => {
  const orders = workerOrders({ tasks: 12, poison: true, concurrency: 2 });
  let kills = 0;
  for (;;) {
    const death = await new Life('worker', { ...orders }).death();
    if (death === 0) break;
    expect(death).toBe('SIGKILL');
    expect(++kills).toBeLessThan(10);
  }
  expect(kills).toBe(3);
  await checkInvariants({
    storePath: orders.store,
    history: orders.history,
    expect: { fired: kills, tasks: { 'r1/t0': 'escalated' } },
  });
});

test('an agent’s command that kills the runtime each time is given up, and the others go on', async () => {
  using project = new ProjectUnderTest('poison', 'solo', 'good');
  while (await project.killed({})) expect(project.kills).toBeLessThan(10);
  expect(project.kills).toBe(3);
  await project.finish({ [`${RUN}/poison`]: 'escalated' });
});

test('a second opener is told who is first; the lock of a killed one is taken over', async () => {
  const orders = workerOrders({ tasks: 3, linger: true });
  const first = new Life('worker', { ...orders });
  await first.line('idle');
  const second = new Life('worker', { ...orders });
  expect(await second.death()).toBe(1);
  expect(second.stderr).toContain('LockConflictError');
  expect(second.stderr).toContain(`process ${first.pid} `);
  const here = openSqliteStore({ path: orders.store });
  await expect(here).rejects.toBeInstanceOf(LockConflictError);
  await expect(here).rejects.toMatchObject({ context: { pid: first.pid } });

  first.kill();
  expect(await first.death()).toBe('SIGKILL');
  await new Life('worker', { ...orders, linger: false }).finished();
  await checkInvariants({ storePath: orders.store, history: orders.history, expect: { fired: 1 } });
});

function workerOrders(orders: Omit<WorkerOrders, 'store' | 'history'>): WorkerOrders {
  const directory = scratch();
  return {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.jsonl'),
    ...orders,
  };
}
