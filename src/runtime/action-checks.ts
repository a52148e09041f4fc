import { type Address, isAddress, parseAddress } from '../protocol/address.ts';
import type { ReplyParams, RequestParams, SendParams, SpawnParams } from '../protocol/commands.ts';
import { ConfigurationError, type Failure, ValidationError } from '../protocol/errors.ts';
import { findNonJson, typeWord } from '../protocol/json.ts';
import { parseMessage, REQUEST_CANCELLED, type ReplyTo } from '../protocol/message.ts';
import { parsePriority } from '../protocol/priority.ts';
import { APP, APP_KIND } from './delivery.ts';
import { ignoreRejection } from './ignore-rejection.ts';
import type { Registration } from './registration.ts';
import type { MachineAction } from './xstate-driver.ts';

/**
 * Finds whatever may be wrong with what a machine asks for, before anything of its turn is staged.
 * @throws {TroupeError} says what is wrong with it
 */
export function checkAction(
  registrations: ReadonlyMap<string, Registration>,
  address: Address,
  action: MachineAction,
): void {
  switch (action.kind) {
    case 'command':
      checkCommand(registrations, address, action);
      return;
    case 'startEffect':
      checkName(address, 'an effect', action.id);
      return;
    case 'raiseLater':
      checkDelay(address, action.delayMs);
      checkName(address, 'a delayed event', action.id);
      checkJson(address, action.event, action.event.type);
      return;
    case 'cancelTimer':
    case 'stopEffect':
      checkName(address, 'what is cancelled', action.id);
      return;
    case 'sendParent':
      if (action.delayMs !== undefined) checkDelay(address, action.delayMs);
      checkNotAnswer(parseMessage(action.event).type);
      return;
    case 'sendSelf':
      checkNotAnswer(parseMessage(action.event).type);
      return;
    case 'emit':
      checkJson(address, action.event, action.event.type);
      return;
    default:
      return;
  }
}

function checkCommand(
  registrations: ReadonlyMap<string, Registration>,
  address: Address,
  action: Extract<MachineAction, { kind: 'command' }>,
): void {
  if (action.params instanceof Promise) {
    ignoreRejection(action.params);
    throw new ConfigurationError(
      `The params of the action "${action.command}" of ${address} are a promise: they have to be made synchronously.`,
    );
  }
  if (typeof action.params !== 'object' || action.params === null) {
    throw new ConfigurationError(`The action "${action.command}" of ${address} has no params.`);
  }
  switch (action.command) {
    case 'send':
    case 'request': {
      const params = action.params as SendParams & RequestParams;
      if (!isAddress(params.to)) parseAddress(params.to);
      checkNotAnswer(parseMessage(params.message).type);
      if (params.priority !== undefined) parsePriority(params.priority);
      if (params.delayMs !== undefined) checkDelay(address, params.delayMs);
      if (action.command === 'send') return;
      checkName(address, 'a request', params.id ?? params.message.type);
      if (!(params.timeoutMs > 0) || !Number.isFinite(params.timeoutMs)) {
        throw new ConfigurationError(
          `A request of ${address} needs timeoutMs, a number of milliseconds above 0, got ${String(params.timeoutMs)}.`,
        );
      }
      if (
        params.attempt !== undefined &&
        !(Number.isSafeInteger(params.attempt) && params.attempt >= 1)
      ) {
        throw new ConfigurationError(
          `The attempt of a request of ${address} must be an integer from 1, got ${String(params.attempt)}.`,
        );
      }
      return;
    }
    case 'reply': {
      const params = action.params as ReplyParams & { reply?: unknown; failure?: unknown };
      if (params.to !== undefined && !isReplyTo(params.to)) {
        throw new ConfigurationError(
          `A reply of ${address} needs "to" as replyTo(event.meta) gave it, or undefined if nobody asked.`,
        );
      }
      if ('failure' in params) checkFailure(address, params.failure);
      else if (params.reply !== undefined) checkJson(address, params.reply, 'reply');
      return;
    }
    case 'spawn': {
      const params = action.params as SpawnParams;
      requireSpawnable(params.address);
      requireRegistration(registrations, String(params.machine));
      if (params.input !== undefined) checkJson(address, params.input, 'input');
      return;
    }
    case 'startLife':
    case 'endLife':
    case 'releaseLife':
      // Its machine need not be registered yet: the order waits for it.
      requireSpawnable((action.params as { address?: unknown }).address);
      return;
    case 'cancelRequest':
      checkName(address, 'a request', (action.params as { id?: unknown }).id);
      return;
  }
}

