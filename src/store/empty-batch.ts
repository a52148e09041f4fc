import type { Batch } from './store.ts';

/** Nothing to write: for whoever writes one thing. */
export const EMPTY_BATCH: Batch = {
  actors: [],
  checkpoints: [],
  consumed: [],
  messages: [],
  clearedTimers: [],
  timers: [],
  clearedEffects: [],
  effects: [],
  steps: [],
  clearedSteps: [],
  clearedIdempotency: [],
  idempotency: [],
  deadLetters: [],
  projections: [],
  removedAttempts: [],
  claims: [],
  cuts: [],
};
