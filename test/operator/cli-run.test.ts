import { closeSync, existsSync, openSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { processStartTime } from '../../src/runtime/process-identity.ts';
import { commit, git } from '../workspace/git-fixture.ts';
import {
  Cli,
  configure,
  isAlive,
  makeProject,
  merges,
  ONCE,
  open,
  troupe,
  troupeIn,
  troupeProcess,
  untilWritten,
  workedProject,
  writing,
} from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

// biome-ignore lint/suspicious/noControlCharactersInRegex: what must not be in what we print
const CONTROLS = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;

const ALL_WELL = [writing('one')];

/** One task that never succeeds, and one that does. */
const HOPELESS = [writing('wrong', { wrongUntil: 'never' }), writing('fine')];

describe('a backlog', () => {
  test('is worked off: verified, merged, shown, and nothing else is touched', async () => {
    const directory = makeProject([
      writing('one', {}, { title: 'Write one' }),
      { id: 'two', agent: 'patcher', patch: 'add.patch', dependsOn: ['one'] },
      writing('three'),
    ]);
    const { exitCode, stdout, stderr } = await troupeProcess(directory, 'run');
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(stdout).toContain('Run main: 3 tasks.');
    expect(stdout).toMatch(/^\d\d:\d\d:\d\d {2}one {2}◑ working {2}attempt 1, script$/m);
    expect(stdout).toMatch(/^\d\d:\d\d:\d\d {2}two {2}✓ done {2}merged as [0-9a-f]{10}$/m);
    expect(stdout).toMatch(/^Run main: done · 3 done · \d+s$/m);
    expect(stdout).not.toMatch(CONTROLS);
    expect(merges(directory).sort()).toEqual(['Write one', 'three', 'two']);
    expect(git(directory, 'status', '--porcelain')).toBe('');
    // The evidence that the summary names is there.
    const [, evidence = ''] = / {2}(\.troupe\/tasks\/main\/one\/\S+\.json)$/m.exec(stdout) ?? [];
    expect(JSON.parse(readFileSync(path.join(directory, evidence), 'utf8'))).toMatchObject({
      verdict: 'accepted',
    });
    expect(statSync(path.join(directory, '.troupe')).mode & 0o777).toBe(0o700);
    expect(existsSync(path.join(directory, '.troupe', 'control.sock'))).toBe(false);

    const again = await troupe(directory, 'run');
    expect(again).toMatchObject({ exitCode: 0, stderr: '' });
    expect(again.stdout).toContain('It had ended before, so nothing was done.');
    expect(merges(directory)).toHaveLength(3);

    const shown = await troupeProcess(directory, 'show', 'one');
    expect(shown).toMatchObject({ exitCode: 0, stderr: '' });
    expect(shown.stdout).toMatch(/^main\/one {2}✓ done {2}Write one$/m);
    expect(shown.stdout).toMatch(/^Attempt 1 {2}accepted/m);
    expect(shown.stdout).toMatch(/^ {2}test: exit 0/m);
    expect(shown.stdout).toMatch(/^\d+ checkpoints are stored\.$/m);

    expect(await troupeProcess(directory, 'export', '--out', 'all.json')).toMatchObject({
      exitCode: 0,
    });
    expect(JSON.parse(readFileSync(path.join(directory, 'all.json'), 'utf8'))).toMatchObject({
      version: 1,
      runs: [
        {
          id: 'main',
          state: 'done',
          tasks: [
            { id: 'one', state: 'done', history: [{ attempt: 1, outcome: 'accepted' }] },
            { id: 'two', dependsOn: ['one'] },
            { id: 'three' },
          ],
        },
      ],
    });
  });

  test('as JSON is one object on stdout, and the progress is on stderr; one that has changed is refused', async () => {
    const directory = makeProject([writing('one')]);
    const json = await troupeProcess(directory, 'run', '--json');
    expect(json.exitCode).toBe(0);
    expect(JSON.parse(json.stdout)).toMatchObject({
      runs: [{ run: 'main', state: 'done', tasks: [{ id: 'one', state: 'done', attempts: 1 }] }],
      interrupted: null,
      exitCode: 0,
    });
    expect(json.stderr).toContain('one  ✓ done');

    configure(directory, [writing('two'), writing('three')]);
    commit(directory, {}, 'another backlog');
    const { exitCode, stderr } = await troupe(directory, 'run');
    expect(exitCode).toBe(22);
    expect(stderr).toContain('The tasks in troupe.yaml are not those that run main was begun with');
    expect(stderr).toContain('troupe run --run main-2');
    expect(await troupe(directory, 'run', '--run', 'main-2')).toMatchObject({ exitCode: 0 });
    expect(merges(directory).sort()).toEqual(['another backlog', 'one', 'three', 'two']);
  });

  test('is not exported to where nothing can be written', async () => {
    const directory = await workedProject(ALL_WELL);
    for (const file of ['nowhere/all.json', 'src']) {
      const refused = await troupe(directory, 'export', '--out', file);
      expect(refused).toMatchObject({ exitCode: 13, stdout: '' });
      expect(refused.stderr).toMatch(
        /^troupe: Could not write .* \(E[A-Z]+\)\. Name a file in a directory that exists and may be written to\.\n$/,
      );
      expect(refused.stderr).toContain(path.join(directory, file));
    }
  });

  test('that is empty is a mistake', async () => {
    const directory = makeProject([]);
    expect(await troupe(directory, 'run')).toMatchObject({
      exitCode: 20,
      stdout: '',
      stderr: 'troupe: troupe.yaml has no tasks: there is nothing to run. Add some under tasks.\n',
    });
  });

  test('is worked off although nobody reads what it prints', async () => {
    const directory = makeProject([writing('one', { wait: 'gate' }), writing('two')]);
    const run = new Cli(directory, ['run']);
    await run.until(/one {2}◑ working/);
    run.child.stdout?.destroy();
    open(directory, 'gate');
    expect(await run.ended).toMatchObject({ exitCode: 0, stderr: '' });
    expect(merges(directory)).toHaveLength(2);
  });

  // Only Linux has a disk that is always full.
  test.runIf(existsSync('/dev/full'))(
    'is worked off although the disk of its output is full, and that is said',
    async () => {
      const directory = makeProject([writing('one'), writing('two')]);
      const full = openSync('/dev/full', 'w');
      onTestFinished(() => closeSync(full));
      const run = new Cli(directory, ['run'], {}, full);
      expect(await run.ended).toEqual({
        exitCode: 13,
        signal: null,
        stdout: '',
        stderr:
          'troupe: Could not write the output: ENOSPC: no space left on device, write. What was to be done is done; only what was to be shown of it is cut off. Make room, and look at it with "troupe status".\n',
      });
      expect(merges(directory)).toHaveLength(2);
    },
  );
});

describe('the environment', () => {
  test('without a home, without UTF-8 and with a strict umask all goes the same, in ASCII', async () => {
    const directory = makeProject([writing('one')]);
    const before = process.umask(0o077);
    const run = new Cli(directory, ['run'], { LANG: 'C', HOME: undefined, USER: undefined });
    process.umask(before);
    const { exitCode, stdout, stderr } = await run.ended;
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(stdout).toMatch(/^[\n\u0020-\u007e]*$/);
    expect(stdout).toMatch(/one {2}\+ done/);

    const colored = await troupeIn({ FORCE_COLOR: '1' }, directory, 'status');
    expect(colored.stdout).toContain('\u001b[32mdone\u001b[39m');
    expect(await troupeIn({ NO_COLOR: '1' }, directory, 'status', '--watch')).toMatchObject({
      exitCode: 0,
      stdout: expect.not.stringContaining('\u001b') as string,
    });
  });

  test('with a level for the log that there is not is said in words', async () => {
    const directory = makeProject([writing('one')]);
    const refused = await troupeIn({ TROUPE_LOG_LEVEL: 'verbose' }, directory, 'run');
    expect(refused).toMatchObject({
      exitCode: 41,
      stderr:
        'troupe: Expected TROUPE_LOG_LEVEL to be one of trace, debug, info, warn, error, fatal, silent, got "verbose".\n',
    });
    expect(await troupeIn({ TROUPE_LOG_LEVEL: '' }, directory, 'run')).toMatchObject({
      exitCode: 0,
    });
  });

  test('without git is said in words', async () => {
    const directory = makeProject([writing('one')]);
    const { exitCode, stderr } = await new Cli(directory, ['run'], { PATH: '/nonexistent' }).ended;
    expect(exitCode).toBe(41);
    expect(stderr).toMatch(/^troupe: .*git/);
    expect(stderr).not.toMatch(/ {4}at /);
  });
});

describe('a run that is blocked', () => {
  test('says what it waits for, and goes on when that was decided', async () => {
    const directory = makeProject([
      writing('fine'),
      writing('wrong', { wrongUntil: 'do it right' }),
      writing('after', {}, { dependsOn: ['wrong'] }),
    ]);
    const run = await troupe(directory, 'run');
    expect(run).toMatchObject({ exitCode: 30, stderr: '' });
    expect(run.stdout).toContain('troupe retry wrong --guidance "…"');
    expect(run.stdout).toMatch(/^Then go on: troupe resume$/m);
    expect(run.stdout).toMatch(/after\s+waiting\s+- {2}waits for wrong/);
    expect(run.stdout).not.toMatch(CONTROLS);
    expect(merges(directory)).toEqual(['fine']);

    const shown = await troupe(directory, 'show', 'main/wrong');
    expect(shown.stdout).toMatch(/^Attempt 2 {2}rejected \(verify\)/m);
    expect(shown.stdout).toMatch(/^ {4}\| .*expected src\/wrong\.js to work$/m);
    // What the test printed would have cleared the screen and written to the clipboard.
    expect(shown.stdout).not.toMatch(CONTROLS);

    expect(await troupe(directory, 'show', 'wrnog')).toMatchObject({
      exitCode: 21,
      stderr: 'troupe: There is no task wrnog here; did you mean wrong?\n',
    });
    expect(await troupeProcess(directory, 'approve', 'fine')).toMatchObject({
      exitCode: 22,
      stderr: 'troupe: Task fine is done and cannot be approved: that is final.\n',
    });
    const status = await troupeProcess(directory, 'status');
    expect(status).toMatchObject({ exitCode: 0, stderr: '' });
    expect(status.stdout).toContain('Nothing runs now. Go on: troupe resume');

    expect(await troupe(directory, 'retry', 'wrong', '--guidance', 'do it right')).toMatchObject({
      exitCode: 0,
      stdout: 'Task wrong is ready.\nNothing runs now. It goes on with: troupe resume\n',
    });
    expect(merges(directory)).toEqual(['fine']);

    const resumed = await troupeProcess(directory, 'resume');
    expect(resumed).toMatchObject({ exitCode: 0, stderr: '' });
    expect(resumed.stdout).toContain('Going on with run main: 1 of 3 tasks are done.');
    expect(merges(directory)).toEqual(['fine', 'wrong', 'after']);
    expect((await troupe(directory, 'show', 'wrong')).stdout).toMatch(/retry by cli: do it right/);
  });

  test('ends when it is cancelled', async () => {
    const directory = await workedProject(HOPELESS, 30, ONCE);
    expect(await troupeProcess(directory, 'cancel', '--run', '--reason', 'enough')).toMatchObject({
      exitCode: 0,
      stdout: 'Run main is cancelled.\n',
    });
    expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 22 });
    expect(await troupe(directory, 'resume')).toMatchObject({
      exitCode: 0,
      stdout: 'Every run has ended: there is nothing to go on with.\n',
    });
  });

  test('is decided by the policy as far as its rules go, each once', async () => {
    const directory = makeProject(
      [writing('taught', { wrongUntil: 'as we do' }), writing('hopeless', { wrongUntil: 'never' })],
      { overseer: { policy: [{ when: {}, decide: 'retry', guidance: 'as we do' }] } },
    );
    const run = await troupe(directory, 'run');
    expect(run.exitCode).toBe(30);
    expect(merges(directory)).toEqual(['taught']);
    const shown = (await troupe(directory, 'show', 'hopeless')).stdout;
    expect(shown.match(/retry by policy: as we do/g)).toHaveLength(1);
    expect(shown.match(/^Attempt /gm)).toHaveLength(4);
  });
});

