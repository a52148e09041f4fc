/** Two outputs of the same tool, and what sets them apart. */
export interface OutputPair {
  readonly tool: string;
  readonly differs: string;
  readonly one: string;
  readonly other: string;
}

const ESC = String.fromCodePoint(27);
const red = (text: string) => `${ESC}[31m${text}${ESC}[39m`;
const bold = (text: string) => `${ESC}[1m${text}${ESC}[22m`;

function nodeTap(
  o: { dir?: string; ms?: string; at?: string; actual?: number; name?: string; n?: number } = {},
) {
  const { dir = '/tmp/wt-1', ms = '1.234567', at = '5:10', actual = 3, name = 'adds', n = 1 } = o;
  return `TAP version 13
# Subtest: ${name}
not ok ${n} - ${name}
  ---
  duration_ms: ${ms}
  type: 'test'
  location: '${dir}/test/sum.test.js:${at}'
  failureType: 'testCodeFailure'
  error: |-
    Expected values to be strictly equal:
    
    ${actual} !== 4
    
  code: 'ERR_ASSERTION'
  name: 'AssertionError'
  expected: 4
  actual: ${actual}
  operator: 'strictEqual'
  stack: |-
    TestContext.<anonymous> (file://${dir}/test/sum.test.js:${at})
    Test.runInAsyncScope (node:async_hooks:203:9)
    Test.run (node:internal/test_runner/test:631:25)
    process.processTicksAndRejections (node:internal/process/task_queues:95:5)
  ...
1..1
# tests 1
# pass 0
# fail 1
# duration_ms ${ms}
`;
}

function nodeSpec(o: { ms?: string; total?: string; actual?: string; file?: string } = {}) {
  const { ms = '1.1', total = '52.3', actual = '3 !== 4', file = '/tmp/wt-1/test/sum.test.js' } = o;
  return `✖ adds (${ms}ms)
ℹ tests 1
ℹ pass 0
ℹ fail 1
ℹ duration_ms ${total}

✖ failing tests:

test at test/sum.test.js:5:1
✖ adds (${ms}ms)
  AssertionError [ERR_ASSERTION]: Expected values to be strictly equal:
  
  ${actual}
  
      at TestContext.<anonymous> (file://${file}:6:10)
      at Test.run (node:internal/test_runner/test:797:25) {
    generatedMessage: true,
    code: 'ERR_ASSERTION',
  }
`;
}

function vitestFailure(name: string, got: number, wanted: number, line = 5) {
  return ` FAIL  test/${name}.test.ts > ${name} works
AssertionError: expected ${got} to be ${wanted} // Object.is equality

- Expected
+ Received

- ${wanted}
+ ${got}

 ❯ test/${name}.test.ts:${line}:13
      ${line - 2}| 
      ${line - 1}| test('${name} works', () => {
      ${line}|   expect(${name}()).toBe(${wanted});
       |             ^
      ${line + 1}| });
`;
}

function vitest(
  failures: readonly string[],
  o: { ms?: string; start?: string; passed?: readonly string[] } = {},
) {
  const { ms = '312ms', start = '16:12:01', passed = ['other', 'third'] } = o;
  return `
 RUN  v5.1.1 /tmp/wt-1

${passed.map((name) => ` ✓ test/${name}.test.ts (3 tests) ${ms}`).join('\n')}

⎯⎯⎯⎯⎯⎯⎯ Failed Tests ${failures.length} ⎯⎯⎯⎯⎯⎯⎯

${failures.map((text, i) => `${text}\n⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯⎯[${i + 1}/${failures.length}]⎯\n`).join('\n')}

 Test Files  1 failed | 2 passed (3)
      Tests  ${failures.length} failed | 6 passed (7)
   Start at  ${start}
   Duration  ${ms} (transform 20ms, setup 0ms, import 35ms, tests ${ms}, environment 0ms)
`;
}

function jestSuite(name: string, got: number, line = 3) {
  return `FAIL src/${name}.test.js
  ● ${name} › adds 1 + 2

    expect(received).toBe(expected) // Object.is equality

    Expected: 4
    Received: ${got}

      ${line - 1} | test('adds 1 + 2', () => {
    > ${line} |   expect(sum(1, 2)).toBe(4);
        |                     ^
      ${line + 1} | });

      at Object.toBe (src/${name}.test.js:${line}:21)
      at new Promise (<anonymous>)
`;
}

function jest(blocks: readonly string[], time = '0.512 s, estimated 1 s', passed = ' (5.1 s)') {
  return `${blocks.join('\n')}
PASS src/other.test.js${passed}
Test Suites: ${blocks.length} failed, 1 passed, ${blocks.length + 1} total
Tests:       ${blocks.length} failed, 5 passed, 6 total
Snapshots:   0 total
Time:        ${time}
Ran all test suites.
`;
}

function pytest(
  o: {
    dir?: string;
    line?: number;
    got?: number;
    time?: string;
    py?: string;
    object?: string;
    name?: string;
  } = {},
) {
  const {
    dir = '/tmp/pytest-of-ada/pytest-12',
    line = 5,
    got = 3,
    time = '0.12s',
    py = 'F..',
    object = '0x7f3c2c1d5e50',
    name = 'test_add',
  } = o;
  return `============================= test session starts ==============================
platform linux -- Python 3.11.2, pytest-8.3.3, pluggy-1.5.0
rootdir: ${dir}
collected 3 items

tests/test_add.py ${py}                                                   [100%]

=================================== FAILURES ===================================
___________________________________ ${name} ___________________________________

    def ${name}():
        calc = Calc()
>       assert calc.add(1, 2) == 4
E       assert ${got} == 4
E        +  where ${got} = <bound method Calc.add of <calc.Calc object at ${object}>>(1, 2)

tests/test_add.py:${line}: AssertionError
----------------------------- Captured stderr call -----------------------------
=========================== short test summary info ============================
FAILED tests/test_add.py::${name} - assert ${got} == 4
========================= 1 failed, 2 passed in ${time} =========================
`;
}

