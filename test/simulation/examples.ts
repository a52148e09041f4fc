import type { Scenario } from './scenario.ts';

/** Scenarios that once failed, as small as they became, each with what was wrong. They are lived through every time. */
export const examples: readonly { readonly found: string; readonly scenario: Scenario }[] = [
  {
    found: 'a task that began again in the commit of its rollback lost the row of that attempt',
    scenario: {
      order: 952658,
      agents: [1],
      gatekeeper: 1,
      concurrency: 0,
      limits: {
        attempts: 1,
        sameError: 2,
        sameChange: 2,
        sameFeedback: 2,
        infrastructureAttempts: 1,
      },
      tasks: [
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [] },
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [] },
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [] },
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [] },
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [] },
      ],
      policy: [],
      person: [
        { after: 83, do: 'run.fork', task: 0 },
        { after: 392, do: 'task.rollback', task: 0 },
        { after: 359, do: 'run.rollback', task: 0 },
        { after: 0, do: 'run.fork', task: 0 },
        { after: 350, do: 'run.fork', task: 0 },
      ],
      faults: [{ do: 'commitFails', nth: 18, stored: false }],
    },
  },
  {
    found:
      'a task that was rolled back while its run was, and waited for what was cancelled by then',
    scenario: {
      order: 261270,
      agents: [1, 2, 2],
      gatekeeper: 1,
      concurrency: 0,
      limits: {
        attempts: 1,
        sameError: 2,
        sameChange: 2,
        sameFeedback: 2,
        infrastructureAttempts: 1,
      },
      tasks: [
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [] },
        { agent: 0, priority: 2, staged: true, work: [], verify: [], dependsOn: [] },
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [0] },
        {
          agent: 0,
          priority: 2,
          staged: false,
          work: [],
          verify: [{ do: 'accept', variant: 0, ms: 5 }],
          dependsOn: [],
        },
      ],
      policy: [],
      person: [
        { after: 0, do: 'cancel', task: 0 },
        { after: 153, do: 'cancel', task: 9 },
        { after: 0, do: 'cancel', task: 0 },
        { after: 180, do: 'run.rollback', task: 0 },
        { after: 152, do: 'run.rollback', task: 0 },
        { after: 0, do: 'run.fork', task: 0 },
        { after: 180, do: 'task.rollback', task: 2 },
      ],
      faults: [],
    },
  },
  {
    found: 'a fork that listed the attempts of another life',
    scenario: {
      order: 168706,
      agents: [3, 2],
      gatekeeper: 1,
      concurrency: 0,
      limits: {
        attempts: 2,
        sameError: 2,
        sameChange: 2,
        sameFeedback: 2,
        infrastructureAttempts: 1,
      },
      tasks: [
        {
          agent: 0,
          priority: 2,
          staged: false,
          work: [{ do: 'hang', variant: 0, ms: 0, steps: 0 }],
          verify: [],
          dependsOn: [],
        },
        { agent: 0, priority: 2, staged: false, work: [], verify: [], dependsOn: [] },
      ],
      policy: [],
      person: [
        { after: 123, do: 'run.fork', task: 0 },
        { after: 73, do: 'run.rollback', task: 0 },
        { after: 73, do: 'run.checkpoint', task: 0 },
      ],
      faults: [],
    },
  },
];
