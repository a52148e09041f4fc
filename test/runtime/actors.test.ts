import { describe, expect, test } from 'vitest';
import { createMachine, setup } from 'xstate';
import { ConfigurationError, ValidationError } from '../../src/protocol/errors.ts';
import type { JsonObject } from '../../src/protocol/json.ts';
import { migrations } from '../../src/runtime/migrations.ts';
import { counterMachine, puppetMachine, workerMachine } from './machines.ts';
import { Outside, TestStore, World } from './world.ts';

const brokenAtBirth = createMachine({
  id: 'broken',
  context: () => {
    throw new Error('stillborn');
  },
});
const MACHINES = { counter: counterMachine, puppet: puppetMachine, broken: brokenAtBirth };

const newWorld = async (options: ConstructorParameters<typeof World>[1] = {}): Promise<World> => {
  const world = new World(MACHINES, options);
  await world.open();
  return world;
};

describe('spawning from outside', () => {
  test('creates actors in one commit, and says which', async () => {
    let store: TestStore | undefined;
    const world = await newWorld({
      wrap: (memory) => {
        store = new TestStore(memory);
        return store;
      },
    });
    const requests = Array.from({ length: 1500 }, (_, i) => ({
      address: `counter/${i}` as const,
      machine: 'counter',
      input: i,
    }));
    expect(await world.wait(world.host.spawn(requests))).toEqual(
      requests.map(({ address }) => address),
    );
    expect(store?.batches).toHaveLength(1);
    expect(store?.batches[0]?.actors).toHaveLength(1500);
    expect(world.context('counter/1499')['name']).toBe(1499);
  });

  test('leaves those alone that exist, in memory or not, and a name given twice', async () => {
    const world = await newWorld();
    await world.create(['counter/a', 'counter', 'first']);
    await world.send('counter/a', { type: 'inc' });
    const again = [
      { address: 'counter/a', machine: 'puppet', input: 'second' },
      { address: 'counter/b', machine: 'counter', input: 'first b' },
      { address: 'counter/b', machine: 'counter', input: 'second b' },
    ] as const;
    expect(await world.wait(world.host.spawn(again))).toEqual(['counter/b']);
    await world.reopen();
    expect(await world.wait(world.host.spawn(again))).toEqual([]);
    expect(world.context('counter/a')).toMatchObject({ n: 1, name: 'first' });
    expect(world.context('counter/b')).toMatchObject({ n: 0, name: 'first b' });
  });

  test('two at once for the same address make one actor', async () => {
    const world = await newWorld();
    const spawn = (input: string) =>
      world.host.spawn([{ address: 'counter/a', machine: 'counter', input }]);
    const both = Promise.all([spawn('one'), spawn('two')]);
    // And somebody writes to it meanwhile.
    const sent = world.host.send('counter/a', { type: 'inc' });
    expect(await world.wait(both)).toEqual([['counter/a'], []]);
    await world.wait(sent);
    expect(world.context('counter/a')).toMatchObject({ n: 1, name: 'one' });
    expect(world.data.checkpoints.get('counter/a')?.map(({ seq }) => seq)).toEqual([0, 1]);
  });

  test('all or none: one that cannot be made keeps the others from it', async () => {
    const world = await newWorld();
    const bad = [
      [{ address: 'counter/x', machine: 'broken' }, Error, 'stillborn'],
      [
        { address: 'counter/x', machine: 'unknown' },
        ConfigurationError,
        'No machine named "unknown" is registered. Known: counter, puppet, broken.',
      ],
      [{ address: 'Counter', machine: 'counter' }, ValidationError, 'Expected an address'],
      [
        { address: 'app/x', machine: 'counter' },
        ValidationError,
        'Addresses that begin with "app/"',
      ],
      [
        { address: 'counter/x', machine: 'counter', input: new Date(0) },
        ValidationError,
        'The input of counter/x must be plain JSON, but input is a Date.',
      ],
    ] as const;
    for (const [request, type, says] of bad) {
      const spawned = world.host.spawn([
        { address: 'counter/a', machine: 'counter' },
        request as never,
        { address: 'counter/b', machine: 'counter' },
      ]);
      spawned.catch(() => undefined);
      await world.settle();
      await expect(spawned).rejects.toThrow(says);
      await expect(spawned).rejects.toThrow(type);
    }
    expect(world.data.actors.size).toBe(0);
    expect(world.host.load.actors).toBe(0);
  });
});

