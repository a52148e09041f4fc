import { expect, test } from 'vitest';
import {
  Cli,
  makeProject,
  merges,
  ONCE,
  open,
  troupe,
  untilWritten,
  workedProject,
  writing,
} from './cli-fixture.ts';

const held = () =>
  workedProject(
    [
      writing('one', { wrongUntil: 'mended' }),
      writing('two', {}, { dependsOn: ['one'] }),
      writing('three', {}, { dependsOn: ['two'] }),
      writing('four', {}, { dependsOn: ['one'] }),
    ],
    30,
    ONCE,
  );

test('resume --skip-to says what it would do, and does nothing that leaves others blocked', async () => {
  const directory = await held();
  const dry = await troupe(directory, 'resume', '--skip-to', 'three', '--dry-run');
  expect(dry).toMatchObject({ exitCode: 0 });
  expect(dry.stdout).toBe(
    [
      'To go on with three, these would be skipped, which means cancelled:',
      '  one (escalated)',
      '  two (waiting)',
      'These depend on what would be skipped and would be left blocked (refused without --strand):',
      '  four (without one)',
      'Nothing was changed.',
      '',
    ].join('\n'),
  );
  expect(await troupe(directory, 'resume', 'main', '--skip-to', 'thre')).toMatchObject({
    exitCode: 21,
    stderr: expect.stringContaining('did you mean three?'),
  });
  const refused = await troupe(directory, 'resume', '--skip-to', 'three');
  expect(refused).toMatchObject({
    exitCode: 22,
    stderr: expect.stringContaining('"four" (depends on one)'),
  });
  expect(refused.stderr).toContain('troupe resume main --skip-to three --strand');
}, 120_000);

test('resume --skip-to goes on with a task without those that hold it up', async () => {
  const directory = await held();
  const skipped = await troupe(directory, 'resume', '--skip-to', 'three', '--strand');
  expect(skipped).toMatchObject({ exitCode: 30 });
  expect(skipped.stdout).toContain('Skipped, so that three goes on without:\n  one\n  two\n');
  expect(merges(directory)).toEqual(['three']);
  expect((await troupe(directory, 'show', 'one')).stdout).toContain(
    'Skipped by cli: "three" goes on without it.',
  );
  expect(await troupe(directory, 'cancel', 'four')).toMatchObject({ exitCode: 0 });
  await troupe(directory, 'resume');
  expect(await troupe(directory, 'resume', '--skip-to', 'four')).toMatchObject({
    exitCode: 22,
    stderr: expect.stringContaining('Run main has ended: it is done'),
  });
}, 120_000);

test('resume --skip-to tells the troupe that works on the run', async () => {
  const directory = makeProject([
    writing('slow', { pid: 'slow.pid', wait: 'never' }),
    writing('last', {}, { dependsOn: ['slow'] }),
  ]);
  const running = new Cli(directory, ['run']);
  await untilWritten(directory, 'slow.pid');
  const told = await troupe(directory, 'resume', 'main', '--skip-to', 'main/last');
  expect(told).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('  slow\n') });
  await running.ended;
  expect(merges(directory)).toEqual(['last']);
  open(directory, 'never');
}, 120_000);

test('--strand without --skip-to is a mistake', async () => {
  expect(await troupe(makeProject([writing('one')]), 'resume', '--strand')).toMatchObject({
    exitCode: 20,
    stderr: expect.stringContaining('--strand is for --skip-to'),
  });
});
