import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import { PayloadTooLargeError } from '../../src/protocol/errors.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { replyTo } from '../../src/protocol/message.ts';
import { effect } from '../../src/runtime/effect.ts';
import { DEFAULT_MAX_SNAPSHOT_BYTES } from '../../src/runtime/payload-limit.ts';
import { Outside, World } from './world.ts';

const LIMIT = 20_000;
const outside = new Outside();

/** Keeps what it is sent; fetches something; does a step whose result is as long as it is told. */
const keeper = setup({
  types: {
    context: {} as { notes: string[]; cache: Record<string, string>; got: JsonValue },
    events: {} as
      | { type: 'note'; text: string }
      | { type: 'cache'; text: string }
      | { type: 'fetch' }
      | { type: 'step'; length: number },
  },
  actors: {
    fetch: outside.effect('fetch'),
    steps: effect<string, { length: number }>(async ({ step, input }) => {
      const text = await step('long', () => 'x'.repeat(input.length));
      return String(text.length);
    }),
  },
}).createMachine({
  id: 'keeper',
  context: { notes: [], cache: {}, got: null },
  initial: 'idle',
  states: {
    idle: {
      on: {
        note: {
          actions: assign({ notes: ({ context, event }) => [...context.notes, event.text] }),
        },
        cache: {
          actions: assign({ cache: ({ context, event }) => ({ ...context.cache, a: event.text }) }),
        },
        fetch: 'fetching',
        step: 'stepping',
      },
    },
    fetching: {
      invoke: {
        id: 'f',
        src: 'fetch',
        input: null,
        onDone: { target: 'idle', actions: assign({ got: ({ event }) => event.output }) },
        onError: {
          target: 'idle',
          actions: assign({ got: ({ event }) => (event.error as { message: string }).message }),
        },
      },
    },
    stepping: {
      invoke: {
        id: 's',
        src: 'steps',
        input: ({ event }) => ({ length: event.type === 'step' ? event.length : 0 }),
        onDone: { target: 'idle', actions: assign({ got: ({ event }) => event.output }) },
        onError: {
          target: 'idle',
          actions: assign({ got: ({ event }) => (event.error as { message: string }).message }),
        },
      },
    },
  },
});

async function world(): Promise<World> {
  const made = new World({ keeper }, { maxSnapshotBytes: LIMIT });
  await made.open();
  await made.create(['keeper/a', 'keeper']);
  return made;
}

