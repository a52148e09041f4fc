import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { Engine } from '../../src/actors/engine.ts';
import type { TaskContext } from '../../src/machines/task-machine.ts';
import type { Address } from '../../src/protocol/address.ts';
import type { TaskInput, Troupe } from '../../src/troupe.ts';
import type { GateArtifact } from '../../src/workspace/gate-artifact.ts';
import { git, makeRepository, write } from '../workspace/git-fixture.ts';
import { memoryDisk, reaches } from './open-troupe.ts';

const SECRET = 's3cret-value-1';

/** What it does is decided by files in the tree, so that one project serves all tasks. */
const VERIFY = [
  { name: 'setup', command: 'true' },
  {
    name: 'test',
    command:
      'if [ -f red ]; then echo "$API_TOKEN"; yes wrong | head -c 20000; exit 1; fi; if [ -f slow ]; then exec sleep 94011; fi; if [ -f lost ]; then no-such-tool; fi',
    timeoutMs: 2_000,
  },
];

const LIMITS = { attempts: 1, infrastructureAttempts: 1 };

async function open(directory: string, more: object = {}): Promise<Troupe> {
  process.env['API_TOKEN'] = SECRET;
  const policy = { protectedPaths: ['ci/**'] };
  const environment = ['API_TOKEN'];
  return await memoryDisk().open({
    project: { directory, verify: VERIFY, policy, environment, ...more },
  });
}

const contextOf = async (troupe: Troupe, task: string, run = 'r'): Promise<TaskContext> => {
  const actor = await troupe.host.inspect(`task/${run}/${task}` as Address);
  return actor?.snapshot.context as unknown as TaskContext;
};

const writes =
  (files: Readonly<Record<string, string>>): Engine =>
  ({ workspace }) => {
    write(workspace?.directory ?? '', files);
    return null;
  };

interface Path {
  readonly task: string;
  readonly engine?: Engine;
  readonly verdict: GateArtifact['verdict'];
  readonly stage?: string;
  readonly says: string;
}

const PATHS: readonly Path[] = [
  { task: 'patch', verdict: 'rejected', stage: 'apply', says: 'The patch does not apply' },
  {
    task: 'empty',
    engine: () => null,
    verdict: 'rejected',
    stage: 'apply',
    says: 'changed nothing',
  },
  {
    task: 'markers',
    engine: writes({ 'readme.md': '<<<<<<< a\nx\n=======\ny\n>>>>>>> b\n' }),
    verdict: 'rejected',
    stage: 'policy',
    says: 'Conflicts are not resolved in "readme.md"',
  },
  {
    task: 'throws',
    engine: () => {
      throw new Error(`It broke: ${SECRET}`);
    },
    verdict: 'failed',
    says: 'It broke: [API_TOKEN]',
  },
  { task: 'tool', verdict: 'infrastructure', says: 'could not be started' },
  { task: 'late', verdict: 'failed', says: 'was not done after' },
  {
    task: 'red',
    engine: writes({ red: '' }),
    verdict: 'rejected',
    stage: 'verify',
    says: 'failed with exit code 1',
  },
  {
    task: 'slow',
    engine: writes({ slow: '' }),
    verdict: 'rejected',
    stage: 'verify_timeout',
    says: 'did not end within 2000 ms',
  },
  {
    task: 'lost',
    engine: writes({ lost: '' }),
    verdict: 'infrastructure',
    says: 'needs a tool that is not there',
  },
  {
    task: 'conflict',
    engine: ({ workspace, task }) => {
      // Somebody else is faster.
      const main = String((task.input as { project: string }).project);
      write(main, { 'readme.md': 'theirs\n' });
      git(main, 'commit', '-qam', 'theirs');
      write(workspace?.directory ?? '', { 'readme.md': 'ours\n' });
      return null;
    },
    verdict: 'rejected',
    stage: 'merge',
    says: 'conflicts with main in readme.md',
  },
  {
    task: 'protected',
    engine: writes({ 'ci/run.sh': 'exit 0\n' }),
    verdict: 'rejected',
    stage: 'policy',
    says: '"ci/run.sh" is protected (ci/**) and was modified.',
  },
];

test('every attempt that comes to nothing leaves an artifact, wherever it ends', async () => {
  const directory = makeRepository({ 'readme.md': 'hello\n', 'ci/run.sh': 'x\n' });
  const broken = path.join(directory, '..', 'broken.patch');
  write(path.dirname(broken), {
    'broken.patch': '--- a/readme.md\n+++ b/readme.md\n@@ -1 +1 @@\n-nothing like it\n+x\n',
  });
  const troupe = await open(directory);
  for (const { task, engine } of PATHS) if (engine !== undefined) troupe.agent(task, engine);
  troupe.patchAgent('patch');
  troupe.commandAgent('tool', { run: ['no-such-tool'], projectDirectory: directory });
  troupe.commandAgent(
    'late',
    { run: ['sleep', '94012'], projectDirectory: directory },
    { timeoutMs: 100 },
  );
  // One after the other: the conflict moves main.
  for (const { task, verdict, stage, says } of PATHS) {
    const given: TaskInput = {
      id: task,
      agent: task,
      input: task === 'patch' ? { patches: [broken] } : { project: directory },
      limits: LIMITS,
    };
    const run = await troupe.start({ id: task, tasks: [given] });
    await run.result();
    const context = await contextOf(troupe, task, task);
    const { last } = context;
    const file = path.join(directory, last?.evidence?.artifact ?? 'none');
    expect(existsSync(file), `${task}: ${JSON.stringify(last)}`).toBe(true);
    const text = readFileSync(file, 'utf8');
    const artifact = JSON.parse(text) as GateArtifact;
    expect(artifact).toMatchObject({
      run: task,
      task,
      attempt: 1,
      verdict,
      reason: expect.stringContaining(says),
    });
    expect([artifact.stage, last?.stage ?? undefined]).toEqual([stage, stage]);
    expect(text).not.toContain(SECRET);
    for (const { excerpt } of artifact.commands) expect(excerpt.length).toBeLessThanOrEqual(4000);
    expect(JSON.stringify(context)).not.toContain(SECRET);
  }
  expect(git(directory, 'log', '--format=%s', 'main')).toBe('theirs\nfirst');
});

