import { type Address, kindOf } from '../protocol/address.ts';
import type { Envelope, EpochMs } from '../protocol/message.ts';
import type { ActorRecord, ActorStatus } from '../store/store.ts';
import type { DurableEffect } from './durable-effects.ts';
import type { DurableTimer } from './durable-timers.ts';
import type { EffectOutcome } from './effect-runner.ts';
import { Mailbox } from './mailbox.ts';
import type { Registration } from './registration.ts';
import type { WaitingRoom } from './waiting-room.ts';
import type { LiveSnapshot } from './xstate-driver.ts';

/** A message in a mailbox. */
export interface MessageItem {
  readonly kind: 'message';
  readonly envelope: Envelope;
  /** It is a row, or becomes one if nobody handles it before the commit. */
  readonly durable: boolean;
  /** The stage that will insert its row. Undefined: the row is there already, or nobody needs it. */
  stage: object | undefined;
  /** It was handled: a second delivery changes nothing. */
  taken: boolean;
  /** Messages that led to it, each sent in the turn of the one before, since something came from outside or fell due. */
  readonly chain: number;
}

/** What waits for an actor: a message, a timer that is due, an effect that has ended. */
export type Item =
  | MessageItem
  | { readonly kind: 'timer'; readonly timer: DurableTimer }
  | { readonly kind: 'effect'; readonly effect: DurableEffect; readonly outcome: EffectOutcome };

/** An actor in memory, or the place where its messages wait until it is. */
export class Actor {
  readonly address: Address;
  readonly kind: string;
  readonly mailbox = new Mailbox<Item>();
  /** Who waits for a place in the mailbox; undefined: nobody. */
  room: WaitingRoom | undefined = undefined;
  /**
   * loading: it is being read, or about to be. parked: its machine is not registered yet. quarantined: its stored
   * state does not fit its machine. down: it has ended, and its supervisor has not said yet whether it lives again. Of
   * these, messages wait. ended: they are refused. absent: there is no such actor, and an order for it waits.
   */
  state: 'loading' | 'live' | 'parked' | 'quarantined' | 'down' | 'ended' | 'absent' = 'loading';
  /** What its supervisor has ordered; carried out before anything in its mailbox. */
  orders: MessageItem[] | undefined = undefined;
  /** The message that asks for it to be made, while nobody knows whether it exists. */
  birth: MessageItem | undefined = undefined;
  registration: Registration | undefined = undefined;
  snapshot: LiveSnapshot | undefined = undefined;
  /** It is in the queue of those that have a turn to take. */
  queued = false;
  /** It is in the queue of those that go first. */
  hurries = false;
  lastUsed: EpochMs;
  /** Stages that hold a change of it and are not committed yet; the last of them. */
  uncommitted = 0;
  /** Answers of it to those outside that wait for a commit. */
  unsaid = 0;
  stage: object | undefined = undefined;

  // As in its row.
  machine = '';
  version = 0;
  status: ActorStatus = 'active';
  seq = 0;
  parent: Address | null = null;
  reason: string | null = null;
  updatedAt: EpochMs = 0;

  constructor(address: Address, now: EpochMs) {
    this.address = address;
    this.kind = kindOf(address);
    this.lastUsed = now;
  }

  record(): ActorRecord {
    return {
      address: this.address,
      machine: this.machine,
      version: this.version,
      status: this.status,
      seq: this.seq,
      parent: this.parent,
      reason: this.reason,
      updatedAt: this.updatedAt,
    };
  }
}
