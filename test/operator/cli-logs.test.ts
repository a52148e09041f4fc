import { expect, test } from 'vitest';
import { Cli, makeProject, open, troupe, troupeProcess } from './cli-fixture.ts';

/** Prints, waits for a gate, prints again, and hands in a file. */
const TALK = `
const fs = require('fs');
const project = process.env.TROUPE_PROJECT;
console.log('begins \\u001b[2J');
const look = () => {
  if (!fs.existsSync(project + '/gate')) return;
  fs.writeFileSync('src/one.js', 'export const it = 1;\\n');
  console.log('ends');
  process.exit(0);
};
fs.watch(project, look);
look();
`;

test('what an agent prints is followed from another process, and is there afterwards', async () => {
  const directory = makeProject([{ id: 'one' }], {
    agents: {
      script: {
        ...{ engine: 'command', run: ['node', '-e', TALK] },
        throttle: { limit: 5, period: '1s', key: 'input.customer' },
      },
    },
  });
  const running = new Cli(directory, ['run']);
  await running.until(/Run main/);
  const following = new Cli(directory, ['logs', 'one', '--follow']);
  await following.until(/begins/);
  const asked = await troupe(directory, 'query', 'agent/script', 'work');
  expect(JSON.parse(asked.stdout)).toMatchObject({
    running: [{ task: 'task/main/one', attempt: 1 }],
    limits: { throttle: { limit: 5, periodMs: 1_000, key: 'input.customer' } },
  });
  const told = await troupe(directory, 'signal', 'one', 'steer', '{"to":"left"}');
  expect(told).toMatchObject({ exitCode: 0 });
  open(directory, 'gate');
  const { stdout, exitCode } = await following.ended;
  expect(exitCode).toBe(0);
  // What would take over the terminal is gone.
  expect(stdout.replaceAll(/ +$/gm, '')).toBe('begins\nends\n');
  expect((await running.ended).exitCode).toBe(0);

  const later = await troupe(directory, 'logs', 'one', '--from', '1', '--json');
  expect(JSON.parse(later.stdout)).toMatchObject({ offset: 1, value: 'ends\n', epoch: 1, seq: 2 });
  const signals = await troupe(directory, 'logs', 'one', '--stream', 'signal:steer');
  expect(signals.stdout).toContain('{"to":"left"}');
  const none = await troupe(directory, 'logs', 'one', '--stream', 'none');
  expect(none).toMatchObject({ exitCode: 21 });
  expect(none.stderr).toContain(
    'task/main/one has no stream "none" yet; it has output, signal:steer.',
  );
  const ended = await troupeProcess(directory, 'signal', 'one', 'steer');
  expect(ended).toMatchObject({ exitCode: 22 });
  const unknown = await troupe(directory, 'query', 'agent/script', 'nothing');
  expect(unknown.stderr).toContain('the machine "agent" has work.');
}, 180_000);

/** Prints what it is told to: for each gate one text, and hands in a file after the last. */
const RECITE = `
const fs = require('fs');
const project = process.env.TROUPE_PROJECT;
const texts = ['first\\n\\n\\n', 'second\\n\\n', 'third\\n\\n'];
let at = 0;
const look = () => {
  while (at < texts.length && (at === 0 || fs.existsSync(project + '/gate' + at))) process.stdout.write(texts[at++]);
  if (at < texts.length) return;
  fs.writeFileSync('src/one.js', 'export const it = 1;\\n');
  process.exit(0);
};
fs.watch(project, look);
look();
`;

test('-f follows as well, every line is there, and it ends with its reader', async () => {
  const directory = makeProject([{ id: 'one' }], {
    agents: { script: { engine: 'command', run: ['node', '-e', RECITE] } },
  });
  const running = new Cli(directory, ['run']);
  await running.until(/Run main/);
  const following = new Cli(directory, ['logs', '-f', 'one']);
  await following.until(/first/);
  const unread = new Cli(directory, ['logs', 'one', '-f']);
  await unread.until(/first/);
  unread.child.stdout?.destroy();
  const audit = new Cli(directory, ['audit', '--follow']);
  await audit.until(/task\/main\/one/);
  audit.child.stdout?.destroy();
  open(directory, 'gate1');
  expect(await unread.ended).toMatchObject({ exitCode: 0, stderr: '' });
  // Two orders: the first wakes it, and what it writes then tells it that nobody reads.
  expect(await troupe(directory, 'pause-task', 'one')).toMatchObject({ exitCode: 0 });
  expect(await troupe(directory, 'resume-task', 'one')).toMatchObject({ exitCode: 0 });
  expect(await audit.ended).toMatchObject({ exitCode: 0, stderr: '' });
  expect(running.child.exitCode).toBeNull();
  open(directory, 'gate2');
  expect(await following.ended).toMatchObject({
    exitCode: 0,
    stdout: 'first\n\n\nsecond\n\nthird\n\n',
  });
  await running.ended;
  const none = await troupe(directory, 'logs', 'one', '--stream', 'none', '--from', '3');
  expect(none).toMatchObject({ exitCode: 21 });
  expect(await troupe(directory, 'logs', 'one', '--from', '3')).toMatchObject({
    exitCode: 0,
    stdout: '',
  });
  // The short form of another command is the project's file, before and after the command.
  const file = `${directory}/troupe.yaml`;
  for (const argv of [
    ['status', '-f', file],
    ['-f', file, 'status'],
    ['logs', 'one', '--file', file],
  ]) {
    expect(await troupe('/', ...argv)).toMatchObject({ exitCode: 0, stderr: '' });
  }
}, 180_000);
