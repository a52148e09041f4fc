import { describe, expect, test } from 'vitest';
import { MAX_TIMER_MS } from '../../src/machines/policies/backoff.ts';
import { phaseOf } from '../../src/machines/policies/task-phase.ts';
import type { TaskSpec } from '../../src/machines/task-machine.ts';
import { startState } from '../../src/machines/task-machine.ts';
import type { RequestParams } from '../../src/protocol/commands.ts';
import { RefusedWorkError } from '../../src/protocol/refused-work.ts';
import {
  answerIn,
  type Fact,
  inWords,
  messagesIn,
  refusalIn,
  START,
  type Step,
  shownState,
  stateOf,
  toldRun,
} from './driven.ts';
import {
  accepted,
  acceptedWithoutProof,
  answer,
  asks,
  backoffIsOver,
  breaksDown,
  cancel,
  claimed,
  contextOf,
  decide,
  dependency,
  enable,
  fails,
  gatekeeperFails,
  isNotThere,
  live,
  needsApproval,
  nobodyAnswers,
  nonsense,
  notPrepared,
  notReleased,
  notVerified,
  pause,
  policyDecides,
  policyFails,
  prepareDies,
  prepared,
  proof,
  rejected,
  released,
  resume,
  rewound,
  skipped,
  skipTo,
  spec,
  submissionIsGone,
  submitted,
  task,
  timeUp,
  unblock,
  undecided,
  verificationDies,
  verifying,
  workDies,
  working,
} from './task-facts.ts';

/** A task that gives up after its first failed attempt. */
const once = { limits: { attempts: 1 } };
const escalatedNow = [...verifying, rejected(), undecided];

describe('the way through', () => {
  test.each<{ title: string; after: readonly Fact[]; state: string; wishes: readonly string[] }>([
    { title: 'a new task', after: [], state: 'ready', wishes: [] },
    {
      title: 'claimed',
      after: [claimed],
      state: 'preparing',
      wishes: ['answers', 'tells the run, ready → active', 'starts prepare'],
    },
    {
      title: 'prepared',
      after: [claimed, prepared],
      state: 'working',
      wishes: ['stops prepare', 'asks agent/writer: agent.work'],
    },
    {
      title: 'not prepared: nobody is to blame for it',
      after: [claimed, notPrepared],
      state: 'retrying.workAgain',
      wishes: ['stops prepare', 'tells the run, active → delayed', 'waits 1000 ms'],
    },
    {
      title: 'handed in',
      after: [...working, submitted()],
      state: 'verifying',
      wishes: ['asks gatekeeper/editor: gatekeeper.verify', 'tells the run, active → verifying'],
    },
    {
      title: 'failed',
      after: [...working, fails()],
      state: 'retrying.workAgain',
      wishes: ['tells the run, active → delayed', 'waits 10000 ms'],
    },
    {
      title: 'accepted',
      after: [...verifying, accepted],
      state: 'done',
      wishes: ['tells the run, verifying → done'],
    },
    {
      title: 'accepted without evidence',
      after: [...verifying, acceptedWithoutProof],
      state: 'retrying.verifyAgain',
      wishes: ['tells the run, verifying → delayed', 'waits 1000 ms'],
    },
    {
      title: 'rejected',
      after: [...verifying, rejected()],
      state: 'retrying.workAgain',
      wishes: ['tells the run, verifying → delayed', 'waits 10000 ms'],
    },
    {
      title: 'not verified',
      after: [...verifying, notVerified()],
      state: 'retrying.verifyAgain',
      wishes: ['tells the run, verifying → delayed', 'waits 1000 ms'],
    },
    {
      title: 'the gatekeeper fails',
      after: [...verifying, gatekeeperFails],
      state: 'retrying.verifyAgain',
      wishes: ['tells the run, verifying → delayed', 'waits 1000 ms'],
    },
    {
      title: 'the gatekeeper answers with no verdict',
      after: [...verifying, nonsense],
      state: 'retrying.verifyAgain',
      wishes: ['tells the run, verifying → delayed', 'waits 1000 ms'],
    },
    {
      title: 'not verified, for there is nothing left to verify',
      after: [...verifying, submissionIsGone],
      state: 'retrying.workAgain',
      wishes: ['tells the run, verifying → delayed', 'waits 1000 ms'],
    },
    {
      title: 'verified again: the agent is not asked, and its place stays free',
      after: [...verifying, notVerified(), backoffIsOver],
      state: 'verifying',
      wishes: [
        'waits no longer',
        'asks gatekeeper/editor: gatekeeper.verify',
        'tells the run, delayed → verifying',
      ],
    },
    {
      title: 'the backoff is over',
      after: [...verifying, rejected(), backoffIsOver],
      state: 'ready',
      wishes: ['waits no longer', 'tells the run, delayed → ready'],
    },
    {
      title: 'something risky is handed in: the policy is asked first',
      after: [...verifying, needsApproval],
      state: 'awaitingApproval.asking',
      wishes: ['asks overseer/main: overseer.escalate', 'tells the run, verifying → delayed'],
    },
    {
      title: 'the policy leaves it to a person',
      after: [...verifying, needsApproval, undecided],
      state: 'awaitingApproval.waiting',
      wishes: ['tells the run, delayed → person'],
    },
    {
      title: 'approved',
      after: [...verifying, needsApproval, undecided, decide('approve')],
      state: 'verifying',
      wishes: [
        'forgets escalate',
        'answers',
        'asks gatekeeper/editor: gatekeeper.verify',
        'tells the run, person → verifying',
      ],
    },
  ])('$title: $state', ({ after, state, wishes }) => {
    const step = live({}, after);
    expect(stateOf(step)).toBe(state);
    expect(inWords(step.actions)).toEqual(wishes);
  });

  test('what is kept of an attempt that was accepted', () => {
    expect(contextOf(live({}, [...verifying, accepted])).last).toMatchObject({
      outcome: 'accepted',
      endedAt: START,
      evidence: proof,
    });
  });

  test('what needs approval, and what has been shown for it', () => {
    expect(contextOf(live({}, [...verifying, needsApproval]))).toMatchObject({
      reason: 'Approval is needed: It deletes data.',
      last: { outcome: 'running', evidence: proof },
    });
  });

  test('what the agent is asked', () => {
    const step = live({ input: { words: 100 } }, [
      ...verifying,
      rejected({ feedback: ['Shorter.'] }),
      backoffIsOver,
      ...working,
    ]);
    const [request] = messagesIn(step.actions) as unknown as [RequestParams];
    expect(request).toMatchObject({ id: 'work', attempt: 3, priority: 2 });
    expect(request.message).toEqual({
      type: 'agent.work',
      task: 'task/r/t',
      run: 'r',
      id: 't',
      title: 'Write it',
      attempt: 2,
      input: { words: 100 },
      feedback: ['Shorter.'],
      guidance: [],
      answers: {},
      workspace: null,
      interruptions: 3,
    });
  });

  test('what the gatekeeper is asked', () => {
    const step = live({}, [claimed, { ...prepared, output: { directory: '/w' } }, submitted(7)]);
    expect(messagesIn(step.actions)[0]?.message).toMatchObject({
      attempt: 1,
      result: 7,
      workspace: { directory: '/w' },
      approved: false,
      interruptions: 3,
    });
    const approved = live({}, [...verifying, needsApproval, undecided, decide('approve')]);
    expect(messagesIn(approved.actions)[0]?.message).toMatchObject({ approved: true });
  });

  test('every request has a number of its own, so that no answer is taken for another', () => {
    const facts = [...verifying, rejected(), backoffIsOver, ...working, submitted(), needsApproval];
    const numbers: number[] = [];
    let step = task.begin(spec({}));
    for (const fact of facts) {
      step = task.take(step, fact);
      for (const action of step.actions) {
        if (action.kind === 'command' && action.command === 'request') {
          numbers.push((action.params as RequestParams).attempt ?? 0);
        }
      }
    }
    expect(numbers).toEqual([1, 2, 3, 4, 5]);
  });
});

