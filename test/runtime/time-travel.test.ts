import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { assign, raise, setup, spawnChild, stopChild } from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import type { JsonObject } from '../../src/protocol/json.ts';
import type { TimerAction } from '../../src/runtime/durable-timers.ts';
import { migrations } from '../../src/runtime/migrations.ts';
import { counterMachine, oracleMachine, puppetMachine } from './machines.ts';
import { Outside, TestStore, World } from './world.ts';

/** Does a bit of everything that lasts: keys that come and go, timers, effects, requests, states with deadlines. */
const travellerOf = (outside: Outside) =>
  setup({ actions: { ...durableActions }, actors: { work: outside.effect('work') } }).createMachine(
    {
      id: 'traveller',
      context: () => ({ keys: {}, rang: [], answers: [], worked: [], asked: 0 }),
      initial: 'idle',
      on: {
        put: {
          actions: assign({
            keys: ({ context, event }) => ({ ...context['keys'], [event['key']]: event['value'] }),
          }),
        },
        later: {
          actions: [
            assign({ asked: ({ context }) => context['asked'] + 1 }),
            raise(({ event }) => ({ type: 'ring', what: event['what'] }), {
              delay: ({ event }) => event['ms'],
              id: 'alarm',
            }),
          ],
        },
        post: {
          actions: [
            assign({ asked: ({ context }) => context['asked'] + 1 }),
            {
              type: 'send',
              params: ({ event }) => ({
                to: anyAddress('counter/c'),
                message: { type: 'note', what: event['what'] },
                delayMs: event['ms'],
              }),
            },
          ],
        },
        ring: {
          actions: assign({
            rang: ({ context, event }) => [...context['rang'], [event['what'], event['meta'].at]],
          }),
        },
        work: {
          actions: [
            stopChild(({ event }) => event['id']),
            spawnChild('work', {
              id: ({ event }) => event['id'],
              input: ({ event }) => ({ what: event['id'] }),
            }),
          ],
        },
        'xstate.done.actor.*': {
          actions: [
            assign({
              worked: ({ context, event }) => [
                ...context['worked'],
                [event['actorId'], event['output']],
              ],
            }),
            stopChild(({ event }) => event['actorId']),
          ],
        },
        ask: {
          actions: [
            assign({ asked: ({ context }) => context['asked'] + 1 }),
            {
              type: 'request',
              params: ({ event }) => ({
                to: anyAddress('oracle/o'),
                id: event['id'],
                message: { type: 'question' },
                timeoutMs: 100_000,
                ...(event['ms'] === undefined ? {} : { delayMs: event['ms'] }),
              }),
            },
          ],
        },
        'question:ok': {
          actions: assign({
            answers: ({ context, event }) => [...context['answers'], [event['meta'].request, 'ok']],
          }),
        },
        'question:err': {
          actions: assign({
            answers: ({ context, event }) => [
              ...context['answers'],
              [event['meta'].request, event['failure'].code],
            ],
          }),
        },
        end: '.ended',
        fail: {
          actions: () => {
            throw new Error('told to fail');
          },
        },
      },
      states: {
        idle: { on: { wait: 'waiting' } },
        waiting: {
          after: {
            5000: {
              target: 'idle',
              actions: assign({
                rang: ({ context, event }) => [...context['rang'], ['after', event['meta'].at]],
              }),
            },
          },
        },
        kept: {},
        ended: { type: 'final' },
      },
    },
  );

const A = 'traveller/a';

async function newWorld(options: ConstructorParameters<typeof World>[1] = {}) {
  const outside = new Outside();
  const machines = {
    traveller: travellerOf(outside),
    oracle: oracleMachine,
    counter: counterMachine,
    puppet: puppetMachine,
  };
  const world = new World(machines, options);
  await world.open();
  await world.create([A, 'traveller'], ['oracle/o', 'oracle'], ['counter/c', 'counter']);
  const rollback = (seq: number, address: typeof A = A): Promise<number> =>
    world.wait(world.host.timeTravel.rollback(address, seq));
  const newest = () => world.data.actors.get(A)?.seq as number;
  const text = (seq: number) =>
    world.data.checkpoints.get(A)?.find((checkpoint) => checkpoint.seq === seq)?.snapshotJson;
  return { world, outside, machines, rollback, newest, text };
}

