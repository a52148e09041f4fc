import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import { DEFAULT_TASK_LIMITS, type TaskLimits } from '../../../src/machines/policies/limits.ts';
import {
  type Assessment,
  type AttemptOutcome,
  assess,
  emptyProgress,
  type ProgressRecord,
  recordOutcome,
} from '../../../src/machines/policies/progress.ts';

const infrastructure: AttemptOutcome = { kind: 'infrastructure' };
const work = (errorFingerprint?: string, rest: Partial<AttemptOutcome> = {}): AttemptOutcome => ({
  kind: 'work',
  errorFingerprint,
  ...rest,
});
const change = (changeFingerprint: string) => work(undefined, { changeFingerprint });
const feedback = (feedbackFingerprint?: string) => work(undefined, { feedbackFingerprint });
const repeat = (times: number, outcome: AttemptOutcome) =>
  Array.from({ length: times }, () => outcome);
const different = (times: number) => Array.from({ length: times }, (_, i) => work(`e${i}`));

function recordAll(outcomes: readonly AttemptOutcome[]): ProgressRecord {
  return outcomes.reduce(recordOutcome, emptyProgress());
}

/** The first assessment that is not `retry`, and after how many outcomes it came. */
function run(
  outcomes: Iterable<AttemptOutcome>,
  limits: TaskLimits,
): { taken: number; end: Assessment } {
  let record = emptyProgress();
  let taken = 0;
  for (const outcome of outcomes) {
    record = recordOutcome(record, outcome);
    taken++;
    const end = assess(record, limits);
    if (end.next !== 'retry') return { taken, end };
  }
  return { taken, end: { next: 'retry' } };
}

describe('with the default limits', () => {
  test.each([
    { what: 'nothing yet', outcomes: [], is: 'retry' },
    { what: 'one failure', outcomes: [work('a')], is: 'retry' },
    { what: 'the same error twice', outcomes: repeat(2, work('a')), is: 'retry' },
    {
      what: 'the same error three times',
      outcomes: repeat(3, work('a')),
      is: 'blocked same_error',
    },
    {
      what: 'the same error three times with gaps',
      outcomes: [work('a'), work(), infrastructure, work('a'), work('a')],
      is: 'blocked same_error',
    },
    {
      what: 'another error between',
      outcomes: [work('a'), work('a'), work('b'), work('a')],
      is: 'retry',
    },
    {
      what: 'the same change three times',
      outcomes: repeat(3, change('c')),
      is: 'blocked same_change',
    },
    {
      what: 'the same change, errors differ',
      outcomes: [1, 2, 3].map((i) => work(`e${i}`, { changeFingerprint: 'c' })),
      is: 'blocked same_change',
    },
    {
      what: 'the same feedback twice',
      outcomes: repeat(2, feedback('f')),
      is: 'escalated same_feedback',
    },
    {
      what: 'other feedback',
      outcomes: [feedback('f'), feedback('g'), feedback('f')],
      is: 'retry',
    },
    { what: 'no feedback twice', outcomes: repeat(2, feedback()), is: 'retry' },
    { what: 'errors A B A', outcomes: ['a', 'b', 'a'].map((e) => work(e)), is: 'retry' },
    {
      what: 'errors A B A B',
      outcomes: ['a', 'b', 'a', 'b'].map((e) => work(e)),
      is: 'blocked oscillation',
    },
    { what: 'errors A B A C', outcomes: ['a', 'b', 'a', 'c'].map((e) => work(e)), is: 'retry' },
    {
      what: 'changes A B A B',
      outcomes: ['a', 'b', 'a', 'b'].map(change),
      is: 'blocked oscillation',
    },
    {
      what: 'errors A B C A B',
      outcomes: ['a', 'b', 'c', 'a', 'b'].map((e) => work(e)),
      is: 'retry',
    },
    {
      what: 'errors A B C A B C',
      outcomes: ['a', 'b', 'c', 'a', 'b', 'c'].map((e) => work(e)),
      is: 'blocked oscillation',
    },
    {
      what: 'errors A A B A A B',
      outcomes: ['a', 'a', 'b', 'a', 'a', 'b'].map((e) => work(e)),
      is: 'blocked oscillation',
    },
    {
      what: 'a circle with gaps',
      outcomes: [work('a'), infrastructure, work('b'), work(), work('a'), work('b')],
      is: 'blocked oscillation',
    },
    { what: 'nine different errors', outcomes: different(9), is: 'retry' },
    { what: 'ten different errors', outcomes: different(10), is: 'escalated attempts' },
    { what: 'ten times nothing known', outcomes: repeat(10, work()), is: 'escalated attempts' },
    { what: 'nine infrastructure faults', outcomes: repeat(9, infrastructure), is: 'retry' },
    {
      what: 'ten infrastructure faults',
      outcomes: repeat(10, infrastructure),
      is: 'escalated infrastructure',
    },
    {
      what: 'infrastructure that held once',
      outcomes: [...repeat(9, infrastructure), work('a'), ...repeat(9, infrastructure)],
      is: 'retry',
    },
    {
      what: 'nine attempts and nine faults',
      outcomes: [...different(9), ...repeat(9, infrastructure)],
      is: 'retry',
    },
    {
      what: 'empty fingerprints',
      outcomes: repeat(4, work('', { changeFingerprint: '', feedbackFingerprint: '' })),
      is: 'retry',
    },
    {
      what: 'feedback and error at once',
      outcomes: repeat(3, work('a', { feedbackFingerprint: 'f' })),
      is: 'escalated same_feedback',
    },
    {
      what: 'a streak that uses up the attempts',
      outcomes: [...different(7), ...repeat(3, work('x'))],
      is: 'blocked same_error',
    },
  ])('after $what: $is', ({ outcomes, is }) => {
    const result = assess(recordAll(outcomes), DEFAULT_TASK_LIMITS);
    expect(result.next === 'retry' ? 'retry' : `${result.next} ${result.cause}`).toBe(is);
  });
});

