import fc from 'fast-check';
import type { TaskState } from '../../src/protocol/catalogue.ts';
import type { Priority } from '../../src/protocol/priority.ts';

/** What happens in one simulated world. Plain data: printed when it fails, kept when it once failed. */
export interface Scenario {
  /** Seed of the scheduler; 0: first come, first served. */
  readonly order: number;
  /** How many tasks each agent does at once. */
  readonly agents: readonly number[];
  readonly gatekeeper: number;
  /** Tasks in flight at once; 0: as many as the agents can do. */
  readonly concurrency: number;
  readonly limits: {
    readonly attempts: number;
    readonly sameError: number;
    readonly sameChange: number;
    readonly sameFeedback: number;
    readonly infrastructureAttempts: number;
  };
  readonly tasks: readonly PlannedTask[];
  /** What the overseer's policy answers, in turn. */
  readonly policy: readonly PolicyAnswer[];
  readonly person: readonly PersonAction[];
  readonly faults: readonly Fault[];
  /** Another agent mends what is rejected. */
  readonly qa?: Mending;
  /** What the person does, instead of the usual, about a task that waits in a state when nothing moves. */
  readonly rules?: readonly Rule[];
}

/** What an agent that mends does, and what the gatekeeper says to it, by the task and the number of the request, over and over. */
export interface Mending {
  readonly concurrency: number;
  readonly sessions: number;
  readonly iterations: number;
  readonly work: readonly Work[];
  readonly verify: readonly Verification[];
}

export interface PlannedTask {
  readonly agent: number;
  readonly dependsOn: readonly number[];
  readonly priority: Priority;
  readonly staged: boolean;
  /** What its agent does at attempt 1, 2, …; after the last one it delivers. */
  readonly work: readonly Work[];
  /** What the gatekeeper says to attempt 1, 2, …; after the last one, or once it has failed often enough, it accepts. */
  readonly verify: readonly Verification[];
}

export const WORK = ['submit', 'fail', 'infrastructure', 'ask', 'hang', 'deaf', 'die'] as const;
/** What most do: a world in which everything dies shows nothing else. */
const SURVIVED = WORK.filter((work) => work !== 'die');
export interface Work {
  /** `hang`: until it is aborted. `deaf`: not even then. `die`: with the whole process. */
  readonly do: (typeof WORK)[number];
  /** Which error, which change, which kind of question; how often it dies before it does not (2: it always does). */
  readonly variant: number;
  readonly ms: number;
  readonly steps: number;
}

export const VERIFICATIONS = [
  'accept',
  'reject',
  'approval',
  'noEvidence',
  'infrastructure',
  'hang',
] as const;
export interface Verification {
  readonly do: (typeof VERIFICATIONS)[number];
  /** Which error; of a gatekeeper that cannot judge: how often it cannot, less one. */
  readonly variant: number;
  readonly ms: number;
}

export const POLICY_ANSWERS = ['none', 'retry', 'approve', 'block', 'cancel', 'reassign'] as const;
export type PolicyAnswer = (typeof POLICY_ANSWERS)[number];

export const TASK_ACTIONS = [
  'cancel',
  'pause',
  'resume',
  'unblock',
  'unblockLater',
  'answer',
  'enable',
  'retry',
  'approve',
  'reassign',
  'block',
  'decideCancel',
  'skipTo',
] as const;
export const RUN_ACTIONS = ['run.pause', 'run.resume', 'run.cancel'] as const;
/** Going back: see `travelling`. */
export const TRAVELS = ['run.checkpoint', 'run.rollback', 'run.fork', 'task.rollback'] as const;
export type PersonDoes =
  | (typeof TASK_ACTIONS)[number]
  | (typeof RUN_ACTIONS)[number]
  | (typeof TRAVELS)[number];

export interface PersonAction {
  /** Not before so many steps of the world; earlier if it comes to rest. */
  readonly after: number;
  readonly do: PersonDoes;
  readonly task: number;
  /** Default: the run of the scenario. */
  readonly run?: string;
}

export interface Rule {
  readonly task: number;
  readonly state: TaskState;
  readonly do: PersonDoes;
}

export type Fault =
  /** The process dies between two steps. */
  | { readonly do: 'crash'; readonly step: number }
  /** The same, and nobody starts it again for two days: every deadline has passed. */
  | { readonly do: 'down'; readonly step: number }
  /** It dies so many hits of fault points after its start, the first life counted apart. */
  | { readonly do: 'crashAtPoint'; readonly life: number; readonly hit: number }
  | { readonly do: 'stop'; readonly step: number; readonly drain: boolean }
  /** The nth commit fails; `stored`: only the answer says so. */
  | { readonly do: 'commitFails'; readonly nth: number; readonly stored: boolean }
  | { readonly do: 'readFails'; readonly nth: number }
  /** The nth delivery to a mailbox happens twice, or not at all: then the process dies soon. */
  | { readonly do: 'duplicate'; readonly nth: number }
  | { readonly do: 'drop'; readonly nth: number };