/*
 * Every order in every state: the state it leads to, `=` when it is accepted and the state stays, `✗` when it is
 * refused (conflict), `✗v` when the order itself is malformed, `.` when it is a message that nobody answers and
 * nothing changes.
 */
const ORDERS: Readonly<Record<string, Fact>> = {
  claim: claimed,
  retry: decide('retry'),
  approve: decide('approve'),
  reassign: decide('reassign', { agent: 'poet' }),
  nobody: decide('reassign'),
  block: decide('block'),
  end: decide('cancel'),
  answer: answer(),
  unblock: unblock(),
  later: unblock(5_000),
  pause,
  resume,
  cancel,
  skipTo,
  enable,
};

const WAYS: Readonly<Record<string, { over?: Parameters<typeof live>[0]; way: readonly Fact[] }>> =
  {
    staged: { over: { staged: true }, way: [] },
    waiting: { over: { dependsOn: ['a'] }, way: [] },
    ready: { way: [] },
    preparing: { way: [claimed] },
    working: { way: working },
    verifying: { way: verifying },
    awaitingInput: { way: [...working, asks()] },
    'retrying.workAgain': { way: [...verifying, rejected()] },
    'retrying.verifyAgain': { way: [...verifying, notVerified()] },
    blocked: { over: { limits: { sameError: 1 } }, way: [...verifying, rejected({ error: 'e' })] },
    'escalated.asking': { over: once, way: [...verifying, rejected()] },
    'escalated.waiting': { over: once, way: escalatedNow },
    'awaitingApproval.asking': { way: [...verifying, needsApproval] },
    'awaitingApproval.waiting': { way: [...verifying, needsApproval, undecided] },
    paused: { way: [pause] },
    cancelling: { way: [cancel] },
    cancelled: { way: [cancel, released] },
  };

const GRID = `
                         | claim     | retry | approve   | reassign | nobody | block   | end        | answer  | unblock | later    | pause  | resume | cancel     | skipTo  | enable
staged                   | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | paused | ✗      | cancelling | ready   | ready
waiting                  | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | paused | ✗      | cancelling | waiting | .
ready                    | preparing | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | paused | ✗      | cancelling | =       | .
preparing                | =         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | =      | =      | cancelling | =       | .
working                  | =         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | =      | =      | cancelling | =       | .
verifying                | =         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | =      | =      | cancelling | =       | .
awaitingInput            | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | working | ✗       | ✗        | =      | =      | cancelling | =       | .
retrying.workAgain       | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ready   | retrying | paused | ✗      | cancelling | =       | .
retrying.verifyAgain     | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | verifying | retrying | paused | ✗    | cancelling | =       | .
blocked                  | ✗         | ready | verifying | ready    | ✗v     | blocked | cancelling | ✗       | ready   | retrying | ✗      | ✗      | cancelling | blocked | .
escalated.asking         | ✗         | ready | verifying | ready    | ✗v     | blocked | cancelling | ✗       | ready   | retrying | ✗      | ✗      | cancelling | =       | .
escalated.waiting        | ✗         | ready | verifying | ready    | ✗v     | blocked | cancelling | ✗       | ready   | retrying | ✗      | ✗      | cancelling | =       | .
awaitingApproval.asking  | ✗         | ready | verifying | ready    | ✗v     | blocked | cancelling | ✗       | ✗       | ✗        | ✗      | ✗      | cancelling | =       | .
awaitingApproval.waiting | ✗         | ready | verifying | ready    | ✗v     | blocked | cancelling | ✗       | ✗       | ✗        | ✗      | ✗      | cancelling | =       | .
paused                   | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | ✗      | ready  | cancelling | =       | .
cancelling               | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | ✗      | ✗      | =          | ✗       | .
cancelled                | ✗         | ✗     | ✗         | ✗        | ✗      | ✗       | ✗          | ✗       | ✗       | ✗        | ✗      | ✗      | =          | ✗       | .
`;

const [heading = '', ...rows] = GRID.trim().split('\n');
const columns = heading
  .split('|')
  .slice(1)
  .map((cell) => cell.trim());
const cells = rows.flatMap((row) => {
  const [state = '', ...outcomes] = row.split('|').map((cell) => cell.trim());
  return outcomes.map((outcome, i) => ({ state, order: columns[i] ?? '', outcome }));
});

describe('orders', () => {
  test('the table is whole', () => {
    expect(columns).toEqual(Object.keys(ORDERS));
    expect(rows.map((row) => row.split('|')[0]?.trim())).toEqual(Object.keys(WAYS));
    expect(cells).toHaveLength(columns.length * rows.length);
  });

  test.each(cells)('$state, $order: $outcome', ({ state, order, outcome }) => {
    const { over = {}, way } = WAYS[state] ?? { way: [] };
    const before = live(over, way);
    expect(stateOf(before)).toBe(state);
    const step = task.take(before, ORDERS[order] as Fact);
    const shown = shownState(before);
    switch (outcome) {
      case '.':
        expect([stateOf(step), answerIn(step.actions)]).toEqual([state, undefined]);
        return;
      case '✗':
      case '✗v':
        expect(answerIn(step.actions)).toBe(outcome === '✗' ? '✗ conflict' : '✗ validation');
        expect(step.snapshot.context).toBe(before.snapshot.context);
        expect(refusalIn(step.actions)?.context).toEqual({ state: shown });
        return;
      case '=':
        expect([stateOf(step), answerIn(step.actions)]).toEqual([state, shown]);
        return;
      default:
        expect(shownState(step)).toBe(outcome);
        if (order !== 'enable') expect(answerIn(step.actions)).toBe(outcome);
    }
  });

  test.each([
    {
      way: WAYS['ready'],
      fact: decide('retry'),
      says: 'The task is ready: "task.decide" is not possible now.',
    },
    {
      way: { way: [pause] },
      fact: unblock(),
      says: 'The task is paused: "task.unblock" is not possible now.',
    },
    {
      way: { over: once, way: [...working, fails(), undecided] },
      fact: decide('approve'),
      says: 'There is nothing to approve: its last attempt handed nothing in.',
    },
    {
      way: { over: { dependsOn: ['a'] }, way: [dependency('a', 'cancelled')] },
      fact: decide('approve'),
      says: 'There is nothing to approve: its last attempt handed nothing in.',
    },
    {
      way: WAYS['blocked'],
      fact: decide('reassign'),
      says: 'To reassign a task, name the agent that takes over.',
    },
    {
      way: WAYS['awaitingInput'],
      fact: answer('red', 'size'),
      says: 'The task asks "colour" now, not "size".',
    },
    {
      way: { way: [...working, asks({ choices: ['red', 'blue'] })] },
      fact: answer('green'),
      says: 'Expected the answer to "Which colour?" to be one of red, blue.',
    },
  ])('a refusal says why: $says', ({ way, fact, says }) => {
    const step = task.take(live(way?.over ?? {}, way?.way ?? []), fact);
    expect(refusalIn(step.actions)?.message).toBe(says);
  });

  test('messages that are no requests are not answered', () => {
    for (const fact of [cancel, pause, claimed]) {
      const step = task.take(live({}, []), fact, { correlation: undefined } as never);
      expect(answerIn(step.actions)).toBeUndefined();
    }
  });
});

