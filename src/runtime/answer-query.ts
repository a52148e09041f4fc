import type { Address } from '../protocol/address.ts';
import { NotFoundError, TroupeError, ValidationError } from '../protocol/errors.ts';
import { findNonJson, type JsonValue } from '../protocol/json.ts';
import type { StoredActor } from '../store/store.ts';
import { ignoreRejection } from './ignore-rejection.ts';
import { type Registration, restoreSnapshot } from './registration.ts';

/**
 * @throws {NotFoundError} the machine has no query of this name; says which it has
 * @throws {ValidationError} the arguments are not JSON
 * @throws {TroupeError} `internal`: the query failed, or its answer is not JSON; what the state cannot be restored for
 */
export function answerQuery(
  registration: Registration,
  stored: StoredActor,
  name: string,
  args: JsonValue,
): JsonValue {
  const { queries } = registration;
  const query = Object.hasOwn(queries, name) ? queries[name] : undefined;
  const asked = `The query "${name}" of ${stored.address}`;
  if (query === undefined) {
    const known = Object.keys(queries);
    throw new NotFoundError(
      `There is no query ${JSON.stringify(name)?.slice(0, 80)} for ${stored.address}: the machine "${registration.name}" ${known.length === 0 ? 'has none. Register it with queries: { name: (actor, args) => … }' : `has ${known.join(', ')}`}.`,
      { context: { machine: registration.name, queries: known } },
    );
  }
  const wrong = findNonJson(args, 'args');
  if (wrong) {
    throw new ValidationError(
      `${asked} needs arguments that are plain JSON, but ${wrong.path} is ${wrong.found}.`,
    );
  }
  const { value, context, status } = registration.driver.persist(
    restoreSnapshot(registration, stored),
  );
  const actor = { address: stored.address as Address, value, context, status, seq: stored.seq };
  let answer: unknown;
  try {
    // Copies: what is frozen or shared is nobody's business here.
    answer = query(structuredClone(actor), structuredClone(args)) ?? null;
  } catch (error) {
    if (error instanceof TroupeError) throw error;
    throw new TroupeError(
      'internal',
      `${asked} failed: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  const problem = findNonJson(answer, 'answer');
  if (problem) {
    ignoreRejection(answer);
    throw new TroupeError(
      'internal',
      `${asked} must answer with plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  return answer as JsonValue;
}
