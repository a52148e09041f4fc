import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { ConflictError, StoppedError } from '../../src/protocol/errors.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { createTroupe, type Troupe } from '../../src/troupe.ts';
import { accepts, Gate, memoryDisk } from '../actors/open-troupe.ts';

const tasks = [{ id: 'a', agent: 'writer', gatekeeper: 'editor' }];
const listeners = ({ host }: Troupe): number => host.events.listenerCount();

describe('D08: a life cycle', () => {
  test('that is stopped while it starts ends in one or the other, and the next goes on', async () => {
    const disk = memoryDisk();
    const first = await disk.open();
    first.agent('writer', () => null);
    first.gatekeeper('editor', accepts);
    const starting = first.start({ id: 'r', tasks });
    const stopping = first.stop();
    const [started] = await Promise.allSettled([starting, stopping]);
    if (started?.status === 'rejected') expect(started.reason).toBeInstanceOf(StoppedError);
    expect(listeners(first)).toBe(0);
    const second = await disk.open();
    second.agent('writer', () => null);
    second.gatekeeper('editor', accepts);
    expect((await (await second.start({ id: 'r', tasks })).result()).state).toBe('done');
  });

  test('that is stopped before it was opened was never open', async () => {
    const troupe = await memoryDisk().open();
    await expect(troupe.host.open()).rejects.toThrow(ConflictError);
    await Promise.all([troupe.stop(), troupe.stop({ drain: true }), troupe.stop()]);
    await expect(troupe.host.open()).rejects.toThrow(StoppedError);
    await expect(troupe.start({ id: 'r', tasks: [] })).rejects.toThrow();
    await expect(troupe.supervise('s', { children: [] })).rejects.toThrow(StoppedError);
    await expect(troupe.stopActor('a/1')).rejects.toThrow(StoppedError);
  });

  test('started twice at once is one', async () => {
    const troupe = await memoryDisk().open();
    troupe.gatekeeper('editor', accepts);
    let done = 0;
    troupe.agent('writer', () => ++done);
    const runs = await Promise.all([1, 2].map(() => troupe.start({ id: 'r', tasks })));
    await Promise.all(runs.map((run) => run.result()));
    expect(done).toBe(1);
  });

  test('leaves no subscription, not even of who subscribes while or after it stops', async () => {
    const troupe = await createTroupe({
      store: new MemoryStore(),
      logger: pino({ level: 'silent' }),
    });
    let completed = 0;
    const subscribe = (): void => {
      troupe.on('turn', () => undefined);
      troupe.turns$.subscribe({ complete: () => completed++ });
    };
    subscribe();
    const stopping = troupe.stop();
    subscribe();
    await stopping;
    subscribe();
    await troupe.stop();
    expect(completed).toBe(3);
    expect(listeners(troupe)).toBe(0);
  });

  test('that ends while work is in flight: it ends aborted, its message stays, and is handled once', async () => {
    const disk = memoryDisk();
    const first = await disk.open();
    const gate = new Gate();
    first.gatekeeper('editor', accepts);
    first.agent('writer', ({ signal }) => gate.wait(signal).then(() => null));
    const run = await first.start({ id: 'r', tasks });
    const result = run.result();
    result.catch(() => undefined);
    await gate.reached;
    const order = first.task('r', 'a').pause();
    order.catch(() => undefined);
    await first.stop();
    await expect(result).rejects.toThrow(StoppedError);
    const [paused] = await Promise.allSettled([order]);
    const second = await disk.open();
    second.gatekeeper('editor', accepts);
    let done = 0;
    second.agent('writer', () => ++done);
    // Whether the pause was stored before the end: its answer says so, or nobody knows.
    if (paused?.status === 'fulfilled') await second.task('r', 'a').resume();
    await second
      .task('r', 'a')
      .resume()
      .catch(() => undefined);
    expect((await second.run('r').result()).state).toBe('done');
    expect(done).toBe(1);
    expect(listeners(first)).toBe(0);
  });
});