describe('spawning from a machine', () => {
  const spawn = (address: string, machine = 'counter', more: JsonObject = {}) => ({
    type: 'spawn',
    address,
    machine,
    ...more,
  });

  test('makes an actor whose parent it is; what is sent to it next finds it', async () => {
    const world = await newWorld();
    await world.create(['puppet/p', 'puppet']);
    await world.send(
      'puppet/p',
      spawn('counter/c', 'counter', { input: 'mine', first: { type: 'inc' } }),
    );
    expect(world.context('counter/c')).toMatchObject({ n: 1, name: 'mine' });
    expect(world.data.actors.get('counter/c')).toMatchObject({
      parent: 'puppet/p',
      machine: 'counter',
    });
    expect(world.data.deadLetters).toEqual([]);
  });

  test('does nothing if the actor exists: it is not made twice', async () => {
    const world = await newWorld();
    await world.create(['puppet/p', 'puppet'], ['counter/c', 'counter', 'first']);
    for (let i = 0; i < 3; i++) {
      await world.send(
        'puppet/p',
        spawn('counter/c', 'counter', { input: 'second', first: { type: 'inc' } }),
      );
      await world.reopen();
    }
    expect(world.context('counter/c')).toMatchObject({ n: 3, name: 'first' });
    expect(world.data.actors.get('counter/c')?.parent).toBe(null);
    expect(world.data.messages.size).toBe(0);
  });

  test('survives a crash between the parent’s turn and the birth', async () => {
    const world = await newWorld({ wrap: (memory) => new TestStore(memory) });
    await world.create(['puppet/p', 'puppet']);
    // The parent's turn is stored; the child is not read yet when the process dies.
    const host = await world.reopen({
      wrap: (memory) => {
        const store = new TestStore(memory);
        const load = store.loadActors.bind(store);
        store.loadActors = (addresses) =>
          addresses.includes('counter/c') ? new Promise(() => undefined) : load(addresses);
        return store;
      },
    });
    void host.send('puppet/p', spawn('counter/c', 'counter', { first: { type: 'inc' } }));
    await world.settle();
    expect(world.data.messages.size).toBe(2);
    expect(world.data.actors.has('counter/c')).toBe(false);
    await world.reopen();
    expect(world.context('counter/c')['n']).toBe(1);
    expect(world.data.messages.size).toBe(0);
    await world.reopen();
    expect(world.context('counter/c')['n']).toBe(1);
  });

  test('waits for a machine that is registered later', async () => {
    const world = await newWorld({ wrap: (memory) => new TestStore(memory) });
    await world.create(['puppet/p', 'puppet']);
    const host = await world.reopen({
      wrap: (memory) => {
        const store = new TestStore(memory);
        const load = store.loadActors.bind(store);
        store.loadActors = (addresses) =>
          addresses.includes('counter/c') ? new Promise(() => undefined) : load(addresses);
        return store;
      },
    });
    void host.send('puppet/p', spawn('counter/c', 'counter', { first: { type: 'inc' } }));
    await world.settle();
    const later = await world.reopen({ machines: { puppet: puppetMachine } });
    expect(world.data.actors.has('counter/c')).toBe(false);
    expect(world.data.deadLetters).toEqual([]);
    later.register('counter', counterMachine);
    await world.settle();
    expect(world.context('counter/c')['n']).toBe(1);
  });

  test('before the child, whatever was sent to it waits, also of the highest class', async () => {
    const world = await newWorld();
    await world.create(['puppet/p', 'puppet']);
    void world.host.send(
      'puppet/p',
      spawn('counter/c', 'counter', { first: { type: 'note', what: 'parent' } }),
    );
    // Before anybody knows whether there is such an actor.
    void world.host.send('counter/c', { type: 'note', what: 'early' }, { priority: 5 });
    await world.settle();
    expect(world.context('counter/c')['seen']).toEqual(['early', 'parent']);
  });

  test('one that fails is a dead letter, and the parent is told', async () => {
    const world = await newWorld();
    await world.create(['puppet/p', 'puppet']);
    await world.send('puppet/p', spawn('broken/b', 'broken'));
    expect(world.data.deadLetters.map(({ address, reason }) => [address, reason])).toEqual([
      ['broken/b', 'stillborn'],
      ['broken/b', 'There is no actor at broken/b.'],
    ]);
    expect(world.context('puppet/p')['got']).toMatchObject([
      { type: 'child.faulted', address: 'broken/b', failure: { message: 'stillborn' } },
    ]);
    expect(world.host.load.actors).toBe(1);
  });

  test.each([
    { bad: spawn('counter/c', 'unknown'), says: 'No machine named "unknown" is registered.' },
    { bad: spawn('Nowhere'), says: 'Expected an address' },
    { bad: spawn('app/x'), says: 'Addresses that begin with "app/"' },
  ])('$says', async ({ bad, says }) => {
    const world = await newWorld();
    await world.create(['puppet/p', 'puppet']);
    await world.send('puppet/p', bad);
    expect(world.data.deadLetters[0]?.reason).toContain(says);
    expect(world.data.actors.size).toBe(1);
  });

  test('one that fails does not stand in the way of the next one that asks for the actor', async () => {
    const world = await newWorld();
    await world.create(['puppet/p', 'puppet'], ['puppet/q', 'puppet']);
    const first = { type: 'note', what: 'hello' };
    const spawn = (machine: string) => ({ type: 'spawn', address: 'counter/x', machine, first });
    // All of them ask before it is known whether there is such an actor.
    const asked = [
      world.host.send('puppet/p', spawn('broken')),
      world.host.send('puppet/q', spawn('broken')),
      world.host.send('puppet/p', spawn('counter')),
      world.host.send('puppet/q', spawn('counter')),
    ];
    await world.wait(Promise.all(asked));
    await world.settle();
    expect(world.data.actors.get('counter/x')).toMatchObject({ machine: 'counter' });
    expect(world.context('counter/x')['seen']).toHaveLength(4);
    expect(world.data.deadLetters.map(({ reason }) => reason)).toEqual(['stillborn', 'stillborn']);
    expect(world.data.messages.size).toBe(0);
  });

  test('a child that ends with an error tells its parent', async () => {
    const outside = new Outside();
    const fragile = setup({
      actors: { work: outside.effect('work') } as Record<string, ReturnType<Outside['effect']>>,
    }).createMachine({ id: 'fragile', invoke: { src: 'work', id: 'w' } });
    const world = new World({ ...MACHINES, fragile });
    await world.open();
    await world.create(['puppet/p', 'puppet']);
    await world.send('puppet/p', spawn('fragile/f', 'fragile'));
    outside.last('work').fail(new Error('snap'));
    await world.settle();
    expect(world.data.actors.get('fragile/f')).toMatchObject({ status: 'error', reason: 'snap' });
    expect(world.context('puppet/p')['got']).toMatchObject([
      { type: 'child.faulted', address: 'fragile/f', failure: { message: 'snap' } },
    ]);
    await expect(world.request('fragile/f', { type: 'x' })).rejects.toThrow(
      'fragile/f has ended with an error: snap',
    );
    await world.reopen();
    await expect(world.request('fragile/f', { type: 'x' })).rejects.toThrow(
      'fragile/f has ended with an error: snap',
    );
  });
});

