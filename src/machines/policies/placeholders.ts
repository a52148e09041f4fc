import type { JsonValue } from '../../protocol/json.ts';

/** `{{name}}` in a text. */
const PLACEHOLDER = /\{\{\s*([A-Za-z][A-Za-z0-9]{0,63})\s*\}\}/g;

/**
 * Puts values where their names stand in braces, in every text of `value` at any depth, keys aside. A text that is nothing
 * but one placeholder becomes the value itself, be it no text. Values are not looked at for placeholders in turn.
 * @returns a copy that shares nothing with `value` or `values`
 */
export function fillIn(value: JsonValue, values: Readonly<Record<string, JsonValue>>): JsonValue {
  if (typeof value === 'string') {
    const whole = new RegExp(`^${PLACEHOLDER.source}$`).exec(value)?.[1];
    if (whole !== undefined && Object.hasOwn(values, whole)) return copyOf(values[whole] ?? null);
    return value.replace(PLACEHOLDER, (found, name: string) => {
      if (!Object.hasOwn(values, name)) return found;
      const put = values[name] ?? null;
      return typeof put === 'string' ? put : JSON.stringify(put);
    });
  }
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item: JsonValue) => fillIn(item, values));
  const filled: Record<string, JsonValue> = {};
  for (const [key, child] of Object.entries(value)) {
    if (child !== undefined) filled[key] = fillIn(child as JsonValue, values);
  }
  return filled;
}

/** The names in braces, each once, in the order in which they come. */
export function placeholdersIn(value: JsonValue): readonly string[] {
  const names = new Set<string>();
  const visit = (part: JsonValue | undefined): void => {
    if (typeof part === 'string') {
      for (const [, name] of part.matchAll(PLACEHOLDER)) names.add(name as string);
    } else if (Array.isArray(part)) {
      for (const item of part as readonly JsonValue[]) visit(item);
    } else if (typeof part === 'object' && part !== null) {
      for (const child of Object.values(part)) visit(child as JsonValue);
    }
  };
  visit(value);
  return [...names];
}

const copyOf = (value: JsonValue): JsonValue => fillIn(value, {});
