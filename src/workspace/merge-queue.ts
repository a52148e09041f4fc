import { TroupeError } from '../protocol/errors.ts';

/**
 * The line before one target branch: changes are verified at the same time and merged one after the other.
 *
 * ```
 *   main ◄── A ◄── B ◄── C        each is verified on top of the one ahead, as if that one were merged already
 *
 *   A passes, is first            main moves to A: exactly what B was verified on
 *   B passes before A             waits for A
 *   A fails                       leaves; B and C are called off and begin again on main: what they stood on is gone
 *   B fails before A is through   perhaps A's fault, so it waits too; C does not wait but begins again on A
 * ```
 * So main always equals a tree that was verified as a whole, and a change that is red only together with one that
 * was never merged is not blamed. Source: the "nearest non-failing change" of Zuul's dependent pipelines,
 * https://zuul-ci.org/docs/zuul/latest/gating.html
 *
 * Nothing here is stored, and nothing need be: after a crash each submission is asked for again and enters anew.
 */
export class MergeQueue {
  /** Verifications that run at once. */
  readonly lanes: number;
  readonly #line: MergePlace[] = [];
  #verifying = 0;
  #changed = Promise.withResolvers<void>();

  /** @param lanes how many verifications may run at once; 1: one after the other */
  constructor(lanes = 1) {
    this.lanes = lanes;
  }

  get length(): number {
    return this.#line.length;
  }

  /** Takes the last place. It must be left, whatever happens. */
  enter(): MergePlace {
    const place = new MergePlace(this);
    this.#line.push(place);
    return place;
  }

  /** @internal */
  isFirst(place: MergePlace): boolean {
    return this.#line[0] === place;
  }

  /** The nearest one ahead that may still be merged. @internal */
  ahead(place: MergePlace): MergePlace | undefined {
    return this.#line.slice(0, this.#line.indexOf(place)).findLast((other) => !other.inDoubt);
  }

  /** Those who stand on a place that is no longer what it was begin again. @internal */
  undermine(place: MergePlace): void {
    for (const other of this.#line) if (other.standsOn === place) other.loseGround();
    this.wake();
  }

  /** One that nobody built on may be merged after all: all behind it begin again. @internal */
  revive(place: MergePlace): void {
    for (const other of this.#line.slice(this.#line.indexOf(place) + 1)) other.loseGround();
  }

  /** @internal */
  remove(place: MergePlace): void {
    const at = this.#line.indexOf(place);
    if (at >= 0) this.#line.splice(at, 1);
    this.wake();
  }

  /** A free lane goes to whoever is furthest ahead of those that wait for one. @internal */
  takeLane(place: MergePlace): boolean {
    if (this.#verifying >= this.lanes) return false;
    if (this.#line.find((other) => other.waitsForLane) !== place) return false;
    this.#verifying++;
    return true;
  }

  /** @internal */
  leaveLane(): void {
    this.#verifying--;
    this.wake();
  }

  /** @internal */
  wake(): void {
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers();
    resolve();
  }

  /** Waits until something is so. @throws the reason of the first signal that is aborted @internal */
  async until(
    condition: () => boolean,
    signals: readonly (AbortSignal | undefined)[],
  ): Promise<void> {
    const wake = (): void => this.wake();
    for (const signal of signals) signal?.addEventListener('abort', wake);
    try {
      for (;;) {
        for (const signal of signals) signal?.throwIfAborted();
        if (condition()) return;
        await this.#changed.promise;
      }
    } finally {
      for (const signal of signals) signal?.removeEventListener('abort', wake);
    }
  }
}

/** What a round is built on. */
export interface Ground {
  /** The commit that the one ahead would move the target to. Undefined: nobody is ahead, build on the target. */
  readonly commit: string | undefined;
  /** Aborted when that will not be what the target becomes: the round is void. */
  readonly signal: AbortSignal;
}

/** The reason of `Ground.signal`. */
class GroundLost extends TroupeError {
  constructor() {
    super('conflict', 'What it was verified on top of is not going to be merged.', {
      retryable: true,
    });
  }
}

/** One submission's place in the line, round after round. */
export class MergePlace {
  readonly #queue: MergeQueue;
  #offer: string | undefined;
  #standsOn: MergePlace | undefined;
  #round = new AbortController();
  #inDoubt = false;
  #waitsForLane = false;
  #left = false;

  /** @internal Use `MergeQueue.enter`. */
  constructor(queue: MergeQueue) {
    this.#queue = queue;
  }

  /** It has failed on top of what may not be merged either: nobody builds on it meanwhile. @internal */
  get inDoubt(): boolean {
    return this.#inDoubt;
  }

  /** @internal */
  get waitsForLane(): boolean {
    return this.#waitsForLane;
  }

  /** @internal */
  get standsOn(): MergePlace | undefined {
    return this.#standsOn;
  }

  /** Begins a round: waits until the one ahead has said what it would make of the target, or is gone. */
  async ground(signal: AbortSignal | undefined): Promise<Ground> {
    this.loseGround();
    this.#round = new AbortController();
    await this.#queue.until(() => {
      const ahead = this.#queue.ahead(this);
      return ahead === undefined || ahead.#offer !== undefined;
    }, [signal]);
    const ahead = this.#queue.ahead(this);
    this.#standsOn = ahead;
    return { commit: ahead === undefined ? undefined : ahead.#offer, signal: this.#round.signal };
  }

  /** Says what the target would become: those behind may build on it. */
  offer(commit: string): void {
    this.#offer = commit;
    this.#queue.wake();
  }

  /** Says that it will not be merged in this round: those behind do not build on it. */
  doubt(): void {
    this.#inDoubt = true;
    this.#queue.undermine(this);
  }

  /**
   * Runs a verification when there is a lane for it.
   * @throws what `verify` throws, or the reason of a signal
   */
  async verify<T>(signal: AbortSignal | undefined, verify: () => Promise<T>): Promise<T> {
    this.#waitsForLane = true;
    try {
      await this.#queue.until(() => this.#queue.takeLane(this), [signal, this.#round.signal]);
    } finally {
      this.#waitsForLane = false;
      this.#queue.wake();
    }
    try {
      return await verify();
    } finally {
      this.#queue.leaveLane();
    }
  }

  /**
   * Waits until all ahead have come to their end, so that what was found counts.
   * @param passed false: those behind begin again at once, on top of somebody else
   * @throws {GroundLost} it does not count: begin again
   */
  async turn(passed: boolean, signal: AbortSignal | undefined): Promise<void> {
    if (!passed) this.doubt();
    await this.#queue.until(() => this.#queue.isFirst(this), [signal, this.#round.signal]);
  }

  /** @param merged the target is what it had offered: whoever is behind stands on firm ground */
  leave(merged: boolean): void {
    if (this.#left) return;
    this.#left = true;
    if (!merged) this.#queue.undermine(this);
    this.#queue.remove(this);
  }

  /** Its round is void, and with it, at once, whatever is built on it. @internal */
  loseGround(): void {
    const wasInDoubt = this.#inDoubt;
    this.#round.abort(new GroundLost());
    this.#offer = undefined;
    this.#standsOn = undefined;
    this.#inDoubt = false;
    if (wasInDoubt) this.#queue.revive(this);
    this.#queue.undermine(this);
  }
}
