import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ProcessRegistry } from '../src/workspace/process-registry.ts';
import { Repository } from '../src/workspace/repository.ts';
import { inFreshCheckout } from '../src/workspace/verification.ts';
import { Workspaces } from '../src/workspace/workspaces.ts';
import { git } from './git-project.ts';
import { type Bench, percentile, Samples } from './report.ts';

/**
 * Making and giving back a checkout of a large repository.
 *
 * How: a repository of 5 000 files of 2 kB in 250 directories, packed as a clone has it. In each of the workspaces a few files are
 * changed and a few made, as an agent would, before it is given back. The first one finds none to be made of; from then on one
 * lies there that somebody has used, as in a run. Beside it what git itself takes for `git worktree add` and `remove`.
 *
 * Cheating would be: a place in which nothing was done, a second one for the same task, a removal that goes on afterwards.
 */
export const workspaces: Bench = {
  title: 'Workspaces of a large repository',
  async run(options) {
    const samples = new Samples();
    const files = options.quick ? 1200 : 5000;
    const times = options.quick ? 1 : 10;
    for (let run = 0; run < options.runs; run++) {
      const directory = join(options.directory, `workspaces-${run}`);
      const project = join(directory, 'project');
      makeLargeRepository(project, files);
      const processes = new ProcessRegistry(join(project, '.troupe', 'processes'));
      const repository = await Repository.open({ directory: project, processes });
      const places = new Workspaces({ repository, root: join(project, '.troupe', 'workspaces') });
      const taken = new Map<string, number[]>();
      const timed = async <T>(what: string, work: () => T | Promise<T>): Promise<T> => {
        const from = performance.now();
        const result = await work();
        taken.set(what, [...(taken.get(what) ?? []), performance.now() - from]);
        return result;
      };
      for (let n = 0; n <= times; n++) {
        const task = { run: 'run', task: `task-${n}` };
        const kind = n === 0 ? 'first' : 'next';
        const place = await timed(`${kind} made`, () => places.prepare({ ...task, attempt: 1 }));
        for (let file = 0; file < 5; file++) {
          writeFileSync(join(place.directory, nameOf(n * 7 + file)), 'changed\n');
          writeFileSync(join(place.directory, `new-${file}.txt`), 'new\n');
        }
        await timed(`${kind} given back`, () => places.release(task));
      }
      const commit = await repository.targetHead();
      for (let n = 0; n < times; n++) {
        await timed('verification made', () => {
          const from = performance.now();
          return inFreshCheckout({ workspaces: places, commit }, () =>
            Promise.resolve(performance.now() - from),
          );
        });
        await places.settled();
      }
      const linked = join(directory, 'linked');
      for (let n = 0; n < times; n++) {
        await timed('git worktree add', () =>
          git(project, 'worktree', 'add', '-q', '--detach', linked),
        );
        await timed('git worktree remove', () =>
          git(project, 'worktree', 'remove', '--force', linked),
        );
      }
      await places.close();
      await repository.close();
      processes.close();
      for (const [what, each] of taken) samples.add(what, percentile(each, 50));
      rmSync(directory, { recursive: true });
    }
    return [
      {
        columns: [`${files} files`, 'p50 ms', ': git worktree add'],
        rows: [
          'first made',
          'next made',
          'verification made',
          'first given back',
          'next given back',
          'git worktree add',
          'git worktree remove',
        ].map((what) => [what, samples.of(what), samples.ratio(what, 'git worktree add')]),
      },
    ];
  },
};

const nameOf = (n: number): string => `src/d${n % 250}/f${n}.txt`;

function makeLargeRepository(directory: string, files: number): void {
  for (let n = 0; n < files; n++) {
    const file = join(directory, nameOf(n));
    if (n < 250) mkdirSync(join(file, '..'), { recursive: true });
    writeFileSync(file, `line of file ${n}\n`.repeat(120));
  }
  git(directory, 'init', '-q', '-b', 'main');
  git(directory, 'add', '-A');
  git(directory, 'commit', '-q', '-m', 'first');
  git(directory, 'repack', '-adq');
}
