import { ConfigurationError } from '../../protocol/errors.ts';
import { didYouMean } from './did-you-mean.ts';

/** Settings as they came in: an object whose keys are known, whose values are not checked yet. */
export type RawSettings = Readonly<Record<string, unknown>>;

/**
 * Takes settings from a file, a flag or a caller. Nothing at all (`undefined`) means every default.
 * @param known the keys that exist; any other is refused, with the nearest known one suggested
 * @param where what a person should look at, for example `limits of run report-42`
 * @throws {ConfigurationError} when it is not an object, or has a key nobody knows
 */
export function readSettings(value: unknown, known: readonly string[], where: string): RawSettings {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ConfigurationError(`${where}: expected an object with settings, got ${show(value)}.`);
  }
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    throw new ConfigurationError(
      `${where}: there is no setting ${JSON.stringify(key.slice(0, 80))}.${didYouMean(key, known)} Known settings: ${known.join(', ')}.`,
      { context: { where, key } },
    );
  }
  return value as RawSettings;
}

/**
 * One numeric setting; `fallback` when it is not there.
 * @throws {ConfigurationError} for a string, NaN, a fraction, or anything below 1 or above `most`
 */
export function positiveInteger(
  settings: RawSettings,
  key: string,
  fallback: number,
  where: string,
  most = Number.MAX_SAFE_INTEGER,
): number {
  const value = settings[key];
  if (value === undefined) return fallback;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 1 && value <= most) {
    return value;
  }
  const upTo = most === Number.MAX_SAFE_INTEGER ? '' : ` of at most ${most}`;
  throw refused(key, `a positive integer${upTo}`, value, fallback, where);
}

/**
 * One numeric setting that may have a fraction; `fallback` when it is not there.
 * @throws {ConfigurationError} for a string, NaN, Infinity, or anything outside `least` to `most`
 */
export function numberBetween(
  settings: RawSettings,
  key: string,
  fallback: number,
  where: string,
  least: number,
  most: number,
): number {
  const value = settings[key];
  if (value === undefined) return fallback;
  if (typeof value === 'number' && value >= least && value <= most) return value;
  throw refused(key, `a number from ${least} to ${most}`, value, fallback, where);
}

function refused(
  key: string,
  expected: string,
  got: unknown,
  fallback: number,
  where: string,
): ConfigurationError {
  return new ConfigurationError(
    `${where}: expected ${key} to be ${expected}, got ${show(got)}. Leave it out for the default, ${fallback}.`,
    { context: { where, key } },
  );
}

/** A value as a person would name it; long text is cut. */
function show(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
    case 'number':
    case 'boolean':
      return String(value);
    case 'object':
      if (value === null) return 'null';
      return Array.isArray(value) ? 'an array' : 'an object';
    case 'undefined':
      return 'nothing';
    case 'bigint':
      return 'a BigInt';
    default:
      return `a ${typeof value}`;
  }
}
