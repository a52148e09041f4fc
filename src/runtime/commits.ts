import { type FaultPoint, noFaults } from '../protocol/fault-point.ts';
import type { Batch, Store } from '../store/store.ts';
import { Stage } from './stage.ts';

/** Commits under way at once: while one is flushed the next is already with the writer. */
const MAX_COMMITS = 2;

/**
 * The stages on their way to the store. While some are being written the next one gathers, so the cost per turn
 * falls as the load rises. What follows from a stage happens strictly after its commit and after everything that
 * follows from the stages before it.
 */
export class Commits {
  /** The one that gathers. */
  stage = new Stage();
  readonly #store: Store;
  readonly #faultPoint: FaultPoint;
  readonly #landed: () => void;
  readonly #failed: (cause: unknown) => void;
  /** Complete, with their rows as they were then, and waiting to be handed over. */
  readonly #closed: { readonly stage: Stage; readonly batch: Batch }[] = [];
  readonly #underWay: Stage[] = [];
  /** Of those, the ones the store has confirmed; the first of them may wait for one before it. */
  readonly #confirmed = new Set<Stage>();
  /** A fault point delays a commit. Later ones must not overtake it. */
  #delayed = false;
  #error: Error | undefined;

  /**
   * @param landed called after each commit, when everything that follows from it was done
   * @param failed called when a commit was refused; the owner calls `abandon` with what it makes of that
   */
  constructor(
    store: Store,
    faultPoint: FaultPoint,
    landed: () => void,
    failed: (cause: unknown) => void,
  ) {
    this.#store = store;
    this.#faultPoint = faultPoint;
    this.#landed = landed;
    this.#failed = failed;
  }

  /** Nothing gathers and nothing is on its way. */
  get idle(): boolean {
    return (
      this.#underWay.length === 0 &&
      this.#closed.length === 0 &&
      !this.stage.hasRows &&
      !this.stage.hasActions
    );
  }

  get hasNoneUnderWay(): boolean {
    return this.#underWay.length === 0;
  }

  /** Runs `action` when everything staged so far is stored: at the next `flush`, if that is nothing. */
  after(action: () => void): void {
    this.stage.after(action);
  }

  /** Resolves when everything staged so far is stored. Whoever staged it sees to the flush. */
  stored(): Promise<void> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.stage.hasRows) return this.stage.stored();
    const last = this.#closed.at(-1)?.stage ?? this.#underWay.at(-1);
    return last?.stored() ?? Promise.resolve();
  }

  /** What is staged so far is a commit of its own, before everything that is staged from now on. */
  split(): void {
    if (!this.stage.hasRows) return;
    this.#closed.push({ stage: this.stage, batch: this.stage.seal() });
    this.stage = new Stage();
  }

  /** Hands the stage to the store, unless enough are there already; then it goes on gathering. */
  flush(): void {
    if (this.#error !== undefined) return;
    for (let next = this.#closed[0]; next !== undefined; next = this.#closed[0]) {
      if (!this.#mayHandOver) return;
      this.#closed.shift();
      this.#handOver(next.stage, next.batch);
    }
    const { stage } = this;
    if (!stage.hasRows) {
      const last = this.#underWay.at(-1);
      if (last === undefined) this.#finish(stage);
      else if (stage.hasActions) last.adopt(stage);
      stage.turns = 0;
      return;
    }
    if (!this.#mayHandOver) return;
    this.stage = new Stage();
    this.#handOver(stage, stage.seal());
  }

  get #mayHandOver(): boolean {
    return this.#underWay.length < MAX_COMMITS && !this.#delayed;
  }

  #handOver(stage: Stage, batch: Batch): void {
    this.#underWay.push(stage);
    if (this.#faultPoint === noFaults) {
      this.#store.commit(batch).then(
        () => this.#confirm(stage),
        (error: unknown) => this.#fail(error),
      );
      return;
    }
    void this.#commitWithFaults(stage, batch);
  }

  /** Gives up what is not stored. Everybody who waits for it gets the error, now and later. */
  abandon(error: Error): void {
    this.#error = error;
    for (const stage of this.#underWay.splice(0)) stage.abandon(error);
    for (const { stage } of this.#closed.splice(0)) stage.abandon(error);
    this.stage.abandon(error);
  }

  async #commitWithFaults(stage: Stage, batch: Batch): Promise<void> {
    try {
      const wait = this.#faultPoint('host.before-commit');
      if (wait instanceof Promise) {
        this.#delayed = true;
        await wait;
        this.#delayed = false;
      }
      await this.#store.commit(batch);
      await this.#faultPoint('host.after-commit');
      this.#confirm(stage);
      void this.#faultPoint('host.after-effects');
    } catch (error) {
      this.#delayed = false;
      this.#fail(error);
    }
  }

  #confirm(stage: Stage): void {
    if (this.#error !== undefined) return;
    this.#confirmed.add(stage);
    // The store answers in order; a fault point may not.
    for (let next = this.#underWay[0]; next !== undefined; next = this.#underWay[0]) {
      if (!this.#confirmed.delete(next)) break;
      this.#underWay.shift();
      this.#finish(next);
    }
    this.#landed();
  }

  #finish(stage: Stage): void {
    try {
      stage.finish();
    } catch (error) {
      // A mistake of ours: what should have followed from a commit has not. Only a restart puts that right.
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#error === undefined) this.#failed(error);
  }
}
