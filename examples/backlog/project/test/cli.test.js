import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runCli } from '../src/cli.js';
import { commands } from '../src/commands.js';

const run = (args, input = '') => runCli(args, () => input);

test('commands are sorted and each has its own name', () => {
  const names = commands.map((command) => command.name);
  assert.deepEqual(names, [...new Set(names)].sort());
});

test('help names every command', () => {
  const { code, out } = run(['--help']);
  assert.equal(code, 0);
  for (const { usage, summary } of commands) {
    assert.ok(out.includes(usage));
    assert.ok(out.includes(summary));
  }
});

for (const { name, example } of commands) {
  test(`textkit ${name} does what its example says`, () => {
    const result = run([name, ...example.args], example.input);
    assert.deepEqual(result, { code: 0, out: example.output, err: '' });
  });
}

test('nonsense ends with code 2 and a reason', () => {
  assert.match(run(['fly']).err, /there is no command fly/);
  assert.equal(run(['fly']).code, 2);
  assert.match(run(['case', 'shout'], 'x').err, /Expected one of camel, kebab, snake, title/);
  assert.match(run(['wrap', 'wide'], 'x').err, /Expected width to be an integer/);
});

test('the real command reads standard input', () => {
  const bin = fileURLToPath(new URL('../bin/textkit.js', import.meta.url));
  const out = execFileSync(process.execPath, [bin, 'slugify'], {
    input: 'Hi there',
    encoding: 'utf8',
  });
  assert.equal(out, 'hi-there');
});
