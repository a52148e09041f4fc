import path from 'node:path';
import { expect, test } from 'vitest';
import { readHistory } from './history.ts';
import { checkInvariants } from './invariants.ts';
import { Life, scratch } from './life.ts';
import type { PoisonOrders } from './poison.child.ts';

/*
 * A task that kills the process each time it runs, between two that do nothing but run beside it: it pays for the
 * crashes, they do not.
 */
test.each<{ where: PoisonOrders['where']; reason: RegExp; asked: number }>([
  { where: 'work.begun', reason: /attempt 1 was under way \(worked on by "writer"\)/, asked: 3 },
  // What was handed in is there, whatever its verification does: the agents are asked once.
  { where: 'verify.begun', reason: /attempt 1 was under way \(verified by "editor"\)/, asked: 1 },
])(
  'killed each time at $where: the guilty one is escalated after three crashes, the innocent are done',
  async ({ where, reason, asked }) => {
    const directory = scratch();
    const orders = {
      store: path.join(directory, 'state.db'),
      history: path.join(directory, 'history.jsonl'),
      where,
    };
    let life = new Life('poison', orders);
    let kills = 0;
    while ((await life.death()) === 'SIGKILL') {
      expect(++kills).toBeLessThan(10);
      life = new Life('poison', orders);
    }
    expect(kills).toBe(3);
    await life.finished();
    const innocent = (id: string) => ({ id, state: 'done', attempts: 1, reason: null });
    expect(JSON.parse((await life.line('tasks ')).slice('tasks '.length))).toEqual([
      innocent('first'),
      { ...innocent('poison'), state: 'escalated', reason: expect.stringMatching(reason) },
      innocent('last'),
    ]);
    // Each was under way at the first two crashes; at the third the guilty one was alone.
    const begun = (op: string) =>
      readHistory(orders.history).flatMap((fact) =>
        fact.op === op && 'task' in fact ? [fact.task] : [],
      );
    const of = (op: string) =>
      ['first', 'poison', 'last'].map(
        (id) => begun(op).filter((task) => task === `r/${id}`).length,
      );
    expect(of(where)).toEqual([3, 3, 3]);
    expect(of('work.begun')).toEqual([asked, asked, asked]);
    await checkInvariants({
      storePath: orders.store,
      history: orders.history,
      expect: { fired: kills, tasks: { 'r/poison': 'escalated' }, failures: () => 0 },
    });
  },
);
