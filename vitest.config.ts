import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 30_000,
    // Real processes, git and disks: more workers than cores only adds noise.
    maxWorkers: 2,
    // Compiled modules are shared by all programs that the tests start: each starts in half the time.
    env: { NODE_COMPILE_CACHE: join(tmpdir(), 'troupe-test-compile-cache') },
  },
});
