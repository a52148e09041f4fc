import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { LongestFirst } from './test/longest-first.ts';

const filesOf = (...folders: readonly string[]): string[] =>
  folders.map((folder) => `test/${folder}/**/*.test.ts`);

/** These leave nothing behind in their process: they share the modules that one of them has loaded. */
const SHARED = filesOf('actors', 'machines', 'protocol', 'runtime');
/** So do these, which start programs. */
const STARTING = filesOf('operator', 'store', 'workspace');
const PROGRAMS = ['test/programs.setup.ts'];

export default defineConfig({
  test: {
    testTimeout: 30_000,
    // Real processes, git and disks: more workers than cores only adds noise.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    // Node runs the source itself. Vite's runner makes a getter of each import: a simulated world takes a quarter longer.
    experimental: { viteModuleRunner: false },
    // Compiled modules are shared by all programs that the tests start: each starts in half the time.
    env: { NODE_COMPILE_CACHE: join(tmpdir(), 'troupe-test-compile-cache') },
    projects: [
      { extends: true, test: { name: 'shared', include: SHARED, isolate: false } },
      {
        extends: true,
        test: { name: 'starting', include: STARTING, isolate: false, globalSetup: PROGRAMS },
      },
      {
        extends: true,
        test: {
          name: 'apart',
          include: ['test/**/*.test.ts'],
          exclude: [...SHARED, ...STARTING],
          globalSetup: PROGRAMS,
        },
      },
    ],
  },
});