describe('pausing', () => {
  test.each<{
    title: string;
    way: readonly Fact[];
    over?: Parameters<typeof live>[0];
    resumed?: string;
  }>([
    { title: 'rejected', way: [...verifying, pause, rejected()] },
    { title: 'failed', way: [...working, pause, fails()] },
    { title: 'not prepared', way: [claimed, pause, notPrepared] },
    {
      title: 'not verified',
      way: [...verifying, pause, notVerified()],
      resumed: 'verifying',
    },
    { title: 'asked, answered and failed', way: [...working, pause, asks(), answer(), fails()] },
    {
      title: 'retried by a person',
      over: once,
      way: [...verifying, pause, ...escalatedNow.slice(3), decide('retry')],
    },
    {
      title: 'retried by the policy',
      over: once,
      way: [...verifying, pause, rejected(), policyDecides('retry')],
    },
    {
      title: 'unblocked later',
      over: once,
      way: [...verifying, pause, ...escalatedNow.slice(3), unblock(5), backoffIsOver],
    },
  ])(
    'asked while an attempt runs, it holds when the attempt ends: $title',
    ({ way, over, resumed = 'ready' }) => {
      const step = live(over ?? {}, way);
      expect(stateOf(step)).toBe('paused');
      expect(step.pending.timers.size).toBe(0);
      const goesOn = task.take(step, resume);
      expect([stateOf(goesOn), answerIn(goesOn.actions)]).toEqual([resumed, resumed]);
    },
  );

  test('the answer to a pause that does not hold yet is the state the task is in', () => {
    expect(answerIn(live({}, [...working, pause]).actions)).toBe('working');
  });

  test('the answer to a retry that leads into a pause says so', () => {
    const step = live(once, [...verifying, pause, rejected(), undecided, decide('retry')]);
    expect(answerIn(step.actions)).toBe('paused');
  });

  test.each([
    { title: 'while it works', way: [...working, pause, resume, fails()] },
    {
      title: 'while it waits for an answer',
      way: [...working, pause, asks(), resume, answer(), fails()],
    },
  ])('taken back in time, it never holds: $title', ({ way }) => {
    expect(stateOf(live({}, way))).toBe('retrying.workAgain');
  });

  test('taken back while it waits for a decision', () => {
    const step = live(once, [...verifying, pause, rejected(), undecided, resume]);
    expect([stateOf(step), answerIn(step.actions)]).toEqual(['escalated.waiting', 'escalated']);
    expect(stateOf(task.take(step, decide('retry')))).toBe('ready');
  });

  test('an accepted task is done, pause or not', () => {
    expect(stateOf(live({}, [...verifying, pause, accepted]))).toBe('done');
  });

  test('a paused task goes on where it belongs', () => {
    const waiting = live({ dependsOn: ['a'] }, [pause]);
    expect(answerIn(task.take(waiting, resume).actions)).toBe('waiting');
    const ready = task.take(task.take(waiting, dependency('a')), resume);
    expect([stateOf(ready), answerIn(ready.actions)]).toEqual(['ready', 'ready']);
    const lost = task.take(task.take(waiting, dependency('a', 'cancelled')), resume);
    expect([stateOf(lost), answerIn(lost.actions)]).toEqual(['blocked', 'blocked']);
    expect(contextOf(lost).reason).toContain('"a", which was cancelled');
  });

  test('a staged task that was enabled while it was paused is not staged any more', () => {
    expect(stateOf(live({ staged: true }, [pause, resume]))).toBe('staged');
    expect(stateOf(live({ staged: true }, [pause, enable, resume]))).toBe('ready');
  });

  test('a paused backoff is not waited for', () => {
    const step = live({}, [...verifying, rejected(), pause]);
    expect([stateOf(step), step.pending.timers.size]).toEqual(['paused', 0]);
  });
});

describe('cancelling', () => {
  test.each<{
    from: string;
    over?: Parameters<typeof live>[0];
    way: readonly Fact[];
    wishes: string[];
  }>([
    {
      from: 'ready',
      way: [],
      wishes: ['answers', 'tells the run, ready → active', 'starts release'],
    },
    {
      from: 'preparing',
      way: [claimed],
      wishes: ['stops prepare', 'answers', 'starts release'],
    },
    {
      from: 'working',
      way: working,
      wishes: ['forgets work', 'tells agent/writer: agent.cancel', 'answers', 'starts release'],
    },
    {
      from: 'verifying',
      way: verifying,
      wishes: [
        'forgets verify',
        'tells gatekeeper/editor: gatekeeper.cancel',
        'answers',
        'tells the run, verifying → active',
        'starts release',
      ],
    },
    {
      from: 'awaitingInput',
      way: [...working, asks()],
      wishes: ['waits no longer', 'answers', 'tells the run, person → active', 'starts release'],
    },
    {
      from: 'retrying.workAgain',
      way: [...working, fails()],
      wishes: ['waits no longer', 'answers', 'tells the run, delayed → active', 'starts release'],
    },
    {
      from: 'retrying.verifyAgain',
      way: [...verifying, notVerified()],
      wishes: ['waits no longer', 'answers', 'tells the run, delayed → active', 'starts release'],
    },
    {
      from: 'escalated.asking',
      over: once,
      way: [...working, fails()],
      wishes: ['forgets escalate', 'answers', 'tells the run, delayed → active', 'starts release'],
    },
    {
      from: 'awaitingApproval.waiting',
      way: [...verifying, needsApproval, undecided],
      wishes: ['forgets escalate', 'answers', 'tells the run, person → active', 'starts release'],
    },
  ])('$from: everything that was begun is called back', ({ from, over, way, wishes }) => {
    const before = live(over ?? {}, way);
    expect(stateOf(before)).toBe(from);
    const step = task.take(before, cancel);
    expect(inWords(step.actions)).toEqual(wishes);
    expect([...step.pending.effects]).toEqual(['release']);
    expect([...step.pending.requests.keys(), ...step.pending.timers.keys()]).toEqual([]);
  });

  test('the end tells the run and the dependants', () => {
    const step = live({ dependants: ['b', 'c'] }, [cancel, released]);
    expect(inWords(step.actions)).toEqual([
      'stops release',
      'tells the run, active → cancelled, telling 2',
      'tells task/r/b: task.dependencyEnded',
      'tells task/r/c: task.dependencyEnded',
    ]);
    expect(messagesIn(step.actions)[1]?.message).toEqual({
      type: 'task.dependencyEnded',
      task: 't',
      outcome: 'cancelled',
    });
  });

  test('what could not be put away does not hold up the end, and is named', () => {
    const step = live({}, [cancel, notReleased]);
    expect(stateOf(step)).toBe('cancelled');
    expect(contextOf(step).reason).toBe('Not needed. Not put away: The disk is gone.');
  });

  test('what was taken back is named', () => {
    const report = { compensated: ['1/mail'], failed: [{ step: '1/post', reason: 'no stamp' }] };
    const step = live({}, [...working, cancel, { ...released, output: report }]);
    expect(contextOf(step).reason).toBe(
      'Not needed. Taken back: 1/mail. Not taken back: 1/post (no stamp).',
    );
  });

  test('a running attempt ends as cancelled; one that had ended stays as it was', () => {
    expect(contextOf(live({}, [...working, cancel])).last).toMatchObject({
      outcome: 'cancelled',
      endedAt: expect.any(Number),
    });
    expect(contextOf(live({}, [...verifying, rejected(), cancel])).last).toMatchObject({
      outcome: 'rejected',
    });
  });

  test('a question dies with its task', () => {
    expect(contextOf(live({}, [...working, asks(), cancel])).question).toBeNull();
  });

  test('an attempt that was called back changes nothing more', () => {
    const step = live({}, [...working, cancel]);
    for (const late of [submitted(), fails(), accepted]) {
      expect(task.take(step, late).actions).toEqual([]);
    }
  });
});

