import { fc, test as property } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import {
  CHANGE_RULES,
  type ChangeFacts,
  describeRule,
  type FileFacts,
  findFlags,
  type RuleName,
  type RuleSettings,
  scriptsOfManifest,
  wantsText,
} from '../../src/workspace/change-rules.ts';
import { findMovedOn } from '../../src/workspace/moved-lines.ts';
import { findVerifyScripts } from '../../src/workspace/verify-scripts.ts';

type Texts = Readonly<Record<string, string>>;

/** Two states of a project, and what its verification runs. */
interface Diff {
  readonly what: string;
  readonly before: Texts;
  readonly after: Texts;
  readonly commands?: readonly (string | readonly string[])[];
  readonly settings?: RuleSettings;
  readonly modes?: Readonly<Record<string, string>>;
}

interface FlaggedDiff extends Diff {
  readonly rule: RuleName;
  readonly says?: string;
}

const NONE = '0'.repeat(40);
const blobOf = (text: string): string =>
  [...text].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) | 0, 7).toString(16);

/** What the gatekeeper would read from git of the difference. */
function factsOf({ before, after, commands = ['npm test'], modes = {} }: Diff): ChangeFacts {
  const paths = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
  const files = paths.flatMap((path): FileFacts[] => {
    const [old, fresh] = [before[path], after[path]];
    const mode = fresh === undefined ? '000000' : (modes[path] ?? '100644');
    if (old === fresh && mode === '100644') return [];
    const file: FileFacts = {
      path,
      status: old === undefined ? 'added' : fresh === undefined ? 'deleted' : 'modified',
      mode,
      previousMode: old === undefined ? '000000' : '100644',
      blob: fresh === undefined ? NONE : blobOf(fresh),
      previousBlob: old === undefined ? NONE : blobOf(old),
      bytes: fresh?.length ?? 0,
      previousBytes: old?.length ?? 0,
    };
    const wants = wantsText(file);
    return [
      {
        ...file,
        ...(mode === '120000' ? { linkTarget: fresh ?? '' } : {}),
        ...(wants.before && old !== undefined ? { before: old } : {}),
        ...(wants.after && fresh !== undefined ? { after: fresh } : {}),
      },
    ];
  });
  return {
    files,
    conflictMarkers: [],
    nulBytes: [],
    scripts: findVerifyScripts(commands, scriptsOfManifest(before['package.json'] ?? '{}')),
    deletions: {
      filesBefore: Object.keys(before).length,
      movedOn: findMovedOn(
        paths.map((path) => ({ path, before: before[path], after: after[path] })),
      ),
    },
    testCounts: [],
  };
}

const flagsOf = (diff: Diff) => findFlags(factsOf(diff), diff.settings);

const lines = (...text: readonly string[]): string => `${text.join('\n')}\n`;
const manifest = (scripts: Texts, more: object = {}): string =>
  JSON.stringify({ name: 'x', scripts, ...more });

const JS = lines(
  "import { expect, test } from 'vitest';",
  "describe('sum', () => {",
  "  test('adds', () => {",
  '    expect(sum(1, 2)).toBe(3);',
  '    expect(sum(2, 2)).toBe(4);',
  '  });',
  "  it('adds negatives', () => expect(sum(-1, -2)).toBe(-3));",
  '});',
);
const PY = lines(
  'import pytest',
  'from sums import add',
  '',
  'def test_adds():',
  '    assert add(1, 2) == 3',
  '    assert add(2, 2) == 4',
  '',
  'class TestMore:',
  '    def test_raises(self):',
  '        with pytest.raises(TypeError):',
  '            add("a", 1)',
);
const GO = lines(
  'package sums',
  'import "testing"',
  'func TestAdd(t *testing.T) {',
  '\tif Add(1, 2) != 3 {',
  '\t\tt.Errorf("got %d", Add(1, 2))',
  '\t}',
  '}',
  'func TestMore(t *testing.T) {',
  '\tassert.Equal(t, 4, Add(2, 2))',
  '}',
);
const RS = lines(
  "pub fn add<'a>(a: i32, b: i32) -> i32 { a + b }",
  '#[cfg(test)]',
  'mod tests {',
  '    use super::*;',
  '    #[test]',
  '    fn adds() {',
  '        assert_eq!(add(1, 2), 3);',
  '    }',
  '    #[tokio::test]',
  '    async fn more() {',
  '        assert!(add(2, 2) == 4);',
  '    }',
  '}',
);
const JAVA = lines(
  'class SumTest {',
  '  @Test',
  '  void adds() {',
  '    assertEquals(3, Sum.add(1, 2));',
  '  }',
  '}',
);

/** A change of one file, by replacing some of its text. */
function edit(
  path: string,
  text: string,
  from: string | RegExp,
  to: string,
): Pick<Diff, 'before' | 'after'> {
  const after = text.replace(from, to);
  if (after === text) throw new Error(`nothing to replace in ${path}: ${from}`);
  return { before: { [path]: text }, after: { [path]: after } };
}

