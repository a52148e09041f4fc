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
          mailbox.push({ priority: step, nth: nth++ }, step, 'one');
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
      for (const p of priorities) mailbox.push(p, p, 'one');
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
          mailbox.push(p, p, 'one');
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

  const senders = fc.constantFrom('ann', 'bob', 'cy', 'dee');
  const arrivals = fc.array(
    fc.oneof(
      { weight: 2, arbitrary: fc.record({ from: senders, times: fc.integer({ min: 1, max: 9 }) }) },
      { weight: 3, arbitrary: fc.constant('take' as const) },
    ),
    { maxLength: 300 },
  );
  property.prop([arrivals])(
    'keeps the order of each sender, and reaches each after one message of every other who waits, at most',
    (all) => {
      const mailbox = new Mailbox<{ readonly from: string; readonly nth: number }>();
      const waiting = new Map<string, number[]>();
      // Who was waiting when a sender's next message became its next, and how many of the others went before it.
      const ahead = new Map<string, { readonly others: Set<string>; passed: number }>();
      const next = (from: string): void => {
        const others = [...waiting].filter(([one, nths]) => one !== from && nths.length > 0);
        ahead.set(from, { others: new Set(others.map(([one]) => one)), passed: 0 });
      };
      let nth = 0;
      const take = (): void => {
        const item = mailbox.shift();
        if (item === undefined) return;
        const { from } = item;
        expect(waiting.get(from)?.shift()).toBe(item.nth);
        const own = ahead.get(from);
        expect(own?.passed).toBeLessThanOrEqual(own?.others.size ?? 0);
        for (const [one, counted] of ahead) if (one !== from) counted.passed++;
        ahead.delete(from);
        if ((waiting.get(from)?.length ?? 0) > 0) next(from);
      };
      for (const step of all) {
        if (step === 'take') {
          take();
          continue;
        }
        const nths = waiting.get(step.from) ?? [];
        waiting.set(step.from, nths);
        for (let i = 0; i < step.times; i++) {
          if (nths.length === 0) next(step.from);
          nths.push(nth);
          mailbox.push({ from: step.from, nth: nth++ }, 2, step.from);
        }
      }
      while (mailbox.length > 0) take();
      expect([...waiting.values()].flat()).toEqual([]);
    },
  );

  property.prop([
    fc.array(fc.record({ from: senders, class: priority, keep: fc.boolean() }), { maxLength: 60 }),
    priority,
  ])(
    'makes room with the oldest that may go: of the lowest class, of whoever has most there',
    (all, highest) => {
      type Sent = { readonly from: string; readonly class: Priority; readonly keep: boolean };
      const mailbox = new Mailbox<Sent>();
      let model: Sent[] = [];
      for (const sent of all) {
        mailbox.push(sent, sent.class, sent.from);
        model.push(sent);
      }
      const loose = (sent: Sent): boolean => !sent.keep && sent.class <= highest;
      for (;;) {
        const lowest = Math.min(...model.filter(loose).map((sent) => sent.class));
        const inClass = model.filter((sent) => sent.class === lowest);
        const count = (from: string): number => inClass.filter((sent) => sent.from === from).length;
        const got = mailbox.takeOldest(({ keep }) => !keep, highest);
        if (got === undefined) {
          expect(model.some(loose)).toBe(false);
          break;
        }
        const most = Math.max(...inClass.filter(loose).map((sent) => count(sent.from)));
        expect([got.class, count(got.from)]).toEqual([lowest, most]);
        expect(inClass.find((sent) => loose(sent) && sent.from === got.from)).toBe(got);
        model = model.filter((sent) => sent !== got);
        expect(mailbox.length).toBe(model.length);
      }
      const left: Sent[] = [];
      for (let item = mailbox.shift(); item !== undefined; item = mailbox.shift()) left.push(item);
      expect(new Set(left)).toEqual(new Set(model));
    },
  );

  test('a low message under a flood of critical ones', () => {
    const mailbox = new Mailbox<string>();
    mailbox.push('low', 1, 'one');
    let turns = 0;
    for (;;) {
      mailbox.push('critical', 5, 'one');
      mailbox.push('critical', 5, 'one');
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