function goTest(o: { s?: string; line?: number; got?: number; pkgs?: readonly string[] } = {}) {
  const {
    s = '0.00',
    line = 10,
    got = 3,
    pkgs = ['ok  \texample.com/other\t0.002s', 'ok  \texample.com/third\t(cached)'],
  } = o;
  return `=== RUN   TestAdd
    add_test.go:${line}: add(1, 2) = ${got}, want 4
--- FAIL: TestAdd (${s}s)
FAIL
FAIL\texample.com/add\t${s}3s
${pkgs.join('\n')}
FAIL
`;
}

const goPanic = (
  goroutine: number,
  pointer: string,
  index: number,
  pc = '0x47f5a1',
) => `--- FAIL: TestPick (0.00s)
panic: runtime error: index out of range [${index}] with length 3 [recovered]

goroutine ${goroutine} [running]:
testing.tRunner.func1.2({0x${pointer}e0, 0x${pointer}18})
\t/usr/local/go/src/testing/testing.go:1632 +0x230
example.com/pick.Pick(...)
\t/tmp/wt-${goroutine}/pick/pick.go:${goroutine} +0x1d
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=${pc}]
exit status 2
`;

function cargoReport(name: string, left: number, right: number, line = 10, thread = '') {
  return `---- ${name} stdout ----

thread '${name}'${thread} panicked at src/lib.rs:${line}:9:
assertion \`left == right\` failed
  left: ${left}
 right: ${right}
`;
}
const RUST_NOTE = 'note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n';

function cargo(
  reports: readonly string[],
  o: { s?: string; build?: string; hash?: string; statuses?: readonly string[] } = {},
) {
  const {
    s = '0.00',
    build = '',
    hash = '0123456789abcdef',
    statuses = ['test tests::a ... FAILED', 'test tests::b ... ok'],
  } = o;
  return `${build}    Finished \`test\` profile [unoptimized + debuginfo] target(s) in ${s}s
     Running unittests src/lib.rs (target/debug/deps/sum-${hash})

running 2 tests
${statuses.join('\n')}

failures:

${reports.join('\n')}

failures:
    tests::a

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in ${s}s

error: test failed, to rerun pass \`--lib\`
`;
}

const tsc = (line: string, type = 'string', file = 'src/a.ts') =>
  `${file}(${line}): error TS2322: Type '${type}' is not assignable to type 'number'.
  Type '${type}' is not comparable.
src/z.ts(1,1): error TS6133: 'x' is declared but its value is never read.
`;
const tscPretty = (
  line: number,
  name = 'width',
) => `src/a.ts:${line}:7 - error TS2322: Type 'string' is not assignable to type 'number'.

${line}   const ${name}: number = 'wide';
${' '.repeat(String(line).length)}         ~~~~~


Found 1 error in src/a.ts:${line}
`;
const eslint = (dir: string, at: string, rule = 'no-unused-vars') => `
${dir}/src/a.ts
  ${at}  error  'x' is assigned a value but never used  ${rule}

${dir}/src/b.ts
  7:1  warning  Unexpected console statement  no-console

✖ 2 problems (1 error, 1 warning)
`;
const conflict = (file: string, sha = '1a2b3c4', subject = 'Add x') => `Auto-merging ${file}
CONFLICT (content): Merge conflict in ${file}
error: could not apply ${sha}... ${subject}
hint: Resolve all conflicts manually, mark them as resolved with
Could not apply ${sha}... ${subject}
`;

const same = (tool: string, differs: string, one: string, other: string): OutputPair => ({
  tool,
  differs,
  one,
  other,
});

