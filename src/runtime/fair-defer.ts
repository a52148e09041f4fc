/** Runs a callback soon, after what runs now; `yielding`: after timers, sockets and people had their turn. */
export type Defer = (callback: () => void, yielding: boolean) => void;

/** Work may hold the event loop for so long; then everybody else has a turn. */
export const MAX_SLICE_MS = 2;

/**
 * Defers to a microtask, and to `setImmediate` once microtasks have held the event loop for a slice. Without
 * the second, a chain of turns and commits that never leaves the microtask queue would keep every timer and
 * socket of the process waiting.
 */
export function fairDefer(): Defer {
  // When the present turn of the event loop began, as far as we know; undefined until we run in it.
  let began: number | undefined;
  const turned = (): void => {
    began = undefined;
  };
  return (callback, yielding) => {
    if (began === undefined) {
      began = performance.now();
      setImmediate(turned);
    } else if (!yielding && performance.now() - began > MAX_SLICE_MS) {
      yielding = true;
    }
    if (yielding) setImmediate(callback);
    else queueMicrotask(callback);
  };
}
