import { ConfigurationError, StoppedError } from '../../protocol/errors.ts';
import { EMPTY_BATCH } from '../empty-batch.ts';
import type { AppTransaction, Batch, IdempotencyRecord, StepRecord, Store } from '../store.ts';
import { checkKeyId, type PayloadCodec } from './codec.ts';
import { Packer } from './packer.ts';
import { type Reencrypted, type ReencryptOptions, reencrypt } from './reencrypt.ts';
import { TextReader } from './text-reader.ts';
import { Unpacker } from './unpacker.ts';

export interface PackedStoreOptions {
  /** Default: texts are stored as they are, or compressed if they are long. */
  readonly codec?: PayloadCodec;
}

/**
 * Any store, with long texts in it stored once: a history of ten states of 1 MB that hardly differ takes little more
 * than one of them. And, with a codec, encrypted.
 *
 * A text above 32 kB is cut where its content says so (cut-text.ts), each piece is compressed and stored under a hash
 * of its content, and the row keeps their names. Shorter texts are only looked at for their length. What is read comes
 * back as it was committed, or the call rejects with UnreadablePayloadError; `loadActors` says it of each actor.
 *
 * Work done on the caller's thread, for a text of n characters: comparing n, and cutting, hashing and compressing what
 * is new (figures: bench/README.md).
 */
