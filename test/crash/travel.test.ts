import { copyFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { openReadOnlyStore } from '../../src/store/sqlite/read-only.ts';
import { ALL_FAULTS, firstOf } from '../extent.ts';
import { Life, scratch } from './life.ts';
import type { TravelOrders } from './travel.child.ts';

const POINTS = firstOf(4, [
  'host.before-commit',
  'store.mid-transaction',
  'store.after-commit',
  'host.after-effects',
  'store.before-begin',
  'store.before-commit',
  'host.after-commit',
]);

/** Everything that a rollback changes, as it is stored. */
async function stored(file: string) {
  const store = await openReadOnlyStore(file);
  try {
    const cuts = await store.listCuts('r');
    const half = await store.loadCut(cuts.find(({ label }) => label === 'half')?.id ?? '');
    const members = await Promise.all(
      (half?.members ?? []).map(async ({ address, seq }) => {
        const [was] = await store.listCheckpoints(address, { fromSeq: seq, toSeq: seq });
        const all = await store.listCheckpoints(address);
        const back = all.find(({ kind, label }) => kind === 'rollback' && label?.includes('cut'));
        return { address, was, back };
      }),
    );
    const rows = await store.listTasks('r');
    const runs = (await store.listRuns()).map(({ run }) => run);
    const forked = (await store.listActors()).filter(({ address }) =>
      /^(?:task|run)\/f/.test(address),
    );
    return { cuts, members, rows, runs, forked };
  } finally {
    await store.close();
  }
}

describe.each(['rollback', 'fork'] as const)('a %s that is killed', (journey) => {
  test('has happened whole or not at all, and what is stored goes on to its end', async () => {
    const directory = scratch();
    const origin = path.join(directory, 'origin.db');
    await new Life('travel', { store: origin, do: 'begin' }).finished();
    let happened = 0;
    let not = 0;
    let kills = 0;
    const ended = new Set<string>();
    for (const point of POINTS) {
      // Two commits are its own: the cut before it, and itself.
      for (let hit = 1; hit <= 3; hit++) {
        const store = path.join(directory, `${point}-${hit}.db`);
        copyFileSync(origin, store);
        const orders: TravelOrders = { store, do: journey, killAt: { point, hit } };
        const life = new Life('travel', { ...orders });
        const death = await life.death();
        if (death !== 'SIGKILL') {
          expect(death, life.stderr).toBe(0);
          break;
        }
        kills++;
        const { cuts, members, runs, forked } = await stored(store);
        expect(members).toHaveLength(7);
        const back = members.filter((member) => member.back !== undefined);
        // One commit: all of them or none.
        expect([0, 7], `${point} ${hit}`).toContain(back.length);
        expect([0, 7], `${point} ${hit}`).toContain(forked.length);
        expect(runs.includes('f')).toBe(forked.length > 0);
        for (const { was, back: now } of back) expect(now?.snapshotJson).toBe(was?.snapshotJson);
        if (back.length + forked.length > 0) happened++;
        else not++;
        const state = `${cuts.length} ${back.length} ${forked.length}`;
        // It is one of a few states: here each is run to its end once, by `npm run faults` every time.
        if (!ALL_FAULTS && ended.has(state)) continue;
        ended.add(state);
        const last = new Life('travel', { store, do: 'finish' });
        await last.finished();
        for (const run of runs) expect(last.lines).toContain(`ended ${run} done 6`);
        const end = await stored(store);
        expect(end.rows.map(({ state, attempts }) => `${state} ${attempts}`)).toEqual(
          Array.from({ length: 6 }, () => 'done 1'),
        );
      }
    }
    // What was never seen to happen, or never seen not to, has proved nothing.
    expect(kills).toBeGreaterThan(POINTS.length);
    expect(happened).toBeGreaterThan(0);
    expect(not).toBeGreaterThan(0);
    expect(ended.size).toBeGreaterThan(1);
  }, 600_000);
});
