import path from 'node:path';
import { checkStore, EXIT_CODES } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
import { codecOfPlace } from '../encryption.ts';
import { loadMachines } from '../machine-module.ts';
import { storePathOf } from '../state-directory.ts';
import { safeJson } from '../terminal/text.ts';

export interface CheckOptions {
  readonly json: boolean;
  /** A module that exports the app's machines. */
  readonly machines?: string | undefined;
}

/**
 * `troupe check [STORE]`: whether this version can go on from everything that is stored. Works on a copy, and nothing
 * runs.
 * @returns 0, or the exit code of a configuration error when something could not go on
 */
export async function check(
  cli: CliContext,
  store: string | undefined,
  { json, machines }: CheckOptions,
): Promise<number> {
  const place = await cli.project();
  const file = store === undefined ? storePathOf(place.directory) : path.resolve(cli.cwd, store);
  // A copy of the project's store is under the same keys.
  const codec = await codecOfPlace(place);
  const own = machines === undefined ? [] : await loadMachines(path.resolve(cli.cwd, machines));
  const found = await checkStore(file, {
    machines: own,
    ...(codec === undefined ? {} : { codec }),
  });
  const exitCode = found.problems.length === 0 ? 0 : EXIT_CODES.configuration;
  if (json) {
    cli.stdout.raw(`${safeJson({ store: file, ...found })}\n`);
    return exitCode;
  }
  const actors = found.actors === 1 ? '1 actor' : `${found.actors} actors`;
  if (exitCode === 0) {
    cli.stdout.line(`This version can go on from ${file}: ${actors} restored.`);
    return exitCode;
  }
  cli.stdout.line(
    `This version cannot go on from ${file}: ${found.problems.length} of ${actors} would be quarantined.`,
  );
  for (const { address, machine, version, problem } of found.problems) {
    cli.stdout.line(`  ${address} (machine ${machine}, version ${version}): ${problem}`);
  }
  return exitCode;
}
