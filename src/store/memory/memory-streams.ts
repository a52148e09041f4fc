import type {
  Batch,
  StreamChunkRow,
  StreamFilter,
  StreamHead,
  StreamQuery,
  StreamRow,
} from '../store.ts';
import type { MemoryData } from './memory-data.ts';

export function putStreams(
  data: MemoryData,
  { streams = [], streamChunks = [] }: Pick<Batch, 'streams' | 'streamChunks'>,
): void {
  for (const row of streams) {
    let byName = data.streams.get(row.address);
    if (byName === undefined) {
      byName = new Map();
      data.streams.set(row.address, byName);
    }
    byName.set(row.name, { row, chunks: byName.get(row.name)?.chunks ?? [] });
  }
  for (const chunk of streamChunks) {
    data.streams.get(chunk.address)?.get(chunk.name)?.chunks.push(chunk);
  }
}

export function listStreams(data: MemoryData, filter: StreamFilter): readonly StreamHead[] {
  const found: StreamHead[] = [];
  for (const [address, byName] of data.streams) {
    const isWanted =
      'prefix' in filter ? address.startsWith(filter.prefix) : address === filter.address;
    if (!isWanted) continue;
    for (const [name, { row, chunks }] of byName) {
      if (filter.name !== undefined && name !== filter.name) continue;
      found.push({ ...row, lastJson: chunks.at(-1)?.valueJson ?? null });
    }
  }
  return found.sort((a, b) => compareRows(a, b));
}

export function listStreamChunks(
  data: MemoryData,
  { address, name, from, limit, writer }: StreamQuery,
): readonly StreamChunkRow[] {
  const all = data.streams.get(address)?.get(name)?.chunks ?? [];
  // Offsets are places in the list.
  const later = all.slice(from);
  const own = writer === undefined ? later : later.filter((chunk) => chunk.writer === writer);
  return own.slice(0, limit);
}

/** @returns how many streams and chunks are gone */
export function removeStreams(
  data: MemoryData,
  isOld: (stream: StreamRow) => boolean,
): { readonly streams: number; readonly streamChunks: number } {
  let streams = 0;
  let streamChunks = 0;
  for (const [address, byName] of data.streams) {
    for (const [name, { row, chunks }] of byName) {
      if (!isOld(row)) continue;
      streams++;
      streamChunks += chunks.length;
      byName.delete(name);
    }
    if (byName.size === 0) data.streams.delete(address);
  }
  return { streams, streamChunks };
}

function compareRows(a: StreamRow, b: StreamRow): number {
  if (a.address !== b.address) return a.address < b.address ? -1 : 1;
  return a.name < b.name ? -1 : 1;
}
