import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { QaSpec } from '../../src/machines/policies/fix.ts';
import { answerIn, type Fact, messagesIn, type Step, shownState, stateOf } from './driven.ts';
import {
  accepted,
  answer,
  asks,
  backoffIsOver,
  breaksDown,
  cancel,
  claimed,
  contextOf,
  decide,
  fails,
  failsPreflight,
  gatekeeperFails,
  isNotThere,
  live,
  needsApproval,
  notPrepared,
  notVerified,
  pause,
  prepareDies,
  prepared,
  rejected,
  resume,
  rewound,
  submissionIsGone,
  submitted,
  task,
  timeUp,
  unblock,
  verifying,
  workDies,
} from './task-facts.ts';

const QA: QaSpec = { agents: ['mender'], sessions: 3, iterations: 2 };
const takes = (from: Step, facts: readonly Fact[]): Step =>
  facts.reduce((step, fact) => task.take(step, fact), from);
const ledBy = (facts: readonly Fact[], qa: Partial<QaSpec> = {}, limits = {}) =>
  live({ qa: { ...QA, ...qa }, limits }, facts);
/** What the newest step has asked of an agent. */
const asked = ({ actions }: Step) =>
  messagesIn(actions).find(({ message }) => message.type === 'agent.work');
const atStage = (stage: string): Fact => {
  const fact = rejected() as { readonly type: string; readonly reply: object };
  return { ...fact, reply: { ...fact.reply, stage } };
};
const fixing = [...verifying, rejected({ error: 'e1' }), prepared];
const last = (step: Step) => contextOf(step).last;

