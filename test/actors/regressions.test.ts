import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import type { Engine } from '../../src/actors/engine.ts';
import { regressionNumber, regressionPrefix } from '../../src/actors/regressions.ts';
import { parseId } from '../../src/protocol/address.ts';
import { accepts, DISKS, type Disk, Gate, memoryDisk, reaches } from './open-troupe.ts';

const REPORT = {
  reason: 'The parser drops the last line.',
  evidence: { test: 'parse.test.ts:12' },
};

/** With a run in which `parser` is done. */
async function open(disk: Disk = memoryDisk(), engine: Engine = () => null) {
  const troupe = await disk.open();
  troupe.agent('ada', engine);
  troupe.gatekeeper('g', accepts);
  const run = await troupe.start({
    id: 'main',
    tasks: [
      {
        ...{ id: 'parser', title: 'Write the parser', agent: 'ada', gatekeeper: 'g' },
        ...{ input: { lines: 3 }, priority: 'high', limits: { attempts: 4 } },
      },
      { id: 'docs', agent: 'ada', gatekeeper: 'g', dependsOn: ['parser'] },
    ],
  });
  await run.result();
  return { troupe, run };
}

describe.each(DISKS)('a task that was done and is broken again, on $disk', ({ make }) => {
  test('is done once more in a run of its own, by who knows what is wrong', async () => {
    const disk = make();
    const told: unknown[] = [];
    const gate = new Gate();
    const engine: Engine = async ({ task, signal }) => {
      if (task.run !== 'main') {
        told.push([task.id, task.title, task.input, task.guidance]);
        await gate.wait(signal);
      }
      return null;
    };
    const { troupe, run } = await open(disk, engine);
    const made = await run.reportRegression('parser', REPORT);
    expect(made).toMatchObject({ task: 'parser', isNew: true });
    expect(made.run).toMatch(/^main-parser-regression-[0-9a-f]{10}-1$/);
    await gate.reached;
    expect(told).toEqual([
      [
        ...['parser', 'Regression: Write the parser'],
        { lines: 3 },
        [
          'This was done once, as task parser of run main, and is broken again: The parser drops the last line.\nWhat shows it: {"test":"parse.test.ts:12"}',
        ],
      ],
    ]);
    expect(await troupe.task(made.run, 'parser').status()).toMatchObject({
      dependsOn: [],
      regressionOf: { run: 'main', task: 'parser' },
    });
    // What was done stays done, and is nobody's regression.
    expect(await run.result()).toMatchObject({ state: 'done', total: 2 });
    expect((await run.task('parser').status()).regressionOf).toBeNull();

    // Open, also after a restart: the same one, whoever is asked about it.
    await reaches(troupe, `task/${made.run}/parser`, 'working');
    const again = { ...made, state: 'working', isNew: false };
    expect(await run.reportRegression('parser', { reason: 'Another one.' })).toEqual(again);
    await troupe.stop();
    const { troupe: next, run: same } = await open(disk, engine);
    expect(await same.reportRegression('parser', REPORT)).toEqual(again);
    expect(await next.run(made.run).reportRegression('parser', REPORT)).toEqual(again);
    expect(await next.runs()).toHaveLength(2);
    gate.pass();
    expect(await next.run(made.run).result()).toMatchObject({ state: 'done', total: 1 });
    const [task] = (await next.run(made.run).result()).tasks;
    expect(task).toMatchObject({ agent: 'ada', state: 'done' });
  });

  test('makes another task when the last one has ended, and always about the first', async () => {
    const { troupe, run } = await open(make());
    const first = await run.reportRegression('parser', REPORT);
    await troupe.run(first.run).result();
    const second = await troupe.run(first.run).reportRegression('parser', REPORT);
    expect(second.run).toBe(first.run.replace(/1$/, '2'));
    await troupe.run(second.run).result();
    const status = await troupe.task(second.run, 'parser').status();
    expect(status.regressionOf).toEqual({ run: 'main', task: 'parser' });
    expect(status.title).toBe('Regression: Write the parser');
    // Of reports at once one makes it, whichever task they are about.
    const third = await Promise.all([
      run.reportRegression('parser', REPORT),
      troupe.run(first.run).reportRegression('parser', REPORT),
      run.reportRegression('docs', REPORT),
    ]);
    expect(third.map(({ isNew }) => isNew)).toEqual([true, false, true]);
    expect(third[0]?.run).toBe(first.run.replace(/1$/, '3'));
    expect(third[1]?.run).toBe(third[0]?.run);
    expect(await troupe.runs()).toHaveLength(5);
    await Promise.all(third.map((one) => troupe.run(one.run).result()));
  });
});

test('refuses a task that is not done, and one that there is not', async () => {
  const { troupe, run } = await open();
  const other = await troupe.start({
    id: 'other',
    tasks: [{ id: 'later', agent: 'ada', gatekeeper: 'g', staged: true }],
  });
  await expect(other.reportRegression('later', REPORT)).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('Task "other/later" is staged: only what was done'),
  });
  await expect(run.reportRegression('nothing', REPORT)).rejects.toMatchObject({
    code: 'not_found',
  });
  expect(await troupe.runs()).toHaveLength(2);
});

test.each([
  { report: undefined, says: 'expected an object with settings' },
  {
    report: {},
    says: 'to be a text of 1 to 2000 characters that says what is broken, got undefined',
  },
  { report: { reason: ' ' }, says: 'got 1 characters' },
  { report: { reason: 'x'.repeat(2_001) }, says: 'got 2001 characters' },
  { report: { reason: 'x', why: 1 }, says: 'there is no setting "why"' },
  { report: { reason: 'x', evidence: new Date(0) }, says: 'to be plain JSON' },
  { report: { reason: 'x', evidence: 'y'.repeat(32_000) }, says: 'keep it in a file' },
])('refuses a report that $says', async ({ report, says }) => {
  const { troupe, run } = await open();
  await expect(run.reportRegression('parser', report as never)).rejects.toMatchObject({
    code: 'validation',
    message: expect.stringContaining(says),
  });
  expect(await troupe.runs()).toHaveLength(1);
});

const id = fc
  .stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
  .filter((text) => !text.includes('..'));

test.prop([id, id, id, id, fc.integer({ min: 1, max: 999_999_999 })])(
  'the runs that mend a task have ids, and no other task has them',
  (run, task, otherRun, otherTask, number) => {
    const prefix = regressionPrefix(run, task);
    const made = `${prefix}${number}`;
    expect(parseId(made, 'it')).toBe(made);
    expect(regressionNumber(made, prefix)).toBe(number);
    fc.pre(run !== otherRun || task !== otherTask);
    expect(regressionNumber(made, regressionPrefix(otherRun, otherTask))).toBeUndefined();
    expect(regressionNumber(otherRun, prefix)).toBeUndefined();
  },
);

test.prop([id, id, id])('names that read the same together are told apart', (a, b, c) => {
  expect(regressionPrefix(`${a}-${b}`, c)).not.toBe(regressionPrefix(a, `${b}-${c}`));
});

test('what its agent is shown of long evidence is not cut in the middle of a character', async () => {
  const told: string[] = [];
  const { run, troupe } = await open(memoryDisk(), ({ task }) => {
    told.push(...task.guidance);
    return null;
  });
  const evidence = `${'x'.repeat(1_499)}😀 and so on`;
  const made = await run.reportRegression('parser', { reason: 'It is broken.', evidence });
  await troupe.run(made.run).result();
  expect(told).toHaveLength(1);
  expect(told[0]?.isWellFormed()).toBe(true);
});
