import { hash as digest } from 'node:crypto';
import type { Logger } from 'pino';
import type { Address } from '../protocol/address.ts';
import {
  CancelledError,
  ConflictError,
  NotFoundError,
  PayloadTooLargeError,
  TroupeError,
  ValidationError,
} from '../protocol/errors.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { Store, StreamRow } from '../store/store.ts';
import { type Clock, MAX_TIMER_MS } from './clock.ts';
import type { Commits } from './commits.ts';
import type { HostEmitter } from './host-emitter.ts';
import type { Turn } from './host-events.ts';
import {
  chunkOf,
  DEFAULT_STREAM,
  latestOfWriter,
  type ReadStreamOptions,
  type StreamChunk,
  type StreamLimits,
  type StreamWriter,
} from './stream.ts';

/*
 * Streams: what actors write for others to read.
 *
 *     write → numbered → written before? ── yes, the same ──▶ done, under the offset it has
 *                           └ no ─▶ staged with the turns → committed → readers are woken
 *
 * A reader reads the store, and nothing else: it asks for what comes after the last chunk it has seen, and when there
 * is nothing it waits until a commit wakes it. It begins to listen before it asks, so nothing can come in between;
 * it asks only when its own reader wants more, so a slow one holds nobody up and needs no memory.
 *
 * Exactly once: chunks of a writer are numbered in the order of its calls. A writer that is started again (the process
 * died, a task asked a question) loads the hashes of what it has written. What it writes again is skipped as long as it
 * is the same; with the first chunk that is not, a new epoch begins.
 *
 * Offsets are given out here, in memory: the runtime is the only writer of its store.
 */

/** Chunks read in one go. */
const PAGE = 256;

/** A stream that somebody writes to. */
interface OpenStream {
  /** Resolves when `row` is read. */
  readonly ready: Promise<void>;
  /** As it will be when everything that is staged is stored; undefined: it does not exist yet. */
  row: StreamRow | undefined;
  /** Writers, and stages that hold a change of it and are not stored yet. */
  users: number;
  /** The last of those stages. */
  stage: object | undefined;
  /** What each writer has written, by its name: two that write under one name at once are one. */
  readonly journals: Map<string, Promise<Journal>>;
}

/** What a writer has written, as far as it counts. */
interface Journal {
  /** By number. */
  readonly written: Map<number, Written>;
  epoch: number;
}

interface Waiter {
  readonly name: string;
  wake: () => void;
}

/** Who writes, and what has to be told to whom. */
export interface WriterSource {
  readonly address: Address;
  readonly name: string;
  readonly writer: string;
  /** Whether the actor is looked for before a stream is made. Who works for it need not ask. */
  readonly looksForActor?: boolean;
  /** @throws {ConflictError} whoever writes has no say any more */
  assertWanted(): void;
  /** A sign of life. */
  beat(): void;
}

export interface StreamsOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly commits: Commits;
  readonly events: HostEmitter;
  readonly limits: StreamLimits;
  /** Sees to it that what was staged outside a turn is flushed. */
  readonly schedule: () => void;
}