describe('a rollback', () => {
  test('gives back the state byte for byte; keys added later are gone, history is kept', async () => {
    const { world, rollback, newest, text } = await newWorld();
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const seq = newest();
    await world.send(A, { type: 'put', key: 'b', value: { deep: [1, 2] } });
    await world.send(A, { type: 'put', key: 'a', value: 2 });
    const before = text(newest());
    expect(await rollback(seq)).toBe(5);
    expect(world.context(A)['keys']).toEqual({ a: 1 });
    expect(text(5)).toBe(text(seq));
    const all = world.data.checkpoints.get(A) ?? [];
    expect(all.map(({ seq: n, kind, label }) => [n, kind, label])).toEqual([
      [0, 'auto', null],
      [1, 'auto', null],
      [2, 'auto', null],
      [3, 'auto', null],
      [4, 'rollback', 'before rollback to #1'],
      [5, 'rollback', 'rolled back to #1'],
    ]);
    expect(all[4]?.snapshotJson).toBe(before);
    expect(world.facts('rolledBack')).toEqual([
      { address: A, to: 1, seq: 5, at: world.clock.now() },
    ]);
    // And it lives on from there.
    await world.send(A, { type: 'put', key: 'c', value: 3 });
    expect(world.context(A)['keys']).toEqual({ a: 1, c: 3 });
    await world.reopen();
    await world.send(A, { type: 'put', key: 'd', value: 4 });
    expect(world.context(A)['keys']).toEqual({ a: 1, c: 3, d: 4 });
  });

  test('restores timers with their due times; what was set later does not ring', async () => {
    const { world, rollback, newest } = await newWorld();
    const start = world.clock.now();
    await world.send(A, { type: 'wait' });
    await world.send(A, { type: 'later', what: 'x', ms: 2_000 });
    const seq = newest();
    await world.advance(3_000);
    expect(world.context(A)['rang']).toEqual([['x', start + 2_000]]);
    await world.send(A, { type: 'later', what: 'y', ms: 500 });
    await rollback(seq);
    // The one that was due meanwhile is due at once; the other keeps its time.
    await world.advance(10_000);
    expect(world.context(A)['rang']).toEqual([
      ['x', start + 3_001],
      ['after', start + 5_000],
    ]);
    expect(world.state(A).value).toBe('idle');
    expect(world.host.load.timers).toBe(0);
  });

  test('a message that was to be sent later is sent once more, as another message', async () => {
    const { world, rollback, newest } = await newWorld();
    await world.send(A, { type: 'post', what: 'hello', ms: 1_000 });
    const seq = newest();
    await world.advance(1_000);
    await rollback(seq);
    await world.advance(10);
    expect(world.context('counter/c')['seen']).toEqual(['hello', 'hello']);
    const ids = (world.data.checkpoints.get('counter/c') ?? []).flatMap(({ eventJson }) =>
      eventJson === null ? [] : [(JSON.parse(eventJson) as { meta: { id: string } }).meta.id],
    );
    expect(new Set(ids).size).toBe(2);
  });

  test('starts effects again under another key; the outcome of the first is not heard', async () => {
    const { world, outside, rollback, newest } = await newWorld();
    await world.send(A, { type: 'work', id: 'w1' });
    const seq = newest();
    await world.send(A, { type: 'work', id: 'w2' });
    const [first, second] = outside.starts('work');
    await rollback(seq);
    expect([first?.aborted, second?.aborted]).toEqual([true, true]);
    expect(outside.starts('work')).toHaveLength(3);
    const again = outside.last('work');
    expect(again.context.input).toEqual({ what: 'w1' });
    expect(again.context.key).not.toBe(first?.context.key);
    first?.finish('late');
    again.finish('right');
    await world.settle();
    expect(world.context(A)['worked']).toEqual([['w1', 'right']]);
    expect(world.data.effects.get(A)?.size ?? 0).toBe(0);
  });

  test('aborts what is under way before it is stored, so that it does nothing outside meanwhile', async () => {
    let store: TestStore | undefined;
    const { world, outside } = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    await world.send(A, { type: 'work', id: 'w1' });
    store?.hold();
    const rolledBack = world.host.timeTravel.rollback(A, 0);
    await world.settle();
    expect([store?.waiting, outside.last('work').aborted]).toEqual([1, true]);
    store?.release();
    await world.wait(rolledBack);
    expect(world.host.load.effects).toBe(0);
  });

  test('ends a request that had just been made, once, with a failure that says so', async () => {
    const { world, rollback, newest } = await newWorld();
    await world.send(A, { type: 'ask', id: 'one' });
    await world.send(A, { type: 'ask', id: 'unsent', ms: 50 });
    const seq = newest();
    await world.send(A, { type: 'ask', id: 'two' });
    await rollback(seq);
    await world.advance(1);
    expect(world.context(A)['answers']).toEqual([
      ['one', 'conflict'],
      ['unsent', 'conflict'],
    ]);
    const told = world.data.checkpoints.get(A)?.at(-1)?.eventJson ?? '';
    expect(JSON.parse(told)).toMatchObject({
      type: 'question:err',
      failure: { retryable: true, context: { rolledBack: true } },
    });
    // The oracle answers what it was asked before: nobody waits for it.
    await world.send('oracle/o', { type: 'answer', nth: 0 });
    await world.send('oracle/o', { type: 'answer', nth: 1 });
    await world.advance(200_000);
    expect(world.context(A)['answers']).toHaveLength(2);
    expect((world.context('oracle/o')['questions'] as unknown[]).length).toBe(2);
    expect(world.host.load.timers).toBe(0);
  });

  test('leaves its mailbox as it is', async () => {
    const { world, newest } = await newWorld();
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const rolledBack = world.host.timeTravel.rollback(A, 0);
    const sent = world.host.send(A, { type: 'put', key: 'b', value: 2 });
    await world.wait(Promise.all([rolledBack, sent]));
    expect(newest()).toBeGreaterThan(2);
    await world.send(A, { type: 'put', key: 'c', value: 3 });
    expect(world.context(A)['keys']).toMatchObject({ c: 3 });
  });

  test('brings an actor back that had left memory, and one that had ended', async () => {
    const { world, rollback, newest, text } = await newWorld();
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const seq = newest();
    await world.send(A, { type: 'end' });
    expect(world.data.actors.get(A)?.status).toBe('done');
    await world.reopen();
    expect(world.host.load.actors).toBe(0);
    await rollback(seq);
    expect(world.data.actors.get(A)).toMatchObject({ status: 'active', reason: null });
    await world.send(A, { type: 'put', key: 'b', value: 2 });
    expect(world.context(A)['keys']).toEqual({ a: 1, b: 2 });
    // And back again: an actor that ends by it refuses what waits.
    const ended = world.data.checkpoints.get(A)?.find(({ label }) => label?.startsWith('before'));
    const asked = world.ask(A, { type: 'put', key: 'x', value: 9 });
    await rollback(ended?.seq ?? -1);
    expect(text(newest())).toBe(ended?.snapshotJson);
    await expect(world.request(A, { type: 'put' })).rejects.toMatchObject({ code: 'conflict' });
    await world.advance(40_000);
    await expect(asked).rejects.toBeDefined();
  });

  test('brings a quarantined actor back', async () => {
    const { world, machines, newest } = await newWorld();
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const seq = newest();
    await world.send(A, { type: 'wait' });
    // A program in which "waiting" has another name.
    const renamed = setup({}).createMachine({
      id: 'traveller',
      context: () => ({}),
      initial: 'idle',
      on: { put: { actions: assign({ put: true }) } },
      states: { idle: {} },
    });
    await world.reopen({ machines: { ...machines, traveller: renamed } });
    await world.send(A, { type: 'put' });
    expect(world.data.actors.get(A)?.status).toBe('quarantined');
    await world.wait(world.host.timeTravel.rollback(A, seq));
    expect(world.data.actors.get(A)).toMatchObject({ status: 'active', reason: null });
    // What had waited for it meanwhile.
    expect(world.context(A)).toMatchObject({ keys: { a: 1 }, put: true });
  });

  test('is refused with what there is instead', async () => {
    const { world, machines, newest } = await newWorld();
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    await world.send(A, { type: 'work', id: 'w' });
    const { timeTravel } = world.host;
    await expect(world.wait(timeTravel.rollback('traveller/x', 0))).rejects.toMatchObject({
      code: 'not_found',
      message: 'There is no actor at traveller/x.',
    });
    await expect(world.wait(timeTravel.rollback(A, 9))).rejects.toMatchObject({
      code: 'not_found',
      message: 'traveller/a has no checkpoint 9: they go from 0 to 2.',
    });
    world.data.checkpoints.get(A)?.splice(1, 1);
    await expect(world.wait(timeTravel.rollback(A, 1))).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('The checkpoint 1 of traveller/a has been pruned.'),
    });
    const newer = setup({}).createMachine({
      id: 'traveller',
      context: () => ({}),
      initial: 'other',
      states: { other: {} },
    });
    await world.send(A, { type: 'put', key: 'b', value: 1 });
    const seq = newest();
    await world.reopen({ machines: { ...machines, traveller: { machine: newer, version: 2 } } });
    await expect(world.wait(world.host.timeTravel.rollback(A, 0))).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(
        /Checkpoint 0 of traveller\/a cannot be restored: .*version 1 .* has no migrations/,
      ),
    });
    expect(newest()).toBe(seq);
  });

  test('goes through a migration, and the checkpoint says of which version it is', async () => {
    const { world, machines, newest } = await newWorld();
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const seq = newest();
    await world.send(A, { type: 'put', key: 'b', value: 1 });
    const machine = travellerOf(new Outside());
    const traveller = {
      machine,
      migrations: migrations<JsonObject>().to((snapshot) => ({
        ...snapshot,
        context: { ...snapshot.context, migrated: true },
      })),
    };
    await world.reopen({ machines: { ...machines, traveller: traveller as never } });
    await world.send(A, { type: 'put', key: 'c', value: 1 });
    await world.wait(world.host.timeTravel.rollback(A, seq));
    expect(world.context(A)).toMatchObject({ keys: { a: 1 }, migrated: true });
    expect(world.data.checkpoints.get(A)?.map(({ version }) => version)).toEqual([
      1, 1, 1, 2, 2, 2,
    ]);
  });

  test('leaves everything as it was when the commit fails', async () => {
    let store: TestStore | undefined;
    const { world, machines, text, newest } = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    await world.send(A, { type: 'later', what: 'x', ms: 1_000 });
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const before = text(newest());
    if (store !== undefined) store.refuse = () => new Error('the disk is full');
    await expect(world.wait(world.host.timeTravel.rollback(A, 0))).rejects.toBeDefined();
    await world.reopen({ machines });
    expect(text(newest())).toBe(before);
    await world.advance(1_000);
    expect(world.context(A)['rang']).toHaveLength(1);
  });
});

