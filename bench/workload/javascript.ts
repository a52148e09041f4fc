import { History, seededRandom } from './history.ts';
import {
  FICTION,
  type MadeBad,
  type MadeChange,
  type MadeWorkload,
  START,
  withLine,
} from './workload.ts';

export interface JavaScriptOptions {
  readonly changes: number;
  readonly seed: number;
}

const PACKAGE = `${JSON.stringify({ name: 'sums', private: true, type: 'module', scripts: { test: 'node --test' } }, null, 2)}\n`;

/**
 * A package of small functions with their tests (node:test, no dependencies). Most changes add a module that uses some of
 * those before it, so that its tests are red without them; each third one also adds a line to a list that all of those
 * share, after the one before. One moves a file, one adds a binary file, one a text in Latin-1.
 */
export function javaScriptWorkload({ changes, seed }: JavaScriptOptions): MadeWorkload {
  const random = seededRandom(seed);
  const history = new History();
  history.commit(START, 'A package', {
    'package.json': PACKAGE,
    'README.md': 'Sums.\n',
    'src/core.js': `export const core = (n) => n + 1;\nexport const limit = 1_000;\n`,
    'src/list.js': `/** Names of all modules. */\nexport const names = [\n  'core',\n  // end\n];\n`,
    'test/core.test.js': testOf('core', 1, 2),
    'test/list.test.js': `import assert from 'node:assert/strict';\nimport { test } from 'node:test';\nimport { names } from '../src/list.js';\n\ntest('the list has core', () => {\n  assert.ok(names.includes('core'));\n  assert.equal(new Set(names).size, names.length);\n});\n`,
  });

  const features: MadeChange[] = [];
  const values = new Map<string, number>([['core', 1]]);
  let lastListed: MadeChange | undefined;
  const add = (
    id: string,
    title: string,
    files: Readonly<Record<string, string | Buffer | null>>,
    dependsOn: readonly string[],
  ): MadeChange => {
    history.commit(id, title, files);
    const change = { id, title, dependsOn: [...new Set(dependsOn)] };
    features.push(change);
    return change;
  };
  const modules: string[] = [];
  let free: MadeChange | undefined;
  for (let n = 1; n <= changes; n++) {
    const name = `sum${n}`;
    if (n % 8 === 4) {
      // What is no module: a text in another encoding, a binary file.
      const latin = Buffer.from(`Gr\u00f6\u00dfe ${n}\nStra\u00dfe ${n}\n`, 'latin1');
      const bytes = Buffer.from(Array.from({ length: 300 }, () => random(256)));
      add(
        `extra-${n}`,
        `Add texts and pictures ${n}`,
        { [`docs/größe-${n}.txt`]: latin, [`docs/picture ${n}.bin`]: bytes },
        [],
      );
      continue;
    }
    const used = [
      ...new Set(Array.from({ length: random(3) }, () => modules[random(modules.length)])),
    ].filter((one) => one !== undefined);
    const dependsOn: string[] = [...used];
    const files: Record<string, string> = {
      [`src/${name}.js`]: moduleOf(name, used),
      [`test/${name}.test.js`]: testOf(name, 1, resultOf(name, used, values)),
    };
    if (n % 3 === 1) {
      files['src/list.js'] = withLine(
        history.read('src/list.js'),
        '  // end',
        `  '${name}',\n  // end`,
      );
      if (lastListed !== undefined) dependsOn.push(lastListed.id);
      lastListed = add(name, `Add ${name} and list it`, files, dependsOn);
      free ??= lastListed;
    } else add(name, `Add ${name}`, files, dependsOn);
    modules.push(name);
  }
  if (free === undefined || lastListed === undefined)
    throw new Error('Expected a module in the list.');
  const last = lastListed;
  const moved = modules.at(-1) ?? 'sum1';
  add(
    'move',
    `Move the test of ${moved}`,
    {
      [`test/${moved}.test.js`]: null,
      [`test/moved-${moved}.test.js`]: history.read(`test/${moved}.test.js`),
    },
    [moved],
  );

  const bad: MadeBad[] = [];
  const badChange = (
    id: string,
    kind: string,
    files: Readonly<Record<string, string | null>>,
    facts: Omit<MadeBad, 'id' | 'kind' | 'title'>,
  ): void => {
    history.aside(id, kind, files);
    bad.push({ id, kind, title: kind, ...facts });
  };
  const [one = 'sum1', two = 'sum2'] = modules;
  badChange(
    'bad-dropped',
    'source of a change dropped so that its tests fail',
    { 'test/absent.test.js': testOf('absent', 1, 2) },
    { dependsOn: [], stage: 'verify', outputContains: 'absent.js' },
  );
  badChange(
    'bad-syntax',
    'syntax error',
    { [`src/${one}.js`]: `${history.read(`src/${one}.js`)}export const = ;\n` },
    { dependsOn: [one], stage: 'verify', outputContains: 'SyntaxError' },
  );
  badChange(
    'bad-regression',
    'regression',
    { 'src/core.js': history.read('src/core.js').replace('n + 1', 'n + 2') },
    { dependsOn: [], stage: 'verify', outputContains: 'core of 1' },
  );
  badChange(
    'bad-loop',
    'endless loop at import',
    { [`src/${two}.js`]: `${history.read(`src/${two}.js`)}for (;;);\n` },
    { dependsOn: [two], stage: 'verify_timeout', timeoutS: 1.5 },
  );
  history.aside(FICTION, 'A file that never was', {
    'src/core.js':
      'const fiction = 1;\nexport const core = fiction;\nexport const limit = fiction;\n',
  });
  history.aside(
    'bad-context',
    'wrong context',
    {
      'src/core.js':
        'const fiction = 1;\nexport const core = fiction + 1;\nexport const limit = fiction;\n',
    },
    FICTION,
  );
  bad.push({
    id: 'bad-context',
    kind: 'wrong context',
    title: 'Change what is not there',
    dependsOn: [],
    stage: 'apply',
    outputContains: 'patch failed',
  });
  bad.push({
    id: 'bad-again',
    kind: 'already merged',
    title: 'What is merged already',
    dependsOn: [free.id],
    stage: 'apply',
    patchOf: free.id,
  });
  const start = `/** Names of all modules. */\nexport const names = [\n  'core',\n  // end\n];\n`;
  for (const [id, dependsOn] of [
    ['bad-twin', [last.id]],
    ['race-twin', []],
  ] as const) {
    history.aside(
      id,
      'List another',
      { 'src/list.js': withLine(start, '  // end', `  'another',\n  // end`) },
      START,
    );
    bad.push({
      id,
      kind: 'twin on the same lines',
      title: 'List another',
      dependsOn,
      stage: 'apply_or_merge',
    });
  }
  const policy = {
    dependsOn: [] as readonly string[],
    stage: 'policy',
    verifyGreen: true,
  } as const;
  badChange('bad-deleted', 'tests deleted', { 'test/core.test.js': null }, policy);
  badChange(
    'bad-weakened',
    'test weakened',
    { 'test/core.test.js': history.read('test/core.test.js').replace(/ {2}assert\.equal.*\n/, '') },
    policy,
  );
  badChange(
    'bad-skipped',
    'test skipped',
    { 'test/core.test.js': history.read('test/core.test.js').replace("test('", "test.skip('") },
    policy,
  );
  badChange(
    'bad-script',
    'test script replaced by exit 0',
    { 'package.json': PACKAGE.replace('node --test', 'exit 0') },
    policy,
  );

  const attempts = new Map<string, readonly string[]>();
  history.aside(
    'attempt-red',
    'Half of a module',
    { 'test/half.test.js': testOf('half', 1, 2) },
    START,
  );
  history.aside(
    'attempt-syntax',
    'A typing error',
    { 'src/half.js': 'export const half = (;\n', 'test/half.test.js': testOf('half', 1, 2) },
    START,
  );
  history.aside(
    'attempt-context',
    'Of a file that never was',
    {
      'src/core.js':
        'const fiction = 2;\nexport const core = fiction;\nexport const limit = fiction;\n',
    },
    FICTION,
  );
  attempts.set(one, ['attempt-red']);
  attempts.set(two, ['attempt-context', 'attempt-syntax']);

  const needed = new Set([last.id]);
  for (const id of needed) {
    for (const other of features.find((f) => f.id === id)?.dependsOn ?? []) needed.add(other);
  }
  const undeclared = features
    .flatMap(({ id }) => (needed.has(id) ? [id] : []))
    .slice(0, 6)
    .reverse();
  return {
    name: `javascript-${changes}`,
    language: 'javascript',
    history,
    features,
    bad,
    attempts,
    race: { feature: free.id, bad: 'race-twin' },
    undeclared,
    scripts: { 'verify.sh': VERIFY, 'run-tests.mjs': RUN_TESTS },
    timeoutS: 60,
  };
}

