import type {
  AuditQuery,
  AuditRow,
  AuditSlice,
  CheckpointRecord,
  StoredAuditRow,
  TurnRecord,
} from '../store.ts';
import type { MemoryData } from './memory-data.ts';

/** Checkpoints of all actors in the order of their commits, and orders in theirs. */

export function addToJournal(data: MemoryData, checkpoint: CheckpointRecord): void {
  data.journal.push(checkpoint);
  data.journalPositions.push(++data.position);
}

export function addToAudit(data: MemoryData, rows: readonly AuditRow[]): void {
  for (const row of rows) data.audit.push({ ...row, position: ++data.position });
}

/** Takes out what was removed from the lists of the actors. */
export function sweepJournal(data: MemoryData): void {
  let stored = 0;
  for (const list of data.checkpoints.values()) stored += list.length;
  if (stored === data.journal.length) return;
  const positions = data.journalPositions;
  const stays = data.journal.map((checkpoint) => isStored(data, checkpoint));
  data.journal = data.journal.filter((_, index) => stays[index] === true);
  data.journalPositions = positions.filter((_, index) => stays[index] === true);
}

export function listTurns(data: MemoryData, query: AuditQuery): AuditSlice<TurnRecord> {
  const { after, limit, address } = query;
  const rows: TurnRecord[] = [];
  let index = firstAfter(data.journalPositions, after);
  let looked = 0;
  let upTo = after;
  for (; index < data.journal.length && looked < limit; index++) {
    const checkpoint = data.journal[index] as CheckpointRecord;
    if (address !== undefined && checkpoint.address !== address) continue;
    if (!isStored(data, checkpoint)) continue;
    looked++;
    upTo = data.journalPositions[index] as number;
    if (!isMeant(checkpoint.at, query)) continue;
    const { seq, at, kind, label, eventJson, detailsJson } = checkpoint;
    rows.push({
      position: upTo,
      address: checkpoint.address,
      seq,
      at,
      kind,
      label,
      eventJson,
      detailsJson,
    });
  }
  return { rows, upTo, isLast: looked < limit };
}

export function listAudit(data: MemoryData, query: AuditQuery): AuditSlice<StoredAuditRow> {
  const { after, limit, address } = query;
  const looked = data.audit.filter(({ position }) => position > after).slice(0, limit);
  return {
    rows: looked.filter(
      (row) => isMeant(row.at, query) && (address === undefined || row.address === address),
    ),
    upTo: looked.at(-1)?.position ?? after,
    isLast: looked.length < limit,
  };
}

const isMeant = (
  at: number,
  { from = 0, to = Number.MAX_SAFE_INTEGER }: Pick<AuditQuery, 'from' | 'to'>,
): boolean => at >= from && at < to;

/** Lists are sorted by number, and hold the very record. */
function isStored(data: MemoryData, checkpoint: CheckpointRecord): boolean {
  const list = data.checkpoints.get(checkpoint.address) ?? [];
  let low = 0;
  let high = list.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const found = list[middle] as CheckpointRecord;
    if (found.seq === checkpoint.seq) return found === checkpoint;
    if (found.seq < checkpoint.seq) low = middle + 1;
    else high = middle - 1;
  }
  return false;
}

/** The index of the first position greater than that. */
function firstAfter(positions: readonly number[], after: number): number {
  let low = 0;
  let high = positions.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((positions[middle] as number) > after) high = middle;
    else low = middle + 1;
  }
  return low;
}