describe('a journey of several actors', () => {
  const B = 'traveller/b';
  /** Two actors with messages in their mailboxes that nobody has handled yet. */
  async function withMail() {
    const place = await newWorld();
    const { world } = place;
    await world.create([B, 'traveller']);
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const sent = [
      world.host.send(A, { type: 'put', key: 'mail', value: 1 }),
      world.host.send(B, { type: 'put', key: 'mail', value: 2 }),
    ];
    return { ...place, sent };
  }

  test('takes what is given up out of the mailboxes, sends and puts back, all in one commit', async () => {
    const { world, sent } = await withMail();
    const record = world.data.checkpoints.get(A)?.[0];
    // The journeys of one moment come before any turn: this one only looks at what waits.
    const waiting = new Map<string, string>();
    const looked = world.host.timeTravel.travel([A, B], () => ({
      isGivenUp: ({ to, id: name }) => {
        waiting.set(to, name);
        return false;
      },
    }));
    const journey = world.host.timeTravel.travel([A, B], () => ({
      restorations: [
        {
          address: A,
          checkpoint: record as never,
          pending: { timers: [], effects: [] },
          label: 'back',
        },
      ],
      isGivenUp: ({ to }) => to === A,
      messages: [
        // It waits still: it is not there twice.
        {
          from: 'app/client',
          to: B,
          message: { type: 'put', key: 'mail', value: 2 },
          priority: 2,
          was: waiting.get(B) ?? '',
        },
        {
          from: 'app/client',
          to: B,
          message: { type: 'put', key: 'old', value: 3 },
          priority: 2,
          was: 'm0',
        },
      ],
    }));
    await world.wait(Promise.all([looked, journey, ...sent]));
    expect([...waiting.keys()]).toEqual([A, B]);
    const puts = (address: string) =>
      (world.data.checkpoints.get(address) ?? []).flatMap(({ eventJson, label }) =>
        eventJson === null ? [label] : [(JSON.parse(eventJson) as { key: string }).key],
      );
    expect(puts(A)).toEqual([null, 'a', 'back']);
    expect(world.context(A)['keys']).toEqual({});
    expect(puts(B).filter((key) => key === 'mail')).toEqual(['mail']);
    expect(world.context(B)['keys']).toMatchObject({ mail: 2, old: 3 });
    expect(world.data.messages.size).toBe(0);
  });

  test('changes nothing when its plan throws, or one of its actors cannot be restored', async () => {
    const { world } = await newWorld();
    await world.create([B, 'traveller']);
    await world.send(A, { type: 'put', key: 'a', value: 1 });
    const before = [world.stored(A), world.stored(B), world.data.checkpoints.get(A)?.length];
    const good = world.data.checkpoints.get(A)?.[0];
    const bad = { ...good, version: 9, address: B };
    const restoration = (address: typeof A | typeof B, checkpoint: unknown) => ({
      address,
      checkpoint: checkpoint as never,
      pending: { timers: [], effects: [] },
      label: 'x',
    });
    const both = world.host.timeTravel.travel([A, B], () => ({
      before: {
        run: 'r',
        at: 0,
        kind: 'rollback',
        label: null,
        detailsJson: null,
        address: A,
        prefix: 'x/',
        keep: null,
      },
      restorations: [restoration(A, good), restoration(B, bad)],
    }));
    await expect(world.wait(both)).rejects.toMatchObject({ code: 'conflict' });
    const thrown = world.host.timeTravel.travel([A], () => {
      throw new Error('no');
    });
    await expect(world.wait(thrown)).rejects.toThrow('no');
    expect([world.stored(A), world.stored(B), world.data.checkpoints.get(A)?.length]).toEqual(
      before,
    );
    expect(world.data.cuts.size).toBe(0);
  });
});

