import { accessSync, constants, readFileSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { ConfigurationError, ValidationError } from '../../src/index.ts';

/** How a bad change must end. */
export interface Expectation {
  /** `done` or `merged` for one that is to be merged; any other word: not merged. */
  readonly state: string;
  /** See `stages.ts`; absent: wherever it is refused. */
  readonly stage?: string;
  /** Each must stand in the evidence. */
  readonly outputContains: readonly string[];
}

/** One change of the backlog. */
export interface Change {
  readonly id: string;
  readonly title: string;
  /** Of the patch, absolute. */
  readonly patch: string;
  readonly dependsOn: readonly string[];
  /** Only for a bad one. */
  readonly bad?: {
    readonly kind: string;
    readonly expect: Expectation;
    /** For its verification, instead of the workload's limit. */
    readonly timeoutMs?: number;
  };
}

export interface Scenario {
  readonly name: string;
  readonly features: readonly string[];
  readonly bad: readonly string[];
  readonly ignoreDependsOn: boolean;
}

/** A workload whose files are all there. Paths are absolute. */
export interface Workload {
  readonly folder: string;
  readonly name: string;
  readonly bundle: string;
  readonly baseTree: string | undefined;
  readonly tipTree: string;
  readonly verify: { readonly script: string; readonly timeoutMs: number };
  /** Good and bad ones, by id, in the order of the manifest, the good ones first. */
  readonly changes: ReadonlyMap<string, Change>;
  /** By feature: the patch of the 1st, 2nd, 3rd attempt. */
  readonly attempts: ReadonlyMap<string, readonly string[]>;
  readonly scenarios: ReadonlyMap<string, Scenario>;
}

const text = z.string().min(1);
const objectName = z.string().regex(/^[0-9a-f]{40}(?:[0-9a-f]{24})?$/, 'a full object name of git');
const ids = z.array(text);
const seconds = z.number().positive().max(86_400);

const feature = z.object({
  id: text,
  title: z.string().optional(),
  patch: text,
  depends_on: ids.default([]),
});

// Unknown keys are left out: a newer workload may say more.
const manifestSchema = z.object({
  name: text.optional(),
  base_tree: objectName.optional(),
  tip_tree: objectName,
  verify: z.object({ script: text.default('verify.sh'), timeout_s: seconds.default(600) }),
  features: z.array(feature).min(1),
  bad: z
    .array(
      feature.extend({
        kind: z.string().default('bad'),
        expect: z
          .object({
            state: text.default('not merged'),
            stage: text.optional(),
            output_contains: z.union([z.string(), z.array(z.string())]).optional(),
          })
          .default({ state: 'not merged' }),
        timeout_s: seconds.optional(),
      }),
    )
    .default([]),
  attempt_sequences: z.array(z.object({ feature: text, attempts: ids.min(1) })).default([]),
  scenarios: z
    .record(
      text,
      z.object({
        features: ids.optional(),
        bad: ids.default([]),
        ignore_depends_on: z.boolean().default(false),
      }),
    )
    .default({}),
});

/**
 * Reads a workload and makes sure that all it names is there. Nothing is written.
 * @throws {ValidationError} the manifest cannot be what was meant; the message names the file and the path in it
 * @throws {ConfigurationError} the bundle or the verification cannot be used
 */
export function readWorkload(directory: string): Workload {
  const folder = existing(directory);
  const file = path.join(folder, 'manifest.json');
  const manifest = parseManifest(file);
  const refuse = (where: string, expected: string, got: string): never => {
    throw new ValidationError(`${file}: ${where}: expected ${expected}, got ${got}.`, {
      context: { file, path: where },
    });
  };
  const inFolder = (name: string, where: string): string => {
    const absolute = path.resolve(folder, name);
    if (!isFile(absolute)) refuse(where, `a file (${absolute})`, 'none there');
    return absolute;
  };

  const changes = new Map<string, Change>();
  const add = (change: Change, where: string): void => {
    if (changes.has(change.id)) refuse(`${where}.id`, 'a unique id', JSON.stringify(change.id));
    changes.set(change.id, change);
  };
  for (const [index, { id, title = id, patch, depends_on }] of manifest.features.entries()) {
    const where = `features[${index}]`;
    add({ id, title, patch: inFolder(patch, `${where}.patch`), dependsOn: depends_on }, where);
  }
  const features = [...changes.keys()];
  for (const [index, one] of manifest.bad.entries()) {
    const where = `bad[${index}]`;
    const { id, title = id, kind, expect, timeout_s } = one;
    const { output_contains: contains = [] } = expect;
    const bad = {
      kind,
      expect: {
        state: expect.state,
        ...(expect.stage === undefined ? {} : { stage: expect.stage }),
        outputContains: typeof contains === 'string' ? [contains] : contains,
      },
      ...(timeout_s === undefined ? {} : { timeoutMs: Math.ceil(timeout_s * 1000) }),
    };
    const patch = inFolder(one.patch, `${where}.patch`);
    add({ id, title, patch, dependsOn: one.depends_on, bad }, where);
  }
  const known = (id: string, where: string, among: 'feature' | 'bad change' | 'change'): void => {
    const change = changes.get(id);
    const fits =
      change !== undefined &&
      (among === 'change' || (among === 'bad change') === (change.bad !== undefined));
    if (!fits) refuse(where, `the id of a ${among}`, JSON.stringify(id));
  };
  for (const [list, rows] of [
    ['features', manifest.features],
    ['bad', manifest.bad],
  ] as const) {
    for (const [index, { depends_on }] of rows.entries()) {
      for (const [at, id] of depends_on.entries()) {
        known(id, `${list}[${index}].depends_on[${at}]`, 'change');
      }
    }
  }
  const cycle = findCycle(changes);
  if (cycle !== undefined) refuse('depends_on', 'no cycle', cycle.join(' → '));

  const attempts = new Map<string, readonly string[]>();
  for (const [index, sequence] of manifest.attempt_sequences.entries()) {
    const where = `attempt_sequences[${index}]`;
    known(sequence.feature, `${where}.feature`, 'feature');
    if (attempts.has(sequence.feature))
      refuse(`${where}.feature`, 'one sequence each', 'a second one');
    const files = sequence.attempts.map((name, at) => inFolder(name, `${where}.attempts[${at}]`));
    attempts.set(sequence.feature, files);
  }

  const scenarios = new Map<string, Scenario>();
  for (const [name, scenario] of Object.entries(manifest.scenarios)) {
    const where = `scenarios.${name}`;
    const chosen = scenario.features ?? features;
    for (const [at, id] of chosen.entries()) known(id, `${where}.features[${at}]`, 'feature');
    for (const [at, id] of scenario.bad.entries()) known(id, `${where}.bad[${at}]`, 'bad change');
    if (chosen.length + scenario.bad.length === 0) refuse(where, 'at least one change', 'none');
    scenarios.set(name, {
      name,
      features: [...new Set(chosen)],
      bad: [...new Set(scenario.bad)],
      ignoreDependsOn: scenario.ignore_depends_on,
    });
  }
  // Every workload has this one, whether it is written down or not.
  if (!scenarios.has('green')) {
    scenarios.set('green', { name: 'green', features, bad: [], ignoreDependsOn: false });
  }

  const bundle = path.join(folder, 'base.bundle');
  if (!isFile(bundle)) {
    throw new ConfigurationError(`Expected a git bundle at ${bundle}; there is none.`);
  }
  return {
    folder,
    name: manifest.name ?? path.basename(folder),
    bundle,
    baseTree: manifest.base_tree,
    tipTree: manifest.tip_tree,
    verify: {
      script: executable(path.resolve(folder, manifest.verify.script), `${file}: verify.script`),
      timeoutMs: Math.ceil(manifest.verify.timeout_s * 1000),
    },
    changes,
    attempts,
    scenarios,
  };
}

/** @throws {ValidationError} names those there are */
export function requireScenario(workload: Workload, name: string): Scenario {
  const scenario = workload.scenarios.get(name);
  if (scenario !== undefined) return scenario;
  throw new ValidationError(
    `Expected a scenario of ${workload.folder}/manifest.json, got ${JSON.stringify(name)}. There are: ${[...workload.scenarios.keys()].join(', ')}.`,
  );
}

function existing(directory: string): string {
  try {
    const folder = realpathSync(directory);
    if (statSync(folder).isDirectory()) return folder;
  } catch {
    // Said below.
  }
  throw new ValidationError(
    `Expected the folder of a workload, got ${path.resolve(directory)}, where there is none.`,
  );
}

function parseManifest(file: string): z.infer<typeof manifestSchema> {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8').replace(/^\ufeff/, ''));
  } catch (error) {
    throw new ValidationError(`${file}: expected a file with JSON: ${(error as Error).message}.`, {
      cause: error,
      context: { file },
    });
  }
  const parsed = manifestSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = (issue?.path ?? []).reduce<string>(
    (all, key) =>
      typeof key === 'number'
        ? `${all}[${key}]`
        : all === ''
          ? String(key)
          : `${all}.${String(key)}`,
    '',
  );
  throw new ValidationError(
    `${file}: ${where === '' ? '' : `${where}: `}${issue?.message ?? 'does not fit'}.`,
    {
      context: { file, path: where },
    },
  );
}

