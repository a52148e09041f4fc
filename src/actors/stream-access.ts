import type { Observable } from 'rxjs';
import { type Address, kindOf, parseAddress } from '../protocol/address.ts';
import {
  ConflictError,
  IdempotencyConflictError,
  NotFoundError,
  ValidationError,
} from '../protocol/errors.ts';
import { deepHash } from '../protocol/hash.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { DurableHost } from '../runtime/durable-host.ts';
import { rx } from '../runtime/rx.ts';
import {
  checkStreamName,
  DEFAULT_STREAM,
  type ReadStreamOptions,
  type StreamChunk,
  type StreamWriter,
} from '../runtime/stream.ts';
import type { Store } from '../store/store.ts';
import { checkSignalName, signalStream } from './signals.ts';

/**
 * The chunks of a stream: first those that are stored, then those that come, none twice and none left out, until the
 * stream is closed or its actor has ended. Read them with `for await`, which reads on only when it is done with the last
 * one, or subscribe to `chunks$`. Each use is a reading of its own, from the same place.
 */
export interface StreamReading extends AsyncIterable<StreamChunk> {
  readonly chunks$: Observable<StreamChunk>;
}

export interface WriteStreamOptions {
  /** Default `output`. */
  readonly name?: string;
  /**
   * Under which name the chunks are kept. One that begins again under the name of an earlier one, after a restart, does
   * not store again what it writes again. Default: a new name.
   */
  readonly writer?: string;
}

export interface SignalOptions {
  /** The same under the same key is stored once. It is kept as long as the task is. */
  readonly idempotencyKey?: string;
}

/** What an app does with streams and signals. */
export class StreamAccess {
  readonly #host: DurableHost;
  readonly #store: Pick<Store, 'loadActors'>;
  readonly #newId: () => string;

  constructor(host: DurableHost, store: Pick<Store, 'loadActors'>, newId: () => string) {
    this.#host = host;
    this.#store = store;
    this.#newId = newId;
  }

  read(address: Address, options: ReadStreamOptions): StreamReading {
    parseAddress(address);
    const name = checkStreamName(options.name ?? DEFAULT_STREAM);
    const { from = 0 } = options;
    if (!Number.isSafeInteger(from) || from < 0) {
      throw new ValidationError(
        `Expected to read the stream from an offset, which is a whole number from 0, got ${String(from)}. To go on after a chunk: { from: chunk.offset + 1 }.`,
      );
    }
    const chunks = (signal = options.signal): AsyncGenerator<StreamChunk, void, undefined> => {
      this.#host.assertRunning();
      return this.#host.streams.read(address, {
        ...{ name, from },
        ...(signal === undefined ? {} : { signal }),
      });
    };
    let chunks$: Observable<StreamChunk> | undefined;
    return {
      [Symbol.asyncIterator]: () => chunks(),
      get chunks$() {
        chunks$ ??= observe(chunks, options.signal);
        return chunks$;
      },
    };
  }

  writer(address: Address, options: WriteStreamOptions): StreamWriter {
    const { name = DEFAULT_STREAM, writer = `app/${this.#newId()}` } = options;
    parseAddress(address);
    checkWriter(writer);
    return this.#writer(address, checkStreamName(name), writer);
  }

  async signal(
    address: Address,
    name: string,
    value: JsonValue,
    { idempotencyKey: key }: SignalOptions,
  ): Promise<void> {
    parseAddress(address);
    checkSignalName(name);
    if (kindOf(address) !== 'task') {
      throw new ValidationError(
        `Expected the address of a task such as "task/report-42/draft" for the signal "${name}", got "${address}". An actor of your own gets messages: troupe.send(address, { type: … }).`,
      );
    }
    const problem = findNonJson(value, 'value');
    if (problem) {
      throw new ValidationError(
        `Expected the signal "${name}" to be plain JSON, but ${problem.path} is ${problem.found}.`,
      );
    }
    this.#host.assertRunning();
    const [task] = await this.#store.loadActors([address]);
    if (task === undefined) throw new NotFoundError(`There is no task at ${address}.`);
    if (task.status === 'done' || task.status === 'error') {
      throw new ConflictError(`${address} has ended: nobody would hear the signal "${name}".`);
    }
    if (key !== undefined) checkWriter(key);
    const id = key === undefined ? `app/${this.#newId()}` : `key/${key}`;
    const writer = this.#writer(address, signalStream(name), id);
    try {
      if (key !== undefined && (await writer.hasBegunWith(value)) === false) {
        throw new IdempotencyConflictError(key, deepHash(value), 'another');
      }
      await writer.write(value);
    } finally {
      writer.release();
    }
  }

  #writer(address: Address, name: string, writer: string) {
    this.#host.assertRunning();
    return this.#host.streams.writer({
      ...{ address, name, writer, looksForActor: true },
      assertWanted: () => this.#host.assertRunning(),
      beat: () => undefined,
    });
  }
}

/** @throws {ValidationError} */
function checkWriter(writer: unknown): void {
  const fits =
    typeof writer === 'string' && writer !== '' && writer.length <= 500 && writer.isWellFormed();
  if (fits) return;
  throw new ValidationError(
    `Expected the name of a writer, or a key, to be a text of 1 to 500 characters, got ${JSON.stringify(writer)?.slice(0, 80) ?? String(writer)}.`,
  );
}

function observe(
  chunks: (signal: AbortSignal) => AsyncGenerator<StreamChunk, void, undefined>,
  outer: AbortSignal | undefined,
): Observable<StreamChunk> {
  const { Observable } = rx();
  return new Observable<StreamChunk>((subscriber) => {
    const gone = new AbortController();
    const signal = outer === undefined ? gone.signal : AbortSignal.any([outer, gone.signal]);
    const read = async (): Promise<void> => {
      for await (const chunk of chunks(signal)) {
        subscriber.next(chunk);
        if (subscriber.closed) return;
      }
      subscriber.complete();
    };
    // After it is unsubscribed nothing is told any more.
    read().catch((error: unknown) => subscriber.error(error));
    return () => gone.abort();
  });
}
