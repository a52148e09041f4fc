import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, expect, test, vi } from 'vitest';
import { makeProject, merges, troupe, writing } from '../operator/cli-fixture.ts';
import { programEnvironment } from '../program.ts';
import { childFile } from '../store/sqlite/children.ts';
import { temporaryDirectory } from '../store/sqlite/temporary.ts';

// Real processes on a machine that may be busy: the limit is for what hangs.
vi.setConfig({ testTimeout: 120_000 });

/*
 * B07: what a person meets whose database was damaged while nothing ran. The store's own refusals are in
 * test/store/sqlite/corruption.test.ts; here it is what the commands make of them: a word on what is wrong and what
 * to do, another exit code than success, and never "0 tasks, all done".
 */

const TASKS = [writing('one')];

const storeOf = (directory: string): string => path.join(directory, '.troupe', 'state.db');

/** The log of another store, whose owner was killed. */
function strangeLog(): Buffer {
  const other = path.join(temporaryDirectory(), 'other.db');
  const child = spawnSync(
    process.execPath,
    [childFile('crash'), other, 'store.before-begin', '3'],
    { env: programEnvironment() },
  );
  expect(child.signal).toBe('SIGKILL');
  return readFileSync(`${other}-wal`);
}

/** An empty log is a trace of looking. */
const hash = (file: string): string =>
  existsSync(file) && statSync(file).size > 0
    ? createHash('sha256').update(readFileSync(file)).digest('hex')
    : 'none';

interface Damage {
  readonly what: string;
  readonly make: (store: string, healthy: Buffer) => void;
  readonly run: RegExp;
  readonly status: RegExp;
}

const DAMAGES: readonly Damage[] = [
  {
    what: 'truncated to half',
    make: (store, healthy) => {
      writeFileSync(store, healthy);
      truncateSync(store, Math.floor(healthy.length / 2));
    },
    run: /damaged.*restore a backup/,
    status: /damaged/,
  },
  {
    what: 'truncated to its first page',
    make: (store, healthy) => {
      writeFileSync(store, healthy);
      truncateSync(store, 4096);
    },
    run: /damaged.*restore a backup/,
    status: /damaged/,
  },
  {
    what: 'with a flipped header',
    make: (store, healthy) => writeFileSync(store, Buffer.from(healthy).fill(0xff, 0, 16)),
    run: /not an SQLite database.*restore a backup/,
    status: /not an SQLite database/,
  },
  {
    what: 'an empty file',
    make: (store) => writeFileSync(store, ''),
    run: /is an empty file.*Restore a backup/,
    status: /empty file|not a store of Troupe/,
  },
  {
    what: 'a database of another program',
    make: (store) => {
      const db = new Database(store);
      db.exec('CREATE TABLE features (id INTEGER PRIMARY KEY)');
      db.close();
    },
    run: /not a store of Troupe/,
    status: /not a store of Troupe/,
  },
  {
    what: 'gone, and its log is there',
    make: (store) => writeFileSync(`${store}-wal`, strangeLog()),
    run: /is missing, but its log .* may hold committed work/,
    status: /is missing, but its log/,
  },
  {
    what: 'beside the log of another store',
    make: (store, healthy) => {
      writeFileSync(store, healthy);
      writeFileSync(`${store}-wal`, strangeLog());
    },
    run: /log .*-wal belongs to another database/,
    status: /log .*-wal belongs to another database/,
  },
];

/** Where a project lies whose run has ended; made once, and copied for each case. */
let ended: string | undefined;
afterAll(() => {
  if (ended !== undefined) rmSync(ended, { recursive: true, force: true });
});

async function endedProject(): Promise<string> {
  if (ended === undefined) {
    const directory = makeProject(TASKS);
    expect(await troupe(directory, 'run')).toMatchObject({ exitCode: 0 });
    ended = mkdtempSync(path.join(tmpdir(), 'troupe-ended-'));
    cpSync(directory, ended, { recursive: true });
  }
  const copy = path.join(temporaryDirectory(), 'project');
  cpSync(ended, copy, { recursive: true });
  return copy;
}

test.each(DAMAGES)(
  'a store $what: run and status say what is wrong, and leave it as it is',
  async (damage) => {
    const directory = await endedProject();
    const store = storeOf(directory);
    const healthy = readFileSync(store);
    rmSync(store);
    damage.make(store, healthy);
    const before = [store, `${store}-wal`].map(hash);
    for (const command of ['run', 'status'] as const) {
      const { exitCode, stdout, stderr } = await troupe(directory, command);
      expect({ command, stderr, found: damage[command].test(stderr) }).toMatchObject({
        found: true,
      });
      expect(stderr).toMatch(/^troupe: /);
      expect(stderr).not.toMatch(/ {4}at /);
      expect(exitCode).toBeGreaterThan(0);
      expect(stdout).not.toMatch(/done|no run yet/i);
      expect([store, `${store}-wal`].map(hash)).toEqual(before);
    }
    expect(merges(directory)).toHaveLength(1);
  },
);

test('flipped pages: run refuses; status refuses or says what was so', async () => {
  const directory = await endedProject();
  const store = storeOf(directory);
  const { stdout: truth } = await troupe(directory, 'status');
  const bytes = readFileSync(store);
  const pages = bytes.length / 4096;
  let refused = 0;
  for (let page = 1; page < pages; page += Math.ceil(pages / 4)) {
    writeFileSync(store, Buffer.from(bytes).fill(0xa5, page * 4096, (page + 1) * 4096));
    const run = await troupe(directory, 'run');
    if (run.exitCode === 0) {
      // A page that nothing uses.
      expect(run.stdout).toContain('It had ended before');
      writeFileSync(store, bytes);
      continue;
    }
    refused++;
    expect(run.stderr).toMatch(/damaged/);
    const status = await troupe(directory, 'status');
    if (status.exitCode === 0) expect(status.stdout).toBe(truth);
    else expect(status.stderr).toMatch(/^troupe: .*(damaged|cannot be right|not a store)/);
  }
  expect(refused).toBeGreaterThan(1);
});
