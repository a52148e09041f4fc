import { existsSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as tick } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { StoppedError } from '../../../src/protocol/errors.ts';
import { openReadOnlyStore } from '../../../src/store/sqlite/read-only.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { cpuTimeMs } from '../../cpu-time.ts';
import { actor, attemptRow, batch, checkpoint, deadLetter, runRow, tasks, turn } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryStore } from './temporary.ts';

describe('a lock that another program holds', () => {
  test('is waited for without blocking the event loop', async () => {
    const path = temporaryStore();
    const store = await openSqliteStore({ path });
    const other = startChild('lock-holder', path);
    await other.line();
    other.say('take');
    expect(await other.line()).toBe('holding');
    let settled = false;
    const commit = store.commit(batch(turn('inbox/ada', 0))).then(() => {
      settled = true;
    });
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    for (let ticks = 0; ticks < 100; ticks++) await tick(5);
    delay.disable();
    expect(settled).toBe(false);
    // A blocked loop would show a delay of 500 ms here, or the 50 ms of SQLite's own wait again and again.
    expect(delay.percentile(50) / 1e6).toBeLessThan(40);
    expect(delay.max / 1e6).toBeLessThan(1_000);
    other.say('let go');
    await commit;
    expect(await store.listActors()).toHaveLength(1);
    await store.close();
  });

  test('keeps nobody from closing', async () => {
    const path = temporaryStore();
    const store = await openSqliteStore({ path });
    // As much as makes SQLite want statistics, which it gathers at the end.
    for (let round = 0; round < 20; round++) {
      const addresses = Array.from({ length: 100 }, (_, n) => `inbox/${round}-${n}`);
      await store.commit(
        batch({
          actors: addresses.map((address) => actor({ address })),
          checkpoints: addresses.map((address) => checkpoint({ address })),
        }),
      );
      await store.loadActors(addresses);
      await store.listActors({ kind: 'inbox' });
    }
    const other = startChild('lock-holder', path);
    await other.line();
    other.say('take');
    expect(await other.line()).toBe('holding');
    await store.close();
    expect(existsSync(`${path}.lock`)).toBe(false);
    other.say('let go');
    expect(await other.ended).toBe(0);
  });

  test('is given up after the limit, and then nothing was stored', async () => {
    const path = temporaryStore();
    const store = await openSqliteStore({ path, busyLimitMs: 100 });
    const other = startChild('lock-holder', path);
    await other.line();
    other.say('take');
    expect(await other.line()).toBe('holding');
    await expect(store.commit(batch(turn('inbox/ada', 0)))).rejects.toMatchObject({
      code: 'unavailable',
      retryable: true,
      message: expect.stringMatching(/another process holds the lock .* Nothing was stored/),
    });
    const claim = { run: 'r1', agent: 'writer', limit: 1, token: 't' };
    await expect(store.claimTasks(claim)).rejects.toMatchObject({ code: 'unavailable' });
    // Readers and a writer do not wait for each other.
    expect(await store.listActors()).toEqual([]);
    other.say('let go');
    expect(await other.ended).toBe(0);
    await store.commit(batch(turn('inbox/ada', 0)));
    await store.close();
  });

  test('cannot be had in the middle of our commit, whatever was opened in this process meanwhile', async () => {
    const path = temporaryStore();
    const midway = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    const store = await openSqliteStore({
      path,
      faultPoint(name) {
        if (name !== 'store.mid-transaction') return;
        midway.resolve();
        return goOn.promise;
      },
    });
    const commit = store.commit(batch(turn('inbox/ada', 0)));
    await midway.promise;
    // Each of them would drop the writer's POSIX locks if it opened the file with `fs`.
    await expect(openSqliteStore({ path })).rejects.toThrow(/held by this process/);
    const reader = await openReadOnlyStore(path);
    expect(await reader.listActors()).toEqual([]);
    await reader.close();
    const other = startChild('lock-holder', path);
    await other.line();
    other.say('take');
    expect(await other.line()).toBe('SQLITE_BUSY');
    goOn.resolve();
    await commit;
    await store.close();
  });

  test('of a store without a write-ahead log also waits for a reader in another process', async () => {
    const path = temporaryStore();
    const NFS = 0x6969;
    const warnings: string[] = [];
    const store = await openSqliteStore({
      path,
      fileSystemType: NFS,
      onWarning: (message) => warnings.push(message),
    });
    expect(warnings).toEqual([expect.stringMatching(/network file system \(NFS\)/)]);
    expect(existsSync(`${path}-wal`)).toBe(false);
    await store.commit(batch(turn('inbox/ada', 0)));
    const other = startChild('lock-holder', path);
    await other.line();
    other.say('take');
    expect(await other.line()).toBe('holding');
    const commit = store.commit(batch(turn('inbox/ada', 1)));
    other.say('let go');
    await commit;
    await store.close();
  });

  test('keeps a store with a log from being opened without one', async () => {
    const path = temporaryStore();
    await (await openSqliteStore({ path })).close();
    const reader = await openReadOnlyStore(path);
    await reader.listRuns();
    await expect(
      openSqliteStore({ path, fileSystemType: 0x6969, busyLimitMs: 100 }),
    ).rejects.toMatchObject({ code: 'unavailable' });
    await reader.close();
    const store = await openSqliteStore({ path, fileSystemType: 0x6969 });
    await store.close();
    const db = new Database(path, { readonly: true });
    expect(db.pragma('journal_mode', { simple: true })).toBe('delete');
    db.close();
  });
});

