import type { JsonObject, JsonValue } from './json.ts';

/**
 * Every error Troupe throws or returns has one of these codes. The number is the exit code of the
 * `troupe` command for it (10-14 outside services, 20-24 the caller, 30-34 policy, 40-42 ourselves).
 */
export const EXIT_CODES = {
  rate_limited: 10,
  timeout: 11,
  network: 12,
  unavailable: 13,
  upstream: 14,
  validation: 20,
  not_found: 21,
  conflict: 22,
  lock_conflict: 23,
  idempotency_conflict: 24,
  policy: 30,
  approval_required: 31,
  quota: 32,
  unauthorized: 33,
  forbidden: 34,
  internal: 40,
  configuration: 41,
  unhandled: 42,
} as const;

export type ErrorCode = keyof typeof EXIT_CODES;

/** Trying the same thing again may help with these, and only with these. */
const RETRYABLE: ReadonlySet<ErrorCode> = new Set([
  'rate_limited',
  'timeout',
  'network',
  'unavailable',
  'upstream',
  'lock_conflict',
]);

/** An error as data: what may be stored, sent and shown. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  readonly retryAfterMs?: number;
  readonly context?: JsonObject;
}

export interface TroupeErrorOptions {
  readonly cause?: unknown;
  /** Facts that help: ids, paths, limits. JSON only, no secrets. */
  readonly context?: JsonObject;
  readonly retryAfterMs?: number;
  /** Overrides what the code says, when the thrower knows better. */
  readonly retryable?: boolean;
}

/** The base of every error that Troupe throws on purpose. Its message is one a user can act on. */
export class TroupeError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly context: JsonObject;

  constructor(code: ErrorCode, message: string, options: TroupeErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.retryable = options.retryable ?? RETRYABLE.has(code);
    const { retryAfterMs } = options;
    // From what a server has answered it may be anything; what is no number of milliseconds could not be stored.
    this.retryAfterMs = Number.isFinite(retryAfterMs) ? Math.max(0, retryAfterMs ?? 0) : undefined;
    this.context = options.context ?? {};
  }

  get exitCode(): number {
    return EXIT_CODES[this.code];
  }

  toFailure(): Failure {
    return {
      code: this.code,
      message: this.message,
      retryable: this.retryable,
      ...(this.retryAfterMs === undefined ? {} : { retryAfterMs: this.retryAfterMs }),
      ...(Object.keys(this.context).length === 0 ? {} : { context: this.context }),
    };
  }

  /** The row an audit log keeps of it: never the stack, never the cause's message. */
  toAuditEvent(at: number): JsonObject {
    return { type: 'error', at, name: this.name, ...this.toFailure() } as JsonObject;
  }
}

/** Bad input from a user, a file, a model or the network: what was expected, what came, where, what to do. */
export class ValidationError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('validation', message, options);
  }
}

/** A setting or a definition the program was given cannot work. */
export class ConfigurationError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('configuration', message, options);
  }
}

/** Nothing has this name or address. */
export class NotFoundError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('not_found', message, options);
  }
}

/** The thing exists already, or is in a state that does not allow this. */
export class ConflictError extends TroupeError {
  constructor(
    message: string,
    options: TroupeErrorOptions = {},
    code: 'conflict' | 'idempotency_conflict' = 'conflict',
  ) {
    super(code, message, options);
  }
}

/** The idempotency key was used for something else: another operation, receiver or input. */
export class IdempotencyConflictError extends ConflictError {
  constructor(key: string, expected: string, found: string) {
    super(
      `The idempotency key ${JSON.stringify(key)} was used for something else: it is kept for the input ${found}, and asked for with the input ${expected} now. Give what is new a key of its own.`,
      { context: { key, expected, found } },
      'idempotency_conflict',
    );
  }
}

/** Somebody else holds it. The message names the holder. */
export class LockConflictError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('lock_conflict', message, options);
  }
}

/** The receiver has as many messages waiting as it may. Nothing was stored; send again later. */
export class MailboxFullError extends TroupeError {
  /** @param more facts for whoever is refused */
  constructor(address: string, limit: number, more: JsonObject = {}) {
    super('unavailable', `The mailbox of ${address} is full (${limit} messages wait there).`, {
      context: { address, limit, ...more },
    });
  }
}

