import { describe, expect, test } from 'vitest';
import { ALL_FAULTS } from '../extent.ts';
import type { Fault, PlannedTask, Scenario, Verification, Work } from './scenario.ts';
import { simulate } from './world.ts';
import { yieldToEventLoop } from './worlds.ts';

const work = (kind: Work['do'], steps = 0, ms = 0, variant = 0): Work => ({
  do: kind,
  steps,
  ms,
  variant,
});
const verdict = (kind: Verification['do'], variant = 0, ms = 0): Verification => ({
  do: kind,
  variant,
  ms,
});
const task = (parts: Partial<PlannedTask> = {}): PlannedTask => ({
  agent: 0,
  dependsOn: [],
  priority: 2,
  staged: false,
  work: [],
  verify: [],
  ...parts,
});

/** Twelve tasks, each with a fate of its own. What they come to does not depend on the order of things. */
const SCENARIO: Scenario = {
  order: 0,
  agents: [2, 1],
  gatekeeper: 1,
  concurrency: 0,
  limits: { attempts: 2, sameError: 2, sameChange: 2, sameFeedback: 2, infrastructureAttempts: 2 },
  tasks: [
    task({ work: [work('submit', 2)] }),
    task({ work: [work('fail', 1)] }),
    task({ agent: 1, verify: [verdict('reject', 1)] }),
    task({ work: [work('ask', 1)] }),
    task({ agent: 1, verify: [verdict('approval')] }),
    task({ work: [work('infrastructure')] }),
    task({ agent: 1, work: [work('hang')], dependsOn: [0] }),
    // The same error twice: blocked, and unblocked by a person.
    task({ work: [work('fail', 0, 5), work('fail')], priority: 5 }),
    // All attempts used up: escalated, and tried again.
    task({ verify: [verdict('reject', 0), verdict('reject', 1), verdict('noEvidence')] }),
    task({ agent: 1, dependsOn: [0, 1, 2], work: [work('submit', 0, 50)] }),
    task({ staged: true, dependsOn: [3] }),
    // Escalated, and called off.
    task({ work: [work('fail', 0, 0, 0), work('fail', 0, 0, 1)] }),
  ],
  policy: [],
  person: [],
  faults: [],
  rules: [{ task: 11, state: 'escalated', do: 'cancel' }],
};

/** One gives up; what waits for it is skipped to, which leaves another one blocked that a person lets go on. */
const SKIPPING: Scenario = {
  ...SCENARIO,
  tasks: [
    task({ staged: true }),
    task({ dependsOn: [0] }),
    task({ agent: 1, dependsOn: [1] }),
    task({ dependsOn: [0] }),
  ],
  rules: [
    { task: 0, state: 'staged', do: 'resume' },
    { task: 2, state: 'waiting', do: 'skipTo' },
  ],
};

/**
 * A run has some thousand places. `npm run faults` crashes at each of them; otherwise it is every 13th, from the first on,
 * and of the recoveries those of every 149th crash, each at every third hit.
 */
const STRIDE = ALL_FAULTS ? 1 : 13;
const RECOVERED_STRIDE = ALL_FAULTS ? 13 : 149;

/** The faults may strike to the very end. */
const HARSH = { harsh: true, replay: false };
const withFaults = (...faults: Fault[]): Scenario => ({ ...SCENARIO, faults });

describe('crash at the 1st, 2nd, 3rd … place until a run ends untouched', {
  timeout: ALL_FAULTS ? 3_600_000 : 300_000,
}, () => {
  test('the undisturbed run has something of everything', async () => {
    const { outcome } = await simulate(SCENARIO, HARSH);
    const states = (JSON.parse(outcome) as { tasks: { state: string; attempts: number }[] }).tasks;
    expect(states.map(({ state }) => state)).toEqual([...Array(11).fill('done'), 'cancelled']);
  });

  test('at every fault point the run comes to the same end', async () => {
    const untouched = await simulate(SCENARIO, HARSH);
    let n = 1;
    for (; ; n += STRIDE) {
      const report = await simulate(withFaults({ do: 'crashAtPoint', life: 0, hit: n }), HARSH);
      expect(report.outcome, `crash at hit ${n}`).toBe(untouched.outcome);
      if (report.fired.length === 0) break;
      await yieldToEventLoop();
    }
    expect(n, 'the loop went through all of the run').toBeGreaterThan(untouched.hits[0] as number);
  });

  test('between any two steps the run comes to the same end', async () => {
    const untouched = await simulate(SCENARIO, HARSH);
    let n = 0;
    for (; ; n += STRIDE) {
      const report = await simulate(withFaults({ do: 'crash', step: n }), HARSH);
      expect(report.outcome, `crash at step ${n}`).toBe(untouched.outcome);
      if (report.fired.length === 0) break;
      await yieldToEventLoop();
    }
    expect(n, 'the loop went through all of the run').toBeGreaterThanOrEqual(untouched.steps);
  });

  test('while a person skips to a task, at every fault point and between steps', async () => {
    const untouched = await simulate(SKIPPING, HARSH);
    const { tasks } = JSON.parse(untouched.outcome) as { tasks: { state: string }[] };
    expect(tasks.map(({ state }) => state)).toEqual([
      ...['cancelled', 'cancelled', 'done', 'done'],
    ]);
    const faults = [
      { stride: ALL_FAULTS ? 3 : 11, fault: (n: number): Fault => ({ do: 'crash', step: n }) },
      {
        stride: ALL_FAULTS ? 1 : 3,
        fault: (n: number): Fault => ({ do: 'crashAtPoint', life: 0, hit: n + 1 }),
      },
    ];
    for (const { stride, fault } of faults) {
      for (let n = 0; ; n += stride) {
        const report = await simulate({ ...SKIPPING, faults: [fault(n)] }, HARSH);
        expect(report.outcome, JSON.stringify(fault(n))).toBe(untouched.outcome);
        if (report.fired.length === 0) break;
        await yieldToEventLoop();
      }
    }
  });

  test('when it crashes again during the recovery, too', async () => {
    const untouched = await simulate(SCENARIO, HARSH);
    const last = untouched.hits[0] as number;
    let recoveries = 0;
    // Primes apart, so that both loops meet every kind of place.
    for (let n = 1; n <= last; n += RECOVERED_STRIDE) {
      for (let again = 1; again <= 31; again += 3) {
        const report = await simulate(
          withFaults(
            { do: 'crashAtPoint', life: 0, hit: n },
            { do: 'crashAtPoint', life: 1, hit: again },
          ),
          HARSH,
        );
        expect(report.outcome, `crash at hit ${n}, and at hit ${again} of the recovery`).toBe(
          untouched.outcome,
        );
        if (report.fired.length === 2) recoveries++;
        await yieldToEventLoop();
      }
    }
    expect(recoveries, 'recoveries that crashed').toBeGreaterThan((last / RECOVERED_STRIDE) * 6.5);
  });
});
