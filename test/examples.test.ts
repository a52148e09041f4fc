import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { asPromised, promisedOutput } from './expected-output.ts';
import { mustRun, REPOSITORY } from './tooling/run-command.ts';

const folder = join(REPOSITORY, 'examples');

/** `npm start` shows itself to a person; the gate runs it as a whole. */
const WITHOUT_PROMISE: ReadonlySet<string> = new Set(['start.ts']);

const examples = globSync('*.ts', { cwd: folder })
  .filter((name) => !WITHOUT_PROMISE.has(name))
  .sort();

test('there are examples', () => {
  expect(examples, 'Expected at least one examples/*.ts with an "// Output:" block.').not.toEqual(
    [],
  );
});

describe.skipIf(examples.length === 0)('an example prints what it promises', () => {
  test.each(examples)(
    'examples/%s',
    async (name) => {
      const file = join(folder, name);
      const promised = promisedOutput(readFileSync(file, 'utf8'));
      if (promised === undefined) {
        throw new Error(
          `Expected an "// Output:" block in examples/${name}, got none: say what it prints.`,
        );
      }
      // A folder of its own: an example may make a store where it stands.
      const directory = mkdtempSync(join(tmpdir(), 'troupe-example-'));
      try {
        const { stdout } = await mustRun(process.execPath, [file], { cwd: directory });
        expect(asPromised(stdout, promised)).toEqual(promised);
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    },
    90_000,
  );
});