export class Streams {
  readonly #o: StreamsOptions;
  readonly #open = new Map<string, OpenStream>();
  /** By address. */
  readonly #waiters = new Map<string, Set<Waiter>>();
  readonly #onTurn = ({ address, status }: Turn): void => {
    if (status !== 'active') this.#wake(address);
  };
  /** One whose state nobody can read ends without a turn. */
  readonly #onEnd = ({ address }: { readonly address: Address }): void => this.#wake(address);
  #letGo: () => void = () => undefined;
  #closed: Error | undefined;

  constructor(options: StreamsOptions) {
    this.#o = options;
  }

  /** Readings that wait. For tests. @internal */
  get readers(): number {
    let readers = 0;
    for (const waiters of this.#waiters.values()) readers += waiters.size;
    return readers;
  }

  /** Streams of which something is in memory. For tests. @internal */
  get opened(): number {
    return this.#open.size;
  }

  /** Those who read are told, now and later. */
  close(error: Error): void {
    this.#closed ??= error;
    for (const address of [...this.#waiters.keys()]) this.#wake(address);
  }

  writer(source: WriterSource): Writer {
    return new Writer(source, {
      ...{ limits: this.#o.limits, logger: this.#o.logger },
      load: () => this.#load(source),
      append: (open, chunk) => this.#append(source, open, chunk),
      end: (open) => this.#end(source, open),
      stored: () => this.#o.commits.stored(),
      release: (open) => {
        open.users--;
        this.#forget(source, open);
      },
    });
  }

  /**
   * First what is stored, then what comes, until the stream is closed or its actor has ended.
   * @throws {NotFoundError} there is neither such an actor nor such a stream
   * @throws {CancelledError} the signal was aborted
   * @throws {StoppedError} the runtime stops
   */
  async *read(
    address: Address,
    { name = DEFAULT_STREAM, from = 0, signal }: ReadStreamOptions = {},
  ): AsyncGenerator<StreamChunk, void, undefined> {
    const waiter: Waiter = { name, wake: () => undefined };
    const stop = this.#listen(address, waiter);
    const onAbort = (): void => waiter.wake();
    signal?.addEventListener('abort', onAbort);
    try {
      let next = from;
      let isKnown = false;
      for (;;) {
        // Before the store is asked: what is stored while it answers wakes this one at once.
        const woken = new Promise<void>((resolve) => {
          waiter.wake = resolve;
        });
        const page = await this.#page(address, name, next, signal);
        if (page.length === 0) {
          const state = await this.#stateOf(address, name, next);
          if (state === 'unknown' && !isKnown) {
            throw new NotFoundError(`There is no actor at ${address}, and no stream "${name}".`);
          }
          isKnown = true;
          if (state === 'open') {
            await woken;
            continue;
          }
          // What was stored between the two looks still counts.
          const rest = await this.#page(address, name, next, signal);
          if (rest.length === 0) return;
          page.push(...rest);
        }
        for (const row of page) {
          this.#assertOpen(signal, address);
          next = row.offset + 1;
          yield chunkOf(row);
        }
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      stop();
    }
  }

  // ── reading ────────────────────────────────────────────────────────────────────────────────────────

  async #page(address: string, name: string, from: number, signal: AbortSignal | undefined) {
    this.#assertOpen(signal, address);
    const page = await this.#o.store.listStreamChunks({ address, name, from, limit: PAGE });
    this.#assertOpen(signal, address);
    return [...page];
  }

  #assertOpen(signal: AbortSignal | undefined, address: string): void {
    if (this.#closed !== undefined) throw this.#closed;
    if (signal?.aborted !== true) return;
    const { reason } = signal as { readonly reason: unknown };
    throw reason instanceof TroupeError
      ? reason
      : new CancelledError(`The reading of a stream of ${address} was called off.`, {
          cause: reason,
        });
  }

  async #stateOf(
    address: string,
    name: string,
    next: number,
  ): Promise<'open' | 'over' | 'unknown'> {
    const [head] = await this.#o.store.listStreams({ address, name });
    if (head !== undefined && head.closedAt !== null && head.next <= next) return 'over';
    const [actor] = await this.#o.store.loadActors([address]);
    if (actor === undefined) return head === undefined ? 'unknown' : 'over';
    return actor.status === 'done' || actor.status === 'error' ? 'over' : 'open';
  }

  #listen(address: Address, waiter: Waiter): () => void {
    let waiters = this.#waiters.get(address);
    if (waiters === undefined) {
      waiters = new Set();
      if (this.#waiters.size === 0) this.#begin();
      this.#waiters.set(address, waiters);
    }
    waiters.add(waiter);
    return () => {
      waiters.delete(waiter);
      if (waiters.size > 0 || this.#waiters.get(address) !== waiters) return;
      this.#waiters.delete(address);
      if (this.#waiters.size === 0) this.#endListening();
    };
  }

  /** Somebody waits for what comes: the process stays, while nothing else keeps it. */
  #begin(): void {
    this.#o.events.on('turn', this.#onTurn);
    this.#o.events.on('ended', this.#onEnd);
    const stay = (): void => {
      this.#letGo = this.#o.clock.setTimer(MAX_TIMER_MS, stay);
    };
    stay();
  }

  #endListening(): void {
    this.#o.events.off('turn', this.#onTurn);
    this.#o.events.off('ended', this.#onEnd);
    this.#letGo();
  }

  #wake(address: string, name?: string): void {
    for (const waiter of this.#waiters.get(address) ?? []) {
      if (name === undefined || waiter.name === name) waiter.wake();
    }
  }

  // ── writing ────────────────────────────────────────────────────────────────────────────────────────

  async #load(source: WriterSource): Promise<Loaded> {
    const open = this.#opened(source);
    open.users++;
    try {
      await open.ready;
      if (source.looksForActor === true && open.row === undefined) {
        await this.#requireActor(source.address);
      }
      let journal = open.journals.get(source.writer);
      if (journal === undefined) {
        journal = open.row === undefined ? noJournal() : this.#journal(source);
        open.journals.set(source.writer, journal);
        journal.catch(() => open.journals.delete(source.writer));
      }
      return { open, journal: await journal };
    } catch (error) {
      open.users--;
      this.#forget(source, open);
      throw error;
    }
  }

  async #requireActor(address: Address): Promise<void> {
    const [actor] = await this.#o.store.loadActors([address]);
    if (actor === undefined) throw new NotFoundError(`There is no actor at ${address}.`);
  }

  #opened({ address, name }: WriterSource): OpenStream {
    const key = keyOf(address, name);
    const known = this.#open.get(key);
    if (known !== undefined) return known;
    const ready = this.#o.store.listStreams({ address, name }).then(([head]) => {
      if (head === undefined) return;
      const { lastJson: _lastJson, ...row } = head;
      open.row = row;
    });
    const open: OpenStream = {
      ...{ ready, row: undefined, users: 0, stage: undefined },
      journals: new Map(),
    };
    this.#open.set(key, open);
    return open;
  }

  async #journal({ address, name, writer }: WriterSource): Promise<Journal> {
    const all: Written[] = [];
    for (let from = 0; ; ) {
      const page = await this.#o.store.listStreamChunks({
        ...{ address, name, writer, from },
        limit: PAGE,
      });
      for (const { offset, epoch, seq, valueJson } of page) {
        all.push({ offset, epoch, seq, hash: hashOf(valueJson) });
      }
      const last = page.at(-1);
      if (last === undefined || page.length < PAGE) {
        return {
          written: new Map(latestOfWriter(all).map((chunk) => [chunk.seq, chunk])),
          epoch: all.reduce((most, { epoch }) => Math.max(most, epoch), 1),
        };
      }
      from = last.offset + 1;
    }
  }

  /** @throws {TroupeError} `quota` */
  #append({ address, name, writer }: WriterSource, open: OpenStream, chunk: NewChunk): number {
    const { limits, clock, commits, schedule } = this.#o;
    const at = clock.now();
    const before = open.row ?? newStream(address, name, at);
    const size = before.size + chunk.valueJson.length;
    if (before.next >= limits.maxChunks || size > limits.maxStreamChars) {
      throw new TroupeError(
        'quota',
        `The stream "${name}" of ${address} is full: it has ${before.next} chunks of ${before.size} characters, and ${limits.maxChunks} of ${limits.maxStreamChars} are allowed. The chunk was not stored. Write less often or more at a time, or raise the limits: createTroupe({ streams: { maxChunks, maxStreamChars } }).`,
        { retryable: false, context: { address, stream: name, chunks: before.next } },
      );
    }
    open.row = { ...before, next: before.next + 1, size, updatedAt: at, closedAt: null };
    commits.stage.streamChunks.push({ address, name, offset: before.next, at, writer, ...chunk });
    this.#staged(address, name, open, open.row);
    schedule();
    return before.next;
  }

  #end({ address, name }: WriterSource, open: OpenStream): void {
    const at = this.#o.clock.now();
    const before = open.row ?? newStream(address, name, at);
    if (before.closedAt !== null) return;
    open.row = { ...before, updatedAt: at, closedAt: at };
    this.#staged(address, name, open, open.row);
    this.#o.schedule();
  }

  #staged(address: Address, name: string, open: OpenStream, row: StreamRow): void {
    const { commits, events } = this.#o;
    const { stage } = commits;
    stage.putStream(row);
    // Once for each commit, however many chunks it has.
    if (open.stage === stage) return;
    open.stage = stage;
    open.users++;
    commits.after(() => {
      open.users--;
      if (open.stage === stage) open.stage = undefined;
      this.#forget({ address, name }, open);
      this.#wake(address, name);
      const { next = 0, closedAt = null } = open.row ?? {};
      events.tell('streamed', { address, name, next, closed: closedAt !== null });
    });
  }

  /** Nobody writes to it, and all is stored: whoever opens it again reads how it stands. */
  #forget({ address, name }: Pick<WriterSource, 'address' | 'name'>, open: OpenStream): void {
    const key = keyOf(address, name);
    if (open.users === 0 && this.#open.get(key) === open) this.#open.delete(key);
  }
}

