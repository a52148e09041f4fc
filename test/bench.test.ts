import { join } from 'node:path';
import { expect, test } from 'vitest';
import { BENCHES } from '../bench/benches.ts';
import { mustRun, REPOSITORY } from './tooling/run-command.ts';

// What a figure is depends on the machine; that there is one does not.
test('every bench runs and prints its table', { timeout: 180_000 }, async () => {
  const { stdout } = await mustRun(process.execPath, ['bench/run.ts', '--quick'], {
    cwd: REPOSITORY,
    timeoutMs: 170_000,
  });
  const withTable = stdout
    .split('\n## ')
    .filter((section) => /^\| .+ \|\n(\| --- )+\|\n(\| .+ \|\n)+/m.test(section))
    .map((section) => section.slice(0, section.indexOf(':')));
  expect(withTable).toEqual(Object.keys(BENCHES));
});

test('an unknown bench is refused with the names of those that exist', async () => {
  await expect(
    mustRun(process.execPath, [join('bench', 'run.ts'), 'speed'], { cwd: REPOSITORY }),
  ).rejects.toThrow(`There is no bench "speed". There are: ${Object.keys(BENCHES).join(', ')}.`);
});
