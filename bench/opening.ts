import { execFileSync } from 'node:child_process';
import { cpSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Bench, Samples } from './report.ts';

/**
 * What it takes to embed Troupe: loading the package, and opening a new store on a disk (its thread, SQLite, migrations,
 * lock, the machines).
 *
 * How: in a process of its own for each run, from the package as `npm run build` makes it. CPU is that of all
 * threads. `open another` is another store in the same process: what is loaded once is loaded.
 *
 * Cheating would be: a warm compile cache, a store in memory, or to count only until `createTroupe` is called.
 */
export const opening: Bench = {
  title: 'Loading the package and opening a store',
  async run({ runs, directory }) {
    const root = join(import.meta.dirname, '..');
    // Beside the project's own `dist`, which may be of another day.
    const dist = join(directory, 'dist');
    const node = (...args: readonly string[]) =>
      execFileSync(process.execPath, args, { cwd: root });
    node('node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--outDir', dist);
    node('scripts/copy-assets.ts', dist);
    cpSync(join(root, 'package.json'), join(directory, 'package.json'));
    symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
    const samples = new Samples();
    for (let run = 0; run < runs; run++) {
      for (const [name, { wall, cpu }] of Object.entries(measure(directory, run))) {
        samples.add(`${name} wall`, wall);
        samples.add(`${name} cpu`, cpu);
      }
    }
    return [
      {
        columns: ['part', 'wall, ms', 'CPU, ms'],
        rows: PARTS.map((part) => [part, samples.of(`${part} wall`), samples.of(`${part} cpu`)]),
      },
    ];
  },
};

const PARTS = ['start Node', 'load the package', 'open a store', 'open another'] as const;
type Cost = Readonly<Record<'wall' | 'cpu', number>>;

function measure(directory: string, run: number): Readonly<Record<(typeof PARTS)[number], Cost>> {
  const program = `
    const costs = {};
    let [wall, cpu] = [performance.now(), process.cpuUsage()];
    costs['start Node'] = { wall, cpu: (cpu.user + cpu.system) / 1000 };
    const took = (part) => {
      const { user, system } = process.cpuUsage(cpu);
      costs[part] = { wall: performance.now() - wall, cpu: (user + system) / 1000 };
      [wall, cpu] = [performance.now(), process.cpuUsage()];
    };
    const { createTroupe } = await import(${JSON.stringify(pathToFileURL(join(directory, 'dist', 'index.js')).href)});
    took('load the package');
    const first = await createTroupe({ store: ${JSON.stringify(join(directory, `${run}-a.db`))} });
    took('open a store');
    const second = await createTroupe({ store: ${JSON.stringify(join(directory, `${run}-b.db`))} });
    took('open another');
    await Promise.all([first.stop(), second.stop()]);
    process.stdout.write(JSON.stringify(costs));`;
  const printed = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
    env: { ...process.env, NODE_DISABLE_COMPILE_CACHE: '1' },
  });
  return JSON.parse(printed) as Readonly<Record<(typeof PARTS)[number], Cost>>;
}
