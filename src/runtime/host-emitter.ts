import { EventEmitter } from 'eventemitter3';
import type { Logger } from 'pino';
import type { HostEvents } from './host-events.ts';

/** Tells observers. One that throws harms neither the host nor the other observers. */
export class HostEmitter extends EventEmitter<HostEvents> {
  readonly #logger: Logger;
  #closed = false;
  /** For `off`: what `once` has put in place of its listener. */
  readonly #once = new WeakMap<object, () => void>();

  constructor(logger: Logger) {
    super();
    this.#logger = logger;
  }

  /** Nothing will happen any more: who listens is let go of, and nobody is taken on. */
  close(): void {
    this.#closed = true;
    this.removeAllListeners();
  }

  override on<E extends EventEmitter.EventNames<HostEvents>>(
    event: E,
    listener: EventEmitter.EventListener<HostEvents, E>,
  ): this {
    return this.#closed ? this : super.on(event, listener);
  }

  /** `emit` would stop at the first listener that throws. */
  tell<E extends keyof HostEvents>(event: E, ...args: Parameters<HostEvents[E]>): void {
    if (this.listenerCount(event) === 0) return;
    const threw = (error: unknown): void =>
      this.#logger.error({ err: error, event }, 'a listener threw');
    for (const listener of this.listeners(event)) {
      try {
        const result = (listener as (...args: unknown[]) => unknown)(...args);
        // Nobody awaits it: its rejection would end the process.
        if (result instanceof Promise) result.catch(threw);
      } catch (error) {
        threw(error);
      }
    }
  }

  // `listeners` does not say which of them listen once.
  override once<E extends EventEmitter.EventNames<HostEvents>>(
    event: E,
    listener: EventEmitter.EventListener<HostEvents, E>,
  ): this {
    const once = ((...args: unknown[]): unknown => {
      super.removeListener(event, once);
      return (listener as (...args: unknown[]) => unknown)(...args);
    }) as EventEmitter.EventListener<HostEvents, E>;
    this.#once.set(listener, once);
    return this.on(event, once);
  }

  override removeListener<E extends EventEmitter.EventNames<HostEvents>>(
    event: E,
    listener?: EventEmitter.EventListener<HostEvents, E>,
  ): this {
    if (listener === undefined) return super.removeListener(event);
    const once = this.#once.get(listener) as typeof listener | undefined;
    if (once !== undefined) super.removeListener(event, once);
    return super.removeListener(event, listener);
  }

  override off<E extends EventEmitter.EventNames<HostEvents>>(
    event: E,
    listener?: EventEmitter.EventListener<HostEvents, E>,
  ): this {
    return this.removeListener(event, listener);
  }
}
