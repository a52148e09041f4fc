import type { ChildProcess } from 'node:child_process';
import { channel } from 'node:diagnostics_channel';

/** One process that was started while somebody watched. Times are of `performance.now()`. */
export interface ChildTime {
  readonly argv: readonly string[];
  readonly startedAt: number;
  endedAt: number | undefined;
}

/**
 * Notes every process that this one starts, from before its `fork` to the moment in which its exit is known.
 * Node tells of each on a diagnostics channel, so that nothing of what is measured has to be changed.
 * Source: https://nodejs.org/api/diagnostics_channel.html (Child Process)
 */
export function watchChildren(): { readonly children: ChildTime[]; stop(): void } {
  const children: ChildTime[] = [];
  const onChild = (message: unknown): void => {
    const { process: child } = message as { readonly process: ChildProcess };
    const time = {
      // Not known yet when the channel tells of it.
      get argv() {
        return child.spawnargs;
      },
      startedAt: performance.now(),
      endedAt: undefined as number | undefined,
    };
    child.once('exit', () => {
      time.endedAt = performance.now();
    });
    children.push(time);
  };
  const started = channel('child_process');
  started.subscribe(onChild);
  return { children, stop: () => started.unsubscribe(onChild) };
}

/** How long at least one of them ran, in milliseconds: those that ran together count once. */
export function timeCovered(children: readonly ChildTime[]): number {
  const spans = children
    .map(({ startedAt, endedAt }) => [startedAt, endedAt ?? startedAt] as const)
    .sort((a, b) => a[0] - b[0]);
  let covered = 0;
  let until = Number.NEGATIVE_INFINITY;
  for (const [from, to] of spans) {
    covered += Math.max(0, to - Math.max(from, until));
    until = Math.max(until, to);
  }
  return covered;
}