test('the next attempt is told what the last one printed, in at most 4 000 characters', async () => {
  const directory = makeRepository();
  const troupe = await open(directory);
  const told: (readonly string[])[] = [];
  troupe.agent('writer', ({ task, workspace }) => {
    told.push(task.feedback);
    const place = workspace?.directory ?? '';
    write(place, { 'a.txt': 'a\n', ...(task.attempt === 1 ? { red: '' } : {}) });
    return null;
  });
  const limits = { attempts: 2, backoff: { initialMs: 1, maxMs: 1 } };
  const run = await troupe.start({ id: 'r', tasks: [{ id: 'one', agent: 'writer', limits }] });
  expect(await run.result()).toMatchObject({ state: 'done' });
  const [text = ''] = told[1] ?? [];
  expect(text).toMatch(/^test \([\s\S]* failed with exit code 1\.\n\[API_TOKEN\]\nwrong\n/);
  expect(text.length).toBeLessThanOrEqual(4000);
});

test('acceptance commands of a task come after the project’s own, and from the task', async () => {
  const directory = makeRepository();
  const troupe = await open(directory);
  troupe.agent('writer', ({ task, workspace }) => {
    write(workspace?.directory ?? '', { 'a.txt': `${task.attempt}\n`, 'accept.sh': 'exit 0\n' });
    return null;
  });
  const accept = [{ name: 'second try', command: 'grep 2 a.txt' }];
  const limits = { attempts: 2, backoff: { initialMs: 1, maxMs: 1 } };
  const tasks = [{ id: 'one', agent: 'writer', accept, limits }];
  const run = await troupe.start({ id: 'r', tasks });
  await run.result();
  const { last } = await contextOf(troupe, 'one');
  expect(last).toMatchObject({ attempt: 2, outcome: 'accepted' });
  expect(last?.evidence?.commands).toMatchObject([
    { name: 'setup' },
    { name: 'test' },
    { name: 'accept: second try', command: 'grep 2 a.txt', excerpt: '2' },
  ]);
  await expect(
    troupe.start({
      id: 's',
      tasks: [{ id: 'one', agent: 'writer', accept: [{ name: 'x', command: '' }] }],
    }),
  ).rejects.toThrow('expected a command for accept: x, got an empty one');
  await expect(
    troupe.start({ id: 's', tasks: [{ id: 'one', agent: 'writer', accept: 'x' as never }] }),
  ).rejects.toThrow('Expected accept of task "one" to be a list of commands');
  troupe.gatekeeper('editor', () => ({ accepted: true, evidence: ['read'] }));
  await expect(
    troupe.start({
      id: 's',
      tasks: [{ id: 'one', agent: 'writer', gatekeeper: 'editor', accept }],
    }),
  ).rejects.toThrow('which runs no commands');
});

test('what weakens the tests waits for a person, and what was approved is merged as it was', async () => {
  const directory = makeRepository({
    'a.txt': 'a\n',
    'a.test.js': "test('a', () => expect(1).toBe(1));\n",
  });
  const troupe = await open(directory);
  let done = 0;
  troupe.agent('writer', ({ workspace }) => {
    done++;
    rmSync(path.join(workspace?.directory ?? '', 'a.test.js'));
    return null;
  });
  const run = await troupe.start({ id: 'r', tasks: [{ id: 'one', agent: 'writer' }] });
  await reaches(troupe, 'task/r/one', 'awaitingApproval');
  const { last, result, reason } = await contextOf(troupe, 'one');
  expect(last).toMatchObject({
    stage: 'policy',
    evidence: { commands: [{ exitCode: 0 }, { exitCode: 0 }] },
  });
  expect(reason).toBe('Approval is needed: The test "a.test.js" is deleted.');
  expect(git(directory, 'log', '--format=%s', 'main')).toBe('first');
  await troupe.task('r', 'one').decide('approve');
  expect(await run.result()).toMatchObject({ state: 'done' });
  expect(done).toBe(1);
  const { commit } = result as unknown as { commit: string };
  expect(git(directory, 'rev-parse', 'main^{tree}')).toBe(
    git(directory, 'rev-parse', `${commit}^{tree}`),
  );
});

test.each(['workspaces', 'processes'])(
  'a file in place of %s is named, with what is needed',
  async (name) => {
    const directory = makeRepository();
    write(directory, { [`.troupe/${name}`]: 'mine' });
    await expect(open(directory)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(
        `Could not keep files in .*${name}: EEXIST.* needs a directory`,
      ),
    });
    expect(readFileSync(path.join(directory, '.troupe', name), 'utf8')).toBe('mine');
  },
);
