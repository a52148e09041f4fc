import { EventEmitter } from 'eventemitter3';
import type { Logger } from 'pino';
import type { HostEvents } from './host-events.ts';

type Names = keyof HostEvents;
type Listener<E extends Names> = EventEmitter.EventListener<HostEvents, E>;

/**
 * Tells observers. One that throws harms neither the host nor the other observers. There is no `once`: whoever wants
 * that calls `off` when it has heard.
 */
export class HostEmitter {
  readonly #logger: Logger;
  readonly #emitter = new EventEmitter<HostEvents>();
  #closed = false;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Nothing will happen any more: who listens is let go of, and nobody is taken on. */
  close(): void {
    this.#closed = true;
    this.#emitter.removeAllListeners();
  }

  on<E extends Names>(event: E, listener: Listener<E>): void {
    if (!this.#closed) this.#emitter.on(event, listener);
  }

  off<E extends Names>(event: E, listener: Listener<E>): void {
    this.#emitter.off(event, listener);
  }

  /** How many listen to an event; without one, to any. */
  listenerCount(event?: Names): number {
    if (event !== undefined) return this.#emitter.listenerCount(event);
    const names = this.#emitter.eventNames();
    return names.reduce((sum, name) => sum + this.#emitter.listenerCount(name), 0);
  }

  /** `emit` would stop at the first listener that throws. */
  tell<E extends Names>(event: E, ...args: Parameters<HostEvents[E]>): void {
    if (this.listenerCount(event) === 0) return;
    const threw = (error: unknown): void =>
      this.#logger.error({ err: error, event }, 'a listener threw');
    for (const listener of this.#emitter.listeners(event)) {
      try {
        const result = (listener as (...args: unknown[]) => unknown)(...args);
        // Nobody awaits it: its rejection would end the process.
        if (result instanceof Promise) result.catch(threw);
      } catch (error) {
        threw(error);
      }
    }
  }
}
