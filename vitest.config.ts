import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 30_000,
    // Real processes, git and disks: more workers than cores only adds noise.
    maxWorkers: 2,
  },
});