describe('memory', () => {
  test('an actor without messages leaves it, and comes back with its next message', async () => {
    const world = await newWorld({ passivateAfterMs: 1000 });
    await world.create(['counter/a', 'counter'], ['counter/b', 'counter']);
    await world.send('counter/a', { type: 'inc' });
    await world.advance(900);
    await world.send('counter/b', { type: 'inc' });
    await world.advance(200);
    expect(world.host.load.actors).toBe(1);
    await world.advance(2000);
    expect(world.host.load.actors).toBe(0);
    // Nothing is left that would wake anybody up.
    const { pending } = world.clock;
    await world.advance(1_000_000);
    expect(world.clock.pending).toBeLessThanOrEqual(pending);
    await world.send('counter/a', { type: 'inc' });
    expect(world.context('counter/a')['n']).toBe(2);
    expect(world.host.load.actors).toBe(1);
    expect(world.data.checkpoints.get('counter/a')?.map(({ seq }) => seq)).toEqual([0, 1, 2]);
  });

  test('one whose effect runs stays', async () => {
    const outside = new Outside();
    const world = new World({ worker: workerMachine(outside) }, { passivateAfterMs: 1000 });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.send('worker/a', { type: 'start' });
    await world.advance(10_000);
    expect(world.host.load.actors).toBe(1);
    outside.last('work').finish('done');
    await world.advance(10_000);
    expect(world.context('worker/a')['log']).toEqual(['done']);
    expect(world.host.load.actors).toBe(0);
    expect(outside.started).toHaveLength(1);
  });

  test('addresses at which there is nobody leave nothing behind', async () => {
    const world = await newWorld();
    for (let i = 0; i < 500; i++) void world.host.send(`counter/${i}`, { type: 'inc' });
    await world.settle();
    expect(world.host.load.actors).toBe(0);
    expect(world.data.deadLetters).toHaveLength(500);
  });
});

