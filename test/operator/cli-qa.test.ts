import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { git } from '../workspace/git-fixture.ts';
import { makeProject, merges, troupe, writing } from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

test('an agent of troupe.yaml mends what was rejected; run says so, and show lists every try', async () => {
  const directory = makeProject(
    [
      writing(
        'one',
        { text: 'export const broken = 1;\n' },
        { limits: { attempts: 1, sameError: 5 } },
      ),
    ],
    {
      agents: {
        script: { engine: 'command', run: ['node', '{project}/agent.mjs'] },
        mender: {
          engine: 'command',
          // Its first try helps nothing.
          run: 'if [ "$TROUPE_FIX" = 1 ]; then echo "// tried" >> src/one.js; else echo "export const one = 1;" > src/one.js; fi',
          stages: ['qa'],
        },
      },
      qa: { agent: 'mender' },
    },
  );
  const said = await troupe(directory, 'run');
  expect(said).toMatchObject({ exitCode: 0, stderr: '' });
  expect(said.stdout).toMatch(
    /^\S+ {2}one {2}◒ fixing {2}mender {2}QA session 1 of 3, iteration 1 of 2: test /m,
  );
  expect(said.stdout).toMatch(
    /^\S+ {2}one {2}◒ fixing {2}mender {2}QA session 1 of 3, iteration 2 of 2: test /m,
  );
  expect(merges(directory)).toHaveLength(1);
  expect(git(directory, 'show', 'main:src/one.js')).toBe('export const one = 1;');

  const shown = (await troupe(directory, 'show', 'one')).stdout;
  expect(shown).toMatch(/^ {2}agent: script {3}attempts: 1$/m);
  expect(shown).toMatch(/^Attempt 1 {2}accepted/m);
  expect(shown).toMatch(/^ {2}refused \(verify\) {2}/m);
  expect(shown).toMatch(/^ {2}QA session 1, iteration 1, mender {2}rejected \(verify\) {2}/m);
  expect(shown).toMatch(/^ {2}QA session 1, iteration 2, mender {2}accepted {2}/m);
  const { attempts } = JSON.parse((await troupe(directory, 'show', 'one', '--json')).stdout);
  expect(attempts).toMatchObject([
    {
      outcome: 'accepted',
      refused: { stage: 'verify' },
      fixes: [{ outcome: 'rejected' }, { outcome: 'accepted' }],
    },
  ]);
  // Every try has left its evidence.
  const files = [attempts[0].refused, ...attempts[0].fixes].map(({ artifact }) => artifact);
  const verdicts = files.map(
    (file: string) => JSON.parse(readFileSync(path.join(directory, file), 'utf8')).verdict,
  );
  expect(verdicts).toEqual(['rejected', 'rejected', 'accepted']);
});