describe('a checkpoint by hand', () => {
  test('is one more, with label and notes and what is under way now', async () => {
    const { world, newest, text, rollback } = await newWorld();
    await world.send(A, { type: 'later', what: 'x', ms: 1_000 });
    const before = text(newest());
    const seq = await world.wait(
      world.host.timeTravel.checkpoint(A, {
        label: 'good',
        details: { step: 'half', progress: 50 },
      }),
    );
    expect(world.data.checkpoints.get(A)?.at(-1)).toMatchObject({
      seq,
      kind: 'manual',
      label: 'good',
      eventJson: null,
      snapshotJson: before,
      detailsJson: '{"step":"half","progress":50}',
    });
    await world.advance(1_000);
    await rollback(seq);
    await world.advance(1);
    expect(world.context(A)['rang']).toHaveLength(1);
  });

  test('of an actor that has ended, too', async () => {
    const { world, newest } = await newWorld();
    await world.send(A, { type: 'end' });
    await world.wait(world.host.timeTravel.checkpoint(A, {}));
    expect(world.data.actors.get(A)).toMatchObject({ seq: newest(), status: 'done' });
    await expect(
      world.wait(world.host.timeTravel.checkpoint('traveller/x', {})),
    ).rejects.toMatchObject({ code: 'not_found' });
  });
});

