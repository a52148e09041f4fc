import { parseAddress } from '../protocol/address.ts';
import { ValidationError } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import { redactJson, redactText } from '../protocol/redact.ts';
import type {
  AuditSlice,
  DeadLetterRecord,
  AuditQuery as SliceQuery,
  Store,
  StoredAuditRow,
  TurnRecord,
} from '../store/store.ts';

/*
 * The audit stream is read from what is stored anyway: each turn's checkpoint holds the message it handled, and that
 * message's id says which turn had sent it (`task/r/a#5.0`: turn 5 of task/r/a). So the stream knows what has caused what,
 * across actors and restarts, and no message carries anything more for it. Besides that there is one small table: orders
 * from outside to Troupe's own roles, with their answers, which also hold what was refused or changed nothing.
 *
 * What decided it: bench/README.md, "The audit stream".
 */

/** One thing that happened. Texts are without secrets: see protocol/redact.ts. */
export interface AuditEntry {
  /** Of a turn: `address#number`. Of an order and its answer: the correlation or the id of the order's message. */
  readonly id: string;
  readonly at: EpochMs;
  /**
   * `turn`: an actor has handled a message, a timer or the end of an effect, and changed. `born`: its first state. `order`: a
   * message from outside to a run, a task or another of Troupe's roles; `answer`: what was answered. `deadLetter`: a message
   * that could not be handled. `checkpoint`: a state kept by hand. `rollback`: an actor has become what it was.
   */
  readonly kind: 'turn' | 'born' | 'order' | 'answer' | 'deadLetter' | 'checkpoint' | 'rollback';
  /** Who handled it, or answered. */
  readonly address: string;
  /** Who sent what was handled; null if nobody did. */
  readonly from: string | null;
  /** Of the message; null without one. */
  readonly type: string | null;
  /** Who ordered or decided it, as far as the message says (`by`). */
  readonly by: string | null;
  /** The turn (`address#number`) whose message, timer or effect it is; null for what comes from outside or is not known. */
  readonly cause: string | null;
  /** The id of the message, the timer or the effect that was handled. */
  readonly message: string | null;
  /** Of the request that it is, or answers. */
  readonly correlation: string | null;
  /** The message without its type, the answer, or what was noted. */
  readonly payload: JsonValue;
}

/** Which entries are wanted. All given conditions hold together. */
export interface AuditQuery {
  /** Not before, in milliseconds since 1970. */
  readonly from?: EpochMs;
  /** Before. */
  readonly to?: EpochMs;
  /** What this actor has handled. */
  readonly address?: string;
  /**
   * A turn (`task/r/a#5`), the `id`, `message` or `correlation` of an entry: it, and everything that came of it, across all
   * actors. Of a request that is the message, the turn that handled it, the answer, a timeout, the
   * attempts that followed because of it, and what all of these have caused in turn.
   */
  readonly correlation?: string;
}

export interface AuditOptions extends AuditQuery {
  /** Goes on with what happens, until the signal is aborted or the runtime stops. Default false. */
  readonly follow?: boolean;
  readonly signal?: AbortSignal;
}

export type AuditStore = Pick<Store, 'listTurns' | 'listAudit' | 'listDeadLetters'>;

/** Rows that a slice looks at: a few milliseconds of the store's time. */
const SLICE = 1_000;
const QUERY_KEYS: readonly string[] = [
  'from',
  'to',
  'address',
  'correlation',
  'follow',
  'signal',
] satisfies (keyof AuditOptions)[];

/** @throws {ValidationError} a condition that nobody knows or that nothing can fulfil */
export function checkAuditQuery(query: AuditOptions): void {
  const unknown = Object.keys(query).find((key) => !QUERY_KEYS.includes(key));
  if (unknown !== undefined) {
    throw new ValidationError(
      `Expected the audit stream to be asked by ${QUERY_KEYS.join(', ')}, got "${unknown}".`,
    );
  }
  for (const key of ['from', 'to'] as const) {
    const value = query[key];
    if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) continue;
    throw new ValidationError(
      `Expected "${key}" of the audit stream to be milliseconds since 1970, got ${String(value)}. A date: Date.parse("2026-11-30T12:00:00Z").`,
    );
  }
  const { from = 0, to, address, correlation, follow = false } = query;
  if (to !== undefined && to <= from) {
    throw new ValidationError(
      `Expected "to" of the audit stream to be after "from", got ${from} to ${to}.`,
    );
  }
  if (follow && to !== undefined) {
    throw new ValidationError(
      'The audit stream ends at "to" or follows what happens: leave out one.',
    );
  }
  if (address !== undefined) parseAddress(address);
  if (correlation !== undefined && (typeof correlation !== 'string' || correlation === '')) {
    throw new ValidationError(
      'Expected the correlation to be a turn such as task/r/a#5, or the id, cause or correlation of an entry.',
    );
  }
}

