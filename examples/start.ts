// `npm start`: a real project with a real backlog (examples/backlog), worked off in a scratch directory by the
// `troupe` command. No network, no key.
//
//   npm start                 watch it work
//   npm start -- --kill       the same, but the whole process is killed (SIGKILL) in the middle and started again
//   npm start -- --keep       leave the scratch directory behind, to look around with `troupe status` and `git log`

import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openReadOnlyStore } from '../src/index.ts';

interface Expected {
  readonly run: string;
  readonly tasks: Readonly<
    Record<string, { readonly state: string; readonly minAttempts: number }>
  >;
  readonly main: { readonly files: readonly { readonly path: string; readonly sha256: string }[] };
}

interface Standing {
  readonly task: string;
  readonly state: string;
  readonly attempts: number;
  readonly commit: string | null;
}

const backlog = fileURLToPath(new URL('./backlog/', import.meta.url));
const bin = fileURLToPath(new URL('../src/operator/bin.ts', import.meta.url));
/** Not the project's own files: what the backlog brings along. */
const BROUGHT = ['troupe.yaml', 'patches', 'agents'];

const { values: options } = parseArgs({
  options: { kill: { type: 'boolean' }, keep: { type: 'boolean' } },
});
const expected = JSON.parse(
  await readFile(path.join(backlog, 'expected.json'), 'utf8'),
) as Expected;
const project = await scratchProject();
// The command in front of us gets Ctrl-C too, and winds up; we wait for it.
process.on('SIGINT', () => undefined);

let problems: readonly string[];
try {
  if (options.kill === true) {
    const before = await workUntilKilled();
    await work();
    problems = [...(await check()), ...(await checkResumed(before))];
  } else {
    await work();
    problems = await check();
  }
} finally {
  if (options.keep === true) console.log(`\nLeft in ${project}`);
  else await rm(project, { recursive: true, force: true, maxRetries: 5 });
}
for (const problem of problems) console.log(`✗ ${problem}`);
process.exitCode = problems.length === 0 ? 0 : 1;

/** The example project as a git repository of its own, with its backlog. */
async function scratchProject(): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'troupe-start-'));
  await cp(path.join(backlog, 'project'), directory, { recursive: true });
  for (const name of BROUGHT) {
    await cp(path.join(backlog, name), path.join(directory, name), { recursive: true });
  }
  const git = (...args: readonly string[]): void => {
    const identity = ['-c', 'user.name=Troupe', '-c', 'user.email=troupe@example.invalid'];
    execFileSync('git', [...identity, ...args], { cwd: directory, stdio: 'ignore' });
  };
  git('init', '--quiet', '--initial-branch=main');
  git('add', '--all');
  git('commit', '--quiet', '--message', 'The project as it stands');
  return directory;
}

/** Runs the backlog to where nothing moves by itself any more. */
function work(): Promise<number | null> {
  const child = spawn(process.execPath, [bin, 'run'], { cwd: project, stdio: 'inherit' });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
}

/** Kills the command, not gently, when some tasks are done and some are being worked on. */
async function workUntilKilled(): Promise<readonly Standing[]> {
  const child = spawn(process.execPath, [bin, 'run'], {
    cwd: project,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    const tasks = await standing();
    const done = tasks.filter((task) => task.state === 'done').length;
    const busy = tasks.filter((task) => task.state === 'working' || task.state === 'verifying');
    if (done >= 4 && busy.length >= 2) break;
  }
  child.kill('SIGKILL');
  await ended;
  const before = await standing();
  const list = (state: (task: Standing) => boolean): string =>
    before
      .filter(state)
      .map((task) => `${task.task} (${task.state})`)
      .join(', ');
  console.log(`\n── killed with SIGKILL. Done: ${list((task) => task.state === 'done')}`);
  console.log(`── cut off: ${list((task) => !['done', 'waiting', 'ready'].includes(task.state))}`);
  console.log('── starting again\n');
  return before;
}

async function standing(): Promise<readonly Standing[]> {
  const store = await openReadOnlyStore(path.join(project, '.troupe', 'state.db')).catch(
    () => undefined, // not made yet
  );
  if (store === undefined) return [];
  try {
    const [run] = await store.listRuns();
    if (run === undefined) return [];
    return (await store.listTasks(run.run)).map((row) => ({
      task: row.task,
      state: row.state,
      attempts: row.attempts,
      commit: (JSON.parse(row.detailsJson) as { commit: string | null }).commit,
    }));
  } finally {
    await store.close();
  }
}

/** Compares what came of it with what must. */
async function check(): Promise<readonly string[]> {
  const wrong: string[] = [];
  const tasks = new Map((await standing()).map((task) => [task.task, task]));
  for (const [id, { state, minAttempts }] of Object.entries(expected.tasks)) {
    const task = tasks.get(id);
    if (task?.state !== state)
      wrong.push(`${id}: expected ${state}, got ${task?.state ?? 'nothing'}`);
    else if (task.attempts < minAttempts) {
      wrong.push(`${id}: expected at least ${minAttempts} attempts, got ${task.attempts}`);
    }
  }
  const git = (...args: readonly string[]): string =>
    execFileSync('git', args, { cwd: project, encoding: 'utf8', maxBuffer: 2 ** 26 });
  const files = git('ls-tree', '-r', '-z', '--name-only', 'main')
    .split('\0')
    .filter((file) => file !== '' && !BROUGHT.includes(file.split('/')[0] ?? ''));
  const promised = new Map(expected.main.files.map((file) => [file.path, file.sha256]));
  for (const file of new Set([...files, ...promised.keys()])) {
    const content = files.includes(file) ? git('show', `main:${file}`) : undefined;
    const hash =
      content === undefined ? undefined : createHash('sha256').update(content).digest('hex');
    if (hash !== promised.get(file))
      wrong.push(`main: ${file} is not what the backlog makes of it`);
  }
  const merged = git('log', '--format=%(trailers:key=Troupe-Task,valueonly)', 'main')
    .split('\n')
    .filter((line) => line !== '');
  if (new Set(merged).size !== merged.length) wrong.push('main: a task was merged twice');
  const done = [...tasks.values()].filter((task) => task.state === 'done').length;
  if (merged.length !== done) wrong.push(`main: ${merged.length} merges for ${done} tasks done`);
  if (wrong.length === 0) {
    console.log(
      `\n✓ ${done} tasks done with ${merged.length} merges, one each; main is exactly what the backlog makes of it.`,
    );
  }
  return wrong;
}

/** What was done before the kill must stand as it stood. */
async function checkResumed(before: readonly Standing[]): Promise<readonly string[]> {
  const after = new Map((await standing()).map((task) => [task.task, task]));
  const done = before.filter((task) => task.state === 'done');
  const again = done.filter((task) => {
    const now = after.get(task.task);
    return now?.attempts !== task.attempts || now.commit !== task.commit;
  });
  if (again.length > 0) return again.map((task) => `${task.task}: was done, and was done again`);
  console.log(
    `✓ Resumed after SIGKILL: the ${done.length} tasks that were done were not touched again; the others went on from their last stored state.`,
  );
  return [];
}
