import { createActor, type EventFromLogic, type SnapshotFrom, transition } from 'xstate';
import type { JsonValue } from '../src/protocol/json.ts';
import { MachineDriver, type MachineEvent } from '../src/runtime/xstate-driver.ts';
import { MemoryStore } from '../src/store/memory/memory-store.ts';
import type { Store } from '../src/store/store.ts';
import { notebook, notebookAddress } from './notebook.ts';
import { keepOutstanding, openNotebooks, storedTurns } from './place.ts';
import { type Bench, Samples } from './report.ts';

const ACTORS = 256;

/** Says "stored" and forgets: what is left is the host alone. */
class ForgetfulStore extends MemoryStore {
  override commit(): Promise<void> {
    return Promise.resolve();
  }
}

/**
 * What a turn costs in the host, in microseconds of CPU time of the main thread, and how that compares with the
 * transition inside it.
 *
 * How: the same machine and the same events throughout, in loops of tens of thousands. `bare` is
 * `machine.transition` with an actor scope of our own, through the driver that the host uses. `+ its checkpoint` adds
 * what every durable turn must do, whoever does it: make JSON of the event and of the new state. XState's public
 * `transition()` and `createActor().send` are there for comparison. The host takes messages from outside, 256
 * outstanding (each is followed by the next when its turn is committed); and messages from actor to actor, 64 on their way, which cost no promise and no check of outside input
 * but a transition that sends. It stores in the memory store, and in one that forgets, which shows what the memory
 * store's growing heap costs. All ratios are of the same run.
 *
 * Cheating would be: a heavy machine that hides the host, or a `bare` without the event's `meta`.
 */
export const overhead: Bench = {
  title: 'Host overhead per turn',
  async run({ quick, runs }) {
    const samples = new Samples();
    const count = quick ? 500 : 50_000;
    for (let run = 0; run <= runs; run++) {
      const measured = await measureAll(count);
      if (run === 0) continue; // warms up
      for (const [name, microseconds] of measured) samples.add(name, microseconds);
    }
    const row = (name: string, by: string) => [
      name,
      samples.of(name),
      name === by ? '1' : samples.ratio(name, by),
    ];
    return [
      {
        columns: ['per turn', 'CPU µs', ': bare transition of that event'],
        rows: [
          ...[
            BARE,
            BARE_STORED,
            PUBLIC_TRANSITION,
            CREATE_ACTOR,
            CREATE_ACTOR_STORED,
            HOST,
            HOST_FORGETFUL,
          ].map((name) => row(name, BARE)),
          ...[BARE_PASS, HOST_PASS, HOST_PASS_FORGETFUL].map((name) => row(name, BARE_PASS)),
        ],
      },
    ];
  },
};

const BARE = 'bare `machine.transition` (own scope)';
const BARE_STORED = 'bare + its checkpoint as JSON';
const PUBLIC_TRANSITION = "XState's `transition()`";
const CREATE_ACTOR = '`createActor().send`';
const CREATE_ACTOR_STORED = '`createActor().send` + `getPersistedSnapshot` as JSON';
const HOST = 'host, memory store, 256 outstanding from outside';
const HOST_FORGETFUL = 'the same, a store that forgets';
const BARE_PASS = 'bare, an event that makes it send';
const HOST_PASS = 'host, memory store, actor to actor';
const HOST_PASS_FORGETFUL = 'the same, actor to actor, a store that forgets';

async function measureAll(count: number): Promise<readonly (readonly [string, number])[]> {
  return [
    [BARE, timeBare(count, event('note.add'), false)],
    [BARE_STORED, timeBare(count, event('note.add'), true)],
    [PUBLIC_TRANSITION, timePublic(count)],
    [CREATE_ACTOR, timeActor(count, false)],
    [CREATE_ACTOR_STORED, timeActor(count, true)],
    [HOST, await timeHost(count, new MemoryStore())],
    [HOST_FORGETFUL, await timeHost(count, new ForgetfulStore())],
    [BARE_PASS, timeBare(count, event('note.pass', { hops: 1, among: ACTORS }), false)],
    [HOST_PASS, await timePassing(count, new MemoryStore())],
    [HOST_PASS_FORGETFUL, await timePassing(count, new ForgetfulStore())],
  ];
}

