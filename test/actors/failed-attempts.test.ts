import { describe, expect, test } from 'vitest';
import type { EngineContext } from '../../src/actors/engine.ts';
import { patchEngine } from '../../src/actors/patch-engine.ts';
import { TroupeError } from '../../src/protocol/errors.ts';
import { accepts, DISKS, memoryDisk } from './open-troupe.ts';

describe.each(DISKS)('an attempt on $disk', ({ make }) => {
  test('is told how often the work has failed before it, whatever infrastructure has cost', async () => {
    const disk = make();
    const fates = ['infrastructure', 'work', 'infrastructure', 'rejected', 'ask', 'infrastructure'];
    const told: [attempt: number, failed: number][] = [];
    const open = async () => {
      const troupe = await disk.open();
      troupe.agent('ada', async ({ task, ask }) => {
        told.push([task.attempt, task.failedAttempts]);
        const fate = fates[task.attempt - 1];
        if (fate === 'work') throw new Error('It does not compile.');
        if (fate === 'infrastructure') throw new TroupeError('unavailable', 'The disk is full.');
        if (fate === 'ask') {
          await ask({ id: 'q', text: 'Which?' });
          throw new TroupeError('unavailable', 'The disk is full.');
        }
        return { fate: fate ?? 'good' };
      });
      troupe.gatekeeper('g', ({ submission }) =>
        (submission.result as { fate: string }).fate === 'good'
          ? { accepted: true, evidence: ['seen'] }
          : { accepted: false, reason: 'No.', evidence: ['seen'] },
      );
      return troupe;
    };
    const first = await open();
    const backoff = { initialMs: 1, jitter: 0 };
    const run = await first.start({
      id: 'r',
      limits: { backoff, infrastructureBackoff: backoff },
      tasks: [{ id: 't', agent: 'ada', gatekeeper: 'g' }],
    });
    expect(await run.result()).toMatchObject({ state: 'blocked' });
    await first.stop();
    // What was counted is stored, and an attempt that goes on is told the same.
    const second = await open();
    await second.task('r', 't').answer('q', 'this');
    expect(await second.run('r').result()).toMatchObject({ state: 'done' });
    expect(told).toEqual([
      ...([
        [1, 0],
        [2, 0],
        [3, 1],
        [4, 1],
        [5, 2],
        [5, 2],
        [6, 2],
        [7, 2],
      ] as const),
    ]);
  });
});

describe('an attempt that fails with an odd error', () => {
  test.each<{ title: string; error: () => Error }>([
    {
      title: 'a wait that is not a number',
      error: () => new TroupeError('rate_limited', 'Wait.', { retryAfterMs: Number.NaN }),
    },
    {
      title: 'a wait without end',
      error: () => new TroupeError('rate_limited', 'Wait.', { retryAfterMs: Infinity }),
    },
    {
      title: 'a message that is no text',
      error: () => Object.assign(new Error(), { message: { error: 'overloaded' } }),
    },
  ])('has ended, and is made again: $title', async ({ error }) => {
    const troupe = await memoryDisk().open();
    troupe.agent('ada', ({ task }) => {
      if (task.attempt === 1) throw error();
      return 'good';
    });
    troupe.gatekeeper('g', accepts);
    const backoff = { initialMs: 1, jitter: 0 };
    const run = await troupe.start({
      id: 'r',
      limits: { backoff, infrastructureBackoff: backoff },
      tasks: [{ id: 't', agent: 'ada', gatekeeper: 'g' }],
    });
    expect(await run.result()).toMatchObject({ state: 'done', tasks: [{ attempts: 2 }] });
  });
});

describe('the patch of an attempt', () => {
  const patches = ['/none/first.patch', '/none/second.patch'];
  const at = (attempt: number, failedAttempts: number) =>
    patchEngine(undefined as never)({
      task: { id: 't', attempt, failedAttempts, input: { patches } },
      workspace: {},
    } as unknown as EngineContext);

  test.each([
    { attempt: 1, failed: 0, patch: 0 },
    { attempt: 3, failed: 0, patch: 0 },
    { attempt: 4, failed: 1, patch: 1 },
    { attempt: 9, failed: 7, patch: 1 },
  ])('$attempt, after $failed that failed, is number $patch', async (expected) => {
    // None of the files exists; the error names the one that was wanted.
    await expect(at(expected.attempt, expected.failed)).rejects.toThrow(patches[expected.patch]);
  });
});
