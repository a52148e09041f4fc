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