const NOISE: readonly OutputPair[] = [
  same(
    'node:test tap',
    'folder',
    nodeTap(),
    nodeTap({ dir: '/home/ada/projects/sum/.troupe/worktrees/run-7-task-2' }),
  ),
  same('node:test tap', 'durations', nodeTap(), nodeTap({ ms: '12.5' })),
  same('node:test tap', 'line and column', nodeTap(), nodeTap({ at: '112:3' })),
  same('node:test tap', 'place among parallel tests', nodeTap(), nodeTap({ n: 7 })),
  same('node:test spec', 'durations', nodeSpec(), nodeSpec({ ms: '34.567', total: '1052.99' })),
  same(
    'node:test spec',
    'folder on a Mac',
    nodeSpec(),
    nodeSpec({ file: '/private/var/folders/xy/abc123def/T/wt-Ab3dE9/test/sum.test.js' }),
  ),
  same(
    'node:test spec',
    'colours',
    nodeSpec(),
    red(nodeSpec()).replace('✖ adds', `${ESC}[31m✖ ${bold('adds')}${ESC}[39m`),
  ),
  same(
    'node:test spec',
    'order of parallel passes',
    `${nodeSpec()}✔ b (1ms)\n✔ c (2ms)\n`,
    `${nodeSpec()}✔ c (9ms)\n✔ b (8ms)\n`,
  ),
  same(
    'node',
    'process number of a warning',
    '(node:4242) Warning: x is deprecated\nError: boom',
    '(node:777) Warning: x is deprecated\nError: boom',
  ),
  same(
    'node',
    'port of a refused connection',
    'Error: connect ECONNREFUSED 127.0.0.1:41235\n    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1607:16)',
    'Error: connect ECONNREFUSED 127.0.0.1:33001\n    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1611:16)',
  ),
  same(
    'node',
    'port in use',
    'Error: listen EADDRINUSE: address already in use :::3000\n  port: 3000',
    'Error: listen EADDRINUSE: address already in use :::3107\n  port: 3107',
  ),
  same('node', 'IPv6 port', 'connect ECONNREFUSED ::1:5432', 'connect ECONNREFUSED ::1:41999'),
  same(
    'node',
    'temporary directory',
    "Error: ENOENT: no such file or directory, open '/tmp/troupe-x8Kd2f/data.json'",
    "Error: ENOENT: no such file or directory, open '/tmp/troupe-Qm19aZ/data.json'",
  ),
  same(
    'node',
    'temporary directory itself',
    "Error: ENOTEMPTY: directory not empty, rmdir '/tmp/troupe-x8Kd2f'",
    "Error: ENOTEMPTY: directory not empty, rmdir '/tmp/troupe-Qm19aZ'",
  ),
  same(
    'node',
    'folder with a space',
    "Error: Cannot find module '/home/ada/my work/sum/index.js'",
    "Error: Cannot find module '/home/bob/a place/sum/index.js'",
  ),
  same(
    'node',
    'Windows folders',
    'Error: EPERM: unlink C:\\Users\\ada\\AppData\\Local\\Temp\\t-1\\out.js',
    'Error: EPERM: unlink D:\\work\\t-2\\out.js',
  ),
  same(
    'node',
    'line endings',
    'Error: boom\r\n    at f (a.js:1:2)\r\n',
    'Error: boom\n    at f (a.js:9:9)\n',
  ),
  same(
    'node',
    'uuid',
    'Error: job 3f2504e0-4f89-11d3-9a0c-0305e82c3301 not found',
    'Error: job 9b2d8f7e-0c1a-4b5d-8e6f-a1b2c3d4e5f6 not found',
  ),
  same(
    'node',
    'ISO time',
    '2026-11-20T16:12:01.123Z ERROR boom',
    '2027-01-02T03:04:05Z ERROR boom',
  ),
  same(
    'node',
    'milliseconds since 1970',
    'Error: token expired at 1700000000000',
    'Error: token expired at 1763655121123',
  ),
  same(
    'node',
    'an overwritten progress line',
    'fetching 1%\rfetching 70%\rError: boom',
    'fetching 33%\rError: boom',
  ),
  same(
    'npm',
    'log file',
    'npm ERR! code 1\nnpm ERR! A complete log of this run can be found in: /root/.npm/_logs/2026-11-20T16_12_01_123Z-debug-0.log',
    'npm ERR! code 1\nnpm ERR! A complete log of this run can be found in: /home/ada/.npm/_logs/2026-11-21T08_00_59_004Z-debug-0.log',
  ),
  same(
    'vitest',
    'durations and start',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([vitestFailure('sum', 3, 4)], { ms: '1.31s', start: '09:00:00' }),
  ),
  same(
    'vitest',
    'line numbers in the code frame',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([vitestFailure('sum', 3, 4, 105)]),
  ),
  same(
    'vitest',
    'order of passed files',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([vitestFailure('sum', 3, 4)], { passed: ['third', 'other'] }),
  ),
  same(
    'vitest',
    'order of failures',
    vitest([vitestFailure('sum', 3, 4), vitestFailure('min', 1, 2)]),
    vitest([vitestFailure('min', 1, 2), vitestFailure('sum', 3, 4)]),
  ),
  same(
    'vitest',
    'order of tests with one failure',
    ' FAIL  a.test.ts > x\n FAIL  b.test.ts > y\nError: boom',
    ' FAIL  b.test.ts > y\n FAIL  a.test.ts > x\nError: boom',
  ),
  same(
    'vitest',
    'cache buster',
    'Error: Failed to fetch /node_modules/.vite/deps/rxjs.js?v=1a2b3c4d',
    'Error: Failed to fetch /node_modules/.vite/deps/rxjs.js?v=99ffee00',
  ),
  same(
    'fast-check',
    'seed',
    'Property failed after 3 tests\n{ seed: -1234567, path: "2:0:1", endOnFailure: true }\nCounterexample: [0]',
    'Property failed after 3 tests\n{ seed: 99, path: "2", endOnFailure: true }\nCounterexample: [0]',
  ),
  same('jest', 'times', jest([jestSuite('sum', 3)]), jest([jestSuite('sum', 3)], '12.1 s', '')),
  same('jest', 'lines', jest([jestSuite('sum', 3)]), jest([jestSuite('sum', 3, 88)])),
  same(
    'jest',
    'order of suites',
    jest([jestSuite('sum', 3), jestSuite('min', 1)]),
    jest([jestSuite('min', 1), jestSuite('sum', 3)]),
  ),
  same(
    'jest',
    'colours',
    jest([jestSuite('sum', 3)]),
    jest([jestSuite('sum', 3).replace('Received: 3', `Received: ${red('3')}`)]),
  ),
  same('pytest', 'folder', pytest(), pytest({ dir: '/tmp/pytest-of-bob/pytest-3' })),
  same('pytest', 'address of an object', pytest(), pytest({ object: '0x10a3b4c5d' })),
  same('pytest', 'line and time', pytest(), pytest({ line: 77, time: '12.01s' })),
  same(
    'pytest-xdist',
    'workers and order',
    '[gw0] [ 33%] PASSED tests/test_a.py::test_x\n[gw1] [ 66%] FAILED tests/test_b.py::test_y',
    '[gw0] [ 33%] FAILED tests/test_b.py::test_y\n[gw3] [ 66%] PASSED tests/test_a.py::test_x',
  ),
  same(
    'python',
    'traceback',
    'Traceback (most recent call last):\n  File "/tmp/tmpab12cd34/run.py", line 10, in main\nKeyError: \'a\'',
    'Traceback (most recent call last):\n  File "/tmp/tmpzz98yy76/run.py", line 12, in main\nKeyError: \'a\'',
  ),
  same('go test', 'times and lines', goTest(), goTest({ s: '1.20', line: 44 })),
  same(
    'go test',
    'order of packages',
    goTest(),
    goTest({ pkgs: ['ok  \texample.com/third\t0.400s', 'ok  \texample.com/other\t0.002s'] }),
  ),
  same(
    'go test',
    'goroutine, addresses',
    goPanic(7, 'c0000123', 5),
    goPanic(19, 'c0000ff0', 5, '0x4a11ff'),
  ),
  same(
    'go test',
    'log time',
    '2026/11/20 16:12:01 listen failed\nexit status 1',
    '2027/01/31 00:00:09 listen failed\nexit status 1',
  ),
  same(
    'cargo',
    'times and hash',
    cargo([cargoReport('tests::a', 3, 4)]),
    cargo([cargoReport('tests::a', 3, 4)], { s: '4.31', hash: 'fedcba9876543210' }),
  ),
  same(
    'cargo',
    'what was built before',
    cargo([cargoReport('tests::a', 3, 4)]),
    cargo([cargoReport('tests::a', 3, 4)], {
      build: '   Compiling libc v0.2.1\n   Compiling sum v0.1.0 (/tmp/wt-3/sum)\n',
    }),
  ),
  same(
    'cargo',
    'order of tests',
    cargo([cargoReport('tests::a', 3, 4)]),
    cargo([cargoReport('tests::a', 3, 4)], {
      statuses: ['test tests::b ... ok', 'test tests::a ... FAILED'],
    }),
  ),
  same(
    'cargo',
    'thread and line',
    cargo([cargoReport('tests::a', 3, 4, 10, ' (12345)')]),
    cargo([cargoReport('tests::a', 3, 4, 99, ' (777)')]),
  ),
  same(
    'cargo',
    'which test panicked first',
    cargo([cargoReport('tests::a', 3, 4) + RUST_NOTE, cargoReport('tests::c', 5, 6)]),
    cargo([cargoReport('tests::c', 5, 6) + RUST_NOTE, cargoReport('tests::a', 3, 4)]),
  ),
  same(
    'rustc',
    'lines',
    'error[E0308]: mismatched types\n --> src/main.rs:2:5\n  |\n2 |     "a"\n  |     ^^^ expected `i32`, found `&str`',
    'error[E0308]: mismatched types\n --> src/main.rs:42:5\n   |\n42 |     "a"\n   |     ^^^ expected `i32`, found `&str`',
  ),
  same('tsc', 'lines', tsc('12,5'), tsc('140,17')),
  same('tsc --pretty', 'lines', tscPretty(9), tscPretty(1042)),
  same('eslint', 'folder and line', eslint('/tmp/wt-1', '12:5'), eslint('/home/ada/sum', '1:15')),
  same('git', 'commit', conflict('src/a.ts'), conflict('src/a.ts', '9f8e7d6')),
  same('git', 'commit of digits only', conflict('src/a.ts'), conflict('src/a.ts', '1234567')),
  same(
    'git',
    'blob hashes',
    'error: patch failed: src/a.ts:12\nindex 1a2b3c4..5d6e7f8 100644',
    'error: patch failed: src/a.ts:90\nindex aaa1111..bbb2222 100644',
  ),
  same(
    'git',
    'progress',
    'remote: Counting objects:  45% (45/100)\nReceiving objects:  12% (3/25)\nfatal: early EOF',
    'Receiving objects: 100% (25/25), 1.2 MiB | 3.4 MiB/s\nfatal: early EOF',
  ),
  same(
    'git',
    'lock of another worktree',
    "fatal: Unable to create '/srv/a/.git/worktrees/t-1/index.lock': File exists.",
    "fatal: Unable to create '/srv/b/.git/worktrees/t-22/index.lock': File exists.",
  ),
  same(
    'gatekeeper',
    'artifact',
    'npm test failed, see .troupe/tasks/t1/gatekeeper/2026-11-20T16-12-01-123Z.json',
    'npm test failed, see /home/ada/p/.troupe/tasks/t1/gatekeeper/2026-12-01T01-02-03-004Z.json',
  ),
  same(
    'java',
    'identity of an object',
    'java.lang.IllegalStateException: com.acme.Job@1b6d3586\n\tat com.acme.Job.run(Job.java:42)',
    'java.lang.IllegalStateException: com.acme.Job@74a14482\n\tat com.acme.Job.run(Job.java:57)',
  ),
  same(
    'clang',
    'process and address',
    '==4242==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000000010 at pc 0x55d0c8a1b2c3',
    '==17==ERROR: AddressSanitizer: heap-use-after-free on address 0x60b0000000a0 at pc 0x561122334455',
  ),
  same(
    'make',
    'line',
    'Makefile:12: *** missing separator.  Stop.',
    'Makefile:31: *** missing separator.  Stop.',
  ),
  same(
    'syslog',
    'time and process',
    'Nov 20 16:12:01 host app[pid 42]: boom',
    'Dec  1 01:02:03 host app[pid 4711]: boom',
  ),
  same(
    'vitest',
    'folder',
    ' RUN  v5.1.1 /home/ada/one\nError: boom',
    ' RUN  v5.1.1 /srv/two\nError: boom',
  ),
  same('pytest', 'root', 'rootdir: /home/ada/one\nE   x', 'rootdir: /srv/two\nE   x'),
  same('python', 'temporary name', "KeyError: 'tmpab12cd34'", "KeyError: 'tmp_z9y8x7w'"),
  same(
    'go',
    'offset in a function',
    'main.f()\n\t/src/a/main.go:12 +0x1d',
    'main.f()\n\t/src/a/main.go:12 +0x2f',
  ),
  same('java', 'identity in digits', 'com.acme.Job@21588809 failed', 'com.acme.Job@5c647 failed'),
  same(
    'vite',
    'cache buster of digits',
    'Error in src/a.js?v=12345678',
    'Error in src/a.js?v=deadbeef',
  ),
  same(
    'vite',
    'time in a module name',
    'Error in vite.config.ts?t=17',
    'Error in vite.config.ts?t=1700000000000',
  ),
  same(
    'http',
    'port of a named host',
    'GET http://api:3000/users failed',
    'GET http://api:41999/users failed',
  ),
  same(
    'shell',
    'place in standard input',
    '[stdin]:3:7\nSyntaxError: x',
    '[stdin]:12:1\nSyntaxError: x',
  ),
  same('git', 'place of a hunk', '@@ -1,5 +1,6 @@ function x', '@@ -10,5 +12,6 @@ function x'),
  same('jest', 'a duration that is only there when slow', '  ✕ adds (12 ms)', '  ✕ adds'),
  same('vitest', 'a duration behind a name', ' × adds 302ms', ' × adds'),
  same('ora', 'spinner', '⠋ building\nError: boom', '⠹ building\nError: boom'),
  same(
    'webpack',
    'progress bar',
    '[####    ] 40% 2/5\nError: boom',
    '[########] 99% 5/5\nError: boom',
  ),
  same(
    'pip',
    'progress',
    'Downloading numpy 12%\nerror: boom',
    'Downloading numpy 80%\nDownloading numpy 99%\nerror: boom',
  ),
  same('mocha', 'dots', '..F..\nError: boom', '.F...\nError: boom'),
  same('node', 'temporary file', "open '/tmp/cache-x8Kd2f.json'", "open '/tmp/cache-Qm19aZ.json'"),
  same(
    'node',
    'folder in a temporary folder',
    "rmdir '/tmp/troupe/wt-17'",
    "rmdir '/tmp/troupe/wt-4'",
  ),
  same('node', 'folder above', "open '../../../wt-1/data/x.json'", "open '../wt-2/x.json'"),
  same('node', 'URL of a file', 'at file:///home/ada/a.js:1:2', 'at file:///srv/b/a.js:3:4'),
  same('node', 'worker', 'Worker 3 failed', 'Worker 11 failed'),
  same('node', 'process', 'process 4242 was killed, pid: 4242', 'process 17 was killed, pid: 17'),
  same(
    'python',
    'time with a comma',
    '2026-11-20 16:12:01,123 ERROR x',
    '2026-11-21 06:02:59,004 ERROR x',
  ),
  same(
    'http',
    'date header',
    'date: Thu, 20 Nov 2026 16:12:01 GMT',
    'date: Fri, 1 Jan 2027 00:00:00 GMT',
  ),
  same(
    'C',
    'date as ctime writes it',
    'at Fri Nov 20 16:12:01 2026: x',
    'at Sat Jan  2 06:00:59 2027: x',
  ),
  same(
    'python',
    'place of an object',
    '<Job object at 0x7f3c> failed',
    '<Job object at 0x80aa> failed',
  ),
  same(
    'node',
    'hash',
    'object 9fceb02d0ae598e95dc970b74767f19372d61af8 is missing',
    'object e83c5163316f89bfbde7d9ab23ca2e25604af290 is missing',
  ),
  same('mocha', 'long durations', 'tests ended after 1m 30.5s', 'tests ended after 1h 2m 3s'),
  same('eslint', 'place', '  12:5  error  x is not defined', '  3:17  error  x is not defined'),
  same(
    'node',
    'folder of no known kind',
    'at f (/data/one/a.js:1:2)',
    'at f (/scratch/2/a.js:3:4)',
  ),
  same(
    'node',
    'temporary directory in letters',
    "rmdir '/tmp/troupe-xkQdeF'",
    "rmdir '/tmp/troupe-abcdef'",
  ),
  same(
    'gatekeeper',
    'artifact by number',
    'see .troupe/tasks/t1/gatekeeper/attempt-3.json',
    'see .troupe/tasks/t1/gatekeeper/attempt-4.json',
  ),
  same('go', 'durations in one word', 'timed out after 1m30.5s', 'timed out after 1h2m3s'),
  same(
    'node:test spec',
    'the way the runner came',
    nodeSpec(),
    nodeSpec().replace(
      '    at Test.run (',
      '    at Test.processPendingSubtests (node:internal/test_runner/test:744:18)\n      at Test.postRun (node:internal/test_runner/test:1070:19)\n      at async Test.run (',
    ),
  ),
  same(
    'node',
    'properties behind the last frame',
    'Error: x\n    at f (src/a.js:1:2)',
    'Error: x\n    at f (src/a.js:1:2) {\n',
  ),
  same(
    'vitest',
    'frames in packages',
    'Error: x\n ❯ src/a.ts:1:2\n ❯ node_modules/vitest/dist/runner.js:10:5',
    'Error: x\n ❯ src/a.ts:1:2\n ❯ run node_modules/vitest/dist/runner.js:10:5\n ❯ node_modules/vitest/dist/worker.js:99:5',
  ),
  same(
    'vitest',
    'the code next to the failing line',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([
      vitestFailure('sum', 3, 4).replace(
        "4| test('sum works', () => {",
        "4| test('new', () => {});",
      ),
    ]),
  ),
  same(
    'jest',
    'the code next to the failing line',
    jest([jestSuite('sum', 3)]),
    jest([jestSuite('sum', 3).replace("2 | test('adds 1 + 2', () => {", '2 | // new')]),
  ),
  same(
    'vitest',
    'counts of passed tests in a file that fails',
    ' ❯ a.test.ts (4 tests | 3 failed) 5ms\n   ❯ s (3)\n     × deep 1ms',
    ' ❯ a.test.ts (9 tests | 3 failed | 1 skipped) 5ms\n   ❯ s (7)\n     × deep 1ms',
  ),
  same(
    'node:test tap',
    'a frame of its own',
    'stack: |-\n    f (src/a.js:1:2)\n    node:internal/main/run_main_module:33:47',
    'stack: |-\n    f (src/a.js:1:2)',
  ),
];

