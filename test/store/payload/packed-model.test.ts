import Database from 'better-sqlite3';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { dropUnusedChunks } from '../../../src/store/memory/memory-chunks.ts';
import { MemoryStore } from '../../../src/store/memory/memory-store.ts';
import { PackedStore } from '../../../src/store/payload/packed-store.ts';
import { flattenBatch } from '../../../src/store/sqlite/batch-rows.ts';
import { migrate, readMigrations } from '../../../src/store/sqlite/migrations.ts';
import { SqliteConnection } from '../../../src/store/sqlite/sqlite-connection.ts';
import type { Batch, Store } from '../../../src/store/store.ts';
import { ALL_FAULTS } from '../../extent.ts';
import {
  actor,
  batch,
  checkpoint,
  deadLetter,
  effect,
  message,
  runRow,
  step,
  timer,
} from '../rows.ts';
import { prose } from './prose.ts';

/*
 * Long texts that change, meet, are handled, pruned, copied and forgotten in any order, behind the packer's back too:
 * whatever is still named can be read as it was written, and what is stored is what is named.
 */

const ACTORS = ['inbox/a', 'inbox/b'] as const;

/** How a text changes. */
type Change =
  | { readonly do: 'append' | 'insert' | 'cut'; readonly at: number; readonly length: number }
  | { readonly do: 'replace'; readonly seed: number }
  | { readonly do: 'shrink' };

type Action =
  | { readonly do: 'turn'; readonly actor: number; readonly change: Change; readonly also: Also }
  | { readonly do: 'sameTurnAgain'; readonly actor: number }
  | { readonly do: 'prune'; readonly actor: number; readonly upTo: number }
  | { readonly do: 'copyNewest'; readonly actor: number }
  | { readonly do: 'forget'; readonly actor: number };

/** What else is in the batch, with the actor's text or a part of it. */
type Also = Readonly<
  Record<'send' | 'handle' | 'bury' | 'effect' | 'step' | 'clear' | 'run', boolean>
>;

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({
    do: fc.constantFrom('append' as const, 'append' as const, 'insert' as const, 'cut' as const),
    at: fc.nat(),
    length: fc.integer({ min: 1, max: 20_000 }),
  }),
  fc.record({ do: fc.constant('replace' as const), seed: fc.nat({ max: 3 }) }),
  fc.record({ do: fc.constant('shrink' as const) }),
);
const bit = fc.boolean();
const also: fc.Arbitrary<Also> = fc.record({
  ...{ send: bit, handle: bit, bury: bit, effect: bit, step: bit, clear: bit, run: bit },
});
const actorIndex = fc.nat({ max: ACTORS.length - 1 });
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('turn' as const), actor: actorIndex, change, also }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('sameTurnAgain' as const), actor: actorIndex }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('prune' as const), actor: actorIndex, upTo: fc.nat() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('copyNewest' as const), actor: actorIndex }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('forget' as const), actor: actorIndex }) },
);
const actions = fc.array(action, { minLength: 5, maxLength: 40, size: 'max' });

/** A disk, and what others do to it without the packer. */
interface Disk {
  readonly store: Store;
  prune(address: string, below: number): void;
  /** The newest checkpoint once more, as the next one. */
  copyNewest(address: string, seq: number): void;
  forget(address: string): void;
  /** Nothing is missing, nothing is left over, every count is right. */
  check(): void;
}

function sqliteDisk(): Disk {
  const db = new Database(':memory:');
  migrate(db, readMigrations());
  const connection = new SqliteConnection(db, ':memory:');
  const { reader } = connection;
  const inTransaction = (write: () => void): void => {
    connection.begin();
    write();
    connection.commit();
  };
  const store = {
    name: 'sqlite',
    commit: async (rows: Batch) => {
      connection.begin();
      try {
        connection.apply(flattenBatch(rows), () => undefined);
        connection.commit();
      } catch (error) {
        connection.rollback();
        throw error;
      }
    },
    loadChunks: async (lists: readonly string[]) => reader.loadChunks(lists),
    loadActors: async (addresses: readonly string[]) => reader.loadActors(addresses),
    loadPending: async () => reader.loadPending(),
    loadSteps: async (scope: string) => reader.loadSteps(scope),
    listCheckpoints: async (address: string) => reader.listCheckpoints(address),
    listDeadLetters: async () => reader.listDeadLetters(),
    listRuns: async () => reader.listRuns(),
    close: async () => undefined,
  } as unknown as Store;
  return {
    store,
    prune: (address, below) =>
      inTransaction(() => {
        db.prepare('DELETE FROM checkpoints WHERE address = ? AND seq < ?').run(address, below);
      }),
    copyNewest: (address, seq) =>
      inTransaction(() => {
        db.prepare(
          `INSERT INTO checkpoints (address, seq, at, kind, version, event_json, snapshot_json)
           SELECT address, seq + 1, at, 'rollback', version, event_json, snapshot_json
           FROM checkpoints WHERE address = ? AND seq = ?`,
        ).run(address, seq);
        db.prepare('UPDATE actors SET seq = seq + 1 WHERE address = ?').run(address);
      }),
    forget: (address) =>
      inTransaction(() => {
        for (const table of ['checkpoints', 'actors', 'effects', 'timers']) {
          db.prepare(`DELETE FROM ${table} WHERE address = ?`).run(address);
        }
      }),
    check: () => checkCounts(db),
  };
}

