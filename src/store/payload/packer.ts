import { hash } from 'node:crypto';
import { ConfigurationError, ValidationError } from '../../protocol/errors.ts';
import type {
  Batch,
  CheckpointRecord,
  ChunkListRecord,
  ChunkRecord,
  Projection,
  StoredChunks,
  StreamChunkRow,
} from '../store.ts';
import type { PayloadCodec } from './codec.ts';
import { type CutText, cutText } from './cut-text.ts';
import { isMarked, writeChunk, writeEnvelope, writeEscaped, writeManifest } from './packed-text.ts';
import { RecentTexts } from './recent-texts.ts';

/** Longer texts are cut. Below it a checkpoint costs a few pages, and the length check is all that this does. */
const LONG_TEXT = 32 * 1024;

/** Long texts that are kept to compare the next ones with, in characters, of all actors together. */
const RECENT_CHARS = 32 * 1024 * 1024;

/** A list ends after a name that begins with one of these, so after 16 names on average. */
const ENDS_LIST = 'ABCD';
const MAX_LIST = 64;

/** Kinds of texts, by which a codec tells them apart. */
export const KINDS = {
  event: 'checkpoints.event',
  snapshot: 'checkpoints.snapshot',
  pending: 'checkpoints.pending',
  details: 'checkpoints.details',
  message: 'messages.message',
  timer: 'timers.action',
  effect: 'effects.input',
  step: 'steps.outcome',
  answer: 'idempotency.outcome',
  deadLetter: 'dead_letters.message',
  audit: 'audit.details',
  runs: 'runs.details',
  tasks: 'tasks.details',
  attempts: 'attempts.details',
  cut: 'cuts.details',
  streamChunk: 'stream_chunks.value',
} as const;

/** What the texts of one batch name. */
class Parts {
  readonly chunks = new Map<string, ChunkRecord>();
  readonly lists = new Map<string, ChunkListRecord>();
}

/**
 * Turns the texts of batches into what is stored: long ones into manifests, all of them into envelopes if there is a
 * codec. Batches must be packed in the order in which they are committed, and `forget` must be called when one fails.
 *
 * A chunk is handed over again unless the actor's checkpoint right before names it: that one is there when the next is
 * inserted, because nothing deletes an actor's newest checkpoint but what deletes the actor. Everything else may have
 * been pruned a moment ago, and nobody would have told. (The store checks it all the same: a batch that names what is
 * missing is refused.)
 */
export class Packer {
  readonly #codec: PayloadCodec | undefined;
  readonly #recent = new RecentTexts(RECENT_CHARS);

  constructor(codec: PayloadCodec | undefined) {
    this.#codec = codec;
  }

  /** The last texts may not be stored after all. */
  forget(): void {
    this.#recent.clear();
  }

