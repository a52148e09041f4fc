import { once } from 'node:events';
import { mkdirSync, readFileSync, utimesSync, watch, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { createEndpoint } from '../../src/operator/control/endpoint.ts';
import { describeProcess } from '../../src/store/sqlite/process-identity.ts';
import {
  Cli,
  makeProject,
  merges,
  open,
  troupe,
  troupeProcess,
  untilWritten,
  workedProject,
  writing,
} from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

/** A project whose run is done. */
const done = () => workedProject([writing('one')]);

/** One whose run waits for a task that is staged. */
const waiting = () => workedProject([writing('one'), writing('two', {}, { staged: true })], 30);

const storeOf = (directory: string): string => path.join(directory, '.troupe', 'state.db');

/** What a later version, or a damaged disk, may leave: a state that today's machine does not have. */
function putStrangeState(directory: string, address: string): void {
  const db = new Database(storeOf(directory));
  db.prepare(
    `UPDATE checkpoints SET snapshot_json = json_set(snapshot_json, '$.value', 'asleep')
     WHERE address = ? AND seq = (SELECT seq FROM actors WHERE address = checkpoints.address)`,
  ).run(address);
  db.close();
}

/** Resolves when a process that works on the store has set the actor aside. */
async function untilQuarantined(directory: string, address: string): Promise<void> {
  const db = new Database(storeOf(directory), { readonly: true });
  const status = db.prepare('SELECT status FROM actors WHERE address = ?').pluck();
  await new Promise<void>((resolve) => {
    const look = (): void => {
      if (status.get(address) !== 'quarantined') return;
      watcher.close();
      resolve();
    };
    const watcher = watch(path.dirname(storeOf(directory)), look);
    look();
  });
  db.close();
}

describe('troupe check', () => {
  test('restores everything that is stored, and changes nothing', async () => {
    const directory = await waiting();
    const before = readFileSync(storeOf(directory));
    const found = await troupeProcess(directory, 'check');
    expect(found).toMatchObject({ exitCode: 0, stderr: '' });
    expect(found.stdout).toMatch(
      /^This version can go on from .*state\.db: \d+ actors restored\.\n$/,
    );
    putStrangeState(directory, 'task/main/two');
    const refused = await troupe(directory, 'check', '--json');
    expect(refused.exitCode).toBe(41);
    expect(JSON.parse(refused.stdout)).toMatchObject({
      problems: [
        {
          address: 'task/main/two',
          machine: 'task',
          problem: expect.stringContaining('"asleep"'),
        },
      ],
    });
    const said = await troupe(directory, 'check', storeOf(directory));
    expect(said.stdout).toMatch(
      /cannot go on from .*: 1 of \d+ actors would be quarantined\.\n {2}task\/main\/two \(machine task, version \d+\): /,
    );
    expect(before.length).toBeGreaterThan(0);
  });

  test('takes the machines of an app from a module', async () => {
    const directory = await done();
    writeFileSync(
      path.join(directory, 'machines.mjs'),
      `export const machines = [{ id: 'inbox' }];\n`,
    );
    const refused = await troupe(directory, 'check', '--machines', 'machines.mjs');
    expect(refused).toMatchObject({ exitCode: 41, stdout: '' });
    expect(refused.stderr).toMatch(/to export `machines`: a list of machines/);
    const missing = await troupe(directory, 'check', '--machines', 'nowhere.mjs');
    expect(missing).toMatchObject({ exitCode: 41 });
    expect(missing.stderr).toMatch(/^troupe: Could not load the machines from .*nowhere\.mjs/);
  });

  test('says it in one line when there is no store, or something else', async () => {
    const directory = makeProject([writing('one')]);
    const none = await troupe(directory, 'check');
    expect(none).toMatchObject({ exitCode: 21, stdout: '' });
    expect(none.stderr).toMatch(/^troupe: There is no store .*state\.db\. Name the file/);
    const strange = await troupe(directory, 'check', 'troupe.yaml');
    expect(strange.exitCode).not.toBe(0);
    expect(strange.stderr).toMatch(/^troupe: .*troupe\.yaml.*not an SQLite database.*\n$/);
  });
});

describe('troupe doctor', () => {
  test('lists what is quarantined with the reason, and says so when nothing is wrong', async () => {
    const directory = await waiting();
    expect(await troupeProcess(directory, 'doctor')).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(
        /^No process works on it\.\nok {3}configuration: .*\nok {3}store: .*state\.db is whole\.\nok {3}lock: (?:.*\n)+Nothing is wrong: \d+ actors/,
      ),
    });
    putStrangeState(directory, 'task/main/two');
    // Whoever goes on meets it.
    const order = new Cli(directory, ['pause-task', 'two']);
    await untilQuarantined(directory, 'task/main/two');
    // It would wait for an answer for 30 s.
    order.child.kill();
    await order.ended;
    const found = await troupe(directory, 'doctor');
    expect(found.exitCode).toBe(40);
    expect(found.stdout).toMatch(
      /1 actor is quarantined: .*\n {2}task\/main\/two \(machine task, version \d+\): The stored state "asleep"/,
    );
    expect(JSON.parse((await troupe(directory, 'doctor', '--json')).stdout)).toMatchObject({
      healthy: false,
      quarantined: [{ address: 'task/main/two' }],
    });
  });
});