describe('an actor whose stored state does not fit', () => {
  const before = createMachine({
    id: 'm',
    initial: 'a',
    context: () => ({ n: 1 }),
    states: { a: { on: { go: 'old' } }, old: {} },
  });
  const renamed = createMachine({
    id: 'm',
    initial: 'a',
    context: () => ({ n: 1 }),
    states: { a: {}, young: { on: { look: 'a' } } },
  });

  async function stored(version = 1): Promise<World> {
    const world = new World({ m: { machine: before, version }, counter: counterMachine });
    await world.open();
    await world.create(['m/1', 'm'], ['counter/a', 'counter']);
    await world.send('m/1', { type: 'go' });
    return world;
  }
  const row = (world: World) => world.data.actors.get('m/1');

  test('is quarantined with the reason, the rest goes on, and its messages wait', async () => {
    const world = await stored();
    await world.reopen({ machines: { m: renamed, counter: counterMachine } });
    await world.send('m/1', { type: 'look' });
    await world.send('counter/a', { type: 'inc' });
    expect(row(world)).toMatchObject({ status: 'quarantined' });
    expect(row(world)?.reason).toContain(
      'The stored state "old" of m/1 does not fit the machine "m"',
    );
    expect(world.facts('quarantined')).toEqual([{ address: 'm/1', reason: row(world)?.reason }]);
    expect(world.context('counter/a')['n']).toBe(1);
    expect(world.data.messages.size).toBe(1);
    expect(world.state('m/1').value).toBe('old');
    // With a machine that knows the state it goes on, messages and all.
    const chain = migrations<{ n: number }>()
      .to<{ n: number; migrated: number }>(({ context, ...state }) => ({
        ...state,
        value: 'teen',
        context: { ...context, migrated: 1 },
      }))
      .to<{ n: number; migrated: number }>(({ context, ...state }) => ({
        ...state,
        value: 'young',
        context: { ...context, migrated: context.migrated + 1 },
      }));
    await world.reopen({ machines: { m: { machine: renamed, migrations: chain } } });
    expect(row(world)).toMatchObject({ status: 'active', reason: null, version: 3 });
    expect(world.state('m/1')).toMatchObject({ value: 'a', context: { n: 1, migrated: 2 } });
    expect(world.data.messages.size).toBe(0);
  });

  test.each([
    {
      name: 'an older version without a migration',
      was: 1,
      now: { machine: before, version: 2 },
      says: 'm/1 was stored by version 1 of machine "m", and version 2 has no migrations.',
    },
    {
      name: 'an older version than the migrations know',
      was: 1,
      now: { machine: before, migrations: migrations(2).to((state) => state) },
      says: 'm/1 was stored by version 1 of machine "m", and version 3 migrates from 2 on.',
    },
    {
      name: 'a newer version',
      was: 3,
      now: { machine: before, version: 2 },
      says: 'm/1 was stored by version 3 of machine "m"; this is version 2.',
    },
    {
      name: 'a migration that throws',
      was: 1,
      now: {
        machine: before,
        migrations: migrations().to(() => {
          throw new Error('cannot');
        }),
      },
      says: 'cannot',
    },
    {
      name: 'a migration that returns nonsense',
      was: 1,
      now: {
        machine: before,
        migrations: migrations().to(() => ({ status: 'asleep' }) as never),
      },
      says: 'The stored state of m/1, after the migration from version 1 to 2, is malformed at "status"',
    },
    {
      name: 'a migration into a state that does not exist',
      was: 1,
      now: {
        machine: before,
        migrations: migrations().to(() => ({ status: 'active', value: 'nowhere', context: {} })),
      },
      says: 'does not fit the machine',
    },
  ])('$name', async ({ was, now, says }) => {
    const world = await stored(was);
    await world.reopen({ machines: { m: now, counter: counterMachine } });
    await world.send('m/1', { type: 'look' });
    expect(row(world)).toMatchObject({ status: 'quarantined', version: was });
    expect(row(world)?.reason).toContain(says);
    await world.send('counter/a', { type: 'inc' });
    expect(world.context('counter/a')['n']).toBe(1);
  });

  test.each([
    { name: 'half a text', json: '{"status":"act', says: 'JSON' },
    {
      name: 'a foreign key',
      json: '{"status":"active","value":"a","context":{"__proto__":{"admin":true}}}',
      says: 'snapshot.context.__proto__ is the key __proto__',
    },
    {
      name: 'stopped',
      json: '{"status":"stopped","value":"a","context":{}}',
      says: 'malformed at "status"',
    },
    { name: 'no context', json: '{"status":"active","value":"a"}', says: 'malformed at "context"' },
    { name: 'a list', json: '[]', says: 'malformed' },
  ])('$name in the store', async ({ json, says }) => {
    const world = await stored();
    const checkpoints = world.data.checkpoints.get('m/1') ?? [];
    const last = checkpoints.pop();
    if (last !== undefined) checkpoints.push({ ...last, snapshotJson: json });
    await world.reopen();
    await world.send('m/1', { type: 'look' });
    expect(row(world)).toMatchObject({ status: 'quarantined' });
    expect(row(world)?.reason).toContain(says);
    expect(({} as { admin?: boolean }).admin).toBeUndefined();
  });

  test('what a migration has taken away is not started again', async () => {
    const outside = new Outside();
    const world = new World({ worker: workerMachine(outside) });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.send('worker/a', { type: 'start' });
    const idle = createMachine({ id: 'worker', initial: 'idle', states: { idle: {} } });
    const toIdle = migrations().to(() => ({ status: 'active', value: 'idle', context: {} }));
    await world.reopen({ machines: { worker: { machine: idle, migrations: toIdle } } });
    expect(row(world)).toBeUndefined();
    expect(world.data.actors.get('worker/a')?.status).toBe('active');
    expect([...(world.data.effects.get('worker/a')?.keys() ?? [])]).toEqual([]);
    expect(outside.started).toHaveLength(1);
  });

  test('what a migration has given another name is started under that name', async () => {
    const outside = new Outside();
    const world = new World({ worker: workerMachine(outside) });
    await world.open();
    await world.create(['worker/a', 'worker']);
    await world.send('worker/a', { type: 'start' });
    const renaming = setup({
      actors: { labour: outside.effect('labour') } as Record<string, ReturnType<Outside['effect']>>,
    }).createMachine({
      id: 'worker',
      initial: 'idle',
      states: { idle: {}, working: { invoke: { src: 'labour', id: 'w', onDone: 'idle' } } },
    });
    await world.reopen({
      machines: {
        worker: {
          machine: renaming,
          migrations: migrations().to((state) => ({ ...state, children: { w: 'labour' } })),
        },
      },
    });
    expect(outside.last('labour').context.attempt).toBe(2);
    outside.last('labour').finish(null);
    await world.settle();
    expect(world.state('worker/a').value).toBe('idle');
  });
});

