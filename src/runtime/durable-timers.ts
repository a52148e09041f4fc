import type { Address } from '../protocol/address.ts';
import type { Envelope, EpochMs } from '../protocol/message.ts';
import type { Priority } from '../protocol/priority.ts';
import type { TimerRecord } from '../store/store.ts';
import type { Agenda, Appointment } from './agenda.ts';
import type { Commits } from './commits.ts';
import type { MachineEvent } from './xstate-driver.ts';

/** What a timer does when it is due; stored as JSON. */
export type TimerAction =
  /** The actor gets an event: `after`, or a delayed `raise`. */
  | { readonly do: 'event'; readonly event: MachineEvent }
  /** Nobody has answered a request of the actor in time. */
  | {
      readonly do: 'deadline';
      readonly request: string;
      readonly to: string;
      readonly correlation: string;
      readonly attempt: number;
      readonly timeoutMs: number;
      /** Of the request. Default: normal (timers of an earlier Troupe have none). */
      readonly priority?: Priority;
    }
  /** Nobody waits for the answer to a request any more: whoever made it was rolled back to when it had just asked. */
  | { readonly do: 'rolledBack'; readonly request: string; readonly to: string }
  /** A message is sent. */
  | { readonly do: 'send'; readonly envelope: Envelope }
  /** It was asked to stop, and has not. `again`: it was granted the time once more, for nobody was there when it was over. */
  | {
      readonly do: 'end';
      readonly reason: string;
      readonly timeoutMs: number;
      readonly again?: true;
    };

/** The last that `Date` knows: what would be due later is due then. */
const LAST_MOMENT: EpochMs = 8.64e15;

export class DurableTimer implements Appointment {
  readonly address: Address;
  readonly id: string;
  readonly generation: string;
  readonly dueAt: EpochMs;
  readonly action: TimerAction;
  /** It was neither cleared nor replaced, and nobody has handled that it is due. */
  live = true;
  /** There may be a row of its id. */
  stored: boolean;
  /** A deadline whose answer has come, and waits for its turn: the answer was in time, whenever that is. */
  kept = false;
  /** It was due. */
  rang = false;
  slot = -1;
  order = 0;
  readonly #timers: DurableTimers;
  #actionJson: string | undefined;

  constructor(
    timers: DurableTimers,
    address: Address,
    id: string,
    generation: string,
    dueAt: EpochMs,
    action: TimerAction,
    stored: boolean,
  ) {
    this.#timers = timers;
    this.address = address;
    this.id = id;
    this.generation = generation;
    this.dueAt = dueAt;
    this.action = action;
    this.stored = stored;
  }

  due(): void {
    this.rang = true;
    this.#timers.due(this);
  }

  toRecord(): TimerRecord {
    return {
      address: this.address,
      id: this.id,
      generation: this.generation,
      dueAt: this.dueAt,
      actionJson: this.#action,
    };
  }

  /** As a `PendingTimer`, in JSON. */
  toPendingJson(): string {
    return `{"id":${JSON.stringify(this.id)},"dueAt":${this.dueAt},"action":${this.#action}}`;
  }

  /** It may be asked for once per turn of the actor. */
  get #action(): string {
    this.#actionJson ??= JSON.stringify(this.action);
    return this.#actionJson;
  }
}

/**
 * The timers of all actors, in memory or not. A timer is a row with an absolute due time; one that is overdue
 * after a restart is due at once. Ids are unique within an actor: a second timer of an id replaces the first.
 */
export class DurableTimers {
  readonly #byAddress = new Map<string, Map<string, DurableTimer>>();
  readonly #agenda: Agenda;
  readonly #commits: Commits;
  /** Called when a timer is due. It stays live, and stored, until somebody takes it. */
  readonly due: (timer: DurableTimer) => void;
  #size = 0;

  constructor(agenda: Agenda, commits: Commits, due: (timer: DurableTimer) => void) {
    this.#agenda = agenda;
    this.#commits = commits;
    this.due = due;
  }

  get size(): number {
    return this.#size;
  }

  recover(record: TimerRecord, action: TimerAction): void {
    const { id, generation, dueAt } = record;
    const address = record.address as Address;
    this.#add(new DurableTimer(this, address, id, generation, dueAt, action, true));
  }

  set(address: Address, id: string, generation: string, dueAt: EpochMs, action: TimerAction): void {
    const replaced = this.#byAddress.get(address)?.get(id);
    if (replaced !== undefined) this.take(replaced);
    // A delay may be any number (backoff with jitter is a fraction); a due time is a whole millisecond of the calendar.
    const at = Math.min(Math.ceil(dueAt), LAST_MOMENT);
    const timer = new DurableTimer(this, address, id, generation, at, action, false);
    this.#commits.stage.setTimer(timer);
    this.#add(timer);
  }

  get(address: Address, id: string): DurableTimer | undefined {
    return this.#byAddress.get(address)?.get(id);
  }

  /** All of an actor. */
  of(address: Address): Iterable<DurableTimer> {
    return this.#byAddress.get(address)?.values() ?? [];
  }

  has(address: Address): boolean {
    return this.#byAddress.has(address);
  }

  clear(address: Address, id: string): void {
    const timer = this.get(address, id);
    if (timer !== undefined) this.take(timer);
  }

  clearAll(address: Address): void {
    for (const timer of this.#byAddress.get(address)?.values() ?? []) this.take(timer);
  }

  /** Ends a timer. @returns false if it had ended already */
  take(timer: DurableTimer): boolean {
    if (!timer.live) return false;
    timer.live = false;
    this.#size--;
    this.#agenda.remove(timer);
    const timers = this.#byAddress.get(timer.address);
    timers?.delete(timer.id);
    if (timers?.size === 0) this.#byAddress.delete(timer.address);
    this.#commits.stage.clearTimer(timer);
    return true;
  }

  /**
   * The answer it is a deadline for has come, and waits in the mailbox: senders take turns there, so that the deadline
   * might overtake it.
   * @returns false if the request does not wait for this answer
   */
  keep(address: Address, id: string, correlation: string, attempt: number): boolean {
    const timer = this.get(address, id);
    if (timer === undefined || timer.action.do !== 'deadline') return false;
    if (timer.action.correlation !== correlation || timer.action.attempt !== attempt) return false;
    if (!timer.rang) timer.kept = true;
    return true;
  }

  /** The answer is taken back. */
  unkeep(address: Address, id: string): void {
    const timer = this.get(address, id);
    if (timer === undefined || !timer.kept) return;
    timer.kept = false;
    // It was due meanwhile, and nobody has heeded it.
    if (timer.rang) this.due(timer);
  }

  #add(timer: DurableTimer): void {
    let timers = this.#byAddress.get(timer.address);
    if (timers === undefined) {
      timers = new Map();
      this.#byAddress.set(timer.address, timers);
    }
    timers.set(timer.id, timer);
    this.#size++;
    this.#agenda.add(timer);
  }
}
