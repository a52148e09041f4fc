import { setImmediate as nextTurnOfLoop } from 'node:timers/promises';
import { EventEmitter } from 'eventemitter3';
import { dispatch, query, spawn, start, stop } from 'nact';
import { Subject } from 'rxjs';
import { type ActorRefFrom, assign, createActor, sendTo, setup } from 'xstate';
import type { Address } from '../src/protocol/address.ts';
import type { Message } from '../src/protocol/message.ts';
import type { DurableHost } from '../src/runtime/durable-host.ts';
import { MemoryStore } from '../src/store/memory/memory-store.ts';
import { ADD, ASK, notebookAddress, PEEK } from './notebook.ts';
import { openNotebooks, openStore, storedTurns } from './place.ts';
import { type Bench, Samples } from './report.ts';

/** Messages under way at once. */
const CLIENTS = 64;
const FAN_OUT = 10_000;

/** Something with so many actors that can be told and asked. All have the names or references of their actors at hand. */
interface Place {
  /** Sends so many messages to the actors in turn. @returns when all were handled */
  send(count: number): Promise<void>;
  /** Asks so often, `CLIENTS` at once. @returns when all were answered */
  request(count: number): Promise<void>;
  /** How many messages were handled, by the actors' own count. */
  handled(): Promise<number> | number;
  close(): Promise<void> | void;
}

type Peer = (actors: number, directory: string) => Promise<Place> | Place;

/**
 * Messages between actors, beside what one could use instead.
 *
 * How: with 10, 1 000 and 100 000 actors, messages go to them in turn. `send`: until the last one was handled, by the
 * number of messages; every receiver counts them in its state. `request`: 64 askers, each asks when it was answered, for
 * the count of an actor, which stays what it is. `fan-out`: one message to each of 10 000. What was handled must add up in
 * the end, or the bench fails. All of it is done once before, with few actors, so that everybody's code is warm, and
 * garbage is collected before each figure.
 *
 * Troupe is there three times. `durable`: on a disk, `full`; what was sent is handled when the turn is stored, and a
 * request changes the state (else there was nothing to store). `transient, state kept`: the message is not stored, but the
 * state that it leads to is, as always, here in memory; requests are those of the next row. `transient`: the message
 * changes nothing, so nothing is stored; its receiver makes the transition all the same. The peers keep nothing, whatever
 * happens, and have no types, limits or counts to check. nact and XState are actors; XState's `send` is called from
 * outside, as Troupe's and nact's are, `sendTo` by another machine, which makes two transitions per message. The emitter
 * and the Subject call functions and have no mailbox.
 *
 * Cheating would be: receivers that do nothing, counting what was sent instead of what was handled, and taking ratios from
 * different runs.
 */
export const messaging: Bench = {
  title: 'Messages between actors, and peers',
  async run({ quick, runs, directory }) {
    const samples = new Samples();
    const sizes = quick ? [10, 100] : [10, 1_000, 100_000];
    const fanOut = quick ? 100 : FAN_OUT;
    const messages = quick ? 200 : 20_000;
    for (const [name, open] of PEERS) {
      const place = await open(10, directory);
      await measure(new Samples(), name, place, messages / 4);
      await place.close();
    }
    for (let run = 0; run < runs; run++) {
      for (const size of sizes) {
        for (const [name, open] of PEERS) {
          const place = await open(size, directory);
          await measure(samples, `${name} ${size}`, place, messages);
          await place.close();
        }
      }
      for (const [name, open] of PEERS) {
        const place = await open(fanOut, directory);
        globalThis.gc?.();
        const begin = performance.now();
        await place.send(fanOut);
        samples.add(`${name} fan-out`, ((performance.now() - begin) * 1_000) / fanOut);
        await expectHandled(name, place, fanOut);
        await place.close();
      }
    }
    const names = [...PEERS.keys()];
    const ratio = (name: string, what: string) =>
      name === BASE ? '1' : samples.ratio(`${name} ${what}`, `${BASE} ${what}`);
    const tableOf = (kind: 'send' | 'request') => ({
      columns: [
        `${kind}, µs each`,
        ...sizes.map((size) => `${size} actors`),
        ...sizes.map((size) => `: ${BASE}, ${size}`),
      ],
      rows: names.map((name) => [
        name,
        ...sizes.map((size) => samples.of(`${name} ${size} ${kind}`)),
        ...sizes.map((size) => ratio(name, `${size} ${kind}`)),
      ]),
    });
    return [
      tableOf('send'),
      tableOf('request'),
      {
        columns: [`fan-out to ${fanOut}, µs each`, 'all', `: ${BASE}`],
        rows: names.map((name) => [name, samples.of(`${name} fan-out`), ratio(name, 'fan-out')]),
      },
    ];
  },
};