test('a streak below its limit is no circle', () => {
  const patient = { ...DEFAULT_TASK_LIMITS, sameError: 9, sameChange: 9 };
  const record = recordAll(repeat(8, work('a', { changeFingerprint: 'c' })));
  expect(assess(record, patient)).toEqual({ next: 'retry' });
});

describe('the reason', () => {
  const print = (digit: string) => digit.repeat(64);
  test.each([
    [
      repeat(3, work(print('a'))),
      /^The same error came 3 times in a row \(error aaaaaaaaaaaa\)\. .*unblock/,
    ],
    [repeat(3, change(print('c'))), /same change 3 times in a row \(change cccccccccccc\)/],
    [
      repeat(2, feedback(print('f'))),
      /same feedback came twice in a row \(feedback ffffffffffff\).*guidance/,
    ],
    [
      ['a', 'b', 'a', 'b'].map((e) => work(print(e))),
      /errors of its last 4 attempts repeat with period 2 \(aaaaaaaaaaaa → bbbbbbbbbbbb, twice\)/,
    ],
    [
      ['a', 'b', 'c', 'a', 'b', 'c'].map((e) => change(print(e))),
      /changes of its last 6 attempts repeat with period 3/,
    ],
    [different(10), /^All 10 attempts are used up; the last error e9\./],
    [repeat(10, work()), /^All 10 attempts are used up\./],
    [
      repeat(10, infrastructure),
      /infrastructure failed 10 times in a row; the work itself was not judged/,
    ],
  ])('of case %# names counts and fingerprints', (outcomes, pattern) => {
    const result = assess(recordAll(outcomes), DEFAULT_TASK_LIMITS);
    expect(result.next === 'retry' ? '' : result.reason).toMatch(pattern);
  });
});

const fingerprint = fc.option(fc.constantFrom('a', 'b', 'c', 'd'), { nil: undefined });
const workOutcome: fc.Arbitrary<AttemptOutcome> = fc.record({
  kind: fc.constant('work' as const),
  errorFingerprint: fingerprint,
  changeFingerprint: fingerprint,
  feedbackFingerprint: fingerprint,
});
const outcome = fc.oneof(workOutcome, fc.constant(infrastructure));
const history = fc.array(outcome, { maxLength: 30 });
const count = fc.integer({ min: 1, max: 8 });
const limits: fc.Arbitrary<TaskLimits> = fc
  .record({
    attempts: count,
    sameError: count,
    sameChange: count,
    sameFeedback: count,
    infrastructureAttempts: count,
  })
  .map((counts) => ({ ...DEFAULT_TASK_LIMITS, ...counts }));

