import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type History, writeScript } from './history.ts';

/** A change of a workload that is being made. */
export interface MadeChange {
  readonly id: string;
  readonly title: string;
  readonly dependsOn: readonly string[];
}

export interface MadeBad extends MadeChange {
  readonly kind: string;
  readonly stage: string;
  readonly outputContains?: string;
  /** The verification is green: only a rule about what may be changed holds it back. */
  readonly verifyGreen?: true;
  readonly timeoutS?: number;
  /** Another change's patch is this one's. */
  readonly patchOf?: string;
}

/** What a generator hands over to be written. */
export interface MadeWorkload {
  readonly name: string;
  readonly language: string;
  readonly history: History;
  readonly features: readonly MadeChange[];
  readonly bad: readonly MadeBad[];
  /** By feature: the names of the commits whose patches are wrong, in the order of the attempts. */
  readonly attempts: ReadonlyMap<string, readonly string[]>;
  /** The bad one that races, and the feature it races with. */
  readonly race: { readonly feature: string; readonly bad: string };
  /** Features that need each other, the one that needs most first. */
  readonly undeclared: readonly string[];
  /** Files beside the manifest; `verify.sh` is one of them. */
  readonly scripts: Readonly<Record<string, string>>;
  readonly timeoutS: number;
}

/** Name of the commit that is the start. */
export const START = 'start';

/** Name of a commit with a file as it never was: what builds on it cannot be applied anywhere else. */
export const FICTION = 'fiction';

/** Writes a workload into an empty or new folder. */
export function writeWorkload(folder: string, made: MadeWorkload): void {
  mkdirSync(folder, { recursive: true });
  const number = new Map(
    made.features.map(({ id }, index) => [id, String(index + 1).padStart(4, '0')]),
  );
  const wrong = new Set([...made.attempts.values()].flat());
  const fileOf = (name: string): string => {
    const good = number.get(name);
    if (good !== undefined) return `patches/${good}-${name}.patch`;
    return wrong.has(name) ? `attempts/${name}.patch` : `bad/${name}.patch`;
  };
  const { baseTree, tipTree } = made.history.export(folder, START, (name) =>
    name === FICTION ? undefined : fileOf(name),
  );
  for (const [name, text] of Object.entries(made.scripts)) {
    writeScript(path.join(folder, name), text);
  }
  const all = made.features.map(({ id }) => id);
  const racing = made.race.bad;
  const mixed = made.bad.filter(({ id }) => id !== racing);
  const needsNoPolicy = mixed.filter(({ stage }) => stage !== 'policy');
  const closureOf = (ids: readonly string[]): string[] => {
    const wanted = new Set(ids);
    for (const id of wanted) {
      for (const other of made.features.find((one) => one.id === id)?.dependsOn ?? []) {
        wanted.add(other);
      }
    }
    return all.filter((id) => wanted.has(id));
  };
  const idsOf = (bad: readonly MadeBad[]) => bad.map(({ id }) => id);
  const manifest = {
    name: made.name,
    language: made.language,
    base_tree: baseTree,
    tip_tree: tipTree,
    verify: { script: 'verify.sh', timeout_s: made.timeoutS, needs_deps: false },
    features: made.features.map(({ id, title, dependsOn }) => ({
      id,
      title,
      patch: fileOf(id),
      depends_on: dependsOn,
    })),
    bad: made.bad.map((bad) => ({
      id: bad.id,
      kind: bad.kind,
      title: bad.title,
      patch: fileOf(bad.patchOf ?? bad.id),
      depends_on: bad.dependsOn,
      expect: {
        state: 'not merged',
        stage: bad.stage,
        ...(bad.outputContains === undefined ? {} : { output_contains: bad.outputContains }),
      },
      ...(bad.verifyGreen === undefined ? {} : { verify_green: true }),
      ...(bad.timeoutS === undefined ? {} : { timeout_s: bad.timeoutS }),
      ...(bad.stage === 'policy' ? { needs: 'rules about what a change may do' } : {}),
    })),
    attempt_sequences: [...made.attempts].map(([feature, names]) => ({
      feature,
      attempts: [...names.map(fileOf), fileOf(feature)],
    })),
    scenarios: {
      green: { features: all, bad: [], expect: 'all merged' },
      mixed: {
        features: all,
        bad: idsOf(needsNoPolicy),
        expect: 'all features merged, no bad one',
      },
      'mixed-policy': {
        features: all,
        bad: idsOf(mixed),
        expect: 'all features merged, no bad one',
      },
      retry: {
        features: closureOf([...made.attempts.keys()]),
        bad: [],
        expect: 'all merged, each with as many attempts as its sequence has',
      },
      race: {
        features: closureOf([made.race.feature]),
        bad: [made.race.bad],
        expect: 'exactly one of the two merged',
      },
      undeclared: {
        features: made.undeclared,
        bad: [],
        ignore_depends_on: true,
        expect: 'all merged',
      },
    },
  };
  writeFileSync(path.join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

/** The file with one line replaced, which must be there. */
export function withLine(text: string, line: string, replacement: string): string {
  const lines = text.split('\n');
  const at = lines.indexOf(line);
  if (at < 0) throw new Error(`Expected the line ${JSON.stringify(line)}; it is not there.`);
  return [...lines.slice(0, at), ...replacement.split('\n'), ...lines.slice(at + 1)].join('\n');
}