  /**
   * @throws {ValidationError} a text with half of a surrogate pair
   * @throws {ConfigurationError} the batch has been packed already
   */
  pack(batch: Batch): Batch {
    if (batch.packed !== undefined) {
      // Its manifests would be taken for texts, and nobody would count what they name.
      throw new ConfigurationError('A PackedStore was given a batch that another one has packed.');
    }
    const parts = new Parts();
    const text = <T extends string | null>(value: T, kind: string): T | string =>
      this.#text(value, kind, parts);
    const packed: Batch = {
      ...batch,
      checkpoints: mapChanged(batch.checkpoints, (row) => this.#checkpoint(row, parts)),
      messages: mapChanged(batch.messages, (row) => {
        const messageJson = text(row.messageJson, KINDS.message);
        return messageJson === row.messageJson ? row : { ...row, messageJson };
      }),
      timers: mapChanged(batch.timers, (row) => {
        const actionJson = text(row.actionJson, KINDS.timer);
        return actionJson === row.actionJson ? row : { ...row, actionJson };
      }),
      effects: mapChanged(batch.effects, (row) => {
        const inputJson = text(row.inputJson, KINDS.effect);
        return inputJson === row.inputJson ? row : { ...row, inputJson };
      }),
      steps: mapChanged(batch.steps, (row) => {
        const outcomeJson = text(row.outcomeJson, KINDS.step);
        return outcomeJson === row.outcomeJson ? row : { ...row, outcomeJson };
      }),
      idempotency: mapChanged(batch.idempotency, (row) => {
        if (row.outcomeJson === null) return row;
        const outcomeJson = text(row.outcomeJson, KINDS.answer);
        return outcomeJson === row.outcomeJson ? row : { ...row, outcomeJson };
      }),
      deadLetters: mapChanged(batch.deadLetters, (row) => {
        const messageJson = text(row.messageJson, KINDS.deadLetter);
        return messageJson === row.messageJson ? row : { ...row, messageJson };
      }),
      ...(batch.audit === undefined
        ? {}
        : {
            audit: mapChanged(batch.audit, (row) => {
              const detailsJson = text(row.detailsJson, KINDS.audit);
              return detailsJson === row.detailsJson ? row : { ...row, detailsJson };
            }),
          }),
      projections: mapChanged(batch.projections, (projection) => {
        const { row, table } = projection;
        const detailsJson = text(row.detailsJson, KINDS[table]);
        if (detailsJson === row.detailsJson) return projection;
        return { table, row: { ...row, detailsJson } } as Projection;
      }),
      cuts: mapChanged(batch.cuts, (row) => {
        const detailsJson = this.#whole(row.detailsJson, KINDS.cut);
        return detailsJson === row.detailsJson ? row : { ...row, detailsJson };
      }),
      ...(batch.streamChunks === undefined
        ? {}
        : { streamChunks: mapChanged(batch.streamChunks, (row) => this.#streamChunk(row)) }),
    };
    if (parts.chunks.size === 0 && parts.lists.size === 0) return packed;
    return {
      ...packed,
      packed: {
        chunks: [...parts.chunks.values()],
        lists: [...parts.lists.values()],
      },
    };
  }

  /** @returns the texts as they are stored, in the same order, and what they name */
  packTexts(texts: readonly { readonly kind: string; readonly text: string }[]): {
    readonly texts: readonly string[];
    readonly packed: StoredChunks;
  } {
    const parts = new Parts();
    const packed = texts.map(({ kind, text }) => {
      // A store does not count what the details of a cut name, nor the chunks of a stream.
      return kind === KINDS.cut || kind === KINDS.streamChunk
        ? this.#whole(text, kind)
        : this.#text(text, kind, parts);
    });
    return {
      texts: packed,
      packed: { chunks: [...parts.chunks.values()], lists: [...parts.lists.values()] },
    };
  }

  /** In one piece: it is short, and a store does not count what it names. */
  #streamChunk(row: StreamChunkRow): StreamChunkRow {
    const valueJson = this.#whole(row.valueJson, KINDS.streamChunk);
    return valueJson === row.valueJson ? row : { ...row, valueJson };
  }

  #checkpoint(row: CheckpointRecord, parts: Parts): CheckpointRecord {
    const eventJson = this.#text(row.eventJson, KINDS.event, parts);
    const snapshotJson = this.#state(row.snapshotJson, KINDS.snapshot, row, parts);
    const pendingJson = this.#state(row.pendingJson, KINDS.pending, row, parts);
    const detailsJson = this.#text(row.detailsJson, KINDS.details, parts);
    return eventJson === row.eventJson &&
      snapshotJson === row.snapshotJson &&
      pendingJson === row.pendingJson &&
      detailsJson === row.detailsJson
      ? row
      : { ...row, eventJson, snapshotJson, pendingJson, detailsJson };
  }

  /** A text that is much like that of the actor's checkpoint before. */
  #state<T extends string | null>(
    text: T,
    kind: string,
    { address, seq }: CheckpointRecord,
    parts: Parts,
  ): T | string {
    if (text === null || text.length <= LONG_TEXT) {
      // Or it would be taken for that of the next checkpoint's predecessor, once the numbers begin anew.
      if (this.#recent.size > 0) this.#recent.delete(`${kind} ${address}`);
      return this.#text(text, kind, parts);
    }
    const key = `${kind} ${address}`;
    const recent = this.#recent.get(key);
    // Another number than the next one: somebody has written in between, or the actor was deleted.
    const before = recent?.seq === seq - 1 ? recent : undefined;
    const cut = this.#cut(text, parts, before, before?.lists);
    this.#recent.set(key, { ...cut, seq });
    return cut.manifest;
  }

  #text<T extends string | null>(text: T, kind: string, parts: Parts): T | string {
    if (text !== null && text.length > LONG_TEXT) return this.#cut(text, parts).manifest;
    return this.#whole(text, kind);
  }

  /** In one piece, however long. */
  #whole<T extends string | null>(text: T, kind: string): T | string {
    if (text === null) return text;
    if (this.#codec !== undefined) {
      refuseBroken(text);
      return writeEnvelope(text, this.#codec, kind);
    }
    return isMarked(text) ? writeEscaped(text) : text;
  }

  #cut(
    text: string,
    parts: Parts,
    before?: CutText,
    storedLists: ReadonlySet<string> = NONE,
  ): CutText & { readonly manifest: string; readonly lists: ReadonlySet<string> } {
    refuseBroken(text);
    const pieces = cutText(text, before).map((piece) => ({
      length: piece.text.length,
      name: piece.name ?? this.#addChunk(piece.text, parts),
    }));
    const lists: string[] = [];
    for (const chunks of groupNames(pieces)) {
      const name = nameOf(hash('sha256', chunks.join(), 'base64url'));
      if (!storedLists.has(name)) parts.lists.set(name, { name, chunks });
      lists.push(name);
    }
    const key = this.#codec === undefined ? {} : { key: this.#codec.keyId };
    const manifest = writeManifest({ lists, length: text.length, ...key });
    return { text, pieces, lists: new Set(lists), manifest };
  }