describe('the laws', () => {
  test.prop([fc.infiniteStream(outcome), limits])('no history retries for ever', (endless, l) => {
    const { taken, end } = run(endless.take(1_000), l);
    expect(end.next).not.toBe('retry');
    expect(taken).toBeLessThanOrEqual(l.attempts * l.infrastructureAttempts);
  });

  test.prop([fc.infiniteStream(workOutcome), limits])(
    'no more attempts at the work are made than allowed',
    (endless, l) => {
      expect(run(endless.take(1_000), l).taken).toBeLessThanOrEqual(l.attempts);
    },
  );

  test.prop([history])('a missing fingerprint neither counts nor resets', (outcomes) => {
    const trails = (all: readonly AttemptOutcome[]) => {
      const { error, change, feedback } = recordAll(all);
      return { error, change, feedback };
    };
    expect(trails(outcomes.flatMap((one) => [one, work()]))).toEqual(trails(outcomes));
  });

  test.prop([history, history])(
    'infrastructure faults never count towards the work',
    (before, later) => {
      const without = [...before, ...later].filter(({ kind }) => kind === 'work');
      const record = recordAll([...before, infrastructure, ...later]);
      expect({ ...record, infrastructureStreak: 0 }).toEqual({
        ...recordAll(without),
        infrastructureStreak: 0,
      });
    },
  );

  test.prop([history])('a streak is the number of equal fingerprints at the end', (outcomes) => {
    const seen = outcomes
      .filter(({ kind }) => kind === 'work')
      .flatMap(({ errorFingerprint }) => errorFingerprint ?? []);
    const other = seen.findLastIndex((print) => print !== seen.at(-1));
    expect(recordAll(outcomes).error.streak).toBe(seen.length - other - 1);
  });

  test.prop([
    fc.array(outcome, { maxLength: 3 }),
    fc.uniqueArray(fc.stringMatching(/^[e-z]{3}$/), { minLength: 2, maxLength: 3 }),
    fc.boolean(),
  ])(
    'a circle of two or three is found by its second round at the latest',
    (before, circle, inChanges) => {
      const wide = {
        ...DEFAULT_TASK_LIMITS,
        attempts: 99,
        sameError: 99,
        sameChange: 99,
        sameFeedback: 99,
      };
      const round = circle.map((print) => (inChanges ? change(print) : work(print)));
      const result = assess(recordAll([...before, ...round, ...round]), wide);
      expect(result).toMatchObject({ next: 'blocked', cause: 'oscillation' });
    },
  );

  test.prop([fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 9 })])(
    'a task whose errors all differ goes on',
    (prints) => {
      expect(assess(recordAll(prints.map((print) => work(print))), DEFAULT_TASK_LIMITS)).toEqual({
        next: 'retry',
      });
    },
  );

  test.prop([history, fc.nat(30)])('a restart in the middle changes nothing', (outcomes, at) => {
    const stored = JSON.parse(JSON.stringify(recordAll(outcomes.slice(0, at)))) as ProgressRecord;
    expect(outcomes.slice(at).reduce(recordOutcome, stored)).toEqual(recordAll(outcomes));
  });

  test('the record stays small, however many attempts and however long the fingerprints', () => {
    const record = recordAll(
      Array.from({ length: 5_000 }, (_, i) => {
        const print = `${i}`.padEnd(10_000, 'x');
        return work(print, { changeFingerprint: print, feedbackFingerprint: print });
      }),
    );
    expect(JSON.stringify(record).length).toBeLessThan(2_048);
    expect(record.attempts).toBe(5_000);
  });

  test('two long fingerprints that begin alike stay apart', () => {
    const long = 'x'.repeat(500);
    expect(recordAll([work(`${long}1`), work(`${long}2`)]).error.streak).toBe(1);
    expect(recordAll([work(`${long}1`), work(`${long}1`)]).error.streak).toBe(2);
  });
});