function event(type: string, fields: Readonly<Record<string, JsonValue>> = {}): MachineEvent {
  return {
    type,
    ...fields,
    meta: { id: 'app/client#f2b5c9d8-2f3c-4b43-8d36-6f9f65d3f3f7', from: 'app/client', at: 1 },
  };
}

/** Of this thread, in microseconds: what other processes take of the machine is not in it. */
function cpuTime(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

const perTurn = (begin: number, count: number): number => (cpuTime() - begin) / count;

function timeBare(count: number, message: MachineEvent, stored: boolean): number {
  const driver = new MachineDriver(notebook, { freeze: false });
  const address = notebookAddress(0);
  let { snapshot } = driver.initial(address, { name: 0 });
  let characters = 0; // added up, so that no part of the work can be left out as unused
  const begin = cpuTime();
  for (let i = 0; i < count; i++) {
    snapshot = driver.transition(address, snapshot, message).snapshot;
    if (!stored) continue;
    characters += JSON.stringify(message).length;
    characters += JSON.stringify(driver.persist(snapshot)).length;
  }
  const time = perTurn(begin, count);
  if (snapshot.context['count'] !== count || characters > 0 !== stored) {
    throw new Error('The bare machine missed an event.');
  }
  return time;
}

function timePublic(count: number): number {
  const message = event('note.add') as unknown as EventFromLogic<typeof notebook>;
  const actor = createActor(notebook, { input: { name: 0 } });
  let snapshot: SnapshotFrom<typeof notebook> = actor.getSnapshot();
  const begin = cpuTime();
  for (let i = 0; i < count; i++) [snapshot] = transition(notebook, snapshot, message);
  const time = perTurn(begin, count);
  if (snapshot.context.count !== count) throw new Error('transition() missed an event.');
  return time;
}

function timeActor(count: number, stored: boolean): number {
  const message = event('note.add') as unknown as EventFromLogic<typeof notebook>;
  const actor = createActor(notebook, { input: { name: 0 } });
  actor.start();
  let characters = 0;
  const begin = cpuTime();
  for (let i = 0; i < count; i++) {
    actor.send(message);
    if (!stored) continue;
    characters += JSON.stringify(message).length;
    characters += JSON.stringify(actor.getPersistedSnapshot()).length;
  }
  const time = perTurn(begin, count);
  if (actor.getSnapshot().context.count !== count || characters > 0 !== stored) {
    throw new Error('The actor missed an event.');
  }
  actor.stop();
  return time;
}

async function timeHost(count: number, store: Store): Promise<number> {
  const host = await openNotebooks(store, ACTORS);
  let sent = 0;
  const begin = cpuTime();
  await keepOutstanding(host, ACTORS, ACTORS, () => sent++ < count);
  const time = perTurn(begin, count);
  await expectTurns(store, count);
  await host.stop();
  return time;
}

/** So many tokens are passed on until each has made its share of the hops. */
async function timePassing(count: number, store: Store): Promise<number> {
  const tokens = 64;
  const hops = Math.ceil(count / tokens);
  const host = await openNotebooks(store, ACTORS);
  let ended = 0;
  const begin = cpuTime();
  await new Promise<void>((resolve) => {
    host.events.on('emitted', () => {
      if (++ended === tokens) resolve();
    });
    for (let token = 0; token < tokens; token++) {
      void host.send(notebookAddress(token * (ACTORS / tokens)), {
        type: 'note.pass',
        hops: hops - 1,
        among: ACTORS,
      });
    }
  });
  const time = perTurn(begin, hops * tokens);
  await expectTurns(store, hops * tokens);
  await host.stop();
  return time;
}

async function expectTurns(store: Store, expected: number): Promise<void> {
  if (store instanceof ForgetfulStore) return;
  const stored = await storedTurns(store);
  if (stored !== expected) throw new Error(`Expected ${expected} stored turns, got ${stored}.`);
}
