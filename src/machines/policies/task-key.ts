import { ConfigurationError } from '../../protocol/errors.ts';
import { deepHash } from '../../protocol/hash.ts';
import type { JsonValue } from '../../protocol/json.ts';

/** `input`, and names or numbers on the way to a part of it. Never code. */
const PATH = /^input(?:\.[A-Za-z0-9_-]{1,100}){0,10}$/;
/** Longer values are known by their hash. */
const MAX_KEY = 100;

/**
 * @param where what a person should look at: `perKey of agent "mail"`
 * @throws {ConfigurationError} not a path into a task's input
 */
export function parseKeyPath(path: unknown, where: string): string {
  if (typeof path === 'string' && PATH.test(path)) return path;
  throw new ConfigurationError(
    `${where}: expected key to be a path into the task's input, such as input.customer or input.order.id, got ${JSON.stringify(path)?.slice(0, 80) ?? String(path)}.`,
  );
}

/**
 * The part of a task's input that it is told apart by, as a text: equal values give equal texts, others do not.
 * @returns undefined: there is nothing at that place
 */
export function keyOfInput(path: string, input: JsonValue): string | undefined {
  let value: JsonValue | undefined = input;
  for (const part of path.split('.').slice(1)) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) {
      return undefined;
    }
    value = (value as Readonly<Record<string, JsonValue | undefined>>)[part];
  }
  if (value === undefined || value === null) return undefined;
  const text = typeof value === 'object' ? undefined : JSON.stringify(value);
  return text !== undefined && text.length <= MAX_KEY ? text : `#${deepHash(value)}`;
}
