import type { Logger } from 'pino';
import { kindOf } from '../protocol/address.ts';
import { StoppedError } from '../protocol/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import type { DurableHost } from '../runtime/durable-host.ts';
import type { Turn } from '../runtime/host-events.ts';
import { cutOf } from './cuts.ts';

/** A run in which something happens is kept so often. */
const EVERY_MS = 600_000;

/**
 * Takes a cut of each run some time after something has happened in it, and then waits until something happens again: a
 * run that stands still costs nothing.
 */
export class TimedCuts {
  readonly #host: DurableHost;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** Run → what calls its next cut off. */
  readonly #next = new Map<string, () => void>();
  #stopped = false;

  constructor(host: DurableHost, clock: Clock, logger: Logger) {
    this.#host = host;
    this.#clock = clock;
    this.#logger = logger;
    host.events.on('turn', (turn) => this.#noticed(turn));
    host.events.on('failed', () => this.stop());
  }

  /** Takes no more. */
  stop(): void {
    this.#stopped = true;
    for (const cancel of this.#next.values()) cancel();
    this.#next.clear();
  }

  #noticed({ address, status }: Turn): void {
    const kind = kindOf(address);
    if (this.#stopped || (kind !== 'run' && kind !== 'task')) return;
    const run = address.split('/', 2)[1] as string;
    if (kind === 'run' && status !== 'active') {
      // Its end is kept as a milestone.
      this.#next.get(run)?.();
      this.#next.delete(run);
    } else if (!this.#next.has(run)) {
      const cancel = this.#clock.setTimer(EVERY_MS, () => void this.#take(run), true);
      this.#next.set(run, cancel);
    }
  }

  async #take(run: string): Promise<void> {
    this.#next.delete(run);
    try {
      await this.#host.timeTravel.takeCut(cutOf(run, 'timed', this.#clock.now()));
    } catch (error) {
      // The runtime stops: the next one takes it when something happens.
      if (!(error instanceof StoppedError)) this.#logger.warn({ run, err: error }, 'no timed cut');
    }
  }
}
