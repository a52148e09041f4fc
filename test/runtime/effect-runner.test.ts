import { expect, test } from 'vitest';
import { noFaults } from '../../src/protocol/fault-point.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { EffectRunner, type Runnable } from '../../src/runtime/effect-runner.ts';
import type { EffectCreator } from '../../src/runtime/xstate-driver.ts';

test('an effect that is aborted when its start is just recorded does not start, and gives its place back', async () => {
  const effect = (generation: string): Runnable => ({
    record: {
      ...{ address: 'work/a', id: 'job', src: 'job', generation, attempt: 1, crashes: 0 },
      ...{ inputJson: '{}', startedAt: null },
    } as unknown as Runnable['record'],
    suspect: false,
    hasSteps: false,
  });
  const [aborted, other] = [effect('1'), effect('2')];
  const recorded = Promise.withResolvers<boolean>();
  const ended = Promise.withResolvers<Runnable>();
  const unwanted = (): never => {
    throw new Error('not part of this test');
  };
  const runner = new EffectRunner<Runnable>(
    {
      ...{ clock: systemClock, faultPoint: noFaults },
      starting: (effect) => (effect === aborted ? recorded.promise : Promise.resolve(true)),
      ended: ended.resolve,
      ...{ loadSteps: unwanted, saveStep: unwanted, transact: unwanted },
      ...{ stepsUnused: () => undefined, progressed: unwanted, stream: unwanted },
    },
    { concurrency: 1, heartbeatMs: 0 },
  );
  const started: string[] = [];
  const job = (name: string): EffectCreator => Object.assign(() => started.push(name), {});
  runner.enqueue(aborted, job('aborted'));
  runner.enqueue(other, job('other'));
  recorded.resolve(true);
  runner.abort(aborted, 'rolled back');
  expect(await ended.promise).toBe(other);
  expect(started).toEqual(['other']);
});
