import { expect, test } from 'vitest';
import {
  Cli,
  makeProject,
  open,
  troupe,
  troupeProcess,
  untilWritten,
  writing,
} from './cli-fixture.ts';

interface Entry {
  readonly kind: string;
  readonly type: string | null;
  readonly id: string;
  readonly by: string | null;
}
const entriesIn = (stdout: string): Entry[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Entry);

test('audit and flow of a run that works, and after it has ended', {
  timeout: 90_000,
}, async () => {
  const directory = makeProject([
    writing('one', { pid: 'one.pid', wait: 'gate' }),
    writing('two', {}, { staged: true }),
  ]);
  const running = new Cli(directory, ['run']);
  await untilWritten(directory, 'one.pid');

  const flow = await troupeProcess(directory, 'flow', '--json');
  expect(JSON.parse(flow.stdout)).toMatchObject({
    flow: { agents: { script: 'external', patcher: 'external' }, toInternal: 0, dialogue: null },
  });
  const status = await troupe(directory, 'status', '--json');
  expect(JSON.parse(status.stdout)).toMatchObject({ flow: { since: expect.any(Number) } });

  const following = new Cli(directory, [
    'audit',
    '--follow',
    '--json',
    '--address',
    'task/main/two',
  ]);
  expect(await troupe(directory, 'cancel', 'two', '--reason', 'password=hunter22')).toMatchObject({
    exitCode: 0,
  });
  open(directory, 'gate');
  // A task was cancelled.
  expect((await running.ended).exitCode).toBe(22);
  const followed = await following.ended;
  expect(followed.exitCode).toBe(0);
  const seen = entriesIn(followed.stdout);
  expect(seen).toMatchObject([
    { kind: 'born', id: 'task/main/two#0' },
    { kind: 'order', type: 'task.cancel', by: 'cli' },
    { kind: 'turn', type: 'task.cancel' },
    { kind: 'answer', type: 'task.cancel' },
    { kind: 'turn', type: 'xstate.done.actor.release' },
  ]);
  expect(followed.stdout).not.toContain('hunter22');

  const [, order] = seen;
  const led = await troupe(directory, 'audit', '--correlation', order?.id ?? '');
  expect(led.stdout).toMatch(/task\/main\/two {2}order task\.cancel {2}by cli {2}\{.*\[redacted\]/);
  expect(led.stdout).toContain('run/main#');
  expect((await troupe(directory, 'audit', '--from', '2h', '--to', '1h')).stdout).toBe('');
  expect((await troupe(directory, 'flow')).stdout).toContain('Nothing runs now.');
  expect(await troupe(directory, 'audit', '--from', 'noon')).toMatchObject({
    exitCode: 20,
    stderr: expect.stringContaining(
      'Expected --from to be a date such as 2026-11-30T12:00:00Z, or so long ago',
    ),
  });
});
