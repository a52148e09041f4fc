/**
 * For a promise where none may be, of which somebody is told in other words: that it fails as well is no news to
 * anybody, and must not end the process. Whatever else it is given it leaves alone.
 */
export function ignoreRejection(value: unknown): void {
  if (value instanceof Promise) value.catch(() => undefined);
}