function moduleOf(name: string, used: readonly string[]): string {
  const imports = used.map((one) => `import { ${one} } from './${one}.js';\n`).join('');
  const sum = ['core(n)', ...used.map((one) => `${one}(n)`)].join(' + ');
  return `import { core } from './core.js';\n${imports}\nexport const ${name} = (n) => ${sum};\n`;
}

/** What the module's function gives for 1; kept for those that use it. */
function resultOf(name: string, used: readonly string[], values: Map<string, number>): number {
  const value = 2 + used.reduce((sum, one) => sum + (values.get(one) ?? 0), 0);
  values.set(name, value);
  return value;
}

function testOf(name: string, argument: number, value: number): string {
  return `import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ${name} } from '../src/${name}.js';

test('${name} of ${argument}', () => {
  assert.equal(${name}(${argument}), ${value});
});
`;
}

const VERIFY = `#!/bin/sh
# Runs all tests of the tree in one process; the runner lies beside this script, so that no change can replace it.
here=$(cd "$(dirname "$0")" && pwd)
[ -z "$(git ls-files node_modules 2>/dev/null | head -n 1)" ] || { echo 'node_modules is tracked'; exit 96; }
output=$TMPDIR/output
node --test-reporter=tap "$here/run-tests.mjs" > "$output" 2>&1
code=$?
cat "$output"
count() { sed -n "s/^# $1 //p" "$output" | tail -n 1; }
tests=$(count tests)
[ "$code" -ne 0 ] || [ "\${tests:-0}" -gt 0 ] || { echo 'no tests ran'; code=95; }
pass=$(count pass)
fail=$(count fail)
printf '\\nREALREPO_RESULT {"repo":"javascript","exit":%d,"tests":%d,"pass":%d,"fail":%d}\\n' "$code" "\${tests:-0}" "\${pass:-0}" "\${fail:-0}"
exit "$code"
`;

const RUN_TESTS = `import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = join(process.cwd(), 'test');
for (const name of readdirSync(folder).sort()) {
  if (name.endsWith('.test.js')) await import(pathToFileURL(join(folder, name)).href);
}
`;
