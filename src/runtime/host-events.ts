import type { Address } from '../protocol/address.ts';
import type { Failure } from '../protocol/errors.ts';
import type { JsonObject, JsonValue } from '../protocol/json.ts';
import type { EpochMs } from '../protocol/message.ts';
import type { AuditRow } from '../store/store.ts';
import type { DropReason } from './message-counts.ts';

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
  /** An order from outside to an actor whose machine is `audited`, or the answer to one, is in the audit stream. */
  audited: (fact: Pick<AuditRow, 'kind' | 'id' | 'address' | 'type' | 'by' | 'at'>) => void;
  /** A message or reply that came too late, twice, for somebody who has ended, or made room; nothing changed. */
  dropped: (fact: {
    readonly address: Address;
    readonly type: string;
    readonly reason: DropReason;
  }) => void;
  mailboxFull: (fact: { readonly address: Address; readonly limit: number }) => void;
  /**
   * Messages have led to messages, 10 000, 20 000, 40 000, … times in a row, each sent in the turn of the one before:
   * perhaps actors that send to each other without end. Whatever comes from outside, falls due or was an effect begins
   * anew. `ended`: the chain was longer than `chainLimit`, and this message was refused.
   */
  looped: (fact: {
    readonly address: Address;
    readonly from: Address;
    readonly type: string;
    readonly messages: number;
    readonly ended: boolean;
  }) => void;
  /** A snapshot has reached a quarter of `maxSnapshotBytes`. Told once for as long as the actor is in memory. */
  grewLarge: (fact: {
    readonly address: Address;
    readonly bytes: number;
    readonly limit: number;
  }) => void;
  /** An actor has come to its end. killed: by force, for it was not to be asked, or has not stopped in time. */
  ended: (fact: {
    readonly address: Address;
    readonly how: 'done' | 'failed' | 'killed';
    readonly reason: string | null;
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
