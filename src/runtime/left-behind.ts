import type { Clock } from './clock.ts';

/** How long aborted work may take to put away what it holds (processes, files) before it is left behind. */
export const ABORT_GRACE_MS = 5_000;

/**
 * Settles with the promise. Once the signal is aborted, waits for it a while longer, so that work that
 * obeys its signal has ended its processes before anybody goes on; work that does not is left behind.
 */
export function settledOrLeftBehind<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  clock: Clock,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let cancelGrace = (): void => undefined;
    const onAbort = (): void => {
      cancelGrace = clock.setTimer(ABORT_GRACE_MS, () => reject(signal.reason as Error));
    };
    const done = (): void => {
      cancelGrace();
      signal.removeEventListener('abort', onAbort);
    };
    promise.then(
      (value) => {
        done();
        // Work that was called off did not happen, whatever it says.
        if (signal.aborted) reject(signal.reason as Error);
        else resolve(value);
      },
      (error: unknown) => {
        done();
        reject((signal.aborted ? signal.reason : error) as Error);
      },
    );
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