function isFile(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.isFile() === true;
}

function executable(file: string, where: string): string {
  if (!isFile(file)) {
    throw new ConfigurationError(`${where}: expected a script at ${file}; there is none.`);
  }
  try {
    accessSync(file, constants.X_OK);
  } catch (error) {
    throw new ConfigurationError(
      `${where}: expected ${file} to be executable; it is not. Run chmod +x on it.`,
      { cause: error },
    );
  }
  return file;
}

/** @returns ids that wait for each other, the first one again at the end; undefined if there are none */
function findCycle(changes: ReadonlyMap<string, Change>): readonly string[] | undefined {
  const over = new Set<string>();
  for (const start of changes.keys()) {
    // Without recursion: a history may be one long chain.
    const way: { readonly id: string; next: number }[] = [{ id: start, next: 0 }];
    const onWay = new Set([start]);
    while (way.length > 0) {
      const top = way[way.length - 1] as (typeof way)[number];
      const next = over.has(top.id) ? undefined : changes.get(top.id)?.dependsOn[top.next++];
      if (next === undefined) {
        over.add(top.id);
        onWay.delete(top.id);
        way.pop();
      } else if (onWay.has(next)) {
        const ids = way.map(({ id }) => id);
        return [...ids.slice(ids.indexOf(next)), next];
      } else if (!over.has(next)) {
        way.push({ id: next, next: 0 });
        onWay.add(next);
      }
    }
  }
  return undefined;
}
