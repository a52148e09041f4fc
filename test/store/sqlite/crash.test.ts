import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryStore } from './temporary.ts';

const NFS = '0x6969';

test.each([
  { killedAt: 'store.before-begin', acknowledged: 2, stored: 2 },
  { killedAt: 'store.mid-transaction', acknowledged: 2, stored: 2 },
  { killedAt: 'store.before-commit', acknowledged: 2, stored: 2 },
  { killedAt: 'store.after-commit', acknowledged: 2, stored: 3 },
  { killedAt: 'store.mid-transaction', acknowledged: 2, stored: 2, durability: 'normal' },
  { killedAt: 'store.after-commit', acknowledged: 2, stored: 3, durability: 'normal' },
  { killedAt: 'store.mid-transaction', acknowledged: 2, stored: 2, fileSystem: NFS },
  { killedAt: 'store.after-commit', acknowledged: 2, stored: 3, fileSystem: NFS },
])(
  'SIGKILL in the third commit at $killedAt leaves $stored ($durability $fileSystem)',
  async ({ killedAt, acknowledged, stored, durability = 'full', fileSystem = '' }) => {
    const path = temporaryStore();
    const child = startChild('crash', path, killedAt, '3', durability, fileSystem);
    const lines = await child.rest();
    expect(await child.ended).toBe('SIGKILL');
    expect(lines).toHaveLength(acknowledged);

    const store = await openSqliteStore({ path });
    const seqs = (await store.listCheckpoints('inbox/ada')).map(({ seq }) => seq);
    expect(seqs).toEqual([0, 1, 2].slice(0, stored));
    const { messages } = await store.loadPending();
    expect(messages.map(({ id }) => id)).toEqual(seqs.map((seq) => `m${seq}`));
    expect(await store.listActors()).toMatchObject([{ seq: stored - 1 }]);
    await store.close();
    expect(existsSync(`${path}.lock`)).toBe(false);
  },
);

test.each(['lock.created', 'lock.stolen'])(
  'SIGKILL at %s leaves a store that opens',
  async (point) => {
    const path = temporaryStore();
    if (point === 'lock.stolen') {
      const first = startChild('crash', path, 'lock.created', '1');
      expect(await first.ended).toBe('SIGKILL');
    }
    const child = startChild('crash', path, point, '1');
    expect(await child.ended).toBe('SIGKILL');
    expect(existsSync(`${path}.lock`)).toBe(true);
    expect(existsSync(path)).toBe(false);
    const store = await openSqliteStore({ path });
    await store.commit(batch());
    await store.close();
  },
);

test('a fault point that throws rolls the commit back and is what the caller is told', async () => {
  const path = temporaryStore();
  const fault = new Error('injected');
  let armed = '';
  const store = await openSqliteStore({
    path,
    faultPoint(name) {
      if (name === armed) throw fault;
    },
  });
  for (const point of ['store.before-begin', 'store.mid-transaction', 'store.before-commit']) {
    armed = point;
    await expect(store.commit(batch({ clearedSteps: ['x'] }))).rejects.toBe(fault);
  }
  armed = '';
  await store.commit(batch());
  await store.close();
});
