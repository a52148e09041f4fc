import { describe, expect, test } from 'vitest';
import { assign, fromPromise, setup } from 'xstate';
import type { SuperviseOptions } from '../../src/actors/supervisor.ts';
import type { Address } from '../../src/protocol/address.ts';
import { durableActions } from '../../src/protocol/commands.ts';
import { replyTo } from '../../src/protocol/message.ts';
import type { Troupe } from '../../src/troupe.ts';
import { memoryDisk, reaches, sqliteDisk } from './open-troupe.ts';

const machine = (id: string) =>
  setup({
    actors: { breaks: fromPromise<null, null>(() => Promise.reject(new Error('it broke'))) },
    actions: durableActions,
  }).createMachine({
    id,
    context: { n: 0 },
    initial: 'idle',
    on: {
      add: { actions: assign({ n: ({ context }) => context['n'] + 1 }) },
      count: {
        actions: {
          type: 'reply',
          params: ({ context, event }) => ({
            to: replyTo(event['meta']),
            type: 'count',
            reply: context['n'],
          }),
        },
      },
    },
    states: {
      idle: { on: { break: 'breaking' } },
      breaking: { invoke: { src: 'breaks', id: 'breaks', input: null } },
    },
  });
const child = (id: Address, more: object = {}) => ({
  id,
  machine: machine('part'),
  backoff: null,
  ...more,
});
const none = { restarts: 0, withinMs: 60_000 };

/** Resolves when the supervisor has turned out so. */
function until(troupe: Troupe, id: string, line: string): Promise<void> {
  const supervisor = troupe.supervisor(id);
  return new Promise((resolve, reject) => {
    const look = (): void => {
      supervisor.status().then(({ state, children }) => {
        const now = [state, ...children.map((one) => `${one.state} ${one.lives}`)].join(', ');
        if (now !== line) return;
        off();
        resolve();
      }, reject);
    };
    const off = troupe.on('turn', ({ address }) => {
      if (address === supervisor.address) look();
    });
    look();
  });
}

test('children live on in the next process; none is started twice, and changes are taken over', async () => {
  const disk = sqliteDisk();
  const options: SuperviseOptions = { children: [child('part/a'), child('part/b')] };
  const first = await disk.open();
  await first.supervise('s', options);
  await until(first, 's', 'running, running 1, running 1');
  await first.send('part/a', { type: 'add' });
  expect(await first.request('part/a', { type: 'count' })).toBe(1);
  await first.stop();

  const second = await disk.open();
  await second.supervise('s', options);
  await second.supervise('s', options);
  expect(await second.request('part/a', { type: 'count' })).toBe(1);
  await until(second, 's', 'running, running 1, running 1');
  await second.supervise('s', { children: [child('part/a'), child('part/c')] });
  await until(second, 's', 'running, running 1, running 1, stopped 1');
  const tree = second.supervisor('s');
  expect((await tree.children()).map(({ id, state }) => `${id} ${state}`)).toEqual([
    ...['part/a running', 'part/c running', 'part/b stopped'],
  ]);
  expect(await tree.count()).toEqual({ specs: 3, active: 2, supervisors: 0, workers: 3 });
  expect(await tree.deleteChild('part/b')).toMatchObject({ state: 'stopped' });
  expect(await tree.startChild(child('part/d'))).toMatchObject({ state: 'running', lives: 1 });
  expect(await tree.restartChild('part/d')).toMatchObject({ state: 'running', lives: 2 });
  await expect(tree.startChild(child('part/d'))).rejects.toThrow(
    'supervisor/s has a child part/d already.',
  );
  await expect(tree.stopChild('part/x')).rejects.toThrow(
    'supervisor/s has no child part/x. It has: part/a, part/c, part/d.',
  );
  await expect(tree.decide('stop')).rejects.toThrow(/has not given up/);
  await expect(second.stopActor('part/a')).rejects.toThrow(
    'part/a is a child of supervisor/s. Stop it there: troupe.supervisor(id).stopChild("part/a").',
  );
  expect(await tree.stop()).toEqual({ how: 'done', reason: null });
  expect((await tree.status()).state).toBe('stopped');
});

