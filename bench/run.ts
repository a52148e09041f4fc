/**
 * Runs benches and prints a table for each.
 *
 *     node bench/run.ts [name …] [--quick] [--runs N] [--dir DIRECTORY] [--json FILE] [--list]
 *
 * Each bench runs in a process of its own, in production mode, with a directory of its own that is removed afterwards.
 * `--quick` only shows that they work. Nothing is written but the file that `--json` names, with every sample.
 */
import { fork } from 'node:child_process';
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BENCHES } from './benches.ts';
import { describeMachine } from './machine.ts';
import { type BenchOptions, renderTable, type Table } from './report.ts';

interface Report {
  readonly name: string;
  readonly title: string;
  readonly loadBefore: readonly number[];
  readonly seconds: number;
  readonly tables: readonly Table[];
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    runs: { type: 'string' },
    dir: { type: 'string', default: tmpdir() },
    json: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
});

const stopChildren = new AbortController();

if (process.send === undefined) await runAll();
else await runOne(positionals[0] ?? '', JSON.parse(positionals[1] ?? '{}') as BenchOptions);

async function runAll(): Promise<void> {
  const all = Object.keys(BENCHES);
  const unknown = positionals.find((name) => !all.includes(name));
  const runs = Number(values.runs ?? (values.quick ? 1 : 5));
  if (unknown !== undefined || !Number.isSafeInteger(runs) || runs < 1) {
    console.error(
      unknown === undefined
        ? `Expected --runs to be a positive integer, got ${values.runs}.`
        : `There is no bench "${unknown}". There are: ${all.join(', ')}.`,
    );
    process.exitCode = 2;
    return;
  }
  if (values.list) {
    for (const name of all) console.log(name);
    return;
  }
  const root = mkdtempSync(join(realpathSync(values.dir), 'troupe-bench-'));
  try {
    const machine = describeMachine(root);
    for (const line of machine) console.log(line);
    if (values.quick) console.log('quick: these figures mean nothing');
    const names = positionals.length === 0 ? all : positionals;
    const reports: Report[] = [];
    // Two at once disturb each other; that matters only where the figures do.
    const atOnce = values.quick ? 2 : 1;
    const started: Promise<Report>[] = [];
    for (const [i, name] of names.entries()) {
      for (let next = started.length; next < Math.min(i + atOnce, names.length); next++) {
        const report = inItsOwnProcess(names[next] ?? name, values.quick, runs, root);
        report.catch(() => undefined); // its turn to be awaited comes, or another has failed before
        started.push(report);
      }
      const report = (await started[i]) as Report;
      reports.push(report);
      print(report, runs);
    }
    if (values.json !== undefined) {
      writeFileSync(
        values.json,
        `${JSON.stringify({ at: new Date().toISOString(), quick: values.quick, runs, machine, reports }, null, 2)}\n`,
      );
    }
  } finally {
    stopChildren.abort();
    rmSync(root, { recursive: true, force: true });
  }
}

function print({ name, title, tables, seconds, loadBefore }: Report, runs: number): void {
  console.log(`\n## ${name}: ${title}\n`);
  console.log(tables.map(renderTable).join('\n\n'));
  console.log(
    `\n${runs} run${runs === 1 ? '' : 's'}, ${seconds.toFixed(1)} s, load before ${loadBefore[0]?.toFixed(2)}`,
  );
}

async function inItsOwnProcess(
  name: string,
  quick: boolean,
  runs: number,
  root: string,
): Promise<Report> {
  const directory = mkdtempSync(join(root, `${name}-`));
  try {
    return await reportOf(name, { quick, runs, directory });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function reportOf(name: string, options: BenchOptions): Promise<Report> {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(import.meta.url), [name, JSON.stringify(options)], {
      env: { ...process.env, NODE_ENV: 'production' },
      // The memory store keeps every checkpoint: 100 000 tasks are more than V8's usual 4 GB.
      execArgv: [...process.execArgv, '--expose-gc', '--max-old-space-size=12288'],
      serialization: 'advanced',
      signal: stopChildren.signal,
    });
    let report: Report | undefined;
    child.on('message', (message) => {
      report = message as Report;
    });
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (report !== undefined && code === 0) resolve(report);
      else reject(new Error(`The bench "${name}" ended with ${signal ?? code}.`));
    });
  });
}

async function runOne(name: string, options: BenchOptions): Promise<void> {
  // Whoever ends the runner, by whatever signal, ends this as well.
  const orphaned = () => process.exit(1);
  process.once('disconnect', orphaned);
  const bench = await BENCHES[name]?.();
  if (bench === undefined) throw new Error(`There is no bench "${name}".`);
  const loadBefore = loadavg();
  const begin = performance.now();
  const tables = await bench.run(options);
  const seconds = (performance.now() - begin) / 1000;
  const report: Report = { name, title: bench.title, loadBefore, seconds, tables };
  await new Promise<void>((resolve, reject) => {
    process.send?.(report, (error: Error | null) => (error === null ? resolve() : reject(error)));
  });
  process.off('disconnect', orphaned);
  process.disconnect();
}
