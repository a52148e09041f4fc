import { expect, onTestFinished, test } from 'vitest';
import { assign, setup } from 'xstate';
import {
  ConfigurationError,
  durableActions,
  effect,
  MemoryStore,
  migrations,
  replyTo,
  StoppedError,
  type Troupe,
  ValidationError,
} from '../../src/index.ts';
import { DISKS, memoryDisk, sqliteDisk } from '../actors/open-troupe.ts';

/*
 * What an app's code may do that nobody has thought of: it fails, whoever asked is told, and nobody else notices. An
 * unhandled rejection would fail these tests as well.
 */

/** Does what its context says, when it is asked. */
const acts = (action: object) =>
  setup({
    types: { events: {} as { type: 'act' | 'ask'; meta: never } },
    actions: durableActions,
  }).createMachine({
    id: 'odd',
    on: {
      act: { actions: action as never },
      ask: {
        actions: {
          type: 'reply',
          params: ({ event }: { event: { meta: never } }) => ({
            to: replyTo(event.meta),
            type: 'ask',
            reply: 'alive',
          }),
        } as never,
      },
    },
  });

const replies = (failure: unknown) => ({
  type: 'reply',
  params: ({ event }: { event: { meta: never } }) => ({
    to: replyTo(event.meta),
    type: 'act',
    failure,
  }),
});
const asks = (id: unknown) => ({
  type: 'request',
  params: { id, to: 'odd/b', message: { type: 'ask' }, timeoutMs: 1_000 },
});
const halfEmpty = { code: 'internal', message: 'x' };

test.each([
  { what: 'a failure that is null', action: replies(null), says: 'retryable }, got null' },
  { what: 'a failure that is a text', action: replies('x'), says: 'retryable }, got string' },
  { what: 'half a failure', action: replies(halfEmpty), says: 'retryable }, got another object' },
  { what: 'a request by a symbol', action: asks(Symbol('s')), says: 'to be a text, got symbol' },
  {
    what: 'calling off by a symbol',
    action: { type: 'cancelRequest', params: { id: Symbol('s') } },
    says: 'to be a text, got symbol',
  },
  {
    what: 'params that are a promise',
    action: { type: 'send', params: () => Promise.reject(new Error('late')) },
    says: 'are a promise: they have to be made synchronously',
  },
])('$what: the turn fails, and the others go on', async ({ action, says }) => {
  const troupe = await memoryDisk().open();
  const failed = new Promise<string>((resolve) => {
    troupe.on('deadLettered', ({ reason }) => resolve(reason));
  });
  await troupe.spawn(acts(action), { id: 'odd/a' });
  await troupe.spawn(acts(action), { id: 'odd/b' });
  troupe.request('odd/a', { type: 'act' }, { timeoutMs: 1_000 }).catch(() => undefined);
  expect(await failed).toContain(says);
  expect(await troupe.request('odd/b', { type: 'ask' })).toBe('alive');
});

const PROJECTIONS: readonly {
  readonly what: string;
  readonly given: unknown;
  readonly says: string;
}[] = [
  { what: 'a text', given: 'abc', says: 'to give a list of rows, got string' },
  { what: 'a promise', given: Promise.reject(new Error('late')), says: 'got a promise' },
  { what: 'another table', given: [{ table: 'x', row: {} }], says: 'got table x' },
  {
    what: 'half a row',
    given: [{ table: 'runs', row: { run: 'r' } }],
    says: 'title is a text, got undefined',
  },
];
for (const { given } of PROJECTIONS) if (given instanceof Promise) given.catch(() => undefined);

test.each(PROJECTIONS)(
  'a projection that is $what fails its turn alone',
  async ({ given, says }) => {
    const troupe = await sqliteDisk().open();
    troupe.register(acts([]), { project: () => given as never });
    await expect(troupe.spawn(acts([]), { id: 'odd/a' })).rejects.toThrow(says);
    troupe.agent('w', () => 1);
    troupe.gatekeeper('g', () => ({ accepted: true, evidence: ['seen'] }));
    const run = await troupe.start({ id: 'r', tasks: [{ id: 't', agent: 'w', gatekeeper: 'g' }] });
    expect(await run.result()).toMatchObject({ state: 'done' });
  },
);

const box = setup({
  types: { context: {} as { v: unknown }, events: {} as { type: 'set'; v: unknown } },
}).createMachine({
  id: 'box',
  context: { v: null },
  on: { set: { actions: assign({ v: ({ event }) => event.v }) } },
});

test('a message that looks like a reference to an actor is refused before it is stored', async () => {
  const troupe = await memoryDisk().open();
  await troupe.spawn(box, { id: 'box/a' });
  const failed = new Promise<string>((resolve) => {
    troupe.on('deadLettered', ({ reason }) => resolve(reason));
  });
  await troupe.send('box/a', { type: 'set', v: { xstate$$type: 1 } } as never);
  expect(await failed).toContain('holds a reference to an actor (the key "xstate$$type")');
  // A text may say what it likes.
  await troupe.send('box/a', { type: 'set', v: '"xstate$$type":' } as never);
  expect(await troupe.check()).toMatchObject({ problems: [] });
});

