import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { examples } from './examples.ts';
import { mending, scenarios } from './scenario.ts';
import { simulate, World } from './world.ts';
import { livesThroughWorlds, replay, SCHEDULES, yieldToEventLoop } from './worlds.ts';

const SEED = 20_261_120;

describe('the whole runtime, simulated', () => {
  livesThroughWorlds(SEED);

  test(`mends what is rejected, and no more often than it may, in ${SCHEDULES / 16} such worlds`, {
    timeout: 600_000,
  }, async () => {
    let worlds = 0;
    let mended = 0;
    await fc.assert(
      fc.asyncProperty(mending, async (scenario) => {
        const report = await simulate(scenario);
        worlds++;
        mended += report.mended;
        await yieldToEventLoop();
      }),
      { numRuns: Math.ceil(SCHEDULES / 16), ...replay(SEED) },
    );
    if (worlds < 100) return;
    expect(mended, 'requests to mend something').toBeGreaterThan(worlds);
  });

  test('is the same world, step by step, when the scenario is the same', async () => {
    await fc.assert(
      fc.asyncProperty(scenarios, async (scenario) => {
        const first = new World(scenario, { trace: true });
        const second = new World(scenario, { trace: true });
        await first.live();
        await second.live();
        expect(second.trace).toEqual(first.trace);
        await yieldToEventLoop();
      }),
      { numRuns: 30 },
    );
  });

  test.each(examples)('$found', async ({ scenario }) => {
    await simulate(scenario);
  });
});
