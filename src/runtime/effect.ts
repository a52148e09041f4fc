import { fromPromise, type PromiseActorLogic } from 'xstate';
import type { JsonValue } from '../protocol/json.ts';
import type { EffectContext } from './effect-runner.ts';

/**
 * Work a machine may invoke: `setup({ actors: { charge: effect(async ({ input, step, signal }) => …) } })`.
 * Under a durable host `fn` gets the whole `EffectContext`: steps, progress, a key, an abort signal.
 * Crash: it runs again from its start; finished steps return what they returned.
 */
export function effect<Output extends JsonValue, Input = JsonValue>(
  fn: (context: EffectContext<Input>) => Promise<Output>,
): PromiseActorLogic<Output, Input> {
  // The host calls promise logic with more than XState's own types know.
  return fromPromise<Output, Input>(fn as never);
}
