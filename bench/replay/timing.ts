import type { Troupe } from '../../src/index.ts';
import { type ChildTime, timeCovered, watchChildren } from '../child-times.ts';

/** Where the time of a run went, in milliseconds. */
export interface Timing {
  /** How often the script was started, and how long it ran in all; two at once count once. */
  readonly verifications: number;
  readonly verifyMs: number;
  /**
   * The product's own part: making workspaces, and judging less the script. Judging is counted while at least one task
   * is judged, so that waiting for others in the queue is not.
   */
  readonly overheadMs: number;
}

/** Watches a run from here on. */
export function watchTiming(troupe: Troupe, script: string): { stop(): Timing } {
  const children = watchChildren();
  const since = new Map<string, { readonly state: string; readonly at: number }>();
  const judging: ChildTime[] = [];
  let preparingMs = 0;
  const off = troupe.on('turn', ({ address, state }) => {
    if (!address.startsWith('task/')) return;
    const name = typeof state === 'string' ? state : (Object.keys(state ?? {})[0] ?? '');
    const before = since.get(address);
    const at = performance.now();
    if (before?.state === name) return;
    since.set(address, { state: name, at });
    if (before?.state === 'preparing') preparingMs += at - before.at;
    if (before?.state === 'verifying') {
      judging.push({ argv: [], startedAt: before.at, endedAt: at });
    }
  });
  return {
    stop: () => {
      off();
      children.stop();
      const runs = children.children.filter(({ argv }) => argv[0] === script);
      const verifyMs = timeCovered(runs);
      const judgingMs = Math.max(0, timeCovered(judging) - verifyMs);
      return { verifications: runs.length, verifyMs, overheadMs: preparingMs + judgingMs };
    },
  };
}
