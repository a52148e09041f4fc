import { describe, expect, test, vi } from 'vitest';
import { makeProject, merges, troupe, troupeProcess, writing } from './cli-fixture.ts';

// Real processes on a machine that does other things as well.
vi.setConfig({ testTimeout: 120_000 });

describe('a workflow in troupe.yaml', () => {
  test('is worked off phase by phase, and shown so', async () => {
    const workflow = {
      budget: '2h',
      phases: [
        { id: 'first', tasks: ['one'], budget: '1h' },
        { id: 'second', title: 'The rest', tasks: ['two'] },
      ],
    };
    const directory = makeProject([writing('two'), writing('one')], { workflow });
    const { exitCode, stdout, stderr } = await troupeProcess(directory, 'run');
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(merges(directory)).toEqual(['one', 'two']);
    expect(stdout).toMatch(/^ {2}phase {4}first {3}done {7}1 of 1 done · \d+s$/m);
    expect(stdout).toMatch(/^ {2}phase {4}second {2}done {7}1 of 1 done · \d+s$/m);
    const { stdout: json } = await troupe(directory, 'status', '--json');
    expect(JSON.parse(json)).toMatchObject({
      runs: [
        {
          phases: [
            { id: 'first', budgetMs: 3_600_000 },
            { title: 'The rest', state: 'done' },
          ],
        },
      ],
    });
  });

  test('a template is chosen by its name and told its parameters', async () => {
    const directory = makeProject([]);
    const run = (...args: string[]) => troupe(directory, 'run', ...args);
    expect(await run('--template', 'bugFix')).toMatchObject({
      ...{ exitCode: 20, stderr: 'troupe: name the run that --template makes: --run ID\n' },
    });
    expect(await run('--param', 'title=x')).toMatchObject({
      ...{ exitCode: 20, stderr: 'troupe: --param is for --template\n' },
    });
    const wrong = await run('--run', 'fix-7', '--template', 'bugfxi');
    expect(wrong.exitCode).toBe(20);
    expect(wrong.stderr).toContain('Did you mean "bugFix"? Known: feature, bugFix, refactoring.');
    const without = await run('--run', 'fix-7', '--template', 'bugFix', '--param', 'title=x');
    expect(without.exitCode).toBe(20);
    expect(without.stderr).toContain('Expected parameter "agent"');
    const odd = await run('--run', 'fix-7', '--template', 'bugFix', '--param', 'title');
    expect(odd.stderr).toContain('Expected --param to be name=value');
    // The script writes no file for it: the task ends blocked, in its phase, and what comes after does not begin.
    const params = ['--param', 'title=Crash', '--param', 'agent=script'];
    const { exitCode, stdout } = await run('--run', 'fix-7', '--template', 'bugFix', ...params);
    expect(exitCode).toBe(30);
    expect(stdout).toMatch(/^ {2}phase {4}reproduce {2}blocked/m);
    expect(stdout).toMatch(/^ {2}phase {4}fix {8}waiting/m);
  });
});