describe('a state that declares a milestone', () => {
  test('is kept as one when it is reached, with its label', async () => {
    const machine = setup({}).createMachine({
      id: 'path',
      context: () => ({ n: 0 }),
      initial: 'a',
      on: { count: { actions: assign({ n: ({ context }) => context['n'] + 1 }) } },
      states: { a: { on: { go: 'b' } }, b: { meta: { milestone: 'half-way' }, on: { go: 'a' } } },
    });
    const world = new World({ path: machine });
    await world.open();
    await world.create(['path/p', 'path']);
    for (const type of ['count', 'go', 'count', 'go', 'go']) await world.send('path/p', { type });
    const kinds = world.data.checkpoints.get('path/p')?.map(({ kind, label }) => label ?? kind);
    expect(kinds).toEqual(['auto', 'auto', 'half-way', 'auto', 'auto', 'half-way']);
    expect(world.data.checkpoints.get('path/p')?.[2]?.kind).toBe('milestone');
  });
});

describe('a fork', () => {
  test('begins as another actor was, with its timers and effects; that one goes on', async () => {
    const { world, outside, newest } = await newWorld();
    const start = world.clock.now();
    await world.send(A, { type: 'wait' });
    await world.send(A, { type: 'work', id: 'w' });
    await world.send(A, { type: 'post', what: 'from a', ms: 3_000 });
    await world.send(A, { type: 'ask', id: 'q1' });
    const seq = newest();
    await world.send(A, { type: 'put', key: 'later', value: 1 });
    const before = world.stored(A);
    await world.wait(world.host.timeTravel.fork(A, seq, 'traveller/b'));
    expect(world.stored(A)).toBe(before);
    expect(world.data.checkpoints.get('traveller/b')?.[0]).toMatchObject({
      seq: 0,
      label: `forked from ${A}#${seq}`,
      snapshotJson: world.data.checkpoints.get(A)?.[seq]?.snapshotJson,
    });
    await world.advance(1);
    expect(world.context('traveller/b')['answers']).toEqual([['q1', 'conflict']]);
    expect(outside.starts('work').map(({ context }) => context.address)).toEqual([
      A,
      'traveller/b',
    ]);
    outside.last('work').finish('done');
    await world.advance(10_000);
    expect(world.context('traveller/b')).toMatchObject({
      worked: [['w', 'done']],
      rang: [['after', start + 5_000]],
      keys: {},
    });
    expect(world.context('counter/c')['seen']).toEqual(['from a', 'from a']);
    await expect(world.wait(world.host.timeTravel.fork(A, seq, 'counter/c'))).rejects.toMatchObject(
      { code: 'conflict' },
    );
  });
});

