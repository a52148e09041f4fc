import { test } from '@fast-check/vitest';
import fc from 'fast-check';
import { expect } from 'vitest';
import { assign, enqueueActions, setup, stopChild } from 'xstate';
import type { Address } from '../../src/protocol/address.ts';
import { anyAddress, durableActions } from '../../src/protocol/commands.ts';
import { replyTo } from '../../src/protocol/message.ts';
import { MachineDriver, type PersistedSnapshot } from '../../src/runtime/xstate-driver.ts';
import type { MemoryStore } from '../../src/store/memory/memory-store.ts';
import type { Batch } from '../../src/store/store.ts';
import { Outside, TestStore, World } from './world.ts';

/** How a job goes on to the next actor. */
const WAYS = ['send', 'delayed', 'timer', 'effect', 'request', 'stop'] as const;
type Way = (typeof WAYS)[number];

/**
 * Hands a job on `hops` times, each time in the way the job says, and writes down what it has seen. In the end
 * every hop of every job must have been seen exactly once, whatever happened in between.
 */
function relayMachine(outside: Outside) {
  return setup({
    actors: { work: outside.effect('work') },
    actions: {
      ...durableActions,
      see: assign({
        seen: ({ context, event }) => [
          ...context['seen'],
          `${event['job'].token}/${event['job'].hops}`,
        ],
      }),
      seeEnd: assign({
        seen: ({ context, event }) => [...context['seen'], `${event['meta'].request} answered`],
      }),
    },
  }).createMachine({
    id: 'relay',
    context: () => ({ seen: [] }),
    on: {
      job: {
        actions: [
          'see',
          {
            type: 'reply',
            params: ({ event }) => ({ to: replyTo(event['meta']), type: 'job', reply: null }),
          },
          enqueueActions(({ event, enqueue }) => {
            const { token, hops, ways, actors } = event['job'] as Job;
            if (hops === 0) return;
            const job: Job = { token, hops: hops - 1, ways, actors };
            const message = { type: 'job', job: job as never };
            const to = anyAddress(`relay/${actors[hops % actors.length]}`);
            const way = ways[hops % ways.length];
            switch (way) {
              case 'send':
                enqueue({ type: 'send', params: { to, message } });
                break;
              case 'delayed':
                enqueue({ type: 'send', params: { to, message, delayMs: 20 } });
                break;
              case 'timer':
                enqueue.raise(message, { delay: 15, id: `${token}/${hops}` });
                break;
              case 'effect':
                enqueue.spawnChild('work', {
                  id: `${token}/${hops}`,
                  input: { to, message } as never,
                });
                break;
              case 'request':
                enqueue({
                  type: 'request',
                  params: { to, message, timeoutMs: 30, id: `${token}/${hops}` },
                });
                break;
              default:
                // The effect is stopped in the turn that starts it; the job goes on by itself.
                enqueue.spawnChild('work', { id: `${token}/${hops}`, input: null });
                enqueue.stopChild(`${token}/${hops}`);
                enqueue({ type: 'send', params: { to, message } });
            }
          }),
        ],
      },
      'job:ok': { actions: 'seeEnd' },
      'job:err': { actions: 'seeEnd' },
      'xstate.done.actor.*': {
        actions: [
          { type: 'send', params: ({ event }) => event['output'] },
          stopChild(({ event }) => event['actorId']),
        ],
      },
    },
  });
}

interface Job {
  readonly token: string;
  readonly hops: number;
  readonly ways: readonly Way[];
  readonly actors: readonly number[];
}

/** A disk that writes when told to: what is still on its way is lost in a crash. */
class LaggingStore extends TestStore {
  readonly queue: {
    readonly batch: Batch;
    readonly done: () => void;
    readonly failed: (error: unknown) => void;
  }[] = [];
  eager = false;

  override commit(batch: Batch): Promise<void> {
    if (this.eager) return this.inner.commit(batch);
    return new Promise((done, failed) => this.queue.push({ batch, done, failed }));
  }

  write(count: number): void {
    for (const { batch, done, failed } of this.queue.splice(0, count)) {
      this.inner.commit(batch).then(done, failed);
    }
  }
}

type Op =
  | {
      readonly do: 'job';
      readonly to: number;
      readonly hops: number;
      readonly ways: readonly Way[];
      readonly actors: readonly number[];
      readonly ownId: boolean;
    }
  | { readonly do: 'run'; readonly callbacks: number }
  | { readonly do: 'write'; readonly commits: number }
  /** Runs and writes, in turns. */
  | { readonly do: 'progress'; readonly rounds: number }
  | { readonly do: 'advance'; readonly ms: number }
  | { readonly do: 'finish'; readonly which: number }
  | { readonly do: 'crash' };

const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('job' as const),
      to: fc.nat({ max: 2 }),
      hops: fc.nat({ max: 6 }),
      ways: fc.array(fc.constantFrom(...WAYS), { minLength: 1, maxLength: 4 }),
      actors: fc.array(fc.nat({ max: 2 }), { minLength: 1, maxLength: 3 }),
      ownId: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('run' as const),
      callbacks: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      commits: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('progress' as const),
      rounds: fc.integer({ min: 1, max: 6 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('advance' as const),
      ms: fc.integer({ min: 1, max: 40 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('finish' as const), which: fc.nat({ max: 9 }) }),
  },
  { weight: 2, arbitrary: fc.constant({ do: 'crash' as const }) },
  // Long enough for idle actors to leave memory.
  { weight: 1, arbitrary: fc.constant({ do: 'advance' as const, ms: 3000 }) },
);