describe('the limits and rules of troupe.yaml', () => {
  test('say how often a rule answers', async () => {
    const directory = makeProject([writing('hopeless', { wrongUntil: 'never' })], {
      limits: { attempts: 1 },
      overseer: { policy: [{ when: {}, decide: 'retry', guidance: 'as we do', times: 2 }] },
    });
    expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 30 });
    const shown = (await troupe(directory, 'show', 'hopeless')).stdout;
    expect(shown.match(/retry by policy: as we do/g)).toHaveLength(2);
    expect(shown.match(/^Attempt /gm)).toHaveLength(3);
  });

  test('say how long to wait after a fault of the infrastructure', async () => {
    const directory = makeProject([writing('one')], {
      // After setup nobody knows what there is to be.
      verify: [
        { name: 'setup', run: ['true'] },
        { name: 'test', run: ['no-such-tool'] },
      ],
      // With the wait between attempts at the work, or with the usual one, it would take too long.
      limits: {
        infrastructureAttempts: 5,
        backoff: { initial: '1h', max: '1h' },
        infrastructureBackoff: { initial: '10ms', factor: 1, max: '10ms' },
      },
    });
    const run = await troupe(directory, 'run');
    expect(run.exitCode).toBe(30);
    expect(run.stdout.match(/retrying {2}test \(no-such-tool\) needs a tool/g)).toHaveLength(4);
    expect(run.stdout).toContain('The infrastructure failed 5 times in a row');
  });
});

