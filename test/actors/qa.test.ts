import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Engine, FixOrder, RunSpec, Troupe } from '../../src/index.ts';
import { TroupeError, ValidationError } from '../../src/protocol/errors.ts';
import { SimulatedClock } from '../runtime/simulated-clock.ts';
import { commit, git, makeRepository, temporaryDirectory } from '../workspace/git-fixture.ts';
import { accepts, memoryDisk, reaches } from './open-troupe.ts';

const SOON = { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 };
const LIMITS = { attempts: 2, backoff: SOON, infrastructureBackoff: SOON };
/** Red while a file says so; what it says is the evidence. */
const VERIFY = 'if grep -rl red src; then cat src/*; exit 1; fi';

/** A project, an agent that does its task wrong at its first attempt, and one that mends it with a shell command. */
async function project(
  mend: string,
  more: { readonly writes?: string; readonly preflight?: boolean } = {},
) {
  const {
    writes = 'if [ $TROUPE_ATTEMPT = 1 ]; then echo red; else echo green; fi > src/a.txt',
    preflight = false,
  } = more;
  const directory = makeRepository({ 'src/main.txt': 'main\n' });
  const log = temporaryDirectory();
  const troupe = await memoryDisk().open({
    project: { directory, preflight, verify: [{ name: 'test', command: VERIFY }] },
  });
  const note = (who: string) => `cp "$TROUPE_TASK_FILE" '${log}/${who}'`;
  const at = { projectDirectory: directory };
  troupe.commandAgent('writer', { run: `${note('writer')}; ${writes}`, ...at });
  troupe.commandAgent('mender', { run: `${note('mender')}; ${mend}`, ...at });
  const taskFile = (who: string) =>
    JSON.parse(readFileSync(path.join(log, who), 'utf8')) as {
      feedback: string[];
      fix: FixOrder | null;
    };
  return { directory, troupe, taskFile };
}

/** Works until it is called off. */
const untilAborted: Engine = ({ signal }) =>
  new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  });

const start = async (troupe: Troupe, over: Partial<RunSpec> = {}) => {
  const spec: RunSpec = {
    ...{ id: 'r', limits: LIMITS, qa: { agent: 'mender' } },
    tasks: [{ id: 'a', agent: 'writer' }],
    ...over,
  };
  return await (await troupe.start(spec)).result();
};
const detailsOf = async (troupe: Troupe, task = 'a') =>
  (await troupe.task('r', task).attempts()).map(({ outcome, detailsJson }) => ({
    outcome,
    ...(JSON.parse(detailsJson) as {
      readonly refused?: { readonly stage: string; readonly artifact: string };
      readonly fixes?: readonly { readonly outcome: string; readonly artifact: string | null }[];
    }),
  }));

