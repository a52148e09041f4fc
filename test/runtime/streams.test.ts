import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { effect } from '../../src/runtime/effect.ts';
import { latestChunks, type StreamChunk } from '../../src/runtime/stream.ts';
import type { Troupe } from '../../src/troupe.ts';
import { accepts, DISKS, Gate, memoryDisk } from '../actors/open-troupe.ts';

const pad = setup({
  types: { context: {} as { lines: readonly string[] } },
  actions: {
    add: assign({
      lines: ({ context, event }) => [
        ...context.lines,
        String((event as unknown as { text: string }).text),
      ],
    }),
  },
}).createMachine({
  id: 'pad',
  context: { lines: [] },
  initial: 'open',
  states: { open: { on: { 'pad.close': 'shut' } }, shut: { type: 'final' } },
  on: { 'pad.add': { actions: 'add' } },
});

async function all(chunks: AsyncIterable<StreamChunk>): Promise<readonly StreamChunk[]> {
  const found: StreamChunk[] = [];
  for await (const chunk of chunks) found.push(chunk);
  return found;
}

const valuesOf = (chunks: readonly StreamChunk[]) => chunks.map(({ value }) => value);

/** One task whose agent does as it is told. */
async function oneTask(troupe: Troupe): Promise<string> {
  troupe.gatekeeper('nod', accepts);
  const run = await troupe.start({ id: 'r', tasks: [{ id: 't', agent: 'w', gatekeeper: 'nod' }] });
  return (await run.result()).state;
}

describe.each(DISKS)('on $disk', ({ make }) => {
  test('a late reader, one that reads along and one that comes back see every chunk once, in order', async () => {
    const disk = make();
    const troupe = await disk.open();
    const half = new Gate();
    const rest = new Gate();
    troupe.agent('w', async ({ write, stream }) => {
      for (let n = 0; n < 120; n++) void write(n);
      await stream('other').write('aside');
      half.pass();
      await rest.wait();
      for (let n = 120; n < 160; n++) await write(n);
      await stream().close();
      return null;
    });
    const done = oneTask(troupe);
    await half.wait();
    const early: unknown[] = [];
    let from = 0;
    for await (const chunk of troupe.readStream('task/r/t')) {
      early.push(chunk.value);
      from = chunk.offset + 1;
      if (early.length === 100) break;
    }
    const along = all(troupe.readStream('task/r/t'));
    const observed: unknown[] = [];
    const completed = new Promise<void>((resolve, reject) =>
      troupe.readStream('task/r/t', { from: 159 }).chunks$.subscribe({
        next: ({ value }) => observed.push(value),
        complete: resolve,
        error: reject,
      }),
    );
    rest.pass();
    const wanted = Array.from({ length: 160 }, (_, n) => n);
    expect(valuesOf(await along)).toEqual(wanted);
    expect((await along).map(({ offset }) => offset)).toEqual(wanted);
    const back = await all(troupe.readStream('task/r/t', { from }));
    expect([...early, ...valuesOf(back)]).toEqual(wanted);
    await completed;
    expect(observed).toEqual([159]);
    expect(await done).toBe('done');
    await troupe.stop();
    const later = await disk.open();
    expect(valuesOf(await all(later.readStream('task/r/t', { from: 150 })))).toEqual(
      wanted.slice(150),
    );
    expect(valuesOf(await all(later.readStream('task/r/t', { name: 'other' })))).toEqual(['aside']);
  });

  test('a restart of the attempt that writes the same stores nothing twice; from where it differs a new epoch begins', async () => {
    const disk = make();
    const first = await disk.open();
    const reached = new Gate();
    first.agent('w', async ({ write, signal }) => {
      for (const word of ['a', 'b', 'c']) await write(word);
      await reached.wait(signal);
      return null;
    });
    const begun = oneTask(first).catch(() => undefined);
    await reached.reached;
    await first.stop();
    await begun;
    const second = await disk.open();
    second.agent('w', async ({ write }) => {
      const offsets = [];
      for (const word of ['a', 'B', 'C', 'D']) offsets.push(await write(word));
      return offsets;
    });
    expect(await oneTask(second)).toBe('done');
    const chunks = await all(second.readStream('task/r/t'));
    expect(chunks.map(({ value, epoch, seq }) => `${value} ${epoch}.${seq}`)).toEqual([
      'a 1.1',
      'b 1.2',
      'c 1.3',
      'B 2.2',
      'C 2.3',
      'D 2.4',
    ]);
    expect(new Set(chunks.map(({ writer }) => writer))).toEqual(new Set(['task/r/t@1']));
    expect(valuesOf(latestChunks(chunks))).toEqual(['a', 'B', 'C', 'D']);
  });

  test('an app writes under a name: begun again it goes on where it was; two at once are one', async () => {
    const troupe = await make().open();
    await troupe.spawn(pad, { id: 'pad/a' });
    const one = troupe.writeStream('pad/a', { writer: 'import' });
    await Promise.all([one.write(1), one.write(2)]);
    const again = troupe.writeStream('pad/a', { writer: 'import' });
    expect(await Promise.all([again.write(1), again.write(2), again.write(3)])).toEqual([0, 1, 2]);
    await Promise.all([troupe.writeStream('pad/a').write('x'), one.write(3)]);
    await troupe.send('pad/a', { type: 'pad.close' });
    expect(valuesOf(await all(troupe.readStream('pad/a')))).toEqual([1, 2, 3, 'x']);
  });
});

