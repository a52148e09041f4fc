/**
 * Makes a workload for `npm run replay`: the same one for the same arguments.
 *
 *     node bench/workloads.ts javascript FOLDER [--changes 24] [--seed 1]
 *     node bench/workloads.ts data FOLDER [--changes 300] [--files 200] [--seed 1]
 */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { EXIT_CODES } from '../src/index.ts';
import { dataWorkload } from './workload/data.ts';
import { javaScriptWorkload } from './workload/javascript.ts';
import { writeWorkload } from './workload/workload.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    changes: { type: 'string' },
    files: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
  },
});
const [kind = '', folder = ''] = positionals;
const problem = findProblem();
if (problem === undefined) {
  const number = (text: string | undefined, fallback: number) => Number(text ?? fallback);
  const seed = Number(values.seed);
  writeWorkload(
    path.resolve(folder),
    kind === 'data'
      ? dataWorkload({ changes: number(values.changes, 300), files: Number(values.files), seed })
      : javaScriptWorkload({ changes: number(values.changes, 24), seed }),
  );
} else {
  console.error(problem);
  process.exitCode = EXIT_CODES.validation;
}

function findProblem(): string | undefined {
  if (kind !== 'data' && kind !== 'javascript') {
    return `Expected javascript or data, got ${JSON.stringify(kind)}.`;
  }
  if (folder === '') return 'Expected a folder to write to.';
  if (existsSync(folder) && readdirSync(folder).length > 0) {
    return `Expected an empty folder or a new one, got ${folder}, which holds something.`;
  }
  for (const [name, least] of [
    ['changes', 12],
    ['files', 12],
    ['seed', 0],
  ] as const) {
    const value = values[name];
    if (value === undefined || (Number.isSafeInteger(Number(value)) && Number(value) >= least)) {
      continue;
    }
    return `Expected --${name} to be a whole number from ${least} on, got ${value}.`;
  }
  return undefined;
}