describe('budgets', () => {
  const attempt = (fact: Fact) => [...working, submitted(), fact];

  test.each<{ title: string; limits: object; facts: readonly Fact[]; state: string; says: string }>(
    [
      {
        title: 'attempts used up',
        limits: { attempts: 2, sameFeedback: 9 },
        facts: [...attempt(rejected()), backoffIsOver, ...attempt(rejected())],
        state: 'escalated.asking',
        says: 'All 2 attempts are used up',
      },
      {
        title: 'failures of the agent count as attempts',
        limits: { attempts: 2 },
        facts: [...working, fails(), backoffIsOver, ...working, fails('Something else.')],
        state: 'escalated.asking',
        says: 'All 2 attempts are used up',
      },
      {
        title: 'the same error',
        limits: { sameError: 2 },
        facts: [...working, fails(), backoffIsOver, ...working, fails()],
        state: 'blocked',
        says: 'The same error came twice in a row',
      },
      {
        title: 'the same error, by the gatekeeper',
        limits: { sameError: 2 },
        facts: [
          ...attempt(rejected({ error: 'e' })),
          backoffIsOver,
          ...attempt(rejected({ error: 'e' })),
        ],
        state: 'blocked',
        says: 'The same error came twice in a row',
      },
      {
        title: 'the same change',
        limits: { sameChange: 2, sameFeedback: 9 },
        facts: [
          ...attempt(rejected({ change: 'c' })),
          backoffIsOver,
          ...attempt(rejected({ change: 'c' })),
        ],
        state: 'blocked',
        says: 'The agent delivered the same change twice in a row',
      },
      {
        title: 'the same feedback, whatever its order',
        limits: {},
        facts: [
          ...attempt(rejected({ feedback: ['a', 'b'] })),
          backoffIsOver,
          ...attempt(rejected({ feedback: ['b', 'a'] })),
        ],
        state: 'escalated.asking',
        says: 'The same feedback came twice in a row',
      },
      {
        title: 'an oscillation',
        limits: {},
        facts: ['a', 'b', 'a', 'b'].flatMap((error, i) => [
          ...(i === 0 ? [] : [backoffIsOver]),
          ...attempt(rejected({ error })),
        ]),
        state: 'blocked',
        says: 'The task goes in a circle',
      },
      {
        title: 'infrastructure',
        limits: { infrastructureAttempts: 2 },
        facts: [...working, breaksDown(), backoffIsOver, claimed, notPrepared],
        state: 'escalated.asking',
        says: 'The infrastructure failed twice in a row',
      },
      {
        title: 'infrastructure, at the work and at its verification',
        limits: { infrastructureAttempts: 3 },
        facts: [
          claimed,
          notPrepared,
          backoffIsOver,
          ...attempt(notVerified()),
          backoffIsOver,
          gatekeeperFails,
        ],
        state: 'escalated.asking',
        says: 'The infrastructure failed 3 times in a row',
      },
    ],
  )('$title: $state', ({ limits, facts, state, says }) => {
    const step = live({ limits }, facts);
    expect(stateOf(step)).toBe(state);
    expect(contextOf(step).reason).toContain(says);
    expect(contextOf(step).last).toMatchObject({ endedAt: expect.any(Number) });
  });

  test('infrastructure faults use up no attempt, and wait by their own backoff', () => {
    const step = live({ limits: { attempts: 2 } }, [
      ...[1, 2, 3].flatMap(() => [...working, breaksDown(), backoffIsOver]),
      ...working,
      fails(),
    ]);
    expect(stateOf(step)).toBe('retrying.workAgain');
    expect(contextOf(step).progress).toMatchObject({ attempts: 1, infrastructureStreak: 0 });
    expect(contextOf(step).retryInMs).toBe(10_000);
  });

  test('work that was refused before a gatekeeper saw it is recorded with its stage and evidence', () => {
    const check = { name: 'apply', command: 'git apply x', exitCode: 1, excerpt: 'no such line' };
    const error = new RefusedWorkError('validation', 'It does not apply.', 'apply', check);
    const failure = error.toFailure();
    const from = (agent: object) => ({ ...failure, context: { ...failure.context, ...agent } });
    const step = live({}, [
      ...working,
      { type: 'agent.work:err', failure: from({ agent: 'writer' }) },
    ]);
    expect(contextOf(step).last).toMatchObject({
      outcome: 'failed',
      stage: 'apply',
      evidence: { commands: [check] },
    });
    // What does not come from an agent says nothing about its work.
    const other = live({}, [...working, { type: 'agent.work:err', failure: from({}) }]);
    expect(contextOf(other).last).toMatchObject({ outcome: 'infrastructure', stage: null });
  });

  const overdue = { code: 'timeout', message: 'No answer within a day.', retryable: true };
  const timedOut = { ...overdue, context: { agent: 'writer' } };

  test.each([
    {
      title: 'it was not done in time',
      way: working,
      fact: { type: 'agent.work:err', failure: timedOut },
      cause: 'work',
    },
    {
      title: 'its agent never answered',
      way: working,
      fact: { type: 'agent.work:err', failure: overdue },
      cause: 'infrastructure',
    },
    {
      title: 'its gatekeeper never answered',
      way: verifying,
      fact: { type: 'gatekeeper.verify:err', failure: overdue },
      cause: 'infrastructure',
    },
    {
      title: 'its place was not made in time',
      way: [claimed],
      fact: { type: 'xstate.error.actor.prepare', error: overdue },
      cause: 'infrastructure',
    },
  ])('whose fault it is: $title: $cause', ({ way, fact, cause }) => {
    const step = live({}, [...way, fact]);
    expect([shownState(step), contextOf(step).cause]).toEqual(['retrying', cause]);
  });

  test.each([
    {
      from: 'working',
      way: working,
      fact: { type: 'agent.work:err', failure: overdue },
      wishes: ['forgets work', 'tells agent/writer: agent.cancel'],
    },
    {
      from: 'verifying',
      way: verifying,
      fact: { type: 'gatekeeper.verify:err', failure: overdue },
      wishes: ['forgets verify', 'tells gatekeeper/editor: gatekeeper.cancel'],
    },
  ])(
    'an answer that is overdue is called back, so that nothing is done twice: $from',
    ({ way, fact, wishes }) => {
      expect(inWords(live({}, [...way, fact]).actions).slice(0, 2)).toEqual(wishes);
    },
  );

  test.each([
    { facts: [...working, breaksDown()], waits: 1_000 },
    { facts: [...working, breaksDown(), backoffIsOver, ...working, breaksDown()], waits: 2_000 },
    { facts: [...working, breaksDown(90_000)], waits: 90_000 },
    { facts: [...working, breaksDown(5)], waits: 1_000 },
    // No longer than a timer keeps: the wait has an end.
    { facts: [...working, breaksDown(1e300)], waits: MAX_TIMER_MS },
    { facts: [...verifying, notVerified(45_000)], waits: 45_000 },
    {
      facts: [...working, fails(), backoffIsOver, ...working, fails('Something else.')],
      waits: 20_000,
    },
  ])('the wait is $waits ms', ({ facts, waits }) => {
    const step = live({}, facts);
    expect([...step.pending.timers.values()].map(({ delayMs }) => delayMs)).toEqual([waits]);
  });

  test('that its gatekeeper fails is no fault of its agent, whomever the failure names', () => {
    const failure = {
      ...{ code: 'internal', message: 'The linter is away.', retryable: true },
      context: { agent: 'linter' },
    };
    const chain = ['writer', 'second'];
    const step = live({ chain }, [...verifying, { type: 'gatekeeper.verify:err', failure }]);
    expect(stateOf(step)).toBe('retrying.verifyAgain');
    expect(contextOf(step).agent).toBe('writer');
    expect(contextOf(step).insteadOf ?? null).toBeNull();
  });

  test('what it is told is kept as far as a message may say it', () => {
    const long = 'x'.repeat(1_000_000);
    const notes = [...verifying, rejected({ feedback: [long, long] })];
    expect(contextOf(live({}, notes)).feedback.map(({ length }) => length)).toEqual([
      100_000, 100_000,
    ]);
  });

  test('jitter comes from the task and its attempt, and only takes away', () => {
    const backoff = { initialMs: 10_000, factor: 2, maxMs: 600_000, jitter: 0.5 };
    const wait = (id: string) =>
      contextOf(live({ id, limits: { backoff } }, [...working, fails()])).retryInMs;
    expect(wait('a')).toBe(wait('a'));
    expect(wait('a')).not.toBe(wait('b'));
    for (const id of ['a', 'b', 'c']) {
      expect(wait(id)).toBeGreaterThanOrEqual(5_000);
      expect(wait(id)).toBeLessThanOrEqual(10_000);
    }
  });

  test('the next attempt is told the newest remarks only', () => {
    const facts = Array.from({ length: 7 }, (_, i) => [
      ...(i === 0 ? [] : [backoffIsOver]),
      ...attempt(rejected({ feedback: [`remark ${i}`] })),
    ]).flat();
    const { feedback } = contextOf(live({ limits: { attempts: 20 } }, facts));
    expect(feedback.at(-1)).toBe('remark 6');
    expect(feedback).toHaveLength(5);
  });
});