test('a reader ends when the stream is closed or its actor ends; who writes again opens it again', async () => {
  const troupe = await memoryDisk().open();
  await troupe.spawn(pad, { id: 'pad/a' });
  const writer = troupe.writeStream('pad/a');
  await writer.write(1);
  await writer.close();
  await writer.close();
  expect(valuesOf(await all(troupe.readStream('pad/a')))).toEqual([1]);
  await expect(writer.write(2)).rejects.toMatchObject({ code: 'conflict' });
  await troupe.writeStream('pad/a').write(3);
  const reading = all(troupe.readStream('pad/a', { from: 1 }));
  await troupe.send('pad/a', { type: 'pad.close' });
  expect(valuesOf(await reading)).toEqual([3]);
});

test('what is known of a stream leaves memory when its last writer has closed it', async () => {
  const troupe = await memoryDisk().open();
  for (let n = 0; n < 5; n++) {
    const address = `pad/${n}` as const;
    await troupe.spawn(pad, { id: address });
    const writer = troupe.writeStream(address);
    const written = [writer.write(1), writer.write(2)];
    await writer.close();
    expect(await Promise.all(written)).toEqual([0, 1]);
    expect(valuesOf(await all(troupe.readStream(address)))).toEqual([1, 2]);
  }
  expect(troupe.host.streams.opened).toBe(0);
});

test('what cannot be is refused in words, and nothing of it is stored', async () => {
  const limits = { maxChunkChars: 10, maxChunks: 3, maxStreamChars: 25 };
  const troupe = await memoryDisk().open({ streams: limits });
  await troupe.spawn(pad, { id: 'pad/a' });
  const writer = troupe.writeStream('pad/a');
  await expect(writer.write('0123456789')).rejects.toThrow(
    'has 12 characters as JSON, and 10 are allowed. It was not stored.',
  );
  await expect(writer.write(new Date() as never)).rejects.toThrow('chunk is a Date');
  expect(await writer.write('12345678')).toBe(0);
  expect(await writer.write('12345678')).toBe(1);
  await expect(writer.write('12345678')).rejects.toMatchObject({ code: 'quota' });
  expect(await writer.write('1')).toBe(2);
  await expect(writer.write(1)).rejects.toThrow('is full: it has 3 chunks');
  await troupe.send('pad/a', { type: 'pad.close' });
  expect(valuesOf(await all(troupe.readStream('pad/a')))).toEqual(['12345678', '12345678', '1']);
  await expect(troupe.writeStream('pad/none').write(1)).rejects.toMatchObject({
    code: 'not_found',
  });
  await expect(all(troupe.readStream('pad/none'))).rejects.toMatchObject({ code: 'not_found' });
  expect(() => troupe.readStream('pad/a', { from: -1 })).toThrow('whole number from 0, got -1');
  expect(() => troupe.readStream('pad/a', { name: 'signal:x' })).toThrow('the name of a stream');
  expect(() => troupe.writeStream('pad/a', { writer: '' })).toThrow('the name of a writer');
});

