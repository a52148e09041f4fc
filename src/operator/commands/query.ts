import path from 'node:path';
import { type Address, type JsonValue, queryStore, ValidationError } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { codecOfPlace } from '../encryption.ts';
import { loadMachines } from '../machine-module.ts';
import { storePathOf } from '../state-directory.ts';
import { safeJson } from '../terminal/text.ts';

/** `troupe query`: asks about the state of an actor, also while another process works on it. Nothing is changed. */
export async function query(
  cli: CliContext,
  address: string,
  name: string,
  args: string | undefined,
  { machines }: { readonly machines?: string },
): Promise<number> {
  const place = await cli.project();
  const codec = await codecOfPlace(place);
  const own = machines === undefined ? [] : await loadMachines(path.resolve(cli.cwd, machines));
  const answer = await queryStore(
    storePathOf(place.directory),
    address as Address,
    name,
    args === undefined ? null : parseArguments(args),
    { machines: own, ...(codec === undefined ? {} : { codec }) },
  );
  cli.stdout.raw(`${safeJson(answer)}\n`);
  return 0;
}

/** @throws {ValidationError} */
function parseArguments(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch (error) {
    throw new ValidationError(
      `Expected the arguments of the query as JSON, such as '{"since":"monday"}', got ${JSON.stringify(text.slice(0, 80))}.`,
      { cause: error },
    );
  }
}
