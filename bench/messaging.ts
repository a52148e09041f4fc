import { EventEmitter } from 'eventemitter3';
import { dispatch, query, spawn, start, stop } from 'nact';
import { Subject } from 'rxjs';
import { type ActorRefFrom, assign, createActor, sendTo, setup } from 'xstate';
import type { Message } from '../src/protocol/message.ts';
import type { DurableHost } from '../src/runtime/durable-host.ts';
import { MemoryStore } from '../src/store/memory/memory-store.ts';
import { ADD, ASK, notebookAddress, PEEK } from './notebook.ts';
import { openNotebooks, openStore, storedTurns } from './place.ts';
import { type Bench, Samples } from './report.ts';

/** Messages under way at once. */
const CLIENTS = 64;
const FAN_OUT = 10_000;

/** Something with so many actors that can be told and asked. */
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
 * number of messages. `request`: 64 askers, each asks when it was answered. `fan-out`: one message to each of 10 000. Every
 * receiver counts, and the counts must add up in the end, or the bench fails. Troupe is measured in both ways that it has:
 * `durable` is in a file, with `full` durability, and handled when the turn is stored; `transient` is without a store to
 * wait for, and its messages are not kept. The peers keep nothing, whatever happens. nact and XState are actors; the
 * emitter and the Subject call functions and have no mailbox.
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
  const sendBegin = performance.now();
  await place.send(messages);
  samples.add(`${name} send`, ((performance.now() - sendBegin) * 1_000) / messages);
  await place.request(warm);
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

/** Resolves when so many more were handled. */
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

async function sendToNotebooks(
  host: DurableHost,
  actors: number,
  count: number,
  message: Message,
  delivery: 'durable' | 'transient',
): Promise<void> {
  const turns = new Countdown();
  host.events.on('turn', turns.tick);
  for (let sent = 0; sent < count; sent += AT_ONCE) {
    const some = Math.min(AT_ONCE, count - sent);
    const handled = turns.start(some);
    for (let i = 0; i < some; i++) {
      const to = notebookAddress((sent + i) % actors);
      if (delivery === 'durable') void host.send(to, message);
      else void host.send(to, message, { delivery });
    }
    await handled;
  }
  host.events.off('turn', turns.tick);
}

const durable: Peer = async (actors, directory) => {
  const store = await openStore('full', directory);
  const host = await openNotebooks(store, actors);
  return {
    send: (count) => sendToNotebooks(host, actors, count, ADD, 'durable'),
    request: (count) => ask(count, (i) => host.request(notebookAddress(i % actors), ASK)),
    handled: async () => {
      await host.flush();
      return await storedTurns(store);
    },
    close: () => host.stop(),
  };
};

const transient: Peer = async (actors) => {
  const store = new MemoryStore();
  const host = await openNotebooks(store, actors);
  let answered = 0;
  return {
    send: (count) => sendToNotebooks(host, actors, count, ADD, 'transient'),
    request: (count) =>
      ask(count, async (i) => {
        await host.request(notebookAddress(i % actors), PEEK, { delivery: 'transient' });
        answered++;
      }),
    handled: async () => answered + (await storedTurns(store)),
    close: () => host.stop(),
  };
};

const emitter: Peer = (actors) => {
  const events = new EventEmitter();
  const counts = new Uint32Array(actors);
  for (let name = 0; name < actors; name++) {
    events.on(`${name}`, (answer?: (count: number) => void) => {
      counts[name] = (counts[name] ?? 0) + 1;
      answer?.(counts[name] ?? 0);
    });
  }
  return {
    send: async (count) => {
      for (let i = 0; i < count; i++) events.emit(`${i % actors}`);
    },
    request: (count) =>
      ask(count, (i) => new Promise<number>((resolve) => events.emit(`${i % actors}`, resolve))),
    handled: () => counts.reduce((sum, n) => sum + n, 0),
    close: () => void events.removeAllListeners(),
  };
};

const subject: Peer = (actors) => {
  const counts = new Uint32Array(actors);
  const subjects = Array.from({ length: actors }, (_, name) => {
    const mailbox = new Subject<((count: number) => void) | undefined>();
    mailbox.subscribe((answer) => {
      counts[name] = (counts[name] ?? 0) + 1;
      answer?.(counts[name] ?? 0);
    });
    return mailbox;
  });
  return {
    send: async (count) => {
      for (let i = 0; i < count; i++) subjects[i % actors]?.next(undefined);
    },
    request: (count) =>
      ask(count, (i) => new Promise<number>((resolve) => subjects[i % actors]?.next(resolve))),
    handled: () => counts.reduce((sum, n) => sum + n, 0),
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
        if (sender !== undefined) dispatch(sender as never, (count + 1) as never);
        countdown.tick();
        return count + 1;
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

const counter = setup({
  types: {
    context: {} as { count: number },
    events: {} as { type: 'add' } | { type: 'ask'; answer: (count: number) => void },
  },
}).createMachine({
  id: 'counter',
  context: () => ({ count: 0 }),
  on: {
    add: { actions: assign({ count: ({ context }) => context.count + 1 }) },
    ask: {
      actions: [
        assign({ count: ({ context }) => context.count + 1 }),
        ({ context, event }) => event.answer(context.count),
      ],
    },
  },
});
type CounterEvent = { type: 'add' } | { type: 'ask'; answer: (count: number) => void };

const xstate: Peer = (actors) => {
  const refs = Array.from({ length: actors }, () => createActor(counter).start());
  const clerk = setup({
    types: {
      events: {} as { type: 'pass'; to: ActorRefFrom<typeof counter>; event: CounterEvent },
    },
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
  const sender = createActor(clerk).start();
  const pass = (i: number, event: CounterEvent): void =>
    sender.send({ type: 'pass', to: refs[i % actors] as ActorRefFrom<typeof counter>, event });
  return {
    send: async (count) => {
      for (let i = 0; i < count; i++) pass(i, { type: 'add' });
    },
    request: (count) =>
      ask(count, (i) => new Promise((answer) => pass(i, { type: 'ask', answer }))),
    handled: () => refs.reduce((sum, ref) => sum + ref.getSnapshot().context.count, 0),
    close: () => {
      sender.stop();
      for (const ref of refs) ref.stop();
    },
  };
};

const PEERS: ReadonlyMap<string, Peer> = new Map([
  ['Troupe, durable', durable],
  ['Troupe, transient', transient],
  [BASE, nact],
  ['XState `sendTo`', xstate],
  ['eventemitter3', emitter],
  ['RxJS Subject', subject],
]);