test('a reading ends when it is called off and when the runtime stops, and holds nothing then', async () => {
  const troupe = await memoryDisk().open();
  await troupe.spawn(pad, { id: 'pad/a' });
  const off = new AbortController();
  const called = all(troupe.readStream('pad/a', { signal: off.signal }));
  const waiting = all(troupe.readStream('pad/a'));
  off.abort();
  await expect(called).rejects.toMatchObject({ name: 'CancelledError' });
  const subscription = troupe.readStream('pad/a').chunks$.subscribe();
  subscription.unsubscribe();
  const stopped = expect(waiting).rejects.toMatchObject({ name: 'StoppedError' });
  await troupe.stop();
  await stopped;
  expect(troupe.host.streams.readers).toBe(0);
});

test('an effect of a machine of your own writes to a stream of its actor', async () => {
  const troupe = await memoryDisk().open();
  const machine = setup({
    actors: {
      count: effect<null>(async ({ stream }) => {
        for (let n = 1; n <= 3; n++) void stream('numbers').write(n);
        return null;
      }),
    },
  }).createMachine({
    id: 'counter',
    initial: 'counting',
    states: {
      counting: { invoke: { id: 'count', src: 'count', input: null, onDone: 'done' } },
      done: { type: 'final' },
    },
  });
  await troupe.spawn(machine, { id: 'counter/a' });
  const chunks = await all(troupe.readStream('counter/a', { name: 'numbers' }));
  expect(valuesOf(chunks)).toEqual([1, 2, 3]);
  expect(chunks[0]?.writer).toMatch(/^counter\/a!/);
});

test('a commit tells once how far a stream is, however much was written', async () => {
  const troupe = await memoryDisk().open();
  await troupe.spawn(pad, { id: 'pad/a' });
  const told: unknown[] = [];
  troupe.on('streamed', (fact) => told.push(fact));
  const writer = troupe.writeStream('pad/a');
  await writer.write(0);
  await Promise.all([writer.write(1), writer.write(2), writer.write(3)]);
  await writer.close();
  const fact = { address: 'pad/a', name: 'output' };
  expect(told).toEqual([
    { ...fact, next: 1, closed: false },
    { ...fact, next: 4, closed: false },
    { ...fact, next: 4, closed: true },
  ]);
});

/** What a writer writes in each of its lives; a life may end at any chunk. */
const lives = fc.array(fc.array(fc.constantFrom('a', 'b'), { maxLength: 6 }), {
  minLength: 1,
  maxLength: 5,
});

property.prop([lives], { numRuns: 20 })(
  'whatever a writer does in its lives, what counts is what it wrote last, and nothing is stored twice in a row of lives that agree',
  async (written) => {
    const disk = memoryDisk();
    let troupe = await disk.open();
    await troupe.spawn(pad, { id: 'pad/a' });
    let expected: string[] = [];
    for (const life of written) {
      const before = expected;
      const writer = troupe.writeStream('pad/a', { writer: 'w' });
      for (const value of life) await writer.write(value);
      const agrees = life.every((value, n) => n >= before.length || before[n] === value);
      // What a life that agrees does not come to stays as it was.
      expected = agrees && life.length < before.length ? before : life;
      await troupe.stop();
      troupe = await disk.open();
    }
    await troupe.writeStream('pad/a', { writer: 'end' }).close();
    const chunks = await all(troupe.readStream('pad/a'));
    expect(chunks.map(({ offset }) => offset)).toEqual(chunks.map((_, n) => n));
    expect(valuesOf(latestChunks(chunks))).toEqual(expected);
    const names = chunks.map(({ epoch, seq }) => `${epoch}.${seq}`);
    expect(new Set(names).size).toBe(names.length);
  },
  60_000,
);
