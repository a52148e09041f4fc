import type { Address } from '../protocol/address.ts';
import { ConfigurationError } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';

/** An actor's state as its last turn has left it: a copy, in JSON. */
export interface QueriedActor {
  readonly address: Address;
  /** The state's name, or an object of names for nested and parallel states. */
  readonly value: JsonValue;
  readonly context: JsonObject;
  readonly status: 'active' | 'done' | 'error' | 'stopped';
  /** Turns taken. */
  readonly seq: number;
}

/**
 * Answers a question from an actor's state. Pure and synchronous: it is no turn, and whatever it changes in what it is
 * given is lost.
 */
export type QueryFunction = (actor: QueriedActor, args: JsonValue) => JsonValue;

export type Queries = Readonly<Record<string, QueryFunction>>;

/** @throws {ConfigurationError} */
export function checkQueries(machine: string, queries: unknown): void {
  const isObject = typeof queries === 'object' && queries !== null;
  const [name] = isObject
    ? (Object.entries(queries).find(([, query]) => typeof query !== 'function') ?? [])
    : ['queries'];
  if (name === undefined) return;
  throw new ConfigurationError(
    `Expected the queries of machine "${machine}" to be functions by name, such as { count: ({ context }) => context.items.length }; ${isObject ? `"${name}" is none` : `got ${String(queries)}`}.`,
  );
}