const FLAGGED: readonly FlaggedDiff[] = [
  // Tests that go.
  {
    what: 'js: a test file goes',
    rule: 'tests-deleted',
    before: { 'src/a.test.ts': JS, 'src/a.ts': 'x' },
    after: { 'src/a.ts': 'x' },
    says: 'The test "src/a.test.ts" is deleted.',
  },
  {
    what: 'py: a test file goes',
    rule: 'tests-deleted',
    before: { 'tests/test_a.py': PY },
    after: {},
  },
  { what: 'go: a test file goes', rule: 'tests-deleted', before: { 'a_test.go': GO }, after: {} },
  {
    what: 'rust: the tests of a file go',
    rule: 'tests-deleted',
    ...edit('src/lib.rs', RS, /#\[cfg\(test\)\][\s\S]*/, ''),
    says: '"src/lib.rs" has 2 tests less than before.',
  },
  {
    what: 'java: a test file goes',
    rule: 'tests-deleted',
    before: { 'src/test/java/SumTest.java': JAVA },
    after: {},
  },
  {
    what: 'a snapshot goes',
    rule: 'tests-deleted',
    before: { 'src/__snapshots__/a.snap': 'x' },
    after: {},
  },
  {
    what: 'js: a test of a file goes',
    rule: 'tests-deleted',
    ...edit('a.test.js', JS, /^ {2}it\('adds neg.*\n/m, ''),
    says: '"a.test.js" has 1 test less than before.',
  },
  {
    what: 'js: a test is put into a comment',
    rule: 'tests-deleted',
    ...edit('a.spec.js', JS, "  it('adds neg", "  // it('adds neg"),
  },
  {
    what: 'js: tests are put into a block comment',
    rule: 'tests-deleted',
    ...edit(
      'a.spec.js',
      JS,
      /describe[\s\S]*\}\);\n/,
      ((all) => `/*\n${all}*/\n`)("describe('x');\n"),
    ),
  },
  {
    what: 'py: a test is renamed so that it is not found',
    rule: 'tests-deleted',
    ...edit('test_a.py', PY, 'def test_adds', 'def no_test_adds'),
  },
  {
    what: 'py: a test is put into a string',
    rule: 'tests-deleted',
    ...edit(
      'test_a.py',
      PY,
      /def test_adds[\s\S]*?== 4\n/,
      '"""\ndef test_adds():\n    assert add(1, 2) == 3\n    assert add(2, 2) == 4\n"""\n',
    ),
  },
  {
    what: 'go: a test is renamed so that it is not found',
    rule: 'tests-deleted',
    ...edit('a_test.go', GO, 'func TestAdd', 'func testAdd'),
  },
  {
    what: 'rust: a test loses its attribute',
    rule: 'tests-deleted',
    ...edit('tests/a.rs', RS, '    #[test]\n', ''),
  },
  {
    what: 'a test is renamed to what no runner finds',
    rule: 'tests-deleted',
    before: { 'a.test.js': JS },
    after: { 'a.txt': `${JS}\n` },
  },
  // Tests that prove less.
  {
    what: 'js: .skip',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "test('adds'", "test.skip('adds'"),
    says: '"a.test.js" skips tests: test.skip(\'adds\', () => {',
  },
  {
    what: 'js: describe.skip',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "describe('sum'", "describe.skip('sum'"),
  },
  {
    what: 'js: .only',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "test('adds'", "test.only('adds'"),
  },
  {
    what: 'js: xit',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "it('adds neg", "xit('adds neg"),
  },
  {
    what: 'js: fit',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "it('adds neg", "fit('adds neg"),
  },
  {
    what: 'js: an option that skips',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "test('adds',", "test('adds', { skip: true },"),
  },
  {
    what: 'js: t.skip()',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "test('adds', () => {", "test('adds', (t) => {\n    t.skip('later');"),
  },
  {
    what: 'js: an assertion goes',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, '    expect(sum(2, 2)).toBe(4);\n', ''),
    says: '"a.test.js" has 1 assertion less than before.',
  },
  {
    what: 'js: an assertion becomes one that is always true',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, 'expect(sum(2, 2)).toBe(4)', 'expect(true).toBe(true)'),
  },
  {
    what: 'js: an assertion is put into a comment',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, 'expect(sum(2, 2))', '// expect(sum(2, 2))'),
  },
  {
    what: 'js: the process ends early',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "describe('sum'", "process.exit(0);\ndescribe('sum'"),
  },
  {
    what: 'js: tests inside of if (false)',
    rule: 'tests-weakened',
    ...edit('a.test.js', JS, "  test('adds'", "  if (false)\n  test('adds'"),
  },
  {
    what: 'py: pytest.mark.skip',
    rule: 'tests-weakened',
    ...edit('test_a.py', PY, 'def test_adds', '@pytest.mark.skip\ndef test_adds'),
  },
  {
    what: 'py: xfail',
    rule: 'tests-weakened',
    ...edit('test_a.py', PY, 'def test_adds', '@pytest.mark.xfail(reason="later")\ndef test_adds'),
  },
  {
    what: 'py: pytest.skip in a test',
    rule: 'tests-weakened',
    ...edit(
      'test_a.py',
      PY,
      '    assert add(1, 2) == 3',
      '    pytest.skip("later")\n    assert add(1, 2) == 3',
    ),
  },
  {
    what: 'py: a whole module',
    rule: 'tests-weakened',
    ...edit('test_a.py', PY, 'from sums', 'pytestmark = pytest.mark.skip\nfrom sums'),
  },
  {
    what: 'py: an assertion goes',
    rule: 'tests-weakened',
    ...edit('test_a.py', PY, '    assert add(2, 2) == 4\n', ''),
  },
  {
    what: 'py: or True',
    rule: 'tests-weakened',
    ...edit('test_a.py', PY, 'add(2, 2) == 4', 'add(2, 2) == 5 or True'),
  },
  {
    what: 'py: a hook that deselects',
    rule: 'tests-weakened',
    ...edit(
      'conftest.py',
      'import os\n',
      /$/,
      'def pytest_collection_modifyitems(items):\n    items.clear()\n',
    ),
  },
  {
    what: 'js: a new test file that ends the runner',
    rule: 'tests-weakened',
    before: { 'b.test.js': JS },
    after: { 'b.test.js': JS, 'a.test.js': 'process.exit(0);\n' },
    says: '"a.test.js" ends the tests early, as if they had passed: process.exit(0);',
  },
  {
    what: 'py: a new conftest.py that leaves out the tests of others',
    rule: 'tests-weakened',
    before: { 'test_a.py': PY },
    after: {
      'test_a.py': PY,
      'conftest.py': 'def pytest_collection_modifyitems(items):\n    del items[1:]\n',
    },
  },
  {
    what: 'py: os._exit',
    rule: 'tests-weakened',
    ...edit('test_a.py', PY, 'from sums', 'import os; os._exit(0)\nfrom sums'),
  },
  {
    what: 'go: t.Skip',
    rule: 'tests-weakened',
    ...edit('a_test.go', GO, '\tif Add', '\tt.Skip("later")\n\tif Add'),
  },
  {
    what: 'go: a build tag that leaves the file out',
    rule: 'tests-weakened',
    ...edit('a_test.go', GO, 'package', '//go:build ignore\n\npackage'),
  },
  {
    what: 'go: an assertion goes',
    rule: 'tests-weakened',
    ...edit('a_test.go', GO, '\t\tt.Errorf("got %d", Add(1, 2))\n', ''),
  },
  {
    what: 'go: os.Exit in TestMain',
    rule: 'tests-weakened',
    ...edit('a_test.go', GO, /$/, 'func TestMain(m *testing.M) {\n\tos.Exit(0)\n}\n'),
  },
  {
    what: 'rust: #[ignore]',
    rule: 'tests-weakened',
    ...edit('src/lib.rs', RS, '    fn adds', '    #[ignore]\n    fn adds'),
  },
  {
    what: 'rust: an assertion becomes one that is always true',
    rule: 'tests-weakened',
    ...edit('src/lib.rs', RS, 'assert!(add(2, 2) == 4)', 'assert!(true)'),
  },
  {
    what: 'java: @Disabled',
    rule: 'tests-weakened',
    ...edit('src/test/java/SumTest.java', JAVA, '  @Test', '  @Disabled\n  @Test'),
  },
  {
    what: 'tests move and are skipped on the way',
    rule: 'tests-weakened',
    before: { 'a.test.js': JS },
    after: { 'b.test.js': JS.replace("test('adds'", "test.skip('adds'") },
  },
  // What verifies.
  {
    what: 'troupe.yaml',
    rule: 'verification',
    ...edit('troupe.yaml', 'verify: []\n', '[]', '[x]'),
  },
  {
    what: 'a configuration of another name',
    rule: 'verification',
    ...edit('ci/gate.yaml', 'a', 'a', 'b'),
    settings: { configuration: ['ci/gate.yaml'] },
  },
  {
    what: 'the script test becomes exit 0',
    rule: 'verification',
    ...edit('package.json', manifest({ test: 'vitest run' }), 'vitest run', 'exit 0'),
    says: '"package.json" changes or removes the scripts "test".',
  },
  {
    what: 'a pretest is added',
    rule: 'verification',
    ...edit(
      'package.json',
      manifest({ test: 'x' }),
      '"test":"x"',
      '"test":"x","pretest":"rm -r test"',
    ),
    says: '"package.json" adds the scripts "pretest", which run by themselves.',
  },
  {
    what: 'settings of jest in package.json',
    rule: 'verification',
    before: { 'package.json': manifest({ test: 'jest' }, { jest: {} }) },
    after: { 'package.json': manifest({ test: 'jest' }, { jest: { testMatch: [] } }) },
  },
  {
    what: 'package.json is no JSON any more',
    rule: 'verification',
    ...edit('package.json', manifest({}), '{', '<'),
  },
  {
    what: 'vitest.config.ts appears',
    rule: 'verification',
    before: {},
    after: { 'vitest.config.ts': 'export default {}' },
  },
  {
    what: 'pytest.ini',
    rule: 'verification',
    ...edit('pytest.ini', '[pytest]\n', /$/, 'addopts = -k nothing\n'),
  },
  {
    what: 'pytest settings in pyproject.toml',
    rule: 'verification',
    ...edit(
      'pyproject.toml',
      '[project]\nname = "x"\n[tool.pytest.ini_options]\naddopts = "-q"\n',
      '-q',
      '-q -k nothing',
    ),
  },
  {
    what: 'Cargo.toml switches tests off',
    rule: 'verification',
    ...edit('Cargo.toml', '[lib]\nname = "x"\n', /$/, 'test = false\n'),
  },
  {
    what: 'the script that a command names',
    rule: 'verification',
    ...edit('scripts/check.sh', '#!/bin/sh\nmake\n', 'make', 'exit 0'),
    commands: ['./scripts/check.sh --all'],
    says: '"scripts/check.sh" is run by the verification, and was modified.',
  },
  {
    what: 'a script that a script of package.json names',
    rule: 'verification',
    before: {
      'package.json': manifest({ test: 'npm run t', t: 'node tools/t.mjs' }),
      'tools/t.mjs': 'a',
    },
    after: {
      'package.json': manifest({ test: 'npm run t', t: 'node tools/t.mjs' }),
      'tools/t.mjs': 'b',
    },
  },
  {
    what: 'the Makefile of make test',
    rule: 'verification',
    ...edit('Makefile', 'test:\n\tgo test\n', 'go test', 'true'),
    commands: [['make', 'test']],
  },
  ...[
    ['bash', '-euo', 'pipefail', '-c', 'cd web && ../scripts/check.sh; ./scripts/check.sh'],
    "bash -o pipefail -c './scripts/check.sh'",
    "sh -ec './scripts/check.sh'",
    'bash -x -- scripts/check.sh',
    'node -r ./scripts/check.sh test.js',
    'node --require ./setup.js ./scripts/check.sh',
    'python3 -W error scripts/check.sh',
  ].map((command) => ({
    what: `a script that is run by ${JSON.stringify(command)}`,
    rule: 'verification' as const,
    ...edit('scripts/check.sh', '#!/bin/sh\nmake\n', 'make', 'exit 0'),
    commands: [command],
  })),
  {
    what: 'a test that is a script, replaced',
    rule: 'verification',
    ...edit('test.js', 'if (sum(1, 1) !== 2) process.exit(1);\n', /^.*\n/, ''),
    commands: ['node test.js'],
  },
  // Data and the repository.
  {
    what: 'a protected file',
    rule: 'protected-paths',
    ...edit('db/1.sql', 'a', 'a', 'b'),
    settings: { protectedPaths: ['db/**'] },
    says: '"db/1.sql" is protected (db/**) and was modified.',
  },
  {
    what: 'a hidden file in a protected directory',
    rule: 'protected-paths',
    before: {},
    after: { 'db/.env': 'x' },
    settings: { protectedPaths: ['db/**'] },
    says: '"db/.env" is protected (db/**) and was added.',
  },
  {
    what: 'an emptied file',
    rule: 'emptied-files',
    before: { 'data.csv': 'a,b\n1,2\n' },
    after: { 'data.csv': '' },
  },
  {
    what: 'a file of nothing but space',
    rule: 'emptied-files',
    before: { 'data.csv': 'a,b\n1,2\n' },
    after: { 'data.csv': ' \n\n' },
  },
  {
    what: 'many files at once',
    rule: 'mass-deletion',
    before: Object.fromEntries(Array.from({ length: 60 }, (_, n) => [`d/${n}.csv`, `${n}`])),
    after: Object.fromEntries(Array.from({ length: 39 }, (_, n) => [`d/${n}.csv`, `${n}`])),
    says: '21 of 60 files are deleted: "d/39.csv", "d/40.csv", "d/41.csv", "d/42.csv", "d/43.csv", ….',
  },
  {
    what: 'a folder that is more than a tenth of the project',
    rule: 'mass-deletion',
    before: Object.fromEntries(
      Array.from({ length: 70 }, (_, n) => [n < 12 ? `notes/${n}.md` : `d/${n}.csv`, `${n}`]),
    ),
    after: Object.fromEntries(
      Array.from({ length: 58 }, (_, n) => [`d/${n + 12}.csv`, `${n + 12}`]),
    ),
    says: '12 of 70 files are deleted: "notes/0.md", "notes/1.md", "notes/10.md", "notes/11.md", "notes/2.md", ….',
  },
  {
    what: 'a folder that is gathered into one file, but for its words',
    rule: 'mass-deletion',
    before: Object.fromEntries(Array.from({ length: 12 }, (_, n) => [`n/${n}.md`, `Note ${n}\n`])),
    after: { 'CHANGELOG.md': '- Notes\n'.repeat(12) },
  },
  {
    what: 'a folder of twins of which one is kept',
    rule: 'mass-deletion',
    before: Object.fromEntries(Array.from({ length: 12 }, (_, n) => [`n/${n}.md`, 'Same\n'])),
    after: { 'CHANGELOG.md': '- Same\n' },
  },
  {
    what: 'most of a small project',
    rule: 'mass-deletion',
    before: Object.fromEntries(Array.from({ length: 8 }, (_, n) => [`d/${n}.csv`, `${n}`])),
    after: { 'd/0.csv': '0' },
  },
  {
    what: 'nearly all of a file',
    rule: 'mass-deletion',
    before: { 'data.csv': 'x,y\n'.repeat(2000) },
    after: { 'data.csv': 'x,y\n' },
  },
  {
    what: 'a symlink to outside',
    rule: 'symlinks',
    before: {},
    after: { link: '../../etc/passwd' },
    modes: { link: '120000' },
  },
  {
    what: 'a symlink into .git',
    rule: 'symlinks',
    before: {},
    after: { link: '.git/hooks' },
    modes: { link: '120000' },
  },
  {
    what: 'a symlink to outside, by way of another one',
    rule: 'symlinks',
    before: {},
    after: { 'a/b/top': '../..', link: 'a/b/top/../.ssh' },
    modes: { 'a/b/top': '120000', link: '120000' },
    says: '"link" is a symlink to "a/b/top/../.ssh", which goes up again after a name.',
  },
  {
    what: 'a symlink into .git, by way of another one',
    rule: 'symlinks',
    before: {},
    after: { 'a/top': '..', link: 'a/top/.git/config' },
    modes: { 'a/top': '120000', link: '120000' },
  },
  {
    what: 'a symlink to outside, cut short by a NUL',
    rule: 'symlinks',
    before: {},
    after: { 'a/link': '../..\0' },
    modes: { 'a/link': '120000' },
  },
  {
    what: 'a repository inside',
    rule: 'nested-repositories',
    before: {},
    after: { sub: 'x' },
    modes: { sub: '160000' },
  },
  {
    what: '.gitattributes',
    rule: 'repository-settings',
    before: {},
    after: { '.gitattributes': '* filter=x' },
  },
  ...[
    ['.GitAttributes', 'repository-settings'],
    ['.lfsconfig', 'repository-settings'],
    ['.NPMRC', 'package-sources'],
    ['Node_Modules/a/index.js', 'package-sources'],
    ['.Husky/pre-commit', 'workflows'],
    ['Troupe.yaml', 'verification'],
    ['Vitest.Config.ts', 'verification'],
  ].map(([name = '', rule = '']) => ({
    what: `on a disk where case makes no difference, ${name}`,
    rule: rule as RuleName,
    before: {},
    after: { [name]: 'x' },
  })),
  {
    what: 'a manifest, on a disk where case makes no difference',
    rule: 'verification',
    ...edit('Package.json', manifest({ test: 'vitest run' }), 'vitest run', 'exit 0'),
  },
  {
    what: 'a script, on a disk where case makes no difference',
    rule: 'verification',
    before: { 'check.sh': 'make\n' },
    after: { 'check.sh': 'make\n', 'Check.sh': 'exit 0\n' },
    commands: ['sh check.sh'],
  },
  ...[
    ['node_modules', 'package-sources'],
    ['web/.yarn/plugins', 'package-sources'],
    ['.github', 'workflows'],
    ['.github/workflows', 'workflows'],
    ['.husky', 'workflows'],
  ].map(([name = '', rule = '']) => ({
    what: `a link in the place of ${name}`,
    rule: rule as RuleName,
    before: {},
    after: { [name]: 'vendor' },
    modes: { [name]: '120000' },
  })),
  ...[
    '[ tool.pytest.ini_options ]\naddopts = "--co"\n',
    '[tool . "pytest".ini_options]\naddopts = "--co"\n',
    '[tool]\npytest.ini_options = { addopts = "--co" }\n',
    '[tool.pytest]\nini_options.addopts = "--co"\n',
  ].map((settings) => ({
    what: `py: settings of pytest, written as ${settings.split('\n', 1)[0]}`,
    rule: 'verification' as const,
    ...edit('pyproject.toml', '[project]\nname = "a"\n', /$/, settings),
  })),
  {
    what: 'py: settings of pytest before all sections',
    rule: 'verification',
    ...edit(
      'pyproject.toml',
      '[project]\nname = "a"\n',
      /^/,
      'tool.pytest.ini_options.addopts = "--co"\n',
    ),
  },
  {
    what: 'a manifest becomes a link',
    rule: 'verification',
    before: { 'package.json': '{}' },
    after: { 'package.json': 'other.json' },
    modes: { 'package.json': '120000' },
  },
  { what: '.gitmodules', rule: 'repository-settings', before: {}, after: { '.gitmodules': 'x' } },
  { what: 'a workflow', rule: 'workflows', before: {}, after: { '.github/workflows/ci.yml': 'x' } },
  {
    what: '.npmrc',
    rule: 'package-sources',
    before: {},
    after: { 'web/.npmrc': 'registry=https://example.org' },
  },
  {
    what: 'a package that is checked in',
    rule: 'package-sources',
    before: {},
    after: { 'node_modules/a/index.js': 'x' },
  },
  {
    what: 'a lock file without its manifest',
    rule: 'lock-files',
    ...edit('package-lock.json', '{"a":1}', '1', '2'),
  },
  {
    what: 'a lock file goes',
    rule: 'lock-files',
    before: { 'package.json': '{}', 'yarn.lock': 'x' },
    after: { 'package.json': '{}' },
  },
  {
    what: 'a lock file with a new source',
    rule: 'lock-files',
    before: { 'package.json': '{}', 'package-lock.json': '"https://registry.npmjs.org/a"' },
    after: {
      'package.json': '{"dependencies":{}}',
      'package-lock.json': '"https://evil.example/a"',
    },
    says: '"package-lock.json" names new sources of packages: "evil.example".',
  },
  {
    what: 'data becomes executable',
    rule: 'file-modes',
    before: { 'data.csv': 'a' },
    after: { 'data.csv': 'a' },
    modes: { 'data.csv': '100755' },
  },
  {
    what: 'a huge file',
    rule: 'large-files',
    before: {},
    after: { 'a.bin': 'x'.repeat(2000) },
    settings: { maxFileBytes: 1000 },
  },
  {
    what: 'a linter’s settings, if asked for',
    rule: 'check-configuration',
    ...edit('tsconfig.json', '{"strict":true}', 'true', 'false'),
    settings: { rules: { 'check-configuration': 'refuse' } },
  },
];

