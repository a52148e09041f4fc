import { describe, expect, test } from 'vitest';
import { type AnyStateMachine, assign, setup } from 'xstate';
import type { ChildOptions, SuperviseOptions } from '../../src/actors/supervisor.ts';
import type { Address } from '../../src/protocol/address.ts';
import type { Validate } from '../../src/runtime/validation.ts';
import { puppetMachine } from './machines.ts';
import { machinesOf, SupervisedWorld } from './supervised-world.ts';
import { Outside, World } from './world.ts';

const child = (name: string, more: Partial<ChildOptions> = {}): ChildOptions => ({
  id: `worker/${name}`,
  machine: 'worker',
  backoff: null,
  ...more,
});
const fail = { type: 'fail' };

async function worldWith(options: SuperviseOptions) {
  const outside = new Outside();
  const world = new SupervisedWorld(outside);
  await world.open();
  await world.supervise('s', options);
  return { world, outside };
}
const to = (name: string): Address => `worker/${name}`;

describe('a new life', () => {
  test('begins in one commit from the input; nothing of the one before is left but its history', async () => {
    const { world } = await worldWith({ children: [child('a', { input: { who: 'ada' } })] });
    await world.create(['wall/1', 'wall']);
    expect(world.line('s')).toBe('a running 1');
    await world.send(to('a'), { type: 'inc' });
    await world.send(to('a'), { type: 'wait' });
    await world.send(to('a'), { type: 'ask' });
    expect(world.pending(to('a'))).toEqual({ timers: 2, effects: 0 });
    await world.send(to('a'), fail);
    expect(world.line('s')).toBe('a running 2');
    expect(world.state(to('a'))).toMatchObject({
      value: 'idle',
      status: 'active',
      context: { n: 0, timeouts: 0, input: { who: 'ada' } },
    });
    expect(world.pending(to('a'))).toEqual({ timers: 0, effects: 0 });
    expect(world.lives(to('a'))).toEqual([1, 2]);
    expect(world.data.checkpoints.get(to('a'))?.map(({ kind }) => kind)).toEqual([
      ...['auto', 'auto', 'auto', 'auto', 'error', 'auto'],
    ]);
    await world.advance(120_000);
    expect(world.context(to('a'))).toMatchObject({ rang: 0, timeouts: 0 });
  });

  test.each([
    { messages: 'keep', n: 2 },
    { messages: 'drop', n: 0 },
  ] as const)('messages that wait: $messages', async ({ messages, n }) => {
    const { world } = await worldWith({
      children: [child('a', { messages, backoff: { initialMs: 1_000, jitter: 0 } })],
    });
    await world.send(to('a'), fail);
    expect(world.line('s')).toBe('a delayed 1');
    await world.send(to('a'), { type: 'inc' });
    await world.reopen();
    await world.send(to('a'), { type: 'inc' });
    expect(world.context(to('a'))['n']).toBe(0);
    await world.advance(1_000);
    expect(world.line('s')).toBe('a running 2');
    expect(world.context(to('a'))['n']).toBe(n);
    expect(world.data.deadLetters.length).toBe(2 - n);
  });

  test('drops also what waits in line for a full mailbox, and lets in who waits outside', async () => {
    const { world, outside } = await worldWith({
      children: [child('a', { messages: 'drop', backoff: { initialMs: 1_000, jitter: 0 } })],
    });
    const worker = machinesOf(outside)['worker'] as AnyStateMachine;
    const machines = {
      ...machinesOf(outside),
      worker: { machine: worker, mailboxLimit: 1, overflow: 'wait' as const },
      puppet: puppetMachine,
    };
    await world.reopen({ machines });
    await world.create(['puppet/p', 'puppet']);
    await world.send(to('a'), fail);
    await world.send(to('a'), { type: 'inc' });
    await world.send('puppet/p', { type: 'send', to: to('a'), message: { type: 'inc' } });
    const outsider = world.host.send(to('a'), { type: 'inc' });
    await world.advance(1_000);
    await world.wait(outsider);
    expect(world.line('s')).toBe('a running 2');
    expect(world.context(to('a'))['n']).toBe(1);
    expect(world.data.deadLetters.length).toBe(2);
    expect(world.data.messages.size).toBe(0);
  });

  test('of one whose work is under way aborts it; its end is nobody’s', async () => {
    const { world, outside } = await worldWith({ children: [child('a', { onFault: 'restart' })] });
    await world.send(to('a'), { type: 'work' });
    await world.send(to('a'), { type: 'throw' });
    expect(world.line('s')).toBe('a running 2');
    expect(outside.last('work').aborted).toBe(true);
    expect(world.pending(to('a'))).toEqual({ timers: 0, effects: 0 });
    expect(world.state(to('a')).value).toBe('idle');
  });
});