describe('what was handed in and could not be verified', () => {
  const twice = { limits: { infrastructureAttempts: 2 } };
  const escalatedUnverified = [
    ...verifying,
    notVerified(),
    backoffIsOver,
    gatekeeperFails,
    undecided,
  ];

  test('is verified again as it was handed in, by the same attempt, with a new request', () => {
    const first = live({}, [...working, submitted('a draft')]);
    const again = [notVerified(), backoffIsOver].reduce<Step>((m, f) => task.take(m, f), first);
    const [before, now] = [first, again].map(
      ({ actions }) => messagesIn(actions)[0] as unknown as RequestParams,
    );
    expect(now?.message).toEqual(before?.message);
    expect([before?.attempt, now?.attempt]).toEqual([2, 3]);
    expect(contextOf(again)).toMatchObject({
      attempt: 1,
      reason: null,
      cause: null,
      last: { attempt: 1, outcome: 'running', endedAt: null, reason: null },
    });
  });

  test('the wait says what it waits for, and keeps what the gatekeeper has shown', () => {
    const step = live({}, [...verifying, notVerified()]);
    expect(contextOf(step)).toMatchObject({
      reason: 'The repository is locked. What was handed in is kept, and is verified again.',
      cause: 'infrastructure',
      result: 'a draft',
      last: {
        outcome: 'infrastructure',
        endedAt: START,
        reason: 'The repository is locked.',
        evidence: { commands: [] },
      },
    });
  });

  test.each<{ title: string; next: Fact; streak: number; attempts: number }>([
    { title: 'not verified again', next: notVerified(), streak: 2, attempts: 0 },
    { title: 'rejected then', next: rejected(), streak: 0, attempts: 1 },
  ])('each time counts as a fault of the infrastructure: $title', ({ next, streak, attempts }) => {
    const step = live({}, [...verifying, notVerified(), backoffIsOver, next]);
    expect(contextOf(step).progress).toMatchObject({ infrastructureStreak: streak, attempts });
  });

  test('rejected in the end, it is worked on again', () => {
    const step = live({}, [...verifying, notVerified(), backoffIsOver, rejected(), backoffIsOver]);
    expect(stateOf(step)).toBe('ready');
  });

  test('an approval asked for after it is no reason to verify it without', () => {
    const step = live({}, [
      ...[...verifying, notVerified(), backoffIsOver, needsApproval, undecided],
      decide('retry'),
    ]);
    expect(stateOf(step)).toBe('ready');
  });

  test.each<{ order: string; facts: readonly Fact[]; state: string }>([
    { order: 'retry', facts: [decide('retry')], state: 'verifying' },
    { order: 'unblock', facts: [unblock()], state: 'verifying' },
    { order: 'approve', facts: [decide('approve')], state: 'verifying' },
    { order: 'unblock later', facts: [unblock(5_000)], state: 'retrying.verifyAgain' },
    { order: 'block, unblock', facts: [decide('block'), unblock()], state: 'verifying' },
    {
      order: 'retry with guidance: that is for the agent',
      facts: [decide('retry', { guidance: 'Be brief.' })],
      state: 'ready',
    },
    {
      order: 'reassign: that is for another agent',
      facts: [decide('reassign', { agent: 'poet' })],
      state: 'ready',
    },
  ])('out of budget, a person decides what is tried again: $order', ({ facts, state }) => {
    const before = live(twice, escalatedUnverified);
    expect([stateOf(before), contextOf(before).cause]).toEqual([
      'escalated.waiting',
      'infrastructure',
    ]);
    const step = facts.reduce<Step>((moment, fact) => task.take(moment, fact), before);
    expect([stateOf(step), answerIn(step.actions)]).toEqual([state, shownState(step)]);
  });

  test('the policy can have it verified again, too', () => {
    const step = live(twice, [...escalatedUnverified.slice(0, -1), policyDecides('retry')]);
    expect(stateOf(step)).toBe('verifying');
  });

  test('a pause in between does not lose it', () => {
    const step = live({}, [...verifying, notVerified(), pause, resume]);
    expect([stateOf(step), answerIn(step.actions)]).toEqual(['verifying', 'verifying']);
  });

  test('after an approval only the budget of the infrastructure counts', () => {
    const step = live(once, [...escalatedNow, decide('approve'), notVerified()]);
    expect(stateOf(step)).toBe('retrying.verifyAgain');
  });
});

describe('the process died too often while', () => {
  const ORDER_OF_STATES = [claimed, prepared, submitted()];
  test.each([
    {
      what: 'it got a workspace',
      after: 1,
      fact: prepareDies,
      by: 'given a workspace',
      next: 'ready',
    },
    {
      what: 'it was worked on',
      after: 2,
      fact: workDies,
      by: 'worked on by "writer"',
      next: 'ready',
    },
    {
      what: 'it was verified',
      after: 3,
      fact: verificationDies,
      by: 'verified by "editor"',
      next: 'verifying',
    },
  ])('$what: it is not tried again by itself', ({ after, fact, by, next }) => {
    const step = live({}, [...ORDER_OF_STATES.slice(0, after), fact]);
    expect(stateOf(step)).toBe('escalated.asking');
    expect(contextOf(step)).toMatchObject({
      reason:
        `The process died 3 times in a row while attempt 1 was under way (${by}), so it may be what the process dies of. ` +
        'Find out why it died, then retry, reassign or cancel.',
      cause: 'work',
      progress: { attempts: 0, infrastructureStreak: 0 },
      last: { outcome: 'infrastructure', endedAt: START },
    });
    expect(stateOf(task.take(step, policyDecides('retry')))).toBe(next);
  });
});

