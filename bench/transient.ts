import { setTimeout as delay, setImmediate as nextTurnOfLoop } from 'node:timers/promises';
import { EventEmitter } from 'eventemitter3';
import { filter, firstValueFrom, map, Subject, timeout } from 'rxjs';
import { setup } from 'xstate';
import type { Address } from '../src/protocol/address.ts';
import { MachineDriver } from '../src/runtime/xstate-driver.ts';
import { MemoryStore } from '../src/store/memory/memory-store.ts';
import { notebook, notebookAddress, PEEK } from './notebook.ts';
import { openNotebooks } from './place.ts';
import { type Bench, type Figure, percentile, Samples, timeEach } from './report.ts';

const POLL_MS = 50;
const TIMEOUT_MS = 30_000;

/**
 * Messages that are not stored: how long until the receiver has one, and until its answer is there.
 *
 * How, one after the other, each timed by itself: `delivery`, from `host.send` to the call of the receiving
 * machine's guard; `request`, from `host.request` to the answer, the machine's turn and the timeout's timer included;
 * `bare`, `machine.transition` of the same event, without a host. Then the same round trip as one would write it
 * with what is installed anyway: an emitter or a Subject with a map of who waits, with and without a timer for each
 * request, and the RxJS way of `filter` and `firstValueFrom`. Those run no machine and check nothing. Last, an
 * asker that looks every 50 ms whether the answer is in a map; the answer is there at once, and the moments of the
 * questions are spread evenly over the 50 ms.
 *
 * Cheating would be: a delivery that ends in the mailbox and not in the machine, requests that cannot time out, and
 * peers that answer in the same call while ours must not (all of them are awaited here).
 */
export const transient: Bench = {
  title: 'Transient messages',
  async run({ quick, runs }) {
    const samples = new Samples();
    const count = quick ? 200 : 20_000;
    const note = (name: string, times: Float64Array): void => {
      samples.add(`${name} p50`, percentile(times, 0.5) * 1000);
      samples.add(`${name} p99`, percentile(times, 0.99) * 1000);
    };
    const peers = makePeers();
    for (let run = 0; run <= runs; run++) {
      // The first round only warms up.
      const keep = run === 0 ? () => undefined : note;
      keep('delivery', await timeDelivery(count));
      keep('request', await timeRequests(count));
      keep('bare', timeBare(count));
      for (const [name, ask] of peers) keep(name, await timeEach(count, ask));
      if (run > 0) note('polling', await timePolling(quick ? 2 : 20));
    }
    const names = ['delivery', 'request', 'bare', ...peers.keys(), 'polling'];
    const LABELS: Readonly<Record<string, string>> = {
      delivery: 'delivery: `host.send`, transient, until the machine looks at it',
      request: 'whole request: `host.request`, transient, until the answer is there',
      bare: 'bare `machine.transition` of the same event (own scope)',
      polling: `looking every ${POLL_MS} ms whether the answer is there`,
    };
    const ofBare = (name: string): string | Figure =>
      name === 'bare' ? '1' : samples.ratio(`${name} p50`, 'bare p50');
    return [
      {
        columns: ['what', 'p50 µs', 'p99 µs', 'p50 : bare transition'],
        rows: names.map((name) => [
          LABELS[name] ?? name,
          samples.of(`${name} p50`),
          samples.of(`${name} p99`),
          ofBare(name),
        ]),
      },
    ];
  },
};

async function timeDelivery(count: number): Promise<Float64Array> {
  let seenAt = 0;
  const probe = setup({
    // A guard that looks at a clock would be wrong in any machine but this one.
    guards: {
      note: () => {
        seenAt = performance.now();
        return false;
      },
    },
  }).createMachine({ id: 'probe', on: { 'probe.look': { guard: 'note' } } });
  const host = await openNotebooks(new MemoryStore(), 0);
  host.register('probe', probe);
  const address: Address = 'probe/one';
  await host.spawn([{ address, machine: 'probe' }]);
  const times = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    seenAt = 0;
    const before = performance.now();
    await host.send(address, { type: 'probe.look' }, { delivery: 'transient' });
    while (seenAt === 0) await nextTurnOfLoop();
    times[i] = seenAt - before;
  }
  await host.stop();
  return times.sort();
}

