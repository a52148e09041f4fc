import type { UnreadablePayloadError } from '../../protocol/errors.ts';
import type {
  AttemptRow,
  AuditSlice,
  CheckpointRecord,
  CutRecord,
  CutRow,
  DeadLetterRecord,
  EffectRecord,
  IdempotencyRecord,
  MessageRecord,
  Pending,
  RunRow,
  StepRecord,
  Store,
  StoredActor,
  StoredAuditRow,
  StoredCut,
  StreamChunkRow,
  StreamHead,
  TaskRow,
  TimerRecord,
  TurnRecord,
} from '../store.ts';
import type { PayloadCodec } from './codec.ts';
import { isManifest, isMarked, readManifest } from './packed-text.ts';
import { KINDS } from './packer.ts';
import { EMPTY_SHELF, Shelf, Unpacker } from './unpacker.ts';

/** A request that waits has no text yet. */
type Waiting = Omit<Pending, 'requests'>;

/** Where a kind of row has texts, and what it is called in an error. */
interface Form<R> {
  readonly texts: readonly (readonly [column: keyof R, kind: string])[];
  readonly nameOf: (row: R) => string;
  /** What to answer instead of a row that cannot be read. Default: the whole read fails. */
  readonly instead?: (row: R, error: UnreadablePayloadError) => R;
}

const ACTOR: Form<StoredActor> = {
  texts: [['snapshotJson', KINDS.snapshot]],
  nameOf: ({ seq, address }) => `checkpoint ${seq} of ${address}`,
  // One actor that cannot be read must not keep the others from going on.
  instead: (row, unreadable) => ({ ...row, snapshotJson: '', unreadable }),
};

const CHECKPOINT: Form<CheckpointRecord> = {
  texts: [
    ['eventJson', KINDS.event],
    ['snapshotJson', KINDS.snapshot],
    ['pendingJson', KINDS.pending],
    ['detailsJson', KINDS.details],
  ],
  nameOf: ({ seq, address }) => `checkpoint ${seq} of ${address}`,
};

const STEP: Form<StepRecord> = {
  texts: [['outcomeJson', KINDS.step]],
  nameOf: ({ scope, key }) => `step "${key}" of ${scope}`,
};

const ANSWER: Form<IdempotencyRecord> = {
  texts: [['outcomeJson', KINDS.answer]],
  nameOf: ({ key }) => `answer under the key "${key}"`,
};

const MESSAGE: Form<MessageRecord> = {
  texts: [['messageJson', KINDS.message]],
  nameOf: ({ id, to }) => `message ${id} to ${to}`,
};

const TIMER: Form<TimerRecord> = {
  texts: [['actionJson', KINDS.timer]],
  nameOf: ({ id, address }) => `timer "${id}" of ${address}`,
};

const EFFECT: Form<EffectRecord> = {
  texts: [['inputJson', KINDS.effect]],
  nameOf: ({ id, address }) => `effect "${id}" of ${address}`,
};

const DEAD_LETTER: Form<DeadLetterRecord> = {
  texts: [['messageJson', KINDS.deadLetter]],
  nameOf: ({ id, address }) => `dead letter ${id} to ${address}`,
};

const TURN: Form<TurnRecord> = {
  texts: [
    ['eventJson', KINDS.event],
    ['detailsJson', KINDS.details],
  ],
  nameOf: ({ seq, address }) => `checkpoint ${seq} of ${address}`,
};

const AUDIT: Form<StoredAuditRow> = {
  texts: [['detailsJson', KINDS.audit]],
  nameOf: ({ kind, id }) => `${kind} ${id}`,
};

const RUN: Form<RunRow> = {
  texts: [['detailsJson', KINDS.runs]],
  nameOf: ({ run }) => `row of run ${run}`,
};

const TASK: Form<TaskRow> = {
  texts: [['detailsJson', KINDS.tasks]],
  nameOf: ({ run, task }) => `row of task ${run}/${task}`,
};

const ATTEMPT: Form<AttemptRow> = {
  texts: [['detailsJson', KINDS.attempts]],
  nameOf: ({ run, task, attempt }) => `row of attempt ${attempt} at ${run}/${task}`,
};

const STREAM_HEAD: Form<StreamHead> = {
  texts: [['lastJson', KINDS.streamChunk]],
  nameOf: ({ address, name }) => `stream "${name}" of ${address}`,
};

const STREAM_CHUNK: Form<StreamChunkRow> = {
  texts: [['valueJson', KINDS.streamChunk]],
  nameOf: ({ address, name, offset }) => `chunk ${offset} of the stream "${name}" of ${address}`,
};

function cutForm<R extends CutRecord>(): Form<R> {
  return {
    texts: [['detailsJson', KINDS.cut]],
    nameOf: ({ id, run }) => `cut ${id} of run ${run}`,
  };
}

const CUT = cutForm<CutRecord>();
const CUT_ROW = cutForm<CutRow>();

/** Reads often enough: what was missing twice because somebody pruned it in between is not there the third time. */
const MAX_READS = 3;

/**
 * Turns the rows of a store back into what was committed. Each method is given the read to make, because it may have to
 * be made again: between a row and the chunks it names somebody may prune both.
 * All throw UnreadablePayloadError for a text that is damaged or whose key is not known.
 */
export class TextReader {
  readonly #loadChunks: Store['loadChunks'];
  readonly #unpacker: Unpacker;

  constructor(loadChunks: Store['loadChunks'], codec: PayloadCodec | undefined) {
    this.#loadChunks = loadChunks;
    this.#unpacker = new Unpacker(codec);
  }

