import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Priority } from '../../src/protocol/priority.ts';
import { Fifo } from '../../src/runtime/fifo.ts';
import { Mailbox, STARVATION_LIMIT } from '../../src/runtime/mailbox.ts';

const priority = fc.constantFrom<Priority>(1, 2, 3, 4, 5);
/** A message of that class comes, or one is taken. */
const steps = fc.array(fc.oneof(priority, priority, fc.constant('take' as const)), {
  maxLength: 400,
});

describe('a mailbox', () => {
  property.prop([steps])(
    'gives back everything, once, in the order it came within a class',
    (all) => {
      const mailbox = new Mailbox<{ readonly priority: Priority; readonly nth: number }>();
      let nth = 0;
      let waiting = 0;
      const taken: { readonly priority: Priority; readonly nth: number }[] = [];
      const take = (): void => {
        const item = mailbox.shift();
        expect(item === undefined).toBe(waiting === 0);
        if (item === undefined) return;
        waiting--;
        taken.push(item);
      };
      for (const step of all) {
        if (step === 'take') take();
        else {
          mailbox.push({ priority: step, nth: nth++ }, step);
          waiting++;
        }
        expect(mailbox.length).toBe(waiting);
      }
      while (waiting > 0) take();
      expect(taken.map((item) => item.nth).sort((a, b) => a - b)).toEqual(
        Array.from({ length: nth }, (_, i) => i),
      );
      for (const items of Map.groupBy(taken, (item) => item.priority).values()) {
        expect(items.map((item) => item.nth)).toEqual(
          items.map((item) => item.nth).sort((a, b) => a - b),
        );
      }
    },
  );

  property.prop([fc.array(priority, { maxLength: STARVATION_LIMIT })])(
    'gives the higher classes first',
    (priorities) => {
      const mailbox = new Mailbox<number>();
      for (const p of priorities) mailbox.push(p, p);
      const taken = priorities.map(() => mailbox.shift());
      expect(taken).toEqual([...priorities].sort((a, b) => b - a));
    },
  );

  // Between any two takes any number of any class may come: no adversary can keep a class waiting.
  property.prop([
    fc.array(fc.array(priority, { maxLength: 4 }), { minLength: 50, maxLength: 400 }),
  ])(
    'starves no class: the oldest of each is reached after STARVATION_LIMIT + 3 others, at most',
    (arrivals) => {
      const mailbox = new Mailbox<Priority>();
      const waiting = new Map<Priority, number>();
      const others = new Map<Priority, number>();
      for (const some of arrivals) {
        for (const p of some) {
          mailbox.push(p, p);
          waiting.set(p, (waiting.get(p) ?? 0) + 1);
        }
        const taken = mailbox.shift();
        if (taken === undefined) continue;
        waiting.set(taken, (waiting.get(taken) ?? 0) - 1);
        others.set(taken, 0);
        for (const [p, count] of waiting) {
          if (p === taken || count === 0) continue;
          const passed = (others.get(p) ?? 0) + 1;
          others.set(p, passed);
          if (p !== 5) expect(passed, `class ${p}`).toBeLessThanOrEqual(STARVATION_LIMIT + 3);
        }
      }
    },
  );

  test('a low message under a flood of critical ones', () => {
    const mailbox = new Mailbox<string>();
    mailbox.push('low', 1);
    let turns = 0;
    for (;;) {
      mailbox.push('critical', 5);
      mailbox.push('critical', 5);
      turns++;
      if (mailbox.shift() === 'low') break;
    }
    expect(turns).toBe(STARVATION_LIMIT + 1);
  });
});

property.prop([fc.array(fc.oneof(fc.integer(), fc.constant('take' as const)), { maxLength: 500 })])(
  'a fifo is a list that is taken from at its head',
  (all) => {
    const fifo = new Fifo<number>();
    const list: number[] = [];
    for (const step of all) {
      if (step === 'take') expect(fifo.shift()).toBe(list.shift());
      else {
        fifo.push(step);
        list.push(step);
      }
      expect(fifo.length).toBe(list.length);
    }
  },
);

test('a long fifo gives its room back', () => {
  const fifo = new Fifo<number>();
  for (let i = 0; i < 1000; i++) fifo.push(i);
  for (let i = 0; i < 999; i++) expect(fifo.shift()).toBe(i);
  for (let i = 0; i < 5000; i++) {
    fifo.push(i);
    fifo.shift();
  }
  expect(fifo.length).toBe(1);
});
