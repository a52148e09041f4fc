import { fc, test as property } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import {
  checkCron,
  lastDues,
  nextDue,
  type Timing,
} from '../../../src/machines/policies/calendar.ts';

const iso = (ms: number | null): string =>
  ms === null ? 'never' : new Date(ms).toISOString().slice(0, 16);

function next(timing: Timing, after: string, count: number): string[] {
  const found: string[] = [];
  let at: number | null = Date.parse(after);
  while (found.length < count && at !== null) {
    at = nextDue(timing, at);
    found.push(iso(at));
  }
  return found;
}

describe('when the clocks change', () => {
  const BERLIN = 'Europe/Berlin';
  const SYDNEY = 'Australia/Sydney';
  test.each([
    {
      what: 'a fixed time that is skipped is due at the first moment after (north)',
      ...{ cron: '30 2 * * *', timeZone: BERLIN, after: '2026-03-28T12:00Z' },
      due: ['2026-03-29T01:00', '2026-03-30T00:30'],
    },
    {
      what: 'a fixed time that is skipped is due at the first moment after (south)',
      ...{ cron: '30 2 * * *', timeZone: SYDNEY, after: '2026-10-03T12:00Z' },
      due: ['2026-10-03T16:00', '2026-10-04T15:30'],
    },
    {
      what: 'a fixed time that comes twice is due the first time (north)',
      ...{ cron: '30 2 * * *', timeZone: BERLIN, after: '2026-10-24T12:00Z' },
      due: ['2026-10-25T00:30', '2026-10-26T01:30'],
    },
    {
      what: 'a fixed time that comes twice is due the first time (south)',
      ...{ cron: '30 2 * * *', timeZone: SYDNEY, after: '2026-04-04T12:00Z' },
      due: ['2026-04-04T15:30', '2026-04-05T16:30'],
    },
    {
      what: 'a list of hours counts as fixed',
      ...{ cron: '0 2,14 * * *', timeZone: BERLIN, after: '2026-10-24T23:00Z' },
      due: ['2026-10-25T00:00', '2026-10-25T13:00'],
    },
    {
      what: 'every half hour goes on through the skipped hour (north)',
      ...{ cron: '*/30 * * * *', timeZone: BERLIN, after: '2026-03-29T00:00Z' },
      due: ['2026-03-29T00:30', '2026-03-29T01:00', '2026-03-29T01:30'],
    },
    {
      what: 'every half hour is due in both of a repeated hour (south)',
      ...{ cron: '*/30 * * * *', timeZone: SYDNEY, after: '2026-04-04T14:45Z' },
      due: ['2026-04-04T15:00', '2026-04-04T15:30', '2026-04-04T16:00', '2026-04-04T16:30'],
    },
  ])('$what', ({ cron, timeZone, after, due }) => {
    expect(next({ cron, timeZone }, after, due.length)).toEqual(due);
  });
});

const arbitraryTiming = fc.oneof(
  fc.record({
    cron: fc.constantFrom(
      ...[
        '* * * * *',
        '*/7 * * * *',
        '30 2 * * *',
        '0 2,14 * * *',
        '15 */3 * * 1-5',
        '59 23 L * *',
      ],
      ...['0 0 29 2 *', '30 1 * * 0', '0 3 1,15 * *', '10-20/5 2 * 3,10 *'],
    ),
    timeZone: fc.constantFrom(
      ...['UTC', 'Europe/Berlin', 'Australia/Sydney', 'America/New_York', 'Australia/Lord_Howe'],
      ...['Asia/Kolkata', 'America/Sao_Paulo', 'Africa/Cairo'],
    ),
  }),
  fc.record({
    everyMs: fc.integer({ min: 1_000, max: 100_000_000 }),
    anchorMs: fc.integer({ min: 1.7e12, max: 1.8e12 }),
  }),
) as fc.Arbitrary<Timing>;
const moment = fc.integer({ min: Date.UTC(2026, 0, 1), max: Date.UTC(2027, 11, 31) });

describe('the next due time', () => {
  property.prop([arbitraryTiming, moment])('is later, whatever the clocks do', (timing, after) => {
    for (let n = 0, at = after; n < 20; n++) {
      const due = nextDue(timing, at);
      expect(due).toBeGreaterThan(at);
      at = due as number;
    }
  });

  property.prop([arbitraryTiming, moment, fc.double({ min: 0, max: 1, noNaN: true })])(
    'is the same, whenever one asks before it',
    (timing, after, part) => {
      const due = nextDue(timing, after) as number;
      const between = after + Math.floor((due - 1 - after) * part);
      expect(iso(nextDue(timing, between))).toBe(iso(due));
    },
  );

  property.prop([
    arbitraryTiming,
    moment,
    fc.integer({ min: 0, max: 40 }),
    fc.integer({ min: 1, max: 12 }),
  ])('the last ones are the last of all, oldest first', (timing, from, more, count) => {
    const all: number[] = [];
    let due = nextDue(timing, from - 1);
    while (due !== null && all.length <= more) {
      all.push(due);
      due = nextDue(timing, due);
    }
    const until = all.at(-1) ?? from;
    expect(lastDues(timing, from, until, count)).toEqual(all.slice(-count));
  });

  test('after ten years of rest the last ones are found without looking at the others', () => {
    const timing = { cron: '* * * * *', timeZone: 'Europe/Berlin' };
    const until = Date.UTC(2026, 5, 1);
    const dues = lastDues(timing, Date.UTC(2016, 0, 1), until, 3);
    expect(dues.map(iso)).toEqual(['2026-05-31T23:58', '2026-05-31T23:59', '2026-06-01T00:00']);
  });
});

test.each([
  ['x', 'UTC', 'to have five fields'],
  ['2020-01-01T00:00:00', 'UTC', 'to have five fields'],
  ['2030-01-01 00:00:00', 'UTC', 'to have five fields'],
  ['0 3 * * * *', 'UTC', "pattern '0 3 * * * *' has 6 parts"],
  ['61 * * * *', 'UTC', 'Invalid value for minute: 61'],
  ['0 0 30 2 *', 'UTC', 'to be due some day, got "0 0 30 2 *": no such day ever comes.'],
  ['0 3 * * *', 'Europe/Berln', 'such as "Europe/Berlin" or "UTC", got "Europe/Berln".'],
  [7, 'UTC', 'to be a text such as "0 3 * * *", got number.'],
])('%s in %s is refused', (cron, timeZone, message) => {
  expect(() => checkCron(cron, timeZone, 'schedule "s"')).toThrow(message);
});
