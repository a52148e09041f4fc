// Runs a project's own tests and says what failed, so that the same failure is known again.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import type { Engine, VerifyFunction } from '../../src/index.ts';

export type TestFailure = {
  readonly name: string;
  /** `file:line:column`, if the test says where it stands. */
  readonly where: string | null;
  readonly message: string;
  /** Of what failed and how; the same for the same failure whatever the time, the place and the numbers around it. */
  readonly fingerprint: string;
};

export type TestReport = {
  readonly command: string;
  readonly exitCode: number | null;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly failures: TestFailure[];
};

/** Node's own test runner, in a form that programs can read: https://testanything.org */
const COMMAND = ['--test', '--test-reporter=tap'] as const;

export async function runTests(directory: string, signal?: AbortSignal): Promise<TestReport> {
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  const child = spawn(process.execPath, COMMAND, {
    cwd: directory,
    // Inside a test run Node's runner would report to that one.
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(signal === undefined ? {} : { signal }),
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.resume();
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return { command: `node ${COMMAND.join(' ')}`, exitCode, ...parseTap(output, directory) };
}

/** As an agent: `input: { directory }`. */
export const testRunner: Engine = async ({ task, step, signal }) => {
  const { directory } = task.input as { readonly directory: string };
  return await step('test', () => runTests(directory, signal));
};

/** As a gatekeeper: what is handed in names a directory; it is accepted when its tests ran and passed. */
export const testGatekeeper: VerifyFunction = async ({ submission, signal }) => {
  const { directory } = submission.result as { readonly directory: string };
  const { command, exitCode, passed, failed, failures } = await runTests(directory, signal);
  const evidence = [{ name: 'test', command, exitCode, passed, failed }];
  if (exitCode === 0 && failed === 0 && passed > 0) return { accepted: true, evidence };
  return {
    accepted: false,
    reason: failed > 0 ? `${failed} tests failed.` : 'No test has run.',
    feedback: failures.map(({ name, where, message }) => `${name} (${where ?? '?'}): ${message}`),
    evidence,
  };
};

function parseTap(
  output: string,
  directory: string,
): Pick<TestReport, 'passed' | 'failed' | 'skipped' | 'failures'> {
  const count = (what: string): number =>
    Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(output)?.[1] ?? 0);
  const failures: TestFailure[] = [];
  const lines = output.split('\n');
  for (const [at, line] of lines.entries()) {
    const [, indent, name] = /^(\s*)not ok \d+ - (.*?)(?: # .*)?$/.exec(line) ?? [];
    if (indent === undefined || name === undefined) continue;
    const block = detailsAfter(lines, at, indent);
    // A suite fails because something in it has; that something is told by itself.
    if (/^\s*failureType: 'subtestsFailed'/m.test(block)) continue;
    const message = fieldIn(block, 'error') ?? 'It failed without saying why.';
    const where = fieldIn(block, 'location')?.replaceAll(`${directory}/`, '') ?? null;
    failures.push({ name, where, message, fingerprint: fingerprintOf(name, message) });
  }
  return { passed: count('pass'), failed: count('fail'), skipped: count('skipped'), failures };
}

function detailsAfter(lines: readonly string[], at: number, indent: string): string {
  if (lines[at + 1] !== `${indent}  ---`) return '';
  const end = lines.indexOf(`${indent}  ...`, at);
  return lines.slice(at + 2, end === -1 ? undefined : end).join('\n');
}

/** One field of the YAML that TAP has for a failure: on its line, or as a block below it. */
function fieldIn(block: string, field: string): string | undefined {
  const found = new RegExp(`^(\\s*)${field}: (.*)$`, 'm').exec(block);
  if (found === null) return undefined;
  const [, indent = '', value = ''] = found;
  if (!/^[|>]-?$/.test(value)) return value.replace(/^(['"])(.*)\1$/s, '$2');
  const below: string[] = [];
  for (const line of block.slice(found.index + found[0].length + 1).split('\n')) {
    if (line.trim() !== '' && !line.startsWith(`${indent}  `)) break;
    below.push(line.slice(indent.length + 2));
  }
  return below.join('\n').trim();
}

function fingerprintOf(name: string, message: string): string {
  const steady = message
    .replaceAll(/(?:file:\/\/)?(?:\/[\w.@-]+)+/g, 'PATH')
    .replaceAll(/0x[0-9a-f]+|\d+(?:\.\d+)?/gi, 'N')
    .replaceAll(/\s+/g, ' ');
  return createHash('sha256').update(`${name}\n${steady}`).digest('hex').slice(0, 12);
}