test('troupe doctor says what is wrong with the configuration a line for each problem', async () => {
  const directory = makeProject([writing('one')]);
  writeFileSync(path.join(directory, 'troupe.yaml'), 'version: 1\nverify: 7\ntarget: 8\n');
  const { exitCode, stdout } = await troupe(directory, 'doctor');
  expect(exitCode).toBe(40);
  expect(stdout).toMatch(
    /^bad {2}configuration: troupe\.yaml cannot be used, because of 2 problems:\n {5}troupe\.yaml:2:9: verify: .*\n {5}troupe\.yaml:3:9: target: .*\n/m,
  );
});

describe('troupe doctor, about the store as a file', () => {
  const check = async (directory: string, name: string) => {
    const { exitCode, stdout } = await troupe(directory, 'doctor', '--json');
    const { checks } = JSON.parse(stdout) as { checks: { name: string }[] };
    return { exitCode, ...checks.find((one) => one.name === name) };
  };

  test('says that another version works on it, and looks at all the rest', async () => {
    const directory = await done();
    const { path: socket } = await createEndpoint(path.join(directory, '.troupe'));
    const server = createServer((client) => client.end('{"troupe":"control/9","pid":7}\n'));
    server.listen(socket);
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    expect(await check(directory, 'control')).toMatchObject({
      ...{ exitCode: 40, ok: false },
      says: [expect.stringMatching(/^Process 7 works on this project with another version/)],
    });
    expect(await check(directory, 'store')).toMatchObject({ ok: true });
  });

  test('finds damage, and an owner that shows no sign of life', async () => {
    expect(await check(makeProject([writing('one')]), 'store')).toMatchObject({
      exitCode: 0,
      says: ['Nothing was run here yet.'],
    });
    const directory = await done();
    const lock = `${storeOf(directory)}.lock`;
    const store = storeOf(directory);
    const held = { ...describeProcess(process.pid), lockedAt: '2026-01-01T00:00:00.000Z', store };
    writeFileSync(lock, JSON.stringify(held));
    expect(await check(directory, 'lock')).toMatchObject({ exitCode: 0, ok: true });
    utimesSync(lock, 1, 1);
    expect(await check(directory, 'lock')).toMatchObject({
      ...{ exitCode: 40, ok: false },
      says: [expect.stringMatching(`^The store is held by process ${process.pid} since 2026-`)],
    });
    // Of a process that has ended: the next one takes it over.
    writeFileSync(lock, JSON.stringify({ ...held, startedAt: '1' }));
    expect(await check(directory, 'lock')).toMatchObject({ exitCode: 0, ok: true });
    const db = new Database(storeOf(directory));
    db.pragma('foreign_keys = OFF');
    db.exec('DELETE FROM cuts');
    db.close();
    expect(await check(directory, 'store')).toMatchObject({
      ...{ exitCode: 40, ok: false },
      says: expect.arrayContaining(['a row of cut_members has lost its cuts']),
    });
  });

  test('says so when it is no store, or the configuration is wrong', async () => {
    const directory = makeProject([writing('one')]);
    mkdirSync(path.join(directory, '.troupe'));
    writeFileSync(storeOf(directory), 'This is no database, but long enough for one.\n'.repeat(9));
    expect(await check(directory, 'store')).toMatchObject({
      ...{ exitCode: 40, ok: false },
      says: [expect.stringContaining('not an SQLite database')],
    });
    writeFileSync(path.join(directory, 'troupe.yaml'), 'version: 9\n');
    expect(await check(directory, 'configuration')).toMatchObject({ exitCode: 40, ok: false });
  });
});