describe('decisions', () => {
  const facts = escalatedNow;

  test('retry starts budgets and streaks again, and hands on the guidance', () => {
    const step = live(once, [...facts, decide('retry', { guidance: 'Be brief.' })]);
    expect(contextOf(step)).toMatchObject({
      progress: { attempts: 0, infrastructureStreak: 0 },
      guidance: ['Be brief.'],
      attempt: 1,
      reason: null,
      cause: null,
    });
    const again = [...working].reduce<Step>((moment, fact) => task.take(moment, fact), step);
    expect(messagesIn(again.actions)[0]?.message).toMatchObject({
      attempt: 2,
      guidance: ['Be brief.'],
      feedback: ['Mend the test.'],
    });
  });

  test('reassign gives it to another agent, and the run a place for that agent', () => {
    const step = live(once, [...facts, decide('reassign', { agent: 'poet' })]);
    expect(toldRun(step.actions)).toEqual([
      expect.objectContaining({ from: 'person', to: 'ready', agent: 'poet' }),
    ]);
    const again = [...working].reduce<Step>((moment, fact) => task.take(moment, fact), step);
    expect(messagesIn(again.actions)[0]?.to).toBe('agent/poet');
  });

  test('approve verifies what was handed in, with the approval', () => {
    const step = live(once, [...facts, decide('approve')]);
    expect(messagesIn(step.actions)[0]?.message).toMatchObject({
      approved: true,
      result: 'a draft',
    });
    const rejectedAgain = task.take(step, rejected());
    expect(stateOf(rejectedAgain)).toBe('escalated.asking');
  });

  test('an approval holds for what was approved, however often that is verified, and no longer', () => {
    const approved = [...verifying, needsApproval, undecided, decide('approve')];
    const again = live({}, [...approved, notVerified(), backoffIsOver]);
    expect(messagesIn(again.actions)[0]?.message).toMatchObject({ approved: true });
    const anew = live({}, [...approved, rejected(), backoffIsOver, ...working, submitted()]);
    expect(messagesIn(anew.actions)[0]?.message).toMatchObject({ approved: false });
  });

  test('a submission of nothing can be approved; no submission cannot', () => {
    const nothing = live({}, [
      ...working,
      submitted(null),
      needsApproval,
      undecided,
      decide('approve'),
    ]);
    expect(stateOf(nothing)).toBe('verifying');
    const none = live(once, [
      ...verifying,
      rejected(),
      decide('retry'),
      ...working,
      fails(),
      undecided,
      decide('approve'),
    ]);
    expect(answerIn(none.actions)).toBe('✗ conflict');
  });

  test.each([
    { guidance: undefined, reason: 'Blocked by decision.' },
    { guidance: '', reason: 'Blocked by decision.' },
    { guidance: 'Out of scope.', reason: 'Out of scope.' },
  ])('block, and why: $reason', ({ guidance, reason }) => {
    const step = live(once, [
      ...facts,
      decide('block', guidance === undefined ? {} : { guidance }),
    ]);
    expect([stateOf(step), contextOf(step).reason]).toEqual(['blocked', reason]);
  });

  test('cancel', () => {
    const step = live(once, [...facts, decide('cancel')]);
    expect([stateOf(step), contextOf(step).reason]).toEqual([
      'cancelling',
      'Cancelled by decision.',
    ]);
  });

  test.each<{ decision: string; more?: object; state: string }>([
    { decision: 'retry', state: 'ready' },
    { decision: 'reassign', more: { agent: 'poet' }, state: 'ready' },
    { decision: 'reassign', state: 'escalated.waiting' },
    { decision: 'approve', state: 'verifying' },
    { decision: 'block', state: 'blocked' },
    { decision: 'cancel', state: 'cancelling' },
    { decision: 'perhaps', state: 'escalated.waiting' },
  ])('the policy decides $decision $more: $state', ({ decision, more, state }) => {
    expect(stateOf(live(once, [...verifying, rejected(), policyDecides(decision, more)]))).toBe(
      state,
    );
  });

  test('a policy that fails leaves it to a person, and the reason says so', () => {
    const step = live(once, [...verifying, rejected(), policyFails]);
    expect(stateOf(step)).toBe('escalated.waiting');
    expect(contextOf(step).reason).toMatch(
      /attempts are used up.*could not decide: No rule fits\.\)$/,
    );
  });

  test('remembers what the policy has decided, and tells it the next time; a person counts for nothing', () => {
    const again = policyDecides('retry', { guidance: 'read the manual' });
    const round = [...verifying, rejected()];
    const step = live(once, [
      ...[...round, again],
      ...[...round, policyDecides('retry')],
      ...[...round, again],
      ...[...round, decide('retry')],
      ...round,
    ]);
    expect(contextOf(step).decided).toEqual([
      { decision: 'retry', guidance: null, times: 1 },
      { decision: 'retry', guidance: 'read the manual', times: 2 },
    ]);
    const asked = step.actions.find((action) =>
      JSON.stringify(action).includes('overseer.escalate'),
    );
    expect(JSON.stringify(asked)).toContain(JSON.stringify(contextOf(step).decided));
  });

  test('a policy that always says the same is asked three times; then a person is', () => {
    const round = [...verifying, rejected(), policyDecides('retry')];
    const step = live(once, [...round, ...round, ...round, ...verifying, rejected()]);
    expect(stateOf(step)).toBe('escalated.waiting');
    expect(inWords(step.actions)).toEqual(['tells the run, verifying → person']);
    expect(contextOf(step).reason).toContain("The overseer's policy has decided 3 times");
    // A person's word begins a new count.
    const anew = [decide('retry'), ...verifying, rejected()].reduce<Step>(
      (m, f) => task.take(m, f),
      step,
    );
    expect(stateOf(anew)).toBe('escalated.asking');
  });

  test('the same holds for a policy that approves again and again what is not accepted', () => {
    const step = live(once, [
      ...verifying,
      ...Array.from({ length: 3 }, () => [needsApproval, policyDecides('approve')]).flat(),
      needsApproval,
    ]);
    expect(stateOf(step)).toBe('awaitingApproval.waiting');
  });

  test('an answer of the policy that comes too late changes nothing', () => {
    const step = live(once, escalatedNow);
    expect(task.take(step, policyDecides('cancel')).actions).toEqual([]);
  });

  test.each([
    { title: 'retry', fact: decide('retry') },
    { title: 'block', fact: decide('block') },
    { title: 'cancel', fact: cancel },
  ])('an attempt that waited for approval and did not get it has ended: $title', ({ fact }) => {
    const { last } = contextOf(live({}, [...verifying, needsApproval, undecided, fact]));
    expect(last?.outcome).toBe(fact === cancel ? 'cancelled' : 'rejected');
    expect(last?.endedAt).not.toBeNull();
  });

  test('an agent that is not there is no reason to try ten times', () => {
    const step = live({ agent: 'ghost' }, [...working, isNotThere]);
    expect(stateOf(step)).toBe('escalated.asking');
    expect(contextOf(step)).toMatchObject({
      reason: 'There is no agent "ghost". Reassign the task to one that is registered.',
      cause: 'infrastructure',
      last: { outcome: 'infrastructure' },
    });
  });

  test('an agent that has not found something is there', () => {
    const failure = {
      code: 'not_found',
      message: 'No such file.',
      retryable: false,
      context: { agent: 'writer' },
    };
    expect(shownState(live({}, [...working, { type: 'agent.work:err', failure }]))).toBe(
      'retrying',
    );
  });

  test('an agent that answers with nothing usable has failed', () => {
    const step = live({}, [...working, { type: 'agent.work:ok', reply: null }]);
    expect(stateOf(step)).toBe('retrying.workAgain');
    expect(contextOf(step)).toMatchObject({
      reason: 'What came with "agent.work:ok" cannot be used.',
      last: { outcome: 'infrastructure', endedAt: START },
    });
  });
});

