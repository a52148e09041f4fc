import { type Clock, MAX_TIMER_MS } from './clock.ts';
import { type Due, TimerHeap } from './timer-heap.ts';

/** Something that happens at a time. */
export interface Appointment extends Due {
  /** Called once, when the time has come; it has left the agenda by then. Must not throw. */
  due(): void;
}

/** Everything that is due some time, on one timer of the clock. */
export class Agenda {
  readonly #clock: Clock;
  readonly #heap = new TimerHeap<Appointment>();
  #running = false;
  #ringing = false;
  #alarmAt = Number.POSITIVE_INFINITY;
  #cancelAlarm: () => void = () => undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#heap.size;
  }

  /** Nothing is called back before this. */
  start(): void {
    this.#running = true;
    this.#arm();
  }

  /** Nothing is called back after this. */
  stop(): void {
    this.#running = false;
    this.#cancelAlarm();
    this.#alarmAt = Number.POSITIVE_INFINITY;
  }

  add(appointment: Appointment): void {
    this.#heap.push(appointment);
    if (appointment.dueAt < this.#alarmAt) this.#arm();
  }

  /** The alarm is left as it is: one that rings for nobody costs less than setting it anew each time. */
  remove(appointment: Appointment): void {
    this.#heap.remove(appointment);
  }

  #arm(): void {
    const next = this.#heap.peek();
    if (!this.#running || this.#ringing || next === undefined || next.dueAt >= this.#alarmAt) {
      return;
    }
    this.#cancelAlarm();
    this.#alarmAt = next.dueAt;
    const { longestWaitMs = MAX_TIMER_MS } = this.#clock;
    const waitMs = Math.min(Math.max(0, next.dueAt - this.#clock.now()), longestWaitMs);
    this.#cancelAlarm = this.#clock.setTimer(waitMs, () => this.#ring());
  }

  #ring(): void {
    this.#alarmAt = Number.POSITIVE_INFINITY;
    this.#ringing = true;
    const now = this.#clock.now();
    for (let next = this.#heap.peek(); next !== undefined; next = this.#heap.peek()) {
      if (next.dueAt > now || !this.#running) break;
      this.#heap.pop();
      next.due();
    }
    this.#ringing = false;
    this.#arm();
  }
}