describe('troupe resume', () => {
  const TASKS = [
    writing('slow', { wait: 'gate', pid: 'pid' }),
    writing('later', {}, { dependsOn: ['slow'] }),
    writing('off', {}, { staged: true }),
  ];

  test('--dry-run says what would go on, after a crash too, and changes nothing', async () => {
    const directory = makeProject(TASKS);
    const run = new Cli(directory, ['run']);
    await untilWritten(directory, 'pid');
    const agent = Number(readFileSync(path.join(directory, 'pid'), 'utf8'));
    // Nobody resumes it here, so that nobody else ends its agent.
    onTestFinished(() => void process.kill(agent, 'SIGKILL'));
    run.child.kill('SIGKILL');
    await run.ended;
    const planned = await troupeProcess(directory, 'resume', '--dry-run');
    expect(planned).toMatchObject({ exitCode: 0, stderr: '' });
    expect(planned.stdout).toBe(
      [
        'Run main (running): 0 of 3 tasks have ended.',
        '  goes on:',
        '    slow  working  attempt 1 goes on; what it had finished step by step is not done again',
        '  waits:',
        '    later  waiting  it waits for slow',
        '    off  staged  it waits to be enabled',
        'Nothing was changed: this is what resume would do.',
        '',
      ].join('\n'),
    );
    expect(await troupe(directory, 'resume', '--dry-run')).toEqual(planned);
    const nobody = await troupe(directory, 'resume', 'nobody', '--dry-run', '--json');
    expect(nobody.exitCode).toBe(21);
    expect(JSON.parse(nobody.stdout)).toMatchObject({ error: { code: 'not_found' } });
  });

  test('refuses a run that has ended, and says how it stands and what can be done', async () => {
    const directory = await done();
    const refused = await troupe(directory, 'resume', 'main');
    expect(refused).toMatchObject({ exitCode: 22, stdout: '' });
    expect(refused.stderr).toMatch(
      /^troupe: Run main has ended: it is done since 20.*Z\. There is nothing to resume\.\n {2}To work the backlog off anew: troupe run --run main-2\n/,
    );
  });

  test('--from goes back first, also from the end; what it does not know, it lists', async () => {
    const directory = makeProject([writing('one'), writing('two', {}, { dependsOn: ['one'] })]);
    expect((await troupe(directory, 'run')).exitCode).toBe(0);
    const nowhere = await troupe(directory, 'resume', 'main', '--from', 'nowhere');
    expect(nowhere).toMatchObject({ exitCode: 21 });
    expect(nowhere.stderr).toMatch(/nowhere/);
    const alone = await troupe(directory, 'resume', '--from', 'start');
    expect(alone.stderr).toContain('name the run that --from is for');
    const again = await troupe(directory, 'resume', 'main', '--from', 'start');
    expect(again).toMatchObject({ exitCode: 0, stderr: '' });
    // What was merged stays merged, and is found again.
    expect(merges(directory)).toEqual(['one', 'two']);
    expect((await troupe(directory, 'status', '--json')).stdout).toContain('"state": "done"');
  });

  test('--take-over takes the project from a process that hangs, which then stops', async () => {
    const directory = makeProject(TASKS.slice(0, 2));
    const frozen = new Cli(directory, ['run']);
    await untilWritten(directory, 'pid');
    frozen.child.kill('SIGSTOP');
    const refused = await troupe(directory, 'resume', '--take-over');
    expect(refused).toMatchObject({ exitCode: 23 });
    const old = new Date(Date.now() - 61_000);
    utimesSync(`${storeOf(directory)}.lock`, old, old);
    expect((await troupe(directory, 'resume')).stderr).toMatch(/--take-over/);
    open(directory, 'gate');
    const taken = await troupe(directory, 'resume', '--take-over');
    expect(taken).toMatchObject({ exitCode: 0 });
    expect(merges(directory)).toEqual(['slow', 'later']);
    frozen.child.kill('SIGCONT');
    const { exitCode, stdout, stderr } = await frozen.ended;
    expect(exitCode).not.toBe(0);
    expect(stdout + stderr).toMatch(/takes no more writes from this process/);
    // Nothing was merged twice, and the store belongs to nobody now.
    expect(merges(directory)).toEqual(['slow', 'later']);
    expect((await troupe(directory, 'status')).stdout).toContain('done');
  });
});
