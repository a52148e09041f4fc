import type { Address } from './address.ts';
import { ValidationError } from './errors.ts';
import { findNonJson, type JsonValue, typeWord } from './json.ts';
import type { Priority } from './priority.ts';

/** Milliseconds since 1970, as `Date.now()` gives them. */
export type EpochMs = number;

/** What one actor tells another: a type and fields of plain JSON. */
export interface Message {
  readonly type: string;
  readonly [field: string]: JsonValue | undefined;
}

/**
 * What a machine learns about the message it handles. The only clock a machine has is `at`.
 * A request carries `correlation` and `attempt`; whoever answers hands the whole `ReplyTo` back.
 */
export interface Meta {
  readonly id: string;
  readonly from: Address;
  readonly at: EpochMs;
  readonly correlation?: string;
  readonly attempt?: number;
  /** For an answer, or the lack of one: the id the request was made with. */
  readonly request?: string;
}

/** The type of the message that calls a request off. Reserved: only the host sends it. */
export const REQUEST_CANCELLED = 'request.cancelled';

/**
 * Nobody waits for the answer to a request any more: its deadline has passed, its asker has called it off or ended. The
 * host sends it to a receiver whose machine has a transition for it, after the request and in its class. `correlation`
 * and `attempt` are those of the request's `meta`. An answer all the same does no harm: it is dropped, and counted.
 */
export interface RequestCancelled {
  readonly type: typeof REQUEST_CANCELLED;
  /** The request's type. */
  readonly request: string;
  readonly correlation: string;
  readonly attempt: number;
}

/** The event a machine receives for a message. */
export type Received<M extends { readonly type: string }> = M & { readonly meta: Meta };

/** Where an answer goes, and to which question and which attempt at it. */
export interface ReplyTo {
  readonly address: Address;
  readonly correlation: string;
  readonly attempt: number;
}

/** A message on its way. `id` is unique for ever: the sender's address, turn and position, or the app's own key. */
export interface Envelope {
  readonly id: string;
  readonly from: Address;
  readonly to: Address;
  readonly message: Message;
  readonly priority: Priority;
  readonly sentAt: EpochMs;
  readonly correlation?: string;
  readonly attempt?: number;
  /** It answers the request with this correlation and attempt. */
  readonly reply?: true;
}

/** Where a reply to the message with this `meta` must go, or undefined if it was not a request. */
export function replyTo(meta: Meta): ReplyTo | undefined {
  if (meta.correlation === undefined) return undefined;
  return { address: meta.from, correlation: meta.correlation, attempt: meta.attempt ?? 1 };
}

/**
 * Checks a message that comes from outside (the app, a file, the network, a model).
 * @throws {ValidationError} no type, a reserved type or field, or a part that JSON would lose; says where
 */
export function parseMessage(value: unknown): Message {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ValidationError(
      `Expected a message such as { type: 'task.retry' }, got ${typeWord(value)}.`,
    );
  }
  const type: unknown = (value as { type?: unknown }).type;
  if (typeof type !== 'string' || type === '' || type.length > 200) {
    throw new ValidationError(
      `Expected the message's "type" to be a non-empty string of at most 200 characters, got ${typeof type === 'string' ? `${type.length} characters` : typeof type}.`,
    );
  }
  // A forged `xstate.done.actor.x` would be taken for the outcome of an effect; `*` matches every handler.
  if (type.startsWith('xstate.') || type === '*') {
    throw new ValidationError(
      `The message type ${JSON.stringify(type)} is reserved: types that begin with "xstate." come from the runtime only.`,
    );
  }
  if (Object.hasOwn(value, 'meta')) {
    throw new ValidationError(
      `The field "meta" of message ${JSON.stringify(type)} is reserved: the runtime fills it in.`,
    );
  }
  const problem = findNonJson(value, type);
  if (problem) {
    throw new ValidationError(
      `Expected the message to be plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  return value as Message;
}