describe('unblocking', () => {
  const blocked = [...verifying, rejected({ error: 'e' })];
  const over = { limits: { sameError: 1 } };

  test('starts budgets and streaks again', () => {
    const step = live(over, [...blocked, unblock()]);
    expect(contextOf(step).progress).toMatchObject({ attempts: 0, error: { streak: 0 } });
    expect(contextOf(step)).toMatchObject({ reason: null, cause: null });
  });

  test('later, when many are unblocked together', () => {
    const step = live(over, [...blocked, unblock(15_000)]);
    expect(inWords(step.actions)).toEqual([
      'answers',
      'tells the run, stuck → delayed',
      'waits 15000 ms',
    ]);
    expect(stateOf(task.take(step, backoffIsOver))).toBe('ready');
  });

  test('a backoff is cut short, or begun anew', () => {
    const retrying = [...verifying, rejected()];
    expect(inWords(live({}, [...retrying, unblock()]).actions)).toEqual([
      'waits no longer',
      'answers',
      'tells the run, delayed → ready',
    ]);
    expect(inWords(live({}, [...retrying, unblock(500)]).actions)).toEqual([
      'waits no longer',
      'answers',
      'waits 500 ms',
    ]);
  });
});

describe('questions', () => {
  test('the task waits for a person, and its place is free', () => {
    const step = live({}, [...working, asks()]);
    expect(inWords(step.actions)).toEqual([
      'tells the run, active → person',
      `waits ${2 ** 45} ms`,
    ]);
    expect(contextOf(step)).toMatchObject({ reason: 'Which colour?', question: { id: 'colour' } });
  });

  test('the answer goes to the agent, in the same attempt, and takes a place of the run again', () => {
    const step = live({}, [...working, asks(), answer('red')]);
    expect(messagesIn(step.actions)[0]?.message).toMatchObject({
      attempt: 1,
      answers: { colour: 'red' },
    });
    expect(toldRun(step.actions)).toEqual([
      expect.objectContaining({ from: 'person', to: 'active', agent: 'writer' }),
    ]);
    expect(contextOf(step)).toMatchObject({ question: null, reason: null });
  });

  test('a second question keeps the first answer', () => {
    const step = live({}, [
      ...working,
      asks(),
      answer('red'),
      asks({ id: 'size', text: 'How big?' }),
      answer(7, 'size'),
    ]);
    expect(contextOf(step).answers).toEqual({ colour: 'red', size: 7 });
  });

  test.each([{ answers: 'red' }, { answers: null }])(
    'the default $answers is taken when nobody answers',
    ({ answers }) => {
      const step = live({}, [
        ...working,
        asks({ timeoutMs: 60_000, default: answers }),
        nobodyAnswers,
      ]);
      expect(stateOf(step)).toBe('working');
      expect(contextOf(step).answers).toEqual({ colour: answers });
    },
  );

  test('without a default somebody has to decide, and the attempt has failed', () => {
    const step = live({}, [...working, asks({ timeoutMs: 60_000 }), nobodyAnswers]);
    expect(stateOf(step)).toBe('escalated.asking');
    expect(contextOf(step)).toMatchObject({
      reason: 'Nobody answered the question "Which colour?" in time.',
      question: null,
      last: { outcome: 'failed' },
    });
    expect(contextOf(step).last?.endedAt).not.toBeNull();
  });

  test('it waits as long as the question says', () => {
    const step = live({}, [...working, asks({ timeoutMs: 60_000 })]);
    expect([...step.pending.timers.values()].map(({ delayMs }) => delayMs)).toEqual([60_000]);
    expect(task.take(step, answer()).pending.timers.size).toBe(0);
  });

  test('one of the choices', () => {
    const asked = [...working, asks({ choices: ['red', 'blue'] })];
    expect(stateOf(live({}, [...asked, answer('blue')]))).toBe('working');
    expect(stateOf(live({}, [...asked, answer('green')]))).toBe('awaitingInput');
  });
});

