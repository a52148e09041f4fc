import type { Address } from '../protocol/address.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';

/** One turn, told after its commit. */
export interface Turn {
  readonly address: Address;
  readonly machine: string;
  readonly seq: number;
  readonly at: EpochMs;
  /** The type of the event handled, and who sent it; null for the initial state. */
  readonly event: { readonly type: string; readonly from: Address } | null;
  readonly state: JsonValue;
  readonly context: JsonObject;
  readonly status: 'active' | 'done' | 'error';
}

/** What happens in the host, told after it is stored. Fact names, past tense. */
export interface HostEvents {
  turn: (turn: Turn) => void;
  /** An actor has become again what it was at checkpoint `to`; that is its checkpoint `seq` now. A `turn` tells it too. */
  rolledBack: (fact: {
    readonly address: Address;
    readonly to: number;
    readonly seq: number;
    readonly at: EpochMs;
  }) => void;
  /** A machine's `emit`. */
  emitted: (fact: { readonly address: Address; readonly event: JsonObject }) => void;
  deadLettered: (fact: {
    readonly address: Address;
    readonly type: string;
    readonly reason: string;
  }) => void;
  /** A message or reply that came too late, twice, or for somebody who has ended; nothing changed. */
  dropped: (fact: {
    readonly address: Address;
    readonly type: string;
    readonly reason: 'late' | 'duplicate' | 'ended' | 'nobody';
  }) => void;
  mailboxFull: (fact: { readonly address: Address; readonly limit: number }) => void;
  /** A snapshot has reached a quarter of `maxSnapshotBytes`. Told once for as long as the actor is in memory. */
  grewLarge: (fact: {
    readonly address: Address;
    readonly bytes: number;
    readonly limit: number;
  }) => void;
  quarantined: (fact: { readonly address: Address; readonly reason: string }) => void;
  effectStarted: (fact: EffectFact) => void;
  effectEnded: (fact: EffectFact & { readonly failure: Failure | null }) => void;
  progress: (fact: {
    readonly address: Address;
    readonly src: string;
    readonly value: JsonValue;
  }) => void;
  /** Somebody has written to a stream, or closed it. Told once for each commit. */
  streamed: (fact: {
    readonly address: Address;
    readonly name: string;
    /** The offset of the chunk that comes next. */
    readonly next: number;
    readonly closed: boolean;
  }) => void;
  /**
   * An effect has ended well and has not asked for steps that were kept for it: its code has changed since, or went
   * another way this time. What they did stays done.
   */
  stepsUnused: (fact: {
    readonly address: Address;
    readonly src: string;
    readonly scope: string;
    readonly keys: readonly string[];
  }) => void;
  recovered: (fact: {
    readonly messages: number;
    readonly timers: number;
    readonly effects: number;
    readonly actors: number;
  }) => void;
  /** A commit failed: the host has stopped, because its memory is ahead of what is stored. */
  failed: (error: Error) => void;
}

export interface EffectFact {
  readonly address: Address;
  readonly id: string;
  readonly src: string;
  readonly attempt: number;
}