describe('an end', () => {
  const asked = (manner: string, shutdown: ChildOptions['shutdown'] = { timeoutMs: 5_000 }) =>
    child('a', { input: { manner }, shutdown });

  test.each([
    { manner: 'polite', shutdown: undefined, afterMs: 0, how: 'stopped', state: 'finished' },
    { manner: 'deaf', shutdown: undefined, afterMs: 0, how: 'stopped', state: 'idle' },
    { manner: 'slow', shutdown: undefined, afterMs: 5_000, how: 'killed', state: 'leaving' },
    { manner: 'polite', shutdown: 'brutal', afterMs: 0, how: 'killed', state: 'idle' },
  ] as const)('of a $manner one, $shutdown: $how after $afterMs ms', async (expected) => {
    const { manner, shutdown, afterMs, how, state } = expected;
    const { world } = await worldWith({ children: [asked(manner, shutdown)] });
    await world.send('supervisor/s', { type: 'supervisor.stopChild', id: to('a') });
    if (afterMs > 0) {
      await world.advance(afterMs - 1);
      expect(world.line('s')).toBe('a stopping 1');
      await world.advance(1);
    }
    expect(world.line('s')).toBe('a stopped 1');
    expect(world.children('s')[0]?.lastExit?.how).toBe(how);
    expect(world.state(to('a'))).toMatchObject({ value: state, status: 'done' });
    // It is let go of: whatever is sent there is refused.
    await expect(world.request(to('a'), { type: 'count' })).rejects.toThrow(/has ended/);
    await world.reopen();
    await expect(world.request(to('a'), { type: 'count' })).rejects.toThrow(/has ended/);
  });

  test('whose time is over while nobody is there gets it once more, and only once', async () => {
    const { world } = await worldWith({ children: [asked('slow')] });
    await world.send('supervisor/s', { type: 'supervisor.stopChild', id: to('a') });
    for (const line of ['a stopping 1', 'a stopped 1']) {
      world.crash();
      world.clock.jump(world.clock.now() + 3_600_000);
      await world.open();
      await world.advance(10);
      expect(world.line('s')).toBe(line);
    }
  });

  test('in infinity waits', async () => {
    const { world } = await worldWith({ children: [asked('slow', 'infinity')] });
    await world.send('supervisor/s', { type: 'supervisor.stopChild', id: to('a') });
    await world.advance(3_600_000);
    expect(world.line('s')).toBe('a stopping 1');
    await world.send(to('a'), { type: 'finish' });
    expect(world.line('s')).toBe('a stopped 1');
  });

  test('by hand: asked, told how it has ended, and told so again later', async () => {
    const { world } = await worldWith({ children: [] });
    await world.create([to('x'), 'worker', { manner: 'slow' }], [to('y'), 'worker']);
    const shutdown = { timeoutMs: 1_000 };
    const ending = world.host.stopActor(to('x'), shutdown, 'Enough.');
    const again = world.host.stopActor(to('x'), shutdown, 'Enough.');
    await world.advance(1_000);
    const killed = { how: 'killed', reason: 'Enough. It had not stopped after 1000 ms.' };
    await expect(ending).resolves.toEqual(killed);
    await expect(again).resolves.toEqual(killed);
    await expect(world.wait(world.host.stopActor(to('x'), shutdown, 'More.'))).resolves.toEqual({
      ...killed,
      how: 'done',
    });
    await expect(world.wait(world.host.stopActor(to('y'), shutdown, 'Enough.'))).resolves.toEqual({
      how: 'done',
      reason: null,
    });
    await expect(world.wait(world.host.stopActor(to('z'), shutdown, ''))).rejects.toThrow(
      'There is no actor at worker/z.',
    );
  });

  test('that a stopped host does not come to is the next one’s; nobody waits for ever', async () => {
    const { world } = await worldWith({ children: [] });
    await world.create([to('x'), 'worker', { manner: 'slow' }]);
    const ending = world.host.stopActor(to('x'), { timeoutMs: 1_000 }, 'Enough.');
    ending.catch(() => undefined);
    await world.settle();
    await world.stop();
    await expect(ending).rejects.toThrow('The runtime has stopped.');
    await world.open();
    await world.advance(1_000);
    expect(world.state(to('x')).status).toBe('done');
  });

  test('of a tree: children in reverse, each in its time, the deepest first', async () => {
    const { world } = await worldWith({
      children: [
        child('a'),
        { id: 't', children: [child('b', { input: { manner: 'slow' } }), child('c')] },
        child('d'),
      ],
    });
    expect(world.line('s')).toBe('a running 1, t running 1, d running 1');
    expect(world.line('t')).toBe('b running 1, c running 1');
    const ending = world.host.stopActor('supervisor/s', 'infinity', 'Enough.');
    await world.advance(5_000);
    await expect(ending).resolves.toEqual({ how: 'done', reason: null });
    const ended = world.facts('ended').map(({ address, how }) => `${address} ${how}`);
    expect(ended).toEqual([
      'worker/d done',
      'worker/c done',
      'worker/b killed',
      'supervisor/t done',
      'worker/a done',
      'supervisor/s done',
    ]);
    const how = world.children('s').map(({ id, lastExit }) => `${id} ${lastExit?.how}`);
    expect(how).toEqual(['worker/a stopped', 'supervisor/t stopped', 'worker/d stopped']);
    for (const name of ['a', 'b', 'c', 'd']) {
      await expect(world.request(to(name), { type: 'count' })).rejects.toThrow(/has ended/);
    }
  });
});