const WELL: readonly Diff[] = [
  {
    what: 'notes that are gathered in a changelog',
    before: {
      'CHANGELOG.md': '# 1.0\n',
      ...Object.fromEntries(Array.from({ length: 13 }, (_, n) => [`n/${n}.md`, `Note ${n}.\n`])),
    },
    after: {
      'CHANGELOG.md': `# 1.1\n${Array.from({ length: 13 }, (_, n) => `- Note ${n}.\n`).join('')}# 1.0\n`,
    },
  },
  {
    what: 'a symlink inside the project',
    before: {},
    after: { 'a/b/link': '../../docs/readme.md', 'docs/here': './.' },
    modes: { 'a/b/link': '120000', 'docs/here': '120000' },
  },
  { what: 'js: a new test file', before: { 'a.js': 'a' }, after: { 'a.js': 'b', 'a.test.js': JS } },
  {
    what: 'js: a new test in a file',
    ...edit('a.test.js', JS, '});\n', "  test('zero', () => expect(sum(0, 0)).toBe(0));\n});\n"),
  },
  {
    what: 'js: a new test that is skipped',
    ...edit('a.test.js', JS, "  it('adds neg", "  it.skip('later', () => {});\n  it('adds neg"),
  },
  {
    what: 'js: a file of tests moves',
    before: { 'a.test.js': JS },
    after: { 'sum/a.test.js': JS },
  },
  {
    what: 'js: a file of tests moves and its imports change',
    before: { 'a.test.js': JS },
    after: { 'sum/a.test.js': JS.replace('vitest', '../vitest') },
  },
  {
    what: 'js: two files of tests become one',
    before: { 'a.test.js': JS, 'b.test.js': "test('b', () => expect(b).toBe(1));\n" },
    after: { 'a.test.js': `${JS}test('b', () => expect(b).toBe(1));\n` },
  },
  {
    what: 'js: one file of tests becomes two',
    before: { 'a.test.js': JS },
    after: {
      'a.test.js': JS.replace(/^ {2}it\('adds neg.*\n/m, ''),
      'b.test.js': "  it('adds negatives', () => expect(sum(-1, -2)).toBe(-3));\n",
    },
  },
  { what: 'js: a test gets another name', ...edit('a.test.js', JS, "'adds'", "'adds numbers'") },
  {
    what: 'js: an expectation changes with the behaviour',
    ...edit('a.test.js', JS, 'toBe(4)', 'toBe(5)'),
  },
  {
    what: 'js: a skipped test moves',
    before: { 'a.test.js': JS.replace('test(', 'test.skip(') },
    after: { 'b.test.js': JS.replace('test(', 'test.skip(') },
  },
  {
    what: 'js: a test is not skipped any more',
    ...edit('a.test.js', JS.replace('test(', 'test.skip('), 'test.skip(', 'test('),
  },
  {
    what: 'js: .skip in a string of a test',
    ...edit('a.test.js', JS, "describe('sum'", "const code = `it.skip('x')`;\ndescribe('sum'"),
  },
  {
    what: 'js: .skip in a comment',
    ...edit('a.test.js', JS, "describe('sum'", "// no it.skip('x') here\ndescribe('sum'"),
  },
  {
    what: 'js: a helper of tests goes',
    before: { 'test/helper.js': 'export const one = 1;\n', 'a.test.js': JS },
    after: { 'a.test.js': JS },
  },
  {
    what: 'js: source that says skip',
    ...edit('src/parser.js', 'a\n', 'a', 'this.skip(); process.exit(0)'),
  },
  {
    what: 'js: quotes in patterns',
    ...edit('a.test.js', `const quote = /['"\`]/;\n${JS}`, 'toBe(4)', 'toBe(5)'),
  },
  {
    what: 'js: a new program of the tests',
    before: {},
    after: { 'test/server.child.js': 'if (!ok) process.exit(1);\nprocess.exit(0);\n' },
  },
  {
    what: 'py: a new test file that is skipped as a whole',
    before: {},
    after: { 'test_new.py': `pytestmark = pytest.mark.skip\n${PY}` },
  },
  { what: 'py: a new test file', before: {}, after: { 'tests/test_new.py': PY } },
  {
    what: 'py: a new test that is skipped on one system',
    ...edit(
      'test_a.py',
      PY,
      'class TestMore',
      '@pytest.mark.skipif(WIN, reason="x")\ndef test_unix():\n    assert unix()\n\nclass TestMore',
    ),
  },
  {
    what: 'py: tests move into a directory',
    before: { 'test_a.py': PY },
    after: { 'tests/unit/test_a.py': PY },
  },
  {
    what: 'py: a new fixture',
    ...edit('conftest.py', 'import pytest\n', /$/, '@pytest.fixture\ndef one():\n    return 1\n'),
  },
  {
    what: 'py: other tools in pyproject.toml',
    ...edit('pyproject.toml', '[tool]\nruff.line-length = 100\n', '100', '120'),
  },
  { what: 'py: # in a string', ...edit('test_a.py', PY, 'add("a", 1)', 'add("#", 1)') },
  {
    what: 'py: a dependency in pyproject.toml',
    ...edit(
      'pyproject.toml',
      '[project]\ndependencies = []\n[tool.pytest.ini_options]\naddopts = "-q"\n',
      '[]',
      '["a"]',
    ),
  },
  {
    what: 'go: a new test',
    ...edit(
      'a_test.go',
      GO,
      /$/,
      'func TestZero(t *testing.T) {\n\tassert.Equal(t, 0, Add(0, 0))\n}\n',
    ),
  },
  {
    what: 'go: a new test that may be skipped',
    ...edit(
      'a_test.go',
      GO,
      /$/,
      'func TestSlow(t *testing.T) {\n\tif testing.Short() {\n\t\tt.Skip("slow")\n\t}\n\tassert.Equal(t, 0, Add(0, 0))\n}\n',
    ),
  },
  {
    what: 'go: a test moves to another file',
    before: { 'a_test.go': GO },
    after: {
      'a_test.go': GO.replace(/func TestMore[\s\S]*/, ''),
      'b_test.go': `package sums\n${/func TestMore[\s\S]*/.exec(GO)?.[0]}`,
    },
  },
  {
    what: 'rust: a new test',
    ...edit(
      'src/lib.rs',
      RS,
      '    #[test]',
      '    #[test]\n    fn zero() {\n        assert_eq!(add(0, 0), 0);\n    }\n    #[test]',
    ),
  },
  {
    what: 'rust: the code beside the tests',
    ...edit('src/lib.rs', `fn check(a: i32) { assert!(a > 0); }\n${RS}`, 'assert!(a > 0);', ''),
  },
  {
    what: 'rust: tests move out of the file',
    before: { 'src/lib.rs': RS },
    after: {
      'src/lib.rs': 'pub fn add() {}\n',
      'tests/add.rs': /#\[cfg\(test\)\][\s\S]*/.exec(RS)?.[0] ?? '',
    },
  },
  {
    what: 'package.json: a dependency, with its lock file',
    before: { 'package.json': manifest({ test: 'x' }), 'package-lock.json': '1' },
    after: {
      'package.json': manifest({ test: 'x' }, { dependencies: { a: '1' } }),
      'package-lock.json': '2',
    },
  },
  {
    what: 'package.json: another script',
    ...edit('package.json', manifest({ test: 'x' }), '"test":"x"', '"test":"x","docs":"y"'),
  },
  {
    what: 'package.json of a new package',
    before: {},
    after: { 'packages/b/package.json': manifest({ test: 'vitest' }) },
  },
  {
    what: 'a file that a command only looks at',
    ...edit('src/main.js', 'a', 'a', 'b'),
    commands: [
      'node --check src/main.js',
      'eslint src/main.js',
      'test -f src/main.js && cat src/main.js',
    ],
  },
  {
    what: 'a script that no command runs',
    ...edit('scripts/release.sh', 'a', 'a', 'b'),
    commands: ['./scripts/check.sh'],
  },
  {
    what: 'a named test gets more tests',
    ...edit(
      'test/all.test.js',
      JS,
      '});\n',
      "  test('zero', () => expect(sum(0, 0)).toBe(0));\n});\n",
    ),
    commands: ['node test/all.test.js'],
  },
  {
    what: 'a path like a protected one',
    ...edit('database/1.sql', 'a', 'a', 'b'),
    settings: { protectedPaths: ['db/**'] },
  },
  {
    what: 'a few files go',
    before: { 'a.csv': '1', 'b.csv': '2', 'c.csv': '3' },
    after: { 'a.csv': '1' },
  },
  {
    what: 'a directory moves',
    before: Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`a/${n}.csv`, `${n}`])),
    after: Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`b/${n}.csv`, `${n}`])),
  },
  {
    what: 'a long module is split',
    before: { 'all.js': 'export const x = 1;\n'.repeat(500) },
    after: { 'all.js': "export * from './x.js';\n", 'x.js': 'export const x = 1;\n'.repeat(500) },
  },
  { what: 'an empty file is added', before: {}, after: { 'pkg/__init__.py': '' } },
  {
    what: 'a symlink inside',
    before: { 'a/b': 'x' },
    after: { 'a/b': 'x', 'c/link': '../a/b' },
    modes: { 'c/link': '120000' },
  },
  {
    what: 'a script becomes executable',
    before: { 'run.sh': 'x', tool: '#!/bin/sh\n' },
    after: { 'run.sh': 'x', tool: '#!/bin/sh\n' },
    modes: { 'run.sh': '100755', tool: '100755' },
  },
  {
    what: 'a rule that is off',
    before: {},
    after: { '.npmrc': 'x' },
    settings: { rules: { 'package-sources': 'off' } },
  },
  {
    what: 'tsconfig.json, unless asked for',
    ...edit('tsconfig.json', '{"strict":true}', 'true', 'false'),
  },
];

