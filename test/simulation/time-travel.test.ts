import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ALL_FAULTS } from '../extent.ts';
import { travelling } from './scenario.ts';
import { simulate } from './world.ts';
import { replay, yieldToEventLoop } from './worlds.ts';

const env = process.env;
/** How many worlds are lived through; `npm run faults` takes more time for it. */
const SCHEDULES = Number(env['TROUPE_SIMULATIONS'] ?? (ALL_FAULTS ? 300 : 60));
/*
 * Runs that are cut, rolled back and forked at any moment, in worlds that fail and crash. All the promises hold: each
 * run ends, every count is right, and each task is accepted once in each of its lives.
 */
test(`runs go back and fork in ${SCHEDULES} worlds, and still come to a proper end`, {
  timeout: 600_000,
}, async () => {
  let worlds = 0;
  let rolledBack = 0;
  let forked = 0;
  await fc.assert(
    fc.asyncProperty(travelling, async (scenario) => {
      // Messages wait in mailboxes: what is in flight is half of what a cut is about.
      const report = await simulate(scenario, {
        shortSlices: scenario.order % 2 === 0 ? 0.1 : 0.9,
      });
      worlds++;
      rolledBack += report.rolledBack;
      forked += report.forked;
      await yieldToEventLoop();
    }),
    { numRuns: SCHEDULES, ...replay(20_261_121) },
  );
  // What did not happen has proved nothing.
  if (worlds < 100) return;
  expect(rolledBack, 'tasks rolled back').toBeGreaterThan(worlds * 2);
  expect(forked, 'tasks forked').toBeGreaterThan(worlds);
});