export class PackedStore implements Store {
  readonly #inner: Store;
  readonly #packer: Packer;
  readonly #texts: TextReader;
  readonly #codec: PayloadCodec | undefined;
  /** A batch was refused before it reached the store, and its caller cannot know yet. */
  #refused: Promise<never> | undefined;
  /** Reads that may still have to ask the store for chunks. */
  readonly #reading = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(store: Store, { codec }: PackedStoreOptions = {}) {
    if (store instanceof PackedStore) {
      throw new ConfigurationError('A PackedStore cannot be packed once more: give it the store.');
    }
    if (codec !== undefined) checkKeyId(codec.keyId);
    this.#inner = store;
    this.#codec = codec;
    this.#packer = new Packer(codec);
    this.#texts = new TextReader((lists) => store.loadChunks(lists), codec);
  }

  get name(): string {
    return this.#inner.name;
  }

  commit(batch: Batch): Promise<void> {
    if (this.#closing !== undefined) return this.#closed();
    if (this.#refused !== undefined) return this.#refused;
    let packed: Batch;
    try {
      packed = this.#packer.pack(batch);
    } catch (error) {
      this.#packer.forget();
      const refused = Promise.reject<never>(error);
      // Those that are made before the caller knows may build on what was not stored.
      this.#refused = refused;
      queueMicrotask(() => {
        this.#refused = undefined;
      });
      return refused;
    }
    const stored = this.#inner.commit(packed);
    stored.catch(() => this.#packer.forget());
    return stored;
  }

  loadPending() {
    return this.#read(() => this.#texts.pending(() => this.#inner.loadPending()));
  }

  loadActors(addresses: readonly string[]) {
    return this.#read(() => this.#texts.actors(() => this.#inner.loadActors(addresses)));
  }

  async transact(transaction: AppTransaction): Promise<StepRecord> {
    if (this.#closing !== undefined) return this.#closed();
    const { step } = transaction;
    const { steps, packed } = this.#packer.pack({ ...EMPTY_BATCH, steps: [step] });
    const stored = steps[0] as StepRecord;
    const whole = { ...transaction, step: stored, ...(packed === undefined ? {} : { packed }) };
    const [kept] = await this.#read(() =>
      this.#texts.steps(async () => [await this.#inner.transact(whole)]),
    );
    return kept as StepRecord;
  }

  loadSteps(scope: string) {
    return this.#read(() => this.#texts.steps(() => this.#inner.loadSteps(scope)));
  }

  async loadIdempotency(key: string): Promise<IdempotencyRecord | undefined> {
    const load = async (): Promise<readonly IdempotencyRecord[]> => {
      const record = await this.#inner.loadIdempotency(key);
      return record === undefined ? [] : [record];
    };
    return (await this.#read(() => this.#texts.answers(load)))[0];
  }

  loadChunks(lists: readonly string[]) {
    return this.#inner.loadChunks(lists);
  }

  listCheckpoints(...query: Parameters<Store['listCheckpoints']>) {
    return this.#read(() => this.#texts.checkpoints(() => this.#inner.listCheckpoints(...query)));
  }

  listCuts(run: string) {
    return this.#read(() => this.#texts.cuts(() => this.#inner.listCuts(run)));
  }

  loadCut(id: string) {
    return this.#read(() => this.#texts.cut(() => this.#inner.loadCut(id)));
  }

  listDeadLetters() {
    return this.#read(() => this.#texts.deadLetters(() => this.#inner.listDeadLetters()));
  }

  listTurns(query: Parameters<Store['listTurns']>[0]) {
    return this.#read(() => this.#texts.turns(() => this.#inner.listTurns(query)));
  }

  listAudit(query: Parameters<Store['listAudit']>[0]) {
    return this.#read(() => this.#texts.audit(() => this.#inner.listAudit(query)));
  }

  listRuns() {
    return this.#read(() => this.#texts.runs(() => this.#inner.listRuns()));
  }

  listTasks(...query: Parameters<Store['listTasks']>) {
    return this.#read(() => this.#texts.tasks(() => this.#inner.listTasks(...query)));
  }

  listAttempts(run: string, task: string) {
    return this.#read(() => this.#texts.attempts(() => this.#inner.listAttempts(run, task)));
  }

  listStreams(filter: Parameters<Store['listStreams']>[0]) {
    return this.#read(() => this.#texts.streams(() => this.#inner.listStreams(filter)));
  }

  listStreamChunks(query: Parameters<Store['listStreamChunks']>[0]) {
    return this.#read(() => this.#texts.streamChunks(() => this.#inner.listStreamChunks(query)));
  }

  /**
   * Rewrites what is not under the codec's current key, in slices, while everything else goes on.
   * @throws {ConfigurationError} there is no codec, or the store is in memory only
   * @throws {UnreadablePayloadError} a text is damaged, or its key is not known; what was done before stays done
   */
  reencrypt(options: ReencryptOptions = {}): Promise<Reencrypted> {
    const codec = this.#codec;
    if (codec === undefined) {
      const text = 'There is no codec to encrypt with: give one to createTroupe({ codec }).';
      return Promise.reject(new ConfigurationError(text));
    }
    return this.#read(() =>
      reencrypt(this.#inner, codec.keyId, this.#packer, new Unpacker(codec), options),
    );
  }

  // ── without texts of actors ────────────────────────────────────────────────────────────────────────

  claimTasks(claim: Parameters<Store['claimTasks']>[0]) {
    return this.#pass(() => this.#inner.claimTasks(claim));
  }

  applyAppSchema(statements: readonly string[]) {
    return this.#pass(() => this.#inner.applyAppSchema(statements));
  }

  query(statement: Parameters<Store['query']>[0]) {
    return this.#pass(() => this.#inner.query(statement));
  }

  acquireLease(claim: Parameters<Store['acquireLease']>[0]) {
    return this.#pass(() => this.#inner.acquireLease(claim));
  }

  extendLease(lease: Parameters<Store['extendLease']>[0]) {
    return this.#pass(() => this.#inner.extendLease(lease));
  }

  releaseLease(lease: Parameters<Store['releaseLease']>[0]) {
    return this.#pass(() => this.#inner.releaseLease(lease));
  }

  listLeases(now: Parameters<Store['listLeases']>[0]) {
    return this.#pass(() => this.#inner.listLeases(now));
  }

  assertOwner() {
    return this.#pass(() => this.#inner.assertOwner());
  }

  listActors(filter?: Parameters<Store['listActors']>[0]) {
    return this.#pass(() => this.#inner.listActors(filter));
  }

  countTasks(run: string) {
    return this.#pass(() => this.#inner.countTasks(run));
  }

  prune(slice: Parameters<Store['prune']>[0]) {
    return this.#pass(() => this.#inner.prune(slice));
  }

  backup(path: string) {
    return this.#pass(() => this.#inner.backup(path));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // What was called before is finished, and a read may need a second call.
    while (this.#reading.size > 0) await Promise.allSettled(this.#reading);
    await this.#inner.close();
  }

  #read<T>(read: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) return this.#closed();
    const reading = read();
    this.#reading.add(reading);
    const done = (): void => {
      this.#reading.delete(reading);
    };
    reading.then(done, done);
    return reading;
  }

  #pass<T>(call: () => Promise<T>): Promise<T> {
    return this.#closing === undefined ? call() : this.#closed();
  }

  #closed(): Promise<never> {
    return Promise.reject(new StoppedError(`The store ${this.#inner.name} is closed.`));
  }
}