const ORDER: readonly OutputPair[] = [
  same(
    'node:test tap',
    'order of failures',
    "TAP version 13\nnot ok 1 - a\n  ---\n  error: 'x'\n  ...\nnot ok 2 - b\n  ---\n  error: 'y'\n  ...\n1..2\n# fail 2\n",
    "TAP version 13\nnot ok 2 - b\n  ---\n  error: 'y'\n  ...\nnot ok 1 - a\n  ---\n  error: 'x'\n  ...\n1..2\n# fail 2\n",
  ),
  same(
    'node:test tap',
    'order of suites',
    'TAP version 13\n# Subtest: s\n    # Subtest: a\n    not ok 1 - a\n    1..1\nnot ok 1 - s\n# Subtest: t\n    # Subtest: b\n    not ok 1 - b\n    1..1\nnot ok 2 - t\n1..2\n# fail 2\n',
    'TAP version 13\n# Subtest: t\n    # Subtest: b\n    not ok 1 - b\n    1..1\nnot ok 2 - t\n# Subtest: s\n    # Subtest: a\n    not ok 1 - a\n    1..1\nnot ok 1 - s\n1..2\n# fail 2\n',
  ),
  same(
    'node:test spec',
    'order of failures',
    '✖ failing tests:\n\ntest at test/a.test.js:5:1\n✖ a (1.2ms)\n  Error: x\n      at f (a.js:1:2)\n\ntest at test/b.test.js:7:1\n✖ b (3.4ms)\n  Error: y\n      at g (b.js:1:2)\n\n',
    '✖ failing tests:\n\ntest at test/b.test.js:7:1\n✖ b (3.4ms)\n  Error: y\n      at g (b.js:1:2)\n\ntest at test/a.test.js:5:1\n✖ a (1.2ms)\n  Error: x\n      at f (a.js:1:2)\n\n',
  ),
  same(
    'vitest',
    'order of failed files',
    ' RUN  v5.1.1 /tmp/wt-1\n\n ❯ test/a.test.ts (3 tests | 1 failed) 12ms\n   × adds 5ms\n     → expected 1 to be 2\n ❯ test/b.test.ts (1 test | 1 failed) 2ms\n   × takes 3ms\n     → expected 3 to be 4\n\n Test Files  2 failed (2)\n',
    ' RUN  v5.1.1 /tmp/wt-1\n\n ❯ test/b.test.ts (1 test | 1 failed) 2ms\n   × takes 3ms\n     → expected 3 to be 4\n ❯ test/a.test.ts (3 tests | 1 failed) 12ms\n   × adds 5ms\n     → expected 1 to be 2\n\n Test Files  2 failed (2)\n',
  ),
  same(
    'jest',
    'order before the summary',
    'FAIL src/a.test.js\n  ● a\n\n    x\n\nFAIL src/b.test.js\n  ● b\n\n    y\n\nSummary of all failing tests\nTest Suites: 2 failed, 2 total\n',
    'FAIL src/b.test.js\n  ● b\n\n    y\n\nFAIL src/a.test.js\n  ● a\n\n    x\n\nSummary of all failing tests\nTest Suites: 2 failed, 2 total\n',
  ),
  same(
    'jest',
    'order of failed tests',
    'PASS src/c.test.js\nDetermining test suites to run...\n  ✕ a (3 ms)\n  ✕ b\nTests:       2 failed\n',
    'PASS src/c.test.js\nDetermining test suites to run...\n  ✕ b\n  ✕ a (3 ms)\nTests:       2 failed\n',
  ),
  same(
    'pytest',
    'order of failures',
    '===== FAILURES =====\n_____ test_a _____\n\n>   assert 1 == 2\nE   assert 1 == 2\n\ntests/test_a.py:3: AssertionError\n_____ test_b _____\n\n>   assert 3 == 4\nE   assert 3 == 4\n\ntests/test_b.py:9: AssertionError\n===== 2 failed in 0.1s =====\n',
    '===== FAILURES =====\n_____ test_b _____\n\n>   assert 3 == 4\nE   assert 3 == 4\n\ntests/test_b.py:9: AssertionError\n_____ test_a _____\n\n>   assert 1 == 2\nE   assert 1 == 2\n\ntests/test_a.py:3: AssertionError\n===== 2 failed in 0.1s =====\n',
  ),
  same(
    'pytest',
    'order in the summary',
    '===== short test summary info =====\nFAILED tests/test_a.py::test_a - assert 1 == 2\nFAILED tests/test_b.py::test_b - assert 3 == 4\n',
    '===== short test summary info =====\nFAILED tests/test_b.py::test_b - assert 3 == 4\nFAILED tests/test_a.py::test_a - assert 1 == 2\n',
  ),
  same(
    'pytest -v',
    'order of tests',
    'collected 2 items\n\ntests/test_a.py::test_a FAILED                 [ 50%]\ntests/test_b.py::test_b FAILED                 [100%]\n',
    'collected 2 items\n\ntests/test_b.py::test_b FAILED                 [100%]\ntests/test_a.py::test_a FAILED                 [ 50%]\n',
  ),
  same(
    'go test',
    'order of failures',
    '--- FAIL: TestA (0.00s)\n    a_test.go:10: x\n--- FAIL: TestB (0.10s)\n    b_test.go:3: y\nFAIL\n',
    '--- FAIL: TestB (0.10s)\n    b_test.go:3: y\n--- FAIL: TestA (0.00s)\n    a_test.go:10: x\nFAIL\n',
  ),
  same(
    'go test',
    'order of failed packages',
    'FAIL\texample.com/a\t0.003s\nFAIL\texample.com/b\t0.1s\nFAIL\n',
    'FAIL\texample.com/b\t0.1s\nFAIL\texample.com/a\t0.003s\nFAIL\n',
  ),
  same(
    'go test',
    'order of starts',
    '=== RUN   TestA\n    a_test.go:1: x\n=== CONT  TestB\n    b_test.go:1: y\n--- FAIL: TestA (0.00s)\n',
    '=== CONT  TestB\n    b_test.go:1: y\n=== RUN   TestA\n    a_test.go:1: x\n--- FAIL: TestA (0.00s)\n',
  ),
  same(
    'cargo',
    'order of failed tests',
    'running 2 tests\ntest tests::a ... FAILED\ntest tests::b ... FAILED\n\nfailures:\n',
    'running 2 tests\ntest tests::b ... FAILED\ntest tests::a ... FAILED\n\nfailures:\n',
  ),
  same(
    'rustc',
    'order of errors',
    'error[E0308]: mismatched types\n --> src/a.rs:2:5\n\nerror[E0425]: cannot find value\n --> src/b.rs:9:1\n\n',
    'error[E0425]: cannot find value\n --> src/b.rs:9:1\n\nerror[E0308]: mismatched types\n --> src/a.rs:2:5\n\n',
  ),
  same(
    'tsc',
    'order of projects',
    'src/a.ts(1,2): error TS2322: No.\n  Because.\nsrc/b.ts(3,4): error TS2345: No.\n  Because not.\n',
    'src/b.ts(3,4): error TS2345: No.\n  Because not.\nsrc/a.ts(1,2): error TS2322: No.\n  Because.\n',
  ),
  same(
    'eslint',
    'order of files',
    '/tmp/wt-1/src/a.ts\n  1:2  error  x  no-x\n\n/tmp/wt-1/src/b.ts\n  3:4  error  y  no-y\n\n',
    '/tmp/wt-1/src/b.ts\n  3:4  error  y  no-y\n\n/tmp/wt-1/src/a.ts\n  1:2  error  x  no-x\n\n',
  ),
  same(
    'tsc --pretty',
    'order of projects',
    'src/a.ts:9:7 - error TS2322: No.\n\n9   const a = 1;\n\nsrc/b.ts:3:1 - error TS2345: No.\n\n3   const b = 1;\n\n\nFound 2 errors in 2 files.\n',
    'src/b.ts:3:1 - error TS2345: No.\n\n3   const b = 1;\n\nsrc/a.ts:9:7 - error TS2322: No.\n\n9   const a = 1;\n\n\nFound 2 errors in 2 files.\n',
  ),
];