describe('while a run is active', () => {
  test('others can look on and give orders, and a second run is refused', async () => {
    const directory = makeProject(
      [
        writing('slow', { wait: 'gate' }),
        writing('wrong', { wrongUntil: 'do it right' }),
        writing('later', {}, { dependsOn: ['slow'] }),
      ],
      ONCE,
    );
    const run = new Cli(directory, ['run']);
    await run.until(/wrong {2}! escalated/);

    const second = await troupe(directory, 'run');
    expect(second).toMatchObject({ exitCode: 23, stdout: '' });
    expect(second.stderr).toContain(`is held by process ${run.child.pid}`);
    expect(second.stderr).toContain('troupe status --watch');

    const status = await troupe(directory, 'status', '--json');
    expect(JSON.parse(status.stdout)).toMatchObject({
      active: { pid: run.child.pid },
      runs: [{ state: 'running', tasks: [{ state: 'working' }, { state: 'escalated' }, {}] }],
    });

    const watch = new Cli(directory, ['status', '--watch']);
    await watch.until(/Process \d+ works on it/);
    expect(
      await troupeProcess(directory, 'retry', 'wrong', '--guidance', 'do it right'),
    ).toMatchObject({
      exitCode: 0,
      stdout: 'Task wrong is ready.\n',
    });
    await watch.until(/wrong {2}✓ done/);
    expect(await troupeProcess(directory, 'pause-task', 'slow')).toMatchObject({
      stdout: 'Task slow is working; it is paused when this attempt has ended.\n',
    });
    expect(await troupe(directory, 'cancel', 'later')).toMatchObject({ exitCode: 0 });
    expect(await troupe(directory, 'answer', 'slow', 'yes')).toMatchObject({ exitCode: 22 });
    for (const [argv, says] of [
      [
        ['cancel', '--run', '--reason', 'x'.repeat(40_000)],
        'reason to have at most 32000 characters, got 40000',
      ],
      [['signal', 'slow', 'x'.repeat(101)], 'name to have at most 100 characters, got 101'],
      [['enqueue', '1000001'], 'count to be at most 1000000, got 1000001'],
      [['retry', 'wrong', '--agent', ''], 'agent to be a text, got an empty one'],
    ] as const) {
      expect(await troupe(directory, ...argv)).toMatchObject({
        exitCode: 20,
        stderr: `troupe: Expected the ${says}.\n`,
      });
    }
    open(directory, 'gate');

    expect(await run.ended).toMatchObject({ exitCode: 22, stderr: '' });
    const watched = await watch.ended;
    expect(watched).toMatchObject({ exitCode: 0, stderr: '' });
    expect(watched.stdout).toMatch(/slow {2}✓ done/);
    expect(watched.stdout).toMatch(/Run main: done/);
  });

  test('who stops looking on is told that it goes on; as JSON that alone is said', async () => {
    const directory = makeProject([
      writing('slow', { wait: 'gate' }),
      writing('later', {}, { dependsOn: ['slow'] }),
    ]);
    const run = new Cli(directory, ['run']);
    await run.until(/slow {2}◑ working/);
    const watch = new Cli(directory, ['status', '--watch']);
    await watch.until(/works on it/);
    watch.child.kill('SIGINT');
    const { stdout } = await watch.ended;
    expect(stdout).not.toContain('Nothing runs now');
    expect(stdout).toMatch(/Run main: running[\s\S]*Process \d+ works on it\.\n$/);

    const json = new Cli(directory, ['status', '--watch', '--json']);
    await json.until(/works on it/);
    json.child.kill('SIGINT');
    expect(JSON.parse((await json.ended).stdout)).toMatchObject({ active: { pid: run.child.pid } });

    // A reader that has gone away is noticed when there is something to tell.
    const unread = new Cli(directory, ['status', '--watch']);
    await unread.until(/works on it/);
    unread.child.stdout?.destroy();
    expect(await troupe(directory, 'cancel', 'later')).toMatchObject({ exitCode: 0 });
    expect(await unread.ended).toMatchObject({ exitCode: 0, stderr: '' });
    expect(run.child.exitCode).toBeNull();
    open(directory, 'gate');
    await run.ended;
  });

  test('a deep project is reached as well', async () => {
    const directory = makeProject([writing('slow', { wait: 'gate' })]);
    const deep = path.join(directory, 'x'.repeat(100));
    const inner = makeProject([writing('slow', { wait: 'gate' })]);
    git(directory, 'clone', '-q', inner, deep);
    const run = new Cli(deep, ['run']);
    await run.until(/slow {2}◑ working/);
    expect(await troupe(deep, 'cancel', 'slow', '--reason', 'enough')).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/^Task slow is cancell/) as string,
    });
    expect(await run.ended).toMatchObject({ exitCode: 22 });
  });
});