describe('an actor whose machine is not registered yet', () => {
  test('waits, with its messages and effects, and goes on when it is', async () => {
    const outside = new Outside();
    const worker = workerMachine(outside);
    const world = new World({ worker, counter: counterMachine });
    await world.open();
    await world.create(['worker/a', 'worker'], ['counter/a', 'counter']);
    await world.send('worker/a', { type: 'start' });
    const host = await world.reopen({ machines: { counter: counterMachine } });
    await world.send('worker/a', { type: 'leave' });
    await world.send('counter/a', { type: 'inc' });
    expect(world.context('counter/a')['n']).toBe(1);
    expect(outside.started).toHaveLength(1);
    expect(world.data.actors.get('worker/a')?.status).toBe('active');
    const asked = world.ask('worker/a', { type: 'leave' }, { timeoutMs: 100 });
    host.register('worker', worker);
    await world.settle();
    expect(world.state('worker/a').value).toBe('idle');
    await world.advance(100);
    await expect(asked).rejects.toThrow('No answer');
    // It was started again, and then aborted by the message that had waited.
    expect(outside.started.map(({ aborted }) => aborted)).toEqual([false]);
  });
});

describe('registering', () => {
  test.each([
    { name: 'counter', options: {}, says: 'A machine named "counter" is registered already.' },
    {
      name: 'x',
      options: { version: 0 },
      says: 'Expected the version of machine "x" to be a positive integer, got 0.',
    },
    { name: 'x', options: { version: 1.5 }, says: 'got 1.5' },
    {
      name: 'x',
      options: { mailboxLimit: 0 },
      says: 'Expected the mailboxLimit of machine "x" to be a positive integer, got 0.',
    },
  ])('$says', async ({ name, options, says }) => {
    const world = await newWorld();
    expect(() => world.host.register(name, counterMachine, options)).toThrow(says);
    expect(world.host.isRegistered('x')).toBe(false);
    expect(world.host.isRegistered('counter')).toBe(true);
  });
});