describe('a start', () => {
  test('that fails is a failure, keeps nobody else from theirs, and is tried again', async () => {
    const { world } = await worldWith({
      intensity: { restarts: 2, withinMs: 60_000 },
      children: [
        child('a', { input: { manner: 'stillborn' }, backoff: { initialMs: 1_000, jitter: 0 } }),
        child('b'),
      ],
    });
    expect(world.line('s')).toBe('a delayed 1, b running 1');
    expect(world.children('s')[0]).toMatchObject({ lastError: 'cannot be born', restarts: 1 });
    await world.advance(3_000);
    expect(world.state('supervisor/s').value).toBe('escalated');
    expect(world.state(to('b')).status).toBe('done');
  });

  test('that waits for its machine and is called off leaves the place to who was asked for meanwhile', async () => {
    const { world } = await worldWith({ children: [child('a', { machine: 'late' })] });
    await world.create(['puppet/p', 'puppet']);
    const first = { type: 'inc' };
    await world.send('puppet/p', { type: 'spawn', address: to('a'), machine: 'worker', first });
    expect(world.data.actors.has(to('a'))).toBe(false);
    await world.send('supervisor/s', { type: 'supervisor.stopChild', id: to('a') });
    expect(world.data.actors.get(to('a'))).toMatchObject({ status: 'active', parent: 'puppet/p' });
    expect(world.context(to('a'))['n']).toBe(1);
    expect(world.data.deadLetters).toEqual([]);
    expect(world.data.messages.size).toBe(0);
  });

  test('of a machine that is not registered is called off after its time; then it lives once', async () => {
    const outside = new Outside();
    const world = new SupervisedWorld(outside);
    const { worker, ...others } = machinesOf(outside);
    await world.open({ machines: others });
    await world.supervise('s', {
      intensity: { restarts: 9, withinMs: 60_000 },
      children: [child('a', { backoff: { initialMs: 5_000, jitter: 0 } })],
    });
    await world.advance(9_999);
    expect(world.line('s')).toBe('a starting 1');
    await world.advance(1);
    expect(world.line('s')).toBe('a delayed 1');
    expect(world.children('s')[0]?.lastError).toBe(
      'The child worker/a of supervisor supervisor/s did not start within 10000 ms. Is its machine "worker" registered?',
    );
    await world.advance(6_000);
    expect(world.line('s')).toBe('a starting 2');
    world.host.register('worker', worker as never);
    await world.settle();
    expect(world.line('s')).toBe('a running 2');
    expect(world.lives(to('a'))).toEqual([2]);
  });

  test('takes over an actor that lives already, as it is', async () => {
    const outside = new Outside();
    const world = new SupervisedWorld(outside);
    await world.open();
    await world.create([to('a'), 'worker']);
    await world.send(to('a'), { type: 'inc' });
    await world.supervise('s', { children: [child('a')] });
    expect(world.line('s')).toBe('a running 1');
    expect(world.context(to('a'))['n']).toBe(1);
    expect(world.data.actors.get(to('a'))?.parent).toBe('supervisor/s');
    // But not one that another supervisor keeps alive.
    await world.supervise('t', { intensity: { restarts: 0, withinMs: 1 }, children: [child('a')] });
    expect(world.children('t')[0]?.lastError).toBe(
      'worker/a has a supervisor already: supervisor/s. Delete it there, or choose another address.',
    );
    expect(world.state('supervisor/t').value).toBe('escalated');
    await world.supervise('u', { children: [] });
    const added = world.ask('supervisor/u', {
      type: 'supervisor.startChild',
      child: child('a') as never,
    });
    await expect(world.wait(added)).rejects.toThrow(/has a supervisor already: supervisor\/s/);
    expect(world.line('u')).toBe('');
    expect(world.context(to('a'))['n']).toBe(1);
    expect(world.line('s')).toBe('a running 1');
  });
});