  /** One that cannot be read says so in `unreadable`. */
  actors(read: () => Promise<readonly StoredActor[]>) {
    return this.#rows(read, ACTOR);
  }

  checkpoints(read: () => Promise<readonly CheckpointRecord[]>) {
    return this.#rows(read, CHECKPOINT);
  }

  steps(read: () => Promise<readonly StepRecord[]>) {
    return this.#rows(read, STEP);
  }

  answers(read: () => Promise<readonly IdempotencyRecord[]>) {
    return this.#rows(read, ANSWER);
  }

  deadLetters(read: () => Promise<readonly DeadLetterRecord[]>) {
    return this.#rows(read, DEAD_LETTER);
  }

  turns(read: () => Promise<AuditSlice<TurnRecord>>) {
    return this.#slice(read, TURN);
  }

  audit(read: () => Promise<AuditSlice<StoredAuditRow>>) {
    return this.#slice(read, AUDIT);
  }

  runs(read: () => Promise<readonly RunRow[]>) {
    return this.#rows(read, RUN);
  }

  tasks(read: () => Promise<readonly TaskRow[]>) {
    return this.#rows(read, TASK);
  }

  attempts(read: () => Promise<readonly AttemptRow[]>) {
    return this.#rows(read, ATTEMPT);
  }

  streams(read: () => Promise<readonly StreamHead[]>) {
    return this.#rows(read, STREAM_HEAD);
  }

  streamChunks(read: () => Promise<readonly StreamChunkRow[]>) {
    return this.#rows(read, STREAM_CHUNK);
  }

  cuts(read: () => Promise<readonly CutRow[]>) {
    return this.#rows(read, CUT_ROW);
  }

  async cut(read: () => Promise<StoredCut | undefined>): Promise<StoredCut | undefined> {
    return this.#read(
      read,
      (found) =>
        found === undefined ? [] : [...listsInPending(found), ...listsIn(found.attempts, ATTEMPT)],
      (found, shelf) => {
        if (found === undefined) return undefined;
        const [cut = found.cut] = this.#unpack([found.cut], CUT, shelf);
        const attempts = this.#unpack(found.attempts, ATTEMPT, shelf);
        return { ...found, ...this.#unpackPending(found, shelf), cut, attempts };
      },
    );
  }

  pending(read: () => Promise<Pending>): Promise<Pending> {
    return this.#read(read, listsInPending, (found, shelf) => ({
      ...found,
      ...this.#unpackPending(found, shelf),
    }));
  }

  #unpackPending({ messages, timers, effects }: Waiting, shelf: Shelf): Waiting {
    return {
      messages: this.#unpack(messages, MESSAGE, shelf),
      timers: this.#unpack(timers, TIMER, shelf),
      effects: this.#unpack(effects, EFFECT, shelf),
    };
  }

  #rows<R>(read: () => Promise<readonly R[]>, form: Form<R>): Promise<readonly R[]> {
    return this.#read(
      read,
      (rows) => listsIn(rows, form),
      (rows, shelf) => this.#unpack(rows, form, shelf),
    );
  }

  #slice<R>(read: () => Promise<AuditSlice<R>>, form: Form<R>): Promise<AuditSlice<R>> {
    return this.#read(
      read,
      ({ rows }) => listsIn(rows, form),
      (slice, shelf) => ({ ...slice, rows: this.#unpack(slice.rows, form, shelf) }),
    );
  }

  async #read<T>(
    read: () => Promise<T>,
    listsOf: (rows: T) => readonly string[],
    unpack: (rows: T, shelf: Shelf) => T,
  ): Promise<T> {
    for (let reads = 1; ; reads++) {
      const rows = await read();
      const lists = listsOf(rows);
      if (lists.length === 0) return unpack(rows, EMPTY_SHELF);
      const shelf = new Shelf(await this.#loadChunks([...new Set(lists)]));
      if (reads === MAX_READS || lists.every((list) => shelf.has(list))) return unpack(rows, shelf);
    }
  }

  #unpack<R>(rows: readonly R[], form: Form<R>, shelf: Shelf): readonly R[] {
    const isPacked = (row: R): boolean =>
      form.texts.some(([column]) => {
        const text = row[column];
        return typeof text === 'string' && isMarked(text);
      });
    return rows.some(isPacked) ? rows.map((row) => this.#unpackRow(row, form, shelf)) : rows;
  }

  #unpackRow<R>(row: R, { texts, nameOf, instead }: Form<R>, shelf: Shelf): R {
    const whole = { ...row };
    try {
      for (const [column, kind] of texts) {
        const text = row[column];
        if (typeof text !== 'string') continue;
        whole[column] = this.#unpacker.text(text, kind, nameOf(row), shelf) as R[keyof R];
      }
    } catch (error) {
      if (instead === undefined) throw error;
      return instead(row, error as UnreadablePayloadError);
    }
    return whole;
  }
}

function listsInPending({ messages, timers, effects }: Waiting): readonly string[] {
  return [...listsIn(messages, MESSAGE), ...listsIn(timers, TIMER), ...listsIn(effects, EFFECT)];
}

/** Of the texts that can be told; what is malformed is reported when it is unpacked. */
function listsIn<R>(rows: readonly R[], { texts }: Form<R>): readonly string[] {
  const lists: string[] = [];
  for (const row of rows) {
    for (const [column] of texts) {
      const text = row[column];
      if (typeof text !== 'string' || !isManifest(text)) continue;
      try {
        lists.push(...readManifest(text).lists);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
    }
  }
  return lists;
}
