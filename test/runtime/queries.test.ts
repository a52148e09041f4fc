import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { queryStore } from '../../src/query-store.ts';
import { migrations } from '../../src/runtime/migrations.ts';
import { DISKS, memoryDisk, sqliteDisk } from '../actors/open-troupe.ts';

const shelf = setup({
  types: { context: {} as { books: readonly string[] } },
}).createMachine({
  id: 'shelf',
  context: { books: [] },
  initial: 'open',
  states: { open: { on: { 'shelf.close': 'shut' } }, shut: { type: 'final' } },
  on: {
    'shelf.add': {
      actions: assign({
        books: ({ context, event }) => [
          ...context.books,
          String((event as never as { book: string }).book),
        ],
      }),
    },
  },
});

const queries = {
  count: ({ context }: { context: object }) => (context as { books: string[] }).books.length,
  state: ({ value, status, seq }: { value: unknown; status: string; seq: number }) =>
    `${value} ${status} ${seq}`,
  has: (actor: { context: object }, args: unknown) =>
    (actor.context as { books: string[] }).books.includes((args as { book: string }).book),
  breaks: () => {
    throw new Error('no such thing');
  },
  steals: ({ context }: { context: object }) => {
    (context as { books: string[] }).books.push('stolen');
    return 'done';
  },
  later: (async () => 1) as never,
};

describe.each(DISKS)('a query on $disk', ({ make }) => {
  test('is answered from the state, without a turn, in memory or not, and after the end', async () => {
    const disk = make();
    const troupe = await disk.open();
    await troupe.spawn(shelf, { id: 'shelf/a', queries });
    let turns = 0;
    troupe.on('turn', () => turns++);
    await troupe.send('shelf/a', { type: 'shelf.add', book: 'Emma' });
    await troupe
      .request('shelf/a', { type: 'shelf.ask' }, { timeoutMs: 20 })
      .catch(() => undefined);
    const before = turns;
    expect(await troupe.queryActor('shelf/a', 'count')).toBe(1);
    expect(await troupe.queryActor('shelf/a', 'has', { book: 'Emma' })).toBe(true);
    expect(await troupe.queryActor('shelf/a', 'state')).toBe('open active 1');
    expect(await troupe.queryActor('shelf/a', 'steals')).toBe('done');
    expect(await troupe.queryActor('shelf/a', 'count')).toBe(1);
    expect(turns).toBe(before);
    expect((await troupe.host.inspect('shelf/a'))?.record.seq).toBe(1);
    await troupe.stop();
    const later = await disk.open();
    later.register(shelf, { queries });
    const { actors } = later.host.load;
    expect(await later.queryActor('shelf/a', 'count')).toBe(1);
    // It was not loaded for that.
    expect(later.host.load.actors).toBe(actors);
    const ended = new Promise<void>((resolve) => {
      later.on('turn', ({ status }) => status === 'done' && resolve());
    });
    await later.send('shelf/a', { type: 'shelf.close' });
    await ended;
    expect(await later.queryActor('shelf/a', 'state')).toBe('shut done 2');
  });
});

test('what cannot be answered is said in words', async () => {
  const troupe = await memoryDisk().open();
  await troupe.spawn(shelf, { id: 'shelf/a', queries });
  const asked = (name: string, args?: unknown) => troupe.queryActor('shelf/a', name, args as never);
  await expect(asked('size')).rejects.toMatchObject({
    code: 'not_found',
    message:
      'There is no query "size" for shelf/a: the machine "shelf" has count, state, has, breaks, steals, later.',
  });
  await expect(asked('toString')).rejects.toMatchObject({ code: 'not_found' });
  await expect(asked('breaks')).rejects.toMatchObject({
    code: 'internal',
    message: /failed: no such thing/,
  });
  await expect(asked('later')).rejects.toThrow(
    'must answer with plain JSON, but answer is a Promise',
  );
  await expect(asked('has', { book: new Date() })).rejects.toThrow('args.book is a Date');
  await expect(troupe.queryActor('shelf/none', 'count')).rejects.toThrow(
    'There is no actor at shelf/none',
  );
  await expect(troupe.queryActor('overseer/main', 'x')).rejects.toThrow(
    'has none. Register it with queries',
  );
  expect(() =>
    troupe.register({ ...shelf, id: 'other' } as never, { queries: { a: 1 } as never }),
  ).toThrow('Expected the queries of machine "other" to be functions by name');
});

test('an agent of Troupe answers, and a store that is only read does: also of an older version', async () => {
  const disk = sqliteDisk();
  const troupe = await disk.open();
  troupe.agent('w', async () => null, { throttle: { limit: 5, periodMs: 1_000 } });
  await troupe.spawn(shelf, { id: 'shelf/a' });
  expect(await troupe.queryActor('agent/w', 'work')).toMatchObject({
    breaker: 'closed',
    running: [],
  });
  const asked = { limits: { throttle: { limit: 5, periodMs: 1_000 } } };
  // While somebody works on it.
  expect(await queryStore(disk.path, 'agent/w', 'work')).toMatchObject(asked);
  await expect(queryStore(disk.path, 'shelf/a', 'count')).rejects.toThrow(
    'its machine "shelf" is not known here',
  );
  const newer = migrations<{ books: string[] }>().to((state) => ({
    ...state,
    context: { books: [...state.context.books, 'migrated'] },
  }));
  const machines = [[shelf, { queries, migrations: newer }]] as const;
  expect(await queryStore(disk.path, 'shelf/a', 'count', null, { machines })).toBe(1);
  await expect(queryStore(disk.path, 'shelf/b', 'count')).rejects.toMatchObject({
    code: 'not_found',
  });
});