describe('what counts as a failure', () => {
  test('a turn that throws is told, and keeps the state', async () => {
    const { world } = await worldWith({ children: [child('a')] });
    await world.send(to('a'), { type: 'inc' });
    await world.send(to('a'), { type: 'throw' });
    expect(world.line('s')).toBe('a running 1');
    expect(world.children('s')[0]).toMatchObject({ lastError: 'told to throw', restarts: 0 });
    expect(world.context(to('a'))['n']).toBe(1);
  });

  const unreadable = (world: SupervisedWorld): void => {
    const stored = world.data.checkpoints.get(to('a'))?.at(-1);
    if (stored === undefined) throw new Error('It was never stored.');
    const snapshotJson = stored.snapshotJson.replace('"idle"', '"gone"');
    world.data.checkpoints.get(to('a'))?.splice(-1, 1, { ...stored, snapshotJson });
  };

  test.each([
    { onQuarantine: 'keep', line: 'a quarantined 1', n: 7 },
    { onQuarantine: 'restart', line: 'a running 2', n: 0 },
  ] as const)('a state that cannot be read: $onQuarantine', async ({ onQuarantine, line, n }) => {
    const { world } = await worldWith({ children: [child('a', { onQuarantine })] });
    for (let i = 0; i < 7; i++) await world.send(to('a'), { type: 'inc' });
    world.crash();
    const readable = structuredClone(world.data.checkpoints.get(to('a')));
    unreadable(world);
    await world.open();
    await world.send(to('a'), { type: 'ignored' });
    expect(world.line('s')).toBe(line);
    expect(world.children('s')[0]?.lastError).toMatch(/State 'gone' does not exist/);
    expect(world.context(to('a'))['n']).toBe(n);
    if (onQuarantine === 'restart') return;
    // The version that could read it is back.
    world.crash();
    world.data.checkpoints.set(to('a'), readable ?? []);
    await world.open();
    await world.send(to('a'), { type: 'inc' });
    expect(world.line('s')).toBe('a running 1');
    expect(world.context(to('a'))['n']).toBe(8);
  });

  test('a supervisor that has given up: its own one restarts it, and with it its children', async () => {
    const { world } = await worldWith({
      children: [
        {
          id: 't',
          backoff: null,
          intensity: { restarts: 0, withinMs: 60_000 },
          children: [child('b'), child('c')],
        },
      ],
    });
    await world.send(to('c'), { type: 'inc' });
    await world.send(to('b'), fail);
    expect(world.line('s')).toBe('t running 2');
    expect(world.line('t')).toBe('b running 1, c running 1');
    expect([world.lives(to('b')), world.lives(to('c'))]).toEqual([
      [1, 1],
      [1, 1],
    ]);
    expect(world.context(to('c'))['n']).toBe(0);
    expect(world.children('s')[0]?.lastError).toMatch(/^The supervisor supervisor\/t has given up/);
  });
});

describe('whatever crashes', () => {
  const slow = { input: { manner: 'slow' }, shutdown: { timeoutMs: 1_000 } };

  // c stops until 1 000, then a until 2 000, then b waits no longer, and all start.
  test.each([
    { afterMs: 0, line: 'a running 1, b delayed 1, c stopping 1' },
    { afterMs: 999, line: 'a running 1, b delayed 1, c stopping 1' },
    { afterMs: 1_000, line: 'a stopping 1, b delayed 1, c waiting 1' },
    { afterMs: 1_999, line: 'a stopping 1, b delayed 1, c waiting 1' },
    { afterMs: 2_000, line: 'a waiting 1, b delayed 1, c waiting 1' },
    { afterMs: 2_500, line: 'a running 2, b running 2, c running 2' },
  ])('$afterMs ms into a restart of all: one new life of each', async ({ afterMs, line }) => {
    const { world } = await worldWith({
      strategy: 'oneForAll',
      children: [
        child('a', slow),
        child('b', { backoff: { initialMs: 2_500, jitter: 0 } }),
        child('c', slow),
      ],
    });
    await world.send(to('b'), fail);
    await world.advance(afterMs);
    expect(world.line('s')).toBe(line);
    for (let crash = 0; crash < 3; crash++) {
      await world.reopen();
      await world.send(to('b'), { type: 'inc' });
    }
    await world.advance(10_000);
    expect(world.line('s')).toBe('a running 2, b running 2, c running 2');
    for (const name of ['a', 'b', 'c']) expect(world.lives(to(name))).toEqual([1, 2]);
    expect(world.context('supervisor/s')['restarts']).toHaveLength(1);
    // What was sent to it while it was down was waiting for it.
    expect(world.context(to('b'))['n']).toBe(3);
  });

  test('before the next life of each is stored, it is as if it had not begun', async () => {
    for (let steps = 0; ; steps++) {
      const { world } = await worldWith({
        strategy: 'oneForAll',
        children: [child('a'), child('b')],
      });
      const sent = world.host.send(to('b'), fail);
      sent.catch(() => undefined);
      await world.run(steps);
      world.crash();
      const stored = [world.lives(to('a')), world.lives(to('b'))];
      expect(stored[0]).toEqual(stored[1]);
      await world.open();
      const [one] = world.children('s');
      expect(world.line('s')).toBe(`a running ${one?.lives}, b running ${one?.lives}`);
      expect(world.lives(to('a'))).toEqual(one?.lives === 1 ? [1] : [1, 2]);
      if (stored[0]?.length === 2) return;
    }
  });
});

