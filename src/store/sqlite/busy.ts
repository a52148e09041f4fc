import { setTimeout as sleep } from 'node:timers/promises';
import { TroupeError } from '../../protocol/errors.ts';
import { isBusy } from './sqlite-errors.ts';

/**
 * How long SQLite itself waits for a lock, in milliseconds. Its wait blocks the thread, so it is short;
 * the long wait is `retryWhileBusy`, during which the thread goes on with other things.
 */
export const BUSY_TIMEOUT_MS = 50;

const PAUSE_MS = 20;
const WARN_EVERY_MS = 30_000;

export interface BusyOptions {
  /** What is tried, for messages: `write to /data/state.db`. */
  readonly doing: string;
  /** After this long it is given up. */
  readonly limitMs: number;
  /** Told after 30 s, and every 30 s again. */
  readonly onWarning: (message: string) => void;
}

/**
 * Calls `attempt` until it does something else than meet a lock of another process.
 * @throws {TroupeError} `unavailable` when the lock was not released within the limit; nothing was done
 */
export async function retryWhileBusy<T>(attempt: () => T, options: BusyOptions): Promise<T> {
  let begun: number | undefined;
  let nextWarning = WARN_EVERY_MS;
  for (;;) {
    try {
      return attempt();
    } catch (error) {
      if (!isBusy(error)) throw error;
      // The first attempt has already waited BUSY_TIMEOUT_MS.
      begun ??= performance.now() - BUSY_TIMEOUT_MS;
      const waitedMs = performance.now() - begun;
      const inWords = `Could not ${options.doing} for ${Math.round(waitedMs / 1000)} s: another process holds the lock of the database`;
      if (waitedMs >= options.limitMs) {
        throw new TroupeError(
          'unavailable',
          `${inWords}. Nothing was stored. End that process (a database tool, a backup), then try again.`,
          { cause: error },
        );
      }
      if (waitedMs >= nextWarning) {
        nextWarning += WARN_EVERY_MS;
        options.onWarning(`${inWords}. Still trying.`);
      }
      await sleep(PAUSE_MS);
    }
  }
}
