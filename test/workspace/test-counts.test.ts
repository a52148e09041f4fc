import { expect, test } from 'vitest';
import { countTests } from '../../src/workspace/test-counts.ts';

test.each<[runner: string, output: string, tests: number | undefined]>([
  [
    'vitest',
    ' Test Files  1 failed | 1 passed (2)\n      Tests  1 failed | 5 passed | 2 skipped (8)',
    6,
  ],
  ['vitest without files', 'No test files found, exiting with code 1', 0],
  ['jest', 'Test Suites: 1 passed, 1 total\nTests:       1 skipped, 5 passed, 6 total', 5],
  ['jest with everything skipped', 'Tests:       3 skipped, 3 total', 0],
  ['jest --passWithNoTests', 'No tests found, exiting with code 0', 0],
  ['node:test, tap', '# tests 3\n# suites 0\n# pass 2\n# fail 1\n# skipped 0', 3],
  ['node:test, spec', 'ℹ tests 0\nℹ pass 0\nℹ fail 0', 0],
  ['mocha', '  5 passing (8ms)\n  1 pending\n  2 failing', 7],
  ['mocha without tests', '  0 passing (1ms)', 0],
  ['pytest', '==== 1 failed, 5 passed, 2 skipped in 0.12s ====', 6],
  ['pytest -q', '5 passed, 1 warning in 0.01s', 5],
  ['pytest without tests', 'collected 0 items\n\n==== no tests ran in 0.01s ====', 0],
  ['unittest', 'Ran 12 tests in 0.003s\n\nOK', 12],
  ['unittest without tests', 'Ran 0 tests in 0.000s\n\nNO TESTS RAN', 0],
  [
    'go test -v',
    '=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/b (0.00s)\nok  \tx\t0.1s',
    2,
  ],
  ['go test', 'ok  \texample.org/x\t0.002s\n?   \texample.org/y\t[no test files]', undefined],
  ['go test without tests', '?   \texample.org/y\t[no test files]', 0],
  ['go test -run Nothing', 'ok  \texample.org/x\t0.002s [no tests to run]', 0],
  [
    'cargo test',
    'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\ntest result: ok. 2 passed; 0 failed; 0 ignored',
    5,
  ],
  [
    'cargo test without tests',
    'running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored',
    0,
  ],
  ['bun', ' 5 pass\n 0 fail\n 9 expect() calls', 5],
  ['deno', 'ok | 4 passed | 0 failed (12ms)', 4],
  ['deno without tests', 'error: No test modules found', 0],
  ['playwright', '  3 passed (4.1s)', 3],
  ['rspec', '7 examples, 0 failures', 7],
  ['phpunit', 'OK (3 tests, 5 assertions)', 3],
  ['phpunit without tests', 'No tests executed!', 0],
  [
    'maven',
    '[INFO] Tests run: 3, Failures: 0, Errors: 0, Skipped: 0, Time elapsed: 0.1 s\n[INFO] Tests run: 3, Failures: 0, Errors: 0, Skipped: 0',
    3,
  ],
  ['two runners', '# pass 2\n# fail 0\n5 passed in 0.01s', 7],
  ['a script of one’s own', 'all good\n', undefined],
  ['nothing', '', undefined],
])('%s', (_runner, output, tests) => {
  expect(countTests(output)).toBe(tests);
});
