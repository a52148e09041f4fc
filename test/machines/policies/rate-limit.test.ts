import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decideRate, forgetOldRates } from '../../../src/machines/policies/rate-limit.ts';

const limits = fc.record({
  limit: fc.integer({ min: 1, max: 20 }),
  periodMs: fc.integer({ min: 1, max: 10_000 }),
});
const gaps = fc.array(fc.integer({ min: 0, max: 2_000 }), { maxLength: 60 });

/** The moments at which something was allowed. */
function allowedAt(limit: { limit: number; periodMs: number }, waits: readonly number[]): number[] {
  const allowed: number[] = [];
  let now = 1_000_000;
  let tat: number | undefined;
  for (const wait of waits) {
    now += wait;
    const decision = decideRate(limit, tat, now);
    if (!decision.allowed) continue;
    tat = decision.tat;
    allowed.push(now);
  }
  return allowed;
}

property.prop([limits, gaps])(
  'in no window are there more than the algorithm allows',
  (limit, waits) => {
    const interval = limit.periodMs / limit.limit;
    const allowed = allowedAt(limit, waits);
    for (const [from, first] of allowed.entries()) {
      for (const [to, last] of allowed.entries()) {
        if (to < from) continue;
        const most = 1 + Math.floor((limit.periodMs - interval + last - first) / interval + 1e-6);
        expect(to - from + 1).toBeLessThanOrEqual(most);
      }
    }
  },
);

property.prop([limits])(
  'as many as the limit come at once, and the next when it was said',
  (limit) => {
    const allowed = allowedAt(limit, Array(limit.limit + 5).fill(0) as number[]);
    expect(allowed).toHaveLength(limit.limit);
    let tat: number | undefined;
    for (let n = 0; n < limit.limit; n++) {
      const decision = decideRate(limit, tat, 0);
      if (decision.allowed) tat = decision.tat;
    }
    const refused = decideRate(limit, tat, 0);
    if (refused.allowed) throw new Error('It was to be refused.');
    expect(decideRate(limit, tat, refused.at).allowed).toBe(true);
    expect(decideRate(limit, tat, refused.at - 1).allowed).toBe(false);
  },
);

property.prop([limits, gaps])(
  'what comes no faster than evenly is never refused',
  (limit, waits) => {
    const interval = Math.ceil(limit.periodMs / limit.limit);
    const slow = waits.map((wait) => wait + interval);
    expect(allowedAt(limit, slow)).toHaveLength(slow.length);
  },
);

test('what is over is forgotten, and what matters is not', () => {
  expect(forgetOldRates({ a: 5, b: 11 }, 10)).toEqual({ b: 11 });
  const none = {};
  expect(forgetOldRates(none, 10)).toBe(none);
});