/** An actor was asked to be made, and its machine is not registered any more. */
async function worldWithUnborn() {
  let reads = 0;
  const { world, outside } = await newWorld({
    wrap: (memory) => {
      const store = new TestStore(memory);
      store.loadActors = async (addresses) => {
        if (++reads > 100) throw new Error('The store is asked without end.');
        return await memory.loadActors(addresses);
      };
      return store;
    },
  });
  await world.create(['puppet/p', 'puppet']);
  void world.host.send('puppet/p', { type: 'spawn', address: 'counter/x', machine: 'counter' });
  await world.run(1);
  await world.reopen({ machines: { traveller: travellerOf(outside), puppet: puppetMachine } });
  expect([...world.data.messages.values()].map(({ to }) => to)).toEqual(['counter/x', 'counter/x']);
  return world;
}

test('there is no actor where one waits for its machine to be born, but a fork can begin there', async () => {
  const world = await worldWithUnborn();
  await expect(world.wait(world.host.timeTravel.checkpoint('counter/x', {}))).rejects.toMatchObject(
    { code: 'not_found' },
  );
  await world.wait(world.host.timeTravel.fork(A, 0, 'counter/x'));
  await world.settle();
  // What was sent to it was for whoever lives there.
  expect(world.data.messages.size).toBe(0);
  await world.reopen();
  expect(world.data.actors.get('counter/x')).toMatchObject({ machine: 'traveller' });
});