/** How much there is in a scenario: what shrinking makes small. */
export function sizeOf(scenario: Scenario): number {
  const scripts = scenario.tasks.map((task) => 1 + task.work.length + task.verify.length);
  return (
    scripts.reduce((sum, n) => sum + n, 0) +
    scenario.person.length +
    scenario.faults.length +
    scenario.policy.length
  );
}

const variant = fc.nat({ max: 2 });
// 90 s is longer than an agent may take.
const ms = fc.constantFrom(0, 0, 0, 5, 50, 5_000, 90_000);

const work: fc.Arbitrary<Work> = fc.record({
  do: fc.constantFrom(...WORK, ...SURVIVED, ...(['fail', 'fail', 'fail', 'submit'] as const)),
  variant,
  ms,
  steps: fc.nat({ max: 2 }),
});

const verification: fc.Arbitrary<Verification> = fc.record({
  do: fc.constantFrom(...VERIFICATIONS, 'reject' as const, 'reject' as const),
  variant,
  ms,
});

function planned(agents: number): fc.Arbitrary<readonly PlannedTask[]> {
  const task = fc.record({
    agent: fc.nat({ max: agents - 1 }),
    earlier: fc.array(fc.nat({ max: 11 }), { maxLength: 3 }),
    priority: fc.constantFrom<Priority>(2, 2, 2, 1, 3, 4, 5),
    staged: fc.constantFrom(false, false, false, false, false, true),
    work: fc.array(work, { maxLength: 3 }),
    verify: fc.array(verification, { maxLength: 3 }),
  });
  return fc.array(task, { minLength: 1, maxLength: 12 }).map((tasks) =>
    tasks.map(({ earlier, ...rest }, position) => ({
      ...rest,
      dependsOn: [...new Set(earlier.filter((index) => index < position))],
    })),
  );
}

const person: fc.Arbitrary<readonly PersonAction[]> = fc.array(
  fc.record({
    after: fc.nat({ max: 400 }),
    do: fc.constantFrom<PersonDoes>(...TASK_ACTIONS, ...RUN_ACTIONS, 'run.pause', 'run.resume'),
    task: fc.nat({ max: 11 }),
  }),
  { maxLength: 8 },
);

const fault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('crash' as const), step: fc.nat(600) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('crashAtPoint' as const),
      life: fc.nat({ max: 3 }),
      hit: fc.integer({ min: 1, max: 250 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('down' as const), step: fc.nat(400) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('stop' as const),
      step: fc.nat({ max: 400 }),
      drain: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('commitFails' as const),
      nth: fc.integer({ min: 1, max: 80 }),
      stored: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('readFails' as const),
      nth: fc.integer({ min: 1, max: 30 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('duplicate' as const, 'drop' as const),
      nth: fc.integer({ min: 1, max: 200 }),
    }),
  },
);

const count = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max });

/** Scenarios: 1 to 12 tasks, 1 to 3 agents, small limits, up to 8 orders of a person, up to 5 faults. */
export const scenarios: fc.Arbitrary<Scenario> = fc
  .array(count(3), { minLength: 1, maxLength: 3 })
  .chain((agents) =>
    fc.record({
      order: fc.nat({ max: 1_000_000 }),
      agents: fc.constant(agents),
      gatekeeper: count(2),
      concurrency: fc.nat({ max: 4 }),
      limits: fc.record({
        attempts: count(4),
        sameError: fc.integer({ min: 2, max: 3 }),
        sameChange: fc.integer({ min: 2, max: 3 }),
        sameFeedback: fc.integer({ min: 2, max: 3 }),
        infrastructureAttempts: count(3),
      }),
      tasks: planned(agents.length),
      policy: fc.array(fc.constantFrom(...POLICY_ANSWERS), { maxLength: 3 }),
      person,
      faults: fc.array(fault, { maxLength: 5 }),
    }),
  );

/** The same, with a person who keeps moments of the run, goes back to some, and forks it. */
export const travelling: fc.Arbitrary<Scenario> = fc
  .tuple(
    scenarios,
    fc.array(
      fc.record({
        after: fc.nat({ max: 400 }),
        do: fc.constantFrom<PersonDoes>(...TRAVELS, 'run.rollback', 'run.checkpoint'),
        task: fc.nat({ max: 11 }),
      }),
      { minLength: 1, maxLength: 5 },
    ),
  )
  .map(([scenario, travels]) => ({ ...scenario, person: [...scenario.person, ...travels] }));

/** The same, with an agent that mends what is rejected, and a person who now and then goes back. */
export const mending: fc.Arbitrary<Scenario> = fc
  .tuple(
    fc.oneof({ weight: 3, arbitrary: scenarios }, { weight: 1, arbitrary: travelling }),
    fc.record({
      concurrency: count(2),
      sessions: count(3),
      iterations: count(3),
      work: fc.array(work, { minLength: 1, maxLength: 4 }),
      verify: fc.array(verification, { minLength: 1, maxLength: 4 }),
    }),
  )
  .map(([scenario, qa]) => ({
    ...scenario,
    qa,
    // Most of what is handed in first is rejected: else there is little to mend.
    tasks: scenario.tasks.map((task, position) => ({
      ...task,
      verify: [{ do: 'reject' as const, variant: position % 3, ms: 0 }, ...task.verify],
    })),
  }));