/** An actor library of the same kind, without a store: what a mailbox and a turn cost there. */
const BASE = 'nact';

async function measure(
  samples: Samples,
  name: string,
  place: Place,
  messages: number,
): Promise<void> {
  const warm = Math.ceil(messages / 10);
  await place.send(warm);
  globalThis.gc?.();
  const sendBegin = performance.now();
  await place.send(messages);
  samples.add(`${name} send`, ((performance.now() - sendBegin) * 1_000) / messages);
  await place.request(warm);
  globalThis.gc?.();
  const requestBegin = performance.now();
  await place.request(messages);
  samples.add(`${name} request`, ((performance.now() - requestBegin) * 1_000) / messages);
  await expectHandled(name, place, 2 * (warm + messages));
}

async function expectHandled(name: string, place: Place, expected: number): Promise<void> {
  const handled = await place.handled();
  if (handled === expected) return;
  throw new Error(`Expected ${expected} messages to be handled by ${name}, got ${handled}.`);
}

/** Asks `count` times, so many at once. */
async function ask(count: number, one: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const client = async (): Promise<void> => {
    for (let i = next++; i < count; i = next++) await one(i);
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
}

/** Resolves when so many more were handled by nact's actors. */
class Countdown {
  #left = 0;
  #done: () => void = () => undefined;

  start(count: number): Promise<void> {
    this.#left = count;
    return new Promise((resolve) => {
      this.#done = resolve;
    });
  }

  readonly tick = (): void => {
    if (--this.#left === 0) this.#done();
  };
}

/** Mailboxes are bounded: no more are sent at once than one actor's takes. */
const AT_ONCE = 5_000;

/** Sends, and waits until all is handled and what it has led to is stored. */
async function sendAll(
  host: DurableHost,
  names: readonly Address[],
  count: number,
  message: Message,
  delivery: 'durable' | 'transient',
): Promise<void> {
  for (let sent = 0; sent < count; sent += AT_ONCE) {
    const end = Math.min(sent + AT_ONCE, count);
    for (let i = sent; i < end; i++) {
      void host.send(names[i % names.length] as Address, message, { delivery });
    }
    const handled = host.counts.sent;
    // Not by looking again and again: the store's thread needs a core as well.
    for (await host.flush(); host.counts.delivered < handled; await host.flush()) {
      await nextTurnOfLoop();
    }
    await host.flush();
  }
}

const namesOf = (actors: number): readonly Address[] =>
  Array.from({ length: actors }, (_, name) => notebookAddress(name));

const durable: Peer = async (actors, directory) => {
  const store = await openStore('full', directory);
  const host = await openNotebooks(store, actors);
  const names = namesOf(actors);
  return {
    send: (count) => sendAll(host, names, count, ADD, 'durable'),
    request: (count) => ask(count, (i) => host.request(names[i % actors] as Address, ASK)),
    handled: async () => {
      await host.flush();
      return await storedTurns(store);
    },
    close: () => host.stop(),
  };
};

const transient =
  (message: Message): Peer =>
  async (actors) => {
    const host = await openNotebooks(new MemoryStore(), actors);
    const names = namesOf(actors);
    return {
      send: (count) => sendAll(host, names, count, message, 'transient'),
      request: (count) =>
        ask(count, (i) => host.request(names[i % actors] as Address, PEEK, TRANSIENT)),
      handled: () => host.counts.delivered,
      close: () => host.stop(),
    };
  };

const TRANSIENT = { delivery: 'transient' } as const;

type Answer = (count: number) => void;

const emitter: Peer = (actors) => {
  const events = new EventEmitter();
  const counts = new Uint32Array(actors);
  const names = Array.from({ length: actors }, (_, name) => `${name}`);
  let asked = 0;
  for (const [i, name] of names.entries()) {
    events.on(name, (answer?: Answer) => {
      if (answer === undefined) counts[i] = (counts[i] ?? 0) + 1;
      else {
        asked++;
        answer(counts[i] ?? 0);
      }
    });
  }
  const nameOf = (i: number): string => names[i % actors] as string;
  return {
    send: async (count) => {
      for (let i = 0; i < count; i++) events.emit(nameOf(i));
    },
    request: (count) =>
      ask(count, (i) => new Promise<number>((resolve) => events.emit(nameOf(i), resolve))),
    handled: () => asked + counts.reduce((sum, n) => sum + n, 0),
    close: () => void events.removeAllListeners(),
  };
};

const subject: Peer = (actors) => {
  const counts = new Uint32Array(actors);
  let asked = 0;
  const subjects = Array.from({ length: actors }, (_, name) => {
    const mailbox = new Subject<Answer | undefined>();
    mailbox.subscribe((answer) => {
      if (answer === undefined) counts[name] = (counts[name] ?? 0) + 1;
      else {
        asked++;
        answer(counts[name] ?? 0);
      }
    });
    return mailbox;
  });
  return {
    send: async (count) => {
      for (let i = 0; i < count; i++) subjects[i % actors]?.next(undefined);
    },
    request: (count) =>
      ask(count, (i) => new Promise<number>((resolve) => subjects[i % actors]?.next(resolve))),
    handled: () => asked + counts.reduce((sum, n) => sum + n, 0),
    close: () => {
      for (const mailbox of subjects) mailbox.complete();
    },
  };
};

interface NactMessage {
  readonly sender?: unknown;
}

const nact: Peer = (actors) => {
  const system = start();
  const countdown = new Countdown();
  let handled = 0;
  const refs = Array.from({ length: actors }, (_, name) =>
    spawn(
      system as never,
      (count: number = 0, { sender }: NactMessage) => {
        handled++;
        countdown.tick();
        if (sender === undefined) return count + 1;
        dispatch(sender as never, count as never);
        return count;
      },
      `number-${name}`,
    ),
  );
  return {
    send: async (count) => {
      const done = countdown.start(count);
      for (let i = 0; i < count; i++) dispatch(refs[i % actors] as never, {} as never);
      await done;
    },
    request: (count) => {
      const done = countdown.start(count);
      return ask(count, (i) =>
        query(refs[i % actors] as never, ((sender: unknown) => ({ sender })) as never, 30_000),
      ).then(() => done);
    },
    handled: () => handled,
    close: () => stop(system as never),
  };
};

type CounterEvent = { type: 'add' } | { type: 'ask'; answer: Answer };

let asked = 0;
const counter = setup({
  types: { context: {} as { count: number }, events: {} as CounterEvent },
}).createMachine({
  id: 'counter',
  context: () => ({ count: 0 }),
  on: {
    add: { actions: assign({ count: ({ context }) => context.count + 1 }) },
    ask: {
      actions: ({ context, event }) => {
        asked++;
        event.answer(context.count);
      },
    },
  },
});
type Counter = ActorRefFrom<typeof counter>;

const clerk = setup({
  types: { events: {} as { type: 'pass'; to: Counter; event: CounterEvent } },
}).createMachine({
  on: {
    pass: {
      actions: sendTo(
        ({ event }) => event.to,
        ({ event }) => event.event,
      ),
    },
  },
});

const xstate =
  (how: 'send' | 'sendTo'): Peer =>
  (actors) => {
    asked = 0;
    const refs = Array.from({ length: actors }, () => createActor(counter).start());
    const sender = createActor(clerk).start();
    const pass = (i: number, event: CounterEvent): void => {
      const to = refs[i % actors] as Counter;
      if (how === 'send') to.send(event);
      else sender.send({ type: 'pass', to, event });
    };
    return {
      send: async (count) => {
        for (let i = 0; i < count; i++) pass(i, { type: 'add' });
      },
      request: (count) =>
        ask(count, (i) => new Promise((answer) => pass(i, { type: 'ask', answer }))),
      handled: () => asked + refs.reduce((sum, ref) => sum + ref.getSnapshot().context.count, 0),
      close: () => {
        sender.stop();
        for (const ref of refs) ref.stop();
      },
    };
  };

const PEERS: ReadonlyMap<string, Peer> = new Map([
  ['Troupe, durable', durable],
  ['Troupe, transient, state kept', transient(ADD)],
  ['Troupe, transient', transient(PEEK)],
  [BASE, nact],
  ['XState `send`', xstate('send')],
  ['XState `sendTo`', xstate('sendTo')],
  ['eventemitter3', emitter],
  ['RxJS Subject', subject],
]);
