import fs, { readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { LockConflictError } from '../../../src/protocol/errors.ts';
import { acquireOwnerLock } from '../../../src/store/sqlite/owner-lock.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { ALL_FAULTS } from '../../extent.ts';
import { batch, turn } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryDirectory, temporaryStore } from './temporary.ts';

/** As if the owner's last sign of life were older than the 60 s after which it may be taken over. */
function letSignsGrowOld(path: string): void {
  const old = new Date(Date.now() - 61_000);
  utimesSync(`${path}.lock`, old, old);
}

describe('an owner that stands still (SIGSTOP)', () => {
  test('is left alone while it shows signs of life, and unless somebody says so', async () => {
    const path = temporaryStore();
    const owner = startChild('frozen', path);
    expect(await owner.line()).toBe('opened');
    owner.kill('SIGSTOP');
    await expect(openSqliteStore({ path, takeOver: true })).rejects.toThrow(
      /held by process \d+ since .* then try again\.$/,
    );
    letSignsGrowOld(path);
    await expect(openSqliteStore({ path })).rejects.toThrow(
      /shown no sign of life for 61 s: it can be taken over \(takeOver: true, or --take-over\)/,
    );
    owner.kill('SIGCONT');
    owner.say('turn');
    expect(await owner.line()).toBe('turn: ok');
  });

  test('is taken over, and when it goes on each of its writes is refused', async () => {
    const path = temporaryStore();
    const owner = startChild('frozen', path);
    expect(await owner.line()).toBe('opened');
    owner.say('turn');
    expect(await owner.line()).toBe('turn: ok');
    owner.kill('SIGSTOP');
    letSignsGrowOld(path);
    const store = await openSqliteStore({ path, takeOver: true });
    await store.commit(batch(turn('inbox/new', 0)));
    const before = readFileSync(`${path}.lock`, 'utf8');
    owner.kill('SIGCONT');
    const refused =
      /lock_conflict: The store .* takes no more writes from this process: while it stood still/;
    for (const order of ['turn', 'claim', 'lease', 'assert', 'turn']) {
      owner.say(order);
      expect(await owner.line()).toMatch(refused);
    }
    owner.say('close');
    expect(await owner.line()).toBe('close: ok');
    // It has let go of nothing that is not its own.
    expect(readFileSync(`${path}.lock`, 'utf8')).toBe(before);
    await store.commit(batch(turn('inbox/new', 1)));
    expect((await store.listActors()).map(({ address, seq }) => [address, seq])).toEqual([
      ['inbox/frozen', 0],
      ['inbox/new', 1],
    ]);
    await store.close();
  });

  test('is taken over at any moment of its work: nothing it said is lost, nothing comes after', {
    // Each of its rounds waits for two processes.
    timeout: 120_000,
  }, async () => {
    const path = temporaryStore();
    let rounds = 0;
    let locked = 0;
    while (rounds < (ALL_FAULTS ? 12 : 4)) {
      const owner = startChild('writer', path);
      const acknowledged = await owner.line();
      for (let lines = 0; lines < rounds * 3; lines++) await owner.line();
      owner.kill('SIGSTOP');
      letSignsGrowOld(path);
      const store = await openSqliteStore({ path, takeOver: true, busyLimitMs: 100 }).catch(
        (error: unknown) => error as Error,
      );
      if (store instanceof Error) {
        // It was stopped in the middle of a transaction: SQLite's own lock is in the way.
        expect(store.message).toMatch(/another process holds the lock/);
        locked++;
        owner.kill('SIGKILL');
        await owner.ended;
        continue;
      }
      const [stored] = await store.listCheckpoints('inbox/ada', { last: 1 });
      await store.commit(batch(turn(`inbox/round-${rounds}`, 0)));
      owner.kill('SIGCONT');
      // Its commit is refused, and it knows nothing better than to die of that.
      expect(await owner.ended).toBe(1);
      const [after] = await store.listCheckpoints('inbox/ada', { last: 1 });
      expect(after).toEqual(stored);
      const said = [acknowledged, ...(await owner.rest())].map(Number);
      expect(Math.max(...said)).toBeLessThanOrEqual(stored?.seq ?? -1);
      await store.close();
      rounds++;
    }
    expect(locked).toBeLessThan(100);
  });
});

test('an owner that lives shows it', async () => {
  const path = `${temporaryDirectory()}/s.db.lock`;
  const lock = acquireOwnerLock(path, '/s.db', { ownerTtlMs: 60 });
  const first = statSync(path).mtimeMs;
  while (statSync(path).mtimeMs <= first) await pause(5);
  lock.release();
  expect(() => statSync(path)).toThrow();
});

test('an owner that cannot show that it lives, for the disk has failed, lives on', () => {
  const { futimesSync } = fs;
  let tried = 0;
  fs.futimesSync = () => {
    tried++;
    throw Object.assign(new Error('EROFS: read-only file system, futime'), { code: 'EROFS' });
  };
  syncBuiltinESMExports();
  vi.useFakeTimers();
  try {
    const lock = acquireOwnerLock(`${temporaryDirectory()}/s.db.lock`, '/s.db');
    vi.advanceTimersByTime(60_000);
    expect(tried).toBe(3);
    lock.release();
  } finally {
    vi.useRealTimers();
    fs.futimesSync = futimesSync;
    syncBuiltinESMExports();
  }
});

test('a holder on another machine can be taken over when it is silent', () => {
  const path = `${temporaryDirectory()}/s.db`;
  const elsewhere = { pid: 1, host: 'elsewhere', bootId: 'b', startedAt: '1', pidNamespace: 'p' };
  const content = { ...elsewhere, lockedAt: '2026-01-02T03:04:05.000Z', store: path };
  writeFileSync(`${path}.lock`, JSON.stringify(content));
  expect(() => acquireOwnerLock(`${path}.lock`, path, { takeOver: true })).toThrow(
    LockConflictError,
  );
  letSignsGrowOld(path);
  const lock = acquireOwnerLock(`${path}.lock`, path, { takeOver: true });
  expect(lock.stolen).toBe(true);
  lock.release();
});
