import { createHash, timingSafeEqual } from 'node:crypto';
import { chmod } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { TroupeError, toFailure, ValidationError } from '../../index.ts';
import type { Order, OrderResult } from '../orders.ts';
import type { RunEvent } from '../run-view.ts';
import { createEndpoint, removeEndpoint, tokenOf } from './endpoint.ts';
import { readLines } from './lines.ts';
import {
  type Answer,
  type EventLine,
  MAX_LINE_BYTES,
  PROTOCOL,
  type Request,
  requestSchema,
  type Snapshot,
} from './messages.ts';

/** What a running troupe does for those who connect. */
export interface ControlHandlers {
  perform(order: Order): Promise<OrderResult>;
  snapshot(): Snapshot;
  /** @returns what ends it */
  subscribe(listener: (event: RunEvent) => void): () => void;
}

/** More at once are cut off before they can say anything. */
const MAX_CONNECTIONS = 64;
/** Who says nothing for so long, or does not name the token, makes room for others. */
const IDLE_MS = 5_000;
/** A watcher that is further behind is cut off: it can ask again, and nobody waits for it. */
const MAX_UNSENT_BYTES = 4 * 1024 * 1024;

/**
 * Listens for orders while a run is active. Requests of one connection are carried out one after the other, those of
 * several at the same time; the actors decide who was first.
 * Crash: the socket, its token and its path file stay; the next owner of the store removes them.
 */
export class ControlServer {
  readonly #server: Server;
  readonly #stateDirectory: string;
  readonly #handlers: ControlHandlers;
  readonly #digest: Buffer;
  readonly #sockets = new Set<Socket>();
  readonly #watchers = new Map<Socket, () => void>();
  readonly #closed: Promise<void>;
  readonly #idleMs: number;

  private constructor(
    stateDirectory: string,
    token: string,
    handlers: ControlHandlers,
    idleMs: number,
  ) {
    this.#idleMs = idleMs;
    this.#stateDirectory = stateDirectory;
    this.#handlers = handlers;
    this.#digest = digest(token);
    this.#server = createServer((socket) => void this.#serve(socket));
    this.#server.maxConnections = MAX_CONNECTIONS;
    this.#closed = new Promise((resolve) => this.#server.once('close', () => resolve()));
  }

  /** Call it only as the owner of the project's store. */
  static async listen(
    stateDirectory: string,
    handlers: ControlHandlers,
    { idleMs = IDLE_MS }: { readonly idleMs?: number } = {},
  ): Promise<ControlServer> {
    const { path, token } = await createEndpoint(stateDirectory);
    const server = new ControlServer(stateDirectory, token, handlers, idleMs);
    await new Promise<void>((resolve, reject) => {
      server.#server.once('error', reject);
      server.#server.listen(path, () => {
        server.#server.off('error', reject);
        resolve();
      });
    });
    // The directory is closed to others already; this is for those who open it again by hand.
    if (process.platform !== 'win32') await chmod(path, 0o600);
    return server;
  }

  /** Takes no new connections; those who watch are told what happens until `close`. */
  async stopListening(): Promise<void> {
    if (!this.#server.listening || (await this.#isReplaced())) return;
    this.#server.close();
    await removeEndpoint(this.#stateDirectory);
  }

  async close(): Promise<void> {
    await this.stopListening();
    if (this.#server.listening) {
      // To close it would take away the socket of whoever listens now: it has the same path. Nobody finds this one any more.
      this.#server.unref();
      for (const socket of this.#sockets) socket.destroy();
      return;
    }
    for (const socket of this.#sockets) socket.end();
    // Whoever does not read any more shall not hold us up.
    const cut = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, 500);
    await this.#closed;
    clearTimeout(cut);
    for (const socket of this.#watchers.keys()) this.#unwatch(socket);
  }

  /** Whether somebody else listens here: the store was taken over while this process stood still. */
  async #isReplaced(): Promise<boolean> {
    const token = await tokenOf(this.#stateDirectory);
    return token === undefined || !timingSafeEqual(digest(token), this.#digest);
  }

  #unwatch(socket: Socket): void {
    this.#watchers.get(socket)?.();
    this.#watchers.delete(socket);
  }

  async #serve(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    // A client that goes away in the middle is nothing to talk about.
    socket.on('error', () => undefined);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#unwatch(socket);
    });
    socket.setTimeout(this.#idleMs, () => socket.destroy());
    send(socket, { troupe: PROTOCOL, pid: process.pid });
    try {
      // The iterator leaves the connection open when it ends, so that the reason can still be told.
      const chunks = socket.iterator({ destroyOnReturn: false });
      for await (const line of readLines(chunks, MAX_LINE_BYTES)) {
        const request = this.#parse(line);
        socket.setTimeout(0);
        send(socket, await this.#answer(request, socket));
        if (request.do === 'order') socket.setTimeout(this.#idleMs);
      }
    } catch (error) {
      // Not a request of ours, or a connection that broke; in the second case nobody hears this.
      if (error instanceof TroupeError) {
        send(socket, { id: 0, ok: false, failure: error.toFailure() });
      }
      socket.destroySoon();
    }
  }

  /** @throws {TroupeError} what came is no request, or its token is wrong */
  #parse(line: string): Request {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw new ValidationError('Expected one JSON object on a line, got something else.');
    }
    // The token first: whoever does not know it learns nothing about what is accepted.
    const token: unknown = (value as { readonly token?: unknown } | null)?.token;
    if (typeof token !== 'string' || !timingSafeEqual(digest(token), this.#digest)) {
      throw new TroupeError('unauthorized', 'The token is not the one in .troupe/control.token.');
    }
    const parsed = requestSchema.safeParse(value);
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new ValidationError(
      `Expected a request, got something else at "${issue?.path.join('.') ?? ''}": ${issue?.message ?? ''}.`,
    );
  }

  async #answer(request: Request, socket: Socket): Promise<Answer> {
    const { id } = request;
    try {
      if (request.do === 'watch') return { id, ok: true, result: this.#watch(socket) };
      return { id, ok: true, result: await this.#handlers.perform(request.order) };
    } catch (error) {
      return { id, ok: false, failure: toFailure(error) };
    }
  }

  #watch(socket: Socket): Snapshot {
    const result = this.#handlers.snapshot();
    if (!this.#watchers.has(socket) && !socket.destroyed) {
      const off = this.#handlers.subscribe((event) => {
        if (socket.writableLength <= MAX_UNSENT_BYTES) send(socket, { event });
        else {
          this.#unwatch(socket);
          socket.destroy();
        }
      });
      this.#watchers.set(socket, off);
    }
    return result;
  }
}

type Hello = { readonly troupe: string; readonly pid: number };

function send(socket: Socket, message: Hello | Answer | EventLine): void {
  if (socket.writable) socket.write(`${JSON.stringify(message)}\n`);
}

/** Of equal length whatever the token's is, so that comparing tells nothing about it. */
const digest = (token: string): Buffer => createHash('sha256').update(token).digest();
