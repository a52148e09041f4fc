import { describe, expect, onTestFinished, test } from 'vitest';
import { createTroupe, type Engine, type TaskInput, type Troupe } from '../../src/index.ts';
import { type Order, performOrder } from '../../src/operator/orders.ts';

const FAST = { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 };

/** A runtime in memory with a run `main` that has come to rest. */
async function atRest(
  engine: Engine,
  tasks: readonly Partial<TaskInput>[],
  verdict: 'accept' | 'reject' | 'ask' = 'accept',
): Promise<Troupe> {
  const troupe = await createTroupe({ store: ':memory:' });
  onTestFinished(() => troupe.stop());
  troupe.agent('writer', engine);
  troupe.agent('editor', () => 'by the editor');
  troupe.gatekeeper('gate', ({ submission }) => {
    if (submission.result === 'by the editor') return { accepted: true, evidence: ['read it'] };
    if (verdict === 'accept') return { accepted: true, evidence: ['read it'] };
    if (verdict === 'ask') return { needsApproval: ['it touches CI'], evidence: ['read it'] };
    return { accepted: false, reason: 'It is wrong.' };
  });
  const run = await troupe.start({
    id: 'main',
    limits: { attempts: 5, sameError: 2, sameChange: 2, sameFeedback: 9, backoff: FAST },
    tasks: tasks.map((task, index) => ({
      ...{ id: `t${index}`, agent: 'writer', gatekeeper: 'gate' },
      ...task,
    })),
  });
  await run.result();
  return troupe;
}

const untilState = (troupe: Troupe, address: string, wanted: string) =>
  new Promise<void>((resolve) => {
    troupe.on('turn', (turn) => {
      if (turn.address === address && turn.state === wanted) resolve();
    });
  });

const give = (troupe: Troupe, order: Order) =>
  performOrder(order, { troupe, agents: ['writer', 'editor'], by: 'cli' });

const one = { run: 'main', task: 't0' };

const asks: Engine = async ({ ask }) => ({
  stage: await ask({ id: 'stage', text: 'Which stage?', choices: ['test', 'live'] }),
});