test.prop([fc.array(op, { minLength: 20, maxLength: 90 }), fc.boolean()], { numRuns: 200 })(
  'whatever is interleaved, and wherever it crashes, every stored message is handled exactly once',
  async (ops, crashesAtTheEnd) => {
    const outside = new Outside();
    let store: LaggingStore | undefined;
    const disk = (): LaggingStore => store as LaggingStore;
    const world = new World(
      { relay: relayMachine(outside) },
      {
        maxEffectRestarts: 1_000_000,
        passivateAfterMs: 1000,
        effects: { concurrency: 3, heartbeatMs: 0 },
        wrap: (memory: MemoryStore) => {
          store = new LaggingStore(memory);
          return store;
        },
      },
    );
    const actors = [0, 1, 2].map((n): Address => `relay/${n}`);
    const jobs: { readonly job: Job; readonly sent: { stored: boolean } }[] = [];
    const begin = async (): Promise<void> => {
      await world.build().open();
    };
    await world.open();
    disk().eager = true;
    await world.create(...actors.map((address) => [address, 'relay'] as [Address, string]));
    disk().eager = false;

    for (const [i, step] of ops.entries()) {
      switch (step.do) {
        case 'job': {
          const { hops, ways, actors: path } = step;
          const job: Job = { token: `j${i}`, hops, ways, actors: path };
          const sent = { stored: false };
          world.host
            .send(
              actors[step.to] as Address,
              { type: 'job', job: job as never },
              step.ownId ? { idempotencyKey: `own-${i}` } : {},
            )
            .then(
              () => {
                sent.stored = true;
              },
              () => undefined,
            );
          jobs.push({ job, sent });
          break;
        }
        case 'run':
          await world.run(step.callbacks);
          break;
        case 'write':
          disk().write(step.commits);
          await world.run(0);
          break;
        case 'progress':
          for (let round = 0; round < step.rounds; round++) {
            await world.run(3);
            disk().write(9);
          }
          await world.run(0);
          break;
        case 'advance':
          for (const until = world.clock.now() + step.ms; world.clock.step(until); ) {
            await world.run(1);
          }
          break;
        case 'finish': {
          const running = outside.started.filter(({ aborted }) => !aborted);
          const chosen = running[step.which % Math.max(1, running.length)];
          chosen?.finish(chosen.context.input);
          await world.run(0);
          break;
        }
        case 'crash':
          world.crash();
          await begin();
          break;
      }
    }

    // The storm is over: everything that was begun comes to its end.
    if (crashesAtTheEnd) {
      world.crash();
      await begin();
    }
    disk().write(disk().queue.length);
    disk().eager = true;
    for (let before = -1; before !== outside.started.length; ) {
      before = outside.started.length;
      await world.advance(2000);
      for (const started of outside.started) started.finish(started.context.input);
      await world.advance(2000);
    }

    const seen = actors.flatMap((address) => world.context(address)['seen'] as unknown as string[]);
    const counts = Map.groupBy(seen, (entry) => entry);
    for (const [entry, times] of counts) expect(times, entry).toHaveLength(1);
    for (const { job, sent } of jobs) {
      const hops = Array.from({ length: job.hops + 1 }, (_, hop) => `${job.token}/${hop}`);
      const handled = hops.filter((hop) => counts.has(hop));
      // One that was never said to be stored may have been lost, but then altogether.
      if (sent.stored || handled.length > 0) expect(handled).toEqual(hops);
      for (let hop = job.hops; hop > 0; hop--) {
        const asked = job.ways[hop % job.ways.length] === 'request' && handled.length > 0;
        expect(counts.has(`${job.token}/${hop} answered`), `${job.token}/${hop}`).toBe(asked);
      }
    }
    expect(world.data.deadLetters).toEqual([]);
    expect(world.data.messages.size).toBe(0);
    expect(world.host.load).toMatchObject({ timers: 0, effects: 0, requests: 0 });
    for (const rows of [...world.data.timers.values(), ...world.data.effects.values()]) {
      expect(rows.size).toBe(0);
    }
    checkJournal(world, actors);
  },
);

/** The journal is complete and tells the truth: numbers without gaps, no event twice, each turn replays byte by byte. */
function checkJournal(world: World, actors: readonly Address[]): void {
  const driver = new MachineDriver(relayMachine(new Outside()), { freeze: false });
  const ids: string[] = [];
  for (const address of actors) {
    const checkpoints = world.data.checkpoints.get(address) ?? [];
    expect(checkpoints.map(({ seq }) => seq)).toEqual(checkpoints.map((_, i) => i));
    expect(world.data.actors.get(address)?.seq).toBe(checkpoints.length - 1);
    for (const [i, { eventJson, snapshotJson }] of checkpoints.entries()) {
      const before = checkpoints[i - 1];
      if (before === undefined || eventJson === null) continue;
      const event = JSON.parse(eventJson);
      ids.push(event.meta.id);
      const snapshot = driver.restore(
        address,
        JSON.parse(before.snapshotJson) as PersistedSnapshot,
      );
      const after = driver.transition(address, snapshot, event).snapshot;
      expect(JSON.stringify(driver.persist(after))).toBe(snapshotJson);
    }
  }
  expect(new Set(ids).size).toBe(ids.length);
}