// ── a random life ──────────────────────────────────────────────────────────────────────────────────────

type Step =
  | { readonly do: 'put'; readonly key: string; readonly value: number }
  | { readonly do: 'later' | 'post' | 'askLater'; readonly ms: number }
  | { readonly do: 'work' | 'ask'; readonly id: string }
  | { readonly do: 'finish' | 'answer' | 'wait' | 'end' | 'reopen' | 'checkpoint' }
  | { readonly do: 'advance'; readonly ms: number }
  | { readonly do: 'rollback'; readonly to: number };

const ms = fc.integer({ min: 1, max: 8_000 });
const id = fc.constantFrom('i', 'j');
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant('put' as const), key: id, value: fc.nat(9) }),
  fc.record({ do: fc.constantFrom('later' as const, 'post' as const, 'askLater' as const), ms }),
  fc.record({ do: fc.constantFrom('work' as const, 'ask' as const), id }),
  fc.record({
    do: fc.constantFrom(
      ...(['finish', 'answer', 'wait', 'reopen', 'reopen', 'checkpoint', 'end'] as const),
    ),
  }),
  fc.record({ do: fc.constant('advance' as const), ms }),
  { weight: 2, arbitrary: fc.record({ do: fc.constant('rollback' as const), to: fc.nat(99) }) },
);

/** How the actor stood at a moment of rest: read from the tables, not from what its checkpoint says. */
interface Moment {
  readonly snapshot: string;
  readonly timers: readonly {
    readonly id: string;
    readonly dueAt: number;
    readonly action: TimerAction;
  }[];
  readonly effects: readonly string[];
}

