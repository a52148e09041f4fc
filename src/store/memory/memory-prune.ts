import { runAddress, runOf, taskAddress } from '../../protocol/address.ts';
import type { CheckpointRecord, Pruned, PruneSlice } from '../store.ts';
import type { MemoryData } from './memory-data.ts';
import { sweepJournal } from './memory-journal.ts';
import { removeStreams } from './memory-streams.ts';

/** Actors, tasks or rows that a slice looks at: a millisecond or two. */
const SLICE = 1_000;

/** What `Store.prune` promises, on rows in memory. */
export function prune(data: MemoryData, slice: PruneSlice): Pruned {
  const removed: Record<string, number> = {};
  const count = (what: string, rows: number): void => {
    if (rows > 0) removed[what] = (removed[what] ?? 0) + rows;
  };
  const done = { removed, kept: 0, bytes: 0, next: null };
  switch (slice.what) {
    case 'checkpoints':
      return pruneCheckpoints(data, slice.from, slice.keepPerActor);
    case 'runs':
      return { ...done, next: pruneRuns(data, slice, count) ? 1 : null };
    case 'deadLetters': {
      const surplus = data.deadLetters.length - slice.keep;
      const staying = data.deadLetters.filter(
        ({ at }, index) => index >= surplus && at >= slice.before,
      );
      count('deadLetters', data.deadLetters.length - staying.length);
      data.deadLetters.splice(0, data.deadLetters.length, ...staying);
      return done;
    }
    case 'idempotency': {
      const expired = [...data.idempotency.values()].filter(
        ({ expiresAt }) => expiresAt <= slice.expiredAt,
      );
      for (const { key } of expired) data.idempotency.delete(key);
      count('idempotency', expired.length);
      return done;
    }
    case 'audit': {
      const surplus = data.audit.length - slice.keep;
      const staying = data.audit.filter(({ at }, index) => index >= surplus && at >= slice.before);
      count('audit', data.audit.length - staying.length);
      data.audit = staying;
      return done;
    }
    case 'streams': {
      const { streams, streamChunks } = removeStreams(data, ({ address, updatedAt, closedAt }) => {
        if (updatedAt >= slice.before || runOf(address) !== undefined) return false;
        const status = data.actors.get(address)?.status;
        return closedAt !== null || (status !== 'active' && status !== 'quarantined');
      });
      count('streams', streams);
      count('streamChunks', streamChunks);
      return done;
    }
    case 'space':
      sweepJournal(data);
      return done;
  }
}

function pruneCheckpoints(data: MemoryData, from: number, keep: number): Pruned {
  const named = namedByCuts(data);
  let at = 0;
  let removed = 0;
  let kept = 0;
  for (const [address, list] of data.checkpoints) {
    if (at++ < from) continue;
    if (at > from + SLICE) return result(removed, kept, from + SLICE);
    const newest = data.actors.get(address)?.seq;
    // Nothing is old in most lists.
    if (newest !== undefined && (list[0]?.seq ?? newest) <= newest - keep) {
      const staying = list.filter(
        (row) =>
          row.seq > newest - keep || isKept(row) || named.get(address)?.has(row.seq) === true,
      );
      if (staying.length < list.length) data.checkpoints.set(address, staying);
      removed += list.length - staying.length;
      kept += staying.length;
    } else kept += list.length;
  }
  return result(removed, kept, null);
}

function result(checkpoints: number, kept: number, next: number | null): Pruned {
  return { removed: checkpoints > 0 ? { checkpoints } : {}, kept, bytes: 0, next };
}

const isKept = ({ kind, label }: CheckpointRecord): boolean =>
  label !== null || (kind !== 'auto' && kind !== 'error');

function namedByCuts(data: MemoryData): ReadonlyMap<string, ReadonlySet<number>> {
  const named = new Map<string, Set<number>>();
  for (const { members } of data.cuts.values()) {
    for (const { address, seq } of members) {
      const seqs = named.get(address);
      if (seqs === undefined) named.set(address, new Set([seq]));
      else seqs.add(seq);
    }
  }
  return named;
}

/** @returns whether there is more to do */
function pruneRuns(
  data: MemoryData,
  { endedBefore, busy }: Extract<PruneSlice, { what: 'runs' }>,
  count: (what: string, rows: number) => void,
): boolean {
  const isBusy = new Set(busy);
  let budget = SLICE;
  for (const run of data.prunedRuns) {
    if (isBusy.has(run)) continue;
    budget = forget(data, run, budget, count);
    if (budget <= 0) return true;
  }
  const ended = [...data.runs.values()]
    .filter((r) => r.endedAt !== null && r.endedAt <= endedBefore && !isBusy.has(r.run))
    .sort((a, b) => (a.endedAt ?? 0) - (b.endedAt ?? 0) || (a.run < b.run ? -1 : 1));
  for (const { run } of ended) {
    if (somethingWaits(data, run)) continue;
    data.runs.delete(run);
    data.prunedRuns.add(run);
    count('runs', 1);
    budget = forget(data, run, budget, count);
    if (budget <= 0) return true;
  }
  return false;
}

function somethingWaits(data: MemoryData, run: string): boolean {
  const belongs = (address: string): boolean =>
    address === runAddress(run) || address.startsWith(taskAddress(run, ''));
  for (const { to } of data.messages.values()) if (belongs(to)) return true;
  for (const rows of [data.timers, data.effects]) {
    for (const [address, byId] of rows) if (byId.size > 0 && belongs(address)) return true;
  }
  return false;
}

/** The run's actor goes last, so that nobody makes the run anew while some of it is left. @returns what is left of the budget */
function forget(
  data: MemoryData,
  run: string,
  budget: number,
  count: (what: string, rows: number) => void,
): number {
  let left = budget;
  const actor = (address: string): void => {
    count('checkpoints', data.checkpoints.get(address)?.length ?? 0);
    data.checkpoints.delete(address);
    if (data.actors.delete(address)) count('actors', 1);
    data.timers.delete(address);
    data.effects.delete(address);
  };
  for (const [id, { cut }] of data.cuts) {
    if (cut.run !== run) continue;
    data.cuts.delete(id);
    count('cuts', 1);
  }
  const tasks = data.tasks.get(run);
  for (const task of tasks?.byId.keys() ?? []) {
    if (left-- <= 0) return 0;
    actor(taskAddress(run, task));
    count('attempts', data.attempts.get(run)?.get(task)?.size ?? 0);
    data.attempts.get(run)?.delete(task);
    tasks?.byId.delete(task);
    count('tasks', 1);
  }
  const prefix = taskAddress(run, '');
  for (const address of data.actors.keys()) if (address.startsWith(prefix)) actor(address);
  for (const [scope, steps] of data.steps) {
    if (!scope.startsWith(prefix) && !scope.startsWith(`${runAddress(run)}!`)) continue;
    count('steps', steps.size);
    data.steps.delete(scope);
  }
  const { streams, streamChunks } = removeStreams(
    data,
    ({ address }) => address === runAddress(run) || address.startsWith(prefix),
  );
  count('streams', streams);
  count('streamChunks', streamChunks);
  data.tasks.delete(run);
  data.attempts.delete(run);
  actor(runAddress(run));
  data.prunedRuns.delete(run);
  return left;
}
