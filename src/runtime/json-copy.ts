import type { JsonValue } from '../protocol/json.ts';

/** A copy that shares nothing with the original. For plain JSON only: nothing is checked. */
export function copyJson<T extends JsonValue | undefined>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item: JsonValue) => copyJson(item)) as unknown as T;
  const copy: Record<string, JsonValue | undefined> = {};
  for (const key of Object.keys(value)) {
    copy[key] = copyJson((value as Record<string, JsonValue | undefined>)[key]);
  }
  return copy as T;
}
