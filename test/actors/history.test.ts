import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { diffCheckpoints } from '../../src/actors/checkpoint-diff.ts';
import { checkNote, History } from '../../src/actors/history.ts';
import { canonicalJson } from '../../src/protocol/hash.ts';
import type { JsonValue } from '../../src/protocol/json.ts';
import { MemoryStore } from '../../src/store/memory/memory-store.ts';
import { actor, batch, checkpoint, cut } from '../store/rows.ts';

const ADDRESS = 'inbox/ada';
const snapshot = (context: JsonValue, value: JsonValue = 'open'): string =>
  JSON.stringify({ status: 'active', value, context });

/** An actor with so many checkpoints; some have labels. */
async function historyOf(count: number, labels: Readonly<Record<number, string>> = {}) {
  const store = new MemoryStore();
  await store.commit(
    batch({
      actors: [actor({ seq: count - 1 })],
      checkpoints: Array.from({ length: count }, (_, seq) =>
        checkpoint({ seq, label: labels[seq] ?? null, snapshotJson: snapshot({ seq }) }),
      ),
    }),
  );
  return { store, history: new History(store) };
}

describe('a checkpoint is found', () => {
  test('by its number, its label, the beginning of its id', async () => {
    const { history } = await historyOf(450, { 3: 'good', 7: 'good', 9: 'face' });
    const seqOf = async (ref: number | string) => (await history.checkpoint(ADDRESS, ref)).seq;
    expect(await seqOf(12)).toBe(12);
    expect(await seqOf('12')).toBe(12);
    expect(await seqOf('#12')).toBe(12);
    expect(await seqOf('good'), 'the newest of the name').toBe(7);
    const all = await history.checkpoints(ADDRESS);
    for (const seq of [0, 1, 200, 249, 449]) {
      expect(await seqOf(all[seq]?.id ?? '')).toBe(seq);
      expect(await seqOf((all[seq]?.id ?? '').slice(0, 9).toUpperCase())).toBe(seq);
    }
    // A label that could be the beginning of an id is a label.
    expect(await seqOf('face')).toBe(9);
  });

  test('or it is said which there are', async () => {
    const { store, history } = await historyOf(5, { 1: 'good' });
    await expect(history.checkpoint(ADDRESS, 'bad')).rejects.toMatchObject({
      code: 'not_found',
      message: 'inbox/ada has no checkpoint "bad": they go up to 4, and labels are good (#1).',
    });
    await expect(history.checkpoint(ADDRESS, 5)).rejects.toThrow('they go up to 4');
    store.data.checkpoints.get(ADDRESS)?.splice(2, 1);
    await expect(history.checkpoint(ADDRESS, '#2')).rejects.toThrow(
      'Checkpoint 2 of inbox/ada has been pruned.',
    );
    await expect(history.checkpoint('inbox/bob', 0)).rejects.toThrow(
      'There is no actor at inbox/bob.',
    );
    await expect(history.checkpoints('inbox/bob')).rejects.toMatchObject({ code: 'not_found' });
    await expect(history.checkpoint('nonsense', 0)).rejects.toMatchObject({ code: 'validation' });
  });

  test('but not by the beginning of several', async () => {
    // With some thousands of ids two begin alike; the test looks for such two.
    const { history } = await historyOf(2_000);
    const ids = (await history.checkpoints(ADDRESS)).map(({ id }) => id.slice(0, 4));
    const twice = ids.find((id, seq) => /[a-f]/.test(id) && ids.indexOf(id) !== seq);
    await expect(history.checkpoint(ADDRESS, twice ?? '')).rejects.toMatchObject({
      code: 'validation',
      message: expect.stringContaining(`got "${twice}", with which several begin: `),
    });
  });
});

