import { cpSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { mustRun, REPOSITORY } from './run-command.ts';

export interface PackedTroupe {
  /** The tarball, as it would be published. */
  readonly tarball: string;
  /** What is in it, relative to the package: `dist/index.js`. */
  readonly files: readonly string[];
}

/** What a build neither needs nor may touch. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  'node_modules',
  '.git',
  '.troupe',
  'coverage',
  'dist',
  'bench',
  'examples',
  'test',
  'tsconfig.tsbuildinfo',
]);

/**
 * Builds and packs a copy of the repository inside `directory`, so that neither a stale `dist` helps
 * nor a fresh one disturbs whoever works in the repository meanwhile.
 */
export async function packTroupe(directory: string): Promise<PackedTroupe> {
  const copy = join(directory, 'repository');
  cpSync(REPOSITORY, copy, {
    recursive: true,
    filter: (file) =>
      file === REPOSITORY || join(file, '..') !== REPOSITORY || !LEFT_OUT.has(basename(file)),
  });
  symlinkSync(join(REPOSITORY, 'node_modules'), join(copy, 'node_modules'), 'dir');
  await mustRun('npm', ['run', 'build'], { cwd: copy, timeoutMs: 120_000 });
  const packed = await mustRun(
    'npm',
    ['pack', '--json', '--ignore-scripts', '--pack-destination', directory],
    { cwd: copy },
  );
  const { filename, files } = parsePackReport(packed.stdout);
  return { tarball: join(directory, filename), files };
}

function parsePackReport(text: string): { filename: string; files: string[] } {
  const report: unknown = JSON.parse(text);
  // npm 11 and older print a list of packages; npm 12 prints an object with one key per package.
  const [entry] = Object.values(report as Record<string, unknown>);
  const { filename, files } = entry as { filename: string; files: { path: string }[] };
  return { filename, files: files.map((file) => file.path).sort() };
}