/** A circuit breaker is open, or half open with somebody trying already: the call was not made. */
export class BreakerOpenError extends TroupeError {
  constructor(key: string, state: 'open' | 'halfOpen', retryAfterMs: number) {
    super(
      'unavailable',
      state === 'open'
        ? `The circuit breaker "${key}" is open: it is tried again in ${retryAfterMs} ms.`
        : `The circuit breaker "${key}" is half open, and another call tries whether it is over.`,
      { context: { breaker: key, state }, retryAfterMs },
    );
  }
}

/** No answer came before the deadline. */
export class TimeoutError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('timeout', message, options);
  }
}

/** The work was called off. Not a failure of whoever did it. */
export class CancelledError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('conflict', message, { ...options, retryable: false });
  }
}

/** A text in the store cannot be read: it is damaged, or written under a key that is not there. The message names its row. */
export class UnreadablePayloadError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('internal', message, options);
  }
}

/** A snapshot, message or result is longer than `maxSnapshotBytes`. Nothing of it was stored. */
export class PayloadTooLargeError extends TroupeError {
  constructor(message: string, options: TroupeErrorOptions = {}) {
    super('quota', message, options);
  }
}

/** The runtime has stopped, or stops now: the call was not carried out, or its answer will not come. */
export class StoppedError extends TroupeError {
  constructor(message = 'The runtime has stopped.', options: TroupeErrorOptions = {}) {
    super('unavailable', message, { ...options, retryable: false });
  }
}

/** Turns whatever was thrown into data. Retryability comes from codes and classes, never from words in the text. */
export function toFailure(error: unknown): Failure {
  try {
    return failureOf(error);
  } catch {
    // A property of it throws. Whoever asks has to go on.
    const message = 'An error was thrown that cannot be read.';
    return { code: 'unhandled', message, retryable: false };
  }
}

function failureOf(error: unknown): Failure {
  if (error instanceof TroupeError) return error.toFailure();
  if (error instanceof Error) {
    const name = typeof error.name === 'string' ? error.name : 'Error';
    const code = codeOf(error);
    const network = code !== undefined && NETWORK_CODES.has(code);
    const machine = code !== undefined && MACHINE_CODES.has(code);
    return {
      code: network ? 'network' : machine ? 'unavailable' : 'unhandled',
      message: messageOf(error) || name,
      retryable: network || machine,
      context: { name, ...(code === undefined ? {} : { cause: code }) },
    };
  }
  return { code: 'unhandled', message: describeThrown(error), retryable: false };
}

/** The error a failure came from, as far as it can be rebuilt. */
export function fromFailure(failure: Failure): TroupeError {
  return new TroupeError(failure.code, failure.message, {
    retryable: failure.retryable,
    ...(failure.context === undefined ? {} : { context: failure.context }),
    ...(failure.retryAfterMs === undefined ? {} : { retryAfterMs: failure.retryAfterMs }),
  });
}

const NETWORK_CODES: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ECONNABORTED',
  'EAI_AGAIN',
  'ENOTFOUND',
  'ENETDOWN',
  'EHOSTDOWN',
  'ENETUNREACH',
  'EHOSTUNREACH',
  // Of Node's own `fetch`.
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
]);

/** The machine is in trouble (a full disk, no more files), whatever the program wanted of it. */
const MACHINE_CODES: ReadonlySet<string> = new Set([
  'ENOSPC',
  'EDQUOT',
  'EROFS',
  'EIO',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
]);

/** Causes that are looked at; there may be a circle of them. */
const MAX_CAUSES = 5;

/**
 * The error's code, or that of a cause if that one says whose fault it is: `fetch` throws a TypeError without a code,
 * whatever has happened to the connection, and libraries wrap it once more.
 */
function codeOf(error: Error): string | undefined {
  let own: string | undefined;
  let next: unknown = error;
  for (let depth = 0; depth <= MAX_CAUSES && next instanceof Error; depth++) {
    const { code } = next as { readonly code?: unknown };
    if (typeof code === 'string') {
      if (NETWORK_CODES.has(code) || MACHINE_CODES.has(code)) return code;
      if (depth === 0) own = code;
    }
    next = next.cause;
  }
  return own;
}

/** Libraries that make errors of what a server has answered put anything there. */
function messageOf({ message }: { readonly message?: unknown }): string {
  if (typeof message === 'string') return message;
  if (message === undefined) return '';
  try {
    return JSON.stringify(message as JsonValue) ?? String(message);
  } catch {
    return String(message);
  }
}

function describeThrown(thrown: unknown): string {
  if (typeof thrown === 'string') return thrown;
  try {
    return `A value that is not an Error was thrown: ${JSON.stringify(thrown as JsonValue)}`;
  } catch {
    return 'A value that is not an Error was thrown.';
  }
}
