import { fromPromise, type PromiseActorLogic } from 'xstate';
import type { JsonValue } from '../protocol/json.ts';
import type { EffectContext } from './effect-runner.ts';

/** How an effect is restarted that runs somebody else's code, and so may be what the process dies of. */
export interface RestartPolicy<Input = JsonValue> {
  /**
   * The process may die so often in a row while the effect is under way; then it fails, and its failure's context says
   * `interruptions`. From the second time on the effect is a suspect: suspects are started one at a time.
   */
  readonly interruptions: (input: Input) => number;
}

/**
 * Work a machine may invoke: `setup({ actors: { charge: effect(async ({ input, step, signal }) => …) } })`.
 * Under a durable host `fn` gets the whole `EffectContext`: steps, progress, a key, an abort signal.
 * Crash: it runs again from its start; finished steps return what they returned.
 * @param restart default: started again beside the others, up to the host's `maxEffectRestarts`
 */
export function effect<Output extends JsonValue, Input = JsonValue>(
  fn: (context: EffectContext<Input>) => Promise<Output>,
  restart?: RestartPolicy<Input>,
): PromiseActorLogic<Output, Input> {
  const creator = (context: EffectContext<Input>): Promise<Output> => fn(context);
  // The host calls promise logic with more than XState's own types know.
  return fromPromise<Output, Input>(
    (restart === undefined ? creator : Object.assign(creator, { restart })) as never,
  );
}
