import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { findNonJson } from '../../src/protocol/json.ts';

class Money {
  readonly amount = 1;
}

/** Everything that may be found in a JavaScript value, JSON or not, nested at will. */
const anything = fc.anything({
  withBigInt: true,
  withDate: true,
  withMap: true,
  withSet: true,
  withTypedArray: true,
  withSparseArray: true,
  withNullPrototype: true,
  withObjectString: true,
  maxDepth: 4,
});

const roundTrips = (value: unknown): boolean => {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    return false;
  }
  if (text === undefined) return false;
  return same(value, JSON.parse(text));
};

/** Equal for every reader: `undefined` properties count as absent, prototypes and -0 count. */
function same(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const prototype = Object.getPrototypeOf(a);
  if (!Array.isArray(a) && prototype !== Object.prototype && prototype !== null) return false;
  const present = (o: object): string[] =>
    Object.keys(o).filter((key) => (o as Record<string, unknown>)[key] !== undefined);
  if (Array.isArray(a) && a.length !== (b as unknown[]).length) return false;
  const keys = present(a);
  if (keys.length !== present(b).length) return false;
  return keys.every((key) =>
    same((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]),
  );
}

const hasProtoKey = (value: unknown): boolean =>
  typeof value === 'object' &&
  value !== null &&
  (Object.hasOwn(value, '__proto__') || Object.values(value).some(hasProtoKey));

describe('findNonJson', () => {
  property.prop([anything], { numRuns: 3000 })(
    'finds nothing exactly when JSON gives back what it was given',
    (value) => {
      fc.pre(!hasProtoKey(value));
      expect(findNonJson(value) === undefined).toBe(roundTrips(value));
    },
  );

  property.prop([fc.json({ maxDepth: 5 })], { numRuns: 500 })(
    'finds nothing in what JSON gave',
    (text) => {
      fc.pre(!text.includes('"__proto__"') && !text.includes('-0'));
      expect(findNonJson(JSON.parse(text))).toBeUndefined();
    },
  );

  test.each([
    { value: { a: [1, { b: new Date(0) }] }, path: 'value.a[1].b', found: 'a Date' },
    { value: [undefined], path: 'value[0]', found: 'undefined' },
    { value: undefined, path: 'value', found: 'undefined' },
    { value: { a: Number.NaN }, path: 'value.a', found: 'NaN' },
    { value: { a: Number.NEGATIVE_INFINITY }, path: 'value.a', found: '-Infinity' },
    { value: [-0], path: 'value[0]', found: '-0' },
    { value: 1n, path: 'value', found: 'a BigInt' },
    { value: { f: () => 1 }, path: 'value.f', found: 'a function' },
    { value: { s: Symbol('s') }, path: 'value.s', found: 'a symbol' },
    { value: { m: new Money() }, path: 'value.m', found: 'a Money' },
    { value: { e: new Error('x') }, path: 'value.e', found: 'a Error' },
    { value: { o: { toJSON: () => 1 } }, path: 'value.o', found: 'an object with toJSON()' },
    {
      value: JSON.parse('{"a":{"__proto__":1}}'),
      path: 'value.a.__proto__',
      found: 'the key __proto__',
    },
  ])('$found at $path', ({ value, path, found }) => {
    expect(findNonJson(value)).toEqual({ path, found });
  });

  test('a property that is undefined is as good as none', () => {
    expect(findNonJson({ a: undefined, b: 1 })).toBeUndefined();
  });

  test('a cycle is found, the same object twice is none', () => {
    const shared = { n: 1 };
    expect(findNonJson([shared, shared])).toBeUndefined();
    const cycle: Record<string, unknown> = { shared };
    cycle['again'] = { cycle };
    expect(findNonJson(cycle)).toEqual({
      path: 'value.again.cycle',
      found: 'a reference to its own ancestor',
    });
  });

  test('nesting is bounded, where JSON.stringify would overflow the stack', () => {
    let deep: unknown = 1;
    for (let i = 0; i < 20_000; i++) deep = [deep];
    expect(findNonJson(deep)?.found).toBe('more than 500 levels of nesting');
    let fine: unknown = 1;
    for (let i = 0; i < 500; i++) fine = [fine];
    expect(findNonJson(fine)).toBeUndefined();
  });

  test('the root has the name it is given', () => {
    expect(findNonJson({ x: 1n }, 'context')?.path).toBe('context.x');
  });
});