/** Reads the stream of a store; a second read goes on where the first has ended. */
export class AuditReader {
  readonly #store: AuditStore;
  readonly #query: AuditQuery;
  /** Turns and messages that belong to what is followed. */
  readonly #known: Set<string> | undefined;
  #turnsAfter = 0;
  #ordersAfter = 0;
  readonly #letters = new Set<string>();
  #lastAt = 0;
  /** Everything before was read. */
  #floorAt = 0;
  /** Those of the last moment: to tell them from the ones after it when positions have begun anew. */
  #lastIds = new Set<string>();

  /** @throws {ValidationError} */
  constructor(store: AuditStore, query: AuditQuery = {}) {
    checkAuditQuery(query);
    this.#store = store;
    this.#query = query;
    const { correlation } = query;
    this.#known = correlation === undefined ? undefined : new Set(namesOf(correlation));
  }

  /** What there is and was not read yet, oldest first. */
  async *read(): AsyncGenerator<AuditEntry, void, undefined> {
    const sources = [
      new Peek(this.#orders()),
      new Peek(this.#turns()),
      new Peek(this.#deadLetters()),
    ];
    for (;;) {
      let first: Peek | undefined;
      for (const source of sources) {
        const entry = await source.peek();
        if (entry !== undefined && (first?.entry === undefined || isBefore(entry, first.entry))) {
          first = source;
        }
      }
      const entry = first?.take();
      if (entry === undefined) return;
      if (this.#wasRead(entry) || !this.#isMeant(entry)) continue;
      yield entry;
    }
  }

  async *#turns(): AsyncGenerator<AuditEntry, void, undefined> {
    // What is followed leads from actor to actor: the address chooses among what is found.
    const isFollowed = this.#known !== undefined;
    const { address } = this.#query;
    const filter = isFollowed || address === undefined ? {} : { address };
    yield* this.#pages(
      (slice) => this.#store.listTurns({ ...filter, ...slice }),
      () => this.#turnsAfter,
      (upTo) => {
        this.#turnsAfter = upTo;
      },
      turnEntry,
    );
  }

  async *#orders(): AsyncGenerator<AuditEntry, void, undefined> {
    yield* this.#pages(
      (slice) => this.#store.listAudit(slice),
      () => this.#ordersAfter,
      (upTo) => {
        this.#ordersAfter = upTo;
      },
      orderEntry,
    );
  }

  async *#pages<R>(
    list: (slice: SliceQuery) => Promise<AuditSlice<R>>,
    getAfter: () => number,
    setAfter: (upTo: number) => void,
    entryOf: (row: R) => AuditEntry,
  ): AsyncGenerator<AuditEntry, void, undefined> {
    const { from, to } = this.#query;
    const times = {
      ...(from === undefined ? {} : { from }),
      ...(to === undefined ? {} : { to }),
    };
    // Up to now: while somebody reads as fast as others write, the end would never come.
    for (;;) {
      const after = getAfter();
      const { rows, upTo, isLast } = await list({ after, limit: SLICE, ...times });
      if (upTo < after) {
        // The newest rows were removed and their positions are used again: once more, but for what was read.
        this.#floorAt = this.#lastAt;
        setAfter(0);
        continue;
      }
      for (const row of rows) yield entryOf(row);
      setAfter(upTo);
      if (isLast) return;
    }
  }

  async *#deadLetters(): AsyncGenerator<AuditEntry, void, undefined> {
    const { from = 0, to = Number.MAX_SAFE_INTEGER } = this.#query;
    for (const letter of await this.#store.listDeadLetters()) {
      if (letter.at < from || letter.at >= to || this.#letters.has(letter.id)) continue;
      this.#letters.add(letter.id);
      yield letterEntry(letter);
    }
  }

  #wasRead(entry: AuditEntry): boolean {
    const key = `${entry.kind} ${entry.id}`;
    if (entry.at < this.#floorAt) return true;
    if (entry.at === this.#lastAt && this.#lastIds.has(key)) return true;
    if (entry.at !== this.#lastAt) {
      this.#lastAt = entry.at;
      this.#lastIds = new Set();
    }
    this.#lastIds.add(key);
    return false;
  }

  #isMeant(entry: AuditEntry): boolean {
    const known = this.#known;
    if (known !== undefined) {
      const { id, cause, message, correlation, kind } = entry;
      const belongs =
        known.has(id) ||
        (cause !== null && known.has(cause)) ||
        (message !== null && known.has(message)) ||
        (correlation !== null && known.has(correlation));
      if (!belongs) return false;
      // An answer is the end of something; its id is that of the order.
      if (kind !== 'answer') known.add(id);
      if (kind === 'order' && message !== null) known.add(message);
    }
    const { address } = this.#query;
    return address === undefined || entry.address === address;
  }
}

/** At the same moment an order comes before what it leads to, and its answer after. */
function isBefore(a: AuditEntry, b: AuditEntry): boolean {
  return a.at < b.at || (a.at === b.at && rankOf(a) < rankOf(b));
}