const ADDED_TESTS: readonly OutputPair[] = [
  same(
    'vitest',
    'a new test that passes',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([vitestFailure('sum', 3, 4)], { passed: ['other', 'third', 'fourth'] })
      .replace('2 passed (3)', '3 passed (4)')
      .replace('6 passed (7)', '9 passed (10)'),
  ),
  same(
    'jest',
    'a new test that passes',
    jest([jestSuite('sum', 3)]),
    jest([jestSuite('sum', 3)])
      .replace(
        'PASS src/other',
        'PASS src/new.test.js\n  new\n    ✓ is fine (3 ms)\nPASS src/other',
      )
      .replace('1 failed, 1 passed, 2 total', '1 failed, 2 passed, 3 total')
      .replace('5 passed, 6 total', '6 passed, 7 total'),
  ),
  same(
    'node:test tap',
    'a new test that passes',
    nodeTap(),
    nodeTap()
      .replace(
        '# Subtest: adds',
        '# Subtest: new\nok 1 - new\n  ---\n  duration_ms: 1\n  ...\n# Subtest: adds',
      )
      .replace('1..1', '1..2')
      .replace('# tests 1\n# pass 0', '# tests 2\n# pass 1'),
  ),
  same(
    'node:test spec',
    'a new test that passes',
    nodeSpec(),
    `✔ new (0.4ms)\n${nodeSpec().replace('tests 1\nℹ pass 0', 'tests 2\nℹ pass 1')}`,
  ),
  same(
    'pytest',
    'new tests that pass',
    pytest(),
    pytest({ py: 'F....' })
      .replace('collected 3 items', 'collecting ... collected 9 items')
      .replace(
        'tests/test_add.py',
        'tests/test_abc.py ....                [ 44%]\ntests/test_add.py',
      )
      .replace('2 passed', '8 passed'),
  ),
  same(
    'go test',
    'a new test that passes',
    goTest(),
    goTest().replace(
      '=== RUN   TestAdd',
      '=== RUN   TestNew\n--- PASS: TestNew (0.00s)\n=== RUN   TestAdd',
    ),
  ),
  same(
    'pytest-xdist',
    'a new test that passes',
    '[gw0] [ 50%] FAILED tests/test_a.py::test_x',
    '[gw0] [ 50%] PASSED tests/test_a.py::test_new\n[gw0] [100%] FAILED tests/test_a.py::test_x',
  ),
  same(
    'pytest -v',
    'a new test that passes',
    'tests/test_a.py::test_x FAILED     [100%]',
    'tests/test_a.py::test_new PASSED   [ 50%]\ntests/test_a.py::test_x FAILED     [100%]',
  ),
  same(
    'node:test tap',
    'a new test that passes in a suite that fails',
    '# Subtest: s\n    # Subtest: a\n    not ok 1 - a\n    1..1\nnot ok 1 - s',
    '# Subtest: s\n    # Subtest: new\n    ok 1 - new\n    # Subtest: a\n    not ok 2 - a\n    1..2\nnot ok 1 - s',
  ),
  same(
    'cargo',
    'a new test that passes',
    cargo([cargoReport('tests::a', 3, 4)]),
    cargo([cargoReport('tests::a', 3, 4)], {
      statuses: ['test tests::a ... FAILED', 'test tests::b ... ok', 'test tests::new ... ok'],
    })
      .replace('running 2 tests', 'running 3 tests')
      .replace('1 passed', '2 passed'),
  ),
];