test('who reads a stream of a quarantined actor hears of its end', async () => {
  const world = new World({ puppet: puppetMachine });
  await world.open();
  await world.create(['puppet/p', 'puppet']);
  const other = setup({}).createMachine({ initial: 'elsewhere', states: { elsewhere: {} } });
  await world.reopen({ machines: { puppet: other } });
  await world.send('puppet/p', { type: 'hello' });
  expect(world.facts('quarantined')).toHaveLength(1);
  const reading = world.host.streams.read('puppet/p').next();
  await world.settle();
  await world.wait(world.host.stopActor('puppet/p', 'brutal', 'It is of no use.'));
  expect(await world.wait(reading)).toEqual({ done: true, value: undefined });
});

test('a machine that refuses what it does not know is asked to stop all the same', async () => {
  const machine = setup({}).createMachine({
    initial: 'here',
    states: { here: { on: { 'actor.stop': 'gone' } }, gone: { type: 'final' } },
  });
  const validate: Validate = ({ type }) => (type === 'hello' ? undefined : `What is ${type}?`);
  const world = new World({ picky: { machine, validate } });
  await world.open();
  await world.create(['picky/p', 'picky']);
  const stopped = world.host.stopActor('picky/p', 'infinity', 'Enough.');
  expect(await world.wait(stopped)).toEqual({ how: 'done', reason: null });
  expect(world.host.counts.invalid).toBe(0);
});

test.each([
  { end: { type: 'finish' }, how: 'done' },
  { end: fail, how: 'failed' },
])(
  'one that is rolled back to its end ($how) is down until its supervisor has decided',
  async ({ end, how }) => {
    const { world } = await worldWith({
      intensity: { restarts: 9, withinMs: 60_000 },
      children: [child('a', { backoff: { initialMs: 1_000, factor: 1, jitter: 0 } })],
    });
    await world.send(to('a'), end);
    const ended = world.data.actors.get(to('a'))?.seq ?? -1;
    await world.advance(1_000);
    expect(world.line('s')).toBe('a running 2');
    await world.wait(world.host.timeTravel.rollback(to('a'), ended));
    expect(world.line('s')).toBe('a delayed 2');
    expect(world.facts('ended').at(-1)).toMatchObject({ address: to('a'), how });
    // Not refused, before a restart as after it.
    await world.send(to('a'), { type: 'inc' });
    await world.reopen();
    await world.send(to('a'), { type: 'inc' });
    await world.advance(1_000);
    expect(world.line('s')).toBe('a running 3');
    expect(world.context(to('a'))['n']).toBe(2);
    expect(world.host.counts.dropped.ended).toBe(0);
  },
);

test('one that is rolled back while it is to stop is asked once more', async () => {
  const machine = setup({}).createMachine({
    context: { asked: 0 },
    on: { 'actor.stop': { actions: assign({ asked: 1 }) } },
  });
  const world = new World({ slow: machine });
  await world.open();
  await world.create(['slow/s', 'slow']);
  const stopped = world.host.stopActor('slow/s', { timeoutMs: 1_000 }, 'Enough.');
  await world.settle();
  expect(world.context('slow/s')['asked']).toBe(1);
  await world.wait(world.host.timeTravel.rollback('slow/s', 0));
  expect(world.context('slow/s')['asked']).toBe(1);
  await world.advance(1_000);
  expect(await world.wait(stopped)).toMatchObject({ how: 'killed' });
  expect(world.host.events.listenerCount('ended')).toBe(1);
});
