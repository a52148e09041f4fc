import { ValidationError } from '../../protocol/errors.ts';
import type { Batch, StoredChunks } from '../store.ts';
import type { MemoryData } from './memory-data.ts';

/** Lists that may gather before those that nothing names are looked for; as many again as were left the last time. */
const SWEEP_AT_LEAST = 64;

/** The lists of a manifest, as store.ts describes it; undefined for any other text. */
function listsIn(text: string | null): readonly string[] | undefined {
  if (text === null || !text.startsWith('={')) return undefined;
  return (JSON.parse(text.slice(1)) as { readonly lists: readonly string[] }).lists;
}

/** @returns why the batch cannot be stored: it names what is neither in it nor stored */
export function refuseMissingChunks(data: MemoryData, batch: Batch): ValidationError | undefined {
  const { chunks, lists } = batch.packed ?? { chunks: [], lists: [] };
  const newChunks = new Set(chunks.map(({ name }) => name));
  const newLists = new Set(lists.map(({ name }) => name));
  for (const list of lists) {
    for (const name of list.chunks) {
      if (!newChunks.has(name) && !data.chunks.has(name)) return missing(`chunk ${name}`);
    }
  }
  for (const text of textsOfBatch(batch)) {
    try {
      for (const name of listsIn(text) ?? []) {
        if (!newLists.has(name) && !data.chunkLists.has(name)) return missing(`list ${name}`);
      }
    } catch (error) {
      return new ValidationError(
        'Could not store a commit: a text that begins like a manifest is none. Nothing of the batch was stored.',
        { cause: error },
      );
    }
  }
  return undefined;
}

function missing(what: string): ValidationError {
  return new ValidationError(
    `Could not store a commit: the ${what} is missing. Nothing of the batch was stored.`,
  );
}

export function addChunks(data: MemoryData, { chunks, lists }: StoredChunks): void {
  for (const { name, data: bytes } of chunks) {
    if (!data.chunks.has(name)) data.chunks.set(name, bytes);
  }
  for (const { name, chunks: names } of lists) {
    if (!data.chunkLists.has(name)) data.chunkLists.set(name, names);
  }
}

export function loadChunks(data: MemoryData, wanted: readonly string[]): StoredChunks {
  const lists = [];
  const chunks = new Map<string, Uint8Array>();
  for (const name of new Set(wanted)) {
    const names = data.chunkLists.get(name);
    if (names === undefined) continue;
    lists.push({ name, chunks: names });
    for (const chunk of names) {
      const bytes = data.chunks.get(chunk);
      if (bytes !== undefined) chunks.set(chunk, bytes);
    }
  }
  return { lists, chunks: Array.from(chunks, ([name, bytes]) => ({ name, data: bytes })) };
}

/** Looks for what nothing names once there is twice as much as there was left the last time: a row costs as much as ever. */
export function sweepChunks(data: MemoryData): void {
  if (data.chunkLists.size < data.sweepChunksAt) return;
  dropUnusedChunks(data);
  data.sweepChunksAt = Math.max(SWEEP_AT_LEAST, 2 * data.chunkLists.size);
}

/** Deletes the lists and chunks that nothing names. Looks at every row. */
export function dropUnusedChunks(data: MemoryData): void {
  const used = new Set<string>();
  for (const text of textsOfData(data)) for (const list of listsIn(text) ?? []) used.add(list);
  for (const [list, chunks] of data.chunkLists) {
    if (used.has(list)) for (const chunk of chunks) used.add(chunk);
    else data.chunkLists.delete(list);
  }
  for (const name of data.chunks.keys()) if (!used.has(name)) data.chunks.delete(name);
}

function* textsOfBatch(batch: Batch): Generator<string | null> {
  for (const r of batch.checkpoints) {
    yield r.eventJson;
    yield r.snapshotJson;
    yield r.pendingJson;
    yield r.detailsJson;
  }
  for (const r of batch.messages) yield r.messageJson;
  for (const r of batch.timers) yield r.actionJson;
  for (const r of batch.effects) yield r.inputJson;
  for (const r of batch.steps) yield r.outcomeJson;
  for (const r of batch.deadLetters) yield r.messageJson;
  for (const r of batch.audit ?? []) yield r.detailsJson;
  for (const r of batch.idempotency) if (r.outcomeJson !== null) yield r.outcomeJson;
  for (const { row } of batch.projections) yield row.detailsJson;
}

function* textsOfData(data: MemoryData): Generator<string | null> {
  for (const list of data.checkpoints.values()) {
    for (const r of list) {
      yield r.eventJson;
      yield r.snapshotJson;
      yield r.pendingJson;
      yield r.detailsJson;
    }
  }
  for (const r of data.messages.values()) yield r.messageJson;
  for (const rows of data.timers.values()) for (const r of rows.values()) yield r.actionJson;
  for (const rows of data.effects.values()) for (const r of rows.values()) yield r.inputJson;
  for (const rows of data.steps.values()) for (const r of rows.values()) yield r.outcomeJson;
  for (const r of data.deadLetters) yield r.messageJson;
  for (const r of data.audit) yield r.detailsJson;
  for (const r of data.idempotency.values()) if (r.outcomeJson !== null) yield r.outcomeJson;
  for (const r of data.runs.values()) yield r.detailsJson;
  for (const run of data.tasks.values()) {
    for (const { row } of run.byId.values()) yield row.detailsJson;
  }
  for (const run of data.attempts.values()) {
    for (const rows of run.values()) for (const r of rows.values()) yield r.detailsJson;
  }
  for (const { messages, timers, effects, attempts } of data.cuts.values()) {
    for (const r of attempts) yield r.detailsJson;
    for (const r of messages) yield r.messageJson;
    for (const r of timers) yield r.actionJson;
    for (const r of effects) yield r.inputJson;
  }
}
