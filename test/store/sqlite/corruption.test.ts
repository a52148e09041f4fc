import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { TroupeError } from '../../../src/protocol/errors.ts';
import { refuseStrangeLog } from '../../../src/store/sqlite/log-check.ts';
import { openReadOnlyStore } from '../../../src/store/sqlite/read-only.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { programEnvironment } from '../../program.ts';
import { batch, turn } from '../rows.ts';
import { childFile, startChild } from './children.ts';
import { temporaryDirectory, temporaryStore } from './temporary.ts';

/** A closed store with 200 checkpoints, as bytes. */
let healthy: Buffer;
beforeAll(async () => {
  const { mkdtempSync } = await import('node:fs');
  const { tmpdir } = await import('node:os');
  const directory = mkdtempSync(join(tmpdir(), 'troupe-healthy-'));
  const path = join(directory, 'state.db');
  const store = await openSqliteStore({ path, durability: 'normal' });
  for (let seq = 0; seq < 200; seq++) {
    await store.commit(batch(turn('inbox/ada', seq, 'x'.repeat(500))));
  }
  await store.close();
  healthy = readFileSync(path);
  rmSync(directory, { recursive: true });
});

function put(path: string, change: (bytes: Buffer) => Buffer = (bytes) => bytes): void {
  writeFileSync(path, change(Buffer.from(healthy)));
}

function strangeDatabase(path: string, applicationId: number): void {
  const db = new Database(path);
  db.exec('CREATE TABLE features (id INTEGER PRIMARY KEY, title TEXT)');
  db.pragma(`application_id = ${applicationId}`);
  db.close();
}

/** Two commits by a process that is then killed and leaves them in the log. */
function crash(path: string): void {
  const child = spawnSync(process.execPath, [childFile('crash'), path, 'store.before-begin', '3'], {
    env: programEnvironment(),
  });
  expect(child.signal).toBe('SIGKILL');
}

/** How the log of a killed process can look: its last transaction is torn in the middle of a page, over an older one. */
function tearLastTransaction(log: string): void {
  const bytes = readFileSync(log);
  const pageSize = bytes.readUInt32BE(8);
  const frameSize = 24 + pageSize;
  const salts = bytes.subarray(16, 24);
  const frames = Array.from(
    { length: Math.floor((bytes.length - 32) / frameSize) },
    (_, n) => 32 + n * frameSize,
  ).filter((at) => bytes.subarray(at + 8, at + 16).equals(salts));
  const isCommit = (at: number): boolean => bytes.readUInt32BE(at + 4) !== 0;
  const last = frames.findLastIndex((at, n) => n < frames.length - 1 && isCommit(at)) + 1;
  const at = frames.slice(last).find((frame) => bytes.readUInt32BE(frame) === 3);
  expect(at).toBeDefined();
  // Page 3 counts the commits. Its first half is new, what lies under the second is of another page.
  bytes.fill('old ', (at as number) + 24 + pageSize / 2, (at as number) + frameSize);
  writeFileSync(log, bytes);
}

/** Whatever is in the log is in the file afterwards. */
function closeProperly(path: string): void {
  const db = new Database(path);
  db.prepare("DELETE FROM checkpoints WHERE address = 'inbox/ada'").run();
  db.close();
}

/** The -wal that a killed owner of another store leaves. */
function strangeLog(path: string): void {
  const other = join(temporaryDirectory(), 'other.db');
  crash(other);
  copyFileSync(`${other}-wal`, path);
}

/** The -wal of a database that has nothing to do with Troupe. */
function foreignLog(path: string): void {
  const other = join(temporaryDirectory(), 'foreign.db');
  const db = new Database(other);
  db.pragma('journal_mode = WAL');
  db.exec('CREATE TABLE features (id INTEGER PRIMARY KEY); INSERT INTO features VALUES (1)');
  // Not open here: the copy is made while the connection lives in this very process, in a file of its own.
  spawnSync('cp', [`${other}-wal`, path]);
  db.close();
}

