/** Lets asynchronous work in one at a time, in the order of asking. Not re-entrant: asking inside waits for ever. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();
  #asking = 0;

  /** Nobody is in, and nobody waits. */
  get isFree(): boolean {
    return this.#asking === 0;
  }

  /** Runs `work` when all that asked before has ended, however it ended. */
  run<T>(work: () => Promise<T>): Promise<T> {
    this.#asking++;
    const result = this.#last.then(work, work).finally(() => {
      this.#asking--;
    });
    this.#last = result.catch(() => undefined);
    return result;
  }
}