  #addChunk(text: string, parts: Parts): string {
    const utf8 = Buffer.from(text);
    const name = nameOfChunk(utf8, this.#codec, this.#codec?.keyId);
    if (!parts.chunks.has(name)) {
      parts.chunks.set(name, { name, data: writeChunk(utf8, this.#codec) });
    }
    return name;
  }
}

const NONE: ReadonlySet<string> = new Set();

/**
 * What a chunk is called. Under another key it is another chunk: one that was stored in the clear never stands for one
 * that is to be encoded.
 */
export function nameOfChunk(
  utf8: Buffer,
  codec: PayloadCodec | undefined,
  keyId: string | undefined,
): string {
  if (codec === undefined || keyId === undefined) return nameOf(hash('sha256', utf8, 'base64url'));
  if (codec.fingerprint !== undefined) {
    return nameOf(Buffer.from(codec.fingerprint(keyId, utf8)).toString('base64url'));
  }
  return nameOf(hash('sha256', Buffer.concat([Buffer.from(`${keyId}\0`), utf8]), 'base64url'));
}

/**
 * 132 bits of a hash. With 10¹² chunks in one store the odds that any two of them share a name are 10⁻¹⁶; to make two on
 * purpose takes 2⁶⁶ attempts, and whoever does has damaged his own texts.
 */
function nameOf(digest: string): string {
  return digest.slice(0, 22);
}

/** Like pieces of a text: where a list ends is in the names, so that a change moves only the ends near it. */
function groupNames(pieces: CutText['pieces']): string[][] {
  const groups: string[][] = [];
  let group: string[] = [];
  for (const { name } of pieces) {
    group.push(name);
    if (!ENDS_LIST.includes(name[0] as string) && group.length < MAX_LIST) continue;
    groups.push(group);
    group = [];
  }
  if (group.length > 0) groups.push(group);
  return groups;
}

function refuseBroken(text: string): void {
  if (text.isWellFormed()) return;
  throw new ValidationError(
    'Expected every text of a commit to be well-formed Unicode, got one with half of a surrogate pair. Nothing was stored. Repair the text (toWellFormed()), or keep it as JSON, which escapes such halves.',
  );
}

/** The same array if no row has changed, as is usual. */
function mapChanged<R>(rows: readonly R[], change: (row: R) => R): readonly R[] {
  let changed: R[] | undefined;
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] as R;
    const next = change(row);
    if (next === row) continue;
    changed ??= [...rows];
    changed[i] = next;
  }
  return changed ?? rows;
}