/** The files beside the database and what is in them, but for the traces of looking: shared memory, an empty log. */
const files = (path: string): readonly string[] =>
  readdirSync(dirname(path))
    .map((name) => join(dirname(path), name))
    .filter((file) => !file.endsWith('-shm'))
    .filter((file) => !file.endsWith('-wal') || statSync(file).size > 0)
    .map((file) => {
      const content = statSync(file).isDirectory() ? 'directory' : readFileSync(file);
      return `${file} ${createHash('sha256').update(content).digest('hex')}`;
    });

describe('a file that is no healthy store is refused and left as it is', () => {
  test.each<{ what: string; make: (path: string) => void; code: string; says: RegExp }>([
    {
      what: 'a text',
      make: (path) => writeFileSync(path, 'once upon a time '.repeat(500)),
      code: 'internal',
      says: /not an SQLite database .*left as it is/,
    },
    {
      what: 'a short text',
      make: (path) => writeFileSync(path, 'hello'),
      code: 'internal',
      says: /not an SQLite database/,
    },
    {
      what: 'an empty file',
      make: (path) => writeFileSync(path, ''),
      code: 'internal',
      says: /is an empty file.*Restore a backup, or delete the file/,
    },
    {
      what: 'an empty file with a log',
      make: (path) => {
        writeFileSync(path, '');
        strangeLog(`${path}-wal`);
      },
      code: 'internal',
      says: /is an empty file/,
    },
    {
      what: 'no file, but its log',
      make: (path) => strangeLog(`${path}-wal`),
      code: 'internal',
      says: /is missing, but its log .*-wal is there and may hold committed work/,
    },
    {
      what: 'a directory',
      make: (path) => mkdirSync(path),
      code: 'configuration',
      says: /Expected .* to be a file/,
    },
    {
      what: 'half of a store',
      make: (path) => {
        put(path);
        truncateSync(path, Math.floor(healthy.length / 2));
      },
      code: 'internal',
      says: /damaged/,
    },
    {
      what: 'the first page of a store',
      make: (path) => {
        put(path);
        truncateSync(path, 4096);
      },
      code: 'internal',
      says: /damaged/,
    },
    {
      what: 'a store with a flipped header',
      make: (path) => put(path, (bytes) => bytes.fill(0xff, 0, 16)),
      code: 'internal',
      says: /not an SQLite database/,
    },
    {
      what: 'a store with flipped pages',
      make: (path) => put(path, (bytes) => bytes.fill(0xa5, 20 * 4096, 22 * 4096)),
      code: 'internal',
      says: /damaged/,
    },
    {
      what: 'a database of nobody',
      make: (path) => strangeDatabase(path, 0),
      code: 'configuration',
      says: /not a store of Troupe \(its application id is 0, expected 1414681936\)/,
    },
    {
      what: 'a database of another program',
      make: (path) => strangeDatabase(path, 0x0f055112),
      code: 'configuration',
      says: /not a store of Troupe/,
    },
    {
      what: 'a store with the log of another store',
      make: (path) => {
        put(path);
        strangeLog(`${path}-wal`);
      },
      code: 'internal',
      says: /log .*-wal belongs to another database/,
    },
    {
      what: 'a backup with the log of what came after it',
      make: (path) => {
        crash(path);
        copyFileSync(path, `${path}.backup`);
        rmSync(`${path}-wal`);
        // Two more lives; the log of the last does not begin where the backup ends.
        for (let life = 0; life < 2; life++) {
          closeProperly(path);
          crash(path);
        }
        renameSync(`${path}.backup`, path);
        rmSync(`${path}.lock`);
      },
      code: 'internal',
      says: /-wal does not continue .*: the file is at commit \d+, the log holds commits \d+ to \d+. Was a backup put back/,
    },
    {
      what: 'a store with the log of another program',
      make: (path) => {
        put(path);
        foreignLog(`${path}-wal`);
      },
      code: 'internal',
      says: /log .*-wal belongs to another database/,
    },
  ])('$what', async ({ make, code, says }) => {
    const path = temporaryStore();
    make(path);
    const before = files(path);
    const error: unknown = await openSqliteStore({ path }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TroupeError);
    expect(error).toMatchObject({ code });
    expect(String(error)).toMatch(says);
    expect(String(error)).toContain(path);
    expect(files(path)).toEqual(before);
  });

  test('the healthy one opens, also beside an empty log', async () => {
    const path = temporaryStore();
    put(path);
    writeFileSync(`${path}-wal`, '');
    const store = await openSqliteStore({ path });
    expect(await store.listCheckpoints('inbox/ada')).toHaveLength(200);
    await store.close();
  });
});