describe('interrupted', () => {
  test('it lets the agents finish, and the next one does not repeat what was done', async () => {
    const directory = makeProject([
      writing('first'),
      writing('slow', { wait: 'gate', pid: 'pid' }, { dependsOn: ['first'] }),
      writing('later', {}, { dependsOn: ['slow'] }),
    ]);
    const run = new Cli(directory, ['run']);
    await run.until(/slow {2}◑ working/);
    run.child.kill('SIGINT');
    await run.until(/Stopping: what runs may finish within 30s/);
    expect(run.child.exitCode).toBeNull();
    open(directory, 'gate');
    const { exitCode, stdout, stderr } = await run.ended;
    expect({ exitCode, stderr }).toEqual({ exitCode: 130, stderr: '' });
    expect(stdout).toContain('Interrupted. Go on: troupe resume');

    const resumed = await troupe(directory, 'resume');
    expect(resumed).toMatchObject({ exitCode: 0, stderr: '' });
    expect(merges(directory)).toEqual(['first', 'slow', 'later']);
    const { runs } = JSON.parse((await troupe(directory, 'status', '--json')).stdout) as {
      runs: { tasks: { attempts: number }[] }[];
    };
    expect(runs[0]?.tasks.map(({ attempts }) => attempts)).toEqual([1, 1, 1]);
  });

  test.each([
    { signals: ['SIGINT', 'SIGINT'], exitCode: 130 },
    { signals: ['SIGTERM', 'SIGTERM'], exitCode: 143 },
    { signals: ['SIGHUP', 'SIGINT'], exitCode: 143 },
  ] as const)(
    'twice ($signals) it aborts, and no process is left',
    async ({ signals, exitCode }) => {
      const directory = makeProject([writing('slow', { wait: 'gate', pid: 'pid' })]);
      const run = new Cli(directory, ['run', '--grace', '1h']);
      await run.until(/slow {2}◑ working/);
      await untilWritten(directory, 'pid');
      run.child.kill(signals[0]);
      await run.until(/Stopping: what runs may finish within 1h00m/);
      run.child.kill(signals[1]);
      const ended = await run.ended;
      expect(ended).toMatchObject({ exitCode, stderr: '' });
      expect(ended.stdout).toContain('Aborting what runs.');
      expect(isAlive(directory, 'pid')).toBe(false);
      expect(merges(directory)).toEqual([]);
    },
  );

  test('a third time it ends at once, and the next one ends what was left', async () => {
    const directory = makeProject([writing('slow', { wait: 'gate', pid: 'pid', deaf: 'told' })]);
    const run = new Cli(directory, ['run', '--grace', '1h']);
    await run.until(/slow {2}◑ working/);
    await untilWritten(directory, 'pid');
    const agent = Number(readFileSync(path.join(directory, 'pid'), 'utf8'));
    run.child.kill('SIGINT');
    await run.until(/Stopping: what runs may finish/);
    run.child.kill('SIGINT');
    await run.until(/Aborting what runs\. Ctrl-C once more/);
    // The abort has come to the agent, which does not heed it: now it would be waited for.
    await untilWritten(directory, 'told');
    run.child.kill('SIGINT');
    const ended = await run.ended;
    expect(ended).toMatchObject({ exitCode: 130, signal: null });
    expect(ended.stderr).toContain('Ended at once. Nothing that was stored is lost');
    expect(ended.stdout).not.toContain('Interrupted. Go on');
    expect(processStartTime(agent)).toBeDefined();

    open(directory, 'gate');
    expect(await troupe(directory, 'resume')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(processStartTime(agent)).toBeUndefined();
    expect(merges(directory)).toEqual(['slow']);
  });

  test('the grace ends by itself', async () => {
    const directory = makeProject([writing('slow', { wait: 'gate', pid: 'pid' })]);
    const run = new Cli(directory, ['run', '--grace', '1ms', '--json']);
    await run.until(/slow {2}◑ working/);
    await untilWritten(directory, 'pid');
    run.child.kill('SIGTERM');
    const { exitCode, stdout } = await run.ended;
    expect(exitCode).toBe(143);
    expect(JSON.parse(stdout)).toMatchObject({ interrupted: 'SIGTERM', exitCode: 143 });
    expect(isAlive(directory, 'pid')).toBe(false);
  });
});

describe('killed', () => {
  test('the next one goes on, and takes over what was left', async () => {
    const directory = makeProject([
      writing('first'),
      writing('slow', { wait: 'gate', pid: 'pid' }),
    ]);
    const run = new Cli(directory, ['run']);
    await run.until(/first {2}✓ done/);
    await run.until(/slow {2}◑ working/);
    await untilWritten(directory, 'pid');
    run.child.kill('SIGKILL');
    await run.ended;
    // The socket and the lock are still there; an order has to find its way all the same.
    expect(existsSync(path.join(directory, '.troupe', 'control.sock'))).toBe(true);
    const paused = await troupeProcess(directory, 'answer', 'slow', 'yes');
    expect(paused).toMatchObject({ exitCode: 22 });
    expect(paused.stderr).toMatch(/^troupe: Task slow is \w+ and cannot be answered/);
    expect(isAlive(directory, 'pid')).toBe(false);
    expect(existsSync(path.join(directory, '.troupe', 'control.sock'))).toBe(false);
    // Whoever only gives an order sets no agent to work.
    const log = path.join(directory, '.troupe', 'logs', 'troupe.log');
    expect(readFileSync(log, 'utf8')).toContain('work waits for the agent');
    open(directory, 'gate');
    expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(merges(directory)).toEqual(['first', 'slow']);
  });
});

test('a task for an agent that is gone is not waited for', async () => {
  const directory = await workedProject(HOPELESS, 30, ONCE);
  const config = readFileSync(path.join(directory, 'troupe.yaml'), 'utf8');
  commit(directory, { 'troupe.yaml': config.replaceAll('"script"', '"scribe"') });
  const { exitCode, stderr } = await troupe(directory, 'resume');
  expect(exitCode).toBe(41);
  expect(stderr).toBe(
    'troupe: Task wrong of run main is for the agent script, which troupe.yaml does not have. Add it under agents, or cancel the task: troupe cancel main/wrong.\n',
  );
});
