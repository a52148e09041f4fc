import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { durableActions, type Meta, replyTo } from '../../src/index.ts';
import { accepts, DISKS, sqliteDisk } from './open-troupe.ts';

/*
 * What a rollback leaves as it is, because it is not of the run or the actor: said in the docstrings and in the README.
 */

type Add = { readonly type: 'till.add'; readonly amount: number; readonly meta: Meta };

const till = setup({
  types: { context: {} as { readonly sum: number }, events: {} as Add },
  actions: durableActions,
}).createMachine({
  id: 'till',
  context: { sum: 0 },
  on: {
    'till.add': {
      actions: [
        assign(({ context, event }) => ({ sum: context.sum + event.amount })),
        {
          type: 'reply',
          params: ({ context, event }) => ({
            to: replyTo(event.meta),
            type: event.type,
            reply: context.sum,
          }),
        },
      ],
    },
  },
});

describe.each(DISKS)('after a rollback, on a $disk disk', ({ make }) => {
  test('a key that was used since stays used: what is meant anew needs a new one', async () => {
    const troupe = await make().open();
    const id = await troupe.spawn(till, { id: 'till/a' });
    const add = (amount: number, idempotencyKey: string) =>
      troupe.request(id, { type: 'till.add', amount } as never, { idempotencyKey });
    expect(await add(1, 'one')).toBe(1);
    const { seq } = await troupe.checkpoint(id);
    expect(await add(2, 'two')).toBe(3);
    await troupe.rollback(id, seq);
    // A webhook that is delivered once more does not do again what a person has taken back.
    expect(await add(2, 'two')).toBe(3);
    expect(await add(4, 'three')).toBe(5);
  });
});

test('rows of the app stay: the step that wrote them is done again, and must bear it', async () => {
  const troupe = await sqliteDisk().open({
    appSchema: [
      'CREATE TABLE app_log (task TEXT) STRICT',
      'CREATE TABLE app_orders (task TEXT PRIMARY KEY, times INTEGER NOT NULL) STRICT',
    ],
  });
  troupe.agent('ada', ({ task, step }) =>
    step.tx('write', (tx) => {
      tx.run('INSERT INTO app_log VALUES (?)', task.id);
      tx.run(
        'INSERT INTO app_orders VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1',
        task.id,
      );
      return null;
    }),
  );
  troupe.gatekeeper('g', accepts);
  const run = await troupe.start({ id: 'r', tasks: [{ id: 't', agent: 'ada', gatekeeper: 'g' }] });
  expect(await run.result()).toMatchObject({ state: 'done' });
  await run.rollback('start');
  expect(await run.result()).toMatchObject({ state: 'done' });
  expect(await troupe.query('SELECT * FROM app_log')).toEqual([{ task: 't' }, { task: 't' }]);
  expect(await troupe.query('SELECT * FROM app_orders')).toEqual([{ task: 't', times: 2 }]);
});
