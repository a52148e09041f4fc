import type { Clock } from '../runtime/clock.ts';
import { ABORT_GRACE_MS } from '../runtime/left-behind.ts';

/** Aborted work that is left behind is given up 5 s later; a moment more, so that it is that which is seen. */
const STOP_WITHIN_MS = ABORT_GRACE_MS + 1_000;

/** What has become of the work that ran for a task when it was cancelled. */
export interface Stopped {
  /** It has ended: `agent/writer`, `gatekeeper/git`. */
  readonly stopped: readonly string[];
  /** It does not heed its signal, and may still be at work. */
  readonly notStopped: readonly string[];
}

/**
 * Who works for which task in this process, until they have really ended: also those that the runtime has left behind.
 * What is taken back must not be done meanwhile. Another process has nothing running: it has ended with what it ran.
 */
export class UnderWay {
  readonly #clock: Clock;
  readonly #byTask = new Map<
    string,
    Set<{ readonly who: string; readonly ended: Promise<void> }>
  >();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @returns the same promise */
  track<T>(task: string, who: string, work: Promise<T>): Promise<T> {
    const works = this.#byTask.get(task) ?? new Set();
    this.#byTask.set(task, works);
    const forget = (): void => {
      works.delete(entry);
      if (works.size === 0 && this.#byTask.get(task) === works) this.#byTask.delete(task);
    };
    const entry = { who, ended: work.then(forget, forget) };
    works.add(entry);
    return work;
  }

  /**
   * Waits until nothing works for the task any more, at most 6 s. Whoever calls has seen to it that it is called off.
   * @throws the signal's reason
   */
  async stopped(task: string, signal: AbortSignal): Promise<Stopped> {
    const works = [...(this.#byTask.get(task) ?? [])];
    if (works.length === 0) return { stopped: [], notStopped: [] };
    const names = new Set(works.map(({ who }) => who));
    const { promise: given, resolve, reject } = Promise.withResolvers<void>();
    const cancel = this.#clock.setTimer(STOP_WITHIN_MS, resolve);
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      await Promise.race([Promise.all(works.map(({ ended }) => ended)), given]);
    } finally {
      cancel();
      signal.removeEventListener('abort', onAbort);
    }
    const left = new Set(Array.from(this.#byTask.get(task) ?? [], ({ who }) => who));
    return {
      stopped: [...names].filter((who) => !left.has(who)),
      notStopped: [...names].filter((who) => left.has(who)),
    };
  }
}