/** Every column of every table that may hold a manifest, counted by hand. */
function checkCounts(db: Database.Database): void {
  const tables = db
    .prepare<[], string>("SELECT name FROM sqlite_schema WHERE type = 'table'")
    .pluck()
    .all();
  const named = new Map<string, number>();
  for (const table of tables) {
    const columns = db.prepare<[string], string>('SELECT name FROM pragma_table_info(?)').pluck();
    for (const column of columns.all(table).filter((name) => name.endsWith('_json'))) {
      const texts = db.prepare<[], string>(
        `SELECT ${column} FROM ${table} WHERE ${column} LIKE '={%'`,
      );
      for (const text of texts.pluck().all()) {
        const { lists } = JSON.parse(text.slice(1)) as { lists: readonly string[] };
        for (const list of new Set(lists)) named.set(list, (named.get(list) ?? 0) + 1);
      }
    }
  }
  const lists = db.prepare<[], { name: string; refs: number; chunks: string }>(
    'SELECT name, refs, chunks FROM chunk_lists',
  );
  const inLists = new Map<string, number>();
  const counted = new Map<string, number>();
  for (const { name, refs, chunks } of lists.all()) {
    counted.set(name, refs);
    for (const chunk of new Set(JSON.parse(chunks) as string[])) {
      inLists.set(chunk, (inLists.get(chunk) ?? 0) + 1);
    }
  }
  expect(sorted(counted)).toEqual(sorted(named));
  const chunks = db.prepare<[], { name: string; refs: number }>(
    'SELECT name, refs FROM chunks JOIN chunk_data USING (id)',
  );
  expect(sorted(new Map(chunks.all().map(({ name, refs }) => [name, refs])))).toEqual(
    sorted(inLists),
  );
  const data = db.prepare('SELECT count(*) FROM chunk_data').pluck().get();
  expect(data).toBe(inLists.size);
}

const sorted = (counts: ReadonlyMap<string, number>): unknown => [...counts].sort();

function memoryDisk(): Disk {
  const store = new MemoryStore();
  const { data } = store;
  const isStored = (address: string): boolean => data.actors.has(address);
  return {
    store,
    prune: (address, below) => {
      const kept = data.checkpoints.get(address)?.filter(({ seq }) => seq >= below) ?? [];
      data.checkpoints.set(address, kept);
      dropUnusedChunks(data);
    },
    copyNewest: (address, seq) => {
      const list = data.checkpoints.get(address) ?? [];
      const newest = list.find((one) => one.seq === seq);
      if (newest === undefined || !isStored(address)) return;
      list.push({ ...newest, seq: seq + 1, kind: 'rollback' });
      data.actors.set(address, actor({ address, seq: seq + 1 }));
    },
    forget: (address) => {
      data.checkpoints.delete(address);
      data.actors.delete(address);
      data.effects.delete(address);
      data.timers.delete(address);
      dropUnusedChunks(data);
    },
    check: () => {
      dropUnusedChunks(data);
      for (const chunks of data.chunkLists.values()) {
        for (const name of chunks) expect(data.chunks.has(name)).toBe(true);
      }
    },
  };
}

/** What the store is expected to hold, in plain texts. */
class Expected {
  readonly seqs = new Map<string, number>();
  readonly checkpoints = new Map<string, Map<number, string>>();
  readonly messages = new Map<string, string>();
  readonly effects = new Map<string, string>();
  readonly timers = new Map<string, string>();
  readonly letters: string[] = [];
  steps = new Map<string, string>();
  run: string | undefined;
}

function changed(text: string, how: Change): string {
  switch (how.do) {
    case 'append':
      return text + prose(how.length, how.at % 7);
    case 'insert': {
      const at = how.at % (text.length + 1);
      return text.slice(0, at) + prose(how.length, how.at % 5) + text.slice(at);
    }
    case 'cut': {
      const at = how.at % (text.length + 1);
      return text.slice(0, at) + text.slice(at + how.length);
    }
    case 'replace':
      return prose(100_000, how.seed);
    case 'shrink':
      return 'small';
  }
}

