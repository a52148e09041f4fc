import { Cron } from 'croner';
import { ValidationError } from '../../protocol/errors.ts';

/*
 * When a schedule is due. Pure: the same times come of the same definition and the same moment, whatever the clock says.
 * (What a time zone does on a date is the runtime's knowledge; an update of Node may change it for times to come.)
 */

/** By the calendar of a time zone, or every so many milliseconds from an anchor. */
export type Timing =
  | { readonly cron: string; readonly timeZone: string }
  | { readonly everyMs: number; readonly anchorMs: number };

/** A pattern costs some ten microseconds to read; a schedule asks for it again and again. */
const patterns = new Map<string, Cron>();
const MAX_PATTERNS = 1_000;

/**
 * Days and hours of a cron pattern with five fields (minute, hour, day of month, month, day of week).
 *
 * When the clocks change: a pattern that names its hours and minutes (`30 2 * * *`, `0 2,14 * * *`) is due once a day. A
 * time that the clocks skip is due at the first moment after; one that comes twice is due the first time. A pattern with
 * `*` or a step in its hours or minutes is due whenever the clock on the wall fits: not in the hour that is skipped, and in
 * both of a repeated one.
 * Source: https://man7.org/linux/man-pages/man8/cron.8.html (the same, as "wildcard jobs")
 */
function patternOf({ cron, timeZone }: { readonly cron: string; readonly timeZone: string }): Cron {
  const key = `${timeZone} ${cron}`;
  let pattern = patterns.get(key);
  if (pattern === undefined) {
    // Without a function it starts no timer.
    pattern = new Cron(cron, {
      timezone: timeZone,
      mode: '5-part',
      fixedTimeRule: 'no-wildcard',
      paused: true,
    });
    if (patterns.size >= MAX_PATTERNS) patterns.clear();
    patterns.set(key, pattern);
  }
  return pattern;
}

/** @returns the first due time after `after`; null if there is none */
export function nextDue(timing: Timing, after: number): number | null {
  if ('everyMs' in timing) {
    const { everyMs, anchorMs } = timing;
    return after < anchorMs
      ? anchorMs
      : anchorMs + (Math.floor((after - anchorMs) / everyMs) + 1) * everyMs;
  }
  return patternOf(timing).nextRun(new Date(after))?.getTime() ?? null;
}

/** Looked at first; then twice as much, and so on, until there are enough in it. */
const FIRST_WINDOW_MS = 3_600_000;

/**
 * The last due times of those from `from` to `until`, both included, at most `count`, oldest first. It does not look at
 * those before them one by one: after a year of rest a schedule that is due each minute has half a million.
 */
export function lastDues(
  timing: Timing,
  from: number,
  until: number,
  count: number,
): readonly number[] {
  for (let windowMs = FIRST_WINDOW_MS; ; windowMs *= 2) {
    const begin = Math.max(from, until - windowMs);
    const dues: number[] = [];
    for (let due = nextDue(timing, begin - 1); due !== null && due <= until; ) {
      dues.push(due);
      due = nextDue(timing, due);
    }
    if (dues.length >= count || begin === from) return dues.slice(-count);
  }
}

/** @throws {ValidationError} it is no pattern, or no time zone; says which, and what is expected */
export function checkCron(cron: unknown, timeZone: unknown, where: string): void {
  if (typeof cron !== 'string') {
    throw new ValidationError(
      `Expected the cron pattern of ${where} to be a text such as "0 3 * * *", got ${typeof cron}.`,
    );
  }
  if (typeof timeZone !== 'string' || !isTimeZone(timeZone)) {
    throw new ValidationError(
      `Expected the time zone of ${where} to be the name of one, such as "Europe/Berlin" or "UTC", got ${JSON.stringify(timeZone) ?? String(timeZone)}.`,
    );
  }
  const refused = (why: string, cause?: unknown): ValidationError =>
    new ValidationError(
      `Expected the cron pattern of ${where} to have five fields (minute, hour, day of month, month, day of week) such as "0 3 * * *", got ${JSON.stringify(cron.slice(0, 200))}: ${why}`,
      { cause },
    );
  // Croner takes a date as well, for once: one that has passed would be a schedule that has ended before it began.
  if (cron.includes(':')) throw refused('it is a date.');
  let pattern: Cron;
  try {
    pattern = patternOf({ cron, timeZone });
  } catch (error) {
    throw refused((error as Error).message.replace(/^CronPattern: /, ''), error);
  }
  if (pattern.nextRun(new Date(0)) === null) {
    throw new ValidationError(
      `Expected the cron pattern of ${where} to be due some day, got ${JSON.stringify(cron)}: no such day ever comes.`,
    );
  }
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