/** @throws {ConfigurationError} */
export function requireRegistration(
  registrations: ReadonlyMap<string, Registration>,
  name: string,
): Registration {
  const registration = registrations.get(name);
  if (registration !== undefined) return registration;
  throw new ConfigurationError(
    `No machine named "${name}" is registered. Known: ${[...registrations.keys()].join(', ') || 'none'}.`,
  );
}

/** @throws {ValidationError} */
export function requireSpawnable(text: unknown): Address {
  const address = parseAddress(text);
  if (!address.startsWith(`${APP_KIND}/`)) return address;
  throw new ValidationError(
    `Addresses that begin with "${APP_KIND}/" stand for whoever is outside; give the actor ${JSON.stringify(address)} another kind.`,
  );
}

/**
 * Only the reply action makes answers, and only the host calls requests off: a message of such a type would pass for one.
 * @throws {ValidationError}
 */
export function checkNotAnswer(type: string): void {
  if (type === REQUEST_CANCELLED) {
    throw new ValidationError(
      `The message type "${type}" is reserved: the host sends it when nobody waits for an answer any more. To call a request off, abort its signal, or use the cancelRequest action.`,
    );
  }
  if (!type.endsWith(':ok') && !type.endsWith(':err')) return;
  throw new ValidationError(
    `The message type ${JSON.stringify(type)} is reserved: types that end with ":ok" or ":err" are answers, which the reply action makes.`,
  );
}

function isReplyTo(to: ReplyTo): boolean {
  return (
    (to.address === APP || isAddress(to.address)) &&
    typeof to.correlation === 'string' &&
    Number.isSafeInteger(to.attempt)
  );
}

/** It is a key in the store, whose columns take no halves of characters: the commit would fail, and the host with it. */
function checkName(address: Address, what: string, id: unknown): void {
  if (id === undefined) return;
  if (typeof id !== 'string') {
    throw new ConfigurationError(
      `Expected the id of ${what} of ${address} to be a text, got ${typeWord(id)}.`,
    );
  }
  if (id.isWellFormed()) return;
  throw new ValidationError(
    `The id of ${what} of ${address} contains half of a character: ${JSON.stringify(id).slice(0, 80)}. It was cut in the middle of one; repair it (toWellFormed()).`,
  );
}

/** Whoever asked gets it as an error, and the store keeps it. */
function checkFailure(address: Address, failure: unknown): void {
  const { code, message, retryable, retryAfterMs } = (failure ?? {}) as Readonly<
    Record<keyof Failure, unknown>
  >;
  if (
    typeof code !== 'string' ||
    typeof message !== 'string' ||
    typeof retryable !== 'boolean' ||
    (retryAfterMs !== undefined && typeof retryAfterMs !== 'number')
  ) {
    throw new ConfigurationError(
      `Expected the failure that ${address} answers with to be { code, message, retryable }, got ${typeof failure === 'object' && failure !== null ? 'another object' : typeWord(failure)}. Make one of any error with toFailure(error).`,
    );
  }
  checkJson(address, failure, 'failure');
}

function checkDelay(address: Address, delayMs: unknown): void {
  if (typeof delayMs === 'number' && Number.isFinite(delayMs) && delayMs >= 0) return;
  throw new ConfigurationError(
    `A delay of ${address} must be a number of milliseconds from 0, got ${String(delayMs)}.`,
  );
}

function checkJson(address: Address, value: unknown, what: string): void {
  if (typeof value === 'string' || value === null || typeof value === 'boolean') return;
  const problem = findNonJson(value, what);
  if (problem === undefined) return;
  throw new ValidationError(
    `What ${address} sends must be plain JSON, but ${problem.path} is ${problem.found}.`,
  );
}
