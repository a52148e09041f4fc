import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Batch } from '../../src/store/store.ts';
import { ALL_FAULTS } from '../extent.ts';
import { type Scenario, scenarios, sizeOf } from './scenario.ts';
import type { Tampering } from './simulated-store.ts';
import { World } from './world.ts';

/** The simulation is worth what it finds: each of these bugs must be found within so many worlds. */
const WITHIN = 300;

/** What is left of a scenario may be so large. A smaller one would say no more, and each world of the search takes its time. */
const SMALL = ALL_FAULTS ? 12 : 20;

/** Each is made for one world: it may count. */
const bugs: readonly { readonly bug: string; readonly plant: () => Tampering }[] = [
  {
    bug: 'a lost message: every third row of a message is not written',
    plant: () => {
      let nth = 0;
      return {
        commit: (batch) => ({ ...batch, messages: batch.messages.filter(() => ++nth % 3 !== 0) }),
      };
    },
  },
  {
    bug: 'no acknowledgement: the row of a handled message stays',
    plant: () => ({ commit: (batch) => ({ ...batch, consumed: [] }) }),
  },
  {
    bug: 'a lost timer: its row is not written',
    plant: () => ({ commit: (batch) => ({ ...batch, timers: [] }) }),
  },
  {
    bug: 'a lost timer: it is forgotten at the start',
    plant: () => ({ pending: (pending) => ({ ...pending, timers: [] }) }),
  },
  {
    bug: 'a lost effect: its row is not written',
    plant: () => ({ commit: (batch) => ({ ...batch, effects: [] }) }),
  },
  {
    bug: 'a stale snapshot: the message is consumed, the new state is not stored',
    plant: () => {
      let nth = 0;
      return {
        commit: (batch) =>
          batch.consumed.length > 0 && ++nth % 5 === 0 ? withoutState(batch) : batch,
      };
    },
  },
];

function withoutState(batch: Batch): Batch {
  const stale = batch.actors.at(-1)?.address;
  return {
    ...batch,
    actors: batch.actors.filter(({ address }) => address !== stale),
    checkpoints: batch.checkpoints.filter(({ address }) => address !== stale),
  };
}

describe(`a planted bug is found within ${WITHIN} worlds`, () => {
  test.each(bugs)('$bug', { timeout: 120_000 }, async ({ bug, plant }) => {
    let small = false;
    const result = await fc.check(
      fc.asyncProperty(scenarios, async (scenario) => {
        if (small) return;
        try {
          // Not `simulate`: it lives through what has failed once more, to tell of it.
          await new World(scenario, { tampering: plant() }).live();
        } catch (error) {
          small = sizeOf(scenario) <= SMALL;
          throw error;
        }
      }),
      { numRuns: WITHIN, seed: 20261120, interruptAfterTimeLimit: 90_000 },
    );
    const [scenario] = result.counterexample ?? [];
    expect(result.failed, `"${bug}" was not found in ${result.numRuns} worlds`).toBe(true);
    // What is left of the scenario shows the bug and little else.
    expect(sizeOf(scenario as Scenario), told(bug, result)).toBeLessThanOrEqual(SMALL);
  });
});

function told(bug: string, result: fc.RunDetails<[Scenario]>): string {
  const [scenario] = result.counterexample ?? [];
  const said = (result.errorInstance as Error | undefined)?.message.split('\n')[0];
  return (
    `"${bug}" was found in world ${result.numRuns} and shrunk ${result.numShrinks} times, ` +
    `to a scenario of length ${scenario === undefined ? '?' : sizeOf(scenario)}: ${said}\n${JSON.stringify(scenario)}`
  );
}
