import type { WorkspaceInput } from '../machines/task-machine.ts';
import { taskAddress } from '../protocol/address.ts';
import { toFailure } from '../protocol/errors.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EffectContext } from '../runtime/effect-runner.ts';
import { stepNameOf } from '../runtime/step.ts';
import type { Store } from '../store/store.ts';

/** Takes back what a finished step did, when its task is cancelled. Called at least once: make it harmless to repeat. */
export type Compensation = (context: {
  readonly run: string;
  readonly task: string;
  readonly attempt: number;
  /** What the step had returned. */
  readonly result: JsonValue;
  readonly signal: AbortSignal;
}) => Promise<void> | void;

export type Compensations = Readonly<Record<string, Compensation>>;

/** What came of taking a task back. Stored with the task. */
export interface CompensationReport {
  readonly compensated: readonly string[];
  readonly failed: readonly { readonly step: string; readonly reason: string }[];
}

/** The journal scope of one attempt: its steps outlive a question and a restart. */
export const stepScope = (task: string, attempt: number): string => `${task}@${attempt}`;

/** The journal of the signals that an attempt was given. */
export const signalScope = (task: string, attempt: number): string =>
  `${stepScope(task, attempt)}/signals`;

/**
 * Takes back the finished steps of a task, newest first, over all its attempts. Each is done once and recorded; one
 * that fails is recorded too, and does not keep the others from it.
 */
export async function compensate(
  store: Store,
  compensations: Compensations,
  input: WorkspaceInput,
  context: Pick<EffectContext, 'step' | 'signal'>,
): Promise<CompensationReport> {
  const compensated: string[] = [];
  const failed: { step: string; reason: string }[] = [];
  for (let attempt = input.attempt; attempt >= 1; attempt--) {
    const steps = await store.loadSteps(stepScope(taskAddress(input.run, input.id), attempt));
    for (const { key, outcomeJson } of steps.toReversed()) {
      const compensation = compensations[stepNameOf(key)];
      if (compensation === undefined) continue;
      const step = `${attempt}/${key}`;
      const reason = await context.step('compensate', { key: step }, async () => {
        try {
          await compensation({
            run: input.run,
            task: input.id,
            attempt,
            result: JSON.parse(outcomeJson) as JsonValue,
            signal: context.signal,
          });
          return null;
        } catch (error) {
          return toFailure(error).message;
        }
      });
      if (reason === null) compensated.push(step);
      else failed.push({ step, reason });
    }
  }
  return { compensated, failed };
}
