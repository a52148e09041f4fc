import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { type CheckStoreOptions, ConfigurationError, checkStore, EXIT_CODES } from '../../index.ts';
import type { CliContext } from '../cli-context.ts';
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
  const file =
    store === undefined
      ? storePathOf((await cli.project()).directory)
      : path.resolve(cli.cwd, store);
  const own = machines === undefined ? [] : await loadMachines(path.resolve(cli.cwd, machines));
  const found = await checkStore(file, { machines: own });
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

const entry = z.union([
  z.custom<object>(isMachine),
  z.tuple([z.custom<object>(isMachine), z.record(z.string(), z.unknown())]),
]);

function isMachine(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'transition' in value && 'id' in value;
}

/** @throws {ConfigurationError} there is no such module, it fails, or it does not export machines */
async function loadMachines(file: string): Promise<NonNullable<CheckStoreOptions['machines']>> {
  let module: { readonly machines?: unknown };
  try {
    module = (await import(pathToFileURL(file).href)) as typeof module;
  } catch (error) {
    throw new ConfigurationError(
      `Could not load the machines from ${file}: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  const parsed = z.array(entry).safeParse(module.machines);
  if (parsed.success) return parsed.data as unknown as NonNullable<CheckStoreOptions['machines']>;
  throw new ConfigurationError(
    `Expected ${file} to export \`machines\`: a list of machines, each alone or as [machine, { version, migrations }]; got ${JSON.stringify(module.machines)?.slice(0, 100) ?? 'nothing of that name'}.`,
  );
}
