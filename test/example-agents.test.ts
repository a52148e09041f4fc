import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { survey } from '../examples/agents/architect.ts';
import { prepareRelease } from '../examples/agents/dev-ops.ts';
import { houndGatekeeper, type Rule, review } from '../examples/agents/hound.ts';
import { runTests, testGatekeeper } from '../examples/agents/test-runner.ts';

function project(files: Readonly<Record<string, string>>): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'troupe-example-agents-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    writeFileSync(path.join(directory, name), text);
  }
  return directory;
}

const adds = (file: string, ...lines: readonly string[]): string =>
  [
    `--- a/${file}`,
    `+++ b/${file}`,
    `@@ -4,1 +4,${lines.length + 1} @@`,
    ' before',
    ...lines.map((line) => `+${line}`),
  ].join('\n');

describe('the hound', () => {
  test.each<{ rule: Rule; file: string; line: string }>([
    { rule: 'debug-output', file: 'src/a.ts', line: '  console.log(state);' },
    { rule: 'debug-output', file: 'src/a.ts', line: 'debugger;' },
    { rule: 'debug-output', file: 'a.py', line: '    print(x)' },
    { rule: 'disabled-test', file: 'test/a.test.ts', line: "test.skip('later', () => {});" },
    { rule: 'disabled-test', file: 'test/a.test.ts', line: "describe.only('this', () => {" },
    { rule: 'secret', file: 'src/a.ts', line: `const key = "sk-${'a1B2'.repeat(8)}";` },
    { rule: 'secret', file: '.env', line: `TOKEN=${'a1B2c3D4'.repeat(4)}` },
    { rule: 'conflict-marker', file: 'README.md', line: '<<<<<<< HEAD' },
    { rule: 'conflict-marker', file: 'README.md', line: '=======' },
    { rule: 'todo-without-issue', file: 'src/a.ts', line: '// TODO make it faster' },
    { rule: 'empty-catch', file: 'src/a.ts', line: '} catch (error) {}' },
    { rule: 'empty-catch', file: 'src/a.ts', line: 'await save().catch(() => undefined);' },
  ])('finds $rule in $file: $line', ({ rule, file, line }) => {
    expect(review(adds(file, 'fine', line))).toMatchObject([{ file, line: 6, rule }]);
  });

  test.each([
    { file: 'bin/tool.js', line: 'console.log(help);' },
    { file: 'src/a.ts', line: "import { skip } from './test.skip.ts';" },
    { file: 'src/a.ts', line: 'const token = process.env.TOKEN;' },
    { file: 'src/a.ts', line: '// TODO(#12) make it faster' },
    { file: 'src/a.ts', line: 'logger.debug(state);' },
    { file: 'README.md', line: '========' },
    { file: 'src/a.ts', line: '} catch (error) { throw wrap(error); }' },
  ])('lets pass in $file: $line', ({ file, line }) => {
    expect(review(adds(file, line))).toEqual([]);
  });

  test('looks at what is added only, and counts its lines', () => {
    const diff = [
      ...[
        '--- a/src/a.ts',
        '+++ b/src/a.ts',
        '@@ -10,3 +10,2 @@',
        ' one',
        '-console.log(1);',
        '-debugger;',
        '+two',
      ],
      ...['@@ -40 +39,2 @@', ' three', '+console.log(4);'],
    ].join('\n');
    expect(review(diff)).toMatchObject([{ file: 'src/a.ts', line: 40, rule: 'debug-output' }]);
    // A line of the change that looks like a header is a line of the change.
    expect(
      review(['+++ b/notes.sql', '@@ -0,0 +1,2 @@', '+++ b/x', '+-- TODO x'].join('\n')),
    ).toMatchObject([{ file: 'notes.sql', line: 2, rule: 'todo-without-issue' }]);
  });

  test('finds a function that is a chapter, and not one that is a page', () => {
    const body = (lines: number): string[] => [
      'export function work() {',
      ...Array.from({ length: lines - 2 }, () => '  step("{");'),
      '}',
    ];
    expect(review(adds('src/a.ts', ...body(60)))).toEqual([]);
    expect(review(adds('src/a.ts', ...body(61)))).toMatchObject([
      {
        line: 5,
        rule: 'large-function',
        severity: 'warning',
        message: expect.stringContaining('work has 61 lines'),
      },
    ]);
  });

  test('as a gatekeeper refuses errors by name and place, and accepts nothing that is no change', async () => {
    const judge = (result: unknown) =>
      houndGatekeeper({ submission: { result } } as unknown as Parameters<
        typeof houndGatekeeper
      >[0]);
    expect(await judge({ diff: adds('src/a.ts', 'debugger;') })).toMatchObject({
      accepted: false,
      feedback: ['src/a.ts:5: debug-output: Output for debugging was left behind.'],
    });
    expect(await judge({ diff: adds('src/a.ts', '// TODO x') })).toMatchObject({ accepted: true });
    for (const nothing of [null, {}, { diff: '' }, { diff: 'hello' }]) {
      expect(await judge(nothing)).toMatchObject({ accepted: false });
    }
  });
});

