import { createHash } from 'node:crypto';
import type { JsonValue } from './json.ts';

/**
 * One canonical text for one JSON value: keys sorted at every depth, `undefined` properties left out.
 * Two values have the same text exactly when JSON cannot tell them apart.
 */
export function canonicalJson(value: JsonValue | undefined): string {
  if (value === undefined) return 'null';
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item)).join(',')}]`;
  const object = value as { readonly [key: string]: JsonValue | undefined };
  const parts: string[] = [];
  for (const key of Object.keys(object).sort()) {
    const child = object[key];
    if (child !== undefined) parts.push(`${JSON.stringify(key)}:${canonicalJson(child)}`);
  }
  return `{${parts.join(',')}}`;
}

/** The one deep hash behind every key: fingerprints, idempotency, step keys. 64 hex digits (SHA-256). */
export function deepHash(value: JsonValue | undefined): string {
  return createHash('sha256').update(canonicalJson(value)).digest('hex');
}

/**
 * A number in [0, 1) that depends only on `text`. Machines have no randomness; jitter comes from here,
 * so that a replay computes the same delays and two tasks with the same failure still wake apart.
 */
export function unitHash(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0) / 2 ** 32;
}