describe('projections', () => {
  const row = (run: string, state: string) => ({
    table: 'runs' as const,
    row: {
      run,
      title: '',
      state,
      total: 0,
      createdAt: 0,
      updatedAt: 0,
      endedAt: null,
      detailsJson: '{}',
    },
  });

  test('are written with the state they derive from; rows of every turn count, the last of a key wins', async () => {
    const world = new World({
      counter: {
        machine: counterMachine,
        project: ({ address, context, status, at }) => {
          expect(status).toBe('active');
          expect(at).toBe(world.clock.now());
          return [row(address, `n is ${context['n']}`), row(`${address} at ${context['n']}`, 'x')];
        },
      },
    });
    await world.open();
    await world.create(['counter/a', 'counter']);
    // Two turns in one commit.
    void world.host.send('counter/a', { type: 'inc' });
    void world.host.send('counter/a', { type: 'inc' });
    await world.settle();
    expect(Array.from(world.data.runs.values(), ({ run, state }) => [run, state])).toEqual([
      ['counter/a', 'n is 2'],
      ['counter/a at 0', 'x'],
      ['counter/a at 1', 'x'],
      ['counter/a at 2', 'x'],
    ]);
  });

  test('one that throws fails the turn, not the host', async () => {
    const world = new World({
      counter: {
        machine: counterMachine,
        project: ({ context }) => {
          if (context['n'] === 1) throw new Error('no row for 1');
          return [];
        },
      },
    });
    await world.open();
    await world.create(['counter/a', 'counter']);
    await world.send('counter/a', { type: 'inc' });
    expect(world.context('counter/a')['n']).toBe(0);
    expect(world.data.deadLetters).toMatchObject([{ reason: 'no row for 1' }]);
    await world.send('counter/a', { type: 'note', what: 'alive' });
    expect(world.context('counter/a')['seen']).toEqual(['alive']);
  });

  test.each([
    { project: 'tells of it', rows: [['counter/a', 'done at 1']] },
    { project: 'throws', rows: [['counter/a', 'active at 1']] },
  ])('of one that is ended: $project', async ({ project, rows }) => {
    const world = new World({
      counter: {
        machine: counterMachine,
        project: ({ address, context, status }) => {
          if (status !== 'active' && project === 'throws') throw new Error('no row for that');
          return [row(address, `${status} at ${context['n']}`)];
        },
      },
    });
    await world.open();
    await world.create(['counter/a', 'counter']);
    await world.send('counter/a', { type: 'inc' });
    await world.wait(world.host.stopActor('counter/a', 'brutal', 'Enough.'));
    expect(world.data.actors.get('counter/a')?.status).toBe('done');
    expect(Array.from(world.data.runs.values(), ({ run, state }) => [run, state])).toEqual(rows);
    await world.create(['counter/b', 'counter']);
  });
});