describe('on a project', () => {
  test('what is red is mended on the same branch by another command, and main gets both', async () => {
    const { directory, troupe, taskFile } = await project(
      'echo green > src/a.txt; echo b > src/b.txt',
    );
    const states: unknown[] = [];
    troupe.on('turn', ({ address, state }) => {
      if (address === 'task/r/a') states.push(state);
    });
    const { state, tasks } = await start(troupe);
    expect([state, tasks[0]]).toMatchObject(['done', { attempts: 1, agent: 'writer' }]);
    const from = states.indexOf('verifying');
    expect(states.slice(from)).toEqual([
      'verifying',
      { fixing: 'preparing' },
      { fixing: 'working' },
      'verifying',
      'done',
    ]);
    // It was told what is wrong, where that is seen, and to mend only that.
    expect(taskFile('writer').fix).toBeNull();
    const { fix, feedback } = taskFile('mender');
    expect(fix).toMatchObject({
      session: 1,
      iteration: 1,
      stage: 'verify',
      commands: [{ name: 'test', exitCode: 1 }],
    });
    expect(feedback.at(-1)).toBe(fix?.instruction);
    expect(fix?.instruction).toContain(`The evidence is in ${fix?.artifact}.`);
    expect(existsSync(path.join(directory, fix?.artifact ?? ''))).toBe(true);
    // On main is one change; on the branch, what was handed in first and what mends it.
    expect(git(directory, 'show', 'main:src/a.txt')).toBe('green');
    expect(git(directory, 'rev-list', '--count', '--first-parent', 'main')).toBe('2');
    expect(
      git(
        directory,
        'log',
        '--format=%s %(trailers:key=Troupe-Fix,separator=%x2C)',
        'main..troupe/r/a',
      ).split('\n'),
    ).toEqual(['a Troupe-Fix: session 1, iteration 1', 'a']);
    const refs = git(
      directory,
      'for-each-ref',
      '--format=%(refname:lstrip=5)',
      'refs/troupe/attempts/r/a',
    );
    expect(refs.split('\n')).toEqual(['1', '1-fix1']);
    const [attempt, ...rest] = await detailsOf(troupe);
    expect(rest).toEqual([]);
    expect(attempt).toMatchObject({
      outcome: 'accepted',
      refused: { stage: 'verify', artifact: fix?.artifact },
      fixes: [{ session: 1, iteration: 1, agent: 'mender', outcome: 'accepted', stage: null }],
    });
  });

  test('what it leaves red is its own to mend; then the task is done as without it', async () => {
    const { directory, troupe, taskFile } = await project(
      'echo "red $(cat src/a.txt)" > src/a.txt',
    );
    const { state, tasks } = await start(troupe, { limits: { ...LIMITS, sameError: 9 } });
    expect([state, tasks[0]?.attempts]).toEqual(['done', 2]);
    expect(git(directory, 'show', 'main:src/a.txt')).toBe('green');
    // It goes on from where it was itself.
    expect(taskFile('mender').fix).toMatchObject({ iteration: 2, number: 2 });
    expect(git(directory, 'show', 'refs/troupe/attempts/r/a/1-fix2:src/a.txt')).toBe('red red red');
    expect(await detailsOf(troupe)).toMatchObject([
      { outcome: 'rejected', fixes: [{ outcome: 'rejected' }, { outcome: 'rejected' }] },
      { outcome: 'accepted' },
    ]);
    const logs = path.join(directory, '.troupe', 'tasks', 'r', 'a');
    for (const file of ['agent-1.log', 'agent-1-fix1.log', 'agent-1-fix2.log', 'agent-2.log']) {
      expect(existsSync(path.join(logs, file)), file).toBe(true);
    }
  });

  test('with nobody who can, it ends as it did: escalated when its attempts are used up', async () => {
    const { troupe } = await project('exit 3', {
      writes: 'echo "red $TROUPE_ATTEMPT" > src/a.txt',
    });
    const { state, tasks } = await start(troupe);
    expect([state, tasks[0]?.state, tasks[0]?.attempts]).toEqual(['blocked', 'escalated', 2]);
    expect(tasks[0]?.reason).toMatch(/^All 2 attempts are used up/);
    for (const { outcome, fixes } of await detailsOf(troupe)) {
      expect([outcome, fixes]).toEqual([
        'rejected',
        [expect.objectContaining({ outcome: 'failed' })],
      ]);
    }
  });

  test.each([
    { what: 'changes nothing', mend: 'true' },
    { what: 'takes everything back', mend: 'rm src/a.txt' },
  ])('one that $what ends its session', async ({ mend }) => {
    const { troupe } = await project(mend);
    expect((await start(troupe)).state).toBe('done');
    const [first] = await detailsOf(troupe);
    expect(first?.fixes).toEqual([
      expect.objectContaining({
        ...{ iteration: 1, outcome: 'failed', stage: 'apply' },
        reason: 'The agent changed nothing of what was handed in.',
        artifact: expect.any(String),
      }),
    ]);
  });

  test('what it has committed is taken as of an attempt, also when main has moved on', async () => {
    const { directory, troupe } = await project(
      'echo green > src/a.txt; git -c user.name=m -c user.email=m@m commit -qam mended',
    );
    troupe.on('turn', ({ address, state }) => {
      if (address === 'task/r/a' && (state as { fixing?: string }).fixing === 'preparing') {
        commit(directory, { 'src/other.txt': 'other\n' });
      }
    });
    expect((await start(troupe)).state).toBe('done');
    expect(git(directory, 'log', '--format=%s', 'troupe/r/a', '-3').split('\n')).toEqual([
      'a',
      'mended',
      'a',
    ]);
    expect(git(directory, 'show', 'main:src/a.txt')).toBe('green');
    expect(git(directory, 'show', 'main:src/other.txt')).toBe('other');
  });

  test('what is red in the preflight is mended, too, and no gatekeeper has seen it', async () => {
    const { directory, troupe } = await project('echo green > src/a.txt', { preflight: true });
    const { state, tasks } = await start(troupe);
    expect([state, tasks[0]?.attempts]).toEqual(['done', 1]);
    expect(await detailsOf(troupe)).toMatchObject([
      { outcome: 'accepted', refused: { stage: 'verify' }, fixes: [{ outcome: 'accepted' }] },
    ]);
    expect(git(directory, 'show', 'main:src/a.txt')).toBe('green');
  });
});

