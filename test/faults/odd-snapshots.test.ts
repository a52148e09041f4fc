import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { assign, createMachine } from 'xstate';
import { loadConfig } from '../../src/operator/config.ts';
import type { JsonObject, JsonValue } from '../../src/protocol/json.ts';
import { migrations } from '../../src/runtime/migrations.ts';
import { memoryDisk } from '../actors/open-troupe.ts';
import { World } from '../runtime/world.ts';

/** What a release before, a release to come, or a damaged disk may leave. */
interface Fixture {
  readonly machine: string;
  readonly version: number;
  readonly snapshot: JsonValue;
  readonly becomes: 'goes on' | 'quarantined' | 'waits';
  /** Why it does not go on. */
  readonly says?: string;
  /** After one message. */
  readonly context?: JsonObject;
}

const folder = new URL('./snapshots/', import.meta.url);
const fixtures = readdirSync(folder).map((file) => ({
  name: file.replace('.json', ''),
  fixture: JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Fixture,
}));

const counting = (id: string) =>
  createMachine({
    id,
    context: { n: 0 },
    initial: 'open',
    on: { add: { actions: assign({ n: ({ context }) => context['n'] + 1 }) } },
    states: { open: {}, closed: {} },
  });
const machines = {
  door: {
    machine: counting('door'),
    migrations: migrations<{ count: number }>().to<{ n: number }>((state) => ({
      ...state,
      context: { n: state.context.count },
    })),
  },
  wall: { machine: counting('wall'), version: 2 },
  other: counting('other'),
};

const polluted = (): unknown => (({}) as { admin?: unknown }).admin;
afterEach(() => {
  expect(polluted()).toBeUndefined();
});

describe('D05, D06: a stored state that', () => {
  test.each(fixtures)('is of "$name"', async ({ fixture }) => {
    const { machine, version, snapshot, becomes, says, context } = fixture;
    const world = new World(machines);
    await world.open();
    await world.create(['x/odd', 'other'], ['x/sound', 'other']);
    world.crash();
    const record = world.data.actors.get('x/odd');
    const [stored] = world.data.checkpoints.get('x/odd') ?? [];
    if (record === undefined || stored === undefined) throw new Error('It was not stored.');
    const snapshotJson = JSON.stringify(snapshot);
    world.data.actors.set('x/odd', { ...record, machine, version });
    world.data.checkpoints.set('x/odd', [{ ...stored, version, snapshotJson }]);
    await world.open();
    await world.send('x/odd', { type: 'add' });
    await world.send('x/sound', { type: 'add' });
    // The rest goes on.
    expect(world.context('x/sound')).toEqual({ n: 1 });
    if (becomes === 'goes on') {
      expect(world.context('x/odd')).toEqual(context);
      return;
    }
    // It is as it was, and so is what it was sent.
    expect(world.stored('x/odd')).toBe(snapshotJson);
    expect(world.data.messages.size).toBe(1);
    const status = becomes === 'waits' ? 'active' : 'quarantined';
    expect(world.data.actors.get('x/odd')?.status).toBe(status);
    if (becomes === 'quarantined') {
      expect(world.facts('quarantined')[0]?.reason).toContain(says);
      return;
    }
    world.host.register(machine, counting(machine), { version });
    await world.settle();
    expect(world.context('x/odd')).toEqual({ n: 4 });
  });
});

describe('D06: nothing becomes everybody’s prototype', () => {
  const own = JSON.parse('{ "__proto__": { "admin": true } }') as JsonValue;

  test('by a message, a field of one, or an input', async () => {
    const troupe = await memoryDisk().open();
    const machine = counting('door');
    await troupe.spawn(machine, {
      id: 'door/1',
      input: { constructor: { prototype: { admin: 1 } } },
    });
    const message = JSON.parse('{ "type": "add", "__proto__": { "admin": true } }') as never;
    for (const bad of [message, { type: 'add', more: [own] }]) {
      await expect(troupe.send('door/1', bad)).rejects.toThrow(/__proto__ is the key __proto__/);
    }
    await expect(troupe.spawn(machine, { id: 'door/2', input: own })).rejects.toThrow(
      'The input of door/2 must be plain JSON, but input.__proto__ is the key __proto__.',
    );
    await expect(
      troupe.supervise('s', { children: [{ id: 'door/3', machine, input: own }] }),
    ).rejects.toThrow(/input\.__proto__ is the key __proto__/);
    await troupe.send('door/1', {
      type: 'add',
      constructor: { prototype: { admin: true } },
    } as never);
    expect(polluted()).toBeUndefined();
  });

  test.each(['__proto__', 'constructor'])('by the key %s in troupe.yaml', async (key) => {
    const directory = mkdtempSync(path.join(tmpdir(), 'troupe-odd-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const file = path.join(directory, 'troupe.yaml');
    writeFileSync(file, `version: 1\n${key}:\n  admin: true\n  prototype: { admin: true }\n`);
    await expect(loadConfig(file)).rejects.toThrow(key);
    expect(polluted()).toBeUndefined();
  });
});