test('the policy decides about one that has given up; what it leaves, a person does', async () => {
  const troupe = await memoryDisk().open();
  const asked: string[] = [];
  troupe.overseeSupervisors(({ supervisor, reason, restarted }) => {
    asked.push(`${supervisor} ${restarted}: ${reason}`);
    return restarted === 0 ? 'restart' : undefined;
  });
  const tree = await troupe.supervise('s', { intensity: none, children: [child('part/a')] });
  await until(troupe, 's', 'running, running 1');
  await troupe.send('part/a', { type: 'break' });
  await until(troupe, 's', 'running, running 2');
  await troupe.send('part/a', { type: 'break' });
  await until(troupe, 's', 'escalated, waiting 2');
  await reaches(troupe, 'overseer/main', 'watching');
  const escalated = (await troupe.supervisors()).filter(({ state }) => state === 'escalated');
  expect(escalated.map(({ address, failure }) => `${address}: ${failure?.code}`)).toEqual([
    'supervisor/s: unhandled',
  ]);
  await tree.decide('restart', 'ada');
  await until(troupe, 's', 'running, running 3');
  expect(asked).toEqual([
    expect.stringMatching(/^supervisor\/s 0: .*The last to fail was part\/a: it broke$/),
    expect.stringMatching(/^supervisor\/s 1: /),
  ]);
});

describe('a tree that cannot work is refused in words, and nothing of it is made', () => {
  const two = [child('part/a'), child('part/a')];
  test.each([
    {
      what: 'address twice',
      options: { children: two },
      says: 'Two children of the supervisor "s" have the address part/a.',
    },
    {
      what: 'strategy',
      options: { strategy: 'all', children: [] },
      says: /^The supervisor "s" cannot work: strategy: .*oneForAll/,
    },
    {
      what: 'address',
      options: { children: [child('Part' as never)] },
      says: /^Children\[0\] of the supervisor "s" cannot work: id: expected an address such as "inbox\/ada"/,
    },
    {
      what: 'key',
      options: { children: [child('part/a', { restrat: 'never' })] },
      says: /Unrecognized key: "restrat"/,
    },
    {
      what: 'role',
      options: { children: [child('agent/a')] },
      says: /^The address agent\/a of children\[0\] of the supervisor "s" is of a kind that is Troupe's own/,
    },
    {
      what: 'schedule',
      options: { children: [child('schedule/nightly')] },
      says: /^The address schedule\/nightly of children\[0\] of the supervisor "s" is of a kind that is Troupe's own/,
    },
    {
      what: 'input',
      options: { children: [child('part/a', { input: { when: new Date(0) } })] },
      says: 'The input of children[0] of the supervisor "s" must be plain JSON, but input.when is a Date.',
    },
    {
      what: 'machine',
      options: { children: [{ id: 'part/a' }] },
      says: 'Expected children[0] of the supervisor "s" to have a machine made by setup(), or the id of one that is registered, got undefined.',
    },
    {
      what: 'child',
      options: { children: [null] },
      says: 'Expected children[0] of the supervisor "s" to be { id, machine } or { id, children }, got null.',
    },
    {
      what: 'brutal subtree',
      options: { children: [{ id: 't', shutdown: 'brutal', children: [] }] },
      says: /^The supervisor "t" cannot be stopped brutally/,
    },
  ])('$what', async ({ options, says }) => {
    const troupe = await memoryDisk().open();
    await expect(troupe.supervise('s', options as never)).rejects.toThrow(says);
    expect(await troupe.supervisors()).toEqual([]);
    await expect(troupe.supervisor('s').status()).rejects.toThrow('There is no supervisor "s".');
  });
});