test('whatever happens, going back gives exactly what was', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30, size: 'max' }), async (steps) => {
      const { world, outside, rollback, newest, text } = await newWorld();
      const moments = new Map<number, Moment>();
      const timersNow = () =>
        [...(world.data.timers.get(A)?.values() ?? [])].map(({ id: name, dueAt, actionJson }) => ({
          id: name,
          dueAt,
          action: JSON.parse(actionJson) as TimerAction,
        }));
      const seen = new Set<number>();
      const remember = (): void => {
        if (seen.has(newest())) return;
        seen.add(newest());
        moments.set(newest(), {
          snapshot: String(world.stored(A)),
          timers: timersNow(),
          effects: [...(world.data.effects.get(A)?.keys() ?? [])].sort(),
        });
      };
      remember();
      let asked = 0;
      for (const s of steps) {
        switch (s.do) {
          case 'put':
            await world.send(A, { type: 'put', key: s.key, value: s.value });
            break;
          case 'later':
          case 'post':
            await world.send(A, { type: s.do, what: s.ms, ms: s.ms });
            break;
          case 'askLater':
            await world.send(A, { type: 'ask', id: `r${asked++}`, ms: s.ms });
            break;
          case 'work':
            await world.send(A, { type: 'work', id: s.id });
            break;
          case 'ask':
            await world.send(A, { type: 'ask', id: s.id });
            break;
          case 'finish':
            outside.started.find(({ aborted }) => !aborted)?.finish('done');
            break;
          case 'answer': {
            const { length } = world.context('oracle/o')['questions'] as unknown[];
            if (length > 0) await world.send('oracle/o', { type: 'answer', nth: length - 1 });
            break;
          }
          case 'wait':
          case 'end':
            await world.send(A, { type: s.do });
            break;
          case 'reopen':
            await world.reopen();
            break;
          case 'checkpoint':
            await world.wait(world.host.timeTravel.checkpoint(A, {}));
            break;
          case 'advance':
            await world.advance(s.ms);
            // A message may have gone out since its last turn, which leaves no checkpoint: no moment to compare with.
            seen.add(newest());
            break;
          case 'rollback': {
            const targets = [...moments.keys()];
            const to = targets[s.to % targets.length] as number;
            const was = moments.get(to) as Moment;
            const before = String(world.stored(A));
            const answersBefore = world.facts('rolledBack').length;
            const started = outside.started.length;
            const seq = await rollback(to);
            // Timers keep their time; those that are overdue are due now.
            const isTimer = ({ action }: Moment['timers'][number]) =>
              action.do === 'event' ||
              (action.do === 'send' && action.envelope.correlation === undefined);
            const times = (timers: Moment['timers']) =>
              timers.filter(isTimer).map(({ id: name, dueAt }) => `${name.slice(0, 12)} ${dueAt}`);
            expect(times(timersNow()).sort()).toEqual(times(was.timers).sort());
            remember();
            // What is due now is due a moment later.
            await world.advance(1);
            seen.add(newest());
            // Byte for byte, and the moment before is kept too.
            expect(text(seq)).toBe(was.snapshot);
            expect(text(seq - 1)).toBe(before);
            expect(world.facts('rolledBack')).toHaveLength(answersBefore + 1);
            expect(world.data.checkpoints.get(A)?.find((c) => c.seq === seq)?.kind).toBe(
              'rollback',
            );
            // Each effect that was under way was started anew, and nothing else.
            expect(outside.started.length - started).toBe(was.effects.length);
            // Each request that was outstanding has ended, once.
            const requests = was.timers.filter(
              ({ action }) => action.do === 'deadline' || action.do === 'rolledBack',
            );
            const told = (world.data.checkpoints.get(A) ?? [])
              .filter((c) => c.seq > seq && c.eventJson !== null)
              .map(
                (c) =>
                  JSON.parse(String(c.eventJson)) as { type: string; meta: { request: string } },
              )
              .filter((e) => e.type === 'question:err');
            expect(told.map((e) => `request:${e.meta.request}`).sort()).toEqual(
              requests.map((r) => r.id).sort(),
            );
            break;
          }
        }
        await world.settle();
        remember();
      }
      // In the end every request has ended one way or the other, and nothing is left over.
      const left = world.state(A).status === 'active' ? timersNow() : [];
      const now = world.clock.now();
      await world.advance(300_000);
      const rang = world.context(A)['rang'] as unknown[];
      for (const { dueAt, action } of left) {
        if (action.do !== 'event' || action.event.type !== 'ring') continue;
        expect(rang).toContainEqual([action.event['what'], Math.max(dueAt, now + 1)]);
      }
      for (const start of outside.started) start.finish('done');
      await world.settle();
      expect(world.host.load).toMatchObject({ timers: 0, effects: 0 });
      expect(world.data.messages.size).toBe(0);
    }),
    { numRuns: 300 },
  );
}, 120_000);
