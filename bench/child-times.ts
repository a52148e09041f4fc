import type { ChildProcess } from 'node:child_process';
import { channel } from 'node:diagnostics_channel';

/** One process that was started while somebody watched. Times are of `performance.now()`. */
export interface ChildTime {
  readonly argv: readonly string[];
  readonly startedAt: number;
  endedAt: number | undefined;
}

interface Launched {
  readonly argv: readonly string[];
  readonly done: Promise<unknown>;
}

/** A shell that lives on, to start programs from (src/workspace/launcher.ts). */
export const isLauncher = ({ argv }: ChildTime): boolean =>
  argv[0] === '/bin/sh' && argv[1] === '-s';

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
  // A shell starts these for us; timed from when it is told to when we know of their end.
  const onLaunch = (message: unknown): void => {
    const { argv, done } = message as Launched;
    const time: ChildTime = { argv, startedAt: performance.now(), endedAt: undefined };
    void done.then(() => {
      time.endedAt = performance.now();
    });
    children.push(time);
  };
  const channels = [
    [channel('child_process'), onChild],
    [channel('troupe:launched'), onLaunch],
  ] as const;
  for (const [one, listener] of channels) one.subscribe(listener);
  return {
    children,
    stop: () => {
      for (const [one, listener] of channels) one.unsubscribe(listener);
    },
  };
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
