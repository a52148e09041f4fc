/** What may be stored or sent: exactly what survives `JSON.parse(JSON.stringify(x))` unchanged. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined;
}

/** Deeper than this is refused: `JSON.stringify` overflows the stack at about 20 000 levels. */
const MAX_DEPTH = 500;

/** A value that JSON would drop or change, and where it is. */
export interface JsonProblem {
  /** Dotted path from the root, for example `context.items[3].when`. */
  readonly path: string;
  /** What was found there, in words: `a Date`, `NaN`, `a function`. */
  readonly found: string;
}

/**
 * Finds the first part of `value` that would not survive a JSON round trip.
 * A property that is `undefined` is fine (JSON leaves it out); `undefined` in an array is not (it becomes null).
 * @param depth how deep `value` lies in what is stored: levels are counted from there
 * @returns undefined when the whole value is JSON.
 */
export function findNonJson(value: unknown, root = 'value', depth = 0): JsonProblem | undefined {
  // Nearly all is fine, and then nobody needs a path.
  return isJson(value, undefined, 0) ? undefined : visit(value, root, new Set(), depth);
}

/** An object that is being looked into, and the one that it is in. */
interface Ancestor {
  readonly value: object;
  readonly parent: Ancestor | undefined;
}

/** What is deeper is left to `visit`, which finds an ancestor faster. */
const SHALLOW = 32;

/** As `visit`, without saying what is wrong; that is no answer if something is deeper than `SHALLOW`. */
function isJson(value: unknown, parent: Ancestor | undefined, depth: number): boolean {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return true;
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0);
    case 'object':
      break;
    default:
      return false;
  }
  if (value === null) return true;
  if (depth > SHALLOW) return false;
  for (let one = parent; one !== undefined; one = one.parent) if (one.value === value) return false;
  const own: Ancestor = { value, parent };
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) if (!isJson(value[i], own, depth + 1)) return false;
    return true;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return false;
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') return false;
  for (const key of Object.keys(value)) {
    if (key === '__proto__') return false;
    const child = (value as Record<string, unknown>)[key];
    if (child !== undefined && !isJson(child, own, depth + 1)) return false;
  }
  return true;
}

function visit(
  value: unknown,
  path: string,
  ancestors: Set<object>,
  depth: number,
): JsonProblem | undefined {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return undefined;
    case 'number':
      if (Number.isFinite(value) && !Object.is(value, -0)) return undefined;
      return { path, found: Object.is(value, -0) ? '-0' : String(value) };
    case 'object':
      break;
    case 'undefined':
      return { path, found: 'undefined' };
    case 'bigint':
      return { path, found: 'a BigInt' };
    default:
      return { path, found: `a ${typeof value}` };
  }
  if (value === null) return undefined;
  if (depth > MAX_DEPTH) return { path, found: `more than ${MAX_DEPTH} levels of nesting` };
  if (ancestors.has(value)) return { path, found: 'a reference to its own ancestor' };
  ancestors.add(value);
  try {
    if (Array.isArray(value)) {
      for (let i = 0; i < value.length; i++) {
        const problem = visit(value[i], `${path}[${i}]`, ancestors, depth + 1);
        if (problem) return problem;
      }
      return undefined;
    }
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) {
      return { path, found: `a ${constructorName(value)}` };
    }
    if (typeof (value as { toJSON?: unknown }).toJSON === 'function') {
      return { path, found: 'an object with toJSON()' };
    }
    for (const key of Object.keys(value)) {
      // JSON.parse makes `__proto__` an own property, and a later Object.assign or merge would obey it.
      if (key === '__proto__') return { path: `${path}.__proto__`, found: 'the key __proto__' };
      const child = (value as Record<string, unknown>)[key];
      if (child === undefined) continue;
      const problem = visit(child, `${path}.${key}`, ancestors, depth + 1);
      if (problem) return problem;
    }
    return undefined;
  } finally {
    ancestors.delete(value);
  }
}

function constructorName(value: object): string {
  const name: unknown = (value.constructor as { name?: unknown } | undefined)?.name;
  return typeof name === 'string' && name !== '' ? name : 'class instance';
}

/** What a value is, in the word for an error: `typeof`, but null is null. */
export const typeWord = (value: unknown): string => (value === null ? 'null' : typeof value);
