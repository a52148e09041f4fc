import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import type { Batch, CheckpointRecord, Store } from '../../src/store/store.ts';
import { pruneAll } from './pruning-contract.ts';
import { actor, batch, checkpoint, cut, effect, message, timer } from './rows.ts';

/** Of one history: the run that is cut and its tasks, and somebody else. */
const addressesOf = (run: string) => [
  `run/${run}`,
  `task/${run}/a`,
  `task/${run}/b`,
  `inbox/${run}`,
];

type Step =
  | {
      readonly do: 'turn';
      readonly who: number;
      readonly kind: CheckpointRecord['kind'];
      readonly label: string | null;
    }
  | { readonly do: 'cut'; readonly keep: number | null }
  | { readonly do: 'wait'; readonly who: number }
  | { readonly do: 'prune'; readonly keep: number };

const who = fc.nat({ max: 3 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant('turn' as const),
      who,
      kind: fc.constantFrom(
        'auto',
        'auto',
        'auto',
        'auto',
        'error',
        'manual',
        'milestone',
        'rollback',
      ),
      label: fc.constantFrom(null, null, null, null, 'a label', ''),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('cut' as const), keep: fc.constantFrom(null, 1, 2) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), who }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('prune' as const),
      keep: fc.integer({ min: 1, max: 6 }),
    }),
  },
);

/** What must be there: the whole history, and what may have gone from it. */
class Model {
  readonly history = new Map<string, CheckpointRecord[]>();
  readonly gone = new Set<CheckpointRecord>();
  cuts: { readonly id: string; readonly members: ReadonlyMap<string, number> }[] = [];

  prune(keep: number): void {
    for (const [address, list] of this.history) {
      for (const row of list) {
        const pinned = this.cuts.some(({ members }) => members.get(address) === row.seq);
        const old = row.seq <= list.length - 1 - keep;
        const daily = row.kind === 'auto' || row.kind === 'error';
        if (old && daily && row.label === null && !pinned) this.gone.add(row);
      }
    }
  }
}

async function live(store: Store, run: string, steps: readonly Step[]): Promise<void> {
  const addresses = addressesOf(run);
  const model = new Model();
  let made = 0;
  for (const now of steps) {
    let rows: Partial<Batch> = {};
    switch (now.do) {
      case 'turn': {
        const address = addresses[now.who] as string;
        const list = model.history.get(address) ?? [];
        const seq = list.length;
        const row = checkpoint({
          address,
          seq,
          kind: now.kind,
          label: now.label,
          snapshotJson: `{"n":${made++}}`,
        });
        model.history.set(address, [...list, row]);
        rows = { actors: [actor({ address, seq })], checkpoints: [row] };
        break;
      }
      case 'cut': {
        const id = `${run}c${made++}`;
        const members = new Map(
          [...model.history]
            .filter(([a]) => a !== `inbox/${run}`)
            .map(([a, list]) => [a, list.length - 1]),
        );
        model.cuts.push({ id, members });
        if (now.keep !== null) model.cuts = model.cuts.slice(-now.keep);
        rows = {
          cuts: [
            cut({
              id,
              run,
              address: `run/${run}`,
              prefix: `task/${run}/`,
              kind: 'timed',
              keep: now.keep,
            }),
          ],
        };
        break;
      }
      case 'wait': {
        const address = addresses[now.who] as string;
        const id = `${run}w${made++}`;
        rows = {
          messages: [message({ id, to: address })],
          timers: [timer({ address, id })],
          effects: [effect({ address, id })],
        };
        break;
      }
      case 'prune': {
        const before = await store.loadPending();
        await pruneAll(store, { what: 'checkpoints', keepPerActor: now.keep });
        await pruneAll(store, { what: 'runs', endedBefore: Number.MAX_SAFE_INTEGER, busy: [] });
        model.prune(now.keep);
        expect(await store.loadPending()).toEqual(before);
        break;
      }
    }
    await store.commit(batch(rows));
  }
  const loaded = new Map(
    (await store.loadActors(addresses)).map((a) => [a.address, a.snapshotJson]),
  );
  for (const [address, list] of model.history) {
    expect(await store.listCheckpoints(address)).toEqual(
      list.filter((row) => !model.gone.has(row)),
    );
    expect(loaded.get(address)).toBe(list.at(-1)?.snapshotJson);
  }
  for (const { id, members } of model.cuts) {
    const stored = await store.loadCut(id);
    expect(new Map(stored?.members.map(({ address, seq }) => [address, seq]))).toEqual(members);
  }
}

test.each<{ name: string; open: () => Promise<Store>; numRuns: number }>([
  { name: 'memory', open: () => Promise.resolve(new MemoryStore()), numRuns: 300 },
  { name: 'sqlite', open: () => openSqliteStore({ path: ':memory:' }), numRuns: 60 },
])(
  '$name: whatever happens before and after, pruning removes what may go, and no more',
  async ({ open, numRuns }) => {
    // One store for all histories: what others have is not touched either.
    const store = await open();
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) =>
        live(store, `r${runs++}`, steps),
      ),
      { numRuns },
    );
    await store.close();
  },
);