async function carryOut(
  store: Store,
  disk: Disk,
  expected: Expected,
  what: Action,
  n: number,
): Promise<void> {
  const address = ACTORS[what.actor] as string;
  const seq = expected.seqs.get(address) ?? -1;
  const history = expected.checkpoints.get(address) ?? new Map<number, string>();
  expected.checkpoints.set(address, history);
  switch (what.do) {
    case 'turn': {
      const text = changed(history.get(seq) ?? prose(40_000), what.change);
      expected.seqs.set(address, seq + 1);
      history.set(seq + 1, text);
      const { also: extra } = what;
      const consumed = extra.handle ? [...expected.messages.keys()].slice(0, 2) : [];
      const buried = extra.bury ? consumed.map((id) => expected.messages.get(id) as string) : [];
      for (const id of consumed) expected.messages.delete(id);
      expected.letters.push(...buried);
      if (extra.send) expected.messages.set(`m${n}`, text);
      const had = expected.effects.has(address);
      if (extra.effect) expected.effects.set(address, text);
      else if (extra.clear) expected.effects.delete(address);
      if (extra.run) {
        expected.run = text;
        expected.timers.set(address, text);
      }
      if (extra.step) expected.steps.set(`k${n}`, text);
      if (extra.clear) expected.steps = new Map();
      await store.commit(
        batch({
          actors: [actor({ address, seq: seq + 1 })],
          checkpoints: [
            checkpoint({
              address,
              seq: seq + 1,
              snapshotJson: text,
              eventJson: text.slice(0, 50_000),
              pendingJson: extra.effect ? text.slice(1_000) : null,
              detailsJson: extra.run ? text : null,
            }),
          ],
          consumed,
          messages: extra.send ? [message({ id: `m${n}`, messageJson: text })] : [],
          clearedEffects: extra.clear && had ? [{ address, id: 'e' }] : [],
          effects: extra.effect ? [effect({ address, id: 'e', inputJson: text })] : [],
          timers: extra.run ? [timer({ address, actionJson: text })] : [],
          steps: extra.step ? [step({ scope: 's', key: `k${n}`, outcomeJson: text })] : [],
          clearedSteps: extra.clear ? ['s'] : [],
          deadLetters: buried.map((messageJson) => deadLetter({ messageJson })),
          projections: extra.run ? [{ table: 'runs', row: runRow({ detailsJson: text }) }] : [],
        }),
      );
      return;
    }
    case 'sameTurnAgain': {
      if (seq < 0) return;
      const text = changed(history.get(seq) ?? '', { do: 'replace', seed: 9 });
      const refused = store.commit(
        batch({ checkpoints: [checkpoint({ address, seq, snapshotJson: text })] }),
      );
      await expect(refused).rejects.toMatchObject({ code: 'conflict' });
      return;
    }
    case 'prune': {
      // Never the newest one.
      const below = what.upTo % (seq + 1 || 1);
      for (const old of history.keys()) if (old < below) history.delete(old);
      disk.prune(address, below);
      return;
    }
    case 'copyNewest':
      if (seq < 0) return;
      expected.seqs.set(address, seq + 1);
      history.set(seq + 1, history.get(seq) as string);
      disk.copyNewest(address, seq);
      return;
    case 'forget':
      expected.seqs.delete(address);
      history.clear();
      expected.effects.delete(address);
      expected.timers.delete(address);
      disk.forget(address);
      return;
  }
}

async function compare(store: Store, expected: Expected): Promise<void> {
  for (const address of ACTORS) {
    const stored = await store.listCheckpoints(address);
    expect(stored.map(({ seq, snapshotJson }) => [seq, snapshotJson])).toEqual([
      ...(expected.checkpoints.get(address) ?? []),
    ]);
    for (const { eventJson, snapshotJson, kind } of stored) {
      if (kind === 'auto') expect(eventJson).toBe(snapshotJson.slice(0, 50_000));
    }
    const [loaded] = await store.loadActors([address]);
    const seq = expected.seqs.get(address);
    expect(loaded?.snapshotJson).toBe(
      seq === undefined ? undefined : expected.checkpoints.get(address)?.get(seq),
    );
  }
  const { messages, effects, timers } = await store.loadPending();
  expect(messages.map(({ messageJson }) => messageJson)).toEqual([...expected.messages.values()]);
  expect(effects.map(({ inputJson }) => inputJson).sort()).toEqual(
    [...expected.effects.values()].sort(),
  );
  expect(timers.map(({ actionJson }) => actionJson).sort()).toEqual(
    [...expected.timers.values()].sort(),
  );
  expect((await store.listDeadLetters()).map(({ messageJson }) => messageJson)).toEqual(
    expected.letters,
  );
  expect((await store.loadSteps('s')).map(({ outcomeJson }) => outcomeJson)).toEqual([
    ...expected.steps.values(),
  ]);
  expect((await store.listRuns())[0]?.detailsJson).toBe(expected.run);
}

test.each([
  ['sqlite', sqliteDisk],
  ['memory', memoryDisk],
] as const)(
  '%s: whatever is named is there, and nothing else',
  async (_, open) => {
    await fc.assert(
      fc.asyncProperty(actions, async (list) => {
        const disk = open();
        const store = new PackedStore(disk.store);
        const expected = new Expected();
        for (const [n, what] of list.entries()) {
          await carryOut(store, disk, expected, what, n);
          disk.check();
        }
        await compare(store, expected);
      }),
      { numRuns: ALL_FAULTS ? 500 : 25 },
    );
  },
  120_000,
);
