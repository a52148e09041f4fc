import { ValidationError } from './errors.ts';

/** Where messages go: `kind/name`, for example `task/report-42/draft`. The kind says which protocol it speaks. */
export type Address<Kind extends string = string> = `${Kind}/${string}`;

/** The part of an address before the first slash. */
export type KindOf<A extends string> = A extends `${infer Kind}/${string}` ? Kind : never;

// A kind, a slash, and a name without white space or control characters.
const ADDRESS = /^[a-z][a-z0-9-]{0,31}\/[^\s\p{C}]{1,240}$/u;

export function isAddress(text: unknown): text is Address {
  return typeof text === 'string' && ADDRESS.test(text);
}

/** @throws {ValidationError} not `kind/name` */
export function parseAddress(text: unknown): Address {
  if (isAddress(text)) return text;
  const got = typeof text === 'string' ? JSON.stringify(text.slice(0, 80)) : typeof text;
  throw new ValidationError(
    `Expected an address such as "agent/writer" (a lower-case kind, a slash, a name without spaces), got ${got}.`,
  );
}

/** `kindOf('task/a/b')` is `task`. */
export function kindOf(address: string): string {
  return address.slice(0, address.indexOf('/'));
}

/** `nameOf('task/a/b')` is `a/b`. */
export function nameOf(address: string): string {
  return address.slice(address.indexOf('/') + 1);
}

// What may stand between the slashes of an address and in a branch or a file name without escaping.
const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * Checks the id of a run, a task or an agent: letters, digits, `.`, `_` and `-`, at most 64 of them.
 * @param what names it in the message: `run id`
 * @throws {ValidationError}
 */
export function parseId(value: unknown, what: string): string {
  if (typeof value === 'string' && ID.test(value) && !value.includes('..')) return value;
  const got = typeof value === 'string' ? JSON.stringify(value.slice(0, 80)) : String(value);
  throw new ValidationError(
    `Expected ${what} to be 1 to 64 letters, digits, dots, dashes or underscores (no two dots in a row), got ${got}.`,
  );
}

export const runAddress = (run: string): Address<'run'> => `run/${run}`;
export const taskAddress = (run: string, task: string): Address<'task'> => `task/${run}/${task}`;
/** The run whose actor or task's actor this is; undefined for any other. */
export function runOf(address: string): string | undefined {
  const kind = kindOf(address);
  if (kind === 'run') return nameOf(address);
  return kind === 'task' ? nameOf(address).split('/', 1)[0] : undefined;
}
export const agentAddress = (agent: string): Address<'agent'> => `agent/${agent}`;
export const gatekeeperAddress = (name: string): Address<'gatekeeper'> => `gatekeeper/${name}`;
export const overseerAddress = (name: string): Address<'overseer'> => `overseer/${name}`;
export const breakerAddress = (name: string): Address<'breaker'> => `breaker/${name}`;
export const supervisorAddress = (name: string): Address<'supervisor'> => `supervisor/${name}`;
export const scheduleAddress = (id: string): Address<'schedule'> => `schedule/${id}`;
