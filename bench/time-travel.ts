import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { pino } from 'pino';
import { createTroupe, type Run } from '../src/troupe.ts';
import { type Bench, Samples } from './report.ts';

/**
 * A run of 1 000 tasks, all done: a cut of it, a rollback to its start, a rollback forward again, and a fork; from the
 * call until it is stored. Durability `full`.
 *
 * How: the tasks are worked off by a function, with what an agent and a gatekeeper leave (about 12 turns each). Then the
 * run is paused, so that what is measured is the journey and not the work that begins after it. Each figure is of a new
 * database file. Beside it the dry run, which only reads, and how much a cut adds to the file.
 *
 * Cheating would be: a run with nothing in it, a call that resolves before its commit, or tasks that are in memory
 * already: the runtime is closed and opened again before anything is measured.
 */
export const timeTravel: Bench = {
  title: 'Rollback and fork of a run',
  async run({ quick, runs, directory }) {
    const samples = new Samples();
    const count = quick ? 20 : 1_000;
    for (let n = 0; n < runs; n++) {
      const path = join(directory, `travel-${n}.db`);
      await prepare(path, count);
      await travel(path, count, (name, value) => samples.add(name, value));
    }
    const parts = [
      'a cut, ms',
      'dry run of a rollback, ms',
      'rollback to the start, tasks not in memory, ms',
      'rollback to the end, tasks in memory, ms',
      'fork of the end, ms',
      'CPU of the main thread in these, ms',
      'longest stop of the event loop, ms',
      'a cut in the file, kB',
    ];
    return [
      {
        columns: ['tasks', ...parts],
        rows: [[String(count), ...parts.map((part) => samples.of(part))]],
      },
    ];
  },
};

async function open(path: string) {
  const troupe = await createTroupe({ store: path, logger: pino({ level: 'silent' }) });
  troupe.agent('writer', ({ task, step }) => step('write', () => `${task.id} is written`), {
    concurrency: 32,
  });
  troupe.gatekeeper('editor', () => ({ accepted: true, evidence: ['read it'] }), {
    concurrency: 32,
  });
  return troupe;
}

async function prepare(path: string, count: number): Promise<void> {
  const troupe = await open(path);
  const tasks = Array.from({ length: count }, (_, n) => ({
    id: `t${n}`,
    agent: 'writer',
    gatekeeper: 'editor',
    input: '.'.repeat(200),
    dependsOn: n % 3 === 2 ? [`t${n - 1}`] : [],
  }));
  const run = await troupe.start({ id: 'r', tasks });
  await run.result();
  await run.checkpoint({ label: 'end' });
  await troupe.stop();
}

async function travel(
  path: string,
  count: number,
  note: (name: string, value: number) => void,
): Promise<void> {
  const troupe = await open(path);
  const run = troupe.run('r');
  await run.status();
  const cpu = process.threadCpuUsage();
  const loop = monitorEventLoopDelay({ resolution: 1 });
  loop.enable();
  const timed = async (name: string, act: () => Promise<unknown>): Promise<void> => {
    const begin = performance.now();
    await act();
    note(name, performance.now() - begin);
  };
  const before = await sizeOf(path);
  await timed('a cut, ms', () => run.checkpoint({}));
  note('a cut in the file, kB', ((await sizeOf(path)) - before) / 1024);
  await timed('dry run of a rollback, ms', () => run.rollback('start', { dryRun: true }));
  await timed('rollback to the start, tasks not in memory, ms', () => run.rollback('start'));
  await run.pause();
  await timed('rollback to the end, tasks in memory, ms', () => run.rollback('end'));
  await timed('fork of the end, ms', () => run.fork('end', { id: 'f' }));
  const { user, system } = process.threadCpuUsage(cpu);
  note('CPU of the main thread in these, ms', (user + system) / 1000);
  loop.disable();
  note('longest stop of the event loop, ms', loop.max / 1e6);
  await check(run, count);
  await check(troupe.run('f'), count);
  await troupe.stop();
}

async function check(run: Run, count: number): Promise<void> {
  const { state, counts } = await run.status();
  if (state === 'done' && counts.done === count) return;
  throw new Error(`Run ${run.id} is ${state} with ${counts.done} tasks done, not ${count}.`);
}

/** With the log, which holds what is not in the file yet. */
async function sizeOf(path: string): Promise<number> {
  const sizes = await Promise.all([stat(path), stat(`${path}-wal`)]);
  return sizes.reduce((sum, { size }) => sum + size, 0);
}
