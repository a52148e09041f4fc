import { describe, expect, test } from 'vitest';
import { createMachine } from 'xstate';
import { ConflictError, UnreadablePayloadError } from '../../src/protocol/errors.ts';
import type { MemoryData } from '../../src/store/memory/memory-data.ts';
import { aesGcmCodec } from '../../src/store/payload/aes-gcm-codec.ts';
import { PackedStore } from '../../src/store/payload/packed-store.ts';
import { World } from './world.ts';

const codecOf = (id: string) => aesGcmCodec({ keys: { [id]: Buffer.alloc(32, id) }, current: id });
const machine = createMachine({ id: 'm', initial: 'a', states: { a: { on: { go: 'b' } }, b: {} } });

test('an actor whose state cannot be decoded is quarantined, the rest goes on, and with its key it goes on too', async () => {
  const withKey = (id: string) => ({
    wrap: (store: ConstructorParameters<typeof PackedStore>[0]) =>
      new PackedStore(store, { codec: codecOf(id) }),
  });
  const world = new World({ m: machine }, withKey('old'));
  await world.open();
  await world.create(['m/1', 'm']);
  await world.reopen(withKey('new'));
  await world.create(['m/2', 'm']);
  await world.send('m/1', { type: 'go' });
  await world.send('m/2', { type: 'go' });
  expect(world.data.actors.get('m/1')).toMatchObject({ status: 'quarantined' });
  expect(world.facts('quarantined')[0]?.reason).toMatch(
    /^The checkpoint 0 of m\/1 cannot be read: it is encrypted under the key "old", and there is no such key/,
  );
  await expect(world.wait(world.host.inspect('m/1'))).rejects.toThrow('under the key "old"');
  expect((await world.wait(world.host.inspect('m/2')))?.snapshot.value).toBe('b');
  // The message still waits, under the new key.
  const both = aesGcmCodec({
    keys: { old: Buffer.alloc(32, 'old'), new: Buffer.alloc(32, 'new') },
    current: 'new',
  });
  await world.reopen({ wrap: (store) => new PackedStore(store, { codec: both }) });
  await world.settle();
  expect((await world.wait(world.host.inspect('m/1')))?.snapshot.value).toBe('b');
  expect(world.data.actors.get('m/1')).toMatchObject({ status: 'active', reason: null });
});

describe('nothing begins while something that waits cannot be read', () => {
  const message = (messageJson: string) => (data: MemoryData) =>
    data.messages.set('x#1', {
      id: 'x#1',
      from: 'app/client',
      to: 'm/1',
      priority: 2,
      sentAt: 0,
      messageJson,
      correlation: null,
      attempt: null,
      reply: false,
    });
  const timer = (actionJson: string) => (data: MemoryData) =>
    data.timers.set(
      'm/1',
      new Map([['t', { address: 'm/1', id: 't', generation: 'g', dueAt: 0, actionJson }]]),
    );
  const effect = (inputJson: string) => (data: MemoryData) =>
    data.effects.set(
      'm/1',
      new Map([
        [
          'e',
          {
            ...{ address: 'm/1', id: 'e', generation: 'g', src: 's' },
            ...{ inputJson, attempt: 1, startedAt: 0 },
          },
        ],
      ]),
    );

  test.each([
    {
      row: 'message x#1 to m/1 (table messages)',
      damage: message('{"type":"se'),
      why: 'its 11 characters are no JSON',
    },
    { row: 'message x#1 to m/1 (table messages)', damage: message('null'), why: 'no "type" in it' },
    {
      row: 'timer "t" of m/1 (table timers)',
      damage: timer('secret'),
      why: 'its 6 characters are no JSON',
    },
    { row: 'timer "t" of m/1 (table timers)', damage: timer('[]'), why: 'no "do" in it' },
    {
      row: 'effect "e" of m/1 (table effects)',
      damage: effect(''),
      why: 'its 0 characters are no JSON',
    },
  ])('$row: $why', async ({ row, damage, why }) => {
    const world = new World({ m: machine });
    await world.open();
    await world.create(['m/1', 'm']);
    await world.stop();
    damage(world.data);
    const host = world.build();
    const refused = await host.open().catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(UnreadablePayloadError);
    const { message: text } = refused as Error;
    expect(text).toContain(`The ${row} cannot be read: `);
    expect(text).toContain(why);
    expect(text).toContain('restore a backup, or delete this row');
    expect(text).not.toMatch(/secret|"se/);
    await expect(host.send('m/1', { type: 'go' })).rejects.toThrow(ConflictError);
    expect(host.load).toMatchObject({ actors: 0, timers: 0, effects: 0 });
    // Without the row it is as if nothing had been: the same host may try again.
    for (const rows of [world.data.messages, world.data.timers, world.data.effects]) rows.clear();
    await host.open();
    await world.send('m/1', { type: 'go' });
    expect(world.state('m/1').value).toBe('b');
  });
});
