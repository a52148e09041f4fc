import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { checkInvariants } from '../crash/invariants.ts';
import { Life, scratch } from '../crash/life.ts';
import { ALL_FAULTS } from '../extent.ts';
import { Cli, makeProject, merges, open, writing } from '../operator/cli-fixture.ts';
import { batch, turn } from '../store/rows.ts';
import { startChild } from '../store/sqlite/children.ts';
import { temporaryStore } from '../store/sqlite/temporary.ts';
import { injectingAndWatching, needStrace } from './toolbox.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: 240_000 });

describe('C01: another program holds the database’s lock', () => {
  test.each(ALL_FAULTS ? [100, 3_000, 30_000] : [100, 1_500])(
    'for %i ms: a run goes on when it lets go, and its event loop goes on meanwhile',
    async (heldMs) => {
      const directory = scratch();
      const orders = {
        store: path.join(directory, 'state.db'),
        history: path.join(directory, 'history.jsonl'),
        tasks: 12,
        concurrency: 2,
        workMs: 200,
        measureDelay: true,
      };
      const life = new Life('worker', { ...orders });
      await life.line('open');
      const other = startChild('lock-holder', orders.store);
      await other.line();
      other.say('take');
      expect(await other.line()).toBe('holding');
      const idle = (): boolean => life.lines.some((line) => line === 'idle');
      expect(idle()).toBe(false);
      // Not a wait for something to happen: the length of the fault.
      await pause(heldMs);
      // It could not have ended without the lock.
      expect(idle()).toBe(false);
      other.say('let go');
      expect(await other.ended).toBe(0);
      const delay = JSON.parse((await life.line('delay ')).slice('delay '.length)) as {
        readonly p99: number;
      };
      expect(delay.p99).toBeLessThan(200);
      await life.finished();
      await checkInvariants({
        storePath: orders.store,
        history: orders.history,
        expect: { fired: 1 },
      });
    },
  );

  test.runIf(ALL_FAULTS)('for more than 30 s: that is said', async () => {
    const path = temporaryStore();
    const warned = Promise.withResolvers<string>();
    const store = await openSqliteStore({ path, onWarning: warned.resolve });
    const other = startChild('lock-holder', path);
    await other.line();
    other.say('take');
    expect(await other.line()).toBe('holding');
    const commit = store.commit(batch(turn('inbox/ada', 0)));
    expect(await warned.promise).toMatch(
      /^Could not write to .* for 3\d s: another process holds the lock .* Still trying/,
    );
    other.say('let go');
    await commit;
    await store.close();
  });
});

test('C04: while SQLite has a database open, its process opens it in no other way', async ({
  skip,
}) => {
  needStrace(skip);
  const directory = scratch();
  const orders = {
    store: path.join(directory, 'state.db'),
    history: path.join(directory, 'history.jsonl'),
    tasks: 6,
  };
  // Twice: the second life looks at the log of the first, which was killed.
  const first = new Life('worker', { ...orders, linger: true });
  await first.line('idle');
  first.kill();
  await first.death();
  const log = `${orders.history}.calls`;
  const files = ['', '-wal', '-shm'].map((suffix) => `${orders.store}${suffix}`);
  const inject = 'mmap:delay_enter=0';
  const under = injectingAndWatching(inject, log, ['openat', 'open', 'mmap'], ...files);
  await new Life('worker', { ...orders }, {}, under).finished();
  const opens = readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => /\bopen(at)?\(/.test(line) && line.includes(orders.store));
  // SQLite, and nobody else, says O_NOFOLLOW. https://sqlite.org/howtocorrupt.html §2.2 is what happens otherwise.
  const bySqlite = opens.findIndex((line) => line.includes('O_NOFOLLOW'));
  expect(bySqlite).toBeGreaterThan(0);
  expect(opens.slice(0, bySqlite).length).toBeGreaterThan(0);
  expect(opens.slice(bySqlite).filter((line) => !line.includes('O_NOFOLLOW'))).toEqual([]);
  await checkInvariants({ storePath: orders.store, history: orders.history, expect: { fired: 1 } });
});

test('C07: of two that are started at once one works, and the other says who', async () => {
  const directory = makeProject([writing('one', { wait: 'gate' }), writing('two')]);
  const both = [new Cli(directory, ['run']), new Cli(directory, ['run'])];
  const first = await Promise.race(both.map(async (cli) => ({ cli, end: await cli.ended })));
  const winner = both.find((cli) => cli !== first.cli) as Cli;
  expect(first.end).toMatchObject({ exitCode: 23, stdout: '' });
  expect(first.end.stderr).toContain(`is held by process ${winner.child.pid} since 20`);
  open(directory, 'gate');
  expect(await winner.ended).toMatchObject({ exitCode: 0, stderr: '' });
  expect(merges(directory).toSorted()).toEqual(['one', 'two']);
  await checkInvariants({
    projectDirectory: directory,
    storePath: path.join(directory, '.troupe', 'state.db'),
    expect: { fired: 1, base: 'main~2', untouched: { gate: '' } },
  });
});
