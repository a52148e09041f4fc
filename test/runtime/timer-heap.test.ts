import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Agenda, type Appointment } from '../../src/runtime/agenda.ts';
import { MAX_TIMER_MS } from '../../src/runtime/clock.ts';
import { type Due, TimerHeap } from '../../src/runtime/timer-heap.ts';
import { SimulatedClock } from './simulated-clock.ts';

const entry = (dueAt: number): Due => ({ dueAt, slot: -1, order: 0 });

const step = fc.oneof(
  fc.record({ do: fc.constant('push' as const), dueAt: fc.integer({ min: 0, max: 20 }) }),
  fc.record({ do: fc.constant('push' as const), dueAt: fc.integer({ min: 0, max: 20 }) }),
  fc.record({ do: fc.constant('pop' as const) }),
  fc.record({ do: fc.constant('remove' as const), which: fc.nat({ max: 50 }) }),
);

describe('a timer heap', () => {
  property.prop([fc.array(step, { maxLength: 200 })])(
    'is a list sorted by due time, then by arrival',
    (steps) => {
      const heap = new TimerHeap<Due>();
      // The reference: kept sorted, equal times in the order they came.
      const list: Due[] = [];
      const all: Due[] = [];
      for (const s of steps) {
        if (s.do === 'push') {
          const added = entry(s.dueAt);
          heap.push(added);
          all.push(added);
          const at = list.findIndex(({ dueAt }) => dueAt > s.dueAt);
          list.splice(at === -1 ? list.length : at, 0, added);
        } else if (s.do === 'pop') {
          expect(heap.pop()).toBe(list.shift());
        } else if (all.length > 0) {
          // Also one that has left already.
          const gone = all[s.which % all.length] as Due;
          heap.remove(gone);
          const at = list.indexOf(gone);
          if (at !== -1) list.splice(at, 1);
        }
        expect(heap.size).toBe(list.length);
        expect(heap.peek()).toBe(list[0]);
      }
      for (const expected of list) expect(heap.pop()).toBe(expected);
      expect(heap.pop()).toBeUndefined();
    },
  );

  test('does not grow with what is cancelled', () => {
    const heap = new TimerHeap<Due>();
    for (let i = 0; i < 10_000; i++) {
      const soon = entry(i + 600_000);
      heap.push(soon);
      heap.remove(soon);
    }
    expect(heap.size).toBe(0);
  });
});

describe('an agenda', () => {
  function agenda() {
    const clock = new SimulatedClock(0);
    const book = new Agenda(clock);
    const rang: [string, number][] = [];
    const add = (name: string, dueAt: number, then?: () => void): Appointment => {
      const appointment = {
        ...entry(dueAt),
        due: () => {
          rang.push([name, clock.now()]);
          then?.();
        },
      };
      book.add(appointment);
      return appointment;
    };
    const run = (until: number): void => {
      while (clock.step(until));
    };
    return { clock, book, rang, add, run };
  }

  test('calls each at its time, on one timer', () => {
    const { clock, book, rang, add, run } = agenda();
    book.start();
    for (const at of [30, 10, 20, 10]) add(`${at}`, at);
    expect(clock.pending).toBe(1);
    run(1000);
    expect(rang).toEqual([
      ['10', 10],
      ['10', 10],
      ['20', 20],
      ['30', 30],
    ]);
    expect([clock.pending, book.size]).toEqual([0, 0]);
  });

  test('calls nobody before it starts and after it stops; what is overdue comes at once', () => {
    const { clock, book, rang, add, run } = agenda();
    add('overdue', -500);
    add('later', 50);
    run(100);
    expect(rang).toEqual([]);
    book.start();
    run(100);
    expect(rang).toEqual([
      ['overdue', 1],
      ['later', 50],
    ]);
    add('never', 60);
    book.stop();
    run(1000);
    expect(rang).toHaveLength(2);
    expect(clock.pending).toBe(0);
  });

  test('one that is cancelled is not called, also by one of the same moment', () => {
    const { book, rang, add, run } = agenda();
    book.start();
    const gone = add('gone', 10);
    add('stays', 10);
    add('victim', 20);
    book.remove(gone);
    book.remove(gone);
    const other = add('other', 5, () => book.remove(last));
    const last = add('last', 5);
    run(1000);
    expect(rang.map(([name]) => name)).toEqual(['other', 'stays', 'victim']);
    expect(other.slot).toBe(-1);
  });

  test('one that is added while another is called has its turn', () => {
    const { book, rang, add, run } = agenda();
    book.start();
    add('first', 10, () => {
      add('at once', 10);
      add('soon', 12);
    });
    run(1000);
    expect(rang).toEqual([
      ['first', 10],
      ['at once', 10],
      ['soon', 12],
    ]);
  });

  test('one that stops the agenda is the last', () => {
    const { book, rang, add, run } = agenda();
    book.start();
    add('first', 10, () => book.stop());
    add('second', 10);
    run(1000);
    expect(rang.map(([name]) => name)).toEqual(['first']);
  });

  test('waits longer than a timer of Node can', () => {
    const { clock, book, rang, add } = agenda();
    book.start();
    const far = MAX_TIMER_MS * 2.5;
    add('far', far);
    let alarms = 0;
    while (clock.step(far)) alarms++;
    expect(rang).toEqual([['far', far]]);
    expect(alarms).toBe(3);
  });

  test('a clock that was put back rings again later', () => {
    const { clock, book, rang, add, run } = agenda();
    book.start();
    add('x', 100);
    clock.jump(-1000);
    run(99);
    expect(rang).toEqual([]);
    run(100);
    expect(rang).toEqual([['x', 100]]);
  });
});
