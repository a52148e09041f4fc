import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { StoppedError } from '../../src/protocol/errors.ts';
import type { CheckpointRange, Projection, Store } from '../../src/store/store.ts';
import {
  actor,
  attemptRow,
  batch,
  checkpoint,
  cut,
  deadLetter,
  effect,
  idempotency,
  message,
  runRow,
  step,
  streamChunk,
  streamRow,
  taskRow,
  tasks,
  timer,
  turn,
} from './rows.ts';

export interface StoreAdapter {
  /** A new, empty store. */
  open(): Promise<Store>;
  /** Opens what a closed store left; false: it leaves nothing. */
  readonly survivesReopen: false | ((closed: Store) => Promise<Store>);
  /** False: only the keys of checkpoints are checked, the values of rows are not. Default: true. */
  readonly checksRows?: false;
  /** True: it makes chunks itself, and takes none from outside. Default: false. */
  readonly packs?: true;
}

/** What every adapter of `Store` must do. An adapter opts out only by the names in `StoreAdapter`. */
export function describeStore(name: string, adapter: StoreAdapter): void {
  describe(`${name} fulfils the store contract`, () => {
    let store: Store;
    beforeEach(async () => {
      store = await adapter.open();
    });
    afterEach(() => store.close());

    const waitingIds = async (): Promise<readonly string[]> =>
      (await store.loadPending()).messages.map(({ id }) => id);

    describe('streams', () => {
      const chunks = (address: string, name: string, from: number, count: number) =>
        Array.from({ length: count }, (_, n) =>
          streamChunk({
            ...{ address, name, offset: from + n, seq: from + n + 1 },
            writer: n % 2 === 0 ? 'even' : 'odd',
            valueJson: JSON.stringify(`${name} ${from + n}`),
          }),
        );
      const address = 'task/r1/t1';
      const read = (name: string, from = 0, limit = 100, writer?: string) =>
        store.listStreamChunks({
          ...{ address, name, from, limit },
          ...(writer === undefined ? {} : { writer }),
        });

      test('every field comes back as it went in', async () => {
        const row = streamRow({ next: 2, size: 9, createdAt: 5, updatedAt: 7, closedAt: 8 });
        const first = streamChunk({
          at: 6,
          writer: 'w@1',
          epoch: 3,
          seq: 4,
          valueJson: '{"a":"ä"}',
        });
        const second = streamChunk({ offset: 1, seq: 2, valueJson: '=not JSON' });
        await store.commit(batch({ streams: [row], streamChunks: [first, second] }));
        expect(await store.listStreams({ address })).toEqual([{ ...row, lastJson: '=not JSON' }]);
        expect(await read('output')).toEqual([first, second]);
      });

      test('a stream is replaced by address and name, and what is written is appended', async () => {
        const [a, b] = [chunks(address, 'output', 0, 3), chunks(address, 'output', 3, 4)];
        await store.commit(batch({ streams: [streamRow({ next: 3 })], streamChunks: a }));
        await store.commit(batch({ streams: [streamRow({ next: 7 })], streamChunks: b }));
        await store.commit(batch({ streams: [streamRow({ next: 7, closedAt: 9 })] }));
        expect(await store.listStreams({ address })).toEqual([
          { ...streamRow({ next: 7, closedAt: 9 }), lastJson: '"output 6"' },
        ]);
        expect(await read('output')).toEqual([...a, ...b]);
      });

      test('it is read from an offset on, so many at a time, of all writers or of one', async () => {
        const all = chunks(address, 'output', 0, 10);
        await store.commit(batch({ streams: [streamRow({ next: 10 })], streamChunks: all }));
        expect(await read('output', 7)).toEqual(all.slice(7));
        expect(await read('output', 2, 3)).toEqual(all.slice(2, 5));
        expect(await read('output', 10)).toEqual([]);
        expect(await read('output', 3, 2, 'odd')).toEqual([all[3], all[5]]);
        expect(await read('none')).toEqual([]);
      });

      test('streams are found by their actor, by a prefix and by name, in their order', async () => {
        const rows = [
          streamRow({ address: 'task/r1/b', name: 'progress' }),
          streamRow({ address: 'task/r1/b' }),
          streamRow({ address: 'task/r1/a', name: 'progress', next: 1 }),
          streamRow({ address: 'task/r10/a', name: 'progress' }),
          streamRow({ address: 'run/r1', name: 'progress' }),
        ];
        const said = streamChunk({ address: 'task/r1/a', name: 'progress', valueJson: '40' });
        await store.commit(batch({ streams: rows, streamChunks: [said] }));
        const found = async (filter: Parameters<Store['listStreams']>[0]) =>
          (await store.listStreams(filter)).map(
            ({ address: of, name, lastJson }) => `${of} ${name} ${lastJson}`,
          );
        expect(await found({ prefix: 'task/r1/' })).toEqual([
          'task/r1/a progress 40',
          'task/r1/b output null',
          'task/r1/b progress null',
        ]);
        expect(await found({ prefix: 'task/r1/', name: 'output' })).toEqual([
          'task/r1/b output null',
        ]);
        expect(await found({ address: 'run/r1', name: 'progress' })).toEqual([
          'run/r1 progress null',
        ]);
        expect(await found({ address: 'task/r1' })).toEqual([]);
      });
    });

    describe('actors and checkpoints', () => {
      test('every field comes back as it went in', async () => {
        const full = actor({
          address: 'task/r1/t1',
          machine: 'task',
          version: 3,
          status: 'quarantined',
          seq: 7,
          parent: 'run/r1',
          reason: 'renamed state',
          updatedAt: 1_700_000_000_123,
        });
        const mark = checkpoint({
          address: 'task/r1/t1',
          seq: 7,
          at: 1_700_000_000_123,
          kind: 'milestone',
          label: 'half-way',
          eventJson: '{"type":"task.claim"}',
          snapshotJson: '{"value":"working"}',
        });
        await store.commit(batch({ actors: [full], checkpoints: [mark] }));
        expect(await store.listActors()).toEqual([full]);
        expect(await store.listCheckpoints('task/r1/t1')).toEqual([mark]);
        expect(await store.loadActors(['task/r1/t1'])).toEqual([
          { ...full, snapshotJson: '{"value":"working"}' },
        ]);
      });

      test('an actor is replaced by address and loaded with its newest checkpoint', async () => {
        await store.commit(batch(turn('inbox/ada', 0)));
        await store.commit(batch(turn('inbox/ada', 1)));
        const [ada, ...others] = await store.loadActors(['inbox/ada']);
        expect(ada).toMatchObject({ seq: 1, snapshotJson: '{"seq":1}' });
        expect(others).toEqual([]);
        expect(await store.listCheckpoints('inbox/ada')).toHaveLength(2);
      });

      test('several turns of one actor fit into one batch', async () => {
        await store.commit(
          batch({
            actors: [actor({ seq: 2 })],
            checkpoints: [0, 1, 2].map((seq) => checkpoint({ seq, snapshotJson: `{"at":${seq}}` })),
          }),
        );
        expect(await store.loadActors(['inbox/ada'])).toMatchObject([{ snapshotJson: '{"at":2}' }]);
      });

      test('those that do not exist are left out, and asking twice gives one', async () => {
        await store.commit(batch(turn('inbox/ada', 0)));
        const found = await store.loadActors(['inbox/ada', 'inbox/none', 'inbox/ada']);
        expect(found.map(({ address }) => address)).toEqual(['inbox/ada']);
        expect(await store.loadActors([])).toEqual([]);
      });

      test('an actor whose checkpoint is missing is an error, not an absence', async () => {
        await store.commit(batch({ actors: [actor({ seq: 4 })], checkpoints: [checkpoint()] }));
        await expect(store.loadActors(['inbox/ada'])).rejects.toMatchObject({ code: 'internal' });
      });

      test('listActors filters by kind and status', async () => {
        await store.commit(
          batch({
            actors: [
              actor({ address: 'task/b', status: 'done' }),
              actor({ address: 'task/a' }),
              actor({ address: 'task-list/a' }),
              actor({ address: 'tasks/a' }),
              actor({ address: 'agent/a', status: 'done' }),
            ],
          }),
        );
        const addresses = async (filter?: Parameters<Store['listActors']>[0]) =>
          (await store.listActors(filter)).map(({ address }) => address).sort();
        expect(await addresses()).toHaveLength(5);
        expect(await addresses({ kind: 'task' })).toEqual(['task/a', 'task/b']);
        expect(await addresses({ status: 'done' })).toEqual(['agent/a', 'task/b']);
        expect(await addresses({ kind: 'task', status: 'done' })).toEqual(['task/b']);
        expect(await addresses({ kind: "task' OR 1=1 --" })).toEqual([]);
        expect(await addresses({ kind: 'task%' })).toEqual([]);
      });

      test.each<{ range: CheckpointRange | undefined; seqs: readonly number[] }>([
        { range: undefined, seqs: [0, 1, 2, 3, 4] },
        { range: {}, seqs: [0, 1, 2, 3, 4] },
        { range: { fromSeq: 2 }, seqs: [2, 3, 4] },
        { range: { toSeq: 2 }, seqs: [0, 1, 2] },
        { range: { fromSeq: 1, toSeq: 3 }, seqs: [1, 2, 3] },
        { range: { fromSeq: 3, toSeq: 1 }, seqs: [] },
        { range: { last: 2 }, seqs: [4, 3] },
        { range: { last: 2, toSeq: 3 }, seqs: [3, 2] },
        { range: { last: 99 }, seqs: [4, 3, 2, 1, 0] },
        { range: { last: 0 }, seqs: [] },
      ])('checkpoints of range $range are $seqs', async ({ range, seqs }) => {
        for (const seq of [0, 1, 2, 3, 4]) await store.commit(batch(turn('inbox/ada', seq)));
        await store.commit(batch(turn('inbox/adb', 9)));
        const found = await store.listCheckpoints('inbox/ada', range);
        expect(found.map(({ seq }) => seq)).toEqual(seqs);
      });
    });

    describe('messages, timers and effects', () => {
      test('every field comes back as it went in', async () => {
        const m = message({
          id: 'task/r1/t1#4.0',
          from: 'task/r1/t1',
          to: 'agent/writer',
          priority: 5,
          sentAt: 1_700_000_000_123,
          correlation: 'c1',
          attempt: 3,
          reply: true,
        });
        const t = timer({ dueAt: 1_700_000_000_456 });
        const e = effect({ attempt: 4 });
        await store.commit(batch({ messages: [m], timers: [t], effects: [e] }));
        expect(await store.loadPending()).toEqual({
          messages: [m],
          timers: [t],
          effects: [e],
          requests: [],
        });
      });

      test('messages keep the order in which they were committed', async () => {
        await store.commit(batch({ messages: [message({ id: 'z' }), message({ id: 'a' })] }));
        await store.commit(batch({ messages: [message({ id: 'm', priority: 5, sentAt: 1 })] }));
        expect(await waitingIds()).toEqual(['z', 'a', 'm']);
        await store.commit(batch({ consumed: ['m', 'a'], messages: [message({ id: 'b' })] }));
        expect(await waitingIds()).toEqual(['z', 'b']);
      });

      test('an id that is there already is left as it is', async () => {
        await store.commit(batch({ messages: [message({ id: 'm1', messageJson: '{"n":1}' })] }));
        await store.commit(
          batch({
            messages: [message({ id: 'm2' }), message({ id: 'm1', messageJson: '{"n":2}' })],
          }),
        );
        const { messages } = await store.loadPending();
        expect(messages.map(({ id, messageJson }) => [id, messageJson])).toEqual([
          ['m1', '{"n":1}'],
          ['m2', '{"type":"inbox.add"}'],
        ]);
      });

      test('what a batch consumes is consumed before what it inserts', async () => {
        await store.commit(batch({ messages: [message({ id: 'm1', messageJson: '{"n":1}' })] }));
        await store.commit(
          batch({ consumed: ['m1'], messages: [message({ id: 'm1', messageJson: '{"n":2}' })] }),
        );
        expect((await store.loadPending()).messages).toMatchObject([{ messageJson: '{"n":2}' }]);
      });

      test('consuming what is not there does nothing', async () => {
        await store.commit(batch({ messages: [message()], consumed: ['none'] }));
        expect(await waitingIds()).toEqual(['m1']);
      });

      test('timers and effects are replaced by address and id, and cleared before they are set', async () => {
        await store.commit(batch({ timers: [timer()], effects: [effect()] }));
        await store.commit(
          batch({
            clearedTimers: [{ address: 'inbox/ada', id: 'wake' }],
            timers: [timer({ generation: 'g2' }), timer({ address: 'inbox/bob' })],
            clearedEffects: [{ address: 'inbox/ada', id: 'fetch' }],
            effects: [effect({ generation: 'g2' }), effect({ id: 'other' })],
          }),
        );
        await store.commit(
          batch({ timers: [timer({ generation: 'g3' })], effects: [effect({ generation: 'g3' })] }),
        );
        const { timers, effects } = await store.loadPending();
        expect(timers.map(({ address, generation }) => [address, generation]).sort()).toEqual([
          ['inbox/ada', 'g3'],
          ['inbox/bob', 'g1'],
        ]);
        expect(effects.map(({ id, generation }) => [id, generation]).sort()).toEqual([
          ['fetch', 'g3'],
          ['other', 'g1'],
        ]);
        await store.commit(
          batch({
            clearedTimers: [
              { address: 'inbox/ada', id: 'wake' },
              { address: 'inbox/bob', id: 'none' },
            ],
            clearedEffects: [{ address: 'inbox/ada', id: 'other' }],
          }),
        );
        const left = await store.loadPending();
        expect(left.timers).toMatchObject([{ address: 'inbox/bob' }]);
        expect(left.effects).toMatchObject([{ id: 'fetch' }]);
      });
    });

    describe.skipIf(adapter.packs === true)('chunks', () => {
      const chunk = (name: string) => ({ name, data: Uint8Array.of(...Buffer.from(name)) });
      const list = (name: string, ...chunks: string[]) => ({ name, chunks });
      const manifest = (...lists: string[]): string => `=${JSON.stringify({ lists, length: 1 })}`;
      const sorted = async (...lists: string[]) => {
        const found = await store.loadChunks(lists);
        const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
        return {
          lists: found.lists.toSorted(byName),
          chunks: found.chunks
            .map(({ name, data }) => [name, Buffer.from(data).toString()])
            .toSorted(),
        };
      };

      test('what a text names is stored with it and comes back', async () => {
        await store.commit(
          batch({
            ...turn('inbox/ada', 0, manifest('l1', 'l2', 'l1')),
            packed: {
              chunks: [chunk('a'), chunk('b'), chunk('a')],
              lists: [list('l1', 'a', 'b', 'a'), list('l2', 'b')],
            },
          }),
        );
        expect(await sorted('l1', 'none')).toEqual({
          lists: [list('l1', 'a', 'b', 'a')],
          chunks: [
            ['a', 'a'],
            ['b', 'b'],
          ],
        });
        expect(await sorted('l2', 'l2')).toEqual({
          lists: [list('l2', 'b')],
          chunks: [['b', 'b']],
        });
        expect(await sorted()).toEqual({ lists: [], chunks: [] });
        expect((await store.loadActors(['inbox/ada']))[0]?.snapshotJson).toBe(
          manifest('l1', 'l2', 'l1'),
        );
      });

      test('a later text may name what is stored already; a name keeps its first content', async () => {
        await store.commit(
          batch({
            ...turn('inbox/ada', 0, manifest('l1')),
            packed: { chunks: [chunk('a')], lists: [list('l1', 'a')] },
          }),
        );
        await store.commit(
          batch({
            ...turn('inbox/ada', 1, manifest('l1', 'l2')),
            packed: {
              chunks: [{ name: 'a', data: Uint8Array.of(1) }, chunk('b')],
              lists: [list('l2', 'a', 'b')],
            },
          }),
        );
        expect((await sorted('l2')).chunks).toEqual([
          ['a', 'a'],
          ['b', 'b'],
        ]);
      });

      test.each([
        ['a list that is not there', manifest('l1', 'none'), [chunk('a')], [list('l1', 'a')]],
        ['a chunk that is not there', manifest('l1'), [chunk('a')], [list('l1', 'a', 'none')]],
        ['no JSON', '={"lists":', [], []],
      ])('a batch that names %s is refused', async (_, text, chunks, lists) => {
        await store.commit(batch(turn('inbox/bob', 0)));
        const refused = store.commit(
          batch({ ...turn('inbox/ada', 0, text), packed: { chunks, lists } }),
        );
        await expect(refused).rejects.toMatchObject({ code: 'validation' });
        expect((await store.listActors()).map(({ address }) => address)).toEqual(['inbox/bob']);
        expect(await sorted('l1')).toEqual({ lists: [], chunks: [] });
      });

      test('a text of a message that is handled lives on in the dead letter of the same batch', async () => {
        const packed = { chunks: [chunk('a')], lists: [list('l1', 'a')] };
        await store.commit(batch({ messages: [message({ messageJson: manifest('l1') })], packed }));
        await store.commit(
          batch({
            consumed: ['m1'],
            deadLetters: [deadLetter({ messageJson: manifest('l1') })],
          }),
        );
        expect((await sorted('l1')).chunks).toEqual([['a', 'a']]);
      });
    });

    describe('steps and dead letters', () => {
      test('steps are listed oldest first, and the first outcome of a key stays', async () => {
        await store.commit(batch({ steps: [step({ key: 'z' }), step({ key: 'a' })] }));
        await store.commit(
          batch({ steps: [step({ key: 'z', outcomeJson: '{"ok":2}' }), step({ key: 'm' })] }),
        );
        await store.commit(batch({ steps: [step({ scope: 'other' })] }));
        const found = await store.loadSteps('inbox/ada#fetch');
        expect(found).toEqual([step({ key: 'z' }), step({ key: 'a' }), step({ key: 'm' })]);
        expect(await store.loadSteps('none')).toEqual([]);
      });

      test('a cleared scope is empty, also of the steps of the same batch', async () => {
        await store.commit(batch({ steps: [step(), step({ scope: 'other' })] }));
        await store.commit(
          batch({ steps: [step({ key: 'late' })], clearedSteps: ['inbox/ada#fetch', 'none'] }),
        );
        expect(await store.loadSteps('inbox/ada#fetch')).toEqual([]);
        expect(await store.loadSteps('other')).toHaveLength(1);
      });

      test('what a step was asked with and how it was kept come back', async () => {
        const kept = step({ key: 'pay', kind: 'tx', inputHash: 'abc' });
        await store.commit(batch({ steps: [kept, step()] }));
        expect(await store.loadSteps('inbox/ada#fetch')).toEqual([kept, step()]);
      });

      test('dead letters are appended, also with an id that has died before', async () => {
        const letters = [
          deadLetter({ id: 'b' }),
          deadLetter({ id: 'a' }),
          deadLetter({ id: 'b', at: 2 }),
        ];
        for (const letter of letters) await store.commit(batch({ deadLetters: [letter] }));
        expect(await store.listDeadLetters()).toEqual(letters);
      });
    });

    describe('idempotency keys', () => {
      const waiting = idempotency({ key: 'ask', correlation: 'app/client!1' });
      const answered = idempotency({ key: 'ask', outcomeJson: '{"ok":true,"output":1}' });

      test('are replaced by key, and freed before they are used again', async () => {
        await store.commit(batch({ idempotency: [waiting, idempotency()] }));
        expect(await store.loadIdempotency('ask')).toEqual(waiting);
        expect(await store.loadIdempotency('order-7')).toEqual(idempotency());
        expect(await store.loadIdempotency("ask' OR 1=1 --")).toBe(undefined);
        const again = idempotency({ inputHash: 'def', expiresAt: 99_000 });
        await store.commit(
          batch({ clearedIdempotency: ['order-7', 'none'], idempotency: [answered, again] }),
        );
        expect(await store.loadIdempotency('ask')).toEqual(answered);
        expect(await store.loadIdempotency('order-7')).toEqual(again);
        await store.commit(batch({ clearedIdempotency: ['ask'] }));
        expect(await store.loadIdempotency('ask')).toBe(undefined);
      });

      test('those whose answer is awaited are pending', async () => {
        await store.commit(batch({ idempotency: [waiting, idempotency()] }));
        expect((await store.loadPending()).requests).toEqual([waiting]);
        await store.commit(batch({ idempotency: [answered] }));
        expect((await store.loadPending()).requests).toEqual([]);
      });
    });

    describe('projections', () => {
      test('runs, tasks and attempts are replaced by key', async () => {
        const rows: readonly Projection[] = [
          { table: 'runs', row: runRow() },
          { table: 'tasks', row: taskRow({ state: 'waiting' }) },
          { table: 'attempts', row: attemptRow() },
          { table: 'tasks', row: taskRow({ state: 'working', attempts: 1, reason: 'because' }) },
          { table: 'runs', row: runRow({ state: 'done', endedAt: 9_000 }) },
          { table: 'attempts', row: attemptRow({ outcome: 'failed', endedAt: 8_000 }) },
          { table: 'attempts', row: attemptRow({ attempt: 2 }) },
          { table: 'attempts', row: attemptRow({ task: 't2' }) },
        ];
        await store.commit(batch({ projections: rows }));
        expect(await store.listRuns()).toEqual([runRow({ state: 'done', endedAt: 9_000 })]);
        expect(await store.listTasks('r1')).toEqual([
          taskRow({ state: 'working', attempts: 1, reason: 'because' }),
        ]);
        expect(await store.listAttempts('r1', 't1')).toEqual([
          attemptRow({ outcome: 'failed', endedAt: 8_000 }),
          attemptRow({ attempt: 2 }),
        ]);
      });

      test('tasks are listed by position and filtered', async () => {
        await store.commit(
          batch({
            projections: tasks(
              { task: 'c', position: 3, state: 'done' },
              { task: 'a', position: 1 },
              { task: 'd', position: 10, state: 'blocked' },
              { task: 'b', position: 2 },
              { run: 'r2', task: 'x' },
            ),
          }),
        );
        const ids = async (filter?: Parameters<Store['listTasks']>[1]) =>
          (await store.listTasks('r1', filter)).map(({ task }) => task);
        expect(await ids()).toEqual(['a', 'b', 'c', 'd']);
        expect(await ids({ states: ['done', 'blocked'] })).toEqual(['c', 'd']);
        expect(await ids({ states: [] })).toEqual([]);
        expect(await ids({ states: ["done') OR 1=1 --"] })).toEqual([]);
        expect(await ids({ afterPosition: 1, limit: 2 })).toEqual(['b', 'c']);
        expect(await ids({ limit: 0 })).toEqual([]);
        expect(await ids({ states: ['ready'], afterPosition: 1 })).toEqual(['b']);
        expect(await store.countTasks('r1')).toEqual({ ready: 2, done: 1, blocked: 1 });
        expect(await store.countTasks('none')).toEqual({});
      });
    });

    describe('claims', () => {
      const claim = (parts: Partial<Parameters<Store['claimTasks']>[0]> = {}) =>
        store.claimTasks({ run: 'r1', agent: 'writer', limit: 10, token: 'token-1', ...parts });

      test('highest priority, then the most unblocked, then the oldest', async () => {
        await store.commit(
          batch({
            projections: tasks(
              { task: 'old', position: 1 },
              { task: 'new', position: 5 },
              { task: 'urgent', position: 6, priority: 4 },
              { task: 'blocker', position: 7, unblocks: 3 },
              { task: 'waits', position: 0, state: 'waiting', priority: 5 },
              { task: 'not-mine', position: 0, agent: 'tester', priority: 5 },
              { run: 'r2', task: 'elsewhere', position: 0, priority: 5 },
            ),
          }),
        );
        expect(await claim({ limit: 2 })).toEqual(['urgent', 'blocker']);
        expect(await claim({ token: 'token-2' })).toEqual(['old', 'new']);
        expect(await claim({ token: 'token-3' })).toEqual([]);
      });

      test('the same token gets the same tasks again, and no others', async () => {
        await store.commit(
          batch({ projections: tasks({ task: 'a' }, { task: 'b', position: 2 }) }),
        );
        expect(await claim({ limit: 1 })).toEqual(['a']);
        expect(await claim({ limit: 1 })).toEqual(['a']);
        expect(await claim({ limit: 5 })).toEqual(['a']);
        await store.commit(batch({ projections: tasks({ task: 'a', state: 'preparing' }) }));
        expect(await claim({ limit: 5 })).toEqual(['a']);
        expect(await claim({ token: 'token-2' })).toEqual(['b']);
      });

      test('a claim ends with another state and not with the same one', async () => {
        await store.commit(batch({ projections: tasks({ task: 'a' }) }));
        expect(await claim()).toEqual(['a']);
        await store.commit(batch({ projections: tasks({ task: 'a', updatedAt: 2, priority: 3 }) }));
        expect(await claim({ token: 'token-2' })).toEqual([]);
        await store.commit(batch({ projections: tasks({ task: 'a', state: 'preparing' }) }));
        expect(await claim({ token: 'token-2' })).toEqual([]);
        await store.commit(batch({ projections: tasks({ task: 'a' }) }));
        expect(await claim({ token: 'token-2' })).toEqual(['a']);
        expect(await claim({ token: 'token-1' })).toEqual([]);
      });

      test('what changed since it became ready counts as it is now', async () => {
        await store.commit(
          batch({ projections: tasks({ task: 'a' }, { task: 'b', position: 2 }) }),
        );
        await store.commit(
          batch({
            projections: tasks(
              { task: 'b', position: 2, priority: 5 },
              { task: 'a', agent: 'tester' },
              { task: 'c', position: 3 },
            ),
          }),
        );
        expect(await claim()).toEqual(['b', 'c']);
        expect(await claim({ agent: 'tester', token: 'token-2' })).toEqual(['a']);
      });

      test('those at excepted positions are passed over, and are there for the next', async () => {
        await store.commit(
          batch({
            projections: tasks(
              { task: 'a', position: 0 },
              { task: 'b', position: 1, priority: 5 },
              { task: 'c', position: 2, priority: 5 },
              { task: 'd', position: 3 },
            ),
          }),
        );
        const except = [
          [1, 2],
          [3, 9],
        ] as const;
        expect(await claim({ except })).toEqual(['c', 'a']);
        expect(await claim({ token: 'token-2', except })).toEqual([]);
        expect(await claim({ token: 'token-3', except: [] })).toEqual(['b', 'd']);
      });

      test('a limit of nothing claims nothing', async () => {
        await store.commit(batch({ projections: tasks({ task: 'a' }) }));
        expect(await claim({ limit: 0 })).toEqual([]);
        expect(await claim({ limit: -1 })).toEqual([]);
        expect(await claim({ run: 'none' })).toEqual([]);
        expect(await claim()).toEqual(['a']);
      });

      test('ten claimers at once never share a task', async () => {
        const all = Array.from({ length: 100 }, (_, i) => ({ task: `t${i}`, position: i }));
        await store.commit(batch({ projections: tasks(...all) }));
        const claims = await Promise.all(
          Array.from({ length: 10 }, (_, i) => claim({ limit: 12, token: `token-${i}` })),
        );
        const claimed = claims.flat();
        expect(claimed).toHaveLength(100);
        expect(new Set(claimed).size).toBe(100);
        expect(claims.map((ids) => ids.length)).toEqual([12, 12, 12, 12, 12, 12, 12, 12, 4, 0]);
      });
    });

    describe('cuts', () => {
      /** A run with two tasks, one of them claimed, and with something of everything under way. */
      const begin = async (): Promise<void> => {
        await store.commit(
          batch({
            actors: ['run/r1', 'task/r1/a', 'task/r1/b', 'task/r10/x', 'agent/a'].map((address) =>
              actor({ address, seq: 3 }),
            ),
            checkpoints: ['run/r1', 'task/r1/a'].map((address) => checkpoint({ address, seq: 3 })),
            messages: [
              message({ id: 'm2', to: 'task/r1/b', correlation: 'c', attempt: 2, reply: true }),
              message({ id: 'm1', to: 'run/r1' }),
              message({ id: 'm3', to: 'agent/a', from: 'task/r1/a' }),
            ],
            timers: [timer({ address: 'task/r1/a' }), timer({ address: 'agent/a' })],
            effects: [
              effect({ address: 'run/r1', id: 'claim' }),
              effect({ address: 'task/r10/x' }),
            ],
            projections: [
              ...tasks({ task: 'a', attempts: 2 }, { task: 'b', position: 2, attempts: 1 }),
              ...[1, 2].map((attempt) => ({
                table: 'attempts' as const,
                row: attemptRow({ task: 'a', attempt }),
              })),
            ],
          }),
        );
        const claim = { run: 'r1', agent: 'writer', limit: 1, token: 'k1' };
        expect(await store.claimTasks(claim)).toEqual(['a']);
      };
      const { address: _address, prefix: _prefix, keep: _keep, ...asTaken } = cut();

      test('hold the run as it is when their batch is stored, and nothing of other runs', async () => {
        await begin();
        await store.commit(
          batch({ ...turn('task/r1/a', 4), consumed: ['m1'], cuts: [cut({ label: 'here' })] }),
        );
        await store.commit(batch({ ...turn('task/r1/a', 5), consumed: ['m2'] }));
        expect(await store.listCuts('r1')).toEqual([
          { ...asTaken, label: 'here', members: 3, messages: 1 },
        ]);
        expect(await store.loadCut('c1')).toEqual({
          cut: { ...asTaken, label: 'here' },
          members: [
            { address: 'run/r1', seq: 3 },
            { address: 'task/r1/a', seq: 4 },
            { address: 'task/r1/b', seq: 3 },
          ],
          messages: [
            message({ id: 'm2', to: 'task/r1/b', correlation: 'c', attempt: 2, reply: true }),
          ],
          timers: [timer({ address: 'task/r1/a' })],
          effects: [effect({ address: 'run/r1', id: 'claim' })],
          claims: [{ run: 'r1', task: 'a', token: 'k1', open: true }],
          attempts: [attemptRow({ task: 'a', attempt: 1 })],
        });
        expect(await store.listCuts('r2')).toEqual([]);
        expect(await store.loadCut('none')).toBeUndefined();
      });

      test('of a kind of which few are kept push the oldest out, of their own run only', async () => {
        await begin();
        const taken = (id: string, parts: object = {}) =>
          store.commit(batch({ cuts: [cut({ id, kind: 'timed', keep: 2, ...parts })] }));
        for (const id of ['c1', 'c2']) await taken(id);
        await taken('m', { kind: 'manual', keep: null });
        await taken('other', { run: 'r10', address: 'run/r10', prefix: 'task/r10/' });
        for (const id of ['c3', 'c4']) await taken(id);
        const ids = async (run: string) => (await store.listCuts(run)).map(({ id }) => id);
        expect(await ids('r1')).toEqual(['m', 'c3', 'c4']);
        expect(await ids('r10')).toEqual(['other']);
        expect(await store.loadCut('c1')).toBeUndefined();
      });

      test('claims are put back as they were, and attempts of a later life are removed', async () => {
        await begin();
        await store.commit(
          batch({
            projections: [1, 2, 3].flatMap((attempt) =>
              ['a', 'b'].map((task) => ({
                table: 'attempts' as const,
                row: attemptRow({ task, attempt }),
              })),
            ),
          }),
        );
        await store.commit(
          batch({
            removedAttempts: [
              { run: 'r1', task: 'a', above: 1 },
              { run: 'r1', task: 'b', above: 2 },
            ],
            // Begun again in the same batch.
            projections: [{ table: 'attempts', row: attemptRow({ task: 'b', attempt: 3 }) }],
            claims: [
              { run: 'r1', task: 'a', token: null, open: false },
              { run: 'r1', task: 'b', token: 'k7', open: true },
            ],
          }),
        );
        const numbers = async (task: string) =>
          (await store.listAttempts('r1', task)).map(({ attempt }) => attempt);
        expect([await numbers('a'), await numbers('b')]).toEqual([[1], [1, 2, 3]]);
        const claim = { run: 'r1', agent: 'writer', limit: 5 };
        expect(await store.claimTasks({ ...claim, token: 'k7' })).toEqual(['b']);
        expect(await store.claimTasks({ ...claim, token: 'k1' })).toEqual(['a']);
        expect(await store.claimTasks({ ...claim, token: 'k8' })).toEqual([]);
      });

      test('a checkpoint keeps its version, what was under way, and notes', async () => {
        const kept = checkpoint({
          version: 7,
          pendingJson: '{"timers":[],"effects":[]}',
          detailsJson: '{"notes":"good"}',
        });
        await store.commit(batch({ actors: [actor()], checkpoints: [kept] }));
        expect(await store.listCheckpoints('inbox/ada')).toEqual([kept]);
      });

      if (adapter.survivesReopen !== false) {
        const reopen = adapter.survivesReopen;
        test('survive', async () => {
          await begin();
          await store.commit(batch({ cuts: [cut()] }));
          const before = await store.loadCut('c1');
          await store.close();
          store = await reopen(store);
          expect(await store.loadCut('c1')).toEqual(before);
        });
      }
    });

    describe('leases', () => {
      const claim = (parts: object = {}) => ({
        name: 'deploy',
        holder: 'ada',
        now: 1_000,
        ttlMs: 60_000,
        ...parts,
      });

      test('one holds it; the next has it when it is let go of, with a greater token', async () => {
        const first = await store.acquireLease(claim());
        expect(first).toEqual({
          acquired: true,
          lease: { name: 'deploy', holder: 'ada', token: 1, acquiredAt: 1_000, expiresAt: 61_000 },
        });
        const refused = await store.acquireLease(claim({ holder: 'bob', now: 60_999 }));
        expect(refused).toEqual({ acquired: false, lease: first.lease });
        expect(await store.releaseLease({ name: 'deploy', token: 1 })).toBe(true);
        expect(await store.listLeases(1_000)).toEqual([]);
        const second = await store.acquireLease(claim({ holder: 'bob', now: 2_000 }));
        expect(second).toMatchObject({ acquired: true, lease: { holder: 'bob', token: 2 } });
        expect(await store.releaseLease({ name: 'deploy', token: 1 })).toBe(false);
        expect(await store.listLeases(2_000)).toEqual([second.lease]);
      });

      test('it ends at its time unless it was extended before', async () => {
        await store.acquireLease(claim());
        const extend = { name: 'deploy', token: 1, now: 60_999, ttlMs: 10 };
        expect(await store.extendLease(extend)).toBe(true);
        expect(await store.extendLease({ ...extend, now: 61_009 })).toBe(false);
        expect(await store.listLeases(61_008)).toHaveLength(1);
        expect(await store.listLeases(61_009)).toEqual([]);
        const next = await store.acquireLease(claim({ holder: 'bob', now: 61_009 }));
        expect(next).toMatchObject({ acquired: true, lease: { token: 2 } });
        expect(await store.extendLease({ ...extend, now: 61_010 })).toBe(false);
      });

      test('of ten at once one gets it, and names do not meet', async () => {
        const answers = await Promise.all(
          Array.from({ length: 10 }, (_, n) => store.acquireLease(claim({ holder: `h${n}` }))),
        );
        expect(answers.filter(({ acquired }) => acquired)).toHaveLength(1);
        const other = await store.acquireLease(claim({ name: "port'; --" }));
        expect(other).toMatchObject({ acquired: true, lease: { name: "port'; --", token: 1 } });
      });

      test('the owner of the store is asked', async () => {
        await store.assertOwner();
      });

      if (adapter.survivesReopen !== false) {
        const reopen = adapter.survivesReopen;
        test('leases end with the owner, and their tokens go on growing', async () => {
          await store.acquireLease(claim());
          await store.close();
          store = await reopen(store);
          expect(await store.listLeases(1_001)).toEqual([]);
          expect(await store.extendLease({ ...claim(), token: 1 })).toBe(false);
          const next = await store.acquireLease(claim({ holder: 'bob', now: 1_001 }));
          expect(next).toMatchObject({ acquired: true, lease: { holder: 'bob', token: 2 } });
        });
      }
    });

    describe('commits', () => {
      test('a read sees every commit called before it, awaited or not', async () => {
        const commits = [0, 1, 2].map((seq) => store.commit(batch(turn('inbox/ada', seq))));
        const found = store.listCheckpoints('inbox/ada');
        const later = store.commit(batch(turn('inbox/ada', 3)));
        expect((await found).map(({ seq }) => seq)).toEqual([0, 1, 2]);
        await Promise.all([...commits, later]);
      });

      test('an empty batch is fine', async () => {
        await store.commit(batch());
        expect(await store.loadPending()).toEqual({
          messages: [],
          timers: [],
          effects: [],
          requests: [],
        });
      });

      test('of a refused batch nothing is stored', async () => {
        await store.commit(batch(turn('inbox/ada', 0)));
        const refused = batch({
          ...turn('inbox/bob', 0),
          messages: [message()],
          timers: [timer()],
          effects: [effect()],
          steps: [step()],
          deadLetters: [deadLetter()],
          projections: [{ table: 'runs', row: runRow() }, ...tasks({})],
        });
        const last = checkpoint({ address: 'inbox/ada', seq: 0 });
        await expect(
          store.commit({ ...refused, checkpoints: [...refused.checkpoints, last] }),
        ).rejects.toMatchObject({ code: 'conflict' });
        expect(await store.listActors()).toEqual([actor()]);
        expect(await store.listCheckpoints('inbox/bob')).toEqual([]);
        expect(await store.loadPending()).toEqual({
          messages: [],
          timers: [],
          effects: [],
          requests: [],
        });
        expect(await store.loadSteps('inbox/ada#fetch')).toEqual([]);
        expect(await store.listDeadLetters()).toEqual([]);
        expect(await store.listRuns()).toEqual([]);
        expect(await store.listTasks('r1')).toEqual([]);
        await store.commit(refused);
        expect(await store.listActors()).toHaveLength(2);
      });

      test.skipIf(adapter.checksRows === false)(
        'a batch whose last row breaks a rule of its table stores nothing',
        async () => {
          const refused = batch({
            ...turn('inbox/ada', 0),
            messages: [message()],
            projections: tasks({ task: 'good' }, { task: 'bad', priority: 9 as 5 }),
          });
          await expect(store.commit(refused)).rejects.toMatchObject({ code: 'validation' });
          expect(await store.listActors()).toEqual([]);
          expect(await waitingIds()).toEqual([]);
          expect(await store.listTasks('r1')).toEqual([]);
        },
      );

      test('commits that were called before a failure could be known are refused too', async () => {
        const outcomes = await Promise.allSettled([
          store.commit(batch(turn('inbox/ada', 0))),
          store.commit(batch(turn('inbox/ada', 0))),
          store.commit(batch({ messages: [message({ id: 'builds on what was not stored' })] })),
        ]);
        expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected']);
        expect(await waitingIds()).toEqual([]);
        await store.commit(batch({ messages: [message({ id: 'after' })] }));
        expect(await waitingIds()).toEqual(['after']);
      });
    });

    describe('odd texts', () => {
      const stored = async (text: string): Promise<string | undefined> => {
        await store.commit(
          batch({
            ...turn('inbox/ada', 0, text),
            messages: [message({ id: text, messageJson: text, correlation: text })],
            deadLetters: [deadLetter({ reason: text })],
          }),
        );
        const [ada] = await store.loadActors(['inbox/ada']);
        const [waiting] = (await store.loadPending()).messages;
        const [letter] = await store.listDeadLetters();
        expect([waiting?.id, waiting?.messageJson, waiting?.correlation, letter?.reason]).toEqual(
          Array.from({ length: 4 }, () => ada?.snapshotJson),
        );
        return ada?.snapshotJson;
      };

      test.each([
        ['empty', ''],
        ['NUL', 'a\0b\0'],
        ['emoji', '👩‍🚀 \u{10FFFF}'],
        ['SQL', `'; DROP TABLE actors; --`],
        ['line ends', '\r\n\u2028\u2029\uFEFF'],
        ['not normalised', 'e\u0301 \u00e9'],
        ['replacement characters', '\uFFFD\uFFFD\uFFFD'],
        ['a megabyte', 'é'.repeat(500_000)],
      ])('%s comes back byte for byte', async (_, text) => {
        expect(await stored(text)).toBe(text);
      });

      test.each(['\uD800', 'x\uDC00y', '\uDC00\uD800'])(
        'half of a surrogate pair is refused or comes back, never changed',
        async (text) => {
          const outcome = await stored(text).catch((error: unknown) => error);
          if (outcome === text) return;
          expect(outcome).toMatchObject({ code: 'validation' });
          expect(String(outcome)).toContain('surrogate');
          expect(await store.listActors()).toEqual([]);
        },
      );

      test('numbers keep 53 bits', async () => {
        const at = Number.MAX_SAFE_INTEGER;
        await store.commit(batch({ deadLetters: [deadLetter({ at })] }));
        expect(await store.listDeadLetters()).toMatchObject([{ at }]);
      });
    });

    describe('closing', () => {
      test('finishes what was called before, refuses what is called later, and may be repeated', async () => {
        const committed = store.commit(batch(turn('inbox/ada', 0)));
        const read = store.listActors();
        const closed = Promise.all([store.close(), store.close()]);
        await expect(committed).resolves.toBeUndefined();
        expect(await read).toHaveLength(1);
        await closed;
        await store.close();
        for (const late of [
          store.commit(batch()),
          store.loadPending(),
          store.claimTasks({ run: 'r1', agent: 'a', limit: 1, token: 't' }),
          store.listRuns(),
        ]) {
          await expect(late).rejects.toBeInstanceOf(StoppedError);
        }
      });

      const { survivesReopen } = adapter;
      test.skipIf(survivesReopen === false)(
        'what was committed is there after reopening',
        async () => {
          await store.commit(
            batch({
              ...turn('inbox/ada', 0),
              messages: [message()],
              timers: [timer()],
              effects: [effect()],
              steps: [step()],
              deadLetters: [deadLetter()],
              projections: [
                { table: 'runs', row: runRow() },
                { table: 'attempts', row: attemptRow() },
                ...tasks({ task: 'a' }, { task: 'b', position: 2 }),
              ],
            }),
          );
          await store.claimTasks({ run: 'r1', agent: 'writer', limit: 1, token: 'before' });
          await store.close();
          if (survivesReopen !== false) store = await survivesReopen(store);
          expect(await store.loadActors(['inbox/ada'])).toHaveLength(1);
          expect(await store.loadPending()).toEqual({
            requests: [],
            messages: [message()],
            timers: [timer()],
            effects: [effect()],
          });
          expect(await store.loadSteps('inbox/ada#fetch')).toEqual([step()]);
          expect(await store.listDeadLetters()).toEqual([deadLetter()]);
          expect(await store.listRuns()).toEqual([runRow()]);
          expect(await store.listAttempts('r1', 't1')).toEqual([attemptRow()]);
          const claim = { run: 'r1', agent: 'writer', limit: 5 };
          expect(await store.claimTasks({ ...claim, token: 'before' })).toEqual(['a']);
          expect(await store.claimTasks({ ...claim, token: 'after' })).toEqual(['b']);
        },
      );
    });
  });
}
