import type { Logger } from 'pino';
import type { EpochMs } from '../protocol/message.ts';
import type { PruneSlice, Store } from '../store/store.ts';
import type { Clock } from './clock.ts';

/** How much history is kept. */
export interface Retention {
  readonly checkpointsPerActor: number;
  readonly finishedRunsMs: number;
  readonly deadLetterMs: number;
  readonly deadLetters: number;
  readonly auditMs: number;
  readonly auditEntries: number;
}

/** What was removed. */
export interface PruneReport {
  /** Rows, by the name of what they are: `checkpoints`, `runs`, `tasks`, … */
  readonly removed: Readonly<Record<string, number>>;
  /** What the file has shrunk by. */
  readonly bytes: number;
}

/**
 * A round begins after so many turns, or after as many as there are rows that stay, which it looks at as well: a turn
 * pays for two looks and one removal, whatever the number of actors, and the file is twice as large as what stays.
 */
const TURNS_BETWEEN_ROUNDS = 4_096;
/** Between two slices turns go on undisturbed. A slice takes 5 ms or so. */
const PAUSE_MS = 20;
/** Space that is empty is soon filled again, and half of the file may be: it is given back when it is two thirds. */
const EMPTY_SHARE = 0.66;
const EMPTY_SHARE_AFTER = 0.55;
const EMPTY_BYTES = 16 * 2 ** 20;

export interface HousekeepingOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  /** undefined: only by hand. */
  readonly retention: Retention | undefined;
  /** The runs of which an actor is in memory now. */
  readonly busyRuns: () => readonly string[];
}

/**
 * Removes what is too old, in rounds of small slices: one round after opening, then one after so many turns. Where
 * nothing happens nothing is looked at.
 */
export class Housekeeping {
  readonly #o: HousekeepingOptions;
  #turns = 0;
  #nextRoundAfter = TURNS_BETWEEN_ROUNDS;
  #state: 'new' | 'open' | 'stopped' = 'new';
  /** The round under way. */
  #round: Promise<unknown> | undefined;
  /** Somebody prunes by hand: that is more than a round. */
  #byHand = 0;
  #endPause: (() => void) | undefined;

  constructor(options: HousekeepingOptions) {
    this.#o = options;
  }

  /** The store is open. */
  start(): void {
    this.#state = 'open';
    this.#begin();
  }

  /** The slice under way is finished, and no other begins. */
  stop(): void {
    this.#state = 'stopped';
    this.#endPause?.();
  }

  tookTurns(turns: number): void {
    this.#turns += turns;
    if (this.#turns >= this.#nextRoundAfter) this.#begin();
  }

  /** Removes everything that is older than that, and gives back all empty space. */
  async prune(retention: Retention): Promise<PruneReport> {
    this.#byHand++;
    this.#endPause?.();
    const before = this.#round;
    const mine = (async () => {
      await before;
      return await this.#slices(retention, true);
    })();
    // Whoever comes next waits for this one, however it ends.
    this.#round = mine.catch(() => undefined);
    try {
      return await mine;
    } finally {
      this.#byHand--;
      if (this.#byHand === 0) this.#round = undefined;
    }
  }

  #begin(): void {
    const { retention, logger } = this.#o;
    if (retention === undefined || this.#state !== 'open' || this.#round !== undefined) return;
    this.#turns = 0;
    this.#round = this.#slices(retention, false).then(
      ({ kept }) => {
        this.#nextRoundAfter = Math.max(TURNS_BETWEEN_ROUNDS, kept);
        if (this.#byHand === 0) this.#round = undefined;
      },
      (error: unknown) => {
        if (this.#byHand === 0) this.#round = undefined;
        // Nothing depends on it. If the store has failed for good, the next commit says so.
        if (this.#state === 'open') {
          logger.warn({ err: error }, 'old history could not be removed; it is tried again later');
        }
      },
    );
  }

  async #slices(
    retention: Retention,
    byHand: boolean,
  ): Promise<PruneReport & { readonly kept: number }> {
    const { store, clock } = this.#o;
    const removed: Record<string, number> = {};
    let bytes = 0;
    let kept = 0;
    for (const plan of plans(retention, clock.now(), byHand)) {
      let from = 0;
      for (;;) {
        if (!byHand) await this.#pause();
        if (this.#state === 'stopped' || (!byHand && this.#byHand > 0)) {
          return { removed, bytes, kept };
        }
        // Not read before it is needed: an actor that is not in memory now is not when the slice is done, because the
        // store does what it is asked in the order in which it is asked.
        const pruned = await store.prune(plan(from, this.#o.busyRuns));
        for (const [what, rows] of Object.entries(pruned.removed)) {
          removed[what] = (removed[what] ?? 0) + rows;
        }
        bytes += pruned.bytes;
        kept += pruned.kept;
        if (pruned.next === null) break;
        from = pruned.next;
      }
    }
    return { removed, bytes, kept };
  }

  #pause(): Promise<void> {
    if (this.#state === 'stopped' || this.#byHand > 0) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.#o.clock.setTimer(PAUSE_MS, () => this.#endPause?.(), true);
      this.#endPause = () => {
        this.#endPause = undefined;
        cancel();
        resolve();
      };
    });
  }
}

type Plan = (from: number, busyRuns: () => readonly string[]) => PruneSlice;

/** What a round does, one after the other. Space comes last: the others make it. */
function plans(retention: Retention, now: EpochMs, byHand: boolean): readonly Plan[] {
  return [
    (from, busyRuns) => ({
      what: 'runs',
      endedBefore: now - retention.finishedRunsMs,
      busy: busyRuns(),
      from,
    }),
    (from) => ({
      what: 'deadLetters',
      before: now - retention.deadLetterMs,
      keep: retention.deadLetters,
      from,
    }),
    (from) => ({
      what: 'audit',
      before: now - retention.auditMs,
      keep: retention.auditEntries,
      from,
    }),
    (from) => ({ what: 'streams', before: now - retention.finishedRunsMs, from }),
    (from) => ({ what: 'idempotency', expiredAt: now, from }),
    (from) => ({ what: 'checkpoints', keepPerActor: retention.checkpointsPerActor, from }),
    (from) => ({
      what: 'space',
      mayStay: byHand ? 0 : from === 0 ? EMPTY_SHARE : EMPTY_SHARE_AFTER,
      mayStayBytes: byHand ? 0 : EMPTY_BYTES,
      from,
    }),
  ];
}
