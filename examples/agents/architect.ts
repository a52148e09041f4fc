// Reads a project: which module uses which, how large they are, where changes gather. Answers with a plan as JSON.
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Engine } from '../../src/index.ts';

const run = promisify(execFile);

/** One module of the project. Names are relative to its directory. */
export type Module = {
  readonly name: string;
  /** Of code: without blank lines and comments that fill a line. */
  readonly lines: number;
  readonly uses: string[];
  readonly usedBy: string[];
  /** Commits that have changed it; null outside a git repository. */
  readonly changes: number | null;
};

export type Plan = {
  readonly modules: Module[];
  /** Modules that use each other in a circle. */
  readonly cycles: string[][];
  /** Modules that no test uses, directly or through others. */
  readonly untested: string[];
  /** Where a change costs most: size by how many depend on it by how often it changes. The worst first. */
  readonly hotSpots: { readonly name: string; readonly weight: number }[];
  /** What to do, in this order. */
  readonly steps: { readonly what: string; readonly where: string; readonly why: string }[];
};

const CODE = /\.(?:[cm]?[jt]s|[jt]sx)$/;
const SKIPPED = new Set(['node_modules', 'dist', 'coverage']);
const IS_TEST = /(?:^|\/)tests?\/|\.(?:test|spec)\.[^/]+$/;
const IMPORT =
  /(?:^|[;\n])\s*(?:import|export)\b[^'";]*?\bfrom\s*['"]([^'"]+)['"]|(?:^|[;\n])\s*import\s*['"]([^'"]+)['"]|\b(?:import|require)\(\s*['"]([^'"]+)['"]\s*\)/g;
/** More lines than that are hard to hold in one head. */
const LARGE = 300;

export async function survey(directory: string): Promise<Plan> {
  const names = await filesIn(directory);
  const known = new Set(names);
  const texts = new Map<string, string>();
  for (const name of names) texts.set(name, await readFile(path.join(directory, name), 'utf8'));
  const uses = new Map<string, string[]>();
  for (const [name, text] of texts) uses.set(name, importsOf(name, text, known));
  const changes = await changesIn(directory);
  const modules = names.map((name): Module => {
    const usedBy = names.filter((other) => uses.get(other)?.includes(name));
    return {
      name,
      lines: linesOf(texts.get(name) ?? ''),
      uses: uses.get(name) ?? [],
      usedBy,
      changes: changes === null ? null : (changes.get(name) ?? 0),
    };
  });
  const cycles = cyclesIn(uses);
  const reached = reachedFrom(
    names.filter((name) => IS_TEST.test(name)),
    uses,
  );
  const source = modules.filter(({ name }) => !IS_TEST.test(name));
  const untested = source.filter(({ name }) => !reached.has(name)).map(({ name }) => name);
  const hotSpots = source
    .map(({ name, lines, usedBy, changes: n }) => ({
      name,
      weight: lines * (1 + usedBy.filter((by) => !IS_TEST.test(by)).length) * (1 + (n ?? 0)),
    }))
    .sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1))
    .slice(0, 5);
  return { modules, cycles, untested, hotSpots, steps: stepsFor(source, cycles, untested) };
}

/** As an agent: `input: { directory }`. */
export const architect: Engine = async ({ task, step }) => {
  const { directory } = task.input as { readonly directory: string };
  return await step('survey', () => survey(directory));
};

function stepsFor(
  source: readonly Module[],
  cycles: readonly string[][],
  untested: readonly string[],
) {
  return [
    ...cycles.map((cycle) => ({
      what: 'break the circle',
      where: cycle.join(' → '),
      why: 'None of them can be understood, tested or replaced without the others.',
    })),
    ...untested.map((name) => ({
      what: 'test it',
      where: name,
      why: 'No test reaches it: a mistake here is found by users.',
    })),
    ...source
      .filter(({ lines }) => lines > LARGE)
      .map(({ name, lines }) => ({
        what: 'divide it',
        where: name,
        why: `It has ${lines} lines of code.`,
      })),
  ];
}

async function filesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && CODE.test(entry.name))
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
    .map((name) => name.replaceAll(path.sep, '/'))
    .filter((name) => !name.split('/').some((part) => SKIPPED.has(part) || part.startsWith('.')))
    .sort();
}

function importsOf(name: string, text: string, known: ReadonlySet<string>): string[] {
  const found = new Set<string>();
  for (const [, from, bare, dynamic] of text.matchAll(IMPORT)) {
    const wanted = from ?? bare ?? dynamic ?? '';
    if (!wanted.startsWith('.')) continue;
    const base = path.posix.join(path.posix.dirname(name), wanted);
    const candidates = [
      base,
      `${base}.js`,
      `${base}.ts`,
      base.replace(/\.js$/, '.ts'),
      `${base}/index.js`,
    ];
    const target = candidates.find((candidate) => known.has(candidate));
    if (target !== undefined) found.add(target);
  }
  return [...found].sort();
}

const linesOf = (text: string): number =>
  text.split('\n').filter((line) => !/^\s*(?:\/\/.*|\/?\*.*)?$/.test(line)).length;

/** Each circle once, beginning with the name that sorts first. */
function cyclesIn(uses: ReadonlyMap<string, readonly string[]>): string[][] {
  const found = new Map<string, string[]>();
  const done = new Set<string>();
  const visit = (name: string, way: readonly string[]): void => {
    const at = way.indexOf(name);
    if (at !== -1) {
      const circle = way.slice(at);
      const first = circle.indexOf([...circle].sort()[0] ?? '');
      const turned = [...circle.slice(first), ...circle.slice(0, first)];
      found.set(turned.join('\n'), turned);
      return;
    }
    if (done.has(name)) return;
    for (const next of uses.get(name) ?? []) visit(next, [...way, name]);
    done.add(name);
  };
  for (const name of uses.keys()) visit(name, []);
  return [...found.values()];
}

function reachedFrom(
  starts: readonly string[],
  uses: ReadonlyMap<string, readonly string[]>,
): ReadonlySet<string> {
  const reached = new Set<string>(starts);
  for (const name of reached) for (const next of uses.get(name) ?? []) reached.add(next);
  return reached;
}

async function changesIn(directory: string): Promise<ReadonlyMap<string, number> | null> {
  try {
    const { stdout } = await run('git', ['log', '--format=', '--name-only', '--relative'], {
      cwd: directory,
      maxBuffer: 64 * 1024 * 1024,
    });
    const counts = new Map<string, number>();
    for (const name of stdout.split('\n')) {
      if (name !== '') counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    return counts;
  } catch {
    // No repository, or none with a commit: then nobody knows how often anything has changed.
    return null;
  }
}
