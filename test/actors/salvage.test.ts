import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import type { Troupe } from '../../src/troupe.ts';
import { untilWritten } from '../operator/cli-fixture.ts';
import { git, makeRepository, temporaryDirectory, write } from '../workspace/git-fixture.ts';
import { advance, memoryDisk, reaches, SimulatedClock } from './open-troupe.ts';

vi.setConfig({ testTimeout: 60_000 });

/** An agent that ends by itself at its second attempt only. What it does before is in the name of its task. */
const AGENT = `
commit() { git add -A && git -c user.name=a -c user.email=a@b commit -qm "$1"; }
silent() { echo $$ > "$TROUPE_PROJECT/ready"; exec sleep 94012; }
[ "$TROUPE_ATTEMPT" = 2 ] && { echo second > second.txt; exit 0; }
case "$TROUPE_TASK" in
  nothing) silent ;;
  half) echo half > half.txt; silent ;;
  committed) echo done > done.txt; commit one; silent ;;
  both) echo done > done.txt; commit one; echo half > half.txt; silent ;;
  pipe) echo done > done.txt; commit one; rm readme.md; mkfifo readme.md; silent ;;
  red) touch red; commit one; silent ;;
  killed) echo done > done.txt; commit one; echo half > half.txt; kill -9 $$ ;;
  failed) echo done > done.txt; commit one; exit 1 ;;
esac
`;

const HEARTBEAT = { heartbeatMs: 10_000, timeoutMs: 900_000 };
const HARD_LIMIT = { heartbeatMs: 0, timeoutMs: 10_000 };

interface World {
  readonly troupe: Troupe;
  readonly clock: SimulatedClock;
  readonly directory: string;
  readonly outside: string;
}

async function world({ heartbeatMs, timeoutMs }: typeof HEARTBEAT): Promise<World> {
  const directory = makeRepository();
  const outside = temporaryDirectory();
  write(outside, { 'agent.sh': AGENT });
  const clock = new SimulatedClock();
  const verify = [{ name: 'test', command: 'test ! -f red' }];
  const project = { directory, verify };
  const troupe = await memoryDisk().open({ clock, heartbeatMs, project });
  const run = ['sh', '{project}/agent.sh'];
  troupe.commandAgent('worker', { run, projectDirectory: outside }, { timeoutMs });
  return { troupe, clock, directory, outside };
}

/** Does one task; its agent is ended when it has come to where it is silent, if it does. */
async function does({ troupe, clock, outside }: World, task: string, isSilent: boolean) {
  const run = await troupe.start({
    id: 'r',
    limits: { attempts: 3, backoff: { initialMs: 100, jitter: 0 } },
    tasks: [{ id: task, agent: 'worker' }],
  });
  const result = run.result();
  const failed = reaches(troupe, `task/r/${task}`, 'retrying');
  if (isSilent) {
    await untilWritten(outside, 'ready');
    await advance(clock, 10_000);
  }
  await Promise.race([failed.then(() => advance(clock, 100)), result]);
  expect(await result).toMatchObject({ state: 'done' });
  return await run.task(task).attempts();
}

const filesOn = (directory: string, ref: string): readonly string[] =>
  git(directory, 'ls-tree', '-r', '--name-only', ref).split('\n');
const salvaged = (directory: string): string =>
  git(directory, 'for-each-ref', '--format=%(refname)', 'refs/troupe/salvage');

describe.each([
  {
    limit: 'shows no sign of life',
    limits: HEARTBEAT,
    says: 'showed no sign of life for 10000 ms',
  },
  { limit: 'is at work for too long', limits: HARD_LIMIT, says: 'was not done after 10000 ms' },
])('an agent that $limit', ({ limits, says }) => {
  test('is ended, and what it had committed is verified; the rest is a ref', async () => {
    const here = await world(limits);
    const attempts = await does(here, 'both', true);
    expect(attempts).toMatchObject([{ attempt: 1, outcome: 'accepted' }]);
    const { summary } = JSON.parse(attempts[0]?.detailsJson ?? '') as { summary: string };
    expect(summary).toMatch(
      /^Salvaged: what the agent had committed before it was ended is handed in/,
    );
    expect(summary).toContain(says);
    expect(summary).toContain('What it had not committed is kept as refs/troupe/salvage/r/both/1.');
    expect(filesOn(here.directory, 'main')).toContain('done.txt');
    expect(filesOn(here.directory, 'main')).not.toContain('half.txt');
    expect(filesOn(here.directory, 'refs/troupe/salvage/r/both/1')).toContain('half.txt');
    const pid = Number(readFileSync(path.join(here.outside, 'ready'), 'utf8'));
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });
});

test.each([
  { task: 'nothing', keeps: '' },
  { task: 'half', keeps: 'refs/troupe/salvage/r/half/1' },
])('a silent agent without a commit is tried again ($task)', async ({ task, keeps }) => {
  const here = await world(HEARTBEAT);
  const attempts = await does(here, task, true);
  expect(attempts).toMatchObject([
    { outcome: 'failed', reason: expect.stringContaining('showed no sign of life') },
    { outcome: 'accepted' },
  ]);
  expect(salvaged(here.directory)).toBe(keeps);
  const { reason } = attempts[0] ?? {};
  if (keeps === '') expect(reason).not.toContain('kept');
  else expect(reason).toContain(`What it left is kept below ${path.dirname(keeps)}.`);
  expect(filesOn(here.directory, 'main')).not.toContain('half.txt');
});

test('commits alone make no ref of their own: they are the submission', async () => {
  const here = await world(HEARTBEAT);
  expect(await does(here, 'committed', true)).toMatchObject([{ outcome: 'accepted' }]);
  expect(salvaged(here.directory)).toBe('');
  expect(git(here.directory, 'log', '-1', '--format=%B', 'troupe/r/committed')).toContain(
    'Troupe-Salvaged: yes',
  );
});

test('commits are handed in also when the rest cannot be kept', async () => {
  const here = await world(HEARTBEAT);
  const attempts = await does(here, 'pipe', true);
  expect(attempts).toMatchObject([{ attempt: 1, outcome: 'accepted' }]);
  const { summary } = JSON.parse(attempts[0]?.detailsJson ?? '') as { summary: string };
  expect(summary).toMatch(/What it had not committed could not be kept: .*readme\.md/s);
  expect(filesOn(here.directory, 'main')).toContain('done.txt');
});

test('what is salvaged is judged as any work is, and tried again when it is rejected', async () => {
  const here = await world(HEARTBEAT);
  expect(await does(here, 'red', true)).toMatchObject([
    { outcome: 'rejected' },
    { outcome: 'accepted' },
  ]);
  expect(filesOn(here.directory, 'main')).toContain('second.txt');
});

test('an agent whose process was killed has its commits salvaged; one that says it failed has not', async () => {
  const killed = await world(HEARTBEAT);
  const attempts = await does(killed, 'killed', false);
  expect(attempts).toMatchObject([{ outcome: 'accepted' }]);
  expect(attempts[0]?.detailsJson).toContain('was ended by SIGKILL');
  expect(salvaged(killed.directory)).toBe('refs/troupe/salvage/r/killed/1');
  const failed = await world(HEARTBEAT);
  expect(await does(failed, 'failed', false)).toMatchObject([
    { outcome: 'failed' },
    { outcome: 'accepted' },
  ]);
});
