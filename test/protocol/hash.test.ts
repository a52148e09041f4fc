import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { canonicalJson, deepHash, unitHash } from '../../src/protocol/hash.ts';
import type { JsonValue } from '../../src/protocol/json.ts';

const json = fc.jsonValue({ maxDepth: 4 }) as fc.Arbitrary<JsonValue>;

/** The same value with every object's keys in another order, and some properties that are undefined. */
function shuffled(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(shuffled);
  if (typeof value !== 'object' || value === null) return value;
  const copy: Record<string, JsonValue | undefined> = { ' nothing': undefined };
  for (const [key, child] of Object.entries(value).reverse()) {
    copy[key] = child === undefined ? undefined : shuffled(child);
  }
  return copy;
}

describe('the canonical hash', () => {
  property.prop([json])(
    'does not depend on the order of keys, nor on properties that are undefined',
    (value) => {
      fc.pre(!JSON.stringify(value).includes('__proto__'));
      expect(canonicalJson(shuffled(value))).toBe(canonicalJson(value));
      expect(deepHash(shuffled(value))).toBe(deepHash(value));
    },
  );

  property.prop([json, json])(
    'is the same for two values exactly when JSON cannot tell them apart',
    (a, b) => {
      const alike =
        canonicalJson(JSON.parse(JSON.stringify(a))) ===
        canonicalJson(JSON.parse(JSON.stringify(b)));
      expect(deepHash(a) === deepHash(b)).toBe(alike);
    },
  );

  property.prop([json])('is JSON itself', (value) => {
    fc.pre(!JSON.stringify(value).includes('__proto__'));
    expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
  });

  test.each([
    [['a|b'], ['a', 'b']],
    [{ a: { b: 1 } }, { a: { b: 2 } }],
    [{ a: { b: 1 } }, { 'a.b': 1 }],
    [['a'], { 0: 'a' }],
    ['1', 1],
    [null, 'null'],
    [[], {}],
    [[[]], []],
    ['', null],
    ['é', 'e\u0301'],
  ] as [JsonValue, JsonValue][])('%j and %j differ', (a, b) => {
    expect(deepHash(a)).not.toBe(deepHash(b));
  });

  test('is what it has always been: stored keys depend on it', () => {
    expect(deepHash({ b: [1, 'x', null], a: { y: true, x: -0.5 } })).toBe(
      'ca9fa4da483d72516fd60e48792c63bb28f3863902ea346604fda207964f3adf',
    );
    expect(canonicalJson({ b: [1, 'x', null], a: { y: true, x: -0.5 } })).toBe(
      '{"a":{"x":-0.5,"y":true},"b":[1,"x",null]}',
    );
    expect(deepHash(undefined)).toBe(deepHash(null));
  });
});

describe('unitHash', () => {
  property.prop([fc.string()])('is in [0, 1), and the same each time', (text) => {
    const unit = unitHash(text);
    expect(unit).toBeGreaterThanOrEqual(0);
    expect(unit).toBeLessThan(1);
    expect(unitHash(text)).toBe(unit);
  });

  test('is spread evenly enough for jitter', () => {
    const buckets = Array.from({ length: 10 }, () => 0);
    for (let i = 0; i < 10_000; i++) {
      const bucket = Math.floor(unitHash(`task/${i}`) * 10);
      buckets[bucket] = (buckets[bucket] ?? 0) + 1;
    }
    for (const count of buckets) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});
