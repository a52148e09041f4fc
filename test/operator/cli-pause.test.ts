import { describe, expect, test, vi } from 'vitest';
import { commit } from '../workspace/git-fixture.ts';
import {
  Cli,
  configure,
  makeProject,
  merges,
  ONCE,
  open,
  troupe,
  troupeProcess,
  untilWritten,
  workedProject,
  writing,
} from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

/** One task that waits until it is let go on, and one that has to come after it. */
const TASKS = [
  writing('slow', { wait: 'gate', pid: 'pid' }),
  writing('later', {}, { dependsOn: ['slow'] }),
];
const STAYS =
  'Run main stays paused: what was begun goes on to an end, nothing new starts. To let it go on: troupe resume main';
const UNTIL = 'Paused by cli. Nothing new starts until: troupe resume main';

async function begun(): Promise<{ directory: string; run: Cli }> {
  const directory = makeProject(TASKS);
  const run = new Cli(directory, ['run']);
  await run.until(/slow {2}◑ working/);
  await untilWritten(directory, 'pid');
  return { directory, run };
}

const standing = async (directory: string): Promise<unknown> =>
  JSON.parse((await troupe(directory, 'status', '--json')).stdout);

describe('a run that is worked on', () => {
  test('is paused and resumed from another terminal', async () => {
    const { directory, run } = await begun();
    expect(await troupeProcess(directory, 'pause')).toEqual({
      exitCode: 0,
      signal: null,
      stdout:
        'Run main is paused. Nothing new starts until: troupe resume main\nBegun already, and going on to an end: slow.\n',
      stderr: '',
    });
    await run.until(/run main {2}paused {2}Paused by cli\./);
    expect(await standing(directory)).toMatchObject({
      active: { pid: run.child.pid },
      runs: [{ state: 'paused', resume: 'troupe resume main' }],
    });
    expect((await troupe(directory, 'status')).stdout).toContain(`\n${UNTIL}\n`);
    expect(await troupe(directory, 'pause', 'main')).toMatchObject({
      exitCode: 22,
      stderr: 'troupe: Run main is paused: there is nothing to pause.\n',
    });
    expect(await troupeProcess(directory, 'resume')).toMatchObject({
      exitCode: 0,
      stdout: 'Run main goes on.\n',
      stderr: '',
    });
    expect(await standing(directory)).toMatchObject({ runs: [{ state: 'running', resume: null }] });
    // It is not paused any more: whoever works on it is named, as ever.
    const again = await troupe(directory, 'resume', 'main');
    expect(again.exitCode).toBe(23);
    expect(again.stderr).toContain(`is held by process ${run.child.pid}`);
    open(directory, 'gate');
    expect(await run.ended).toMatchObject({ exitCode: 0, stderr: '' });
    expect(merges(directory)).toEqual(['slow', 'later']);
  });

  test('ends when what was begun has ended, and says how to go on', async () => {
    const { directory, run } = await begun();
    const paused = await troupe(directory, 'pause', 'main', '--json');
    expect(JSON.parse(paused.stdout)).toMatchObject({
      run: { id: 'main', state: 'paused' },
      active: true,
    });
    open(directory, 'gate');
    const { exitCode, stdout, stderr } = await run.ended;
    expect({ exitCode, stderr }).toEqual({ exitCode: 30, stderr: '' });
    expect(stdout).toMatch(/^Run main: paused/m);
    expect(stdout).toContain(`\n${UNTIL}\n`);
    expect(merges(directory)).toEqual(['slow']);
  });
});

describe('a run that was paused and killed', () => {
  test('stays paused when it is run again, until resume says otherwise', async () => {
    const { directory, run } = await begun();
    expect(await troupe(directory, 'pause')).toMatchObject({ exitCode: 0 });
    run.child.kill('SIGKILL');
    await run.ended;
    open(directory, 'gate');

    const again = await troupe(directory, 'run');
    expect(again).toMatchObject({ exitCode: 30, stderr: '' });
    expect(again.stdout).toContain(`${STAYS}\n`);
    expect(again.stdout).toContain(`\n${UNTIL}\n`);
    // What had been begun went on to its end; what had not did not begin.
    expect(merges(directory)).toEqual(['slow']);

    const resumed = await troupe(directory, 'resume');
    expect(resumed).toMatchObject({ exitCode: 0, stderr: '' });
    expect(resumed.stdout).not.toContain('paused');
    expect(merges(directory)).toEqual(['slow', 'later']);
  });

  test('can also be paused while nobody works on it', async () => {
    const { directory, run } = await begun();
    run.child.kill('SIGKILL');
    await run.ended;
    open(directory, 'gate');
    expect(await troupe(directory, 'pause')).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('Nothing new starts until: troupe resume main') as string,
      stderr: '',
    });
    expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 30 });
    expect(merges(directory)).toEqual(['slow']);
    expect(await troupe(directory, 'resume', 'main')).toMatchObject({ exitCode: 0 });
    expect(merges(directory)).toEqual(['slow', 'later']);
  });
});

test('of several runs only the one that is named goes on after its pause', async () => {
  const directory = await workedProject([writing('wrong', { wrongUntil: 'never' })], 30, ONCE);
  configure(directory, [writing('other', { wrongUntil: 'never' })], ONCE);
  commit(directory, {}, 'another backlog');
  expect(await troupe(directory, 'run', '--run', 'docs')).toMatchObject({ exitCode: 30 });
  expect(await troupe(directory, 'pause')).toMatchObject({
    exitCode: 20,
    stderr: 'troupe: There are several runs: main, docs. Name one.\n',
  });
  expect(await troupe(directory, 'pause', 'main')).toMatchObject({
    exitCode: 0,
    stdout: 'Run main is paused. Nothing new starts until: troupe resume main\n',
  });

  const all = await troupe(directory, 'resume');
  expect(all).toMatchObject({ exitCode: 30, stderr: '' });
  expect(all.stdout).toContain(`${STAYS}\n`);
  expect(await standing(directory)).toMatchObject({
    runs: [
      { run: 'main', state: 'paused' },
      { run: 'docs', state: 'blocked' },
    ],
  });

  const named = await troupe(directory, 'resume', 'main');
  expect(named).toMatchObject({ exitCode: 30, stderr: '' });
  expect(named.stdout).not.toContain('stays paused');
  expect(named.stdout).not.toContain('Run docs');
  expect(await standing(directory)).toMatchObject({
    runs: [{ state: 'blocked' }, { state: 'blocked' }],
  });
});

test.each([
  { argv: ['pause', 'wrong'], says: 'There is no run wrong, but a task: troupe pause-task wrong' },
  {
    argv: ['resume', 'wrong'],
    says: 'There is no run wrong, but a task: troupe resume-task wrong',
  },
  { argv: ['pause', 'mian'], says: 'There is no run mian; did you mean main?' },
  { argv: ['resume', 'mian'], says: 'There is no run mian; did you mean main?' },
])('troupe $argv: $says', async ({ argv, says }) => {
  const directory = await workedProject([writing('wrong', { wrongUntil: 'never' })], 30, ONCE);
  expect(await troupe(directory, ...argv)).toMatchObject({
    exitCode: 21,
    stdout: '',
    stderr: `troupe: ${says}\n`,
  });
});
