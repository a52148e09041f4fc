import type { Address } from '../protocol/address.ts';
import type { JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { DurableEffects } from './durable-effects.ts';
import type { DurableTimers, TimerAction } from './durable-timers.ts';

/** A timer as a checkpoint keeps it. */
export interface PendingTimer {
  readonly id: string;
  readonly dueAt: EpochMs;
  readonly action: TimerAction;
}

/** An effect as a checkpoint keeps it: enough to start it again. */
export interface PendingEffect {
  readonly id: string;
  readonly src: string;
  readonly input: JsonValue;
}

/** What an actor has under way besides its state. */
export interface Pending {
  readonly timers: readonly PendingTimer[];
  readonly effects: readonly PendingEffect[];
}

const NOTHING_PENDING: Pending = { timers: [], effects: [] };

/** @returns null if it has neither timers nor effects, as most actors have most of the time */
export function pendingJsonOf(
  address: Address,
  timers: DurableTimers,
  effects: DurableEffects,
): string | null {
  if (!timers.has(address) && !effects.has(address)) return null;
  const ofTimers = Array.from(timers.of(address), (timer) => timer.toPendingJson());
  const ofEffects = Array.from(effects.of(address), ({ record: { id, src, inputJson } }) => {
    const name = `"id":${JSON.stringify(id)},"src":${JSON.stringify(src)}`;
    return `{${name},"input":${inputJson}}`;
  });
  return `{"timers":[${ofTimers.join()}],"effects":[${ofEffects.join()}]}`;
}

export function parsePending(json: string | null): Pending {
  return json === null ? NOTHING_PENDING : (JSON.parse(json) as Pending);
}
