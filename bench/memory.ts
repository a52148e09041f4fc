import { join } from 'node:path';
import { type AnyStateMachine, createActor } from 'xstate';
import { agentMachine } from '../src/machines/agent-machine.ts';
import type { Address } from '../src/protocol/address.ts';
import type { JsonValue } from '../src/protocol/json.ts';
import type { Clock } from '../src/runtime/clock.ts';
import { systemClock } from '../src/runtime/clock.ts';
import type { DurableHost } from '../src/runtime/durable-host.ts';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import { ADD, notebook } from './notebook.ts';
import { makeHost } from './place.ts';
import { type Bench, Samples } from './report.ts';

interface Kind {
  readonly name: string;
  readonly machine: AnyStateMachine;
  readonly input: (i: number) => JsonValue;
}

const KINDS: readonly Kind[] = [
  { name: 'notebook', machine: notebook, input: (i) => ({ name: i }) },
  {
    name: 'agent',
    machine: agentMachine,
    input: (i) => ({ name: `number-${i}`, concurrency: 1 }),
  },
];

/**
 * What an actor that does nothing keeps of the heap.
 *
 * How: the heap in use after a full collection (`--expose-gc`), with so many actors and without any, divided by
 * their number. `new` are just created; `after a turn` each has handled one message; `passivated` have been idle for
 * longer than `passivateAfterMs` (the clock is moved, not waited for) and left memory. The store is SQLite, whose
 * rows are on disk and whose cache is not on this heap. The notebook's state is 500 bytes of JSON; the agent is the
 * role that does tasks, idle. Beside them: `createActor(machine).start()`, which keeps nothing anywhere else.
 *
 * Cheating would be: a store in memory that is not counted, or actors that share one state.
 */
export const memory: Bench = {
  title: 'Memory per idle actor',
  async run({ quick, runs, directory }) {
    const samples = new Samples();
    const count = quick ? 500 : 20_000;
    let files = 0;
    for (let run = 0; run < runs; run++) {
      for (const kind of KINDS) {
        const measured = await measure(kind, count, join(directory, `memory-${files++}.db`));
        for (const [name, bytes] of measured) samples.add(`${kind.name} ${name}`, bytes);
      }
    }
    const columns = ['new', 'after a turn', 'passivated', 'createActor'];
    return [
      {
        columns: [
          'actor',
          'new, B',
          'after a turn, B',
          'passivated, B',
          '`createActor().start()`, B',
        ],
        rows: KINDS.map(({ name }) => [
          name,
          ...columns.map((column) =>
            name === 'agent' && column === 'after a turn' ? '' : samples.of(`${name} ${column}`),
          ),
        ]),
        notes: [`${count} actors of each kind.`],
      },
    ];
  },
};

async function measure(
  kind: Kind,
  count: number,
  path: string,
): Promise<readonly (readonly [string, number])[]> {
  const clock = new ClockToMove();
  const store = await openSqliteStore({ path, durability: 'normal' });
  const host = makeHost(store, { clock });
  host.register(kind.name, kind.machine);
  await host.open();
  const addressOf = (i: number): Address => `${kind.name}/number-${i}`;
  const spawn = (from: number, to: number) =>
    host.spawn(
      Array.from({ length: to - from }, (_, i) => ({
        address: addressOf(from + i),
        machine: kind.name,
        input: kind.input(from + i),
      })),
    );
  await spawn(count, count + 1); // everything that is made only once is made now
  clock.moveBy(120_000);
  const measured: [string, number][] = [];
  const empty = await heapInUse();
  const note = async (name: string): Promise<void> => {
    measured.push([name, ((await heapInUse()) - empty) / count]);
  };

  for (let i = 0; i < count; i += 1000) await spawn(i, Math.min(count, i + 1000));
  expectLive(host.load.actors, count);
  await note('new');
  if (kind.name === 'notebook') {
    for (let i = 0; i < count; i += 500) {
      await turnOf(
        host,
        Array.from({ length: Math.min(500, count - i) }, (_, k) => addressOf(i + k)),
      );
    }
    expectLive(host.load.actors, count);
    await note('after a turn');
  }
  clock.moveBy(120_000);
  expectLive(host.load.actors, 0);
  await note('passivated');
  await host.stop();

  const withoutActors = await heapInUse();
  const actors = Array.from({ length: count }, (_, i) => {
    const actor = createActor(kind.machine, { input: kind.input(i) });
    actor.start();
    return actor;
  });
  measured.push(['createActor', ((await heapInUse()) - withoutActors) / count]);
  for (const actor of actors) actor.stop();
  return measured;
}

/** Lets each of them take one turn; resolves when all are committed. */
async function turnOf(host: DurableHost, addresses: readonly Address[]): Promise<void> {
  await new Promise<void>((resolve) => {
    let left = addresses.length;
    const onTurn = (): void => {
      if (--left > 0) return;
      host.events.off('turn', onTurn);
      resolve();
    };
    host.events.on('turn', onTurn);
    for (const address of addresses) void host.send(address, ADD);
  });
}

function expectLive(actors: number, expected: number): void {
  if (actors !== expected) throw new Error(`Expected ${expected} actors in memory, got ${actors}.`);
}

async function heapInUse(): Promise<number> {
  if (globalThis.gc === undefined) throw new Error('Expected Node to run with --expose-gc.');
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    await globalThis.gc({ execution: 'async' });
  }
  return process.memoryUsage().heapUsed;
}

/** The system's clock, except that it can be moved; then timers that are due by that ring at once. */
class ClockToMove implements Clock {
  #movedMs = 0;
  readonly #timers = new Map<() => void, { readonly dueAt: number; readonly cancel: () => void }>();

  now(): number {
    return systemClock.now() + this.#movedMs;
  }

  setTimer(delayMs: number, callback: () => void, background = false): () => void {
    const cancel = systemClock.setTimer(
      delayMs,
      () => {
        this.#timers.delete(ring);
        callback();
      },
      background,
    );
    const ring = (): void => {
      cancel();
      callback();
    };
    this.#timers.set(ring, { dueAt: this.now() + delayMs, cancel });
    return () => {
      this.#timers.delete(ring);
      cancel();
    };
  }

  moveBy(milliseconds: number): void {
    this.#movedMs += milliseconds;
    for (const [ring, { dueAt }] of [...this.#timers]) {
      if (dueAt > this.now()) continue;
      this.#timers.delete(ring);
      ring();
    }
  }
}
