import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Address } from '../../src/protocol/address.ts';
import { PRIORITIES, type Priority } from '../../src/protocol/priority.ts';
import type { Actor, Item } from '../../src/runtime/actor.ts';
import { Directory } from '../../src/runtime/directory.ts';
import { SimulatedClock } from './simulated-clock.ts';

const { normal, critical } = PRIORITIES;

class Turns {
  readonly directory = new Directory(new SimulatedClock());
  /** In the order of the turns: whose it was. Turns for nothing are left out. */
  readonly taken: Actor[] = [];

  actor(name: string): Actor {
    const known = this.directory.actors.get(`echo/${name}`);
    if (known !== undefined) return known;
    const actor = this.directory.add(`echo/${name}` as Address);
    actor.state = 'live';
    return actor;
  }

  arrive(name: string, priority: Priority): void {
    const actor = this.actor(name);
    actor.mailbox.push({} as Item, priority, 'one');
    this.directory.enqueue(actor);
  }

  take(): Actor | undefined {
    for (let actor = this.directory.next(); actor !== undefined; actor = this.directory.next()) {
      const item = actor.mailbox.shift();
      this.directory.enqueue(actor);
      if (item === undefined) continue;
      this.taken.push(actor);
      return actor;
    }
    return undefined;
  }
}

test('an actor for whom something critical waits goes before 1 000 others, but for one', () => {
  const turns = new Turns();
  for (let i = 0; i < 1_000; i++) turns.arrive(`other-${i}`, normal);
  turns.arrive('late', critical);
  turns.take();
  expect(turns.take()?.address).toBe('echo/late');
});

test('one that always has something critical goes every other time, and not always', () => {
  const turns = new Turns();
  for (let i = 0; i < 100; i++) {
    turns.arrive('busy', critical);
    turns.arrive(`other-${i}`, normal);
  }
  for (let i = 0; i < 20; i++) turns.take();
  const others = turns.taken.filter(({ address }) => address !== 'echo/busy');
  expect(others.length).toBeGreaterThanOrEqual(9);
});

const ACTORS = 4;
const arrival = fc.record({
  name: fc.integer({ min: 1, max: ACTORS }).map((n) => `n${n}`),
  priority: fc.constantFrom<Priority>(normal, critical, critical),
});

// Between any two turns any number of messages may come to anybody: no adversary can keep an actor waiting.
property.prop([fc.array(fc.array(arrival, { maxLength: 4 }), { minLength: 60, maxLength: 300 })])(
  'before an actor has its turn each of the others has one, and goes ahead of each turn at most once',
  (all) => {
    const turns = new Turns();
    const passed = new Map<Actor, number>();
    const take = (): void => {
      const taken = turns.take();
      for (const actor of turns.directory.actors.values()) {
        if (actor === taken || actor.mailbox.length === 0) passed.set(actor, 0);
        else passed.set(actor, (passed.get(actor) ?? 0) + 1);
        expect(passed.get(actor)).toBeLessThanOrEqual((ACTORS - 1) * (ACTORS + 1));
      }
    };
    let messages = 0;
    for (const some of all) {
      for (const { name, priority } of some) turns.arrive(name, priority);
      messages += some.length;
      take();
    }
    while (turns.directory.waiting > 0) take();
    expect(turns.taken).toHaveLength(messages);
  },
);