test('a log whose last transaction was torn by a kill is no stranger: what was committed before counts', async () => {
  const path = temporaryStore();
  crash(path);
  const before = new Database(path, { readonly: true });
  const count = 'SELECT commits FROM store';
  const commits = before.prepare(count).pluck().get() as number;
  before.close();
  tearLastTransaction(`${path}-wal`);
  const store = await openSqliteStore({ path });
  await store.close();
  const after = new Database(path, { readonly: true });
  // One was lost with its commit's frames; opening counts itself.
  expect(after.prepare(count).pluck().get()).toBe(commits - 1 + 1);
  after.close();
});

test("a log is its store's own wherever a kill has torn it", () => {
  const path = temporaryStore();
  crash(path);
  const log = readFileSync(`${path}-wal`);
  fc.assert(
    fc.property(fc.nat(log.length), fc.nat(255), (from, garbage) => {
      const torn = Buffer.from(log);
      torn.fill(garbage, from);
      writeFileSync(`${path}-wal`, torn);
      refuseStrangeLog(path);
    }),
    { numRuns: 200 },
  );
});

test.each<{ what: string; make: (path: string) => void; says: RegExp }>([
  { what: 'no file', make: () => undefined, says: /There is no store/ },
  { what: 'an empty file', make: (path) => writeFileSync(path, ''), says: /not a store of Troupe/ },
  { what: 'a text', make: (path) => writeFileSync(path, 'x'.repeat(999)), says: /not an SQLite/ },
  { what: 'a stranger', make: (path) => strangeDatabase(path, 7), says: /not a store of Troupe/ },
])('a reader refuses $what and makes nothing', async ({ make, says }) => {
  const path = temporaryStore();
  make(path);
  const before = files(path);
  await expect(openReadOnlyStore(path)).rejects.toThrow(says);
  expect(files(path)).toEqual(before);
});

test('a row that cannot be right is named with its table and column', async () => {
  const path = temporaryStore();
  put(path);
  const db = new Database(path);
  db.pragma('ignore_check_constraints = ON');
  db.exec("UPDATE actors SET status = 'asleep'");
  db.close();
  const store = await openSqliteStore({ path });
  await expect(store.listActors()).rejects.toThrow(/Row 1 of actors in .* cannot be right: status/);
  await store.close();
});

describe('a store that loses its file while it is open', () => {
  test.each<{ what: string; lose: (path: string) => void; says: RegExp }>([
    {
      what: 'file is deleted',
      lose: (path) => rmSync(path),
      says: /the file was deleted or moved .*Stop, put the file back/,
    },
    {
      what: 'file is replaced',
      lose: (path) => {
        rmSync(path);
        put(path);
      },
      says: /the file was replaced by another file/,
    },
    {
      what: 'lock is deleted',
      lose: (path) => rmSync(`${path}.lock`),
      says: /its lock .* was deleted or moved, so another process may own/,
    },
  ])('stops writing within 1000 commits when the $what', async ({ lose, says }) => {
    const path = temporaryStore();
    const store = await openSqliteStore({ path, durability: 'normal' });
    await store.commit(batch(turn('inbox/ada', 0)));
    lose(path);
    let error: unknown;
    let commits = 0;
    while (error === undefined && commits <= 1000) {
      error = await store.commit(batch({ clearedSteps: ['x'] })).catch((thrown: unknown) => thrown);
      commits++;
    }
    expect(error).toMatchObject({ code: 'unavailable', retryable: false });
    expect(String(error)).toMatch(says);
    await expect(store.commit(batch())).rejects.toThrow(says);
    await expect(store.claimTasks({ run: 'r', agent: 'a', limit: 1, token: 't' })).rejects.toThrow(
      says,
    );
    await store.close();
    expect(existsSync(`${path}.lock`)).toBe(false);
  });
});

