import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTroupe, type TaskInput, type Troupe } from '../src/index.ts';
import { ProcessRegistry } from '../src/workspace/process-registry.ts';
import { runProcessTree } from '../src/workspace/process-tree.ts';
import { type ChildTime, isLauncher, timeCovered, watchChildren } from './child-times.ts';
import { makeRepository, patchThatAdds } from './git-project.ts';
import {
  type Bench,
  type BenchOptions,
  percentile,
  Samples,
  type Table,
  timeEach,
} from './report.ts';

/**
 * What the pipeline itself takes of a task's time: from the claim to the merge, less git and the commands.
 *
 * How: a git repository of 200 files, an agent whose work is trivial, a verification that is `true`, a store that is
 * `full`, one task after the other (concurrency 1). Every process that is started is timed from before its `fork` to
 * its exit, through Node's diagnostics channel. The git that lives on and answers question after question is counted
 * when it is started, but not timed: waiting for its answers is overhead. Overhead = wall time per task − time in which
 * at least one of the others ran; git that runs beside other git counts once. So the overhead holds everything of ours:
 * turns, commits, fsyncs, reading and writing files, removing places (`rm`, beside what comes next), looking through /proc, and
 * waiting for a core. The patch agent's work is one `git apply`, the command agent's one `cp`. CPU is that of all threads of
 * this process, without its children.
 *
 * The second table says what starting one process costs: by Node alone, and with its process group, registry record and
 * sweep, as the pipeline starts it. The third counts git's commands per task.
 *
 * Cheating would be: an agent or a verification that is not run, tasks that overlap (one would hide in the other), a
 * store that is not `full`.
 */
export const pipeline: Bench = {
  title: 'Pipeline overhead per task',
  async run(options) {
    const samples = new Samples();
    const commands = new Map<string, number>();
    const tasks = options.quick ? 1 : 12;
    let gitTasks = 0;
    for (let run = 0; run < options.runs; run++) {
      for (const agent of AGENTS) {
        const { wall, cpu, children: all } = await runTasks(agent, tasks, run, options);
        const children = all.filter((child) => !isLauncher(child));
        const git = children.filter(({ argv }) => argv[0] === 'git');
        const others = children.filter(({ argv }) => argv[0] !== 'git' && argv[0] !== 'rm');
        const timed = git.filter((child) => !isReader(child));
        samples.add(`${agent} wall`, wall / tasks);
        samples.add(`${agent} git`, timeCovered(timed) / tasks);
        samples.add(`${agent} git count`, git.length / tasks);
        samples.add(`${agent} commands`, timeCovered(others) / tasks);
        samples.add(`${agent} cpu`, cpu / tasks);
        samples.add(`${agent} overhead`, (wall - timeCovered([...timed, ...others])) / tasks);
        if (agent !== 'patch') continue;
        gitTasks += tasks;
        for (const child of git) {
          const name = subcommand(child);
          commands.set(name, (commands.get(name) ?? 0) + 1);
        }
      }
      await timeStarts(samples, options, run);
    }
    const counts = [...commands].sort((a, b) => b[1] - a[1]);
    return [
      {
        columns: [
          'agent',
          'wall, ms per task',
          'git, ms',
          'git commands',
          'other commands, ms',
          'overhead, ms',
          'CPU of this process, ms',
        ],
        rows: AGENTS.map((agent) => [
          agent,
          ...['wall', 'git', 'git count', 'commands', 'overhead', 'cpu'].map((what) =>
            samples.of(`${agent} ${what}`),
          ),
        ]),
      },
      startTable(samples),
      {
        columns: ['git command', 'times per task (patch agent)'],
        rows: counts.map(([name, count]) => [name, (count / gitTasks).toFixed(1)]),
      },
    ];
  },
};

const AGENTS = ['patch', 'command'] as const;

