import { createTroupe } from '../src/index.ts';
import { openStore } from './place.ts';
import { type Bench, type BenchOptions, Samples } from './report.ts';

const KINDS = ['memory', 'normal'] as const;
const AT_ONCE = 32;

/**
 * One run of 100, 1 000, 10 000 and 100 000 tasks: does a task cost more in a larger run?
 *
 * How: tasks without dependencies, an agent that is a function and returns at once, a generic gatekeeper that accepts
 * with one piece of evidence; 32 at once. Wall time from `troupe.start` to the answer of `run.result()`, divided by the
 * number of tasks: making the tasks, every message, effect, checkpoint and row of each, and listing them in the end.
 * CPU time is that of all threads, collecting garbage and writing the file included; unlike wall time it tells little
 * of what else the machine does.
 * `kept` is the heap after a full collection when the run is done and before the runtime stops: what the run has left
 * in memory. `peak` is the most that was seen in use, garbage included, every 20 ms.
 *
 * Cheating would be: many small runs instead of one large one, tasks that share an actor, or leaving out `start`.
 */
export const growth: Bench = {
  title: 'Cost growth with the size of a run',
  async run(options) {
    const sizes = options.quick ? [20, 100] : [100, 1_000, 10_000, 100_000];
    const samples = new Samples();
    for (const kind of KINDS) await measure(kind, sizes[1] ?? 100, options); // warms up
    for (let run = 0; run < options.runs; run++) {
      for (const kind of KINDS) {
        for (const size of sizes) {
          for (const [name, value] of await measure(kind, size, options)) {
            samples.add(`${kind} ${size} ${name}`, value);
          }
        }
      }
    }
    return [
      {
        columns: [
          'store',
          'tasks',
          'ms per task',
          `: that of ${sizes[1]} tasks`,
          'CPU, ms per task',
          `: that of ${sizes[1]} tasks`,
          '`start`, ms per task',
          'heap kept, kB per task',
          'heap peak, MB',
        ],
        rows: KINDS.flatMap((kind) =>
          sizes.map((size) => [
            kind,
            size.toLocaleString('en-US').replaceAll(',', ' '),
            samples.of(`${kind} ${size} ms`),
            size === sizes[1] ? '1' : samples.ratio(`${kind} ${size} ms`, `${kind} ${sizes[1]} ms`),
            samples.of(`${kind} ${size} cpu`),
            size === sizes[1]
              ? '1'
              : samples.ratio(`${kind} ${size} cpu`, `${kind} ${sizes[1]} cpu`),
            samples.of(`${kind} ${size} start`),
            samples.of(`${kind} ${size} kept`),
            samples.of(`${kind} ${size} peak`),
          ]),
        ),
      },
    ];
  },
};

async function measure(
  kind: (typeof KINDS)[number],
  size: number,
  { directory }: BenchOptions,
): Promise<readonly (readonly [string, number])[]> {
  const troupe = await createTroupe({ store: await openStore(kind, directory) });
  troupe.agent('worker', ({ task }) => ({ made: task.id }), { concurrency: AT_ONCE });
  troupe.gatekeeper('checker', () => ({ accepted: true, evidence: ['looked at'] }), {
    concurrency: AT_ONCE,
  });
  await troupe.store.countTasks('none'); // the writer's thread is there
  const before = heapInUse();
  let peak = before;
  const sampling = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().heapUsed);
  }, 20);
  const cpuBefore = process.cpuUsage();
  const begin = performance.now();
  const run = await troupe.start({
    id: 'one',
    tasks: Array.from({ length: size }, (_, i) => ({
      id: `task-${i}`,
      agent: 'worker',
      gatekeeper: 'checker',
    })),
    concurrency: 2 * AT_ONCE,
  });
  const started = performance.now();
  const { state, counts } = await run.result();
  const end = performance.now();
  const cpu = process.cpuUsage(cpuBefore);
  clearInterval(sampling);
  if (state !== 'done' || counts.done !== size) {
    throw new Error(`Expected ${size} tasks to be done, got ${counts.done} (run ${state}).`);
  }
  const kept = heapInUse() - before;
  await troupe.stop();
  return [
    ['ms', (end - begin) / size],
    ['cpu', (cpu.user + cpu.system) / 1000 / size],
    ['start', (started - begin) / size],
    ['kept', kept / size / 1000],
    ['peak', peak / 1e6],
  ];
}

function heapInUse(): number {
  if (globalThis.gc === undefined) throw new Error('Expected Node to run with --expose-gc.');
  for (let i = 0; i < 3; i++) globalThis.gc();
  return process.memoryUsage().heapUsed;
}