describe('the disk', () => {
  const mayUnshare = spawnSync('unshare', ['-Urm', 'true']).status === 0;
  const mayTrace = spawnSync('strace', ['-o', '/dev/null', 'true']).status === 0;

  test.skipIf(!mayUnshare)(
    'full: the commit fails as a whole, and there is a next time',
    async () => {
      const directory = temporaryDirectory();
      const mounted =
        'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" "$3" "$1/s.db" "$1/ballast"';
      const arguments_ = [directory, process.execPath, childFile('until-refused')];
      const run = spawnSync('unshare', ['-Urm', 'bash', '-c', mounted, 'bash', ...arguments_], {
        env: programEnvironment(),
      });
      const [acknowledged, refusal, then, found] = run.stdout.toString().trim().split('\n');
      const count = Number(acknowledged?.replace('acknowledged ', ''));
      expect(count).toBeGreaterThan(10);
      expect(refusal).toMatch(
        /^unavailable Could not store a commit in .*: the disk is full \(SQLITE_FULL/,
      );
      expect(then).toBe('stored');
      expect(found).toBe(`found ${count + 1}`);
    },
  );

  test.skipIf(!mayUnshare)('read-only: the store does not open, and the reason is clear', () => {
    const directory = temporaryDirectory();
    const mounted = 'mount -t tmpfs -o ro tmpfs "$1" && exec "$2" "$3" "$1/s.db"';
    const arguments_ = [directory, process.execPath, childFile('until-refused')];
    const run = spawnSync('unshare', ['-Urm', 'bash', '-c', mounted, 'bash', ...arguments_], {
      env: programEnvironment(),
    });
    expect(run.stderr.toString()).toMatch(/Could not lock the store .*EROFS.* must be writable/);
  });

  test.skipIf(!mayTrace)(
    'failing in a flush: the outcome is called unknown, and nothing more is written',
    async () => {
      const path = temporaryStore();
      const inject = 'inject=fdatasync,fsync:error=EIO:when=25+';
      const trace = ['-f', '-o', '/dev/null', '-e', 'trace=fdatasync,fsync', '-e', inject];
      const run = spawnSync(
        'strace',
        [...trace, process.execPath, childFile('until-refused'), path],
        { env: programEnvironment() },
      );
      const [acknowledged, refusal, then] = run.stdout.toString().trim().split('\n');
      const count = Number(acknowledged?.replace('acknowledged ', ''));
      expect(refusal).toMatch(/^unavailable .*the disk reported an error \(SQLITE_IOERR/);
      expect(then).toMatch(/^unavailable .*takes no more writes.*whether it was stored is unknown/);
      const store = await openSqliteStore({ path });
      const found = (await store.listCheckpoints('inbox/ada')).length;
      expect([count, count + 1]).toContain(found);
      await store.close();
    },
  );
});

test('a file size limit is met like a full disk', async () => {
  const path = temporaryStore();
  const limited = 'ulimit -f 600 && exec "$1" "$2" "$3"';
  const arguments_ = [process.execPath, childFile('until-refused'), path];
  const run = spawnSync('bash', ['-c', limited, 'bash', ...arguments_], {
    env: programEnvironment(),
  });
  const [acknowledged, refusal] = run.stdout.toString().trim().split('\n');
  const count = Number(acknowledged?.replace('acknowledged ', ''));
  expect(count).toBeGreaterThan(5);
  expect(refusal).toMatch(/^unavailable Could not store a commit/);
  const child = startChild('hash', path);
  expect(await child.rest()).toHaveLength(1);
  const store = await openSqliteStore({ path });
  const found = (await store.listCheckpoints('inbox/ada')).length;
  expect([count, count + 1]).toContain(found);
  await store.close();
});
