/**
 * Plays a workload through the real pipeline and says whether each change ended as it must.
 *
 *     npm run replay -- FOLDER [--scenario NAME] [--agents N] [--json FILE] [--check-main] [--dir DIRECTORY] [--keep]
 *
 * FOLDER holds `manifest.json`, `base.bundle`, the patches and the script that verifies a tree; see bench/README.md. The
 * start is cloned into a directory of its own, which is gone afterwards. The exit code is 0 only when main's tree is what
 * it must be, every commit of main has an accepted verdict of its tree, and every change has ended as it must; 1 when
 * not; 20 or 41 when the workload, or a flag, cannot be used.
 */
import { accessSync, constants, existsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ConfigurationError, EXIT_CODES, TroupeError, ValidationError } from '../src/index.ts';
import { readWorkload, requireScenario } from './replay/manifest.ts';
import { planScenario } from './replay/plan.ts';
import { type ReplayReport, replay } from './replay/replay.ts';
import { Scratch } from './replay/scratch.ts';
import { renderTable } from './report.ts';

const USAGE =
  'npm run replay -- FOLDER [--scenario NAME] [--agents N] [--json FILE] [--check-main] [--dir DIRECTORY] [--keep]';
const MAX_AGENTS = 64;
const DEFAULT_SCENARIO = 'green';
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 143 } as const;

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof TroupeError) {
    console.error(`replay: ${error.message.trim().replace(/\s*\n\s*/g, ' ')}`);
    process.exitCode = error.exitCode;
  } else {
    console.error('replay:', error);
    process.exitCode = EXIT_CODES.unhandled;
  }
}

async function main(): Promise<number> {
  const { folder, flags } = readArguments();
  const agents = readAgents(flags.agents);
  if (flags.json !== undefined) requireWritable(flags.json);
  const workload = readWorkload(folder);
  const scenario = requireScenario(workload, flags.scenario ?? DEFAULT_SCENARIO);
  const plan = planScenario(workload, scenario);
  const others = [...workload.scenarios.keys()].filter((name) => name !== scenario.name);
  const why = flags.scenario === undefined ? ' (the default)' : '';
  console.log(`${workload.name}: scenario ${scenario.name}${why}, ${plan.tasks.length} tasks.`);
  if (others.length > 0) console.log(`Other scenarios: ${others.join(', ')}.`);
  if (plan.added.length > 0)
    console.log(`Added, for others depend on them: ${plan.added.join(', ')}.`);

  const interrupt = new AbortController();
  let exitCode: number | undefined;
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.once(signal, () => {
      exitCode ??= code;
      interrupt.abort();
    });
  }
  const scratch = new Scratch(flags.dir);
  let report: ReplayReport;
  try {
    const checkMain = flags['check-main'];
    report = await replay(scratch, workload, plan, { agents, checkMain, signal: interrupt.signal });
  } catch (error) {
    if (exitCode === undefined) throw error;
    console.error('replay: stopped.');
    return exitCode;
  } finally {
    if (flags.keep) {
      console.log(`Left in ${scratch.directory}`);
      await scratch.keep();
    } else await scratch.remove();
  }
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, null, 2)}\n`);
  print(report);
  return report.tree_ok && report.wrong.length === 0 ? 0 : 1;
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        scenario: { type: 'string' },
        agents: { type: 'string' },
        json: { type: 'string' },
        'check-main': { type: 'boolean', default: false },
        dir: { type: 'string', default: tmpdir() },
        keep: { type: 'boolean', default: false },
      },
    });
    const [folder, ...more] = positionals;
    if (folder === undefined || more.length > 0) {
      throw new ValidationError(`Expected one folder, got ${positionals.length}.`);
    }
    return { folder, flags: values };
  } catch (error) {
    throw new ValidationError(`${(error as Error).message} Usage: ${USAGE}`, { cause: error });
  }
}

function readAgents(value: string | undefined): number {
  const agents = Number(value ?? 2);
  if (Number.isSafeInteger(agents) && agents >= 1 && agents <= MAX_AGENTS) return agents;
  throw new ValidationError(`Expected --agents to be 1 to ${MAX_AGENTS}, got ${value}.`);
}

/** Before an hour's work, not after it. */
function requireWritable(file: string): void {
  const target = existsSync(file) ? file : path.dirname(path.resolve(file));
  try {
    accessSync(target, constants.W_OK);
  } catch (error) {
    throw new ConfigurationError(
      `Expected to be able to write ${file} (--json); ${target} says no.`,
      {
        cause: error,
      },
    );
  }
}

function print(report: ReplayReport): void {
  const rows = report.tasks.map(({ id, state, attempts, stage, reason, evidence, wrong }) => [
    id,
    state,
    String(attempts),
    stage ?? '',
    wrong ?? 'as it must',
    // Why the task stopped is the same for all; why its last attempt was refused tells them apart.
    shorten(evidence.attempts.at(-1)?.reason ?? reason ?? ''),
  ]);
  const columns = ['task', 'state', 'attempts', 'stage', 'ended', 'reason'];
  console.log(`\n${renderTable({ columns, rows })}\n`);
  for (const sentence of report.main_wrong) console.log(sentence);
  const { main_tree, tree_ok, expected_tree, wrong, merges, verifications, seconds } = report;
  console.log(
    [
      `main: ${main_tree}, ${tree_ok ? 'as it must be' : `expected ${expected_tree ?? 'a tree that the patches make'}, with a verdict for every commit`}`,
      `${merges} merges and ${verifications} verifications in ${seconds.toFixed(1)} s with ${report.agents} agents (${report.merges_per_second} merges/s)`,
      `per task ${report.overhead_ms_per_task} ms beyond agents and verification, ${report.verify_ms_per_verification} ms per verification`,
      `the start is ${report.base}`,
      ...(report.approved.length === 0
        ? []
        : [`approved as a person would: ${report.approved.join(', ')}`]),
      wrong.length === 0 ? 'every change ended as it must' : `wrong: ${wrong.join(', ')}`,
    ].join('\n'),
  );
}

function shorten(text: string): string {
  const line = text.replace(/\s+/g, ' ').replaceAll('|', '\\|');
  return line.length > 100 ? `${line.slice(0, 99)}…` : line;
}
