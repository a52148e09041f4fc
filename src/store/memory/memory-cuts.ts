import type { ClaimRow, CutRequest } from '../store.ts';
import { addReady, isReady, type MemoryData, type MemoryTask } from './memory-data.ts';

/** Keeps a moment of a run: the records in it are never changed, so that they need not be copied. */
export function takeCut(data: MemoryData, request: CutRequest): void {
  const { address, prefix, keep, ...cut } = request;
  const isMember = (name: string): boolean => name === address || name.startsWith(prefix);
  const rowsOf = <T>(tables: ReadonlyMap<string, ReadonlyMap<string, T>>): T[] =>
    [...tables]
      .filter(([name]) => isMember(name))
      .sort(([a], [b]) => compareTexts(a, b))
      .flatMap(([, rows]) =>
        [...rows].sort(([a], [b]) => compareTexts(a, b)).map(([, row]) => row),
      );
  data.cuts.set(cut.id, {
    cut,
    members: [...data.actors.values()]
      .filter((actor) => isMember(actor.address))
      .map(({ address: name, seq }) => ({ address: name, seq }))
      .sort((a, b) => compareTexts(a.address, b.address)),
    messages: [...data.messages.values()].filter(({ to }) => isMember(to)),
    timers: rowsOf(data.timers),
    effects: rowsOf(data.effects),
    claims: [...(data.tasks.get(cut.run)?.byId.values() ?? [])]
      .filter(({ token }) => token !== null)
      .map(({ row, token, claimed }) => ({ run: row.run, task: row.task, token, open: claimed }))
      .sort((a, b) => compareTexts(a.task, b.task)),
    attempts: [...(data.tasks.get(cut.run)?.byId.values() ?? [])]
      .flatMap(({ row }) =>
        [...(data.attempts.get(cut.run)?.get(row.task)?.values() ?? [])].filter(
          ({ attempt }) => attempt < row.attempts,
        ),
      )
      .sort((a, b) => compareTexts(a.task, b.task) || a.attempt - b.attempt),
  });
  if (keep !== null) forgetOldest(data, cut, keep);
}

function forgetOldest(
  data: MemoryData,
  { run, kind }: Pick<CutRequest, 'run' | 'kind'>,
  keep: number,
): void {
  const alike = [...data.cuts.values()].filter(({ cut }) => cut.run === run && cut.kind === kind);
  for (const { cut } of alike.slice(0, Math.max(0, alike.length - keep))) data.cuts.delete(cut.id);
}

export function putClaim(data: MemoryData, { run, task: id, token, open }: ClaimRow): void {
  const tasks = data.tasks.get(run);
  const before = tasks?.byId.get(id);
  if (tasks === undefined || before === undefined) return;
  if (before.token !== null) tasks.byToken.get(before.token)?.delete(id);
  const task: MemoryTask = { row: before.row, token, claimed: open };
  tasks.byId.set(id, task);
  if (token !== null) {
    const alike = tasks.byToken.get(token) ?? new Set<string>();
    tasks.byToken.set(token, alike.add(id));
  }
  if (isReady(task)) addReady(tasks, task);
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
