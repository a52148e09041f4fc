import path from 'node:path';
import {
  aesGcmCodec,
  ConfigurationError,
  type PayloadCodec,
  parseKeys,
  readKeyFile,
} from '../index.ts';
import { encryptionSchema } from './config-schema.ts';
import { readConfigSource } from './config-source.ts';
import type { ProjectPlace } from './project.ts';

/** Where the keys of a project's store are; never the keys. One of the two. */
export interface ConfiguredEncryption {
  /** A file with one `id: key` in each line, the last one current. Relative to the project, or absolute. */
  readonly keyFile?: string | undefined;
  /** An environment variable that holds the same text. */
  readonly keyVariable?: string | undefined;
}

/** @throws {ConfigurationError} the keys are not there, or cannot be used */
export function codecOf(
  encryption: ConfiguredEncryption | undefined,
  directory: string,
): PayloadCodec | undefined {
  const { keyFile, keyVariable } = encryption ?? {};
  if (keyFile !== undefined) return aesGcmCodec(readKeyFile(path.resolve(directory, keyFile)));
  if (keyVariable === undefined) return undefined;
  const text = process.env[keyVariable];
  if (text === undefined || text === '') {
    throw new ConfigurationError(
      `The encryption keys are to be in the environment variable ${keyVariable}, and it is not set.`,
    );
  }
  return aesGcmCodec(parseKeys(text, `the environment variable ${keyVariable}`));
}

/**
 * The codec of a project whose configuration need not be right otherwise: to look at a store it is enough that the
 * `encryption` in it can be read. Without, what is encrypted is reported as such when it is met.
 */
export async function codecOfPlace(place: ProjectPlace): Promise<PayloadCodec | undefined> {
  const file = path.join(place.directory, path.basename(place.file));
  const read = await readConfigSource(file, place.file);
  if ('problems' in read) return undefined;
  const { encryption } = (read.source.value ?? {}) as { readonly encryption?: unknown };
  const checked = encryptionSchema.safeParse(encryption);
  return checked.success ? codecOf(checked.data, place.directory) : undefined;
}