async function runTasks(
  agent: (typeof AGENTS)[number],
  tasks: number,
  run: number,
  { directory, quick }: BenchOptions,
): Promise<{
  readonly wall: number;
  readonly cpu: number;
  readonly children: readonly ChildTime[];
}> {
  const place = join(directory, `${agent}-${run}`);
  const project = join(place, 'project');
  makeRepository(project);
  const patches = join(place, 'patches');
  mkdirSync(patches);
  const troupe = await createTroupe({
    store: join(place, 'state.db'),
    durability: 'full',
    project: { directory: project, verify: [{ name: 'test', command: ['true'] }] },
  });
  troupe.patchAgent('patch');
  troupe.commandAgent('command', {
    run: 'cp "$TROUPE_TASK_FILE" "notes/$TROUPE_TASK.json"',
    projectDirectory: project,
  });
  const task = (id: string): TaskInput => {
    const file = join(patches, `${id}.patch`);
    writeFileSync(file, patchThatAdds(`notes/${id}.md`, `what ${id} adds`));
    return { id, agent, input: { patches: [file] } };
  };
  try {
    // What happens once for a project is not a task's cost.
    if (!quick) await work(troupe, 'first', [task('first')]);
    const list = Array.from({ length: tasks }, (_, i) => task(`task-${i}`));
    const watch = watchChildren();
    const cpuBefore = process.cpuUsage();
    const begin = performance.now();
    await work(troupe, 'measured', list);
    const wall = performance.now() - begin;
    const cpu = process.cpuUsage(cpuBefore);
    watch.stop();
    return { wall, cpu: (cpu.user + cpu.system) / 1000, children: watch.children };
  } finally {
    await troupe.stop();
  }
}

async function work(troupe: Troupe, id: string, tasks: readonly TaskInput[]): Promise<void> {
  const run = await troupe.start({ id, tasks, concurrency: 1 });
  const result = await run.result();
  if (result.state !== 'done') {
    throw new Error(
      `Expected run "${id}" to be done, got ${result.state}: ${result.tasks.find((t) => t.state !== 'done')?.reason ?? result.reason ?? ''}`,
    );
  }
}

/** Answers until it is told to end: see `ObjectReader`. */
function isReader({ argv }: ChildTime): boolean {
  return argv.includes('--batch-command');
}

/** `git -c key=value -c … commit-tree …` is `commit-tree`. */
function subcommand({ argv }: ChildTime): string {
  let at = 1;
  while (argv[at]?.startsWith('-')) {
    at += ['-c', '-C', '--git-dir', '--work-tree'].includes(argv[at] as string) ? 2 : 1;
  }
  return argv[at] ?? '?';
}

async function timeStarts(samples: Samples, options: BenchOptions, run: number): Promise<void> {
  const count = options.quick ? 3 : 60;
  const processes = new ProcessRegistry(join(options.directory, `processes-${run}`));
  const env = { PATH: process.env['PATH'] ?? '' };
  const command = {
    argv: ['git', 'version'],
    cwd: options.directory,
    env,
    timeoutMs: 60_000,
    onStdout: () => undefined,
    onStderr: () => undefined,
  } as const;
  const plain = () =>
    new Promise<void>((resolve, reject) => {
      const child = spawn('git', ['version'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      child.stdout.resume();
      child.stderr.resume();
      child.once('error', reject);
      child.once('close', () => resolve());
    });
  for (const [name, start] of [
    ['plain', plain],
    ['launched', () => processes.launcher.run(command)],
    ['swept', () => runProcessTree({ ...command, processes, sweep: true })],
  ] as const) {
    samples.add(name, percentile(await timeEach(count, start), 0.5));
  }
  processes.close();
}

function startTable(samples: Samples): Table {
  return {
    columns: ['`git version`, p50', 'ms', 'ms more than by Node alone'],
    rows: [
      ['started by Node alone', samples.of('plain'), ''],
      [
        'as the pipeline starts git',
        samples.of('launched'),
        samples.difference('launched', 'plain'),
      ],
      [
        'as it starts a command that is not ours',
        samples.of('swept'),
        samples.difference('swept', 'plain'),
      ],
    ],
  };
}
