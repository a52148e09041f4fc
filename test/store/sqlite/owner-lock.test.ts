import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { describe, expect, test } from 'vitest';
import { LockConflictError } from '../../../src/protocol/errors.ts';
import { acquireOwnerLock } from '../../../src/store/sqlite/owner-lock.ts';
import { processIdentity } from '../../../src/store/sqlite/process-identity.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch } from '../rows.ts';
import { startChild } from './children.ts';
import { temporaryDirectory, temporaryStore } from './temporary.ts';

const self = processIdentity(process.pid);
const content = (parts: object): string =>
  JSON.stringify({ ...self, lockedAt: '2026-01-02T03:04:05.000Z', store: '/s.db', ...parts });

/** The number of a process that has ended. */
async function deadPid(): Promise<number> {
  const child = startChild('hash');
  await child.ended;
  return child.pid;
}

describe('a lock file that was left behind', () => {
  test.each<{ left: string; file: () => string | Promise<string>; outcome: 'taken' | RegExp }>([
    {
      left: 'by a dead process',
      file: async () => content({ pid: await deadPid() }),
      outcome: 'taken',
    },
    {
      left: 'by a process whose number is reused',
      file: () => content({ startedAt: '1' }),
      outcome: 'taken',
    },
    { left: 'before the last boot', file: () => content({ bootId: 'other' }), outcome: 'taken' },
    { left: 'half-written', file: () => content({}).slice(0, 40), outcome: 'taken' },
    { left: 'empty', file: () => '', outcome: 'taken' },
    { left: 'with a number of no process', file: () => content({ pid: 0 }), outcome: 'taken' },
    { left: 'with a negative number', file: () => content({ pid: -1 }), outcome: 'taken' },
    { left: 'with something else in it', file: () => '{"pid":"me"}', outcome: 'taken' },
    {
      left: 'by a process of this table, under an older host name',
      file: async () => content({ pid: await deadPid(), host: 'renamed' }),
      outcome: 'taken',
    },
    { left: 'by this process', file: () => content({}), outcome: /is held by this process/ },
    {
      left: 'by another living process',
      file: () => content({ pid: process.ppid, startedAt: null }),
      outcome: new RegExp(`held by process ${process.ppid} since 2026-01-02T03:04:05.000Z`),
    },
    {
      left: 'on another machine',
      file: () => content({ pid: 1, host: 'elsewhere', bootId: 'other' }),
      outcome: /process 1 on host elsewhere since .* cannot be seen from here .* delete/,
    },
    {
      left: 'in another container',
      file: () => content({ pid: 1, host: hostname(), pidNamespace: 'pid:[1]' }),
      outcome: /cannot be seen from here/,
    },
  ])('$left', async ({ file, outcome }) => {
    const path = `${temporaryDirectory()}/s.db.lock`;
    const left = await file();
    writeFileSync(path, left);
    if (outcome === 'taken') {
      const lock = acquireOwnerLock(path, '/s.db');
      expect(lock.stolen).toBe(true);
      expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ ...self, store: '/s.db' });
      lock.release();
      expect(existsSync(path)).toBe(false);
    } else {
      expect(() => acquireOwnerLock(path, '/s.db')).toThrow(LockConflictError);
      expect(() => acquireOwnerLock(path, '/s.db')).toThrow(outcome);
      expect(readFileSync(path, 'utf8')).toBe(left);
      rmSync(path);
    }
    // Nothing half-made is left beside it.
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test('a takeover that was killed half-way is itself taken over', async () => {
    const path = `${temporaryDirectory()}/s.db.lock`;
    writeFileSync(path, '');
    writeFileSync(`${path}.takeover`, content({ pid: await deadPid() }));
    const lock = acquireOwnerLock(path, '/s.db');
    expect(lock.stolen).toBe(true);
    lock.release();
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test('while a living process takes over, others are refused', () => {
    const path = `${temporaryDirectory()}/s.db.lock`;
    writeFileSync(path, '');
    writeFileSync(`${path}.takeover`, content({}));
    expect(() => acquireOwnerLock(path, '/s.db')).toThrow(LockConflictError);
    expect(readFileSync(path, 'utf8')).toBe('');
  });
});

test('a lock that is no longer ours is left alone', () => {
  const path = `${temporaryDirectory()}/s.db.lock`;
  const lock = acquireOwnerLock(path, '/s.db');
  rmSync(path);
  const other = acquireOwnerLock(path, '/s.db');
  lock.release();
  expect(existsSync(path)).toBe(true);
  other.release();
  other.release();
  expect(existsSync(path)).toBe(false);
});

test('the process table knows the living and the dead', async () => {
  expect(self).toMatchObject({ pid: process.pid, host: hostname() });
  expect(processIdentity(await deadPid())).toBeUndefined();
  for (const pid of [0, -1, 1.5, Number.NaN, 2 ** 40]) expect(processIdentity(pid)).toBeUndefined();
});

describe('two processes', () => {
  test('the second to open a store is told who holds it, until it is closed', async () => {
    const path = temporaryStore();
    const store = await openSqliteStore({ path });
    const second = startChild('opener', path);
    await second.line();
    second.say('go');
    const told = await second.line();
    expect(told).toContain('LockConflictError');
    expect(told).toContain(path);
    expect(told).toContain(`held by process ${process.pid} since 20`);
    expect(await second.ended).toBe(0);
    await store.close();
    const third = startChild('opener', path);
    await third.line();
    third.say('go');
    expect(await third.line()).toBe(`opened ${store.id}`);
    await expect(openSqliteStore({ path })).rejects.toThrow(
      `held by process ${third.pid} since 20`,
    );
    third.say('end');
    expect(await third.ended).toBe(0);
    const again = await openSqliteStore({ path });
    await again.commit(batch());
    await again.close();
  });

  test('of those that find a stale lock at the same instant one wins', async () => {
    const path = `${temporaryDirectory()}/s.db.lock`;
    const stale = content({ pid: await deadPid() });
    const rivals = Array.from({ length: 3 }, () => startChild('lock-race', path));
    for (const rival of rivals) expect(await rival.line()).toBe('ready');
    const tell = (order: string): Promise<readonly string[]> => {
      for (const rival of rivals) rival.say(order);
      return Promise.all(rivals.map((rival) => rival.line()));
    };
    for (let round = 0; round < 100; round++) {
      writeFileSync(path, stale);
      expect((await tell('go')).toSorted()).toEqual([
        'LockConflictError',
        'LockConflictError',
        'stolen',
      ]);
      await tell('release');
      expect(readdirSync(dirname(path))).toEqual([]);
    }
  });
});