describe('what was rejected is mended by another agent', () => {
  test('which is given it as it is, the error and the evidence, and told to mend only that', () => {
    const step = ledBy(fixing);
    expect(stateOf(step)).toBe('fixing.working');
    expect(asked(step)).toMatchObject({
      to: 'agent/mender',
      message: {
        attempt: 1,
        feedback: ['Mend the test.'],
        fix: {
          ...{ number: 1, session: 1, sessions: 3, iteration: 1, iterations: 2 },
          ...{ stage: 'verify', reason: 'npm test failed.', artifact: null, result: 'a draft' },
          commands: [expect.objectContaining({ name: 'test', excerpt: 'ok' })],
          instruction: expect.stringMatching(
            /refused \(verify\): npm test failed\.\n.*Mend only this/,
          ),
        },
        fixers: [{ attempt: 1, agent: 'mender' }],
      },
    });
    expect(contextOf(step).reason).toBe('QA session 1 of 3, iteration 1 of 2: npm test failed.');
  });

  test('what it hands in goes to the gatekeeper, and is done if that accepts it', () => {
    const verified = ledBy([...fixing, submitted('mended')]);
    expect(messagesIn(verified.actions)).toContainEqual(
      expect.objectContaining({
        message: expect.objectContaining({ result: 'mended', attempt: 1 }),
      }),
    );
    const step = task.take(verified, accepted);
    expect(shownState(step)).toBe('done');
    expect(contextOf(step)).toMatchObject({ agent: 'writer', fix: null, attempt: 1 });
    expect(last(step)).toMatchObject({
      outcome: 'accepted',
      refused: { stage: 'verify', reason: 'npm test failed.' },
      fixes: [{ session: 1, iteration: 1, agent: 'mender', outcome: 'accepted' }],
    });
  });

  test('an approval is of what was seen: what is handed in instead is not approved', () => {
    const approved = ledBy([...verifying, needsApproval, decide('approve')]);
    const isApproved = (step: Step) =>
      messagesIn(step.actions).find(({ message }) => message.type === 'gatekeeper.verify')?.message[
        'approved'
      ];
    expect(isApproved(approved)).toBe(true);
    const mended = takes(approved, [rejected({ error: 'e1' }), prepared, submitted('mended')]);
    expect(stateOf(mended)).toBe('verifying');
    expect(isApproved(mended)).toBe(false);
  });

  test('rejected again, it goes on from what it has handed in itself; then its agent tries again', () => {
    const second = ledBy([...fixing, submitted('half'), rejected({ error: 'e2' }), prepared]);
    expect(asked(second)?.message).toMatchObject({
      fix: { number: 2, session: 1, iteration: 2, result: 'half' },
    });
    const ended = takes(second, [submitted('other'), rejected({ error: 'e3' })]);
    expect(stateOf(ended)).toBe('retrying.workAgain');
    expect(contextOf(ended)).toMatchObject({
      fix: null,
      progress: { attempts: 1, error: { streak: 1, recent: ['e1', 'e2', 'e3'] } },
      reason: 'npm test failed. (QA by "mender": 2 of 2 iterations, not mended)',
    });
    expect(last(ended)).toMatchObject({
      ...{ attempt: 1, outcome: 'rejected', stage: 'verify' },
      fixes: [
        { iteration: 1, outcome: 'rejected' },
        { iteration: 2, outcome: 'rejected' },
      ],
    });
    const again = takes(ended, [backoffIsOver, claimed, prepared]);
    expect(asked(again)).toMatchObject({ to: 'agent/writer', message: { attempt: 2 } });
    expect(asked(again)?.message).not.toHaveProperty('fix');
  });

  test('so often for a task, and anew after somebody has decided about it', () => {
    const round = [submitted(), rejected(), prepared, fails(), backoffIsOver, claimed, prepared];
    const limits = { sameFeedback: 9 };
    const qa = { sessions: 2 };
    const used = ledBy(
      [claimed, prepared, ...round, ...round, submitted(), rejected()],
      qa,
      limits,
    );
    expect([stateOf(used), contextOf(used).sessions]).toEqual(['retrying.workAgain', 2]);
    const anew = takes(used, [unblock(), claimed, prepared, submitted(), rejected()]);
    expect([stateOf(anew), contextOf(anew).sessions]).toEqual(['fixing.preparing', 1]);
  });

  test('also after the last attempt; when it was not mended, a person decides', () => {
    const step = ledBy(fixing, {}, { attempts: 1 });
    expect(stateOf(step)).toBe('fixing.working');
    const ended = task.take(step, fails());
    expect(shownState(ended)).toBe('escalated');
    expect(contextOf(ended).reason).toMatch(/^All 1 attempts are used up.*npm test failed\. \(QA/);
  });

  test('red where it was made, it is mended as well, and so is what the mending left red', () => {
    const step = ledBy([claimed, prepared, failsPreflight('red'), prepared]);
    expect(asked(step)?.message).toMatchObject({ fix: { iteration: 1, result: 'red' } });
    const again = takes(step, [failsPreflight('still red'), prepared]);
    expect(asked(again)?.message).toMatchObject({ fix: { iteration: 2, result: 'still red' } });
    const ended = task.take(again, fails('I cannot.'));
    expect(last(ended)).toMatchObject({ outcome: 'failed', stage: 'verify' });
  });

  test.each(['setup', 'verify', 'verify_timeout', 'review'])('rejected at %s', (stage) => {
    expect(shownState(ledBy([...verifying, atStage(stage)]))).toBe('fixing');
  });
});

describe('its agent tries again, and nobody mends,', () => {
  test.each([
    { what: 'what does not apply', facts: [...verifying, atStage('apply')] },
    { what: 'what does not merge', facts: [...verifying, atStage('merge')] },
    { what: 'what the policy refuses', facts: [...verifying, atStage('policy')] },
    { what: 'what was not handed in', facts: [claimed, prepared, fails()] },
    { what: 'what could not be verified', facts: [...verifying, notVerified()] },
  ])('$what', ({ facts }) => {
    const step = ledBy(facts);
    expect([shownState(step), contextOf(step).sessions]).toEqual(['retrying', 0]);
  });

  test('where nobody is named for it', () => {
    expect(shownState(live({}, [...verifying, rejected()]))).toBe('retrying');
  });

  test('what makes no progress: it is blocked, as before', () => {
    expect(shownState(ledBy([...verifying, rejected({ error: 'e' })], {}, { sameError: 1 }))).toBe(
      'blocked',
    );
    // The same error is the same whoever meets it.
    const step = ledBy(
      [...fixing, submitted('x'), rejected({ error: 'e1' })],
      {},
      { sameError: 2 },
    );
    expect(shownState(step)).toBe('blocked');
    expect(last(step)?.fixes).toHaveLength(1);
    expect(contextOf(step).fix).toBeNull();
  });
});

describe('whoever mends cannot', () => {
  test.each([
    { what: 'it fails', facts: [fails('I give up.')], says: 'I give up.', outcome: 'failed' },
    {
      what: 'it is away',
      facts: [breaksDown(60_000)],
      says: 'Too many',
      outcome: 'infrastructure',
    },
    { what: 'it does not exist', facts: [isNotThere], says: 'no actor', outcome: 'infrastructure' },
  ])('$what: the session ends, and its agent tries again', ({ facts, says, outcome }) => {
    const step = ledBy([...fixing, ...facts]);
    expect(stateOf(step)).toBe('retrying.workAgain');
    const context = contextOf(step);
    expect(context).toMatchObject({
      ...{ fix: null, cause: 'work', next: 'retry', agent: 'writer', retryInMs: 10_000 },
      progress: { attempts: 1, infrastructureStreak: 0 },
      reason: expect.stringContaining(says),
    });
    expect(last(step)).toMatchObject({
      ...{ outcome: 'rejected', stage: 'verify', reason: 'npm test failed.' },
      fixes: [{ outcome, reason: expect.stringContaining(says) }],
    });
  });

  test('and has no place to work in: the same', () => {
    const step = ledBy([...fixing.slice(0, -1), notPrepared]);
    expect(stateOf(step)).toBe('retrying.workAgain');
    expect(contextOf(step).reason).toContain('The disk is full.');
  });

  test('and another one is named: that one is asked, in a fresh place and with steps of its own', () => {
    const qa = { agents: ['mender', 'second'] };
    const passed = ledBy([...fixing, breaksDown()], qa);
    expect(stateOf(passed)).toBe('fixing.preparing');
    const step = task.take(passed, prepared);
    expect(asked(step)).toMatchObject({
      to: 'agent/second',
      message: { fix: { number: 2, session: 1, iteration: 1 } },
    });
    const done = takes(step, [submitted('mended'), accepted]);
    expect(last(done)?.fixes).toEqual([
      expect.objectContaining({
        agent: 'second',
        insteadOf: [{ agent: 'mender', reason: 'Too many requests.' }],
      }),
    ]);
    // Bad work is no reason.
    expect(stateOf(ledBy([...fixing, fails()], qa))).toBe('retrying.workAgain');
  });

  test('because the process dies of it: a person looks', () => {
    for (const step of [
      ledBy([...fixing, workDies]),
      ledBy([...fixing.slice(0, -1), prepareDies]),
    ]) {
      expect(shownState(step)).toBe('escalated');
      expect(contextOf(step)).toMatchObject({ fix: null });
    }
    expect(contextOf(ledBy([...fixing, workDies])).reason).toContain('worked on by "mender"');
  });
});

describe('while it is mended', () => {
  test('a question of whoever mends it is answered to that one', () => {
    const step = ledBy([...fixing, asks()]);
    expect(shownState(step)).toBe('awaitingInput');
    const on = task.take(step, answer());
    expect([stateOf(on), answerIn(on.actions), asked(on)?.to]).toEqual([
      'fixing.working',
      'fixing',
      'agent/mender',
    ]);
    // The same request, gone on with: its steps are not done again.
    expect(asked(on)?.message).toMatchObject({ answers: { colour: 'red' }, fix: { number: 1 } });
  });

  test('it is cancelled and called off as an attempt is', () => {
    const step = ledBy(fixing);
    const cancelled = task.take(step, cancel);
    expect([shownState(cancelled), answerIn(cancelled.actions)]).toEqual([
      'cancelling',
      'cancelling',
    ]);
    expect(messagesIn(cancelled.actions)).toContainEqual(
      expect.objectContaining({
        to: 'agent/mender',
        message: expect.objectContaining({ type: 'agent.cancel' }),
      }),
    );
    expect(last(cancelled)).toMatchObject({
      outcome: 'cancelled',
      fixes: [{ outcome: 'cancelled' }],
    });
    const late = task.take(step, timeUp);
    expect([shownState(late), contextOf(late).fix]).toEqual(['escalated', null]);
  });

  test('a pause holds when the attempt has ended', () => {
    const step = ledBy([...fixing, pause]);
    expect([stateOf(step), answerIn(step.actions)]).toEqual(['fixing.working', 'fixing']);
    expect(shownState(task.take(step, fails()))).toBe('paused');
    expect(shownState(task.take(task.take(step, resume), fails()))).toBe('retrying');
  });

  test('it is rolled back: it is begun again in a new place', () => {
    const step = ledBy([...fixing, rewound]);
    expect(stateOf(step)).toBe('fixing.preparing');
    const again = task.take(step, prepared);
    expect(asked(again)?.message).toMatchObject({ again: true, fix: { number: 2, iteration: 1 } });
    const asking = ledBy([...fixing, asks(), rewound, answer()]);
    expect(stateOf(asking)).toBe('fixing.preparing');
  });

  test('what was handed in and could not be judged is judged later, as what mends it', () => {
    for (const fault of [notVerified(), gatekeeperFails]) {
      const step = ledBy([...fixing, submitted('mended'), fault]);
      expect(stateOf(step)).toBe('retrying.verifyAgain');
      const done = takes(step, [backoffIsOver, accepted]);
      expect(last(done)?.fixes).toEqual([expect.objectContaining({ outcome: 'accepted' })]);
      const not = takes(step, [backoffIsOver, rejected({ error: 'e2' })]);
      expect([shownState(not), contextOf(not).fix?.iteration]).toEqual(['fixing', 2]);
    }
    const gone = ledBy([...fixing, submitted('mended'), submissionIsGone]);
    expect([stateOf(gone), contextOf(gone).fix]).toEqual(['retrying.workAgain', null]);
  });

  test('what needs approval is approved as any other', () => {
    const step = ledBy([...fixing, submitted('mended'), needsApproval]);
    expect(shownState(step)).toBe('awaitingApproval');
    const approved = takes(step, [decide('approve'), accepted]);
    expect(last(approved)?.fixes).toEqual([expect.objectContaining({ outcome: 'accepted' })]);
    const refused = task.take(step, decide('retry'));
    expect(contextOf(refused)).toMatchObject({ fix: null, sessions: 0 });
  });
});

describe('whatever comes of it', () => {
  const word = fc.constantFrom('reject', 'reject', 'reject', 'fail', 'away', 'accept', 'disk');
  const words = fc.array(
    fc.record({ word, error: fc.nat({ max: 3 }), change: fc.nat({ max: 3 }) }),
    { minLength: 60, maxLength: 60 },
  );
  const limits = fc.record({
    attempts: fc.integer({ min: 1, max: 4 }),
    sameError: fc.integer({ min: 2, max: 9 }),
    sameChange: fc.integer({ min: 2, max: 9 }),
    sameFeedback: fc.constant(9),
    infrastructureAttempts: fc.integer({ min: 1, max: 3 }),
  });
  const qa = fc.record({
    agents: fc.constantFrom(['mender'], ['mender', 'second']),
    sessions: fc.integer({ min: 1, max: 3 }),
    iterations: fc.integer({ min: 1, max: 3 }),
  });

  test('there are at most sessions × iterations tries to mend it, the attempts are what they were, and it ends', () => {
    fc.assert(
      fc.property(words, limits, qa, (script, bounds, who) => {
        let step: Step = live({ qa: who, limits: bounds }, []);
        let submissions = 0;
        const attempts = new Set<number>();
        let work = 0;
        const left = [...script];
        const next = () => left.shift() ?? { word: 'reject', error: 0, change: 0 };
        for (let turn = 0; turn < 500; turn++) {
          const state = stateOf(step);
          let fact: Fact;
          if (['done', 'blocked'].includes(state) || state.startsWith('escalated')) break;
          else if (state === 'ready') fact = claimed;
          else if (state.startsWith('retrying')) fact = backoffIsOver;
          else if (state === 'preparing' || state === 'fixing.preparing') {
            fact = next().word === 'disk' ? notPrepared : prepared;
          } else if (state === 'working') {
            attempts.add(contextOf(step).attempt);
            const { word: said } = next();
            fact = said === 'fail' ? fails() : said === 'away' ? breaksDown() : submitted();
            if (said === 'fail') work++;
          } else if (state === 'fixing.working') {
            const { word: said } = next();
            fact = said === 'fail' ? fails() : said === 'away' ? breaksDown() : submitted('fix');
            if (fact.type === 'agent.work:ok') submissions++;
          } else {
            expect(state).toBe('verifying');
            const { word: said, error, change } = next();
            const isFix = contextOf(step).fix !== null;
            fact =
              said === 'accept'
                ? accepted
                : said === 'disk'
                  ? notVerified()
                  : rejected({ error: `e${error}`, change: `c${change}` });
            if (fact !== accepted && said !== 'disk' && !isFix) work++;
          }
          step = task.take(step, fact);
          const context = contextOf(step);
          // Tries to mend are no attempts, whatever comes of them.
          expect(context.progress.attempts).toBe(work);
          expect(context.sessions).toBeLessThanOrEqual(who.sessions);
          expect(context.fix?.iteration ?? 0).toBeLessThanOrEqual(who.iterations);
        }
        expect(submissions).toBeLessThanOrEqual(who.sessions * who.iterations);
        expect(work).toBeLessThanOrEqual(bounds.attempts);
        expect(shownState(step)).toMatch(/^(?:done|blocked|escalated)$/);
        if (shownState(step) === 'done') expect(last(step)?.outcome).toBe('accepted');
      }),
      { numRuns: 300 },
    );
  });
});
