import { statSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { assign, setup } from 'xstate';
import type { Address } from '../src/protocol/address.ts';
import type { DurableHost } from '../src/runtime/durable-host.ts';
import { PackedStore } from '../src/store/payload/packed-store.ts';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import { makeHost } from './place.ts';
import { type Bench, type BenchOptions, Samples, type Table } from './report.ts';

const KINDS = ['packed', 'plain'] as const;
type Kind = (typeof KINDS)[number];

const SAID = 1_000;
const ACTOR: Address = 'conversation/one';

/** Keeps all that was said, as an agent keeps the messages of its model. */
const conversation = setup({
  types: {
    context: {} as { said: readonly string[] },
    input: {} as { said: readonly string[] },
    events: {} as { type: 'say'; text: string },
  },
}).createMachine({
  id: 'conversation',
  context: ({ input }) => ({ said: input.said }),
  on: {
    say: { actions: assign({ said: ({ context, event }) => [...context.said, event.text] }) },
  },
});

let files = 0;
let seed = 1;

/** Words that are never the same twice: about half of it can be compressed away, as of what people write. */
function words(length: number): string {
  const all: string[] = [];
  for (let made = 0; made < length; ) {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    const word = VOCABULARY[(seed >>> 0) % VOCABULARY.length] as string;
    all.push(word);
    made += word.length + 1;
  }
  return all.join(' ').slice(0, length);
}

const VOCABULARY = Array.from({ length: 4_000 }, (_, i) =>
  ((i * 2_654_435_761) >>> 7).toString(36).slice(0, 2 + (i % 7)),
);

/**
 * A conversation that grows by 1 kB in each turn, with a checkpoint for each: what a history of whole states costs.
 *
 * How: one actor keeps an array of texts in its context; a client sends it the next one and waits until the turn is
 * stored. Each figure has a new database file, durability `full`. `plain` is the same host on the same SQLite store
 * without PackedStore, so that each checkpoint holds the whole state. The size is that of the file and its log after
 * the log was checkpointed and cut to nothing. Nothing is pruned.
 *
 * CPU time is that of all threads. A turn of n bytes cannot cost less than making n bytes of JSON: that part is in both.
 *
 * Cheating would be: text that compresses to nothing, turns that leave no checkpoint, or counting before the log is in
 * the file.
 */
export const conversationBench: Bench = {
  title: 'Conversations: growth of the history, and cost of a turn against the size of the state',
  async run(options: BenchOptions): Promise<readonly Table[]> {
    const samples = new Samples();
    const lengths = options.quick ? [40, 80] : [250, 500, 1_000];
    const sizes = options.quick ? [1, 100] : [1, 10, 100, 1_000, 10_000];
    for (let run = 0; run < options.runs; run++) {
      for (const kind of KINDS) {
        for (const turns of lengths) {
          const { bytes, ms } = await grow(kind, turns, options.directory);
          samples.add(`${kind} ${turns} bytes`, bytes / 1e6);
          samples.add(`${kind} ${turns} ms`, ms);
        }
        for (const size of sizes) {
          const { ms, cpu, bytes } = await turnsOfSize(kind, size, options);
          samples.add(`${kind} ${size} turn`, ms);
          samples.add(`${kind} ${size} cpu`, cpu);
          samples.add(`${kind} ${size} stored`, bytes / 1e3);
        }
      }
    }
    return [
      {
        columns: [
          'turns',
          'packed, MB',
          'plain, MB',
          'plain : packed',
          'packed, ms per turn',
          'plain, ms per turn',
        ],
        rows: lengths.map((turns) => [
          String(turns),
          samples.of(`packed ${turns} bytes`),
          samples.of(`plain ${turns} bytes`),
          samples.ratio(`plain ${turns} bytes`, `packed ${turns} bytes`),
          samples.of(`packed ${turns} ms`),
          samples.of(`plain ${turns} ms`),
        ]),
      },
      {
        columns: [
          'state, kB',
          'packed, ms per turn',
          'plain, ms per turn',
          'packed : plain',
          'packed, CPU ms per turn',
          'plain, CPU ms per turn',
          'packed, kB stored per turn',
          'plain, kB stored per turn',
        ],
        rows: sizes.map((size) => [
          String(size),
          samples.of(`packed ${size} turn`),
          samples.of(`plain ${size} turn`),
          samples.ratio(`packed ${size} turn`, `plain ${size} turn`),
          samples.of(`packed ${size} cpu`),
          samples.of(`plain ${size} cpu`),
          samples.of(`packed ${size} stored`),
          samples.of(`plain ${size} stored`),
        ]),
      },
    ];
  },
};

async function open(kind: Kind, path: string): Promise<DurableHost> {
  const sqlite = await openSqliteStore({ path });
  // Nothing is pruned: what is measured is the history, not what is left of it.
  const host = makeHost(kind === 'packed' ? new PackedStore(sqlite) : sqlite, {
    retention: undefined,
  });
  host.register('conversation', conversation);
  await host.open();
  return host;
}

async function say(host: DurableHost): Promise<void> {
  const taken = new Promise<void>((resolve) => {
    const onTurn = (): void => {
      host.events.off('turn', onTurn);
      resolve();
    };
    host.events.on('turn', onTurn);
  });
  await host.send(ACTOR, { type: 'say', text: words(SAID) });
  await taken;
}

/** What the file takes when the log is in it. */
function sizeOf(path: string): number {
  const db = new Database(path);
  db.pragma('wal_checkpoint(TRUNCATE)');
  db.close();
  return statSync(path).size;
}

async function grow(
  kind: Kind,
  turns: number,
  directory: string,
): Promise<{ readonly bytes: number; readonly ms: number }> {
  const path = join(directory, `conversation-${files++}.db`);
  const host = await open(kind, path);
  await host.spawn([{ address: ACTOR, machine: 'conversation', input: { said: [] } }]);
  const begin = performance.now();
  for (let turn = 0; turn < turns; turn++) await say(host);
  const ms = (performance.now() - begin) / turns;
  await host.stop();
  return { bytes: sizeOf(path), ms };
}

async function turnsOfSize(
  kind: Kind,
  kilobytes: number,
  { quick, directory }: BenchOptions,
): Promise<{ readonly ms: number; readonly cpu: number; readonly bytes: number }> {
  const turns = quick ? 4 : 30;
  const path = join(directory, `conversation-${files++}.db`);
  const said = Array.from({ length: kilobytes }, () => words(SAID - 4));
  const first = await open(kind, path);
  await first.spawn([{ address: ACTOR, machine: 'conversation', input: { said } }]);
  await say(first);
  await first.stop();
  const before = sizeOf(path);
  const host = await open(kind, path);
  // The first turn after an opening has nothing to compare with; it is not timed.
  await say(host);
  const cpuBefore = process.cpuUsage();
  const begin = performance.now();
  for (let turn = 0; turn < turns; turn++) await say(host);
  const ms = (performance.now() - begin) / turns;
  const cpu = process.cpuUsage(cpuBefore);
  await host.stop();
  return {
    ms,
    cpu: (cpu.user + cpu.system) / 1000 / turns,
    bytes: (sizeOf(path) - before) / (turns + 1),
  };
}