test('a cut is found by its label, its id, or as start or last; otherwise it is said which there are', async () => {
  const { store, history } = await historyOf(1);
  await expect(history.cut('r1', 'start')).rejects.toThrow('Run "r1" has no cuts.');
  const taken = [
    { id: 'aaaa1', kind: 'start' as const },
    { id: 'aaaa2', label: 'mine' },
    { id: 'bbbb3', label: 'mine' },
  ];
  for (const parts of taken) await store.commit(batch({ cuts: [cut(parts)] }));
  const idOf = async (ref: string) => (await history.cut('r1', ref)).id;
  expect(await idOf('mine')).toBe('bbbb3');
  expect(await idOf('start')).toBe('aaaa1');
  expect(await idOf('last')).toBe('bbbb3');
  expect(await idOf('bbbb')).toBe('bbbb3');
  expect(await idOf('AAAA2')).toBe('aaaa2');
  await expect(idOf('aaaa')).rejects.toMatchObject({
    code: 'validation',
    message:
      'Expected one cut of run "r1", got "aaaa", with which several begin: aaaa1 (start), aaaa2 (mine).',
  });
  await expect(idOf('bbb')).rejects.toMatchObject({
    code: 'not_found',
    message:
      'Run "r1" has no cut "bbb". Its cuts, newest first: bbbb3 (mine), aaaa2 (mine), aaaa1 (start).',
  });
});

test.each([
  { note: { lable: 'x' }, says: 'got "lable"' },
  { note: { label: '' }, says: '1 to 200 characters, got ""' },
  { note: { label: 'x'.repeat(201) }, says: '1 to 200 characters' },
  { note: { progress: 101 }, says: 'a number from 0 to 100, got 101' },
  { note: { progress: '50' }, says: 'a number from 0 to 100, got 50' },
  { note: { step: 7 }, says: 'the step of a checkpoint to be a text, got 7' },
  { note: { notes: 1n }, says: 'to be plain JSON, but notes is a BigInt' },
  { note: { notes: { at: Number.NaN } }, says: 'to be plain JSON, but notes.at is NaN' },
  { note: { progress: Number.NaN }, says: 'got NaN' },
])('the note $note is refused', ({ note, says }) => {
  expect(() => checkNote(note as never)).toThrow(says);
});

describe('a diff', () => {
  const between = (from: JsonValue, to: JsonValue) =>
    diffCheckpoints(
      checkpoint({ seq: 1, snapshotJson: snapshot(from) }),
      checkpoint({ seq: 2, snapshotJson: snapshot(to, 'shut') }),
    );

  test('names what was added, removed and changed, by its path', () => {
    const found = between(
      { same: [1, { a: 1 }], gone: { x: 1 }, list: [1, 2, 3], 'odd key': { b: true }, kind: [1] },
      {
        same: [1, { a: 1 }],
        new: null,
        list: [1, 9],
        'odd key': { b: false, c: 1 },
        kind: { 0: 1 },
      },
    );
    expect(found).toMatchObject({
      from: 1,
      to: 2,
      fromState: 'open',
      toState: 'shut',
      pending: [],
    });
    expect(found.context).toEqual([
      { path: 'gone', kind: 'removed', from: { x: 1 } },
      { path: 'list[1]', kind: 'changed', from: 2, to: 9 },
      { path: 'list[2]', kind: 'removed', from: 3 },
      { path: '"odd key".b', kind: 'changed', from: true, to: false },
      { path: '"odd key".c', kind: 'added', to: 1 },
      { path: 'kind', kind: 'changed', from: [1], to: { 0: 1 } },
      { path: 'new', kind: 'added', to: null },
    ]);
  });

  test('is empty exactly when nothing differs', () => {
    const json = fc.jsonValue().map((value) => ({ value }) as JsonValue);
    fc.assert(
      fc.property(json, json, (a, b) => {
        const equal = canonicalJson(a) === canonicalJson(b);
        expect(between(a, b).context.length === 0).toBe(equal);
        expect(between(a, JSON.parse(JSON.stringify(a))).context).toEqual([]);
      }),
    );
  });

  test('tells timers and effects apart by their ids', () => {
    const timer = { id: 'wake', dueAt: 5, action: { do: 'event' } };
    const effect = { id: 'fetch', src: 'page', input: 1 };
    const found = diffCheckpoints(
      checkpoint({
        seq: 1,
        snapshotJson: snapshot({}),
        pendingJson: JSON.stringify({ timers: [timer], effects: [] }),
      }),
      checkpoint({
        ...{ seq: 2, snapshotJson: snapshot({}) },
        pendingJson: JSON.stringify({ timers: [{ ...timer, dueAt: 9 }], effects: [effect] }),
      }),
    );
    expect(found.pending).toEqual([
      { path: 'timers.wake.dueAt', kind: 'changed', from: 5, to: 9 },
      { path: 'effects.fetch', kind: 'added', to: effect },
    ]);
  });
});