export const OTHER_FAILURE: readonly OutputPair[] = [
  same('node:test tap', 'the value', nodeTap(), nodeTap({ actual: 5 })),
  same('node:test tap', 'the test', nodeTap(), nodeTap({ name: 'subtracts' })),
  same('node:test spec', 'the value', nodeSpec(), nodeSpec({ actual: '2 !== 4' })),
  same(
    'node',
    'the file',
    "Error: Cannot find module '/tmp/wt-1/a.js'",
    "Error: Cannot find module '/tmp/wt-1/b.js'",
  ),
  same('node', 'the message', 'TypeError: x is not a function', 'TypeError: y is not a function'),
  same('node', 'the error class', 'TypeError: x', 'RangeError: x'),
  same(
    'node',
    'the frames',
    'Error: x\n    at f (a.js:1:1)\n    at g (a.js:2:2)',
    'Error: x\n    at g (a.js:1:1)\n    at f (a.js:2:2)',
  ),
  same(
    'http',
    'the route',
    'GET /api/users/5 expected 200 got 404',
    'GET /api/orders/5 expected 200 got 404',
  ),
  same(
    'http',
    'the address',
    'GET http://localhost:3000/a/b expected 200',
    'GET http://localhost:3000/c/b expected 200',
  ),
  same(
    'values',
    'a 32-bit constant',
    'expected 0xdeadbeef to be 0xcafebabe',
    'expected 0xdeadbeef to be 0xcafed00d',
  ),
  same(
    'values',
    'a colour',
    "expected '#ff0000' to be '#00ff00'",
    "expected '#ff0001' to be '#00ff00'",
  ),
  same(
    'values',
    'a duration that was asserted',
    "expected '5s' to equal '10s'",
    "expected '5s' to equal '15s'",
  ),
  same(
    'values',
    'a long number',
    'expected 12345678 to be 87654321',
    'expected 12345678 to be 87654322',
  ),
  same(
    'values',
    'a date',
    "expected '2026-01-01' to be '2026-01-02'",
    "expected '2026-01-01' to be '2026-01-03'",
  ),
  same(
    'values',
    'a decimal',
    'expected 0.30000000000000004 to be 0.3',
    'expected 0.30000000000000001 to be 0.3',
  ),
  same(
    'coverage',
    'nearer than before',
    'ERROR: Coverage for lines (65.2%) does not meet global threshold (80%)',
    'ERROR: Coverage for lines (71%) does not meet global threshold (80%)',
  ),
  same(
    'vitest',
    'the value',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([vitestFailure('sum', 2, 4)]),
  ),
  same(
    'vitest',
    'one failure more',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([vitestFailure('sum', 3, 4), vitestFailure('min', 1, 2)]),
  ),
  same(
    'vitest',
    'values swapped between two tests',
    vitest([vitestFailure('sum', 1, 2), vitestFailure('min', 3, 4)]),
    vitest([vitestFailure('sum', 3, 4), vitestFailure('min', 1, 2)]),
  ),
  same(
    'vitest',
    'the code of the assertion',
    vitest([vitestFailure('sum', 3, 4)]),
    vitest([vitestFailure('sum', 3, 4).replace('expect(sum())', 'expect(sum(1))')]),
  ),
  same('jest', 'the value', jest([jestSuite('sum', 3)]), jest([jestSuite('sum', 5)])),
  same(
    'jest',
    'values swapped between two suites',
    jest([jestSuite('sum', 3), jestSuite('min', 1)]),
    jest([jestSuite('sum', 1), jestSuite('min', 3)]),
  ),
  same('pytest', 'the value', pytest(), pytest({ got: 5 })),
  same('pytest', 'the test', pytest(), pytest({ name: 'test_sub' })),
  same(
    'pytest-xdist',
    'the outcome',
    '[gw0] PASSED tests/test_a.py::test_x',
    '[gw0] FAILED tests/test_a.py::test_x',
  ),
  same('go test', 'the value', goTest(), goTest({ got: 5 })),
  same('go test', 'the index', goPanic(7, 'c0000123', 5), goPanic(7, 'c0000123', 9)),
  same(
    'go test',
    'a package that is not ok',
    goTest(),
    goTest({ pkgs: ['ok  \texample.com/other\t0.002s', 'FAIL\texample.com/third\t0.1s'] }),
  ),
  same(
    'cargo',
    'the values',
    cargo([cargoReport('tests::a', 3, 4)]),
    cargo([cargoReport('tests::a', 2, 4)]),
  ),
  same(
    'cargo',
    'values swapped between two tests',
    cargo([cargoReport('tests::a', 1, 2), cargoReport('tests::c', 3, 4)]),
    cargo([cargoReport('tests::a', 3, 2), cargoReport('tests::c', 1, 4)]),
  ),
  same('rustc', 'the code', 'error[E0308]: mismatched types', 'error[E0425]: mismatched types'),
  same('tsc', 'the type', tsc('12,5'), tsc('12,5', 'boolean')),
  same('tsc', 'the file', tsc('12,5'), tsc('12,5', 'string', 'src/b.ts')),
  same('tsc --pretty', 'the code', tscPretty(9), tscPretty(9, 'height')),
  same(
    'eslint',
    'the rule',
    eslint('/tmp/wt-1', '12:5'),
    eslint('/tmp/wt-1', '12:5', 'prefer-const'),
  ),
  same('git', 'the file', conflict('src/a.ts'), conflict('src/b.ts')),
  same(
    'git',
    'the kind of conflict',
    conflict('src/a.ts'),
    conflict('src/a.ts').replace('(content)', '(add/add)'),
  ),
  same('shell', 'the missing tool', 'sh: 1: pnpm: not found', 'sh: 1: yarn: not found'),
  same('shell', 'the exit code', 'make: *** [test] Error 1', 'make: *** [test] Error 2'),
  same(
    'text',
    'order of lines that are no reports',
    'first open\nthen close',
    'then close\nfirst open',
  ),
  same(
    'node:test tap',
    'messages swapped between tests of one name in two suites',
    '# Subtest: s\n    not ok 1 - t\n      x\nnot ok 1 - s\n# Subtest: u\n    not ok 1 - t\n      y\nnot ok 2 - u',
    '# Subtest: s\n    not ok 1 - t\n      y\nnot ok 1 - s\n# Subtest: u\n    not ok 1 - t\n      x\nnot ok 2 - u',
  ),
  same(
    'pip',
    'a progress line that says what failed',
    'Downloading numpy 12% failed',
    'Downloading scipy 12% failed',
  ),
  same('values', 'a list of one', '- []\n+ [1]', '- [2]\n+ [1]'),
  same('values', 'a share', 'expected 50% to be 60%', 'expected 50% to be 70%'),
  same('http', 'a route with dots', 'GET /v1.2/users', 'GET /v1.2/orders'),
  same(
    'node',
    'a relative folder',
    "Cannot find module './src/a/index.js'",
    "Cannot find module './src/b/index.js'",
  ),
  same(
    'node',
    'a temporary file with a name of its own',
    "open '/tmp/run-1/report.json'",
    "open '/tmp/run-1/summary.json'",
  ),
  same(
    'node',
    'a temporary file in words',
    "open '/tmp/my-report.json'",
    "open '/tmp/my-summary.json'",
  ),
  same(
    'jest',
    'the failing line',
    jest([jestSuite('sum', 3)]),
    jest([jestSuite('sum', 3).replace('expect(sum(1, 2))', 'expect(sum(2, 1))')]),
  ),
  same(
    'rustc',
    'the code pointed at',
    'error[E0308]: no\n --> src/main.rs:2:5\n  |\n2 |     "a"\n  |     ^^^ no',
    'error[E0308]: no\n --> src/main.rs:2:5\n  |\n2 |     "b"\n  |     ^^^ no',
  ),
  same(
    'node',
    'a message that names a package',
    'SyntaxError: /w/node_modules/a/index.js:1:2',
    'SyntaxError: /w/node_modules/a/main.js:1:2',
  ),
  same(
    'vitest',
    'how many failed in a file',
    ' ❯ a.test.ts (4 tests | 3 failed) 5ms',
    ' ❯ a.test.ts (4 tests | 2 failed) 5ms',
  ),
];

export const SAME_FAILURE: readonly OutputPair[] = [...NOISE, ...ORDER, ...ADDED_TESTS];
