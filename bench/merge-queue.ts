import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTroupe, type TaskInput } from '../src/index.ts';
import { makeRepository, patchThatAdds } from './git-project.ts';
import { type Bench, Samples } from './report.ts';

/** One command: it waits, as for a network or a timer, or keeps a core busy. Red when the tree has a file `red`. */
const VERIFICATIONS = {
  waits: (seconds: number) => `sleep ${seconds}; test ! -e red`,
  works: (seconds: number) =>
    `node -e 'const end = Date.now() + ${seconds * 1000}; while (Date.now() < end);'; test ! -e red`,
} as const;

/**
 * Merges per minute, strictly one after the other and with several verifications at once.
 *
 * How: a git repository of 200 files; twelve tasks, done by four patch agents whose work is trivial, that do not touch each
 * other; each is verified by one command of 2 s. With a red one (the third), those behind it begin again. The
 * time is from the start of the run to its end, so everything is in it. On two cores more than two at once can only help
 * what waits.
 *
 * Cheating would be: trees that were verified before, a red one at the end of the line, several changes merged as one.
 */
export const mergeQueue: Bench = {
  title: 'Merge queue: merges per minute',
  async run(options) {
    const samples = new Samples();
    const count = options.quick ? 2 : 12;
    const seconds = options.quick ? 0.1 : 2;
    const cases = options.quick
      ? [{ kind: 'waits', red: false, lanes: 1 } as const]
      : (['waits', 'works'] as const).flatMap((kind) =>
          [false, true].flatMap((red) => [1, 2, 4].map((lanes) => ({ kind, red, lanes }))),
        );
    const name = ({ kind, red, lanes }: (typeof cases)[number], instead?: number): string =>
      `${kind} ${red} ${instead ?? lanes}`;
    for (let run = 0; run < options.runs; run++) {
      for (const one of cases) {
        const directory = join(options.directory, `${name(one).replaceAll(' ', '-')}-${run}`);
        const command = VERIFICATIONS[one.kind](seconds);
        const ms = await mergeAll(directory, count, one.lanes, one.red, command);
        samples.add(name(one), (60_000 * (one.red ? count - 1 : count)) / ms);
      }
    }
    return [
      {
        columns: ['verification', 'red ones', 'at once', 'merges per minute', ': one at a time'],
        rows: cases.map((one) => [
          `${seconds} s, ${one.kind}`,
          one.red ? '1' : '0',
          String(one.lanes),
          samples.of(name(one)),
          samples.ratio(name(one), name(one, 1)),
        ]),
      },
    ];
  },
};

async function mergeAll(
  directory: string,
  count: number,
  lanes: number,
  red: boolean,
  command: string,
): Promise<number> {
  const project = join(directory, 'project');
  mkdirSync(project, { recursive: true });
  makeRepository(project);
  const troupe = await createTroupe({
    store: join(directory, 'state.db'),
    project: { directory: project, verify: [{ name: 'test', command }], verifyAtOnce: lanes },
  });
  try {
    troupe.patchAgent('patch', { concurrency: 4 });
    const tasks = Array.from({ length: count }, (_, n): TaskInput => {
      const file = join(directory, `${n}.patch`);
      writeFileSync(file, patchThatAdds(red && n === 2 ? 'red' : `notes/${n}.md`, `number ${n}`));
      return {
        id: `task-${n}`,
        agent: 'patch',
        input: { patches: [file] },
        limits: { attempts: 1 },
      };
    });
    const begin = performance.now();
    const run = await troupe.start({ id: 'bench', tasks, concurrency: 12 });
    const { tasks: ended } = await run.result();
    const ms = performance.now() - begin;
    const done = ended.filter((task) => task.state === 'done').length;
    if (done !== (red ? count - 1 : count))
      throw new Error(`Only ${done} of ${count} were merged.`);
    return ms;
  } finally {
    await troupe.stop();
  }
}
