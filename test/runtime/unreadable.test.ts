import { expect, test } from 'vitest';
import { createMachine } from 'xstate';
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
