import type { CancelReport, WorkspaceInput } from '../machines/task-machine.ts';
import { taskAddress } from '../protocol/address.ts';
import { TimeoutError, toFailure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { Clock } from '../runtime/clock.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import { settledOrLeftBehind } from '../runtime/left-behind.ts';
import { stepNameOf } from '../runtime/step.ts';
import type { Store } from '../store/store.ts';

/**
 * Takes back what a finished step did, when its task is cancelled.
 *
 * Crash: one that was finished is not called again; one that was under way when the process died is called again, with
 * the same `key`: hand it to services that de-duplicate, or make it harmless to repeat.
 */
export type Compensation = (context: {
  readonly run: string;
  readonly task: string;
  readonly attempt: number;
  /** What the step had returned. */
  readonly result: JsonValue;
  /** The same for every call for this step, different for every other. */
  readonly key: string;
  /** Aborted when its time is up (2 minutes) or the runtime stops. */
  readonly signal: AbortSignal;
}) => Promise<void> | void;

export type Compensations = Readonly<Record<string, Compensation>>;

/** For one of them. Less than an effect may be silent, or one that hangs would take the others with it. */
const COMPENSATE_WITHIN_MS = 120_000;

/** The journal scope of one attempt: its steps outlive a question and a restart. */
const stepScope = (task: string, attempt: number): string => `${task}@${attempt}`;

/** Of whoever was asked to mend the attempt, the nth time: a journal beside that of the attempt. */
const fixScope = (task: string, attempt: number, number: number): string =>
  `${stepScope(task, attempt)}.fix${number}`;

/** The journal of the signals that were given to the work of a scope. */
export const signalScope = (scope: string): string => `${scope}/signals`;

/** One who has worked on a task. */
export interface WorkScope {
  /** Of its steps. */
  readonly scope: string;
  readonly attempt: number;
  /** Who was asked to mend the attempt; undefined for the attempt itself. */
  readonly fixer?: string;
}

type Fixers = NonNullable<WorkspaceInput['fixers']>;

/**
 * All who have worked on a task, oldest first.
 * @param attempts how many there were
 */
export function workScopes(
  task: string,
  attempts: number,
  fixers: Fixers = [],
): readonly WorkScope[] {
  const scopes: WorkScope[] = [];
  for (let attempt = 1; attempt <= attempts; attempt++) {
    scopes.push({ scope: stepScope(task, attempt), attempt });
    const mending = fixers.filter((one) => one.attempt === attempt);
    for (const [index, { agent }] of mending.entries()) {
      scopes.push({ scope: fixScope(task, attempt, index + 1), attempt, fixer: agent });
    }
  }
  return scopes;
}

/**
 * Takes back the finished steps of a task, newest first, over all its attempts: each by what the agent of that attempt, or
 * whoever was to mend it, has registered for it. Each is done once and recorded; one that fails, or takes too long, is recorded too, and does not keep the
 * others from it. When the process ends in between, the next one goes on after the last that was recorded; one during which it
 * has died as often as the task's `limits.interruptions` allow is given up.
 */
export async function compensate(
  store: Pick<Store, 'loadSteps'>,
  clock: Clock,
  compensationsOf: (agent: string) => Promise<Compensations>,
  input: WorkspaceInput,
  context: Pick<EffectContext, 'step' | 'signal' | 'attempt' | 'key'>,
): Promise<Pick<CancelReport, 'compensated' | 'failed'>> {
  const compensated: string[] = [];
  const failed: { step: string; reason: string }[] = [];
  const task = taskAddress(input.run, input.id);
  const done = context.attempt === 1 ? [] : await store.loadSteps(context.key);
  const known = new Set(done.map(({ key }) => key));
  /** Notes that a step is about to be taken back. @returns how often that was begun, this time included */
  const begin = async (step: string): Promise<number> => {
    // Nobody has died of it before the process has died once: the usual life pays for no such notes.
    if (context.attempt === 1 || known.has(`compensate[${step}]`)) return 1;
    const before = done.filter(({ key }) => key.startsWith(`begin[${step} `)).length;
    await context.step('begin', { key: `${step} ${context.attempt}` }, () => null);
    return before + 1;
  };
  for (const work of workScopes(task, input.attempt, input.fixers).toReversed()) {
    const { scope, attempt, fixer } = work;
    const steps = await store.loadSteps(scope);
    if (steps.length === 0) continue;
    const compensations = await compensationsOf(fixer ?? agentOf(input, attempt));
    for (const { key, outcomeJson } of steps.toReversed()) {
      const name = stepNameOf(key);
      const compensation = Object.hasOwn(compensations, name) ? compensations[name] : undefined;
      if (compensation === undefined) continue;
      const step = `${scope.slice(scope.lastIndexOf('@') + 1)}/${key}`;
      const times = await begin(step);
      const reason = await context.step('compensate', { key: step }, async (run) => {
        if (times > input.interruptions) {
          return `The process died at least ${times - 1} times while it was taken back.`;
        }
        try {
          await within(clock, COMPENSATE_WITHIN_MS, context.signal, async (signal) =>
            compensation({
              run: input.run,
              task: input.id,
              attempt,
              result: JSON.parse(outcomeJson) as JsonValue,
              key: `${task}/${run.key}`,
              signal,
            }),
          );
          return null;
        } catch (error) {
          // Stopped with the runtime, it is not done: the next runtime does it again.
          if (context.signal.aborted) throw error;
          return toFailure(error).message.toWellFormed();
        }
      });
      if (reason === null) compensated.push(step);
      else failed.push({ step, reason });
    }
  }
  return { compensated, failed };
}

/** Who did an attempt: since the task was reassigned the last time its agent, before that others. */
function agentOf({ agent, agentsBefore = [] }: WorkspaceInput, attempt: number): string {
  return agentsBefore.find(({ upTo }) => attempt <= upTo)?.agent ?? agent;
}

async function within(
  clock: Clock,
  ms: number,
  outer: AbortSignal,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const limit = new AbortController();
  const cancel = clock.setTimer(ms, () =>
    limit.abort(new TimeoutError(`It was not done after ${ms} ms.`)),
  );
  const signal = AbortSignal.any([outer, limit.signal]);
  try {
    await settledOrLeftBehind(work(signal), signal, clock);
  } finally {
    cancel();
  }
}