test('the architect finds who uses whom, circles, what no test reaches, and what is large', async () => {
  const plan = await survey(
    project({
      'src/a.js': "import { b } from './b.js';\n// a comment\nexport const a = b;\n",
      'src/b.js': "export { c as b } from './c.js';\n",
      'src/c.js': "import './b.js';\nexport const c = await import('./d.js');\n",
      'src/d.js': Array.from({ length: 301 }, (_, n) => `export const d${n} = ${n};`).join('\n'),
      'src/alone.js': 'export const alone = 1;\n',
      'test/a.test.js': "import '../src/a.js';\n",
      'node_modules/x/index.js': 'nothing',
    }),
  );
  expect(plan.modules.find(({ name }) => name === 'src/b.js')).toEqual({
    name: 'src/b.js',
    lines: 1,
    uses: ['src/c.js'],
    usedBy: ['src/a.js', 'src/c.js'],
    changes: null,
  });
  expect(plan.modules.find(({ name }) => name === 'src/a.js')?.lines).toBe(2);
  expect(plan.cycles).toEqual([['src/b.js', 'src/c.js']]);
  expect(plan.untested).toEqual(['src/alone.js']);
  expect(plan.hotSpots[0]?.name).toBe('src/d.js');
  expect(plan.steps.map(({ what, where }) => [what, where])).toEqual([
    ['break the circle', 'src/b.js → src/c.js'],
    ['test it', 'src/alone.js'],
    ['divide it', 'src/d.js'],
  ]);
});

test('the test runner tells failures by name, place and a fingerprint that stays', async () => {
  const text = (n: number): string =>
    `import { test, describe } from 'node:test';
import assert from 'node:assert';
test('fine', () => {});
describe('sums', () => { test('wrong', () => assert.equal(${n}, 0, 'got ${n} after ${n} ms')); });
test.skip('later', () => {});
`;
  const [first, second] = [project({ 'a.test.js': text(17) }), project({ 'a.test.js': text(99) })];
  const report = await runTests(first);
  expect(report).toMatchObject({ exitCode: 1, passed: 1, failed: 1, skipped: 1 });
  expect(report.failures).toMatchObject([{ name: 'wrong', message: 'got 17 after 17 ms' }]);
  expect(report.failures[0]?.where).toMatch(/a\.test\.js:4:\d+$/);
  const again = await runTests(second);
  expect(again.failures[0]?.message).toBe('got 99 after 99 ms');
  expect(again.failures[0]?.fingerprint).toBe(report.failures[0]?.fingerprint);
  const judged = await testGatekeeper({
    submission: { result: { directory: project({ 'a.js': '' }) } },
  } as unknown as Parameters<typeof testGatekeeper>[0]);
  expect(judged).toMatchObject({ accepted: false });
});

test('dev-ops finds what keeps a project from being released', async () => {
  const directory = project({
    'package.json': JSON.stringify({
      version: '1.2.0',
      engines: { node: '>=99.1' },
      scripts: { test: 'echo "Error: no test specified" && exit 1' },
      dependencies: { left: '^1.0.0' },
    }),
    'package-lock.json': JSON.stringify({ packages: { '': { dependencies: { left: '^0.9.0' } } } }),
  });
  const git = (...args: readonly string[]): void => {
    const as = ['-c', 'user.name=ada', '-c', 'user.email=ada@example.org'];
    execFileSync('git', [...as, ...args], { cwd: directory });
  };
  git('init', '-q');
  git('add', '.');
  git('commit', '-q', '-m', 'First');
  git('tag', 'v1.2.0');
  for (const subject of ['feat(csv)!: quotes', 'fix: a crash', 'Merge branch x', 'Tidy up']) {
    git('commit', '-q', '--allow-empty', '-m', subject);
  }
  writeFileSync(path.join(directory, 'open.txt'), '');
  const { ready, checks, changelog } = await prepareRelease(directory);
  expect(ready).toBe(false);
  expect(checks.map(({ name, passed, found }) => [name, passed, found])).toEqual([
    ['package.json', true, 'version 1.2.0'],
    ['lock file', false, 'differs from package.json: left'],
    ['node', false, `>=99.1, and this is ${process.versions.node}`],
    ['scripts', false, 'no test script'],
    ['committed', false, '1 files are not committed'],
    ['new version', false, 'the last release is v1.2.0'],
  ]);
  expect(changelog).toBe(
    '## 1.2.0\n\n### Fixed\n\n- a crash\n\n### Added\n\n- quotes\n\n### Changed\n\n- Tidy up',
  );
});