describe('maxSnapshotBytes', () => {
  test('a turn whose snapshot would be longer fails, names what is large, and changes nothing', async () => {
    const w = await world();
    await w.send('keeper/a', { type: 'cache', text: 'c'.repeat(1_000) });
    for (let i = 0; i < 4; i++) await w.send('keeper/a', { type: 'note', text: 'n'.repeat(6_000) });
    expect((w.context('keeper/a')['notes'] as string[]).length).toBe(3);
    const [letter] = w.data.deadLetters;
    expect(letter?.reason).toMatch(
      /^The state of keeper\/a would take 2\d{4} bytes, and 20000 are allowed\. The largest parts: context\.notes \(240\d\d bytes\), context\.cache \(10\d\d bytes\), context\.got \(4 bytes\)\. Nothing changed\./,
    );
    // It goes on.
    await w.send('keeper/a', { type: 'cache', text: 'small' });
    expect(w.context('keeper/a')['cache']).toEqual({ a: 'small' });
  });

  test('bytes count, not characters', async () => {
    const w = await world();
    await w.send('keeper/a', { type: 'note', text: 'ü'.repeat(9_000) });
    await w.send('keeper/a', { type: 'cache', text: 'ü'.repeat(2_000) });
    expect(w.data.deadLetters).toHaveLength(1);
    await w.send('keeper/a', { type: 'cache', text: 'u'.repeat(1_500) });
    expect(w.data.deadLetters).toHaveLength(1);
  });

  test('an actor that would be born too large is not made', async () => {
    const w = new World(
      { big: setup({}).createMachine({ id: 'big', context: { deep: { er: 'x'.repeat(LIMIT) } } }) },
      { maxSnapshotBytes: LIMIT },
    );
    await w.open();
    const born = w.create(['big/a', 'big']);
    await expect(born).rejects.toBeInstanceOf(PayloadTooLargeError);
    await expect(born).rejects.toMatchObject({
      code: 'quota',
      context: { largest: [{ path: 'context.deep.er', bytes: LIMIT + 2 }] },
    });
  });

  test('at a quarter of the limit it is told once', async () => {
    const w = await world();
    for (let i = 0; i < 3; i++) await w.send('keeper/a', { type: 'note', text: 'n'.repeat(2_600) });
    expect(w.facts('grewLarge')).toMatchObject([{ address: 'keeper/a', limit: LIMIT }]);
  });

  test('a message from outside that is too long is refused', async () => {
    const w = await world();
    const message = { type: 'note', text: 'n'.repeat(LIMIT) };
    await expect(w.send('keeper/a', message)).rejects.toThrow(
      'The message "note" to keeper/a takes 20025 bytes, and 20000 are allowed. It was not stored.',
    );
    await expect(w.send('keeper/a', message)).rejects.toBeInstanceOf(PayloadTooLargeError);
    expect(w.data.deadLetters).toEqual([]);
  });

  test('an effect whose result is too long has failed', async () => {
    const w = await world();
    await w.send('keeper/a', { type: 'fetch' });
    outside.last('fetch').finish('x'.repeat(LIMIT));
    await w.settle();
    expect(w.state('keeper/a').value).toBe('idle');
    expect(w.context('keeper/a')['got']).toContain('The state of keeper/a would take');
    expect(w.data.deadLetters).toEqual([]);
  });

  test('so has one whose failure is', async () => {
    const w = await world();
    await w.send('keeper/a', { type: 'fetch' });
    outside.last('fetch').fail(new Error('x'.repeat(LIMIT)));
    await w.settle();
    expect(w.state('keeper/a').value).toBe('idle');
    expect(w.context('keeper/a')['got']).toContain('bytes, and 20000 are allowed');
    expect(w.data.deadLetters).toEqual([]);
  });

  test.each([LIMIT + 1, LIMIT - 100])(
    'a request whose answer is too long to be taken, or to be kept, has failed (%d)',
    async (length) => {
      const asker = setup({ actions: { ...durableActions } }).createMachine({
        context: () => ({ got: null }),
        on: {
          ask: {
            actions: {
              type: 'request',
              params: { to: anyAddress('teller/t'), message: { type: 'tell' }, timeoutMs: 1_000 },
            },
          },
          'tell:ok': { actions: assign({ got: ({ event }) => event['reply'] }) },
          'tell:err': { actions: assign({ got: ({ event }) => event['failure'].code }) },
        },
      });
      const teller = setup({ actions: { ...durableActions } }).createMachine({
        on: {
          tell: {
            actions: {
              type: 'reply',
              params: ({ event }) => ({
                to: replyTo(event['meta']),
                type: 'tell',
                reply: 'x'.repeat(length),
              }),
            },
          },
        },
      });
      const world = new World({ asker, teller }, { maxSnapshotBytes: LIMIT });
      await world.open();
      await world.create(['asker/a', 'asker'], ['teller/t', 'teller']);
      await world.send('asker/a', { type: 'ask' });
      await world.advance(1_000);
      expect(world.context('asker/a')['got']).toBe('quota');
      expect(world.data.deadLetters).toEqual([]);
    },
  );

  test('a step whose result is too long fails where it is made', async () => {
    const w = await world();
    await w.send('keeper/a', { type: 'step', length: LIMIT });
    expect(w.context('keeper/a')['got']).toContain(
      'The result of the step "long" of keeper/a takes',
    );
    await w.send('keeper/a', { type: 'step', length: 100 });
    expect(w.context('keeper/a')['got']).toBe('100');
  });

  test('an option out of range is refused', () => {
    const absurd = new World({}, { maxSnapshotBytes: 12 });
    expect(() => absurd.build()).toThrow('maxSnapshotBytes to be an integer from 1024, got 12');
    expect(DEFAULT_MAX_SNAPSHOT_BYTES).toBe(16_777_216);
  });
});