interface Written {
  readonly offset: number;
  readonly epoch: number;
  readonly seq: number;
  readonly hash: string;
}

interface Loaded {
  readonly open: OpenStream;
  readonly journal: Journal;
}

interface NewChunk {
  readonly epoch: number;
  readonly seq: number;
  readonly valueJson: string;
}

/** What a writer needs of the streams. */
interface WriterHost {
  readonly limits: StreamLimits;
  readonly logger: Logger;
  load(): Promise<Loaded>;
  append(open: OpenStream, chunk: NewChunk): number;
  end(open: OpenStream): void;
  stored(): Promise<void>;
  release(open: OpenStream): void;
}

/** One writer of one stream, from its start to its end. */
export class Writer implements StreamWriter {
  readonly #source: WriterSource;
  readonly #host: WriterHost;
  #loading: Promise<Loaded> | undefined;
  #seq = 0;
  #isClosed = false;
  #closing: Promise<void> | undefined;
  #released = false;
  readonly #underWay = new Set<Promise<unknown>>();

  constructor(source: WriterSource, host: WriterHost) {
    this.#source = source;
    this.#host = host;
  }

  write(value: JsonValue): Promise<number> {
    return this.#track(() => this.#write(value));
  }

  close(): Promise<void> {
    this.#closing ??= this.#track(() => this.#close());
    return this.#closing;
  }

