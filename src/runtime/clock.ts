import type { EpochMs } from '../protocol/message.ts';

/** Node fires a longer timer at once; see `setTimeout` in Node's documentation. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** The only source of time in Troupe. Tests put a simulated one in its place. */
export interface Clock {
  now(): EpochMs;
  /**
   * Calls back once after `delayMs` (0 to `MAX_TIMER_MS`). A `background` timer does not keep the process alive.
   * @returns a function that cancels it
   */
  setTimer(delayMs: number, callback: () => void, background?: boolean): () => void;
  /** What waits for a time of day looks at `now` at least this often. Default and at most: `MAX_TIMER_MS`. */
  readonly longestWaitMs?: number;
}

export const systemClock = {
  now: () => Date.now(),
  // The system's timers do not count the time in which the machine sleeps, and know nothing of a clock that is put right:
  // so nothing is late by more than a minute.
  longestWaitMs: 60_000,
  setTimer(delayMs: number, callback: () => void, background = false) {
    const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), MAX_TIMER_MS));
    if (background) timer.unref();
    return () => clearTimeout(timer);
  },
} satisfies Clock;