describe('dependencies', () => {
  const over = { dependsOn: ['a', 'b'] };

  test.each<{ title: string; facts: readonly Fact[]; state: string; wishes: string[] }>([
    {
      title: 'the first of two',
      facts: [dependency('a')],
      state: 'waiting',
      wishes: ['tells the run, waiting → waiting, heard 1'],
    },
    {
      title: 'both',
      facts: [dependency('a'), dependency('b')],
      state: 'ready',
      wishes: ['tells the run, waiting → ready, heard 1'],
    },
    {
      title: 'one is cancelled',
      facts: [dependency('a'), dependency('b', 'cancelled')],
      state: 'blocked',
      wishes: ['tells the run, waiting → stuck, heard 1'],
    },
    {
      title: 'one is cancelled, and the task goes on without',
      facts: [dependency('a', 'cancelled'), unblock()],
      state: 'waiting',
      wishes: ['answers', 'tells the run, stuck → waiting'],
    },
    {
      title: 'the rest is done while it is blocked',
      facts: [dependency('a', 'cancelled'), dependency('b')],
      state: 'blocked',
      wishes: ['tells the run, stuck → stuck, heard 1'],
    },
    {
      title: 'and then it goes on',
      facts: [dependency('a', 'cancelled'), dependency('b'), decide('retry')],
      state: 'ready',
      wishes: ['answers', 'tells the run, stuck → ready'],
    },
    {
      title: 'all are cancelled',
      facts: [dependency('a', 'cancelled'), dependency('b', 'cancelled')],
      state: 'blocked',
      wishes: ['tells the run, stuck → stuck, heard 1'],
    },
    {
      title: 'it was cancelled itself: the run is told that it has heard',
      facts: [cancel, released, dependency('a'), dependency('b', 'cancelled')],
      state: 'cancelled',
      wishes: ['tells the run, cancelled → cancelled, heard 1'],
    },
  ])('$title: $state', ({ facts, state, wishes }) => {
    const step = live(over, facts);
    expect(stateOf(step)).toBe(state);
    expect(inWords(step.actions)).toEqual(wishes);
    if (state === 'blocked') expect(contextOf(step).reason).toContain('which was cancelled');
  });

  test.each<{ title: string; facts: readonly Fact[]; state: string; wishes: string[] }>([
    {
      title: 'it is skipped to, and waits for the ends of what is skipped',
      facts: [skipTo],
      state: 'waiting',
      wishes: ['tells task/r/a: task.cancel', 'tells task/r/b: task.cancel', 'answers'],
    },
    {
      title: 'one of them has been skipped',
      facts: [skipTo, dependency('b', 'cancelled')],
      state: 'waiting',
      wishes: ['tells the run, waiting → waiting, heard 1'],
    },
    {
      title: 'one was done all the same, and the other has been skipped',
      facts: [skipTo, dependency('a'), dependency('b', 'cancelled')],
      state: 'ready',
      wishes: ['tells the run, waiting → ready, heard 1'],
    },
    {
      title: 'it was blocked for want of one: only the other is waited for',
      facts: [dependency('a', 'cancelled'), skipTo],
      state: 'waiting',
      wishes: [
        'tells task/r/a: task.cancel',
        'tells task/r/b: task.cancel',
        'answers',
        'tells the run, stuck → waiting',
      ],
    },
    {
      title: 'it was blocked for want of both',
      facts: [dependency('a', 'cancelled'), dependency('b', 'cancelled'), skipTo],
      state: 'ready',
      wishes: [
        'tells task/r/a: task.cancel',
        'tells task/r/b: task.cancel',
        'answers',
        'tells the run, stuck → ready',
      ],
    },
    {
      title: 'it is paused meanwhile: the pause holds',
      facts: [pause, skipTo, dependency('a', 'cancelled'), dependency('b', 'cancelled')],
      state: 'paused',
      wishes: ['tells the run, person → person, heard 1'],
    },
    {
      title: 'it is skipped itself, and takes along what it waits for',
      facts: [dependency('a'), skipped],
      state: 'cancelling',
      wishes: [
        'tells task/r/b: task.cancel',
        'answers',
        'starts release',
        'tells the run, waiting → active',
      ],
    },
    {
      title: 'it is skipped a second time',
      facts: [skipped, skipped],
      state: 'cancelling',
      wishes: ['answers'],
    },
    {
      title: 'it had been cancelled before it is skipped',
      facts: [cancel, released, skipped],
      state: 'cancelled',
      wishes: ['tells task/r/a: task.cancel', 'tells task/r/b: task.cancel', 'answers'],
    },
  ])('$title: $state', ({ facts, state, wishes }) => {
    const step = live(over, facts);
    expect(stateOf(step)).toBe(state);
    expect([...inWords(step.actions)].sort()).toEqual(wishes.sort());
  });

  test('what is skipped says why, also when it hears of others later', () => {
    const step = live(over, [skipped, released, dependency('a', 'cancelled'), dependency('b')]);
    expect(contextOf(step)).toMatchObject({ reason: 'Skipped by ada.', skippedFor: 'z', heard: 0 });
  });

  test('who skips is named to those that are skipped', () => {
    const told = messagesIn(live(over, [skipTo]).actions).filter(({ to }) => to === 'task/r/a');
    expect(told.map(({ message }) => message)).toEqual([
      {
        type: 'task.cancel',
        by: 'ada',
        reason: 'Skipped by ada: "t" goes on without it.',
        skippedFor: 't',
      },
    ]);
  });

  test('skipped to, a task does not wait to be enabled, and is not held up when it is tried again', () => {
    const staged = live({ ...over, staged: true }, [skipTo]);
    expect(stateOf(staged)).toBe('waiting');
    const facts = [skipTo, dependency('a', 'cancelled'), dependency('b', 'cancelled')];
    const again = live(over, [...facts, ...verifying, rejected(), backoffIsOver]);
    expect(stateOf(again)).toBe('ready');
    expect(contextOf(again)).toMatchObject({ without: ['a', 'b'], lost: [], remaining: [] });
  });

  test('a staged task waits for its dependencies once it is enabled', () => {
    expect(stateOf(live({ ...over, staged: true }, [enable]))).toBe('waiting');
    expect(
      stateOf(live({ ...over, staged: true }, [dependency('a'), dependency('b'), enable])),
    ).toBe('ready');
    expect(stateOf(live({ ...over, staged: true }, [dependency('a', 'cancelled'), enable]))).toBe(
      'blocked',
    );
  });

  test('enabling what is not staged changes nothing, not even a checkpoint', () => {
    const before = live({}, working);
    expect(task.take(before, enable).snapshot).toBe(before.snapshot);
  });

  test('the end of a task is told to its dependants', () => {
    const step = live({ dependants: ['x', 'y'] }, [...verifying, accepted]);
    expect(inWords(step.actions)).toEqual([
      'tells the run, verifying → done, telling 2',
      'tells task/r/x: task.dependencyEnded',
      'tells task/r/y: task.dependencyEnded',
    ]);
  });
});

test.each<{ over: Partial<TaskSpec>; state: string }>([
  { over: {}, state: 'ready' },
  { over: { dependsOn: ['a'] }, state: 'waiting' },
  { over: { dependsOn: ['a'], staged: true }, state: 'staged' },
])('a task begins as the run counts it: $state', ({ over, state }) => {
  const step = task.begin(spec(over));
  expect(stateOf(step)).toBe(state);
  expect(startState(spec(over))).toBe(state);
  expect(contextOf(step).told).toBe(phaseOf(startState(spec(over))));
  expect(step.actions).toEqual([]);
});

describe('rolled back', () => {
  const again = (step: Step) =>
    step.actions.flatMap((action) =>
      action.kind === 'command' && action.command === 'request'
        ? [(action.params as { message: { again?: boolean } }).message.again ?? false]
        : [],
    );

  test.each<{ into: string; after: readonly Fact[]; state: string; attempt: number }>([
    { into: 'work', after: working, state: 'preparing', attempt: 1 },
    {
      into: 'a second attempt',
      after: [...working, fails(), backoffIsOver, claimed, prepared],
      state: 'preparing',
      attempt: 2,
    },
    { into: 'verification', after: verifying, state: 'verifying', attempt: 1 },
    {
      into: 'a case for the policy',
      after: [...verifying, rejected()],
      state: 'escalated.asking',
      attempt: 1,
    },
    { into: 'a question', after: [...working, asks()], state: 'awaitingInput', attempt: 1 },
    { into: 'its preparation', after: [claimed], state: 'preparing', attempt: 1 },
    { into: 'a wait', after: [...working, fails()], state: 'retrying.workAgain', attempt: 1 },
    { into: 'its beginning', after: [], state: 'ready', attempt: 0 },
  ])('into $into, it is $state, in the same attempt', ({ after, state, attempt }) => {
    const limits = state === 'escalated.asking' ? once : {};
    const before = live(spec(limits), after);
    const step = task.take(before, rewound);
    expect([stateOf(step), contextOf(step).attempt]).toEqual([state, attempt]);
    // What it had asked is void: who waits for an answer asks again, under a number of its own.
    const asksAnew = ['verifying', 'escalated.asking'].includes(state);
    expect(contextOf(step).asked).toBe(contextOf(before).asked + (asksAnew ? 1 : 0));
    // Its run is told nothing: nothing has changed for it.
    expect(toldRun(step.actions)).toEqual([]);
  });

  test('an attempt that begins again says so to the agent; budgets and answers stay', () => {
    const before = live(spec({}), [...working, fails(), backoffIsOver, claimed, prepared]);
    const step = task.take(task.take(before, rewound), prepared);
    expect(again(step)).toEqual([true]);
    expect(contextOf(step)).toMatchObject({
      attempt: 2,
      progress: contextOf(before).progress,
      feedback: contextOf(before).feedback,
      last: { attempt: 2, outcome: 'running' },
    });
    expect(again(live(spec({}), working))).toEqual([false]);
  });

  test('into a case for the policy before its first attempt: that may have been merged since', () => {
    const asking = task.take(live(spec({}), [timeUp]), rewound);
    expect(stateOf(asking)).toBe('escalated.asking');
    const facts = [policyDecides('retry'), claimed, prepared];
    expect(again(facts.reduce<Step>((step, fact) => task.take(step, fact), asking))).toEqual([
      true,
    ]);
  });

  test('a question that is answered is gone on with in a new workspace', () => {
    const asked = live(spec({}), [...working, asks()]);
    const step = task.take(task.take(asked, rewound), answer('red'));
    expect([step.snapshot.value, contextOf(step).attempt]).toEqual(['preparing', 1]);
    expect(contextOf(step).answers).toEqual({ colour: 'red' });
    // And without a rollback where it was asked.
    expect(task.take(asked, answer('red')).snapshot.value).toBe('working');
    // The next question of the attempt is asked in the workspace that is there.
    const second = task.take(
      task.take(task.take(step, prepared), asks({ id: 'size' })),
      answer('1', 'size'),
    );
    expect(second.snapshot.value).toBe('working');
  });
});