async function timeRequests(count: number): Promise<Float64Array> {
  const host = await openNotebooks(new MemoryStore(), 1);
  const times = await timeEach(count, () =>
    host.request(notebookAddress(0), PEEK, { delivery: 'transient', timeoutMs: TIMEOUT_MS }),
  );
  await host.stop();
  return times;
}

function timeBare(count: number): Float64Array {
  const driver = new MachineDriver(notebook, { freeze: false });
  const address = notebookAddress(0);
  const { snapshot } = driver.initial(address, { name: 0 });
  const event = {
    ...PEEK,
    meta: {
      id: 'app/client#1',
      from: 'app/client',
      at: 1,
      correlation: 'app/client!1',
      attempt: 1,
    },
  };
  const times = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const before = performance.now();
    driver.transition(address, snapshot, event);
    times[i] = performance.now() - before;
  }
  return times.sort();
}

interface Question {
  readonly id: string;
  readonly type: string;
}
interface Reply {
  readonly id: string;
  readonly value: number;
}

/** Who waits for which answer. */
class Waiting {
  readonly #resolvers = new Map<string, (value: number) => void>();

  ask(id: string, send: () => void): Promise<number> {
    return new Promise((resolve) => {
      this.#resolvers.set(id, resolve);
      send();
    });
  }

  askWithin(timeoutMs: number, id: string, send: () => void): Promise<number> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#resolvers.delete(id);
        reject(new Error(`no answer within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#resolvers.set(id, (value) => {
        clearTimeout(timer);
        resolve(value);
      });
      send();
    });
  }

  answered({ id, value }: Reply): void {
    this.#resolvers.get(id)?.(value);
    this.#resolvers.delete(id);
  }
}

function makePeers(): ReadonlyMap<string, () => Promise<unknown>> {
  const emitter = new EventEmitter<{
    question: (q: Question) => void;
    reply: (r: Reply) => void;
  }>();
  const byEmitter = new Waiting();
  emitter.on('question', ({ id }) => emitter.emit('reply', { id, value: 1 }));
  emitter.on('reply', (reply) => byEmitter.answered(reply));
  const emit = (id: string) => () => {
    emitter.emit('question', { id, type: 'note.peek' });
  };

  const questions = new Subject<Question>();
  const replies = new Subject<Reply>();
  const bySubject = new Waiting();
  questions.pipe(map(({ id }) => ({ id, value: 1 }))).subscribe(replies);
  replies.subscribe((reply) => bySubject.answered(reply));
  const next = (id: string) => () => questions.next({ id, type: 'note.peek' });

  let made = 0;
  const newId = (): string => `question ${made++}`;

  return new Map<string, () => Promise<unknown>>([
    [
      'eventemitter3 + map of who waits',
      () => {
        const id = newId();
        return byEmitter.ask(id, emit(id));
      },
    ],
    [
      'the same with a timeout',
      () => {
        const id = newId();
        return byEmitter.askWithin(TIMEOUT_MS, id, emit(id));
      },
    ],
    [
      'RxJS Subject + map of who waits',
      () => {
        const id = newId();
        return bySubject.ask(id, next(id));
      },
    ],
    [
      'RxJS Subject + map, with a timeout',
      () => {
        const id = newId();
        return bySubject.askWithin(TIMEOUT_MS, id, next(id));
      },
    ],
    [
      'RxJS `firstValueFrom(filter, timeout)`',
      () => {
        const id = newId();
        const reply = firstValueFrom(
          replies.pipe(
            filter((r) => r.id === id),
            timeout(TIMEOUT_MS),
          ),
        );
        questions.next({ id, type: 'note.peek' });
        return reply;
      },
    ],
  ]);
}

async function timePolling(count: number): Promise<Float64Array> {
  const results = new Map<number, number>();
  return await timeEach(count, async (i) => {
    setImmediate(() => results.set(i, 1));
    // The asker's clock ticks every 50 ms, whenever the question was put.
    await delay((POLL_MS * (i + 0.5)) / count);
    while (!results.has(i)) await delay(POLL_MS);
  });
}
