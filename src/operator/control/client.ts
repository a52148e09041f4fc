import { connect, type Socket } from 'node:net';
import { fromFailure, TroupeError } from '../../index.ts';
import { type Order, type OrderResult, orderResultSchema } from '../orders.ts';
import type { RunEvent } from '../run-view.ts';
import { type Endpoint, findEndpoint } from './endpoint.ts';
import { readLines } from './lines.ts';
import {
  answerSchema,
  eventSchema,
  helloSchema,
  MAX_ANSWER_BYTES,
  PROTOCOL,
  type Request,
  type Snapshot,
} from './messages.ts';

/** Whoever listens says at once who it is, unless it hangs or is stopped. */
const HELLO_WITHIN_MS = 3_000;
/** An order may wait for a run to be cancelled; nothing waits longer than this. */
const ANSWER_WITHIN_MS = 60_000;
/** These look at the whole store. */
const TAKE_LONG: ReadonlySet<string> = new Set<Order['order']>(['prune', 'reencrypt']);

/** The troupe that runs, as seen from another process. */
export interface ControlConnection {
  readonly pid: number;
  perform(order: Order): Promise<OrderResult>;
  /**
   * @param onEvent called for everything that happens after the snapshot
   * @returns the snapshot, and a promise that resolves when the other process ends
   */
  watch(
    onEvent: (event: RunEvent) => void,
  ): Promise<{ readonly snapshot: Snapshot; readonly ended: Promise<void> }>;
  close(): void;
}

/**
 * Connects to the troupe that works on a project.
 * @returns undefined when none answers: nothing runs, it starts or stops just now, or it hangs
 * @throws {TroupeError} `conflict`: something answers that is not this version of troupe
 */
export async function connectControl(
  stateDirectory: string,
): Promise<ControlConnection | undefined> {
  const endpoint = await findEndpoint(stateDirectory);
  if (endpoint === undefined) return undefined;
  const socket = await open(endpoint);
  if (socket === undefined) return undefined;
  const lines = readLines(socket, MAX_ANSWER_BYTES);
  socket.setTimeout(HELLO_WITHIN_MS, () => socket.destroy());
  const hello = await firstLine(lines);
  socket.setTimeout(0);
  // Cut off before a word was said: too many connections, or it stops just now.
  if (hello === undefined) {
    socket.destroy();
    return undefined;
  }
  const { success, data } = helloSchema.safeParse(hello);
  if (success && data.troupe === PROTOCOL) {
    return new Connection(socket, lines, endpoint.token, data.pid);
  }
  socket.destroy();
  throw new TroupeError(
    'conflict',
    success
      ? `Process ${data.pid} works on this project with another version of troupe (it speaks ${data.troupe}, this one ${PROTOCOL}). Use the same version, or stop that process first.`
      : `What answers at ${endpoint.path} is no troupe, or one of another version (this one speaks ${PROTOCOL}). Use the same version, or stop that process first.`,
  );
}

type Lines = AsyncGenerator<string, void, undefined>;

class Connection implements ControlConnection {
  readonly pid: number;
  readonly #socket: Socket;
  readonly #lines: Lines;
  readonly #token: string;
  #id = 0;

  constructor(socket: Socket, lines: Lines, token: string, pid: number) {
    this.#socket = socket;
    this.#lines = lines;
    this.#token = token;
    this.pid = pid;
  }

  async perform(order: Order): Promise<OrderResult> {
    const result = await this.#ask({ do: 'order', order });
    return orderResultSchema.parse(result);
  }

  async watch(
    onEvent: (event: RunEvent) => void,
  ): Promise<{ readonly snapshot: Snapshot; readonly ended: Promise<void> }> {
    const snapshot = (await this.#ask({ do: 'watch' })) as Snapshot;
    return { snapshot, ended: this.#follow(onEvent) };
  }

  close(): void {
    this.#socket.destroy();
  }

  async #follow(onEvent: (event: RunEvent) => void): Promise<void> {
    for (;;) {
      const line = await nextLine(this.#lines);
      if (line === undefined) return;
      const parsed = eventSchema.safeParse(line);
      if (parsed.success) onEvent(parsed.data.event);
    }
  }

  async #ask(
    request: { readonly do: 'watch' } | { readonly do: 'order'; readonly order: Order },
  ): Promise<unknown> {
    const message = { id: ++this.#id, token: this.#token, ...request } as Request;
    this.#socket.write(`${JSON.stringify(message)}\n`);
    const takesLong = request.do === 'order' && TAKE_LONG.has(request.order.order);
    if (!takesLong) this.#socket.setTimeout(ANSWER_WITHIN_MS, () => this.#socket.destroy());
    const line = await nextLine(this.#lines);
    this.#socket.setTimeout(0);
    if (line === undefined) {
      throw new TroupeError(
        'unavailable',
        `Process ${this.pid} went away before it answered. Whether it still took the order, "troupe status" tells.`,
      );
    }
    const answer = answerSchema.parse(line);
    if (!answer.ok) throw fromFailure(answer.failure);
    return answer.result;
  }
}

/** As `nextLine`; what is no message at all is null. */
async function firstLine(lines: Lines): Promise<unknown> {
  try {
    return await nextLine(lines);
  } catch {
    return null;
  }
}

/** The next message; undefined when the connection has ended, in whatever way. */
async function nextLine(lines: Lines): Promise<unknown> {
  try {
    const { value, done } = await lines.next();
    return done === true ? undefined : JSON.parse(value);
  } catch (error) {
    if (error instanceof TroupeError || (error as NodeJS.ErrnoException).code === undefined) {
      throw error;
    }
    return undefined;
  }
}

/** Nobody listens there: the file is left from a crash, or was never made. */
const NOBODY: ReadonlySet<string | undefined> = new Set([
  'ENOENT',
  'ECONNREFUSED',
  'ECONNRESET',
  'EAGAIN',
  'EPIPE',
]);

function open({ path }: Endpoint): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.off('error', onError);
      // From here on the reader of the lines sees what goes wrong.
      socket.on('error', () => undefined);
      resolve(socket);
    });
    const onError = (error: NodeJS.ErrnoException): void => {
      if (NOBODY.has(error.code)) resolve(undefined);
      else {
        reject(
          new TroupeError(
            error.code === 'EACCES' || error.code === 'EPERM' ? 'forbidden' : 'unavailable',
            `The troupe that runs cannot be reached at ${path}: ${error.message}.`,
            { cause: error },
          ),
        );
      }
    };
    socket.once('error', onError);
  });
}
