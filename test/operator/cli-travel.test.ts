import { describe, expect, test } from 'vitest';
import { git } from '../workspace/git-fixture.ts';
import {
  Cli,
  makeProject,
  merges,
  open,
  troupe,
  troupeProcess,
  untilWritten,
  workedProject,
  writing,
} from './cli-fixture.ts';

/** Two tasks, one after the other, that were both merged. */
const merged = () => workedProject([writing('one'), writing('two', {}, { dependsOn: ['one'] })]);

const chain = () =>
  makeProject([
    writing('one'),
    writing('two', { pid: 'two.pid', wait: 'gate' }, { dependsOn: ['one'] }),
  ]);

describe('a run with merged tasks', () => {
  test('is rolled back: what was merged stays, and is found to be', async () => {
    const directory = await merged();
    const before = merges(directory);
    expect(before).toEqual(['one', 'two']);

    const listed = await troupeProcess(directory, 'checkpoints', 'main');
    expect(listed.stdout).toMatch(
      /^[0-9a-f]{8} {2}\d\d:\d\d:\d\d {2}start {6}\n[0-9a-f]{8} {2}\d\d:\d\d:\d\d {2}milestone {2}done\n$/,
    );

    const dry = await troupe(directory, 'rollback', 'main', 'start', '--dry-run');
    expect(dry).toMatchObject({ exitCode: 0 });
    expect(dry.stdout).toMatch(
      /^Nothing was changed\. A rollback of run main to start would do this:\n {2}one: done → ready; its merge [0-9a-f]{10} stays\n {2}two: done → waiting.*; its merge [0-9a-f]{10} stays\n$/,
    );
    expect((await troupe(directory, 'status')).stdout).toContain('done');

    const rolled = await troupeProcess(directory, 'rollback', 'main', 'start');
    expect(rolled).toMatchObject({ exitCode: 0 });
    expect(rolled.stdout).toContain('Run main was rolled back to start. How it was is kept');
    expect(rolled.stdout).toContain('Nothing runs now. It goes on with: troupe resume');

    // Done again, from a target that has it already: found, accepted with the evidence of the first time, not doubled.
    const again = await troupe(directory, 'resume', '--json');
    expect(again).toMatchObject({ exitCode: 0 });
    const [report] = (
      JSON.parse(again.stdout) as { runs: { tasks: { state: string; attempts: number }[] }[] }
    ).runs;
    expect(report?.tasks.map(({ state, attempts }) => [state, attempts])).toEqual([
      ['done', 1],
      ['done', 1],
    ]);
    expect(merges(directory)).toEqual(before);
  });

  test('and a task whose merge was reverted is really done again', async () => {
    const directory = await merged();
    git(directory, 'revert', '--no-edit', 'HEAD');
    expect(await troupe(directory, 'rollback', 'main', 'start')).toMatchObject({ exitCode: 0 });
    expect(await troupe(directory, 'resume')).toMatchObject({ exitCode: 0 });
    expect(merges(directory)).toEqual(['one', 'two', 'Revert "two"', 'two']);
  }, 60_000);

  test('is rolled back and forked while it runs, over its socket', async () => {
    const directory = chain();
    const running = new Cli(directory, ['run']);
    await untilWritten(directory, 'two.pid');
    const kept = await troupe(
      directory,
      'checkpoints',
      'main',
      '--make',
      'two at work',
      '--notes',
      'before lunch',
      '--json',
    );
    expect(JSON.parse(kept.stdout)).toMatchObject({
      active: true,
      cut: { kind: 'manual', label: 'two at work', notes: 'before lunch', tasks: 2 },
    });
    // What is suggested can be typed as it is.
    const costly = await troupe(directory, 'checkpoints', 'main', '--make', 'costs $HOME');
    expect(costly.stdout).toContain("Back to it: troupe rollback main 'costs $HOME'\n");
    const rolled = await troupe(directory, 'rollback', 'main', 'two at work', '--json');
    expect(JSON.parse(rolled.stdout)).toMatchObject({
      active: true,
      moves: [
        { task: 'one', from: 'done', to: 'done', redoes: null, merged: null },
        { task: 'two', from: 'working', to: 'working', redoes: 1, merged: null },
      ],
    });
    const alone = await troupe(directory, 'rollback', 'two', '0');
    expect(alone).toMatchObject({ exitCode: 0 });
    const refused = await troupe(directory, 'rollback', 'one', '#0');
    expect(refused).toMatchObject({
      exitCode: 22,
      stderr: expect.stringContaining(
        'Task "one" cannot be rolled back by itself: it is done, and "two" depends on it.',
      ),
    });
    open(directory, 'gate');
    const { exitCode } = await running.ended;
    expect(exitCode).toBe(0);
    expect(merges(directory)).toEqual(['one', 'two']);
    const difference = await troupeProcess(directory, 'diff', 'main', 'start', 'last');
    expect(difference.stdout).toMatch(/task two\n {2}state: waiting → done\n/);
    const json = await troupe(directory, 'diff', 'two', '0', '1', '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({ address: 'task/main/two', from: 0, to: 1 });
  });

  test('is forked: the copy goes on by itself', async () => {
    const directory = makeProject([writing('one', {}, { staged: true }), writing('two')]);
    const first = await troupe(directory, 'run');
    expect(first.exitCode).toBe(30);
    const forked = await troupeProcess(directory, 'fork', 'main', 'last', '--as', 'other');
    expect(forked.stdout).toMatch(
      /^Run other begins as what main was at last:\n {2}one: .*\n {2}two: done\n/,
    );
    const status = await troupe(directory, 'status', 'other', '--json');
    expect(JSON.parse(status.stdout)).toMatchObject({ runs: [{ run: 'other' }] });
    const twice = await troupe(directory, 'fork', 'main', 'last', '--as', 'other');
    expect(twice).toMatchObject({
      exitCode: 22,
      stderr: 'troupe: There is a run "other" already. Choose another id for the fork.\n',
    });
  });
});

test('what cannot be is said, and what there is instead', async () => {
  const directory = await merged();
  for (const { args, exitCode, says } of [
    {
      args: ['rollback', 'main', 'nowhere'],
      exitCode: 21,
      says: /Run "main" has no cut "nowhere"\. Its cuts, newest first: [0-9a-f]{16} \(done\), [0-9a-f]{16} \(start\)\./,
    },
    {
      args: ['rollback', 'one', '99'],
      exitCode: 21,
      says: /task\/main\/one has no checkpoint "99": they go up to \d+, and labels are done \(#\d+\)\./,
    },
    { args: ['checkpoints', 'none'], exitCode: 21, says: /There is no task none here/ },
    {
      args: ['rollback', 'agent/script', '0'],
      exitCode: 20,
      says: /Expected a run or a task, got agent\/script\./,
    },
    {
      args: ['checkpoints', 'one', '--make', 'x'],
      exitCode: 20,
      says: /Expected a run to keep a moment of, got task one/,
    },
    { args: ['checkpoints', 'main', '--notes', 'x'], exitCode: 20, says: /--notes is for --make/ },
    { args: ['checkpoints', 'main', '--last', '0'], exitCode: 20, says: /a number of 1 or more/ },
    { args: ['fork', 'main', 'last'], exitCode: 20, says: /--as/ },
    {
      args: ['fork', 'main', 'last', '--as', 'a b'],
      exitCode: 20,
      says: /1 to 64 letters, digits/,
    },
    { args: ['diff', 'main', 'start', 'zzzz'], exitCode: 21, says: /has no cut "zzzz"/ },
  ]) {
    const ended = await troupe(directory, ...args);
    expect(ended.stderr, args.join(' ')).toMatch(says);
    expect(ended.exitCode, args.join(' ')).toBe(exitCode);
    expect(ended.stderr).not.toMatch(/ at .*\.ts/);
  }
  // An actor of our own roles is listed all the same.
  const listed = await troupe(directory, 'checkpoints', 'agent/script', '--last', '3');
  expect(listed.stdout.trim().split('\n')).toHaveLength(3);
  expect(listed.stdout).toMatch(/^#\d+ +[0-9a-f]{8} {2}/);
}, 60_000);