describe('a change is flagged', () => {
  test.each(FLAGGED)('$what: $rule', (diff) => {
    const flags = flagsOf(diff);
    const found = flags.filter(({ rule }) => rule === diff.rule);
    expect(found.length, JSON.stringify(flags)).toBeGreaterThan(0);
    const usual = describeRule(diff.rule).action;
    expect(found[0]?.action).toBe(diff.settings?.rules?.[diff.rule] ?? usual);
    if (diff.says !== undefined) expect(found.map(({ reason }) => reason)).toContain(diff.says);
  });
});

describe('nothing is said about', () => {
  test.each(WELL)('$what', (diff) => {
    expect(flagsOf(diff)).toEqual([]);
  });
});

test('every rule has its case, and can be switched off', () => {
  const fromFacts: RuleName[] = ['conflict-markers', 'nul-bytes', 'test-count'];
  expect(new Set([...FLAGGED.map(({ rule }) => rule), ...fromFacts])).toEqual(
    new Set(CHANGE_RULES),
  );
  const facts: ChangeFacts = {
    ...factsOf({ what: '', before: {}, after: {} }),
    conflictMarkers: ['a.txt'],
    nulBytes: ['b.txt'],
    testCounts: [
      { command: 'test', before: 5, after: 4 },
      { command: 'more', before: 4, after: 5 },
    ],
  };
  expect(findFlags(facts)).toMatchObject([
    { rule: 'test-count', action: 'approve', reason: 'test ran 4 tests; on the target it ran 5.' },
    { rule: 'conflict-markers', action: 'refuse', path: 'a.txt' },
    { rule: 'nul-bytes', action: 'refuse', path: 'b.txt' },
  ]);
  const off = Object.fromEntries(
    CHANGE_RULES.map((rule) => [rule, 'off']),
  ) as RuleSettings['rules'];
  for (const diff of FLAGGED) {
    expect(findFlags(factsOf(diff), { ...diff.settings, rules: off ?? {} })).toEqual([]);
  }
  expect(findFlags(facts, { rules: off ?? {} })).toEqual([]);
});