const rankOf = ({ kind }: AuditEntry): number => (kind === 'order' ? 0 : kind === 'answer' ? 2 : 1);

/** An iterator whose next entry can be looked at. */
class Peek {
  readonly #entries: AsyncGenerator<AuditEntry, void, undefined>;
  entry: AuditEntry | undefined;
  #isDone = false;

  constructor(entries: AsyncGenerator<AuditEntry, void, undefined>) {
    this.#entries = entries;
  }

  async peek(): Promise<AuditEntry | undefined> {
    if (this.entry !== undefined || this.#isDone) return this.entry;
    const { value, done } = await this.#entries.next();
    if (done === true) this.#isDone = true;
    else this.entry = value as AuditEntry;
    return this.entry;
  }

  take(): AuditEntry | undefined {
    const { entry } = this;
    this.entry = undefined;
    return entry;
  }
}

/** In the name of what a turn has made: the turn, and the name without what says which end of it this is. */
const MADE = /^((.+#\d+)\.\d+)(?:~\w+)?$/s;
/** A request's correlation: who asked, and what of which turn the message is. */
const CORRELATION = /^(.+?)!(#\d+\.\d+)!/s;
const FROM_OUTSIDE = 'app/client#';

/**
 * The turn that has led to what has this id, and the message it is. An actor that has passed something on without changing
 * has taken no turn that is kept: there a chain ends.
 */
function originOf(id: string): { readonly cause: string | null; readonly message: string } {
  const made = id.startsWith(FROM_OUTSIDE) ? null : MADE.exec(id);
  return { cause: made?.[2] ?? null, message: made?.[1] ?? id };
}

/** Under which names something that belongs to it may be found. Of a request also its message, for it may time out. */
function namesOf(correlation: string): readonly string[] {
  const [, asker, message] = CORRELATION.exec(correlation) ?? [];
  return asker === undefined ? [correlation] : [correlation, `${asker}${message}`];
}

function turnEntry(record: TurnRecord): AuditEntry {
  const { address, seq, at, kind, eventJson } = record;
  const base = { id: `${address}#${seq}`, at, address };
  if (eventJson === null) {
    const isBirth = kind !== 'manual' && kind !== 'rollback';
    const noted =
      record.detailsJson === null ? null : (JSON.parse(record.detailsJson) as JsonValue);
    return {
      ...base,
      kind: isBirth ? 'born' : kind === 'manual' ? 'checkpoint' : 'rollback',
      from: null,
      type: null,
      by: null,
      cause: null,
      message: null,
      correlation: null,
      payload: redactJson(isBirth ? null : { label: record.label, details: noted }),
    };
  }
  const { type, meta, ...payload } = JSON.parse(eventJson) as {
    readonly type: string;
    readonly meta: { readonly id: string; readonly from: string; readonly correlation?: string };
  } & JsonObject;
  const by = payload['by'];
  return {
    ...base,
    kind: 'turn',
    from: meta.from,
    type,
    by: typeof by === 'string' ? redactText(by) : null,
    ...originOf(meta.id),
    correlation: meta.correlation ?? null,
    payload: redactJson(payload),
  };
}

function orderEntry(row: StoredAuditRow): AuditEntry {
  const { id, at, kind, address, type, by } = row;
  const { message, payload } = JSON.parse(row.detailsJson) as {
    readonly message?: string;
    readonly payload: JsonValue;
  };
  return {
    id,
    at,
    kind,
    address,
    from: null,
    type,
    by: kind === 'order' ? redactText(by) : null,
    cause: null,
    message: message ?? null,
    correlation: id,
    payload,
  };
}

function letterEntry({ id, at, address, reason, messageJson }: DeadLetterRecord): AuditEntry {
  const { type, meta, ...payload } = JSON.parse(messageJson) as JsonObject;
  const known = meta as { readonly id?: string; readonly from?: string } | undefined;
  return {
    id,
    at,
    kind: 'deadLetter',
    address,
    from: known?.from ?? null,
    type: typeof type === 'string' ? type : null,
    by: null,
    ...(known?.id === undefined ? { cause: null, message: null } : originOf(known.id)),
    correlation: null,
    payload: redactJson({ reason, message: payload }),
  };
}

/** A reader that goes on: yields what there is, waits until it is woken, and reads again. */
export async function* followAudit(
  reader: AuditReader,
  signal: AbortSignal,
  onChange: (wake: () => void) => () => void,
): AsyncGenerator<AuditEntry, void, undefined> {
  let news = Promise.withResolvers<void>();
  const wake = (): void => news.resolve();
  const off = onChange(wake);
  signal.addEventListener('abort', wake, { once: true });
  try {
    while (!signal.aborted) {
      news = Promise.withResolvers<void>();
      yield* reader.read();
      if (!signal.aborted) await news.promise;
    }
  } finally {
    off();
    signal.removeEventListener('abort', wake);
  }
}