test('an asynchronous function where none may be is refused, and its failure ends nobody', async () => {
  const troupe = await sqliteDisk().open({ appSchema: ['CREATE TABLE app_t (x)'] });
  const machine = setup({
    types: { context: {} as { said: string } },
    actors: {
      work: effect(async ({ step }) => {
        await step.tx('order', (async (tx: { run(sql: string): void }) => {
          await Promise.resolve();
          tx.run('INSERT INTO app_t VALUES (1)');
          return 1;
        }) as never);
        return null;
      }),
    },
  }).createMachine({
    id: 'worker',
    context: { said: '' },
    initial: 'busy',
    states: {
      busy: {
        invoke: {
          src: 'work',
          input: null,
          onError: {
            target: 'failed',
            actions: assign({ said: ({ event }) => (event.error as Error).message }),
          },
        },
      },
      failed: {},
    },
  });
  const failed = new Promise<void>((resolve) => {
    troupe.on('turn', ({ state }) => {
      if (state === 'failed') resolve();
    });
  });
  troupe.register(machine, {
    queries: { late: (async () => Promise.reject(new Error('late'))) as never },
  });
  await troupe.spawn(machine, { id: 'worker/a' });
  await failed;
  expect((await troupe.host.inspect('worker/a'))?.snapshot.context).toMatchObject({
    said: expect.stringContaining('to return its result, got a promise'),
  });
  await expect(troupe.queryActor('worker/a', 'late')).rejects.toThrow('answer is a Promise');
});

test('a migration that is asynchronous is refused, and its failure ends nobody', async () => {
  const disk = memoryDisk();
  const first = await disk.open();
  await first.spawn(box, { id: 'box/a' });
  await first.stop();
  const again = await disk.open();
  again.register(box, {
    migrations: migrations().to((async () => Promise.reject(new Error('late'))) as never) as never,
  });
  expect((await again.check()).problems).toHaveLength(1);
});

const MACHINES = [undefined, null, {}] as never[];
test.each(MACHINES)('%s is no machine', async (machine) => {
  const troupe = await memoryDisk().open();
  expect(() => troupe.register(machine)).toThrow(ConfigurationError);
});

test('a machine id that was cut in the middle of a character is refused', async () => {
  const troupe = await memoryDisk().open();
  const cut = setup({}).createMachine({ id: 'box\ud800' });
  expect(() => troupe.register(cut)).toThrow('contains half of a character');
});

test.each([{ name: 'deploy' }, {}, null, { name: 'deploy', token: '1' }])(
  'a fence that is %j is none: nothing is sent for it',
  async (fence) => {
    const troupe = await memoryDisk().open();
    await troupe.spawn(box, { id: 'box/a' });
    const sent = troupe.send('box/a', { type: 'set', v: 1 } as never, { fence } as never);
    await expect(sent).rejects.toThrow(ValidationError);
    expect(() => troupe.leases.assertHeld(fence as never)).toThrow(
      'to be a lease, or its { name, token }',
    );
  },
);

/** `stop` comes after so many turns of the event loop. */
const loops = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

test.each(DISKS)(
  'whoever waits for a lease is told of a stop, whenever it comes ($disk)',
  async ({ make }) => {
    for (const count of [0, 1, 2, 3, 5, 8, 20]) {
      const troupe = await make().open();
      await troupe.leases.acquire('a');
      const waits = troupe.leases.acquire('a', { waitMs: 600_000 });
      const told = expect(waits).rejects.toThrow(StoppedError);
      await loops(count);
      await troupe.stop();
      await told;
    }
  },
);

test.each(DISKS)(
  'whoever would ask again is told of a stop, whenever it comes ($disk)',
  async ({ make }) => {
    const retry = { attempts: 3, initialMs: 60_000, maxMs: 60_000, while: () => true };
    for (const count of [0, 1, 2, 3, 5, 8, 20]) {
      const troupe = await make().open();
      await troupe.spawn(acts([]), { id: 'odd/a' });
      const asked = ['odd/a', 'odd/nobody'].map((to) =>
        expect(
          troupe.request(to as 'odd/a', { type: 'never' } as never, { retry }),
        ).rejects.toThrow(StoppedError),
      );
      await loops(count);
      await troupe.stop();
      await Promise.all(asked);
    }
  },
);

test('when a store cannot be closed, nobody waits for ever', async () => {
  const store = new MemoryStore();
  const troupe = await memoryOf(store);
  troupe.agent(
    'w',
    ({ signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      }),
  );
  troupe.gatekeeper('g', () => ({ accepted: true, evidence: ['seen'] }));
  const run = await troupe.start({ id: 'r', tasks: [{ id: 't', agent: 'w', gatekeeper: 'g' }] });
  const told = expect(run.result()).rejects.toThrow(StoppedError);
  const completed = new Promise<void>((resolve) => {
    troupe.turns$.subscribe({ complete: resolve });
  });
  const close = store.close.bind(store);
  store.close = () => Promise.reject(new Error('The disk is gone.'));
  onTestFinished(close);
  await expect(troupe.stop()).rejects.toThrow('The disk is gone.');
  await Promise.all([told, completed]);
});

async function memoryOf(store: MemoryStore): Promise<Troupe> {
  const { createTroupe } = await import('../../src/index.ts');
  return await createTroupe({ store });
}

const counter = setup({
  types: { context: {} as { n: number } },
  actions: durableActions,
}).createMachine({
  id: 'counter',
  context: { n: 0 },
  on: { inc: { actions: assign({ n: ({ context }) => context.n + 1 }) } },
});

test.each(DISKS)(
  'with keys, too, no more wait in a mailbox than it has places ($disk)',
  async ({ make }) => {
    const troupe = await make().open();
    troupe.register(counter, { mailboxLimit: 10, overflow: 'wait' });
    await troupe.spawn(counter, { id: 'counter/a' });
    const sent = Array.from({ length: 300 }, (_, i) =>
      troupe.send('counter/a', { type: 'inc' } as never, { idempotencyKey: `k${i % 250}` }),
    );
    await Promise.all(sent);
    expect((await troupe.host.inspect('counter/a'))?.snapshot.context).toEqual({ n: 250 });
    expect(troupe.counts.waited).toBeGreaterThan(100);
  },
);
