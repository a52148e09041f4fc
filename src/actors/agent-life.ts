import type { Logger } from 'pino';
import { TroupeError, toFailure } from '../protocol/errors.ts';
import type { Clock } from '../runtime/clock.ts';

/** What an agent needs around its work: a connection, a warm model, a browser. */
export interface AgentLifeOptions {
  /**
   * Called when it is registered, in every process, and again before a task if it has failed. Until it has ended well
   * its tasks wait or are retried; nobody else's do.
   */
  readonly start?: (signal: AbortSignal) => Promise<void> | void;
  /** Called when the runtime stops, after its last task, if it was started. */
  readonly stop?: (signal: AbortSignal) => Promise<void> | void;
  /** It has failed to start after so long; it is started again when that start, told to give up, has ended. Default 10 000 ms. */
  readonly startTimeoutMs?: number;
  /** It is left behind after so long. Default 10 000 ms. */
  readonly stopTimeoutMs?: number;
}

export const DEFAULT_START_TIMEOUT_MS = 10_000;

/** Starts and stops what one agent needs. */
export class AgentLife {
  readonly #name: string;
  readonly #options: AgentLifeOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #starting: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;
  /** Its `start` has not ended, though perhaps nobody waits for it any more. */
  #isBusy = false;

  constructor(name: string, options: AgentLifeOptions, clock: Clock, logger: Logger) {
    this.#name = name;
    this.#options = options;
    this.#clock = clock;
    this.#logger = logger;
  }

  /**
   * Resolves when it has started; one start at a time, and a new one if the last has failed.
   * @throws {TroupeError} `unavailable`: it could not start, or not in time; names the agent
   */
  ready(): Promise<void> {
    const { start, startTimeoutMs = DEFAULT_START_TIMEOUT_MS } = this.#options;
    if (start === undefined) return Promise.resolve();
    if (this.#starting !== undefined) return this.#starting;
    const starting = this.#start(start, startTimeoutMs);
    this.#starting = starting;
    starting.catch((error: unknown) => {
      this.#logger.warn({ agent: this.#name, err: error }, 'an agent did not start');
      this.#starting = undefined;
    });
    return starting;
  }

  async #start(start: NonNullable<AgentLifeOptions['start']>, limitMs: number): Promise<void> {
    if (this.#isBusy) {
      const text = `The agent "${this.#name}" cannot start: its last start took too long, and has not ended yet.`;
      throw new TroupeError('unavailable', text, { context: { agent: this.#name } });
    }
    this.#isBusy = true;
    const begin = async (signal: AbortSignal): Promise<void> => {
      try {
        await start(signal);
      } finally {
        this.#isBusy = false;
      }
    };
    await this.#inTime(begin, limitMs, 'start');
  }

  /** Never rejects: what goes wrong is logged, and keeps nobody else from their end. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    const { stop, stopTimeoutMs = DEFAULT_START_TIMEOUT_MS } = this.#options;
    try {
      await this.#starting;
      if (stop === undefined) return;
      if (this.#options.start !== undefined && this.#starting === undefined) return;
      await this.#inTime(stop, stopTimeoutMs, 'stop');
    } catch (error) {
      this.#logger.warn({ agent: this.#name, err: error }, 'an agent did not stop in order');
    }
  }

  async #inTime(
    act: (signal: AbortSignal) => Promise<void> | void,
    ms: number,
    what: 'start' | 'stop',
  ): Promise<void> {
    const name = this.#name;
    const limit = new AbortController();
    const late = Promise.withResolvers<never>();
    const cancel = this.#clock.setTimer(ms, () => {
      // Not a timeout, which would be laid to the account of the work.
      const text = `The agent "${name}" did not ${what} within ${ms} ms.`;
      const error = new TroupeError('unavailable', text, { context: { agent: name } });
      limit.abort(error);
      late.reject(error);
    });
    try {
      await Promise.race([(async () => act(limit.signal))(), late.promise]);
    } catch (error) {
      if (limit.signal.aborted) throw limit.signal.reason;
      throw new TroupeError(
        'unavailable',
        `The agent "${name}" could not ${what}: ${toFailure(error).message}`,
        { cause: error, context: { agent: name } },
      );
    } finally {
      cancel();
    }
  }
}