describe('a reader', () => {
  test('in another process sees each commit while the owner writes on', async () => {
    const path = temporaryStore();
    const store = await openSqliteStore({ path });
    const reader = startChild('reader', path);
    expect(await reader.line()).toBe(`reading ${store.id}`);
    for (let i = 1; i <= 20; i++) {
      await store.commit(batch({ projections: tasks({ task: `t${i}`, position: i }) }));
      const unawaited = store.commit(batch(turn(`inbox/${i}`, 0)));
      reader.say('r1');
      expect(JSON.parse(await reader.line())).toEqual({ ready: i });
      await unawaited;
    }
    await store.close();
    reader.say('r1');
    expect(JSON.parse(await reader.line())).toEqual({ ready: 20 });
  });

  test('answers every list like the owner, and StoppedError once it is closed', async () => {
    const path = temporaryStore();
    const store = await openSqliteStore({ path });
    await store.commit(
      batch({
        ...turn('inbox/ada', 0),
        deadLetters: [deadLetter()],
        projections: [
          { table: 'runs', row: runRow() },
          { table: 'attempts', row: attemptRow() },
          ...tasks({ task: 'a' }, { task: 'b', position: 2 }),
        ],
      }),
    );
    const reader = await openReadOnlyStore(path);
    for (const s of [reader, store]) {
      expect(await s.listActors({ kind: 'inbox' })).toHaveLength(1);
      expect(await s.listCheckpoints('inbox/ada', { last: 1 })).toHaveLength(1);
      expect(await s.listDeadLetters()).toHaveLength(1);
      expect(await s.listRuns()).toEqual([runRow()]);
      expect(await s.listTasks('r1', { limit: 1 })).toHaveLength(1);
      expect(await s.listAttempts('r1', 't1')).toEqual([attemptRow()]);
      expect(await s.countTasks('r1')).toEqual({ ready: 2 });
    }
    await reader.close();
    await reader.close();
    await expect(reader.listRuns()).rejects.toBeInstanceOf(StoppedError);
    await store.commit(batch());
    await store.close();
  });
});

test('a claim looks at the tasks it takes, not at all of them', async () => {
  const path = temporaryStore();
  const store = await openSqliteStore({ path, durability: 'normal' });
  const rows = Array.from({ length: 20_000 }, (_, i) => ({ task: `t${i}`, position: i }));
  await store.commit(batch({ projections: tasks(...rows) }));
  const begin = cpuTimeMs();
  for (let i = 0; i < 50; i++) {
    await store.claimTasks({ run: 'r1', agent: 'writer', limit: 12, token: `c${i}` });
  }
  // About 0.3 ms each; sorting 20 000 rows each time takes 10 ms.
  expect((cpuTimeMs() - begin) / 50).toBeLessThan(5);
  await store.close();
});
