import type { Address } from '../protocol/address.ts';
import { ConfigurationError, TroupeError, toFailure, ValidationError } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { Message } from '../protocol/message.ts';
import { ignoreRejection } from './ignore-rejection.ts';
import type { LiveSnapshot } from './xstate-driver.ts';

/** Who is asked to take a message. */
export interface ValidatedBy {
  readonly address: Address;
  readonly state: JsonValue;
  readonly context: JsonObject;
  /** Who has sent it. */
  readonly from: Address;
  /** It is a request, and whoever sent it is told. */
  readonly isRequest: boolean;
}

/**
 * Looks at a message before its turn, in the state in which the turn would find the actor. Pure, and synchronous. To
 * refuse it returns why, or throws: then nothing is recorded, no turn and no checkpoint. A request is answered with a
 * ValidationError of that text, or with the TroupeError that was thrown; anything else is dropped, told as `dropped`
 * (`invalid`), and counted.
 */
export type Validate = (message: Message, actor: ValidatedBy) => string | undefined;

/** @returns why the message is refused, or undefined */
export function findRefusal(
  validate: Validate,
  message: Message,
  address: Address,
  from: Address,
  isRequest: boolean,
  { value, context }: LiveSnapshot,
): TroupeError | undefined {
  try {
    const why: unknown = validate(message, { address, state: value, context, from, isRequest });
    if (why === undefined) return undefined;
    if (typeof why === 'string') return new ValidationError(why);
    ignoreRejection(why);
    return new ConfigurationError(
      `Expected "validate" for ${address} to return a text or nothing, got ${why instanceof Promise ? 'a promise: it has to be synchronous' : typeof why}.`,
    );
  } catch (error) {
    if (error instanceof TroupeError) return error;
    return new ValidationError(toFailure(error).message, { cause: error });
  }
}