describe('of work that is no code', () => {
  /** What each agent does, in turn; `null` from the last on. */
  async function open(agents: Readonly<Record<string, readonly (string | Error)[]>>) {
    const troupe = await memoryDisk().open();
    const asked: string[] = [];
    for (const [name, script] of Object.entries(agents)) {
      const left = [...script];
      troupe.agent(
        name,
        async ({ task, step, artifact, artifacts }) => {
          asked.push(
            `${name} ${task.attempt}${task.fix === null ? '' : ` fix ${task.fix.number}`}`,
          );
          await step('draft', () => name);
          await artifact('by', name);
          expect((await artifacts())['by']).toBe(name);
          const said = left.shift() ?? null;
          if (said instanceof Error) throw said;
          return said;
        },
        {
          compensate: {
            draft: ({ result }) => {
              asked.push(`takes back ${String(result)} (${name})`);
            },
          },
        },
      );
    }
    troupe.gatekeeper('editor', ({ submission: { result } }) =>
      result === null
        ? { accepted: true, evidence: ['read it'] }
        : { accepted: false, reason: `Not ${String(result)}.` },
    );
    return { troupe, asked };
  }
  const spec = (qa: RunSpec['qa']): Partial<RunSpec> => ({
    ...(qa === undefined ? {} : { qa }),
    tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }],
  });

  test('it is mended by whoever is named for the task, or by nobody', async () => {
    const { troupe, asked } = await open({ writer: ['bad'], mender: [], other: [] });
    await start(troupe, {
      ...spec({ agent: 'mender' }),
      tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor', qa: { agent: 'other' } }],
    });
    expect(asked).toEqual(['writer 1', 'other 1 fix 1']);
    const alone = await open({ writer: ['bad'], mender: [] });
    await start(alone.troupe, {
      ...spec({ agent: 'mender' }),
      tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor', qa: false }],
    });
    expect(alone.asked).toEqual(['writer 1', 'writer 2']);
  });

  test('the same result again is no change', async () => {
    const { troupe, asked } = await open({ writer: ['bad'], mender: ['bad'] });
    await start(troupe, spec({ agent: 'mender' }));
    expect(asked).toEqual(['writer 1', 'mender 1 fix 1', 'writer 2']);
  });

  test('a chain: whoever cannot work is passed over at once, with steps of its own for each', async () => {
    const away = new TroupeError('rate_limited', 'Too often.', { retryAfterMs: 3_600_000 });
    const { troupe, asked } = await open({ writer: ['bad'], mender: [away], other: [] });
    await start(troupe, spec({ agent: ['mender', 'other'] }));
    expect(asked).toEqual(['writer 1', 'mender 1 fix 1', 'other 1 fix 2']);
    const [{ fixes } = {}] = await detailsOf(troupe);
    expect(fixes).toMatchObject([
      {
        agent: 'other',
        outcome: 'accepted',
        insteadOf: [{ agent: 'mender', reason: 'Too often.' }],
      },
    ]);
  });

  test('cancelled meanwhile, everybody takes back what he has done, newest first', async () => {
    const { troupe, asked } = await open({ writer: ['bad'], mender: ['worse'] });
    const begun = Promise.withResolvers<void>();
    troupe.agent(
      'slow',
      async ({ step, signal }) => {
        await step('draft', () => 'slow');
        begun.resolve();
        await new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason as Error)),
        );
      },
      {
        compensate: {
          draft: () => {
            asked.push('takes back slow');
          },
        },
      },
    );
    const run = await troupe.start({
      ...{ id: 'r', limits: LIMITS, qa: { agent: 'slow' } },
      tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }],
    });
    await begun.promise;
    const status = await run.task('a').status();
    expect([status.state, status.agent, status.reason]).toEqual([
      'fixing',
      'slow',
      'QA session 1 of 3, iteration 1 of 2: Not bad.',
    ]);
    await run.task('a').cancel('enough');
    expect((await run.result()).tasks[0]?.state).toBe('cancelled');
    expect(asked).toEqual(['writer 1', 'takes back slow', 'takes back writer (writer)']);
    expect((await run.task('a').status()).cancellation?.compensated).toEqual([
      '1.fix1/draft',
      '1/draft',
    ]);
  });

  test('whoever is not registered any more after a restart is not waited for: its task goes on', async () => {
    const disk = memoryDisk();
    let asked = 0;
    const open = async (clock?: SimulatedClock) => {
      const troupe = await disk.open(clock === undefined ? {} : { clock });
      troupe.agent('writer', () => (++asked === 1 ? 'bad' : 'good'));
      troupe.gatekeeper('editor', ({ submission: { result } }) =>
        result === 'good'
          ? { accepted: true, evidence: ['read it'] }
          : { accepted: false, reason: 'Bad.' },
      );
      return troupe;
    };
    const first = await open();
    first.agent('mender', untilAborted);
    await first.start({
      ...{ id: 'r', limits: LIMITS, qa: { agent: 'mender' } },
      tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }],
    });
    await reaches(first, 'agent/mender', 'working');
    await first.stop();
    const clock = new SimulatedClock(Date.now());
    const second = await open(clock);
    const ended = second.run('r').result();
    let isOver = false;
    void ended.then(() => {
      isOver = true;
    });
    while (!isOver) {
      await new Promise((resolve) => setImmediate(resolve));
      clock.step(clock.now() + 60_000);
    }
    expect((await ended).state).toBe('done');
    const [attempt] = await detailsOf(second);
    expect(attempt?.fixes).toMatchObject([
      {
        outcome: 'infrastructure',
        reason: 'No agent "mender" was registered in 60000 ms.',
      },
    ]);
  });

  test('it survives a restart in the middle, and is rolled back and forked from there', async () => {
    const disk = memoryDisk();
    const open = async (mender: Engine) => {
      const troupe = await disk.open();
      troupe.agent('writer', () => 'bad');
      troupe.agent('mender', mender);
      troupe.gatekeeper('editor', ({ submission: { result } }) =>
        result === 'good'
          ? { accepted: true, evidence: ['read it'] }
          : { accepted: false, reason: 'Bad.' },
      );
      return troupe;
    };
    const first = await open(untilAborted);
    const run = await first.start({
      ...{ id: 'r', limits: LIMITS, qa: { agent: 'mender' } },
      tasks: [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }],
    });
    await reaches(first, 'agent/mender', 'working');
    await run.checkpoint({ label: 'mending' });
    await first.stop();
    let mended = 0;
    const second = await open(() => {
      mended++;
      return 'good';
    });
    expect((await second.run('r').result()).state).toBe('done');
    await second.run('r').rollback('mending');
    expect((await second.run('r').result()).state).toBe('done');
    const fork = await second.run('r').fork('mending', { id: 'f' });
    expect((await fork.result()).state).toBe('done');
    expect(mended).toBe(3);
    expect(await detailsOf(second)).toHaveLength(1);
  });

  test.each([
    {
      qa: { agent: 'mendre' },
      says: 'qa of run "r" to name a registered agent, got "mendre". Did you mean "mender"?',
    },
    { qa: { agent: [] }, says: 'got an empty list' },
    { qa: { agent: 'writer' }, says: 'for the stage qa, got "writer", whose stages are implement' },
    {
      qa: { agent: 'mender', sessions: 0 },
      says: 'expected sessions to be a positive integer of at most 10, got 0',
    },
    { qa: { agent: 'mender', iterations: 11 }, says: 'at most 10, got 11' },
    { qa: { agent: 'mender', rounds: 2 }, says: 'there is no setting "rounds"' },
    { qa: 'mender', says: 'expected an object with settings, got the text "mender"' },
    { qa: {}, says: 'to name a registered agent, got nothing' },
  ])('what cannot be is refused: $says', async ({ qa, says }) => {
    const troupe = await memoryDisk().open();
    troupe.agent('writer', () => null, { stages: ['implement'] });
    troupe.agent('mender', () => null);
    troupe.gatekeeper('editor', accepts);
    const started = start(troupe, spec(qa as never));
    await expect(started).rejects.toThrow(ValidationError);
    await expect(started).rejects.toThrow(says);
    expect(await troupe.runs()).toEqual([]);
  });
});

test('an agent that applies patches mends nothing', async () => {
  const troupe = await memoryDisk().open({
    project: { directory: makeRepository(), verify: [{ name: 'test', command: 'true' }] },
  });
  troupe.patchAgent('patcher');
  await expect(
    start(troupe, { qa: { agent: 'patcher' }, tasks: [{ id: 'a', agent: 'patcher' }] }),
  ).rejects.toThrow('for the stage qa, got "patcher", whose stages are implement');
  expect(() => troupe.patchAgent('other', { stages: ['qa'] })).toThrow(
    'to be a list of implement, got "qa"',
  );
});
