import type { Observable, Subscription } from 'rxjs';
import type { Address } from '../protocol/address.ts';
import type { Turn } from '../runtime/host-events.ts';
import type { PersistedSnapshot } from '../runtime/xstate-driver.ts';
import { topLevel } from './cuts.ts';

/**
 * Remembers from when it is made where turns have led, so that whoever gives an order can wait for what it leads to: a
 * turn between looking and waiting is not missed.
 */
export class TurnWatch {
  readonly #subscription: Subscription;
  readonly #states = new Map<string, string>();
  readonly #wake = new Set<() => void>();
  #over = false;

  /** @param turns$ completes when no more turns are taken */
  constructor(turns$: Observable<Turn>) {
    this.#subscription = turns$.subscribe({
      next: ({ address, state }) => {
        this.#states.set(address, topLevel(state as PersistedSnapshot['value']));
        this.#changed();
      },
      complete: () => {
        this.#over = true;
        this.#changed();
      },
    });
  }

  /**
   * Resolves when the last turn of the actor has led to a state of which `is` holds; also when the runtime has stopped,
   * for then what was ordered is stored and counts for the next one.
   * @returns the state; undefined when the runtime has stopped before any turn
   */
  async until(address: Address, is: (state: string) => boolean): Promise<string | undefined> {
    for (;;) {
      const state = this.#states.get(address);
      if (this.#over || (state !== undefined && is(state))) return state;
      await new Promise<void>((resolve) => this.#wake.add(resolve));
    }
  }

  close(): void {
    this.#over = true;
    this.#subscription.unsubscribe();
    this.#changed();
  }

  #changed(): void {
    const wake = [...this.#wake];
    this.#wake.clear();
    for (const resolve of wake) resolve();
  }
}