test('a manifest that is too large to be read is not let through', () => {
  const [file] = factsOf({ what: '', ...edit('package.json', '{}', '{}', '{"a":1}') }).files;
  const { after: _, ...unread } = file as FileFacts;
  const facts = { ...factsOf({ what: '', before: {}, after: {} }), files: [unread] };
  expect(findFlags(facts)).toMatchObject([{ rule: 'verification', path: 'package.json' }]);
});

test('of many findings the first are told, and how many more there are', () => {
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`${n}/.npmrc`, 'x']));
  const flags = flagsOf({ what: '', before: {}, after: many });
  expect(flags).toHaveLength(21);
  expect(flags[0]?.reason).toBe('The same of 10 more files (package-sources).');
});

const TESTS: Readonly<Record<string, string>> = {
  'a.test.ts': JS,
  'test_a.py': PY,
  'a_test.go': GO,
  'src/lib.rs': RS,
};

property.prop([fc.subarray(Object.keys(TESTS)), fc.subarray(Object.keys(TESTS))], { numRuns: 30 })(
  'tests that are added are never flagged, tests that go always',
  (before, after) => {
    const pick = (names: readonly string[]): Texts =>
      Object.fromEntries(names.map((name) => [name, TESTS[name] ?? '']));
    const flags = flagsOf({ what: '', before: pick(before), after: pick(after) });
    const gone = before.filter((name) => !after.includes(name));
    const flagged = flags.filter(({ rule }) => rule === 'tests-deleted').map(({ path }) => path);
    expect(new Set(flagged)).toEqual(new Set(gone));
    expect(flags.filter(({ rule }) => rule === 'tests-weakened' && gone.length === 0)).toEqual([]);
  },
);

property.prop(
  [fc.constantFrom(...Object.keys(TESTS)), fc.array(fc.nat({ max: 40 }), { maxLength: 8 })],
  { numRuns: 30 },
)('lines that are only put in between take nothing away', (name, places) => {
  const text = TESTS[name] ?? '';
  const changed = text.split('\n');
  for (const place of places) changed.splice(place % changed.length, 0, '');
  expect(
    flagsOf({ what: '', before: { [name]: text }, after: { [name]: changed.join('\n') } }),
  ).toEqual([]);
});