  /** Resolves when everything that was written so far is stored, or was refused. */
  async flush(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  /** Nothing can be written any more. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#loading?.then(
      ({ open }) => this.#host.release(open),
      () => undefined, // each write that waited for it has said so
    );
  }

  /** Whether this was written before as the first chunk; undefined if nothing was. */
  async hasBegunWith(value: JsonValue): Promise<boolean | undefined> {
    const first = (await this.#load()).journal.written.get(1);
    return first === undefined ? undefined : first.hash === hashOf(JSON.stringify(value));
  }

  /** Whoever does not wait for a write must not end the process when it is refused; it is in the log. */
  #track<T>(work: () => Promise<T>): Promise<T> {
    const result = work();
    this.#underWay.add(result);
    result.then(
      () => this.#underWay.delete(result),
      (error: unknown) => {
        this.#underWay.delete(result);
        const { address, name } = this.#source;
        this.#host.logger.warn({ err: error, address, stream: name }, 'a stream was not written');
      },
    );
    return result;
  }

  async #write(value: JsonValue): Promise<number> {
    const valueJson = this.#checked(value);
    if (this.#isClosed) throw this.#refusal('has been closed by whoever writes to it now');
    this.#assertWanted();
    // By the order of the calls, whatever has to be waited for.
    const seq = ++this.#seq;
    const { open, journal } = await this.#load();
    this.#assertWanted();
    const { written } = journal;
    const hash = hashOf(valueJson);
    const before = written.get(seq);
    if (before !== undefined) {
      if (before.hash === hash) {
        this.#source.beat();
        await this.#host.stored();
        return before.offset;
      }
      // This time it goes another way: what it wrote from here on last time counts no more.
      for (const number of written.keys()) if (number >= seq) written.delete(number);
      journal.epoch++;
    }
    const { epoch } = journal;
    const offset = this.#host.append(open, { epoch, seq, valueJson });
    written.set(seq, { offset, epoch, seq, hash });
    this.#source.beat();
    await this.#host.stored();
    return offset;
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    this.#assertWanted();
    const { open } = await this.#load();
    this.#assertWanted();
    this.#host.end(open);
    await this.#host.stored();
    // What was written before is staged by now: nothing will come that has need of what is known of the stream.
    this.release();
  }

  #load(): Promise<Loaded> {
    this.#loading ??= this.#host.load();
    return this.#loading;
  }

  #assertWanted(): void {
    if (this.#released) throw this.#refusal('is not written to any more: its writer has ended');
    this.#source.assertWanted();
  }

  #refusal(why: string): ConflictError {
    const { address, name } = this.#source;
    return new ConflictError(`The stream "${name}" of ${address} ${why}.`);
  }

  /** @throws {ValidationError | PayloadTooLargeError} */
  #checked(value: JsonValue): string {
    const { address, name } = this.#source;
    const problem = findNonJson(value, 'chunk');
    if (problem) {
      throw new ValidationError(
        `Expected what is written to the stream "${name}" of ${address} to be plain JSON, but ${problem.path} is ${problem.found}.`,
      );
    }
    const json = JSON.stringify(value);
    const { maxChunkChars } = this.#host.limits;
    if (json.length <= maxChunkChars) return json;
    throw new PayloadTooLargeError(
      `A chunk for the stream "${name}" of ${address} has ${json.length} characters as JSON, and ${maxChunkChars} are allowed. It was not stored. Write it in parts, or keep it in a file and write its name.`,
      { context: { address, stream: name, chars: json.length, limit: maxChunkChars } },
    );
  }
}

const noJournal = async (): Promise<Journal> => ({ written: new Map(), epoch: 1 });

const keyOf = (address: string, name: string): string => `${address}\n${name}`;

const hashOf = (json: string): string => digest('sha256', json, 'base64url').slice(0, 22);

function newStream(address: string, name: string, at: number): StreamRow {
  return { address, name, next: 0, size: 0, createdAt: at, updatedAt: at, closedAt: null };
}
