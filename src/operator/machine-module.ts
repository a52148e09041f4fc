import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { type CheckStoreOptions, ConfigurationError } from '../index.ts';

const entry = z.union([
  z.custom<object>(isMachine),
  z.tuple([z.custom<object>(isMachine), z.record(z.string(), z.unknown())]),
]);

function isMachine(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'transition' in value && 'id' in value;
}

/** @throws {ConfigurationError} there is no such module, it fails, or it does not export machines */
export async function loadMachines(
  file: string,
): Promise<NonNullable<CheckStoreOptions['machines']>> {
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
