import type { Clock } from '../../src/runtime/clock.ts';

interface SimulatedTimer {
  dueAt: number;
  readonly order: number;
  readonly callback: () => void;
}

/**
 * A clock that stands still until it is told to go on, and then goes from timer to timer: the earliest is taken
 * out, `now` becomes its time, it fires. A timer set while another fires starts from that one's time, so a chain
 * of three waits of 10 ms is through after 30 ms and not after one big jump.
 */
export class SimulatedClock implements Clock {
  #now: number;
  #order = 0;
  readonly #timers = new Set<SimulatedTimer>();

  constructor(now = 1_000_000) {
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size;
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    // As Node does: a longer delay, or one that is no number, fires at once.
    const wait = delayMs >= 1 && delayMs <= 2 ** 31 - 1 ? delayMs : 1;
    const timer = { dueAt: this.#now + wait, order: this.#order++, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Fires the earliest timer that is due by then. @returns false if there is none */
  step(until: number): boolean {
    let first: SimulatedTimer | undefined;
    for (const timer of this.#timers) {
      if (timer.dueAt > until) continue;
      if (
        first === undefined ||
        timer.dueAt < first.dueAt ||
        (timer.dueAt === first.dueAt && timer.order < first.order)
      ) {
        first = timer;
      }
    }
    if (first === undefined) return false;
    this.#timers.delete(first);
    this.#now = Math.max(this.#now, first.dueAt);
    first.callback();
    return true;
  }

  /** The machine is asleep: the time goes on, and no timer comes nearer. */
  sleep(ms: number): void {
    this.#now += ms;
    for (const timer of this.#timers) timer.dueAt += ms;
  }

  /** Sets the time without firing anything: somebody has put the clock right, or nobody was there. */
  jump(now: number): void {
    this.#now = now;
  }
}