describe('answer', () => {
  test('gives the agent what it asked for', async () => {
    const troupe = await atRest(asks, [{}]);
    const { tasks } = await give(troupe, { order: 'answer', ...one, text: ' live ' });
    expect(tasks).toEqual([{ ...one, state: 'working' }]);
    expect(await troupe.run('main').result()).toMatchObject({ state: 'done' });
  });

  test.each([
    {
      what: 'nothing',
      text: '  ',
      says: 'Expected an answer to "Which stage?", got an empty text.',
    },
    {
      what: 'no choice',
      text: 'lvie',
      says: 'Expected one of test, live as the answer to "Which stage?", got "lvie". Did you mean live?',
    },
  ])('of $what is refused and the task goes on waiting', async ({ text, says }) => {
    const troupe = await atRest(asks, [{}]);
    await expect(give(troupe, { order: 'answer', ...one, text })).rejects.toMatchObject({
      ...{ code: 'validation', message: says },
    });
    expect(await troupe.task('main', 't0').status()).toMatchObject({ state: 'awaitingInput' });
  });

  test('is the choice that is meant, also of one with blanks at its ends', async () => {
    const troupe = await atRest(
      async ({ ask }) => ({
        stage: await ask({ id: 'stage', text: 'Which stage?', choices: [' test', 'live '] }),
      }),
      [{}],
    );
    await give(troupe, { order: 'answer', ...one, text: 'live' });
    expect(await troupe.run('main').result()).toMatchObject({ state: 'done' });
  });

  test('to another question than the one that is asked is refused', async () => {
    const troupe = await atRest(asks, [{}]);
    const order: Order = { order: 'answer', ...one, text: 'live', question: 'region' };
    await expect(give(troupe, order)).rejects.toMatchObject({
      code: 'conflict',
      message: 'Task t0 does not ask the question region now, but stage: Which stage?',
    });
  });

  test('of two at once: one is taken, the other refused', async () => {
    const troupe = await atRest(asks, [{}]);
    const answers = await Promise.allSettled([
      give(troupe, { order: 'answer', ...one, text: 'live' }),
      give(troupe, { order: 'answer', ...one, text: 'test' }),
    ]);
    expect(answers.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });

  test('to a task that asks nothing is refused, with its state', async () => {
    const troupe = await atRest(() => 'text', [{}]);
    await expect(give(troupe, { order: 'answer', ...one, text: 'x' })).rejects.toMatchObject({
      code: 'conflict',
      message: 'Task t0 is done and cannot be answered: that is final.',
    });
  });
});

describe('approve', () => {
  test('lets the work through', async () => {
    const troupe = await atRest(() => 'text', [{}], 'ask');
    await give(troupe, { order: 'approve', ...one });
    expect(await troupe.run('main').result()).toMatchObject({ state: 'done' });
  });

  test('is not for a task that is blocked', async () => {
    const troupe = await atRest(() => 'text', [{}], 'reject');
    expect(await troupe.task('main', 't0').status()).toMatchObject({ state: 'blocked' });
    await expect(give(troupe, { order: 'approve', ...one })).rejects.toMatchObject({
      code: 'conflict',
      message:
        'Task t0 is blocked and cannot be approved: only a task that is awaitingApproval or escalated can be.',
    });
  });
});

describe('retry', () => {
  test('with another agent hands the task over', async () => {
    const troupe = await atRest(() => 'text', [{}], 'reject');
    await give(troupe, { order: 'retry', ...one, agent: 'editor' });
    expect(await troupe.run('main').result()).toMatchObject({
      state: 'done',
      tasks: [{ agent: 'editor', attempts: 3 }],
    });
  });

  test('with guidance tells it to the agent', async () => {
    const told: (readonly string[])[] = [];
    const troupe = await atRest(
      ({ task }) => {
        told.push(task.guidance);
        return 'text';
      },
      [{}],
      'reject',
    );
    await give(troupe, { order: 'retry', ...one, guidance: 'keep it short' });
    await troupe.run('main').result();
    expect(told.at(-1)).toEqual(['keep it short']);
  });

  test('with an agent that does not exist names the one that was meant', async () => {
    const troupe = await atRest(() => 'text', [{}], 'reject');
    await expect(give(troupe, { order: 'retry', ...one, agent: 'edtor' })).rejects.toMatchObject({
      code: 'not_found',
      message: 'There is no agent edtor; did you mean editor?',
    });
  });
});

describe('pause and resume', () => {
  test('hold a task and let it go on', async () => {
    const troupe = await atRest(asks, [{}, { dependsOn: ['t0'] }]);
    const second = { run: 'main', task: 't1' };
    expect(await give(troupe, { order: 'pause', ...second })).toMatchObject({
      tasks: [{ state: 'paused' }],
    });
    await give(troupe, { order: 'answer', ...one, text: 'live' });
    expect(await troupe.run('main').result()).toMatchObject({ state: 'blocked' });
    await give(troupe, { order: 'resume', ...second });
    await give(troupe, { order: 'cancel', ...second, reason: 'enough' });
    expect(await troupe.run('main').result()).toMatchObject({
      tasks: [{ state: 'done' }, { state: 'cancelled', reason: 'enough' }],
    });
  });
});

describe('pause and resume of a run', () => {
  const pause: Order = { order: 'pauseRun', run: 'main' };
  const resume: Order = { order: 'resumeRun', run: 'main' };

  test('hold it and let it go on; what they say of it is so', async () => {
    const troupe = await atRest(asks, [{}, { agent: 'editor', dependsOn: ['t0'] }]);
    expect(await give(troupe, pause)).toMatchObject({
      tasks: [{ state: 'awaitingInput' }, { state: 'waiting' }],
      run: { id: 'main', state: 'paused' },
    });
    expect(await troupe.run('main').status()).toMatchObject({ reason: 'Paused by cli.' });
    const asked = untilState(troupe, 'task/main/t1', 'ready');
    await give(troupe, { order: 'answer', ...one, text: 'live' });
    await asked;
    expect(await troupe.run('main').status()).toMatchObject({ state: 'paused' });
    expect(await give(troupe, resume)).toMatchObject({ run: { state: 'running' } });
    expect(await troupe.run('main').result()).toMatchObject({ state: 'done' });
  });

  test('where there is nothing to hold, or to let go on, are refused with how it stands', async () => {
    const troupe = await atRest(asks, [{}]);
    await expect(give(troupe, resume)).rejects.toMatchObject({
      code: 'conflict',
      message: 'Run main is blocked, not paused: there is nothing to resume.',
    });
    await give(troupe, pause);
    await expect(give(troupe, pause)).rejects.toMatchObject({
      code: 'conflict',
      message: 'Run main is paused: there is nothing to pause.',
    });
    await give(troupe, { order: 'cancelRun', run: 'main', reason: 'enough' });
    await expect(give(troupe, pause)).rejects.toMatchObject({
      message: 'Run main is cancelled: there is nothing to pause.',
    });
    await expect(give(troupe, resume)).rejects.toMatchObject({
      message: 'Run main is cancelled, not paused: there is nothing to resume.',
    });
  });
});

describe('unblock', () => {
  test('all gives every blocked task another chance', async () => {
    const troupe = await atRest(() => 'text', [{}, {}, { agent: 'editor' }], 'reject');
    const { tasks } = await give(troupe, { order: 'unblockAll', run: 'main', transient: false });
    expect(tasks.map(({ task }) => task)).toEqual(['t0', 't1']);
    await troupe.run('main').result();
    expect(await troupe.task('main', 't0').attempts()).toHaveLength(4);
  });

  test('all transient leaves alone what the work has stopped', async () => {
    const troupe = await atRest(() => 'text', [{}], 'reject');
    const { tasks } = await give(troupe, { order: 'unblockAll', run: 'main', transient: true });
    expect(tasks).toEqual([]);
  });
});

describe('block and cancel', () => {
  test('a task twice: the first counts, the second is told that it has ended', async () => {
    const troupe = await atRest(() => 'text', [{}], 'reject');
    await give(troupe, { order: 'block', ...one, reason: 'not now' });
    expect(await troupe.task('main', 't0').status()).toMatchObject({ reason: 'not now' });
    await give(troupe, { order: 'cancel', ...one, reason: 'never' });
    await troupe.run('main').result();
    await expect(give(troupe, { order: 'cancel', ...one, reason: 'x' })).rejects.toMatchObject({
      message: 'Task t0 is cancelled and cannot be cancelled: that is final.',
    });
  });

  test('a whole run ends it, and it cannot be cancelled again', async () => {
    const troupe = await atRest(asks, [{}, {}]);
    const order: Order = { order: 'cancelRun', run: 'main', reason: 'enough' };
    expect(await give(troupe, order)).toEqual({
      tasks: [
        { ...one, state: 'cancelled' },
        { run: 'main', task: 't1', state: 'cancelled' },
      ],
      run: { id: 'main', state: 'cancelled' },
    });
    await expect(give(troupe, order)).rejects.toMatchObject({
      code: 'conflict',
      message: 'Run main is cancelled: there is nothing to cancel.',
    });
  });
});

test.each<{ order: Order; says: string }>([
  {
    order: { order: 'pause', run: 'mian', task: 't0' },
    says: 'There is no run mian; did you mean main?',
  },
  {
    order: { order: 'pause', run: 'main', task: 't00' },
    says: 'There is no task t00 in run main; did you mean t0?',
  },
  {
    order: { order: 'pause', run: 'main', task: 'release' },
    says: 'There is no task release in run main; its tasks are t0.',
  },
])('$says', async ({ order, says }) => {
  const troupe = await atRest(asks, [{}]);
  await expect(give(troupe, order)).rejects.toMatchObject({ code: 'not_found', message: says });
});
